"""The HTTP side of a seller: latency, ordered faults and rights before the API itself."""

import asyncio
from dataclasses import replace
from email.utils import formatdate
from urllib.parse import parse_qsl, unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.answers import HTML, Answer, body_of, drop, hang, send_half, send_whole
from include.simulators.control_api import beside
from include.simulators.square import api
from include.simulators.square.control_api import ControlApi
from include.simulators.square.faults import Fault
from include.simulators.square.protocol import USUAL_CODES, Call, Refused, error
from include.simulators.square.seller import Seller

_BASE = "/v2/"
# Of an ordered answer that isn't in the vendor's own form: a gateway's, or one that says nothing.
_BODIES = {
    "message": b'{"message":"temporarily unavailable"}',
    "error": b'{"error":"temporarily unavailable"}',
    "nothing": b"{}",
}


def create(seller: Seller) -> ASGIApp:
    """The ASGI application over a seller."""

    async def vendor(scope: Scope, receive: Receive, send: Send) -> None:
        with seller.underway():
            await _serve(seller, scope, receive, send)

    return beside(vendor, ControlApi(seller))


async def _serve(seller: Seller, scope: Scope, receive: Receive, send: Send) -> None:
    call, headers = _call(scope, await body_of(receive)), dict(scope["headers"])
    if seller.config.latency_ms:
        await asyncio.sleep(seller.config.latency_ms / 1_000)
    fault = seller.fault_for(call.endpoint, call.item, api.page_number(seller, call), call.places)
    match fault:
        case Fault(kind="drop"):
            seller.count(call.name, "cut")
            return await drop(receive, send)
        case Fault(kind="hang"):
            seller.count(call.name, "cut")
            await hang(receive, fault.seconds)
            return await send_whole(send, _dated(seller, error(Refused("GATEWAY_TIMEOUT"))))
        case Fault(kind="status"):
            answer = _ordered(fault)
        case _:
            if fault and fault.kind == "expired_cursor":
                seller.cursors.expire()
            answer = _refusal(seller, headers) or api.answer(seller, call, fault)
    if fault and fault.kind == "cut":
        seller.count(call.name, "cut")
        return await send_half(send, _dated(seller, answer))
    seller.count(call.name, answer.status)
    await send_whole(send, _dated(seller, answer))


def _call(scope: Scope, body: bytes) -> Call:
    path = scope["raw_path"].decode("latin-1")
    endpoint, item = api.endpoint_of(path.removeprefix(_BASE) if path.startswith(_BASE) else path)
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return Call(scope["method"], endpoint, unquote(item), dict(query), body)


def _ordered(fault: Fault) -> Answer:
    wait = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    if fault.html:
        return Answer(fault.status, HTML, wait, "text/html; charset=utf-8")
    code = fault.code or USUAL_CODES.get(fault.status, "INTERNAL_SERVER_ERROR")
    plain = error(Refused(code), fault.status)
    return Answer(plain.status, _BODIES.get(fault.body, plain.body), wait)


def _refusal(seller: Seller, headers: dict[bytes, bytes]) -> Answer | None:
    """401 for a missing or wrong token."""
    if headers.get(b"authorization", b"").decode("latin-1") == f"Bearer {seller.config.token}":
        return None
    return error(Refused("UNAUTHORIZED"))


def _dated(seller: Seller, answer: Answer) -> Answer:
    return replace(answer, headers={"date": formatdate(seller.clock.now() / 1_000, usegmt=True)} | dict(answer.headers))
