"""The HTTP side of an account: changes on the way, latency, ordered faults and rights before the API itself."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.flex import api, control_api
from include.simulators.flex.account import Account
from include.simulators.flex.faults import HTML, SPOILS, Fault
from include.simulators.flex.protocol import Answer, Call, Refused, error
from include.simulators.flex.rows import spoilt

_BASE = "/f5/api/"


def create(account: Account) -> ASGIApp:
    """The ASGI application over an account."""
    control = Starlette(routes=control_api.routes(account))

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/_control/"):
            await control(scope, receive, send)
        else:
            call = await _call(scope, receive)
            with account.underway(call):
                await _serve(account, call, dict(scope["headers"]), receive, send)

    return application


async def _serve(account: Account, call: Call, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
    fault = account.before(call)
    await asyncio.sleep(account.config.latency_ms / 1_000)
    if fault and fault.kind == "slow" and not fault.committed:
        await asyncio.sleep(fault.seconds)
    answer = _answer(account, call, headers) if fault is None or fault.answers else None
    match fault:
        case Fault(kind="slow", committed=True):
            await asyncio.sleep(fault.seconds)
        case Fault(kind="status"):
            answer = _ordered(fault)
        case Fault(kind="hang"):
            account.count(call.name, "cut")
            await _hang(receive, fault.seconds)
            return await _send(account, send, error(Refused(504, "Gateway timeout")))
        case Fault(kind="cut") if answer and answer.body:
            account.count(call.name, "cut")
            return await _send(account, send, answer, len(answer.body) // 2)
        case Fault(kind="drop" | "cut"):
            account.count(call.name, "cut")
            return await _drop(receive, send)
        case Fault(kind="broken_json"):
            answer = Answer(answer.status, answer.body[: len(answer.body) // 2])
        case Fault() if fault.kind in SPOILS and answer.status == 200:
            answer = Answer(answer.status, spoilt(answer.body, fault.kind, fault.line))
    account.count(call.name, answer.status)
    await _send(account, send, answer)


async def _call(scope: Scope, receive: Receive) -> Call:
    path = scope["path"].removeprefix(_BASE).rstrip("/")
    endpoint, ids = api.endpoint_of(path)
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return Call(scope["method"], path, endpoint, ids, query, await _body(receive))


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _answer(account: Account, call: Call, headers: Mapping[bytes, bytes]) -> Answer:
    """What the API answers: 401 for a wrong token, 429 when the quota is used up."""
    given = headers.get(b"x-auth-token", b"").decode("latin-1")
    if not given or given not in (account.config.token, account.config.refreshed_token):
        return error(Refused(401, "Invalid authentication token"))
    if not account.spend():
        return error(Refused(429, "API call limit exceeded"))
    return api.answer(account, call)


def _ordered(fault: Fault) -> Answer:
    wait = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    away = {} if fault.location is None else {"location": fault.location}
    if fault.html:
        return Answer(fault.status, HTML, wait | away, "text/html; charset=utf-8")
    return Answer(fault.status, error(Refused(fault.status, "Something went wrong")).body, wait | away)


async def _send(account: Account, send: Send, answer: Answer, length: int | None = None) -> None:
    """Send the answer, or the first `length` bytes of its body: the server then closes the connection."""
    headers = {"date": formatdate(account.clock.now(), usegmt=True)} | dict(answer.headers)
    if answer.status != 204:
        headers |= {"content-length": str(len(answer.body)), "content-type": answer.content_type}
    if account.config.refreshed_token:
        headers["x-auth-token-refreshed"] = account.config.refreshed_token
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    # The server's own Date would come on top of the account's; ASGI has no word for that: `send` is a method of the
    # server's cycle, which keeps what it adds.
    send.__self__.default_headers = []
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    body = answer.body if length is None else answer.body[:length]
    await send({"type": "http.response.body", "body": body, "more_body": length is not None})


async def _drop(receive: Receive, send: Send) -> None:
    """Close the connection, which ASGI has no word for either."""
    send.__self__.transport.abort()
    await _gone(receive)


async def _hang(receive: Receive, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(_gone(receive), seconds)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
