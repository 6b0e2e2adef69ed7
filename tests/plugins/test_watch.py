"""The watch as a task: what it gathers of warehouse and Airflow, whom it tells, and how often."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.sdk.exceptions import DownstreamTasksSkipped

from include.confidence import findings, holds
from include.confidence.policy import Verdict
from include.confidence.watch import Code
from include.sources import REGISTRY
from include.warehouse import fence, sync_log
from include.warehouse.sync_log import Counts
from plugins.failures import on_failure
from plugins.operators.report import STEPS, RunFailed
from plugins.operators.watch import WatchFailed, WatchOperator
from plugins.runs import ConfRefused
from tests.notifications import Service
from tests.plugins.conftest import POOL, SOURCE, Run, answer, execute, judged

NOTHING = {source: [] for source in REGISTRY}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service, and the connection to it."""
    with Service() as running:
        monkeypatch.setenv("AIRFLOW_CONN_NOTIFICATIONS", running.connection)
        yield running


def look(**more: Any) -> dict[str, list[str]]:
    """One pass of the watch."""
    run = Run("scheduled__1", dag_id="confidence_watch", params={}, **more)
    return run.execute(WatchOperator(task_id="watch"))


def found(conn: psycopg.Connection) -> list[str]:
    """What a pass finds of the source, all others being in order."""
    seen = look()
    assert {source: codes for source, codes in seen.items() if source != SOURCE and codes} == {}
    assert len(findings.open_findings(conn, [SOURCE])) == len(seen[SOURCE])
    return seen[SOURCE]


def later(conn: psycopg.Connection) -> list[str]:
    """Another pass, when what the one before has seen is not in passing any more."""
    conn.execute("UPDATE confidence.finding SET first_seen = first_seen - interval '1 hour'")
    return found(conn)


@pytest.fixture
def stopped(airflow, connected, conn) -> Run:
    """A run at work behind the stop that it has made."""
    run = Run("night")
    execute(run, "stop_writer")
    airflow.runs[run.name] = "running"
    airflow.tasks[run.name] = [{"state": "running"}]
    return run


def unverified(conn, run: Run) -> int:
    sync_id = sync_log.begin(conn, SOURCE, "repair", run.name)
    sync_log.finish(conn, sync_id, {"line_items": Counts(deleted=3)})
    return sync_id


