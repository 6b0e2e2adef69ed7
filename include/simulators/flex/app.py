"""The HTTP side of an account: changes on the way, latency, ordered faults and rights before the API itself."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.answers import HTML, Answer, body_of, drop, hang, send_half, send_whole
from include.simulators.control_api import beside
from include.simulators.flex import api
from include.simulators.flex.account import Account
from include.simulators.flex.control_api import ControlApi
from include.simulators.flex.faults import SPOILS, Fault
from include.simulators.flex.protocol import Call, Refused, error
from include.simulators.flex.rows import spoilt, without_roles

_BASE = "/f5/api/"


def create(account: Account) -> ASGIApp:
    """The ASGI application over an account."""

    async def vendor(scope: Scope, receive: Receive, send: Send) -> None:
        call = await _call(scope, receive)
        with account.at_work(call):
            await _serve(account, call, dict(scope["headers"]), receive, send)

    return beside(vendor, ControlApi(account))


async def _serve(account: Account, call: Call, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
    fault = account.before(call)
    await asyncio.sleep(account.config.latency_ms / 1_000)
    if fault and fault.kind == "slow" and not fault.committed:
        await asyncio.sleep(fault.seconds)
    with account.lying(fault):
        answer = _answer(account, call, headers) if fault is None or fault.answers else None
    match fault:
        case Fault(kind="slow", committed=True):
            await asyncio.sleep(fault.seconds)
        case Fault(kind="status"):
            answer = _ordered(fault)
        case Fault(kind="hang"):
            account.count(call.name, "cut")
            await hang(receive, fault.seconds)
            return await send_whole(send, _signed(account, error(Refused(504, "Gateway timeout"))))
        case Fault(kind="cut") if answer and answer.body:
            account.count(call.name, "cut")
            return await send_half(send, _signed(account, answer))
        case Fault(kind="drop" | "cut"):
            account.count(call.name, "cut")
            return await drop(receive, send)
        case Fault(kind="broken_json"):
            answer = replace(answer, body=answer.body[: len(answer.body) // 2])
        case Fault(kind="envelope"):
            answer = replace(answer, status=200, body=error(Refused(500, "Something went wrong")).body)
        case Fault(kind="without_roles") if answer.status == 200:
            answer = replace(answer, body=without_roles(answer.body))
        case Fault() if fault.kind in SPOILS and answer.status == 200:
            answer = replace(answer, body=spoilt(answer.body, fault.kind, fault.line))
    account.count(call.name, answer.status)
    await send_whole(send, _signed(account, answer))


async def _call(scope: Scope, receive: Receive) -> Call:
    path = scope["path"].removeprefix(_BASE).rstrip("/")
    endpoint, ids = api.endpoint_of(path)
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return Call(scope["method"], path, endpoint, ids, query, await body_of(receive))


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


def _signed(account: Account, answer: Answer) -> Answer:
    """The answer with the headers of every answer: the account's date, and a new token if there is one."""
    refreshed = account.config.refreshed_token
    usual = {"date": formatdate(account.clock.now(), usegmt=True)}
    if refreshed:
        usual["x-auth-token-refreshed"] = refreshed
    return replace(answer, headers=usual | dict(answer.headers))
