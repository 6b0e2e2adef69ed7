"""The crash between the commits of two databases: the next task to open the source makes the log true."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from include.api.errors import TryLater
from include.sources.storage import SOURCE
from include.sources.storage.undo import ImagesCopy
from include.warehouse import fence, sync_log
from include.warehouse.rollback import roll_back
from tests.photos import RUN, Photos

LOG = "SELECT state, rows_updated, error, copy_transaction FROM confidence.sync_log WHERE sync_id = %s"
NEWEST = "SELECT max(sync_id) FROM confidence.sync_log"


class CutOff(psycopg.Connection):
    """The application's database, whose session ends right at the commit: before it, or once it is done."""

    before: bool

    @contextmanager
    def transaction(self, *args: object, **kwargs: object) -> Iterator[object]:
        savepoint = self.info.transaction_status is TransactionStatus.INTRANS
        with super().transaction(*args, **kwargs) as transaction:
            yield transaction
            if self.before and not savepoint:
                self.end()
        if not self.before and not savepoint:
            self.end()
            raise psycopg.OperationalError("the connection broke")

    def end(self) -> None:
        with psycopg.connect(self.info.dsn, password=self.info.password, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [self.info.backend_pid])


class Known:
    """The connections of a photos that is open already."""

    def __init__(self, photos: Photos):
        self.photos = photos

    def bucket(self, name: str) -> AbstractContextManager:
        assert name == "storage"
        return nullcontext(self.photos.context.bucket)

    def database(self, name: str) -> AbstractContextManager:
        assert name == "images_db"
        return nullcontext(self.photos.images)


@contextmanager
def cut_off(photos: Photos, url: str, *, before: bool) -> Iterator[Photos]:
    with CutOff.connect(url, autocommit=True) as images:
        images.before = before
        yield replace(photos, context=replace(photos.context, images=images))


def reopen(photos: Photos) -> None:
    with SOURCE.open(photos.conn, RUN, Known(photos)):
        pass


def die(photos: Photos, sync_id: int) -> None:
    """As if the process itself had ended there, and nobody had written into the log that it failed."""
    photos.conn.execute(
        "UPDATE confidence.sync_log SET state = 'running', error = NULL, finished_at = NULL WHERE sync_id = %s",
        [sync_id],
    )


def newest(photos: Photos) -> int:
    return photos.conn.execute(NEWEST).fetchone()[0]


def log_of(photos: Photos, sync_id: int) -> tuple:
    return photos.conn.execute(LOG, [sync_id]).fetchone()


@pytest.fixture
def lost(photos: Photos) -> list:
    return [photos.add("queued", laid=False) for _ in range(3)]


@pytest.mark.drill("killed-repair")
@pytest.mark.parametrize("dead", [False, True], ids=["task failed", "process died"])
@pytest.mark.parametrize("before", [True, False], ids=["aborted", "committed"])
def test_repair_cut_off_at_its_commit(photos, images_url, lost, before, dead):
    untouched, summary = photos.table(), photos.scan()
    with cut_off(photos, images_url, before=before) as broken, pytest.raises(psycopg.OperationalError):
        broken.repair(summary)
    sync_id = newest(photos)
    # The audit is committed first, so that nothing is written that isn't in it.
    assert photos.audited() == 3
    if dead:
        die(photos, sync_id)
    reopen(photos)
    if before:
        assert log_of(photos, sync_id) == ("failed", 0, "cut off before its commit, nothing was written", None)
        assert (photos.table(), photos.audited()) == (untouched, 0)
        assert photos.repair(summary)[1]["images"].updated == 3
    else:
        assert log_of(photos, sync_id) == ("success", 3, None, None)
        assert photos.changed(untouched).keys() == {image.id for image in lost}
        assert photos.repair(summary)[1]["images"].updated == 0
        fence.resume(photos.conn, SOURCE.name, RUN)
        copy = ImagesCopy(photos.conn, photos.images)
        roll_back(photos.conn, copy, sync_id, run="x/1", reason="test", dry_run=False)
        assert photos.table() == untouched


