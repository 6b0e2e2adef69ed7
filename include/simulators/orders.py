"""What can be ordered of a simulator: something that strikes certain requests, and the book of what is open."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar


@dataclass(frozen=True, kw_only=True)
class Order:
    """Strikes matching requests from the `nth` on, `times` times (None: until cleared)."""

    nth: int = 1
    times: int | None = 1

    def matches(self, *request: Any) -> bool:
        """Whether it is meant for such a request, as the simulator describes one."""
        raise NotImplementedError


Ordered = TypeVar("Ordered", bound=Order)


@dataclass
class _Open(Generic[Ordered]):
    order: Ordered
    seen: int = 0
    struck: int = 0

    def due(self) -> bool:
        left = self.order.times is None or self.struck < self.order.times
        return left and self.seen >= self.order.nth


class Book(Generic[Ordered]):
    """The open orders, in the order in which they came."""

    def __init__(self) -> None:
        self._open: list[_Open[Ordered]] = []

    def add(self, order: Ordered) -> None:
        """Take an order."""
        self._open.append(_Open(order))

    def clear(self) -> None:
        """Drop all orders."""
        self._open.clear()

    def strike(self, *request: Any) -> Iterator[Ordered]:
        """What is due for this request; what isn't taken from the iterator waits for the next."""
        matching = [each for each in self._open if each.order.matches(*request)]
        for each in matching:
            each.seen += 1
        for each in filter(_Open.due, matching):
            each.struck += 1
            yield each.order
