"""A green run is a proof: every image has an end, absence has two witnesses, and what is not proven is named."""

from dataclasses import replace
from datetime import timedelta

import pytest

from include.api.errors import ApiError
from include.confidence import unproven
from include.confidence.policy import Unproven, Verdict, judge
from include.simulators.storage import Fault
from include.sources.base import SyncFailed
from include.sources.storage import SOURCE, check, figures, images, look
from include.sources.storage.images import ORIGINAL_MISSING
from include.sources.storage.undo import ImagesCopy
from include.warehouse import fence, sync_log
from include.warehouse.rollback import roll_back
from tests.photos import Photos

HOUR = timedelta(hours=1)
WHY = "SELECT key ->> 0, why FROM confidence.unproven WHERE source = 'storage' AND entity = 'images'"
STORE = "http://store.example:9000"
# LIST requests that go before the first page: the bucket's proof, and the question whether it honours start-after.
BEFORE = 2


def doubts(photos: Photos) -> dict[str, str]:
    """The images that are remembered as not proven, and why."""
    return dict(photos.conn.execute(WHY).fetchall())


def figures_of(summary):
    return summary.metrics["missing_original"], summary.metrics["unproven"]


def account(summary):
    return summary.accounts["images"]


def night(photos: Photos, number: int) -> Photos:
    """The same images in a later run."""
    return replace(photos, context=replace(photos.context, run=f"storage_reconcile/night {number}"))


def audited(photos: Photos, size: int = 1000) -> Photos:
    """The same images, whose scans look at so many objects in the other way too."""
    source = replace(photos.context.source, audit=size)
    return replace(photos, context=replace(photos.context, source=source))


@pytest.fixture(params=["lists first", "heads first"])
def either_first(request: pytest.FixtureRequest) -> str:
    """Which way is the first look; the second is the other one."""
    if request.param == "heads first":
        request.getfixturevalue("by_heads")
    return request.param


def sync(photos: Photos, **options: object):
    """A sync after a scan: the writer runs again."""
    fence.resume(photos.conn, "storage", photos.context.run)
    return photos.sync(**options)


# -- every image has an end


def test_every_image_and_every_object_is_accounted_for(photos, either_first):
    """One of each kind, beside the 120 of the application: three deleted, two in error."""
    now = images.clock(photos.images)
    photos.add("queued", laid=False)
    photos.add("processing", laid=False)
    photos.add("error", error="model timed out")
    photos.add("queued", laid=False, updated_at=now)
    photos.add("queued", laid=False, original_url="https://photos.s3.amazonaws.com/a.jpg")
    photos.add("queued", laid=False, original_url="no url")
    photos.add("queued", laid=False, original_url=None)
    empty = photos.add("queued", laid=False)
    photos.control.put_empty([empty.original])
    deleted = photos.add()
    photos.touch(deleted.id, deleted_at="2025-05-05Z")
    summary = photos.scan()
    found = account(summary)
    assert not summary.incomplete
    assert found.wrong_sum == ""
    assert (found.live, found.out_of_scope, found.young, found.differing, found.unproven) == (129, 7, 1, 2, 4)
    assert found.equal == summary.metrics["looked_at"] - 2 == 115
    (there,) = photos.images.execute("SELECT count(*) FROM images").fetchone()
    assert found.live == there
    if either_first == "lists first":
        assert found.listed == found.compared == len(photos.control.keys())
    assert found.refused == found.repeats == 0


def test_part_of_the_images_is_accounted_for_as_well(photos):
    photos.add("queued", laid=False, original_url="no url")
    summary = photos.scan(status="queued")
    (queued,) = photos.images.execute(
        "SELECT count(*) FROM images WHERE status = 'queued' AND deleted_at IS NULL"
    ).fetchone()
    assert (account(summary).live, account(summary).unproven, account(summary).wrong_sum) == (queued, 1, "")


