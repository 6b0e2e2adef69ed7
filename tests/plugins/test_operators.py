"""The runbook's tasks one by one, against a real warehouse, a simulated account and Airflow's API."""

import json
import logging
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
    DownstreamTasksSkipped,
    TaskAwaitingInput,
)
from airflow.sdk.observability import stats
from psycopg import sql
from psycopg.types.json import Jsonb

from include.confidence import holds, outcome, questions, run_evidence
from include.confidence.account import Account
from include.confidence.health import Limits
from include.confidence.holds import HoldChanged
from include.confidence.policy import RepairShare, Verdict
from include.confidence.question import OPTIONS
from include.confidence.repair_lock import NotJudged
from include.confidence.summary import UnusableSummary
from include.simulators.repairshopr import Fault, Mutation
from include.sources import get_source, repairshopr
from include.sources.base import ScanRefused, SyncFailed
from include.sources.mirror.source import Mirror
from include.warehouse import fence, sync_log
from include.warehouse.fence import DrainTimeout, FenceError
from include.warehouse.rollback import RollbackRefused, Undone
from include.warehouse.sync_log import Counts
from plugins.deciders import NotDecider
from plugins.operators.decide import AnswerRefused
from plugins.operators.report import STEPS, WIDTH, RunFailed
from plugins.operators.rollback import RollbackOperator
from plugins.operators.sync import SyncOperator
from plugins.operators.verify import NotEnded
from plugins.runs import ConfRefused
from tests.plugins.conftest import POOL, SOURCE, Run, answer, entities, execute, judged, live_lines, skipped


def drift(control, conn) -> tuple[int, int]:
    """A line that the copy lacks, and one that it has too much; returns their ids."""
    missing, surplus = sorted(live_lines(conn))[:2]
    conn.execute("DELETE FROM repairshopr.line_items WHERE id = %s", [missing])
    control.mutate(Mutation("delete", "line_items", surplus, silent=True))
    return missing, surplus


def mass_delete(control, conn) -> set[int]:
    """More lines deleted at the source than a repair may delete by itself."""
    gone = sorted(live_lines(conn))[:30]
    control.mutate(*(Mutation("delete", "line_items", id_, silent=True) for id_ in gone))
    return set(gone)


class TestStopWriter:
    def test_closes_the_pool_and_the_fence(self, airflow, connected, conn):
        run = Run()
        assert execute(run, "stop_writer") == {"epoch": 1}
        writer = fence.read(conn, SOURCE)
        assert (writer.stopped, writer.run, writer.epoch) == (True, run.name, 1)
        pool = airflow.pools[POOL]
        assert (pool["slots"], pool["include_deferred"]) == (0, True)
        assert pool["description"] == f"STOPPED by {run.name} (epoch 1)"

    def test_once_more_keeps_the_epoch(self, airflow, connected):
        run = Run()
        assert execute(run, "stop_writer") == execute(run, "stop_writer") == {"epoch": 1}
        assert airflow.pools[POOL]["description"].endswith("(epoch 1)")

    def test_refuses_unknown_params_before_anything(self, airflow, connected, conn):
        run = Run()
        run.context["dag_run"].conf = {"dryrun": False}
        with pytest.raises(ConfRefused, match="dryrun"):
            execute(run, "stop_writer")
        assert airflow.calls == []
        assert not fence.read(conn, SOURCE).stopped

    @pytest.mark.parametrize("state", ["running", "queued"])
    def test_refuses_while_another_run_is_at_work(self, airflow, connected, conn, state):
        other = Run("scheduled__2")
        execute(other, "stop_writer")
        airflow.runs[other.name] = state
        airflow.calls.clear()
        with pytest.raises(FenceError, match=f"stopped by {other.name}.*still at work"):
            execute(Run(), "stop_writer")
        assert airflow.calls == []
        assert fence.read(conn, SOURCE).run == other.name

    @pytest.mark.drill("deleted-run")
    @pytest.mark.parametrize("state", ["success", "failed", None])
    def test_takes_over_from_a_run_that_has_ended(self, airflow, connected, conn, state):
        other, run = Run("scheduled__2"), Run()
        execute(other, "stop_writer")
        if state:
            airflow.runs[other.name] = state
        assert execute(run, "stop_writer") == {"epoch": 2}
        assert fence.read(conn, SOURCE).run == run.name
        assert run.name in airflow.pools[POOL]["description"]

    def test_waits_for_the_tasks_in_the_pool(self, airflow, connected, monkeypatch):
        airflow.pools[POOL]["running_slots"] = 1
        waited = []

        def sleep(seconds: float) -> None:
            waited.append(airflow.pools[POOL]["slots"])
            airflow.pools[POOL]["running_slots"] = 0

        monkeypatch.setattr(time, "sleep", sleep)
        assert execute(Run(), "stop_writer") == {"epoch": 1}
        assert waited == [0]

    def test_does_not_wait_for_a_task_that_no_worker_has_begun(self, airflow, connected, monkeypatch):
        """It may wait for this very worker."""
        airflow.pools[POOL] |= {"occupied_slots": 1, "queued_slots": 1}
        monkeypatch.setattr(time, "sleep", pytest.fail)
        assert execute(Run(), "stop_writer") == {"epoch": 1}

    def test_gives_up_in_time_and_opens_the_pool_again(self, airflow, connected, conn, monkeypatch):
        monkeypatch.setenv("AIRFLOW_VAR_DRAIN_TIMEOUT_SECONDS", "0")
        airflow.pools[POOL]["running_slots"] = 2
        with pytest.raises(DrainTimeout, match=r"2 task\(s\) of repairshopr's writer.*clear stop_writer"):
            execute(Run(), "stop_writer")
        assert airflow.pools[POOL]["slots"] == 1
        assert not fence.read(conn, SOURCE).stopped

    @pytest.mark.drill("locked-table")
    def test_gives_up_on_an_open_transaction_and_opens_the_pool_again(self, airflow, connected, conn, monkeypatch):
        monkeypatch.setenv("AIRFLOW_VAR_DRAIN_TIMEOUT_SECONDS", "0")
        with fence.writing(conn, SOURCE, epoch=0), pytest.raises(DrainTimeout, match=f"pid {conn.info.backend_pid}"):
            execute(Run(), "stop_writer")
        assert airflow.pools[POOL]["slots"] == 1
        assert not fence.read(conn, SOURCE).stopped

    def test_that_fails_over_a_held_writer_leaves_the_pool_closed(self, airflow, connected, conn, monkeypatch):
        other = Run("scheduled__2")
        execute(other, "stop_writer")
        conn.execute("UPDATE confidence.writer SET hold_reason = 'too much' WHERE source = %s", [SOURCE])
        monkeypatch.setenv("AIRFLOW_VAR_DRAIN_TIMEOUT_SECONDS", "0")
        airflow.pools[POOL]["running_slots"] = 1
        with pytest.raises(DrainTimeout):
            execute(Run(), "stop_writer")
        assert airflow.pools[POOL]["slots"] == 0
        assert fence.read(conn, SOURCE).hold_reason == "too much"


