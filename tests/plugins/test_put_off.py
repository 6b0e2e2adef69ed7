"""A night whose writer may stand for a limited time only: what it scans, what it puts off, and what it says of that."""

import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from include.api import limits
from include.api.errors import FixConfiguration
from include.api.limits import NoLimit, OutOfTime, Until
from include.confidence import outcome, proofs, run_evidence, unfinished_work
from include.confidence.policy import Verdict
from include.confidence.queries.runs import read_run
from include.confidence.summary import Plan, UnusableSummary
from plugins import assets
from plugins.operators.report import STEPS
from plugins.operators.scan import ScanOperator
from plugins.operators.sync import SyncOperator
from tests.plugins.conftest import SOURCE, Run, entities, execute, judged, live_lines, skipped

BUDGET = "AIRFLOW_VAR_STOP_BUDGET_MINUTES"
ALL = set(entities())


@pytest.fixture
def earlier(airflow, filled, conn) -> Run:
    """A night that has proven all, each entity in a minute, in the source's order and an hour apart."""
    run = Run("scheduled__0", run_type="scheduled")
    execute(run, "stop_writer")
    judged(conn, run)
    for place, name in enumerate(entities()):
        conn.execute(
            "UPDATE confidence.forensic_run SET seconds = 60, scanned_at = now() - make_interval(hours => %s)"
            " WHERE entity = %s",
            [48 - place, name],
        )
    execute(run, "resume_writer")
    airflow.runs[run.name] = "success"
    return run


def night(number: int = 1, *, run_type: str = "scheduled", **conf: Any) -> Run:
    run = Run(f"{run_type}__{number}", run_type=run_type, conf=conf)
    execute(run, "stop_writer")
    return run


def scan(run: Run, *names: str) -> set[str]:
    """Scan these entities, or all; return those that were scanned."""
    done = set()
    for name in names or entities():
        with suppress(AirflowSkipException):
            run.execute(ScanOperator(task_id="scan", source=SOURCE, entity=name))
            done.add(name)
    return done


def judge(run: Run) -> dict[str, Any]:
    """Judge the scans of the run; return what the gate says."""
    try:
        return execute(run, "gate_check")
    except DownstreamTasksSkipped:
        return run.xcoms["gate_check"]["return_value"][-1]


def end(run: Run, conn: Any) -> dict[str, Any]:
    """Let the writer run again, and report; `events` are those of assets."""
    execute(run, "resume_writer")
    run.states = dict.fromkeys(STEPS, "success") | {"decide": "skipped"}
    summary = execute(run, "report")
    events = run.context["outlet_events"][assets.outlet(SOURCE)].asset_alias_events
    return summary | {"events": len(events), "gap": outcome.gap(evidence(run, conn), dry_run=True)}


def evidence(run: Run, conn: Any) -> Any:
    return run_evidence.read(conn, SOURCE, run.name, entities())


class TestBudget:
    @pytest.mark.parametrize("given", [None, "", "0", "60"])
    def test_that_is_off_or_long_puts_nothing_off(self, earlier, conn, monkeypatch, given):
        if given is not None:
            monkeypatch.setenv(BUDGET, given)
        run = night()
        assert scan(run) == ALL
        assert judge(run)["verdict"] == Verdict.PASS
        found = end(run, conn)
        assert (found["put_off"], found["events"]) == ({}, 1)
        took = conn.execute("SELECT bool_and(seconds > 0) FROM confidence.forensic_run WHERE run = %s", [run.name])
        assert took.fetchone() == (True,)

    def test_is_for_scheduled_runs(self, earlier, monkeypatch):
        monkeypatch.setenv(BUDGET, "1")
        assert scan(night(run_type="manual")) == ALL

    @pytest.mark.parametrize("given", ["an hour", "-1", "inf", "nan"])
    def test_that_is_no_number_of_minutes_is_refused(self, earlier, monkeypatch, given):
        monkeypatch.setenv(BUDGET, given)
        run = night()
        with pytest.raises(
            FixConfiguration, match=r"^the Airflow Variable stop_budget_minutes is .* number of minutes"
        ):
            scan(run, "tickets")

    def test_takes_the_oldest_proofs_and_puts_off_the_rest(self, earlier, conn, monkeypatch):
        monkeypatch.setenv(BUDGET, "3")
        first, second = set(entities()[:3]), set(entities()[3:6])
        run = night()
        assert scan(run) == first
        assert judge(run)["verdict"] == Verdict.PASS
        found = end(run, conn)
        assert set(found["put_off"]) == ALL - first
        assert set(found["entities"]) == first
        assert (found["events"], found["gap"]) == (0, None)
        assert outcome.not_confirmed(evidence(run, conn)) == (
            "put off to a later night: estimates, payments, products, tickets"
        )
        standing = proofs.put_off_now(conn, SOURCE, proofs.read_proofs(conn, SOURCE, entities()))
        assert {each.entity for each in standing} == ALL - first
        # The next night takes those that have waited longest.
        conn.execute("UPDATE confidence.forensic_run SET seconds = 60")
        assert scan(night(2)) == second

    def test_is_the_same_choice_in_each_try(self, earlier, conn, monkeypatch):
        monkeypatch.setenv(BUDGET, "3")
        run = night()
        assert scan(run) == scan(run) == set(entities()[:3])

    def test_that_is_spent_leaves_the_oldest_proof(self, earlier, conn, monkeypatch):
        monkeypatch.setenv(BUDGET, "60")
        conn.execute(
            "UPDATE confidence.forensic_run SET scanned_at = now() - interval '9 days' WHERE entity = 'tickets'"
        )
        run = night()
        conn.execute("UPDATE confidence.writer_stop SET began_at = began_at - interval '61 minutes'")
        assert scan(run) == {"tickets"}
        assert "stood for 61 min before its turn" in proofs.put_off_by(conn, SOURCE, run.name)["customers"]

    def test_does_not_hold_back_a_scan_that_may_end_a_hold(self, earlier, conn, monkeypatch):
        monkeypatch.setenv(BUDGET, "1")
        run = night()
        conn.execute("UPDATE confidence.writer SET hold_reason = 'too much' WHERE source = %s", [SOURCE])
        assert scan(run) == ALL


