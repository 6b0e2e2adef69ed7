"""Scans, verdicts, holds and decisions, kept in the warehouse's schema `confidence`.

Every function works in the transaction of the connection that it is given and never commits. The order of a
gate is `record` (evidence first), `past_runs`, `judge`, `save_judgement`, `refresh_hold`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg import Connection
from psycopg.rows import args_row, tuple_row
from psycopg.types.json import Jsonb

from include.confidence.policy import Judgement, PastRun, Verdict
from include.confidence.summary import ForensicSummary
from include.warehouse import fence


class PlanGone(Exception):
    """A scan's plan is not in the warehouse any more. The message says what to clear."""


class Decision(StrEnum):
    """What a person can answer to a hold."""

    KEEP = "keep"
    RESUME = "resume"
    REPAIR = "repair"


@dataclass(frozen=True)
class Hold:
    """A hold that nothing has ended yet."""

    scan_id: str
    entity: str
    scope: str
    run: str
    reasons: tuple[str, ...]
    scanned_at: datetime


def record(conn: Connection, summary: ForensicSummary) -> None:
    """Keep a scan's evidence, not judged yet. The same scan once more replaces what it found before.

    Evidence that a hold rests on is moved aside instead: the hold stays open until the new one is judged, and
    what a person accepted stays known.
    """
    conn.execute(
        """
        UPDATE confidence.forensic_run SET scan_id = scan_id || ' of ' || scanned_at
        WHERE scan_id = %s AND verdict = 'hold'
        """,
        [summary.scan_id],
    )
    conn.execute(
        """
        INSERT INTO confidence.forensic_run (scan_id, source, entity, scope, run, epoch, summary, metrics)
        VALUES (%(scan_id)s, %(source)s, %(entity)s, %(scope)s, %(run)s, %(epoch)s, %(summary)s, %(metrics)s)
        ON CONFLICT (scan_id) DO UPDATE SET
          (source, entity, scope, run, epoch, summary, metrics) = (
            excluded.source, excluded.entity, excluded.scope, excluded.run, excluded.epoch,
            excluded.summary, excluded.metrics),
          (scanned_at, verdict, worse, reasons, baseline, gates, decision, decided_by, decided_at) = (
            DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT)
        """,
        {
            "scan_id": summary.scan_id,
            "source": summary.source,
            "entity": summary.entity,
            "scope": summary.scope,
            "run": summary.run,
            "epoch": summary.epoch,
            "summary": Jsonb(summary.to_json()),
            "metrics": Jsonb(dict(summary.metrics)),
        },
    )


