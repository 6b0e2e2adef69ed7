"""Serving a simulator's ASGI application, as a command does, or in a thread of a test."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import uvicorn
from starlette.types import ASGIApp

from include.simulators.control import Control

Hand = TypeVar("Hand", bound=Control)


@dataclass(frozen=True)
class Simulator(Generic[Hand]):
    """A running simulator: `url` without the API's base path, the token it wants, and its control."""

    url: str
    token: str
    control: Hand


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError when the port is taken."""
    return socket.create_server((host, port), backlog=256)


def url_of(listener: socket.socket) -> str:
    """The base URL under which a listening socket is reached, without a trailing slash."""
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


class _OrderedFaults(logging.Filter):
    """Keeps what we cut on order out of uvicorn's error log, which sees bugs in it."""

    _MESSAGE = "ASGI callable returned without completing response."

    def filter(self, record: logging.LogRecord) -> bool:
        cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
        return not cancelled and not str(record.msg).startswith(self._MESSAGE)


logging.getLogger("uvicorn.error").addFilter(_OrderedFaults())


class _PromptServer(uvicorn.Server):
    """A server that ends at once: uvicorn's own looks ten times a second whether it should, and then waits as long.

    An answer that hangs is a fault on order, so the end never waits for one.
    """

    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), 0.1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for each in [*self.servers, *(sockets or ())]:
            each.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # The connections are closed in the loop's next round.
        await asyncio.sleep(0)

    def end(self) -> None:
        """End it from another thread."""
        self.should_exit = True
        # Without a loop it has not begun, and will see that it should not.
        if self._loop:
            self._loop.call_soon_threadsafe(self._end.set)


def server(app: ASGIApp) -> _PromptServer:
    """The server of a simulator, not running yet."""
    return _PromptServer(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_keep_alive=75,
        )
    )


@contextmanager
def in_thread(app: ASGIApp) -> Iterator[str]:
    """Serve `app` on a free loopback port and yield its URL; port and thread are gone afterwards."""
    listener = listen("127.0.0.1", 0)
    running = server(app)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, name="simulator")
    thread.start()
    try:
        yield url_of(listener)
    finally:
        running.end()
        thread.join()
        listener.close()
