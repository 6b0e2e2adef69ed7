"""Lists that come a page at a time, newest first.

A cursor names the last item of the page before, so that items which are added meanwhile don't move the next page.
"""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from psycopg import Connection, sql
from psycopg.rows import dict_row

# How many items a page has at most, and by default.
MAX_PAGE, PAGE = 200, 50

Item = TypeVar("Item")


class CursorRefused(ValueError):
    """The cursor is not the `next_cursor` of a page of this list."""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items of a list. `next_cursor` leads to the next page; None if there is none."""

    items: tuple[Item, ...]
    next_cursor: str | None


def fetch_rows(
    conn: Connection, query: sql.Composable, filters: Sequence[tuple], order: str, limit: int
) -> list[dict[str, Any]]:
    """Return the rows of a page and one more, which tells whether another page follows.

    `filters`: at least one condition, each as (SQL, its values...). `order`: the SQL after ORDER BY.
    """
    conditions = sql.SQL(" AND ").join(sql.SQL(condition) for condition, *_ in filters)
    composed = sql.SQL("{} WHERE {} ORDER BY {} LIMIT %s").format(query, conditions, sql.SQL(order))
    values = [value for _, *given in filters for value in given]
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(composed, [*values, bounded(limit, MAX_PAGE) + 1]).fetchall()


def make_page(items: list[Item], limit: int, place: Callable[[Item], list[Any]]) -> Page[Item]:
    """Return the page with the first `limit` of `items`, which are one for each row that `fetch_rows` gave.

    `place`: returns the values by which a cursor names an item.
    """
    limit = bounded(limit, MAX_PAGE)
    shown = items[:limit]
    return Page(tuple(shown), _encoded(place(shown[-1])) if len(items) > limit else None)


def bounded(limit: int, most: int) -> int:
    """Return the limit, but at least 1 and at most `most`."""
    return max(1, min(limit, most))


def decode_cursor(cursor: str, *types: type) -> list[Any]:
    """Return the values that the cursor names an item by. Raises CursorRefused unless they are of these types."""
    try:
        place = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise _refused(cursor) from None
    if not isinstance(place, list) or [type(value) for value in place] != list(types):
        raise _refused(cursor)
    # Postgres refuses text with a NUL or half a surrogate pair.
    if not all(value.isprintable() for value in place if isinstance(value, str)):
        raise _refused(cursor)
    return place


def cursor_time(text: str) -> datetime:
    """Return the time that a cursor has as ISO 8601 text. Raises CursorRefused for other text."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise _refused(text) from None


def _encoded(place: list[Any]) -> str:
    """Return the cursor for the item with these values."""
    return urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _refused(cursor: str) -> CursorRefused:
    return CursorRefused(f"cursor {cursor[:80]!r} is none of this list: take next_cursor of the page before as it is")