def keep_progress(conn: Connection, scan_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Keep a scan's lines of progress beside its evidence."""
    conn.execute("UPDATE confidence.forensic_run SET progress = %s WHERE scan_id = %s", [Jsonb(list(lines)), scan_id])


def past_runs(conn: Connection, summary: ForensicSummary, limit: int = 20) -> list[PastRun]:
    """The judged scans of the same source, entity and scope, newest first, back to the `limit`-th good one.

    The limit counts good runs (passed or accepted) only, so that a long series of bad nights never pushes the
    baseline out of sight; the newest accepted run is there however old it is. Earlier scans of the same run
    don't count, as a scan that is cleared and made again is not a second bad night; except its holds, which a
    second scan must not get rid of unseen.
    """
    with conn.cursor(row_factory=args_row(_past_run)) as cursor:
        return cursor.execute(
            """
            WITH judged AS (
              SELECT * FROM confidence.forensic_run
              WHERE source = %(source)s AND entity = %(entity)s AND scope = %(scope)s
                AND verdict IS NOT NULL AND scan_id <> %(scan_id)s AND (run <> %(run)s OR verdict = 'hold')
            )
            SELECT scan_id, metrics, verdict, worse, decision FROM judged
            WHERE scanned_at >= coalesce(
              (SELECT scanned_at FROM judged WHERE verdict = 'pass' OR decision = 'resume'
               ORDER BY scanned_at DESC LIMIT 1 OFFSET %(limit)s - 1),
              '-infinity')
              OR scan_id = (
                SELECT scan_id FROM judged WHERE decision = 'resume' ORDER BY scanned_at DESC LIMIT 1)
            ORDER BY scanned_at DESC
            """,
            {
                "source": summary.source,
                "entity": summary.entity,
                "scope": summary.scope,
                "scan_id": summary.scan_id,
                "run": summary.run,
                "limit": limit,
            },
        ).fetchall()


def save_judgement(conn: Connection, summary: ForensicSummary, judgement: Judgement) -> None:
    """Write the verdict beside its evidence. Raises LookupError when the scan is not recorded.

    A hold of this very scan that is open is left as it is: judging the same evidence once more can't end it.
    """
    with conn.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(
            """
            SELECT (verdict = 'hold' AND coalesce(decision, 'keep') = 'keep') IS TRUE
            FROM confidence.forensic_run WHERE scan_id = %s FOR UPDATE
            """,
            [summary.scan_id],
        ).fetchone()
    if found is None:
        raise _unknown(summary.scan_id)
    if found == (True,):
        return
    conn.execute(
        """
        UPDATE confidence.forensic_run SET verdict = %(verdict)s, worse = %(worse)s, reasons = %(reasons)s,
          baseline = %(baseline)s, gates = %(gates)s
        WHERE scan_id = %(scan_id)s
        """,
        {
            "scan_id": summary.scan_id,
            "verdict": judgement.verdict,
            "worse": list(judgement.worse),
            "reasons": list(judgement.reasons),
            "baseline": Jsonb({g.metric: g.baseline for g in judgement.gates if g.baseline is not None}),
            "gates": Jsonb([asdict(gate) for gate in judgement.gates]),
        },
    )


def require_latest(conn: Connection, summary: ForensicSummary) -> None:
    """A later scan replaces the plan; then this one has nothing to apply any more. Raises PlanGone."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        latest = cursor.execute(
            "SELECT scan_id FROM confidence.forensic_run WHERE source = %s AND entity = %s"
            " ORDER BY scanned_at DESC LIMIT 1",
            [summary.source, summary.entity],
        ).fetchone()
    if latest is None or latest[0] != summary.scan_id:
        raise PlanGone(
            f"the plan of {summary.entity} was replaced by a later scan ({latest and latest[0]}):"
            " clear scan with downstream to make a new one"
        )


def mark_hold(conn: Connection, scan_id: str, reason: str) -> None:
    """Hold after the gate: what followed from the scan went wrong. Raises LookupError for an unknown scan.

    The hold is open again even if it was decided before; that decision stays readable among the reasons.
    """
    updated = conn.execute(
        """
        UPDATE confidence.forensic_run SET verdict = 'hold',
          reasons = array_remove(reasons, %(reason)s)
            || CASE WHEN decision IS NOT NULL
                 THEN ARRAY[format('%%s decided by %%s at %%s', decision, decided_by, decided_at)] END
            || ARRAY[%(reason)s],
          decision = NULL, decided_by = NULL, decided_at = NULL
        WHERE scan_id = %(scan_id)s
        """,
        {"scan_id": scan_id, "reason": reason},
    )
    if not updated.rowcount:
        raise _unknown(scan_id)


def open_holds(conn: Connection, source: str) -> list[Hold]:
    """Where the latest judged scan of an entity and scope says hold, undecided or decided to be kept."""
    with conn.cursor(row_factory=args_row(_hold)) as cursor:
        return cursor.execute(
            """
            SELECT scan_id, entity, scope, run, reasons, scanned_at FROM (
              SELECT DISTINCT ON (entity, scope) * FROM confidence.forensic_run
              WHERE source = %s AND verdict IS NOT NULL
              ORDER BY entity, scope, scanned_at DESC
            ) AS latest
            WHERE verdict = 'hold' AND coalesce(decision, 'keep') = 'keep'
            ORDER BY entity, scope
            """,
            [source],
        ).fetchall()


def judged_worse(conn: Connection, source: str, run: str) -> list[str]:
    """A line for each scan of the run that did not pass, with its reasons."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            "SELECT entity, scope, reasons FROM confidence.forensic_run"
            " WHERE source = %s AND run = %s AND verdict IN ('warn', 'hold') ORDER BY entity, scope, scanned_at",
            [source, run],
        ).fetchall()
    return [f"{entity} ({scope}): {'; '.join(reasons)}" for entity, scope, reasons in rows]


def refresh_hold(conn: Connection, source: str) -> str | None:
    """Set the writer's hold reason from the open holds and return it, None when there is none.

    Raises FenceError when a hold is open and the writer runs. Only a stopped writer's row is touched, so this
    never waits for a sync that is under way.
    """
    holds = open_holds(conn, source)
    reason = "; ".join(f"{hold.entity} ({hold.scope}): {'; '.join(hold.reasons)}" for hold in holds) or None
    updated = conn.execute(
        "UPDATE confidence.writer SET hold_reason = %s WHERE source = %s AND state = 'stopped'",
        [reason, source],
    )
    if reason and not updated.rowcount:
        writer = fence.read(conn, source)
        raise fence.FenceError(f"{writer} while a hold is open ({reason}): clear stop_writer with downstream")
    return reason


def decide(conn: Connection, source: str, decision: str, who: str) -> list[Hold]:
    """Answer all open holds of a source and return them. Raises ValueError for an unknown decision.

    `resume` accepts their figures as the new baseline, `repair` closes them without that, `keep` leaves them
    open. The writer must be stopped, as for `refresh_hold`.
    """
    holds = open_holds(conn, source)
    conn.execute(
        """
        UPDATE confidence.forensic_run SET decision = %s, decided_by = %s, decided_at = clock_timestamp()
        WHERE scan_id = ANY(%s)
        """,
        [Decision(decision), who, [hold.scan_id for hold in holds]],
    )
    refresh_hold(conn, source)
    return holds


def _past_run(
    scan_id: str, metrics: Mapping[str, int | None], verdict: str, worse: list[str], decision: str | None
) -> PastRun:
    return PastRun(
        scan_id=scan_id,
        metrics=metrics,
        verdict=Verdict(verdict),
        worse=tuple(worse),
        accepted=decision == Decision.RESUME,
        held=verdict == Verdict.HOLD and decision in (None, Decision.KEEP),
    )


def _hold(scan_id: str, entity: str, scope: str, run: str, reasons: list[str], scanned_at: datetime) -> Hold:
    return Hold(scan_id, entity, scope, run, tuple(reasons), scanned_at)


def _unknown(scan_id: str) -> LookupError:
    return LookupError(f"Scan {scan_id} is not in confidence.forensic_run: clear scan with downstream.")
