"""A source whose connections are not set: what its runs do, what the watch finds; and a source that is left out."""

from typing import Any

import psycopg
import pytest
from airflow.sdk.exceptions import AirflowSkipException

from include.api.errors import FixConfiguration, TryLater
from include.confidence import findings
from include.confidence.watch import Code
from include.sources import REGISTRY, get_source
from include.sources.installed import SETTING, NotInstalled
from include.warehouse import fence, sync_log
from include.warehouse.sync_log import Counts
from plugins.configured import missing_connections
from plugins.operators.rollback import RollbackOperator
from plugins.operators.sync import SyncOperator
from plugins.operators.watch import WatchOperator
from tests.plugins.conftest import POOL, SOURCE, Run, execute

VARIABLE = f"AIRFLOW_CONN_{SOURCE.upper()}"


@pytest.fixture
def unset(airflow, connected, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection of the source, as docker-compose.yaml leaves it."""
    monkeypatch.setenv(VARIABLE, "")


def scheduled() -> Run:
    return Run("scheduled__1", run_type="scheduled")


def sync(**more: Any) -> None:
    run = Run("1", dag_id=f"{SOURCE}_sync", params={"mode": "incremental"}, **more)
    run.execute(SyncOperator(task_id="sync", source=SOURCE))


def synced(conn: psycopg.Connection) -> int:
    sync_id = sync_log.begin(conn, SOURCE, "sync", f"{SOURCE}_sync/1")
    sync_log.finish(conn, sync_id, {"customers": Counts(inserted=1)})
    return sync_id


def look() -> dict[str, list[str]]:
    run = Run("scheduled__1", dag_id="confidence_watch", params={}, run_type="scheduled")
    return run.execute(WatchOperator(task_id="watch"))


class TestMissing:
    @pytest.mark.parametrize("source", REGISTRY)
    def test_every_connection_that_the_source_needs(self, connected, monkeypatch, source):
        assert missing_connections(source) == ()
        for name in get_source(source).connections:
            monkeypatch.delenv(f"AIRFLOW_CONN_{name.upper()}")
            assert name in missing_connections(source)
        assert missing_connections(source) == tuple(get_source(source).connections)

    def test_an_empty_one_too(self, unset):
        assert missing_connections(SOURCE) == (SOURCE,)


class TestRuns:
    @pytest.mark.parametrize("task", ["stop_writer", "reconcile", "report"])
    def test_each_step_of_a_scheduled_run_that_would_work_is_skipped(self, unset, conn, airflow, task):
        with pytest.raises(AirflowSkipException, match=f"skipped: {SOURCE} is not configured: .*{VARIABLE}"):
            execute(scheduled(), task)
        assert not fence.read(conn, SOURCE).stopped
        assert airflow.calls == []

    def test_a_scheduled_sync_is_skipped(self, unset, conn):
        with pytest.raises(AirflowSkipException, match="is not configured"):
            sync(run_type="scheduled")
        assert conn.execute("SELECT count(*) FROM confidence.sync_log").fetchone() == (0,)

    def test_a_run_by_hand_fails_at_once_and_stops_nothing(self, unset, conn, airflow):
        told = f"{SOURCE} is not configured: Airflow has no connection {SOURCE}. Nothing was done. Next: add it"
        with pytest.raises(FixConfiguration, match=told):
            execute(Run(), "stop_writer")
        with pytest.raises(FixConfiguration, match=told):
            sync()
        assert airflow.calls == []

    def test_a_source_that_was_synced_has_lost_its_connection_and_fails(self, unset, conn):
        synced(conn)
        for task in (lambda: execute(scheduled(), "stop_writer"), lambda: sync(run_type="scheduled")):
            with pytest.raises(TryLater, match="is not configured"):
                task()

    def test_with_its_connection_it_runs(self, airflow, connected, conn):
        execute(scheduled(), "stop_writer")
        assert fence.read(conn, SOURCE).stopped


class TestWatch:
    def test_finds_it_until_the_connection_is_there(self, unset, conn, monkeypatch):
        assert look()[SOURCE] == [Code.NOT_CONFIGURED]
        [finding] = findings.open_findings(conn, REGISTRY)
        assert finding.what == f"{SOURCE} is not configured: Airflow has no connection {SOURCE}"
        assert VARIABLE in finding.next_step
        assert SETTING in finding.next_step
        monkeypatch.setenv(VARIABLE, "http://127.0.0.1:1")
        assert look()[SOURCE] == []

    def test_leaves_out_what_is_left_out(self, unset, conn, airflow, monkeypatch):
        """Neither the connection, nor pool or row of another source is missed."""
        kept = "square"
        monkeypatch.setenv(SETTING, kept)
        for source in set(REGISTRY) - {kept}:
            del airflow.pools[f"{source}_writer"]
        conn.execute("DELETE FROM confidence.writer WHERE source <> %s", [kept])
        assert look() == {kept: []}
        assert conn.execute("SELECT source FROM confidence.watch").fetchall() == [(kept,)]
        monkeypatch.setenv(SETTING, f"{kept},{SOURCE}")
        with pytest.raises(Exception, match=f"not looked at: {SOURCE}: .*warehouse_migrate"):
            look()


class TestRollback:
    def test_of_a_source_that_is_left_out_changes_nothing(self, connected, conn, monkeypatch):
        sync_id = synced(conn)
        params = {"sync_id": sync_id, "reason": "", "dry_run": False, "force": False}
        monkeypatch.setenv(SETTING, "square")
        with pytest.raises(NotInstalled, match=f"{SOURCE} is not set up here"):
            Run(dag_id="warehouse_rollback", params=params).execute(RollbackOperator(task_id="rollback"))
        assert conn.execute("SELECT count(*) FROM confidence.sync_log").fetchone() == (1,)
        monkeypatch.delenv(SETTING)
        Run(dag_id="warehouse_rollback", params=params).execute(RollbackOperator(task_id="rollback"))


def test_a_source_that_is_added_later_takes_over_what_was_kept(airflow, connected, conn, monkeypatch):
    """Its stop outlived the time without it: the next run of its runbook takes it over."""
    held = Run("before")
    execute(held, "stop_writer")
    airflow.runs[held.name] = "failed"
    monkeypatch.setenv(SETTING, "square")
    assert set(look()) == {"square"}
    monkeypatch.setenv(SETTING, f"square,{SOURCE}")
    assert look() == {"square": [], SOURCE: [Code.UNATTENDED]}
    execute(scheduled(), "stop_writer")
    assert (fence.read(conn, SOURCE).run, airflow.pools[POOL]["slots"]) == (scheduled().name, 0)
