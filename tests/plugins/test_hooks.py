"""The connections: Airflow's API, the sources, the warehouse."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import urlsplit

import boto3
import psycopg
import pytest
import requests
from airflow.sdk import Connection
from botocore.stub import Stubber

from include.api.bucket import Bucket, Presence
from include.api.errors import FixConfiguration, NotSent, TryLater
from include.api.limits import NoLimit
from include.confidence.watch import Run
from include.simulators import flex as flex_simulator
from include.simulators.storage import Store
from include.sources import REGISTRY, get_source
from include.sources.flex.source import QUOTA
from include.warehouse.migrate import migrate
from include.warehouse.rate_limit import Both, Quota, SharedLimit
from plugins.hooks import airflow_api, mwaa, warehouse
from plugins.hooks import source as source_hook
from plugins.hooks.source import AirflowConnections, _limiter, base_url
from tests.plugins.conftest import POOL, SOURCE, storage_connection


class TestAirflowApi:
    def test_pool_as_it_is(self, airflow):
        taken = {"occupied_slots": 4, "running_slots": 1, "deferred_slots": 1, "queued_slots": 2}
        airflow.pools[POOL] |= {"slots": 0, "description": None} | taken
        with airflow_api.opened() as api:
            assert api.pool(POOL) == airflow_api.Pool(slots=0, at_work=2, description="", include_deferred=True)

    def test_set_pool_changes_what_it_names(self, airflow):
        with airflow_api.opened() as api:
            api.set_pool(POOL, 0, "STOPPED by me")
            assert api.pool(POOL) == airflow_api.Pool(0, 0, "STOPPED by me", True)
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

    def test_pool_that_was_deleted_is_none_and_made_anew(self, airflow):
        declared = airflow_api.declared_pools()[POOL]
        del airflow.pools[POOL]
        with airflow_api.opened() as api:
            assert api.pool(POOL) is None
            api.set_pool(POOL, 0, "STOPPED by me")
            assert api.pool(POOL) == airflow_api.Pool(0, 0, "STOPPED by me", True)
            del airflow.pools[POOL]
            api.open_pool(POOL)
        assert {key: airflow.pools[POOL][key] for key in declared} == declared

    def test_missing_pools_are_created_and_others_left_as_they_are(self, airflow):
        stopped, missing = list(airflow_api.declared_pools())[:2]
        airflow.pools[stopped] |= {"slots": 0, "description": "STOPPED by me"}
        before = dict(airflow.pools[stopped])
        del airflow.pools[missing]
        with airflow_api.opened() as api:
            assert api.create_missing_pools() == [missing]
            assert api.create_missing_pools() == []
        declared = airflow_api.declared_pools()[missing]
        assert {key: airflow.pools[missing][key] for key in declared} == declared
        assert airflow.pools[stopped] == before

    def test_connection_without_login_has_a_token(self, airflow, monkeypatch):
        for token, known in ((airflow.token, True), ("another", False)):
            connection = {"conn_type": "http", "host": airflow.url, "password": token}
            monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps(connection))
            with nullcontext() if known else pytest.raises(FixConfiguration), airflow_api.opened() as api:
                assert api.pool(POOL).slots == 1

    @pytest.mark.parametrize(
        ("description", "run"),
        [
            (
                airflow_api.closed_by("a_dag/manual__2026-01-01T00:00:00+00:00", 17),
                "a_dag/manual__2026-01-01T00:00:00+00:00",
            ),
            ("STOPPED by me", None),
            ("closed by hand", None),
            ("", None),
        ],
    )
    def test_closed_pool_says_by_which_run(self, description, run):
        assert airflow_api.Pool(0, 0, description, True).closer == run

    def test_run_with_what_its_tasks_do(self, airflow):
        name = "a_dag/manual__2026-01-01T00:00:00+00:00"
        with airflow_api.opened() as api:
            assert api.run(name) == Run(name, None)
            assert api.run("no run at all") == Run("no run at all", None)
            airflow.runs[name] = "running"
            assert api.run(name) == Run(name, "running", moved_at=datetime(2026, 3, 1, 3, tzinfo=UTC))
            airflow.tasks[name] = [
                {"state": "success", "start_date": "2026-03-01T03:01:00Z", "end_date": "2026-03-01T03:05:00Z"},
                {"state": "scheduled", "scheduled_when": "2026-03-01T03:06:00.5Z"},
                {"state": None},
            ]
            assert api.run(name).moved_at == datetime(2026, 3, 1, 3, 6, 0, 500_000, UTC)
            idle = api.run(name)
            assert (idle.working, idle.asking, idle.paused) == (False, False, False)
            for state in ("running", "restarting", "deferred"):
                airflow.tasks[name][1]["state"] = state
                assert api.run(name).working
            airflow.tasks[name][1]["state"] = "awaiting_input"
            airflow.paused.add("a_dag")
            assert (api.run(name).asking, api.run(name).working, api.run(name).paused) == (True, False, True)

    def test_refused_login_says_which_connection(self, airflow, monkeypatch):
        wrong = {"conn_type": "http", "host": airflow.url, "login": "runbook", "password": "n0t-this-one"}
        monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps(wrong))
        with pytest.raises(FixConfiguration, match="connection 'airflow_api'") as refused, airflow_api.opened():
            pass
        assert "n0t-this-one" not in str(refused.value)


class TestMwaa:
    """Its web server is not to be had: what is checked is which calls we make, and what we say if they fail."""

    MADE: ClassVar = {"WebServerHostname": "abc.example.com", "WebToken": "web-t0ken"}

    @pytest.fixture
    def aws(self, monkeypatch) -> Iterator[Stubber]:
        connection = {"conn_type": "aws", "extra": {"region_name": "eu-west-1", "mwaa_environment": "sync"}}
        monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps(connection))
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "s3cret"}
        client = boto3.client("mwaa", region_name="eu-west-1", **keys)
        monkeypatch.setattr(mwaa.MwaaHook, "conn", client)
        with Stubber(client) as stubber:
            yield stubber

    def test_token_of_the_web_server_opens_the_api(self, aws, monkeypatch):
        aws.add_response("create_web_login_token", self.MADE, {"Name": "sync"})
        asked = []

        def post(url: str, **options: Any) -> SimpleNamespace:
            asked.append((url, options["data"]))
            return SimpleNamespace(raise_for_status=lambda: None, cookies={"_token": "t0ken"})

        monkeypatch.setattr(mwaa.requests, "post", post)
        with airflow_api.opened() as api:
            session = api._client._session
            assert (api._client._base_url, session.headers["Authorization"]) == (
                "https://abc.example.com",
                "Bearer t0ken",
            )
        assert asked == [("https://abc.example.com/pluginsv2/aws_mwaa/login", {"token": "web-t0ken"})]

    def test_refusal_of_aws_names_connection_and_right(self, aws):
        aws.add_client_error("create_web_login_token", "AccessDeniedException")
        with (
            pytest.raises(FixConfiguration, match=r"AccessDeniedException.*'airflow_api'.*airflow:CreateWebLoginToken"),
            airflow_api.opened(),
        ):
            pass

    def test_web_server_that_does_not_answer_is_tried_later(self, aws, monkeypatch):
        aws.add_response("create_web_login_token", self.MADE)

        def post(url: str, **options: Any) -> None:
            raise requests.ConnectionError(f"{url} {options}")

        monkeypatch.setattr(mwaa.requests, "post", post)
        with pytest.raises(TryLater, match="let nobody in") as failed, airflow_api.opened():
            pass
        assert "web-t0ken" not in str(failed.value)

    def test_connection_without_an_environment_says_what_to_set(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps({"conn_type": "aws"}))
        with pytest.raises(FixConfiguration, match="names no mwaa_environment"), airflow_api.opened():
            pass


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
        limiter = _limiter(SOURCE, get_source(SOURCE).per_minute, Quota(), SimpleNamespace(extra_dejson=extra), conn)
        assert isinstance(limiter, SharedLimit)
        assert limiter._interval == pytest.approx(interval / SharedLimit.UTILISATION)

    def test_no_limit_on_order(self, conn):
        limiter = _limiter(SOURCE, 180, Quota(), SimpleNamespace(extra_dejson={"requests_per_minute": 0}), conn)
        assert isinstance(limiter, NoLimit)

    @pytest.mark.parametrize(
        ("extra", "quota"),
        [
            ({}, Quota(1_950, 9_900)),
            ({"requests_per_hour": 20, "requests_per_day": "100"}, Quota(20, 100)),
            ({"requests_per_hour": 20}, Quota(20, 9_900)),
            ({"requests_per_hour": 0}, Quota(None, 9_900)),
        ],
    )
    def test_quota_unless_the_connection_names_another(self, connected, conn, extra, quota):
        limiter = _limiter("flex", None, QUOTA, SimpleNamespace(extra_dejson=extra), conn)
        assert isinstance(limiter, Both)
        assert (limiter.count._quota, type(limiter.limit)) == (quota, NoLimit)

    def test_no_quota_on_order(self, conn):
        none = SimpleNamespace(extra_dejson={"requests_per_hour": 0, "requests_per_day": 0})
        assert isinstance(_limiter("flex", None, QUOTA, none, conn), NoLimit)

    def test_quota_comes_before_the_rate(self, connected, conn):
        extra = SimpleNamespace(extra_dejson={"requests_per_minute": 60, "requests_per_hour": 1})
        limiter = _limiter("flex", None, QUOTA, extra, conn)
        assert isinstance(limiter.limit, SharedLimit)
        assert limiter.acquire() is None
        assert "connection 'flex'" in limiter.acquire()

    def test_quota_of_a_source_holds_for_its_client(self, connected, conn, monkeypatch):
        with flex_simulator.running() as account:
            declared = {"conn_type": "http", "host": account.url, "password": account.token}
            monkeypatch.setenv("AIRFLOW_CONN_FLEX", json.dumps(declared | {"extra": {"requests_per_hour": 2}}))
            [element, *_] = account.control.elements()
            with source_hook.opened("flex", "a_dag/a_run") as context:
                for _ in range(2):
                    context.api.get(f"line-item/{element}/row-data/")
                with pytest.raises(NotSent, match=r"requests_per_hour .* connection 'flex'"):
                    context.api.get(f"line-item/{element}/row-data/")
            assert account.control.counters().total() == 2

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


class TestBucket:
    """The store through the connection `storage`: credentials, endpoint and signing are Airflow's hook's."""

    @pytest.fixture
    def connect(self, monkeypatch, store):
        """Set the connection with parts of its extra replaced, and open its bucket."""
        store.control.put(["a b/ä+1.jpg"])

        def opened(store: Store = store, **extra):
            monkeypatch.setenv("AIRFLOW_CONN_STORAGE", storage_connection(store, **extra))
            return AirflowConnections("a_dag/a_run").bucket("storage")

        return opened

    def test_is_the_one_that_the_connection_names(self, connect, store):
        with connect() as bucket:
            bucket.prove()
            assert bucket.name == store.bucket
            assert bucket.look("a b/ä+1.jpg").presence is Presence.PRESENT
            assert bucket.look("nowhere").presence is Presence.ABSENT

    def test_settings_of_the_connection_win_over_ours(self, connect):
        kwargs = {"s3": {"addressing_style": "path"}, "connect_timeout": 1.5}
        with connect(region_name="eu-west-2", config_kwargs=kwargs) as bucket:
            meta = bucket._client.boto.meta
        assert meta.region_name == "eu-west-2"
        assert meta.config.s3["addressing_style"] == "path"
        assert meta.config.connect_timeout == 1.5
        assert meta.config.read_timeout == 30
        assert meta.config.max_pool_connections == 64
        assert "airflow" in meta.config.user_agent_extra.lower()

    def test_connections_are_closed_with_the_block(self, connect):
        with connect() as bucket:
            bucket.prove()
            assert sockets(bucket)
        assert not sockets(bucket)

    def test_wrong_keys_say_which_connection(self, connect, store):
        with (
            connect(replace(store, secret_key="n0t-this-one")) as bucket,
            pytest.raises(FixConfiguration, match="connection 'storage'") as refused,
        ):
            bucket.prove()
        assert "n0t-this-one" not in str(refused.value)

    @pytest.mark.parametrize("named", [{}, {"s3": {}}, {"s3": {"bucket_name": ""}}])
    def test_connection_without_a_bucket_says_what_to_set(self, connect, named):
        with pytest.raises(FixConfiguration, match=NO_BUCKET), connect(service_config=named):
            pass

    def test_connection_that_is_not_there_says_so(self):
        with pytest.raises(FixConfiguration, match=NO_BUCKET), AirflowConnections("a/b").bucket("storage"):
            pass


NO_BUCKET = r"^Connection 'storage' is missing or names no bucket\..*service_config"


def sockets(bucket: Bucket) -> list:
    """The client's pooled connections to the store."""
    pools = bucket._client.boto._endpoint.http_session._manager.pools
    return list(pools._container)


