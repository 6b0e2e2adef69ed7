"""Requests to one bucket by boto3: they are counted, and errors are values that say what to do."""

import threading
from typing import Any
from urllib.parse import urlsplit

from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from include.api.errors import ApiError, FixConfiguration
from include.api.s3_errors import NO_ANSWER, S3Errors, end_redirects, is_own_answer
from include.api.s3_listing import read_leanly
from include.api.s3_transport import bound_answers


def client_config(workers: int) -> Config:
    """Return a configuration of boto3's client for `workers` threads that each wait for small answers.

    To let a connection's own settings win: `client_config(workers).merge(own)`.
    """
    return Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=workers,
        tcp_keepalive=True,
    )


class S3Client:
    """The requests to the bucket `name`, sent by boto3's S3 client; any number of threads may share it.

    `connection` is the name that messages point to. A 404 to HeadObject is Missing once the bucket is proven to exist.
    """

    def __init__(self, boto: BaseClient, name: str, connection: str):
        self.boto = boto
        self._bucket = name
        self._lock = threading.Lock()
        self._requests = self._answered = 0
        self._proven = False
        self._errors = S3Errors(connection, name)
        read_leanly(boto)
        end_redirects(boto)
        bound_answers(boto)
        boto.meta.events.register("before-send.s3", self._count)
        boto.meta.events.register("response-received.s3", self._count_answered)

    @property
    def host(self) -> str:
        """The host of the store's endpoint, in lower case."""
        return urlsplit(self.boto.meta.endpoint_url).hostname or ""

    @property
    def requests(self) -> int:
        """The number of requests sent so far, retries included."""
        return self._requests

    @property
    def requests_failed(self) -> int:
        """The number of requests that failed (retried ones included) or are not answered yet. A 404 is an answer."""
        with self._lock:
            return self._requests - self._answered

    def where(self, operation: str) -> str:
        """Return what messages call such a request."""
        return self._errors.where(operation)

    def prove(self) -> None:
        """Return if the bucket exists and may be used; see `Bucket.prove`."""
        self._proven = False
        answer = self.ask("HeadBucket")
        if isinstance(answer, FixConfiguration):
            # The answer to a HEAD has no body, and so no word on whether the keys, the clock or a right is wrong.
            listed = self.ask("ListObjectsV2", MaxKeys=1)
            answer = listed if isinstance(listed, FixConfiguration) else answer
        if isinstance(answer, ApiError):
            raise answer
        self._proven = True

    def ask(self, operation: str, **params: Any) -> dict[str, Any] | ApiError:
        """Return boto3's answer, or our error as a value.

        An error raised here would have boto3's as its context, and that quotes URLs.
        """
        send = {
            "HeadBucket": self.boto.head_bucket,
            "HeadObject": self.boto.head_object,
            "ListObjectsV2": self.boto.list_objects_v2,
        }[operation]
        try:
            answer = send(Bucket=self._bucket, **params)
        except ClientError as error:
            return self._errors.refused(operation, error, proven=self._proven)
        except NO_ANSWER as error:
            return self._errors.unanswered(operation, error)
        if not is_own_answer(operation, answer):
            return self._errors.not_the_store(operation, 200)
        return answer

    def _count(self, **_: object) -> None:
        with self._lock:
            self._requests += 1

    def _count_answered(self, parsed_response: dict[str, Any] | None, **_: object) -> None:
        # Failures can't be counted instead: boto3 sends no event for an answer that is cut off.
        status = parsed_response["ResponseMetadata"]["HTTPStatusCode"] if parsed_response else None
        if status is not None and (status < 300 or status == 404):
            with self._lock:
                self._answered += 1
