"""The storage simulator over real HTTP, with boto as its client; the application's rows; and rclone in its place."""

import asyncio
import hashlib
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

import boto3
import httpx
import psycopg
import pytest
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.client import BaseClient
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from include.simulators.storage import (
    Config,
    Counters,
    Fault,
    Store,
    application,
    listing,
    rclone,
    rclone_server,
    running,
)
from include.simulators.storage.app import create
from include.simulators.storage.bucket import Bucket
from include.simulators.storage.protocol import Refused, Request
from include.simulators.storage.signature import verify
from stack.settings import RCLONE

ODD_KEYS = (
    "a b",
    "a+b",
    "a%20b",
    "100%",
    "ü/é.jpg",
    "部屋.png",
    "\U0001f600",
    "\uffff after the surrogates in UTF-16",
    "<&>'\"",
    "a\nb",
    "a\rb",
    "a?b#c",
    "a//b",
    "~t/x*(1).jpg",
)
ENDPOINT = "http://localhost:9000"
COMMAND = [sys.executable, "-m", "include.simulators.storage", "--port", "0"]


def client(store: Store, **changes: Any) -> BaseClient:
    """boto's own client, which asks once and doesn't try again."""
    given = {"access_key": store.access_key, "secret_key": store.secret_key, "region": "us-east-1", "timeout": 10}
    given |= changes
    return boto3.client(
        "s3",
        endpoint_url=store.url,
        aws_access_key_id=given["access_key"],
        aws_secret_access_key=given["secret_key"],
        region_name=given["region"],
        config=BotoConfig(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            read_timeout=given["timeout"],
        ),
    )


def listed(s3: BaseClient, **parameters: Any) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="images", **parameters)
    return [found["Key"] for page in pages for found in page.get("Contents", ())]


def refused(ask: Callable[[], object]) -> tuple[int, str]:
    """Status and code of an error that boto raises."""
    with pytest.raises(ClientError) as error:
        ask()
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def code_of(answer: requests.Response) -> tuple[int, str]:
    """Status and code of an error's XML."""
    return answer.status_code, ElementTree.fromstring(answer.content).findtext("Code")


def numbered(count: int) -> list[str]:
    return [f"k/{number:05}" for number in range(count)]


@pytest.fixture(scope="module")
def stored() -> Iterator[Store]:
    """A store that no test changes, with 2,001 keys."""
    with running() as store:
        store.control.put(numbered(2_001))
        yield store


@pytest.fixture
def store() -> Iterator[Store]:
    """A store of the test's own, with three keys."""
    with running() as store:
        store.control.put(["a", "b", "c"])
        yield store


@pytest.fixture
def s3(store: Store) -> BaseClient:
    return client(store)


# Signatures


def test_requests_signed_in_headers_are_let_in(stored: Store) -> None:
    s3 = client(stored)
    assert s3.head_bucket(Bucket="images")["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert s3.list_objects_v2(Bucket="images", Prefix="k/0000", StartAfter="k/00003")["KeyCount"] == 6
    assert s3.head_object(Bucket="images", Key="k/00000")["ContentLength"] == 7


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"secret_key": "wrong"}, "SignatureDoesNotMatch"), ({"access_key": "unknown"}, "InvalidAccessKeyId")],
)
def test_wrong_keys_are_refused(stored: Store, changes: dict[str, str], code: str) -> None:
    s3 = client(stored, **changes)
    assert refused(lambda: s3.list_objects_v2(Bucket="images")) == (403, code)
    assert refused(lambda: s3.head_bucket(Bucket="images")) == (403, "403")
    assert refused(lambda: s3.head_object(Bucket="images", Key="k/00000")) == (403, "403")


@pytest.mark.parametrize("path", ["images", "images/k/00000", "images/missing", "other"])
def test_nobody_is_let_in_without_a_signature(stored: Store, path: str) -> None:
    assert code_of(requests.get(f"{stored.url}/{path}", timeout=5)) == (403, "AccessDenied")


def presigned(store: Store, operation: str = "get_object", seconds: int = 60, /, **parameters: Any) -> str:
    return client(store).generate_presigned_url(operation, Params={"Bucket": "images", **parameters}, ExpiresIn=seconds)


def test_presigned_urls_are_let_in(store: Store) -> None:
    odd = "a b+c%20ü.jpg"
    put = requests.put(presigned(store, "put_object", Key=odd), data=b"new", timeout=5)
    assert (put.status_code, store.control.keys()) == (200, ["a", odd, "b", "c"])
    assert requests.get(presigned(store, Key=odd), timeout=5).content == b"new"
    assert requests.head(presigned(store, "head_object", Key=odd), timeout=5).status_code == 200
    assert requests.get(presigned(store, "list_objects_v2"), timeout=5).status_code == 200


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda url: url.replace("/k/00000", "/k/00001"), (403, "SignatureDoesNotMatch")),
        (lambda url: url.replace("Expires=60", "Expires=61"), (403, "SignatureDoesNotMatch")),
        (lambda url: url + "0", (403, "SignatureDoesNotMatch")),
        (lambda url: url + "&versionId=1", (403, "SignatureDoesNotMatch")),
        (lambda url: url.replace("Expires=60", "Expires=604801"), (400, "AuthorizationQueryParametersError")),
        (lambda url: re.sub("&X-Amz-Date=[^&]*", "", url), (400, "AuthorizationQueryParametersError")),
        (lambda url: url.replace("SHA256", "SHA1"), (400, "AuthorizationQueryParametersError")),
        (lambda url: url.replace("aws4_request", "aws5_request"), (400, "AuthorizationQueryParametersError")),
        (lambda url: url.partition("?")[0], (403, "AccessDenied")),
    ],
)
def test_changed_presigned_urls_are_refused(stored: Store, spoil: Callable[[str], str], error: tuple) -> None:
    url = presigned(stored, Key="k/00000")
    assert requests.get(url, timeout=5).status_code == 200
    assert spoil(url) != url
    assert code_of(requests.get(spoil(url), timeout=5)) == error


