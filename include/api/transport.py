"""A session of requests that bounds the size and the time of each answer, and never follows a redirect.

The timeouts of requests count from one byte to the next, so a server that sends a byte a minute would hold a task for
days; and a few KB of a compressed answer can unpack to any size.
"""

import http.client
import io
import logging
import math
import socket
import time
from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import pool_classes_by_scheme

# More than any page of an API needs, and little enough for a task's memory.
LARGEST_ANSWER_BYTES = 64 * 2**20
# From the end of the request to the last byte of the body.
LONGEST_ANSWER_SECONDS = 300.0
CHUNK_BYTES = 64 * 2**10


def open_session(headers: Mapping[str, str], connections: int, verify: bool | str) -> requests.Session:
    """Return a session with up to `connections` connections; `verify` is that of requests."""
    session = _Session()
    session.headers.update({"Accept": "application/json", **headers})
    session.verify = verify
    # Without an auth of its own requests would let a ~/.netrc replace the Authorization header.
    session.auth = lambda prepared: prepared
    adapter = _Adapter(pool_maxsize=connections, pool_block=True)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def read_body(response: requests.Response) -> bytes | None:
    """Return the body of a response that is still streamed, None if it is larger than LARGEST_ANSWER_BYTES.

    Raises a RequestException if it is broken or late.
    """
    chunks, size = [], 0
    try:
        for chunk in response.iter_content(CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_ANSWER_BYTES:
                return None
    except ValueError:
        # http.client takes the size of a chunk as it comes, below zero too.
        raise requests.exceptions.ChunkedEncodingError from None
    return b"".join(chunks)


class _Session(requests.Session):
    """Takes a redirect as an answer.

    `allow_redirects=False` is not enough: even then requests reads the whole body of a redirect, and fails on one with
    a broken address.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _TimedReader(socket.SocketIO):
    """Reads from a socket until a time of the monotonic clock, then raises TimeoutError.

    After more than `most` bytes it raises an OSError.
    """

    def __init__(self, sock: Any, deadline: float, most: float):
        super().__init__(sock, "r")
        self._deadline, self._left = deadline, most

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self._deadline:
            raise TimeoutError
        if self._left < 0:
            raise OSError("the answer is too large")
        count = super().readinto(buffer)
        self._left -= count or 0
        return count


class _TimedSocket:
    """The only part of a socket that http.client uses to read an answer: `makefile`."""

    def __init__(self, sock: Any, most: float):
        self._sock, self._most = sock, most

    def makefile(self, mode: str) -> Any:
        if not isinstance(self._sock, socket.socket):
            # TLS inside the TLS of a proxy.
            return self._sock.makefile(mode)
        # socket.makefile counts its files in the same way: the socket is closed after the last of them.
        self._sock._io_refs += 1
        deadline = time.monotonic() + LONGEST_ANSWER_SECONDS
        return io.BufferedReader(_TimedReader(self._sock, deadline, self._most))


class TimedResponse(http.client.HTTPResponse):
    """An answer that has to be read within LONGEST_ANSWER_SECONDS. `most`: its bytes as sent, at most."""

    most = math.inf

    def __init__(self, sock: Any, *args: Any, **options: Any):
        super().__init__(_TimedSocket(sock, self.most), *args, **options)


def pools_by_scheme(
    http: type[HTTPConnectionPool], https: type[HTTPSConnectionPool], response: type[TimedResponse]
) -> dict[str, type[HTTPConnectionPool]]:
    """Return subclasses of the two pools, by scheme, whose connections read answers as `response`."""

    def with_response(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        class Connection(pool.ConnectionCls):
            response_class = response

        class Pool(pool):
            ConnectionCls = Connection

        return Pool

    return {"http": with_response(http), "https": with_response(https)}


POOLS = pools_by_scheme(HTTPConnectionPool, HTTPSConnectionPool, TimedResponse)


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        # Those of a SOCKS proxy connect in a way of their own.
        if manager.pool_classes_by_scheme is pool_classes_by_scheme:
            manager.pool_classes_by_scheme = POOLS
        return manager


def _is_discreet(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to parse headers")


# urllib3 logs the query of the request and the headers that it can't read. Both may hold secrets.
logging.getLogger("urllib3.connection").addFilter(_is_discreet)
