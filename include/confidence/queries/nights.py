"""Read how the nights of the sources ended: the worst verdict of each day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row


@dataclass(frozen=True)
class Night:
    """A day, in UTC: `kind` is the worst verdict of that day's runs, and `run` the run that has it.

    `kind` is `not judged` if no gate came to its end, and `no scan` if nothing was scanned; then `run` is None.
    """

    day: date
    kind: str
    run: str | None


def read_nights(conn: Connection, sources: Sequence[str], since: date) -> dict[str, tuple[Night, ...]]:
    """Return the nights of each source that the warehouse knows, from the day `since` to today, oldest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(NIGHTS, {"sources": list(sources), "since": since}).fetchall()
    found: dict[str, list[Night]] = {}
    for row in rows:
        found.setdefault(row["source"], []).append(_night(row))
    return {source: tuple(nights) for source, nights in found.items()}


def _night(row: Mapping[str, Any]) -> Night:
    kind = "no scan" if row["run"] is None else row["verdict"] or "not judged"
    return Night(row["day"], kind, row["run"])


NIGHTS = """
SELECT w.source, d.day::date AS day, worst.run, worst.verdict
FROM confidence.writer w
CROSS JOIN generate_series(%(since)s::date::timestamp, (now() AT TIME ZONE 'UTC')::date::timestamp, '1 day') AS d (day)
LEFT JOIN LATERAL (
  SELECT f.run, f.verdict FROM confidence.forensic_run f
  WHERE f.source = w.source AND f.scanned_at >= d.day AT TIME ZONE 'UTC'
    AND f.scanned_at < (d.day + interval '1 day') AT TIME ZONE 'UTC'
  ORDER BY array_position(ARRAY['hold', 'warn', 'pass'], f.verdict) NULLS LAST, f.scanned_at DESC LIMIT 1
) AS worst ON true
WHERE w.source = ANY (%(sources)s) ORDER BY w.source, d.day
"""
