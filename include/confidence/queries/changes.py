"""Read the change log: the rows that a sync or repair has changed, column by column."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, sql

from include.confidence.queries.paging import PAGE, Page, decode_cursor, fetch_rows, make_page


@dataclass(frozen=True)
class Difference:
    """A column that differs before and after a change."""

    column: str
    before: Any
    after: Any


# The columns of ours, by which the copy keeps a deleted row and who wrote it.
OURS = ("deleted_at", "sync_id", "row_hash")


@dataclass(frozen=True)
class Change:
    """A row that a sync or repair has changed.

    - `operation`: insert, update, delete, or restore of a row that was deleted in the copy
    - `differences`: a deleted row in full (None after), a restored one likewise (None before). The change log has no
      values of most rows that were inserted.
    """

    change_id: int
    table: str
    key: Mapping[str, Any]
    operation: str
    differences: tuple[Difference, ...]


def list_changes(conn: Connection, sync_id: int, *, cursor: str | None = None, limit: int = PAGE) -> Page[Change]:
    """Return a page of the rows that a sync or repair has changed, newest first. Raises CursorRefused."""
    filters = [("sync_id = %s", sync_id)]
    filters += [("change_id < %s", *decode_cursor(cursor, int))] if cursor else []
    rows = fetch_rows(conn, CHANGES, filters, "change_id DESC", limit)
    return make_page([change_of(row) for row in rows], limit, lambda change: [change.change_id])


def change_of(row: Mapping[str, Any]) -> Change:
    """Return the Change of a row of the change log."""
    before, after = row["before"] or {}, row["after"] or {}
    restored = before.get("deleted_at") is not None and after.get("deleted_at") is None
    if row["operation"] == "delete":
        after = {}
    elif restored:
        before = {}
    columns = [name for name in {**before, **after} if before.get(name) != after.get(name) and name not in OURS]
    return Change(
        change_id=row["change_id"],
        table=row["table_name"],
        key=row["key"],
        operation="restore" if restored else row["operation"],
        differences=tuple(Difference(name, before.get(name), after.get(name)) for name in columns),
    )


CHANGES = sql.SQL("SELECT change_id, table_name, key, operation, before, after FROM confidence.change_log")
