"""The HTTP side of an account: rights, rate limit, latency and ordered faults before the API itself."""

import asyncio
from dataclasses import replace
from email.utils import formatdate
from time import time

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.answers import Answer, body_of, hang, send_half, send_whole
from include.simulators.control_api import beside
from include.simulators.repairshopr import api
from include.simulators.repairshopr.account import Account
from include.simulators.repairshopr.config import Config, RetryAfter
from include.simulators.repairshopr.control_api import ControlApi
from include.simulators.repairshopr.faults import Call, Fault

_BASE = "/api/v1/"
_UNNAMED = {"page", "api_key"}  # parameters that say nothing about what is asked


def create(account: Account) -> ASGIApp:
    """The ASGI application over an account."""

    async def vendor(scope: Scope, receive: Receive, send: Send) -> None:
        with account.underway():
            await _serve(account, Request(scope, receive), receive, send)

    return beside(vendor, ControlApi(account))


async def _serve(account: Account, request: Request, receive: Receive, send: Send) -> None:
    """First comes the rate limit, then ordered faults, then rights."""
    call, config = _call(request, await body_of(receive)), account.config
    if config.latency_ms:
        await asyncio.sleep(config.latency_ms / 1_000)
    name = _name(call)
    if (wait := account.limit.take(config.rate_limit)) is not None:
        account.count_limited()
        account.count(name, 429)
        return await send_whole(send, _later(api.error(429), wait, config.retry_after))
    fault = account.fault_for(call)
    match fault:
        case Fault(kind="timeout"):
            account.count(name, "cut")
            await hang(receive, fault.seconds)
            return await send_whole(send, Answer(504))
        case Fault(kind="status"):
            answer = _later(api.error(fault.status, fault.body), fault.retry_after, fault.retry_after_form)
        case _:
            authorization = request.headers.get("authorization", "")
            answer = _refusal(config, call, authorization) or api.answer(account, call, fault)
    match fault:
        case Fault(kind="cut"):
            account.count(name, "cut")
            return await send_half(send, answer)
        case Fault(kind="broken_json"):
            answer = replace(answer, body=answer.body[: len(answer.body) // 2])
    account.count(name, answer.status)
    await send_whole(send, answer)


def _later(answer: Answer, seconds: int | None, form: RetryAfter) -> Answer:
    if seconds is None or form == "absent":
        return answer
    wait = str(seconds) if form == "seconds" else formatdate(time() + seconds, usegmt=True)
    return replace(answer, headers={"retry-after": wait})


def _refusal(config: Config, call: Call, authorization: str) -> Answer | None:
    """401 for a wrong token, in whichever of the three places it stands; the status of a missing right."""
    if (authorization.removeprefix("Bearer ") or call.params.get("api_key")) != config.token:
        return api.error(401)
    if call.resource == "line_items" and not config.global_admin:
        return api.error(config.missing_right_status)
    return None


def _call(request: Request, body: bytes) -> Call:
    resource, *path = request.url.path.removeprefix(_BASE).split("/")
    item = path[0] if path else None
    return Call(request.method, resource, item, tuple(path[1:]), request.query_params, body)


def _name(call: Call) -> str:
    if call.item is not None:
        return f"{call.method} {call.resource}/id"
    filters = sorted(set(call.params) - _UNNAMED)
    return f"{call.method} {call.resource}" + ("?" + "&".join(filters) if filters else "")
