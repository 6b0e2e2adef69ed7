"""What a check of the images finds, class by class, and what it makes of the figures."""

import logging
import random
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

import pytest

from include.confidence.field_figures import METRICS
from include.confidence.policy import PastRun, Verdict, judge
from include.confidence.summary import ForensicSummary
from include.simulators import storage as simulator
from include.simulators.storage import Fault
from include.sources.base import ScanRefused
from include.sources.storage import SOURCE, images
from include.sources.storage.images import ORIGINAL_MISSING, STAGED_MISSING
from include.warehouse.sync_log import Counts
from stack.settings import REPOSITORY

STORE = "http://store.example:9000"
# Names as users give them; no `//`, `.` or `..`, which a store over a folder can't hold.
AWKWARD = (
    "my room",
    "1+1 rooms",
    "100% done",
    "a%20b",
    "küche",
    "リビング 😀",
    "a&b=c",
    "plan #3",
    "what?.jpg",
    "a b+c%2Bd",
)


# Sums of other figures, and those of fields.
DERIVED = ("checked", "looked_at", "looked_at_lately", "missing_lately", "marked_lately", *METRICS)


def figures(summary):
    """What differs from nothing at all."""
    return {name: value for name, value in summary.metrics.items() if value and name not in DERIVED}


# LIST requests that go before the first page: the bucket's proof, and the question whether it honours start-after.
BEFORE = 2
# What the untouched application shows: one image whose worker died between two updates, and two of its own errors.
CLEAN = {"ready_without_staged": 1, "rows_in_error": 2}


PLAN = "SELECT id::text, _operation, _status FROM staging.storage_images_scan_plan ORDER BY id"


def unproven(photos):
    """What is remembered of images: id -> why."""
    query = "SELECT key ->> 0, why FROM confidence.unproven WHERE source = 'storage' AND entity = 'images'"
    return dict(photos.conn.execute(query).fetchall())


def plan(photos):
    return photos.conn.execute(PLAN).fetchall()


# -- outcomes


def test_comparison_is_a_span_with_what_the_first_look_suspects(photos, ended_spans):
    photos.control.delete([photos.add().staged])
    photos.scan(limit=1000)
    [span] = ended_spans()
    assert span.name == "sync_confidence.compare"
    assert span.attributes == {
        "source": "storage",
        "entity": "images",
        "run": photos.context.run,
        "limit": 1000,
        "marks": 1,
        "heals": 0,
    }


def test_nothing_is_missing(photos, either_way):
    before = photos.table()
    summary = photos.scan()
    assert figures(summary) == CLEAN
    assert summary.metrics["checked"] == 117
    assert summary.metrics["looked_at"] == summary.live_rows == 115
    assert (summary.plan.insert, summary.plan.update, summary.plan.delete) == (0, 0, 0)
    assert summary.metrics["orphan_objects"] == (0 if either_way == "by_lists" else None)
    assert not summary.incomplete
    assert photos.table() == before


def test_missing_original_counts_in_every_status_but_error(photos, either_way):
    queued, ready = photos.add("queued"), photos.add("ready")
    processing = photos.add("processing")
    failed = photos.add("error", error="model timed out")
    marked = photos.add("error", error=ORIGINAL_MISSING)
    photos.control.delete([image.original for image in (queued, ready, processing, failed, marked)])
    before = photos.table()
    summary = photos.scan()
    assert figures(summary) == CLEAN | {"missing_original": 3, "in_processing": 1, "rows_in_error": 4}
    assert summary.plan.update == 2
    assert {(id_, status) for id_, _, status in plan(photos)} == {
        (queued.id, "confirmed"),
        (ready.id, "confirmed"),
        (processing.id, "left"),
    }
    _, counts = photos.repair(summary)
    assert counts["images"] == Counts(updated=2)
    changed = photos.changed(before)
    assert changed.keys() == {queued.id, ready.id}
    for columns in changed.values():
        assert columns.keys() == {"status", "error", "updated_at"}
        assert (columns["status"], columns["error"]) == ("error", "original missing in storage")


