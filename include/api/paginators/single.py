"""Lists that come in one answer."""

from dataclasses import dataclass, field

from include.api.errors import RefuseData
from include.api.list_answers import as_object, as_rows, listed_rows
from include.api.paginators.base import FRESH, Crawl, Page, Paginator, Position
from include.api.request import Answer, Request

# What stands beside the rows of a list whose answer is not the whole of it.
MORE = ("has_more", "hasMore", "next", "next_page", "nextPage", "next_cursor", "nextCursor", "nextPageToken")


@dataclass(frozen=True)
class Single(Paginator):
    """The whole list comes in one answer: a plain array, or an object that is the only row.

    `rows`: the path of the list, if it is in an object. An answer that says that more follows is refused.
    """

    rows: str | None = None
    start: None = field(default=None, init=False)

    def request(self, base: Request, position: Position) -> Request:
        return base

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        if self.rows:
            rows = listed_rows(answer, self.rows)
            if more := next((name for name in MORE if answer.data.get(name)), None):
                raise RefuseData(f"its {more!r} says that more follows, but the list is declared as a single answer")
        else:
            rows = as_rows(answer.data if isinstance(answer.data, list) else [as_object(answer.data)], "rows")
        return Page(position, rows, None, date=answer.date)