@pytest.mark.drill("killed-sync")
@pytest.mark.parametrize("before", [True, False], ids=["aborted", "committed"])
def test_sync_cut_off_at_its_commit_puts_the_watermark_right(photos, images_url, before):
    photos.sync()
    state = sync_log.state(photos.conn, SOURCE.name, "images")
    lost = photos.add("queued", laid=False)
    photos.touch(lost.id, updated_at=photos.images.execute("SELECT now() - interval '20 minutes'").fetchone()[0])
    with cut_off(photos, images_url, before=before) as broken, pytest.raises(psycopg.OperationalError):
        broken.sync()
    moved = sync_log.state(photos.conn, SOURCE.name, "images")
    assert moved.watermark > state.watermark
    reopen(photos)
    assert sync_log.state(photos.conn, SOURCE.name, "images") == (state if before else moved)
    assert photos.sync().counts["images"].updated == (1 if before else 0)
    assert photos.table()[lost.id]["status"] == "error"


@pytest.mark.drill("killed-rollback")
@pytest.mark.parametrize("before", [True, False], ids=["aborted", "committed"])
def test_rollback_cut_off_at_its_commit(photos, images_url, lost, before):
    untouched = photos.table()
    sync_id, _ = photos.repair(photos.scan())
    marked = photos.table()
    fence.resume(photos.conn, SOURCE.name, RUN)
    with cut_off(photos, images_url, before=before) as broken:
        copy = ImagesCopy(photos.conn, broken.images)
        with pytest.raises(psycopg.OperationalError):
            roll_back(photos.conn, copy, sync_id, run="x/1", reason="test", dry_run=False)
    with SOURCE.copy(photos.conn, Known(photos)) as copy:
        assert photos.table() == (marked if before else untouched)
        assert photos.audited() == (3 if before else 6)
        if before:
            roll_back(photos.conn, copy, sync_id, run="x/1", reason="test", dry_run=False)
    assert photos.table() == untouched


def test_warehouse_that_fails_at_its_commit_leaves_the_images(photos, lost, warehouse):
    """The other order: the audit's database goes first, and takes the images' transaction with it."""
    untouched, summary = photos.table(), photos.scan()
    with CutOff.connect(warehouse, autocommit=True) as broken_conn:
        broken_conn.before = False
        broken_conn.end()
        broken = replace(photos, context=replace(photos.context, conn=broken_conn))
        with pytest.raises(psycopg.OperationalError):
            broken.repair(summary)
    photos.conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no commit'; END $$;"
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON confidence.change_log DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(psycopg.errors.RaiseException, match="no commit"):
        photos.repair(summary)
    assert (photos.table(), photos.audited()) == (untouched, 0)
    assert log_of(photos, newest(photos))[0] == "failed"
    reopen(photos)


def test_commit_that_is_still_under_way_is_waited_for(photos, images_url, lost):
    sync_id, _ = photos.repair(photos.scan())
    with psycopg.connect(images_url) as other:
        (number,) = other.execute("SELECT pg_current_xact_id()::text").fetchone()
        photos.conn.execute(
            "UPDATE confidence.sync_log SET copy_transaction = %s WHERE sync_id = %s", [number, sync_id]
        )
        die(photos, sync_id)
        with pytest.raises(TryLater, match=f"sync_id {sync_id} is still being committed"):
            reopen(photos)
        assert (log_of(photos, sync_id)[0], photos.audited()) == ("running", 3)
    reopen(photos)
    assert log_of(photos, sync_id) == ("success", 3, None, None)


@pytest.mark.drill("killed-repair")
@pytest.mark.parametrize("number", [3, 10**9], ids=["long ago", "of the server before a restore"])
def test_commit_that_is_forgotten_is_left_to_a_person(photos, lost, number):
    sync_id, _ = photos.repair(photos.scan())
    photos.conn.execute("UPDATE confidence.sync_log SET copy_transaction = %s WHERE sync_id = %s", [number, sync_id])
    die(photos, sync_id)
    with pytest.raises(RuntimeError, match=f"can't tell any more whether sync_id {sync_id} \\(transaction {number}\\)"):
        reopen(photos)
    assert photos.audited() == 3


def test_log_that_is_true_is_left_alone(photos, lost):
    sync_id, _ = photos.repair(photos.scan())
    before = log_of(photos, sync_id)
    reopen(photos)
    assert log_of(photos, sync_id) == before
