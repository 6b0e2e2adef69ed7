"""What only HTTP shows: answers too large, too slow or broken, and addresses that lead elsewhere."""

import gzip
import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import pytest

from include.api import responses, transport
from include.api.client import ApiClient
from include.api.errors import ApiError, RefuseData, TryLater
from include.api.fetch import pages
from include.api.paginators import NextLink
from include.api.request import Request

TOKEN = "hush-token"
OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"
VALUES = [b"\xff\xfe", b"", b"," * 99, b"=;=;=", b"9" * 5000, b"-1", b"Mon, 32 Foo -1 99:99:99"]

Answering = Callable[[], Iterable[bytes]]


class RawServer:
    """Answers each request with the bytes that `answer` yields, then closes the connection. `heard`: the requests."""

    def __init__(self, answer: Answering):
        self.heard: list[bytes] = []
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "RawServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            # The client may have enough before the end.
            with connection, suppress(OSError):
                self.heard.append(connection.recv(65536))
                for part in self._answer():
                    connection.sendall(part)


@contextmanager
def serving(
    *parts: bytes, answer: Callable[[], Iterable[bytes]] | None = None
) -> Iterator[tuple[ApiClient, RawServer]]:
    with (
        RawServer(answer or (lambda: parts)) as server,
        ApiClient(
            "acme",
            f"http://127.0.0.1:{server.port}",
            headers={"Authorization": TOKEN},
            timeout=(2.0, 2.0),
            attempts=2,
            backoff=(0.001, 0.002),
        ) as client,
    ):
        yield client, server


def error_of(client: ApiClient) -> ApiError:
    """The error of a request, one line that holds nothing of what was sent and received."""
    with pytest.raises(ApiError) as caught:
        client.send(Request("/items", {"key": "hush-query"}))
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)
    return caught.value


def test_an_answer_without_end_is_left_at_the_limit(monkeypatch):
    monkeypatch.setattr(transport, "LARGEST_ANSWER_BYTES", 2**20)
    monkeypatch.setattr(responses, "LARGEST_ANSWER_BYTES", 2**20)

    def endless():
        yield OK + JSON + b"\r\n["
        while True:
            yield b"1," * 8192

    with serving(answer=endless) as (client, server):
        error = error_of(client)
    assert type(error) is RefuseData
    assert "more than 1,048,576 bytes, so it was not read to its end. Run the task again" in str(error)
    assert len(server.heard) == 2


def test_an_answer_of_the_largest_size_is_taken(monkeypatch):
    body = b'"%s"' % (b"x" * 1000)
    monkeypatch.setattr(transport, "LARGEST_ANSWER_BYTES", len(body))
    with serving(OK, JSON, b"\r\n", body) as (client, _):
        assert client.get("/items").data == "x" * 1000


@pytest.mark.parametrize("times", [1, 2])
def test_a_bomb_is_not_unpacked(times):
    bomb = b"[" + b" " * 2**28
    for _ in range(times):
        bomb = gzip.compress(bomb, 9)
    encoding = b"Content-Encoding: " + b", ".join([b"gzip"] * times) + b"\r\n\r\n"
    tracemalloc.start()
    with serving(OK, JSON, encoding, bomb) as (client, _):
        assert "more than 67,108,864 bytes" in str(error_of(client))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * transport.LARGEST_ANSWER_BYTES


@pytest.mark.parametrize("start", [b"", OK, OK + JSON + b"Content-Length: 9999\r\n\r\n"])
def test_an_answer_that_drips_is_left_in_time(monkeypatch, start):
    """Byte by byte, in its status, its headers or its body: the time between two bytes is short."""
    monkeypatch.setattr(transport, "LONGEST_ANSWER_SECONDS", 0.3)

    def dripping():
        yield start
        while True:
            yield b"X"
            time.sleep(0.02)

    with serving(answer=dripping) as (client, _):
        began = time.monotonic()
        error = error_of(client)
    assert type(error) is TryLater
    assert "timed out" in str(error)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("place", [b"http://127.0.0.1:%d/hush", b"//127.0.0.1:%d/hush", b"http://[%d", b"\xff%d", b""])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_told_and_takes_the_token_nowhere(status, place):
    with RawServer(lambda: [OK + JSON + b"\r\n[]"]) as elsewhere:
        location = place % elsewhere.port if b"%d" in place else place
        with serving(b"HTTP/1.1 %d Moved\r\nLocation: %s\r\n\r\n" % (status, location)) as (client, server):
            assert "a redirect, which is not followed" in str(error_of(client))
    assert (len(server.heard), elsewhere.heard) == (1, [])


def test_a_redirect_is_not_read_beyond_the_limit(monkeypatch):
    monkeypatch.setattr(transport, "LARGEST_ANSWER_BYTES", 2**20)
    sent = []

    def endless():
        yield b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"
        for _ in range(1000):
            sent.append(1)
            yield b"x" * 2**16

    with serving(answer=endless) as (client, _):
        error_of(client)
    assert len(sent) < 500