class TestGuards:
    @pytest.mark.parametrize("task", ["scan", "gate_check", "decide", "reconcile"])
    def test_no_step_works_beside_a_running_writer(self, airflow, filled, task):
        with pytest.raises(FenceError, match="clear stop_writer with downstream"):
            execute(Run(), task)

    def test_verify_neither(self, airflow, filled):
        run = Run()
        run.xcoms["reconcile"] = {"return_value": [{"sync_id": 1}]}
        run.xcoms["scan"] = {"forensic_summary": []}
        with pytest.raises(FenceError, match="clear stop_writer with downstream"):
            execute(run, "verify")

    @pytest.mark.parametrize("task", ["scan", "gate_check", "decide", "reconcile", "resume_writer"])
    def test_no_step_works_behind_the_stop_of_another_run(self, airflow, filled, task):
        execute(Run("scheduled__2"), "stop_writer")
        with pytest.raises(FenceError, match="stopped by repairshopr_reconcile/scheduled__2"):
            execute(Run(), task)

    def test_scan_of_a_copy_that_was_never_synced(self, airflow, control):
        run = Run()
        execute(run, "stop_writer")
        with pytest.raises(ScanRefused, match=r"customers was never synced.*run the DAG repairshopr_sync"):
            execute(run, "scan")

    def test_scan_of_a_part_that_looks_for_the_whole(self, airflow, filled):
        run = Run(conf={"page_start": 2})
        execute(run, "stop_writer")
        with pytest.raises(ScanRefused, match="compute_db_not_in_api"):
            execute(run, "scan")


class TestNight:
    def test_with_nothing_to_do_skips_what_is_not_needed(self, airflow, filled, conn):
        run = Run()
        execute(run, "stop_writer")
        execute(run, "scan")
        assert skipped(run, "gate_check") == ["decide", "reconcile", "verify"]
        [result] = run.xcoms["gate_check"]["return_value"]
        assert (result["verdict"], result["drift"], result["hold"]) == ("pass", 0, None)
        execute(run, "resume_writer")
        assert not fence.read(conn, SOURCE).stopped
        assert airflow.pools[POOL]["slots"] == 1
        assert "STOPPED" not in airflow.pools[POOL]["description"]

    def test_dry_run_tells_the_plan_and_writes_nothing(self, airflow, filled, conn, caplog):
        missing, _ = drift(filled, conn)
        lines = live_lines(conn)
        run = Run()
        execute(run, "stop_writer")
        execute(run, "scan")
        assert skipped(run, "gate_check") == ["decide"]
        with caplog.at_level(logging.INFO):
            assert skipped(run, "reconcile") == ["verify"]
        assert "line_items would get 1 inserts, 0 updates, 1 deletes" in caplog.text
        assert str(missing) in caplog.text
        assert live_lines(conn) == lines
        with pytest.raises(AirflowSkipException, match="nothing was applied"):
            execute(run, "verify")

    def test_repair_is_applied_and_verified(self, airflow, filled, conn):
        missing, surplus = drift(filled, conn)
        run = Run(conf={"dry_run": False})
        execute(run, "stop_writer")
        execute(run, "scan")
        assert skipped(run, "gate_check") == ["decide"]
        done = execute(run, "reconcile")
        assert done["counts"]["line_items"]["inserted"] == done["counts"]["line_items"]["deleted"] == 1
        assert missing in live_lines(conn)
        assert surplus not in live_lines(conn)
        assert [check for check in execute(run, "verify") if check["after"] > check["before"]] == []
        execute(run, "resume_writer")
        assert not fence.read(conn, SOURCE).stopped

    @pytest.mark.parametrize(
        ("sources", "run_type", "repairs"),
        [
            ("", "scheduled", False),
            ("square, repairshopr", "scheduled", True),
            ("square", "scheduled", False),
            ("repairshopr", "manual", False),
        ],
    )
    def test_scheduled_runs_repair_where_the_setting_says_so(
        self, airflow, filled, conn, monkeypatch, sources, run_type, repairs
    ):
        monkeypatch.setenv("AIRFLOW_VAR_NIGHTLY_REPAIR_SOURCES", sources)
        missing, _ = drift(filled, conn)
        run = Run(run_type=run_type)
        execute(run, "stop_writer")
        execute(run, "scan")
        skipped(run, "gate_check")
        if repairs:
            assert execute(run, "reconcile")["sync_id"]
        else:
            assert skipped(run, "reconcile") == ["verify"]
        assert (missing in live_lines(conn)) == repairs

    def test_repair_that_made_it_worse_holds_the_writer(self, airflow, filled, conn):
        drift(filled, conn)
        run = Run(conf={"dry_run": False})
        execute(run, "stop_writer")
        execute(run, "scan")
        skipped(run, "gate_check")
        sync_id = execute(run, "reconcile")["sync_id"]
        conn.execute("UPDATE repairshopr.line_items SET price = price + 1 WHERE sync_id = %s", [sync_id])
        with pytest.raises(AirflowFailException, match=rf"line_items.*worse than the scan.*sync_id {sync_id}"):
            execute(run, "verify")
        assert "worse than the scan" in fence.read(conn, SOURCE).hold_reason
        with pytest.raises(FenceError, match="held"):
            execute(run, "resume_writer")
        assert airflow.pools[POOL]["slots"] == 0


