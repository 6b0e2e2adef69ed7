"""Lists that come in one answer."""

from dataclasses import dataclass, field

from include.api.list_answers import as_object, as_rows
from include.api.paginators.base import FRESH, Crawl, Page, Paginator, Position
from include.api.request import Answer, Request


@dataclass(frozen=True)
class Single(Paginator):
    """The whole list comes in one answer: a plain array, or an object that is the only row."""

    start: None = field(default=None, init=False)

    def request(self, base: Request, position: Position) -> Request:
        return base

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        rows = answer.data if isinstance(answer.data, list) else [as_object(answer.data)]
        return Page(position, as_rows(rows, "rows"), None, date=answer.date)
