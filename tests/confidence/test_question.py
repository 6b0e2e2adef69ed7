"""The question about a hold: every figure that can hold is a sentence, and a long question is shortened."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from include.confidence import holds, question, question_text, questions, scan_log
from include.confidence.policy import Gate, Judgement, Verdict
from include.confidence.sides import Sides
from include.warehouse import fence, sync_log
from include.warehouse.patterns import Pattern
from tests.confidence.builders import METRIC, judged, summary

SOURCE = "repairshopr"
RUN = "repairshopr_reconcile/1"
SIDES = Sides("in the shop", "in our books", "it sells on", "Don't repair if it is wrong.")
TEXTS = {METRIC: "Rows that the copy lacks."}
FAR = Gate(METRIC, None, 25.0, 40, Verdict.HOLD, "far too many")


def asked(conn, *gates: Gate, **figures) -> question.Question:
    """The question about a scan of these gates that holds."""
    reasons = tuple(gate.reason for gate in gates if gate.reason)
    judgement = Judgement(Verdict.HOLD, tuple(gate.metric for gate in gates), reasons, gates)
    judged(conn, "scan", judgement, run=RUN, **figures)
    fence.stop(conn, SOURCE, RUN, 1)
    return ask(conn)


def ask(conn) -> question.Question:
    """The question about what holds now."""
    return question.read(
        conn,
        fence.read(conn, SOURCE),
        holds.open_holds(conn, SOURCE),
        texts=TEXTS,
        sides=SIDES,
        plan_link=lambda evidence: f"http://a/{evidence}",
        until=datetime(2026, 3, 1, 23, 0, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("gate", "sentence", "more"),
    [
        (
            Gate(METRIC, 1200000.0, 1500000.0, 2000000, Verdict.HOLD, f"{METRIC} is 2000000: worse in two runs"),
            f"**2,000,000** rows that the copy lacks (`{METRIC}`; up to 1,500,000 would pass, 1,200,000 is usual).",
            "Worse in two runs.",
        ),
        (
            Gate("growth.x", None, None, 7, Verdict.HOLD, "it has risen for weeks"),
            "**7** rows by which the level of x has risen above its lowest level of six weeks (`growth.x`).",
            "It has risen for weeks.",
        ),
        (
            # The figures are whole.
            Gate("unknown_figure", None, 92.6, 100, Verdict.HOLD),
            "**100** is the figure (`unknown_figure`; up to 92 would pass).",
            "",
        ),
        (
            Gate(METRIC, None, 0.0, 1, Verdict.WARN),
            f"**1** is the number of rows that the copy lacks (`{METRIC}`; up to 0 would pass).",
            "",
        ),
        # A reason that has the figure in words is told alone.
        (
            Gate("lost", 0.0, 0.0, 2, Verdict.HOLD, "2 of 19 fields are in no record (lost): a.b, a.c"),
            "2 of 19 fields are in no record (lost): a.b, a.c.",
            "",
        ),
        # Nobody has measured what was held before.
        (
            Gate(METRIC, 1.0, None, None, Verdict.HOLD, f"{METRIC} was not measured"),
            f"`{METRIC}`: {METRIC} was not measured.",
            "",
        ),
    ],
)
def test_each_figure_that_holds_is_a_sentence(conn, gate, sentence, more):
    found = asked(conn, gate)
    assert found.held[0].sentences == (f"{sentence} {more}".strip(),)
    assert f"- {sentence}" in question_text.markdown(found)


def test_says_what_a_repair_would_write_with_a_link_to_the_plan(conn):
    gate = FAR
    found = asked(conn, gate, plan=(40, 2, 1), evidence="e1")
    line = "- [line_items](http://a/e1): 40 rows to insert, 2 to update, 1 to delete; 1,000 live rows were looked at."
    assert line in question_text.markdown(found)
    assert line.replace("[line_items](http://a/e1)", "line_items (http://a/e1)") in question_text.plain(found)
    assert "the 43 changes above are made" in question_text.markdown(found)
    # To leave out the only one is to resume without repair.
    assert "leave out" not in question_text.markdown(found)
    text = question_text.markdown(replace(found, plans=found.plans * 2))
    assert "without those of entities that you leave out" in text
    assert "You may leave out entities: these stay as with *Resume without repair*." in text
    assert "to keep it stopped for one, choose *Keep stopped*" in text


def test_says_what_the_source_calls_its_copy_and_what_an_answer_does_there(conn):
    text = question_text.markdown(asked(conn, FAR, plan=(40, 2, 1)))
    assert "### What a repair would write in the shop\n" in text
    assert "The writer runs again: it sells on.\n" in text
    assert "the writer runs again. Don't repair if it is wrong. The repair" in text


def test_one_change_is_one(conn):
    assert "**Repair, then resume**: the change above is made" in question_text.markdown(
        asked(conn, FAR, plan=(0, 1, 0))
    )


def test_a_repair_without_a_planned_change_writes_nothing(conn):
    assert "**Repair, then resume**: no change is planned, so nothing" in question_text.markdown(
        asked(conn, FAR, plan=(0, 0, 0))
    )


def test_what_went_wrong_with_a_repair_is_told_beside_the_figures(conn):
    asked(conn, FAR)
    holds.mark_hold(conn, "scan", "verify found 300 more, roll back sync_id 7")
    [held] = ask(conn).held
    assert held.sentences[0].endswith(" Far too many.")
    assert held.sentences[1:] == ("Verify found 300 more, roll back sync_id 7.",)


@pytest.mark.parametrize(
    ("scope", "title"), [("all", "### line_items\n"), ("pages 1-2", "### line_items (pages 1-2)\n")]
)
def test_a_scope_is_named_unless_it_is_the_whole(conn, scope, title):
    assert title in question_text.markdown(asked(conn, FAR, scope=scope))


@pytest.mark.parametrize("patterns", [0, 2, 5])
def test_the_three_most_telling_patterns_are_told(conn, patterns):
    asked(conn, FAR)
    found = [Pattern("line_items", "insert", "page", "_page", f"{page}", 38, 40) for page in range(1, patterns + 1)]
    scan_log.keep_patterns(conn, "scan", found)
    lines = [line for line in question_text.markdown(ask(conn)).splitlines() if "What stands out" in line]
    assert lines == [f"- What stands out: {pattern}." for pattern in found[:3]]


@pytest.mark.parametrize(("planned", "told"), [(9, False), (10, True)])
def test_many_rows_without_anything_in_common_are_said_to_have_nothing(conn, planned, told):
    assert ("Nothing stands out" in question_text.markdown(asked(conn, FAR, plan=(0, planned, 0)))) == told
    scan_log.keep_patterns(conn, "scan", [Pattern("line_items", "insert", "page", "_page", "1", 38, 40)])
    assert "Nothing stands out" not in question_text.markdown(ask(conn))


@pytest.mark.parametrize(
    ("behind", "words"),
    [
        (None, None),
        (timedelta(seconds=59), None),
        (timedelta(minutes=1), "1 min"),
        (timedelta(minutes=59), "59 min"),
        (timedelta(hours=1), "1 h 0 min"),
        (timedelta(hours=23, minutes=59), "23 h 59 min"),
        (timedelta(days=1), "1 d 0 h"),
        (timedelta(days=2, hours=3, minutes=30), "2 d 3 h"),
    ],
)
def test_says_how_far_the_copy_is_behind(conn, behind, words):
    first = question_text.markdown(replace(asked(conn, FAR), behind=behind)).splitlines()[0]
    assert ("behind" in first) == (words is not None)
    assert f" When this was asked, the copy was {words} behind its source." in first or not words


def test_the_copy_is_behind_as_far_as_its_stalest_table(conn):
    for source, entity, hours in ((SOURCE, "customers", 5), (SOURCE, "invoices", 9), ("square", "orders", 20)):
        sync_id = sync_log.begin(conn, source, "sync", "a run")
        sync_log.advance(conn, sync_id, source, entity, watermark=datetime.now(UTC) - timedelta(hours=hours))
        sync_log.finish(conn, sync_id, {})
    assert asked(conn, FAR).behind == pytest.approx(timedelta(hours=9), abs=timedelta(minutes=1))


@pytest.mark.parametrize(("lines", "left"), [(40, 0), (41, 1), (60, 20)])
def test_message_has_forty_lines_and_says_how_many_are_left(conn, lines, left):
    found = asked(conn, FAR)
    more = ("Another sentence.",) * (lines - len(question_text.plain(found)))
    [held] = found.held
    told = question_text.plain(replace(found, held=(replace(held, sentences=held.sentences + more),)))
    assert len(told) == 40 + (left > 0)
    assert (told[-1] == f"and {left} more lines, under the link") == (left > 0)


def test_message_is_shortened_and_the_page_is_not(conn):
    found = asked(conn, FAR)
    long = replace(found, held=found.held * 30)
    assert len(question_text.plain(long)) == 41
    assert question_text.plain(long)[-1].endswith("more lines, under the link")
    assert question_text.markdown(long).count("### line_items") == 30


def test_says_until_when_it_waits(conn):
    assert "Unanswered until 2026-03-01 23:00 UTC, the writer stays" in question_text.markdown(asked(conn, FAR))


def test_says_since_when_it_has_been_so(conn):
    bad = Judgement(Verdict.WARN, (METRIC,), ("too many",), ())
    good = Judgement(Verdict.PASS, (), (), ())
    judged(conn, "good before", good, run="good before")
    judged(conn, "long ago", bad, run="long ago")
    judged(conn, "good", good, run="good")
    conn.execute("UPDATE confidence.forensic_run SET scanned_at = scanned_at - interval '1 day'")
    judged(conn, "worse", bad, run="worse")
    judged(conn, "once more in that run", bad, run="worse")
    # What was good of something else, or not judged, ends nothing.
    judged(conn, "other source", good, run="a", source="square")
    judged(conn, "other entity", good, run="b", entity="invoices")
    judged(conn, "other scope", good, run="c", scope="pages 1-2")
    scan_log.record(conn, summary(scan_id="not judged", run="d"))
    found = asked(conn, FAR)
    (first,) = conn.execute("SELECT scanned_at FROM confidence.forensic_run WHERE scan_id = 'worse'").fetchone()
    assert (found.held[0].since, found.held[0].runs) == (first, 2)
    (good,) = conn.execute("SELECT scanned_at FROM confidence.forensic_run WHERE scan_id = 'good'").fetchone()
    times = f"{first:%Y-%m-%d %H:%M %Z}, not yet by that of {good:%Y-%m-%d %H:%M %Z}"
    assert f"- First seen by the scan of {times}, in 2 runs one after the other." in question_text.markdown(found)


def test_two_scans_of_one_minute_are_not_told_by_the_same_time(conn):
    found, since = asked(conn, FAR), datetime(2026, 3, 1, 3, 0, 50, tzinfo=UTC)
    held = replace(found.held[0], since=since, before=since - timedelta(seconds=40))
    assert "not yet by the one before it." in question_text.markdown(replace(found, held=(held,)))


def test_what_is_worse_for_the_first_time_is_no_streak(conn):
    found = asked(conn, FAR)
    assert found.held[0].runs == 1
    assert "one after the other" not in question_text.markdown(found)
    assert "not yet by" not in question_text.markdown(found)


def test_a_figure_that_only_warns_is_told_without_what_another_night_would_do(conn):
    once = f"{METRIC} is 40, above its limit 25 (baseline 0): worse once, a second time in a row would alone hold"
    share = Gate("plan.delete", None, 20.0, 28, Verdict.HOLD, "the repair would delete 28 of 40 live rows")
    found = asked(conn, replace(FAR, verdict=Verdict.WARN, reason=once), share)
    assert [sentence.partition(" (")[0] for sentence in found.held[0].sentences[-1:]] == [
        "**40** rows that the copy lacks"
    ]
    assert "second time in a row" not in question_text.markdown(found)


def test_a_reason_of_a_figure_that_is_told_is_not_told_again(conn):
    limit = Gate(METRIC, None, 92.5, 455, Verdict.HOLD, f"{METRIC} is 455 of 1852, above its limit 92.5: data loss")
    trend = Gate(METRIC, 0.0, 25.0, 455, Verdict.WARN, f"{METRIC} is 455, above its limit 25: worse once")
    [held] = asked(conn, limit, trend).held
    assert held.sentences == (
        f"**455** rows that the copy lacks (`{METRIC}`; up to 25 would pass, 0 is usual). Data loss.",
    )


@pytest.mark.parametrize(("metric", "again"), [("plan.update", True), (METRIC, False)])
def test_says_whether_the_next_night_asks_again(conn, metric, again):
    text = question_text.markdown(asked(conn, replace(FAR, metric=metric), plan=(40, 0, 0)))
    assert ("each later run asks again" in text) == again
    assert ("the same drift is not asked about again" in text) != again


def test_a_pattern_of_another_table_names_it(conn):
    asked(conn, FAR)
    pattern = Pattern("jobs", "delete", "value", "shop_id", "7301", 74, 74, present=74, rows=150)
    scan_log.keep_patterns(conn, "scan", [pattern])
    assert f"- What stands out in jobs: {pattern}." in question_text.markdown(ask(conn)).splitlines()


@pytest.mark.parametrize(("planned", "where"), [(74, ""), (397, " in line_items")])
def test_a_pattern_names_its_table_if_the_plan_has_rows_of_others(conn, planned, where):
    """Else 74 rows look like a part of the 397 that the entity's repair would delete."""
    asked(conn, FAR, plan=(0, 0, planned))
    pattern = Pattern("line_items", "delete", "value", "shop_id", "7301", 74, 74, present=74, rows=150)
    scan_log.keep_patterns(conn, "scan", [pattern])
    assert f"- What stands out{where}: {pattern}." in question_text.markdown(ask(conn)).splitlines()


