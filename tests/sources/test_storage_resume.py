"""A check that is cut off anywhere goes on there and ends like a whole one."""

from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import count

import psycopg
import pytest

from include.api.errors import ApiError
from include.simulators.storage import Fault
from include.sources.storage import SOURCE, images, look
from include.warehouse import fence
from tests.photos import RUN, Photos

PLAN = "SELECT to_jsonb(p) FROM staging.storage_images_scan_plan p ORDER BY id"


@pytest.fixture
def small(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> Photos:
    """Few images, some without objects; a bucket of many ranges and short pages, most of it orphans."""
    photos.images.execute("DELETE FROM images WHERE id NOT IN (SELECT id FROM images ORDER BY id LIMIT 4)")
    photos.add("queued", laid=False)
    photos.add("processing", laid=False)
    photos.add("queued", laid=False, original_url="http://store.example/images/t/gone%20one.jpg")
    photos.control.delete([photos.add().staged])
    monkeypatch.setattr(look, "PAGE", 1)
    bucket = photos.context.bucket
    monkeypatch.setattr(bucket, "list", partial(bucket.list, size=30))
    return photos


def found(photos, summary):
    assert not summary.incomplete
    return summary.metrics, summary.plan, summary.examples, photos.conn.execute(PLAN).fetchall()


@pytest.mark.drill("killed-scan")
def test_cut_off_at_any_request(small, either_way):
    """Every proof, page of every range, and HEAD, the first time and the second."""
    whole = found(small, small.scan(batch_size=4))
    assert whole[0]["missing_original"] == 3
    for nth in count(1):
        small.control.reset_counters()
        small.control.fault(Fault("status", nth=nth, status=500))
        try:
            cut_off = bool(small.scan(batch_size=4).incomplete)
        except ApiError:
            cut_off = True
        if not small.control.counters().faults:
            break
        assert cut_off
        assert found(small, small.scan(batch_size=4)) == whole
    assert nth > 10


def test_cut_off_at_any_batch_of_images(small, either_way, monkeypatch):
    whole, read = found(small, small.scan(batch_size=3)), images.read
    for cut in range(4):
        batches = []

        def cut_off(*args, cut=cut, batches=batches, **kwargs):
            for batch in read(*args, **kwargs):
                if len(batches) == cut:
                    raise psycopg.OperationalError("cut off")
                batches.append(batch)
                yield batch

        with monkeypatch.context() as patch:
            patch.setattr(images, "read", cut_off)
            if cut < 3:
                with pytest.raises(psycopg.OperationalError, match="cut off"):
                    small.scan(batch_size=3)
        assert found(small, small.scan(batch_size=3)) == whole
    assert len(small.table()) == 8


def test_progress_of_all_attempts_is_kept_with_the_run(small, either_way, monkeypatch):
    monkeypatch.setattr(look, "PROGRESS_EVERY", 1)
    operation, figure = ("list", "objects_listed") if either_way == "by_lists" else ("head", "objects_asked_for")
    small.control.fault(Fault("status", operation=operation, nth=6, status=403))
    with suppress(ApiError):
        small.scan(batch_size=4)
    summary = small.scan(batch_size=4)
    query = "SELECT progress FROM confidence.forensic_run WHERE scan_id = %s"
    (lines,) = small.conn.execute(query, [summary.scan_id]).fetchone()
    assert {line["event"] for line in lines} == {"scan_progress"}
    assert [line["pages"] for line in lines] == [*range(1, len(lines) + 1)]
    assert lines[-1][figure] >= summary.metrics["checked"]


@pytest.mark.usefixtures("by_lists")
def test_pages_are_not_listed_twice(small):
    small.scan()
    small.control.reset_counters()
    small.scan()
    pages = small.control.counters().total("list")
    small.control.reset_counters()
    small.control.fault(Fault("status", operation="list", nth=6, status=403))
    with pytest.raises(ApiError):
        small.scan()
    small.scan()
    # The proof is asked for anew, and pages that were fetched ahead of the one that failed.
    assert small.control.counters().total("list") <= pages + 2 + small.control.counters().max_concurrent


def test_what_came_since_an_attempt_of_long_ago_is_young(small, by_lists):
    """A client may still be uploading its object."""
    small.control.fault(Fault("status", nth=3, status=500))
    with suppress(ApiError):
        assert small.scan().incomplete
    small.conn.execute(
        "UPDATE staging.pull SET progress = progress || jsonb_build_object("
        "'started', (progress ->> 'started')::timestamptz - interval '1 hour') WHERE progress ? 'started'"
    )
    small.add("queued", laid=False, age=timedelta(minutes=2))
    metrics = small.scan().metrics
    assert (metrics["rows_young"], metrics["missing_original"]) == (1, 3)


def test_later_run_starts_anew(small):
    """What an earlier run was cut off at is no evidence for it."""
    before = small.scan().metrics["missing_original"]
    small.control.fault(Fault("status", operation="head", status=500))
    assert small.scan().incomplete
    small.add("queued", laid=False)
    assert small.scan().metrics["missing_original"] == before
    small.control.fault(Fault("status", operation="head", status=500))
    assert small.scan().incomplete
    fence.resume(small.conn, SOURCE.name, RUN)
    assert small.scan().metrics["missing_original"] == before + 1
