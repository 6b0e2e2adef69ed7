"""How APIs cut a list into pages: where to start, how to ask for a page, what follows it."""

from include.api.paginators.base import FRESH, Crawl, Page, Paginator, Position
from include.api.paginators.places import Offset, PageNumber, SpringPage
from include.api.paginators.single import Single
from include.api.paginators.tokens import Cursor, LastId, NextLink

__all__ = [
    "FRESH",
    "Crawl",
    "Cursor",
    "LastId",
    "NextLink",
    "Offset",
    "Page",
    "PageNumber",
    "Paginator",
    "Position",
    "Single",
    "SpringPage",
]
