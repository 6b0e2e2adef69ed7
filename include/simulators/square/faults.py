"""Misbehaviour to order: which request it strikes, how often, and what the client gets instead."""

from dataclasses import dataclass
from typing import Literal

HTML = b"<!DOCTYPE html><html><body><h1>We'll be back soon</h1></body></html>"


@dataclass(frozen=True)
class Fault:
    """One order. It strikes matching requests from the `nth` on, `times` times (None: until cleared).

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
    nth: int = 1
    times: int | None = 1
    status: int = 500
    code: str | None = None
    html: bool = False
    retry_after: int | None = None
    seconds: float = 600
    rows: int = 1

    def matches(self, endpoint: str, item: str, page: int | None) -> bool:
        """Whether the order is meant for such a request; `page` is None for what has no pages."""
        return self.endpoint in (None, endpoint) and self.item in (None, item) and self.page in (None, page)


@dataclass
class _Order:
    fault: Fault
    seen: int = 0
    struck: int = 0

    def due(self) -> bool:
        left = self.fault.times is None or self.struck < self.fault.times
        return left and self.seen >= self.fault.nth


class FaultBook:
    """The open orders, in the order in which they came."""

    def __init__(self) -> None:
        self._orders: list[_Order] = []

    def add(self, fault: Fault) -> None:
        """Take an order."""
        self._orders.append(_Order(fault))

    def clear(self) -> None:
        """Drop all orders."""
        self._orders.clear()

    def strike(self, endpoint: str, item: str, page: int | None) -> Fault | None:
        """The fault for this request: the first order that is due; others that are wait for the next."""
        matching = [order for order in self._orders if order.fault.matches(endpoint, item, page)]
        for order in matching:
            order.seen += 1
        due = next(filter(_Order.due, matching), None)
        if due is None:
            return None
        due.struck += 1
        return due.fault
