"""Evidence, verdicts and the scans before, as the warehouse keeps them, statement by statement."""

from datetime import UTC, datetime

import psycopg
import pytest

from include.confidence import holds, judgements, scan_log
from include.confidence.policy import Judgement, PastRun, Trend, Verdict, judge
from include.confidence.scan_log import PlanGone
from include.confidence.summary import ForensicSummary
from tests.confidence.builders import HELD, METRIC, PASSED, judged, passes, rows, summary
from tests.warehouse.sessions import while_changing


def test_evidence_is_kept_before_the_verdict(conn):
    scanned = summary(7)
    scan_log.record(conn, scanned)
    (row,) = rows(conn)
    assert ForensicSummary.from_json(row["summary"]) == scanned
    assert row["metrics"] == {METRIC: 7}
    assert (row["source"], row["entity"], row["scope"]) == ("repairshopr", "line_items", "all")
    assert (row["scan_id"], row["run"], row["epoch"]) == ("scan", "run of scan", 1)
    assert abs(row["scanned_at"] - datetime.now(UTC)).total_seconds() < 60
    assert (row["verdict"], row["decision"]) == (None, None)
    assert judgements.past_runs(conn, summary(scan_id="next")) == []


def test_a_judgement_is_written_beside_its_evidence(conn):
    scanned = summary(500)
    scan_log.record(conn, scanned)
    judgements.save_judgement(conn, scanned, judge(scanned, passes(100), [Trend(METRIC), Trend("not_measured")]))
    (row,) = rows(conn)
    assert (row["verdict"], row["worse"], row["baseline"]) == ("warn", [METRIC], {METRIC: 100})
    assert row["reasons"] == [
        f"{METRIC} is 500, above its limit 125 (baseline 100): worse once, a second time in a row would alone"
        " hold the writer"
    ]


def test_the_same_scan_once_more_replaces_evidence_and_verdict(conn):
    judged(conn, "scan", Judgement(Verdict.WARN, (METRIC,), ("too many",), ()), value=5)
    first = rows(conn)[0]["scanned_at"]
    scan_log.record(conn, summary(6, scan_id="scan"))
    (row,) = rows(conn)
    assert (row["metrics"], row["verdict"], row["worse"], row["reasons"]) == ({METRIC: 6}, None, [], [])
    assert row["scanned_at"] > first


def test_a_scan_that_is_made_anew_while_it_is_judged_gets_no_verdict(warehouse):
    """The new evidence is committed after the judgement has begun: it waits, and sees it."""
    scanned = summary(5)
    again = "UPDATE confidence.forensic_run SET rescanned = true WHERE scan_id = %s"
    with psycopg.connect(warehouse, autocommit=True) as conn, psycopg.connect(warehouse, autocommit=True) as other:
        scan_log.record(conn, scanned)

        def judged() -> None:
            with conn.transaction():
                judgements.save_judgement(conn, scanned, PASSED)

        with pytest.raises(PlanGone, match="scanned again"):
            while_changing(other, again, [scanned.scan_id], conn, judged)
        assert rows(conn)[0]["verdict"] is None


def test_judging_a_held_scan_again_does_not_end_its_hold(conn):
    scanned = judged(conn, "scan")
    holds.mark_hold(conn, "scan", "verify is worse than scan")
    judgements.save_judgement(conn, scanned, PASSED)
    assert [hold.reasons for hold in holds.open_holds(conn, "repairshopr")] == [("verify is worse than scan",)]


def test_judging_a_decided_scan_again_keeps_the_decision(conn):
    scanned = judged(conn, "scan", HELD)
    holds.decide(conn, "repairshopr", "resume", "oncall")
    judgements.save_judgement(conn, scanned, HELD)
    assert holds.open_holds(conn, "repairshopr") == []
    assert rows(conn)[0]["decided_by"] == "oncall"


# Of each scan.
EXAMPLES = {"missing_examples": [7, 8]}


def test_past_runs_come_newest_first_with_all_that_a_judgement_needs(conn):
    judged(conn, "one", value=1)
    judged(conn, "two", HELD, value=2)
    holds.decide(conn, "repairshopr", "resume", "oncall")
    judged(conn, "three", HELD, value=3)
    holds.decide(conn, "repairshopr", "repair", "oncall")
    judged(conn, "four", HELD, value=4)
    holds.decide(conn, "repairshopr", "keep", "oncall")
    judged(conn, "five", HELD, value=5)
    assert judgements.past_runs(conn, summary(scan_id="now")) == [
        PastRun("five", {METRIC: 5}, Verdict.HOLD, (METRIC,), accepted=False, held=True, examples=EXAMPLES),
        PastRun("four", {METRIC: 4}, Verdict.HOLD, (METRIC,), accepted=False, held=True, examples=EXAMPLES),
        PastRun("three", {METRIC: 3}, Verdict.HOLD, (METRIC,), accepted=False, held=False, examples=EXAMPLES),
        PastRun("two", {METRIC: 2}, Verdict.HOLD, (METRIC,), accepted=True, held=False, examples=EXAMPLES),
        PastRun("one", {METRIC: 1}, Verdict.PASS, (), accepted=False, held=False, examples=EXAMPLES),
    ]


