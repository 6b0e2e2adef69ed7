"""Repair, its guards, and the way back: what is written, exactly, and what never."""

import threading
import time
from datetime import timedelta

import psycopg
import pytest

from include.api.errors import TryLater
from include.confidence.summary import ForensicSummary
from include.simulators.storage import Fault, application
from include.sources.storage import SOURCE, images, repair
from include.sources.storage.images import ORIGINAL_MISSING, STAGED_MISSING
from include.sources.storage.undo import ImagesCopy
from include.warehouse import fence
from include.warehouse.rollback import RollbackRefused, roll_back
from include.warehouse.sync_log import Counts
from tests.photos import RUN, Photos


@pytest.fixture
def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """For checks nothing is young that has just been written."""
    monkeypatch.setattr(
        images, "clock", lambda conn: conn.execute("SELECT clock_timestamp()").fetchone()[0] + timedelta(hours=1)
    )


def undo(photos: Photos, sync_id: int, **options: bool):
    """Roll back as the DAG does, behind a running writer."""
    fence.resume(photos.conn, SOURCE.name, RUN)
    copy = ImagesCopy(photos.conn, photos.images)
    options = {"dry_run": False} | options
    return roll_back(photos.conn, copy, sync_id, run="warehouse_rollback/test", reason="test", **options)


def three_lost(photos: Photos):
    """A queued image, one that lacks both objects, one that lacks the staged one."""
    lost = [photos.add("queued", laid=False), photos.add(laid=False), photos.add()]
    photos.control.delete([lost[2].staged])
    return lost


# -- the guard


def test_images_that_changed_after_the_scan_are_superseded(photos):
    queued, deleted, touched, failed, left = [photos.add("queued", laid=False) for _ in range(5)]
    summary = photos.scan()
    assert summary.plan.update == 5
    assert application.finish(photos.images, queued.id, bucket="images")
    assert application.soft_delete(photos.images, deleted.id)
    assert application.fail(photos.images, failed.id, "model timed out")
    photos.touch(touched.id, prompt="brighter")
    before = photos.table()
    _, counts = photos.repair(summary)
    assert counts["images"] == Counts(updated=1, superseded=4)
    assert photos.changed(before).keys() == {left.id}
    assert photos.audited() == 1


@pytest.mark.parametrize("change", [{"status": "processing"}, {"error": "x"}, {"updated_at": "2025-03-03Z"}])
def test_each_column_is_guarded(photos, change):
    """Even where the application forgets to set updated_at."""
    image = photos.add("queued", laid=False)
    summary = photos.scan()
    photos.touch(image.id, **{"updated_at": photos.table()[image.id]["updated_at"]} | change)
    before = photos.table()
    assert photos.repair(summary)[1]["images"] == Counts(superseded=1)
    assert photos.table() == before


def test_object_uploaded_after_the_scan_is_not_missed(photos):
    late, gone = photos.add("queued", laid=False), photos.add("queued", laid=False)
    half = photos.add(laid=False)
    summary = photos.scan()
    photos.control.put([late.original, half.original])
    before = photos.table()
    _, counts = photos.repair(summary)
    assert counts["images"].updated == 2
    changed = {id_: columns["error"] for id_, columns in photos.changed(before).items()}
    assert changed == {gone.id: ORIGINAL_MISSING, half.id: STAGED_MISSING}


def test_repair_waits_for_a_worker_at_the_row_and_leaves_it_alone(photos, images_url):
    image, other = photos.add("queued", laid=False), photos.add("queued", laid=False)
    summary = photos.scan()
    results = []
    repairing = threading.Thread(target=lambda: results.append(photos.repair(summary)[1]["images"]))
    waiting = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())"
    )
    with psycopg.connect(images_url) as worker:
        assert application.finish(worker, image.id, bucket="images")
        repairing.start()
        deadline = time.monotonic() + 10
        while not worker.execute(waiting).fetchone()[0]:
            assert time.monotonic() < deadline, "the repair does not wait"
            time.sleep(0.01)
    repairing.join()
    assert results == [Counts(updated=1, superseded=1)]
    rows = photos.table()
    assert (rows[image.id]["status"], rows[image.id]["error"]) == ("ready", None)
    assert rows[other.id]["status"] == "error"


