"""Misbehaviour and changes to order: which request they strike, and how often."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Generic, Literal, TypeVar

from include.simulators.tekmetric.changes import Mutation

HTML = b"<!DOCTYPE html><html><body><h1>We'll be back soon</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class Strike:
    """Strikes matching requests from the `nth` on, `times` times (None: until cleared).

    A request matches by its path below /api (`repair-order/880123/estimate`; in a pattern `*` is anything, be it with
    slashes) and by all of `params` being among its query parameters.
    """

    path: str = "*"
    params: Mapping[str, str] = field(default_factory=dict)
    nth: int = 1
    times: int | None = 1

    def matches(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether it is meant for such a request."""
        return fnmatchcase(path, self.path) and self.params.items() <= query.items()


@dataclass(frozen=True)
class Fault(Strike):
    """What the client gets instead of its answer.

    - `status`: that `status` with the vendor's body, or with one in `html`, and with Retry-After, in seconds, if
      given; HTML with 200 is `status=200, html=True`
    - `drop`: ends the connection before an answer
    - `cut`: ends the connection in the middle of the body
    - `hang`: no answer until the client has gone; one that waits `seconds` gets a 504
    - `broken_json`: half a document, whole as far as HTTP knows
    """

    kind: Literal["status", "drop", "cut", "hang", "broken_json"]
    status: int = 500
    html: bool = False
    retry_after: int | None = None
    seconds: float = 600


@dataclass(frozen=True)
class Trigger(Strike):
    """Changes to carry out before a request is answered."""

    mutations: tuple[Mutation, ...]


Ordered = TypeVar("Ordered", bound=Strike)


@dataclass
class _Order(Generic[Ordered]):
    what: Ordered
    seen: int = 0
    struck: int = 0

    def due(self) -> bool:
        left = self.what.times is None or self.struck < self.what.times
        return left and self.seen >= self.what.nth


class Book(Generic[Ordered]):
    """The open orders, in the order in which they came."""

    def __init__(self) -> None:
        self._orders: list[_Order[Ordered]] = []

    def add(self, what: Ordered) -> None:
        """Take an order."""
        self._orders.append(_Order(what))

    def clear(self) -> None:
        """Drop all orders."""
        self._orders.clear()

    def strike(self, path: str, query: Mapping[str, str]) -> Iterator[Ordered]:
        """What is due for this request; what isn't taken from the iterator waits for the next."""
        matching = [order for order in self._orders if order.what.matches(path, query)]
        for order in matching:
            order.seen += 1
        for order in filter(_Order.due, matching):
            order.struck += 1
            yield order.what
