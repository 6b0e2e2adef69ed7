"""Between client and vendor: an ASGI application that asks simulated accounts, and sends on what a lie makes of it.

It sees what went over the wire, and shares no code with the client.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from email.utils import formatdate
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from include.simulators.answers import body_of

_encode = msgspec.json.Encoder(decimal_format="number").encode
# Amounts stay as they were written.
_decode = msgspec.json.Decoder(float_hook=Decimal).decode
# Stands for half a pair of surrogates, which only an escape can write.
SURROGATE = "\ue000"
CONTROL, WORLD = "/_control/", "/_world/"
# Where no two requests for the same thing agree: instants, and texts that only their maker reads.
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:?\d\d)?")
PLACES = frozenset({"page", "cursor", "nextKeys", "continuation-token", "start-after"})


@dataclass(frozen=True)
class Asked:
    """A request as it came in; `path` as it was sent, without the query."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @cached_property
    def params(self) -> Mapping[str, Any]:
        """What was asked for, be it in the query or in the JSON of the body."""
        try:
            content = _decode(self.body) if self.body else {}
        except msgspec.DecodeError:
            content = {}
        return {**(content if isinstance(content, dict) else {}), **dict(self.query)}

    @cached_property
    def identity(self) -> str:
        """The same for the same question, whenever it was asked."""
        params = {name: value for name, value in self.params.items() if name not in ("cursor", "nextKeys", "_dc")}
        return INSTANT.sub("T", f"{self.method} {self.path} {_encode(params).decode()}")

    @property
    def place(self) -> Any:
        """Which page was asked for; None for the first one, or the only one."""
        return next((self.params[name] for name in PLACES if self.params.get(name)), None)

    def at(self, path: str) -> "Asked":
        return replace(self, path=path)

    def on_page(self, name: str, number: int) -> "Asked":
        """The same request for another page by its number."""
        query = [(key, value) for key, value in self.query if key != name]
        return replace(self, query=(*query, (name, str(number))))

    def __str__(self) -> str:
        return f"{self.method} {self.path} {dict(self.params)}"


@dataclass(frozen=True)
class Reply:
    """An answer; header names are in lower case. With `cut` the connection ends in the middle of the body."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False

    @cached_property
    def data(self) -> Any:
        """The JSON of the body; None where it is none."""
        try:
            return _decode(self.body)
        except msgspec.DecodeError:
            return None

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    def __str__(self) -> str:
        text = self.body.decode(errors="replace")
        return f"{self.status} {text if len(text) <= 160 else f'{text[:90]} ... {text[-60:]}'}"

    def saying(self, data: Any, status: int | None = None) -> "Reply":
        """The same answer with other JSON."""
        headers = {**self.headers, "content-type": self.headers.get("content-type", "application/json")}
        body = _encode(data).replace(SURROGATE.encode(), rb"\ud800")
        return replace(self, body=body, status=status or self.status, headers=headers)


Lying = Callable[[Asked, "Ask"], Awaitable[Reply]]
Ask = Callable[..., Awaitable[Reply]]


class Wire:
    """The server that the client sees. `worlds` are simulated accounts by name, of which "now" is the true one.

    Their controls are reached under /_world/<name>. `lying` takes a request and a way to ask a world
    (`await ask(asked, world="now")`), and returns the answer; None for the truth. `asked` keeps what was asked, and
    `heard` the answers too, if it is a list. `mistake`: what went wrong in the harness itself.
    """

    def __init__(self) -> None:
        self.worlds: dict[str, ASGIApp] = {}
        self.lying: Lying | None = None
        self.asked: list[Asked] = []
        self.heard: list[tuple[Asked, Reply]] | None = None
        self.mistake: Exception | None = None
        # The present by world, of accounts that tell none themselves.
        self.clock: Callable[[str], float | None] = lambda world: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as `lying` does, or truthfully; keep both for the test."""
        if CONTROL in scope["path"]:
            return await self._control(scope, receive, send)
        asked = await _asked(scope, receive)
        self.asked.append(asked)

        async def ask(other: Asked = asked, world: str = "now") -> Reply:
            """The true answer of a world, with the world's present as its date."""
            reply = await _exchange(self.worlds[world], scope, other)
            present = self.clock(world)
            if present is None or "date" in reply.headers:
                return reply
            return replace(reply, headers={**reply.headers, "date": formatdate(present, usegmt=True)})

        try:
            reply = await (self.lying(asked, ask) if self.lying else ask())
        except Exception as mistake:
            self.mistake = mistake
            raise
        if self.heard is not None:
            self.heard.append((asked, reply))
        await _send(send, reply)

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        before, control, rest = scope["path"].partition(CONTROL)
        world = before.removeprefix(WORLD) or "now"
        path = control + rest
        await self.worlds[world]({**scope, "path": path, "raw_path": path.encode()}, receive, send)


async def _asked(scope: Scope, receive: Receive) -> Asked:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    path = scope["raw_path"].decode("latin-1")
    return Asked(scope["method"], path, tuple(query), await body_of(receive), tuple(scope["headers"]))


class _Caught:
    """Takes an answer in the place of the server; `transport` and `default_headers` are the server's names."""

    def __init__(self) -> None:
        self.transport, self.default_headers = self, []
        self.status, self.headers, self.body = 0, {}, b""
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")


async def _exchange(app: ASGIApp, scope: Scope, asked: Asked) -> Reply:
    messages = iter([{"type": "http.request", "body": asked.body, "more_body": False}])

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    caught = _Caught()
    where = {
        "method": asked.method,
        "path": asked.path,
        "raw_path": asked.path.encode("latin-1"),
        "query_string": urlencode(asked.query).encode("latin-1") if asked.query else b"",
    }
    unchanged = (asked.path, tuple(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)))
    if unchanged == (scope["raw_path"].decode("latin-1"), asked.query):
        where = {"method": asked.method}
    await app({**scope, **where}, receive, caught.send)
    # The length of a body is counted anew; of an object that wasn't sent it is all that is told.
    counted = {} if asked.method == "HEAD" else {"content-length"}
    return Reply(caught.status, caught.body, {n: v for n, v in caught.headers.items() if n not in counted})


async def _send(send: Send, reply: Reply) -> None:
    headers = dict(reply.headers)
    if "content-length" not in headers and reply.status != 204:
        headers["content-length"] = str(len(reply.body))
    if "date" in headers:
        # The server's own would come on top of it.
        send.__self__.default_headers = []
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    if reply.status == 0:
        return send.__self__.transport.abort()
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    body = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
    await send({"type": "http.response.body", "body": body, "more_body": reply.cut})
    await asyncio.sleep(0)
