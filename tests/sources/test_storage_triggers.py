"""The application's database makes something else of what is written: it is read back, audited, and never believed."""

from datetime import timedelta

import psycopg
import pytest

from include.api.errors import TryLater
from include.sources.base import SyncFailed
from include.sources.storage import SOURCE, update
from include.sources.storage.undo import ImagesCopy
from include.warehouse import fence, sync_log
from include.warehouse.rollback import RollbackRefused, roll_back
from include.warehouse.sync_log import Counts
from tests.photos import RUN, Photos

HALF_AN_HOUR = timedelta(minutes=30)

# What triggers of an application do to a row, and when they do it.
TOUCH = "NEW.updated_at := '2030-01-01Z'; RETURN NEW;"
SAY = "NEW.error := 'storage: ' || NEW.error; RETURN NEW;"
KEEP_STATUS = "NEW.status := OLD.status; RETURN NEW;"
IGNORE = "RETURN NULL;"
RAISE_AGAIN = "UPDATE images SET status = OLD.status WHERE id = NEW.id AND status = 'error'; RETURN NULL;"
BEFORE, AFTER = "BEFORE", "AFTER"


def trigger(photos: Photos, body: str, when: str = BEFORE, *, deferred: bool = False, condition: str = "true") -> None:
    photos.images.execute(
        f"CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"
        f" CREATE {'CONSTRAINT ' * deferred}TRIGGER meddle {when} UPDATE ON images"
        f" {'DEFERRABLE INITIALLY DEFERRED ' * deferred}FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION meddle()"
    )


def undo(photos: Photos, sync_id: int, **options: bool):
    fence.resume(photos.conn, SOURCE.name, RUN)
    options = {"dry_run": False} | options
    copy = ImagesCopy(photos.conn, photos.images)
    return roll_back(photos.conn, copy, sync_id, run="warehouse_rollback/test", reason="test", **options)


def checks(photos: Photos, summary, sync_id: int) -> dict[str, bool]:
    return {check.figure: check.worse for check in SOURCE.verify(photos.context, [summary], sync_id)}


@pytest.fixture
def lost(photos: Photos) -> list:
    return [photos.add("queued", laid=False) for _ in range(3)]


def test_time_that_the_database_sets_is_what_is_audited_and_undone(photos, lost):
    before = photos.table()
    trigger(photos, TOUCH)
    summary = photos.scan()
    sync_id, counts = photos.repair(summary)
    assert counts["images"] == Counts(updated=3)
    assert not any(checks(photos, summary, sync_id).values())
    marked = photos.table()
    undone = undo(photos, sync_id)
    assert undone.conflicts == ()
    assert {id_: columns.keys() for id_, columns in photos.changed(before).items()} == {
        image.id: {"updated_at"} for image in lost
    }
    # The rollback is undone by what it has left, too.
    assert undo(photos, undone.sync_id).conflicts == ()
    assert photos.table() == marked


@pytest.mark.parametrize(
    ("body", "when", "deferred"),
    [
        (SAY, BEFORE, False),
        (KEEP_STATUS, BEFORE, False),
        (IGNORE, BEFORE, False),
        (RAISE_AGAIN, AFTER, False),
        (RAISE_AGAIN, AFTER, True),
    ],
    ids=["other error", "status kept", "not written", "put back", "put back at the commit"],
)
def test_status_that_the_database_does_not_take_is_told(photos, lost, body, when, deferred):
    """Of one image of three: the others are written."""
    trigger(photos, body, when, deferred=deferred, condition=f"OLD.id = '{lost[1].id}'")
    before = photos.table()
    summary = photos.scan()
    sync_id, counts = photos.repair(summary)
    assert counts["images"] == Counts(updated=2, failed=1)
    assert checks(photos, summary, sync_id)["planned_changes_open"]
    # Whatever became of the row, the audit knows.
    photos.images.execute("DROP TRIGGER meddle ON images")
    undo(photos, sync_id)
    assert photos.table() == before


SECRET = "a word of the row"
REFUSE = f"RAISE EXCEPTION 'not this one' USING DETAIL = '{SECRET}';"


