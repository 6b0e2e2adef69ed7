"""An image that a run has marked gets its status back only if LIST and HEAD both show its objects."""

from datetime import timedelta

import pytest

from include.simulators.storage import Fault
from include.sources.storage import images
from include.warehouse import fence
from tests.photos import Laid


@pytest.mark.parametrize("way", ["head", "list"])
@pytest.mark.parametrize("how", ["sync", "scan"])
@pytest.mark.parametrize("first", ["lists first", "heads first"])
def test_no_image_is_healed_on_one_witness(photos, request, monkeypatch, way, how, first):
    """A cache in front of the store still answers about objects that are gone; or a listing is old."""
    lost = photos.add(laid=False)
    photos.repair(photos.scan())
    fence.resume(photos.conn, "storage", photos.context.run)
    assert photos.rows()[lost.id][0] == "error"
    later = images.clock(photos.images) + timedelta(hours=9)
    monkeypatch.setattr(images, "clock", lambda conn: later)
    if first == "heads first":
        request.getfixturevalue("by_heads")
    photos.control.fault(Fault("show", operation=way, keys=tuple(lost.keys), times=None))
    if how == "sync":
        assert photos.sync().result["healed"] == 0
    else:
        summary = photos.scan(heal=True)
        assert photos.repair(summary, heal=True)[1]["healed"].updated == 0
    assert photos.rows()[lost.id][0] == "error"


def marked(photos, monkeypatch) -> Laid:
    """An image that a run has marked; it is hours later."""
    lost = photos.add("queued", laid=False)
    photos.repair(photos.scan())
    fence.resume(photos.conn, "storage", photos.context.run)
    later = images.clock(photos.images) + timedelta(hours=9)
    monkeypatch.setattr(images, "clock", lambda conn: later)
    return lost


@pytest.mark.parametrize("how", ["sync", "scan"])
def test_no_image_is_healed_by_a_listing_if_its_own_address_gives_no_answer(photos, monkeypatch, how):
    """The listing is old. Another image is healed by both, so the store answers."""
    lost, back = marked(photos, monkeypatch), marked(photos, monkeypatch)
    photos.control.put(back.keys)
    photos.control.fault(
        Fault("show", operation="list", keys=tuple(lost.keys), times=None),
        Fault("status", operation="head", key=lost.original, status=403, times=None),
    )
    if how == "sync":
        assert photos.sync().result["healed"] == 1
    else:
        assert photos.repair(photos.scan(heal=True), heal=True)[1]["healed"].updated == 1
    assert (photos.rows()[lost.id][0], photos.rows()[back.id][0]) == ("error", "queued")


@pytest.mark.parametrize("url", ["https://photos.s3.amazonaws.com/a.jpg", "no url", None])
@pytest.mark.parametrize("first", ["lists first", "heads first"])
def test_no_image_is_healed_if_the_object_that_it_missed_can_no_longer_be_looked_for(
    photos, request, monkeypatch, url, first
):
    """A person has moved it to another bucket, or broken its url, and updated_at stayed."""
    lost = marked(photos, monkeypatch)
    if first == "heads first":
        request.getfixturevalue("by_heads")
    photos.touch(lost.id, original_url=url, updated_at=photos.rows()[lost.id][2])
    assert photos.sync().result["healed"] == 0
    assert photos.rows()[lost.id][0] == "error"
