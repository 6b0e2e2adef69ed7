import json
import socket
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.handlers import decode_list_object_v2
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import RestXMLParser
from hypothesis import example, given
from hypothesis import strategies as st

from include.api import s3_transport, transport
from include.api.bucket import Bucket, Look, Presence, Way
from include.api.errors import ApiError, FixConfiguration, PaginationLoop, RefuseData, TryLater
from include.api.s3_client import client_config
from include.api.s3_listing import fields_of, read_page
from include.api.s3_ranges import Range
from include.simulators.storage import Fault, Store, running
from stack.settings import REPOSITORY

PATH_STYLE = Config(s3={"addressing_style": "path"})
IMPATIENT = client_config(8).merge(
    Config(connect_timeout=1, read_timeout=0.5, retries={"mode": "standard", "total_max_attempts": 2})
)
ONCE = IMPATIENT.merge(Config(retries={"mode": "standard", "total_max_attempts": 1}))
STRANGE = [
    "a b", "a+b", "a%2Bb", "a%20b", "a%b", "a&b", "a&amp;b", "a<b>c", "a-b", "a.b", "a/b", "ä/ö.jpg", "e\u0301",
    "emoji-😀.jpg", "z\"q'!.jpg", "\uffee", "日本.jpg",
]  # fmt: skip


def client(url: str, access: str, secret: str, config: Config = IMPATIENT) -> BaseClient:
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=config.merge(PATH_STYLE),
    )


def connect(store: Store, *, secret: str = "", access: str = "", url: str = "", name: str = "") -> Bucket:
    s3 = client(url or store.url, access or store.access_key, secret or store.secret_key)
    return Bucket(s3, name or store.bucket, connection="acme")


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with running() as running_store:
        yield running_store


@pytest.fixture
def store(server: Store) -> Iterator[Store]:
    """The simulator, empty and well-behaved again."""
    yield server
    server.control.clear()
    server.control.set(bucket="images", region="us-east-1", may_list=True, may_read=True, minio=False)
    server.control.delete(server.control.keys())


@pytest.fixture
def bucket(store: Store) -> Bucket:
    proven = connect(store)
    proven.prove()
    return proven


@contextmanager
def rclone(folder: Path) -> Iterator[tuple[Path, Callable[[], Bucket]]]:
    """A real S3 server over a folder: the bucket's folder, and what makes clients for it."""
    images = folder / "images"
    images.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    binary = REPOSITORY / ".venv" / "rclone" / "rclone"
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", "access,secret-key", "--dir-cache-time", "0s"]
    process = subprocess.Popen([binary, "serve", "s3", *options, folder], stderr=subprocess.DEVNULL)
    try:
        until_listening(port)
        yield (
            images,
            lambda: Bucket(client(f"http://127.0.0.1:{port}", "access", "secret-key"), "images", connection="acme"),
        )
    finally:
        process.terminate()
        process.wait()


def until_listening(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "rclone does not listen"
            time.sleep(0.05)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], Bucket]]]:
    with rclone(tmp_path) as serving:
        yield serving


def lay(images: Path, keys: list[str]) -> None:
    for key in keys:
        path = images / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def answers(bucket: Bucket, operation: str, status: int, body: bytes = b"", **headers: str) -> None:
    """Answer the bucket's requests in the place of the store."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}

    class Raw:
        def stream(self, *_: object, **__: object) -> Iterator[bytes]:
            yield body

    bucket._client.boto.meta.events.register(
        f"before-send.s3.{operation}",
        lambda request, **_: AWSResponse(request.url, status, dict(headers), Raw()),
    )


def everything(bucket: Bucket, ranges: list[Range] | None = None, **options: object) -> list[str]:
    """All keys, each range's in its order, one range after the other."""
    ranges = ranges or [Range()]
    found: dict[int, list[str]] = {index: [] for index in range(len(ranges))}
    for listing in bucket.list(ranges, **options):
        found[listing.range] += listing.keys
    return [key for keys in found.values() for key in keys]


def error_of(call: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call()
    # boto3's own errors quote URLs, which hold keys.
    assert caught.value.__context__ is None
    return caught.value


# -- pages: what is read, and what is no page


@pytest.fixture(scope="module")
def boto_keys() -> Callable[[bytes], list[str]]:
    """What boto3 makes of a body."""
    shape = (
        ServiceModel(Loader().load_service_model("s3", "service-2"), "s3").operation_model("ListObjectsV2").output_shape
    )

    def read(body: bytes) -> list[str]:
        parsed = RestXMLParser().parse({"status_code": 200, "headers": {}, "body": body}, shape)
        decode_list_object_v2(parsed, {"encoding_type_auto_set": True})
        return [contents["Key"] for contents in parsed.get("Contents", [])]

    return read


def document(
    keys: list[str],
    *,
    url: bool = True,
    more: str = "false",
    token: str = "",
    count: int | None = None,
    gap: str = "",
    key_first: bool = True,
    frame_first: bool = True,
    write: Callable[[str], str] | None = None,
) -> bytes:
    """A page as stores write it; each option is a habit of some of them."""
    write = write or ((lambda key: quote(key, safe="/").replace("%20", "+")) if url else escape)
    counted = "" if count is None else f"<KeyCount>{count}</KeyCount>"
    counted += f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    encoding = "<EncodingType>url</EncodingType>" if url else ""
    frame = f"<Name>images</Name><Prefix></Prefix>{counted}<IsTruncated>{more}</IsTruncated>{gap}{encoding}"
    rest = "<ETag>&quot;1&quot;</ETag><Owner><ID>Key</ID></Owner><Size>1</Size>"
    parts = [[f"<Key>{write(key)}</Key>", rest] for key in keys]
    rows = [f"<Contents>{gap}{gap.join(part if key_first else part[::-1])}{gap}</Contents>" for part in parts]
    body = gap.join([frame, *rows] if frame_first else [*rows, frame])
    xmlns = "http://s3.amazonaws.com/doc/2006-03-01/"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{xmlns}">{gap}{body}</ListBucketResult>'
    ).encode()


