"""Holds, which keep a writer stopped, and the decisions that people make about them.

Every function works in the transaction of the connection that it is given and never commits.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from psycopg import Connection
from psycopg.rows import args_row, tuple_row

from include.confidence import questions
from include.confidence.scan_log import unknown_scan
from include.warehouse import fence

# Stands for the person if nobody answered in time.
NOBODY = "nobody (unanswered)"


class HoldChanged(Exception):
    """What holds the writer is not what a person was asked about. The message says which task to clear."""


class Decision(StrEnum):
    """A person's answer to a hold: keep stopped, resume without repair, or repair, then resume."""

    KEEP = "keep"
    RESUME = "resume"
    REPAIR = "repair"


@dataclass(frozen=True)
class Hold:
    """An open hold, with the scan that it rests on.

    `asked`: a person was asked about it, and the entity was not scanned again since.
    """

    scan_id: str
    entity: str
    scope: str
    run: str
    reasons: tuple[str, ...]
    scanned_at: datetime
    asked: bool = False


def mark_hold(conn: Connection, scan_id: str, reason: str) -> None:
    """Hold the writer because the repair by this scan went wrong. Raises LookupError for an unknown scan.

    A decision about an earlier hold of the scan does not count any more. It is kept as one of the reasons: what was
    decided, by whom, when, when it was asked, and why.
    """
    updated = conn.execute(
        """
        UPDATE confidence.forensic_run SET verdict = 'hold',
          reasons = array_remove(reasons, %(reason)s)
            || CASE WHEN decision IS NOT NULL
                 THEN ARRAY[format('%%s decided by %%s at %%s%%s%%s', decision, decided_by,
                   to_char(decided_at AT TIME ZONE 'UTC', %(time)s),
                   ' (asked at ' || to_char(asked_at AT TIME ZONE 'UTC', %(time)s) || ')',
                   ', reason given: ' || decision_reason)] END
            || ARRAY[%(reason)s],
          decision = NULL, decided_by = NULL, decided_at = NULL, decision_reason = NULL, asked_at = NULL
        WHERE scan_id = %(scan_id)s
        """,
        {"scan_id": scan_id, "reason": reason, "time": 'YYYY-MM-DD HH24:MI "UTC"'},
    )
    if not updated.rowcount:
        raise unknown_scan(scan_id)


def open_holds(conn: Connection, source: str) -> list[Hold]:
    """Return the source's open holds.

    A hold is open if the latest judged scan of its entity and scope says `hold`, and either nobody has decided or the
    decision was to keep the writer stopped.
    """
    with conn.cursor(row_factory=args_row(_hold)) as cursor:
        return cursor.execute(
            """
            SELECT scan_id, entity, scope, run, reasons, scanned_at, asked_at IS NOT NULL AND NOT rescanned FROM (
              SELECT DISTINCT ON (entity, scope) * FROM confidence.forensic_run
              WHERE source = %s AND verdict IS NOT NULL
              ORDER BY entity, scope, scanned_at DESC
            ) AS latest
            WHERE verdict = 'hold' AND coalesce(decision, 'keep') = 'keep'
            ORDER BY entity, scope
            """,
            [source],
        ).fetchall()


def refresh_hold(conn: Connection, source: str) -> str | None:
    """Set the stopped writer's hold reason from the open holds and return it; None if there are none.

    Raises FenceError if a hold is open but the writer runs. A running writer's row is not touched, so this never waits
    for a sync.
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


def note_asked(conn: Connection, holds: Sequence[Hold]) -> None:
    """Keep when a person was first asked about each of these holds: at one moment, since it is one question."""
    conn.execute(
        "UPDATE confidence.forensic_run SET asked_at = coalesce(asked_at, statement_timestamp())"
        " WHERE scan_id = ANY (%s)",
        [[hold.scan_id for hold in holds]],
    )


def require_asked(conn: Connection, source: str) -> None:
    """Raise HoldChanged if a person was not asked about each open hold, or the entity was scanned again since."""
    unasked = [f"{hold.entity} ({hold.scope})" for hold in open_holds(conn, source) if not hold.asked]
    if unasked:
        raise HoldChanged(
            f"the answer came for an earlier question: {', '.join(unasked)} was scanned or held since. Nothing was"
            " decided, the writer stays stopped. Clear decide with downstream to be asked again"
        )


def decide(
    conn: Connection, source: str, decision: str, who: str, *, reason: str = "", left_out: Collection[str] = ()
) -> list[Hold]:
    """Keep the decision about all open holds of a source, made by `who` for a `reason`; return these holds.

    `resume` accepts their figures as the new baseline, `repair` ends them without that, `keep` leaves them open. If
    the decision is `repair`, no plan of the entities `left_out` is applied, and their figures are accepted too. Raises
    ValueError for another decision, and FenceError as `refresh_hold` does.
    """
    holds, chosen = open_holds(conn, source), Decision(decision)
    left_out = list(left_out) if chosen is Decision.REPAIR else []
    scans, why = [hold.scan_id for hold in holds], reason.replace("\0", "") or None
    values = {"decision": chosen, "who": who, "reason": why, "left_out": left_out, "source": source, "scans": scans}
    conn.execute(LEAVE_OUT, values)
    conn.execute(DECIDE, values)
    questions.note_answer(conn, source, scans, chosen, who, reason=why, left_out=left_out)
    refresh_hold(conn, source)
    return holds


def stays_stopped(conn: Connection, source: str) -> bool:
    """Return whether a person (not the time-out) has decided for each open hold that the writer stays stopped."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        answers = cursor.execute(
            "SELECT decision = 'keep' AND decided_by <> %s FROM confidence.forensic_run WHERE scan_id = ANY (%s)",
            [NOBODY, [hold.scan_id for hold in open_holds(conn, source)]],
        ).fetchall()
    return bool(answers) and all(kept for (kept,) in answers)


def _hold(
    scan_id: str, entity: str, scope: str, run: str, reasons: list[str], scanned_at: datetime, asked: bool
) -> Hold:
    return Hold(scan_id, entity, scope, run, tuple(reasons), scanned_at, asked)


# Of the run that has stopped the writer, and of the scans that hold it.
LEAVE_OUT = """
UPDATE confidence.forensic_run f SET left_out = f.entity = ANY (%(left_out)s) FROM confidence.writer w
WHERE w.source = f.source AND w.source = %(source)s AND (f.run = w.run OR f.scan_id = ANY (%(scans)s))
"""

DECIDE = """
UPDATE confidence.forensic_run f SET decision = %(decision)s, decided_by = %(who)s, decided_at = clock_timestamp(),
  decision_reason = %(reason)s
FROM confidence.writer w
WHERE w.source = f.source AND w.source = %(source)s
  AND (f.scan_id = ANY (%(scans)s) OR f.run = w.run AND f.epoch = w.epoch AND f.left_out AND f.verdict IS NOT NULL)
"""
