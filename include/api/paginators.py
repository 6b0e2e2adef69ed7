"""How APIs cut a list into pages: where to start, how to ask for a page, what follows it.

Paginators are immutable; a `Crawl` holds what has to be remembered from page to page. A crawl can start at any
position. Positions are plain JSON values (a page number or a token), so a task may store them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from requests.utils import parse_header_links

from include.api.errors import RefuseData
from include.api.list_answers import as_count, as_object, as_rows, listed_rows, optional_rows, query_of, value_at
from include.api.request import Answer, Request

Position = int | str | None


@dataclass(frozen=True)
class Page:
    """One page of a list. `next` is the position of the next page, None at the end of the list.

    `total_pages` and `total_entries` are what the server claims, None if it claims nothing usable. `number` is what it
    says which page this is, likewise. `date` is the server's clock. `as_of` is the time up to which the server says
    that the list is complete.
    """

    position: Position
    rows: list[dict]
    next: Position
    total_pages: int | None = None
    total_entries: int | None = None
    number: int | None = None
    date: datetime | None = None
    as_of: datetime | None = None


@dataclass(frozen=True)
class Crawl:
    """The pages so far: rows of the largest page, the totals claimed last, and the number of all rows."""

    largest: int = 0
    total_pages: int | None = None
    rows: int = 0
    total_entries: int | None = None

    def after(self, page: Page) -> "Crawl":
        """Return the crawl with one more page."""
        pages = self.total_pages if page.total_pages is None else page.total_pages
        entries = self.total_entries if page.total_entries is None else page.total_entries
        return Crawl(max(self.largest, len(page.rows)), pages, self.rows + len(page.rows), entries)


FRESH = Crawl()
# What APIs write in place of the address of a next page where there is none.
NO_LINK = (None, "", False)


class Paginator(ABC):
    """The rule by which an API cuts a list into pages.

    - `rows`: where the list is in an answer. Dots lead into objects: `data.items`. If each record is wrapped in an
      object, `[*]` leads into it: `list[*].customer`
    - `expires`: True if the API may refuse a position that was stored for a while
    - `by_place`: True if a page shows what stands at its places in the list when it is read, so that rows that move are
      shown twice or never
    - `cap`: the number of rows after which the API ends the list, though it may have more; None if it ends none early
    """

    rows: str
    start: Position
    expires = False
    by_place = False
    cap: int | None = None

    @property
    def beside(self) -> tuple[str, ...]:
        """The fields beside the rows that are read, as far as the answer has them; dots lead into objects."""
        return ()

    @abstractmethod
    def request(self, base: Request, position: Position) -> Request:
        """Return the request for the page at `position`."""

    @abstractmethod
    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        """Return the page at `position` from its answer. Raises RefuseData if the answer holds none."""

    def ahead(self, position: Position, crawl: Crawl, count: int) -> list[Position]:
        """Return up to `count` positions after `position` that are known to exist before that page is read."""
        return []

    def doubtful(self, page: Page, crawl: Crawl) -> bool:
        """Return whether a page may be empty by mistake, so that it should be fetched once more."""
        # An API may also answer so to a token that has expired.
        return not page.rows and (page.next is not None or page.position != self.start)

    def contradiction(self, page: Page, crawl: Crawl) -> str:
        """Return why the page contradicts the totals of the list, empty if it doesn't.

        Its own totals count; if it has none, those of the pages before.
        """
        return ""

    def past_end(self, page: Page, crawl: Crawl) -> bool:
        """Return whether the page lies after the last one by the totals: some servers repeat their last page there."""
        return False

    def may_be_past_end(self, page: Page, crawl: Crawl) -> bool:
        """Return whether the list may have ended before this page: some servers answer 404 there."""
        return False

    def overlapping(self, rows: int) -> Position:
        """Return a position whose page shares rows with the first one, if the API counts as this does; None if none.

        `rows`: the number of rows on the first page
        """
        return None

    def may_be_none(self, position: Position) -> bool:
        """Return whether the page at the `overlapping` position may be empty."""
        return False


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
        following = None if link in NO_LINK or _is_end(answer.data, self.end) else query_of(link)
        total = as_count(value_at(answer.data, self.total)) if self.total else None
        return Page(position, rows, following, total_entries=total, date=answer.date)

    def contradiction(self, page: Page, crawl: Crawl) -> str:
        seen = crawl.rows + len(page.rows)
        if page.next is None and page.total_entries is not None and not page.rows and seen < page.total_entries:
            return f"the list ends after {seen} rows, but says that it has {page.total_entries}"
        return ""


@dataclass(frozen=True)
class Single(Paginator):
    """The whole list comes in one answer: a plain array, or an object that is the only row."""

    start: None = field(default=None, init=False)

    def request(self, base: Request, position: Position) -> Request:
        return base

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        rows = answer.data if isinstance(answer.data, list) else [as_object(answer.data)]
        return Page(position, as_rows(rows, "rows"), None, date=answer.date)


class _Numbered(Paginator):
    """Pages have numbers, counted from `start`."""

    param: str
    start: int
    by_place = True

    def request(self, base: Request, position: Position) -> Request:
        return replace(base, params={**base.params, self.param: position})

    def ahead(self, position: Position, crawl: Crawl, count: int) -> list[Position]:
        last = self.start + (crawl.total_pages or 0) - 1
        return list(range(position + 1, min(position + count, last) + 1))

    def doubtful(self, page: Page, crawl: Crawl) -> bool:
        # Without any total an empty page is the only sign of the end, so it is fetched twice.
        claims = [total for total in (crawl.total_pages, page.total_pages) if total is not None]
        return not page.rows and (not claims or self._nth(page.position) < max(claims))

    def contradiction(self, page: Page, crawl: Crawl) -> str:
        if self._is_another(page, crawl):
            return f"page {page.position} was asked for, but the answer says that it is page {page.number}"
        if page.rows or (page.total_entries is not None and crawl.rows >= page.total_entries):
            return ""
        number = self._nth(page.position)
        if number == 1 and page.total_entries:
            return f"the list is empty, but says that it has {page.total_entries} entries"
        # Some servers count an empty list as one page. If this page names no totals, the list may have become shorter.
        last = (crawl.total_pages or 0) - 1 if page.total_pages is None else page.total_pages
        if number <= last and (number, last) != (1, 1):
            return f"page {number} is empty, but the list says that it has {max(last, number)} pages"
        return ""

    def _is_another(self, page: Page, crawl: Crawl) -> bool:
        """Return whether the server says that it shows another page than the one that was asked for.

        Past the end some servers show their last page once more, and some call each page their first one.
        """
        last = max(crawl.total_pages or 0, page.total_pages or 0)
        return page.number not in (None, page.position, self.start) and self._nth(page.position) <= last

    def past_end(self, page: Page, crawl: Crawl) -> bool:
        return self._nth(page.position) > max(crawl.total_pages or 0, page.total_pages or 0, 2)

    def may_be_past_end(self, page: Page, crawl: Crawl) -> bool:
        return crawl.rows > 0 and self._nth(page.position) > (crawl.total_pages or 0)

    def overlapping(self, rows: int) -> Position:
        # Many servers take the page before the first one for the first one.
        return self.start - 1 if self.start > 0 and rows else None

    def may_be_none(self, position: Position) -> bool:
        return True

    def _nth(self, position: int) -> int:
        """Return the number of pages up to and including the one at `position`."""
        return position - self.start + 1


@dataclass(frozen=True)
class PageNumber(_Numbered):
    """Pages have numbers, and totals under `meta`. Any total may be missing, a text, or wrong.

    A total proves only that more pages exist. Up to it the crawl goes on, even past empty pages; after it the crawl
    goes on as long as pages are full. Without any total it goes on to a page without rows: some servers leave rows out
    of a page after they have cut it. `cap`: as in `Paginator`.
    """

    rows: str
    param: str = "page"
    start: int = 1
    meta: str = "meta"
    cap: int | None = None

    @property
    def beside(self) -> tuple[str, ...]:
        return tuple(f"{self.meta}.{name}" for name in ("total_pages", "total_entries", "per_page", "page"))

    def read(self, answer: Answer, position: int, crawl: Crawl = FRESH) -> Page:
        rows = listed_rows(answer, self.rows)
        data = answer.data
        meta = data.get(self.meta)
        meta = meta if isinstance(meta, dict) else {}
        total, entries = as_count(meta.get("total_pages")), as_count(meta.get("total_entries"))
        number = as_count(meta.get("page"))
        page = Page(position, rows, None, total, entries, number, answer.date)
        total_pages = crawl.after(page).total_pages
        more = bool(rows) if total_pages is None else self._nth(position) < total_pages or _is_full(rows, meta, crawl)
        return replace(page, next=position + 1 if more else None)


@dataclass(frozen=True)
class Offset(Paginator):
    """Each page is asked for by the number of rows before it: `param`, in the query or, with `in_body`, in the body.

    `total`: the key of the count of all rows; dots lead into objects. It may be missing, a text, or wrong: it proves
    only that more rows follow. Up to it the crawl goes on; after it the crawl goes on as long as pages are full, and
    without it to a page without rows. A page may have fewer rows than were asked for. `cap`: as in `Paginator`.
    """

    rows: str
    param: str = "offset"
    total: str | None = None
    in_body: bool = False
    cap: int | None = None
    start: None = field(default=None, init=False)
    by_place = True

    @property
    def beside(self) -> tuple[str, ...]:
        return (self.total,) if self.total else ()

    def request(self, base: Request, position: Position) -> Request:
        if position is None:
            return base
        if self.in_body:
            return replace(base, body={**(base.body or {}), self.param: int(position)})
        return replace(base, params={**base.params, self.param: int(position)})

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        rows = listed_rows(answer, self.rows)
        total = as_count(value_at(answer.data, self.total)) if self.total else None
        page = Page(position, rows, None, total_entries=total, date=answer.date)
        known, seen = crawl.after(page).total_entries, int(position or 0) + len(rows)
        more = bool(rows) and (known is None or seen < known or len(rows) >= crawl.largest)
        # A text, since a number would be that of a page.
        return replace(page, next=str(seen) if more else None)

    def overlapping(self, rows: int) -> Position:
        # From the middle on: rows may come or go meanwhile.
        return str(rows // 2) if rows > 1 else None

    def doubtful(self, page: Page, crawl: Crawl) -> bool:
        return super().doubtful(page, crawl) and not self.may_be_past_end(page, crawl.after(page))

    def contradiction(self, page: Page, crawl: Crawl) -> str:
        seen, total = int(page.position or 0), page.total_entries
        if page.rows or total is None or seen >= total:
            return ""
        return f"the list ends after {seen} rows, but says that it has {total}"

    def past_end(self, page: Page, crawl: Crawl) -> bool:
        return page.total_entries is not None and int(page.position or 0) >= page.total_entries

    def may_be_past_end(self, page: Page, crawl: Crawl) -> bool:
        return crawl.total_entries is not None and int(page.position or 0) >= crawl.total_entries


@dataclass(frozen=True)
class SpringPage(_Numbered):
    """Pages of Spring: objects with `content`, `totalPages` and `last`, or plain arrays.

    More pages follow if the total says so, or if the page has rows and `last` is not true. Without `last` the total
    ends the list; without both, the first page without rows does.
    """

    rows: str = "content"
    param: str = "page"
    start: int = 0

    @property
    def beside(self) -> tuple[str, ...]:
        return ("totalPages", "totalElements", "last", "number")

    def read(self, answer: Answer, position: int, crawl: Crawl = FRESH) -> Page:
        data = {self.rows: answer.data} if isinstance(answer.data, list) else answer.data
        rows = listed_rows(replace(answer, data=data), self.rows)
        pages, entries = as_count(data.get("totalPages")), as_count(data.get("totalElements"))
        # Where requests count from one, Spring's answers still count from zero.
        number = as_count(data.get("number")) if self.start == 0 else None
        page = Page(position, rows, None, pages, entries, number, answer.date)
        total_pages = crawl.after(page).total_pages
        is_last = data.get("last", total_pages is not None) is True
        more = self._nth(position) < (total_pages or 0) or (bool(rows) and not is_last)
        return replace(page, next=position + 1 if more else None)


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


def _is_full(rows: list, meta: Mapping[str, Any], crawl: Crawl) -> bool:
    """Return whether a page holds as many rows as a page can.

    `per_page` counts only beside a usable total, and only up to the largest page so far. Some vendors say 25 although
    their pages have 20 rows; every page would look like the last.
    """
    per_page = as_count(meta.get("per_page")) if as_count(meta.get("total_pages")) is not None else None
    sizes = [size for size in (per_page, crawl.largest) if size]
    return bool(rows) and len(rows) >= min(sizes, default=0)