def put_and_answered(conn, decision: str, who: str = "Ada", run: str = RUN, **answer) -> None:
    """A question about what holds now, and its answer."""
    found = holds.open_holds(conn, SOURCE)
    holds.note_asked(conn, found)
    questions.keep(conn, SOURCE, run, [hold.scan_id for hold in found], "What now?", ["line_items"])
    holds.decide(conn, SOURCE, decision, who, **answer)


def earlier(conn) -> str:
    [line] = [line for line in question_text.markdown(ask(conn)).splitlines() if "uestion of 20" in line]
    return line


HOLD = Judgement(Verdict.HOLD, (METRIC,), ("too many",), ())


def test_a_run_that_waited_says_how_the_question_before_was_answered(conn):
    asked(conn, FAR)
    put_and_answered(conn, "repair", reason="the `shop`\nhas [moved](x)", left_out=["payments"])
    repair = sync_log.begin(conn, SOURCE, "repair", RUN)
    sync_log.finish(conn, repair, {})
    judged(conn, "later", HOLD, run="repairshopr_reconcile/2")
    fence.stop(conn, SOURCE, "repairshopr_reconcile/2", 2)
    line = earlier(conn)
    assert re.search(r"The question of 20\S+ \S+ UTC was answered by Ada at 20\S+ \S+ UTC: \*\*Repair, then", line)
    assert f", without payments. Reason: `the 'shop' has [moved](x)`. That repair is sync {repair} (success)." in line
    assert line.endswith("What is below was found after that.")
    # A run between has seen what came of it.
    judged(conn, "between", HOLD, run="repairshopr_reconcile/3")
    assert ask(conn).earlier == ""


