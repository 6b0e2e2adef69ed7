"""What a response of an HTTP API means, or its absence: an answer, or an error sorted by what to do about it."""

import math
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests
from urllib3.exceptions import InvalidHeader, ReadTimeoutError

from include.api.decoding import BROKEN_JSON, decode_body, decode_json
from include.api.envelopes import codes_in_brackets, refuse_errors
from include.api.error_policy import ErrorPolicy
from include.api.errors import ApiError, FixConfiguration, NotFound, RefuseData, TryLater
from include.api.request import Answer, Request
from include.api.transport import LARGEST_ANSWER_BYTES

# Longer waits are no use to a task, and some are too long for the system's clock functions.
LONGEST_RETRY_AFTER_SECONDS = 86_400.0
BUSY = {408, 429}
# Statuses of success by which a server says that its answer is still made, or that it is a part.
UNFINISHED = {202, 206}
# Statuses by which a server tells its rate limit.
LIMITED = {403, 429}


def fitting(name: str, request: Request, answer: Answer) -> Answer | RefuseData:
    """Return the answer if it fits the question, else the error that says why it doesn't.

    It doesn't if it carries an error, or if the request's check refuses it. `name` is the API's connection.
    """
    try:
        refuse_errors(answer.data)
        if request.check:
            request.check(answer.data)
    except RefuseData as error:
        return RefuseData(f"{name}: {request} answered {answer.status}, but {error}", status=answer.status)
    return answer


def error_without_response(name: str, request: Request, error: Exception) -> ApiError:
    """Return what it means that `requests` raised this error. `name` is the API's connection."""
    where, kind = f"{name}: {request}", type(error).__name__
    if isinstance(error, requests.exceptions.SSLError) and not _is_cut_off(error):
        return FixConfiguration(
            f"{where}: no trusted TLS connection ({type(_root(error)).__name__}). "
            f"Check host and certificate of connection {name!r}."
        )
    root = _root(error)
    # A URL, proxy or header that can't be sent at all; requests derives those errors from ValueError. But urllib3 may
    # also find the answer's Content-Length invalid.
    if isinstance(error, ValueError) and not isinstance(root, InvalidHeader):
        return FixConfiguration(f"{where} can't be sent ({kind}). Check host and credentials of connection {name!r}.")
    if isinstance(error, requests.Timeout) or isinstance(root, ReadTimeoutError):
        return TryLater(f"{where} timed out ({kind})")
    return TryLater(f"{where}: the connection failed ({kind})")


def answer_of(
    name: str, request: Request, response: requests.Response, body: bytes | None, policy: ErrorPolicy
) -> Answer | ApiError:
    """Return what the response says: an answer, or an error. Look at status, content type and body, in this order.

    `name` is the API's connection, `policy` says what its own statuses mean. `body` is None if it was too large to
    read. An error's message repeats nothing of the body but the vendor's codes.
    """
    status, where = response.status_code, f"{name}: {request}"
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if status in BUSY | policy.wait or status >= 500 or (status == 403 and _is_limited(response.headers)):
        return TryLater(f"{where} answered {status}", status=status, retry_after=retry_after(response.headers))
    if status < 200:
        return TryLater(f"{where} answered {status}, which announces an answer and is none", status=status)
    if body is None:
        return RefuseData(
            f"{where} answered {status} with more than {LARGEST_ANSWER_BYTES:,} bytes, so it was not read to its end",
            status=status,
        )
    if status in policy.unknown:
        return RefuseData(f"{where} answered {status}{_codes(body)}", status=status)
    absent = status in {404} | policy.absent
    if absent and ("json" in kind or not body):
        return NotFound(f"{where} answered {status}: it does not exist there.", status=status)
    if absent:
        # A proxy's or a wrong host's page is no proof that a record is gone.
        return TryLater(f"{where} answered {status} with {kind or 'a body'}, not the API's own answer", status=status)
    if not 200 <= status < 300:
        return FixConfiguration(f"{where} answered {status}{_codes(body)}{_remedy(status, name)}", status=status)
    if status in UNFINISHED and request.method == "GET":
        return TryLater(
            f"{where} answered {status}: what was asked for is not there yet, or not all of it", status=status
        )
    date = http_date(response.headers.get("Date"))
    if status == 204:
        return Answer(None, date, response.headers, status)
    if kind and "json" not in kind:
        return TryLater(f"{where} answered {status} with {kind} in place of JSON", status=status)
    try:
        data = decode_body(body)
    except BROKEN_JSON:
        return TryLater(f"{where} answered {status} with broken JSON", status=status)
    return Answer(data, date, response.headers, status)


def _codes(body: bytes) -> str:
    """Return the vendor's codes in an error's body, in brackets; empty if it has none."""
    try:
        return codes_in_brackets(decode_json(body))
    except BROKEN_JSON:
        return ""


def _remedy(status: int, name: str) -> str:
    if status == 401:
        return f": it does not accept the credentials. Check the token of connection {name!r}."
    if status == 403:
        return f": the credentials lack the right. Check the permissions of the token of connection {name!r}."
    if status < 400:
        return f": a redirect, which is not followed. Check scheme and host of connection {name!r}."
    return f": it refuses the request as wrong. Check the run's params and the host of connection {name!r}."


def _is_limited(headers: Mapping[str, str]) -> bool:
    """Return whether a 403 is only temporary: some vendors report their rate limit with it."""
    return "Retry-After" in headers or headers.get("X-RateLimit-Remaining", "").strip() == "0"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks to wait, 0 to one day; None if it names none that can be read."""
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        date = http_date(text)
        if date is None:
            return None
        # Against the server's own clock if it names that: ours may be off.
        seconds = (date - (http_date(headers.get("Date")) or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def http_date(text: str | None) -> datetime | None:
    """Return an HTTP date in UTC, None if the text is none."""
    try:
        date = parsedate_to_datetime(text or "")
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _root(error: BaseException) -> BaseException:
    """Return the error of the operating system or of OpenSSL inside the wrappers of urllib3 and requests."""
    inner = getattr(error, "reason", None) or next(iter(error.args), None)
    return _root(inner) if isinstance(inner, BaseException) else error


def _is_cut_off(error: BaseException) -> bool:
    """Return True for a TLS connection that broke, False for one that could never be trusted."""
    return isinstance(_root(error), ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