class TestMarkedByHand:
    """A task that a person marks as done leaves nothing in the warehouse, and what comes after it looks there."""

    def scanned(self, filled, conn, **conf: Any) -> Run:
        drift(filled, conn)
        run = Run(conf=conf or None)
        execute(run, "stop_writer")
        execute(run, "scan")
        return run

    @pytest.mark.drill("marked-task")
    def test_gate_check(self, airflow, filled, conn):
        run = self.scanned(filled, conn, dry_run=False)
        lines = live_lines(conn)
        with pytest.raises(NotJudged, match="customers was not judged"):
            execute(run, "reconcile")
        assert live_lines(conn) == lines

    def test_gate_check_of_scans_that_were_made_anew(self, airflow, filled, conn):
        run = self.scanned(filled, conn, dry_run=False)
        skipped(run, "gate_check")
        execute(run, "scan")
        with pytest.raises(NotJudged, match="line_items was not judged"):
            execute(run, "reconcile")

    @pytest.mark.drill("marked-task")
    def test_reconcile_whose_result_was_lost(self, airflow, filled, conn):
        run = self.scanned(filled, conn, dry_run=False)
        skipped(run, "gate_check")
        sync_id = execute(run, "reconcile")["sync_id"]
        del run.xcoms["reconcile"]
        checks = execute(run, "verify")
        [(kept,)] = conn.execute("SELECT checks FROM confidence.sync_log WHERE verified_at IS NOT NULL").fetchall()
        assert kept == checks != []
        assert conn.execute("SELECT sync_id FROM confidence.sync_log WHERE checks IS NOT NULL").fetchall() == [
            (sync_id,)
        ]
        with pytest.raises(AirflowSkipException, match="verified or rolled back already"):
            execute(run, "verify")

    @pytest.mark.drill("marked-task")
    @pytest.mark.parametrize("state", ["running", "failed"])
    def test_reconcile_that_has_not_ended(self, airflow, filled, conn, state):
        run = self.scanned(filled, conn, dry_run=False)
        skipped(run, "gate_check")
        sync_id = execute(run, "reconcile")["sync_id"]
        conn.execute("UPDATE confidence.sync_log SET state = %s WHERE sync_id = %s", [state, sync_id])
        with pytest.raises(NotEnded, match=rf"sync_id {sync_id}\) is {state} in confidence.sync_log"):
            execute(run, "verify")

    @pytest.mark.drill("marked-task")
    def test_verify_needs_the_plans_that_were_applied(self, airflow, filled, conn):
        run = self.scanned(filled, conn, dry_run=False)
        skipped(run, "gate_check")
        execute(run, "reconcile")
        fence.resume(conn, SOURCE, run.name)
        execute(run, "stop_writer")
        with pytest.raises(NotJudged, match="customers was scanned before this stop"):
            execute(run, "verify")


class TestGateCheck:
    def test_refuses_scans_from_before_this_stop(self, airflow, filled, conn):
        run = Run()
        execute(run, "stop_writer")
        execute(run, "scan")
        fence.resume(conn, SOURCE, run.name)
        execute(run, "stop_writer")
        with pytest.raises(UnusableSummary, match=r"before this stop, or incomplete: customers, .*Clear scan \(all of"):
            execute(run, "gate_check")

    def test_refuses_when_an_entity_is_missing(self, airflow, filled):
        run = Run()
        execute(run, "stop_writer")
        execute(run, "scan")
        del run.xcoms["scan"]["forensic_summary"][2]
        with pytest.raises(UnusableSummary, match=f"missing: {entities()[2]}"):
            execute(run, "gate_check")

    def test_judges_growth_of_every_metric_by_the_nights_before(self, airflow, filled, conn):
        past = [25] * 3 + [0] * 10
        conn.cursor().executemany(
            "INSERT INTO confidence.forensic_run"
            " (scan_id, source, entity, scope, run, epoch, summary, metrics, verdict, scanned_at)"
            " VALUES (%s, 'repairshopr', 'line_items', 'all', %s, 0, '{}', %s, 'pass', now() - %s * interval '1 day')",
            [(str(n), f"night {n}", Jsonb({"api_unique_not_in_db": value}), n + 1) for n, value in enumerate(past)],
        )
        conn.execute("DELETE FROM repairshopr.line_items WHERE id = ANY (%s)", [sorted(live_lines(conn))[:25]])
        run = Run()
        execute(run, "stop_writer")
        execute(run, "scan")
        assert skipped(run, "gate_check") == ["decide"]
        [result] = run.xcoms["gate_check"]["return_value"]
        assert result["verdict"] == "warn"
        assert any(reason.startswith("25 more rows than on 20") for reason in result["reasons"])

    def test_summary_is_small_enough_for_an_xcom(self, airflow, filled, conn):
        mass_delete(filled, conn)
        run = Run()
        execute(run, "stop_writer")
        execute(run, "scan")
        assert max(len(json.dumps(summary)) for summary in run.xcoms["scan"]["forensic_summary"]) < 4096