# XML can't hold most control characters, which is why S3 offers to encode.
TEXT = st.characters(exclude_categories=["Cs"])
KEYS = st.lists(st.text(TEXT | st.sampled_from("%+ &</"), min_size=1, max_size=12), unique=True, max_size=6)
PRINTABLE = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")


@given(KEYS, st.sampled_from(["", "\n  "]), st.booleans(), st.booleans(), st.sampled_from([None, "true count"]))
def test_reads_the_keys_that_boto_reads(boto_keys, keys, gap, key_first, frame_first, count):
    count = len(keys) if count else None
    body = document(keys, gap=gap, key_first=key_first, frame_first=frame_first, count=count)
    assert list(read_page(body).keys) == boto_keys(body) == keys


@given(st.lists(st.text(PRINTABLE, min_size=1, max_size=12), max_size=6), st.booleans())
@example(["a&b", "a<b", "a+b", "a%20b"], True)
def test_reads_the_keys_that_boto_reads_where_the_store_does_not_encode(boto_keys, keys, key_first):
    body = document(keys, url=False, key_first=key_first)
    assert list(read_page(body).keys) == boto_keys(body) == keys


@pytest.mark.parametrize(
    "write",
    [
        lambda key: f"<![CDATA[{key}]]>",
        lambda key: "".join(f"&#{ord(c)};" for c in key),
        lambda key: f"<!-- <Key>no</Key> -->{key}",
        lambda key: f"{key[:1]}<!-- no -->{key[1:]}",
    ],
)
def test_reads_the_keys_that_boto_reads_in_odd_xml(boto_keys, write):
    body = document(["abc", "def"], url=False, write=write)
    assert list(read_page(body).keys) == boto_keys(body) == ["abc", "def"]


def test_reads_namespace_prefixes_like_boto(boto_keys):
    body = document(["abc"]).replace(b"xmlns=", b"xmlns:s=").replace(b"<", b"<s:").replace(b"<s:/", b"</s:")
    body = body.replace(b"<s:?", b"<?")
    assert list(read_page(body).keys) == boto_keys(body) == ["abc"]


@pytest.mark.parametrize(
    "body",
    [
        document(["a b"]).replace(b"<EncodingType>", b"<EncodingType >"),
        document(["a", "b"])
        .replace(b"<Contents>", b"<!-- <Contents>", 1)
        .replace(b"</Contents>", b"</Contents> -->", 1),
        document(["a\rb"], url=False),
    ],
    ids=["spaced field", "object in a comment", "carriage return"],
)
def test_reads_the_keys_that_boto_reads_in_odd_pages(boto_keys, body):
    assert list(read_page(body).keys) == boto_keys(body)


def test_no_part_of_a_page_is_a_page():
    body = document(["a", "b b", "ä"], gap="\n", more="true", token="t", count=3)
    assert [length for length in range(len(body)) if read_page(body[:length])] == []
    assert read_page(body).keys == ["a", "b b", "ä"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Welcome</body></html>",
        b"<Error><Code>InternalError</Code></Error>",
        document(["a", "b"], count=3),
        document(["a", "b"], more="perhaps"),
        document([], more="true"),
        document(["a"], more="true"),
        document(["a"], more="false", token="t"),
        document(["a"]).replace(b"<Name>images</Name>", b""),
        document(["a"]).replace(b"<Name>images</Name>", b"<Name></Name>"),
        document(["a", ""]),
        document(["a"]).replace(b"<IsTruncated>false</IsTruncated>", b""),
        document(["a"]).replace(b"</Key>", b""),
        document(["a"]).replace(b"UTF-8", b"no-such-code"),
        document(["a", "b"], more="true", token="t\0"),
    ],
)
def test_what_could_hide_a_key_is_no_page(body):
    assert read_page(body) is None


@pytest.mark.parametrize("odd", ["%FF", "a%FFb", "%ED%A0%80", "a%C3", "a" * 1025, "%C3%A9" * 513])
@pytest.mark.parametrize("gap", ["", "<!-- -->"])
def test_key_that_no_text_can_name_is_left_out(odd, gap):
    body = document(["a", "odd", "z"], count=3, gap=gap, write=lambda key: odd if key == "odd" else key)
    assert read_page(body).keys == ["a", "z"]
    assert read_page(body.replace(b"<KeyCount>3<", b"<KeyCount>2<")) is None


def test_keys_of_the_longest_size_are_listed():
    keys = ["a" * 1024, "\u00e9" * 512]
    assert read_page(document(keys)).keys == keys


