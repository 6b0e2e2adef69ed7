"""Holds and decisions in the warehouse, statement by statement."""

import re

import psycopg
import pytest
from psycopg.rows import dict_row

from include.confidence import holds, judgements, repair_lock, scan_log
from include.confidence.holds import HoldChanged
from include.confidence.policy import Judgement, PastRun, Verdict
from include.confidence.summary import ForensicSummary
from include.warehouse.fence import FenceError
from tests.confidence.builders import HELD, METRIC, judged, past, rows, summary


def writer(conn) -> tuple:
    query = "SELECT state, hold_reason FROM confidence.writer WHERE source = 'repairshopr'"
    return conn.execute(query).fetchone()


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
    holds.note_asked(conn, holds.open_holds(conn, "repairshopr"))
    holds.decide(conn, "repairshopr", "repair", "oncall", reason="the shop moved: 100 %")
    holds.mark_hold(conn, "scan", "verify is worse than scan")
    (hold,) = holds.open_holds(conn, "repairshopr")
    time = r"20\d\d-\d\d-\d\d \d\d:\d\d UTC"
    assert hold.reasons[0] == "far too many"
    assert re.fullmatch(
        rf"repair decided by oncall at {time} \(asked at {time}\), reason given: the shop moved: 100 %", hold.reasons[1]
    )
    assert hold.reasons[2] == "verify is worse than scan"


def test_mark_hold_says_nothing_of_a_reason_that_was_not_given(conn):
    judged(conn, "scan", HELD)
    holds.decide(conn, "repairshopr", "repair", "oncall")
    holds.mark_hold(conn, "scan", "verify is worse than scan")
    (hold,) = holds.open_holds(conn, "repairshopr")
    assert re.fullmatch(r"repair decided by oncall at [-\d]+ [:\d]+ UTC", hold.reasons[1])


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
        PastRun(
            "scan",
            past(400).metrics,
            Verdict.HOLD,
            (METRIC,),
            accepted=False,
            held=True,
            examples={"missing_examples": [7, 8]},
        )
    ]
    assert holds.refresh_hold(conn, "repairshopr") == "line_items (all): far too many"


TONIGHT = {"run": "tonight", "epoch": 1}


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