class TestHold:
    @pytest.fixture
    def held(self, airflow, filled, conn, asked) -> Run:
        """A dry run whose plan would delete too much, up to the question."""
        mass_delete(filled, conn)
        run = Run()
        execute(run, "stop_writer")
        execute(run, "scan")
        result = execute(run, "gate_check")
        assert result["verdict"] == "hold"
        with pytest.raises(TaskAwaitingInput):
            execute(run, "decide")
        return run

    def test_question_and_answer_are_kept_with_the_newest_text(self, held, conn, asked):
        kept = questions.of_run(conn, held.name)
        assert (kept.text, kept.decision) == (asked[0]["body"], None)
        assert "line_items" in kept.planned
        with pytest.raises(DownstreamTasksSkipped):
            answer(held, "Keep stopped", reason="first I ask the shop")
        # Cleared: Airflow keeps the first text, the warehouse has the new one.
        with pytest.raises(TaskAwaitingInput):
            execute(held, "decide")
        again = questions.of_run(conn, held.name)
        assert (again.text, again.asked_at) == (asked[-1]["body"], kept.asked_at)
        assert "was answered by Ada" in again.text
        assert "Reason: `first I ask the shop`" in again.text
        assert (again.decision, again.decided_by, again.reason) == ("keep", "Ada", "first I ask the shop")
        with pytest.raises(DownstreamTasksSkipped):
            answer(held, "Resume without repair", reason="the shop says so")
        given = questions.answers(conn, held.name)
        assert [(each.decision, each.reason) for each in given] == [
            ("keep", "first I ask the shop"),
            ("resume", "the shop says so"),
        ]
        assert questions.answers(conn, "another/run") == []

    def test_asks_with_the_reasons_and_a_time_limit(self, held, asked, monkeypatch):
        [question] = asked
        assert question["options"] == list(OPTIONS)
        assert question["defaults"] == ["Keep stopped"]
        assert question["subject"] == "repairshopr: the writer is held (manual__1, attempt 1)"
        body = question["body"]
        assert "- The repair would delete 30 of " in body
        assert f"[line_items](/sync-confidence/sources/{SOURCE}/plans/" in body
        assert "): 0 rows to insert, 0 to update, 30 to delete;" in body
        assert "What stands out: 30 of 30 rows to delete" in body
        assert {name: field["value"] for name, field in question["params"].items()} == {"reason": None}
        monkeypatch.setenv("AIRFLOW_VAR_DECISION_TIMEOUT_HOURS", "0.5")
        with pytest.raises(TaskAwaitingInput) as waiting:
            execute(held, "decide")
        assert waiting.value.timeout.total_seconds() == 1800

    def test_nothing_passes_before_the_answer(self, held, conn):
        with pytest.raises(FenceError, match=r"nothing was applied\. Clear decide"):
            execute(held, "reconcile")
        with pytest.raises(FenceError, match="held"):
            execute(held, "resume_writer")
        assert fence.read(conn, SOURCE).stopped

    def test_keep_stopped(self, held, conn, airflow):
        with pytest.raises(DownstreamTasksSkipped) as signal:
            answer(held, "Keep stopped")
        assert signal.value.tasks == ["reconcile", "verify"]
        assert held.xcoms["decide"]["return_value"] == [{"decision": "keep", "by": "Ada"}]
        with pytest.raises(FenceError, match="held"):
            execute(held, "resume_writer")
        assert airflow.pools[POOL]["slots"] == 0

    @pytest.mark.drill("late-answer")
    def test_nobody_answers(self, held, conn):
        with pytest.raises(DownstreamTasksSkipped):
            answer(held, "Keep stopped", who=None)
        assert held.xcoms["decide"]["return_value"][0]["by"] == "nobody (unanswered)"
        assert fence.read(conn, SOURCE).hold_reason

    def test_resume_without_repair(self, held, conn, airflow):
        lines = live_lines(conn)
        with pytest.raises(DownstreamTasksSkipped):
            answer(held, "Resume without repair")
        assert fence.read(conn, SOURCE).hold_reason is None
        execute(held, "resume_writer")
        assert not fence.read(conn, SOURCE).stopped
        assert airflow.pools[POOL]["slots"] == 1
        assert live_lines(conn) == lines
        decided = conn.execute("SELECT decision, decided_by FROM confidence.forensic_run WHERE decision IS NOT NULL")
        assert decided.fetchall() == [("resume", "Ada")]

    def test_repair_then_resume_although_the_run_is_dry(self, held, conn):
        lines = live_lines(conn)
        assert answer(held, "Repair, then resume") == {"decision": "repair", "by": "Ada"}
        assert execute(held, "reconcile")["counts"]["line_items"]["deleted"] == 30
        assert len(live_lines(conn)) == len(lines) - 30
        execute(held, "verify")
        execute(held, "resume_writer")
        assert not fence.read(conn, SOURCE).stopped

    def test_reason_is_kept_and_shown(self, held, conn):
        answer(held, "Repair, then resume", reason="the shop has closed", leave_out=[])
        kept = conn.execute("SELECT decision_reason FROM confidence.forensic_run WHERE decision IS NOT NULL").fetchall()
        assert kept == [("the shop has closed",)]

    @pytest.mark.parametrize(
        "fields", [{"leave_out": ["line_itms"]}, {"leave_out": "line_items"}, {"leave_ot": ["line_items"]}]
    )
    def test_misspelt_answer_decides_nothing(self, held, conn, fields):
        with pytest.raises(AnswerRefused, match=r"Nothing was decided.* Press Ask me again"):
            answer(held, "Repair, then resume", **fields)
        assert holds.open_holds(conn, SOURCE)

    @pytest.mark.drill("answer-without-right")
    @pytest.mark.parametrize("who", ["Bob", "Eve"])
    @pytest.mark.parametrize("option", OPTIONS)
    def test_answer_of_who_has_not_the_role_leaves_the_hold_as_it_is(self, held, conn, asked, who, option):
        told = (
            rf"^{who} may not answer a hold: that takes the role op or admin\. Nothing was decided.* Press Ask me again"
        )
        before = conn.execute("TABLE confidence.forensic_run").fetchall(), fence.read(conn, SOURCE)
        with pytest.raises(NotDecider, match=told):
            answer(held, option, who)
        assert (conn.execute("TABLE confidence.forensic_run").fetchall(), fence.read(conn, SOURCE)) == before
        # Asked again, another one may answer.
        with pytest.raises(TaskAwaitingInput):
            execute(held, "decide")
        assert answer(held, "Repair, then resume", "Ada") == {"decision": "repair", "by": "Ada"}

    def test_nobody_is_asked_if_nobody_could_answer(self, held, asked, monkeypatch):
        monkeypatch.setenv("DECIDER_ROLES", "op;admin")
        before = len(asked)
        with pytest.raises(NotDecider, match=r"no user of Airflow has it.* Set DECIDER_ROLES"):
            execute(held, "decide")
        assert len(asked) == before

    def test_airflow_takes_the_answer_from_those_with_the_role(self, held, asked, monkeypatch):
        monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "Ada:Op,Bob:user:team,Cy:admin")
        with pytest.raises(TaskAwaitingInput):
            execute(held, "decide")
        assert asked[-1]["assigned_users"] == [{"id": "Ada", "name": "Ada"}, {"id": "Cy", "name": "Cy"}]
        monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
        with pytest.raises(TaskAwaitingInput):
            execute(held, "decide")
        assert asked[-1]["assigned_users"] == []

    def test_repair_that_leaves_all_out_is_none(self, held, conn):
        with pytest.raises(DownstreamTasksSkipped):
            answer(held, "Repair, then resume", leave_out=entities())
        decided = conn.execute("SELECT decision FROM confidence.forensic_run WHERE decision IS NOT NULL").fetchall()
        assert decided == [("resume",)]

    def test_answer_to_a_question_about_earlier_scans_counts_for_nothing(self, held, conn):
        execute(held, "scan")
        execute(held, "gate_check")
        with pytest.raises(HoldChanged, match=r"line_items.*Clear decide with downstream"):
            answer(held, "Repair, then resume")
        assert holds.open_holds(conn, SOURCE)
        with pytest.raises(TaskAwaitingInput):
            execute(held, "decide")
        assert answer(held, "Repair, then resume") == {"decision": "repair", "by": "Ada"}
        assert execute(held, "reconcile")["counts"]["line_items"]["deleted"] == 30

    @pytest.mark.drill("late-answer")
    def test_answer_that_comes_after_another_run_has_taken_over(self, held, conn):
        fence.stop(conn, SOURCE, "repairshopr_reconcile/scheduled__2", timeout=1)
        with pytest.raises(FenceError, match="scheduled__2"):
            answer(held, "Resume without repair")
        assert holds.open_holds(conn, SOURCE)

    def test_without_a_hold_nobody_is_asked(self, airflow, filled, asked):
        run = Run()
        execute(run, "stop_writer")
        with pytest.raises(AirflowSkipException, match="nothing holds the writer"):
            execute(run, "decide")
        assert asked == []


