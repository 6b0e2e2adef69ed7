"""What reaches people, over a real service on loopback: each event once, and never at the cost of a task."""

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.sdk.exceptions import DownstreamTasksSkipped, TaskAwaitingInput

from include.confidence import holds
from include.confidence.messages import Event, Kind
from include.simulators.repairshopr import Fault, Mutation
from include.sources.base import SyncFailed
from include.warehouse.fence import DrainTimeout, FenceError
from plugins import deadline, notify
from plugins.failures import on_failure
from plugins.operators.report import STEPS, RunFailed
from plugins.operators.scan import ScanIncomplete
from plugins.operators.sync import SyncOperator
from plugins.runs import ConfRefused
from tests.notifications import Service
from tests.plugins.conftest import KINDS, SOURCE, Run, answer, execute, judged, live_lines, skipped

EVENT = Event("scan/a_dag/1", Kind.SCAN, "shop", "a_dag/1", "shop: scan failed", "why\nConsequence: none.")
OTHER = replace(EVENT, key="warn/a_dag/1", kind=Kind.WARN, title="shop: more drift")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service, and the connection to it."""
    with Service() as running:
        monkeypatch.setenv("AIRFLOW_CONN_NOTIFICATIONS", running.connection)
        yield running


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where Airflow's UI is."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/house/")
    return "https://airflow.example.com/house"


def tell(*events: Event, **more: Any) -> None:
    notify.tell("a_dag/1", "shop", events, **more)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the task's log says of notifications."""
    return [record.getMessage() for record in caplog.records if record.name == "plugins.notify"]


