"""Two deployments on one warehouse: one writes at a time, and a drift is repaired once."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRescheduleException
from psycopg import Connection

from include.confidence.scan_log import PlanGone
from include.warehouse import fence
from plugins.hooks.airflow_api import declared_pools
from plugins.operators.sync import SyncOperator
from tests.plugins.airflow_api import AirflowServer
from tests.plugins.conftest import POOL, SOURCE, Run, execute, live_lines, skipped

REPAIRS = "SELECT count(*) FROM confidence.sync_log WHERE kind = 'repair' AND state = 'success' AND rows_inserted > 0"


@dataclass(frozen=True)
class Deployment:
    """A deployment with an Airflow of its own, and a run of the runbook there."""

    airflow: AirflowServer
    run: Run
    monkeypatch: pytest.MonkeyPatch

    def play(self, task: str) -> Any:
        self._here()
        self.airflow.runs[self.run.name] = "running"
        return execute(self.run, task)

    def judge(self) -> None:
        self._here()
        skipped(self.run, "gate_check")

    def play_rest(self) -> None:
        """Every task after `stop_writer`, with a repair."""
        self.play("scan")
        self.judge()
        for task in ("reconcile", "verify", "resume_writer"):
            self.play(task)

    def sync(self) -> Any:
        self._here()
        run = Run("1", dag_id=f"{SOURCE}_sync", params={"mode": "incremental"})
        return run.execute(SyncOperator(task_id="sync", source=SOURCE))

    def _here(self) -> None:
        login = {"login": self.airflow.user, "password": self.airflow.password}
        connection = {"conn_type": "http", "host": self.airflow.url} | login
        self.monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps(connection))


@pytest.fixture
def airflows() -> Iterator[tuple[AirflowServer, AirflowServer]]:
    with AirflowServer(declared_pools()) as one, AirflowServer(declared_pools()) as two:
        yield one, two


def lose(conn: Connection) -> None:
    lost = sorted(live_lines(conn))[:3]
    conn.execute("DELETE FROM repairshopr.line_items WHERE id = ANY (%s)", [lost])


@pytest.mark.drill("two-deployments")
def test_later_stop_takes_over_and_the_earlier_run_does_nothing_more(airflows, synced, conn, monkeypatch):
    one, two = (
        Deployment(airflow, Run(run_id, conf={"dry_run": False}), monkeypatch)
        for airflow, run_id in zip(airflows, ("night_one", "night_two"), strict=True)
    )
    before = live_lines(conn)
    lose(conn)
    one.play("stop_writer")
    one.play("scan")
    two.play("stop_writer")
    for task in ("scan", "gate_check", "reconcile", "resume_writer"):
        with pytest.raises(fence.FenceError, match="night_two"):
            one.play(task)
    # Its pool there is open all the same: the fence alone keeps it out.
    one.airflow.pools[POOL]["slots"] = 1
    with pytest.raises(AirflowRescheduleException):
        one.sync()
    two.play_rest()
    assert live_lines(conn) == before
    assert conn.execute(REPAIRS).fetchone() == (1,)
    one.sync()
    two.sync()
    assert live_lines(conn) == before


@pytest.mark.drill("two-deployments")
def test_runs_of_one_name_repair_once(airflows, synced, conn, monkeypatch):
    """Both schedules begin at the same moment, so both runs have the same name, and each takes the stop for its own."""
    one, two = (
        Deployment(airflow, Run("scheduled__2026-03-01T03:00:00+00:00", conf={"dry_run": False}), monkeypatch)
        for airflow in airflows
    )
    before = live_lines(conn)
    lose(conn)
    one.play("stop_writer")
    two.play("stop_writer")
    one.play("scan")
    two.play("scan")
    # The later scan has replaced the earlier one, whose run ends here and lets the writer go.
    with pytest.raises(PlanGone):
        one.play("gate_check")
    one.play("resume_writer")
    for task in ("gate_check", "reconcile"):
        with pytest.raises(fence.FenceError, match="clear stop_writer with downstream"):
            two.play(task)
    assert not fence.read(conn, SOURCE).stopped

    two.play("stop_writer")
    two.play_rest()
    assert live_lines(conn) == before
    assert conn.execute(REPAIRS).fetchone() == (1,)
    assert not fence.read(conn, SOURCE).stopped
