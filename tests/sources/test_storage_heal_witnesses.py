"""An image that a run has marked gets its status back only if LIST and HEAD both show its objects."""

from datetime import timedelta

import pytest

from include.simulators.storage import Fault
from include.sources.storage import images
from include.warehouse import fence


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
