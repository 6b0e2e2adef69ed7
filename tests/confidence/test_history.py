"""Evidence, verdicts, holds and decisions in the warehouse, statement by statement."""

from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.rows import dict_row

from include.confidence import holds, judgements, repair_lock, scan_log
from include.confidence.holds import HoldChanged
from include.confidence.policy import Judgement, PastRun, Trend, Verdict, judge
from include.confidence.repair_lock import NotJudged, ScanUnderWay
from include.confidence.scan_log import PlanGone
from include.confidence.summary import ForensicSummary
from include.warehouse import fence
from include.warehouse.fence import FenceError
from tests.confidence.builders import METRIC, passes, past, summary
from tests.warehouse.sessions import while_changing

PASSED = Judgement(Verdict.PASS, (), (), ())
WARNED = Judgement(Verdict.WARN, (METRIC,), ("too many",), ())
HELD = Judgement(Verdict.HOLD, (METRIC,), ("far too many",), ())


def judged(conn, scan_id, judgement=PASSED, value=0, **figures) -> ForensicSummary:
    scanned = summary(value, scan_id=scan_id, **figures)
    scan_log.record(conn, scanned)
    judgements.save_judgement(conn, scanned, judgement)
    return scanned


def rows(conn) -> list[dict]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("SELECT * FROM confidence.forensic_run ORDER BY scanned_at").fetchall()


def writer(conn) -> tuple:
    query = "SELECT state, hold_reason FROM confidence.writer WHERE source = 'repairshopr'"
    return conn.execute(query).fetchone()


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
        f"{METRIC} is 500, above its limit 125 (baseline 100): worse once, a worse next run will hold the writer"
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
    anew = "UPDATE confidence.forensic_run SET rescanned = true WHERE scan_id = %s"
    with psycopg.connect(warehouse, autocommit=True) as conn, psycopg.connect(warehouse, autocommit=True) as other:
        scan_log.record(conn, scanned)

        def judged() -> None:
            with conn.transaction():
                judgements.save_judgement(conn, scanned, PASSED)

        with pytest.raises(PlanGone, match="scanned anew"):
            while_changing(other, anew, [scanned.scan_id], conn, judged)
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
        PastRun("five", {METRIC: 5}, Verdict.HOLD, (METRIC,), accepted=False, held=True),
        PastRun("four", {METRIC: 4}, Verdict.HOLD, (METRIC,), accepted=False, held=True),
        PastRun("three", {METRIC: 3}, Verdict.HOLD, (METRIC,), accepted=False, held=False),
        PastRun("two", {METRIC: 2}, Verdict.HOLD, (METRIC,), accepted=True, held=False),
        PastRun("one", {METRIC: 1}, Verdict.PASS, (), accepted=False, held=False),
    ]


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
    judged(conn, "accepted", HELD)
    holds.decide(conn, "repairshopr", "resume", "oncall")
    for night in range(4):
        judged(conn, f"good {night}")
    found = [run.scan_id for run in judgements.past_runs(conn, summary(scan_id="now"), limit=2)]
    assert found == ["good 3", "good 2", "accepted"]


def test_open_holds_are_the_latest_of_each_entity_and_scope(conn):
    judged(conn, "a1", HELD)
    judged(conn, "a2", HELD)
    judged(conn, "b1", HELD, entity="invoices")
    judged(conn, "b2", entity="invoices")
    judged(conn, "c1", HELD, scope="pages 3-10")
    judged(conn, "d1", HELD, source="square")
    found = holds.open_holds(conn, "repairshopr")
    assert [(hold.scan_id, hold.entity, hold.scope, hold.run, hold.reasons) for hold in found] == [
        ("a2", "line_items", "all", "run of a2", ("far too many",)),
        ("c1", "line_items", "pages 3-10", "run of c1", ("far too many",)),
    ]
    assert found[0].scanned_at.tzinfo


def test_a_scan_that_is_not_judged_yet_does_not_end_a_hold(conn):
    judged(conn, "held", HELD)
    scan_log.record(conn, summary(scan_id="new"))
    assert [hold.scan_id for hold in holds.open_holds(conn, "repairshopr")] == ["held"]