def test_missing_staged_counts_only_for_ready_images(photos, either_way):
    ready = photos.add()
    for status in ("queued", "processing", "error"):
        photos.add(status, staged_url="s3://images/t/not-there.jpg")
    photos.control.delete([ready.staged])
    before = photos.table()
    summary = photos.scan()
    assert figures(summary) == CLEAN | {"missing_staged": 1, "rows_in_error": 3}
    photos.repair(summary)
    assert [(id_, row["error"]) for id_, row in photos.changed(before).items()] == [
        (ready.id, "staged missing in storage")
    ]


def test_both_missing_counts_twice_and_the_original_gives_the_message(photos, either_way):
    image = photos.add(laid=False)
    summary = photos.scan()
    assert figures(summary) == CLEAN | {"missing_original": 1, "missing_staged": 1}
    assert summary.plan.update == 1
    photos.repair(summary)
    assert photos.table()[image.id]["error"] == ORIGINAL_MISSING


def test_soft_deleted_images_are_skipped(photos, either_way):
    image = photos.add(laid=False)
    photos.touch(image.id, deleted_at="2025-05-05Z", updated_at="2025-05-05Z")
    summary = photos.scan()
    assert (figures(summary), summary.metrics["checked"]) == (CLEAN, 117)


def test_young_images_are_left_alone_to_the_second(photos, either_way, monkeypatch):
    now = images.clock(photos.images)
    monkeypatch.setattr(images, "clock", lambda _: now)
    grace = timedelta(minutes=15)
    old = photos.add(laid=False, updated_at=now - grace)
    young = photos.add(laid=False, updated_at=now - grace + timedelta(microseconds=1))
    summary = photos.scan()
    assert figures(summary) == CLEAN | {"missing_original": 1, "missing_staged": 1, "rows_young": 1}
    assert {id_: status for id_, _, status in plan(photos)} == {old.id: "confirmed", young.id: "young"}


def test_foreign_and_unreadable_urls_are_reported_and_never_missing(photos, either_way):
    other = "https://photos.s3.amazonaws.com/a.jpg"
    photos.add("queued", laid=False, original_url=other)
    photos.add("queued", laid=False, original_url="no url at all")
    photos.add("queued", laid=False, original_url="")
    staged_elsewhere = photos.add(laid=False, staged_url=other)
    photos.add("queued", staged_url=other)
    photos.control.put([staged_elsewhere.original])
    before = photos.table()
    summary = photos.scan()
    assert figures(summary) == CLEAN | {"foreign_bucket": 2, "unreadable_url": 2, "unproven": 4}
    photos.repair(summary)
    assert photos.table() == before


def test_url_that_may_name_another_bucket_is_never_missing(photos, either_way):
    url = "https://images.example.com/old-images/{}.jpg"
    photos.add("queued", laid=False, original_url=url.format("a"))
    # Other folders, as they stand before and after that one in the order of keys.
    photos.control.put(["old-images", "old-images-2/a.jpg", "old-images0/a.jpg", "t/old-images/a.jpg"])
    before = photos.table()
    summary = photos.scan()
    assert (summary.metrics["foreign_bucket"], summary.metrics["unproven"], summary.plan.update) == (1, 1, 0)
    photos.repair(summary)
    assert photos.table() == before


@pytest.mark.parametrize("host", ["images.example.com", "images.nyc3.cdn.digitaloceanspaces.com", "images.minio.test"])
def test_host_stands_for_the_bucket_if_the_folder_is_there(photos, either_way, host):
    """A CDN, or another name of the store: the bucket shows one image of two that lie in the same folder."""
    url = f"https://{host}/old-images/{{}}.jpg"
    lost = photos.add("queued", laid=False, original_url=url.format("t/a"))
    photos.add(laid=False, original_url=url.format("b"), staged_url=url.format("staged"))
    photos.control.put(["old-images/b.jpg", "old-images/staged.jpg"])
    before = photos.table()
    summary = photos.scan()
    assert figures(summary) == CLEAN | {"missing_original": 1}
    photos.repair(summary)
    assert photos.changed(before).keys() == {lost.id}
    assert photos.table()[lost.id]["error"] == "original missing in storage"