@pytest.mark.drill("locked-table")
def test_repair_waits_for_a_locked_row_no_longer_than_it_may(photos, images_url, monkeypatch):
    monkeypatch.setattr(repair, "LOCK_TIMEOUT", "50ms")
    image = photos.add(laid=False)
    summary, before = photos.scan(), photos.table()
    with psycopg.connect(images_url) as other:
        other.execute("SELECT FROM images WHERE id = %s FOR UPDATE", [image.id])
        with pytest.raises(TryLater, match="locked for 50ms, nothing was written"):
            photos.repair(summary)
    assert (photos.table(), photos.audited()) == (before, 0)
    _, counts = photos.repair(summary)
    assert counts["images"] == Counts(updated=1)


def test_repair_needs_the_stopped_writer_of_its_run(photos):
    photos.add("queued", laid=False)
    summary = photos.scan()
    before = photos.table()
    fence.resume(photos.conn, SOURCE.name, RUN)
    with pytest.raises(fence.FenceError, match="clear stop_writer"):
        photos.repair(summary)
    fence.stop(photos.conn, SOURCE.name, "storage_reconcile/another", timeout=1)
    with pytest.raises(fence.FenceError, match="clear stop_writer"):
        photos.repair(summary)
    assert (photos.table(), photos.audited()) == (before, 0)


# -- apply, roll back, apply again


def test_scan_and_dry_syncs_change_nothing(photos):
    three_lost(photos)
    before = photos.table()
    photos.sync(dry_run=True)
    photos.scan()
    photos.scan(heal=True)
    assert (photos.table(), photos.audited()) == (before, 0)


def test_apply_rollback_apply_again_give_exact_states(photos):
    lost = three_lost(photos)
    before = photos.table()
    summary = photos.scan()
    sync_id, counts = photos.repair(summary)
    assert counts["images"] == Counts(updated=3)
    marked = photos.table()
    assert {(id_, *sorted(columns)) for id_, columns in photos.changed(before).items()} == {
        (image.id, "error", "status", "updated_at") for image in lost
    }
    assert not [check for check in SOURCE.verify(photos.context, [summary], sync_id) if check.worse or check.after]

    _, again = photos.repair(summary)
    assert again["images"] == Counts(superseded=3)
    assert (photos.table(), photos.audited()) == (marked, 3)

    dry = undo(photos, sync_id, dry_run=True)
    assert (dry.sync_id, dry.tables, dry.conflicts) == (None, {"images": Counts(updated=3)}, ())
    assert (photos.table(), photos.audited()) == (marked, 3)

    undone = undo(photos, sync_id)
    assert undone.tables == {"images": Counts(updated=3)}
    assert (photos.table(), photos.audited()) == (before, 6)

    undone_again = undo(photos, undone.sync_id)
    assert undone_again.tables == {"images": Counts(updated=3)}
    assert photos.table() == marked
    undo(photos, undone_again.sync_id)
    assert photos.table() == before

    summary = photos.scan()
    assert photos.repair(summary)[1]["images"] == Counts(updated=3)
    without_time = [{**columns, "updated_at": None} for columns in photos.table().values()]
    assert without_time == [{**columns, "updated_at": None} for columns in marked.values()]


def test_dry_rollback_holds_nobody_and_waits_for_nobody(photos, images_url, warehouse):
    """A sync is writing, and the application's worker is at the images."""
    lost = three_lost(photos)
    sync_id, _ = photos.repair(photos.scan())
    epoch = fence.resume(photos.conn, SOURCE.name, RUN).epoch
    copy = ImagesCopy(photos.conn, photos.images)
    seen = []

    class Watching(ImagesCopy):
        def restore(self, *args, **kwargs):
            restored = super().restore(*args, **kwargs)
            with psycopg.connect(images_url) as worker, psycopg.connect(warehouse, autocommit=True) as conn:
                worker.execute("SET lock_timeout = '1s'")
                seen.append(worker.execute("UPDATE images SET prompt = 'x' WHERE id = %s", [lost[0].id]).rowcount)
                worker.rollback()
                with fence.writing(conn, SOURCE.name, epoch=epoch):
                    seen.append("written")
            return restored

    with psycopg.connect(images_url) as other, psycopg.connect(warehouse, autocommit=True) as conn:
        other.execute("SELECT FROM images WHERE id = %s FOR UPDATE", [lost[0].id])
        with fence.writing(conn, SOURCE.name, epoch=epoch):
            dry = roll_back(photos.conn, copy, sync_id, run="x/1", reason="test", dry_run=True, timeout=1)
    assert dry.tables == {"images": Counts(updated=3)}
    watching = Watching(photos.conn, photos.images)
    roll_back(photos.conn, watching, sync_id, run="x/1", reason="test", dry_run=True, timeout=1)
    assert seen == [1, "written"]
    assert fence.read(photos.conn, SOURCE.name).epoch == epoch


