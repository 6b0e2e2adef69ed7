"""Read the planned changes of a scan row by row, with what they change, for pages and endpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import class_row, tuple_row

from include.confidence.queries.paging import PAGE, Page, decode_cursor, fetch_rows, make_page


@dataclass(frozen=True)
class PlannedChange:
    """A change that a scan has planned.

    - `key`: the values of the key columns by name
    - `status`: see include/warehouse/compare.py; only `confirmed` changes may be applied. `why`: why it is not
    - `looked`: whether the source was asked for this row by itself
    - `before`: the row as the copy had it, for an insert its tombstone or None. `after`: as the source showed it, None
      for a delete
    - `differs`: the columns that an update changes
    """

    change_id: int
    table: str
    key: Mapping[str, Any]
    operation: str
    status: str
    why: str | None
    looked: bool
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    differs: tuple[str, ...]
    planned_at: datetime


@dataclass(frozen=True)
class PlanFilter:
    """Which planned changes are shown; "" for no filter.

    - `column`: updates that change this column, or with `value`: changes in whose row it has this value on either side
    - `key`: a value of the key
    """

    table: str = ""
    operation: str = ""
    status: str = ""
    column: str = ""
    value: str = ""
    key: str = ""

    def conditions(self) -> list[tuple]:
        found: list[tuple] = []
        for name, asked in (("table_name", self.table), ("operation", self.operation), ("status", self.status)):
            found += [(f"{name} = %s", asked)] if asked else []
        if self.column and self.value:
            found.append(("%s IN (before ->> %s, after ->> %s)", self.value, self.column, self.column))
        elif self.column:
            found.append(("%s = ANY (differs)", self.column))
        if self.key:
            found.append(("%s = ANY (key_values)", self.key))
        return found


@dataclass(frozen=True)
class PlanCount:
    """How many changes of one table have this operation and status."""

    table: str
    operation: str
    status: str
    changes: int


def list_planned(
    conn: Connection, evidence: str, chosen: PlanFilter, *, cursor: str | None = None, limit: int = PAGE
) -> Page[PlannedChange]:
    """Return a page of a scan's planned changes, in the order of the plan. Raises CursorRefused."""
    filters = [("evidence = %s", evidence), *chosen.conditions()]
    filters += [("change_id > %s", *decode_cursor(cursor, int))] if cursor else []
    rows = fetch_rows(conn, PLANNED, filters, "change_id", limit)
    return make_page([_planned(row) for row in rows], limit, lambda change: [change.change_id])


def count_planned(conn: Connection, evidence: str) -> list[PlanCount]:
    """Return how many changes of a scan are kept, by table, operation and status."""
    with conn.cursor(row_factory=class_row(PlanCount)) as cursor:
        return cursor.execute(COUNTS, [evidence]).fetchall()


def name_planned(conn: Connection, name: str, changes: Sequence[PlannedChange]) -> Mapping[int, str]:
    """Return what people call the rows of these changes, by change_id, as far as it is known.

    `name`: SQL for it, as `planned_name` of a source.
    """
    if not name or not changes:
        return {}
    query = sql.SQL(NAMES).format(name=sql.SQL(name))
    with conn.cursor(row_factory=tuple_row) as cursor:
        return dict(cursor.execute(query, [[change.change_id for change in changes]]).fetchall())


def _planned(row: Mapping[str, Any]) -> PlannedChange:
    return PlannedChange(**row | {"differs": tuple(row["differs"])})


PLANNED = sql.SQL(
    'SELECT change_id, table_name AS "table", key, operation, status, why, looked, before, after, differs, planned_at'
    " FROM confidence.planned_change"
)

NAMES = """
SELECT change_id, name FROM confidence.planned_change p CROSS JOIN LATERAL (SELECT {name} AS name) called
WHERE change_id = ANY (%s) AND name <> ''
"""

COUNTS = """
SELECT table_name AS "table", operation, status, count(*) AS changes FROM confidence.planned_change
WHERE evidence = %s GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
