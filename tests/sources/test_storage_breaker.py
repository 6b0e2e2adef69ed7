"""The breaker: no mass loss is written down by unattended runs, however small the runs are that it falls into."""

from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
from psycopg.types.json import Jsonb

from include.confidence import holds, judgements, planned_changes
from include.confidence.policy import Verdict, judge
from include.simulators.storage import Fault
from include.sources.base import SyncFailed
from include.sources.storage import SOURCE, images, look
from include.sources.storage.undo import ImagesCopy
from include.warehouse import fence, sync_log
from include.warehouse.rollback import roll_back
from tests.photos import Photos

MINUTES = timedelta(minutes=30)
GATES = [*SOURCE.entities[0].gates, SOURCE.entities[0].repair_share]
NUMBERS = count()
REFUSED = "Nothing was written, the watermark stays: run storage_reconcile"


def changed(photos: Photos, number: int, *, laid: bool = False) -> list:
    """So many images that have just changed."""
    return [photos.add("queued", laid=laid, age=MINUTES) for _ in range(number)]


def run(photos: Photos, name: str) -> Photos:
    return replace(photos, context=replace(photos.context, run=f"storage_reconcile/{name}"))


def sync(photos: Photos, **options: object):
    """A sync in a run of its own."""
    return run(photos, f"sync {next(NUMBERS)}").sync(**options)


def judged(photos: Photos, name: str, **params: object):
    """A scan of that run with its verdict, as the gate keeps it; the writer then runs, or is decided upon."""
    photos = run(photos, name)
    summary = photos.scan(**params)
    with photos.conn.transaction():
        judgement = judge(summary, judgements.past_runs(photos.conn, summary), GATES)
        judgements.save_judgement(photos.conn, summary, judgement)
        holds.refresh_hold(photos.conn, "storage")
    return photos, summary, judgement.verdict


def resume(photos: Photos) -> None:
    fence.resume(photos.conn, "storage", photos.context.run)


def decide(photos: Photos, decision: str) -> None:
    with photos.conn.transaction():
        holds.decide(photos.conn, "storage", decision, "somebody")


@pytest.fixture
def synced(photos: Photos) -> Photos:
    """The images after the first sync."""
    sync(photos)
    return photos


# -- a bucket without objects


@pytest.mark.drill("empty-answers")
def test_empty_bucket_is_never_written_down_by_syncs(synced):
    """The sync before was refused, and each of the later ones sees five images only."""
    synced.control.delete(synced.control.keys())
    with pytest.raises(SyncFailed, match=REFUSED):
        sync(synced, mode="full")
    for _ in range(3):
        changed(synced, 5)
        before = synced.table()
        with pytest.raises(SyncFailed, match=r"a sync was refused at .* shows only 0 of 40 objects"):
            sync(synced)
        assert synced.table() == before
    assert synced.audited() == 0


@pytest.mark.parametrize("number", [1, 5])
def test_empty_bucket_is_known_by_what_other_images_need(synced, number):
    """No sync was refused before: the bucket is emptied between two of them."""
    lost = changed(synced, number)
    before = synced.table()
    synced.control.delete(synced.control.keys())
    with pytest.raises(SyncFailed, match=f"missing_in_doubt is {number} of {number} looked_at"):
        sync(synced)
    assert (synced.table(), len(lost)) == (before, number)


def test_dry_sync_is_refused_as_well(synced):
    synced.control.delete(synced.control.keys())
    changed(synced, 1)
    with pytest.raises(SyncFailed, match="missing_in_doubt"):
        sync(synced, dry_run=True)


def test_empty_bucket_holds_a_part_of_one_row(photos):
    photos.control.delete(photos.control.keys())
    _, summary, verdict = judged(photos, "1", limit=1, status="queued")
    assert (summary.metrics["looked_at"], summary.metrics["missing_in_doubt"]) == (1, 1)
    assert verdict is Verdict.HOLD


