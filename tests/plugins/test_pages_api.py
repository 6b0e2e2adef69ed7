"""The endpoints as a client meets them: Airflow's own logins and permissions, its database, and a real warehouse."""

import csv
import html
import json
import logging
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from uuid import uuid4

import psycopg
import pytest
from airflow import settings
from airflow.api_fastapi.app import init_auth_manager, purge_cached_app
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.core_api.routes.public.hitl import task_instances_hitl_router
from airflow.models import DagModel, DagRun, import_all_models
from airflow.models.base import Base
from airflow.models.dagbundle import DagBundleModel
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import insert, update

from docs.reference import load
from include.confidence import field_store, findings, holds, judgements, planned_changes, scan_log
from include.confidence.account import Account
from include.confidence.census import Census
from include.confidence.field_changes import FieldChange, Kind, State
from include.confidence.policy import Gate, Judgement, Verdict
from include.confidence.summary import ForensicSummary, Plan
from include.confidence.watch import Code, Finding
from include.sources import REGISTRY, get_source
from include.sources.installed import SETTING
from include.warehouse import fence, roles, sync_log
from include.warehouse.sync_log import Counts
from plugins.hooks import warehouse as warehouse_hook
from plugins.pages import airflow_state
from plugins.pages import warehouse as pages_warehouse
from plugins.pages.app import create_app
from plugins.sync_confidence import PREFIX, SyncConfidence
from stack.postgres import Server
from stack.settings import REPOSITORY
from tests.conftest import as_role, make_copy

SOURCE = "repairshopr"
RUNBOOK = f"{SOURCE}_reconcile"
# As Airflow names them: what a path has to quote.
RUN_ID = "scheduled__2026-03-01T03:00:00+00:00"
RUN = f"{RUNBOOK}/{RUN_ID}"
RUN_PATH = f"/runs/{RUNBOOK}/{quote(RUN_ID, safe='')}"
USERS = ("viewer", "user", "op", "admin")
PASSWORDS = {user: f"password of {user}" for user in USERS}
START = datetime(2026, 3, 1, 3, tzinfo=UTC)
SCANS = 7
# Many inserts, an update that the scan could not prove, and a deletion of a row that a spreadsheet could take amiss.
PLANNED_ROWS = 300
PLANNED = """
SELECT n AS place, jsonb_build_object('id', n) AS key, 'insert' AS operation, 'confirmed' AS status, NULL AS why,
  false AS looked, NULL::jsonb AS before, jsonb_build_object('id', n, 'customer_id', n % 3, 'note', NULL) AS after
FROM generate_series(1, {rows}) n
UNION ALL SELECT 901, '{{"id": 901}}', 'update', 'unproven', 'the source answered 500', true,
  '{{"id": 901, "note": "<b>old</b>", "total": "1"}}', '{{"id": 901, "note": null, "total": "1"}}'
UNION ALL SELECT 902, '{{"id": 902}}', 'delete', 'confirmed', NULL, true,
  '{{"id": 902, "note": "=1+1", "sync_id": 4}}', NULL
"""
LABELS = ("source", "table", "entity", "scope", "metric")

# The address of a row that the sync has changed.
ROW = urlencode({"table": "repairshopr.customers", "key": '{"id": 7}'})

ROUTES = [
    "/sync-status",
    "/months.json",
    f"/sync-status/{SOURCE}",
    f"/sync-status/{SOURCE}/runs",
    f"/sync-status/{SOURCE}/fields",
    f"/sync-status/{SOURCE}/field-changes",
    f"/sync-status/{SOURCE}/sync-log",
    f"/sync-status/{SOURCE}/plans/e6/changes",
    f"/sync-status/{SOURCE}/sync-log/1/changes",
    f"/sync-status/{SOURCE}/rows/changes?{ROW}",
    RUN_PATH,
    "/metrics",
    "/readiness",
    "/openapi.json",
]