@pytest.mark.parametrize("body", [document(["a", "b"]), document(["a", "b"], key_first=False, gap=" ")])
def test_objects_without_content_are_told_from_the_others(body):
    empty = body.replace(b"<Size>1</Size>", b"<Size>0</Size>", 1)
    assert (read_page(body).empty, read_page(empty).empty) == (set(), {"a"})
    in_odd_xml = empty.replace(b"<Key>a</Key>", b"<Key><![CDATA[a]]></Key>")
    assert (read_page(in_odd_xml).keys, read_page(in_odd_xml).empty) == (["a", "b"], {"a"})


@pytest.mark.parametrize("in_odd_xml", [False, True])
def test_the_first_objects_of_a_page_are_shown_with_all_their_fields(in_odd_xml):
    owner = b"<Size>1</Size><Owner><ID>1</ID><DisplayName>a b</DisplayName></Owner><Odd/>"
    body = document([f"k{number:02}" for number in range(30)]).replace(b"<Size>1</Size>", owner)
    if in_odd_xml:
        body = body.replace(b"k29", b"<![CDATA[k29]]>")
    shown = fields_of(read_page(body).sample)
    assert [each["Key"] for each in shown] == [f"k{number:02}" for number in range(10)]
    assert all(each["Owner"] == {"ID": "1", "DisplayName": "a b"} for each in shown)
    assert all((each["Size"], each["Odd"]) == ("1", "") for each in shown)


def test_who_listens_is_shown_the_objects_of_each_answer(store, bucket):
    store.control.put(["a", "b"])
    heard = []
    bucket.listen(lambda way, objects: heard.append((way, [each.get("Key") for each in objects], set(objects[0]))))
    bucket.list_from("")
    bucket.look("a")
    bucket.look("missing")
    (listed, keys, names), (asked, _, headers) = heard
    assert (listed, keys, {"Key", "Size"} <= names) == (Way.LIST, ["a", "b"], True)
    assert (asked, {"etag", "content-length"} <= headers) == (Way.HEAD, True)


# -- listing


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2000])
def test_lists_every_key_once(store, bucket, count):
    keys = [f"k/{number:05}" for number in range(count)]
    store.control.put(keys)
    assert everything(bucket) == keys


def test_strange_keys_are_listed_and_seen(store, bucket):
    store.control.put(STRANGE)
    assert everything(bucket, size=2) == sorted(STRANGE)
    assert set(bucket.look_all(STRANGE, 4)) == {Look(key, Presence.PRESENT) for key in STRANGE}
    assert bucket.look("a%2bb").presence is Presence.ABSENT


@pytest.mark.parametrize("faults", [[], [Fault("ignore_start_after", times=None)]], ids=["ranges", "chain"])
def test_goes_on_after_a_key_that_postgres_cannot_keep(store, bucket, faults):
    """S3 allows a NUL, also in the last key of a page; the position behind it can be kept."""
    keys = ["a", "b\0", "b\0%00", "c"]
    store.control.put(keys)
    store.control.fault(*faults)
    whole = list(bucket.list(size=1))
    assert [key for listing in whole for key in listing.keys] == keys
    assert "u0000" not in json.dumps([listing.position for listing in whole if listing.position])
    for seen in range(1, len(whole)):
        rest = connect(store).list(positions={0: whole[seen - 1].position}, size=1)
        assert [key for listing in rest for key in listing.keys] == keys[seen:]


def test_goes_on_where_an_earlier_version_was_cut_off(store, bucket):
    """It kept keys as they are."""
    store.control.put(["a%41", "a1", "aA", "aB"])
    assert everything(bucket, positions={0: {"after": "a%41"}}) == ["a1", "aA", "aB"]


def test_no_tree_is_built_of_a_usual_page(store, bucket, monkeypatch):
    store.control.put(["a", "b"])
    assert bucket.honours_start_after
    monkeypatch.setattr("xml.etree.ElementTree.XMLParser", None)
    assert everything(bucket) == ["a", "b"]


BORDERS = [
    [Range()],
    [Range("", "k3"), Range("k3", "k6"), Range("k6")],
    [Range("", "a"), Range("a", "k0"), Range("k0", "k0"), Range("k0", "k44"), Range("k44", "z"), Range("z")],
    [Range("", "k9"), Range("k9", None)],
]


@pytest.mark.parametrize("ranges", BORDERS)
@pytest.mark.parametrize("size", [1, 3, 10, 1000])
def test_ranges_together_hold_every_key_once(store, bucket, ranges, size):
    keys = [f"k{number}" for number in range(10)]
    store.control.put(keys)
    assert everything(bucket, ranges, size=size, workers=3) == keys


def test_a_range_holds_what_is_behind_its_start_up_to_its_end(store, bucket):
    store.control.put(["a", "b", "c", "d"])
    assert everything(bucket, [Range("a", "c")], size=2) == ["b", "c"]
    assert everything(bucket, [Range("c", "a")], size=2) == []


@pytest.mark.parametrize("end", ["b", "bb"])
def test_nothing_is_asked_behind_the_end_of_a_range(store, bucket, end):
    store.control.put(["a", "b", "c", "d", "e", "f"])
    assert bucket.honours_start_after
    before = bucket.requests
    assert everything(bucket, [Range("", end)], size=1 if end == "b" else 3) == ["a", "b"]
    assert bucket.requests == before + (2 if end == "b" else 1)


