"""Connections of the house: Airflow's API, the sources, the warehouse."""

import json
import time
from collections.abc import Callable
from types import SimpleNamespace

import psycopg
import pytest
from airflow.sdk import Connection

from include.api.client import NoLimit
from include.api.errors import FixConfiguration, NotFound
from include.sources import get_source
from include.warehouse.migrate import migrate
from include.warehouse.rate_limit import SharedLimit
from plugins.hooks import airflow_api, warehouse
from plugins.hooks.source import _limiter, base_url
from tests.plugins.conftest import POOL, SOURCE


class TestAirflowApi:
    def test_pool_as_it_is(self, airflow):
        airflow.pools[POOL] |= {"slots": 0, "occupied_slots": 2, "description": None}
        with airflow_api.opened() as api:
            assert api.pool(POOL) == airflow_api.Pool(slots=0, occupied=2, description="")

    def test_set_pool_changes_what_it_names(self, airflow):
        with airflow_api.opened() as api:
            api.set_pool(POOL, 0, "STOPPED by me")
            assert api.pool(POOL) == airflow_api.Pool(0, 0, "STOPPED by me")
        [(name, query, body)] = airflow.calls
        assert name == POOL
        assert set(query["update_mask"]) == {"slots", "description", "include_deferred"}
        assert body == {"pool": POOL, "slots": 0, "include_deferred": True, "description": "STOPPED by me"}

    def test_open_pool_is_as_declared(self, airflow):
        declared = airflow_api.declared_pools()[POOL]
        with airflow_api.opened() as api:
            api.set_pool(POOL, 0, "STOPPED by me")
            api.open_pool(POOL)
        assert {key: airflow.pools[POOL][key] for key in declared} == declared

    @pytest.mark.parametrize("run_id", ["manual__2026-01-01T00:00:00.5+00:00_x7", "a~b-c.d:e+f"])
    def test_state_of_a_run_of_any_name(self, airflow, run_id):
        with airflow_api.opened() as api:
            assert api.run_state(f"a_dag/{run_id}") is None
            airflow.runs[f"a_dag/{run_id}"] = "running"
            assert api.run_state(f"a_dag/{run_id}") == "running"

    def test_unknown_pool(self, airflow):
        with airflow_api.opened() as api, pytest.raises(NotFound, match="pools/nowhere"):
            api.pool("nowhere")

    def test_refused_login_says_which_connection(self, airflow, monkeypatch):
        wrong = {"conn_type": "http", "host": airflow.url, "login": "runbook", "password": "n0t-this-one"}
        monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps(wrong))
        with pytest.raises(FixConfiguration, match="connection 'airflow_api'") as refused, airflow_api.opened():
            pass
        assert "n0t-this-one" not in str(refused.value)


class TestSource:
    @pytest.mark.parametrize(
        ("fields", "url"),
        [
            ({"host": "https://shop.example.com"}, "https://shop.example.com"),
            ({"host": "https://shop.example.com/"}, "https://shop.example.com"),
            ({"host": "shop.example.com"}, "https://shop.example.com"),
            ({"host": "shop.example.com", "schema": "http"}, "http://shop.example.com"),
            ({"host": "shop.example.com", "schema": "http", "port": 8000}, "http://shop.example.com:8000"),
            ({"host": "http://127.0.0.1:8000"}, "http://127.0.0.1:8000"),
            ({"host": "http://127.0.0.1", "port": 8000}, "http://127.0.0.1:8000"),
        ],
    )
    def test_base_url(self, fields, url):
        assert base_url(Connection(conn_id="x", conn_type="http", **fields)) == url

    @pytest.mark.parametrize(("extra", "interval"), [({}, 60 / 180), ({"requests_per_minute": 60}, 1.0)])
    def test_vendors_limit_unless_the_connection_names_another(self, connected, conn, extra, interval):
        limiter = _limiter(SOURCE, get_source(SOURCE).per_minute, SimpleNamespace(extra_dejson=extra), conn)
        assert isinstance(limiter, SharedLimit)
        assert limiter._interval == pytest.approx(interval / SharedLimit.UTILISATION)

    def test_no_limit_on_order(self, conn):
        limiter = _limiter(SOURCE, 180, SimpleNamespace(extra_dejson={"requests_per_minute": 0}), conn)
        assert isinstance(limiter, NoLimit)

    def test_opened_reaches_both_and_leaves_no_session(self, control, opened, conn):
        def sessions() -> int:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return conn.execute(query).fetchone()[0]

        with opened("a_dag/a_run") as context:
            assert (context.source.name, context.run) == (SOURCE, "a_dag/a_run")
            assert context.client.send(context.source.entities[0].listing).data["customers"]
            assert context.conn.autocommit
            assert sessions() == 2
        until_gone(sessions)


def until_gone(sessions: Callable[[], int]) -> None:
    """A session's process ends a moment after its connection."""
    deadline = time.monotonic() + 10
    while sessions():
        assert time.monotonic() < deadline, "a session was left open"
        time.sleep(0.01)


class TestWarehouse:
    def test_session_is_named_and_in_autocommit(self, connected):
        with warehouse.connect("x" * 100) as conn:
            assert isinstance(conn, psycopg.Connection)
            assert conn.autocommit
            assert conn.execute("SHOW application_name").fetchone() == ("x" * 63,)

    def test_url_is_one_that_migrations_take(self, connected):
        assert migrate(warehouse.url())