class TestOneEntityHeld:
    """A source has one writer: a hold of one entity stops the repair of all."""

    @pytest.fixture(params=[0, 3, -1], ids=["first", "middle", "last"])
    def held(self, airflow, filled, conn, monkeypatch, request) -> tuple[Run, str]:
        """A run after gate_check, dry_run off, and the entity that it holds; line_items pass with two rows to repair.

        The entity is held because its repair share is nothing.
        """
        name = entities()[request.param]
        source, strict = get_source(SOURCE), RepairShare(delete=0, min_rows=0)
        judged = [replace(entity, repair_share=strict) if entity.name == name else entity for entity in source.entities]
        monkeypatch.setattr(repairshopr, "SOURCE", replace(source, entities=tuple(judged)))
        drift(filled, conn)
        gone = conn.execute(sql.SQL("SELECT min(id) FROM repairshopr.{}").format(sql.Identifier(name))).fetchone()
        filled.mutate(Mutation("delete", name, gone[0], silent=True))
        run = Run(conf={"dry_run": False})
        execute(run, "stop_writer")
        execute(run, "scan")
        # `decide` is not skipped: then this would raise.
        execute(run, "gate_check")
        return run, name

    def test_holds_the_run_and_asks_about_that_entity_alone(self, held, conn, asked):
        run, name = held
        [result] = run.xcoms["gate_check"]["return_value"]
        assert (result["verdict"], result["drift"]) == ("hold", 3)
        assert result["hold"].startswith(f"{name} (all): the repair would delete 1 of")
        assert result["hold"].count("(all)") == 1
        assert fence.read(conn, SOURCE).hold_reason == result["hold"]
        verdicts = dict(conn.execute("SELECT entity, verdict FROM confidence.forensic_run").fetchall())
        assert verdicts == {entity: "hold" if entity == name else "pass" for entity in entities()}
        with pytest.raises(TaskAwaitingInput):
            execute(run, "decide")
        assert re.findall(r"^### (\w+)$", asked[0]["body"], re.M) == [name]
        # A repair would write what the others have planned too. Only what has a plan can be left out, if it isn't all.
        field = asked[0]["params"].get("leave_out")
        assert set(field["schema"]["examples"] if field else [name]) == {name, "line_items"}
        assert {name, "line_items"} <= {*re.findall(r"^- \[(\w+)\]", asked[0]["body"], re.M)}

    def test_repairs_none_of_them_before_the_decision_and_then_all(self, held, conn, asked):
        run, name = held
        lines = live_lines(conn)
        with pytest.raises(FenceError, match=r"nothing was applied\. Clear decide"):
            execute(run, "reconcile")
        with pytest.raises(FenceError, match="held"):
            execute(run, "resume_writer")
        assert live_lines(conn) == lines
        with pytest.raises(TaskAwaitingInput):
            execute(run, "decide")
        answer(run, "Repair, then resume")
        decided = conn.execute("SELECT entity FROM confidence.forensic_run WHERE decision IS NOT NULL")
        assert decided.fetchall() == [(name,)]
        counts = execute(run, "reconcile")["counts"]
        assert counts[name]["deleted"] >= 1
        assert (counts["line_items"]["inserted"], counts["line_items"]["deleted"]) == (1, 1)

    def test_repairs_these_and_not_those(self, held, conn, asked):
        """The held entity is left out: its figures are accepted, and the others are repaired and verified."""
        run, name = held
        live = sql.SQL("SELECT count(*) FROM repairshopr.{} WHERE deleted_at IS NULL").format(sql.Identifier(name))
        before = conn.execute(live).fetchone()
        with pytest.raises(TaskAwaitingInput):
            execute(run, "decide")
        found = answer(run, "Repair, then resume", leave_out=[name], reason="it has closed")
        assert found == {"decision": "repair", "by": "Ada", "left_out": [name]}
        decided = conn.execute("SELECT entity, decision FROM confidence.forensic_run WHERE decision IS NOT NULL")
        assert decided.fetchall() == [(name, "repair")]
        counts = execute(run, "reconcile")["counts"]
        assert name not in counts
        assert (counts["line_items"]["inserted"], counts["line_items"]["deleted"]) == (1, 1)
        assert {check["entity"] for check in execute(run, "verify")} == {*entities()} - {name}
        execute(run, "resume_writer")
        assert conn.execute(live).fetchone() == before
        evidence = run_evidence.read(conn, SOURCE, run.name, entities())
        assert outcome.gap(evidence, dry_run=False) is None
        assert outcome.not_confirmed(evidence) == f"a person has left out the plan of {name}"
        assert (evidence.left_open, evidence.reason) == ({name: 1}, "it has closed")

    def test_what_was_left_out_stays_so_when_the_scans_are_made_anew(self, held, conn, asked):
        """A later step fails, and its message says to clear scan: nobody has allowed the plan meanwhile."""
        run, name = held
        with pytest.raises(TaskAwaitingInput):
            execute(run, "decide")
        answer(run, "Repair, then resume", leave_out=["line_items"])
        lines = live_lines(conn)
        execute(run, "scan")
        left_out = conn.execute("SELECT DISTINCT entity FROM confidence.forensic_run WHERE left_out").fetchall()
        assert left_out == [("line_items",)]
        execute(run, "gate_check")
        with pytest.raises(TaskAwaitingInput):
            execute(run, "decide")
        answer(run, "Repair, then resume", leave_out=["line_items"])
        assert "line_items" not in execute(run, "reconcile")["counts"] or name == "invoices"
        if name != "invoices":
            assert live_lines(conn) == lines

    def test_leaves_out_what_was_not_held(self, held, conn, asked):
        run, name = held
        lines = live_lines(conn)
        with pytest.raises(TaskAwaitingInput):
            execute(run, "decide")
        answer(run, "Repair, then resume", leave_out=["line_items"])
        counts = execute(run, "reconcile")["counts"]
        assert counts[name]["deleted"] >= 1
        assert "line_items" not in counts or name == "invoices"
        execute(run, "verify")
        if name != "invoices":
            assert live_lines(conn) == lines


