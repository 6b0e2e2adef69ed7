"""Unknown is never absent: whatever keeps an answer away, no image changes and nobody is told that all is well."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from include.api.errors import ApiError, FixConfiguration, TryLater
from include.simulators.storage import Config, Fault
from include.sources.base import SyncFailed
from include.warehouse import sync_log
from tests.photos import Photos


@contextmanager
def no_store(bucket: tuple[int, str], other: tuple[int, str]) -> Iterator[str]:
    """A server that is no S3: status and content type that it answers for the bucket's path, and for all else."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            status, kind = bucket if self.path.split("?")[0].strip("/") == "images" else other
            body = b"{}" if kind.endswith("json") else b"<html></html>"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD = answer

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def another_server(photos: Photos, bucket: tuple[int, str], other: tuple[int, str]) -> Iterator[Photos]:
    with no_store(bucket, other) as url:
        yield photos.elsewhere(replace(photos.store, url=url))


@contextmanager
def closed_port(photos: Photos) -> Iterator[Photos]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    yield photos.elsewhere(replace(photos.store, url=f"http://127.0.0.1:{port}"))


@contextmanager
def unknown_host(photos: Photos) -> Iterator[Photos]:
    yield photos.elsewhere(replace(photos.store, url="http://store.invalid:9000"))


@contextmanager
def wrong_secret(photos: Photos) -> Iterator[Photos]:
    yield photos.elsewhere(replace(photos.store, secret_key="another"))


@contextmanager
def settings(photos: Photos, **fields: object) -> Iterator[Photos]:
    photos.control.set(**fields)
    try:
        yield photos
    finally:
        photos.control.set(**asdict(Config()))


@contextmanager
def faults(photos: Photos, *kinds: Fault) -> Iterator[Photos]:
    photos.control.fault(*(replace(fault, times=None) for fault in kinds))
    try:
        yield photos.elsewhere(photos.store, read_timeout=0.2)
    finally:
        photos.control.clear()


@contextmanager
def fault_of_heads(photos: Photos, fault: Fault, **fields: object) -> Iterator[Photos]:
    """The bucket itself is proven and listed."""
    with settings(photos, **fields), faults(photos, replace(fault, operation="head")) as troubled:
        yield troubled


@contextmanager
def renamed_on_the_way(photos: Photos) -> Iterator[Photos]:
    """The bucket is there to be proven, and gone when the first object is asked for."""
    troubled = photos.elsewhere(photos.store)
    rename = partial(photos.control.rename_bucket, "photos")
    troubled.context.bucket._client.boto.meta.events.register("before-send.s3.HeadObject", lambda **_: rename())
    try:
        yield troubled
    finally:
        photos.control.rename_bucket("images")


JSON, HTML = "application/json", "text/html; charset=utf-8"
SLOW_DOWN = Fault("status", status=503, code="SlowDown")

# Nothing can be had of the bucket.
TROUBLES: dict[str, Callable] = {
    "outage": closed_port,
    "no such host": unknown_host,
    "a site": partial(another_server, bucket=(200, HTML), other=(200, HTML)),
    "a site without the page": partial(another_server, bucket=(404, HTML), other=(404, HTML)),
    "an API": partial(another_server, bucket=(200, JSON), other=(200, JSON)),
    "an API without the path": partial(another_server, bucket=(404, JSON), other=(404, JSON)),
    "an API with a path like the bucket": partial(another_server, bucket=(200, JSON), other=(404, JSON)),
    "wrong secret": wrong_secret,
    "no right to list": partial(settings, may_list=False),
    "no rights": partial(settings, may_list=False, may_read=False),
    "renamed bucket": partial(settings, bucket="photos"),
    "slow down": lambda photos: faults(photos, SLOW_DOWN),
    "no time": lambda photos: faults(photos, Fault("hang")),
    "cut": lambda photos: faults(photos, Fault("cut")),
}
# The bucket is there; of its objects nothing can be had.
OF_HEADS: dict[str, Callable] = {
    "no right to read": partial(settings, may_read=False),
    "forbidden": partial(fault_of_heads, fault=Fault("status", status=403)),
    "500": partial(fault_of_heads, fault=Fault("status", status=500)),
    "slow down": partial(fault_of_heads, fault=SLOW_DOWN),
    "redirected": partial(fault_of_heads, fault=Fault("status", status=301, code="PermanentRedirect")),
    "no such bucket": partial(fault_of_heads, fault=Fault("status", status=404, code="NoSuchBucket"), minio=True),
    "no time": partial(fault_of_heads, fault=Fault("hang")),
    "drop": partial(fault_of_heads, fault=Fault("drop")),
    "renamed on the way": renamed_on_the_way,
}


