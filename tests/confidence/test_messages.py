"""What people are told of: each row of the case table, and the alerts beside it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.errors import LockNotAvailable, UniqueViolation

from include.confidence.failure import Failure
from include.confidence.health import Alert
from include.confidence.holds import Decision
from include.confidence.messages import (
    MAX_LINES,
    Event,
    Kind,
    RunFacts,
    of_alerts,
    of_fields,
    of_finding,
    of_hold,
    of_long_stop,
    of_lost_report,
    of_lost_watch,
    of_run,
    of_sync,
)
from include.confidence.outcome import Gap
from include.confidence.watch import Code, Finding
from include.warehouse.fence import DrainTimeout, FenceError, Writer

LINK = "http://airflow/dags/shop_reconcile/runs/night"
RUN = "shop_reconcile/night"
SINCE = datetime(2026, 3, 1, 3, tzinfo=UTC)
RUNS = Writer("shop", "running", 7, RUN, SINCE, None)
STANDS = replace(RUNS, state="stopped")
HELD = replace(STANDS, hold_reason="lines (all): missing is 40, above its limit 25")
REASON = "lines (all): missing is 40, above its limit 25 (baseline 0): worse once"
STEPS = ["stop_writer", "scan", "gate_check", "decide", "reconcile", "verify", "resume_writer"]


def told(writer: Writer = RUNS, error: str = "SomeError", **facts: Any) -> Event | None:
    """What is told of a run with these facts; one that failed did so with `error`."""
    if facts.get("failed"):
        facts = {"failures": (Failure(error, "what went wrong"),), "next_step": "clear it with downstream"} | facts
    return of_run(RunFacts("shop", RUN, LINK, writer, **facts))


@pytest.mark.parametrize(
    "facts",
    [
        {"verdict": None},
        {"verdict": "pass"},
        {"verdict": "pass", "planned": 3},
        {"verdict": "pass", "planned": 3, "sync_id": 5},
        # A hold was told when it was put to people.
        {"verdict": "hold", "decision": Decision.RESUME},
        {"verdict": "hold", "decision": Decision.REPAIR, "planned": 3, "sync_id": 5},
        {"verdict": "hold", "decision": Decision.KEEP, "failed": "resume_writer", "writer": HELD},
        {"failed": "stop_writer", "error": "ConfRefused"},
    ],
)
def test_what_nobody_needs_to_know_is_not_told(facts):
    assert told(**facts) is None


@pytest.mark.parametrize(
    ("facts", "consequence"),
    [
        ({"planned": 0}, "there was nothing to repair; the writer runs"),
        ({"planned": 40}, "40 planned changes were not applied (dry run); the writer runs"),
        (
            {"planned": 40, "sync_id": 5},
            "40 planned changes were applied under sync_id 5 and verified; the writer runs",
        ),
    ],
)
def test_warning_names_metric_figures_and_what_became_of_the_plan(facts, consequence):
    event = told(verdict="warn", reasons=(REASON,), **facts)
    assert (event.kind, event.key) == (Kind.WARN, f"warn/{RUN}")
    assert event.title == "shop: more drift than in the runs before"
    what, then, next_step, run, link = event.text.split("\n")
    assert what == REASON
    assert then == f"Consequence: {consequence}."
    assert next_step.startswith("Next: look for what changed")
    assert (run, link) == (f"Run: {RUN}", LINK)
    assert not event.kind.serious


@pytest.mark.parametrize(
    ("kind", "failed", "writer", "more", "consequence"),
    [
        (Kind.SCAN, "scan", RUNS, {}, "no evidence, so nothing was judged or written; the writer runs."),
        (Kind.SCAN, "scan", HELD, {}, "nothing was judged or written; the writer stays stopped until a decision."),
        (Kind.REPAIR, "reconcile", RUNS, {}, "nothing was applied, or only what its log names; the writer runs."),
        (Kind.REPAIR, "reconcile", HELD, {"error": "FenceError"}, "the writer stays stopped until a decision."),
        (Kind.REPAIR_UNKNOWN, "reconcile", HELD, {}, "may or may not have happened; the writer stays stopped until"),
        (Kind.DRAIN, "stop_writer", RUNS, {"error": "DrainTimeout"}, "nothing was scanned or written; the writer runs"),
        (Kind.FAILED, "stop_writer", RUNS, {}, "the run did not get to its end; the writer runs."),
        (Kind.FAILED, "gate_check", RUNS, {}, "the run did not get to its end; the writer runs."),
        (Kind.FAILED, "decide", HELD, {}, "the writer stays stopped until a decision."),
        (Kind.FAILED, "verify", RUNS, {"sync_id": 5}, "the run did not get to its end; the writer runs."),
        (
            Kind.WORSE,
            "verify",
            HELD,
            {"sync_id": 5},
            "applied under sync_id 5, which can be rolled back; the writer st",
        ),
        (Kind.NOT_RESUMED, "resume_writer", STANDS, {}, "the steps before were done; the writer stays stopped."),
        (
            Kind.UNANSWERED,
            "resume_writer",
            HELD,
            {"decision": Decision.KEEP, "answered": False},
            "nothing was repaired; the writer stays stopped until a decision.",
        ),
    ],
)
def test_every_way_to_fail_is_told_with_its_consequence(kind, failed, writer, more, consequence):
    event = told(writer, failed=failed, **more)
    assert event.kind is kind
    assert event.kind.serious
    lines = event.text.split("\n")
    assert lines[0] == "what went wrong"
    assert lines[1].startswith("Consequence: ")
    assert consequence in lines[1]
    assert lines[2:] == ["Next: clear it with downstream.", f"Run: {RUN}", LINK]


@given(
    st.sampled_from([None, *STEPS]),
    st.sampled_from([RUNS, STANDS, HELD]),
    st.sampled_from(["SomeError", "DrainTimeout", "FenceError"]),
    st.sampled_from([None, *Decision]),
    st.integers(0, 12),
)
def test_no_failure_goes_untold_but_one_that_a_person_wanted(failed, writer, error, decision, parts):
    failures = tuple(Failure(error, f"part {n}") for n in range(parts))
    event = told(writer, failed=failed, failures=failures, decision=decision)
    wanted = failed == "resume_writer" and decision == Decision.KEEP
    assert (event is None) == (failed is None or wanted)
    if event:
        assert event.title.startswith("shop: ")
        assert event.key.startswith(f"{event.kind}/{RUN}")
        # The same run in the same way once more is the same event.
        assert told(writer, failed=failed, failures=failures, decision=decision).key == event.key
        assert len(event.text.split("\n")) <= MAX_LINES + 1 + 4
        assert ("and 7 more" in event.text) == (parts == 12)


def test_warning_says_what_was_proven_and_what_not():
    facts = {"verdict": "warn", "reasons": (REASON,), "rows": 1000}
    assert told(**facts, proven=1000).text.split("\n")[1] == "1000 of 1000 rows proven"
    few = told(**facts, proven=998, unproven=("lines 7 (3 nights): HTTP 500", "lines 9 (1 night): HTTP 500"))
    assert few.text.split("\n")[:2] == [
        REASON,
        "998 of 1000 rows proven; not proven: lines 7 (3 nights): HTTP 500; lines 9 (1 night): HTTP 500",
    ]
    many = told(**facts, proven=980, unproven=tuple(f"lines {n}" for n in range(20)))
    assert many.text.split("\n")[1].endswith("not proven: lines 0; lines 1; lines 2; lines 3; lines 4; and 15 more")
    assert "rows proven" not in told(verdict="warn", reasons=(REASON,)).text


@pytest.mark.parametrize("writer", [RUNS, STANDS, HELD])
def test_run_whose_tasks_only_look_done_is_told_as_that(writer):
    gap = Gap(
        "verify", "the repair (sync_id 5) was never verified", "whether the copy is right is not known", "clear scan"
    )
    event = told(writer, gap=gap, verdict="warn")
    assert (event.kind, event.key) == (Kind.NOT_DONE, f"not_done/{RUN}/verify")
    assert event.kind.serious
    assert event.title == "shop: verify was not done, although no task failed"
    what, then, next_step, *_ = event.text.split("\n")
    assert what == gap.what
    assert then.startswith("Consequence: whether the copy is right is not known; the writer ")
    assert next_step == "Next: clear scan."


def test_finding_of_the_watch_is_told_by_what_it_is():
    finding = Finding(Code.UNATTENDED, "shop", "x/7", RUN, "the writer stands", "nothing is synced", "clear it")
    event = of_finding(finding, RUN, LINK)
    assert (event.kind, event.key, event.source) == (Kind.WATCH, "watch/shop/writer_unattended/x/7", "shop")
    assert event.title == "shop: the writer is stopped, and nobody is at work on it"
    assert event.text.split("\n") == [
        "the writer stands",
        "Consequence: nothing is synced.",
        "Next: clear it.",
        f"Run: {RUN}",
        LINK,
    ]
    assert of_finding(replace(finding, subject="x/8"), RUN, LINK).key != event.key


def test_watch_that_has_failed_is_one_event():
    first = of_lost_watch("confidence_watch/1", Failure("ApiError", "Airflow's API is down"), LINK)
    again = of_lost_watch("confidence_watch/2", Failure("FenceError", "no row"), LINK)
    assert first.key == again.key
    assert first.kind.serious
    assert first.text.startswith("Airflow's API is down\nConsequence: ")


def test_another_repair_that_made_it_worse_is_another_event():
    assert told(HELD, failed="verify", sync_id=5).key != told(HELD, failed="verify", sync_id=6).key


def test_one_cause_of_several_entities_is_one_line():
    expired = [Failure("FixConfiguration", "the token has expired", name) for name in ("customers", "invoices")]
    other = Failure("TryLater", "page 3 could not be read", "tickets")
    lines = told(failed="scan", failures=(*expired, other)).text.split("\n")
    assert lines[:2] == ["customers, invoices: the token has expired", "tickets: page 3 could not be read"]


def test_step_that_left_no_reason_is_named():
    assert told(failed="scan", failures=()).text.startswith("scan did not run to its end\n")


def test_hold_says_the_whole_question_and_where_to_answer():
    event = of_hold(HELD, ["Nothing is synced.", "lines", "- 40 rows are missing."], RUN, f"{LINK}/tasks/decide")
    assert (event.kind, event.key) == (Kind.HOLD, f"hold/{RUN}/7")
    lines = event.text.split("\n")
    assert lines[:3] == ["Nothing is synced.", "lines", "- 40 rows are missing."]
    assert lines[-1] == f"{LINK}/tasks/decide"
    assert of_hold(replace(HELD, epoch=8), [], RUN, LINK).key != event.key


def test_changed_fields_are_one_message():
    assert of_fields("shop", RUN, [], LINK) is None
    event = of_fields("shop", RUN, [f"orders: f{n} is new (text)" for n in range(7)], LINK)
    assert (event.kind, event.key, event.kind.serious) == (Kind.FIELDS, f"fields/{RUN}", False)
    assert event.text.startswith("orders: f0 is new (text)\n")
    assert "and 2 more" in event.text
    assert event.text.endswith(LINK)


def test_report_that_could_not_be_made_is_told():
    event = of_lost_report("shop", RUN, Failure("OperationalError"), LINK)
    assert (event.kind, event.key) == (Kind.NO_REPORT, f"no_report/{RUN}")
    assert event.text.startswith(
        "OperationalError (more in the task's log)\nConsequence: whether the writer runs is not"
    )


class TestFailure:
    def test_own_errors_say_what_happened_and_others_may_quote_rows(self):
        own, other = DrainTimeout("2 tasks were still at work"), UniqueViolation("Key (email)=(ada@example.com) exists")
        assert str(Failure.of(own)) == "2 tasks were still at work"
        assert str(Failure.of(own, "lines")) == "lines: 2 tasks were still at work"
        assert str(Failure.of(other)) == "UniqueViolation (more in the task's log)"

    def test_database_that_refuses_says_what_to_do_and_quotes_nothing(self, conn):
        with conn.transaction(), psycopg.connect(conn.info.dsn, password=conn.info.password) as other:
            conn.execute("SELECT 1 FROM confidence.writer WHERE source = 'square' FOR UPDATE")
            other.execute("SET lock_timeout = 1")
            with pytest.raises(LockNotAvailable) as refused:
                other.execute("SELECT 'secret' FROM confidence.writer WHERE source = 'square' FOR UPDATE")
        told = str(Failure.of(refused.value))
        assert told.startswith("the database refused: a row or table stayed locked for too long: find the session")
        assert "secret" not in told

    @pytest.mark.parametrize("nothing", [None, "terminated by SIGKILL"])
    def test_without_an_exception_the_process_was_lost(self, nothing):
        assert str(Failure.of(nothing)) == "its process was lost (more in the task's log)"

    def test_travels_as_json(self):
        failure = Failure.of(FenceError("stopped"), "lines")
        assert Failure(**vars(failure)) == failure


class TestSync:
    def test_same_error_is_one_event_in_whichever_run(self):
        first = of_sync("shop", "shop_sync/1", Failure("TryLater", "run again later"), LINK)
        assert (first.kind, first.key) == (Kind.SYNC, "sync/shop/TryLater")
        assert first.text.startswith("run again later\nConsequence: what could not be synced keeps its watermark")
        assert of_sync("shop", "shop_sync/2", Failure("TryLater"), LINK).key == first.key
        assert of_sync("shop", "shop_sync/2", Failure("FixConfiguration"), LINK).key != first.key

    def test_refused_conf_is_not_told(self):
        assert of_sync("shop", "shop_sync/1", Failure("ConfRefused", "unknown: moed"), LINK) is None


def test_alerts_are_one_event_a_rule():
    stale = [Alert("freshness", f"shop.t{n}", 9.0, 1.0, f"shop.t{n} is behind") for n in range(8)]
    slow = Alert("duration", "shop", 9.0, 1.0, "the last sync took 9 s")
    events = of_alerts("shop", RUN, [*stale[:4], slow, *stale[4:]], LINK)
    assert [(event.kind, event.key) for event in events] == [
        (Kind.HEALTH, "health/shop/duration"),
        (Kind.HEALTH, "health/shop/freshness"),
    ]
    assert "the last sync took 9 s" in events[0].text
    assert events[1].text.split("\n")[:6] == [*(alert.line for alert in stale[:5]), "and 3 more"]
    assert of_alerts("shop", RUN, [], LINK) == []


def test_proof_that_is_too_old_leaves_drift_unknown():
    old = Alert("proof_age", "shop.tickets", 9.0, 1.0, "the newest proof of shop.tickets is 8 days old")
    [event] = of_alerts("shop", RUN, [old], LINK)
    assert event.title == "shop: proof age above its limit"
    assert "nobody knows what has drifted since these proofs" in event.text


class TestLongStop:
    LIMIT = timedelta(hours=4)

    def test_told_only_where_the_writer_really_stands_for_longer(self):
        assert of_long_stop(STANDS, SINCE + self.LIMIT, self.LIMIT, RUN, LINK) is None
        assert of_long_stop(RUNS, SINCE + 2 * self.LIMIT, self.LIMIT, RUN, LINK) is None
        event = of_long_stop(STANDS, SINCE + timedelta(hours=4.25), self.LIMIT, RUN, LINK)
        assert (event.kind, event.key) == (Kind.STOPPED_LONG, "stopped_long/shop/7")
        assert event.title == "shop: the writer has been stopped for 4.25 hours"
        assert f"stopped by {RUN} since 2026-03-01 03:00 UTC; the limit is 4 hours" in event.text
        assert "clear its resume_writer" in event.text

    def test_held_one_asks_for_the_decision(self):
        event = of_long_stop(HELD, SINCE + 2 * self.LIMIT, self.LIMIT, RUN, LINK)
        assert "missing is 40" in event.text
        assert "Next: answer the question on the page of" in event.text

    def test_is_one_event_for_each_stop_whoever_finds_it(self):
        late = SINCE + 2 * self.LIMIT
        one, other = (of_long_stop(STANDS, late, self.LIMIT, run, LINK) for run in (RUN, "shop_sync/1"))
        assert one.key == other.key
        again = replace(STANDS, epoch=8)
        assert of_long_stop(again, late, self.LIMIT, RUN, LINK).key != one.key
