import logging
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import CancelledError
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from include.api.client import ApiClient
from include.api.error_policy import ErrorPolicy
from include.api.errors import ApiError, FixConfiguration, NotFound, NotSent, RefuseData, TryLater
from include.api.request import Request
from include.api.responses import http_date, retry_after

NOON = datetime(2026, 2, 3, 12, 0, tzinfo=UTC)


class Waits(threading.Event):
    """Stands in for the wait between attempts: takes no time, and remembers how long it would have been."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        return False


class Limiter:
    """Counts what a client asks of it."""

    def __init__(self, refusal: str | None = None) -> None:
        self.acquired = 0
        self.pauses: list[float] = []
        self._refusal = refusal

    def acquire(self) -> str | None:
        self.acquired += 1
        return self._refusal

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


ITEMS = Request("/items")


def fetch_error(client: ApiClient, request: Request = ITEMS, **options: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        client.send(request, **options)
    return caught.value


# -- what is sent


def test_sends_params_headers_and_body(server, connect):
    client = connect(headers={"Authorization": "Bearer token"})
    client.send(Request("items/1", {"page": 2, "id[]": [7, 8]}, method="POST", body={"limit": 10}))
    [received] = server.received
    assert (received.method, received.path) == ("POST", "/api/v1/items/1")
    assert received.query == {"page": ["2"], "id[]": ["7", "8"]}
    assert received.body == {"limit": 10}
    assert received.headers["Authorization"] == "Bearer token"


def test_a_get_has_no_body(server, connect):
    connect().get("/items", page=1)
    [received] = server.received
    assert (received.method, received.query, received.body) == ("GET", {"page": ["1"]}, None)


def test_netrc_does_not_replace_the_token(server, connect, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    connect(headers={"Authorization": "token"}).get("/items")
    assert server.received[0].headers["Authorization"] == "token"


def test_connections_are_reused(server, connect):
    client = connect()
    for _ in range(3):
        client.get("/items")
    assert len({received.port for received in server.received}) == 1


def test_never_more_connections_than_allowed(server, connect, reply):
    server.replies(reply(delay=0.02))
    client = connect(connections=2)
    threads = [threading.Thread(target=client.get, args=("/items",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most_at_once == 2
    assert client.requests_sent == 6


def test_leaving_the_context_closes_the_connections(server):
    with ApiClient("acme", server.url) as client:
        client.get("/items")
    assert server.is_idle()


# -- what comes back


def test_numbers_are_exact(server, connect, reply):
    server.replies(reply(b'{"price": 0.1, "total": 12345678901234567.89, "id": 9007199254740993}'))
    data = connect().get("/items").data
    assert data == {"price": Decimal("0.1"), "total": Decimal("12345678901234567.89"), "id": 9007199254740993}
    assert not any(isinstance(value, float) for value in data.values())


def test_the_servers_clock_is_told_in_utc(server, connect, reply):
    server.replies(reply(headers={"Date": "Tue, 03 Feb 2026 12:00:00 GMT", "X-Trace": "abc"}))
    answer = connect().get("/items")
    assert answer.date == NOON
    assert answer.date.tzinfo is UTC
    assert answer.headers["x-trace"] == "abc"


@pytest.mark.parametrize(
    "date", [None, "", "yesterday", "Tue, 99 Feb 2026 12:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -0100"]
)
def test_no_readable_clock(server, connect, reply, date):
    server.replies(reply(headers={} if date is None else {"Date": date}))
    assert connect().get("/items").date is None


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/acme+json", None])
def test_json_by_any_name(server, connect, reply, content_type):
    server.replies(reply({"id": 1}, content_type=content_type))
    assert connect().get("/items").data == {"id": 1}


def test_no_content(server, connect, reply):
    server.replies(reply(status=204, content_type=None))
    assert connect().send(Request("/items/1", method="DELETE")).data is None


# -- errors, sorted by what to do


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (301, "host"),
        (302, "host"),
        (304, "host"),
        (400, "params"),
        (401, "token"),
        (403, "permissions"),
        (405, "params"),
        (409, "params"),
        (410, "params"),
        (422, "params"),
    ],
)
def test_fix_configuration(server, connect, reply, status, advice):
    server.replies(reply(status=status, headers={"Location": "/api/v1/elsewhere"}))
    error = fetch_error(connect())
    assert type(error) is FixConfiguration
    assert str(status) in str(error)
    assert advice in str(error)
    assert "connection 'acme'" in str(error)
    assert len(server.received) == 1


@pytest.mark.parametrize("content_type", ["application/json", None])
def test_not_found(server, connect, reply, content_type):
    server.replies(reply(b"", status=404, content_type=content_type))
    error = fetch_error(connect(), Request("/items/17"))
    assert type(error) is NotFound
    assert "acme: GET /items/17 answered 404" in str(error)
    assert len(server.received) == 1


@pytest.mark.parametrize("headers", [{"Retry-After": "0"}, {"X-RateLimit-Remaining": "0"}])
def test_a_refusal_for_the_time_being_is_waited_for(server, connect, reply, headers):
    server.replies(reply(status=403, headers=headers), reply({"id": 1}))
    assert connect(attempts=2).get("/items").data == {"id": 1}
    assert len(server.received) == 2


def test_a_refusal_with_requests_left_is_a_missing_right(server, connect, reply):
    server.replies(reply(status=403, headers={"X-RateLimit-Remaining": "17"}))
    assert type(fetch_error(connect())) is FixConfiguration


def test_own_statuses_mean_what_the_policy_says(server, connect, reply):
    policy = ErrorPolicy(wait=frozenset({430}), unknown=frozenset({422}), absent=frozenset({410}))
    limiter = Limiter()
    client = connect(attempts=3, error_policy=policy, limiter=limiter)
    server.replies(reply(status=430, headers={"Retry-After": "7"}), reply({"id": 1}))
    assert client.send(ITEMS, cancel=Waits()).data == {"id": 1}
    assert limiter.pauses == [7.0]
    for status, kind, requests in (
        (422, RefuseData, 2),
        (410, NotFound, 1),
        (404, NotFound, 1),
        (409, FixConfiguration, 1),
    ):
        server.received.clear()
        server.replies(reply({}, status=status))
        error = fetch_error(client)
        assert (type(error), error.status, len(server.received)) == (kind, status, requests)


@pytest.mark.drill("html-proxy")
def test_a_page_of_a_proxy_proves_nothing_whatever_the_policy_says(server, connect, reply):
    server.replies(reply(b"<html>", status=410, content_type="text/html"))
    assert type(fetch_error(connect(attempts=1, error_policy=ErrorPolicy(absent=frozenset({410}))))) is TryLater


@pytest.mark.parametrize("status", [200, 401, 404, 408, 429, 500])
def test_what_means_the_same_everywhere_is_no_policy(status):
    with pytest.raises(ValueError, match=f"the meaning of {status} is the same for all APIs"):
        ErrorPolicy(wait=frozenset({status}))


def test_a_missing_right_proves_no_absence():
    with pytest.raises(ValueError, match="403 says that a right is missing"):
        ErrorPolicy(absent=frozenset({403}))
    assert ErrorPolicy(unknown=frozenset({403})).unknown == {403}


def test_a_status_means_one_thing():
    with pytest.raises(ValueError, match="means one thing"):
        ErrorPolicy(wait=frozenset({410}), absent=frozenset({410}))


@pytest.mark.parametrize("status", [202, 206])
def test_an_answer_that_is_not_whole_yet_is_none(server, connect, reply, status):
    server.replies(reply([], status=status))
    error = fetch_error(connect(attempts=3))
    assert (type(error), len(server.received)) == (TryLater, 3)
    assert f"answered {status}: what was asked for is not there yet, or not all of it" in str(error)


@pytest.mark.parametrize("status", [408, 429, 500, 501, 502, 503, 504, 520, 599])
def test_try_later(server, connect, reply, status):
    server.replies(reply(b"<html>busy</html>", status=status, content_type="text/html"))
    error = fetch_error(connect(attempts=3))
    assert type(error) is TryLater
    assert f"answered {status}; stopped after 3 attempts. Run the task again later." in str(error)
    assert len(server.received) == 3


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"body": b"<html>login</html>", "content_type": "text/html; charset=utf-8"}, "text/html"),
        ({"body": b"OK", "content_type": "text/plain"}, "text/plain"),
        ({"body": b"<html>", "content_type": "text/html", "status": 404}, "not the API's own answer"),
        ({"body": b"404 page not found", "content_type": "text/plain", "status": 404}, "not the API's own answer"),
        ({"body": b"<html>login</html>"}, "broken JSON"),
        ({"body": b""}, "broken JSON"),
        ({"body": b'{"items": [{"id": 1}, {"i'}, "broken JSON"),
        ({"body": b'{"name": "\xff\xfe"}'}, "broken JSON"),
        ({"body": b'{"total": NaN}'}, "broken JSON"),
        ({"body": b'{"items": [1, 2, 3, 4]}', "cut": True}, "connection failed"),
        ({"hang_up": True}, "connection failed"),
        ({"delay": 1.5}, "timed out"),
    ],
)
def test_an_unreadable_answer_is_fetched_again(server, connect, reply, fault, told):
    server.replies(reply(**fault))
    error = fetch_error(connect(attempts=2, timeout=(2.0, 0.5)))
    assert type(error) is TryLater
    assert told in str(error)
    assert len(server.received) == 2

    server.replies(reply(**fault), reply({"id": 1}))
    assert connect(timeout=(2.0, 0.5)).get("/items").data == {"id": 1}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"errors": [{"code": "INTERNAL_SERVER_ERROR", "detail": "hush"}], "items": []}, "(INTERNAL_SERVER_ERROR)"),
        ({"error": "hush"}, "'error'"),
        ({"errors": {"hush": 1}}, "'errors'"),
        ({"items": None}, "no items"),
    ],
)
def test_an_answer_that_does_not_fit_the_question_is_asked_for_once_more(server, connect, reply, data, told):
    def check(data):
        if not data.get("items"):
            raise RefuseData("it has no items")

    request = Request("/items", check=check)
    server.replies(*[reply(data)] * 5)
    with pytest.raises(RefuseData) as caught:
        connect(attempts=5).send(request)
    assert told in str(caught.value)
    assert "hush" not in str(caught.value)
    assert len(server.received) == 2
    server.replies(reply(data), reply({"items": [1], "errors": []}))
    assert connect().send(request).data["items"] == [1]


def test_who_listens_has_each_answer_that_fits(server, connect, reply):
    heard = []
    client = connect(attempts=2)
    client.listen(lambda request, answer: heard.append((request.path, answer.data)))
    server.replies(reply({"error": "hush"}), reply({"items": [1]}), reply({"items": [2]}))
    client.send(Request("/items"))
    client.get("/others")
    assert heard == [("/items", {"items": [1]}), ("/others", {"items": [2]})]


def test_an_error_tells_the_codes_of_the_vendor_and_nothing_else(server, connect, reply):
    errors = [{"code": "INVALID_CURSOR", "detail": "hush"}, {"code": "hush hush"}, {"code": 7}]
    server.replies(reply({"errors": errors}, status=400))
    error = fetch_error(connect())
    assert "answered 400 (INVALID_CURSOR): it refuses" in str(error)
    assert "hush" not in str(error)


@pytest.mark.drill("dns-gone", "vendor-unreachable")
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid"])
def test_an_unreachable_server(url, connect):
    with ApiClient("acme", url, attempts=2, backoff=(0.001, 0.002)) as client:
        error = fetch_error(client)
    assert type(error) is TryLater
    assert client.requests_sent == client.requests_failed == 2


def test_failed_requests_are_counted_but_for_what_is_not_there(server, connect, reply):
    server.replies(reply(status=503), reply({"id": 1}), reply({}, status=404), reply({}, status=401))
    client = connect()
    client.get("/items")
    for kind in (NotFound, FixConfiguration):
        assert type(fetch_error(client)) is kind
    assert (client.requests_sent, client.requests_failed) == (4, 2)


@pytest.mark.parametrize("url", ["acme.example", "ftp://acme.example", "http://", "http://[acme"])
def test_an_unusable_url(url):
    with ApiClient("acme", url) as client:
        assert type(fetch_error(client)) is FixConfiguration


@pytest.mark.parametrize("token", ["token\n", "token\u2013"])
def test_a_token_that_no_header_can_hold(connect, token):
    error = fetch_error(connect(headers={"Authorization": token}))
    assert type(error) is FixConfiguration
    assert "connection 'acme'" in str(error)


# -- TLS


@pytest.fixture
def untrusted(tmp_path) -> Iterator[int]:
    """The port of a TLS server whose certificate nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def shake_hands(connection: socket.socket) -> None:
        # The client refuses the certificate, and says so.
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(connection, server_side=True).recv(1)

    with _listening(shake_hands) as port:
        yield port