def test_each_answer_is_listed_once_and_with_the_run_that_asked(conn):
    asked(conn, FAR)
    put_and_answered(conn, "keep", run="repairshopr_reconcile/A")
    # Of another entity, so that the next answer is to two questions.
    judged(conn, "other", HOLD, entity="invoices", run="repairshopr_reconcile/A")
    put_and_answered(conn, "keep", who="Bob", run="repairshopr_reconcile/B", reason="not yet")
    assert [each.decided_by for each in questions.answers(conn, "repairshopr_reconcile/A")] == ["Ada", "Bob"]
    conn.execute("UPDATE confidence.question SET run = 'repairshopr_reconcile/B'")
    put_and_answered(conn, "resume", who="Eve", run="repairshopr_reconcile/B")
    given = questions.answers(conn, "repairshopr_reconcile/B")
    assert [(each.decision, each.decided_by, each.reason) for each in given] == [
        ("keep", "Bob", "not yet"),
        ("resume", "Eve", None),
    ]
    conn.execute("DELETE FROM confidence.question")
    assert questions.answers(conn, "repairshopr_reconcile/B") == []


def test_who_is_asked_again_about_the_same_scans_reads_so(conn):
    asked(conn, FAR)
    assert ask(conn).earlier == ""
    put_and_answered(conn, "keep", reason="first I look at the shop.")
    line = earlier(conn)
    assert "by Ada" in line
    assert "**Keep stopped**. Reason: `first I look at the shop`." in line
    assert ": nothing was scanned since. A repair would write what the scan of 20" in line
    assert line.endswith("answer *Keep stopped* and trigger the runbook: it scans first.")
    # The same question, asked again and answered by nobody.
    put_and_answered(conn, "keep", holds.NOBODY)
    assert "Nobody answered the question of" in earlier(conn)
    assert conn.execute("SELECT count(*) FROM confidence.question").fetchone() == (1,)


def test_parts_of_a_question_are_its_lines(conn):
    text = question_text.markdown(asked(conn, FAR, plan=(40, 2, 1), evidence="e1"))
    found = question_text.parts(text)
    assert list(found.answers) == list(question.OPTIONS)
    assert found.answers["Repair, then resume"].startswith("the 43 changes above are made, also if")
    assert found.before.endswith("were looked at.\n\n")
    assert found.after.strip().startswith("If another run of the runbook waits behind this one")
    lines = [f"- **{option}**: {consequence}" for option, consequence in found.answers.items()]
    assert text == f"{found.before}### The answers\n" + "\n".join(lines) + f"\n{found.after}"


def test_parts_of_a_question_have_what_was_answered_before(conn):
    text = question_text.markdown(replace(asked(conn, FAR), earlier="The question of then was answered."))
    assert question_text.parts(text).earlier == "The question of then was answered."
    assert question_text.parts(question_text.markdown(ask(conn))).earlier == ""


def test_a_text_without_answers_is_all_before_them():
    assert question_text.parts("What now?\n- **bold**") == question_text.Parts("What now?\n- **bold**", {}, "")
