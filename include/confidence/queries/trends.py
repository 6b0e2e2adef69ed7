"""Metrics over the runs, as the page of a source draws them. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row, dict_row

from include.confidence.policy import Gate, Verdict, worst_verdict
from include.confidence.queries.paging import MAX_PAGE, bounded
from include.confidence.queries.scans import gates_of

# Points of a series: at most, and unless told otherwise.
MAX_POINTS, POINTS = 365, 90


@dataclass(frozen=True)
class Part:
    """What is scanned under one name and so compared with itself; `scans` counts those that are kept."""

    entity: str
    scope: str
    scans: int
    scanned_at: datetime


@dataclass(frozen=True)
class Point:
    """A figure in one run. `limit` is the strictest of its gates, `verdict` the worst of them, None without a gate.

    `accepted`: a person resumed with this figure, which is the baseline since.
    """

    scanned_at: datetime
    run: str
    value: int | None
    baseline: float | None
    limit: float | None
    verdict: Verdict | None
    accepted: bool


@dataclass(frozen=True)
class Series:
    """A metric, or another figure that is judged, over the runs, oldest first."""

    entity: str
    scope: str
    metric: str
    points: tuple[Point, ...]


def list_parts(conn: Connection, source: str) -> list[Part]:
    """What the source's scans have looked at, by entity; of the scopes the one scanned last comes first."""
    with conn.cursor(row_factory=class_row(Part)) as cursor:
        return cursor.execute(
            """
            SELECT entity, scope, count(*) AS scans, max(scanned_at) AS scanned_at
            FROM confidence.forensic_run WHERE source = %s
            GROUP BY entity, scope ORDER BY entity, max(scanned_at) DESC LIMIT %s
            """,
            [source, MAX_PAGE],
        ).fetchall()


def read_series(conn: Connection, source: str, entity: str, scope: str = "all", limit: int = POINTS) -> list[Series]:
    """Every figure of an entity, metrics and what else is judged, over its last scans of that scope, at most 365."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            """
            SELECT scanned_at, run, metrics, gates, decision FROM confidence.forensic_run
            WHERE source = %s AND entity = %s AND scope = %s ORDER BY scanned_at DESC LIMIT %s
            """,
            [source, entity, scope, bounded(limit, MAX_POINTS)],
        ).fetchall()
    rows.reverse()
    judged = [(row, gates_of(row)) for row in rows]
    metrics = dict.fromkeys(
        metric for row, gates in judged for metric in (*row["metrics"], *(gate.metric for gate in gates))
    )
    return [
        Series(entity, scope, metric, tuple(_point(row, gates, metric) for row, gates in judged)) for metric in metrics
    ]


def _point(row: Mapping[str, Any], judged: Sequence[Gate], metric: str) -> Point:
    gates = [gate for gate in judged if gate.metric == metric]
    # What a repair would change is judged, but no metric.
    figures = {gate.metric: gate.value for gate in gates} | row["metrics"]
    return Point(
        scanned_at=row["scanned_at"],
        run=row["run"],
        value=figures.get(metric),
        baseline=next((gate.baseline for gate in gates if gate.baseline is not None), None),
        limit=min((gate.limit for gate in gates if gate.limit is not None), default=None),
        verdict=worst_verdict(gate.verdict for gate in gates),
        accepted=row["decision"] == "resume",
    )