@pytest.mark.usefixtures("by_heads")
@pytest.mark.parametrize("host", ["media.example.com/images", "images.example.com"])
def test_other_readings_are_asked_for_only_if_the_first_one_is_not_found(photos, host):
    photos.images.execute("DELETE FROM images")
    photos.control.put([f"t/caf\u00e9+{number}.jpg" for number in range(30)])
    for number in range(30):
        photos.add("queued", laid=False, original_url=f"https://{host}/t/caf%C3%A9%2B{number}.jpg")
    photos.control.reset_counters()
    assert photos.scan(batch_size=7).metrics["looked_at"] == 30
    assert photos.control.counters().total("head") == 30
    # Under other readings, beside one that shares the key of a present image.
    photos.control.delete(["t/caf\u00e9+0.jpg"])
    photos.control.put(["t/caf\u00e9 0.jpg"])
    photos.add("queued", laid=False, original_url=f"https://{host}/t/caf%C3%A9%2B0.jpg")
    photos.add("queued", laid=False, original_url=f"https://{host}/t/caf%C3%A9%2B1.jpg")
    summary = photos.scan(batch_size=7)
    assert (summary.metrics["other_reading"], summary.metrics["looked_at"]) == (2, 30)


def test_lost_objects_behind_a_host_like_the_bucket_are_evidence(photos):
    """More than a tenth of all images: before, none of them could be proven, so there was no evidence at all."""
    for number in range(40):
        url = f"https://images.example.com/t/{number}.jpg"
        photos.add("queued", laid=False, original_url=url)
    photos.control.put([f"t/{number}.jpg" for number in range(20)])
    summary = photos.scan()
    assert (summary.incomplete, figures(summary)) == ("", CLEAN | {"missing_original": 20})


def test_url_that_may_name_a_key_that_is_no_utf8_is_never_missing(photos, either_way):
    photos.add("queued", laid=False, original_url="https://images.s3.amazonaws.com/caf%E9.jpg")
    assert figures(photos.scan()) == CLEAN | {"unreadable_url": 1, "unproven": 1}


@pytest.mark.parametrize("size", [1_025, 20_000])
def test_key_that_is_too_long_for_s3_ends_no_check(photos, either_way, size):
    """Postgres could not index it."""
    path = "".join(random.Random(1).choices("0123456789abcdef", k=size))
    photos.add("queued", laid=False, original_url=f"https://images.s3.amazonaws.com/{path}")
    assert figures(photos.scan()) == CLEAN | {"unreadable_url": 1, "unproven": 1}


def test_ready_without_staged_is_reported(photos, either_way):
    image = photos.add(staged_url=None)
    photos.control.delete([image.staged])
    summary = photos.scan()
    assert figures(summary) == CLEAN | {"ready_without_staged": 2}


def test_shared_original_is_looked_for_by_its_key(photos, either_way):
    original, key = photos.images.execute("SELECT id, s3_key FROM original_images ORDER BY id LIMIT 1").fetchone()
    sharing = "SELECT id::text FROM images WHERE original_image_id = %s AND deleted_at IS NULL AND status <> 'error'"
    ids = {id_ for (id_,) in photos.images.execute(sharing, [original])}
    assert len(ids) > 1
    photos.control.delete([key])
    summary = photos.scan()
    assert summary.metrics["missing_original"] == len(ids)
    assert {id_ for id_, *_ in plan(photos)} == ids


# Figures that say where the object of an image is not.
BY_PLACE = ("missing_original", "other_reading", "foreign_bucket", "unreadable_url")


