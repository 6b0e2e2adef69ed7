"""The HTTP side of an account: changes on the way, latency, ordered faults and rights before the API itself."""

import asyncio
from dataclasses import replace
from email.utils import formatdate
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.answers import HTML, Answer, drop, hang, send_half, send_whole
from include.simulators.control import decoded
from include.simulators.control_api import beside
from include.simulators.tekmetric import api
from include.simulators.tekmetric.account import Account
from include.simulators.tekmetric.control_api import ControlApi
from include.simulators.tekmetric.faults import Fault, edited
from include.simulators.tekmetric.protocol import Call, Refused, error, ok

_BASE = "/api/"


def create(account: Account) -> ASGIApp:
    """The ASGI application over an account."""

    async def vendor(scope: Scope, receive: Receive, send: Send) -> None:
        with account.underway():
            await _serve(account, scope, receive, send)

    return beside(vendor, ControlApi(account))


async def _serve(account: Account, scope: Scope, receive: Receive, send: Send) -> None:
    call = _call(scope)
    fault = account.before(call.path, call.query)
    if account.config.latency_ms:
        await asyncio.sleep(account.config.latency_ms / 1_000)
    match fault:
        case Fault(kind="drop"):
            account.count(call.endpoint, "cut")
            return await drop(receive, send)
        case Fault(kind="hang"):
            account.count(call.endpoint, "cut")
            await hang(receive, fault.seconds)
            return await send_whole(send, _dated(account, error(Refused(504, "Gateway timeout"))))
        case Fault(kind="status"):
            answer = _ordered(fault)
        case _:
            answer = _refusal(account, dict(scope["headers"])) or _lied(account, call, fault)
    match fault:
        case Fault(kind="cut"):
            account.count(call.endpoint, "cut")
            return await send_half(send, _dated(account, answer))
        case Fault(kind="broken_json"):
            answer = replace(answer, body=answer.body[: len(answer.body) // 2])
    account.count(call.endpoint, answer.status)
    await send_whole(send, _dated(account, answer))


def _call(scope: Scope) -> Call:
    path = scope["path"].removeprefix(_BASE)
    endpoint, ids = api.endpoint_of(path)
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return Call(scope["method"], path, endpoint, ids, query)


def _lied(account: Account, call: Call, fault: Fault | None) -> Answer:
    """The API's answer, or what was ordered to be told in its place."""
    match fault:
        case Fault(kind="answer"):
            return ok(fault.content)
        case Fault(kind="swap"):
            endpoint, ids = api.endpoint_of(fault.other)
            return api.answer(account, replace(call, path=fault.other, endpoint=endpoint, ids=ids))
        case Fault(kind="edit"):
            answer = api.answer(account, call)
            return answer if answer.status != 200 else ok(edited(decoded(answer.body), fault))
    return api.answer(account, call)


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


def _dated(account: Account, answer: Answer) -> Answer:
    return replace(answer, headers={"date": formatdate(account.clock.now(), usegmt=True)} | dict(answer.headers))