def test_image_that_no_case_covers_fails_the_scan(photos, monkeypatch):
    """The ends are counted one by one, so one that is forgotten shows."""
    photos.add("queued", laid=False)
    monkeypatch.setattr(figures, "OF_PLAN", figures.OF_PLAN.replace("('confirmed', 'left', 'healable')", "('left')"))
    summary = photos.scan()
    assert "the copy has 121 live rows" in summary.incomplete
    assert "not accounted for" in summary.incomplete


# -- what was not looked at


@pytest.mark.parametrize(
    "urls",
    [
        ["https://photos.s3.amazonaws.com/a.jpg"],
        ["no url at all", None, "", "http://store.example/images/"],
    ],
    ids=["another bucket", "no url, or none that can be read"],
)
def test_images_that_nobody_could_look_at_are_no_evidence(photos, urls):
    """The application as it is after its bucket was renamed, or its urls were lost."""
    for number in range(40):
        photos.add("queued", laid=False, original_url=urls[number % len(urls)])
    before = photos.table()
    summary = photos.scan()
    assert account(summary).unproven == 40
    assert "40 of 155 rows could not be proven, too many" in summary.incomplete
    with pytest.raises(SyncFailed, match=r"40 of \d+ images could not be proven .*Nothing was written"):
        sync(photos)
    assert photos.table() == before


def test_bucket_of_another_name_is_no_evidence(photos):
    """Every url names it, none was looked at."""
    photos.control.rename_bucket("photos")
    elsewhere = photos.elsewhere(replace(photos.store, bucket="photos"))
    summary = elsewhere.scan()
    assert summary.metrics["foreign_bucket"] > 50
    assert "could not be proven, too many" in summary.incomplete
    with pytest.raises(SyncFailed, match="foreign_bucket"):
        sync(elsewhere)


def test_few_images_that_nobody_could_look_at_are_named(photos, either_first):
    image = photos.add("queued", laid=False, original_url="https://photos.s3.amazonaws.com/a.jpg")
    other = photos.add("queued", laid=False, original_url=None)
    half = photos.add(staged_url="no url")
    lost = photos.add("queued", laid=False)
    summary = photos.scan()
    assert (summary.incomplete, summary.metrics["unproven"], summary.plan.update) == ("", 3, 1)
    assert doubts(photos) == {
        image.id: "its original url names another bucket, or may name one",
        other.id: "it names no original",
        half.id: "its staged url cannot be read",
    }
    assert set(summary.examples["unproven_examples"]) == {image.id, other.id, half.id}
    photos.repair(summary)
    assert photos.table()[lost.id]["status"] == "error"


def test_image_that_misses_one_object_and_has_another_elsewhere_is_marked(photos, either_first):
    image = photos.add(laid=False, original_url="https://photos.s3.amazonaws.com/a.jpg")
    assert photos.repair(photos.scan())[1]["images"].updated == 1
    assert photos.table()[image.id]["error"] == "staged missing in storage"


def test_shares_are_of_what_was_looked_at(photos):
    """Hundreds of images in error, 6 of some 121 others missing."""
    for _ in range(6):
        photos.add("queued", laid=False)
    photos.images.execute(
        "INSERT INTO images (id, project_id, original_url, status, error, updated_at)"
        " SELECT gen_random_uuid(), p.id, 's3://images/x', 'error', 'model timed out', '2025-01-01'"
        " FROM generate_series(1, 300), (SELECT id FROM projects LIMIT 1) p"
    )
    summary = photos.scan()
    assert (summary.metrics["looked_at"], summary.live_rows) == (121, 121)
    above = replace(summary, metrics=summary.metrics | {"looked_at": 119, "missing_original": 6})
    assert judge(above, [], SOURCE.entities[0].gates).verdict is Verdict.HOLD


@pytest.mark.parametrize("missing", [1, 5])
def test_few_rows_of_a_small_table_or_part_do_not_hold(photos, missing):
    photos.images.execute("DELETE FROM images WHERE id NOT IN (SELECT id FROM images ORDER BY id LIMIT 10)")
    for _ in range(missing):
        photos.add("queued", laid=False)
    gates = [*SOURCE.entities[0].gates, SOURCE.entities[0].repair_share]
    assert judge(photos.scan(), [], gates).verdict is Verdict.PASS
    photos.add(laid=True)
    photos.images.execute("UPDATE images SET project_id = (SELECT min(id::text)::uuid FROM projects)")
    assert judge(photos.scan(limit=missing + 3), [], gates).verdict is Verdict.PASS


