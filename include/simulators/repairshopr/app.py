"""The HTTP side of an account: the vendor's door (rights, limit, latency, faults) and the control."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from time import time
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.repairshopr import api
from include.simulators.repairshopr.account import Account, Trigger
from include.simulators.repairshopr.api import Answer
from include.simulators.repairshopr.config import Config, RetryAfter
from include.simulators.repairshopr.faults import Call, Fault
from include.simulators.repairshopr.store import Mutation

METHODS = ["GET", "POST", "PUT", "DELETE"]
_LOOPBACK = ("127.0.0.1", "::1")
_UNNAMED = ("page", "api_key")  # parameters that say nothing about what is asked


class _Cut(Response):
    """An answer that promises its whole body and ends the connection before the end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send(
            {"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True}
        )


class _Hang(Response):
    """No answer at all; the connection ends when the client gives up, at the latest after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        with suppress(TimeoutError):
            await asyncio.wait_for(gone(), self._seconds)


def create(account: Account) -> ASGIApp:
    """The ASGI application over an account."""
    return Starlette(
        routes=[
            Route("/api/v1/{path:path}", _vendor(account), methods=METHODS),
            *(
                Route(f"/_control/{path}", _control(handle), methods=[method])
                for method, path, handle in _orders(account)
            ),
        ]
    )


def _vendor(account: Account) -> Callable[[Request], Awaitable[Response]]:
    async def vendor(request: Request) -> Response:
        with account.underway():
            body = await request.body()
            call, sub = _call(request)
            if account.config.latency_ms:
                await asyncio.sleep(account.config.latency_ms / 1_000)
            response, outcome = _respond(account, call, sub, request, body)
            account.count(_name(call, request), outcome)
            return response

    return vendor


def _respond(
    account: Account, call: Call, sub: list[str], request: Request, body: bytes
) -> tuple[Response, int | str]:
    """The response, and its status or `cut`. The order is the vendor's: limit, then faults, then rights."""
    config = account.config
    if (wait := account.limit.take(config.rate_limit)) is not None:
        account.count_limited()
        return _response(api.error(429), _retry_after(wait, config.retry_after)), 429
    fault = account.faults.strike(call)
    if fault:
        account.count_fault()
    match fault:
        case Fault(kind="timeout"):
            return _Hang(fault.seconds), "cut"
        case Fault(kind="status"):
            wait = _retry_after(fault.retry_after, fault.retry_after_form)
            return _response(api.error(fault.status, fault.body), wait), fault.status
    answer = _refusal(config, call, request) or api.answer(
        account, call, request.query_params, sub, body, fault
    )
    match fault:
        case Fault(kind="cut"):
            return _Cut(answer.body, answer.status, media_type=answer.content_type), "cut"
        case Fault(kind="broken_json"):
            return Response(answer.body[: len(answer.body) // 2], 200, media_type=answer.content_type), 200
    return _response(answer), answer.status


def _response(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    return Response(answer.body, answer.status, headers, media_type=answer.content_type)


def _retry_after(seconds: int | None, form: RetryAfter) -> dict[str, str]:
    if seconds is None or form == "absent":
        return {}
    return {"Retry-After": str(seconds) if form == "seconds" else formatdate(time() + seconds, usegmt=True)}


def _refusal(config: Config, call: Call, request: Request) -> Answer | None:
    """401 for a wrong token, in whichever of the three places it stands; the status of a missing right."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ") or request.query_params.get(
        "api_key"
    )
    if token != config.token:
        return api.error(401)
    if call.resource == "line_items" and not config.global_admin:
        return api.error(config.missing_right_status)
    return None


def _call(request: Request) -> tuple[Call, list[str]]:
    """The request as faults and counters see it, and the rest of the path."""
    resource, *rest = request.path_params["path"].strip("/").split("/")
    page = request.query_params.get("page", "")
    return Call(
        request.method,
        resource,
        rest[0] if rest else None,
        request.query_params,
        max(1, int(page)) if page.isdecimal() else 1,
    ), rest[1:]


def _name(call: Call, request: Request) -> str:
    if call.item is not None:
        return f"{call.method} {call.resource}/id"
    filters = sorted({name for name in request.query_params if name not in _UNNAMED})
    return f"{call.method} {call.resource}" + ("?" + "&".join(filters) if filters else "")


def _control(handle: Callable[[Request, bytes], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def control(request: Request) -> Response:
        if request.client is None or request.client.host not in _LOOPBACK:
            return Response("The control answers to this machine only.", 403)
        try:
            result = handle(request, await request.body())
        except (KeyError, ValueError) as refused:  # msgspec's ValidationError is a ValueError
            return Response(f"Refused: {refused.args[0]}", 422)
        return Response(api.encoder.encode(result), media_type="application/json")

    return control


def _orders(account: Account) -> list[tuple[str, str, Callable[[Request, bytes], Any]]]:
    """Method, path and handler of each control request; the bodies are those of `control.Control`."""
    tables = account.store.tables

    def read(body: bytes, kind: Any) -> Any:
        return msgspec.convert(api.decoder.decode(body), kind)

    def configure(_: Request, body: bytes) -> Config:
        fields = api.decoder.decode(body)
        msgspec.convert(msgspec.to_builtins(account.config) | fields, Config)
        account.change(**fields)
        return account.config

    def script(request: Request, body: bytes) -> None:
        account.scripts[_resource(account, request)] = read(body, list[list[dict]])

    return [
        ("GET", "health", lambda *_: {"status": "ok"}),
        ("GET", "config", lambda *_: account.config),
        ("PATCH", "config", configure),
        ("POST", "faults", lambda _, body: [account.faults.add(fault) for fault in read(body, list[Fault])]),
        ("POST", "triggers", lambda _, body: account.triggers.append(read(body, Trigger))),
        ("DELETE", "orders", lambda *_: account.clear_orders()),
        (
            "POST",
            "mutations",
            lambda _, body: [
                account.store.apply(mutation, account.config) for mutation in read(body, list[Mutation])
            ],
        ),
        ("GET", "counters", lambda *_: account.counters()),
        ("DELETE", "counters", lambda *_: account.reset_counters()),
        ("GET", "totals", lambda *_: {name: len(table) for name, table in tables.items()}),
        ("GET", "ids/{resource}", lambda request, _: list(tables[_resource(account, request)])),
        (
            "GET",
            "rows/{resource}/{id:int}",
            lambda request, _: tables[_resource(account, request)].get(request.path_params["id"]),
        ),
        (
            "PUT",
            "rows/{resource}",
            lambda request, body: tables[_resource(account, request)].load(read(body, list[dict])),
        ),
        ("PUT", "pages/{resource}", script),
    ]


def _resource(account: Account, request: Request) -> str:
    name = request.path_params["resource"]
    if name not in account.store.tables:
        raise KeyError(f"no resource {name!r}: it is one of {', '.join(account.store.tables)}")
    return name
