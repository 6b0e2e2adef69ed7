"""The question about a hold: what is wrong, since when, and what is planned. `question_text.py` puts it into a text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import Connection
from psycopg.rows import tuple_row

from include.confidence import field_store, questions, run_evidence
from include.confidence.glossary import explain
from include.confidence.holds import NOBODY, Decision, Hold
from include.confidence.policy import PLAN, SEVERITY, Gate, Verdict, lost_examples
from include.confidence.queries.runs import read_run
from include.confidence.queries.scans import Scan
from include.confidence.sides import Sides
from include.warehouse.fence import Writer
from include.warehouse.patterns import Pattern

# What a person can answer.
OPTIONS = {
    "Keep stopped": Decision.KEEP,
    "Resume without repair": Decision.RESUME,
    "Repair, then resume": Decision.REPAIR,
}
# The largest number of facts that a question names for an entity; the page of its plan has all.
PATTERNS = 3


@dataclass(frozen=True)
class Held:
    """What holds the writer, of one entity.

    - `sentences`: what is wrong, a sentence for each figure
    - `since`: the scan in which it was first wrong, in all runs without a good one between; `runs`: how many these are;
      `before`: the scan before, None if there is none
    - `asks_again`: its plan is too large to repair unattended, which no answer accepts for the next night
    - `patterns`: what many of its planned rows have in common, with their table, if there are planned rows of others
    - `nothing_in_common`: there are many planned rows, and nothing stands out
    """

    entity: str
    scope: str
    sentences: tuple[str, ...]
    since: datetime
    runs: int
    before: datetime | None
    asks_again: bool = False
    patterns: tuple[str, ...] = ()
    nothing_in_common: bool = False


@dataclass(frozen=True)
class Question:
    """A question about the holds of a source.

    - `behind`: how far the copy is behind its source, None if it is not known
    - `plans`: the scans of the run that have planned changes, each with the address of its plan
    - `until`: without an answer by then the writer stays stopped and the run fails
    - `sides`: those of the source
    - `earlier`: how the question before this one was answered, in a sentence; empty if that is long ago
    """

    writer: Writer
    behind: timedelta | None
    held: tuple[Held, ...]
    plans: tuple[tuple[Scan, str], ...]
    until: datetime
    sides: Sides
    earlier: str = ""

    @property
    def planned(self) -> list[str]:
        """The entities with planned changes, each of which a person may leave out of a repair."""
        return [scan.entity for scan, _ in self.plans]


def read(
    conn: Connection,
    writer: Writer,
    holds: Sequence[Hold],
    *,
    texts: Mapping[str, str],
    sides: Sides,
    plan_link: Callable[[str], str],
    until: datetime,
) -> Question:
    """Return the question about these holds.

    `texts`, `sides`: the source's `metric_texts` and `sides`. `plan_link`: of an evidence.
    """
    found = read_run(conn, writer.run)
    scans = {scan.entity: scan for scan in reversed(found.scans)} if found else {}
    by_id = {scan.scan_id: scan for scan in found.scans} if found else {}
    with conn.cursor(row_factory=tuple_row) as cursor:
        query = "SELECT max(freshness) FROM confidence.health WHERE source = %s"
        (behind,) = cursor.execute(query, [writer.source]).fetchone()
    plans = [scan for scan in scans.values() if scan.entity not in found.put_off and scan.plan.rows]
    return Question(
        writer,
        behind,
        tuple(_held(conn, hold, by_id.get(hold.scan_id), texts) for hold in holds),
        tuple((scan, plan_link(scan.evidence)) for scan in sorted(plans, key=lambda scan: scan.entity)),
        until,
        sides,
        _earlier(conn, writer, holds),
    )


def _earlier(conn: Connection, writer: Writer, holds: Sequence[Hold]) -> str:
    """Return how the last question was answered, if no other run was judged since."""
    found = questions.answered_before(conn, writer.source, writer.run)
    if found is None:
        return ""
    if found.decided_by == NOBODY:
        return (
            f"Nobody answered the question of {time_text(found.asked_at)} in time, so the writer stayed stopped."
            f" {_seen(found, holds)}"
        )
    option = next(words for words, decision in OPTIONS.items() if decision == found.decision)
    without = f", without {', '.join(found.left_out)}" if found.left_out else ""
    # As code, so that nothing in it is Markdown.
    reason = f" Reason: `{' '.join(found.reason.replace('`', chr(39)).split()).rstrip('.')}`." if found.reason else ""
    repair = run_evidence.read(conn, writer.source, found.run, ()).repair
    done = f" That repair is sync {repair.sync_id} ({repair.state})." if repair and found.decision == "repair" else ""
    return (
        f"The question of {time_text(found.asked_at)} was answered by {found.decided_by} at"
        f" {time_text(found.decided_at)}: **{option}**{without}.{reason}{done} {_seen(found, holds)}"
    )


def _seen(answered: questions.Asked, holds: Sequence[Hold]) -> str:
    older = [hold for hold in holds if hold.scanned_at <= answered.decided_at]
    if not older:
        return "What is below was found after that."
    scanned = time_text(min(hold.scanned_at for hold in older))
    entities = ", ".join(hold.entity for hold in older)
    return (
        f"**{entities}: nothing was scanned since. A repair would write what the scan of {scanned} saw.** If anything"
        " was mended after that, answer *Keep stopped* and trigger the runbook: it scans first."
    )


def _held(conn: Connection, hold: Hold, scan: Scan | None, texts: Mapping[str, str]) -> Held:
    judged = sorted(scan.gates if scan else (), key=lambda gate: SEVERITY[gate.verdict], reverse=True)
    worse = [gate for gate in judged if SEVERITY[gate.verdict]]
    holding = [gate.metric for gate in worse if gate.verdict == Verdict.HOLD]
    with conn.cursor(row_factory=tuple_row) as cursor:
        since, runs, before = cursor.execute(STREAK, {**vars(hold), "metrics": holding}).fetchone()
    sentences = [*_renamed(conn, scan), *(_sentence(gate, texts) for gate in worse)]
    # A hold may have other reasons than those of gates, such as a repair that went wrong.
    told, figures = "; ".join(gate.reason or "" for gate in worse), tuple(f"{gate.metric} is " for gate in worse)
    others = [reason for reason in hold.reasons if reason not in told and not reason.startswith(figures)]
    sentences += [f"{reason[:1].upper()}{reason[1:].rstrip('.')}." for reason in others]
    return Held(
        hold.entity,
        hold.scope,
        tuple(sentences),
        since or hold.scanned_at,
        runs,
        before,
        any(metric.startswith(PLAN) for metric in holding),
        tuple(_pattern(pattern, scan) for pattern in (scan.patterns[:PATTERNS] if scan else ())),
        scan is not None and scan.stands_out_in_nothing,
    )


def _renamed(conn: Connection, scan: Scan | None) -> Iterator[str]:
    """Yield which of the scan's lost fields look renamed, and what writes their loss into the copy."""
    lost = scan.examples.get(lost_examples("declared_fields_vanished"), ()) if scan else ()
    renamed = field_store.renamed(conn, scan.source) if lost else {}
    for field in filter(renamed.get, lost):
        yield (
            f"**`{field}` looks renamed to `{renamed[field]}` at the source.** A repair would empty it in each row that"
            " it updates, and syncs empty it in each row that changes. Declare the new name first."
        )