def test_mark_hold_adds_its_reason_once(conn):
    judged(conn, "scan", Judgement(Verdict.WARN, (METRIC,), ("too many",), ()))
    holds.mark_hold(conn, "scan", "verify is worse than scan")
    holds.mark_hold(conn, "scan", "verify is worse than scan")
    (row,) = rows(conn)
    assert (row["verdict"], row["reasons"]) == ("hold", ["too many", "verify is worse than scan"])


def test_mark_hold_opens_a_decided_hold_again_and_keeps_who_decided(conn):
    judged(conn, "scan", HELD)
    holds.decide(conn, "repairshopr", "repair", "oncall")
    holds.mark_hold(conn, "scan", "verify is worse than scan")
    (hold,) = holds.open_holds(conn, "repairshopr")
    assert hold.reasons[0] == "far too many"
    assert hold.reasons[1].startswith("repair decided by oncall at 20")
    assert hold.reasons[2] == "verify is worse than scan"


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


def test_refresh_sets_and_clears_the_reason_of_a_stopped_writer(conn):
    assert holds.refresh_hold(conn, "repairshopr") is None
    judged(conn, "a", HELD)
    judged(conn, "b", HELD, entity="invoices")
    reason = "invoices (all): far too many; line_items (all): far too many"
    assert holds.refresh_hold(conn, "repairshopr") == reason
    assert writer(conn) == ("stopped", reason)
    judged(conn, "c")
    judged(conn, "d", entity="invoices")
    assert holds.refresh_hold(conn, "repairshopr") is None
    assert writer(conn) == ("stopped", None)


def test_refresh_of_a_running_writer_has_nothing_to_do_without_a_hold(conn):
    conn.execute("UPDATE confidence.writer SET state = 'running'")
    assert holds.refresh_hold(conn, "repairshopr") is None


def test_refresh_refuses_a_hold_on_a_running_writer(conn):
    conn.execute("UPDATE confidence.writer SET state = 'running'")
    judged(conn, "scan", HELD)
    with pytest.raises(FenceError, match=r"running while a hold is open .*far too many.*clear stop_writer"):
        holds.refresh_hold(conn, "repairshopr")
    assert writer(conn) == ("running", None)


@pytest.mark.parametrize(("decision", "open_after"), [("keep", ["scan"]), ("resume", []), ("repair", [])])
def test_a_decision_is_written_with_who_and_when(conn, decision, open_after):
    judged(conn, "scan", HELD)
    holds.refresh_hold(conn, "repairshopr")
    assert [hold.scan_id for hold in holds.decide(conn, "repairshopr", decision, "oncall")] == ["scan"]
    (row,) = rows(conn)
    assert (row["decision"], row["decided_by"]) == (decision, "oncall")
    assert row["decided_at"] > row["scanned_at"]
    assert [hold.scan_id for hold in holds.open_holds(conn, "repairshopr")] == open_after
    assert (writer(conn)[1] is not None) == bool(open_after)


def test_a_decision_is_about_all_open_holds_of_its_source_and_no_others(conn):
    judged(conn, "ended", HELD)
    judged(conn, "line_items", HELD)
    judged(conn, "invoices", HELD, entity="invoices")
    judged(conn, "square", HELD, source="square")
    decided = holds.decide(conn, "repairshopr", "resume", "oncall")
    assert [hold.scan_id for hold in decided] == ["invoices", "line_items"]
    assert {row["scan_id"]: row["decision"] for row in rows(conn)} == {
        "ended": None,
        "line_items": "resume",
        "invoices": "resume",
        "square": None,
    }


def test_keep_can_be_answered_anew(conn):
    judged(conn, "scan", HELD)
    holds.decide(conn, "repairshopr", "keep", "oncall")
    holds.decide(conn, "repairshopr", "repair", "somebody else")
    assert (rows(conn)[0]["decision"], rows(conn)[0]["decided_by"]) == ("repair", "somebody else")


def test_a_decision_without_an_open_hold_changes_nothing(conn):
    judged(conn, "scan")
    assert holds.decide(conn, "repairshopr", "resume", "oncall") == []
    assert rows(conn)[0]["decision"] is None