@pytest.mark.parametrize("ahead", [HOUR / 2, 24 * HOUR])
def test_time_of_change_that_lies_ahead_proves_no_age(photos, either_first, ahead):
    """The application's clock or time zone is wrong, so the upload may be under way. The objects are looked at."""
    late = images.clock(photos.images) + ahead
    lost, there = photos.add("queued", laid=False, updated_at=late), photos.add("queued", updated_at=late)
    photos.sync()
    summary = photos.scan()
    assert (summary.metrics["rows_young"], summary.metrics["uncertain_age"], summary.metrics["unproven"]) == (0, 1, 1)
    assert summary.metrics["looked_at"] == 116
    why = "its original object is missing, but its time of change lies in the future and proves no age"
    assert doubts(photos) == {lost.id: why}
    photos.repair(summary)
    assert (photos.table()[lost.id]["status"], photos.table()[there.id]["status"]) == ("queued", "queued")
    # Once it is old enough, it is marked.
    photos.touch(lost.id, updated_at=images.clock(photos.images) - HOUR)
    summary = night(photos, 2).scan()
    assert (summary.metrics["missing_original"], summary.metrics["unproven"]) == (1, 0)


def let_a_day_pass(photos: Photos) -> None:
    """Make all scans a day older."""
    photos.conn.execute(A_DAY_OLDER)


A_DAY_OLDER = """
WITH runs AS (
  UPDATE confidence.forensic_run SET scanned_at = scanned_at - interval '1 day', summary = jsonb_set(summary,
    '{telemetry,started}', to_jsonb((summary -> 'telemetry' ->> 'started')::timestamptz - interval '1 day'))
)
UPDATE confidence.planned_change SET before = jsonb_set(before,
  '{updated_at}', to_jsonb((before ->> 'updated_at')::timestamptz - interval '1 day'))
"""


def noted(photos: Photos) -> list:
    """What the newest plan says of its images."""
    query = """SELECT status, why FROM confidence.planned_change
      WHERE evidence = (SELECT summary ->> 'evidence' FROM confidence.forensic_run ORDER BY scanned_at DESC LIMIT 1)"""
    return photos.conn.execute(query).fetchall()


@pytest.mark.usefixtures("by_lists")
@pytest.mark.parametrize("busy", [False, True], ids=["before the scan", "during the scan too"])
def test_image_that_is_always_young_is_excused_once(photos, monkeypatch, busy):
    """Something touches it again and again, and its object never comes."""
    lost, there = photos.add("queued", laid=False), photos.add("queued")
    again = look.look_again

    def touched(*given, **options):
        if busy:
            photos.touch(lost.id)
        again(*given, **options)

    monkeypatch.setattr(look, "look_again", touched)
    why = "its original object is missing, as in an earlier scan, and each time the image had changed just before"
    for number, unproven_images in enumerate([0, 1, 1]):
        photos = night(photos, number)
        photos.touch(lost.id)
        photos.touch(there.id)
        summary = photos.scan()
        assert (summary.incomplete, account(summary).wrong_sum) == ("", "")
        assert (summary.metrics["uncertain_age"], summary.metrics["unproven"]) == (unproven_images, unproven_images)
        assert summary.metrics["rows_young"] == 2 - unproven_images
        assert noted(photos) == [("unproven", why) if unproven_images else ("young", "it has changed lately")]
        assert doubts(photos) == ({lost.id: why} if unproven_images else {})
        assert summary.plan.update == 0
        let_a_day_pass(photos)
    # A scan of a part excuses it, and proves nothing.
    assert night(photos, 4).scan(limit=1000).metrics["rows_young"] == 2
    photos = night(photos, 5)
    photos.control.put(lost.keys)
    photos.touch(lost.id)
    assert (photos.scan().metrics["unproven"], doubts(photos)) == (0, {})


