"""The question about a hold: every figure that can hold is a sentence, and a long question is shortened."""

from dataclasses import replace

import pytest

from include.confidence import holds, question
from include.confidence.policy import Gate, Judgement, Verdict
from include.warehouse import fence
from tests.confidence.builders import METRIC, judged

SOURCE = "repairshopr"
RUN = "repairshopr_reconcile/1"
TEXTS = {METRIC: "Rows that the copy lacks."}


def asked(conn, *gates: Gate, **figures) -> question.Question:
    """The question about a scan of these gates that holds."""
    reasons = tuple(gate.reason for gate in gates if gate.reason)
    judgement = Judgement(Verdict.HOLD, tuple(gate.metric for gate in gates), reasons, gates)
    judged(conn, "scan", judgement, run=RUN, **figures)
    fence.stop(conn, SOURCE, RUN, 1)
    found = holds.open_holds(conn, SOURCE)
    return question.read(
        conn,
        fence.read(conn, SOURCE),
        found,
        texts=TEXTS,
        plan_link=lambda evidence: f"http://a/{evidence}",
        hours=20,
    )


@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        (
            Gate(METRIC, 1200000.0, 1500000.0, 2000000, Verdict.HOLD, f"{METRIC} is 2000000: worse in two runs"),
            f"**2,000,000** rows that the copy lacks (`{METRIC}`; 1,500,000 would pass, 1,200,000 is usual).",
        ),
        (
            Gate("growth.x", None, None, 7, Verdict.HOLD, "it has risen for weeks"),
            "**7** rows by which the level of x has risen above its lowest level of six weeks (`growth.x`).",
        ),
        (
            Gate("unknown_figure", None, 0.5, 3, Verdict.HOLD),
            "**3** is the figure (`unknown_figure`; 0.5 would pass).",
        ),
        # Nobody has measured what was held before.
        (
            Gate(METRIC, 1.0, None, None, Verdict.HOLD, f"{METRIC} was not measured"),
            f"`{METRIC}`: {METRIC} was not measured.",
        ),
    ],
)
def test_each_figure_that_holds_is_a_sentence(conn, gate, sentence):
    found = asked(conn, gate)
    assert found.held[0].sentences[0] == sentence
    assert f"- {sentence}" in question.markdown(found)


def test_says_what_a_repair_would_write_with_a_link_to_the_plan(conn):
    gate = Gate(METRIC, None, 25.0, 40, Verdict.HOLD, "far too many")
    found = asked(conn, gate, plan=(40, 2, 1), evidence="e1")
    line = "- [line_items](http://a/e1): 40 rows to insert, 2 to update, 1 to delete; 1,000 live rows were looked at."
    assert line in question.markdown(found)
    assert line.replace("[line_items](http://a/e1)", "line_items (http://a/e1)") in question.plain(found)
    assert "43 changes as above" in question.markdown(found)
    # To leave out the only one is to resume without repair.
    assert "leave out" not in question.markdown(found)
    assert "leave out" in question.markdown(replace(found, plans=found.plans * 2))


def test_message_is_shortened_and_the_page_is_not(conn):
    found = asked(conn, Gate(METRIC, None, 25.0, 40, Verdict.HOLD, "far too many"))
    long = replace(found, held=found.held * 30)
    assert len(question.plain(long)) == 41
    assert question.plain(long)[-1].endswith("more lines, under the link")
    assert question.markdown(long).count("### line_items") == 30


def test_says_since_when_it_has_been_so(conn):
    bad = Judgement(Verdict.WARN, (METRIC,), ("too many",), ())
    for name, verdict in (("good", Judgement(Verdict.PASS, (), (), ())), ("worse", bad), ("worse again", bad)):
        judged(conn, name, verdict, run=name)
    found = asked(conn, Gate(METRIC, None, 25.0, 40, Verdict.HOLD, "far too many"))
    (first,) = conn.execute("SELECT scanned_at FROM confidence.forensic_run WHERE scan_id = 'worse'").fetchone()
    assert (found.held[0].since, found.held[0].runs) == (first, 3)
    assert "in 3 runs one after the other" in question.markdown(found)
