"""Read metrics and total drift over the runs, for the trends on a source's page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from math import ceil
from typing import Any, TypeVar

from psycopg import Connection
from psycopg.rows import class_row, dict_row

from include.confidence.policy import SEVERITY, Gate, Verdict
from include.confidence.queries.paging import MAX_PAGE
from include.confidence.queries.scans import gates_of

# The most points of a plot, and the most scans or runs of a period that are read for them.
POINTS, MOST = 90, 1000
# The longest period, in days.
MAX_DAYS = 366
# Among how many of the newest runs one that looked at more shows that the newest has left something out.
NEWEST = 7

T = TypeVar("T")


@dataclass(frozen=True)
class EntityScope:
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
    """A metric, or another figure of a gate, over the runs, oldest first.

    `scans`: how many scans the points stand for. If these are more than the points, each point but the last is the
    worst of several scans in a row.
    """

    entity: str
    scope: str
    metric: str
    points: tuple[Point, ...]
    scans: int


@dataclass(frozen=True)
class RunDrift:
    """How much one run planned to change in all entities together, and how many rows it could not prove.

    All figures are None if the run left an entity out or a scan was no evidence: their sum is not known. `unproven` is
    also None if a scan kept no account of the rows.
    """

    run: str
    scanned_at: datetime
    insert: int | None
    update: int | None
    delete: int | None
    unproven: int | None

    @property
    def total(self) -> int | None:
        """All planned changes and unproven rows; None if the changes are not known."""
        if self.insert is None:
            return None
        return self.insert + self.update + self.delete + (self.unproven or 0)


@dataclass(frozen=True)
class TotalDrift:
    """The drift of a source over its runs, oldest first.

    `runs`: how many the points stand for, as in `Series`. `left_out`: how many have no point, since they
    looked at other parts.
    """

    points: tuple[RunDrift, ...]
    runs: int
    left_out: int = 0


def list_parts(conn: Connection, source: str) -> list[EntityScope]:
    """Return each entity and scope of the source that has scans: by entity, the last scanned first. The first 200."""
    with conn.cursor(row_factory=class_row(EntityScope)) as cursor:
        return cursor.execute(
            """
            SELECT entity, scope, count(*) AS scans, max(scanned_at) AS scanned_at
            FROM confidence.forensic_run WHERE source = %s
            GROUP BY entity, scope ORDER BY entity, max(scanned_at) DESC LIMIT %s
            """,
            [source, MAX_PAGE],
        ).fetchall()


def read_series(
    conn: Connection, source: str, entity: str, scope: str = "all", *, days: int | None = None
) -> list[Series]:
    """Return a series for each figure of an entity, over its scans of that scope.

    `days`: over those of so many days, instead of the newest POINTS.
    """
    params = {"source": source, "entity": entity, "scope": scope, **_period(days)}
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(SCANS, params).fetchall()
    rows.reverse()
    judged = [(row, {gate.metric: gate for gate in gates_of(row)}) for row in rows]
    metrics = dict.fromkeys(metric for row, gates in judged for metric in (*row["metrics"], *gates))
    return [
        Series(entity, scope, metric, thinned([_point(row, gates, metric) for row, gates in judged], _rank), len(rows))
        for metric in metrics
    ]


def read_drift(conn: Connection, source: str, *, days: int | None = None) -> TotalDrift:
    """Return the total drift of a source over its runs: of so many `days`, or the newest POINTS.

    The newest scan of each entity and scope counts. Runs that looked at other parts than runs do at present are left
    out, such as a run over some pages, or before the scope was changed: their sums can't be compared.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(DRIFT, {"source": source, **_period(days)}).fetchall()
    runs = [list(scans) for _, scans in groupby(rows, key=lambda row: row["run"])]
    usual = _usual(runs)
    alike = [scans for scans in runs if _parts(scans) <= usual or _parts(scans) >= usual]
    points = sorted((_drift(scans, usual) for scans in alike), key=lambda point: point.scanned_at)
    return TotalDrift(thinned(points, _drift_rank), len(points), len(runs) - len(points))


def thinned(points: Sequence[T], rank: Callable[[T], Any]) -> tuple[T, ...]:
    """Return at most POINTS of the points: of as many in a row as it takes the highest by `rank`, and the last."""
    if len(points) <= POINTS:
        return tuple(points)
    *rest, last = points
    size = ceil(len(rest) / (POINTS - 1))
    return (*(max(rest[start : start + size], key=rank) for start in range(0, len(rest), size)), last)


