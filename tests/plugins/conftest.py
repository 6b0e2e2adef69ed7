"""Operators without a scheduler: a warehouse, a simulated account, Airflow's API as far as they use it, and a run."""

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from include.simulators import repairshopr as simulator
from include.sources import get_source
from plugins.hooks import source as source_hook
from plugins.hooks.airflow_api import declared_pools
from tests.plugins.airflow_api import AirflowServer

SOURCE = "repairshopr"
POOL = f"{SOURCE}_writer"
RECONCILE = {
    "dry_run": True,
    "page_start": 1,
    "page_end": 0,
    "progress_every": 250,
    "compute_db_not_in_api": True,
    "reset_watermark": False,
}


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowServer]:
    """Airflow's API with the declared pools, and the connection to it."""
    with AirflowServer(declared_pools()) as server:
        login = {"login": server.user, "password": server.password}
        monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps({"conn_type": "http", "host": server.url} | login))
        yield server


@pytest.fixture
def connected(warehouse: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The warehouse's URL, with the connection to it set."""
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", warehouse)
    return warehouse


@pytest.fixture
def control(connected: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[simulator.Control]:
    """The hand on a small account, with the connection to it set."""
    sizes = {"customers": 12, "invoices": 40, "line_items": 150, "payments": 12, "products": 12, "tickets": 12}
    with simulator.running(simulator.Config(rate_limit=None, estimates=5, **sizes)) as account:
        connection = {"conn_type": "http", "host": account.url, "password": account.token}
        extra = {"requests_per_minute": 0}
        monkeypatch.setenv(f"AIRFLOW_CONN_{SOURCE.upper()}", json.dumps(connection | {"extra": extra}))
        yield account.control


class Run:
    """A DAG run: its tasks leave XComs and states behind, and a cleared task runs once more."""

    def __init__(
        self,
        run_id: str = "manual__1",
        *,
        dag_id: str = f"{SOURCE}_reconcile",
        params: dict[str, Any] | None = None,
        conf: dict[str, Any] | None = None,
        run_type: str = "manual",
    ):
        declared = RECONCILE if params is None else params
        self.name = f"{dag_id}/{run_id}"
        self.xcoms: dict[str, dict[str, list]] = {}
        self.states: dict[str, str] = {}
        self.context = {
            "dag": SimpleNamespace(dag_id=dag_id, params=declared),
            "run_id": run_id,
            "params": declared | (conf or {}),
            "dag_run": SimpleNamespace(conf=conf, run_type=run_type),
        }

    def execute(self, operator: Any, method: str = "execute", **arguments: Any) -> Any:
        """Run a task as a worker does: its result is the XCom `return_value`."""
        task = operator.task_id
        ti = SimpleNamespace(
            id=f"{self.name}/{task}",
            try_number=1,
            xcom_push=lambda key, value: self._push(task, key, value),
            xcom_pull=self._pull,
            get_task_states=lambda dag_id, run_ids: {run_ids[0]: self.states},
        )
        result = getattr(operator, method)(self.context | {"ti": ti, "task_instance": ti}, **arguments)
        if result is not None:
            self._push(task, "return_value", result)
        return result

    def _push(self, task: str, key: str, value: Any) -> None:
        # What can't be written as JSON can't be an XCom.
        self.xcoms.setdefault(task, {}).setdefault(key, []).append(json.loads(json.dumps(value)))

    def _pull(self, task_ids: str, key: str = "return_value") -> Any:
        found = self.xcoms.get(task_ids, {}).get(key, [])
        return found if task_ids == "scan" else (found[-1] if found else None)


@pytest.fixture
def opened() -> Callable[..., Any]:
    """The source's context for a run, as an operator has it."""
    return lambda run="test/1": source_hook.opened(SOURCE, run)


def entities() -> list[str]:
    return [entity.name for entity in get_source(SOURCE).entities]


def live_lines(conn: psycopg.Connection) -> set[int]:
    return {i for (i,) in conn.execute("SELECT id FROM repairshopr.line_items WHERE deleted_at IS NULL")}