def signed(url: str = "http://127.0.0.1/images/a?prefix=x", body: bytes = b"", **headers: str) -> Request:
    """A request as boto signs it in headers."""
    made = AWSRequest("PUT", url, headers=headers, data=body)
    S3SigV4Auth(Credentials("access", "secret"), "s3", "us-east-1").add_auth(made)
    split = urlsplit(made.url)
    headers = {name.lower(): value for name, value in made.headers.items()} | {"host": split.netloc}
    return Request("PUT", split.path, split.query, headers, body)


def code(request: Request, moment: datetime | None = None) -> str | None:
    """The code by which a request is refused; None if it's let in."""
    try:
        assert verify(request, {"access": "secret"}, moment) == "us-east-1"
    except Refused as refusal:
        return refusal.code
    return None


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("method", "GET", "SignatureDoesNotMatch"),
        ("path", "/images/b", "SignatureDoesNotMatch"),
        ("query", "prefix=y", "SignatureDoesNotMatch"),
        ("query", "prefix=x&acl", "SignatureDoesNotMatch"),
        ("body", b"other", "XAmzContentSHA256Mismatch"),
    ],
)
def test_a_request_changed_on_the_way_is_refused(field: str, value: Any, error: str) -> None:
    request = signed(body=b"one")
    assert code(request) is None
    assert code(replace(request, **{field: value})) == error


@pytest.mark.parametrize(
    ("header", "value", "error"),
    [
        ("host", "other.example", "SignatureDoesNotMatch"),
        ("x-amz-date", "20200101T000000Z", "RequestTimeTooSkewed"),
        ("x-amz-date", "yesterday", "AccessDenied"),
        ("x-amz-date", None, "AccessDenied"),
        ("x-amz-content-sha256", None, "InvalidRequest"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "SignatureDoesNotMatch"),
        ("x-amz-acl", "public-read", "AccessDenied"),
        ("authorization", "AWS access:signature", "AuthorizationHeaderMalformed"),
        ("authorization", None, "AccessDenied"),
    ],
)
def test_a_changed_header_is_refused(header: str, value: str | None, error: str) -> None:
    request = signed()
    headers = {name: known for name, known in {**request.headers, header: value}.items() if known is not None}
    assert code(Request(request.method, request.path, request.query, headers)) == error


def test_a_signature_holds_for_a_quarter_of_an_hour_and_a_presigned_one_as_long_as_it_says(stored: Store) -> None:
    now = datetime.now(UTC)
    for minutes, error in ((-16, "RequestTimeTooSkewed"), (-14, None), (14, None), (16, "RequestTimeTooSkewed")):
        assert code(signed(), now + timedelta(minutes=minutes)) == error
    url = urlsplit(presigned(stored, Key="a"))
    request = Request("GET", url.path, url.query, {"host": url.netloc})
    for seconds in (0, 58):
        assert verify(request, {stored.access_key: stored.secret_key}, now + timedelta(seconds=seconds)) == "us-east-1"
    with pytest.raises(Refused, match="Request has expired"):
        verify(request, {stored.access_key: stored.secret_key}, now + timedelta(seconds=62))


def test_values_of_headers_are_signed_without_their_spare_spaces() -> None:
    request = signed(**{"x-amz-meta-note": "  two   words "})
    assert code(request) is None
    assert "x-amz-meta-note" in request.headers["authorization"]


# Lists


