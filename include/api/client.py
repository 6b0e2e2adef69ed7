"""One API over HTTP: a pooled session, patience within limits, and errors sorted by what to do about them."""

import logging
import math
import random
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from include.api.errors import ApiError, FixConfiguration, NotFound, NotSent, RefuseData, TryLater

log = logging.getLogger(__name__)

# A request that is given less time than this fails for that reason alone.
SHORTEST_TIMEOUT_SECONDS = 0.1
# Longer waits are no use to a task, and some are too long for the system's clock functions.
LONGEST_RETRY_AFTER_SECONDS = 86_400.0
BUSY = {408, 429}
# Half a surrogate pair, as JSON writes it, and not a backslash before "ud83d".
HALF_PAIR = re.compile(
    rb"(?<!\\)((?:\\\\)*)(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
CODE = re.compile(r"[A-Z][A-Z_]{2,40}")
# Keys under which APIs put an error into an answer, be it beside data.
ERRORS = ("errors", "error")
# The same beside rows or a record, or in their place; a record that is the answer itself may have such fields.
ENVELOPES = (*ERRORS, "message", "messages", "exceptionMessage")
# Keys and values by which an answer says that it failed. A record that is the answer itself may have them too.
FAILED = {"success": (False,), "ok": (False,), "status": ("error", "fail", "failed", "failure")}
# An answer that doesn't fit the question is asked for once more: it may have been a bad moment.
ATTEMPTS_AT_DATA = 2

# Money comes as JSON numbers too, and must not become a float.
decode_json = msgspec.json.Decoder(float_hook=Decimal).decode


@dataclass(frozen=True)
class Request:
    """One request. `path` is relative to the client's base URL, a list among `params` repeats its key, `body`
    is sent as JSON. What is not `idempotent` is sent once: a failure leaves its outcome unknown. What is `owed`, since
    only its answer tells what became of an earlier one, is sent though a quota is used up. `check` says what a valid
    answer has: it is called with the answer's data and raises RefuseData for one that doesn't fit the question.

    As text it is method and path alone, since that ends up in logs.
    """

    path: str
    params: Mapping[str, str | int | list] = field(default_factory=dict, repr=False)
    method: str = "GET"
    body: Any = field(default=None, repr=False)
    idempotent: bool = True
    owed: bool = False
    check: Callable[[Any], object] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.method} /{urlsplit(self.path).path.lstrip('/')}"


@dataclass(frozen=True)
class Answer:
    """The decoded JSON of a 2xx answer (None for 204), its numbers int or Decimal.

    `date` is the server's clock in UTC, None where it told no time. `headers` ignore case.
    """

    data: Any
    date: datetime | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


class Limiter(Protocol):
    """A rate limit that all users of one API share."""

    def acquire(self) -> str | None:
        """Block until one request may be sent; or say why none may for long, one line."""

    def pause(self, seconds: float) -> None:
        """Make every user wait: the server has asked for it."""


class NoLimit:
    """For an API that sets no limit."""

    def acquire(self) -> None:
        """Return at once."""

    def pause(self, seconds: float) -> None:
        """Nobody else to hold back: who was refused waits by itself."""