def _period(days: int | None) -> dict[str, int | None]:
    return {"days": days, "limit": MOST if days else POINTS}


def _rank(point: Point) -> tuple[float, bool, int, bool]:
    """Return by what the worst of several points is shown: its verdict, a person's decision, its value.

    What is not judged is worse than a pass, and a value that is not known worse than 0.
    """
    severity = 0.5 if point.verdict is None else SEVERITY[point.verdict]
    return severity, point.accepted, point.value or 0, point.value is None


def _drift_rank(point: RunDrift) -> tuple[int, bool, bool]:
    """Return by what the worst of several runs is shown: its total; one that is not known is worse than 0."""
    return point.total or 0, point.total is None, point.unproven is None


def _usual(runs: Sequence[Sequence[Mapping[str, Any]]]) -> frozenset[tuple[str, str]]:
    """Return what a run looks at, at present: the parts of the newest scheduled run, or of any if none is scheduled.

    If one of the runs just before it looked at these and more, the newest has left something out, or is still going on.
    """
    scheduled = [scans for scans in runs if "/scheduled__" in scans[0]["run"]] or runs
    by_age = sorted(scheduled, key=lambda scans: max(scan["scanned_at"] for scan in scans), reverse=True)
    newest, *before = [*map(_parts, by_age[:NEWEST])] or [frozenset()]
    return max([newest, *(parts for parts in before if parts > newest)], key=len)


def _parts(scans: Sequence[Mapping[str, Any]]) -> frozenset[tuple[str, str]]:
    return frozenset((scan["entity"], scan["scope"]) for scan in scans)


def _drift(scans: Sequence[Mapping[str, Any]], usual: frozenset[tuple[str, str]]) -> RunDrift:
    """Return the drift of a run from its scans; without figures if it lacks one of the `usual` parts."""
    known = _parts(scans) >= usual and not any(scan["incomplete"] for scan in scans)
    figures = {name: [scan[name] for scan in scans] for name in ("insert", "update", "delete", "unproven")}
    return RunDrift(
        run=scans[0]["run"],
        scanned_at=max(scan["scanned_at"] for scan in scans),
        **{name: sum(each) if known and None not in each else None for name, each in figures.items()},
    )


def _point(row: Mapping[str, Any], judged: Mapping[str, Gate], metric: str) -> Point:
    """Return the metric's figure in the scan `row`, whose gates are `judged`."""
    gate = judged.get(metric)
    # Gates also judge figures that are no metrics, such as plan.delete.
    return Point(
        scanned_at=row["scanned_at"],
        run=row["run"],
        value=row["metrics"].get(metric, gate and gate.value),
        baseline=gate and gate.baseline,
        limit=gate and gate.limit,
        verdict=gate and gate.verdict,
        accepted=row["decision"] == "resume" or (row["decision"] == "repair" and row["left_out"]),
    )


# Without a period the limit alone bounds what is read.
SCANS = """
SELECT scanned_at, run, metrics, gates, decision, left_out FROM confidence.forensic_run
WHERE source = %(source)s AND entity = %(entity)s AND scope = %(scope)s
  AND scanned_at >= coalesce(now() - make_interval(days => %(days)s), '-infinity')
ORDER BY scanned_at DESC LIMIT %(limit)s
"""

# The unproven rows are those of Account.not_proven.
DRIFT = """
WITH runs AS (
  SELECT run FROM confidence.forensic_run
  WHERE source = %(source)s AND scanned_at >= coalesce(now() - make_interval(days => %(days)s), '-infinity')
  GROUP BY run ORDER BY max(scanned_at) DESC LIMIT %(limit)s
)
SELECT DISTINCT ON (f.run, f.entity, f.scope) f.run, f.entity, f.scope, f.scanned_at, found.*
FROM runs JOIN confidence.forensic_run f ON f.run = runs.run AND f.source = %(source)s
CROSS JOIN LATERAL (
  SELECT coalesce(incomplete, '') <> '' AS incomplete, plan.*, (
      SELECT sum(account.unproven + account.missing_unproven + account.unseen)::bigint
      FROM jsonb_each(accounts) AS of_table (name, counts),
        jsonb_to_record(counts) AS account (unproven bigint, missing_unproven bigint, unseen bigint)
    ) AS unproven
  FROM jsonb_to_record(f.summary) AS summary (incomplete text, plan jsonb, accounts jsonb),
    jsonb_to_record(plan) AS plan (insert bigint, update bigint, delete bigint)
) AS found
ORDER BY f.run, f.entity, f.scope, f.scanned_at DESC
"""