class _listening:
    """Gives each connection to `serve` and closes it, until the context is left."""

    def __init__(self, serve):
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> int:
        self._thread.start()
        return self._socket.getsockname()[1]

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)


@pytest.mark.drill("tls-expired")
def test_an_untrusted_certificate(untrusted):
    with ApiClient("acme", f"https://localhost:{untrusted}") as client:
        error = fetch_error(client)
    assert type(error) is FixConfiguration
    assert "certificate of connection 'acme'" in str(error)
    assert client.requests_sent == 1


def test_a_server_without_tls(server):
    with ApiClient("acme", server.url.replace("http://", "https://")) as client:
        assert type(fetch_error(client)) is FixConfiguration


def test_a_tls_handshake_that_is_cut_off():
    with (
        _listening(lambda connection: connection.recv(4096)) as port,
        ApiClient("acme", f"https://localhost:{port}", attempts=2, backoff=(0.001, 0.002)) as client,
    ):
        assert type(fetch_error(client)) is TryLater
    assert client.requests_sent == 2


# -- patience


def test_waits_are_random_and_grow_within_their_bounds(server, connect, reply):
    server.replies(reply(status=503))
    runs = []
    for _ in range(30):
        waits = Waits()
        fetch_error(connect(backoff=(2.0, 30.0)), cancel=waits)
        runs.append(waits.seconds)
    for bound, seconds in zip([4, 8, 16, 30, 30], zip(*runs, strict=True), strict=True):
        assert all(2 <= wait <= bound for wait in seconds)
        assert len(set(seconds)) > 1
        assert max(seconds) > bound / 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("7", 7),
        ("0", 0),
        ("1.5", 1.5),
        (format_datetime(NOON + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOON - timedelta(seconds=90), usegmt=True), 0),
    ],
)
def test_retry_after_replaces_the_wait(server, connect, reply, status, header, asked):
    headers = {"Retry-After": header, "Date": format_datetime(NOON, usegmt=True)}
    server.replies(reply(status=status, headers=headers))
    limiter, waits = Limiter(), Waits()
    error = fetch_error(connect(backoff=(20.0, 30.0), limiter=limiter, attempts=2), cancel=waits)
    assert error.retry_after == asked
    assert [asked <= seconds <= asked + 1 for seconds in waits.seconds] == [True]
    assert limiter.pauses == ([asked, asked] if status == 429 else [])


