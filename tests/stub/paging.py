"""Lists cut into pages as each kind of paginator says that the vendor cuts them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from include.api.paginators import Cursor, PageNumber, Paginator, Single, SpringPage
from tests.stub.template import Said

Record = Mapping[str, Any]
KINDS = (Cursor, PageNumber, Single, SpringPage)
# A token says where the next page begins; to the client it is any text.
TOKEN = "after-"


@dataclass(frozen=True)
class Asked:
    """The page that a request is for, from 0, and the first row behind it."""

    number: int
    rows: Sequence[Record]
    following: int | None
    pages: int
    total: int


def cut(paginator: Paginator, request: Said, rows: Sequence[Record], size: int) -> Asked:
    """Return the page that the request asks for; one behind the end is empty."""
    size = len(rows) or 1 if isinstance(paginator, Single) else size
    number = _number(paginator, request)
    pages = -(-len(rows) // size)
    following = number + 1 if number + 1 < pages else None
    return Asked(number, rows[number * size : (number + 1) * size], following, pages, len(rows))


def _number(paginator: Paginator, request: Said) -> int:
    if isinstance(paginator, Single):
        return 0
    in_body = isinstance(paginator, Cursor) and paginator.in_body
    given = request.get(("body" if in_body else "query", paginator.param))
    if isinstance(paginator, Cursor):
        return int(given.removeprefix(TOKEN)) if given else 0
    return int(given) - paginator.start if given else 0


def answer(paginator: Paginator, page: Asked) -> Any:
    """Return the page as JSON has it."""
    rows = list(page.rows)
    if isinstance(paginator, Single):
        return rows
    if isinstance(paginator, SpringPage):
        ended = page.following is None
        return {paginator.rows: rows, "totalPages": page.pages, "totalElements": page.total, "last": ended}
    if isinstance(paginator, PageNumber):
        return {paginator.rows: rows, paginator.meta: {"total_pages": page.pages, "total_entries": page.total}}
    told = {paginator.rows: rows}
    if page.following is not None:
        told[paginator.token] = f"{TOKEN}{page.following}"
    if paginator.more:
        told[paginator.more] = page.following is not None
    if paginator.as_of:
        told[paginator.as_of] = datetime.now(UTC).isoformat()
    return told
