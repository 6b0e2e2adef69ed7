"""Read metrics over the runs, for the trends on a source's page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row, dict_row

from include.confidence.policy import Gate, Verdict, worst_verdict
from include.confidence.queries.paging import MAX_PAGE, bounded
from include.confidence.queries.scans import gates_of

# How many points a series has at most, and by default.
MAX_POINTS, POINTS = 365, 90


@dataclass(frozen=True)
class Part:
    """An entity and scope, whose scans are compared with each other. `scans`: how many the warehouse has."""

    entity: str
    scope: str
    scans: int
    scanned_at: datetime


@dataclass(frozen=True)
class Point:
    """A figure in one run.

    `limit`, `verdict`: the lowest limit and the worst verdict of its gates, None without a gate. `accepted`: a person
    decided to resume, and the figure is the baseline since.
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
    """A metric, or another figure of a gate, over the runs, oldest first."""

    entity: str
    scope: str
    metric: str
    points: tuple[Point, ...]


def list_parts(conn: Connection, source: str) -> list[Part]:
    """Return each entity and scope of the source that has scans: by entity, the last scanned first. The first 200."""
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
    """Return a series for each figure of an entity, over its last `limit` (at most 365) scans of that scope."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            """
            SELECT scanned_at, run, metrics, gates, decision, left_out FROM confidence.forensic_run
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
    """Return the metric's figure in the scan `row`, whose gates are `judged`."""
    gates = [gate for gate in judged if gate.metric == metric]
    # Gates also judge figures that are no metrics, such as plan.delete.
    figures = {gate.metric: gate.value for gate in gates} | row["metrics"]
    return Point(
        scanned_at=row["scanned_at"],
        run=row["run"],
        value=figures.get(metric),
        baseline=next((gate.baseline for gate in gates if gate.baseline is not None), None),
        limit=min((gate.limit for gate in gates if gate.limit is not None), default=None),
        verdict=worst_verdict(gate.verdict for gate in gates),
        accepted=row["decision"] == "resume" or (row["decision"] == "repair" and row["left_out"]),
    )
