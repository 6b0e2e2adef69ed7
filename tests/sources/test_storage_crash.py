"""The crash between the commits of two databases: the next task to open the source makes the log true."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import psycopg
import pytest

from include.api.errors import TryLater
from include.sources.storage import SOURCE
from include.sources.storage.undo import ImagesCopy
from include.warehouse import fence, sync_log
from include.warehouse.rollback import roll_back
from tests.gallery import RUN, Gallery

LOG = "SELECT state, rows_updated, error, copy_transaction FROM confidence.sync_log WHERE sync_id = %s"
NEWEST = "SELECT max(sync_id) FROM confidence.sync_log"


class CutOff(psycopg.Connection):
    """The application's database, whose session ends right at the commit: before it, or once it is done."""

    before: bool

    @contextmanager
    def transaction(self, *args: object, **kwargs: object) -> Iterator[object]:
        with super().transaction(*args, **kwargs) as transaction:
            yield transaction
            if self.before:
                self.end()
        if not self.before:
            self.end()
            raise psycopg.OperationalError("the connection broke")

    def end(self) -> None:
        with psycopg.connect(self.info.dsn, password=self.info.password, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [self.info.backend_pid])


class Known:
    """The connections of a gallery that is open already."""

    def __init__(self, gallery: Gallery):
        self.gallery = gallery

    def bucket(self, name: str) -> AbstractContextManager:
        assert name == "storage"
        return nullcontext(self.gallery.context.bucket)

    def database(self, name: str) -> AbstractContextManager:
        assert name == "images_db"
        return nullcontext(self.gallery.images)


@contextmanager
def cut_off(gallery: Gallery, url: str, *, before: bool) -> Iterator[Gallery]:
    with CutOff.connect(url, autocommit=True) as images:
        images.before = before
        yield replace(gallery, context=replace(gallery.context, images=images))


def reopen(gallery: Gallery) -> None:
    with SOURCE.open(gallery.conn, RUN, Known(gallery)):
        pass


def die(gallery: Gallery, sync_id: int) -> None:
    """As if the process itself had ended there, and nobody had written into the log that it failed."""
    gallery.conn.execute(
        "UPDATE confidence.sync_log SET state = 'running', error = NULL, finished_at = NULL WHERE sync_id = %s",
        [sync_id],
    )


def newest(gallery: Gallery) -> int:
    return gallery.conn.execute(NEWEST).fetchone()[0]


def log_of(gallery: Gallery, sync_id: int) -> tuple:
    return gallery.conn.execute(LOG, [sync_id]).fetchone()


@pytest.fixture
def lost(gallery: Gallery) -> list:
    return [gallery.add("queued", laid=False) for _ in range(3)]


@pytest.mark.parametrize("dead", [False, True], ids=["task failed", "process died"])
@pytest.mark.parametrize("before", [True, False], ids=["aborted", "committed"])
def test_repair_cut_off_at_its_commit(gallery, images_url, lost, before, dead):
    untouched, summary = gallery.table(), gallery.scan()
    with cut_off(gallery, images_url, before=before) as broken, pytest.raises(psycopg.OperationalError):
        broken.repair(summary)
    sync_id = newest(gallery)
    # The audit is committed first, so that nothing is written that isn't in it.
    assert gallery.audited() == 3
    if dead:
        die(gallery, sync_id)
    reopen(gallery)
    if before:
        assert log_of(gallery, sync_id) == ("failed", 0, "cut off before its commit, nothing was written", None)
        assert (gallery.table(), gallery.audited()) == (untouched, 0)
        assert gallery.repair(summary)[1]["images"].updated == 3
    else:
        assert log_of(gallery, sync_id) == ("success", 3, None, None)
        assert gallery.changed(untouched).keys() == {image.id for image in lost}
        assert gallery.repair(summary)[1]["images"].updated == 0
        fence.resume(gallery.conn, SOURCE.name, RUN)
        copy = ImagesCopy(gallery.conn, gallery.images)
        roll_back(gallery.conn, copy, sync_id, run="x/1", reason="test", dry_run=False)
        assert gallery.table() == untouched