@pytest.mark.parametrize("deferred", [None, False, True], ids=["constraint", "at once", "at the commit"])
def test_image_that_the_database_refuses_with_an_error_is_told(photos, lost, caplog, deferred):
    """The others are written, and the message quotes nothing of the row."""
    refused = lost[1].id
    photos.touch(refused, prompt=SECRET, updated_at=photos.table()[refused]["updated_at"])
    if deferred is None:
        photos.images.execute(f"ALTER TABLE images ADD CONSTRAINT archived CHECK (id <> '{refused}' OR error IS NULL)")
    else:
        trigger(photos, REFUSE, AFTER, deferred=deferred, condition=f"OLD.id = '{refused}'")
    before = photos.table()
    summary = photos.scan()
    sync_id, counts = photos.repair(summary)
    assert counts["images"] == Counts(updated=2, failed=1)
    assert checks(photos, summary, sync_id)["planned_changes_open"]
    assert photos.changed(before).keys() == {image.id for image in lost} - {refused}
    [told] = [record.getMessage() for record in caplog.records if refused in record.getMessage()]
    assert ("CheckViolation, constraint archived" if deferred is None else "RaiseException") in told
    assert SECRET not in caplog.text
    if deferred is not None:
        photos.images.execute("DROP TRIGGER meddle ON images")
    undo(photos, sync_id)
    assert photos.table() == before


def counted(monkeypatch) -> list[int]:
    """For each statement that writes, of how many images it is."""
    statements = []
    at_once = update._update_at_once
    monkeypatch.setattr(
        update, "_update_at_once", lambda conn, rows: statements.append(len(rows)) or at_once(conn, rows)
    )
    return statements


def test_images_that_the_database_refuses_are_found_by_halves(photos, monkeypatch):
    photos.control.put(photos.add("queued").keys)
    lost = [photos.add("queued", laid=False, age=HALF_AN_HOUR) for _ in range(32)]
    refused = {lost[3].id, lost[20].id}
    trigger(photos, REFUSE, condition=f"OLD.id IN ('{lost[3].id}', '{lost[20].id}')")
    summary = photos.scan()
    statements = counted(monkeypatch)
    assert photos.repair(summary)[1]["images"] == Counts(updated=30, failed=2)
    assert {image.id for image in lost if photos.table()[image.id]["status"] == "queued"} == refused
    assert len(statements) <= 2 * 2 * 5 + 1


@pytest.mark.parametrize(
    "code",
    [
        *("undefined_column", "read_only_sql_transaction", "insufficient_privilege"),
        *("deadlock_detected", "out_of_memory", "internal_error"),
    ],
)
def test_error_that_concerns_all_images_ends_the_repair_at_once(photos, monkeypatch, code):
    """However many they are: no half of them could be written, and the rows would stay locked meanwhile."""
    for _ in range(5):
        photos.add("queued", laid=False)
    trigger(photos, f"RAISE EXCEPTION 'all' USING ERRCODE = '{code}';")
    before, summary, statements = photos.table(), photos.scan(), counted(monkeypatch)
    with pytest.raises(psycopg.Error, match="all"):
        photos.repair(summary)
    assert statements == [5]
    assert (photos.table(), photos.audited()) == (before, 0)


def test_column_that_is_gone_ends_the_repair_at_once(photos, lost, monkeypatch):
    trigger(photos, "NEW.no_such_column := 1; RETURN NEW;")
    before, summary, statements = photos.table(), photos.scan(), counted(monkeypatch)
    with pytest.raises(psycopg.errors.UndefinedColumn):
        photos.repair(summary)
    assert (statements, photos.table()) == ([3], before)


def test_image_whose_rights_alone_are_lacking_is_told(photos, lost):
    """Row level security may refuse one. If the error of all images together is another one, it is no right to all."""
    trigger(photos, REFUSE, condition=f"OLD.id = '{lost[0].id}'")
    photos.images.execute(
        "CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'insufficient_privilege'; END $$;"
        " CREATE CONSTRAINT TRIGGER forbid AFTER UPDATE ON images DEFERRABLE INITIALLY DEFERRED"
        f" FOR EACH ROW WHEN (OLD.id = '{lost[2].id}') EXECUTE FUNCTION forbid()"
    )
    assert photos.repair(photos.scan())[1]["images"] == Counts(updated=1, failed=2)


