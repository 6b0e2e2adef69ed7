"""Read how the nights of the sources ended: the worst verdict of each day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from include.confidence.policy import Verdict

NO_SCAN, FAILED = "no scan", "failed"


@dataclass(frozen=True)
class Night:
    """A day, in UTC: `kind` is the worst verdict of that day's runs, and `run` the run that has it.

    A run belongs to the day of its first scan.
    `kind` is `not judged` if no gate came to its end, and `no scan` if nothing was scanned; then `run` is None. It is
    `failed` if that run has failed (see `with_failed`).
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


def with_failed(nights: Sequence[Night], failed: Mapping[str, datetime]) -> tuple[Night, ...]:
    """Return a source's nights with the kind `failed` where the night's run has failed.

    A night without a scan is failed if any run has failed on it. A hold stays a hold: its run fails if nobody answers.
    `failed`: the runs that have failed, and when each began.
    """
    by_day = {at.astimezone(UTC).date(): run for run, at in failed.items()}
    return tuple(
        replace(night, kind=FAILED, run=night.run or by_day[night.day])
        if (night.kind == NO_SCAN and night.day in by_day) or (night.kind != Verdict.HOLD and night.run in failed)
        else night
        for night in nights
    )


def _night(row: Mapping[str, Any]) -> Night:
    kind = NO_SCAN if row["run"] is None else row["verdict"] or "not judged"
    return Night(row["day"], kind, row["run"])


# A day earlier too, for a run that went on after midnight.
NIGHTS = """
WITH scan AS (
  SELECT source, run, verdict, scanned_at,
    (min(scanned_at) OVER (PARTITION BY source, run) AT TIME ZONE 'UTC')::date AS day
  FROM confidence.forensic_run
  WHERE source = ANY (%(sources)s) AND scanned_at >= (%(since)s::date - 1)::timestamp AT TIME ZONE 'UTC'
), worst AS (
  SELECT DISTINCT ON (source, day) source, day, run, verdict FROM scan
  ORDER BY source, day, array_position(ARRAY['hold', 'warn', 'pass'], verdict) NULLS LAST, scanned_at DESC
)
SELECT w.source, d.day::date AS day, worst.run, worst.verdict
FROM confidence.writer w
CROSS JOIN generate_series(%(since)s::date::timestamp, (now() AT TIME ZONE 'UTC')::date::timestamp, '1 day') AS d (day)
LEFT JOIN worst ON worst.source = w.source AND worst.day = d.day::date
WHERE w.source = ANY (%(sources)s) ORDER BY w.source, d.day
"""
