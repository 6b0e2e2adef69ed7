"""Operators without a scheduler: a warehouse, a simulated account, Airflow's API as far as they use it, and a run."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import DownstreamTasksSkipped
from airflow.sdk.execution_time.context import OutletEventAccessors
from psycopg import sql

from include.confidence import judgements, scan_log
from include.confidence.account import Account
from include.confidence.policy import Judgement, Verdict
from include.simulators import repairshopr as simulator
from include.simulators import storage
from include.simulators.storage import Store, application
from include.sources import REGISTRY, get_source
from include.sources import storage as storage_source
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence, roles
from plugins import assets
from plugins.hooks import source as source_hook
from plugins.hooks.airflow_api import declared_pools
from plugins.operators.decide import DecideOperator
from plugins.operators.gate_check import GateCheckOperator
from plugins.operators.reconcile import ReconcileOperator
from plugins.operators.report import ReportOperator
from plugins.operators.resume_writer import ResumeWriterOperator
from plugins.operators.scan import ScanOperator
from plugins.operators.stop_writer import StopWriterOperator
from plugins.operators.verify import VerifyOperator
from stack.postgres import Server
from stack.roles import APPLICATION
from tests import photos
from tests.confidence.builders import summary
from tests.conftest import as_role, copy_of, make_copy
from tests.images import Images
from tests.plugins.airflow_api import AirflowServer

SOURCE = "repairshopr"
POOL = f"{SOURCE}_writer"
# A small account.
ACCOUNT = simulator.Config(
    rate_limit=None, customers=12, invoices=40, line_items=150, payments=12, products=12, tickets=12, estimates=5
)
# The params of each source's runbook.
RECONCILE = {
    SOURCE: {
        "dry_run": True,
        "page_start": 1,
        "page_end": 0,
        "progress_every": 250,
        "compute_db_not_in_api": True,
        "reset_watermark": False,
    },
    "storage": photos.PARAMS,
}
# Those of them that narrow what is looked at.
PARTS = {"page_start", "page_end", "compute_db_not_in_api", "project_id", "status", "limit", "cursor"}
KINDS = {
    "stop_writer": StopWriterOperator,
    "gate_check": GateCheckOperator,
    "decide": DecideOperator,
    "reconcile": ReconcileOperator,
    "verify": VerifyOperator,
    "resume_writer": ResumeWriterOperator,
    "report": ReportOperator,
}


@pytest.fixture(autouse=True)
def people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ada may decide, Bob and Eve may not. For the pages there is a user of each role, with the role's name."""
    users = "Ada:op,Bob:user,Eve:viewer,viewer:viewer,user:user,op:op,admin:admin"
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", users)


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowServer]:
    """Airflow's API with the declared pools, and the connection to it."""
    with AirflowServer(declared_pools()) as server:
        login = {"login": server.user, "password": server.password}
        monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps({"conn_type": "http", "host": server.url} | login))
        yield server


@pytest.fixture
def connected(warehouse: str, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The warehouse's URL, with the connections to it set, and those of all sources, where nobody listens."""
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", warehouse)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE_OWNER", as_role(roles.OWNER, warehouse, postgres))
    for name in (name for source in REGISTRY for name in get_source(source).connections):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", "http://127.0.0.1:1")
    return warehouse


