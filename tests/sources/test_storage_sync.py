"""The hourly check of the images that changed, which writes unattended."""

from datetime import timedelta

import pytest

from include.sources.base import SyncFailed
from include.sources.storage import SOURCE, images, look
from include.sources.storage.images import GRACE, ORIGINAL_MISSING
from include.warehouse import fence, sync_log
from include.warehouse.sync_log import Counts
from tests.gallery import RUN, Gallery

MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock(gallery: Gallery, monkeypatch: pytest.MonkeyPatch):
    """Sets the application's time as checks see it, to so many minutes from now."""
    now = images.clock(gallery.images)

    def at(minutes: int):
        monkeypatch.setattr(images, "clock", lambda _: now + minutes * MINUTE)
        return now + minutes * MINUTE

    at(0)
    return at


def watermark(gallery, partition=""):
    return sync_log.state(gallery.conn, SOURCE.name, "images", partition).watermark


def test_first_sync_checks_all_and_the_next_what_changed(gallery, clock):
    lost = gallery.add("queued", laid=False)
    before = gallery.table()
    done = gallery.sync()
    assert done.counts["images"] == Counts(read=118, updated=1)
    assert {id_: row["error"] for id_, row in gallery.changed(before).items()} == {lost.id: ORIGINAL_MISSING}
    assert watermark(gallery) == clock(0) - GRACE
    log = gallery.conn.execute(
        "SELECT state, rows_read, rows_updated, requests, request_errors FROM confidence.sync_log WHERE sync_id = %s",
        [done.sync_id],
    ).fetchone()
    assert log == ("success", 118, 1, gallery.context.bucket.requests, 0)

    # What we have marked ourselves changed, too.
    assert gallery.sync().counts["images"] == Counts(read=1)
    image = gallery.add("queued", laid=False, age=30 * MINUTE)
    gallery.add("queued", laid=False, age=2 * 60 * MINUTE)
    assert gallery.sync().counts["images"] == Counts(read=2, updated=1)
    assert gallery.table()[image.id]["status"] == "error"
    full = gallery.sync(mode="full")
    assert full.counts["images"] == Counts(read=120, updated=1)
    assert full.result["checked"] == 120
    assert full.result["orphan_objects"] == 0


def test_young_images_come_with_the_next_sync(gallery, clock):
    gallery.sync()
    image = gallery.add("queued", laid=False, age=5 * MINUTE)
    assert gallery.sync().counts["images"].updated == 0
    clock(11)
    assert gallery.sync().counts["images"].updated == 1
    assert gallery.table()[image.id]["status"] == "error"


def test_overlap_reaches_behind_the_watermark(gallery, clock):
    gallery.sync()
    mark = watermark(gallery)
    at_border = gallery.add("queued", laid=False, updated_at=mark - SOURCE.overlap)
    behind = gallery.add("queued", laid=False, updated_at=mark - SOURCE.overlap + timedelta(microseconds=1))
    gallery.sync()
    rows = gallery.table()
    assert (rows[at_border.id]["status"], rows[behind.id]["status"]) == ("queued", "error")


def test_dry_sync_hides_nothing_from_the_one_that_writes(gallery, clock):
    lost = gallery.add("queued", laid=False)
    before = gallery.table()
    dry = gallery.sync(dry_run=True)
    assert (dry.result["missing_original"], dry.result["updated"], dry.result["dry_run"]) == (1, 0, True)
    assert (gallery.table(), gallery.audited()) == (before, 0)
    assert watermark(gallery) is None
    assert watermark(gallery, "dry run") == clock(0) - GRACE
    # The next dry one looks at what changed since, the writing one at all.
    assert gallery.sync(dry_run=True).result["checked"] == 0
    done = gallery.sync()
    assert (done.result["checked"], done.result["updated"]) == (118, 1)
    assert gallery.table()[lost.id]["status"] == "error"


def test_many_missing_are_left_to_the_gate(gallery, clock):
    """Above 5 % of the checked images and above 5 of them."""
    gallery.sync()
    mark = watermark(gallery)
    for _ in range(6):
        gallery.add("queued", laid=False, age=30 * MINUTE)
    before = gallery.table()
    message = r"missing_original is 6 of 6 looked_at, above its limit 5: .*Nothing was written, .*storage_reconcile"
    for dry_run in (True, False):
        with pytest.raises(SyncFailed, match=message):
            gallery.sync(dry_run=dry_run)
    # Of all images they are less, but once refused it stays so.
    with pytest.raises(SyncFailed, match=message):
        gallery.sync(mode="full")
    assert (gallery.table(), gallery.audited(), watermark(gallery)) == (before, 0, mark)


def test_five_missing_are_written_whatever_their_share(gallery, clock):
    gallery.sync()
    for _ in range(5):
        gallery.add("queued", laid=False, age=30 * MINUTE)
    assert gallery.sync().counts["images"] == Counts(read=5, updated=5)


def test_stopped_writer_is_refused_before_anything_is_read(gallery):
    gallery.stop()
    with pytest.raises(fence.FenceError, match="catches up after the resume"):
        gallery.sync()
    assert gallery.control.counters().total() == 0


@pytest.mark.parametrize("resumed", [True, False])
def test_writer_that_was_stopped_meanwhile_writes_nothing(gallery, monkeypatch, resumed):
    gallery.add("queued", laid=False)
    before, look_again = gallery.table(), look.look_again

    def stopped_meanwhile(*args, **kwargs):
        look_again(*args, **kwargs)
        fence.stop(gallery.conn, SOURCE.name, RUN, timeout=1)
        if resumed:
            fence.resume(gallery.conn, SOURCE.name, RUN)

    monkeypatch.setattr(look, "look_again", stopped_meanwhile)
    with pytest.raises(fence.FenceError, match="nothing was written"):
        gallery.sync()
    assert (gallery.table(), gallery.audited(), watermark(gallery)) == (before, 0, None)


def test_reset_skips_what_changed_while_the_writer_stood(gallery, clock):
    gallery.sync()
    gallery.stop()
    image = gallery.add("queued", laid=False, age=30 * MINUTE)
    SOURCE.reset_watermarks(gallery.context)
    fence.resume(gallery.conn, SOURCE.name, gallery.context.run)
    clock(61)
    gallery.sync()
    assert gallery.table()[image.id]["status"] == "queued"


def test_reset_moves_the_watermarks_that_are_there_to_the_present(gallery, clock):
    gallery.sync()
    gallery.stop()
    SOURCE.reset_watermarks(gallery.context)
    assert (watermark(gallery), watermark(gallery, "dry run")) == (clock(0), None)