class Site:
    """The endpoints behind Airflow's login; `conn` is the warehouse that they read."""

    def __init__(self, client: TestClient, conn: psycopg.Connection):
        self.client = client
        self.conn = conn
        self._tokens: dict[str, str] = {}

    def get(self, path: str, user: str | None = "viewer", **asked: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        # An empty dict would take away what the path asks for.
        return self.client.get(PREFIX + path, params=asked or None, headers=headers)

    def json(self, path: str, **asked: Any) -> Any:
        answer = self.get(path, **asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refusal(self, path: str, status: int, user: str = "viewer", **asked: Any) -> str:
        """The one line that a refusal says."""
        answer = self.get(path, user, **asked)
        assert answer.status_code == status, answer.text
        (detail,) = answer.json().values()
        assert "\n" not in detail
        return detail

    def token(self, user: str) -> str:
        if user not in self._tokens:
            answer = self.client.post("/auth/token", json={"username": user, "password": PASSWORDS[user]})
            self._tokens[user] = answer.json()["access_token"]
        return self._tokens[user]

    def pages(self, path: str, **asked: Any) -> Iterator[list[dict]]:
        """The items of each page of a list, of which there are not many."""
        for _ in range(10):
            page = self.json(path, **asked)
            yield page["items"]
            if page["next_cursor"] is None:
                return
            asked["cursor"] = page["next_cursor"]
        raise AssertionError("the list has no end")


@contextmanager
def reading(url: str) -> Iterator[None]:
    """The pages' connections to a warehouse, closed at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_WAREHOUSE_READ", url)
        pages_warehouse._pool.cache_clear()
        yield
        if pages_warehouse._pool.cache_info().currsize:
            pages_warehouse._pool().close()
        pages_warehouse._pool.cache_clear()


@pytest.fixture(scope="module")
def airflow_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """Airflow's login and its own database, with the endpoints where Airflow mounts them."""
    passwords: Path = tmp_path_factory.mktemp("airflow") / "passwords.json"
    passwords.write_text(json.dumps(PASSWORDS))
    import_all_models()
    Base.metadata.create_all(settings.engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", ",".join(f"{user}:{user}" for user in USERS))
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(passwords))
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", uuid4().hex * 2)
        patch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/base/")
        app = FastAPI()
        init_auth_manager(app)
        app.mount(PREFIX, create_app())
        # Where the form of a question sends its answer.
        app.include_router(task_instances_hitl_router, prefix="/api/v2")
        yield app
        purge_cached_app()


@pytest.fixture(scope="module")
def filled(postgres, migrated) -> Iterator[str]:
    """The URL of a warehouse with a few nights of one source. Nobody writes to it."""
    name = f"test_{uuid4().hex}"
    make_copy(postgres, name, migrated)
    with psycopg.connect(postgres.url(name, roles.TASKS), autocommit=True) as conn:
        fill(conn)
    yield postgres.url(name, roles.READ)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def site(airflow_app: FastAPI, filled: str, postgres: Server) -> Iterator[Site]:
    owner = as_role(roles.OWNER, filled, postgres)
    with reading(filled), psycopg.connect(owner, autocommit=True) as conn, TestClient(airflow_app) as client:
        yield Site(client, conn)


def scan(number: int, entity: str = "invoices", run: str | None = None, **more: Any) -> ForensicSummary:
    return ForensicSummary(
        source=SOURCE,
        entity=entity,
        scope="all",
        scan_id=f"scan {number} of {entity}",
        run=run or f"{RUNBOOK}/{number}",
        epoch=number,
        metrics={"confirmed_missing": number, "db_not_in_api_unique": None},
        telemetry={"api_reported_total_entries": 90},
        plan=Plan(number, 1, 0),
        live_rows=100,
        examples={"missing_examples": [7, 8]},
        **more,
    )


def fill(conn: psycopg.Connection) -> None:
    """Seven scans of invoices, the last of them held, and one of customers; a sync, a repair of that run, a failure."""
    passed = Judgement(Verdict.PASS, (), (), (Gate("confirmed_missing", 2.0, 27.0, 3, Verdict.PASS),))
    held = Judgement(
        Verdict.HOLD, ("confirmed_missing",), ("far too many",), (Gate("confirmed_missing", 2.0, 4.5, 6, Verdict.HOLD),)
    )
    for number in range(SCANS):
        last = number == SCANS - 1
        account = Account(live=1000, equal=998, unproven=2)
        of_run = {"run": RUN, "accounts": {"invoices": account}, "evidence": "e6"} if last else {}
        judged(conn, scan(number, **of_run), held if last else passed, number)
    plan = sql.SQL(PLANNED).format(rows=sql.Literal(PLANNED_ROWS))
    planned_changes.keep(conn, scan(SCANS - 1, **of_run), "invoices", ("note", "total"), plan)
    judged(conn, scan(0, "customers", run=RUN), passed, SCANS)
    sync_id = sync_log.begin(conn, SOURCE, "sync", f"{SOURCE}_sync/1")
    sync_log.advance(conn, sync_id, SOURCE, "customers", watermark=datetime.now(UTC) - timedelta(minutes=5))
    sync_log.finish(conn, sync_id, {"customers": Counts(read=3, updated=1)}, requests=10, request_errors=1)
    conn.execute(
        "INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after)"
        " VALUES (%s, 'repairshopr.customers', %s, 'update', %s, %s)",
        [sync_id, Jsonb({"id": 7}), Jsonb({"id": 7, "city": "Ulm"}), Jsonb({"id": 7, "city": "Bonn"})],
    )
    repair = sync_log.begin(conn, SOURCE, "repair", RUN)
    sync_log.finish(conn, repair, {"invoices": Counts(inserted=6)})
    failed = sync_log.begin(conn, SOURCE, "sync", f"{SOURCE}_sync/2")
    sync_log.finish(conn, failed, {}, "the vendor is down")
    fence.stop(conn, SOURCE, RUN, 1)
    holds.refresh_hold(conn, SOURCE)
    conn.execute(
        "INSERT INTO confidence.unproven (source, entity, key, why, nights, run, first_seen) VALUES"
        " (%(source)s, 'invoices', '[4, \"x\"]', 'HTTP 404', 1, 'another run', now() - interval '1 hour'),"
        " (%(source)s, 'invoices', '[5]', 'HTTP 500', 2, %(run)s, now() - interval '1 day')",
        {"source": SOURCE, "run": RUN},
    )
    fill_fields(conn)
    findings.keep(conn, SOURCE, [Finding(Code.POOL_CHANGED, SOURCE, "1", None, "two slots", "harmless", "set one")])


def fill_fields(conn: psycopg.Connection) -> None:
    """A census of customers, and three changes in their fields."""
    census = Census()
    census.count([{"id": number, "met": {"where": "x"}} for number in range(40)])
    states = {"id": State.DECLARED, "met": State.KEPT, "met.where": State.KEPT}
    field_store.save_census(conn, SOURCE, "customers", {}, census.counted(), states, whole=True, vanished=["met"])
    changes = [FieldChange(kind, "met", State.KEPT, "object") for kind in (Kind.NEW, Kind.VANISHED, Kind.BACK)]
    field_store.save_changes(conn, SOURCE, "customers", RUN, changes)


def judged(conn: psycopg.Connection, scanned: ForensicSummary, judgement: Judgement, hours: int) -> None:
    scan_log.record(conn, scanned)
    judgements.save_judgement(conn, scanned, judgement)
    conn.execute(
        "UPDATE confidence.forensic_run SET scanned_at = %s WHERE scan_id = %s",
        [START + timedelta(hours=hours), scanned.scan_id],
    )


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Take the right to read a DAG's runs, and nothing else, from everyone."""

    def deny(dag_id: str) -> None:
        allowed = SimpleAuthManager.is_authorized_dag

        def is_authorized(self: Any, *, method: str, user: Any, access_entity: Any = None, details: Any = None) -> bool:
            if details and details.id == dag_id and access_entity is not None and access_entity.value == "RUN":
                return False
            return allowed(self, method=method, user=user, access_entity=access_entity, details=details)

        monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", is_authorized)

    return deny


@pytest.fixture
def airflow_rows(airflow_app: FastAPI) -> Iterator[Any]:
    """A session of Airflow's database whose rows are gone afterwards."""
    session = settings.Session()
    yield session
    session.rollback()
    for table in (HITLDetail, TaskInstance, DagRun, DagModel, DagBundleModel):
        session.execute(table.__table__.delete())
    session.commit()
    settings.Session.remove()


class TestWhoMay:
    def test_routes_are_all_that_there_are(self, site):
        known = set(site.json("/openapi.json")["paths"])
        names = {"source": SOURCE, "evidence": "e6", "sync_id": 1, "dag_id": RUNBOOK, "run_id": quote(RUN_ID, safe="")}
        assert {path.format(**names) for path in known} | {"/openapi.json"} == {
            route.partition("?")[0] for route in ROUTES
        }
        assert site.json("/openapi.json")["servers"] == [{"url": PREFIX}]

    @pytest.mark.parametrize("path", ROUTES)
    def test_nobody_without_a_login(self, site, path):
        assert site.get(path, user=None).status_code == 401
        wrong = site.client.get(PREFIX + path, headers={"Authorization": "Bearer made.up.token"})
        assert wrong.status_code in (401, 403)

    @pytest.mark.parametrize("user", USERS)
    @pytest.mark.parametrize("path", ROUTES)
    def test_everyone_who_may_read_runs(self, site, path, user):
        # The writer is held for minutes only, and what was synced is fresh.
        assert site.get(path, user).status_code == 200

    @pytest.mark.parametrize("path", ROUTES)
    def test_a_cookie_is_as_good_as_a_token(self, site, path):
        site.client.cookies.set("_token", site.token("viewer"))
        try:
            assert site.get(path, user=None).status_code == 200
        finally:
            site.client.cookies.clear()

    @pytest.mark.parametrize("path", ROUTES)
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_nothing_can_be_changed_here(self, site, path, method):
        headers = {"Authorization": f"Bearer {site.token('admin')}"}
        assert site.client.request(method, PREFIX + path, headers=headers).status_code == 405

    @pytest.mark.parametrize("path", [path for path in ROUTES if SOURCE in path])
    def test_source_is_hidden_from_who_may_not_read_its_runs(self, site, denied, path):
        denied(RUNBOOK)
        for user in USERS:
            assert site.get(path, user).status_code == 403

    def test_lists_leave_out_what_the_user_may_not_read(self, site, denied):
        everything = [status["source"] for status in site.json("/sync-status")["sources"]]
        assert everything == list(REGISTRY)
        denied(RUNBOOK)
        assert [status["source"] for status in site.json("/sync-status")["sources"]] == [
            source for source in REGISTRY if source != SOURCE
        ]
        assert f'"{SOURCE}"' not in site.get("/metrics").text
        assert site.json("/months.json")["months"] == []
        assert SOURCE not in site.refusal("/readiness", 404, source=SOURCE).partition("ask for:")[2]

    def test_run_of_another_dag_shows_no_source_that_is_hidden(self, site, denied):
        assert site.get(f"/runs/{SOURCE}_sync/1").status_code == 200
        denied(RUNBOOK)
        assert RUNBOOK in site.refusal(f"/runs/{SOURCE}_sync/1", 403)

    def test_metrics_need_the_view(self, site, monkeypatch):
        monkeypatch.setattr(SimpleAuthManager, "is_authorized_view", lambda *_, **__: False)
        assert site.refusal("/metrics", 403) == "Forbidden"

    def test_readiness_alone_can_be_opened(self, site, filled):
        with TestClient(create_app(open_readiness=True)) as client:
            assert client.get("/readiness").status_code == 200
            assert client.get("/readiness?sorce=square").status_code == 422
            for path in (path for path in ROUTES if path != "/readiness"):
                assert client.get(path).status_code == 401


class TestPlan:
    """What a scan would change, row by row."""

    PATH = f"/sync-status/{SOURCE}/plans/e6/changes"

    def test_comes_a_page_at_a_time_each_row_once(self, site):
        pages = list(site.pages(self.PATH, limit=100))
        assert [len(page) for page in pages] == [100, 100, 100, 2]
        found = [row["key"]["id"] for page in pages for row in page]
        assert sorted(found) == [*range(1, PLANNED_ROWS + 1), 901, 902]
        # What can do harm comes first.
        assert found[0] == 902

    @pytest.mark.parametrize(
        ("asked", "ids"),
        [
            ({"operation": "delete"}, {902}),
            ({"status": "unproven"}, {901}),
            ({"column": "note"}, {901}),
            ({"column": "total"}, set()),
            ({"column": "customer_id", "value": "2", "operation": "insert"}, {*range(2, PLANNED_ROWS + 1, 3)}),
            ({"column": "note", "value": "=1+1"}, {902}),
            ({"key": "17"}, {17}),
            ({"table": "customers"}, set()),
        ],
    )
    def test_is_filtered(self, site, asked, ids):
        assert {row["key"]["id"] for page in site.pages(self.PATH, **asked) for row in page} == ids

    def test_shows_both_sides(self, site):
        (row,) = site.json(self.PATH, status="unproven")["items"]
        assert (row["before"]["note"], row["after"]["note"], row["differs"]) == ("<b>old</b>", None, ["note"])
        assert (row["why"], row["looked"]) == ("the source answered 500", True)

    def test_refuses_what_it_does_not_know(self, site):
        assert "no scan with the evidence 'e7'" in site.refusal(f"/sync-status/{SOURCE}/plans/e7/changes", 404)
        assert "no scan" in site.refusal("/sync-status/square/plans/e6/changes", 404)
        assert "choose the column too" in site.refusal(f"{self.PATH}?value=Ann", 422)
        assert "unknown query parameters" in site.refusal(self.PATH, 422, colum="note")
        assert "cursor" in site.refusal(self.PATH, 422, cursor="nonsense")

    def test_has_a_page_and_a_file(self, site):
        page = site.get(f"/sources/{SOURCE}/plans/e6?operation=update")
        assert "&lt;b&gt;old&lt;/b&gt;" in page.text
        file = site.get(f"/sources/{SOURCE}/plans/e6/changes.csv", operation="delete")
        assert file.headers["content-type"] == "text/csv; charset=utf-8"
        assert f"{SOURCE}_invoices_" in file.headers["content-disposition"]
        lines = list(csv.reader(file.text.splitlines()))
        assert lines[0][:2] == ["table", "key"]
        # A spreadsheet must not compute what a customer has written.
        assert [line[:5] + line[7:] for line in lines[1:]] == [
            ["invoices", "902", "delete", "confirmed", "", "id", "902", ""],
            ["invoices", "902", "delete", "confirmed", "", "note", "'=1+1", ""],
        ]
        everything = site.get(f"/sources/{SOURCE}/plans/e6/changes.csv").text
        assert len(everything.splitlines()) == 1 + 2 * PLANNED_ROWS + 1 + 2

    def test_is_hidden_from_who_may_not_read_the_runs(self, site, denied):
        denied(RUNBOOK)
        for path in (f"/sources/{SOURCE}/plans/e6", f"/sources/{SOURCE}/plans/e6/changes.csv"):
            assert site.get(path).status_code == 403


class TestRow:
    """One row: as it is now, and its logged changes."""

    PATH = f"/sync-status/{SOURCE}/rows/changes"

    def asked(self, key: Any, table: str = "repairshopr.customers") -> dict[str, str]:
        return {"table": table, "key": key if isinstance(key, str) else json.dumps(key)}

    def test_names_who_changed_what(self, site):
        found = site.json(self.PATH, **self.asked({"id": 7}))
        # The stage has the change alone.
        assert (found["row_known"], found["row"], found["kept_since"]) == (True, None, None)
        (change,) = found["items"]
        assert (change["sync_id"], change["kind"], change["run"], change["operation"]) == (
            1,
            "sync",
            f"{SOURCE}_sync/1",
            "update",
        )
        assert change["differences"] == [{"column": "city", "before": "Ulm", "after": "Bonn"}]
        assert (change["before"]["city"], change["after"]["city"], change["after_known"]) == ("Ulm", "Bonn", True)
        assert found["next_cursor"] is None

    def test_of_another_source_is_not_shown(self, site):
        told = site.refusal("/sync-status/square/rows/changes", 404, **self.asked({"id": 7}))
        assert "square has no row" in told

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "7",
            "[7]",
            "{}",
            "null",
            '"x"',
            "{",
            "{'id': 7}",
            '{"id": null}',
            '{"id": 7.0}',
            '{"id": true}',
            '{"id": [7]}',
            '{"id": NaN}',
            '{"id": 1e999999}',
            '{"id": "a\\u0000b"}',
            '{"\\u0000": 1}',
            '{"id": "\\ud800"}',
            "[" * 20_000,
            '{"id": ' + "9" * 5000 + "}",
        ],
    )
    def test_refuses_what_is_no_key(self, site, key):
        assert "is no key of a row" in site.refusal(self.PATH, 422, **self.asked(key))

    @pytest.mark.parametrize("text", ["repairshopr.customers\0", '{"id": "\0"}'])
    def test_refuses_a_nul(self, site, text):
        assert "NUL" in site.refusal(self.PATH, 422, table=text, key='{"id": 7}')
        assert "NUL" in site.refusal(self.PATH, 422, table="repairshopr.customers", key=text)

    @pytest.mark.parametrize(
        ("key", "told"),
        [
            ({"id": "x"}, "is not of its type"),
            ({"id": 10**30}, "is not of its type"),
            ({"shop": 7}, "is made of id"),
            ({"id": 7, "shop": 7}, "is made of id"),
        ],
    )
    def test_refuses_what_is_no_key_of_the_table(self, site, key, told):
        assert told in site.refusal(self.PATH, 422, **self.asked(key))

    @pytest.mark.parametrize("id_", ["a/b", "'; DROP TABLE x; --", "<b>", '"', "ü€", "\\", "%s", "{}"])
    def test_any_text_may_be_a_key(self, site, id_):
        table = "images"
        site.conn.execute(
            "INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after)"
            " SELECT 1, %s, %s, 'update', %s, %s",
            [table, Jsonb({"id": id_}), Jsonb({"id": id_, "status": "error"}), Jsonb({"id": id_, "status": "=1"})],
        )
        try:
            found = site.json(self.PATH, **self.asked({"id": id_}, table))
            assert (found["key"], found["row_known"], found["row"], len(found["items"])) == (
                {"id": id_},
                False,
                None,
                1,
            )
            page = site.get(f"/sources/{SOURCE}/rows", **self.asked({"id": id_}, table))
            assert page.status_code == 200
            assert f"<h1>images id {id_}</h1>" in html.unescape(page.text)
            file = site.get(f"/sources/{SOURCE}/rows/changes.csv", **self.asked({"id": id_}, table))
            assert list(csv.reader(file.text.splitlines()))[1][1:] == [
                *("1", "sync", f"{SOURCE}_sync/1", "update", "status", "error", "'=1"),
            ]
        finally:
            site.conn.execute("DELETE FROM confidence.change_log WHERE table_name = %s", [table])

    def test_comes_a_page_at_a_time(self, site):
        site.conn.execute(
            "INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after)"
            " SELECT 1, 'images', '{\"id\": 1}', 'update', jsonb_build_object('n', n), jsonb_build_object('n', n + 1)"
            " FROM generate_series(1, 450) n"
        )
        try:
            pages = list(site.pages(self.PATH, **self.asked({"id": 1}, "images"), limit=200))
            assert [len(page) for page in pages] == [200, 200, 50]
            assert [change["after"]["n"] for page in pages for change in page] == list(range(451, 1, -1))
            file = site.get(f"/sources/{SOURCE}/rows/changes.csv", **self.asked({"id": 1}, "images"))
            assert [line.split(",")[-1] for line in file.text.splitlines()[1:]] == list(map(str, range(451, 1, -1)))
        finally:
            site.conn.execute("DELETE FROM confidence.change_log WHERE table_name = 'images'")


