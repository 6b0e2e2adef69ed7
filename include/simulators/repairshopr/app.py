"""The HTTP side of an account: rights, rate limit, latency and ordered faults before the API itself."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from email.utils import formatdate
from time import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.repairshopr import api, control_api
from include.simulators.repairshopr.account import Account
from include.simulators.repairshopr.api import Answer
from include.simulators.repairshopr.config import Config, RetryAfter
from include.simulators.repairshopr.faults import Call, Fault

_METHODS = ["GET", "POST", "PUT", "DELETE"]
_UNNAMED = {"page", "api_key"}  # parameters that say nothing about what is asked


class _Cut(Response):
    """An answer that promises its whole body and ends the connection before the end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})


class _Hang(Response):
    """No answer until the client gives up; 504 for one that waits `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(status_code=504)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        with suppress(TimeoutError):
            await asyncio.wait_for(gone(), self._seconds)
        await super().__call__(scope, receive, send)


def create(account: Account) -> ASGIApp:
    """The ASGI application over an account."""
    return Starlette(
        routes=[
            Route("/api/v1/{path:path}", _vendor(account), methods=_METHODS),
            *control_api.routes(account),
        ]
    )


def _vendor(account: Account) -> Callable[[Request], Awaitable[Response]]:
    async def vendor(request: Request) -> Response:
        with account.underway():
            call = _call(request, await request.body())
            if account.config.latency_ms:
                await asyncio.sleep(account.config.latency_ms / 1_000)
            response, outcome = _respond(account, call, request.headers.get("authorization", ""))
            account.count(_name(call), outcome)
            return response

    return vendor


def _respond(account: Account, call: Call, authorization: str) -> tuple[Response, int | str]:
    """The response, and its status or `cut`. First comes the rate limit, then ordered faults, then rights."""
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
    answer = _refusal(config, call, authorization) or api.answer(account, call, fault)
    match fault:
        case Fault(kind="cut"):
            return _Cut(answer.body, answer.status, media_type=answer.content_type), "cut"
        case Fault(kind="broken_json"):
            answer = replace(answer, body=answer.body[: len(answer.body) // 2])
    return _response(answer), answer.status


def _response(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    return Response(answer.body, answer.status, headers, media_type=answer.content_type)


def _retry_after(seconds: int | None, form: RetryAfter) -> dict[str, str]:
    if seconds is None or form == "absent":
        return {}
    return {"Retry-After": str(seconds) if form == "seconds" else formatdate(time() + seconds, usegmt=True)}


def _refusal(config: Config, call: Call, authorization: str) -> Answer | None:
    """401 for a wrong token, in whichever of the three places it stands; the status of a missing right."""
    if (authorization.removeprefix("Bearer ") or call.params.get("api_key")) != config.token:
        return api.error(401)
    if call.resource == "line_items" and not config.global_admin:
        return api.error(config.missing_right_status)
    return None


def _call(request: Request, body: bytes) -> Call:
    resource, *path = request.path_params["path"].split("/")
    item = path[0] if path else None
    return Call(request.method, resource, item, tuple(path[1:]), request.query_params, body)


def _name(call: Call) -> str:
    if call.item is not None:
        return f"{call.method} {call.resource}/id"
    filters = sorted(set(call.params) - _UNNAMED)
    return f"{call.method} {call.resource}" + ("?" + "&".join(filters) if filters else "")
