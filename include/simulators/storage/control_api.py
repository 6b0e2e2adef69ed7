"""The control's HTTP side: what `control.Control` sends, carried out on the bucket."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from include.simulators.storage.bucket import Bucket, Counters, Trigger
from include.simulators.storage.config import Config
from include.simulators.storage.faults import Fault

_LOOPBACK = ("127.0.0.1", "::1")


def routes(bucket: Bucket) -> list[Route]:
    """The routes under /_control. What makes no sense is answered 422 with the reason in plain text."""
    orders = _Orders(bucket)
    return [
        Route(f"/_control/{path}", _endpoint(order), methods=[method])
        for method, path, order in (
            ("GET", "health", orders.health),
            ("PATCH", "config", orders.configure),
            ("POST", "faults", orders.fault),
            ("POST", "triggers", orders.trigger),
            ("DELETE", "orders", orders.clear),
            ("GET", "keys", orders.keys),
            ("PUT", "keys", orders.put),
            ("DELETE", "keys", orders.delete),
            ("GET", "counters", orders.counters),
            ("DELETE", "counters", orders.reset_counters),
        )
    ]


def _endpoint(order: Callable[[bytes], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.client is None or request.client.host not in _LOOPBACK:
            return Response("The control answers to its own machine only.", 403)
        try:
            result = order(await request.body())
        except ValueError as refused:  # what doesn't fit the types is one too
            return Response(str(refused.args[0]), 422)
        return Response(msgspec.json.encode(result), media_type="application/json")

    return endpoint


class _Orders:
    """One method for each control request, with the body."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def health(self, body: bytes) -> dict[str, str]:
        return {"status": "ok"}

    def configure(self, body: bytes) -> Config:
        self._bucket.change(msgspec.json.decode(body, type=dict))
        return self._bucket.config

    def fault(self, body: bytes) -> None:
        for fault in msgspec.json.decode(body, type=list[Fault]):
            self._bucket.faults.add(fault)

    def trigger(self, body: bytes) -> None:
        self._bucket.order(msgspec.json.decode(body, type=Trigger))

    def clear(self, body: bytes) -> None:
        self._bucket.clear_orders()

    def keys(self, body: bytes) -> list[str]:
        return self._bucket.objects.keys()

    def put(self, body: bytes) -> None:
        self._bucket.put(msgspec.json.decode(body, type=list[str]))

    def delete(self, body: bytes) -> None:
        self._bucket.objects.delete(msgspec.json.decode(body, type=list[str]))

    def counters(self, body: bytes) -> Counters:
        return self._bucket.counters()

    def reset_counters(self, body: bytes) -> None:
        self._bucket.reset_counters()