class TestFields:
    def test_of_each_table_with_its_shares(self, site):
        found = site.json(f"/sync-status/{SOURCE}/fields")
        (customers,) = found["entities"]
        assert found["total"] == {"fields": 3, "declared": 1, "ignored": 0, "kept": 2}
        assert (customers["entity"], customers["records"], customers["cut"]) == ("customers", 40, False)
        assert [customers[each] for each in ("declared", "kept", "vanished", "new")] == [1, 2, 1, 1]
        assert [(field["path"], field["share"]) for field in customers["fields"]] == [
            ("id", 1.0),
            ("met", 1.0),
            ("met.where", 1.0),
        ]

    def test_answers_are_said_in_words(self, site):
        found = site.json("/sync-status/tekmetric/fields")
        assert found["answer_names"]["repair_orders"]["profit"].startswith("the order's labor profit")
        head, listing, _ = site.json("/sync-status/storage/fields")["read_answers"]
        assert "etag" in head["read"]
        assert head["ignored"]["last-modified"] == "an image is checked by the application's own time of change"
        assert (listing["counted_as"], "Key" in listing["read"]) == ("list", True)

    def test_of_one_table_only(self, site):
        assert site.json(f"/sync-status/{SOURCE}/fields", entity="invoices")["entities"] == []

    def test_changes_come_a_page_at_a_time_newest_first(self, site):
        pages = list(site.pages(f"/sync-status/{SOURCE}/field-changes", limit=2))
        assert [change["kind"] for page in pages for change in page] == ["back", "vanished", "new"]
        assert pages[0][1]["text"] == "met is in no record any more"
        later = site.json(f"/sync-status/{SOURCE}/field-changes", since="2100-01-01T00:00:00Z")
        assert later["items"] == []

    def test_page_is_hidden_from_who_may_not_read_the_runs(self, site, denied):
        assert "met.where" in site.get(f"/sources/{SOURCE}/fields").text
        denied(RUNBOOK)
        assert site.get(f"/sources/{SOURCE}/fields").status_code == 403


