"""Lists cut into pages as each kind of paginator says that the vendor cuts them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from include.api.paginators import Cursor, LastId, NextLink, Offset, PageNumber, Paginator, Single, SpringPage
from tests.stub.template import Said

Record = Mapping[str, Any]
KINDS = (Cursor, LastId, NextLink, Offset, PageNumber, Single, SpringPage)
# A token says where the next page begins; to the client it is any text.
TOKEN = "after-"
# What a link to the next page has beside what was asked for.
SKIP = "skip_token"


@dataclass(frozen=True)
class Asked:
    """The page that a request is for, from 0, and the first row behind it."""

    number: int
    rows: Sequence[Record]
    following: int | None
    pages: int
    total: int


class UnknownPage(ValueError):
    """The request asks for a page by a token or a number that no answer had."""


def cut(paginator: Paginator, request: Said, rows: Sequence[Record], size: int) -> Asked:
    """Return the page that the request asks for; one behind the end is empty. Raises UnknownPage."""
    size = len(rows) or 1 if isinstance(paginator, Single) else size
    try:
        start = _start(paginator, request, rows, size)
    except (ValueError, TypeError, AttributeError):
        raise UnknownPage from None
    number = -(-start // size)
    following = number + 1 if start + size < len(rows) else None
    return Asked(number, rows[start : start + size], following, -(-len(rows) // size), len(rows))


def _start(paginator: Paginator, request: Said, rows: Sequence[Record], size: int) -> int:
    """Return the number of rows before the page that the request asks for."""
    if isinstance(paginator, LastId):
        return _behind(paginator, request, rows)
    if isinstance(paginator, Offset):
        return int(request.get(("body" if paginator.in_body else "query", paginator.param), 0))
    return _number(paginator, request) * size


def _behind(paginator: LastId, request: Said, rows: Sequence[Record]) -> int:
    """The place behind the row of the id that the request names; the start of the list where none is named."""
    given = request.get(("query", paginator.param))
    return next((place for place, row in enumerate(rows, 1) if str(row[paginator.id]) == given), 0)


def _number(paginator: Paginator, request: Said) -> int:
    if isinstance(paginator, Single):
        return 0
    if isinstance(paginator, NextLink):
        return int(request.get(("query", SKIP), 0))
    in_body = isinstance(paginator, Cursor) and paginator.in_body
    given = request.get(("body" if in_body else "query", paginator.param))
    if isinstance(paginator, Cursor):
        return int(given.removeprefix(TOKEN)) if given else 0
    return int(given) - paginator.start if given else 0


def link(request: Said, page: Asked) -> str | None:
    """Return the address of the next page: that of this one, but for the place where it begins."""
    if page.following is None:
        return None
    query = {place[1]: value for place, value in request.items() if place[0] == "query"}
    return f"https://api.example{request['path',]}?{urlencode({**query, SKIP: page.following}, doseq=True)}"


def headers(paginator: Paginator, page: Asked, request: Said) -> Mapping[str, str]:
    """Return what the answer's headers say of the next page."""
    address = link(request, page) if isinstance(paginator, NextLink) and paginator.key is None else None
    return {"Link": f'<{address}>; rel="next"'} if address else {}


def answer(paginator: Paginator, page: Asked, request: Said) -> Any:
    """Return the page as JSON has it."""
    if paginator.rows is None:
        return list(page.rows)
    to_list, _, to_record = paginator.rows.partition("[*].")
    rows = [_put({}, to_record, row) for row in page.rows] if to_record else list(page.rows)
    told: dict[str, Any] = {}
    for name, value in _beside(paginator, page, request).items():
        # Names with dots that are no paths begin so.
        told = {**told, name: value} if name.startswith("@") else _put(told, name, value)
    told = _put(told, to_list, rows)
    if isinstance(paginator, Cursor) and (page.following is not None or paginator.end):
        # One that tells its end has a token on its last page too.
        told = _put(told, paginator.token, f"{TOKEN}{page.number + 1}")
    return told


def _beside(paginator: Paginator, page: Asked, request: Said) -> dict[str, Any]:
    """Return what stands at the top of the answer, beside its rows and the token of a cursor."""
    goes_on = page.following is not None
    if isinstance(paginator, Single):
        return {}
    if isinstance(paginator, LastId):
        return {paginator.more: goes_on}
    if isinstance(paginator, SpringPage):
        return {"totalPages": page.pages, "totalElements": page.total, "last": not goes_on}
    if isinstance(paginator, PageNumber):
        return {paginator.meta: {"total_pages": page.pages, "total_entries": page.total}}
    if isinstance(paginator, Offset):
        return {paginator.total: page.total} if paginator.total else {}
    if isinstance(paginator, NextLink):
        address = {paginator.key: link(request, page)} if paginator.key and goes_on else {}
        total = {paginator.total: page.total} if paginator.total else {}
        return address | total | ({paginator.end: not goes_on} if paginator.end else {})
    flags = {paginator.more: goes_on, paginator.end: not goes_on, paginator.as_of: datetime.now(UTC).isoformat()}
    return {name: value for name, value in flags.items() if name}


def _put(told: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the object with the value at a path with dots."""
    name, _, inner = path.partition(".")
    return {**told, name: _put(told.get(name, {}), inner, value) if inner else value}