def test_a_date_without_the_servers_clock_is_compared_with_ours(server, connect, reply):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    server.replies(reply(status=503, headers={"Retry-After": later}))
    assert 90 < fetch_error(connect(attempts=1)).retry_after <= 100


@pytest.mark.parametrize("header", ["soon", "", "nan", "Tue, 99 Feb 2026 12:00:00 GMT"])
def test_an_unreadable_retry_after(server, connect, reply, header):
    server.replies(reply(status=429, headers={"Retry-After": header}))
    limiter, waits = Limiter(), Waits()
    error = fetch_error(connect(backoff=(2.0, 30.0), limiter=limiter, attempts=2), cancel=waits)
    assert error.retry_after is None
    assert 2 <= waits.seconds[0] <= 4
    assert limiter.pauses == []


@given(st.text(alphabet=st.characters(codec="latin-1")) | st.integers().map(str) | st.floats().map(str))
def test_any_header_is_a_wait_of_at_most_a_day_or_none(text):
    seconds = retry_after({"Retry-After": text})
    assert seconds is None or 0 <= seconds <= 86_400


@given(st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)))
def test_http_dates_come_back(date):
    date = date.replace(microsecond=0)
    assert http_date(format_datetime(date, usegmt=True)) == date


def test_what_passes_by_itself_does_not_show(server, connect, reply, caplog):
    server.replies(reply(status=503), reply(status=429), reply({"id": 1}))
    client = connect()
    with caplog.at_level(logging.WARNING):
        assert client.get("/items", page=4).data == {"id": 1}
    assert client.requests_sent == 3
    assert client.errors == {"TryLater": 2}
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("acme: GET /items answered 503; attempt 1 of 6, the next one in ")
    assert second.startswith("acme: GET /items answered 429; attempt 2 of 6, the next one in ")