@pytest.mark.parametrize(
    ("key", "lies", "figure"),
    [
        ("t/a b.jpg", "t/a b.jpg", "looked_at"),
        ("t/a%20b.jpg", "t/a b.jpg", "other_reading"),
        ("/t/a.jpg", "t/a.jpg", "other_reading"),
        ("t/e\u0301.jpg", "t/\u00e9.jpg", "other_reading"),
        ("t/a.jpg", "t/b.jpg", "missing_original"),
        ("images/t/a.jpg", "t/a.jpg", "other_reading"),
        # The whole url in place of the key.
        ("s3://images/t/a.jpg", "t/a.jpg", "looked_at"),
        ("https://images.s3.amazonaws.com/t/a%20b.jpg", "t/a b.jpg", "looked_at"),
        ("s3://images/t/a.jpg", "t/b.jpg", "missing_original"),
        ("s3://images/t/a.jpg", "s3://images/t/a.jpg", "other_reading"),
        ("s3://other/t/a.jpg", "t/a.jpg", "foreign_bucket"),
        ("gs://images/t/a.jpg", "t/a.jpg", "unreadable_url"),
    ],
)
def test_shared_original_may_be_named_in_another_way(photos, either_way, key, lies, figure):
    """As with urls: it is not missing as long as the bucket has what the key may mean."""
    before = photos.scan().metrics
    insert = "INSERT INTO original_images (id, content_hash, s3_key, file_size, mime_type, reference_count)"
    values = " VALUES (gen_random_uuid(), 'h', %s, 1, 'image/png', 1) RETURNING id"
    (original,) = photos.images.execute(insert + values, [key]).fetchone()
    photos.add("queued", laid=False, original_url=None, original_image_id=original)
    photos.control.put([lies])
    after = photos.scan().metrics
    counted = {name for name in BY_PLACE if after[name] != before[name]}
    assert (after[figure] - before[figure], counted) == (1, {figure} - {"looked_at"})


@pytest.mark.usefixtures("by_lists")
def test_orphans_are_objects_that_no_row_names(photos):
    unused = "INSERT INTO original_images (id, content_hash, s3_key, file_size, mime_type, reference_count)"
    photos.images.execute(f"{unused} VALUES (gen_random_uuid(), 'h', 't/shared.jpg', 1, 'image/png', 0)")
    deleted = photos.add()
    photos.touch(deleted.id, deleted_at="2025-05-05Z")
    photos.add("queued", laid=False, original_url=f"{STORE}/images/t/a%20b.jpg")
    photos.control.put(["t/shared.jpg", "t/a%20b.jpg", "t/orphan.jpg", "zz/orphan.jpg"])
    assert photos.scan().metrics["orphan_objects"] == 2
    assert photos.scan(status="ready").metrics["orphan_objects"] is None


# -- keys


def urls(key):
    """A key in the forms that an application writes; the last is what nobody encoded."""
    return (
        f"{STORE}/images/{quote(key)}",
        f"https://images.s3.amazonaws.com/{quote(key, safe='')}?X-Amz-Expires=900&X-Amz-Signature=0",
        f"https://s3.us-east-1.amazonaws.com/images/{quote(key)}",
        f"s3://images/{key}",
        f"{STORE}/images/{key}",
    )


def add_awkward(photos, forms):
    """An image for each name and form whose object is there, and one whose object is not."""
    for name in AWKWARD:
        for there, gone in zip(urls(f"t/{name}")[:forms], urls(f"gone/{name}")[:forms], strict=True):
            photos.add("queued", laid=False, original_url=there)
            photos.add("queued", laid=False, original_url=gone)
    return [f"t/{name}" for name in AWKWARD], len(AWKWARD) * forms


