"""Two syncs of one source at once, as after a pool got two slots by hand, or a task was marked while it still ran.

The later one takes the staging tables over. If it dies then, the earlier one must not pass its watermark over changes
that are in no plan any more.
"""

from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from include.simulators.tekmetric import Mutation
from include.sources.base import SyncFailed
from include.sources.mirror import sync as mirror_sync
from include.sources.storage import repair
from include.sources.storage.images import IMAGES
from include.sources.tekmetric.tables import JOBS, REPAIR_ORDERS
from include.warehouse.pull import PullError
from include.warehouse.staging import Stage

from .tekmetric import EAST, order, settle, with_job


def another_begins(conn: psycopg.Connection, table, source_name: str) -> None:
    """What a second sync does first. Then it dies."""
    with psycopg.connect(conn.info.dsn, password=conn.info.password, autocommit=True) as other:
        Stage.open(other, table, source_name, "sync", "another run")


@pytest.mark.parametrize("table", [REPAIR_ORDERS, JOBS], ids=["records", "nested rows"])
def test_of_a_mirror_lose_nothing(loaded, conn, monkeypatch, table):
    id_ = with_job(loaded)
    settle(loaded)
    before = loaded.watermark(EAST)
    loaded.control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
    new = with_job(loaded)
    loaded.control.advance(600)
    look = mirror_sync.second_look

    def meanwhile(*args, **options):
        found = look(*args, **options)
        another_begins(conn, table, "tekmetric")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(mirror_sync, "second_look", meanwhile)
        with pytest.raises(SyncFailed, match="taken over by a later attempt"):
            loaded.sync()
    assert loaded.watermark(EAST) == before
    loaded.sync()
    assert order(conn, id_)["amount_paid"] == 4711
    assert order(conn, new)


def test_of_the_images_lose_nothing(photos, monkeypatch):
    photos.sync()
    lost = photos.add("queued", laid=False, age=timedelta(minutes=30))
    prove = repair.prove_again

    def meanwhile(*args, **options):
        prove(*args, **options)
        another_begins(photos.conn, IMAGES, "storage")

    state = "SELECT watermark FROM confidence.sync_state WHERE source = 'storage' AND partition = ''"
    before = photos.conn.execute(state).fetchone()
    again = replace(photos, context=replace(photos.context, run="storage_sync/again"))
    with monkeypatch.context() as patched:
        patched.setattr(repair, "prove_again", meanwhile)
        with pytest.raises(PullError, match="taken over by a later attempt"):
            again.sync()
    assert photos.conn.execute(state).fetchone() == before
    assert photos.rows()[lost.id][0] == "queued"
    photos.sync()
    assert photos.rows()[lost.id][0] == "error"