def test_every_attempt_asks_the_limiter(server, connect, reply):
    server.replies(reply(status=503), reply(status=503), reply())
    limiter = Limiter()
    connect(limiter=limiter).get("/items")
    assert limiter.acquired == 3


@pytest.mark.drill("quota-used-up")
@pytest.mark.parametrize("idempotent", [True, False])
def test_what_the_limiter_refuses_is_not_sent_and_not_tried_again(server, connect, idempotent):
    limiter, waits = Limiter("the quota is used up"), Waits()
    client = connect(limiter=limiter)
    error = fetch_error(client, Request("/items", idempotent=idempotent), cancel=waits)
    assert type(error) is NotSent
    assert str(error) == "acme: GET /items was not sent: the quota is used up"
    assert (server.received, limiter.acquired, waits.seconds) == ([], 1, [])
    assert (client.requests_sent, client.errors) == (0, {})


def test_what_the_limiter_refuses_the_second_time_is_not_tried_a_third_time(server, connect, reply):
    server.replies(reply(status=503))
    answers = iter([None, "the quota is used up"])
    limiter = Limiter()
    limiter.acquire = lambda: next(answers)
    client = connect(limiter=limiter)
    assert type(fetch_error(client)) is NotSent
    assert (client.requests_sent, client.requests_failed) == (1, 1)