def test_rollback_refuses_what_changes_between_its_look_and_its_write(photos, images_url):
    lost = three_lost(photos)
    sync_id, _ = photos.repair(photos.scan())
    fence.resume(photos.conn, SOURCE.name, RUN)

    class Meanwhile(ImagesCopy):
        def conflicts(self, sync_id):
            found = super().conflicts(sync_id)
            with psycopg.connect(images_url, autocommit=True) as worker:
                worker.execute("UPDATE images SET status = 'queued', error = NULL WHERE id = %s", [lost[0].id])
            return found

    copy = Meanwhile(photos.conn, photos.images)
    with pytest.raises(RollbackRefused, match=rf"1 of images \(such as {lost[0].id}\) were changed at this moment"):
        roll_back(photos.conn, copy, sync_id, run="x/1", reason="test", dry_run=False)
    assert photos.table()[lost[1].id]["status"] == "error"


def test_rollback_refuses_where_the_application_went_on(photos):
    lost = three_lost(photos)
    before = photos.table()
    sync_id, _ = photos.repair(photos.scan())
    photos.touch(lost[0].id, status="queued", error=None, prompt="once more")
    touched = photos.table()
    with pytest.raises(RollbackRefused, match=rf"1 of images by the application \(such as {lost[0].id}\)"):
        undo(photos, sync_id)
    assert (photos.table(), photos.audited()) == (touched, 3)
    undone = undo(photos, sync_id, force=True)
    assert undone.tables == {"images": Counts(updated=3)}
    # What we never wrote is not ours to put back.
    assert photos.changed(before) == {lost[0].id: {"prompt": "once more"}}
    undo(photos, undone.sync_id)
    assert photos.table() == touched


def test_rollback_names_the_later_sync(photos, an_hour_later):
    lost = three_lost(photos)
    sync_id, _ = photos.repair(photos.scan())
    photos.control.put(lost[0].keys)
    healing, counts = photos.repair(photos.scan(heal=True), heal=True)
    assert counts["healed"].updated == 1
    with pytest.raises(RollbackRefused, match=rf"1 of images by sync_id {healing} \(such as {lost[0].id}\)"):
        undo(photos, sync_id)


def test_rollback_leaves_an_image_that_is_gone(photos):
    lost = three_lost(photos)
    sync_id, _ = photos.repair(photos.scan())
    photos.images.execute("DELETE FROM images WHERE id = %s", [lost[1].id])
    with pytest.raises(RollbackRefused, match=lost[1].id):
        undo(photos, sync_id)
    assert undo(photos, sync_id, force=True).tables == {"images": Counts(updated=2)}
    assert lost[1].id not in photos.table()


# -- heal


@pytest.mark.usefixtures("an_hour_later")
def test_marked_images_are_healed_when_their_objects_are_back(photos, either_way):
    lost = three_lost(photos)
    still = photos.add(laid=False)
    before = photos.table()
    photos.repair(photos.scan())
    marked = photos.table()
    for image in lost:
        photos.control.put(image.keys)
    # Only one of its two objects.
    photos.control.put([still.original])

    told = photos.scan()
    assert (told.metrics["healable"], told.plan.update) == (3, 0)
    assert photos.repair(told)[1]["healed"] == Counts()
    assert photos.table() == marked

    summary = photos.scan(heal=True)
    assert (summary.metrics["healable"], summary.plan.update) == (3, 3)
    sync_id, counts = photos.repair(summary, heal=True)
    assert (counts["healed"], counts["images"]) == (Counts(updated=3), Counts())
    assert SOURCE.result([summary], counts, dry_run=False)["healed"] == 3
    changed = photos.changed(before)
    assert {id_: columns.keys() for id_, columns in changed.items() if id_ != still.id} == {
        image.id: {"updated_at"} for image in lost
    }
    assert photos.table()[still.id] == marked[still.id]

    undo(photos, sync_id)
    assert photos.table() == marked


@pytest.mark.usefixtures("an_hour_later")
def test_what_others_marked_is_not_healed(photos, either_way):
    foreign = photos.add("error", error=ORIGINAL_MISSING)
    ours = photos.add("queued", laid=False)
    replaced, taken_back, retried = (photos.add("queued", laid=False) for _ in range(3))
    sync_id, _ = photos.repair(photos.scan())
    for image in (ours, replaced, taken_back, retried):
        photos.control.put(image.keys)
    photos.touch(replaced.id, error="model timed out")
    photos.touch(taken_back.id, status="ready", error=None)
    # The application went on, and somebody else's check has marked it since.
    photos.touch(retried.id, status="ready", error=None)
    photos.touch(retried.id, status="error", error=ORIGINAL_MISSING)
    before = photos.table()
    summary = photos.scan(heal=True)
    assert (summary.metrics["healable"], summary.plan.update) == (1, 1)
    photos.repair(summary, heal=True)
    assert photos.changed(before).keys() == {ours.id}
    assert foreign.id != sync_id