@pytest.mark.usefixtures("by_lists")
def test_image_that_is_young_for_another_reason_is_excused(photos):
    """Another one each night, and one that is deleted before the second."""
    for number in range(3):
        photos = night(photos, number)
        image = photos.add("queued", laid=False, age=timedelta(0))
        summary = photos.scan()
        assert (summary.metrics["rows_young"], summary.metrics["unproven"]) == (1, 0)
        photos.touch(image.id, deleted_at=images.clock(photos.images))
        let_a_day_pass(photos)


@pytest.mark.usefixtures("by_lists")
def test_young_image_is_excused_by_a_second_scan_minutes_later(photos, monkeypatch):
    """Its upload may be under way in both."""
    photos.add("queued", laid=False, age=timedelta(0))
    for number in range(3):
        photos = night(photos, number)
        summary = photos.scan()
        assert (summary.metrics["rows_young"], summary.metrics["unproven"], doubts(photos)) == (1, 0, {})
    # A scan that goes on for long may have noted what changed at its end.
    let_a_day_pass(photos)
    photos.conn.execute("UPDATE confidence.forensic_run SET scanned_at = clock_timestamp()")
    assert night(photos, 3).scan().metrics["unproven"] == 0


@pytest.mark.usefixtures("by_lists")
@pytest.mark.parametrize("age", [timedelta(days=1), timedelta(0)], ids=["old", "young"])
def test_upload_after_another_reason_to_be_unproven_is_excused(photos, age):
    """Unless the image was young each time: then something touches it again and again."""
    image = photos.add("queued", laid=False, age=age, original_url="https://photos.s3.amazonaws.com/a.jpg")
    for number in (1, 2):
        photos = night(photos, number)
        photos.touch(image.id, updated_at=images.clock(photos.images) - age)
        photos.scan()
        let_a_day_pass(photos)
    assert doubts(photos).keys() == {image.id}
    photos.touch(image.id, original_url=f"s3://images/{image.original}")
    summary = night(photos, 3).scan()
    assert summary.metrics["rows_young"] == (age > timedelta(0))
    assert summary.metrics["uncertain_age"] == (age == timedelta(0))


@pytest.mark.parametrize("changed", ["infinity", "20000-01-01"])
def test_time_of_change_that_python_cannot_hold_and_that_lies_ahead_ends_no_check(photos, changed):
    photos.add("queued", laid=False, updated_at=changed)
    assert photos.sync(dry_run=True).result["unproven"] == 1
    assert photos.scan().metrics["uncertain_age"] == 1


@pytest.mark.parametrize("changed", ["-infinity", "4000-01-01 BC", None])
def test_time_of_change_that_python_cannot_hold_ends_no_check(photos, changed):
    image = photos.add("queued", laid=False)
    photos.images.execute("ALTER TABLE images ALTER updated_at DROP NOT NULL")
    photos.images.execute("UPDATE images SET updated_at = %s WHERE id = %s", [changed, image.id])
    assert photos.sync(dry_run=True).result["missing_original"] == 1
    summary = photos.scan()
    assert (summary.metrics["rows_young"], summary.metrics["missing_original"]) == (0, 1)
    sync_id, _ = photos.repair(summary)
    assert photos.table()[image.id]["status"] == "error"
    fence.resume(photos.conn, "storage", photos.context.run)
    copy = ImagesCopy(photos.conn, photos.images)
    roll_back(photos.conn, copy, sync_id, run="warehouse_rollback/test", reason="test", dry_run=False)
    assert photos.table()[image.id]["status"] == "queued"


def test_image_without_a_status_is_named(photos):
    photos.images.execute("ALTER TABLE images ALTER status DROP NOT NULL")
    image = photos.add(None)
    summary = photos.scan()
    assert (summary.incomplete, summary.metrics["unknown_status"]) == ("", 1)
    assert doubts(photos) == {image.id: "its status is none that is known here"}


