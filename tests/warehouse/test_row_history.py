"""The history of one row, as real syncs and rollbacks leave it in the log."""

from base64 import urlsafe_b64encode
from typing import Any

import psycopg
import pytest

from include.confidence.queries.history import KeyRefused, RowChange, RowHistory, logged_tables, read_history
from include.confidence.queries.paging import CursorRefused
from include.warehouse import sync_log
from include.warehouse.rollback import roll_back
from include.warehouse.table_rollback import Tables
from tests.warehouse.shop import PARTS, SOURCE, STOCK, day, expire_log, part, rows, synced


def history(conn: psycopg.Connection, table: str = "shop.parts", **key: Any) -> RowHistory | None:
    return read_history(conn, SOURCE, table, key or {"id": 1})


def undo(conn: psycopg.Connection, sync_id: int) -> int:
    return roll_back(conn, Tables(conn), sync_id, run="t/1", reason="a test", force=True, dry_run=False).sync_id


def told(found: RowHistory) -> list[tuple]:
    """What each change did and who made it, oldest first, with the names before and after."""
    return [
        (each.operation, each.sync_id, *(row and row["name"] for row in (each.before, each.after)))
        for each in reversed(found.items)
    ]


def test_a_life(conn):
    first = synced(conn, PARTS, [part(1, "a"), part(2)]).sync_id
    second = synced(conn, PARTS, [part(1, "b"), part(2, "other")]).sync_id
    gone = synced(conn, PARTS, []).sync_id
    back = synced(conn, PARTS, [part(1, "c")]).sync_id
    undone = undo(conn, back)
    found = history(conn)
    assert told(found) == [
        ("insert", first, None, "a"),
        ("update", second, "a", "b"),
        ("delete", gone, "b", "b"),
        ("restore", back, "b", "c"),
        ("delete", undone, "c", "b"),
    ]
    assert (found.row_known, found.row) == (True, rows(conn, PARTS)[1,])
    assert [(each.kind, each.undoes) for each in found.items] == [("rollback", back)] + [("sync", None)] * 4
    assert all(each.after_known and each.changed_at >= each.sync_started_at for each in found.items)
    columns = {each.sync_id: [difference.column for difference in each.differences] for each in found.items}
    assert columns[second] == ["name"]
    assert set(columns[first]) == {"id", "name", "price", "updated_at"}


def test_row_that_was_removed_and_inserted_anew(conn):
    """Both inserts are found, although the log has no copy of either."""
    first = synced(conn, PARTS, [part(1, "a")]).sync_id
    undone = undo(conn, first)
    again = synced(conn, PARTS, [part(1, "b")]).sync_id
    changed = synced(conn, PARTS, [part(1, "c")]).sync_id
    assert told(history(conn)) == [
        ("insert", first, None, "a"),
        ("delete", undone, "a", None),
        ("insert", again, None, "b"),
        ("update", changed, "b", "c"),
    ]
    undo(conn, changed)
    undo(conn, again)
    found = history(conn)
    assert found.row is None
    assert [each.operation for each in found.items] == ["delete", "update", "update", "insert", "delete", "insert"]


def test_row_that_only_ever_was_inserted(conn):
    done = synced(conn, PARTS, [part(1, "a"), part(2)]).sync_id
    assert told(history(conn)) == [("insert", done, None, "a")]


def test_inserted_row_that_was_changed_by_hand_since(conn):
    synced(conn, PARTS, [part(1, "a")])
    conn.execute("UPDATE shop.parts SET name = 'by hand'")
    (change,) = history(conn).items
    assert (change.after, change.after_known, change.differences) == (None, False, ())


def test_key_of_several_columns_and_any_text(conn):
    place = "A/1 '\"; \\ <b> %s ü€😀"
    synced(conn, STOCK, [{"place": place, "bin": 1, "count": 1}, {"place": place, "bin": 2, "count": 1}])
    synced(conn, STOCK, [{"place": place, "bin": 1, "count": 5}, {"place": place, "bin": 2, "count": 1}])
    found = history(conn, "shop.stock", place=place, bin=1)
    assert found.row["count"] == 5
    assert [each.after["count"] for each in found.items] == [5, 1]
    assert len(history(conn, "shop.stock", bin=2, place=place).items) == 1
    assert history(conn, "shop.stock", place="A", bin=1) is None


def test_row_that_is_not_there_and_never_was(conn):
    synced(conn, PARTS, [part(1)])
    assert history(conn, id=2) is None
    assert history(conn, "shop.nothing") is None
    assert history(conn, "square.orders") is None


