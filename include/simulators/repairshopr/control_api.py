"""The control's HTTP side: what `control.Control` sends, carried out on the account."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from include.simulators.repairshopr.account import Account, Counters, Trigger
from include.simulators.repairshopr.api import decoder, encoder
from include.simulators.repairshopr.config import Config
from include.simulators.repairshopr.data import Row
from include.simulators.repairshopr.faults import Fault
from include.simulators.repairshopr.store import Mutation, Table

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
            ("PUT", "pages/{resource}", orders.script_pages),
            ("DELETE", "orders", orders.clear),
            ("POST", "mutations", orders.mutate),
            ("PUT", "rows/{resource}", orders.load),
            ("GET", "counters", orders.counters),
            ("DELETE", "counters", orders.reset_counters),
            ("GET", "totals", orders.totals),
            ("GET", "ids/{resource}", orders.ids),
            ("GET", "rows/{resource}/{id:int}", orders.row),
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


class _Orders:
    """One method for each control request, with the path's parameters and the body."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def health(self, path: Path, body: bytes) -> dict[str, str]:
        return {"status": "ok"}

    def configure(self, path: Path, body: bytes) -> Config:
        self._account.change(_read(body, dict))
        return self._account.config

    def fault(self, path: Path, body: bytes) -> None:
        for fault in _read(body, list[Fault]):
            self._account.faults.add(fault)

    def trigger(self, path: Path, body: bytes) -> None:
        trigger = _read(body, Trigger)
        self._table(trigger.resource)
        self._account.triggers.append(trigger)

    def script_pages(self, path: Path, body: bytes) -> None:
        self._account.scripts[self._table(path["resource"]).name] = _read(body, list[list[dict]])

    def clear(self, path: Path, body: bytes) -> None:
        self._account.clear_orders()

    def mutate(self, path: Path, body: bytes) -> list[int]:
        mutations = _read(body, list[Mutation])
        return [self._account.store.apply(mutation, self._account.config) for mutation in mutations]

    def load(self, path: Path, body: bytes) -> None:
        self._table(path["resource"]).load(_read(body, list[dict]))

    def counters(self, path: Path, body: bytes) -> Counters:
        return self._account.counters()

    def reset_counters(self, path: Path, body: bytes) -> None:
        self._account.reset_counters()

    def totals(self, path: Path, body: bytes) -> dict[str, int]:
        return {name: len(table) for name, table in self._account.store.tables.items()}

    def ids(self, path: Path, body: bytes) -> list[int]:
        return list(self._table(path["resource"]))

    def row(self, path: Path, body: bytes) -> Row | None:
        return self._table(path["resource"]).get(path["id"])

    def _table(self, resource: str) -> Table:
        if resource not in self._account.store.tables:
            raise KeyError(f"{resource!r} is no resource: it's one of {', '.join(self._account.store.tables)}")
        return self._account.store.tables[resource]