@pytest.mark.drill("answer-lost")
@pytest.mark.parametrize("fault", [{"status": 503}, {"hang_up": True}, {"body": b"", "status": 200}])
def test_what_may_have_taken_effect_is_not_sent_again(server, connect, reply, fault):
    server.replies(reply(**fault))
    error = fetch_error(connect(), Request("/items", method="POST", body={}, idempotent=False))
    assert type(error) is TryLater
    assert "Read back" in str(error)
    assert len(server.received) == 1


def test_errors_are_counted_by_class(server, connect, reply):
    client = connect(attempts=2)
    for status in (503, 404, 404, 401):
        server.replies(reply(status=status))
        fetch_error(client)
    assert client.errors == {"TryLater": 2, "NotFound": 2, "FixConfiguration": 1}
    assert client.requests_sent == 5


@pytest.mark.drill("maintenance")
def test_a_wait_past_the_budget_is_not_begun(server, connect, reply):
    server.replies(reply(status=429, headers={"Retry-After": "60"}))
    waits = Waits()
    error = fetch_error(connect(budget_seconds=5), cancel=waits)
    assert type(error) is TryLater
    assert "answered 429; stopped after attempt 1" in str(error)
    assert "time budget of 5 s" in str(error)
    assert error.retry_after == 60
    assert waits.seconds == []
    assert len(server.received) == 1


