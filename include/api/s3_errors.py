"""What failures of boto3 mean: errors sorted by what to do about them."""

import re
import ssl
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from include.api.errors import ApiError, FixConfiguration, NotFound, TryLater
from include.api.s3_listing import UNREADABLE

# What boto3 raises besides ClientError, an answer other than 2xx.
NO_ANSWER = (BotoCoreError, UnicodeError)

BUSY = {408, 429}
REGION = "x-amz-bucket-region"
# Prefixes of headers that only a store sends.
OWN_HEADERS = ("x-amz-", "x-minio-", "x-goog-")
REDIRECTS = {301, 302, 307, 308}
WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
WRONG_KEYS = {"SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
OPERATIONS = {
    "HeadBucket": "HEAD of bucket {!r}",
    "HeadObject": "HEAD of an object of bucket {!r}",
    "ListObjectsV2": "LIST of bucket {!r}",
}


class Missing(NotFound):
    """The object does not exist. `restorable`: it is marked as deleted in a bucket with versions."""

    def __init__(self, message: str, *, restorable: bool):
        super().__init__(message)
        self.restorable = restorable


class S3Errors:
    """Turns failures of requests to one bucket into errors. Messages point to `connection`."""

    def __init__(self, connection: str, bucket: str):
        self._connection = connection
        self._bucket = bucket

    def refused(self, operation: str, error: ClientError, *, proven: bool) -> ApiError:
        """Return what an answer other than 2xx means.

        A 404 to HeadObject is Missing only if the bucket is `proven`, or if the store names the object.
        """
        answer, where = error.response, self.where(operation)
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = answer.get("Error", {}).get("Code", "")
        if error.operation_name != operation:
            # Before its own request boto3 may have to ask for credentials elsewhere.
            return FixConfiguration(
                f"{where} can't be sent: {error.operation_name} before it failed. Check the credentials of connection "
                f"{self._connection!r}."
            )
        if code == UNREADABLE:
            return TryLater(
                f"{where} answered with a page that is no complete listing. Run the task again later; if that changes "
                f"nothing, check endpoint_url of connection {self._connection!r}."
            )
        if status in BUSY or status >= 500:
            return TryLater(f"{where} answered {_status_and_code(status, code)}. Run the task again later.")
        if is_html(answer):
            return self.not_the_store(operation, status)
        if operation == "HeadObject" and status == 404:
            return self._missing(where, answer, proven)
        return FixConfiguration(
            f"{where} answered {_status_and_code(status, code)}{self._remedy(operation, status, code)}"
        )

    def _missing(self, where: str, answer: dict[str, Any], proven: bool) -> ApiError:
        """Return what a 404 to HeadObject means. It has no body; only MinIO says in a header what is missing."""
        headers = _headers(answer)
        code = headers.get("x-minio-error-code")
        if code is None and not _is_of_a_store(headers):
            return self.not_the_store("HeadObject", 404)
        if code == "NoSuchKey" or (code is None and proven):
            restorable = headers.get("x-amz-delete-marker", "").lower() == "true"
            return Missing(f"{where} answered 404: it does not exist there.", restorable=restorable)
        if code is None:
            return TryLater(f"{where} answered 404, which says nothing before the bucket itself is proven.")
        return FixConfiguration(
            f"{where} answered {_status_and_code(404, code)}, which is not about the object. Check bucket_name and"
            f" endpoint_url of connection {self._connection!r}."
        )

    def not_the_store(self, operation: str, status: int) -> ApiError:
        """Return the error for an answer of a proxy or a wrong host, which proves nothing."""
        return TryLater(
            f"{self.where(operation)} answered {status}, but not as a store does: a proxy's page, or another server. "
            f"Check endpoint_url of connection {self._connection!r} if it stays so."
        )

    def _remedy(self, operation: str, status: int, code: str) -> str:
        name = f"connection {self._connection!r}"
        if status in REDIRECTS or code in WRONG_REGION:
            return (
                ": the bucket is in another region, or the store elsewhere. Check region_name and endpoint_url of "
                f"{name}."
            )
        if code in WRONG_KEYS:
            return f": the store does not accept the keys. Check login and password of {name}."
        if code == "RequestTimeTooSkewed":
            return ": the clocks of this machine and of the store differ too much. Set this machine's clock."
        if status == 404:
            return f": the bucket does not exist there. Check bucket_name and endpoint_url of {name}."
        if status == 403 and operation == "HeadObject":
            return (
                ": the keys lack the right s3:GetObject, or s3:ListBucket, without which a missing object answers 403 "
                f"too. Check the rights of the keys of {name}."
            )
        if status == 403:
            return f": the keys lack the right s3:ListBucket, or are wrong. Check keys and rights of {name}."
        return f": the store refuses the request as wrong. Check keys, region_name and endpoint_url of {name}."

    def unanswered(self, operation: str, error: Exception) -> ApiError:
        """Return what it means that there was no answer."""
        where, kind, name = self.where(operation), type(error).__name__, f"connection {self._connection!r}"
        if isinstance(error, SSLError) and not _cut_off(error):
            return FixConfiguration(
                f"{where}: no trusted TLS connection. Check endpoint_url of {name} and the certificate."
            )
        if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
            return TryLater(f"{where} timed out ({kind}). Run the task again later.")
        if isinstance(error, BotoConnectionError | HTTPClientError):
            return TryLater(f"{where}: the connection failed ({kind}). Check endpoint_url of {name} if it stays so.")
        return FixConfiguration(f"{where} can't be sent ({kind}). Check keys, bucket_name and endpoint_url of {name}.")

    def where(self, operation: str) -> str:
        """Return the beginning of a message: connection, operation and bucket."""
        return f"{self._connection}: {OPERATIONS[operation].format(self._bucket)}"


def end_redirects(client: BaseClient) -> None:
    """Keep a client of boto3 from following redirects for ever.

    boto3 asks for the bucket's region after a redirect. If that request is redirected too, and no answer names a
    region (as with a proxy from http to https), it asks without end.
    """
    client.meta.events.register_first("needs-retry.s3.HeadBucket", _end_redirect, unique_id=__name__)


def _end_redirect(response: Any, request_dict: dict[str, Any], **_: object) -> None:
    """Tell boto3 that this request was redirected before: it follows one redirect only."""
    if response is not None and response[0].status_code in REDIRECTS and REGION not in response[0].headers:
        request_dict["context"]["s3_redirect"]["redirected"] = True


def is_html(answer: dict[str, Any]) -> bool:
    """Return whether the answer, or that of boto3's error, is an HTML page."""
    return _content_type(_headers(answer)) == "text/html"


def is_own_answer(operation: str, answer: dict[str, Any]) -> bool:
    """Return whether a 200 comes from the store. One about an object names its ETag and its size.

    An object may be an HTML page itself; then the answer has one of a store's headers as well.
    """
    if operation == "HeadObject" and not {"ETag", "ContentLength"} <= answer.keys():
        return False
    return not is_html(answer) or (operation == "HeadObject" and _has_own_headers(_headers(answer)))


def _is_of_a_store(headers: dict[str, str]) -> bool:
    """Return whether an error comes from a store, and not from a server in between."""
    return _has_own_headers(headers) or _content_type(headers).endswith("/xml")


def _has_own_headers(headers: dict[str, str]) -> bool:
    return any(name.lower().startswith(OWN_HEADERS) for name in headers)


def _headers(answer: dict[str, Any]) -> dict[str, str]:
    return answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})


def _content_type(headers: dict[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _status_and_code(status: int, code: str) -> str:
    """Return the status and the store's code. boto3 knows no code for a HEAD, and repeats the status in its place."""
    return f"{status} ({code})" if re.fullmatch("[A-Za-z]{1,50}", code) else f"{status}"


def _cut_off(error: SSLError) -> bool:
    """Return True for a TLS connection that broke, False for one that could never be trusted."""
    cause = next(iter(getattr(error.kwargs.get("error"), "args", ())), None)
    return isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