def test_status_that_is_not_known_here_is_never_overwritten(photos):
    photos.images.execute("ALTER TYPE image_status ADD VALUE 'archived'")
    image = photos.add("archived", laid=False)
    before = photos.table()
    summary = photos.scan()
    assert (summary.metrics["unknown_status"], summary.plan.update) == (1, 0)
    assert doubts(photos) == {image.id: "its status is none that is known here"}
    photos.repair(summary)
    assert photos.table() == before


# -- objects that are there, and yet


def test_object_without_content_is_named_and_never_missing(photos, either_first):
    image, lost = photos.add(), photos.add("queued", laid=False)
    photos.control.put_empty([image.staged])
    summary = photos.scan()
    assert (summary.metrics["empty_object"], summary.metrics["unproven"], summary.plan.update) == (1, 1, 1)
    assert doubts(photos) == {image.id: "its staged object is empty"}
    photos.repair(summary)
    assert photos.table()[lost.id]["status"] == "error"
    assert photos.table()[image.id]["status"] == "ready"


def test_object_that_is_only_marked_as_deleted_is_told_as_restorable(photos, either_first):
    image, gone = photos.add("queued", laid=False), photos.add("queued", laid=False)
    photos.control.fault(Fault("delete_marker", "head", key=image.original, times=None))
    summary = photos.scan()
    assert (summary.metrics["missing_original"], summary.metrics["restorable"]) == (2, 1)
    assert summary.examples["restorable_examples"] == [image.id]
    assert SOURCE.result([summary], {}, dry_run=True)["restorable"] == 1
    judged = judge(summary, [], SOURCE.entities[0].gates)
    assert judged.verdict is Verdict.WARN
    assert judged.reasons[0].startswith("1 images lack objects that are only marked as deleted (restorable)")
    assert gone.id not in summary.examples["restorable_examples"]


@pytest.mark.usefixtures("by_lists")
def test_of_a_mass_loss_some_are_asked_whether_they_can_be_restored(photos):
    """As after a lifecycle rule: the question to a person says so."""
    there = photos.control.keys()
    photos.control.fault(*[Fault("delete_marker", "head", key=key, times=None) for key in there])
    photos.control.fault(Fault("hide", "list", times=None))
    summary = photos.scan()
    assert 0 < summary.metrics["restorable"] <= 2 * check.ASKED_OF_MANY
    judged = judge(summary, [], SOURCE.entities[0].gates)
    assert judged.verdict is Verdict.HOLD
    assert any("only marked as deleted" in reason for reason in judged.reasons)


# -- what gives no answer


@pytest.mark.parametrize("status", [400, 403])
def test_refused_object_is_named_and_blocks_no_other_repair(photos, either_first, status):
    """Whatever the store has against that key, it answers about the others."""
    odd, lost = photos.add("queued", laid=False), photos.add("queued", laid=False)
    photos.control.fault(Fault("status", "head", key=odd.original, status=status, times=None))
    for number in (1, 2):
        photos = night(photos, number)
        summary = photos.scan()
        assert (summary.incomplete, summary.metrics["unknown"], summary.metrics["unproven"]) == ("", 1, 1)
        assert summary.plan.update == 1
    assert doubts(photos)[odd.id].startswith("its original object could not be looked at: storage: HEAD of an object")
    assert summary.metrics["unproven_overdue"] == 1
    judged = judge(summary, [], [Unproven()])
    assert judged.verdict is Verdict.WARN
    assert odd.id in judged.reasons[0]
    photos.repair(summary)
    assert (photos.table()[odd.id]["status"], photos.table()[lost.id]["status"]) == ("queued", "error")
    (row,) = unproven.of(photos.conn, "storage", "images")
    assert (row.nights, row.last_look is not None) == (2, True)
    photos.control.clear()
    photos.control.put([odd.original])
    assert night(photos, 3).scan().metrics["unproven"] == 0
    assert doubts(photos) == {}