@pytest.mark.parametrize("count", [0, 1, 999, 1_000, 1_001, 2_000])
def test_lists_have_pages_of_a_thousand(count: int) -> None:
    with running() as store:
        store.control.put(numbered(count))
        assert listed(client(store)) == numbered(count)
        assert store.control.counters().requests == {"list": {"200": max(1, -(-count // 1_000))}}


def test_a_page_says_what_it_is(stored: Store) -> None:
    s3 = client(stored)
    first = s3.list_objects_v2(Bucket="images", MaxKeys=5_000, Prefix="k/")
    assert (first["Name"], first["Prefix"], first["MaxKeys"]) == ("images", "k/", 1_000)
    assert (first["KeyCount"], first["IsTruncated"], len(first["Contents"])) == (1_000, True, 1_000)
    one = first["Contents"][0]
    assert (one["Size"], one["StorageClass"]) == (7, "STANDARD")
    head = s3.head_object(Bucket="images", Key=one["Key"])
    assert (one["ETag"], one["LastModified"]) == (head["ETag"], head["LastModified"])
    token = first["NextContinuationToken"]
    second = s3.list_objects_v2(Bucket="images", Prefix="k/", ContinuationToken=token)
    assert (second["ContinuationToken"], second["Contents"][0]["Key"]) == (token, "k/01000")
    last = s3.list_objects_v2(Bucket="images", StartAfter="k/02000")
    assert (last["StartAfter"], last["KeyCount"], last["IsTruncated"]) == ("k/02000", 0, False)
    assert "Contents" not in last
    assert "NextContinuationToken" not in last


@pytest.mark.parametrize(
    ("parameters", "keys"),
    [
        ({"StartAfter": "k/00000", "MaxKeys": 2}, ["k/00001", "k/00002"]),
        ({"StartAfter": "k/00000x", "MaxKeys": 1}, ["k/00001"]),
        ({"StartAfter": "k", "MaxKeys": 1}, ["k/00000"]),
        ({"StartAfter": "l"}, []),
        ({"MaxKeys": 0}, []),
        ({"Prefix": "k/0000", "StartAfter": "k/00008"}, ["k/00009"]),
        ({"Prefix": "k/0000", "StartAfter": "j", "MaxKeys": 1}, ["k/00000"]),
        ({"Prefix": "k/0000", "StartAfter": "k/1"}, []),
        ({"Prefix": "none"}, []),
    ],
)
def test_lists_start_and_end_where_they_are_told(stored: Store, parameters: dict, keys: list[str]) -> None:
    page = client(stored).list_objects_v2(Bucket="images", **parameters)
    assert [found["Key"] for found in page.get("Contents", ())] == keys
    assert page["KeyCount"] == len(keys)


def test_the_last_page_of_a_prefix_is_told_from_a_full_one(stored: Store) -> None:
    s3 = client(stored)
    for size, more in ((9, True), (10, False), (11, False)):
        assert s3.list_objects_v2(Bucket="images", Prefix="k/0000", MaxKeys=size)["IsTruncated"] is more


def test_a_token_belongs_to_its_listing(stored: Store) -> None:
    s3 = client(stored)
    token = s3.list_objects_v2(Bucket="images", Prefix="k/0")["NextContinuationToken"]
    for parameters in (
        {"ContinuationToken": token},
        {"Prefix": "k/", "ContinuationToken": token},
        {"Prefix": "k/0", "ContinuationToken": token[:-5]},
        {"Prefix": "k/0", "ContinuationToken": "x" + token[1:]},
        {"Prefix": "k/0", "ContinuationToken": "ü"},
    ):
        assert refused(lambda given=parameters: s3.list_objects_v2(Bucket="images", **given)) == (
            400,
            "InvalidArgument",
        )
    page = s3.list_objects_v2(Bucket="images", Prefix="k/0", ContinuationToken=token, StartAfter="k/01999")
    assert page["Contents"][0]["Key"] == "k/01000"


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"Delimiter": "/"}, (501, "NotImplemented")),
        ({"FetchOwner": True}, (501, "NotImplemented")),
        ({"EncodingType": "html"}, (400, "InvalidArgument")),
        ({"MaxKeys": -1}, (400, "InvalidArgument")),
    ],
)
def test_lists_refuse_what_they_cannot_do(stored: Store, parameters: dict, error: tuple[int, str]) -> None:
    assert refused(lambda: client(stored).list_objects_v2(Bucket="images", **parameters)) == error


@pytest.mark.parametrize(
    "ask",
    [
        lambda s3: s3.list_objects(Bucket="images"),
        lambda s3: s3.list_buckets(),
        lambda s3: s3.list_object_versions(Bucket="images"),
        lambda s3: s3.get_bucket_acl(Bucket="images"),
        lambda s3: s3.get_object_acl(Bucket="images", Key="k/00000"),
        lambda s3: s3.head_object(Bucket="images", Key="k/00000", VersionId="1"),
        lambda s3: s3.get_object(Bucket="images", Key="k/00000", Range="bytes=0-1"),
        lambda s3: s3.head_object(Bucket="images", Key="k/00000", IfNoneMatch='"x"'),
        lambda s3: s3.copy_object(Bucket="images", Key="copy", CopySource="images/k/00000"),
        lambda s3: s3.create_bucket(Bucket="images"),
        lambda s3: s3.delete_bucket(Bucket="images"),
        lambda s3: s3.create_multipart_upload(Bucket="images", Key="k"),
    ],
)
def test_what_it_cannot_do_it_refuses(stored: Store, ask: Callable[[BaseClient], object]) -> None:
    assert refused(lambda: ask(client(stored)))[0] == 501


def test_keys_of_every_kind_come_back_from_lists_and_requests(store: Store) -> None:
    s3 = client(store)
    store.control.put(ODD_KEYS[::2])
    for key in ODD_KEYS[1::2]:
        s3.put_object(Bucket="images", Key=key, Body=b"x")
    in_order = sorted(["a", "b", "c", *ODD_KEYS], key=str.encode)
    assert listed(s3) == listed(s3, PaginationConfig={"PageSize": 1}) == store.control.keys() == in_order
    for place, key in enumerate(in_order):
        assert s3.head_object(Bucket="images", Key=key)["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert listed(s3, StartAfter=key) == in_order[place + 1 :]
        assert listed(s3, Prefix=key) == [other for other in in_order if other.startswith(key)]
    for key in ODD_KEYS:
        s3.delete_object(Bucket="images", Key=key)
    assert store.control.keys() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("encoding", "encoded"), [("", str), ("&encoding-type=url", lambda key: quote(key, safe="/*").replace("%20", "+"))]
)
def test_keys_are_encoded_only_on_request(encoding: str, encoded: Callable[[str], str]) -> None:
    keys = ["a\rb", *(key for key in ODD_KEYS if key.isprintable())]  # XML has no word for the others
    bucket = Bucket(Config())
    bucket.put(keys)
    answer = listing.page(Request("GET", "/images", f"list-type=2{encoding}", {}), bucket.objects)
    namespace = "{http://s3.amazonaws.com/doc/2006-03-01/}"
    found = [element.text for element in ElementTree.fromstring(answer.body).iter(f"{namespace}Key")]
    assert found == [encoded(key) for key in sorted(keys)]


