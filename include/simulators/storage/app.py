"""The HTTP side of a bucket: latency and ordered faults before the API itself."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.storage import api, control_api
from include.simulators.storage.bucket import Bucket
from include.simulators.storage.faults import Fault
from include.simulators.storage.protocol import Answer, Request


def create(bucket: Bucket) -> ASGIApp:
    """The ASGI application over a bucket: S3, and the control under a name that no bucket can have."""
    control = Starlette(routes=control_api.routes(bucket))

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/_control/"):
            await control(scope, receive, send)
        else:
            with bucket.underway():
                await _serve(bucket, await _request(scope, receive), receive, send)

    return application


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
        await _body(receive) if scope["method"] in ("PUT", "POST") else b"",
    )


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _serve(bucket: Bucket, request: Request, receive: Receive, send: Send) -> None:
    if bucket.config.latency_ms:
        await asyncio.sleep(bucket.config.latency_ms / 1_000)
    fault = bucket.faults.strike(request)
    if fault:
        bucket.count_fault()
    match fault:
        case Fault(kind="hang"):
            bucket.count(request.operation, "cut")
            await _hang(receive, fault.seconds)
            return await _send(send, api.ordered(request, replace(fault, status=503), bucket.config))
        case Fault(kind="drop"):
            bucket.count(request.operation, "cut")
            return await _drop(receive, send)
        case Fault(kind="status"):
            answer = api.ordered(request, fault, bucket.config)
        case _:
            answer = api.answer(bucket, request, fault)
    if fault and fault.kind == "cut":
        bucket.count(request.operation, "cut")
        return await (_cut(send, answer) if answer.body else _drop(receive, send))
    if fault and fault.kind == "truncated_xml":
        answer = replace(answer, body=answer.body[: len(answer.body) // 2])
    bucket.count(request.operation, answer.status)
    if request.operation == "list" and answer.status == 200:
        bucket.listed()
    await _send(send, answer)


async def _start(send: Send, answer: Answer) -> None:
    headers = {"content-length": str(len(answer.body)), "x-amz-request-id": token_hex(8).upper()} | dict(answer.headers)
    if answer.status == 204:
        del headers["content-length"]
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})


async def _send(send: Send, answer: Answer) -> None:
    await _start(send, answer)
    await send({"type": "http.response.body", "body": answer.body})


async def _cut(send: Send, answer: Answer) -> None:
    """Promise the whole body and end before: the server then closes the connection."""
    await _start(send, answer)
    await send({"type": "http.response.body", "body": answer.body[: len(answer.body) // 2], "more_body": True})


async def _drop(receive: Receive, send: Send) -> None:
    """Close the connection, which ASGI has no word for: `send` is a method of the server's cycle that can."""
    send.__self__.transport.abort()
    await _gone(receive)


async def _hang(receive: Receive, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(_gone(receive), seconds)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