def test_many_refused_objects_block_no_other_repair_either(photos, monkeypatch):
    """Such as the keys of one folder with rights of its own: they follow each other."""
    # Few enough for a HEAD each.
    monkeypatch.setattr(look, "LIST_COST", 100)
    for number in range(21):
        odd = photos.add("queued", laid=False, original_url=f"s3://images/odd/{number}.jpg")
        photos.control.fault(Fault("status", "head", key=f"odd/{number}.jpg", status=403, times=None))
    photos.images.execute(
        "INSERT INTO images (id, project_id, original_url, status, updated_at)"
        " SELECT gen_random_uuid(), project_id, 's3://images/some/' || n, 'queued', updated_at"
        " FROM images, generate_series(1, 100) n WHERE id = %s",
        [odd.id],
    )
    photos.control.put([f"some/{number}" for number in range(1, 101)])
    photos.add("queued", laid=False)
    summary = photos.scan()
    assert (summary.incomplete, summary.metrics["unproven"], summary.plan.update) == ("", 21, 1)


def test_object_without_an_answer_is_asked_for_again_before_it_is_named(photos, either_first):
    """The first attempt fails, so that it is tried again; what stays unknown then is not proven, the rest is."""
    odd, lost = photos.add("queued", laid=False), photos.add("queued", laid=False)
    photos.control.fault(Fault("status", "head", key=odd.original, status=500, times=None))
    first = photos.scan()
    assert first.incomplete.startswith("1 images could not be looked at: storage: HEAD of an object")
    again = photos.scan()
    assert (again.incomplete, again.metrics["unproven"], again.plan.update) == ("", 1, 1)
    photos.repair(again)
    assert photos.table()[lost.id]["status"] == "error"
    assert photos.table()[odd.id]["status"] == "queued"


def test_nothing_answered_at_all_is_no_evidence_however_often(photos):
    photos.add("queued", laid=False)
    photos.control.fault(Fault("status", "head", status=403, times=None))
    for number in (1, 2, 3):
        assert "1 images could not be looked at: storage: HEAD" in night(photos, number).scan().incomplete


def test_sync_goes_on_without_what_gives_no_answer_and_comes_back_to_it(photos):
    photos.sync()
    odd = photos.add("queued", laid=False, age=HOUR / 2)
    lost = photos.add("queued", laid=False, age=HOUR / 2)
    photos.control.fault(Fault("status", "head", key=odd.original, status=500, times=None))
    with pytest.raises(SyncFailed, match=r"^1 images could not be looked at: .*All others are in step"):
        photos.sync()
    assert photos.table()[lost.id]["status"] == "error"
    mark = sync_log.state(photos.conn, "storage", "images").watermark
    assert mark < photos.rows()[odd.id][2]
    # Named by a scan, it keeps no sync from going on.
    photos.scan()
    sync(photos)
    assert sync_log.state(photos.conn, "storage", "images").watermark > mark


# -- two witnesses


@pytest.mark.usefixtures("by_heads")
def test_missing_by_its_own_address_and_listed_is_not_missing(photos):
    """A 404 that a cache in between keeps."""
    image, lost = photos.add("queued"), photos.add("queued", laid=False)
    photos.control.fault(Fault("hide", "head", keys=(image.original,), times=None))
    summary = photos.scan()
    assert (summary.metrics["missing_original"], summary.metrics["unproven"], summary.plan.update) == (1, 1, 1)
    assert doubts(photos) == {image.id: "LIST and HEAD disagree whether its original object is there"}
    photos.repair(summary)
    assert (photos.table()[image.id]["status"], photos.table()[lost.id]["status"]) == ("queued", "error")


def test_sync_marks_nothing_by_one_witness(photos):
    photos.sync()
    image = photos.add("queued", age=HOUR / 2)
    photos.control.fault(Fault("hide", "head", keys=(image.original,), times=None))
    with pytest.raises(SyncFailed, match="1 images could not be looked at: LIST and HEAD disagree"):
        photos.sync()
    assert photos.table()[image.id]["status"] == "queued"