@pytest.mark.parametrize("faults", [[], [Fault("ignore_start_after", times=None)]], ids=["ranges", "chain"])
def test_goes_on_from_every_page(store, bucket, faults):
    keys = [f"k{number}" for number in range(9)]
    store.control.put(keys)
    store.control.fault(*faults)
    ranges = BORDERS[1]
    whole = list(bucket.list(ranges, size=2, workers=2))
    for seen in range(len(whole) + 1):
        positions = {listing.range: json.loads(json.dumps(listing.position)) for listing in whole[:seen]}
        rest = list(connect(store).list(ranges, positions=positions, size=2, workers=2))
        assert sorted(key for listing in whole[:seen] + rest for key in listing.keys) == keys
        assert {listing.range for listing in whole[:seen] + rest if listing.position is None} == {0, 1, 2}


@pytest.mark.parametrize("faults", [[], [Fault("ignore_start_after", times=None)]], ids=["ranges", "chain"])
@pytest.mark.parametrize("size", [1, 2, 9])
def test_keys_that_no_text_can_name_end_no_listing(store, bucket, monkeypatch, faults, size):
    monkeypatch.setattr(
        "include.simulators.storage.listing.quote_plus",
        lambda text, safe: quote_plus(text, safe=safe).replace("%21", "%FF"),
    )
    store.control.put(["a", "k4", "k4!", "k4!a", "k4!b", "k4!c", "k7", "z!", "z!a", "z!b"])
    store.control.fault(*faults)
    assert everything(bucket, BORDERS[1], size=size) == ["a", "k4", "k7"]
    assert [bucket.look(key, Way.LIST).presence for key in ("k4", "k4~", "z")] == ["present", "absent", "absent"]


def test_what_is_done_is_not_asked_for(store, bucket):
    store.control.put(["a", "k4", "k7"])
    assert everything(bucket, BORDERS[1], positions={0: None, 2: None}) == ["k4"]
    before = bucket.requests
    assert everything(bucket, BORDERS[1], positions={0: None, 1: None, 2: None}) == []
    assert bucket.requests == before


def test_a_store_that_ignores_start_after_is_listed_in_one_chain(store, bucket):
    keys = [f"k{number}" for number in range(10)]
    store.control.put(keys)
    assert bucket.honours_start_after
    store.control.fault(Fault("ignore_start_after", times=None))
    other = connect(store)
    assert not other.honours_start_after
    listings = list(other.list(BORDERS[1], size=3))
    assert [listing.keys for listing in listings if listing.range == 0] == [keys[:3], keys[3:6], keys[6:9], keys[9:]]
    assert error_of(lambda: other.list_from("k3")).args[0].startswith("acme: LIST of bucket 'images' began elsewhere")


def test_keys_that_follow_a_key_cost_one_request(store, bucket):
    store.control.put([f"k{number}" for number in range(10)])
    before = bucket.requests
    pages = [bucket.list_from("k3", 2), bucket.list_from("k35"), bucket.list_from("k9")]
    assert [(page.keys, page.more) for page in pages] == [
        (["k4", "k5"], True),
        (["k4", "k5", "k6", "k7", "k8", "k9"], False),
        ([], False),
    ]
    assert bucket.requests == before + 3


def test_requests_are_counted_with_retries(store, bucket):
    assert bucket.requests == 1
    store.control.fault(Fault("status", "head", status=500))
    store.control.reset_counters()
    bucket.look("a")
    assert bucket.requests == 3
    assert bucket.requests_failed == 1
    assert store.control.counters().requests == {"head": {"500": 1, "404": 1}}


@pytest.mark.parametrize(
    "fault", [Fault(kind, "list", status=403) for kind in ("status", "drop", "cut", "truncated_xml")]
)
def test_failed_requests_are_counted_whatever_their_kind(store, bucket, fault):
    store.control.put(["a"])
    store.control.fault(fault)
    with suppress(ApiError):
        bucket.list_from("", 10)
    assert bucket.requests_failed == 1


def test_keys_that_change_while_listing(store, bucket):
    keys = [f"k{number}" for number in range(10)]
    store.control.put(keys)
    assert bucket.honours_start_after
    store.control.while_listing(1, put=["k00", "k45"], delete=["k2", "k7"])
    assert everything(bucket, size=3) == ["k0", "k1", "k2", "k3", "k4", "k45", "k5", "k6", "k8", "k9"]


def page_of(*keys: str, token: str = "", **echo: str) -> bytes:
    """A page that is followed by others if it has a token; `echo` is what it says of its question."""
    fields = "".join(f"<{name}>{value}</{name}>" for name, value in echo.items())
    page = document(list(keys), more="true" if token else "false", token=token)
    return page.replace(b"<IsTruncated>", f"{fields}<IsTruncated>".encode())


class Script:
    """Answers LIST requests in turn, in the place of the store."""

    def __init__(self, bucket: Bucket, *bodies: bytes):
        self.asked: list[str] = []
        self._bodies = list(bodies)
        bucket._client.boto.meta.events.register("before-send.s3.ListObjectsV2", self.answer)

    def answer(self, request: object, **_: object) -> AWSResponse:
        self.asked.append(request.url.partition("?")[2])
        body = self._bodies.pop(0)

        class Raw:
            def stream(self, *_: object, **__: object) -> Iterator[bytes]:
                yield body

        return AWSResponse(request.url, 200, {}, Raw())