def test_bucket_that_shows_nothing_at_all_holds_a_table_of_any_size(photos, either_way):
    photos.images.execute("DELETE FROM images WHERE id NOT IN (SELECT id FROM images WHERE status = 'queued' LIMIT 2)")
    photos.control.delete(photos.control.keys())
    _, summary, verdict = judged(photos, "1")
    assert (summary.metrics["missing_original"], verdict) == (2, Verdict.HOLD)


def test_says_by_the_figures_whether_the_setting_or_somebody_removed_the_originals(photos):
    there = [photos.add("ready") for _ in range(4)]
    lost = [photos.add("ready") for _ in range(5)] + [photos.add("processing")]
    photos.images.execute("DELETE FROM images WHERE NOT id = ANY (%s::uuid[])", [[each.id for each in there + lost]])

    def told(gone: list) -> str:
        photos.control.delete([each.original for each in gone])
        return next(each for each in judge(photos.scan(), [], GATES).reasons if each.startswith("missing_original"))

    some = told(lost)
    assert "the originals of 4 other images are there, so bucket and endpoint are right: find out who" in some
    assert some.endswith(". Left alone, as they are in processing: 1")
    everything = told(there)
    assert "Check endpoint_url and bucket_name" in everything
    assert "other images are there" not in everything


def test_one_row_in_a_bucket_that_shows_the_others_is_marked(synced):
    (image,) = changed(synced, 1)
    assert sync(synced).result["updated"] == 1
    assert synced.table()[image.id]["status"] == "error"


# -- a refusal lasts


