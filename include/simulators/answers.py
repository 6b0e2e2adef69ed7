"""How a simulator answers over HTTP: in whole, in part, late, or not at all."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.types import Receive, Send

HTML = b"<!DOCTYPE html><html><body><h1>We'll be back soon</h1></body></html>"


@dataclass(frozen=True)
class Answer:
    """What is sent back. Content-Length is that of the body, unless `headers` (in lower case) name another."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = "application/json"


async def body_of(receive: Receive) -> bytes:
    """The whole body of a request."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def send_whole(send: Send, answer: Answer) -> None:
    """Send an answer."""
    await _start(send, answer)
    await send({"type": "http.response.body", "body": answer.body})


async def send_half(send: Send, answer: Answer) -> None:
    """Promise the whole body and end before: the server then closes the connection."""
    await _start(send, answer)
    await send({"type": "http.response.body", "body": answer.body[: len(answer.body) // 2], "more_body": True})


async def drop(receive: Receive, send: Send) -> None:
    """Close the connection, which ASGI has no word for: `send` is a method of the server's cycle that can."""
    send.__self__.transport.abort()
    await _gone(receive)


async def hang(receive: Receive, seconds: float) -> None:
    """Wait until the client has gone, or for so long."""
    with suppress(TimeoutError):
        await asyncio.wait_for(_gone(receive), seconds)


async def _start(send: Send, answer: Answer) -> None:
    usual = {"content-length": str(len(answer.body)), "content-type": answer.content_type}
    given = {name: text for name, text in usual.items() if text and answer.status != 204}
    headers = given | dict(answer.headers)
    if "date" in headers:
        # The server's own would come on top of the account's, and ASGI has no word for that either.
        send.__self__.default_headers = []
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