@pytest.mark.parametrize("fault", ["hide", "show"])
@pytest.mark.parametrize("lists", ["by_lists", None])
def test_missing_in_listings_and_there_by_its_own_address_is_not_proven(photos, request, lists, fault):
    """A listing that lags for good; or a cache that answers a HEAD about what is gone."""
    if lists:
        request.getfixturevalue(lists)
    image = photos.add("queued", laid=fault == "hide")
    lost = photos.add("queued", laid=False)
    way = "list" if fault == "hide" else "head"
    photos.control.fault(Fault(fault, way, keys=(image.original,), times=None))
    summary = photos.scan()
    assert (summary.metrics["missing_original"], summary.metrics["unproven"], summary.plan.update) == (1, 1, 1)
    assert doubts(photos) == {image.id: "LIST and HEAD disagree whether its original object is there"}
    photos.repair(summary)
    assert (photos.table()[image.id]["status"], photos.table()[lost.id]["status"]) == ("queued", "error")


def test_missing_in_one_listing_is_there_if_the_next_one_shows_it(photos):
    image = photos.add("queued")
    photos.control.fault(Fault("hide", "list", keys=(image.original,), nth=BEFORE + 1))
    summary = photos.scan()
    assert (summary.metrics["feed_noise"], summary.metrics["unproven"], summary.plan.update) == (1, 0, 0)


@pytest.mark.usefixtures("by_lists")
def test_listings_alone_mark_nothing(photos, monkeypatch):
    """Where many are suspected, the second look is a listing as well; the write needs a HEAD."""
    monkeypatch.setattr(check, "ASKED_OF_MANY", 0)
    image, lost = photos.add("queued"), photos.add("queued", laid=False)
    photos.control.fault(Fault("hide", "list", keys=(image.original,), times=None))
    summary = photos.scan()
    assert summary.plan.update == 2
    assert photos.repair(summary)[1]["images"].updated == 1
    assert (photos.table()[image.id]["status"], photos.table()[lost.id]["status"]) == ("queued", "error")


@pytest.mark.parametrize("way", ["head", "list"])
def test_write_needs_both_witnesses_once_more(photos, either_first, way):
    """The object has come back since the scan, which one of them does not know yet."""
    image, lost = photos.add("queued", laid=False), photos.add("queued", laid=False)
    summary = photos.scan()
    photos.control.put([image.original])
    photos.control.fault(Fault("hide", way, keys=(image.original,), times=None))
    assert photos.repair(summary)[1]["images"].updated == 1
    assert (photos.table()[image.id]["status"], photos.table()[lost.id]["status"]) == ("queued", "error")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("frame", "list", fields={"Name": "photos"}, times=None),
        Fault("frame", "list", fields={"NextContinuationToken": "again"}, times=None),
        Fault("frame", "list", fields={"KeyCount": "7"}, times=None),
        Fault("proxy", "list", status=200, times=None),
        Fault("proxy", "list", status=404, times=None),
    ],
    ids=["another bucket", "a token without more", "a wrong count", "a page for people", "a proxy's 404"],
)
def test_listing_that_contradicts_itself_or_its_question_is_no_evidence(photos, fault):
    photos.add("queued", laid=False)
    before = photos.table()
    photos.control.fault(fault)
    with pytest.raises(ApiError, match="LIST of bucket 'images'"):
        photos.scan()
    with pytest.raises(ApiError, match="LIST of bucket 'images'"):
        sync(photos)
    assert photos.table() == before


@pytest.mark.drill("html-proxy")
@pytest.mark.parametrize("content_type", ["text/html", "application/json", None])
@pytest.mark.parametrize("status", [200, 404])
def test_answer_of_a_proxy_about_an_object_proves_nothing(photos, either_first, status, content_type):
    image = photos.add("queued", laid=status == 404)
    photos.control.fault(
        Fault("proxy", "head", key=image.original, status=status, content_type=content_type, times=None)
    )
    if either_first == "lists first" and status == 404:
        # It is listed, and not asked for.
        assert figures_of(photos.scan()) == (0, 0)
        return
    assert "1 images could not be looked at" in photos.scan().incomplete
    assert photos.scan().metrics["unproven"] == 1