def test_refusal_ends_when_the_objects_are_there_again(synced):
    keys = synced.control.keys()
    synced.control.delete(keys)
    with pytest.raises(SyncFailed):
        sync(synced, mode="full")
    synced.control.put(keys[: len(keys) // 2])
    with pytest.raises(SyncFailed, match="a sync was refused"):
        sync(synced)
    synced.control.put(keys)
    (image,) = changed(synced, 1)
    assert sync(synced).result["updated"] == 1
    assert synced.table()[image.id]["status"] == "error"
    synced.control.delete(keys)
    with pytest.raises(SyncFailed, match="missing_original"):
        sync(synced, mode="full")


@pytest.mark.parametrize("decision", ["resume", "repair"])
def test_refusal_ends_by_a_decision(synced, decision):
    changed(synced, 7)
    with pytest.raises(SyncFailed, match="missing_original is 7 of 7 looked_at, above its limit 5"):
        sync(synced)
    held, _, verdict = judged(synced, "1")
    assert verdict is Verdict.HOLD
    decide(held, decision)
    resume(held)
    # Nothing was repaired here, and a sync does not do what a person has not done.
    assert sync(synced).result["updated"] == 0
    changed(synced, 7)
    with pytest.raises(SyncFailed, match="missing_original is 7 of 7"):
        sync(synced)


def test_refusal_from_a_time_that_has_not_come_yet_ends_by_a_decision_too(synced):
    """The clock was ahead when the sync was refused."""
    changed(synced, 7)
    with pytest.raises(SyncFailed, match="missing_original is 7 of 7"):
        sync(synced)
    synced.conn.execute("UPDATE storage.breaker SET at = at + interval '1 year'")
    held, _, _ = judged(synced, "1")
    decide(held, "resume")
    resume(held)
    assert sync(synced).result["updated"] == 0


@pytest.mark.parametrize("number", [0, 3])
def test_refusal_ends_with_a_whole_scan_that_passes_and_repairs_nothing(synced, number):
    """Of all images it is a small share, so that nobody is asked: else each sync would be refused for good."""
    changed(synced, 6)
    with pytest.raises(SyncFailed, match="missing_original is 6 of 6"):
        sync(synced)
    scanned, summary, verdict = judged(synced, "1")
    assert (summary.plan.update, verdict) == (6, Verdict.PASS)
    resume(scanned)
    before, later = synced.table(), changed(synced, number)
    assert sync(synced).result["updated"] == number
    marked = {id_ for id_, row in synced.table().items() if row["error"]} - {
        id_ for id_, row in before.items() if row["error"]
    }
    assert marked == {image.id for image in later}


def test_unproven_images_that_a_scan_has_named_refuse_no_sync(synced):
    lost = changed(synced, 6, laid=True)
    synced.control.put_empty([image.original for image in lost])
    with pytest.raises(SyncFailed, match="6 of 6 images could not be proven"):
        sync(synced)
    scanned, summary, _ = judged(synced, "1")
    assert summary.metrics["empty_object"] == 6
    resume(scanned)
    changed(synced, 2, laid=True)
    assert sync(synced).result["checked"] == 8


def watermark(photos: Photos):
    return sync_log.state(photos.conn, "storage", "images").watermark


@pytest.mark.usefixtures("by_heads")
@pytest.mark.parametrize(
    "fault", [Fault("status", status=403), Fault("status", status=503), Fault("hide")], ids=["403", "503", "404"]
)
@pytest.mark.parametrize("number", [1, 25])
def test_images_that_a_scan_has_proven_keep_no_sync_from_going_on(synced, monkeypatch, fault, number):
    """Their own addresses never give an answer, but the listing shows them, so no scan names them as unproven."""
    odd = changed(synced, number, laid=True)
    for image in odd:
        synced.control.fault(replace(fault, operation="head", key=image.original, keys=(image.original,), times=None))
    mark = watermark(synced)
    for _ in range(2):
        with pytest.raises(SyncFailed, match=f"^{number} "):
            sync(synced)
    monkeypatch.setattr(look, "LIST_COST", 0)
    scanned, summary, verdict = judged(synced, "1")
    assert (summary.metrics["unproven"], summary.incomplete, verdict) == (0, "", Verdict.PASS)
    resume(scanned)
    monkeypatch.setattr(look, "LIST_COST", 1_000_000)
    [lost] = changed(synced, 1)
    assert sync(synced).result["updated"] == 1
    assert synced.table()[lost.id]["status"] == "error"
    assert watermark(synced) > mark
    # What the scan has seen is proven, and no later change.
    synced.touch(odd[0].id, updated_at=images.clock(synced.images) - 0.6 * MINUTES)
    synced.conn.execute(
        "UPDATE confidence.forensic_run SET summary = jsonb_set(summary, '{telemetry,started}', %s)",
        [Jsonb((images.clock(synced.images) - 2 * MINUTES).isoformat())],
    )
    with pytest.raises(SyncFailed, match=f"^{number} "):
        sync(synced)


@pytest.mark.usefixtures("by_heads")
@pytest.mark.parametrize("kept", ["cut off", "expired"])
def test_scan_proves_nothing_to_a_sync_if_its_kept_plan_is_not_whole(synced, monkeypatch, kept):
    """It has found two images to be missing. Their objects' own addresses give no answer."""
    if kept == "cut off":
        monkeypatch.setattr(planned_changes, "MOST", 1)
    odd = changed(synced, 2)
    monkeypatch.setattr(look, "LIST_COST", 0)
    scanned, summary, verdict = judged(synced, "1")
    assert (summary.metrics["missing_original"], verdict) == (2, Verdict.PASS)
    resume(scanned)
    if kept == "expired":
        synced.conn.execute("UPDATE confidence.forensic_run SET scanned_at = scanned_at - interval '7 days'")
        synced.conn.execute("DELETE FROM confidence.planned_change")
    monkeypatch.setattr(look, "LIST_COST", 1_000_000)
    for image in odd:
        synced.control.fault(Fault("status", "head", key=image.original, status=403, times=None))
    with pytest.raises(SyncFailed, match=r"^2 images could not be looked at"):
        sync(synced)
    assert watermark(synced) < min(synced.rows()[image.id][2] for image in odd)


@pytest.mark.usefixtures("by_heads")
def test_other_images_are_read_only_if_many_looks_have_no_answer(synced, monkeypatch):
    """Each sync read them, with the ids of all that it had checked in the statement."""
    read, asked = images.keys_of_others, []
    monkeypatch.setattr(images, "keys_of_others", lambda *given, **how: asked.append(1) or read(*given, **how))
    for status, number in [(500, 19), (403, 25)]:
        for each in range(number):
            url = f"s3://images/aa/{number}/{each}.jpg"
            synced.add("queued", laid=False, age=MINUTES, original_url=url)
            synced.control.fault(Fault("status", "head", key=url[len("s3://images/") :], status=status, times=None))
        with pytest.raises(SyncFailed):
            sync(synced)
        assert bool(asked) == (number >= 20)
        synced.control.clear()
        synced.images.execute("DELETE FROM images WHERE original_url LIKE 's3://images/aa/%'")


def test_other_images_are_found_behind_many_that_are_left_out(synced, monkeypatch):
    """Wherever the search begins, and however few are read at once."""
    monkeypatch.setattr(images, "OTHERS_READ", 3)
    all_ = sorted(synced.rows())
    now = images.clock(synced.images)
    found = set()
    for start in (all_[0], all_[60], all_[-1]):
        left_in = {all_[0], all_[59], all_[61], all_[-1]}
        without = set(all_) - left_in
        how = {"before": now, "without": without.intersection, "start": start}
        keys = images.keys_of_others(synced.images, synced.context.bucket, limit=10, **how)
        assert len(keys) >= 1
        found.add(tuple(keys))
        assert set(images.keys_of_others(synced.images, synced.context.bucket, limit=1, **how)) < set(keys)
    assert len(found) == 1


@pytest.mark.usefixtures("by_heads")
def test_images_whose_objects_are_all_refused_keep_no_others_from_being_asked_for(synced):
    """Such as the first ones of an hour, all in one folder with rights of its own."""
    for number in range(25):
        synced.add("queued", laid=False, age=MINUTES, original_url=f"s3://images/aa/{number}.jpg")
        synced.control.fault(Fault("status", "head", key=f"aa/{number}.jpg", status=403, times=None))
    changed(synced, 20, laid=True)
    changed(synced, 1)
    synced.control.reset_counters()
    with pytest.raises(SyncFailed, match="25 of 46 images could not be proven"):
        sync(synced)
    assert synced.control.counters().total("head") >= 46


def test_refusal_ends_with_a_whole_scan_that_passes(synced):
    lost = changed(synced, 6)
    with pytest.raises(SyncFailed):
        sync(synced)
    for image in lost:
        synced.control.put(image.keys)
    scanned, _, verdict = judged(synced, "1")
    assert verdict is Verdict.PASS
    resume(scanned)
    assert sync(synced).result["checked"] == 6


def test_scan_of_a_part_ends_no_refusal(synced):
    changed(synced, 6)
    with pytest.raises(SyncFailed):
        sync(synced)
    scanned, _, verdict = judged(synced, "1", status="ready")
    assert verdict is Verdict.PASS
    resume(scanned)
    with pytest.raises(SyncFailed, match="a sync was refused"):
        sync(synced)


# -- slices


def test_few_missing_in_each_sync_add_up(synced):
    """Other images have their objects; of the new ones none ever gets there."""
    changed(synced, 5)
    assert sync(synced).result["updated"] == 5
    later = changed(synced, 1)
    with pytest.raises(SyncFailed, match=r"missing_lately is 6 of \d+ looked_at_lately") as refused:
        sync(synced)
    assert "Missing now: 1, marked by unattended runs lately: 5. That is data loss in small" in str(refused.value)
    assert synced.table()[later[0].id]["status"] == "queued"


def told_lately(summary) -> str:
    """What the gate says of `missing_lately`."""
    return next(each for each in judge(summary, [], GATES).reasons if each.startswith("missing_lately"))


def test_loss_at_once_is_no_slice(photos):
    """Nothing has been marked, in any run before."""
    for number in range(2):
        resume(judged(photos, f"{number}")[0])
    photos.control.delete([photos.add("ready").staged for _ in range(30)])
    summary = photos.scan()
    assert (summary.metrics["missing_staged"], summary.metrics["missing_lately"]) == (30, 30)
    assert summary.metrics["marked_lately"] == 0
    assert told_lately(summary).endswith("Missing now: 30, marked by unattended runs lately: 0")


def test_loss_at_once_after_a_few_were_marked_is_no_slice(photos):
    photos.add("queued", laid=False)
    one, summary, _ = judged(photos, "1")
    one.repair(summary)
    resume(one)
    photos.control.delete([photos.add("ready").staged for _ in range(30)])
    told = told_lately(judged(photos, "2")[1])
    assert told.endswith("Missing now: 30, marked by unattended runs lately: 1")


def test_few_missing_among_many_that_are_there_do_not_add_up(synced):
    for _ in range(4):
        changed(synced, 40, laid=True)
        changed(synced, 2)
        assert sync(synced).result["updated"] == 2


def test_whole_scan_that_passes_starts_the_count_anew(synced):
    changed(synced, 5)
    sync(synced)
    scanned, _, verdict = judged(synced, "1")
    assert verdict is Verdict.PASS
    resume(scanned)
    changed(synced, 5)
    assert sync(synced).result["updated"] == 5


def test_marks_that_were_rolled_back_do_not_count(synced):
    lost = changed(synced, 5)
    done = sync(synced)
    copy = ImagesCopy(synced.conn, synced.images)
    roll_back(synced.conn, copy, done.sync_id, run="x/1", reason="test", dry_run=False)
    for image in lost:
        synced.control.put(image.keys)
    changed(synced, 5)
    assert sync(synced).result["updated"] == 5


def test_parts_add_up(photos):
    """A mass loss among the queued images, repaired by hand in portions of three."""
    photos.images.execute("DELETE FROM images WHERE status = 'queued'")
    for _ in range(12):
        photos.add("queued", laid=False)
    verdicts, cursor = [], None
    for number in range(3):
        part, summary, verdict = judged(photos, f"{number}", status="queued", limit=3, cursor=cursor)
        verdicts.append(verdict)
        cursor = summary.telemetry["next_cursor"]
        if verdict is Verdict.PASS:
            part.repair(summary, status="queued", limit=3)
            resume(part)
    assert verdicts == [Verdict.PASS, Verdict.HOLD, Verdict.HOLD]
    assert photos.audited() == 3


def test_nights_add_up(photos):
    """Each night loses 4 % of the images: the second one would make it 8."""
    first = [photos.add("queued", laid=False) for _ in range(5)]
    one, summary, verdict = judged(photos, "1")
    assert verdict is Verdict.PASS
    one.repair(summary)
    resume(one)
    for _ in range(5):
        photos.add("queued", laid=False)
    two, summary, verdict = judged(photos, "2")
    assert (summary.metrics["missing_original"], summary.metrics["missing_lately"]) == (5, 10)
    assert verdict is Verdict.HOLD
    # What a person decides is no slice.
    decide(two, "repair")
    two.repair(summary)
    resume(two)
    photos.add("queued", laid=False)
    three, summary, verdict = judged(photos, "3")
    assert (summary.metrics["missing_lately"], verdict) == (1, Verdict.PASS)
    assert len(first) == 5
    resume(three)


def test_nothing_missing_is_no_slice(photos):
    for _ in range(5):
        photos.add("queued", laid=False)
    one, summary, _ = judged(photos, "1")
    one.repair(summary)
    resume(one)
    _, summary, verdict = judged(photos, "2")
    assert (summary.metrics["missing_lately"], verdict) == (0, Verdict.PASS)


def test_mass_change_is_not_accepted_by_a_resume(photos):
    """In a table of any size: else the next nightly repair would apply it unattended."""
    photos.images.execute("DELETE FROM images WHERE id NOT IN (SELECT id FROM images WHERE status = 'queued' LIMIT 4)")
    for _ in range(6):
        photos.add("queued", laid=False)
    one, _, verdict = judged(photos, "1")
    assert verdict is Verdict.HOLD
    decide(one, "resume")
    resume(one)
    assert judged(photos, "2")[2] is Verdict.HOLD
