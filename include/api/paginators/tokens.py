"""Lists whose pages each lead to the next one: by a token, the last id or a link."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from requests.utils import parse_header_links

from include.api.errors import RefuseData
from include.api.list_answers import as_count, as_rows, listed_rows, optional_rows, query_of, value_at
from include.api.paginators.base import FRESH, Crawl, Page, Paginator, Position
from include.api.request import Answer, Request

# What some APIs write where others leave out the address of the next page.
NO_LINK = ("", False)


@dataclass(frozen=True)
class Cursor(Paginator):
    """Each answer carries the token of the next page under `token`; the last page has none.

    The token is sent as `param`, in the query or, with `in_body`, in the JSON body. `more`: the key of a flag that is
    false on the last page, even if that page has a token. `end`: the key of a flag that is true there. `optional`: an
    answer without rows may leave out the key `rows` if it has no unknown keys. `as_of`: the key of the time up to which
    the list is complete, in ISO 8601. `cap`: as in `Paginator`. Dots in keys lead into objects.
    """

    rows: str
    param: str = "cursor"
    token: str = "cursor"
    more: str | None = None
    end: str | None = None
    in_body: bool = False
    optional: bool = False
    as_of: str | None = None
    cap: int | None = None
    start: None = field(default=None, init=False)
    expires = True

    def __post_init__(self) -> None:
        if self.optional and set(self.rows) & {".", "["}:
            raise ValueError("rows that an answer may leave out are under one key: leave out `optional` or the path")

    @property
    def beside(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.token, self.more, self.end, self.as_of)))

    def request(self, base: Request, position: Position) -> Request:
        if position is None:
            return base
        if self.in_body:
            return replace(base, body={**(base.body or {}), self.param: position})
        return replace(base, params={**base.params, self.param: position})

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        beside = {name.partition(".")[0] for name in self.beside}
        rows = optional_rows(answer.data, self.rows, beside) if self.optional else listed_rows(answer, self.rows)
        token = value_at(answer.data, self.token)
        if token is not None and not isinstance(token, str):
            raise RefuseData(f"{self.token!r} is no text")
        if (self.more and value_at(answer.data, self.more) is False) or _is_end(answer.data, self.end):
            token = None
        return Page(position, rows, token or None, date=answer.date, as_of=self._as_of(answer.data))

    def _as_of(self, data: Mapping[str, Any]) -> datetime | None:
        text = value_at(data, self.as_of) if self.as_of else None
        try:
            moment = datetime.fromisoformat(text) if text else None
            # A time that has no year between 1 and 9999 in UTC could be written to Postgres, but not read again.
            return moment and (moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))
        except (TypeError, ValueError, OverflowError):
            raise RefuseData(f"{self.as_of!r} is no time") from None


@dataclass(frozen=True)
class LastId(Paginator):
    """Each page is asked for by the last id of the page before, sent as `param`; `more` is false on the last page.

    `id`: the key of a row's id. The API may refuse it once that row is deleted. `cap`: as in `Paginator`. Dots in
    `more` lead into objects.
    """

    rows: str
    param: str = "starting_after"
    id: str = "id"
    more: str = "has_more"
    cap: int | None = None
    start: None = field(default=None, init=False)
    expires = True

    @property
    def beside(self) -> tuple[str, ...]:
        return (self.more,)

    def request(self, base: Request, position: Position) -> Request:
        return base if position is None else replace(base, params={**base.params, self.param: position})

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        rows, more = listed_rows(answer, self.rows), value_at(answer.data, self.more)
        if not isinstance(more, bool):
            raise RefuseData(f"{self.more!r} is neither true nor false")
        last = rows[-1].get(self.id) if rows else position
        if more and (last is None or isinstance(last, bool) or not isinstance(last, int | str)):
            raise RefuseData(f"more pages follow, but the last row has no {self.id!r} to ask for them by")
        return Page(position, rows, last if more else None, date=answer.date)

    def contradiction(self, page: Page, crawl: Crawl) -> str:
        return "the page is empty, but says that more follow" if page.next is not None and not page.rows else ""


@dataclass(frozen=True)
class NextLink(Paginator):
    """Each answer carries the address of the next page: under `key`, or as `rel="next"` of its Link header.

    Only the query of that address is used, so that no answer can send the request and its token to another host. It
    replaces the request's own params: the address says all that the next page is asked by.

    - `rows`: the key of the list, None if the answer is a plain array
    - `key`: the key of the address, None if it is in the Link header
    - `total`: the key of the count of all rows, None if there is none
    - `end`: the key of a flag that is true on the last page, even if that page has an address
    - `cap`: as in `Paginator`

    Dots in keys lead into objects.
    """

    rows: str | None = None
    key: str | None = None
    total: str | None = None
    end: str | None = None
    cap: int | None = None
    start: None = field(default=None, init=False)
    expires = True

    def __post_init__(self) -> None:
        if self.rows is None and (self.key or self.total or self.end):
            raise ValueError("a plain array has no keys: its next page is in the Link header, and it tells no total")

    @property
    def beside(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.key, self.total, self.end)))

    def request(self, base: Request, position: Position) -> Request:
        if position is None:
            return base
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(str(position), keep_blank_values=True):
            query.setdefault(name, []).append(value)
        return replace(base, params=query)

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        if self.rows is None:
            rows, link = as_rows(answer.data, "rows"), None
        else:
            rows = listed_rows(answer, self.rows)
            link = value_at(answer.data, self.key) if self.key else None
        if self.key is None:
            link = _next_in_header(answer.headers.get("Link", ""))
        elif link in NO_LINK:
            link = None
        following = None if link is None or _is_end(answer.data, self.end) else query_of(link)
        total = as_count(value_at(answer.data, self.total)) if self.total else None
        return Page(position, rows, following, total_entries=total, date=answer.date)

    def contradiction(self, page: Page, crawl: Crawl) -> str:
        seen = crawl.rows + len(page.rows)
        if page.next is None and page.total_entries is not None and not page.rows and seen < page.total_entries:
            return f"the list ends after {seen} rows, but says that it has {page.total_entries}"
        return ""


def _next_in_header(header: str) -> str | None:
    """Return the address of the next page in a Link header; None if it has none.

    A relation may have several types, and neither these nor names of parameters have a case.
    """
    for link in parse_header_links(header):
        types = next((value for name, value in link.items() if name.lower() == "rel"), "")
        if "next" in types.lower().split():
            return link.get("url")
    return None


def _is_end(data: Any, end: str | None) -> bool:
    """Return whether the flag at the path `end`, if the list has one, says that the page is the last."""
    return end is not None and value_at(data, end) is True
