"""The scans of all runs with their evidence, kept in `confidence.forensic_run`.

Every function works in the transaction of the connection that it is given and never commits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from include.confidence.summary import ForensicSummary
from include.warehouse.patterns import Pattern


class PlanGone(Exception):
    """A later scan has replaced the plan or the figures of this one. The message says which task to clear."""


def record(conn: Connection, summary: ForensicSummary) -> None:
    """Keep a scan's evidence, not judged yet. It replaces that of an earlier attempt with the same `scan_id`.

    If the earlier attempt was judged `hold`, it stays under another `scan_id`: the hold stays open until the new
    evidence is judged, and a person's decision stays known. An entity that a person has left out of this run's repair
    stays left out until a new answer.
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
        INSERT INTO confidence.forensic_run (scan_id, source, entity, scope, run, epoch, summary, metrics, left_out)
        VALUES (%(scan_id)s, %(source)s, %(entity)s, %(scope)s, %(run)s, %(epoch)s, %(summary)s, %(metrics)s, EXISTS (
          SELECT FROM confidence.forensic_run
          WHERE source = %(source)s AND run = %(run)s AND entity = %(entity)s AND left_out))
        ON CONFLICT (scan_id) DO UPDATE SET
          (source, entity, scope, run, epoch, summary, metrics) = (
            excluded.source, excluded.entity, excluded.scope, excluded.run, excluded.epoch,
            excluded.summary, excluded.metrics),
          (scanned_at, verdict, worse, reasons, baseline, gates, rescanned, asked_at, decision, decided_by,
            decided_at, decision_reason, patterns) = (
            DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT,
            DEFAULT)
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


def is_recorded(conn: Connection, scan_id: str) -> bool:
    """Return whether the evidence of a scan is kept, and no later attempt at it has begun."""
    query = "SELECT EXISTS (SELECT FROM confidence.forensic_run WHERE scan_id = %s AND NOT rescanned)"
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, [scan_id]).fetchone()[0]


def keep_progress(conn: Connection, scan_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Keep a scan's `scan_progress` lines with its evidence."""
    conn.execute("UPDATE confidence.forensic_run SET progress = %s WHERE scan_id = %s", [Jsonb(list(lines)), scan_id])


def keep_seconds(conn: Connection, scan_id: str, seconds: float) -> None:
    """Keep with a scan's evidence how long the attempt took that left it."""
    conn.execute("UPDATE confidence.forensic_run SET seconds = %s WHERE scan_id = %s", [seconds, scan_id])


def keep_patterns(conn: Connection, scan_id: str, patterns: Sequence[Pattern]) -> None:
    """Keep with a scan's evidence what the rows of its plan have in common."""
    found = Jsonb([asdict(pattern) for pattern in patterns])
    conn.execute("UPDATE confidence.forensic_run SET patterns = %s WHERE scan_id = %s", [found, scan_id])


def is_usual(conn: Connection, source: str, entity: str, run: str, scope: str) -> bool:
    """Return whether the last scheduled run scanned this scope. True for a scheduled run, and if there was none."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        usual = cursor.execute(
            "SELECT scope FROM confidence.forensic_run"
            " WHERE source = %s AND entity = %s AND run LIKE '%%/scheduled\\_\\_%%' ORDER BY scanned_at DESC LIMIT 1",
            [source, entity],
        ).fetchone()
    return usual is None or usual[0] == scope or "/scheduled__" in run


def require_latest(conn: Connection, summary: ForensicSummary) -> None:
    """Raise PlanGone unless this is the latest scan of its entity: a later one replaces the plan."""
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


def unknown_scan(scan_id: str) -> LookupError:
    """Return the error to raise if the warehouse has no such scan."""
    return LookupError(f"Scan {scan_id} is not in confidence.forensic_run: clear scan with downstream.")