class TestMonths:
    """The nights of March, of which only the source's first day has scans."""

    def test_of_the_source_that_has_runs(self, site):
        *_, month = site.json("/months.json")["months"]
        assert (month["source"], month["month"]) == (SOURCE, "2026-03-01")
        # Six of seven runs passed, but the worst verdict of the day counts; none has scanned all that the source has.
        days = min(31, (datetime.now(UTC) - START).days + 1)
        assert month["nights"] == {
            "passed": 0,
            "warned": 0,
            "held": 1,
            "failed": 0,
            "not_judged": 0,
            "no_scan": days - 1,
            "proven": 0,
        }
        assert month["stood_still"] is None
        assert (month["fresh_share"], month["freshness_limit_seconds"]) == (None, None)
        assert month["answers"] == {"asked": 0, "unanswered": 0, "median_seconds": None, "longest_seconds": None}

    def test_csv_has_the_same_figures(self, site):
        answer = site.get("/months.csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert 'filename="months_' in answer.headers["content-disposition"]
        *_, line = csv.DictReader(answer.text.splitlines())
        *_, month = site.json("/months.json")["months"]
        assert (line["month"], line["source"], line["nights_held"]) == ("2026-03", SOURCE, "1")
        assert {line[f"nights_{name}"] for name in ("passed", "warned", "not_judged", "proven")} == {"0"}
        assert line["nights_no_scan"] == str(month["nights"]["no_scan"])
        assert (line["stood_still_held_seconds"], line["fresh_share"]) == ("not known", "not known")
        assert (line["questions_asked"], line["answer_median_seconds"]) == ("0", "")

    def test_who_may_see_one_source_sees_only_that(self, site, denied):
        scanned = replace(scan(1, "orders", run="square_reconcile/1"), source="square", scan_id="a scan of square")
        judged(site.conn, scanned, Judgement(Verdict.PASS, (), (), ()), 0)
        try:
            assert {each["source"] for each in site.json("/months.json")["months"]} == {SOURCE, "square"}
            denied(RUNBOOK)
            assert {each["source"] for each in site.json("/months.json")["months"]} == {"square"}
            for path in ("/months", "/months.csv"):
                assert "square" in site.get(path).text
                assert SOURCE not in site.get(path).text
        finally:
            site.conn.execute("DELETE FROM confidence.forensic_run WHERE source = 'square'")


class TestStatus:
    def test_source_at_a_glance(self, site):
        (found,) = [each for each in site.json("/sync-status")["sources"] if each["source"] == SOURCE]
        assert (found["writer"]["state"], found["writer"]["run"]) == ("stopped", RUN)
        assert found["writer"]["hold_reason"] == "invoices (all): far too many"
        assert (found["verdict"], found["judged_run"]) == ("hold", RUN)
        assert (found["last_sync"]["state"], found["last_sync"]["error"]) == ("failed", "the vendor is down")
        assert found["stalest"] == "customers"
        assert found["freshness_seconds"] == pytest.approx(300, abs=60)
        assert found["progress"] == {"run": RUN, "scanned": [], "reading": []}
        assert {"customers", "invoices"} < set(found["entities"])
        assert {proof["entity"] for proof in found["proofs"]} == set(found["entities"])
        assert [proof["proven_at"] is None for proof in found["proofs"]] == sorted(
            (proof["proven_at"] is None for proof in found["proofs"]), reverse=True
        )
        assert found["put_off"] == []
        assert found["airflow"] == {"reconcile": None, "sync": None, "running": None, "decision": None, "stopper": None}

    def test_one_in_full(self, site):
        found = site.json(f"/sync-status/{SOURCE}")
        assert (found["source"], found["verdict"]) == (SOURCE, "hold")
        assert (found["health"]["requests"], found["health"]["request_errors"]) == (10, 1)
        assert [table["table"] for table in found["health"]["tables"]] == ["customers"]
        assert [(each["entity"], each["verdict"]) for each in found["scans"]] == [
            ("customers", "pass"),
            ("invoices", "hold"),
        ]
        assert found["scans"][1]["examples"] == {"missing_examples": [7, 8]}
        assert found["last_repair"]["counts"]["inserted"] == 6

    def test_what_was_proven_and_what_the_watch_has_found(self, site):
        found = site.json(f"/sync-status/{SOURCE}")
        assert (found["rows"], found["proven"], found["unproven"]) == (1000, 998, 2)
        assert [(row["key"], row["why"], row["nights"]) for row in found["unproven_rows"]] == [
            ([5], "HTTP 500", 2),
            ([4, "x"], "HTTP 404", 1),
        ]
        assert [finding["code"] for finding in found["findings"]] == ["pool_changed"]
        assert found["watched_at"]
        run = site.json(RUN_PATH)
        assert (run["rows"], run["proven"]) == (1000, 998)
        assert [row["key"] for row in run["unproven"]] == [[5]]
        assert {scan["entity"]: scan["accounts"].get("invoices", {}).get("unproven") for scan in run["scans"]} == {
            "customers": None,
            "invoices": 2,
        }

    def test_before_the_first_sync(self, site):
        found = site.json("/sync-status/square")
        assert (found["verdict"], found["health"], found["scans"], found["last_repair"]) == (None, None, [], None)

    def test_what_airflow_knows(self, site, airflow_rows):
        due = datetime(2026, 3, 2, 3, tzinfo=UTC)
        waits_for_an_answer(airflow_rows, due)
        found = site.json(f"/sync-status/{SOURCE}")["airflow"]
        assert found["reconcile"] == {"next_run": "2026-03-02T03:00:00Z", "paused": False}
        assert found["sync"] == {"next_run": None, "paused": True}
        assert found["running"] == RUN_ID
        assert found["decision"]["run_id"] == RUN_ID
        assert found["decision"]["subject"] == "The writer is held"
        assert found["decision"]["link"] == (
            f"https://airflow.example.com/base/sync-confidence/dags/{RUNBOOK}/runs/{quote(RUN_ID, safe='')}#question"
        )
        assert site.json("/sync-status/square")["airflow"]["decision"] is None

    @pytest.mark.parametrize(
        ("judged", "decide", "run", "paused", "comes"),
        [
            ("success", None, "running", False, True),
            ("success", "scheduled", "queued", False, True),
            ("success", "running", "running", False, True),
            ("success", "awaiting_input", "running", False, False),
            ("success", "failed", "running", False, False),
            ("success", None, "failed", False, False),
            ("success", None, "running", True, False),
            ("running", None, "running", False, False),
        ],
    )
    def test_run_that_is_about_to_ask(self, airflow_rows, judged, decide, run, paused, comes):
        waits_for_an_answer(airflow_rows, None, state=decide)
        values = {"run_id": RUN_ID, "task_id": "gate_check", "map_index": -1, "state": judged, "pool": "p"}
        airflow_rows.execute(insert(TaskInstance.__table__).values(id=uuid4(), dag_id=RUNBOOK, pool_slots=1, **values))
        airflow_rows.execute(update(DagRun.__table__).values(state=run))
        airflow_rows.execute(update(DagModel.__table__).values(is_paused=paused))
        airflow_rows.commit()
        assert airflow_state.is_about_to_ask(airflow_rows, f"{RUNBOOK}/{RUN_ID}") == comes
        assert not airflow_state.is_about_to_ask(airflow_rows, f"{RUNBOOK}/gone")

    @pytest.mark.parametrize(("state", "kind"), [("failed", "failed"), ("running", "no scan")])
    def test_night_without_a_scan_whose_run_has_failed(self, site, airflow_rows, state, kind):
        waits_for_an_answer(airflow_rows, None)
        yesterday = datetime.now(UTC) - timedelta(days=1)
        airflow_rows.execute(update(DagRun.__table__).values(state=state, start_date=yesterday))
        airflow_rows.commit()
        nights = {night["day"]: night for night in site.json(f"/sync-status/{SOURCE}")["nights"]}
        night = nights[f"{yesterday:%Y-%m-%d}"]
        assert night["kind"] == kind
        assert night["run"] == (f"{RUNBOOK}/{RUN_ID}" if kind == "failed" else None)
        square = {night["kind"] for night in site.json("/sync-status/square")["nights"]}
        assert "failed" not in square

    def test_question_that_was_answered_is_no_open_decision(self, site, airflow_rows):
        waits_for_an_answer(airflow_rows, None, state="success")
        assert site.json(f"/sync-status/{SOURCE}")["airflow"]["decision"] is None


def waits_for_an_answer(session: Any, due: datetime | None, state: str = "awaiting_input", **asked: Any) -> None:
    """In Airflow's database: the source's DAGs, its runbook's run at work, and the question of that."""
    session.add(DagBundleModel(name="dags"))
    session.flush()
    for dag_id, next_run, paused in ((RUNBOOK, due, False), (f"{SOURCE}_sync", None, True)):
        session.add(
            DagModel(
                dag_id=dag_id,
                bundle_name="dags",
                next_dagrun_create_after=next_run,
                is_paused=paused,
                is_stale=False,
                max_active_tasks=1,
                has_task_concurrency_limits=False,
                timetable_type="",
            )
        )
    session.flush()
    session.execute(
        insert(DagRun.__table__).values(
            dag_id=RUNBOOK, run_id=RUN_ID, run_type="scheduled", state="running", run_after=START, start_date=START
        )
    )
    ti_id = uuid4()
    session.execute(
        insert(TaskInstance.__table__).values(
            id=ti_id, dag_id=RUNBOOK, run_id=RUN_ID, task_id="decide", map_index=-1, state=state, pool="p", pool_slots=1
        )
    )
    detail = {"options": [], "subject": "The writer is held", "params": {}, "params_input": {}, "created_at": START}
    session.execute(insert(HITLDetail.__table__).values(ti_id=ti_id, **detail | asked))
    session.commit()


class TestLists:
    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 8, 9, 200])
    def test_pages_of_every_size_show_each_run_once(self, site, limit):
        found = list(site.pages(f"/sync-status/{SOURCE}/runs", limit=limit))
        assert [len(items) for items in found[:-1]] == [limit] * (len(found) - 1)
        assert [item["scan_id"] for items in found for item in items] == [
            "scan 0 of customers",
            *(f"scan {number} of invoices" for number in range(SCANS - 1, -1, -1)),
        ]

    @pytest.mark.parametrize("limit", [1, 2, 3, 4])
    def test_pages_of_every_size_show_each_sync_once(self, site, limit):
        found = [
            item["sync_id"] for items in site.pages(f"/sync-status/{SOURCE}/sync-log", limit=limit) for item in items
        ]
        assert found == [3, 2, 1]

    def test_filters_of_runs(self, site):
        def found(**asked: Any) -> list[str]:
            path = f"/sync-status/{SOURCE}/runs"
            return [item["scan_id"] for items in site.pages(path, limit=2, **asked) for item in items]

        assert found(verdict="hold") == ["scan 6 of invoices"]
        assert found(entity="customers") == ["scan 0 of customers"]
        assert found(since="2026-03-01T08:00:00Z", entity="invoices") == ["scan 6 of invoices", "scan 5 of invoices"]
        assert found(since="2026-03-01T10:00:00+02:00", verdict="pass")[-1] == "scan 5 of invoices"
        assert found(verdict="warn") == []

    def test_filters_of_the_sync_log(self, site):
        def found(**asked: Any) -> list[int]:
            return [item["sync_id"] for item in site.json(f"/sync-status/{SOURCE}/sync-log", **asked)["items"]]

        assert found(kind="repair") == [2]
        assert found(state="failed") == [3]
        assert found(kind="sync", state="success") == [1]
        assert found(since="2100-01-01T00:00:00Z") == []

    def test_gates_of_a_scan(self, site):
        (item,) = site.json(f"/sync-status/{SOURCE}/runs", verdict="hold")["items"]
        assert item["gates"] == [
            {
                "metric": "confirmed_missing",
                "baseline": 2.0,
                "limit": 4.5,
                "value": 6,
                "verdict": "hold",
                "reason": None,
            }
        ]
        assert item["metrics"] == {"confirmed_missing": 6, "db_not_in_api_unique": None}

    def test_changes_before_and_after(self, site):
        (change,) = site.json(f"/sync-status/{SOURCE}/sync-log/1/changes")["items"]
        assert (change["key"], change["operation"]) == ({"id": 7}, "update")
        assert change["differences"] == [{"column": "city", "before": "Ulm", "after": "Bonn"}]

    def test_run_with_what_it_planned_and_applied(self, site):
        found = site.json(RUN_PATH)
        assert (found["run"], found["source"], found["verdict"]) == (RUN, SOURCE, "hold")
        assert found["planned"] == {"insert": 6, "update": 2, "delete": 0}
        assert found["applied"]["inserted"] == 6
        assert [row["sync_id"] for row in found["syncs"]] == [2]
        assert {each["entity"] for each in found["scans"]} == {"customers", "invoices"}