def test_keys_stay_in_order_however_they_come_and_go() -> None:
    luck, held = random.Random(7), set()
    bucket = Bucket(Config())
    for size in (1, 3, 500, 2, 63, 64, 65, 1_000):
        put = {f"{luck.randrange(2_000)}" for _ in range(size)}
        gone = {f"{luck.randrange(2_000)}" for _ in range(size // 2)}
        bucket.put(list(put))
        bucket.objects.delete(gone)
        held = (held | put) - gone
        assert bucket.objects.keys() == sorted(held)
        assert all((bucket.objects.get(key) is not None) is (key in held) for key in put | gone)


def test_pages_of_many_keys_take_little_time() -> None:
    bucket = Bucket(Config())
    bucket.put([f"uploads/{number:032}/living-room.jpg" for number in range(200_000)])
    start = time.process_time()
    for place in range(100):
        keys, more = bucket.objects.page("", f"uploads/{place * 1_000:032}", 1_000)
        assert more
        assert bucket.objects.entries(keys, quote).count("<Contents>") == 1_000
    assert time.process_time() - start < 1


# Objects


def test_objects_are_put_read_and_deleted(store: Store, s3: BaseClient) -> None:
    etag = f'"{hashlib.md5(b"picture of a room").hexdigest()}"'
    put = s3.put_object(Bucket="images", Key="new", Body=b"picture of a room", ContentType="image/png")
    head, got = s3.head_object(Bucket="images", Key="new"), s3.get_object(Bucket="images", Key="new")
    assert put["ETag"] == head["ETag"] == got["ETag"] == etag
    assert (head["ContentLength"], head["ContentType"]) == (17, "image/png")
    assert abs(datetime.now(UTC) - head["LastModified"]) < timedelta(seconds=10)
    assert got["Body"].read() == b"picture of a room"
    for _ in range(2):
        assert s3.delete_object(Bucket="images", Key="new")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refused(lambda: s3.head_object(Bucket="images", Key="new")) == (404, "404")
    assert refused(lambda: s3.get_object(Bucket="images", Key="new")) == (404, "NoSuchKey")


def test_a_head_has_no_body_and_each_answer_its_number(stored: Store) -> None:
    answers = [requests.head(presigned(stored, "head_object", Key=key), timeout=5) for key in ("k/00000", "missing")]
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b""), (404, b"")]
    assert len({answer.headers["x-amz-request-id"] for answer in answers}) == 2
    assert all("date" in answer.headers and "x-minio-error-code" not in answer.headers for answer in answers)


def test_errors_are_told_in_xml(stored: Store) -> None:
    answer = requests.get(presigned(stored, Key="mis<sing"), timeout=5)
    document = ElementTree.fromstring(answer.content)
    assert answer.headers["content-type"] == "application/xml"
    assert {element.tag for element in document} == {"Code", "Message", "Resource", "RequestId"}


def test_a_path_that_is_no_text_is_refused(stored: Store) -> None:
    assert code_of(requests.get(f"{stored.url}/images/%FF", timeout=5)) == (400, "InvalidURI")


# Rights, names, regions


def test_without_the_right_to_list_a_missing_key_looks_forbidden(store: Store, s3: BaseClient) -> None:
    store.control.rights(list=False)
    assert s3.head_object(Bucket="images", Key="a")["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert refused(lambda: s3.head_object(Bucket="images", Key="missing")) == (403, "403")
    assert refused(lambda: s3.list_objects_v2(Bucket="images")) == (403, "AccessDenied")
    assert refused(lambda: s3.head_bucket(Bucket="images")) == (403, "403")
    store.control.rights()
    assert refused(lambda: s3.head_object(Bucket="images", Key="missing")) == (404, "404")


def test_without_the_right_to_read_every_key_is_forbidden(store: Store, s3: BaseClient) -> None:
    store.control.rights(read=False)
    for key in ("a", "missing"):
        assert refused(lambda key=key: s3.head_object(Bucket="images", Key=key)) == (403, "403")
        assert refused(lambda key=key: s3.get_object(Bucket="images", Key=key)) == (403, "AccessDenied")
    assert listed(s3) == ["a", "b", "c"]


def test_a_renamed_bucket_is_gone_by_its_old_name(store: Store, s3: BaseClient) -> None:
    store.control.rename_bucket("pictures")
    assert refused(lambda: s3.list_objects_v2(Bucket="images")) == (404, "NoSuchBucket")
    assert refused(lambda: s3.head_bucket(Bucket="images")) == (404, "404")
    assert refused(lambda: s3.head_object(Bucket="images", Key="a")) == (404, "404")
    assert s3.list_objects_v2(Bucket="pictures")["KeyCount"] == 3


def test_a_bucket_of_another_region_sends_its_callers_there(store: Store, s3: BaseClient) -> None:
    url = presigned(store, "list_objects_v2")
    store.control.set(region="eu-central-1")
    answer = requests.get(url, timeout=5, allow_redirects=False)
    assert code_of(answer) == (301, "PermanentRedirect")
    assert answer.headers["x-amz-bucket-region"] == "eu-central-1"
    assert client(store, region="eu-central-1").list_objects_v2(Bucket="images")["KeyCount"] == 3
    # boto follows by itself.
    assert s3.list_objects_v2(Bucket="images")["KeyCount"] == 3
    assert store.control.counters().requests["list"] == {"200": 2, "301": 2}


def test_minio_names_the_error_of_a_head(store: Store) -> None:
    store.control.set(minio=True)
    urls = [presigned(store, "head_object", Key="missing"), presigned(store, "head_object", Key="a")]
    assert requests.head(urls[0], timeout=5).headers["x-minio-error-code"] == "NoSuchKey"
    assert "x-minio-error-code" not in requests.head(urls[1], timeout=5).headers
    store.control.rename_bucket("pictures")
    assert requests.head(urls[0], timeout=5).headers["x-minio-error-code"] == "NoSuchBucket"


def test_latency_is_the_least_that_an_answer_takes(store: Store, s3: BaseClient) -> None:
    store.control.set(latency_ms=200)
    start = time.monotonic()
    listed(s3)
    assert time.monotonic() - start >= 0.2


# Faults


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("status", "list", status=503), (503, "SlowDown")),
        (Fault("status", "list", status=500), (500, "InternalError")),
        (Fault("status", "list", status=403), (403, "AccessDenied")),
        (Fault("status", "list", status=404, code="NoSuchBucket"), (404, "NoSuchBucket")),
        (Fault("status", "list", status=418), (418, "InternalError")),
        (Fault("status", status=503, code="ServiceUnavailable"), (503, "ServiceUnavailable")),
    ],
)
def test_an_ordered_status_strikes_lists(store: Store, s3: BaseClient, fault: Fault, error: tuple[int, str]) -> None:
    store.control.fault(fault)
    assert refused(lambda: s3.list_objects_v2(Bucket="images")) == error
    assert listed(s3) == ["a", "b", "c"]
    assert store.control.counters() == Counters({"list": {"200": 1, str(error[0]): 1}}, 1, 1)


