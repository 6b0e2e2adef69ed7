"""A vendor that is away for hours, or that has gone back to yesterday."""

from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import DownstreamTasksSkipped, TaskAwaitingInput
from psycopg import Connection

from include.api.errors import TryLater
from include.simulators.repairshopr import Fault, Mutation
from include.sources import get_source
from include.sources.base import SyncFailed
from include.sources.mirror import scan
from include.warehouse import fence
from plugins.failures import on_failure
from plugins.hooks import source as source_hook
from plugins.operators.report import STEPS, RunFailed
from plugins.operators.scan import ScanIncomplete
from plugins.operators.sync import SyncOperator
from tests.plugins.conftest import SOURCE, Run, answer, execute, skipped

TABLES = [entity.name for entity in get_source(SOURCE).entities]
# As many syncs as come in six hours.
SYNCS = 24


def sync(run_id: str) -> None:
    """A sync; if it fails, it was the last try."""
    run = Run(run_id, dag_id=f"{SOURCE}_sync", params={"mode": "incremental"})
    operator = SyncOperator(task_id="sync", source=SOURCE)
    try:
        run.execute(operator)
    except SyncFailed as error:
        run.call_back(on_failure, operator, exception=error)
        raise


def copy(conn: Connection) -> Mapping[str, list[tuple]]:
    return {
        name: conn.execute(f"SELECT to_jsonb(t) FROM repairshopr.{name} t ORDER BY id").fetchall() for name in TABLES
    }


def night(run_id: str, *, dry_run: bool = False) -> Run:
    """A run of the runbook up to its scans."""
    run = Run(run_id, conf={"dry_run": dry_run})
    execute(run, "stop_writer")
    execute(run, "scan")
    return run


def ended(run: Run) -> None:
    """The run ends with nothing to repair."""
    assert set(skipped(run, "gate_check")) >= {"reconcile", "verify"}
    execute(run, "resume_writer")
    run.states = dict.fromkeys(STEPS, "success")
    execute(run, "report")


@pytest.mark.drill("maintenance")
def test_six_hours_of_maintenance_are_told_once_and_caught_up_by_one_sync(airflow, synced, conn, service, monkeypatch):
    # No task waits for as long as the vendor asks for.
    monkeypatch.setattr(source_hook, "BUDGET_SECONDS", 1800)
    before = copy(conn)
    synced.fault(Fault("status", status=503, retry_after=3600, times=None))
    for number in range(SYNCS):
        line = synced.ids("line_items")[number]
        synced.mutate(Mutation("update", "line_items", line, {"name": f"during maintenance {number}"}))
        with pytest.raises(SyncFailed):
            sync(f"{number}")
    run = Run("in the night")
    execute(run, "stop_writer")
    with pytest.raises(TryLater):
        execute(run, "scan")
    execute(run, "resume_writer")
    assert copy(conn) == before
    assert not fence.read(conn, SOURCE).stopped
    run.states = dict.fromkeys(STEPS, "success") | {"scan": "failed"}
    with pytest.raises(RunFailed):
        execute(run, "report")
    titles = [f"{SOURCE}: sync failed", f"{SOURCE}: error rate above its limit", f"{SOURCE}: scan failed or incomplete"]
    assert service.titles == titles

    synced.clear()
    sync("afterwards")
    changed = "SELECT count(*) FROM repairshopr.line_items WHERE name LIKE 'during maintenance %'"
    assert conn.execute(changed).fetchone() == (SYNCS,)
    ended(night("the next"))


@pytest.fixture
def restored(airflow, synced, conn, asked) -> tuple[Callable[[], None], Callable[[], None]]:
    """The vendor restores yesterday's backup, by the first; the newer state comes back by the second."""

    def take() -> Mapping[str, list[dict]]:
        return {name: synced.rows(name) for name in TABLES}

    def give(rows: Mapping[str, list[dict]]) -> None:
        for name, records in rows.items():
            synced.load(name, records)

    yesterday = take()
    for invoice in synced.ids("invoices"):
        synced.mutate(Mutation("update", "invoices", invoice, {"note": "of today"}))
    for number in range(5):
        synced.mutate(Mutation("insert", "customers", row={"firstname": f"New {number}"}))
    synced.mutate(*(Mutation("delete", "line_items", line) for line in synced.ids("line_items")[:30]))
    sync("today")
    today = take()
    return lambda: give(yesterday), lambda: give(today)


@pytest.mark.drill("restored-backup")
def test_older_state_overwrites_nothing_before_a_person_has_said_so(restored, conn, monkeypatch):
    restore, come_back = restored
    before = copy(conn)
    restore()
    sync("after the restore")
    # For a day it looks like a replica that lags behind.
    early = Run("too early")
    execute(early, "stop_writer")
    with pytest.raises(ScanIncomplete, match="40 of 40 rows could not be proven"):
        execute(early, "scan")
    execute(early, "resume_writer")
    monkeypatch.setattr(scan, "MAY_LAG", -timedelta(minutes=1))
    run = night("1")
    assert execute(run, "gate_check")["verdict"] == "hold"
    with pytest.raises(TaskAwaitingInput):
        execute(run, "decide")
    with pytest.raises(fence.FenceError):
        execute(run, "reconcile")
    assert rows(copy(conn)) == rows(before)
    with pytest.raises(DownstreamTasksSkipped):
        answer(run, "Keep stopped")

    come_back()
    ended(night("2"))
    sync("tomorrow")
    assert rows(copy(conn)) == rows(before)
    assert not fence.read(conn, SOURCE).stopped


def rows(found: Mapping[str, list[tuple]]) -> Mapping[str, list[dict]]:
    """The rows without the sync that wrote them last."""
    return {
        name: [{column: value for column, value in row.items() if column != "sync_id"} for (row,) in records]
        for name, records in found.items()
    }