class TestResumeWriter:
    def watermarks(self, conn) -> dict:
        return {entity: sync_log.state(conn, SOURCE, entity).watermark for entity in entities()}

    @pytest.mark.parametrize(("dry_run", "moved"), [(True, False), (False, True)])
    def test_resets_the_watermarks_on_order_only(self, airflow, filled, conn, dry_run, moved):
        conn.execute("UPDATE confidence.sync_state SET watermark = watermark - interval '1 day'")
        before = self.watermarks(conn)
        run = Run(conf={"reset_watermark": True, "dry_run": dry_run})
        execute(run, "stop_writer")
        judged(conn, run)
        execute(run, "resume_writer")
        assert {before[entity] != after for entity, after in self.watermarks(conn).items()} == {moved}
        assert not fence.read(conn, SOURCE).stopped

    @pytest.mark.parametrize("conf", [{}, {"page_end": 1, "compute_db_not_in_api": False}])
    def test_keeps_the_watermarks_if_the_run_has_not_compared_the_source(self, airflow, filled, conn, caplog, conf):
        """Its scans failed, or saw a part only: nothing else would bring the changes that a reset skips."""
        conn.execute("UPDATE confidence.sync_state SET watermark = watermark - interval '1 day'")
        before = self.watermarks(conn)
        run = Run(conf={"reset_watermark": True, "dry_run": False, **conf})
        execute(run, "stop_writer")
        if conf:
            judged(conn, run)
        execute(run, "resume_writer")
        assert self.watermarks(conn) == before
        assert "a reset would lose changes. The next sync brings them" in caplog.text

    def test_keeps_the_watermarks_without(self, airflow, filled, conn):
        before = self.watermarks(conn)
        run = Run(conf={"dry_run": False})
        execute(run, "stop_writer")
        execute(run, "resume_writer")
        assert self.watermarks(conn) == before