class TestRefusals:
    @pytest.mark.parametrize("path", [path for path in ROUTES if path != "/openapi.json"])
    def test_unknown_parameters_by_name(self, site, path):
        told = site.refusal(path, 422, verdikt="hold", a="b")
        assert "a, verdikt" in told
        assert "it knows" in told or "it takes none" in told

    @pytest.mark.parametrize(
        ("path", "asked", "line"),
        [
            ("runs", {"limit": 0}, "query limit: .*greater than or equal to 1 .*given: '0'"),
            ("runs", {"limit": 201}, "query limit: .*less than or equal to 200"),
            ("runs", {"limit": "many"}, "query limit: .*integer.*given: 'many'"),
            ("runs", {"verdict": "bad"}, "query verdict: .*'pass', 'warn' or 'hold'"),
            ("runs", {"since": "yesterday"}, "query since: .*given: 'yesterday'"),
            ("runs", {"since": "2026-03-01T00:00:00"}, "query since: .*timezone"),
            ("runs", {"cursor": "x"}, "cursor 'x' is none of this list: take next_cursor"),
            ("sync-log", {"cursor": "WyJhIiwgImIiXQ"}, "none of this list"),
            ("sync-log", {"kind": "x"}, "query kind: "),
            ("sync-log", {"state": "x"}, "query state: "),
            ("sync-log/0/changes", {}, "path sync_id: "),
            ("sync-log/99999999999999999999/changes", {}, "path sync_id: "),
        ],
    )
    def test_values_that_make_no_sense(self, site, path, asked, line):
        with pytest.raises(AssertionError, match=line):
            raise AssertionError(site.refusal(f"/sync-status/{SOURCE}/{path}", 422, **asked))

    @pytest.mark.parametrize(
        "path",
        [
            "/sync-status/%00",
            f"/sync-status/{SOURCE}/runs?entity=%00",
            f"/sync-status/{SOURCE}/runs?entity=a%00b",
            f"/sync-status/{SOURCE}/runs?cursor=%00",
            f"/sync-status/{SOURCE}/sync-log?%00=1",
            f"/runs/{RUNBOOK}/a%00b",
            f"/runs/a%00b/{quote(RUN_ID, safe='')}",
            "/readiness?source=%00",
            "/metrics?%00",
        ],
    )
    def test_a_nul_in_the_address(self, site, path):
        assert "NUL" in site.refusal(path, 422)

    @pytest.mark.parametrize(
        "path",
        [
            "/sources/%00",
            f"/sources/{SOURCE}?entity=%00",
            f"/sources/{SOURCE}?syncs=%00",
            f"/sources/{SOURCE}/syncs/1?changes=%00",
            f"/sources/{SOURCE}/syncs/0",
            f"/sources/{SOURCE}/syncs/99999999999999999999",
            "/dags/%00",
            f"/dags/{RUNBOOK}/runs/a%00b",
            "/static/%00",
        ],
    )
    def test_addresses_that_no_page_has(self, site, path):
        answer = site.get(path)
        assert (answer.status_code, "No such page" in answer.text) == (422, True)

    @pytest.mark.parametrize(
        "place", [["2026-03-01", "a\0b"], ["2026-03-01", "\ud800"], ["2026-03-01\0", "a"], "[" * 30_000]
    )
    def test_cursors_that_no_page_has_given(self, site, place):
        text = place if isinstance(place, str) else json.dumps(place)
        cursor = urlsafe_b64encode(text.encode()).decode().rstrip("=")
        assert "none of this list" in site.refusal(f"/sync-status/{SOURCE}/runs", 422, cursor=cursor)

    def test_what_is_not_there(self, site):
        assert "GET sync-status lists" in site.refusal("/sync-status/shop", 404)
        assert "GET sync-status lists" in site.refusal("/sync-status/shop/runs", 404)
        assert "has no sync_id 77" in site.refusal(f"/sync-status/{SOURCE}/sync-log/77/changes", 404)
        assert "square has no sync_id 1" in site.refusal("/sync-status/square/sync-log/1/changes", 404)
        assert "left nothing in the warehouse" in site.refusal(f"/runs/{RUNBOOK}/none", 404)