def test_awkward_keys_are_found_and_missed(photos, either_way):
    keys, gone = add_awkward(photos, forms=5)
    photos.control.put(keys)
    summary = photos.scan()
    # Of the keys that nobody encoded, four are found by another reading than the standard's.
    assert figures(summary) == CLEAN | {"missing_original": gone, "other_reading": 4, "unproven": 4}
    assert photos.repair(summary)[1]["images"].updated == gone
    marked = "SELECT count(*) FILTER (WHERE original_url LIKE '%%gone%%'), count(*) FROM images WHERE error = %s"
    assert photos.images.execute(marked, [ORIGINAL_MISSING]).fetchone() == (gone, gone)


def test_awkward_keys_on_a_real_store(photos, application, tmp_path, either_way):
    keys, gone = add_awkward(photos, forms=4)
    binary = REPOSITORY / ".venv" / "rclone" / "rclone"
    with simulator.rclone(tmp_path, "images", [*application[1], *keys], "access", "secret-key", binary) as real:
        elsewhere = photos.elsewhere(real)
        summary = elsewhere.scan()
        assert figures(summary) == CLEAN | {"missing_original": gone}
        assert elsewhere.repair(summary)[1]["images"].updated == gone


def test_any_reading_of_a_url_keeps_an_image_from_being_marked(photos, either_way):
    """The object lies under what nobody would read first, and is found by either look. It may be another one."""
    early = photos.add("queued", laid=False, original_url=f"{STORE}/images/t/a%20b.jpg")
    late = photos.add("queued", laid=False, original_url=f"{STORE}/images/t/late%20one.jpg")
    photos.control.put(["t/a%20b.jpg", "t/late%20one.jpg"])
    if either_way == "by_lists":
        photos.control.delete(["t/late%20one.jpg"])
        photos.control.while_listing(BEFORE + 1, put=["t/late%20one.jpg"])
    else:
        photos.control.fault(Fault("status", operation="head", key="t/late%20one.jpg", status=404))
    summary = photos.scan()
    assert figures(summary) == CLEAN | {"other_reading": 2, "unproven": 2}
    assert {(id_, status) for id_, _, status in plan(photos)} == {(early.id, "unproven"), (late.id, "unproven")}
    why = "its original object is found under another reading of its url only"
    assert unproven(photos) == {early.id: why, late.id: why}


# -- noise


def test_object_put_back_between_the_looks_is_noise(photos, either_way):
    image, half = photos.add(), photos.add()
    photos.control.delete([half.staged])
    if either_way == "by_lists":
        photos.control.delete([*image.keys, half.original])
        photos.control.while_listing(BEFORE + 1, put=[*image.keys, half.original])
    else:
        heads = [Fault("status", operation="head", key=key, status=404) for key in (*image.keys, half.original)]
        photos.control.fault(*heads)
    before = photos.table()
    summary = photos.scan()
    assert figures(summary) == CLEAN | {"missing_staged": 1, "feed_noise": 1}
    photos.repair(summary)
    assert {id_: row["error"] for id_, row in photos.changed(before).items()} == {half.id: STAGED_MISSING}


def test_object_deleted_while_listing_is_present_until_the_next_scan(photos):
    image = photos.add()
    photos.control.while_listing(BEFORE + 1, delete=[image.original])
    assert figures(photos.scan()) == CLEAN
    assert figures(photos.scan()) == CLEAN | {"missing_original": 1}


def test_second_look_waits(photos, monkeypatch, caplog):
    waited = []
    monkeypatch.setattr("include.sources.storage.check.time.sleep", waited.append)
    context = replace(photos.context, source=replace(SOURCE, pause=timedelta(seconds=7)))
    patient = replace(photos, context=context)
    patient.scan()
    assert waited == []
    photos.add("queued", laid=False)
    with caplog.at_level(logging.INFO):
        patient.scan()
    assert waited == [7]
    assert "1 objects will be looked at once more in 7 s" in caplog.text


# -- figures