class TestFinds:
    def test_nothing_where_all_is_well(self, airflow, connected, conn, service):
        assert look() == NOTHING
        assert conn.execute("SELECT source FROM confidence.watch ORDER BY source").fetchall() == [
            (source,) for source in REGISTRY
        ]

    def test_nothing_while_a_run_is_at_work(self, stopped, conn):
        judged(conn, stopped, tickets={"verdict": None})
        unverified(conn, stopped)
        sync_log.begin(conn, SOURCE, "repair", stopped.name)
        assert found(conn) == []

    def test_nothing_while_a_question_waits(self, stopped, airflow, conn):
        judged(conn, stopped, tickets={"verdict": Verdict.HOLD})
        holds.refresh_hold(conn, SOURCE)
        airflow.tasks[stopped.name] = [{"state": "awaiting_input"}]
        assert found(conn) == []

    @pytest.mark.parametrize("state", ["success", "failed", None])
    def test_stopped_writer_whose_run_has_ended_or_is_gone(self, stopped, airflow, conn, state):
        airflow.runs.pop(stopped.name)
        airflow.runs |= {stopped.name: state} if state else {}
        assert found(conn) == [Code.UNATTENDED]

    def test_dag_that_is_paused_in_the_middle(self, stopped, airflow, conn):
        airflow.paused.add(f"{SOURCE}_reconcile")
        assert found(conn) == [Code.PAUSED]

    def test_run_that_does_not_move(self, stopped, airflow, conn):
        airflow.tasks[stopped.name] = [{"state": "scheduled", "scheduled_when": "2026-03-01T03:00:00Z"}]
        assert found(conn) == []
        conn.execute("UPDATE confidence.writer SET since = now() - interval '1 hour' WHERE source = %s", [SOURCE])
        assert found(conn) == [Code.STUCK]

    def test_pool_that_was_deleted(self, airflow, connected, conn):
        del airflow.pools[POOL]
        assert found(conn) == [Code.POOL_MISSING]

    def test_pool_that_a_run_has_closed_on_its_way_to_the_fence(self, stopped, airflow, conn):
        fence.resume(conn, SOURCE, stopped.name)
        assert found(conn) == []
        airflow.runs[stopped.name] = "failed"
        assert found(conn) == [Code.POOL_CLOSED]

    @pytest.mark.drill("edited-pool")
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"slots": 0}, Code.POOL_CLOSED),
            ({"slots": 4}, Code.POOL_CHANGED),
            ({"include_deferred": False}, Code.POOL_CHANGED),
        ],
    )
    def test_pool_that_was_changed_by_hand(self, airflow, connected, conn, change, code):
        airflow.pools[POOL] |= change
        assert found(conn) == [code]

    def test_pool_that_was_opened_over_a_stopped_writer(self, stopped, airflow, conn):
        airflow.pools[POOL] |= {"slots": 1}
        assert found(conn) == [Code.POOL_OPEN]

    @pytest.mark.parametrize("verb", ["sync", "reconcile"])
    def test_dag_that_is_paused_although_the_source_was_synced(self, airflow, connected, conn, verb):
        airflow.paused.add(f"{SOURCE}_{verb}")
        assert found(conn) == []
        sync_log.finish(conn, sync_log.begin(conn, SOURCE, "sync", f"{SOURCE}_sync/1"), {})
        assert found(conn) == [Code.SWITCHED_OFF]
        [finding] = findings.open_findings(conn, [SOURCE])
        assert finding.next_step == f"switch {SOURCE}_{verb} on again"

    def test_green_run_without_scans(self, stopped, airflow, conn):
        execute(stopped, "resume_writer")
        airflow.runs[stopped.name] = "failed"
        assert found(conn) == []
        airflow.runs[stopped.name] = "success"
        assert found(conn) == [Code.NOT_DONE]
        [finding] = findings.open_findings(conn, [SOURCE])
        assert "no whole scan of" in finding.what
        judged(conn, stopped)
        assert found(conn) == []

    def test_green_run_whose_repair_failed(self, stopped, airflow, conn):
        judged(conn, stopped)
        sync_log.finish(
            conn, sync_log.begin(conn, SOURCE, "repair", stopped.name), {}, error=RuntimeError("the disk is full")
        )
        execute(stopped, "resume_writer")
        airflow.runs[stopped.name] = "success"
        assert found(conn) == [Code.NOT_DONE]

    def test_green_run_whose_scans_nobody_judged(self, stopped, airflow, conn):
        judged(conn, stopped, tickets={"verdict": None}, customers={"verdict": None})
        execute(stopped, "resume_writer")
        airflow.runs[stopped.name] = "failed"
        assert found(conn) == []
        airflow.runs[stopped.name] = "success"
        assert found(conn) == [Code.UNJUDGED]
        [finding] = findings.open_findings(conn, [SOURCE])
        assert "its last scans of customers, tickets" in finding.what
        conn.execute("UPDATE confidence.forensic_run SET scanned_at = scanned_at - interval '8 days'")
        assert found(conn) == []

    def test_repair_that_nobody_verified(self, stopped, airflow, conn):
        judged(conn, stopped)
        sync_id = unverified(conn, stopped)
        execute(stopped, "resume_writer")
        airflow.runs[stopped.name] = "success"
        assert found(conn) == [Code.UNVERIFIED]
        later_run = Run("later")
        execute(later_run, "stop_writer")
        airflow.runs[later_run.name] = "success"
        judged(conn, later_run, tickets={"verdict": None})
        assert Code.UNVERIFIED in found(conn)
        judged(conn, later_run)
        assert Code.UNVERIFIED not in found(conn)
        conn.execute("DELETE FROM confidence.forensic_run WHERE run = %s", [later_run.name])
        assert Code.UNVERIFIED in found(conn)
        sync_log.save_checks(conn, sync_id, [])
        assert Code.UNVERIFIED not in found(conn)

    def test_repair_whose_run_has_scanned_again(self, stopped, airflow, conn):
        judged(conn, stopped)
        unverified(conn, stopped)
        judged(conn, stopped, tickets={"verdict": None})
        execute(stopped, "resume_writer")
        airflow.runs[stopped.name] = "failed"
        assert found(conn) == [Code.UNVERIFIED]
        judged(conn, stopped)
        assert found(conn) == []

    def test_repair_that_was_rolled_back_needs_no_look(self, stopped, airflow, conn):
        judged(conn, stopped)
        sync_id = unverified(conn, stopped)
        execute(stopped, "resume_writer")
        airflow.runs[stopped.name] = "success"
        assert found(conn) == [Code.UNVERIFIED]
        sync_log.finish(conn, sync_log.begin(conn, SOURCE, "rollback", "w/1", undoes=sync_id), {})
        assert found(conn) == []

    @pytest.mark.parametrize("state", ["failed", "success", None])
    def test_row_of_the_sync_log_whose_run_has_ended(self, airflow, connected, conn, state):
        sync_log.begin(conn, SOURCE, "sync", f"{SOURCE}_sync/1")
        airflow.runs |= {f"{SOURCE}_sync/1": state} if state else {}
        assert found(conn) == [Code.UNFINISHED]
        airflow.runs[f"{SOURCE}_sync/1"] = "running"
        assert found(conn) == []