class TestMetrics:
    def test_prometheus_reads_them(self, site):
        families = {each.name: each for each in text_string_to_metric_families(site.get("/metrics").text)}
        figures = {
            (sample.name, *(sample.labels[name] for name in LABELS if name in sample.labels)): sample.value
            for family in families.values()
            for sample in family.samples
        }
        assert all(name.startswith("sync_confidence_") for name in families)
        assert figures["sync_confidence_writer_stopped", SOURCE] == 1
        assert figures["sync_confidence_writer_stopped", "square"] == 0
        assert figures["sync_confidence_writer_held", SOURCE] == 1
        assert figures["sync_confidence_verdict", SOURCE] == 2
        assert ("sync_confidence_verdict", "square") not in figures
        assert figures["sync_confidence_put_off", SOURCE] == 0
        assert ("sync_confidence_oldest_proof_timestamp_seconds", SOURCE) not in figures
        assert figures["sync_confidence_sync_success", SOURCE] == 0
        assert figures["sync_confidence_decision_open", SOURCE] == 0
        assert figures["sync_confidence_freshness_seconds", SOURCE, "customers"] == pytest.approx(300, abs=60)
        assert figures["sync_confidence_requests", SOURCE] == 10
        assert figures["sync_confidence_forensic", SOURCE, "invoices", "all", "confirmed_missing"] == 6
        assert ("sync_confidence_forensic", SOURCE, "invoices", "all", "db_not_in_api_unique") not in figures

        assert figures["sync_confidence_rows", SOURCE, "invoices", "all"] == 1000
        assert figures["sync_confidence_rows_proven", SOURCE, "invoices", "all"] == 998
        assert ("sync_confidence_rows", SOURCE, "customers", "all") not in figures
        assert figures["sync_confidence_unproven", SOURCE, "invoices"] == 2
        ago = (
            datetime.now(UTC).timestamp()
            - figures["sync_confidence_unproven_since_timestamp_seconds", SOURCE, "invoices"]
        )
        assert ago == pytest.approx(86400, abs=60)
        assert (figures["sync_confidence_findings", SOURCE], figures["sync_confidence_findings", "square"]) == (1, 0)
        assert ("sync_confidence_watch_timestamp_seconds", "square") not in figures
        assert figures["sync_confidence_watch_timestamp_seconds", SOURCE] > START.timestamp()

    def test_every_figure_is_explained(self, site):
        text = site.get("/metrics").text
        told = re.findall(r"^# HELP (\w+) (.+)$", text, re.MULTILINE)
        named = {sample.name for each in text_string_to_metric_families(text) for sample in each.samples}
        assert named <= {name for name, _ in told}
        assert [name for name, sentence in told if not sentence.endswith(".")] == []

    def test_each_drift_metric_has_its_sentence_of_the_glossary(self, site):
        families = {each.name: each for each in text_string_to_metric_families(site.get("/metrics").text)}
        measured = {sample.labels["metric"] for sample in families["sync_confidence_forensic"].samples}
        told = families["sync_confidence_forensic_metric_info"].samples
        meanings = {(sample.labels["source"], sample.labels["metric"]): sample.labels["meaning"] for sample in told}
        texts = get_source(SOURCE).metric_texts
        assert measured == {"confirmed_missing"}
        assert meanings == {(SOURCE, name): texts[name] for name in ("confirmed_missing", "db_not_in_api_unique")}
        assert {sample.value for sample in told} == {1}

    def test_content_type_is_the_text_form(self, site):
        assert site.get("/metrics").headers["content-type"].startswith("text/plain; version=")