class TestScanThatIsCutOff:
    @pytest.fixture
    def cut(self, earlier, monkeypatch):
        """The clock jumps an hour ahead after the first request of a limited scan."""
        monkeypatch.setenv(BUDGET, "30")
        asked = iter([0.0])
        monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + next(asked, 3600.0)))

    def test_is_put_off(self, cut, conn):
        run = night()
        assert scan(run, "tickets", "customers") == {"customers"}
        [(entity, why)] = proofs.put_off_by(conn, SOURCE, run.name).items()
        assert (entity, why) == (
            "tickets",
            "its scan did not come to its end in the time for which the writer may stand",
        )
        [proof] = proofs.read_proofs(conn, SOURCE, ["tickets"])
        assert proof.seconds == 60

    def test_takes_along_what_refers_to_it(self, earlier, conn, monkeypatch):
        """Lines were scanned and would be repaired, their invoices were not: neither is judged."""
        monkeypatch.setenv(BUDGET, "30")
        lines = live_lines(conn)
        conn.execute("DELETE FROM repairshopr.line_items WHERE id = %s", [min(lines)])
        run = night(dry_run=False)
        scan(run)
        why = {"invoices": "its scan did not come to its end"}
        proofs.put_off(conn, SOURCE, run.name, why)
        assert judge(run)["drift"] == 0
        found = end(run, conn)
        assert set(found["put_off"]) == {"invoices", "line_items"}
        assert "it refers to what was put off (invoices)" in found["put_off"]["line_items"]
        assert (found["gap"], found["drift"], found["events"]) == (None, 0, 0)
        assert unfinished_work.unjudged(conn, SOURCE) == []
        assert read_run(conn, run.name).planned == Plan(0, 0, 0)
        assert len(live_lines(conn)) == len(lines) - 1

    def test_sends_no_request_after_its_end(self):
        assert Until(NoLimit(), time.monotonic() + 60).acquire() is None
        with pytest.raises(OutOfTime):
            Until(NoLimit(), time.monotonic() - 1).acquire()


def test_only_what_was_scanned_is_repaired_and_verified(earlier, conn, filled, monkeypatch):
    monkeypatch.setenv(BUDGET, "3")
    lines = live_lines(conn)
    conn.execute("DELETE FROM repairshopr.line_items WHERE id = %s", [min(lines)])
    conn.execute(
        "UPDATE repairshopr.tickets SET deleted_at = now() WHERE id = (SELECT min(id) FROM repairshopr.tickets)"
    )
    run = night(dry_run=False)
    scan(run)
    assert skipped(run, "gate_check") == ["decide"]
    counts = execute(run, "reconcile")["counts"]
    assert counts["line_items"]["inserted"] == 1
    assert "tickets" not in counts
    execute(run, "verify")
    assert end(run, conn)["gap"] is None
    assert live_lines(conn) == lines
    gone = conn.execute("SELECT count(*) FROM repairshopr.tickets WHERE deleted_at IS NOT NULL").fetchone()
    assert gone == (1,)


def test_sync_warns_of_a_proof_that_is_too_old(earlier, conn):
    conn.execute("UPDATE confidence.forensic_run SET scanned_at = now() - interval '8 days' WHERE entity = 'tickets'")
    run = Run(dag_id=f"{SOURCE}_sync", params={"mode": "incremental"})
    run.execute(SyncOperator(task_id="sync", source=SOURCE))
    [[alert]] = run.xcoms["sync"]["health"]
    assert (alert["rule"], alert["subject"]) == ("proof_age", f"{SOURCE}.tickets")


def test_run_that_scanned_nothing_is_no_night(earlier, conn):
    """Whatever is put off: somebody marked the scans."""
    run = night()
    proofs.put_off(conn, SOURCE, run.name, dict.fromkeys(entities(), "no time"))
    with pytest.raises(UnusableSummary):
        execute(run, "gate_check")
    assert outcome.gap(evidence(run, conn), dry_run=True).step == "scan"
