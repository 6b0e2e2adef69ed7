"""The HTTP side of a seller: latency, ordered faults and rights before the API itself."""

import asyncio
from contextlib import suppress
from email.utils import formatdate
from urllib.parse import parse_qsl, unquote

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.square import api, control_api
from include.simulators.square.faults import HTML, Fault
from include.simulators.square.protocol import USUAL_CODES, Answer, Call, Refused, error
from include.simulators.square.seller import Seller

_BASE = "/v2/"


def create(seller: Seller) -> ASGIApp:
    """The ASGI application over a seller."""
    control = Starlette(routes=control_api.routes(seller))

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/_control/"):
            await control(scope, receive, send)
        else:
            with seller.underway():
                await _serve(seller, scope, receive, send)

    return application


async def _serve(seller: Seller, scope: Scope, receive: Receive, send: Send) -> None:
    call, headers = _call(scope, await _body(receive)), dict(scope["headers"])
    if seller.config.latency_ms:
        await asyncio.sleep(seller.config.latency_ms / 1_000)
    fault = seller.faults.strike(call.endpoint, call.item, api.page_number(seller, call))
    if fault:
        seller.count_fault()
    match fault:
        case Fault(kind="drop"):
            seller.count(call.name, "cut")
            return await _drop(receive, send)
        case Fault(kind="hang"):
            seller.count(call.name, "cut")
            await _hang(receive, fault.seconds)
            return await _send(seller, send, error(Refused("GATEWAY_TIMEOUT")))
        case Fault(kind="status"):
            answer = _ordered(fault)
        case _:
            if fault and fault.kind == "expired_cursor":
                seller.cursors.expire()
            answer = _refusal(seller, headers) or api.answer(seller, call, fault)
    if fault and fault.kind == "cut":
        seller.count(call.name, "cut")
        return await _send(seller, send, answer, len(answer.body) // 2)
    seller.count(call.name, answer.status)
    await _send(seller, send, answer)


def _call(scope: Scope, body: bytes) -> Call:
    path = scope["raw_path"].decode("latin-1")
    endpoint, item = api.endpoint_of(path.removeprefix(_BASE) if path.startswith(_BASE) else path)
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return Call(scope["method"], endpoint, unquote(item), dict(query), body)


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _ordered(fault: Fault) -> Answer:
    wait = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    if fault.html:
        return Answer(fault.status, HTML, wait, "text/html; charset=utf-8")
    code = fault.code or USUAL_CODES.get(fault.status, "INTERNAL_SERVER_ERROR")
    plain = error(Refused(code), fault.status)
    return Answer(plain.status, plain.body, wait)


def _refusal(seller: Seller, headers: dict[bytes, bytes]) -> Answer | None:
    """401 for a missing or wrong token."""
    if headers.get(b"authorization", b"").decode("latin-1") == f"Bearer {seller.config.token}":
        return None
    return error(Refused("UNAUTHORIZED"))


async def _send(seller: Seller, send: Send, answer: Answer, length: int | None = None) -> None:
    """Send the answer, or the first `length` bytes of its body: the server then closes the connection."""
    headers = {
        "content-length": str(len(answer.body)),
        "content-type": answer.content_type,
        "date": formatdate(seller.clock.now() / 1_000, usegmt=True),
    } | dict(answer.headers)
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    # The server's own Date would come on top of the seller's; ASGI has no word for that: `send` is a method of the
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