def test_an_unknown_decision_is_refused(conn):
    judged(conn, "scan", HELD)
    with pytest.raises(ValueError, match="'maybe' is not a valid Decision"):
        holds.decide(conn, "repairshopr", "maybe", "oncall")


def test_the_caller_owns_the_transaction(migrated_url, conn):
    judged(conn, "scan", HELD)
    holds.mark_hold(conn, "scan", "why")
    holds.decide(conn, "repairshopr", "keep", "oncall")
    with psycopg.connect(migrated_url) as other:
        assert rows(other) == []


def test_the_callers_row_factory_does_not_matter(conn):
    conn.row_factory = dict_row
    judged(conn, "scan", HELD, value=400)
    assert judgements.past_runs(conn, summary(scan_id="now")) == [
        PastRun("scan", past(400).metrics, Verdict.HOLD, (METRIC,), accepted=False, held=True)
    ]
    assert holds.refresh_hold(conn, "repairshopr") == "line_items (all): far too many"


TONIGHT = {"run": "tonight", "epoch": 1}


class TestRepairing:
    """The writer is stopped by the run `tonight` with epoch 1, and both entities were scanned behind that stop."""

    entities = ("line_items", "invoices")

    @pytest.fixture
    def scans(self, conn) -> list[ForensicSummary]:
        scans = [summary(scan_id=f"scan of {entity}", entity=entity, **TONIGHT) for entity in self.entities]
        for scanned in scans:
            scan_log.record(conn, scanned)
        return scans

    def repair(self, conn, scans) -> None:
        with repair_lock.repairing(conn, fence.read(conn, "repairshopr"), self.entities, scans):
            pass

    def refusal(self, conn, scans) -> str:
        with pytest.raises(NotJudged) as refused:
            self.repair(conn, scans)
        message = str(refused.value)
        assert message.startswith("nothing was written: ")
        assert message.endswith("Clear scan (all of its map indexes) with downstream")
        return message

    @pytest.mark.parametrize("verdict", [PASSED, WARNED])
    def test_by_scans_that_passed_the_gate(self, conn, scans, verdict):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, verdict)
        self.repair(conn, scans)

    def test_by_a_persons_decision_to_repair_only(self, conn, scans):
        judgements.save_judgement(conn, scans[0], PASSED)
        judgements.save_judgement(conn, scans[1], HELD)
        assert "invoices is held, and nobody has decided" in self.refusal(conn, scans)
        holds.decide(conn, "repairshopr", "keep", "oncall")
        assert "invoices is held" in self.refusal(conn, scans)
        holds.decide(conn, "repairshopr", "repair", "oncall")
        self.repair(conn, scans)
        holds.mark_hold(conn, scans[1].scan_id, "verify is worse than scan")
        assert "invoices is held" in self.refusal(conn, scans)

    def test_a_decision_to_resume_repairs_nothing(self, conn, scans):
        judgements.save_judgement(conn, scans[0], PASSED)
        judgements.save_judgement(conn, scans[1], HELD)
        holds.decide(conn, "repairshopr", "resume", "oncall")
        assert "invoices is held" in self.refusal(conn, scans)

    def test_a_scan_that_nobody_judged_repairs_nothing(self, conn, scans):
        judgements.save_judgement(conn, scans[0], PASSED)
        message = self.refusal(conn, scans)
        assert "invoices was not judged: gate_check did not get to its end" in message
        assert "line_items" not in message

    def test_every_entity_has_to_be_scanned(self, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        assert "invoices was not scanned" in self.refusal(conn, scans[:1])
        assert "invoices was not scanned; line_items was not scanned" in self.refusal(conn, [])

    @pytest.mark.parametrize("other", [{"run": "last night"}, {"epoch": 2}])
    def test_a_scan_from_before_this_stop_repairs_nothing(self, conn, scans, other):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        elsewhere = replace(scans[0], **other)
        assert "line_items was scanned before this stop" in self.refusal(conn, [elsewhere, scans[1]])

    def test_an_incomplete_scan_repairs_nothing(self, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        unsure = replace(scans[0], incomplete="3 pages stayed unread")
        assert "line_items has no evidence (3 pages stayed unread)" in self.refusal(conn, [unsure, scans[1]])

    def test_a_verdict_is_of_the_evidence_that_was_judged(self, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        again = summary(scan_id=scans[0].scan_id, **TONIGHT)
        scan_log.record(conn, again)
        assert "line_items was scanned anew" in self.refusal(conn, scans)
        assert "line_items was not judged" in self.refusal(conn, [again, scans[1]])
        judgements.save_judgement(conn, again, PASSED)
        self.repair(conn, [again, scans[1]])

    def test_a_scan_that_has_begun_again_makes_what_it_found_void(self, conn, scans):
        """Its plan may be overwritten by half, whether the attempt comes to its end or not."""
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        with pytest.raises(RuntimeError), repair_lock.scanning(conn, "repairshopr", "tonight", "invoices", 1):
            raise RuntimeError("cut off")
        assert "invoices was scanned anew" in self.refusal(conn, scans)
        with pytest.raises(PlanGone, match="invoices was scanned anew"):
            judgements.save_judgement(conn, scans[1], PASSED)

    def test_other_scans_are_left_alone_by_one_that_begins(self, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        for source, run, entity, epoch in [
            ("square", "tonight", "invoices", 1),
            ("repairshopr", "last night", "invoices", 1),
            ("repairshopr", "tonight", "payments", 1),
            ("repairshopr", "tonight", "invoices", 2),
        ]:
            with repair_lock.scanning(conn, source, run, entity, epoch):
                pass
        self.repair(conn, scans)

    def test_excludes_scans_and_repairs_of_its_source(self, migrated_url, conn, scans):
        for scanned in scans:
            judgements.save_judgement(conn, scanned, PASSED)
        writer = fence.read(conn, "repairshopr")
        with psycopg.connect(migrated_url) as other:

            def scan(source: str = "repairshopr", of: psycopg.Connection = other) -> AbstractContextManager[None]:
                return repair_lock.scanning(of, source, "tonight", "payments", 1)

            with repair_lock.repairing(conn, writer, self.entities, scans):
                with pytest.raises(ScanUnderWay, match="scan or repair of repairshopr is still at work"), scan():
                    pass
                with scan("square"):
                    pass
            with scan(), scan(of=conn), pytest.raises(ScanUnderWay):
                self.repair(conn, scans)
            self.repair(conn, scans)

    def test_a_judgement_of_figures_that_were_replaced_meanwhile_is_refused(self, conn, scans):
        scan_log.record(conn, summary(scan_id=scans[0].scan_id, **TONIGHT))
        with pytest.raises(PlanGone, match="line_items was scanned anew"):
            judgements.save_judgement(conn, scans[0], PASSED)
        assert [row["verdict"] for row in rows(conn)] == [None, None]


class TestAsked:
    def held(self, conn) -> ForensicSummary:
        return judged(conn, "scan", HELD, **TONIGHT)

    def ask(self, conn) -> None:
        holds.note_asked(conn, holds.open_holds(conn, "repairshopr"))

    def refused(self, conn, entity="line_items") -> None:
        with pytest.raises(HoldChanged, match=rf"{entity} \(all\) was scanned or held since.*Clear decide"):
            holds.require_asked(conn, "repairshopr")

    def test_an_answer_needs_a_question(self, conn):
        holds.require_asked(conn, "repairshopr")
        self.held(conn)
        self.refused(conn)
        self.ask(conn)
        holds.require_asked(conn, "repairshopr")

    def test_a_hold_that_came_since_was_not_asked_about(self, conn):
        self.held(conn)
        self.ask(conn)
        judged(conn, "other", HELD, entity="invoices")
        self.refused(conn, "invoices")

    def test_another_reason_was_not_asked_about(self, conn):
        self.held(conn)
        self.ask(conn)
        holds.mark_hold(conn, "scan", "verify is worse than scan")
        self.refused(conn)

    def test_newer_evidence_was_not_asked_about(self, conn):
        self.held(conn)
        self.ask(conn)
        with repair_lock.scanning(conn, "repairshopr", "tonight", "line_items", 1):
            self.refused(conn)
        scan_log.record(conn, summary(scan_id="scan", **TONIGHT))
        self.refused(conn)