class TestTells:
    @pytest.fixture
    def ended(self, stopped, airflow) -> Run:
        """A run that was marked as done over the stopped writer."""
        airflow.runs[stopped.name] = "success"
        return stopped

    def test_once_two_passes_have_seen_it_and_once_for_all(self, ended, conn, service):
        found(conn)
        found(conn)
        assert service.told == []
        later(conn)
        later(conn)
        [message] = service.told
        assert (message["title"], message["type"]) == (
            f"{SOURCE}: the writer is stopped, and nobody is at work on it",
            "failure",
        )
        lines = message["message"].split("\n")
        assert lines[0].startswith(f"the writer of {SOURCE} has been stopped by {ended.name} since ")
        assert lines[1] == "Consequence: nothing is synced, and nobody is asked."
        assert lines[2] == "Next: clear resume_writer of that run with downstream."
        assert lines[3] == f"Run: {ended.name}"
        assert lines[4].endswith(f"/dags/{SOURCE}_reconcile/runs/night")

    def test_again_when_it_was_gone_and_has_come_back(self, ended, airflow, conn, service):
        found(conn)
        later(conn)
        airflow.runs[ended.name] = "running"
        assert found(conn) == []
        ends = conn.execute("SELECT ended_at IS NOT NULL FROM confidence.notification").fetchall()
        assert ends == [(True,)]
        airflow.runs[ended.name] = "success"
        found(conn)
        assert len(service.told) == 1
        later(conn)
        assert len(service.told) == 2

    def test_not_what_the_report_has_told(self, stopped, airflow, conn, service):
        """It is shown all the same, and told once somebody has marked or deleted the run."""
        judged(conn, stopped)
        stopped.states = dict.fromkeys(STEPS, "success") | {"resume_writer": "failed"}
        with pytest.raises(RunFailed):
            execute(stopped, "report")
        airflow.runs[stopped.name] = "failed"
        found(conn)
        assert later(conn) == [Code.UNATTENDED]
        assert service.titles == [f"{SOURCE}: the writer could not be started again"]
        del airflow.runs[stopped.name]
        later(conn)
        assert len(service.told) == 2

    def test_not_what_the_report_of_an_earlier_stop_has_told(self, stopped, airflow, conn, service):
        self.test_not_what_the_report_has_told(stopped, airflow, conn, service)
        conn.execute("UPDATE confidence.writer SET since = clock_timestamp(), epoch = epoch + 1")
        airflow.runs[stopped.name] = "failed"
        found(conn)
        later(conn)
        assert len(service.told) == 3

    @pytest.mark.parametrize(("who", "told"), [("Ada", 0), (None, 1)])
    def test_not_what_a_person_has_answered(self, stopped, airflow, conn, service, who, told):
        judged(conn, stopped, tickets={"verdict": Verdict.HOLD})
        holds.refresh_hold(conn, SOURCE)
        holds.note_asked(conn, holds.open_holds(conn, SOURCE))
        with pytest.raises(DownstreamTasksSkipped):
            answer(stopped, "Keep stopped", who)
        airflow.runs[stopped.name] = "failed"
        found(conn)
        assert later(conn) == [Code.UNATTENDED]
        assert len(service.told) == told

    def test_repair_whose_failed_run_was_told_is_shown_only(self, stopped, airflow, conn, service):
        judged(conn, stopped)
        unverified(conn, stopped)
        execute(stopped, "resume_writer")
        stopped.states = dict.fromkeys(STEPS, "success") | {"verify": "failed"}
        with pytest.raises(RunFailed):
            execute(stopped, "report")
        airflow.runs[stopped.name] = "failed"
        found(conn)
        assert later(conn) == [Code.UNVERIFIED]
        assert service.titles == [f"{SOURCE}: verify failed"]

    def test_of_a_pool_there_is_no_run_to_look_at_but_its_own(self, airflow, connected, conn, service):
        del airflow.pools[POOL]
        found(conn)
        later(conn)
        [message] = service.told
        assert "Run: confidence_watch/scheduled__1" in message["message"]