def test_other_sources_see_nothing(conn):
    synced(conn, PARTS, [part(1)])
    assert read_history(conn, "square", "shop.parts", {"id": 1}) is None
    assert read_history(conn, "square", "parts", {"id": 1}) is None


def test_table_that_is_not_mirrored_is_not_read(conn):
    """It may hold what nobody is to see here, such as the persons of an application."""
    conn.execute("CREATE TABLE shop.people (id int PRIMARY KEY, name text); INSERT INTO shop.people VALUES (1, 'Ann')")
    assert history(conn, "shop.people") is None
    conn.execute(
        "INSERT INTO confidence.change_log (sync_id, table_name, key, operation)"
        " VALUES (%s, 'shop.people', '{\"id\": 1}', 'insert')",
        [sync_log.begin(conn, SOURCE, "sync", "t/1")],
    )
    found = history(conn, "shop.people")
    assert (found.row_known, found.row, len(found.items)) == (False, None, 1)


@pytest.mark.parametrize("key", [{"id": "x"}, {"id": 10**30}, {"name": "x"}, {"id": 1, "name": "x"}])
def test_key_that_is_none_of_the_table(conn, key):
    with pytest.raises(KeyRefused, match=r"the key of shop\.parts is made of id"):
        history(conn, **key)


def test_pages_meet(conn):
    for number in range(7):
        synced(conn, PARTS, [part(1, f"name {number}")])
    everything, cursor, pages = history(conn).items, None, []
    while not pages or cursor:
        page = read_history(conn, SOURCE, "shop.parts", {"id": 1}, cursor=cursor, limit=3)
        pages.append(page.items)
        cursor = page.next_cursor
    assert [len(items) for items in pages] == [3, 3, 1]
    assert tuple(each for items in pages for each in items) == everything
    with pytest.raises(CursorRefused):
        read_history(conn, SOURCE, "shop.parts", {"id": 1}, cursor="x")
    beyond = urlsafe_b64encode(str([10**30]).encode()).decode()
    assert len(read_history(conn, SOURCE, "shop.parts", {"id": 1}, cursor=beyond).items) == 7


def test_what_is_cleaned_up_is_said_and_not_guessed(conn):
    first = synced(conn, PARTS, [part(1, "a")], day(1)).sync_id
    second = synced(conn, PARTS, [part(1, "b")], day(1)).sync_id
    conn.execute("UPDATE confidence.sync_log SET finished_at = %s WHERE sync_id = %s", [day(0), first])
    assert history(conn).kept_since is None
    assert expire_log(conn, 30) == 1
    found = history(conn)
    assert (found.kept_since, told(found)) == (day(0), [("update", second, "a", "b")])


def test_entries_of_before_have_no_time(conn):
    synced(conn, PARTS, [part(1)])
    conn.execute("UPDATE confidence.change_log SET changed_at = NULL")
    (change,) = history(conn).items
    assert isinstance(change, RowChange)
    assert change.changed_at is None


def test_tables_are_known_by_the_plans_names_for_them(conn):
    synced(conn, PARTS, [part(1)])
    conn.execute(
        "INSERT INTO confidence.change_log (sync_id, table_name, key, operation)"
        " VALUES (1, 'images', '{\"id\": 1}', 'insert')"
    )
    # A type describes a table that is elsewhere: its rows are logged under the plan's name for it, or not at all.
    conn.execute("CREATE TYPE shop.images AS (id bigint); CREATE TYPE shop.sounds AS (id bigint)")
    asked = ["parts", "images", "sounds", "other"]
    assert logged_tables(conn, SOURCE, asked) == {"parts": "shop.parts", "images": "images"}
    assert logged_tables(conn, "square", ["parts", "images"]) == {}


def test_columns_stand_as_in_the_table(conn):
    synced(conn, PARTS, [part(1, "a")])
    synced(conn, PARTS, [part(1, "b", price="7", changed=3)])
    found = history(conn)
    query = "SELECT attname FROM pg_attribute WHERE attrelid = 'shop.parts'::regclass AND attnum > 0 ORDER BY attnum"
    columns = [name for (name,) in conn.execute(query)]
    changed, inserted = found.items
    assert list(found.row) == list(changed.before) == list(changed.after) == columns
    for change in (changed, inserted):
        differing = [each.column for each in change.differences]
        assert differing == [name for name in columns if name in differing]