@pytest.mark.parametrize(
    ("operation", "ask"),
    [
        ("head", lambda s3: s3.head_object(Bucket="images", Key="a")),
        ("get", lambda s3: s3.get_object(Bucket="images", Key="a")),
        ("put", lambda s3: s3.put_object(Bucket="images", Key="a", Body=b"x")),
        ("delete", lambda s3: s3.delete_object(Bucket="images", Key="a")),
        ("bucket", lambda s3: s3.head_bucket(Bucket="images")),
        ("list", lambda s3: s3.list_objects_v2(Bucket="images")),
    ],
)
def test_a_fault_strikes_its_operation_only(store: Store, s3: BaseClient, operation: Any, ask: Callable) -> None:
    others = {"head", "get", "put", "delete", "bucket", "list"} - {operation}
    store.control.fault(*(Fault("status", other) for other in others))
    ask(s3)
    store.control.clear()
    store.control.fault(Fault("status", operation))
    assert refused(lambda: ask(s3))[0] == 500


def test_faults_strike_a_key_the_nth_time_and_so_often(store: Store, s3: BaseClient) -> None:
    store.control.fault(Fault("status", "head", key="b", nth=2, times=2, status=403))
    statuses = []
    for key in "abababab":
        try:
            statuses.append(s3.head_object(Bucket="images", Key=key)["ResponseMetadata"]["HTTPStatusCode"])
        except ClientError as error:
            statuses.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
    assert statuses == [200, 200, 200, 403, 200, 403, 200, 200]


def test_a_fault_without_end_lasts_until_it_is_cleared(store: Store, s3: BaseClient) -> None:
    store.control.fault(Fault("status", times=None))
    for _ in range(3):
        assert refused(lambda: s3.head_bucket(Bucket="images"))[0] == 500
    store.control.clear()
    s3.head_bucket(Bucket="images")


def test_a_dropped_connection_gives_no_answer(store: Store, s3: BaseClient) -> None:
    store.control.fault(Fault("drop", times=3))
    for ask in (s3.list_objects_v2, s3.head_bucket, lambda **given: s3.head_object(Key="a", **given)):
        with pytest.raises(ConnectionClosedError):
            ask(Bucket="images")
    assert listed(s3) == ["a", "b", "c"]
    assert store.control.counters().total(status="cut") == 3


def test_a_cut_connection_ends_within_the_body(stored: Store) -> None:
    url = presigned(stored, "list_objects_v2")
    stored.control.fault(Fault("cut", "list"))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        requests.get(url, timeout=5)
    assert requests.get(url, timeout=5).status_code == 200


def test_where_there_is_no_body_to_cut_nothing_is_answered(store: Store, s3: BaseClient) -> None:
    store.control.fault(Fault("cut", "head"))
    with pytest.raises(ConnectionClosedError):
        s3.head_object(Bucket="images", Key="a")


def test_a_hanging_answer_comes_too_late(store: Store) -> None:
    store.control.fault(Fault("hang", "head"))
    with pytest.raises(ReadTimeoutError):
        client(store, timeout=0.3).head_object(Bucket="images", Key="a")
    store.control.fault(Fault("hang", "head", seconds=0.2))
    assert refused(lambda: client(store).head_object(Bucket="images", Key="a")) == (503, "503")