class TestReport:
    def report(self, run: Run, **states: str) -> Any:
        run.states = dict.fromkeys(STEPS, "success") | states
        return execute(run, "report")

    @pytest.fixture
    def run(self, airflow, connected, conn) -> Run:
        """A run that has stopped the writer and let it run again."""
        run = Run()
        execute(run, "stop_writer")
        execute(run, "resume_writer")
        return run

    def repair(self, conn, run: Run, **changes: Any) -> int:
        """What a repair by these scans leaves that has applied its plan and was not verified."""
        sync_id = sync_log.begin(conn, SOURCE, "repair", run.name)
        sync_log.finish(conn, sync_id, {"line_items": Counts(deleted=3)})
        for column, value in changes.items():
            query = sql.SQL("UPDATE confidence.sync_log SET {} = %s WHERE sync_id = %s").format(sql.Identifier(column))
            conn.execute(query, [value, sync_id])
        return sync_id

    def test_sums_up_in_one_line(self, run, conn, caplog):
        unproven = {"line_items": Account(live=10, equal=8, unproven=2)}
        judged(conn, run, line_items={"verdict": Verdict.WARN, "plan": (1, 0, 2), "accounts": unproven})
        conn.execute(
            "INSERT INTO confidence.unproven (source, entity, key, why, nights, run, first_seen)"
            " VALUES ('repairshopr', 'line_items', '[7]', 'HTTP 500', 1, 'x', now() - interval '1 hour'),"
            " ('repairshopr', 'line_items', '[5]', 'HTTP 500', 2, 'x', now() - interval '1 day')"
        )
        with caplog.at_level(logging.INFO):
            summary = self.report(run, decide="skipped")
        line = next(json.loads(r.message) for r in caplog.records if r.message.startswith('{"'))
        assert line == summary
        assert (summary["event"], summary["run"], summary["verdict"], summary["drift"]) == (
            "report",
            run.name,
            "warn",
            3,
        )
        assert summary["reasons"] == ["line_items (all): line_items has drifted"]
        assert (summary["proven"], summary["rows"]) == (68, 70)
        assert summary["entities"]["line_items"] == {"rows": 10, "proven": 8}
        assert summary["unproven"] == [
            "line_items 5 (2 runs, never looked at by itself): HTTP 500",
            "line_items 7 (1 run, never looked at by itself): HTTP 500",
        ]
        assert summary["writer"] == "writer of repairshopr is running"

    def refused(self, run: Run, **states: str) -> str:
        with pytest.raises(RunFailed) as failed:
            self.report(run, **states)
        assert "Next: " in str(failed.value)
        return str(failed.value)

    @pytest.mark.drill("marked-task")
    def test_scan_marked_as_done_before_it_was(self, run, conn):
        judged(conn, run)
        conn.execute("DELETE FROM confidence.forensic_run WHERE entity = 'tickets'")
        assert self.refused(run).startswith("the warehouse has no whole scan of tickets by this run")

    @pytest.mark.parametrize("change", ["rescanned = true", 'summary = summary || \'{"incomplete": "3 unread"}\''])
    def test_scan_marked_as_done_that_is_no_evidence(self, run, conn, change):
        judged(conn, run)
        conn.execute(f"UPDATE confidence.forensic_run SET {change} WHERE entity = 'tickets'")
        assert "no whole scan of tickets" in self.refused(run)

    @pytest.mark.drill("marked-task")
    def test_gate_check_marked_as_done_judges_nothing(self, run, conn):
        judged(conn, run, tickets={"verdict": None})
        assert self.refused(run).startswith("the warehouse has no verdict on tickets, although gate_check")

    @pytest.mark.drill("marked-task")
    def test_reconcile_marked_as_done_repairs_nothing(self, run, conn):
        run.context["params"]["dry_run"] = False
        judged(conn, run, line_items={"plan": (0, 0, 3)})
        message = self.refused(run)
        assert message.startswith("3 planned changes were to be applied, but the warehouse has no repair of this run")

    def test_plan_of_a_dry_run_need_not_be_applied(self, run, conn):
        judged(conn, run, line_items={"plan": (0, 0, 3)})
        assert self.report(run)["repair"] is None

    @pytest.mark.parametrize("state", ["running", "failed"])
    def test_reconcile_marked_as_done_in_the_middle(self, run, conn, state):
        judged(conn, run, line_items={"plan": (0, 0, 3)})
        sync_id = self.repair(conn, run, state=state)
        assert self.refused(run).startswith(f"the repair (sync_id {sync_id}) ")

    @pytest.mark.drill("marked-task")
    def test_verify_marked_as_done_verifies_nothing(self, run, conn):
        judged(conn, run, line_items={"plan": (0, 0, 3)})
        sync_id = self.repair(conn, run)
        assert self.refused(run).startswith(f"the repair (sync_id {sync_id}) was applied and never verified")
        sync_log.save_checks(conn, sync_id, [])
        assert self.report(run)["repair"] == {"sync_id": sync_id, "state": "success", "verified": True}

    def test_repair_that_was_rolled_back_needs_no_look(self, run, conn):
        judged(conn, run, line_items={"plan": (0, 0, 3)})
        sync_id = self.repair(conn, run)
        undo = sync_log.begin(conn, SOURCE, "rollback", "warehouse_rollback/1", undoes=sync_id)
        sync_log.finish(conn, undo, {})
        self.report(run)

    def test_repair_before_the_scans_was_seen_by_them(self, run, conn):
        self.repair(conn, run)
        judged(conn, run)
        assert self.report(run)["repair"] is None

    @pytest.mark.drill("marked-task")
    @pytest.mark.parametrize("held", [False, True])
    def test_resume_writer_marked_as_done_over_a_stopped_writer(self, run, conn, held):
        execute(run, "stop_writer")
        judged(conn, run, line_items={"verdict": Verdict.HOLD if held else Verdict.PASS})
        holds.refresh_hold(conn, SOURCE)
        message = self.refused(run)
        assert message.startswith(f"the writer of repairshopr has been stopped by {run.name}")
        assert ("clear decide with downstream" in message) == held
        assert ("clear resume_writer with downstream" in message) != held

    def test_writer_that_another_run_has_stopped_since_is_its_business(self, run, conn):
        judged(conn, run)
        execute(Run("scheduled__2"), "stop_writer")
        assert "scheduled__2" in self.report(run)["writer"]

    def test_names_the_first_step_that_failed_and_what_to_do(self, airflow, connected):
        failed = {"scan": "failed", "gate_check": "upstream_failed", "verify": "upstream_failed"}
        with pytest.raises(RunFailed, match=r"^scan failed; writer .* is running\. Next: nothing was"):
            self.report(Run(), **failed)

    def test_log_ends_on_sentences_and_not_on_a_traceback(self, airflow, connected, caplog):
        with pytest.raises(RunFailed) as failed:
            self.report(Run(), scan="failed", gate_check="upstream_failed")
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert said == [
            "scan failed; writer of repairshopr is running.",
            "Next: nothing was written. Read the failed scan's log, then clear scan with downstream.",
        ]
        # Of an exit Airflow logs the code alone.
        assert failed.value.code == 1
        assert not isinstance(failed.value, Exception)

    def test_long_sentences_are_wrapped(self, run, conn, caplog):
        run.context["params"]["dry_run"] = False
        judged(conn, run, line_items={"plan": (0, 0, 3)})
        message = self.refused(run)
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(said) > 2
        assert max(map(len, said)) <= WIDTH
        assert " ".join(said) == f"{message}."

    @pytest.mark.parametrize("step", STEPS)
    def test_every_step_has_its_advice(self, airflow, connected, step):
        with pytest.raises(RunFailed, match=rf"^{step} failed; .*Next: \w+"):
            self.report(Run(), **{step: "failed"})

    def test_worst_of_a_mapped_step_counts(self, airflow, connected):
        run = Run()
        mapped = {f"scan_{index}": "failed" if index == 1 else "success" for index in range(3)}
        run.states = {step: "success" for step in STEPS if step != "scan"} | mapped
        with pytest.raises(RunFailed, match=r"^scan failed"):
            execute(run, "report")

    def test_opens_the_pool_that_its_own_run_left_closed_over_a_running_writer(self, airflow, connected):
        run = Run()
        airflow.pools[POOL] |= {"slots": 0, "description": f"STOPPED by {run.name} (epoch 1)"}
        with pytest.raises(RunFailed, match="stop_writer failed"):
            self.report(run, stop_writer="failed")
        assert airflow.pools[POOL]["slots"] == 1

    @pytest.mark.parametrize(
        "description", ["STOPPED by repairshopr_reconcile/scheduled__2 (epoch 1)", "closed by hand"]
    )
    def test_leaves_a_pool_that_somebody_else_closed(self, run, airflow, conn, description):
        judged(conn, run)
        airflow.pools[POOL] |= {"slots": 0, "description": description}
        self.report(run)
        assert airflow.pools[POOL]["slots"] == 0

    def test_leaves_the_pool_of_a_stopped_writer(self, airflow, connected):
        run = Run()
        execute(run, "stop_writer")
        with pytest.raises(RunFailed, match="writer of repairshopr has been stopped by"):
            self.report(run, resume_writer="failed")
        assert airflow.pools[POOL]["slots"] == 0


