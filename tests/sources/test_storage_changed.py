"""Images that the application changes while a check looks at their objects are not judged by what it saw."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from include.confidence.policy import Verdict, judge
from include.sources.storage import look
from include.sources.storage.images import ORIGINAL_MISSING, STAGED_MISSING
from tests.photos import Laid, Photos

LONG_AGO = "2025-05-05Z"
MANY = 12


def delete_softly(photos: Photos, laid: Laid) -> None:
    photos.touch(laid.id, deleted_at=LONG_AGO)


def delete(photos: Photos, laid: Laid) -> None:
    photos.images.execute("DELETE FROM images WHERE id = %s", [laid.id])


def move(photos: Photos, laid: Laid) -> None:
    """The objects have other keys now, and the row names them."""
    photos.control.put([f"moved/{key}" for key in laid.keys])
    urls = [f"s3://{photos.context.bucket.name}/moved/{key}" for key in laid.keys]
    photos.touch(laid.id, original_url=urls[0], staged_url=urls[1])


@pytest.fixture(params=[delete_softly, delete, move])
def busy(request: pytest.FixtureRequest, photos: Photos, by_heads: None, monkeypatch: pytest.MonkeyPatch) -> Photos:
    """Photos of which many change between the reading of their rows and the first look at their objects."""
    photos.sync()
    laid = [photos.add(age=timedelta(minutes=20)) for _ in range(MANY)]
    change: Callable[[Photos, Laid], None] = request.param
    looked = look.look_at_images

    def late(*given, **options):
        for each in laid:
            change(photos, each)
        photos.control.delete([key for each in laid for key in each.keys])
        looked(*given, **options)

    monkeypatch.setattr(look, "look_at_images", late)
    return photos


def test_are_no_loss_in_a_scan(busy):
    summary = busy.scan()
    account = summary.accounts["images"]
    assert (summary.incomplete, account.wrong_sum, account.differing, account.young) == ("", "", 0, MANY)
    assert (summary.plan.update, summary.metrics["rows_young"], summary.metrics["unproven"]) == (0, MANY, 0)
    assert judge(summary, [], busy.context.source.entities[0].gates).verdict is Verdict.PASS


def test_are_no_loss_in_a_sync(busy, monkeypatch):
    """It marks nothing and refuses nothing, and neither does the next one."""
    busy.sync()
    monkeypatch.undo()
    busy.sync()
    errors = {error for _, error, *_ in busy.rows().values()}
    assert errors.isdisjoint({ORIGINAL_MISSING, STAGED_MISSING})