class TestImagesDatabase:
    def test_is_in_autocommit_named_and_in_the_applications_schema(self, images):
        with AirflowConnections("a_dag/a_run").database("images_db") as conn:
            assert conn.autocommit
            assert conn.execute("SHOW application_name").fetchone() == ("a_dag/a_run",)
            assert conn.execute("SELECT current_schema(), count(*) FROM images").fetchone() == ("app", 100)
        assert conn.closed

    def test_source_opens_both_and_leaves_no_session(self, images):
        with source_hook.opened("storage", "a_dag/a_run") as context:
            context.bucket.prove()
            assert context.images.execute("SELECT count(*) FROM images").fetchone() == (100,)
            assert context.conn.execute("SELECT count(*) FROM confidence.writer").fetchone() == (len(REGISTRY),)
        assert (context.conn.closed, context.images.closed) == (True, True)


class TestWarehouse:
    def test_session_is_named_and_in_autocommit(self, connected):
        with warehouse.connect("x" * 100) as conn:
            assert isinstance(conn, psycopg.Connection)
            assert conn.autocommit
            assert conn.execute("SHOW application_name").fetchone() == ("x" * 63,)

    def test_times_are_in_utc_wherever_the_server_is(self, connected, monkeypatch):
        monkeypatch.setenv("PGTZ", "Asia/Tokyo")
        never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
        with warehouse.connect("far") as conn:
            assert conn.execute("SELECT %s::timestamptz", [never.isoformat()]).fetchone() == (never,)

    def test_session_of_a_machine_that_is_lost_ends_within_minutes(self, connected):
        """Else Postgres would keep its locks, the fence's among them, for two hours."""
        with warehouse.connect("lost") as conn:
            shown = dict(conn.execute("SELECT name, setting || coalesce(unit, '') FROM pg_settings").fetchall())
        assert (
            int(shown["tcp_keepalives_idle"].rstrip("s")) + 3 * int(shown["tcp_keepalives_interval"].rstrip("s")) <= 60
        )
        assert (shown["tcp_keepalives_count"], shown["tcp_user_timeout"]) == ("3", "60000ms")
        assert shown["client_connection_check_interval"] == "10000ms"
        assert (shown["idle_in_transaction_session_timeout"], shown["lock_timeout"]) == ("900000ms", "900000ms")

    def test_url_is_one_that_migrations_take(self, connected):
        assert migrate(warehouse.owner_url())

    def test_one_connection_for_everything_is_enough(self, connected, monkeypatch):
        assert warehouse.defined(warehouse.OWNER) == "warehouse_owner"
        monkeypatch.delenv("AIRFLOW_CONN_WAREHOUSE_OWNER")
        assert urlsplit(warehouse.owner_url()).netloc == urlsplit(connected).netloc
