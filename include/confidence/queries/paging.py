"""Lists that come a page at a time: every list is bounded, and goes on behind the last item of the page before.

The cursor names that item, so what is added meanwhile moves nothing.
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

# Items of a page: at most, and unless told otherwise.
MAX_PAGE, PAGE = 200, 50

Item = TypeVar("Item")


class CursorRefused(ValueError):
    """The cursor is none that a page has given."""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items of a list; `next_cursor` asks for those behind them, None at the end."""

    items: tuple[Item, ...]
    next_cursor: str | None


def fetch_rows(
    conn: Connection, query: sql.Composable, wanted: Sequence[tuple], order: str, limit: int
) -> list[dict[str, Any]]:
    """One row more than the page has, which tells whether another page follows."""
    conditions = sql.SQL(" AND ").join(sql.SQL(condition) for condition, *_ in wanted)
    composed = sql.SQL("{} WHERE {} ORDER BY {} LIMIT %s").format(query, conditions, sql.SQL(order))
    values = [value for _, *given in wanted for value in given]
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(composed, [*values, bounded(limit, MAX_PAGE) + 1]).fetchall()


def make_page(items: list[Item], limit: int, place: Callable[[Item], list[Any]]) -> Page[Item]:
    limit = bounded(limit, MAX_PAGE)
    shown = items[:limit]
    return Page(tuple(shown), _encoded(place(shown[-1])) if len(items) > limit else None)


def bounded(limit: int, most: int) -> int:
    return max(1, min(limit, most))


def decode_cursor(cursor: str, *types: type) -> list[Any]:
    try:
        place = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise _refused(cursor) from None
    if not isinstance(place, list) or [type(value) for value in place] != list(types):
        raise _refused(cursor)
    # Neither a NUL nor half a surrogate pair can be asked for.
    if not all(value.isprintable() for value in place if isinstance(value, str)):
        raise _refused(cursor)
    return place


def cursor_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise _refused(text) from None


def _encoded(place: list[Any]) -> str:
    return urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _refused(cursor: str) -> CursorRefused:
    return CursorRefused(f"cursor {cursor[:80]!r} is none of this list: take next_cursor of the page before as it is")
