"""A server on loopback that answers as the test tells it, and clients for it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from include.api.client import ApiClient
from tests.loopback import Loopback

FAST = (0.001, 0.002)


@dataclass
class Received:
    """A request as it came in; `body` is decoded JSON or None, `port` the client's."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any
    port: int


@dataclass
class Reply:
    """An answer. `body` is sent as JSON unless it is bytes; less of it than announced when `cut`; nothing at
    all, not even a status, when `hang_up`.
    """

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str | None = "application/json"
    cut: bool = False
    hang_up: bool = False
    delay: float = 0.0


class Server(Loopback):
    """Answers with `answer(received)`; remembers what it received, and how many requests it had at once."""

    def __init__(self) -> None:
        self.answer: Callable[[Received], Reply] = lambda _: Reply()
        self.received: list[Received] = []
        self.most_at_once = 0
        self._at_once = 0
        self._connections = 0
        self._lock = threading.Lock()
        super().__init__(self._handler())
        self.url = f"http://{self.address}/api/v1"

    def is_idle(self) -> bool:
        """Whether all connections to the server end within seconds."""
        deadline = time.monotonic() + 5
        while self._connections and time.monotonic() < deadline:
            time.sleep(0.005)
        return self._connections == 0

    def replies(self, *replies: Reply) -> None:
        """Answer with these in turn, and with the last one from then on."""
        rest = list(replies)
        self.answer = lambda _: rest.pop(0) if len(rest) > 1 else rest[0]

    def _handle(self, received: Received) -> Reply:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.received.append(received)
            reply = self.answer(received)
        time.sleep(reply.delay)
        with self._lock:
            self._at_once -= 1
        return reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Without this a header and its body wait for each other's acknowledgement, 40 ms an answer.
            disable_nagle_algorithm = True

            def handle(self) -> None:
                with server._lock:
                    server._connections += 1
                super().handle()
                with server._lock:
                    server._connections -= 1

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                reply = server._handle(
                    Received(
                        self.command,
                        url.path,
                        parse_qs(url.query),
                        dict(self.headers),
                        json.loads(body) if body else None,
                        self.client_address[1],
                    )
                )
                if reply.hang_up:
                    self.close_connection = True
                    return
                self._write(reply)

            do_POST = do_PUT = do_DELETE = do_GET

            def _write(self, reply: Reply) -> None:
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response_only(reply.status)
                if reply.content_type is not None:
                    self.send_header("Content-Type", reply.content_type)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(0 if reply.status == 204 else len(body)))
                self.end_headers()
                if reply.cut:
                    body, self.close_connection = body[: len(body) // 2], True
                # A client that has given up is not waiting for this any more.
                try:
                    self.wfile.write(b"" if reply.status == 204 else body)
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def reply() -> type[Reply]:
    """The class of the server's answers; conftest.py itself can't be imported."""
    return Reply


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., ApiClient]]:
    """Makes clients for the server that retry within milliseconds; closes them afterwards."""
    with ExitStack() as clients:

        def connect(**options: Any) -> ApiClient:
            defaults = {"backoff": FAST, "timeout": (2.0, 2.0)}
            return clients.enter_context(ApiClient("acme", server.url, **{**defaults, **options}))

        yield connect