def test_truncated_xml_looks_whole_to_http(stored: Store) -> None:
    url = presigned(stored, "list_objects_v2")
    stored.control.fault(Fault("truncated_xml", "list"))
    broken, whole = requests.get(url, timeout=5), requests.get(url, timeout=5)
    assert (broken.status_code, len(broken.content)) == (200, len(whole.content) // 2)
    assert whole.content.startswith(broken.content)
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(broken.content)


def test_a_store_can_ignore_start_after_but_not_its_own_token(store: Store, s3: BaseClient) -> None:
    store.control.fault(Fault("ignore_start_after", "list", times=None))
    assert listed(s3, StartAfter="b") == ["a", "b", "c"]
    assert listed(s3, StartAfter="b", PaginationConfig={"PageSize": 1}) == ["a", "b", "c"]
    store.control.clear()
    assert listed(s3, StartAfter="b") == ["c"]


def test_a_delete_marker_hides_an_object_that_can_be_restored(store: Store) -> None:
    url = presigned(store, "head_object", Key="a")
    store.control.fault(Fault("delete_marker", "head", key="a"))
    answer = requests.head(url, timeout=5)
    assert (answer.status_code, answer.headers["x-amz-delete-marker"]) == (404, "true")
    assert requests.head(url, timeout=5).status_code == 200


def test_lists_and_objects_can_be_lied_about(store: Store, s3: BaseClient) -> None:
    store.control.fault(Fault("hide", "list", keys=("a", "c")), Fault("hide", "list"))
    assert [listed(s3), listed(s3), listed(s3)] == [["b"], [], ["a", "b", "c"]]
    store.control.fault(Fault("show", "list", keys=("aa",)), Fault("show", "head", keys=("z",)))
    assert (listed(s3), listed(s3)) == (["a", "aa", "b", "c"], ["a", "b", "c"])
    assert refused(lambda: s3.head_object(Bucket="images", Key="y"))[0] == 404
    assert s3.head_object(Bucket="images", Key="z")["ContentLength"] > 0
    store.control.fault(Fault("hide", "head", keys=("b",)))
    assert s3.head_object(Bucket="images", Key="a")["ContentLength"] > 0
    assert refused(lambda: s3.head_object(Bucket="images", Key="b"))[0] == 404
    assert s3.head_object(Bucket="images", Key="b")["ContentLength"] > 0
    assert store.control.keys() == ["a", "b", "c"]


def test_an_object_can_be_without_content(store: Store, s3: BaseClient) -> None:
    store.control.put_empty(["e"])
    assert s3.head_object(Bucket="images", Key="e")["ContentLength"] == 0
    assert [found["Size"] for found in s3.list_objects_v2(Bucket="images", Prefix="e")["Contents"]] == [0]


def test_the_frame_of_a_list_can_be_lied_about(store: Store, s3: BaseClient) -> None:
    store.control.fault(Fault("frame", "list", fields={"Name": "photos", "KeyCount": None, "ContinuationToken": "t&"}))
    page = s3.list_objects_v2(Bucket="images", MaxKeys=1)
    assert (page["Name"], page["ContinuationToken"], "KeyCount" in page) == ("photos", "t&", False)
    assert [found["Key"] for found in page["Contents"]] == ["a"]


def test_a_list_can_begin_anew_wherever_it_is_to_go_on(store: Store, s3: BaseClient) -> None:
    token = s3.list_objects_v2(Bucket="images", MaxKeys=1)["NextContinuationToken"]
    store.control.fault(Fault("first_page", "list", times=2))
    again = s3.list_objects_v2(Bucket="images", MaxKeys=1, ContinuationToken=token)
    assert [found["Key"] for found in again["Contents"]] == ["a"]
    assert listed(s3, StartAfter="a") == ["a", "b", "c"]
    assert listed(s3, StartAfter="a") == ["b", "c"]


@pytest.mark.parametrize("content_type", ["text/html", "application/json", None])
@pytest.mark.parametrize("status", [200, 404])
def test_a_server_in_between_can_answer(store: Store, status: int, content_type: str | None) -> None:
    store.control.fault(Fault("proxy", status=status, content_type=content_type, times=2))
    for method in ("HEAD", "GET"):
        answer = requests.request(method, f"{store.url}/images/a", timeout=10)
        assert (answer.status_code, answer.headers.get("content-type")) == (status, content_type)
        assert not [name for name in answer.headers if name.lower().startswith("x-amz")]
    assert bool(answer.content) is bool(content_type)


def test_pages_change_while_they_are_listed(store: Store, s3: BaseClient) -> None:
    store.control.while_listing(1, put=["bb", "A"], delete=["c"])
    store.control.while_listing(2, put=["d"], delete=["b"])
    assert listed(s3, PaginationConfig={"PageSize": 1}) == ["a", "b", "bb", "d"]
    assert store.control.keys() == ["A", "a", "bb", "d"]
    store.control.while_listing(1, delete=["a"])
    store.control.clear()
    assert listed(s3)[:2] == ["A", "a"]


def test_requests_underway_at_once_are_counted(store: Store) -> None:
    store.control.set(latency_ms=100)
    url = presigned(store, "head_object", Key="a")
    with ThreadPoolExecutor(5) as pool:
        assert all(answer.ok for answer in pool.map(lambda _: requests.head(url, timeout=5), range(5)))
    counters = store.control.counters()
    assert counters == Counters({"head": {"200": 5}}, 0, counters.max_concurrent)
    assert counters.max_concurrent > 1
    assert (counters.total(), counters.total("head", 200), counters.total("list")) == (5, 5, 0)
    store.control.reset_counters()
    assert store.control.counters() == Counters({}, 0, 0)


# Control


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (lambda control: control.set(speed=1), "there is no speed"),
        (lambda control: control.set(latency_ms="slow"), "latency_ms"),
        (lambda control: control.fault(Fault("explode")), "explode"),
        (lambda control: control.fault(Fault("status", "copy")), "copy"),
        (lambda control: control.put([1]), "Expected `str`"),
    ],
)
def test_orders_that_make_no_sense_are_refused_with_the_reason(stored: Store, order: Callable, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        order(stored.control)


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("::1", 200), ("10.1.2.3", 403)])
def test_the_control_answers_to_its_own_machine_only(host: str, status: int) -> None:
    async def ask() -> int:
        transport = httpx.ASGITransport(create(Bucket(Config())), client=(host, 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as http:
            return (await http.get("/_control/health")).status_code

    assert asyncio.run(ask()) == status


def _fail_while_an_answer_hangs(pool: ThreadPoolExecutor) -> None:
    with running() as store:
        store.control.fault(Fault("hang"))
        pool.submit(requests.get, f"{store.url}/images", timeout=30)
        while not store.control.counters().faults:
            time.sleep(0.01)
        raise ZeroDivisionError(store.url)


def test_it_is_gone_at_once_after_a_failure_while_an_answer_hangs() -> None:
    threads, start = threading.active_count(), time.monotonic()
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError) as failure:
        _fail_while_an_answer_hangs(pool)
    assert time.monotonic() - start < 5
    assert threading.active_count() == threads
    with pytest.raises(requests.ConnectionError):
        requests.get(str(failure.value), timeout=1)


# The application


IMAGES = 2_000
FORMS = {
    "path style": rf"{ENDPOINT}/images/",
    "virtual host": r"https://images\.s3\.amazonaws\.com/",
    "virtual host with region": r"https://images\.s3\.us-east-1\.amazonaws\.com/",
    "vendor's path style": r"https://s3\.us-east-1\.amazonaws\.com/images/",
    "s3": r"s3://images/",
}


def key_of(url: str) -> str:
    """The key of a URL in one of the forms that occur."""
    [prefix] = [match[0] for form in FORMS.values() if (match := re.match(form, url))]
    path = url.removeprefix(prefix)
    return path if prefix.startswith("s3:") else unquote(path.partition("?")[0])


@pytest.fixture
def database(warehouse_url: str) -> Iterator[psycopg.Connection]:
    """The application's database, without rows."""
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        application.create(connection)
        yield connection


@pytest.fixture
def filled(database: psycopg.Connection) -> psycopg.Connection:
    application.fill(database, IMAGES, bucket="images", endpoint=ENDPOINT)
    return database


def column(conn: psycopg.Connection, query: str) -> list[Any]:
    return [value for (value,) in conn.execute(query)]


def test_creating_again_changes_nothing(filled: psycopg.Connection) -> None:
    application.create(filled)
    assert column(filled, "SELECT count(*) FROM images") == [IMAGES]


def test_tables_are_made_in_the_current_schema_even_if_another_has_them(filled: psycopg.Connection) -> None:
    filled.execute("CREATE SCHEMA other")
    filled.execute("SET search_path = other, public")
    application.create(filled)
    assert column(filled, "SELECT count(*) FROM other.images") == [0]


def test_the_rows_are_of_every_kind(filled: psycopg.Connection) -> None:
    shares = Counter(column(filled, "SELECT status::text FROM images"))
    assert shares.keys() == {"ready", "queued", "processing", "error"}
    assert 0.70 < shares["ready"] / IMAGES < 0.82
    assert min(shares.values()) > 0.03 * IMAGES
    for condition, few, many in (
        ("original_image_id IS NOT NULL", 0.08, 0.12),
        ("deleted_at IS NOT NULL", 0.01, 0.05),
        ("status = 'ready' AND staged_url IS NULL", 0, 0.0011),
        ("status = 'error' AND error IS NOT NULL", 0.03, 0.09),
        ("updated_at < now() - interval '1 day'", 1, 1),
    ):
        [count] = column(filled, f"SELECT count(*) FROM images WHERE {condition}")
        assert few * IMAGES <= count <= many * IMAGES, condition
    assert column(filled, "SELECT DISTINCT error FROM images WHERE error LIKE '%missing in storage'") == []


def test_every_form_of_url_occurs_and_one_prevails(filled: psycopg.Connection) -> None:
    urls = column(filled, "SELECT original_url FROM images WHERE original_url IS NOT NULL")
    forms = Counter(name for url in urls for name, form in FORMS.items() if re.match(form, url))
    assert forms.keys() == FORMS.keys()
    assert sum(forms.values()) == len(urls)
    assert forms["path style"] > 0.7 * len(urls)
    assert sum("?X-Amz-" in url for url in urls) > 0.02 * len(urls)
    staged = column(filled, "SELECT staged_url FROM images WHERE staged_url IS NOT NULL")
    assert 0.8 * len(staged) < sum(url.startswith("s3://") for url in staged) < len(staged)


def test_each_row_is_consistent(filled: psycopg.Connection) -> None:
    contradictions = (
        "SELECT FROM images WHERE (original_url IS NULL) <> (original_image_id IS NOT NULL)",
        "SELECT FROM images WHERE staged_url IS NOT NULL AND status <> 'ready'",
        "SELECT FROM images WHERE (error IS NOT NULL) <> (status = 'error')",
        "SELECT FROM images WHERE updated_at < created_at OR deleted_at <= updated_at",
        "SELECT FROM original_images o WHERE reference_count <> (SELECT count(*) FROM images i "
        "WHERE i.original_image_id = o.id AND i.deleted_at IS NULL)",
    )
    assert [query for query in contradictions if filled.execute(query).fetchall()] == []
    assert column(filled, "SELECT max(reference_count) FROM original_images") == [4]


def test_the_keys_are_those_that_the_rows_name(filled: psycopg.Connection) -> None:
    rows = filled.execute(
        "SELECT i.id, i.original_url, o.s3_key, i.staged_url, i.deleted_at FROM images i "
        "LEFT JOIN original_images o ON o.id = i.original_image_id"
    ).fetchall()
    named = set()
    for image_id, original_url, shared_key, staged_url, deleted_at in rows:
        original = shared_key or key_of(original_url)
        assert re.fullmatch(r"uploads/[\da-f-]{36}/.+-[\da-f-]{36}\.(jpg|jpeg|png|webp)", original)
        staged = [key_of(staged_url)] if staged_url else []
        assert staged in ([], [f"staged/{str(image_id)[:8]}/{image_id}-staged.jpg"])
        if deleted_at is None:
            named |= {original, *staged}
    keys = application.keys(IMAGES)
    assert (len(keys), set(keys)) == (len(set(keys)), named)
    for odd in (" ", "+", "%", "#", "&", "ü", "リ"):
        assert any(odd in key for key in keys), odd


def test_the_rows_follow_from_the_seed(database: psycopg.Connection) -> None:
    def filled_with(seed: int) -> tuple[list, list]:
        database.execute("TRUNCATE users, original_images CASCADE")
        keys = application.fill(database, 300, bucket="images", endpoint=ENDPOINT, seed=seed)
        assert keys == application.keys(300, seed)
        return keys, database.execute("SELECT * FROM images ORDER BY id").fetchall()

    assert filled_with(1) == filled_with(1)
    assert not set(filled_with(1)[0]) & set(filled_with(2)[0])


def test_the_worker_is_guarded(filled: psycopg.Connection) -> None:
    image = application.upload(filled, bucket="images", endpoint=ENDPOINT, name="my room")

    def state() -> tuple:
        query = "SELECT status::text, staged_url, error, original_url FROM images WHERE id = %s"
        return filled.execute(query, (image.id,)).fetchone()

    status, staged_url, error, original_url = state()
    assert (status, staged_url, error) == ("queued", None, None)
    assert key_of(original_url) == image.original_key
    assert application.start(filled, image.id)
    assert not application.start(filled, image.id)
    assert application.finish(filled, image.id, bucket="images")
    assert state()[:3] == ("ready", f"s3://images/{image.staged_key}", None)
    assert not application.finish(filled, image.id, bucket="images")
    assert not application.fail(filled, image.id, "too late")
    assert state()[0] == "ready"
    assert application.soft_delete(filled, image.id)
    assert not application.soft_delete(filled, image.id)
    failed = application.upload(filled, bucket="images", endpoint=ENDPOINT)
    assert application.fail(filled, failed.id, "model timed out")
    assert not application.finish(filled, failed.id, bucket="images")


# The command


@contextmanager
def command(*options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """The URL that the command prints, and its process."""
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield re.fullmatch(r"storage simulator: (http://\S+)\n", process.stdout.readline())[1], process
        finally:
            process.kill()


def reached(url: str) -> Store:
    return Store(url, Config.access_key, Config.secret_key, "images", control=None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_tells_its_url_and_ends_at_once(number: int) -> None:
    with command("--images", "50", "--seed", "3") as (url, process):
        assert listed(client(reached(url))) == sorted(application.keys(50, 3))
        process.send_signal(number)
        assert process.wait(timeout=3) == 0
        assert process.stdout.read() == ""


def test_the_command_fills_the_database_once(warehouse_url: str) -> None:
    database = f"{warehouse_url}?options=-csearch_path%3Dapp"
    options = ["--images", "60", "--database", database]
    with command(*options) as (url, _), psycopg.connect(database, autocommit=True) as conn:
        assert column(conn, "SELECT count(*) FROM app.images") == [60]
        assert column(conn, f"SELECT count(*) > 30 FROM images WHERE original_url LIKE '{url}/images/%'") == [True]
        conn.execute("DELETE FROM images WHERE status <> 'ready'")
    with command(*options) as (_, _), psycopg.connect(database) as conn:
        assert column(conn, "SELECT count(*) < 60 FROM images") == [True]


def test_rclone_serves_what_the_command_lays_out_and_brings_nothing_back(tmp_path: Path) -> None:
    options = ["--images", "60", "--rclone", str(RCLONE), "--folder", str(tmp_path / "objects")]
    keys = sorted(application.keys(60))
    with command(*options) as (url, process):
        s3 = client(reached(url))
        assert listed(s3) == keys
        s3.delete_object(Bucket="images", Key=keys[0])
        assert listed(s3) == keys[1:]
        process.terminate()
        process.wait(timeout=5)
    with command(*options) as (url, _):
        assert listed(client(reached(url))) == keys[1:]


def test_objects_that_were_half_laid_out_are_laid_out_anew(tmp_path: Path) -> None:
    def interrupted() -> Iterator[str]:
        yield "a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rclone_server.lay(tmp_path, "images", interrupted())
    assert not (tmp_path / "images").exists()
    rclone_server.lay(tmp_path, "images", ["b/c"])
    assert [path.name for path in tmp_path.rglob("*")] == ["images", "b", "c"]


def test_a_real_server_for_tests(tmp_path: Path) -> None:
    keys = [key for key in ODD_KEYS if key.isprintable() and "//" not in key]
    with rclone(tmp_path, "images", keys, "demo-access", "demo-secret", RCLONE) as store:
        s3 = client(store)
        assert listed(s3) == sorted(keys)
        assert refused(lambda: s3.head_object(Bucket="images", Key="missing")) == (404, "404")
        wrong = client(store, secret_key="wrong")
        assert refused(lambda: wrong.list_objects_v2(Bucket="images")) == (403, "SignatureDoesNotMatch")
    with pytest.raises(requests.ConnectionError):
        requests.get(store.url, timeout=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rclone", str(RCLONE)], "--rclone and --folder need each other"),
        (["--rclone", "no-such-program", "--folder", "x"], "--rclone: there is no program no-such-program"),
    ],
)
def test_options_that_make_no_sense_are_told(options: list[str], message: str) -> None:
    ended = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith(f"error: {message}")


def test_a_taken_port_is_told_by_the_command(stored: Store) -> None:
    port = stored.url.rpartition(":")[2]
    options = [*COMMAND[:-1], port]
    ended = subprocess.run(options, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"storage simulator: can't listen on 127.0.0.1:{port} (Address already in use); choose another --port"
    ]
