"""The control's HTTP side: what `control.Control` sends, carried out on the seller."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from include.simulators.square.assortment import Row
from include.simulators.square.changes import Mutation
from include.simulators.square.clock import instant
from include.simulators.square.config import Config
from include.simulators.square.faults import Fault
from include.simulators.square.protocol import decoder, encoder
from include.simulators.square.seller import Counters, Seller, Trigger
from include.simulators.square.store import KINDS, Kind

_LOOPBACK = ("127.0.0.1", "::1")

Path = dict[str, Any]  # the path's parameters


def routes(seller: Seller) -> list[Route]:
    """The routes under /_control. What makes no sense is answered 422 with the reason in plain text."""
    orders = _Orders(seller)
    return [
        Route(f"/_control/{path}", _endpoint(order), methods=[method])
        for method, path, order in (
            ("GET", "health", orders.health),
            ("PATCH", "config", orders.configure),
            ("POST", "faults", orders.fault),
            ("POST", "triggers", orders.trigger),
            ("DELETE", "orders", orders.clear),
            ("DELETE", "cursors", orders.expire_cursors),
            ("POST", "mutations", orders.mutate),
            ("GET", "clock", orders.now),
            ("POST", "clock", orders.advance),
            ("GET", "counters", orders.counters),
            ("DELETE", "counters", orders.reset_counters),
            ("GET", "totals", orders.totals),
            ("GET", "ids/{kind}", orders.ids),
            ("GET", "rows/{kind}/{id}", orders.row),
        )
    ]


def _endpoint(order: Callable[[Path, bytes], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.client is None or request.client.host not in _LOOPBACK:
            return Response("The control answers to its own machine only.", 403)
        try:
            result = order(request.path_params, await request.body())
        except (KeyError, ValueError) as refused:  # what doesn't fit the types is a ValueError too
            return Response(str(refused.args[0]), 422)
        return Response(encoder.encode(result), media_type="application/json")

    return endpoint


def _read(body: bytes, kind: Any) -> Any:
    return msgspec.convert(decoder.decode(body), kind)


def _kind(path: Path) -> Kind:
    if path["kind"] not in KINDS:
        raise KeyError(f"{path['kind']!r} is no kind: it's one of {', '.join(KINDS)}")
    return path["kind"]


class _Orders:
    """One method for each control request, with the path's parameters and the body."""

    def __init__(self, seller: Seller) -> None:
        self._seller = seller

    def health(self, path: Path, body: bytes) -> dict[str, str]:
        return {"status": "ok"}

    def configure(self, path: Path, body: bytes) -> Config:
        self._seller.change(_read(body, dict))
        return self._seller.config

    def fault(self, path: Path, body: bytes) -> None:
        for fault in _read(body, list[Fault]):
            self._seller.faults.add(fault)

    def trigger(self, path: Path, body: bytes) -> None:
        self._seller.triggers.append(_read(body, Trigger))

    def clear(self, path: Path, body: bytes) -> None:
        self._seller.clear_orders()

    def expire_cursors(self, path: Path, body: bytes) -> None:
        self._seller.cursors.expire()

    def mutate(self, path: Path, body: bytes) -> list[str]:
        return self._seller.mutate(_read(body, list[Mutation]))

    def now(self, path: Path, body: bytes) -> str:
        return instant(self._seller.clock.now())

    def advance(self, path: Path, body: bytes) -> str:
        self._seller.clock.advance(msgspec.json.decode(body, type=float))
        return instant(self._seller.clock.now())

    def counters(self, path: Path, body: bytes) -> Counters:
        return self._seller.counters()

    def reset_counters(self, path: Path, body: bytes) -> None:
        self._seller.reset_counters()

    def totals(self, path: Path, body: bytes) -> dict[str, int]:
        return self._seller.store.totals()

    def ids(self, path: Path, body: bytes) -> list[str]:
        return self._seller.store.ids(_kind(path))

    def row(self, path: Path, body: bytes) -> Row | None:
        return self._seller.store.row(_kind(path), path["id"])