@pytest.mark.parametrize("before", [True, False], ids=["aborted", "committed"])
def test_sync_cut_off_at_its_commit_puts_the_watermark_right(gallery, images_url, before):
    gallery.sync()
    state = sync_log.state(gallery.conn, SOURCE.name, "images")
    lost = gallery.add("queued", laid=False)
    gallery.touch(lost.id, updated_at=gallery.images.execute("SELECT now() - interval '20 minutes'").fetchone()[0])
    with cut_off(gallery, images_url, before=before) as broken, pytest.raises(psycopg.OperationalError):
        broken.sync()
    moved = sync_log.state(gallery.conn, SOURCE.name, "images")
    assert moved.watermark > state.watermark
    reopen(gallery)
    assert sync_log.state(gallery.conn, SOURCE.name, "images") == (state if before else moved)
    assert gallery.sync().counts["images"].updated == (1 if before else 0)
    assert gallery.table()[lost.id]["status"] == "error"


@pytest.mark.parametrize("before", [True, False], ids=["aborted", "committed"])
def test_rollback_cut_off_at_its_commit(gallery, images_url, lost, before):
    untouched = gallery.table()
    sync_id, _ = gallery.repair(gallery.scan())
    marked = gallery.table()
    fence.resume(gallery.conn, SOURCE.name, RUN)
    with cut_off(gallery, images_url, before=before) as broken:
        copy = ImagesCopy(gallery.conn, broken.images)
        with pytest.raises(psycopg.OperationalError):
            roll_back(gallery.conn, copy, sync_id, run="x/1", reason="test", dry_run=False)
    with SOURCE.copy(gallery.conn, Known(gallery)) as copy:
        assert gallery.table() == (marked if before else untouched)
        assert gallery.audited() == (3 if before else 6)
        if before:
            roll_back(gallery.conn, copy, sync_id, run="x/1", reason="test", dry_run=False)
    assert gallery.table() == untouched


def test_warehouse_that_fails_at_its_commit_leaves_the_images(gallery, lost, warehouse):
    """The other order: the audit's database goes first, and takes the images' transaction with it."""
    untouched, summary = gallery.table(), gallery.scan()
    with CutOff.connect(warehouse, autocommit=True) as broken_conn:
        broken_conn.before = False
        broken_conn.end()
        broken = replace(gallery, context=replace(gallery.context, conn=broken_conn))
        with pytest.raises(psycopg.OperationalError):
            broken.repair(summary)
    gallery.conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no commit'; END $$;"
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON confidence.change_log DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(psycopg.errors.RaiseException, match="no commit"):
        gallery.repair(summary)
    assert (gallery.table(), gallery.audited()) == (untouched, 0)
    assert log_of(gallery, newest(gallery))[0] == "failed"
    reopen(gallery)


def test_commit_that_is_still_under_way_is_waited_for(gallery, images_url, lost):
    sync_id, _ = gallery.repair(gallery.scan())
    with psycopg.connect(images_url) as other:
        (number,) = other.execute("SELECT pg_current_xact_id()::text").fetchone()
        gallery.conn.execute(
            "UPDATE confidence.sync_log SET copy_transaction = %s WHERE sync_id = %s", [number, sync_id]
        )
        die(gallery, sync_id)
        with pytest.raises(TryLater, match=f"sync_id {sync_id} is still being committed"):
            reopen(gallery)
        assert (log_of(gallery, sync_id)[0], gallery.audited()) == ("running", 3)
    reopen(gallery)
    assert log_of(gallery, sync_id) == ("success", 3, None, None)


def test_commit_that_is_forgotten_is_left_to_a_person(gallery, lost):
    sync_id, _ = gallery.repair(gallery.scan())
    gallery.conn.execute("UPDATE confidence.sync_log SET copy_transaction = '3' WHERE sync_id = %s", [sync_id])
    die(gallery, sync_id)
    with pytest.raises(RuntimeError, match=f"can't tell any more whether sync_id {sync_id} \\(transaction 3\\)"):
        reopen(gallery)
    assert gallery.audited() == 3


def test_log_that_is_true_is_left_alone(gallery, lost):
    sync_id, _ = gallery.repair(gallery.scan())
    before = log_of(gallery, sync_id)
    reopen(gallery)
    assert log_of(gallery, sync_id) == before