def test_pages_without_keys_are_passed_over(bucket):
    script = Script(bucket, page_of(), page_of(token="t1"), page_of(token="t2"), page_of("k"))
    assert everything(bucket) == ["k"]
    assert "continuation-token=t2" in script.asked[-1]


def test_a_page_without_keys_that_leads_to_itself_is_a_loop(bucket):
    Script(bucket, page_of(), *[page_of(token="t1")] * 2)
    assert isinstance(error_of(lambda: everything(bucket)), PaginationLoop)


def test_pages_without_keys_in_circles_are_a_loop(bucket):
    Script(bucket, page_of(), *[page_of(token="t1"), page_of(token="t2")] * 3)
    assert isinstance(error_of(lambda: everything(bucket)), PaginationLoop)


@pytest.mark.parametrize(
    "page",
    [
        page_of("b").replace(b"<Name>images</Name>", b"<Name>photos</Name>"),
        page_of("b").replace(b"<Prefix></Prefix>", b"<Prefix>b</Prefix>"),
        page_of("b", StartAfter="m"),
        page_of("b", ContinuationToken="t7"),
        page_of("b", "c", "d", "e"),
    ],
    ids=["another bucket", "another prefix", "another place", "another page", "more than was asked for"],
)
def test_the_answer_to_another_question_is_no_answer(bucket, page):
    """Pages that were swapped on the way, or come out of a cache."""
    Script(bucket, page_of(), page_of("a", token="0"), page)
    error = error_of(lambda: everything(bucket, size=3))
    assert isinstance(error, TryLater)
    assert "gave the answer to another question" in str(error)


def test_the_answer_to_the_very_question_is_taken_however_it_is_encoded(bucket):
    Script(bucket, page_of(), page_of("a b", token="0"), page_of("c", StartAfter="a+b"))
    assert everything(bucket) == ["a b", "c"]


def test_a_store_that_lists_out_of_order_is_refused(bucket):
    Script(bucket, page_of(), page_of("b", "a"))
    error = error_of(lambda: everything(bucket))
    assert isinstance(error, RefuseData)
    assert "out of order" in str(error)


def test_a_range_that_begins_anew_is_refused(bucket):
    Script(bucket, page_of(), page_of("a", "b", token="0"), page_of("a", "b"))
    assert isinstance(error_of(lambda: everything(bucket)), RefuseData)


def test_a_chain_that_begins_anew_gives_each_key_once(bucket):
    pages = [page_of("a", token="0"), page_of("a", "b", token="1")]
    rest = [page_of("c", "d", token="3"), page_of("d", "e")]
    Script(bucket, *pages, page_of("a", "aa", token="2"), *rest)
    assert [listing.keys for listing in bucket.list()] == [["a", "b"], [], ["c", "d"], ["e"]]


def test_a_chain_in_circles_is_a_loop(bucket):
    circle = [page_of("a", token="1"), page_of("b", token="2")]
    Script(bucket, page_of("a", token="0"), *circle * 5)
    assert isinstance(error_of(lambda: everything(bucket)), PaginationLoop)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("truncated_xml", "list"),
        Fault("cut", "list"),
        Fault("drop", "list"),
        Fault("hang", "list"),
        Fault("status", "list", status=500),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_broken_page_is_asked_for_again_and_never_read_in_part(store, bucket, fault):
    keys = [f"k{number:04}" for number in range(1500)]
    store.control.put(keys)
    store.control.fault(fault)
    assert everything(bucket) == keys
    store.control.fault(Fault(**{**vars(fault), "times": None, "nth": 2}))
    error = error_of(lambda: everything(connect(store)))
    assert isinstance(error, TryLater)
    assert "acme: LIST of bucket 'images'" in str(error)


def test_a_broken_range_ends_the_listing(store, bucket):
    store.control.put([f"k{number}" for number in range(10)])
    assert bucket.honours_start_after
    store.control.fault(Fault("status", "list", nth=3, times=None, status=403))
    assert isinstance(error_of(lambda: everything(bucket, BORDERS[1], size=1)), FixConfiguration)


def test_closing_a_listing_ends_its_threads(store, bucket):
    store.control.put([f"k{number}" for number in range(10)])
    listing = bucket.list(BORDERS[1], size=1)
    next(listing)
    listing.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("acme")]


def test_fetches_one_page_ahead_and_no_more(store, bucket):
    store.control.put([f"k{number}" for number in range(10)])
    assert bucket.honours_start_after
    before = bucket.requests
    listing = bucket.list(size=1)
    next(listing)
    time.sleep(0.2)
    assert bucket.requests == before + 2
    listing.close()


def test_memory_stays_flat(store, bucket):
    store.control.put([f"uploads/{number:09}" for number in range(20_000)])
    listing = bucket.list(size=100)
    next(listing)
    tracemalloc.start()
    assert sum(len(page.keys) for page in listing) == 19_900
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All keys together are 1.4 MB.
    assert peak < 700_000


# -- looks


def test_a_key_is_looked_up_in_the_index_by_one_request(store, bucket):
    store.control.put(["a b", "a bc", "ac"])
    before = bucket.requests
    looks = [bucket.look(key, Way.LIST).presence for key in ("a b", "a", "ac", "z")]
    assert looks == [Presence.PRESENT, Presence.ABSENT, Presence.PRESENT, Presence.ABSENT]
    assert bucket.requests == before + 4
    assert {look.key for look in bucket.look_all(["a b", "z"], 2, way=Way.LIST)} == {"a b", "z"}
    store.control.fault(Fault("status", "list", status=503, times=None))
    assert (bucket.look("z", Way.LIST).presence, bucket.look("z", Way.LIST).later) == (Presence.UNKNOWN, True)


