"""The text of a question about a hold, in whole sentences: as Markdown for Airflow, and without it for messages."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from include.confidence.queries.scans import Scan
from include.confidence.question import Held, Question, time_text

# The largest number of lines in a message.
LINES = 40
# The heading of the answers, and one of them with what it would do.
ANSWERS = "### The answers"
ANSWER = re.compile(r"- \*\*(?P<option>[^*]+)\*\*: (?P<consequence>.+)")


def markdown(question: Question) -> str:
    """Return the question for Airflow's page of required actions."""
    return "\n".join(_lines(question))


def plain(question: Question) -> list[str]:
    """Return the question in lines for a message, without Markdown."""
    lines = [_plain(line) for line in _lines(question) if line]
    left = len(lines) - LINES
    return lines if left <= 0 else [*lines[:LINES], f"and {left} more lines, under the link"]


@dataclass(frozen=True)
class Parts:
    """The Markdown of a question in parts: what comes before the answers, what each would do by its name, the rest.

    `earlier`: how the question before was answered, which is a part of `before`; empty if that is not told.
    """

    before: str
    answers: Mapping[str, str]
    after: str
    earlier: str = ""


def parts(text: str) -> Parts:
    """Return the parts of a question's Markdown."""
    before, _, rest = text.partition(f"{ANSWERS}\n")
    found = [(ANSWER.fullmatch(line), line) for line in rest.splitlines()]
    _, *earlier = before.partition("\n### ")[0].strip().split("\n\n")
    return Parts(
        before,
        {match["option"]: match["consequence"] for match, _ in found if match},
        "\n".join(line for match, line in found if not match),
        "\n\n".join(earlier) if found else "",
    )


def _lines(question: Question) -> list[str]:
    """Return the whole question in lines of Markdown."""
    lines = [_situation(question)]
    if question.earlier:
        lines += ["", question.earlier]
    for held in question.held:
        lines += ["", *_hold_lines(held)]
    lines += ["", f"### What a repair would write {question.sides.copy}", *_plans(question.plans)]
    return [
        *lines,
        "",
        ANSWERS,
        *_answers(question),
        "",
        "If another run of the runbook waits behind this one, it begins when you have answered. It scans again, and"
        " asks again if it finds drift that was neither repaired nor accepted.",
    ]


def _situation(question: Question) -> str:
    """Say since when nothing is synced, how far the copy is behind, and what happens without an answer."""
    writer, behind = question.writer, ""
    if question.behind is not None and question.behind >= timedelta(minutes=1):
        behind = f" When this was asked, the copy was {_duration(question.behind)} behind its source."
    return (
        f"No sync of `{writer.source}` has run since {time_text(writer.since)}, and none will until you answer.{behind}"
        f" Unanswered until {time_text(question.until)}, the writer stays stopped and this run fails."
    )


def _hold_lines(held: Held) -> Iterator[str]:
    """Yield a heading and what is worse, since when, and what stands out."""
    scope = "" if held.scope == "all" else f" ({held.scope})"
    again = f", in {held.runs} runs one after the other" if held.runs > 1 else ""
    yield f"### {held.entity}{scope}"
    yield from (f"- {sentence}" for sentence in held.sentences)
    since, before = time_text(held.since), held.before and time_text(held.before)
    not_by = f", not yet by {'the one before it' if before == since else f'that of {before}'}" if before else ""
    yield f"- First seen by the scan of {since}{not_by}{again}."
    yield from (f"- What stands out{pattern}." for pattern in held.patterns)
    if held.nothing_in_common:
        yield "- Nothing stands out: the rows to change have nothing in common that sets them apart from the others."


def _answers(question: Question) -> Iterator[str]:
    """Yield what each answer would do."""
    changes, source = sum(scan.plan.rows for scan, _ in question.plans), question.writer.source
    are_made = "the change above is made" if changes == 1 else f"the {changes:,} changes above are made"
    are_made += ", without those of entities that you leave out" if len(question.planned) > 1 else ""
    leave_out = (
        " You may leave out entities: these stay as with *Resume without repair*. There is one writer, so it runs again"
        " for them too: to keep it stopped for one, choose *Keep stopped*."
    )
    again = (
        "but each later run asks again while its repair is above a limit"
        if any(held.asks_again for held in question.held)
        else "so the same drift is not asked about again"
    )
    yield (
        "- **Keep stopped**: nothing is written, and the writer stays stopped. This run fails. Once the cause is"
        f" mended, trigger `{source}_reconcile`, or wait for its next night: it scans anew, and asks again if it still"
        f" finds this. *Ask me again* on the page of {source} only repeats this question, about the same scan."
    )
    yield (
        "- **Resume without repair**: nothing is repaired, so the differences stay. The figures above become"
        f" the new baseline, {again}. The writer runs again: {question.sides.after_resume}."
    )
    if changes:
        yield (
            f"- **Repair, then resume**: {are_made}, also if this run is a dry run, and the writer runs again."
            f" {question.sides.after_repair} The repair gets a sync_id, by which it can be rolled back."
            f"{leave_out if len(question.planned) > 1 else ''}"
        )
    else:
        yield (
            "- **Repair, then resume**: no change is planned, so nothing is written. The writer runs again, and"
            " the next run asks if it still finds this."
        )


def _plans(plans: Sequence[tuple[Scan, str]]) -> list[str]:
    if not plans:
        return ["Nothing: no proven change is planned."]
    return [
        f"- [{scan.entity}]({link}): {scan.plan.insert:,} rows to insert, {scan.plan.update:,} to update,"
        f" {scan.plan.delete:,} to delete; {scan.live_rows:,} live rows were looked at."
        for scan, link in plans
    ]


def _plain(line: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\(([^)]*)\)", r"\1 (\2)", re.sub(r"\*+|`", "", line))
    return text.removeprefix("### ")


def _duration(time: timedelta) -> str:
    minutes = round(time.total_seconds() / 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