class TestLeftOut:
    """An installation without the source, whose data the warehouse has."""

    PATHS = tuple(path for path in ROUTES if SOURCE in path)

    @pytest.fixture(autouse=True)
    def without(self, monkeypatch) -> None:
        monkeypatch.setenv(SETTING, "square,storage")

    def test_is_in_no_list(self, site):
        found = site.json("/sync-status")
        assert [status["source"] for status in found["sources"]] == ["square", "storage"]
        assert site.json("/months.json")["months"] == []
        assert f'"{SOURCE}"' not in site.get("/metrics").text
        assert site.refusal("/readiness", 404, source=SOURCE).endswith("square, storage")
        assert site.json("/readiness") == {"ready": True, "reasons": []}

    def test_is_not_in_a_readiness_that_is_open_to_all(self, site):
        with TestClient(create_app(open_readiness=True)) as client:
            assert client.get("/readiness", params={"source": SOURCE}).json()["detail"].endswith(": square, storage")

    def test_its_data_are_told_to_those_who_may_read_them(self, site, denied):
        assert site.json("/sync-status")["kept"] == [SOURCE]
        assert f"Data of {SOURCE} is kept" in site.get("/").text
        # Of the sources without data nothing is told.
        assert "Data of flex" not in site.get("/").text
        denied(RUNBOOK)
        assert site.json("/sync-status")["kept"] == []
        assert SOURCE not in site.get("/").text

    @pytest.mark.parametrize("path", PATHS)
    def test_is_refused_by_a_line_that_says_how_to_see_it_again(self, site, path):
        assert site.refusal(path, 404) == (
            f"{SOURCE} is not set up here, and its data in the warehouse are kept: add it to {SETTING} to use it again"
        )

    @pytest.mark.parametrize(
        "path", [f"/sources/{SOURCE}", f"/dags/{RUNBOOK}", f"/dags/{RUNBOOK}/runs/{quote(RUN_ID, safe='')}"]
    )
    def test_pages_say_the_same(self, site, path):
        page = site.get(path)
        assert page.status_code == 404
        assert f"add it to {SETTING}" in page.text

    def test_comes_back_with_the_setting(self, site, monkeypatch):
        monkeypatch.setenv(SETTING, f"{SOURCE},square")
        found = site.json("/sync-status")
        assert [status["source"] for status in found["sources"]] == [SOURCE, "square"]
        assert found["kept"] == []
        assert site.json(RUN_PATH)["source"] == SOURCE

    def test_wrong_setting_is_told_on_every_answer(self, site, monkeypatch):
        monkeypatch.setenv(SETTING, "sqare")
        for path in ("/sync-status", "/readiness", "/metrics", f"/sync-status/{SOURCE}"):
            assert "names 'sqare', which is no source" in site.refusal(path, 503)
        page = site.get("/")
        assert page.status_code == 503
        assert "which is no source" in page.text


class TestReadiness:
    @pytest.fixture
    def own(self, airflow_app, warehouse, owner, postgres) -> Iterator[Site]:
        """A site whose warehouse a test may change."""
        with reading(as_role(roles.READ, warehouse, postgres)), TestClient(airflow_app) as client:
            yield Site(client, owner)

    def reasons(self, site: Site, **asked: Any) -> list[tuple[str, str | None]]:
        answer = site.get("/readiness", **asked)
        told = answer.json()
        assert (answer.status_code, told["ready"]) == ((503, False) if told["reasons"] else (200, True))
        assert all(reason["line"] and "\n" not in reason["line"] for reason in told["reasons"])
        return [(reason["code"], reason["source"]) for reason in told["reasons"]]

    def test_sources_that_are_not_in_use_do_not_count_unless_named(self, own):
        assert self.reasons(own) == []
        assert self.reasons(own, source="square") == [("sync_unknown", "square")]

    def test_writer_that_is_stopped_for_too_long(self, own):
        fence.stop(own.conn, SOURCE, RUN, 1)
        assert self.reasons(own) == []
        own.conn.execute("UPDATE confidence.writer SET since = now() - interval '5 hours' WHERE state = 'stopped'")
        assert self.reasons(own) == [("writer_stopped", SOURCE)]
        assert self.reasons(own, source="storage") == [("sync_unknown", "storage")]

    def test_how_long_is_too_long_can_be_set(self, own, monkeypatch):
        fence.stop(own.conn, SOURCE, RUN, 1)
        own.conn.execute("UPDATE confidence.writer SET since = now() - interval '5 hours' WHERE state = 'stopped'")
        monkeypatch.setenv("WRITER_STOPPED_LIMIT_HOURS", "5.5")
        assert self.reasons(own) == []
        monkeypatch.setenv("WRITER_STOPPED_LIMIT_HOURS", "0.5")
        assert self.reasons(own) == [("writer_stopped", SOURCE)]

    def test_repair_that_nobody_verified(self, own):
        finding = Finding(
            Code.UNVERIFIED, SOURCE, "sync_id 5", RUN, "nobody has verified it", "not known", "trigger it"
        )
        findings.keep(own.conn, SOURCE, [finding])
        assert self.reasons(own) == []
        own.conn.execute("UPDATE confidence.finding SET first_seen = first_seen - interval '1 hour'")
        assert self.reasons(own) == [("repair_unverified", SOURCE)]
        findings.keep(own.conn, SOURCE, [replace(finding, code=Code.POOL_CHANGED)])
        own.conn.execute("UPDATE confidence.finding SET first_seen = first_seen - interval '1 hour'")
        assert self.reasons(own) == []

    def test_source_whose_connection_is_missing(self, own):
        finding = Finding(Code.NOT_CONFIGURED, SOURCE, SOURCE, None, "not configured", "nothing runs", "set it")
        findings.keep(own.conn, SOURCE, [finding])
        assert self.reasons(own) == [("source_not_configured", SOURCE)]
        assert own.get("/readiness").json()["reasons"][0]["line"] == "not configured. set it"
        findings.keep(own.conn, SOURCE, [])
        assert self.reasons(own) == []

    def test_copy_that_is_stale(self, own):
        for ago in (130, 120, 110):
            sync_id = sync_log.begin(own.conn, SOURCE, "sync", f"{SOURCE}_sync/scheduled__{ago}")
            sync_log.finish(own.conn, sync_id, {})
            watermark = datetime.now(UTC) - timedelta(minutes=ago)
            sync_log.advance(own.conn, sync_id, SOURCE, "invoices", watermark=watermark)
            own.conn.execute("UPDATE confidence.sync_log SET started_at = %s WHERE sync_id = %s", [watermark, sync_id])
        assert self.reasons(own) == [("sync_stale", SOURCE)]
        assert self.reasons(own, source=SOURCE) == [("sync_stale", SOURCE)]

    def test_source_that_the_warehouse_does_not_know(self, own):
        own.conn.execute("DELETE FROM confidence.writer WHERE source = 'square'")
        assert self.reasons(own) == [("source_unknown", "square")]
        assert "warehouse_migrate" in own.refusal("/sync-status/square", 503)
        assert "square" not in {status["source"] for status in own.json("/sync-status")["sources"]}

    def test_schema_that_is_not_there(self, own):
        own.conn.execute("DROP SCHEMA confidence CASCADE")
        assert self.reasons(own) == [("warehouse_unavailable", None)]
        assert "warehouse_migrate" in own.refusal("/sync-status", 503)

    def test_query_that_takes_too_long(self, own, monkeypatch):
        monkeypatch.setattr(pages_warehouse, "QUERY_SECONDS", "0.3")
        with own.conn.transaction():
            own.conn.execute("LOCK confidence.writer")
            assert "did not answer within" in own.refusal("/sync-status", 503)

    def test_pages_can_not_write(self, own):
        own.json("/sync-status")
        with pages_warehouse.opened() as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            conn.execute("DELETE FROM confidence.writer")

    def test_role_that_lacks_a_right_is_told_what_to_do(self, own):
        told = pytest.raises(pages_warehouse.WarehouseUnavailable, match=r"'warehouse_read', .* DAG warehouse_migrate")
        with told, pages_warehouse.opened():
            raise psycopg.errors.InsufficientPrivilege

    def test_server_that_is_restarted_is_asked_again(self, own):
        own.json("/sync-status")
        # By a connection of the pages' role, which has a right to end its own.
        ended = (
            warehouse_hook.connect("test", warehouse_hook.READ)
            .execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'sync confidence pages' AND datname = current_database()"
            )
            .fetchone()[0]
        )
        assert ended >= 1
        own.json("/sync-status")


