"""Misbehaviour to order: which request it strikes, how often, and what the client gets instead."""

from dataclasses import dataclass
from typing import Literal

from include.simulators.storage.protocol import Request

Operation = Literal["list", "head_bucket", "head", "get", "put", "delete"]


@dataclass(frozen=True)
class Fault:
    """One order. It strikes matching requests from the `nth` on, `times` times (None: until cleared).

    A request matches by `operation` and by the object's `key` (None: any).

    Kinds:
    - `status`: answers `status` with the error `code` (None: the usual one of that status)
    - `hang`: no answer until the client has gone; one that waits `seconds` gets a 503
    - `drop`: ends the connection before an answer
    - `cut`: ends the connection in the middle of the body; where the answer has none, before an answer
    - `truncated_xml`: half the document, whole as far as HTTP knows
    - `ignore_start_after`: lists from the beginning whatever `start-after` says; tokens still work
    - `delete_marker`: the 404 of a versioned bucket whose object was deleted and can be restored
    """

    kind: Literal["status", "hang", "drop", "cut", "truncated_xml", "ignore_start_after", "delete_marker"]
    operation: Operation | None = None
    key: str | None = None
    nth: int = 1
    times: int | None = 1
    status: int = 500
    code: str | None = None
    seconds: float = 600

    def matches(self, request: Request) -> bool:
        """Whether the order is meant for such a request."""
        return self.operation in (None, request.operation) and (self.key is None or self.key == request.key)


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

    def strike(self, request: Request) -> Fault | None:
        """The fault for this request: the first order that is due; others that are wait for the next."""
        matching = [order for order in self._orders if order.fault.matches(request)]
        for order in matching:
            order.seen += 1
        due = next(filter(_Order.due, matching), None)
        if due is None:
            return None
        due.struck += 1
        return due.fault
