"""The HTTP side of a bucket: latency and ordered faults before the API itself."""

import asyncio
from dataclasses import replace
from secrets import token_hex

from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.answers import HTML, Answer, body_of, drop, hang, send_half, send_whole
from include.simulators.control_api import beside
from include.simulators.storage import api
from include.simulators.storage.bucket import Bucket
from include.simulators.storage.control_api import ControlApi
from include.simulators.storage.faults import Fault
from include.simulators.storage.protocol import Request


def create(bucket: Bucket) -> ASGIApp:
    """The ASGI application over a bucket: S3, and the control under a name that no bucket can have."""

    async def vendor(scope: Scope, receive: Receive, send: Send) -> None:
        with bucket.underway():
            await _serve(bucket, await _request(scope, receive), receive, send)

    return beside(vendor, ControlApi(bucket))


async def _request(scope: Scope, receive: Receive) -> Request:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        name, value = name.decode("latin-1"), value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return Request(
        scope["method"],
        scope["raw_path"].decode("latin-1"),
        scope["query_string"].decode("latin-1"),
        headers,
        await body_of(receive) if scope["method"] in ("PUT", "POST") else b"",
    )


async def _serve(bucket: Bucket, request: Request, receive: Receive, send: Send) -> None:
    if bucket.config.latency_ms:
        await asyncio.sleep(bucket.config.latency_ms / 1_000)
    fault = bucket.fault_for(request)
    match fault:
        case Fault(kind="hang"):
            bucket.count(request.operation, "cut")
            await hang(receive, fault.seconds)
            return await send_whole(send, _named(api.fault_answer(request, replace(fault, status=503), bucket.config)))
        case Fault(kind="drop"):
            bucket.count(request.operation, "cut")
            return await drop(receive, send)
        case Fault(kind="proxy"):
            bucket.count(request.operation, fault.status)
            page = HTML if fault.content_type and request.method != "HEAD" else b""
            return await send_whole(send, Answer(fault.status, page, content_type=fault.content_type))
        case Fault(kind="status"):
            answer = api.fault_answer(request, fault, bucket.config)
        case _:
            answer = api.answer(bucket, request, fault)
    if fault and fault.kind == "cut":
        bucket.count(request.operation, "cut")
        return await (send_half(send, _named(answer)) if answer.body else drop(receive, send))
    if fault and fault.kind == "truncated_xml":
        answer = replace(answer, body=answer.body[: len(answer.body) // 2])
    bucket.count(request.operation, answer.status)
    if request.operation == "list" and answer.status == 200:
        bucket.listed()
    await send_whole(send, _named(answer))


def _named(answer: Answer) -> Answer:
    """The answer with the id that each one has."""
    return replace(answer, headers={"x-amz-request-id": token_hex(8).upper()} | dict(answer.headers))