def test_the_budget_is_for_all_requests_together_from_the_first_on(server, connect):
    client = connect(budget_seconds=0.2)
    time.sleep(0.25)
    client.get("/items")
    time.sleep(0.25)
    error = fetch_error(client)
    assert type(error) is NotSent
    assert "was not sent: the time budget of 0.2 s is spent" in str(error)
    assert len(server.received) == 1


def test_a_slow_answer_does_not_outlast_the_budget(server, connect, reply):
    server.replies(reply(delay=1.0))
    started = time.monotonic()
    error = fetch_error(connect(budget_seconds=0.2, timeout=(30.0, 30.0)))
    assert time.monotonic() - started < 0.8
    assert "time budget" in str(error)


# -- discretion


SECRETS = {
    "token": "hush-token",
    "query": "hush-query",
    "payload": "hush-payload",
    "answer": "hush-answer",
    "reason": "hush-reason",
}


@pytest.mark.parametrize(
    "fault",
    [{"status": status} for status in (302, 400, 401, 403, 404, 422, 429, 500)]
    + [{"content_type": "text/html"}, {"body": b'{"x": hush-answer'}, {"cut": True}, {"hang_up": True}]
    + [{"delay": 0.2}],
)
def test_messages_and_logs_tell_no_secret(server, connect, reply, caplog, fault):
    server.replies(reply(**{"body": b"hush-answer" * 9, "headers": {"Location": "/hush-answer"}, **fault}))
    client = connect(headers={"Authorization": "hush-token"}, attempts=2, timeout=(2.0, 0.1))
    request = Request("/items?key=hush-query", {"api_key": "hush-query"}, body={"name": "hush-payload"})
    with caplog.at_level(logging.INFO):
        error = fetch_error(client, request)
    _assert_discreet(error, caplog.text, request)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid", "http://hush-token:x@[", ""])
def test_errors_without_an_answer_tell_no_secret(caplog, url):
    request = Request("/items", {"api_key": "hush-query"})
    with (
        caplog.at_level(logging.INFO),
        ApiClient("acme", url, attempts=2, backoff=(0.001, 0.002)) as client,
    ):
        error = fetch_error(client, request)
    _assert_discreet(error, caplog.text, request)


def test_a_token_that_no_header_can_hold_is_not_told(connect):
    for token in ("hush-token\n", "hush-token\u2013"):
        _assert_discreet(fetch_error(connect(headers={"Authorization": token})), "", ITEMS)


def _assert_discreet(error: ApiError, logged: str, request: Request) -> None:
    assert error.__cause__ is None
    assert error.__context__ is None
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args) + logged + str(request)
    assert "GET /items" in told
    assert "hush" not in told


def test_a_request_shows_neither_params_nor_body():
    request = Request("/items", {"api_key": "hush"}, body={"name": "hush"})
    assert "hush" not in repr(request)
    assert str(request) == "GET /items"


# -- calling it off


def test_a_wait_can_be_called_off(server, connect, reply):
    server.replies(reply(status=503))
    cancel = threading.Event()
    threading.Timer(0.1, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(CancelledError):
        connect(backoff=(30.0, 60.0)).send(ITEMS, cancel=cancel)
    assert time.monotonic() - started < 2
    assert len(server.received) == 1
