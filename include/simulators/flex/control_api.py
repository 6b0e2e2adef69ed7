"""The control's HTTP side: what `control.Control` sends, carried out on the account."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from include.simulators.flex.account import Account, Counters, Write
from include.simulators.flex.changes import Mutation
from include.simulators.flex.config import Config
from include.simulators.flex.faults import Fault, Trigger
from include.simulators.flex.store import Line

_LOOPBACK = ("127.0.0.1", "::1")

Path = dict[str, Any]  # the path's parameters


def routes(account: Account) -> list[Route]:
    """The routes under /_control. What makes no sense is answered 422 with the reason in plain text."""
    orders = _Orders(account)
    return [
        Route(f"/_control/{path}", _endpoint(order), methods=[method])
        for method, path, order in (
            ("GET", "health", orders.health),
            ("PATCH", "config", orders.configure),
            ("POST", "faults", orders.fault),
            ("POST", "triggers", orders.trigger),
            ("DELETE", "orders", orders.clear),
            ("POST", "mutations", orders.mutate),
            ("GET", "clock", orders.now),
            ("POST", "clock", orders.advance),
            ("GET", "counters", orders.counters),
            ("DELETE", "counters", orders.reset_counters),
            ("GET", "journal", orders.journal),
            ("GET", "elements", orders.elements),
            ("POST", "elements", orders.create),
            ("GET", "elements/{id:uuid}", orders.lines),
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
        return Response(msgspec.json.encode(result), media_type="application/json")

    return endpoint


class _Orders:
    """One method for each control request, with the path's parameters and the body."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def health(self, path: Path, body: bytes) -> dict[str, str]:
        return {"status": "ok"}

    def configure(self, path: Path, body: bytes) -> Config:
        self._account.change(msgspec.json.decode(body, type=dict))
        return self._account.config

    def fault(self, path: Path, body: bytes) -> None:
        for fault in msgspec.json.decode(body, type=list[Fault]):
            self._account.faults.add(fault)

    def trigger(self, path: Path, body: bytes) -> None:
        self._account.triggers.add(msgspec.json.decode(body, type=Trigger))

    def clear(self, path: Path, body: bytes) -> None:
        self._account.clear_orders()

    def mutate(self, path: Path, body: bytes) -> list[list[UUID]]:
        return self._account.mutate(msgspec.json.decode(body, type=list[Mutation]))

    def now(self, path: Path, body: bytes) -> str:
        return self._account.clock.text()

    def advance(self, path: Path, body: bytes) -> str:
        self._account.clock.advance(msgspec.json.decode(body, type=int))
        return self._account.clock.text()

    def counters(self, path: Path, body: bytes) -> Counters:
        return self._account.counters()

    def reset_counters(self, path: Path, body: bytes) -> None:
        self._account.reset_counters()

    def journal(self, path: Path, body: bytes) -> list[Write]:
        return self._account.journal

    def elements(self, path: Path, body: bytes) -> list[UUID]:
        return list(self._account.store.elements)

    def create(self, path: Path, body: bytes) -> list[UUID]:
        return self._account.create(msgspec.json.decode(body, type=list[UUID | None]))

    def lines(self, path: Path, body: bytes) -> list[Line]:
        return self._account.store.lines(path["id"])
