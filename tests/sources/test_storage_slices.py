"""A scan that several tasks read together ends like one that a single task has read, whatever becomes of the others."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pytest

from include.api.bucket import Bucket, Way
from include.api.errors import ApiError, FixConfiguration
from include.confidence.summary import ForensicSummary
from include.simulators.storage import Fault
from include.sources.answer_census import AnswerCensus
from include.sources.slices import SETTING, WrongSlices, scan_slices
from include.sources.storage import SOURCE, images, look, slices
from include.sources.storage.check import StorageContext
from include.sources.storage.images import OBJECTS
from include.warehouse import fence, ranges
from include.warehouse.ranges import RangeLost, Ranges
from include.warehouse.staging import Stage
from tests.photos import PARAMS, RUN, Photos, client

PLAN = "SELECT to_jsonb(p) FROM staging.storage_images_scan_plan p ORDER BY id"
ASKED = PARAMS | {"concurrency": 2}


class Killed(BaseException):
    """The process of a task is gone, without a word."""


@pytest.fixture
def shared(photos: Photos, by_lists: None, monkeypatch: pytest.MonkeyPatch) -> Photos:
    """Some images without objects; a bucket of many ranges and short pages, for two tasks."""
    photos.add("queued", laid=False)
    photos.add("processing", laid=False)
    photos.control.delete([photos.add().staged])
    monkeypatch.setattr(look, "PAGE", 1)
    monkeypatch.setattr(ranges, "OTHERS_READ", timedelta(milliseconds=20))
    monkeypatch.setattr(slices, "PATIENCE", timedelta(milliseconds=300))
    monkeypatch.setattr(slices, "POLL", timedelta(milliseconds=20))
    monkeypatch.setattr(
        Bucket, "list", lambda bucket, *args, page=Bucket.list, **how: page(bucket, *args, size=8, **how)
    )
    monkeypatch.setenv(SETTING, "2")
    return photos


@pytest.fixture
def task(shared: Photos, warehouse: str, images_url: str) -> Iterator[Callable[[], StorageContext]]:
    """Opens what another task has: sessions, a client of the store and a census of its own."""
    with ExitStack() as opened:

        def task() -> StorageContext:
            conn, application = (
                opened.enter_context(psycopg.connect(url, autocommit=True)) for url in (warehouse, images_url)
            )
            bucket = Bucket(client(shared.store), shared.store.bucket, connection="storage")
            census = AnswerCensus(SOURCE.name, SOURCE.read_answers)
            return replace(shared.context, conn=conn, images=application, bucket=bucket, census=census)

        yield task


def cut_off(*_: Any, **__: Any) -> None:
    raise psycopg.OperationalError("cut off")


def killed(*_: Any, **__: Any) -> None:
    raise Killed


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stores nothing for a moment has lost its ranges."""
    monkeypatch.setattr(ranges, "LEASE", timedelta(milliseconds=200))


def scan(photos: Photos) -> ForensicSummary:
    return photos.scan(concurrency=2)


def help_(context: StorageContext, epoch: int, number: int = 1) -> int:
    return SOURCE.read_slice(context, "images", epoch, ASKED, number)


def found(photos: Photos, summary: ForensicSummary) -> tuple:
    """What a scan has found, without the figures about fields, which each slice counts for itself."""
    assert not summary.incomplete
    assert not summary.accounts["images"].wrong_sum
    metrics = {name: value for name, value in summary.metrics.items() if "fields" not in name}
    listed = summary.telemetry["objects_listed"]
    assert listed == len(photos.control.keys())
    return metrics, summary.plan, summary.accounts, listed, photos.conn.execute(PLAN).fetchall()


def cut_after(photos: Photos, lists: int) -> int:
    """Begin a scan and cut it off at that LIST; return the epoch."""
    photos.control.reset_counters()
    photos.control.fault(Fault("status", operation="list", nth=lists, times=None, status=403))
    with pytest.raises(ApiError):
        scan(photos)
    photos.control.clear()
    return photos.stop()


