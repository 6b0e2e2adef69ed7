"""Lists that come in one answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from include.api.errors import RefuseData
from include.api.list_answers import as_count, as_object, as_rows, listed_rows
from include.api.paginators.base import FRESH, Crawl, Page, Paginator, Position
from include.api.request import Answer, Request

# What an answer that is not the whole list has outside the rows: something that leads on, or a larger total.
MORE = frozenset(
    ("more", "hasmore", "hasnext", "next", "nextpage", "nextlink", "nextcursor", "nextpagetoken", "nexturl")
)
TOTALS = frozenset(("total", "totalcount", "totalentries", "totalelements", "count"))
NOTHING = ("", "0", "false", "none")
NEXT_LINK = re.compile(r"""\brel\s*=\s*["']?next\b""", re.IGNORECASE)


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
        if NEXT_LINK.search(answer.headers.get("Link") or ""):
            raise RefuseData("its Link header says that more follows, but the list is declared as a single answer")
        if self.rows:
            rows = listed_rows(answer, self.rows)
            _require_whole(answer.data, len(rows))
        else:
            rows = as_rows(answer.data if isinstance(answer.data, list) else [as_object(answer.data)], "rows")
        return Page(position, rows, None, date=answer.date)


def _require_whole(around: Mapping[str, Any], rows: int) -> None:
    """Raise RefuseData if what stands around the rows says that there are more, at any depth but within lists."""
    left = [around]
    while left:
        for key, value in left.pop().items():
            name = re.sub(r"[^a-z]", "", key.rpartition(".")[2].lower())
            if isinstance(value, Mapping):
                left.append(value)
                leads_on = name in MORE and any(value.values())
            else:
                leads_on = name in MORE and str(value).lower() not in NOTHING
            if leads_on or (name in TOTALS and (as_count(value) or 0) > rows):
                raise RefuseData(f"its {key!r} says that more follows, but the list is declared as a single answer")