@pytest.mark.usefixtures("an_hour_later")
def test_mark_that_was_rolled_back_is_not_healed(photos):
    lost = three_lost(photos)
    before = photos.table()
    sync_id, _ = photos.repair(photos.scan())
    undo(photos, sync_id)
    for image in lost:
        photos.control.put(image.keys)
    summary = photos.scan(heal=True)
    assert (summary.metrics["healable"], summary.plan.update) == (0, 0)
    assert photos.table() == before


@pytest.mark.usefixtures("an_hour_later")
def test_object_lost_again_before_the_repair_is_not_healed(photos):
    (image, *_) = three_lost(photos)
    photos.repair(photos.scan())
    photos.control.put(image.keys)
    summary = photos.scan(heal=True)
    assert summary.plan.update == 1
    photos.control.delete(image.keys)
    marked = photos.table()
    assert photos.repair(summary, heal=True)[1]["healed"] == Counts()
    assert photos.table() == marked


@pytest.mark.usefixtures("an_hour_later")
def test_images_that_nobody_may_look_at_do_not_block_the_others(photos):
    for _ in range(1_400):
        photos.add("queued")
    for number in range(60):
        photos.add("queued", original_url=f"s3://{photos.context.bucket.name}/a/{number}.jpg", laid=False)
        photos.control.fault(Fault("status", operation="head", key=f"a/{number}.jpg", status=403, times=None))
    lost, before = photos.add("queued", laid=False), photos.table()
    photos.repair(photos.scan())
    assert photos.changed(before).keys() == {lost.id}


# -- verify


def unlike(photos: Photos, summary: ForensicSummary, sync_id: int) -> int:
    """What verify has found of the sample."""
    checks = {check.figure: check.after for check in SOURCE.verify(photos.context, [summary], sync_id)}
    assert checks["planned_changes_open"] == 0
    return checks["repaired_rows_unlike_source"]


@pytest.mark.usefixtures("an_hour_later")
def test_verify_counts_what_is_not_as_written(photos):
    marked = photos.add("queued", laid=False)
    photos.repair(photos.scan())
    photos.control.put(marked.keys)
    left = photos.add("queued", laid=False)
    summary = photos.scan(heal=True)
    assert summary.plan.update == 2
    sync_id, _ = photos.repair(summary, heal=True)
    assert unlike(photos, summary, sync_id) == 0
    photos.control.delete(marked.keys)
    assert unlike(photos, summary, sync_id) == 1
    photos.control.put(left.keys)
    assert unlike(photos, summary, sync_id) == 2


def test_verify_that_sees_nothing_is_no_proof(photos):
    lost = [photos.add("queued", laid=False) for _ in range(3)]
    summary = photos.scan()
    sync_id, _ = photos.repair(summary)
    for image in lost[:2]:
        photos.control.fault(Fault("status", "head", key=image.original, status=403, times=None))
    assert unlike(photos, summary, sync_id) == 0
    photos.control.put(lost[2].keys)
    assert unlike(photos, summary, sync_id) == 1
    photos.control.fault(Fault("status", "head", key=lost[2].original, status=403, times=None))
    with pytest.raises(TryLater, match=rf"is applied \(sync_id {sync_id}\), and could not be verified: .*403"):
        unlike(photos, summary, sync_id)
    photos.control.clear()
    assert unlike(photos, summary, sync_id) == 1


def test_verify_looks_at_images_by_chance(photos, monkeypatch):
    """Else of a large repair only the lowest ids would be looked at."""
    monkeypatch.setattr(repair, "SAMPLE", 5)
    lost = sorted((photos.add("queued", laid=False) for _ in range(20)), key=lambda image: image.id)
    summary = photos.scan()
    sync_id, _ = photos.repair(summary)
    asked = []
    look_all = photos.context.bucket.look_all
    monkeypatch.setattr(
        photos.context.bucket, "look_all", lambda keys, workers: asked.append(keys) or look_all(keys, workers)
    )
    for _ in range(2):
        assert unlike(photos, summary, sync_id) == 0
    assert asked[0] == asked[1]
    assert len(asked[0]) == 5
    assert asked[0] != [image.original for image in lost[:5]]