@pytest.mark.usefixtures("by_lists")
def test_listing_that_shows_what_is_gone_confirms_nothing(photos):
    """Such as one out of a cache: a sample is asked for by its own address."""
    image = photos.add("queued", laid=False)
    photos.control.fault(Fault("show", "list", keys=(image.original,), times=None))
    summary = audited(photos).scan()
    assert (summary.incomplete, summary.metrics["unproven"], summary.plan.update) == ("", 1, 0)
    assert doubts(photos) == {image.id: "LIST and HEAD disagree whether its original object is there"}
    assert account(summary).wrong_sum == ""
    photos.control.clear()
    summary = audited(night(photos, 2)).scan()
    assert (summary.metrics["unproven"], summary.plan.update) == (0, 1)


@pytest.mark.usefixtures("by_heads")
def test_address_that_shows_what_is_gone_confirms_nothing(photos):
    image = photos.add("queued", laid=False)
    photos.control.fault(Fault("show", "head", keys=(image.original,), times=None))
    summary = audited(photos).scan()
    assert (summary.metrics["unproven"], summary.plan.update) == (1, 0)
    assert set(doubts(photos)) == {image.id}


@pytest.mark.usefixtures("by_lists")
def test_sample_is_small_and_another_one_each_night(photos):
    asked = []
    for number in range(3):
        photos.control.reset_counters()
        summary = audited(night(photos, number), 8).scan()
        assert (summary.incomplete, summary.metrics["unproven"]) == ("", 0)
        asked.append(photos.control.counters().total("head"))
    assert asked == [8, 8, 8]


@pytest.mark.usefixtures("by_lists")
def test_sample_of_which_nothing_can_be_looked_at_is_no_evidence(photos):
    photos.control.fault(Fault("status", "head", status=403, times=None))
    assert "could not be looked at: storage: HEAD" in audited(photos, 8).scan().incomplete


# -- marks and heals


def test_sync_heals_what_is_there_again(photos, monkeypatch):
    """Also long after the mark, whatever the watermark."""
    lost = photos.add("queued", laid=False)
    before = photos.table()
    photos.sync()
    assert photos.table()[lost.id]["error"] == ORIGINAL_MISSING
    monkeypatch.setattr(images, "clock", lambda conn: conn.execute("SELECT clock_timestamp()").fetchone()[0] + 9 * HOUR)
    assert photos.sync().result["healed"] == 0
    photos.control.put([lost.original])
    assert photos.sync(dry_run=True).result["healed"] == 0
    done = photos.sync()
    assert done.result["healed"] == 1
    assert photos.changed(before).keys() <= {lost.id}
    assert photos.table()[lost.id]["status"] == "queued"


@pytest.mark.parametrize("column", ["original_place", "staged_place"])
def test_change_is_not_applied_if_its_urls_are_read_in_another_way_by_now(photos, monkeypatch, column):
    """The plan waited for a person, and an upgrade reads more in the url than the scan did."""
    image, other = photos.add(laid=False), photos.add(laid=False)
    summary = photos.scan()
    read = images._image

    def anew(row, bucket):
        return read(row, bucket) | ({column: "here or foreign"} if row[0] == image.id else {})

    monkeypatch.setattr(images, "_image", anew)
    _, counts = photos.repair(summary)
    assert (counts["images"].updated, counts["images"].superseded) == (1, 1)
    assert (photos.table()[image.id]["status"], photos.table()[other.id]["status"]) == ("ready", "error")


def test_change_is_applied_only_where_the_urls_are_still_as_seen(photos):
    """The application has put the picture elsewhere, and forgets to set updated_at."""
    image = photos.add("queued", laid=False)
    summary = photos.scan()
    photos.control.put(["t/moved.jpg"])
    url = f"{STORE}/images/t/moved.jpg"
    photos.touch(image.id, original_url=url, updated_at=photos.rows()[image.id][2])
    _, counts = photos.repair(summary)
    assert (counts["images"].updated, counts["images"].superseded) == (0, 1)
    assert photos.table()[image.id]["status"] == "queued"