def test_result_has_the_names_that_users_know(photos):
    rows = [photos.add("queued", laid=False) for _ in range(12)]
    summary = photos.scan()
    result = SOURCE.result([summary], {}, dry_run=True)
    assert result == {
        "checked": 129,
        "missing_original": 12,
        "missing_staged": 0,
        "updated": 0,
        "dry_run": True,
        "examples": [
            {"image_id": id_, "status": "queued", "error": ORIGINAL_MISSING}
            for id_ in sorted(row.id for row in rows)[:10]
        ],
        "next_cursor": None,
        "unknown": 0,
        "foreign_bucket": 0,
        "ready_without_staged": 1,
        "orphan_objects": 0,
        "healed": 0,
        "looked_at": 127,
        "restorable": 0,
        "unproven": 0,
    }
    _, counts = photos.repair(summary)
    assert SOURCE.result([summary], counts, dry_run=False) == result | {"updated": 12, "dry_run": False}
    assert SOURCE.result([], {}, dry_run=True) == {}


def test_summary_travels_as_json(photos):
    photos.add("queued", laid=False)
    for params in ({}, {"limit": 5}):
        summary = photos.scan(**params)
        assert ForensicSummary.from_json(summary.to_json()) == summary


# -- scope


def test_filters_narrow_the_check(photos):
    project, other = (id_ for (id_,) in photos.images.execute("SELECT id::text FROM projects ORDER BY id LIMIT 2"))
    photos.add("queued", laid=False, project_id=project)
    photos.add("queued", laid=False, project_id=other)
    photos.add("processing", laid=False, project_id=other)
    count = "SELECT count(*) FROM images WHERE deleted_at IS NULL AND project_id = %s"
    summary = photos.scan(project_id=other.upper())
    assert summary.metrics["checked"] == photos.images.execute(count, [other]).fetchone()[0]
    assert summary.metrics["missing_original"] == 2
    assert summary.scope == f"project {other}"
    summary = photos.scan(project_id=other, status="processing")
    assert (summary.metrics["missing_original"], summary.plan.update) == (1, 0)
    assert summary.scope == f"project {other}, status processing"
    assert photos.scan(status="queued").metrics["missing_original"] == 2


def test_chain_of_cursors_visits_every_row_once(photos):
    """Every image is missing and so in a plan, which tells what was visited."""
    photos.control.delete(photos.control.keys())
    live = sorted(id_ for id_, row in photos.table().items() if row["deleted_at"] is None and row["status"] != "error")
    photos.images.execute("DELETE FROM images WHERE NOT id = ANY (%s::uuid[])", [live[-21:]])
    for limit in (1, 10, 20, 21, 22):
        visited, cursors = [], [None]
        while len(cursors) == 1 or cursors[-1]:
            summary = photos.scan(limit=limit, cursor=cursors[-1])
            assert summary.metrics["checked"] <= limit
            visited += [id_ for id_, *_ in plan(photos)]
            cursors.append(summary.telemetry["next_cursor"])
            assert cursors[-1] in (None, visited[-1])
        assert visited == live[-21:]
        # The last full link can't know that nothing follows it.
        assert len(cursors) - 1 == 21 // limit + 1


def test_wrong_params_are_refused(photos):
    for name, value, message in (
        ("project_id", "42", "project_id is no uuid"),
        ("cursor", "last", "cursor is no uuid"),
        ("status", "done", "status 'done' is none of queued, processing, ready, error"),
    ):
        with pytest.raises(ScanRefused, match=message):
            photos.scan(**{name: value})
    assert photos.control.counters().total() == 0


# -- borders


