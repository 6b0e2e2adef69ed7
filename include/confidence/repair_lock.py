"""The lock by which scans and repairs of a source exclude each other, and the evidence that a repair needs."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg
from psycopg import Connection, sql
from psycopg.rows import class_row, tuple_row

from include.confidence.holds import Decision
from include.confidence.policy import Verdict
from include.confidence.summary import ForensicSummary
from include.warehouse import fence


class NotJudged(Exception):
    """A repair lacks evidence, or the gate's judgement of it. The message names the scans, and what to clear."""


class ScanUnderWay(Exception):
    """A scan or repair of the source is at work, so this one can't begin. The message says what to do."""


@dataclass(frozen=True)
class _RecordedScan:
    """A scan in the warehouse, with what a repair needs to know of it."""

    scan_id: str
    evidence: str | None
    rescanned: bool
    verdict: str | None
    decision: str | None
    left_out: bool


@contextmanager
def scanning(conn: Connection, source: str, run: str, entity: str, epoch: int) -> Iterator[None]:
    """Keep repairs of the source out while the block scans. Raises ScanUnderWay while a repair is at work.

    What an earlier attempt of this scan found is no evidence from now on, even if this attempt fails, because a scan
    overwrites the plan while it works.
    """
    with _lock(conn, source, "pg_try_advisory_lock_shared", "pg_advisory_unlock_shared"):
        conn.execute(
            "UPDATE confidence.forensic_run SET rescanned = true"
            " WHERE run = %s AND source = %s AND entity = %s AND epoch = %s",
            [run, source, entity, epoch],
        )
        yield


@contextmanager
def repairing(
    conn: Connection, writer: fence.Writer, entities: Collection[str], summaries: Sequence[ForensicSummary]
) -> Iterator[list[ForensicSummary]]:
    """Keep scans of the source out while the block repairs. Yields the `summaries` without those that are left out.

    Raises ScanUnderWay while a scan or another repair is at work. Raises NotJudged unless the summaries cover all
    `entities`, and the gate has judged each `pass` or `warn`, or a person has decided to repair.
    """
    with _lock(conn, writer.source, "pg_try_advisory_lock", "pg_advisory_unlock"):
        yield require_evidence(conn, writer, entities, summaries, judged=True)


def require_evidence(
    conn: Connection,
    writer: fence.Writer,
    entities: Collection[str],
    summaries: Sequence[ForensicSummary],
    *,
    judged: bool = False,
) -> list[ForensicSummary]:
    """Raise NotJudged unless these are complete scans of all `entities`, made since the writer was stopped.

    Return those of the summaries whose plans may be applied: all but those that a person has left out.

    No newer attempt of a scan may have begun. `judged`: the gate must have judged each of them as `pass` or `warn` too;
    after a `hold` a person must have decided to repair.
    """
    with conn.cursor(row_factory=class_row(_RecordedScan)) as cursor:
        rows = cursor.execute(
            "SELECT scan_id, summary ->> 'evidence' AS evidence, rescanned, verdict, decision, left_out"
            " FROM confidence.forensic_run WHERE source = %s AND scan_id = ANY (%s)",
            [writer.source, [summary.scan_id for summary in summaries]],
        ).fetchall()
    recorded = {row.scan_id: row for row in rows}
    missing = sorted(set(entities) - {summary.entity for summary in summaries})
    problems = [f"{entity} was not scanned" for entity in missing]
    for summary in summaries:
        problem = _problem(summary, recorded.get(summary.scan_id), writer, judged=judged)
        problems += [f"{summary.entity} {problem}"] if problem else []
    if problems:
        raise NotJudged(
            f"nothing was written: {'; '.join(problems)}. A repair needs the gate's judgement of exactly its scans, or"
            " a person's decision about them. Clear scan (all of its map indexes) with downstream"
        )
    return [summary for summary in summaries if not recorded[summary.scan_id].left_out]


def _problem(summary: ForensicSummary, recorded: _RecordedScan | None, writer: fence.Writer, *, judged: bool) -> str:
    """Say why nothing may be repaired by this scan; empty if it may."""
    if (summary.run, summary.epoch) != (writer.run, writer.epoch):
        return "was scanned before this stop of the writer"
    if summary.incomplete:
        return f"has no evidence ({summary.incomplete})"
    if recorded is None or recorded.rescanned or recorded.evidence != summary.evidence:
        return "was scanned again since, or its evidence is not in the warehouse"
    if judged and recorded.verdict is None:
        return "was not judged: gate_check did not get to its end, however its task looks"
    if judged and recorded.verdict == Verdict.HOLD and recorded.decision != Decision.REPAIR:
        return "is held, and nobody has decided to repair it"
    return ""


@contextmanager
def _lock(conn: Connection, source: str, lock: str, unlock: str) -> Iterator[None]:
    """Hold the source's advisory lock during the block, by these functions of Postgres. Raises ScanUnderWay."""
    call = sql.SQL("SELECT {}(hashtextextended(%s, 0))")
    key = [f"confidence.forensic_run of {source}"]
    with conn.cursor(row_factory=tuple_row) as cursor:
        (taken,) = cursor.execute(call.format(sql.Identifier(lock)), key).fetchone()
    if not taken:
        raise ScanUnderWay(
            f"a scan or repair of {source} is still at work, perhaps one whose task was cleared or marked by hand;"
            " nothing was read or written. This task tries again by itself; if it has given up, clear scan with"
            " downstream"
        )
    try:
        yield
    finally:
        # If the connection is lost, Postgres has released the lock already.
        with suppress(psycopg.Error):
            conn.execute(call.format(sql.Identifier(unlock)), key)