def test_the_address_of_the_next_page_takes_the_token_nowhere():
    with RawServer(lambda: [OK + JSON + b"\r\n[]"]) as elsewhere:
        link = b'Link: <http://127.0.0.1:%d/hush?page=2>; rel="next"\r\n' % elsewhere.port
        rest = iter([link, b""])
        with serving(answer=lambda: [OK, JSON, next(rest), b"\r\n", b'[{"id": 1}]']) as (client, server):
            assert len(list(pages(client, Request("/items"), NextLink()))) == 2
    assert server.heard[1].startswith(b"GET /items?page=2 ")
    assert elsewhere.heard == []


ODD = {
    "no answer": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a status that is none": b"HTTP/1.1 hush OK\r\n\r\n",
    "a status out of range": b"HTTP/1.1 99999 OK\r\n\r\n{}",
    "HTTP of the future": b"HTTP/7.3 200 OK\r\n\r\n{}",
    "a line without end": OK + b"X: " + b"hush" * 30_000,
    "too many headers": OK + b"".join(b"X-%d: hush\r\n" % number for number in range(500)) + b"\r\n{}",
    "a header that is none": OK + b"hush hush\r\n\r\n",
    "two lengths": OK + JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length that is none": OK + JSON + b"Content-Length: hush\r\n\r\n{",
    "a length below zero": OK + JSON + b"Content-Length: -5\r\n\r\n{",
    "more promised than sent": OK + JSON + b"Content-Length: 99999999999\r\n\r\n{}",
    "a chunk that is none": OK + JSON + b"Transfer-Encoding: chunked\r\n\r\nhush\r\n{}\r\n",
    "a chunk below zero": OK + JSON + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a chunk of an absurd size": OK + JSON + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 60 + b"\r\n{}\r\n",
    "chunks without their end": OK + JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "gzip that is none": OK + JSON + b"Content-Encoding: gzip\r\n\r\n{}",
    "deflate that is none": OK + JSON + b"Content-Encoding: deflate\r\n\r\n{}",
    "br that is none": OK + JSON + b"Content-Encoding: br\r\n\r\nhush",
    "zstd that is none": OK + JSON + b"Content-Encoding: zstd\r\n\r\nhush",
    "half a gzip": OK + JSON + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b'{"a": "hush"}')[:-12],
    "many encodings": OK + JSON + b"Content-Encoding: " + b"gzip, " * 200 + b"gzip\r\n\r\n{}",
    "a type that is none": OK + b"Content-Type: \xff\xfe;;;hush\r\n\r\n{}",
    "a body in UTF-16": OK + JSON + b"\r\n" + '{"a": "hush"}'.encode("utf-16"),
    "a BOM": OK + JSON + b"\r\n\xef\xbb\xbf{}",
    "deep lists": OK + JSON + b"\r\n" + b"[" * 10_000,
    "100 without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: hush\r\n\r\n",
    "an integer of 5,000 digits": OK + JSON + b"\r\n" + b"9" * 5000,
}


@pytest.mark.parametrize("sent", ODD.values(), ids=ODD)
def test_an_odd_answer_is_no_answer_and_may_be_a_better_one_later(caplog, sent):
    """It must not count as a fault of the connection, which would end everything until a person acts."""
    with caplog.at_level(logging.INFO), serving(sent) as (client, server):
        error = error_of(client)
    assert isinstance(error, TryLater)
    assert len(server.heard) == 2
    assert "hush" not in caplog.text


@pytest.mark.parametrize("name", [b"Set-Cookie", b"Date", b"Link", b"Retry-After", b"Server", b"Content-Location"])
@pytest.mark.parametrize(
    "value", [b"\xff\xfe", b"", b"," * 99, b"=;=;=", b"9" * 5000, b"-1", b"Mon, 32 Foo -1 99:99:99"]
)
def test_an_odd_header_spoils_no_answer(name, value):
    with serving(OK, JSON, name, b": ", value, b"\r\n\r\n[]") as (client, _):
        assert client.get("/items").data == []
        assert [page.next for page in pages(client, Request("/items"), NextLink())] == [None]


@pytest.mark.parametrize("link", [b"<http://[?a=1>; rel=next", b"<>; rel=next", b"<http://other/>; rel=next"])
def test_a_broken_address_of_the_next_page_is_no_end_of_the_list(link):
    with (
        serving(OK, JSON, b"Link: ", link, b"\r\n\r\n", b'[{"id": 1}]') as (client, _),
        pytest.raises(RefuseData, match="the address of the next page has no query"),
    ):
        list(pages(client, Request("/items"), NextLink()))


@pytest.mark.parametrize("number", [b"1e99999999999999999999", b"-1.5E-99999999999999999999"])
def test_a_number_beyond_all_decimals_spoils_its_own_record_only(number):
    with serving(OK, JSON, b"\r\n", b'[{"id": %s}, {"id": 2}]' % number) as (client, _):
        assert client.get("/items").data == [{"id": "\0"}, {"id": 2}]