def test_pages_of_a_listing_border_exactly(photos):
    """999, 1000 and 1001 objects, the first and the last of them named by images."""
    image = photos.add(laid=False)
    photos.add("queued", laid=False, original_url="s3://images/!first.jpg")
    photos.add("queued", laid=False, original_url="s3://images/~last.jpg")
    filler = [f"x/{number:04}.jpg" for number in range(999 - 2 - len(photos.control.keys()))]
    photos.control.put([*filler, "!first.jpg", "~last.jpg"])
    for objects, pages in ((999, 1), (1000, 1), (1001, 2)):
        photos.control.reset_counters()
        summary = photos.scan()
        # Whether the store honours start-after is asked once.
        assert photos.control.counters().total("list") == pages + (BEFORE if objects == 999 else 1)
        assert summary.telemetry["objects_listed"] == len(photos.control.keys()) == objects
        assert summary.metrics["orphan_objects"] == len(filler) + objects - 999
        assert [id_ for id_, *_ in plan(photos)] == [image.id]
        photos.control.put([f"x/more-{objects}.jpg"])


def test_rows_around_the_batch_size(photos, either_way):
    """21 rows; and changes around the batch size of the repair."""
    photos.images.execute("DELETE FROM images WHERE id NOT IN (SELECT id FROM images ORDER BY id LIMIT 20)")
    image = photos.add(laid=False)
    live = sum(row["deleted_at"] is None for row in photos.table().values())
    for batch in (7, live - 1, live, live + 1, 20, 21, 22):
        summary = photos.scan(batch_size=batch)
        assert (summary.metrics["checked"], summary.plan.update) == (live, 1)
        assert [id_ for id_, *_ in plan(photos)] == [image.id]
    for rows in (2, 3, 4):
        # One was missing before the first round.
        before = [photos.add("queued", laid=False) for _ in range(rows - (rows == 2))]
        summary = photos.scan()
        assert photos.repair(summary, batch_size=3)[1]["images"] == Counts(updated=rows)
        assert {photos.table()[row.id]["status"] for row in before} == {"error"}


# -- gates


def test_share_above_five_percent_holds_at_once(photos):
    for _ in range(10):
        photos.add("queued", laid=False)
    summary = photos.scan()
    assert (summary.metrics["looked_at"], summary.metrics["missing_original"]) == (125, 10)
    many = {"looked_at_lately": 1000}
    exactly = replace(summary, metrics=summary.metrics | many | {"looked_at": 200})
    above = replace(summary, metrics=summary.metrics | many | {"looked_at": 199})
    gates = SOURCE.entities[0].gates
    assert judge(exactly, [], gates).verdict is Verdict.PASS
    held = judge(above, [], gates)
    assert (held.verdict, held.worse) == (Verdict.HOLD, ("missing_original",))
    assert "10 of 199 looked_at" in held.reasons[0]
    assert "189 other images are there, so bucket and endpoint are right" in held.reasons[0]


def test_staged_share_above_five_percent_points_to_the_worker(photos):
    metrics = photos.scan().metrics | {"looked_at": 100, "missing_staged": 6}
    held = judge(replace(photos.scan(), metrics=metrics), [], SOURCE.entities[0].gates)
    assert (held.verdict, held.worse) == (Verdict.HOLD, ("missing_staged",))
    assert "worker" in held.reasons[0]


@pytest.mark.parametrize("metric", ["missing_original", "missing_staged", "unknown"])
def test_rise_warns_and_a_second_one_holds(photos, metric):
    summary = photos.scan()
    summary = replace(summary, live_rows=10_000, metrics=summary.metrics | {"looked_at": 10_000, metric: 26})
    good = PastRun("1", dict.fromkeys(("missing_original", "missing_staged", "unknown"), 0), Verdict.PASS, (), False)
    gates = SOURCE.entities[0].gates
    at_margin = replace(summary, metrics=summary.metrics | {metric: 25})
    assert judge(at_margin, [good], gates).verdict is Verdict.PASS
    first = judge(summary, [good], gates)
    assert (first.verdict, first.worse) == (Verdict.WARN, (metric,))
    bad = PastRun("2", {metric: 26}, Verdict.WARN, (metric,), False)
    assert judge(summary, [bad, good], gates).verdict is Verdict.HOLD
