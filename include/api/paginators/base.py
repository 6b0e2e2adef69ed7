"""What all paginators have in common: a page, a crawl, and what is asked of a paginator.

Paginators are immutable; a `Crawl` holds what has to be remembered from page to page. A crawl can start at any
position. Positions are plain JSON values (a page number or a token), so a task may store them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

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