@pytest.fixture
def whole(shared: Photos, monkeypatch: pytest.MonkeyPatch) -> tuple:
    """What a single task finds."""
    with monkeypatch.context() as patch:
        patch.delenv(SETTING)
        alone = found(shared, scan(shared))
    # The next scan is that of another stop.
    fence.resume(shared.conn, SOURCE.name, RUN)
    return alone


class TestTogether:
    @pytest.mark.parametrize("helpers", [1, 2])
    def test_in_threads(self, shared, whole, task, monkeypatch, helpers):
        monkeypatch.setenv(SETTING, str(helpers + 1))
        monkeypatch.setattr(slices, "PATIENCE", timedelta(seconds=20))
        epoch, pages = shared.stop(), {}

        def read(number: int, context: StorageContext) -> None:
            pages[number] = help_(context, epoch, number)

        shared.control.set(latency_ms=20)
        tasks = [threading.Thread(target=read, args=(number, task())) for number in range(1, helpers + 1)]
        for each in tasks:
            each.start()
        summary = scan(shared)
        for each in tasks:
            each.join()
        assert found(shared, summary) == whole
        assert sorted(pages) == list(range(1, helpers + 1))
        assert all(pages.values())

    def test_in_sequence(self, shared, whole, task):
        """The scan was cut off at once; what the slice has read meanwhile is not read again."""
        epoch = cut_after(shared, 3)
        shared.control.reset_counters()
        assert help_(task(), epoch) > 5
        shared.control.reset_counters()
        assert found(shared, scan(shared)) == whole
        # Of the first look only what the scan itself had claimed.
        assert shared.control.counters().total("list") < 20

    def test_tell_a_new_field_once(self, shared, task):
        """Although slices that end at the same time have all seen it."""
        tasks = [task() for _ in range(3)]
        for number, each in enumerate(tasks):
            each.census.count(Way.LIST, [{"Key": "a", "Size": "1", **({"Checksum": "b"} if number else {})}])

        def keep(each: StorageContext) -> None:
            with each.conn.transaction():
                each.census.keep(each.conn, each.run, whole=each is tasks[0])

        keep(tasks[0])
        meanwhile = threading.Thread(target=keep, args=[tasks[2]])
        with tasks[1].conn.transaction():
            keep(tasks[1])
            meanwhile.start()
            meanwhile.join(0.5)
        meanwhile.join()
        told = shared.conn.execute("SELECT path FROM confidence.field_change WHERE kind = 'new'").fetchall()
        assert told == [("Checksum",)]

    def test_slice_that_never_ran(self, shared, whole, monkeypatch):
        monkeypatch.setenv(SETTING, "3")
        assert found(shared, scan(shared)) == whole


class TestCutOff:
    def test_slice_that_is_killed_at_any_page(self, shared, whole, task, monkeypatch, leases):
        """Before and after its page is stored. Nobody tries it again, as if a person had marked it."""
        store = Ranges.store
        for nth in count(1):
            epoch, stored = cut_after(shared, 3), []

            def killed_there(self, *args: Any, nth=nth, stored=stored, **how: Any) -> None:
                stored.append(args)
                if len(stored) == nth and nth % 2:
                    raise Killed
                store(self, *args, **how)
                if len(stored) == nth:
                    raise Killed

            with monkeypatch.context() as patch, suppress(Killed):
                patch.setattr(Ranges, "store", killed_there)
                help_(task(), epoch)
            if len(stored) < nth:
                break
            assert found(shared, scan(shared)) == whole
        assert nth > 10

    def test_slice_that_is_tried_again_goes_on_at_once(self, shared, whole, task, monkeypatch):
        epoch = cut_after(shared, 3)
        with monkeypatch.context() as patch:
            patch.setattr(Ranges, "store", killed)
            with pytest.raises(Killed):
                help_(task(), epoch)
        assert help_(task(), epoch) > 5
        assert found(shared, scan(shared)) == whole

    def test_slice_that_comes_back_after_its_ranges_were_taken_over(self, shared, whole, task, monkeypatch):
        epoch, late = cut_after(shared, 3), task()
        stage = Stage.join(late.conn, OBJECTS, SOURCE.name, "scan", f"{late.run}/images/{epoch}/all")
        reading = look.list_claimed(late.bucket, Ranges(stage, 1), 2)
        next(reading)
        with monkeypatch.context() as patch:
            patch.setattr(ranges, "LEASE", timedelta(0))
            summary = scan(shared)
        assert found(shared, summary) == whole
        with pytest.raises(RangeLost):
            list(reading)

    def test_scan_that_is_killed_while_a_slice_reads_on(self, shared, whole, task):
        epoch = cut_after(shared, 6)
        help_(task(), epoch)
        help_(task(), epoch, 2)
        assert found(shared, scan(shared)) == whole

    def test_slice_whose_store_fails(self, shared, whole, task):
        epoch = cut_after(shared, 3)
        shared.control.fault(Fault("status", operation="list", nth=5, status=403))
        shared.control.reset_counters()
        with pytest.raises(FixConfiguration):
            help_(task(), epoch)
        assert help_(task(), epoch) > 0
        assert found(shared, scan(shared)) == whole


