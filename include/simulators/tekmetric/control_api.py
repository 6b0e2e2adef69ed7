"""The control's HTTP side: what `control.Control` sends, carried out on the account."""

from collections.abc import Awaitable, Callable
from typing import Any, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from include.simulators.tekmetric import arithmetic
from include.simulators.tekmetric.account import Account, Counters
from include.simulators.tekmetric.arithmetic import Sums
from include.simulators.tekmetric.changes import Mutation
from include.simulators.tekmetric.clock import instant
from include.simulators.tekmetric.config import Config
from include.simulators.tekmetric.faults import Fault, Trigger
from include.simulators.tekmetric.orders import Job, Order
from include.simulators.tekmetric.people import Row
from include.simulators.tekmetric.protocol import decoder, encoder
from include.simulators.tekmetric.store import KINDS, Kind, View

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
            ("PUT", "spoilt/{view}/{id:int}", orders.spoil),
            ("DELETE", "orders", orders.clear),
            ("POST", "mutations", orders.mutate),
            ("POST", "some", orders.change_some),
            ("GET", "clock", orders.now),
            ("POST", "clock", orders.advance),
            ("GET", "counters", orders.counters),
            ("DELETE", "counters", orders.reset_counters),
            ("GET", "ids/{kind}", orders.ids),
            ("GET", "ids/{kind}/{shop:int}", orders.ids),
            ("GET", "rows/{kind}", orders.rows),
            ("GET", "rows/{kind}/{id:int}", orders.row),
            ("GET", "authorized/{id:int}", orders.authorized),
            ("GET", "potential/{id:int}", orders.potential),
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


def _one_of(word: str, allowed: tuple[str, ...]) -> str:
    if word not in allowed:
        raise KeyError(f"{word!r} is none of {', '.join(allowed)}")
    return word


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
        self._account.triggers.add(_read(body, Trigger))

    def spoil(self, path: Path, body: bytes) -> None:
        view = _one_of(path["view"], get_args(View))
        self._account.store.spoilt[view, self._account.store.order(path["id"]).id] = _read(body, dict)

    def clear(self, path: Path, body: bytes) -> None:
        self._account.clear_orders()

    def mutate(self, path: Path, body: bytes) -> list[int]:
        return self._account.mutate(_read(body, list[Mutation]))

    def change_some(self, path: Path, body: bytes) -> list[int]:
        return self._account.change_some(_read(body, int))

    def now(self, path: Path, body: bytes) -> str:
        return instant(self._account.clock.now())

    def advance(self, path: Path, body: bytes) -> str:
        self._account.clock.advance(_read(body, int))
        return instant(self._account.clock.now())

    def counters(self, path: Path, body: bytes) -> Counters:
        return self._account.counters()

    def reset_counters(self, path: Path, body: bytes) -> None:
        self._account.reset_counters()

    def ids(self, path: Path, body: bytes) -> list[int]:
        return self._account.store.ids(self._kind(path), path.get("shop"))

    def rows(self, path: Path, body: bytes) -> list[Order | Job | Row]:
        kind = self._kind(path)
        return [self._row(kind, row_id) for row_id in self._account.store.ids(kind)]

    def row(self, path: Path, body: bytes) -> Order | Job | Row:
        return self._row(self._kind(path), path["id"])

    def authorized(self, path: Path, body: bytes) -> Sums:
        return arithmetic.authorized(self._account.store.order(path["id"]))

    def potential(self, path: Path, body: bytes) -> Sums:
        return arithmetic.potential(self._account.store.order(path["id"]))

    def _row(self, kind: Kind, row_id: int) -> Order | Job | Row:
        store = self._account.store
        match kind:
            case "orders":
                return store.order(row_id)
            case "jobs":
                return store.job(row_id)[1]
        return store.person(kind, row_id)

    def _kind(self, path: Path) -> Kind:
        return _one_of(path["kind"], KINDS)
