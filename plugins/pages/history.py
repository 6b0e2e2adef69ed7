"""The history of one row: how an address names the row, and its changes as CSV."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, HTTPException, Query, status
from psycopg import Connection

from include.confidence.queries.history import KeyRefused, RowChange, RowHistory, read_history
from include.confidence.queries.paging import MAX_PAGE, PAGE
from plugins.pages.access import Source
from plugins.pages.plan import cell, line
from plugins.pages.warehouse import Warehouse, opened

COLUMNS = ("changed_at", "sync_id", "kind", "run", "operation", "column", "before", "after")


def row_query(table: str, key: Mapping[str, Any]) -> str:
    """Return the query of an address that names a row: `table` as the change log has it, and its key as JSON."""
    return urlencode({"table": table, "key": json.dumps(key, ensure_ascii=False)})


def _key(
    key: Annotated[str, Query(description="The columns of its key and their values, as a JSON object.")],
) -> dict[str, int | str]:
    """Return the key that an address names. Raises a 422 for anything that is no key."""
    try:
        found = json.loads(key)
        values = [*found, *found.values()]
        usable = bool(found) and all(type(value) is int or _storable(value) for value in values)
    except (AttributeError, RecursionError, TypeError, ValueError):
        usable = False
    if not usable:
        raise HTTPException(
            status.HTTP_422_UNPROCESSABLE_CONTENT,
            f"{key[:80]!r} is no key of a row: give its columns and their values, numbers or texts, as a JSON object"
            ' such as {"id": 71}',
        )
    return found


def _storable(value: Any) -> bool:
    """Return whether the value is a text that Postgres can store. Raises ValueError for half a surrogate pair."""
    return isinstance(value, str) and bool(value.encode() or True) and "\0" not in value


Table = Annotated[str, Query(description="The table as the change log names it, such as `<source>.<table>`.")]
Key = Annotated[dict[str, int | str], Depends(_key)]


def of_row(
    conn: Connection, source: str, table: str, key: Mapping[str, Any], cursor: str | None, limit: int = PAGE
) -> RowHistory:
    """Return the history of a row. Raises a 404 if nothing is known of it, a 422 for a wrong key."""
    try:
        found = read_history(conn, source, table, key, cursor=cursor, limit=limit)
    except KeyRefused as error:
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, str(error)) from None
    if found is None:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND,
            f"{source} has no row {json.dumps(key)[:80]} in a table {table[:80]!r}, and no change"
            " of one is logged: follow the key of a row on the page of a plan or a sync",
        )
    return found


def _first_page(source: Source, table: Table, key: Key, conn: Warehouse) -> RowHistory:
    return of_row(conn, source, table, key, None, MAX_PAGE)


FirstPage = Annotated[RowHistory, Depends(_first_page)]


def as_csv(source: str, first: RowHistory) -> Iterator[str]:
    """Yield the changes of a row as CSV, one line for each column of each change."""
    yield line(COLUMNS)
    page = first
    while page.items:
        for change in page.items:
            yield from _lines(change)
        if page.next_cursor is None:
            return
        # A slow reader must not keep a connection from the pages.
        with opened() as conn:
            page = of_row(conn, source, first.table, first.key, page.next_cursor, MAX_PAGE)


def _lines(change: RowChange) -> Iterator[str]:
    told = [change.changed_at.isoformat() if change.changed_at else "", str(change.sync_id), change.kind, change.run]
    told.append(change.operation)
    for each in change.differences:
        yield line([*told, each.column, cell(each.before), cell(each.after)])
    if not change.differences:
        yield line([*told, "", "", ""])