class TestTell:
    def test_message_has_title_text_and_weight(self, connected, service):
        tell(EVENT, OTHER)
        assert service.told == [
            {"title": EVENT.title, "message": EVENT.text, "type": "failure"},
            {"title": OTHER.title, "message": OTHER.text, "type": "warning"},
        ]

    def test_one_message_an_event_whoever_tells_it_again(self, connected, service):
        tell(EVENT)
        tell(replace(EVENT, run="a_dag/2", text="later"))
        assert len(service.told) == 1

    def test_one_message_also_of_tasks_that_run_at_once(self, connected, service):
        threads = [threading.Thread(target=tell, args=(EVENT,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert service.titles == [EVENT.title]

    def test_what_has_ended_is_told_when_it_comes_again(self, connected, service):
        tell(EVENT)
        tell(EVENT, ended=[Kind.SCAN])
        assert len(service.told) == 1
        tell(ended=[Kind.SCAN])
        tell(EVENT)
        assert len(service.told) == 2

    def test_without_a_connection_it_says_so_in_one_line(self, connected, conn, caplog):
        with caplog.at_level(logging.INFO):
            tell(EVENT, OTHER)
            tell()
        [line] = lines(caplog)
        assert line == "connection notifications is not set, so nobody is told: shop: scan failed; shop: more drift"
        assert conn.execute("SELECT count(*) FROM confidence.notification").fetchone() == (0,)

    @pytest.mark.drill("messages-down")
    def test_service_that_is_down_is_one_line_and_told_later_by_whoever_tells_next(self, connected, service, caplog):
        service.down = True
        tell(EVENT, OTHER)
        assert service.asked == 1
        [line] = lines(caplog)
        assert line == "not told by JSON, see connection notifications: shop: scan failed"
        service.down = False
        tell()
        assert service.titles == [EVENT.title, OTHER.title]

    def test_no_log_names_the_address_of_a_service(self, connected, service, monkeypatch, caplog, capfd):
        def unreachable() -> str:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                return f"json://127.0.0.1:{free.getsockname()[1]}/{service.token}"

        for path in (unreachable(), f"nonsense://{service.token}", service.token, f"slack://{service.token}"):
            connection = {"conn_type": "apprise", "extra": {"config": [{"path": path}]}}
            monkeypatch.setenv("AIRFLOW_CONN_NOTIFICATIONS", json.dumps(connection))
            with caplog.at_level(logging.DEBUG):
                tell(EVENT)
        service.down = True
        monkeypatch.setenv("AIRFLOW_CONN_NOTIFICATIONS", service.connection)
        with caplog.at_level(logging.DEBUG):
            tell(EVENT)
        assert len(lines(caplog)) == 5
        assert service.token not in caplog.text + "".join(capfd.readouterr())

    @pytest.mark.parametrize(
        "extra", [{}, {"config": "no json"}, {"config": 3}, {"config": {"tag": "x"}}, {"config": []}]
    )
    def test_connection_without_a_service_says_what_it_needs(self, connected, monkeypatch, caplog, extra):
        monkeypatch.setenv("AIRFLOW_CONN_NOTIFICATIONS", json.dumps({"conn_type": "apprise", "extra": extra}))
        tell(EVENT)
        [line] = lines(caplog)
        assert line.startswith("connection notifications names no service that Apprise knows")
        assert '{"config": {"path": ' in line

    def test_one_service_of_two_is_enough(self, connected, service, monkeypatch, caplog):
        config = json.loads(service.connection)["extra"]["config"]
        both = [config, {"path": "json://127.0.0.1:1/other"}]
        monkeypatch.setenv(
            "AIRFLOW_CONN_NOTIFICATIONS", json.dumps({"conn_type": "apprise", "extra": {"config": both}})
        )
        tell(EVENT)
        tell(EVENT)
        assert service.titles == [EVENT.title]
        assert len(lines(caplog)) == 1

    @pytest.mark.drill("warehouse-gone-at-end")
    @pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none?connect_timeout=1", ""])
    def test_without_the_warehouse_it_is_told_all_the_same(self, service, monkeypatch, caplog, url):
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", url)
        tell(EVENT)
        assert service.titles == [EVENT.title]
        [line] = lines(caplog)
        assert "perhaps not for the first time" in line

    def test_warehouse_that_does_not_answer_is_not_waited_for(self, service, monkeypatch):
        monkeypatch.setattr(notify, "CONNECT_SECONDS", 2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
            monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", url)
            before = time.monotonic()
            tell(EVENT)
        assert time.monotonic() - before < notify.CONNECT_SECONDS + 6
        assert service.titles == [EVENT.title]

    def test_links_lead_into_the_ui(self, linked):
        run = "shop_reconcile/scheduled__2026-03-01T03:00:00+00:00"
        quoted = f"{linked}/dags/shop_reconcile/runs/scheduled__2026-03-01T03:00:00%2B00:00"
        assert notify.run_link(run) == quoted
        assert notify.question_link(run) == f"{quoted.replace('/dags', '/sync-confidence/dags')}#question"


@pytest.fixture
def held(filled, airflow, conn) -> Run:
    """A run whose repair would be too large."""
    gone = sorted(live_lines(conn))[:30]
    filled.mutate(*(Mutation("delete", "line_items", id_, silent=True) for id_ in gone))
    run = Run()
    for task in ("stop_writer", "scan", "gate_check"):
        execute(run, task)
    return run


def fail(run: Run, task: str, error: BaseException | None, **more: Any) -> None:
    """The last try of a task has failed, and Airflow calls back; without `error` its process was lost."""
    operator = KINDS.get(task, SimpleNamespace)(task_id=task, source=run.source, **more)
    run.call_back(on_failure, operator, **({"exception": error} if error else {}))


def report(run: Run, **states: str) -> Any:
    run.states = dict.fromkeys(STEPS, "success") | states
    return execute(run, "report")


class TestRun:
    @pytest.mark.drill("held")
    def test_hold_is_told_once_the_question_is_put_and_once_for_all(self, held, service, asked, linked):
        for _ in range(2):
            with pytest.raises(TaskAwaitingInput):
                execute(held, "decide")
        assert len(asked) == 2
        [message] = service.told
        assert message["title"] == f"{SOURCE}: the writer is held, please decide"
        assert "- The repair would delete 30 of" in message["message"]
        assert f"line_items ({linked}/sync-confidence/sources/{SOURCE}/plans/" in message["message"]
        assert not re.search(r"[*`]", message["message"])
        assert message["message"].endswith(
            f"{linked}/sync-confidence/dags/repairshopr_reconcile/runs/manual__1#question"
        )

    @pytest.mark.drill("late-answer")
    def test_hold_that_nobody_answers_is_told_again_and_one_that_a_person_keeps_is_not(self, held, conn, service):
        holds.note_asked(conn, holds.open_holds(conn, SOURCE))
        for who in ("Ada", None):
            with pytest.raises(DownstreamTasksSkipped):
                answer(held, "Keep stopped", who)
            with pytest.raises(RunFailed):
                report(held, resume_writer="failed")
        assert service.titles == [f"{SOURCE}: nobody has decided about the hold"]

    def test_warning_names_the_scan_and_its_figures(self, airflow, filled, conn, service, linked):
        night = Run("night")
        for task in ("stop_writer", "scan"):
            execute(night, task)
        skipped(night, "gate_check")
        execute(night, "resume_writer")
        conn.execute("DELETE FROM repairshopr.line_items WHERE id IN (SELECT id FROM repairshopr.line_items LIMIT 40)")
        run = Run()
        for task in ("stop_writer", "scan"):
            execute(run, task)
        skipped(run, "gate_check")
        execute(run, "resume_writer")
        for _ in range(2):
            report(run, decide="skipped", verify="skipped")
        [message] = service.told
        assert message["type"] == "warning"
        text = message["message"].split("\n")
        assert text[0].startswith("line_items (all): api_unique_not_in_db is 40, above its limit 25 (baseline 0)")
        assert text[1] == "226 of 226 rows proven"
        assert text[2].startswith("Consequence: 40 planned changes were not applied (dry run); the writer runs.")
        assert text[-1] == f"{linked}/dags/repairshopr_reconcile/runs/manual__1"

    def test_run_without_drift_is_not_told(self, airflow, connected, conn, service):
        run = Run()
        execute(run, "stop_writer")
        judged(conn, run)
        execute(run, "resume_writer")
        report(run)
        assert service.told == []

    def test_run_whose_tasks_were_marked_by_hand_is_told(self, airflow, connected, conn, service):
        run = Run()
        execute(run, "stop_writer")
        judged(conn, run, tickets={"verdict": None})
        for _ in range(2):
            with pytest.raises(RunFailed):
                report(run)
        [message] = service.told
        assert message["title"] == f"{SOURCE}: gate_check was not done, although no task failed"
        assert message["message"].startswith("the warehouse has no verdict on tickets")

    def test_each_part_of_the_scan_says_why_it_failed(self, airflow, connected, service):
        run = Run()
        fail(run, "scan", ScanIncomplete("3 pages stayed unread"), entity="invoices")
        fail(run, "scan", psycopg.DataError("Key (email)=(ada@example.com)"), entity="customers")
        for _ in range(2):
            with pytest.raises(RunFailed, match=r"^scan failed"):
                report(run, scan="failed", gate_check="upstream_failed", reconcile="upstream_failed")
        [message] = service.told
        assert message["title"] == f"{SOURCE}: scan failed or incomplete"
        text = message["message"].split("\n")
        assert text[:2] == ["invoices: 3 pages stayed unread", "customers: DataError (more in the task's log)"]
        assert text[3].startswith("Next: nothing was written. Read the failed scan's log")

    def test_drain_that_timed_out_is_told_as_that(self, airflow, connected, service):
        run = Run()
        fail(run, "stop_writer", DrainTimeout("1 task was still at work"))
        with pytest.raises(RunFailed):
            report(run, stop_writer="failed")
        assert service.titles == [f"{SOURCE}: the writer did not stop in time"]

    def test_refused_conf_is_not_told(self, airflow, connected, service):
        run = Run()
        fail(run, "stop_writer", ConfRefused("unknown: dryrun"))
        with pytest.raises(RunFailed):
            report(run, stop_writer="failed")
        assert service.told == []

    def test_step_whose_process_was_lost_is_told_by_the_report(self, airflow, connected, service):
        run = Run()
        fail(run, "reconcile", None)
        assert run.xcoms == {}
        with pytest.raises(RunFailed):
            report(run, reconcile="failed")
        [message] = service.told
        assert message["message"].startswith("reconcile did not run to its end\n")

    def test_service_that_is_down_changes_nothing(self, airflow, connected, service, caplog):
        service.down = True
        with pytest.raises(RunFailed, match=r"^scan failed; writer of repairshopr is running\. Next: "):
            report(Run(), scan="failed")
        assert len(lines(caplog)) == 1
        assert service.token not in caplog.text

    @pytest.mark.drill("warehouse-gone-at-end")
    def test_warehouse_out_of_reach_at_the_end_is_told_when_the_last_try_has_failed(
        self, airflow, service, monkeypatch
    ):
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
        run = Run()
        with pytest.raises(psycopg.OperationalError) as lost:
            report(run, resume_writer="failed")
        assert service.told == []
        fail(run, "report", lost.value)
        [message] = service.told
        assert message["title"] == f"{SOURCE}: the warehouse or Airflow's API could not be reached at the end of a run"
        assert "127.0.0.1:1" not in message["message"]

    def test_report_that_fails_the_run_has_told_already(self, airflow, connected, service):
        run = Run()
        with pytest.raises(RunFailed) as failed:
            report(run, gate_check="failed")
        fail(run, "report", failed.value)
        assert service.titles == [f"{SOURCE}: gate_check failed"]


class TestSync:
    def run(self, run_id: str = "1") -> Run:
        return Run(run_id, dag_id="repairshopr_sync", params={"mode": "incremental"})

    def sync(self, run: Run) -> None:
        run.execute(SyncOperator(task_id="sync", source=SOURCE))

    def fail(self, run: Run) -> None:
        with pytest.raises(SyncFailed) as failed:
            self.sync(run)
        run.call_back(on_failure, SyncOperator(task_id="sync", source=SOURCE), exception=failed.value)

    @pytest.mark.drill("token-revoked")
    def test_failure_is_told_once_until_a_sync_succeeds(self, filled, service, linked):
        refuse = Fault("status", resource="payments", status=401, times=None)
        filled.fault(refuse)
        with pytest.raises(SyncFailed):
            self.sync(self.run())
        assert service.told == []
        self.fail(self.run("1"))
        self.fail(self.run("2"))
        [message] = service.told
        assert message["title"] == f"{SOURCE}: sync failed"
        assert "payments" in message["message"]
        assert message["message"].endswith(f"{linked}/dags/repairshopr_sync/runs/1")
        filled.clear()
        self.sync(self.run("3"))
        filled.fault(refuse)
        self.fail(self.run("4"))
        assert len(service.told) == 2

    def test_alert_is_told_once_until_it_has_recovered(self, filled, conn, service):
        bad = "UPDATE confidence.sync_log SET requests = 100, request_errors = 10"
        conn.execute(bad)
        self.sync(self.run("1"))
        self.sync(self.run("2"))
        [message] = service.told
        assert (message["title"], message["type"]) == (f"{SOURCE}: error rate above its limit", "warning")
        assert "requests to repairshopr failed within a day" in message["message"]
        conn.execute("UPDATE confidence.sync_log SET request_errors = 0")
        self.sync(self.run("3"))
        assert len(service.told) == 1
        conn.execute(bad)
        self.sync(self.run("4"))
        assert len(service.told) == 2

    def test_alerts_of_a_sync_that_failed_are_told_with_it(self, filled, conn, service):
        conn.execute("UPDATE confidence.sync_log SET requests = 100, request_errors = 10")
        filled.fault(Fault("status", resource="payments", status=401, times=None))
        self.fail(self.run())
        assert service.titles == [f"{SOURCE}: sync failed", f"{SOURCE}: error rate above its limit"]

    @pytest.mark.parametrize(("latest", "told"), [(1, 1), (2, 0)])
    def test_try_that_a_later_one_has_replaced_tells_nobody(self, filled, airflow, service, latest, told):
        """A worker that was cut off comes back, and the fence refuses it."""
        run = self.run()
        airflow.runs[run.name] = "running"
        airflow.tasks[run.name] = [{"task_id": "sync", "try_number": latest}]
        run.call_back(on_failure, SyncOperator(task_id="sync", source=SOURCE), exception=FenceError("stopped"))
        assert len(service.told) == told

    def test_failure_is_told_while_airflow_can_not_be_asked(self, filled, airflow, service):
        airflow.down = True
        run = self.run()
        run.call_back(on_failure, SyncOperator(task_id="sync", source=SOURCE), exception=FenceError("stopped"))
        assert service.titles == [f"{SOURCE}: sync failed"]

    def test_lost_process_is_told(self, connected, service):
        self.run().call_back(on_failure, SyncOperator(task_id="sync", source=SOURCE))
        [message] = service.told
        assert message["message"].startswith("its process was lost (more in the task's log)\n")

    def test_service_that_is_down_leaves_the_sync_a_success(self, filled, conn, service, monkeypatch):
        conn.execute("UPDATE confidence.sync_log SET requests = 100, request_errors = 10")
        service.down = True
        self.sync(self.run("1"))
        service.down = False
        self.sync(self.run("2"))
        assert service.titles == [f"{SOURCE}: error rate above its limit"]


# As Airflow gives it to a callback.
LATE = {"dag_run": {"dag_id": f"{SOURCE}_sync", "dag_run_id": "scheduled__1"}, "deadline": {"id": "1"}}


class TestDeadline:
    @pytest.fixture
    def stopped(self, airflow, connected, conn) -> Run:
        run = Run("night")
        execute(run, "stop_writer")
        conn.execute("UPDATE confidence.writer SET since = now() - interval '5 hours' WHERE source = %s", [SOURCE])
        return run

    def test_long_stop_is_told_once_with_the_run_that_stopped_it(self, stopped, service, linked):
        other = {"dag_run": {"dag_id": f"{SOURCE}_reconcile", "dag_run_id": "night"}}
        for context in (LATE, other):
            deadline.tell_long_stop(SOURCE, 4.0, context)
        [message] = service.told
        assert message["title"] == f"{SOURCE}: the writer has been stopped for 5 hours"
        assert message["message"].endswith(f"{linked}/dags/repairshopr_reconcile/runs/night")

    def test_shorter_stop_or_a_running_writer_is_not_told(self, stopped, service):
        deadline.tell_long_stop(SOURCE, 5.1, LATE)
        execute(stopped, "resume_writer")
        deadline.tell_long_stop(SOURCE, 0.0, LATE)
        assert service.told == []

    def test_is_due_once_the_limit_is_over(self, monkeypatch):
        alert = deadline.stopped_too_long(SOURCE)
        assert alert.interval == timedelta(hours=4) + deadline.MARGIN
        assert alert.callback.kwargs == {"source": SOURCE, "hours": 4.0}
        monkeypatch.setenv("WRITER_STOPPED_LIMIT_HOURS", "0.5")
        assert deadline.stopped_too_long(SOURCE).interval == timedelta(minutes=30) + deadline.MARGIN
        monkeypatch.setenv("WRITER_STOPPED_LIMIT_HOURS", "four")
        with pytest.raises(ValueError, match="WRITER_STOPPED_LIMIT_HOURS is 'four'"):
            deadline.stopped_too_long(SOURCE)