def test_a_key_is_not_there_because_the_page_of_another_shows_it(bucket):
    about_k = [page_of(key).replace(b"<Prefix></Prefix>", b"<Prefix>k</Prefix>") for key in ("kb", "other", "k")]
    Script(bucket, *about_k, page_of("k"))
    looks = [bucket.look("k", Way.LIST).presence for _ in range(4)]
    assert looks == [Presence.ABSENT, Presence.UNKNOWN, Presence.PRESENT, Presence.UNKNOWN]


def test_a_missing_object_is_absent_only_in_a_proven_bucket(store):
    bucket = connect(store)
    assert bucket.look("k").presence is Presence.UNKNOWN
    bucket.prove()
    assert bucket.look("k") == Look("k", Presence.ABSENT)
    store.control.rename_bucket("pictures")
    error_of(bucket.prove)
    assert bucket.look("k").presence is Presence.UNKNOWN


def test_a_deleted_version_is_absent_and_can_be_restored(store, bucket):
    store.control.put(["k"])
    store.control.fault(Fault("delete_marker", "head"))
    assert bucket.look("k") == Look("k", Presence.ABSENT, restorable=True)
    assert bucket.look("gone") == Look("gone", Presence.ABSENT, restorable=False)


def test_the_word_of_the_store_needs_no_proof(store):
    store.control.set(minio=True)
    bucket = connect(store)
    assert bucket.look("k").presence is Presence.ABSENT
    bucket.prove()
    store.control.rename_bucket("pictures")
    look = bucket.look("k")
    assert look.presence is Presence.UNKNOWN
    assert "404 (NoSuchBucket)" in look.reason


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            Fault("status", status=403, times=None),
            "answered 403: the keys lack the right s3:GetObject, or s3:ListBucket",
        ),
        (Fault("status", status=400, times=None), "answered 400: the store refuses"),
        (Fault("status", status=412, times=None), "answered 412: the store refuses"),
        (Fault("status", status=429, times=None), "answered 429. Run"),
        (Fault("status", status=500, times=None), "answered 500. Run"),
        (Fault("status", status=503, times=None), "answered 503. Run"),
        (Fault("hang", times=None), "timed out (ReadTimeoutError)"),
        (Fault("drop", times=None), "the connection failed (ConnectionClosedError)"),
    ],
    ids=["403", "400", "412", "429", "500", "503", "hang", "drop"],
)
def test_what_is_no_proof_leaves_a_key_unknown(store, bucket, fault, reason):
    store.control.put(["secret-name"])
    store.control.fault(fault)
    look = bucket.look("secret-name")
    assert look.presence is Presence.UNKNOWN
    assert look.reason.startswith("acme: HEAD of an object of bucket 'images'")
    assert reason in look.reason
    assert "\n" not in look.reason
    assert "secret-name" not in look.reason


def test_missing_rights_leave_a_key_unknown(store, bucket):
    store.control.rights(list=False)
    assert bucket.look("k").presence is Presence.UNKNOWN
    store.control.rights(read=False)
    assert bucket.look("k").presence is Presence.UNKNOWN


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_leaves_a_key_unknown(bucket, status):
    answers(bucket, "*", status, location="https://elsewhere.test/")
    look = bucket.look("k")
    assert look.presence is Presence.UNKNOWN
    assert f"{status}: the bucket is in another region, or the store elsewhere. Check region_name" in look.reason
    assert isinstance(error_of(bucket.prove), FixConfiguration)
    assert isinstance(error_of(lambda: everything(bucket)), FixConfiguration)
    assert bucket.requests < 12


@pytest.mark.drill("html-proxy")
@pytest.mark.parametrize("status", [200, 404])
def test_a_page_for_people_proves_nothing(bucket, status):
    answers(bucket, "*", status, b"<html>hello</html>", content_type="text/html; charset=utf-8")
    assert bucket.look("k").presence is Presence.UNKNOWN
    assert isinstance(error_of(bucket.prove), TryLater)
    assert isinstance(error_of(lambda: everything(bucket)), TryLater)


def test_an_object_may_be_a_page_for_people(bucket):
    answers(bucket, "HeadObject", 200, content_type="text/html", etag='"1"', content_length="3", x_amz_request_id="1")
    assert bucket.look("k").presence is Presence.PRESENT


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain", "content_length": "3"},
        {"content_type": "image/jpeg", "etag": '"1"'},
        {"content_type": "text/html", "etag": '"1"', "content_length": "3"},
        {},
    ],
    ids=["no etag", "no length", "a proxy's page with an etag", "nothing"],
)
def test_a_200_that_is_not_about_an_object_proves_nothing(bucket, headers):
    answers(bucket, "HeadObject", 200, **headers)
    look = bucket.look("k")
    assert (look.presence, look.later) == (Presence.UNKNOWN, True)
    assert "answered 200, but not as a store does" in look.reason


