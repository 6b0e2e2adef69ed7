"""The hourly check of the images that changed, which writes unattended."""

from datetime import timedelta

import pytest

from include.sources.base import SyncFailed
from include.sources.storage import SOURCE, images, look
from include.sources.storage.images import GRACE, ORIGINAL_MISSING
from include.warehouse import fence, sync_log
from include.warehouse.sync_log import Counts
from tests.photos import RUN, Photos

MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock(photos: Photos, monkeypatch: pytest.MonkeyPatch):
    """Sets the application's time as checks see it, to so many minutes from now."""
    now = images.clock(photos.images)

    def at(minutes: int):
        monkeypatch.setattr(images, "clock", lambda _: now + minutes * MINUTE)
        return now + minutes * MINUTE

    at(0)
    return at


def watermark(photos, partition=""):
    return sync_log.state(photos.conn, SOURCE.name, "images", partition).watermark


def test_first_sync_checks_all_and_the_next_what_changed(photos, clock):
    lost = photos.add("queued", laid=False)
    before = photos.table()
    done = photos.sync()
    assert done.counts["images"] == Counts(read=118, updated=1)
    assert {id_: row["error"] for id_, row in photos.changed(before).items()} == {lost.id: ORIGINAL_MISSING}
    assert watermark(photos) == clock(0) - GRACE
    log = photos.conn.execute(
        "SELECT state, rows_read, rows_updated, requests, request_errors FROM confidence.sync_log WHERE sync_id = %s",
        [done.sync_id],
    ).fetchone()
    assert log == ("success", 118, 1, photos.context.bucket.requests, 0)

    # What we have marked ourselves changed, too.
    assert photos.sync().counts["images"] == Counts(read=1)
    image = photos.add("queued", laid=False, age=30 * MINUTE)
    photos.add("queued", laid=False, age=2 * 60 * MINUTE)
    assert photos.sync().counts["images"] == Counts(read=2, updated=1)
    assert photos.table()[image.id]["status"] == "error"
    full = photos.sync(mode="full")
    assert full.counts["images"] == Counts(read=120, updated=1)
    assert full.result["checked"] == 120
    assert full.result["orphan_objects"] == 0


def test_young_images_come_with_the_next_sync(photos, clock):
    photos.sync()
    image = photos.add("queued", laid=False, age=5 * MINUTE)
    assert photos.sync().counts["images"].updated == 0
    clock(11)
    assert photos.sync().counts["images"].updated == 1
    assert photos.table()[image.id]["status"] == "error"


def test_overlap_reaches_behind_the_watermark(photos, clock):
    photos.sync()
    mark = watermark(photos)
    at_border = photos.add("queued", laid=False, updated_at=mark - SOURCE.lookback)
    behind = photos.add("queued", laid=False, updated_at=mark - SOURCE.lookback + timedelta(microseconds=1))
    photos.sync()
    rows = photos.table()
    assert (rows[at_border.id]["status"], rows[behind.id]["status"]) == ("queued", "error")


def test_dry_sync_hides_nothing_from_the_one_that_writes(photos, clock):
    lost = photos.add("queued", laid=False)
    before = photos.table()
    dry = photos.sync(dry_run=True)
    assert (dry.result["missing_original"], dry.result["updated"], dry.result["dry_run"]) == (1, 0, True)
    assert (photos.table(), photos.audited()) == (before, 0)
    assert watermark(photos) is None
    assert watermark(photos, "dry run") == clock(0) - GRACE
    # The next dry one looks at what changed since, the writing one at all.
    assert photos.sync(dry_run=True).result["checked"] == 0
    done = photos.sync()
    assert (done.result["checked"], done.result["updated"]) == (118, 1)
    assert photos.table()[lost.id]["status"] == "error"


def test_many_missing_are_left_to_the_gate(photos, clock):
    """Above 5 % of the checked images and above 5 of them."""
    photos.sync()
    mark = watermark(photos)
    for _ in range(6):
        photos.add("queued", laid=False, age=30 * MINUTE)
    before = photos.table()
    message = r"missing_original is 6 of 6 looked_at, above its limit 5: .*Nothing was written, .*storage_reconcile"
    for dry_run in (True, False):
        with pytest.raises(SyncFailed, match=message):
            photos.sync(dry_run=dry_run)
    # Of all images they are less, but once refused it stays so.
    with pytest.raises(SyncFailed, match=message):
        photos.sync(mode="full")
    assert (photos.table(), photos.audited(), watermark(photos)) == (before, 0, mark)


def test_five_missing_are_written_whatever_their_share(photos, clock):
    photos.sync()
    for _ in range(5):
        photos.add("queued", laid=False, age=30 * MINUTE)
    assert photos.sync().counts["images"] == Counts(read=5, updated=5)


def test_stopped_writer_is_refused_before_anything_is_read(photos):
    photos.stop()
    with pytest.raises(fence.FenceError, match="catches up after the resume"):
        photos.sync()
    assert photos.control.counters().total() == 0


@pytest.mark.parametrize("resumed", [True, False])
def test_writer_that_was_stopped_meanwhile_writes_nothing(photos, monkeypatch, resumed):
    photos.add("queued", laid=False)
    before, look_again = photos.table(), look.look_again

    def stopped_meanwhile(*args, **kwargs):
        look_again(*args, **kwargs)
        fence.stop(photos.conn, SOURCE.name, RUN, timeout=1)
        if resumed:
            fence.resume(photos.conn, SOURCE.name, RUN)

    monkeypatch.setattr(look, "look_again", stopped_meanwhile)
    with pytest.raises(fence.FenceError, match="nothing was written"):
        photos.sync()
    assert (photos.table(), photos.audited(), watermark(photos)) == (before, 0, None)


def test_reset_skips_what_changed_while_the_writer_stood(photos, clock):
    photos.sync()
    photos.stop()
    image = photos.add("queued", laid=False, age=30 * MINUTE)
    SOURCE.reset_watermarks(photos.context)
    fence.resume(photos.conn, SOURCE.name, photos.context.run)
    clock(61)
    photos.sync()
    assert photos.table()[image.id]["status"] == "queued"


def test_reset_moves_the_watermarks_that_are_there_to_the_present(photos, clock):
    photos.sync()
    photos.stop()
    SOURCE.reset_watermarks(photos.context)
    assert (watermark(photos), watermark(photos, "dry run")) == (clock(0), None)