@dataclass(frozen=True)
class Watched:
    """A photos with something to mark, and a look at all that a run could have written."""

    photos: Photos

    lacking: tuple

    def state(self) -> tuple:
        return self.photos.table(), self.photos.audited()

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Nothing is written, and no watermark passes the images that lack something."""
        before = self.state()
        yield
        assert self.state() == before
        (oldest,) = self.photos.images.execute(
            "SELECT min(updated_at) FROM images WHERE id = ANY (%s)", [list(self.lacking)]
        ).fetchone()
        marks = [sync_log.state(self.photos.conn, "storage", "images", part).watermark for part in ("", "dry run")]
        assert [mark for mark in marks if mark and mark >= oldest] == []


@pytest.fixture
def watched(photos: Photos) -> Watched:
    """Two images that lack one object each: few enough to be asked for singly, the second time."""
    queued, ready = photos.add("queued", laid=False), photos.add()
    photos.control.delete([ready.staged])
    return Watched(photos, (queued.id, ready.id))


MISSING = {"missing_original": 1, "missing_staged": 1, "unknown": 0}


def missing(summary):
    return {name: summary.metrics[name] for name in MISSING}


def require_failed(scan) -> None:
    """It raises, or its summary says that it proves nothing, and nothing is planned that isn't proven."""
    summary = None
    with suppress(ApiError):
        summary = scan()
    if summary:
        assert summary.metrics["unknown"] > 0
        assert f"{summary.metrics['unknown']} images could not be looked at: storage: " in summary.incomplete
        assert summary.plan.update == 0
        assert (summary.metrics["missing_original"], summary.metrics["missing_staged"]) == (0, 0)


def require_harmless(watched: Watched, trouble: Callable) -> None:
    """Scan, repair and sync fail under the trouble and write nothing; once it is over, the scan ends as if whole."""
    photos = watched.photos
    with watched.untouched():
        with pytest.raises((ApiError, SyncFailed)), trouble(photos) as troubled:
            troubled.sync()
        with trouble(photos) as troubled:
            require_failed(troubled.scan)
        summary = photos.scan()
        assert missing(summary) == MISSING
        assert not summary.incomplete
        with pytest.raises(ApiError), trouble(photos) as troubled:
            troubled.repair(summary)
    assert photos.repair(summary)[1]["images"].updated == 2


@pytest.mark.drill("bucket-unreachable")
@pytest.mark.usefixtures("by_heads")
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_bucket_out_of_reach(watched, trouble):
    """Asked for singly, every object would answer as if it were missing."""
    require_harmless(watched, trouble)


@pytest.mark.parametrize("trouble", OF_HEADS.values(), ids=OF_HEADS)
def test_objects_out_of_reach_the_second_time(watched, trouble):
    """The bucket was listed, its suspects can't be looked at."""
    require_harmless(watched, trouble)


@pytest.mark.usefixtures("by_heads")
@pytest.mark.parametrize("trouble", OF_HEADS.values(), ids=OF_HEADS)
def test_objects_out_of_reach_from_the_start(watched, trouble):
    require_harmless(watched, trouble)


@pytest.mark.drill("bucket-unreachable")
@pytest.mark.usefixtures("by_heads")
def test_few_unknown_objects_leave_the_others_known(watched):
    photos = watched.photos
    third = photos.add()
    photos.control.fault(Fault("status", operation="head", key=third.original, status=500, times=None))
    with watched.untouched():
        summary = photos.scan()
    assert missing(summary) == {"missing_original": 1, "missing_staged": 1, "unknown": 1}
    assert summary.incomplete.startswith("1 images could not be looked at: storage: HEAD of an object")
    photos.control.clear()
    assert (missing(photos.scan()), photos.scan().incomplete) == (MISSING, "")


def test_unknown_object_is_not_healed(watched):
    photos = watched.photos
    image = photos.add()
    photos.control.delete([image.original])
    photos.repair(photos.scan())
    photos.images.execute("UPDATE images SET updated_at = now() - interval '1 day' WHERE status = 'error'")
    photos.control.put([image.original])
    with fault_of_heads(photos, Fault("status", status=403)) as troubled, watched.untouched():
        summary = troubled.scan(heal=True)
        assert (summary.metrics["healable"], summary.plan.update) == (0, 0)


def test_another_region_is_found_by_its_redirect(watched):
    """boto3 signs anew for the region that the store names: nothing is unknown."""
    with settings(watched.photos, region="eu-west-1"):
        summary = watched.photos.scan()
    assert (missing(summary), summary.incomplete) == (MISSING, "")


@pytest.mark.parametrize(
    ("trouble", "error", "message"),
    [
        ("outage", TryLater, "Check endpoint_url of connection 'storage'"),
        ("slow down", TryLater, "503. Run the task again later"),
        ("wrong secret", FixConfiguration, "Check login and password of connection 'storage'"),
        ("no right to list", FixConfiguration, "lack the right s3:ListBucket"),
        ("renamed bucket", FixConfiguration, "Check bucket_name and endpoint_url of connection 'storage'"),
    ],
)
def test_message_says_what_to_do(watched, trouble, error, message):
    with TROUBLES[trouble](watched.photos) as troubled, pytest.raises(error) as raised:
        troubled.scan()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