class ApiClient:
    """Sends requests to one API; up to `connections` threads may share it. A context manager.

    `name` is the connection that messages point to. `timeout` is (connect, read) in seconds. What may pass by
    itself (TryLater) is sent up to `attempts` times, with random waits that grow within `backoff` (initial,
    maximum) seconds; a `Retry-After` of the server replaces that wait. `budget_seconds` bounds the time from
    the first request on: no wait goes past it, and after it nothing is sent. `verify` is as in requests.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        limiter: Limiter | None = None,
        timeout: tuple[float, float] = (10.0, 60.0),
        attempts: int = 6,
        budget_seconds: float | None = None,
        connections: int = 4,
        backoff: tuple[float, float] = (2.0, 30.0),
        verify: bool | str = True,
    ):
        self.name = name
        self._base_url = base_url.rstrip("/")
        self._limiter = limiter or NoLimit()
        self._timeout = timeout
        self._attempts = attempts
        self._budget = math.inf if budget_seconds is None else budget_seconds
        self._deadline: float | None = None
        initial, maximum = backoff
        self._backoff = wait_random_exponential(multiplier=2 * initial, min=initial, max=maximum)
        self._jitter = min(initial, 1.0)
        self._lock = threading.Lock()
        self._requests_sent = 0
        self._errors: Counter[str] = Counter()
        self._session = _session(headers or {}, connections, verify)

    def __enter__(self) -> "ApiClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @property
    def requests_sent(self) -> int:
        """Requests that went out so far, retries included."""
        return self._requests_sent

    @property
    def errors(self) -> dict[str, int]:
        """Failed attempts so far by the name of their error class, retried ones included."""
        with self._lock:
            return dict(self._errors)

    @property
    def requests_failed(self) -> int:
        """Of the requests sent those that failed, retried ones included; NotFound is an answer."""
        return sum(count for name, count in self.errors.items() if name != NotFound.__name__)

    def get(self, path: str, **params: str | int | list) -> Answer:
        """GET `path`; see `send`."""
        return self.send(Request(path, params))

    def send(self, request: Request, *, cancel: threading.Event | None = None) -> Answer:
        """Send until there is an answer, an error that waiting does not cure, or no attempt or time left.

        Raises FixConfiguration, NotFound or TryLater, the last as NotSent where nothing went out. Setting `cancel`
        cuts a wait between two attempts short with CancelledError, so that a thread whose result nobody wants any
        more does not linger.
        """
        if self._remaining() <= 0:
            raise NotSent(
                f"{self._where(request)} was not sent: the time budget of {self._budget:g} s is spent. "
                "Run the task again later, or raise the budget."
            )
        cancel = cancel or threading.Event()

        def sleep(seconds: float) -> None:
            if cancel.wait(seconds):
                raise CancelledError

        retrying = Retrying(
            # What never went out had a reason that a wait between two attempts doesn't outlast.
            retry=retry_if_exception(lambda error: isinstance(error, TryLater) and not isinstance(error, NotSent)),
            wait=self._wait,
            stop=lambda state: self._reason_to_stop(request, state) is not None,
            sleep=sleep,
            before_sleep=self._log_retry,
            retry_error_callback=lambda state: self._give_up(request, state),
        )
        return retrying(self._attempt, request)

    def _attempt(self, request: Request) -> Answer:
        refusal = self._limiter.acquire()
        if refusal and not request.owed:
            raise NotSent(f"{self._where(request)} was not sent: {refusal}")
        answer = self._fitting(request, self._exchange(request))
        if isinstance(answer, ApiError):
            with self._lock:
                self._errors[type(answer).__name__] += 1
            # Raised here, outside any `except`: requests' own errors quote the URL with its query, and must
            # not ride along as context.
            raise answer
        return answer

    def _fitting(self, request: Request, answer: Answer | ApiError) -> Answer | ApiError:
        """The answer if it fits the question, else the error that says why it doesn't."""
        if isinstance(answer, ApiError):
            return answer
        try:
            refuse_errors(answer.data)
            if request.check:
                request.check(answer.data)
        except RefuseData as error:
            return RefuseData(f"{self._where(request)} answered {answer.status}, but {error}", status=answer.status)
        return answer

    def _exchange(self, request: Request) -> Answer | ApiError:
        longest = max(self._remaining(), SHORTEST_TIMEOUT_SECONDS)
        with self._lock:
            self._requests_sent += 1
        try:
            response = self._session.request(
                request.method,
                f"{self._base_url}/{request.path.lstrip('/')}",
                params=request.params,
                json=request.body,
                timeout=tuple(min(seconds, longest) for seconds in self._timeout),
                allow_redirects=False,
            )
        except (requests.RequestException, UnicodeError) as error:
            return self._no_response(request, error)
        return self._judge(request, response)

    def _no_response(self, request: Request, error: Exception) -> ApiError:
        where, kind = self._where(request), type(error).__name__
        if isinstance(error, requests.exceptions.SSLError) and not _cut_off(error):
            return FixConfiguration(
                f"{where}: no trusted TLS connection ({type(_root(error)).__name__}). "
                f"Check host and certificate of connection {self.name!r}."
            )
        # A URL, proxy or header that can't be sent at all; requests derives those from ValueError.
        if isinstance(error, ValueError):
            return FixConfiguration(
                f"{where} can't be sent ({kind}). Check host and credentials of connection {self.name!r}."
            )
        if isinstance(error, requests.Timeout):
            return TryLater(f"{where} timed out ({kind})")
        return TryLater(f"{where}: the connection failed ({kind})")

    def _judge(self, request: Request, response: requests.Response) -> Answer | ApiError:
        """Status first, content type second, body last: of an error's body only the vendor's codes are told."""
        status, where = response.status_code, self._where(request)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if status in BUSY or status >= 500 or (status == 403 and _is_limited(response.headers)):
            return self._busy(where, response)
        if status == 404 and ("json" in kind or not response.content):
            return NotFound(f"{where} answered 404: it does not exist there.", status=status)
        if status == 404:
            # A proxy's or a wrong host's page is no proof that a record is gone.
            return TryLater(f"{where} answered 404 with {kind or 'a body'}, not the API's own answer", status=status)
        if not 200 <= status < 300:
            return FixConfiguration(
                f"{where} answered {status}{_told(response)}{_remedy(status, self.name)}", status=status
            )
        date = _http_date(response.headers.get("Date"))
        if status == 204:
            return Answer(None, date, response.headers, status)
        if kind and "json" not in kind:
            return TryLater(f"{where} answered {status} with {kind} in place of JSON", status=status)
        try:
            data = _decoded(response.content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return TryLater(f"{where} answered {status} with broken JSON", status=status)
        return Answer(data, date, response.headers, status)

    def _busy(self, where: str, response: requests.Response) -> TryLater:
        retry_after = _retry_after(response.headers)
        if response.status_code in (403, 429) and retry_after is not None:
            self._limiter.pause(retry_after)
        return TryLater(
            f"{where} answered {response.status_code}", status=response.status_code, retry_after=retry_after
        )

    def _remaining(self) -> float:
        """Seconds of the budget that are left; the first call starts the clock."""
        with self._lock:
            now = time.monotonic()
            if self._deadline is None:
                self._deadline = now + self._budget
            return self._deadline - now

    def _wait(self, state: RetryCallState) -> float:
        retry_after = state.outcome.exception().retry_after
        if retry_after is None:
            return self._backoff(state)
        # Never earlier than asked for, and not all parallel users in the same instant.
        return retry_after + random.uniform(0, self._jitter)

    def _reason_to_stop(self, request: Request, state: RetryCallState) -> str | None:
        if not request.idempotent:
            return (
                "; it is not sent again, since it may have taken effect. Read back what the API holds before "
                "anything else is sent."
            )
        if state.upcoming_sleep > self._remaining():
            return (
                f"; stopped after attempt {state.attempt_number}, the next one would come after the time "
                f"budget of {self._budget:g} s. Run the task again later, or raise the budget."
            )
        if isinstance(state.outcome.exception(), RefuseData) and state.attempt_number >= ATTEMPTS_AT_DATA:
            return ". Run the task again; if it stays so, see whether the API has changed."
        if state.attempt_number >= self._attempts:
            return f"; stopped after {state.attempt_number} attempts. Run the task again later."
        return None

    def _give_up(self, request: Request, state: RetryCallState) -> NoReturn:
        error = state.outcome.exception()
        message = f"{str(error).rstrip('.')}{self._reason_to_stop(request, state)}"
        kind = RefuseData if isinstance(error, RefuseData) else TryLater
        raise kind(message, status=error.status, retry_after=error.retry_after)

    def _log_retry(self, state: RetryCallState) -> None:
        log.warning(
            "%s; attempt %d of %d, the next one in %.1f s",
            state.outcome.exception(),
            state.attempt_number,
            self._attempts,
            state.upcoming_sleep,
        )

    def _where(self, request: Request) -> str:
        return f"{self.name}: {request}"


def refuse_envelope(data: Any) -> None:
    """Raise RefuseData for an answer around rows or a record that carries an error or says that it failed."""
    refuse_errors(data, ENVELOPES)
    failed = [key for key, values in FAILED.items() if isinstance(data, dict) and data.get(key) in values]
    if failed:
        raise RefuseData(f"its {failed[0]!r} says that it failed, so it is no answer")


def refuse_errors(data: Any, keys: Sequence[str] = ERRORS) -> None:
    """Raise RefuseData for an answer that carries an error under one of the keys, be it beside data."""
    found = [key for key in keys if isinstance(data, dict) and data.get(key)]
    if found:
        codes = sorted(error_codes(data))
        told = f" ({', '.join(codes)})" if codes else ""
        raise RefuseData(f"it carries {found[0]!r}{told}, so it is no answer")


def error_codes(data: Any) -> set[str]:
    """The vendor's codes in an answer with errors: words in capitals, which can hold no one's data."""
    errors = data.get("errors") if isinstance(data, dict) else None
    codes = [error.get("code") for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    return {code for code in codes if isinstance(code, str) and CODE.fullmatch(code)}


def _decoded(body: bytes) -> Any:
    """The JSON of a body. Half a surrogate pair becomes a NUL: its own record is refused for that, and no other."""
    try:
        return decode_json(body)
    except msgspec.DecodeError:
        if not HALF_PAIR.search(body):
            raise
        return decode_json(HALF_PAIR.sub(rb"\g<1>\\u0000", body))


def _told(response: requests.Response) -> str:
    """The vendor's codes in an error's body, in brackets; empty where it has none."""
    try:
        codes = sorted(error_codes(decode_json(response.content)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return f" ({', '.join(codes)})" if codes else ""


def _session(headers: Mapping[str, str], connections: int, verify: bool | str) -> requests.Session:
    session = requests.Session()
    session.headers.update({"Accept": "application/json", **headers})
    session.verify = verify
    # Without an auth of its own requests would let a ~/.netrc replace the Authorization header.
    session.auth = lambda prepared: prepared
    adapter = HTTPAdapter(pool_maxsize=connections, pool_block=True)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _remedy(status: int, name: str) -> str:
    if status == 401:
        return f": it does not accept the credentials. Check the token of connection {name!r}."
    if status == 403:
        return f": the credentials lack the right. Check the permissions of the token of connection {name!r}."
    if status < 400:
        return f": a redirect, which is not followed. Check scheme and host of connection {name!r}."
    return f": it refuses the request as wrong. Check the run's params and the host of connection {name!r}."


def _http_date(text: str | None) -> datetime | None:
    """An HTTP date in UTC, None where there is none to be read."""
    try:
        date = parsedate_to_datetime(text or "")
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _is_limited(headers: Mapping[str, str]) -> bool:
    """Whether a refusal is one for the time being: some vendors tell their rate limit so."""
    return "Retry-After" in headers or headers.get("X-RateLimit-Remaining", "").strip() == "0"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the server asks for, given as a number or as an HTTP date: 0 to one day."""
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        date = _http_date(text)
        if date is None:
            return None
        # Against the server's own clock where it tells it: ours may be off.
        seconds = (date - (_http_date(headers.get("Date")) or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _root(error: BaseException) -> BaseException:
    """The error of the operating system or of OpenSSL inside the wrappers of urllib3 and requests."""
    inner = getattr(error, "reason", None) or next(iter(error.args), None)
    return _root(inner) if isinstance(inner, BaseException) else error


def _cut_off(error: BaseException) -> bool:
    """True for a TLS connection that broke, as opposed to one that could never be trusted."""
    return isinstance(_root(error), ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