@pytest.mark.drill("html-proxy")
@pytest.mark.parametrize(
    ("headers", "presence"),
    [
        ({}, Presence.UNKNOWN),
        ({"content_type": "application/json"}, Presence.UNKNOWN),
        ({"content_type": "text/plain", "server": "envoy"}, Presence.UNKNOWN),
        ({"content_type": "text/html", "x_amz_request_id": "1"}, Presence.UNKNOWN),
        ({"content_type": "application/xml"}, Presence.ABSENT),
        ({"x_amz_request_id": "1"}, Presence.ABSENT),
        ({"x_goog_hash": "1"}, Presence.ABSENT),
    ],
)
def test_a_404_of_a_server_in_between_proves_nothing(bucket, headers, presence):
    answers(bucket, "HeadObject", 404, **headers)
    assert bucket.look("k").presence is presence


def test_an_object_without_content_is_told(store, bucket):
    store.control.put_empty(["e"])
    store.control.put(["e/full"])
    assert bucket.look("e") == Look("e", Presence.EMPTY)
    assert bucket.look("e", Way.LIST) == Look("e", Presence.EMPTY)
    assert bucket.look("e/full", Way.LIST) == Look("e/full", Presence.PRESENT)
    (listing,) = bucket.list()
    assert (listing.keys, listing.empty) == (["e", "e/full"], {"e"})


@pytest.mark.parametrize("key", ["", "a\ud800b"])
def test_a_key_that_cant_be_asked_for_is_unknown(bucket, key):
    look = bucket.look(key)
    assert look.presence is Presence.UNKNOWN
    assert "can't be sent" in look.reason


def test_a_404_of_another_service_is_not_about_the_object(bucket):
    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": "404"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "AssumeRole")

    bucket._client.boto.meta.events.register("before-sign.s3", refuse)
    look = bucket.look("k")
    assert look.presence is Presence.UNKNOWN
    assert "AssumeRole before it failed" in look.reason


def test_looks_are_lazy_and_bounded(store, bucket):
    store.control.put([f"k{number}" for number in range(0, 100, 2)])
    taken: list[str] = []

    def keys() -> Iterator[str]:
        for number in range(100):
            taken.append(f"k{number}")
            yield taken[-1]

    looks = bucket.look_all(keys(), 4)
    first = next(looks)
    assert len(taken) <= 8
    found = {look.key: look.presence for look in [first, *looks]}
    assert found == {f"k{n}": Presence.ABSENT if n % 2 else Presence.PRESENT for n in range(100)}


@pytest.mark.parametrize(("status", "kind"), [(503, TryLater), (403, FixConfiguration)])
def test_an_outage_ends_the_looks_early(store, bucket, status, kind):
    store.control.fault(Fault("status", "head", status=status, times=None))
    impatient = Bucket(client(store.url, store.access_key, store.secret_key, ONCE), store.bucket, connection="acme")
    seen: list[Look] = []
    error = error_of(lambda: seen.extend(impatient.look_all((str(n) for n in range(10_000)), 4)))
    assert isinstance(error, kind)
    assert impatient.requests <= 25
    assert "20 times in a row" in str(error)


def test_many_keys_that_are_refused_are_no_outage_while_others_are_found(store, bucket):
    odd = [f"odd/{number}" for number in range(50)]
    store.control.put(["there"])
    store.control.fault(*[Fault("status", "head", key=key, status=400, times=None) for key in odd])
    looks = list(bucket.look_all([*odd, "gone"], 4, known=["gone too", "there"]))
    assert len(looks) == 51
    assert {look.presence for look in looks if look.key != "gone"} == {Presence.UNKNOWN}
    assert not any(look.later for look in looks)
    assert isinstance(error_of(lambda: list(bucket.look_all(odd, 4, known=["gone too"]))), FixConfiguration)


def test_single_failures_do_not_end_the_looks(store, bucket):
    for number in range(0, 60, 2):
        store.control.fault(Fault("status", "head", key=f"k{number}", status=403, times=None))
    looks = list(bucket.look_all([f"k{number}" for number in range(60)], 1))
    assert sum(look.presence is Presence.UNKNOWN for look in looks) == 30
    assert sum(look.presence is Presence.ABSENT for look in looks) == 30


# -- proof


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"secret": "wrong-secret"}, "403 (SignatureDoesNotMatch): the store does not accept the keys. Check login"),
        ({"access": "unknown"}, "403 (InvalidAccessKeyId): the store does not accept the keys. Check login"),
        ({"name": "pictures"}, "404 (NoSuchBucket): the bucket does not exist there. Check bucket_name"),
        ({"name": "no/bucket!"}, "can't be sent (ParamValidationError)"),
    ],
)
def test_a_wrong_connection_has_to_be_fixed(store, change, message):
    error = error_of(connect(store, **change).prove)
    assert isinstance(error, FixConfiguration)
    assert message in str(error)
    assert "connection 'acme'" in str(error)


@pytest.mark.drill("right-lost")
def test_a_missing_right_to_list_has_to_be_granted(store):
    store.control.rights(list=False)
    error = error_of(connect(store).prove)
    assert isinstance(error, FixConfiguration)
    assert "403 (AccessDenied): the keys lack the right s3:ListBucket" in str(error)


def test_a_renamed_bucket_ends_a_listing(store, bucket):
    store.control.rename_bucket("pictures")
    assert "(NoSuchBucket)" in str(error_of(lambda: everything(bucket)))