def test_repair_of_which_image_after_image_is_refused_ends(photos, monkeypatch, caplog):
    """Such as by a trigger that is broken: it does not go on for minutes, and is no success."""
    monkeypatch.setattr(update, "MOST_REFUSED", 5)
    for _ in range(40):
        photos.add("queued", laid=False)
    trigger(photos, REFUSE)
    before, summary, statements = photos.table(), photos.scan(), counted(monkeypatch)
    with pytest.raises(psycopg.errors.RaiseException):
        photos.repair(summary)
    assert len(statements) < 20
    assert (photos.table(), photos.audited()) == (before, 0)
    assert "so nothing is written: look for a trigger or a constraint" in caplog.text


def test_lock_that_ends_the_write_is_no_refusal_of_an_image(photos, lost):
    trigger(photos, "RAISE EXCEPTION 'wait' USING ERRCODE = 'lock_not_available';")
    before = photos.table()
    summary = photos.scan()
    with pytest.raises(TryLater, match="nothing was written"):
        photos.repair(summary)
    assert photos.table() == before


def test_row_that_the_application_has_changed_since_is_not_open(photos, lost):
    summary = photos.scan()
    sync_id, _ = photos.repair(summary)
    photos.touch(lost[0].id, status="queued", error=None)
    photos.images.execute("DELETE FROM images WHERE id = %s", [lost[1].id])
    assert not any(checks(photos, summary, sync_id).values())
    # Without a later time of change it is no change of the application's.
    photos.touch(lost[2].id, status="queued", updated_at=photos.table()[lost[2].id]["updated_at"])
    assert checks(photos, summary, sync_id)["planned_changes_open"]


def test_superseded_rows_alone_may_stay_open(photos, lost):
    summary = photos.scan()
    photos.touch(lost[0].id, prompt="brighter")
    sync_id, counts = photos.repair(summary)
    assert counts["images"] == Counts(updated=2, superseded=1)
    assert not any(checks(photos, summary, sync_id).values())


def test_repair_that_writes_nothing_is_seen(photos, lost, monkeypatch):
    monkeypatch.setattr(update, "UPDATE", update.UPDATE + " AND false")
    summary = photos.scan()
    sync_id, counts = photos.repair(summary)
    assert counts["images"] == Counts(failed=3)
    assert checks(photos, summary, sync_id)["planned_changes_open"]


def test_sync_fails_where_the_database_does_not_take_it(photos):
    photos.sync()
    mark = sync_log.state(photos.conn, "storage", "images").watermark
    kept, written = (photos.add("queued", laid=False, age=HALF_AN_HOUR) for _ in range(2))
    trigger(photos, "RETURN OLD;", condition=f"OLD.id = '{kept.id}'")
    for _ in range(2):
        with pytest.raises(SyncFailed, match="1 images do not show the status that was written"):
            photos.sync()
        assert sync_log.state(photos.conn, "storage", "images").watermark == mark
        assert photos.audited() == 1
    assert photos.table()[written.id]["status"] == "error"
    photos.images.execute("DROP TRIGGER meddle ON images")
    assert photos.sync().result["updated"] == 1
    assert sync_log.state(photos.conn, "storage", "images").watermark > mark


def test_rollback_that_the_database_does_not_take_is_refused_as_a_whole(photos, lost):
    sync_id, _ = photos.repair(photos.scan())
    marked, audited = photos.table(), photos.audited()
    trigger(photos, KEEP_STATUS, condition=f"OLD.id = '{lost[1].id}'")
    with pytest.raises(RollbackRefused, match=rf"1 of images \(such as {lost[1].id}\) do not take their former status"):
        undo(photos, sync_id)
    assert (photos.table(), photos.audited()) == (marked, audited)


def test_rollback_that_the_database_refuses_with_an_error_is_refused_as_a_whole(photos, lost):
    """The error says nothing of the row."""
    sync_id, _ = photos.repair(photos.scan())
    marked, audited = photos.table(), photos.audited()
    trigger(photos, REFUSE, condition=f"OLD.id = '{lost[1].id}'")
    with pytest.raises(RollbackRefused, match=r"refuses the former status of images \(RaiseException\)") as raised:
        undo(photos, sync_id)
    assert (photos.table(), photos.audited()) == (marked, audited)
    (kept,) = photos.conn.execute("SELECT error FROM confidence.sync_log ORDER BY sync_id DESC LIMIT 1").fetchone()
    assert kept == str(raised.value)
    assert SECRET not in kept
