"""Lists whose pages are asked for by their place: by a number, or by how many rows come before."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from include.api.list_answers import as_count, listed_rows, value_at
from include.api.paginators.base import FRESH, Crawl, Page, Paginator, Position
from include.api.request import Answer, Request


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


def _is_full(rows: list, meta: Mapping[str, Any], crawl: Crawl) -> bool:
    """Return whether a page holds as many rows as a page can.

    `per_page` counts only beside a usable total, and only up to the largest page so far. Some vendors say 25 although
    their pages have 20 rows; every page would look like the last.
    """
    per_page = as_count(meta.get("per_page")) if as_count(meta.get("total_pages")) is not None else None
    sizes = [size for size in (per_page, crawl.largest) if size]
    return bool(rows) and len(rows) >= min(sizes, default=0)