def test_a_bucket_in_another_region_is_found_there(store):
    store.control.set(region="eu-west-1")
    store.control.put(["k"])
    bucket = connect(store)
    bucket.prove()
    assert everything(bucket) == ["k"]


@pytest.mark.drill("clock-off")
def test_a_clock_that_is_off_is_named(bucket):
    answers(bucket, "HeadBucket", 403)
    answers(bucket, "ListObjectsV2", 403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>")
    assert "Set this machine's clock." in str(error_of(bucket.prove))


def test_a_refused_head_counts_also_where_a_list_is_not(bucket):
    answers(bucket, "HeadBucket", 403)
    assert isinstance(error_of(bucket.prove), FixConfiguration)


def test_what_an_error_says_is_not_repeated(bucket):
    answers(bucket, "*", 403, b"<Error><Code>a secret, 1234</Code><Message>a secret</Message></Error>")
    assert "secret" not in str(error_of(lambda: everything(bucket)))


@pytest.mark.parametrize("status", [500, 503])
def test_a_store_in_trouble_is_asked_later(store, status):
    store.control.fault(Fault("status", "bucket", status=status, times=None))
    assert isinstance(error_of(connect(store).prove), TryLater)


@pytest.mark.parametrize("kind", ["hang", "drop"])
def test_a_silent_store_is_asked_later(store, kind):
    store.control.fault(Fault(kind, "bucket", times=None))
    assert isinstance(error_of(connect(store).prove), TryLater)


@pytest.mark.drill("dns-gone", "bucket-unreachable")
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid:9000"])
def test_an_endpoint_out_of_reach_is_asked_later(store, url):
    bucket = connect(store, url=url)
    error = error_of(bucket.prove)
    assert isinstance(error, TryLater)
    assert "Check endpoint_url of connection 'acme'" in str(error)
    assert bucket.look("k").presence is Presence.UNKNOWN


@pytest.mark.drill("tls-expired")
def test_tls_that_cant_be_trusted_has_to_be_fixed(store):
    error = error_of(connect(store, url=store.url.replace("http:", "https:")).prove)
    assert isinstance(error, FixConfiguration)
    assert "no trusted TLS connection" in str(error)


def test_tls_that_breaks_is_asked_later(store):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            for _ in range(2):
                with listener.accept()[0] as connection:
                    connection.recv(1 << 16)

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = error_of(connect(store, url=f"https://127.0.0.1:{listener.getsockname()[1]}").prove)
        thread.join()
    assert isinstance(error, TryLater)
    assert "HEAD of bucket 'images': the connection failed (SSLError)" in str(error)


def test_no_credentials_have_to_be_fixed(bucket):
    bucket._client.boto._request_signer._credentials = None
    error = error_of(bucket.prove)
    assert isinstance(error, FixConfiguration)
    assert "can't be sent (NoCredentialsError)" in str(error)


def test_the_connections_own_configuration_goes_before():
    merged = client_config(7).merge(Config(read_timeout=99, s3={"addressing_style": "path"}))
    assert (merged.max_pool_connections, merged.read_timeout, merged.connect_timeout) == (7, 99, 5)


def test_two_buckets_may_share_a_client(store, bucket):
    store.control.put(["k"])
    other = Bucket(bucket._client.boto, "images", connection="acme")
    assert everything(other) == everything(bucket) == ["k"]


# -- answers without end


@contextmanager
def endless(piece: bytes, pause: float) -> Iterator[str]:
    """A store whose every answer has no end: its URL."""
    ended = threading.Event()

    def pour(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n<ListBucketResult>")
            while not ended.wait(pause):
                connection.sendall(piece)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=pour, args=[listener.accept()[0]]).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("piece", "pause", "why"),
    [(b"x", 0.05, "timed out (ReadTimeoutError)"), (b"x" * (1 << 16), 0, "failed (ConnectionClosedError)")],
    ids=["drips", "floods"],
)
def test_a_page_without_end_is_asked_later(monkeypatch, piece, pause, why):
    monkeypatch.setattr(transport, "LONGEST_ANSWER_SECONDS", 1.0 if pause else 60.0)
    monkeypatch.setattr(s3_transport._BoundedResponse, "most", 1 << 20)
    with endless(piece, pause) as url:
        bucket = Bucket(client(url, "access", "secret", ONCE), "images", connection="acme")
        error = error_of(lambda: bucket.list_from("a"))
    assert isinstance(error, TryLater)
    assert why in str(error)


# -- a server that others have written


def test_a_real_server_by_pages_and_looks(real):
    images, connected = real
    keys = sorted([*STRANGE, *(f"many/{number:04}" for number in range(1001))])
    lay(images, keys)
    bucket = connected()
    bucket.prove()
    assert not bucket.honours_start_after
    assert everything(bucket) == keys
    assert everything(bucket, [Range("", "m"), Range("m")], size=999) == keys
    assert {look.presence for look in bucket.look_all(STRANGE, 4)} == {Presence.PRESENT}
    assert bucket.look("a").presence is Presence.ABSENT


def test_a_real_server_goes_on_where_a_key_was_deleted(real):
    images, connected = real
    lay(images, [f"k{number}" for number in range(10)])
    listing = connected().list(size=3)
    keys = next(listing).keys
    # The key at which the server stands: it begins anew.
    (images / "k2").unlink()
    for page in listing:
        keys = keys + page.keys
    assert keys == [f"k{number}" for number in range(10)]