class TestImages:
    """They are read together too, once the bucket is listed."""

    def test_slice_that_is_killed_at_any_batch(self, shared, whole, task, monkeypatch, leases):
        read = images.read
        for nth in count(1):
            with monkeypatch.context() as patch, suppress(psycopg.OperationalError):
                patch.setattr(images, "read", cut_off)
                scan(shared)
            epoch, read_so_far = shared.stop(), []

            def killed_there(*args: Any, nth=nth, read_so_far=read_so_far, **how: Any) -> Iterator:
                for batch in read(*args, **how):
                    read_so_far.append(batch)
                    if len(read_so_far) == nth:
                        raise Killed
                    yield batch

            with monkeypatch.context() as patch, suppress(Killed):
                patch.setattr(images, "read", killed_there)
                help_(task(), epoch)
            assert found(shared, scan(shared)) == whole
            fence.resume(shared.conn, SOURCE.name, RUN)
            if len(read_so_far) < nth:
                break
        assert nth > 5

    @pytest.mark.parametrize("narrowed", [{"limit": 50}, {"cursor": "80000000-0000-0000-0000-000000000000"}])
    def test_that_a_run_narrows_are_the_same_by_two(self, shared, monkeypatch, narrowed):
        def figures() -> tuple:
            summary = shared.scan(concurrency=2, **narrowed)
            return summary.accounts, summary.plan, summary.telemetry["next_cursor"]

        by_two = figures()
        monkeypatch.delenv(SETTING)
        assert figures() == by_two


class TestNothingToHelp:
    def test_once_the_scan_is_over(self, shared, task):
        scan(shared)
        assert help_(task(), shared.stop()) == 0

    def test_if_single_objects_are_asked_for(self, shared, task, monkeypatch):
        monkeypatch.setattr(look, "LIST_COST", 1_000_000)
        shared.control.fault(Fault("status", operation="head", nth=2, status=500))
        scan(shared)
        assert help_(task(), shared.stop()) == 0

    def test_if_the_scan_never_begins(self, shared, task, monkeypatch):
        monkeypatch.setattr(slices, "PATIENCE", timedelta(milliseconds=100))
        began = time.monotonic()
        assert help_(task(), shared.stop()) == 0
        assert time.monotonic() - began < 5

    def test_of_an_earlier_stop(self, shared, task, monkeypatch):
        epoch = cut_after(shared, 3)
        monkeypatch.setattr(slices, "PATIENCE", timedelta(milliseconds=100))
        assert help_(task(), epoch + 1) == 0

    def test_if_the_store_can_begin_at_its_first_key_only(self, shared, task):
        shared.control.fault(Fault("ignore_start_after", times=None))
        summary = scan(shared)
        assert not summary.incomplete
        assert summary.telemetry["objects_listed"] == len(shared.control.keys())


class TestSetting:
    def test_is_one_by_default(self, monkeypatch):
        monkeypatch.delenv(SETTING, raising=False)
        assert scan_slices() == 1

    @pytest.mark.parametrize("given", ["0", "-1", "17", "two", "1.5"])
    def test_that_is_no_number_of_slices_is_refused(self, monkeypatch, given):
        monkeypatch.setenv(SETTING, given)
        with pytest.raises(WrongSlices, match=rf"^{SETTING}='{given}' .*from 1 to 16"):
            scan_slices()
