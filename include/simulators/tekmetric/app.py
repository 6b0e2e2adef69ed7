"""The HTTP side of an account: changes on the way, latency, ordered faults and rights before the API itself."""

import asyncio
from contextlib import suppress
from email.utils import formatdate
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.tekmetric import api, control_api
from include.simulators.tekmetric.account import Account
from include.simulators.tekmetric.faults import HTML, Fault
from include.simulators.tekmetric.protocol import Answer, Call, Refused, error

_BASE = "/api/"


def create(account: Account) -> ASGIApp:
    """The ASGI application over an account."""
    control = Starlette(routes=control_api.routes(account))

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/_control/"):
            await control(scope, receive, send)
        else:
            with account.underway():
                await _serve(account, scope, receive, send)

    return application


async def _serve(account: Account, scope: Scope, receive: Receive, send: Send) -> None:
    call = _call(scope)
    fault = account.before(call.path, call.query)
    if account.config.latency_ms:
        await asyncio.sleep(account.config.latency_ms / 1_000)
    match fault:
        case Fault(kind="drop"):
            account.count(call.endpoint, "cut")
            return await _drop(receive, send)
        case Fault(kind="hang"):
            account.count(call.endpoint, "cut")
            await _hang(receive, fault.seconds)
            return await _send(account, send, error(Refused(504, "Gateway timeout")))
        case Fault(kind="status"):
            answer = _ordered(fault)
        case _:
            answer = _refusal(account, dict(scope["headers"])) or api.answer(account, call)
    half = len(answer.body) // 2
    match fault:
        case Fault(kind="cut"):
            account.count(call.endpoint, "cut")
            return await _send(account, send, answer, half)
        case Fault(kind="broken_json"):
            answer = Answer(answer.status, answer.body[:half])
    account.count(call.endpoint, answer.status)
    await _send(account, send, answer)


def _call(scope: Scope) -> Call:
    path = scope["path"].removeprefix(_BASE)
    endpoint, ids = api.endpoint_of(path)
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return Call(scope["method"], path, endpoint, ids, dict(query))


def _ordered(fault: Fault) -> Answer:
    wait = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    if fault.html:
        return Answer(fault.status, HTML, wait, "text/html; charset=utf-8")
    plain = error(Refused(fault.status, "Something went wrong"))
    return Answer(plain.status, plain.body, wait)


def _refusal(account: Account, headers: dict[bytes, bytes]) -> Answer | None:
    """401 for a missing, wrong or expired token."""
    token = account.config.token
    if token and headers.get(b"x-auth-token", b"").decode("latin-1") == token:
        return None
    return error(Refused(401))


async def _send(account: Account, send: Send, answer: Answer, length: int | None = None) -> None:
    """Send the answer, or the first `length` bytes of its body: the server then closes the connection."""
    headers = {
        "content-length": str(len(answer.body)),
        "content-type": answer.content_type,
        "date": formatdate(account.clock.now(), usegmt=True),
    } | dict(answer.headers)
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