def _pattern(pattern: Pattern, scan: Scan) -> str:
    """Return the fact, with its table if the plan changes more rows than those of the entity's own table."""
    alone = pattern.table == scan.entity and pattern.of >= getattr(scan.plan, pattern.operation)
    return f"{'' if alone else f' in {pattern.table}'}: {pattern}"


def _sentence(gate: Gate, texts: Mapping[str, str]) -> str:
    """Return what is wrong with a figure: the number first, then what it means, then what most likely is wrong."""
    reason = gate.reason or ""
    if gate.value is None:
        return f"`{gate.metric}`: {(reason or 'it was not measured').rstrip('.')}."
    # Such a reason has the figures in words already.
    if f"({gate.metric})" in reason:
        return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
    meaning = explain(gate.metric, texts).rstrip(".")
    # The reason of a plan's gate has its figures in words already.
    if gate.metric.startswith(PLAN) and gate.verdict == Verdict.HOLD:
        return f"{reason[:1].upper()}{reason[1:].partition(': ')[0]} (`{gate.metric}`)."
    what = f"{meaning[:1].lower()}{meaning[1:]}" if meaning else "is the figure"
    if meaning and gate.value == 1:
        what = f"is the number of {what}"
    known = {"up to {:,.10g} would pass": gate.limit and int(gate.limit), "{:,.10g} is usual": gate.baseline}
    limits = ", ".join(words.format(figure) for words, figure in known.items() if figure is not None)
    first = f"**{gate.value:,}** {what} (`{gate.metric}`{f'; {limits}' if limits else ''})."
    # Many reasons repeat the figures first. If the figure only warns, the rest of the reason is about other nights.
    if reason.startswith(gate.metric):
        reason = reason.partition(": ")[2] if gate.verdict == Verdict.HOLD else ""
    return f"{first} {reason[:1].upper()}{reason[1:].rstrip('.')}." if reason else first


def time_text(at: datetime) -> str:
    """Return a time as people read it in a question."""
    return f"{at:%Y-%m-%d %H:%M %Z}"


# The runs since the last one in which none of these metrics was too high.
STREAK = """
WITH judged AS (
  SELECT run, scanned_at, worse && %(metrics)s::text[] AS bad FROM confidence.forensic_run
  WHERE source = (SELECT source FROM confidence.forensic_run WHERE scan_id = %(scan_id)s)
    AND entity = %(entity)s AND scope = %(scope)s AND verdict IS NOT NULL
)
SELECT min(scanned_at), count(DISTINCT run), (SELECT max(scanned_at) FROM judged WHERE NOT bad) FROM judged
WHERE bad AND scanned_at > coalesce((SELECT max(scanned_at) FROM judged WHERE NOT bad), '-infinity')
"""
