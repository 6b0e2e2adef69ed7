"""Serving a simulator's ASGI application, as a command does, or in a thread of a test."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

    _MESSAGES = ("ASGI callable returned without completing response.", "Cancel %s running task(s)")

    def filter(self, record: logging.LogRecord) -> bool:
        cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
        return not cancelled and not str(record.msg).startswith(self._MESSAGES)


logging.getLogger("uvicorn.error").addFilter(_OrderedFaults())


def server(app: ASGIApp) -> uvicorn.Server:
    """The server of a simulator, not running yet."""
    # An answer that hangs is a fault on order, so the end never waits for one.
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=0,
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
        running.should_exit = True
        thread.join()
        listener.close()