@pytest.mark.parametrize("root", ["", "/base"])
def test_address_without_its_last_slash_leads_to_the_one_with_it(root):
    app = FastAPI(root_path=root)
    app.add_middleware(SyncConfidence.fastapi_root_middlewares[0]["middleware"])
    with TestClient(app, root_path=root, follow_redirects=False) as client:
        answer = client.get(root + PREFIX)
        assert (answer.status_code, answer.headers["location"]) == (307, f"{root}{PREFIX}/")
        assert client.get(f"{root}{PREFIX}x").status_code == 404


class TestDocs:
    """docs/endpoints.md names what there is, and only that."""

    TEXT = (REPOSITORY / "docs" / "endpoints.md").read_text()

    def test_every_endpoint_and_parameter(self, site):
        paths = site.json("/openapi.json")["paths"]
        table = re.findall(r"^\| \[?`(/[^`]*)`", self.TEXT.partition("## ")[0], re.MULTILINE)
        assert set(table) == {*paths, "/openapi.json"}
        asked = {each["name"] for path in paths.values() for each in path["get"].get("parameters", [])}
        assert all(f"`{name}`" in self.TEXT or f"{{{name}}}" in self.TEXT or f"?{name}=" in self.TEXT for name in asked)

    def test_every_figure_for_prometheus(self, site):
        (table,) = re.findall(r"^\| `sync_confidence_\.\.\.`.*?\n\n", self.TEXT, re.MULTILINE | re.DOTALL)
        told = {name for line in table.strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
        found = {each.name for each in text_string_to_metric_families(site.get("/metrics").text)}
        assert {f"sync_confidence_{name}" for name in told} == found

    def test_every_key_and_every_allowed_value(self, site):
        described = site.json("/openapi.json")
        keys = {key for each in described["components"]["schemas"].values() for key in each.get("properties", ())}
        assert {key for key in keys if f"`{key}`" not in self.TEXT and f'"{key}"' not in self.TEXT} == set()
        values = set(re.findall(r"'enum': \[(.*?)\]", str(described)))
        allowed = {value for each in values for value in re.findall(r"'(\w+)'", each)}
        assert {"pass", "insert", "repair"} <= allowed
        assert {value for value in allowed if f"`{value}`" not in self.TEXT} == set()

    def test_everything_is_described(self, site):
        described = site.json("/openapi.json")
        told = [*described["components"]["schemas"].values()]
        for path in described["paths"].values():
            told += [path["get"], *path["get"].get("parameters", [])]
        assert [each for each in told if not each.get("description")] == []

    @pytest.mark.parametrize(
        "key",
        [
            "SourceDetail",
            "SourceMonth",
            "Scan",
            "PlannedChange",
            "SyncRow",
            "Change",
            "RowHistory",
            "Readiness",
            "Refusal",
        ],
    )
    def test_examples_have_the_keys_that_there_are(self, site, key):
        known = set(site.json("/openapi.json")["components"]["schemas"][key]["properties"])
        examples = [set(each) for each in map(json.loads, re.findall(r"```json\n(.*?)```", self.TEXT, re.DOTALL))]
        assert any(example <= known and len(example) >= min(3, len(known)) for example in examples)

    def test_confs_have_only_params_of_their_dag(self):
        params = {dag.dag_id: set(dag.params) for dag in load(REPOSITORY / "dags")}
        found = [each for each in re.findall(r"`(\w+)`[^`|]*? with `(\{.*?\})`", self.TEXT) if each[0] in params]
        assert len(found) > 10
        for dag, conf in found:
            assert set(json.loads(conf)) <= params[dag], (dag, conf)


class TestUnreachable:
    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch, caplog):
        monkeypatch.setattr(pages_warehouse, "WAIT_SECONDS", 0.4)
        caplog.set_level(logging.ERROR, "psycopg.pool")

    def test_says_so_in_a_line_without_secrets_and_comes_back_by_itself(self, airflow_app, filled, monkeypatch):
        nowhere = urlsplit(filled)._replace(netloc="who:s3cret@127.0.0.1:1").geturl()
        with reading(nowhere), TestClient(airflow_app) as client:
            site = Site(client, None)
            for path in ROUTES:
                if path == "/openapi.json":
                    continue
                answer = site.get(path)
                assert answer.status_code == 503
                assert "connection 'warehouse_read'" in html.unescape(answer.text)
                assert "s3cret" not in answer.text
                assert "127.0.0.1" not in answer.text
            assert site.get("/readiness").json()["reasons"][0]["code"] == "warehouse_unavailable"
            monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE_READ", filled)
            # Sooner than attempts that come ever more rarely would.
            deadline = time.monotonic() + 2
            while site.get("/sync-status").status_code != 200:
                assert time.monotonic() < deadline

    def test_connection_that_nobody_has_set(self, airflow_app, filled, monkeypatch):
        with reading(filled), TestClient(airflow_app) as client:
            monkeypatch.delenv("AIRFLOW_CONN_WAREHOUSE_READ")
            assert "AIRFLOW_CONN_WAREHOUSE_READ" in Site(client, None).refusal("/sync-status", 503)
            # One connection for everything is enough.
            monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", filled)
            assert Site(client, None).get("/sync-status").status_code == 200
