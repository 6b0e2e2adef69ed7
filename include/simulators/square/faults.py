"""Misbehaviour to order: which request it strikes, and what the client gets instead."""

from dataclasses import dataclass
from typing import Literal

from include.simulators.orders import Order


@dataclass(frozen=True)
class Fault(Order):
    """What the client gets instead of its answer.

    A request matches by `endpoint` (`orders/search`, `payments`, `catalog/object/{id}`: the path below /v2 with
    `{id}` for ids; None: any), by `item` (the id in the path; None: any) and by `page` (the how-manieth of its
    crawl, from 1; None: any, and what has no pages).

    Kinds:
    - `status`: answers `status` with the error `code` (None: the usual one of that status), in JSON or as `html`,
      and with Retry-After, in seconds, if given; HTML with 200 is `status=200, html=True`
    - `drop`: ends the connection before an answer
    - `cut`: ends the connection in the middle of the body
    - `hang`: no answer until the client has gone; one that waits `seconds` gets a 504
    - `duplicate_rows`: repeats the page's first `rows` rows at its end
    - `missing_rows`: leaves out the page's first `rows` rows; no other page has them
    - `empty_page`: a page without rows before the one that was asked for, with a cursor
    - `expired_cursor`: every cursor given out so far is bad from now on, also that of the request
    """

    kind: Literal["status", "drop", "cut", "hang", "duplicate_rows", "missing_rows", "empty_page", "expired_cursor"]
    endpoint: str | None = None
    item: str | None = None
    page: int | None = None
    status: int = 500
    code: str | None = None
    html: bool = False
    retry_after: int | None = None
    seconds: float = 600
    rows: int = 1

    def matches(self, endpoint: str, item: str, page: int | None) -> bool:
        return self.endpoint in (None, endpoint) and self.item in (None, item) and self.page in (None, page)