@pytest.fixture
def control(connected: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[simulator.Control]:
    """The hand on a small account, with the connection to it set."""
    with simulator.running(ACCOUNT) as account:
        monkeypatch.setenv(f"AIRFLOW_CONN_{SOURCE.upper()}", connection_to(account))
        yield account.control


def connection_to(account: simulator.Simulator) -> str:
    """The Airflow connection to a simulated account."""
    connection = {"conn_type": "http", "host": account.url, "password": account.token}
    return json.dumps(connection | {"extra": {"requests_per_minute": 0}})


@pytest.fixture(scope="session")
def first_sync(postgres: Server, staged: Callable[[str], str]) -> Iterator[str]:
    """The name of a warehouse with the first sync of a small account, the template of others."""
    for url in copy_of(postgres, staged(SOURCE), roles.TASKS):
        with simulator.running(ACCOUNT) as account, pytest.MonkeyPatch.context() as environment:
            environment.setenv("AIRFLOW_CONN_WAREHOUSE", url)
            environment.setenv(f"AIRFLOW_CONN_{SOURCE.upper()}", connection_to(account))
            with source_hook.opened(SOURCE, "test/1") as context:
                sync_entities(context)
        yield urlsplit(url).path[1:]


@pytest.fixture
def synced_before() -> None:
    """The test's warehouse has the first sync of a small account from the start."""


@pytest.fixture
def warehouse(request: pytest.FixtureRequest, postgres: Server, migrated: str) -> Iterator[str]:
    """The libpq URL of a warehouse of its own for each test, for the role that tasks have."""
    synced = "synced_before" in request.fixturenames
    yield from copy_of(postgres, request.getfixturevalue("first_sync") if synced else migrated, roles.TASKS)


@pytest.fixture(scope="session")
def application_tables(postgres: Server, migrated: str) -> Iterator[str]:
    """The name of a migrated warehouse with the application's empty tables, the template of others."""
    name = f"template_{uuid4().hex}"
    make_copy(postgres, name, migrated)
    with psycopg.connect(postgres.url(name), options="-csearch_path=app") as conn:
        application_role = sql.Identifier(urlsplit(postgres.url(name, APPLICATION)).username)
        conn.execute(sql.SQL("CREATE SCHEMA app AUTHORIZATION {}").format(application_role))
        conn.execute(sql.SQL("SET ROLE {}").format(application_role))
        application.create(conn)
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """The simulated store, one for all tests."""
    with storage.running() as running:
        yield running


def storage_connection(store: Store, **extra: Any) -> str:
    """The Airflow connection to the store; `extra` replaces parts of its extra."""
    declared = {
        "endpoint_url": store.url,
        "region_name": "us-east-1",
        "service_config": {"s3": {"bucket_name": store.bucket}},
        "config_kwargs": {"s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 1}},
    }
    login = {"login": store.access_key, "password": store.secret_key}
    return json.dumps({"conn_type": "aws", **login, "extra": declared | extra})


@pytest.fixture
def application_warehouse(postgres: Server, application_tables: str) -> Iterator[str]:
    """The libpq URL of a warehouse of its own for each test, with the application's tables in the schema `app`."""
    yield from copy_of(postgres, application_tables, roles.TASKS)


@pytest.fixture
def images(application_warehouse: str, store: Store, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Images:
    """A hundred images and their objects, with the connections to both and to the warehouse set."""
    parts = urlsplit(as_role(APPLICATION, application_warehouse, postgres))
    query = "&".join(filter(None, [parts.query, "options=-csearch_path%3Dapp"]))
    application_url = parts._replace(query=query).geturl()
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", application_warehouse)
    monkeypatch.setenv("AIRFLOW_CONN_IMAGES_DB", application_url)
    monkeypatch.setenv("AIRFLOW_CONN_STORAGE", storage_connection(store))
    monkeypatch.setattr(storage_source, "SOURCE", replace(storage_source.SOURCE, pause=timedelta(0)))
    found = Images(application_url, store.control, 100)
    found.restore()
    return found


def form(params: dict[str, Any]) -> ParamsDict:
    """The params as a DAG declares them, each in a section of its trigger form."""
    return ParamsDict(
        {name: Param(value, section=assets.FILTERS if name in PARTS else None) for name, value in params.items()}
    )


class Run:
    """A DAG run: its tasks leave XComs and states behind, and a cleared task runs once more."""

    def __init__(
        self,
        run_id: str = "manual__1",
        *,
        source: str = SOURCE,
        dag_id: str = "",
        params: dict[str, Any] | None = None,
        conf: dict[str, Any] | None = None,
        run_type: str = "manual",
        by: str | None = "Ada",
    ):
        declared = RECONCILE[source] if params is None else params
        dag_id = dag_id or f"{source}_reconcile"
        self.source = source
        self.name = f"{dag_id}/{run_id}"
        self.xcoms: dict[str, dict[str, list]] = {}
        self.states: dict[str, str] = {}
        self.context = {
            "dag": SimpleNamespace(dag_id=dag_id, params=form(declared)),
            "run_id": run_id,
            "params": declared | (conf or {}),
            "dag_run": SimpleNamespace(conf=conf, run_type=run_type, triggering_user_name=by),
            "outlet_events": OutletEventAccessors(),
        }

    def execute(self, operator: Any, method: str = "execute", **arguments: Any) -> Any:
        """Run a task as a worker does: its result is the XCom `return_value`."""
        result = getattr(operator, method)(self._context(operator), **arguments)
        if result is not None:
            self._push(operator.task_id, "return_value", result)
        return result

    def call_back(self, callback: Callable[[dict[str, Any]], None], operator: Any, **more: Any) -> None:
        """Call back as Airflow does after a task; `more` is what the context then has besides."""
        callback(self._context(operator) | more)

    def _context(self, operator: Any) -> dict[str, Any]:
        task = operator.task_id
        ti = SimpleNamespace(
            id=f"{self.name}/{task}",
            try_number=1,
            xcom_push=lambda key, value: self._push(task, key, value),
            xcom_pull=self._pull,
            get_task_states=lambda dag_id, run_ids: {run_ids[0]: self.states},
        )
        return self.context | {"task": operator, "ti": ti, "task_instance": ti}

    def _push(self, task: str, key: str, value: Any) -> None:
        # What can't be written as JSON can't be an XCom.
        self.xcoms.setdefault(task, {}).setdefault(key, []).append(json.loads(json.dumps(value)))

    def _pull(self, task_ids: str, key: str = "return_value") -> Any:
        found = self.xcoms.get(task_ids, {}).get(key, [])
        # A source with one entity has no mapped scan.
        mapped = task_ids == "scan" and len(entities(self.source)) > 1
        return found if mapped else (found[-1] if found else None)


def execute(run: Run, task: str) -> Any:
    """Run a task of the runbook; `scan` for every entity."""
    if task != "scan":
        return run.execute(KINDS[task](task_id=task, source=run.source))
    run.xcoms.pop("scan", None)
    for entity in entities(run.source):
        run.execute(ScanOperator(task_id="scan", source=run.source, entity=entity))
    return None


def skipped(run: Run, task: str) -> list[str]:
    """Run a task that skips others, and name them."""
    with pytest.raises(DownstreamTasksSkipped) as signal:
        execute(run, task)
    return signal.value.tasks


def answer(run: Run, option: str, who: str | None = "Ada", **fields: Any) -> Any:
    """A person's answer to the question of `decide`, with fields of its form; nobody's where `who` is None."""
    event = {
        "chosen_options": [option],
        "params_input": fields,
        "responded_at": datetime.now(UTC),
        "responded_by_user": {"id": "1", "name": who} if who else None,
    }
    return run.execute(DecideOperator(task_id="decide", source=run.source), "execute_complete", event=event)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The questions that `decide` put to people."""
    questions: list[dict] = []
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **detail: questions.append(detail))
    return questions


@pytest.fixture
def opened() -> Callable[..., Any]:
    """The source's context for a run, as an operator has it."""
    return lambda run="test/1": source_hook.opened(SOURCE, run)


@pytest.fixture
def filled(synced_before: None, control: simulator.Control) -> simulator.Control:
    """An account whose copy is complete, by the first sync of another one like it; returns its control."""
    return control


def judged(conn: psycopg.Connection, run: Run, **scans: dict[str, Any]) -> None:
    """What a run leaves that has stopped the writer, scanned and judged all, whatever its tasks look like.

    `scans`: by entity what differs of its scan from one without drift; its `verdict`, None where nobody judged it.
    """
    writer = fence.read(conn, run.source)
    for entity in entities(run.source):
        changes = {"verdict": Verdict.PASS, "accounts": {entity: Account(live=10, equal=10)}, **scans.get(entity, {})}
        verdict = changes.pop("verdict")
        scanned = summary(
            source=run.source,
            entity=entity,
            scan_id=f"{run.name}/{entity}/{writer.epoch}",
            run=run.name,
            epoch=writer.epoch,
            **changes,
        )
        scan_log.record(conn, scanned)
        if verdict:
            reasons = () if verdict is Verdict.PASS else (f"{entity} has drifted",)
            judgements.save_judgement(conn, scanned, Judgement(verdict, (), reasons, ()))


def entities(source: str = SOURCE) -> list[str]:
    return [entity.name for entity in get_source(source).entities]


def live_lines(conn: psycopg.Connection) -> set[int]:
    return {i for (i,) in conn.execute("SELECT id FROM repairshopr.line_items WHERE deleted_at IS NULL")}