class TestFails:
    def fail(self, before: str | None = "success", **more: Any) -> None:
        """A pass that fails for good; `before`: how the one before has ended."""
        run, operator = Run("scheduled__2", dag_id="confidence_watch", params={}), WatchOperator(task_id="watch")
        context = run._context(operator)
        context["ti"].get_previous_ti = lambda: before and SimpleNamespace(state=before)
        with pytest.raises(Exception) as failed:  # noqa: PT011
            operator.execute(context)
        on_failure(context | {"exception": failed.value} | more)

    def test_unknown_conf_is_refused(self, airflow, connected):
        with pytest.raises(ConfRefused, match="source"):
            look(conf={"source": SOURCE})

    def test_one_source_is_no_reason_to_leave_out_the_others(self, airflow, connected, conn):
        conn.execute("DELETE FROM confidence.writer WHERE source = %s", [REGISTRY[0]])
        for source in REGISTRY:
            del airflow.pools[f"{source}_writer"]
        with pytest.raises(WatchFailed, match=rf"not looked at: {REGISTRY[0]}: .*run the DAG warehouse_migrate"):
            look()
        assert {finding.source for finding in findings.open_findings(conn, REGISTRY)} == set(REGISTRY[1:])

    def test_what_a_pass_could_not_look_at_stays_as_it_was(self, airflow, connected, conn):
        del airflow.pools[POOL]
        look()
        airflow.down = True
        with pytest.raises(WatchFailed, match="connection 'airflow_api'"):
            look()
        assert [finding.code for finding in findings.open_findings(conn, [SOURCE])] == [Code.POOL_MISSING]

    def test_is_told_once_until_a_pass_has_succeeded(self, airflow, connected, service):
        airflow.down = True
        self.fail()
        self.fail()
        [message] = service.told
        assert message["title"] == "the watch over all sources has failed"
        assert message["message"].startswith(f"not looked at: {REGISTRY[0]}: ")
        airflow.down = False
        look()
        airflow.down = True
        self.fail()
        assert len(service.told) == 2

    def test_without_the_warehouse_the_first_of_a_row_is_told(self, airflow, service, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
        self.fail()
        self.fail(before="failed")
        self.fail(before=None)
        assert len(service.told) == 2

    def test_lost_process_is_told(self, connected, service):
        run, operator = Run("scheduled__2", dag_id="confidence_watch", params={}), WatchOperator(task_id="watch")
        run.call_back(on_failure, operator)
        [message] = service.told
        assert message["message"].startswith("its process was lost (more in the task's log)")