class TestSync:
    def run(self, mode: str = "incremental", **conf: Any) -> Run:
        return Run(dag_id="repairshopr_sync", params={"mode": mode}, conf=conf or None)

    def test_works_in_the_writers_pool(self):
        assert SyncOperator(task_id="sync", source=SOURCE).pool == POOL

    @pytest.mark.parametrize(("mode", "read"), [("incremental", 0), ("full", 40)])
    def test_reads_what_changed_or_everything(self, filled, conn, mode, read):
        result = self.run(mode).execute(SyncOperator(task_id="sync", source=SOURCE))
        assert set(result["counts"]) == set(entities())
        assert result["counts"]["invoices"]["read"] == read
        logged = conn.execute("SELECT run, state FROM confidence.sync_log WHERE sync_id = %s", [result["sync_id"]])
        assert logged.fetchone() == ("repairshopr_sync/manual__1", "success")

    def test_waits_while_the_writer_is_stopped(self, airflow, filled, conn):
        """It was queued when the pool was closed. It gives its worker back, and nobody is told."""
        execute(Run(), "stop_writer")
        before = conn.execute("SELECT count(*) FROM confidence.sync_log").fetchone()
        with pytest.raises(AirflowRescheduleException) as waits:
            self.run().execute(SyncOperator(task_id="sync", source=SOURCE))
        assert waits.value.reschedule_date > datetime.now(UTC)
        assert conn.execute("SELECT count(*) FROM confidence.sync_log").fetchone() == before

    @pytest.fixture
    def metrics(self, monkeypatch) -> dict[str, float]:
        """The gauges that were sent."""
        sent: dict[str, float] = {}
        monkeypatch.setattr(stats, "gauge", sent.__setitem__)
        return sent

    def health(self, caplog) -> list[dict]:
        lines = [record.getMessage() for record in caplog.records if record.name == "plugins.operators.sync"]
        return [json.loads(line) for line in lines if '"event": "health"' in line]

    def test_tells_health_and_nothing_more_while_all_is_well(self, filled, metrics, caplog):
        run = self.run()
        with caplog.at_level(logging.INFO):
            run.execute(SyncOperator(task_id="sync", source=SOURCE))
        [told] = self.health(caplog)
        assert {table["table"] for table in told["tables"]} == set(entities())
        assert told["requests"] > told["request_errors"] == 0
        assert metrics["sync_confidence.repairshopr.sync_seconds"] == told["seconds"] > 0
        assert metrics["sync_confidence.repairshopr.error_rate"] == 0
        assert 0 <= metrics["sync_confidence.repairshopr.customers.freshness_seconds"] < 60
        assert "health" not in run.xcoms["sync"]

    def test_alerts_are_an_xcom_and_warnings_also_of_a_sync_that_failed(self, filled, conn, metrics, caplog):
        conn.execute("UPDATE confidence.sync_log SET requests = 100, request_errors = 10")
        filled.fault(Fault("status", resource="payments", status=401, times=None))
        run = self.run()
        with pytest.raises(SyncFailed, match="payments"):
            run.execute(SyncOperator(task_id="sync", source=SOURCE))
        [[alert]] = run.xcoms["sync"]["health"]
        assert (alert["rule"], alert["subject"]) == ("error_rate", SOURCE)
        assert alert["line"] in caplog.messages
        assert metrics["sync_confidence.repairshopr.error_rate"] == alert["figure"] > alert["limit"]

    def test_limits_are_the_sources_own(self, filled, conn, monkeypatch):
        conn.execute("UPDATE confidence.sync_log SET requests = 100, request_errors = 10")
        source = get_source(SOURCE)
        monkeypatch.setattr(repairshopr, "SOURCE", replace(source, health=Limits(error_rate=0.5)))
        run = self.run()
        run.execute(SyncOperator(task_id="sync", source=SOURCE))
        assert "health" not in run.xcoms["sync"]

    def test_lost_warehouse_is_told_as_the_one_failure(self, filled, conn, monkeypatch):
        def lose(source: Any, context: Any, *_: Any, **__: Any) -> None:
            context.conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        monkeypatch.setattr(Mirror, "sync", lose)
        with pytest.raises(psycopg.errors.AdminShutdown) as lost:
            self.run().execute(SyncOperator(task_id="sync", source=SOURCE))
        assert lost.value.__context__ is None


class TestRollback:
    def run(self, sync_id: int, *, by: str | None = "Ada", **params: Any) -> Any:
        known = {"sync_id": sync_id, "reason": "a test", "dry_run": True, "force": False}
        run = Run(dag_id="warehouse_rollback", params=known | params, by=by)
        return run.execute(RollbackOperator(task_id="rollback"))

    def test_dry_run_counts_and_the_real_one_restores(self, filled, conn):
        [(sync_id,)] = conn.execute("SELECT sync_id FROM confidence.sync_log").fetchall()
        lines = live_lines(conn)
        told = self.run(sync_id)
        assert told["sync_id"] is None
        assert told["tables"]["repairshopr.line_items"]["deleted"] == len(lines)
        assert live_lines(conn) == lines
        done = self.run(sync_id, dry_run=False)
        assert done["tables"] == told["tables"]
        assert live_lines(conn) == set()
        logged = conn.execute(
            "SELECT run, reason, undoes FROM confidence.sync_log WHERE sync_id = %s", [done["sync_id"]]
        )
        assert logged.fetchone() == ("warehouse_rollback/manual__1", "a test", sync_id)

    def test_result_is_what_the_page_reads(self, filled, conn):
        [(sync_id,)] = conn.execute("SELECT sync_id FROM confidence.sync_log").fetchall()
        first = "(SELECT min(id) FROM repairshopr.customers)"
        conn.execute(f"UPDATE repairshopr.customers SET deleted_at = now() WHERE id = {first}")
        (conflict,) = Undone.from_json(self.run(sync_id)).conflicts
        assert (conflict.rows, conflict.what) == (1, "of repairshopr.customers by hand or by a migration")

    @pytest.mark.drill("answer-without-right")
    @pytest.mark.parametrize(("by", "who"), [("Bob", "Bob"), ("Eve", "Eve")])
    @pytest.mark.parametrize("dry_run", [True, False])
    def test_who_has_not_the_role_is_refused_before_anything_is_read(self, connected, conn, by, who, dry_run):
        told = rf"^{who} may not roll back: that takes the role op or admin\. Nothing was changed"
        with pytest.raises(NotDecider, match=told):
            self.run(1, by=by, dry_run=dry_run)
        assert conn.execute("SELECT count(*) FROM confidence.sync_log").fetchone() == (0,)

    @pytest.mark.parametrize("by", [None, "root"])
    def test_a_shell_is_let_through(self, connected, by):
        with pytest.raises(RollbackRefused, match="there is no sync_id 1"):
            self.run(1, by=by)

    def test_setting_names_the_roles(self, connected, monkeypatch):
        monkeypatch.setenv("DECIDER_ROLES", "user, Viewer")
        for by in ("Bob", "Eve"):
            with pytest.raises(RollbackRefused, match="there is no sync_id 1"):
                self.run(1, by=by)
        with pytest.raises(NotDecider, match="the role user or viewer"):
            self.run(1, by="Ada")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("AUTH_MANAGER", "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"),
            ("SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True"),
        ],
    )
    def test_where_roles_are_not_known_airflow_alone_decides(self, connected, monkeypatch, name, value):
        monkeypatch.setenv(f"AIRFLOW__CORE__{name}", value)
        with pytest.raises(RollbackRefused, match="there is no sync_id 1"):
            self.run(1, by="Bob")
