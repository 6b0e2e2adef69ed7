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
    """A repair lacks evidence, or the judgement of just this evidence. The message says of what, and what to clear."""


class ScanUnderWay(Exception):
    """Scan and repair of a source exclude each other, and the other one is at work."""


@dataclass(frozen=True)
class _RecordedScan:
    """What the warehouse keeps of a scan, as far as a repair rests on it."""

    scan_id: str
    evidence: str | None
    rescanned: bool
    verdict: str | None
    decision: str | None


@contextmanager
def scanning(conn: Connection, source: str, run: str, entity: str, epoch: int) -> Iterator[None]:
    """Scan within this block: it keeps repairs of the source out, and what this scan found before is void from now on.

    The plan is overwritten on the way, so nothing may be repaired by the evidence before, even if this attempt fails.
    Raises ScanUnderWay while a repair is at work.
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
) -> Iterator[None]:
    """Repair within this block, by these scans of all `entities`: it keeps scans of the source out.

    Raises NotJudged unless the gate has judged just these scans as `pass` or `warn`, or a person has decided to repair;
    ScanUnderWay while a scan or another repair of the source is at work.
    """
    with _lock(conn, writer.source, "pg_try_advisory_lock", "pg_advisory_unlock"):
        require_evidence(conn, writer, entities, summaries, judged=True)
        yield


def require_evidence(
    conn: Connection,
    writer: fence.Writer,
    entities: Collection[str],
    summaries: Sequence[ForensicSummary],
    *,
    judged: bool = False,
) -> None:
    """Raise NotJudged unless these are the scans of all `entities` behind the present stop, complete and the latest.

    `judged`: each has to have passed the gate too, or a person's decision to repair.
    """
    with conn.cursor(row_factory=class_row(_RecordedScan)) as cursor:
        rows = cursor.execute(
            "SELECT scan_id, summary ->> 'evidence' AS evidence, rescanned, verdict, decision"
            " FROM confidence.forensic_run WHERE source = %s AND scan_id = ANY (%s)",
            [writer.source, [summary.scan_id for summary in summaries]],
        ).fetchall()
    kept = {row.scan_id: row for row in rows}
    missing = sorted(set(entities) - {summary.entity for summary in summaries})
    problems = [f"{entity} was not scanned" for entity in missing]
    for summary in summaries:
        problem = _problem(summary, kept.get(summary.scan_id), writer, judged=judged)
        problems += [f"{summary.entity} {problem}"] if problem else []
    if problems:
        raise NotJudged(
            f"nothing was written: {'; '.join(problems)}. A repair needs the gate's judgement of exactly its scans, or"
            " a person's decision about them. Clear scan (all of its map indexes) with downstream"
        )


def _problem(summary: ForensicSummary, kept: _RecordedScan | None, writer: fence.Writer, *, judged: bool) -> str:
    """Why nothing may be repaired by this scan; empty if it may."""
    if (summary.run, summary.epoch) != (writer.run, writer.epoch):
        return "was scanned before this stop of the writer"
    if summary.incomplete:
        return f"has no evidence ({summary.incomplete})"
    if kept is None or kept.rescanned or kept.evidence != summary.evidence:
        return "was scanned anew since, or its evidence is not in the warehouse"
    if judged and kept.verdict is None:
        return "was not judged: gate_check did not get to its end, however its task looks"
    if judged and kept.verdict == Verdict.HOLD and kept.decision != Decision.REPAIR:
        return "is held, and nobody has decided to repair it"
    return ""


@contextmanager
def _lock(conn: Connection, source: str, lock: str, unlock: str) -> Iterator[None]:
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
        # A session that was lost has lost its lock too.
        with suppress(psycopg.Error):
            conn.execute(call.format(sql.Identifier(unlock)), key)