def test_past_runs_know_how_many_changes_were_planned(conn):
    judged(conn, "one", plan=(1, 2, 3))
    assert [run.planned for run in judgements.past_runs(conn, summary(scan_id="now"))] == [6]


def test_past_runs_are_of_the_same_source_entity_and_scope(conn):
    judged(conn, "other source", source="square")
    judged(conn, "other entity", entity="invoices")
    judged(conn, "other scope", scope="pages 3-10")
    judged(conn, "same")
    assert [run.scan_id for run in judgements.past_runs(conn, summary(scan_id="now"))] == ["same"]


def test_past_runs_leave_out_the_run_itself_but_not_its_holds(conn):
    judged(conn, "first try", run="tonight")
    judged(conn, "second try", HELD, run="tonight")
    scanned = judged(conn, "third try", run="tonight")
    assert [run.scan_id for run in judgements.past_runs(conn, scanned)] == ["second try"]


def test_a_judged_scan_is_not_its_own_past(conn):
    assert judgements.past_runs(conn, judged(conn, "scan", HELD)) == []


def test_past_runs_go_back_to_the_good_runs_past_all_bad_ones(conn):
    for night in range(4):
        judged(conn, f"good {night}")
    for night in range(6):
        judged(conn, f"bad {night}", HELD)
    found = [run.scan_id for run in judgements.past_runs(conn, summary(scan_id="now"), limit=2)]
    assert found == [*(f"bad {night}" for night in reversed(range(6))), "good 3", "good 2"]


def test_past_runs_know_the_accepted_run_however_old(conn):
    for name in ("accepted long ago", "accepted"):
        judged(conn, name, HELD)
        holds.decide(conn, "repairshopr", "resume", "oncall")
    for night in range(4):
        judged(conn, f"good {night}")
    found = [run.scan_id for run in judgements.past_runs(conn, summary(scan_id="now"), limit=2)]
    assert found == ["good 3", "good 2", "accepted"]


@pytest.mark.parametrize("decision", ["resume", "repair", "keep"])
@pytest.mark.parametrize("left_out", [True, False])
def test_what_a_repair_has_left_out_is_accepted_as_what_was_resumed_is(conn, decision, left_out):
    judged(conn, "held", HELD)
    holds.decide(conn, "repairshopr", decision, "oncall")
    conn.execute("UPDATE confidence.forensic_run SET left_out = %s", [left_out])
    [run] = judgements.past_runs(conn, summary(scan_id="now"))
    assert run.accepted == (decision == "resume" or (decision == "repair" and left_out))


@pytest.mark.parametrize(
    "write",
    [
        lambda conn: holds.mark_hold(conn, "lost", "why"),
        lambda conn: judgements.save_judgement(conn, summary(scan_id="lost"), PASSED),
    ],
)
def test_a_scan_that_is_not_recorded_is_told(conn, write):
    with pytest.raises(LookupError, match=r"Scan lost is not in confidence\.forensic_run: clear scan"):
        write(conn)


class TestLatest:
    def test_scan_of_its_entity_has_its_plan(self, conn):
        scan_log.record(conn, summary(scan_id="before"))
        scan_log.record(conn, latest := summary(scan_id="latest"))
        scan_log.record(conn, summary(scan_id="other entity", entity="invoices"))
        scan_log.record(conn, summary(scan_id="other source", source="square"))
        scan_log.require_latest(conn, latest)

    def test_scan_has_replaced_the_plans_of_those_before(self, conn):
        scan_log.record(conn, before := summary(scan_id="before"))
        scan_log.record(conn, summary(scan_id="latest", scope="pages 3-10"))
        with pytest.raises(
            PlanGone, match=r"the plan of line_items was replaced by a later scan \(latest\): clear scan"
        ):
            scan_log.require_latest(conn, before)

    def test_scan_is_none_where_nothing_was_recorded(self, conn):
        with pytest.raises(PlanGone, match=r"the plan of line_items was replaced by a later scan \(None\)"):
            scan_log.require_latest(conn, summary(scan_id="lost"))
