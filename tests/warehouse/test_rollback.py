"""Rollback of any sync_id: the exact rows and states before it, or a refusal that names what is in the way."""

import json

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.warehouse import fence, sync_log
from include.warehouse.fence import DrainTimeout, FenceError
from include.warehouse.merge import apply_plan
from include.warehouse.rollback import Conflict, RollbackRefused, Undone, roll_back
from include.warehouse.table_rollback import Tables
from tests.warehouse.shop import (
    FAMILY,
    LINES,
    NOTES,
    ORDERS,
    PARTS,
    SOURCE,
    STOCK,
    changes,
    count,
    day,
    empty,
    everything,
    part,
    planned,
    rows,
    synced,
)

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def undo(conn: psycopg.Connection, sync_id: int, **options: bool) -> Undone:
    return roll_back(
        conn, Tables(conn), sync_id, run="warehouse_rollback/test", reason="a test", **{"dry_run": False} | options
    )


parts = st.lists(
    st.builds(part, st.integers(1, 5), st.sampled_from(["a", "b"]), st.just("1"), st.integers(0, 2)),
    max_size=5,
    unique_by=lambda record: record["id"],
)
steps = st.lists(st.none() | parts, min_size=1, max_size=8)


@QUIET
@given(steps=steps)
def test_any_sequence_of_syncs_and_rollbacks_can_be_walked_back(conn, steps):
    """A step is a sync of these records, or, None, the rollback of the sync or rollback before it."""
    empty(conn)
    befores: list[tuple[int, dict]] = []
    for number, step in enumerate(steps):
        state = everything(conn)
        if step is not None:
            befores.append((synced(conn, PARTS, step, watermark=day(number)).sync_id, state))
        elif befores:
            sync_id, wanted = befores[-1]
            befores.append((undo(conn, sync_id).sync_id, state))
            assert everything(conn) == wanted
    for sync_id, wanted in reversed(befores):
        undo(conn, sync_id)
        assert everything(conn) == wanted
    assert rows(conn, PARTS) == {}


@QUIET
@given(first=parts, second=parts, third=parts)
def test_rollback_with_force_gives_back_the_rows_that_the_sync_changed(conn, first, second, third):
    empty(conn)
    synced(conn, PARTS, first)
    before = rows(conn, PARTS)
    middle = synced(conn, PARTS, second)
    touched = {(key["id"],) for _, key, *_ in changes(conn, middle.sync_id)}
    synced(conn, PARTS, third)
    later = everything(conn)
    undone = undo(conn, middle.sync_id, force=True)
    after = rows(conn, PARTS)
    assert {key: after.get(key) for key in touched} == {key: before.get(key) for key in touched}
    others = set(later["parts"]) - touched
    assert {key: after.get(key) for key in others} == {key: later["parts"][key] for key in others}
    undo(conn, undone.sync_id)
    assert everything(conn) == later


def test_its_own_audit_names_what_it_did_to_each_row(conn):
    """A row that the sync changed, one that it brought back, one that it tombstoned, one that it inserted."""
    synced(conn, PARTS, [part(1), part(2), part(3)])
    synced(conn, PARTS, [part(1), part(3)])
    done = synced(conn, PARTS, [part(1, "new", changed=1), part(2, changed=1), part(4)])
    conn.execute("DELETE FROM shop.parts WHERE id = 3")
    undone = undo(conn, done.sync_id, force=True)
    found = {
        key["id"]: (operation, before and before["name"], after and after["deleted_at"] is not None)
        for _, key, operation, before, after, _ in changes(conn, undone.sync_id)
    }
    assert found == {
        1: ("update", "new", False),
        2: ("delete", "x", True),
        3: ("insert", None, False),
        4: ("delete", "x", None),
    }


class TestConflicts:
    @pytest.mark.drill("later-sync-in-the-way")
    def test_refuses_by_name_and_changes_nothing(self, conn):
        synced(conn, PARTS, [part(1), part(2)])
        first = synced(conn, PARTS, [part(1, "first"), part(2, "first")])
        second = synced(conn, PARTS, [part(1, "second"), part(2, "first")])
        before = everything(conn), count(conn, "confidence.change_log")
        refusal = (
            rf"sync_id {first.sync_id} can't be undone.*1 of shop\.parts by sync_id {second.sync_id} \(such as 1\)"
        )
        with pytest.raises(RollbackRefused, match=refusal):
            undo(conn, first.sync_id)
        assert (everything(conn), count(conn, "confidence.change_log")) == before

    def test_refusal_is_in_the_log(self, conn):
        first = synced(conn, PARTS, [part(1)])
        synced(conn, PARTS, [part(1, "later")])
        with pytest.raises(RollbackRefused) as refused:
            undo(conn, first.sync_id)
        logged = conn.execute("SELECT state, error, undoes, reason FROM confidence.sync_log WHERE kind = 'rollback'")
        assert logged.fetchone() == ("failed", str(refused.value), first.sync_id, "a test")

    @pytest.mark.parametrize(
        "edit",
        [
            "UPDATE shop.parts SET name = 'by hand'",
            "UPDATE shop.parts SET deleted_at = now()",
            "DELETE FROM shop.parts",
        ],
    )
    def test_edits_by_hand_are_named_so(self, conn, edit):
        done = synced(conn, PARTS, [part(1)])
        conn.execute(edit)
        with pytest.raises(RollbackRefused, match=r"1 of shop\.parts by hand or by a migration \(such as 1\)"):
            undo(conn, done.sync_id)

    def test_row_that_came_back_is_in_the_way_of_its_delete(self, conn):
        synced(conn, PARTS, [part(1)])
        gone = synced(conn, PARTS, [])
        back = synced(conn, PARTS, [part(1)])
        with pytest.raises(RollbackRefused, match=f"by sync_id {back.sync_id}"):
            undo(conn, gone.sync_id)

    def test_every_later_sync_and_five_examples_are_named(self, conn):
        done = synced(conn, PARTS, [part(id_) for id_ in range(1, 9)])
        later = [synced(conn, PARTS, [part(id_, name) for id_ in range(1, 9)]).sync_id for name in "ab"]
        refusal = rf"8 of shop\.parts by sync_id {later[0]}, {later[1]} \(such as 1, 2, 3, 4, 5\)"
        with pytest.raises(RollbackRefused, match=refusal):
            undo(conn, done.sync_id)

    def test_other_rows_changed_later_are_none(self, conn):
        synced(conn, PARTS, [part(1), part(2)])
        first = synced(conn, PARTS, [part(1, "first"), part(2)])
        synced(conn, PARTS, [part(1, "first"), part(2, "second")])
        undo(conn, first.sync_id)
        assert {key: row["name"] for key, row in rows(conn, PARTS).items()} == {(1,): "x", (2,): "second"}

    def test_force_names_what_it_overwrote(self, conn):
        done = synced(conn, PARTS, [part(1)])
        later = synced(conn, PARTS, [part(1, "later")])
        undone = undo(conn, done.sync_id, force=True)
        what, key = f"of shop.parts by sync_id {later.sync_id}", {"id": 1}
        assert undone.conflicts == (Conflict(1, what, ("1",), (later.sync_id,), "shop.parts", (key,)),)
        assert str(undone.conflicts[0]) == f"1 of shop.parts by sync_id {later.sync_id} (such as 1)"
        assert rows(conn, PARTS) == {}

    def test_unknown_sync_id(self, conn):
        with pytest.raises(RollbackRefused, match=r"there is no sync_id 4711: look it up in confidence\.sync_log"):
            undo(conn, 4711)
        assert count(conn, "confidence.sync_log") == 0

    def test_the_same_twice(self, conn):
        synced(conn, PARTS, [part(1)])
        done = synced(conn, PARTS, [part(1, "new")])
        undone = undo(conn, done.sync_id)
        with pytest.raises(RollbackRefused, match=f"by sync_id {undone.sync_id}"):
            undo(conn, done.sync_id)


class TestDryRun:
    def test_counts_and_leaves_nothing(self, conn):
        synced(conn, PARTS, [part(1), part(2), part(3)], watermark=day(1))
        done = synced(conn, PARTS, [part(1, "new"), part(2), part(4)], watermark=day(2))
        before = everything(conn), changes(conn, done.sync_id), count(conn, "confidence.sync_log")
        logged = count(conn, "confidence.change_log"), fence.read(conn, SOURCE)
        undone = undo(conn, done.sync_id, dry_run=True)
        assert undone.sync_id is None
        figures = undone.tables["shop.parts"]
        # Id 1 put back as it was, id 3 from its tombstone, id 4 removed.
        assert (figures.inserted, figures.updated, figures.deleted) == (0, 2, 1)
        assert (everything(conn), changes(conn, done.sync_id), count(conn, "confidence.sync_log")) == before
        assert (count(conn, "confidence.change_log"), fence.read(conn, SOURCE)) == logged
        real = undo(conn, done.sync_id)
        assert real.tables == undone.tables

    def test_counts_what_the_real_one_refuses_to_overwrite(self, conn):
        done = synced(conn, PARTS, [part(key) for key in range(1, 9)])
        later = synced(conn, PARTS, [part(key, "later") for key in range(1, 9)])
        before = everything(conn)
        undone = undo(conn, done.sync_id, dry_run=True)
        assert undone.tables["shop.parts"].deleted == 8
        (conflict,) = undone.conflicts
        assert (conflict.rows, len(conflict.examples), conflict.later) == (8, 5, (later.sync_id,))
        assert everything(conn) == before
        with pytest.raises(RollbackRefused):
            undo(conn, done.sync_id)

    def test_leaves_the_history_whole(self, conn):
        """A log row that is dropped takes what was before it out of `as_of`, histories and months."""
        done = synced(conn, PARTS, [part(1)])
        undo(conn, done.sync_id, dry_run=True)
        assert count(conn, "confidence.dropped_changes") == 0

    def test_is_read_from_json_as_it_was_written(self, conn):
        done = synced(conn, PARTS, [part(1)])
        synced(conn, PARTS, [part(1, "later")])
        undone = undo(conn, done.sync_id, dry_run=True)
        assert undone.conflicts
        assert Undone.from_json(json.loads(json.dumps(undone.as_json()))) == undone


class TestStates:
    def test_watermark_before_comes_back(self, conn):
        synced(conn, PARTS, [part(1)], watermark=day(1))
        before = sync_log.state(conn, SOURCE, "parts")
        done = synced(conn, PARTS, [part(1)], watermark=day(2))
        undone = undo(conn, done.sync_id)
        assert sync_log.state(conn, SOURCE, "parts") == before
        assert before.watermark == day(1)
        undo(conn, undone.sync_id)
        assert sync_log.state(conn, SOURCE, "parts").watermark == day(2)

    @pytest.mark.parametrize("partition", ["", "east", "images/2026/01", "/", "a b"])
    def test_of_every_partition(self, conn, partition):
        """A partition may be any text, such as a folder."""
        for number in (1, 2):
            sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/test")
            sync_log.advance(conn, sync_id, SOURCE, "parts", watermark=day(number), partition=partition)
            sync_log.advance(conn, sync_id, SOURCE, "parts", watermark=day(number), partition="other")
        undo(conn, sync_id)
        for name in (partition, "other"):
            assert sync_log.state(conn, SOURCE, "parts", name).watermark == day(1)
        assert count(conn, "confidence.sync_state") == 2

    def test_state_that_was_not_there_goes_again(self, conn):
        done = synced(conn, PARTS, [part(1)], watermark=day(1))
        undo(conn, done.sync_id)
        assert count(conn, "confidence.sync_state") == 0


def test_several_tables_and_a_key_of_several_columns(conn):
    bins = [{"place": place, "bin": number, "count": 1} for place in "AB" for number in (1, 2)]
    synced(conn, PARTS, [part(1)])
    synced(conn, STOCK, bins)
    before = everything(conn)
    done = synced(conn, STOCK, [bins[0] | {"count": 9}, bins[1], {"place": "C", "bin": 1, "count": 1}])
    changed = everything(conn)
    undone = undo(conn, done.sync_id)
    assert everything(conn) == before
    undo(conn, undone.sync_id)
    assert everything(conn) == changed


class TestRowsThatGoWithOthers:
    """An order with a line; later syncs add a line to it, and a note to each line."""

    @pytest.fixture
    def ordered(self, conn) -> list[int]:
        """The sync_ids, in their order."""
        orders = [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]
        lines = [{"id": 11, "order_id": 1}, {"id": 21, "order_id": 2}, {"id": 12, "order_id": 1}]
        notes = [{"line_id": line["id"], "n": 1, "text": "z"} for line in lines]
        done = [synced(conn, ORDERS, orders[:1]), synced(conn, ORDERS, orders), synced(conn, LINES, lines[:2])]
        done += [synced(conn, LINES, lines), synced(conn, NOTES, notes)]
        return [each.sync_id for each in done]

    def state(self, conn: psycopg.Connection) -> list[dict]:
        return [rows(conn, table) for table in FAMILY]

    def test_are_conflicts(self, conn, ordered):
        before = self.state(conn), count(conn, "confidence.change_log")
        first, _, lines, line, notes = ordered
        told = rf"2 of shop\.lines by sync_id {lines}, {line}, which would be removed with their rows of shop\.orders"
        with pytest.raises(RollbackRefused, match=told):
            undo(conn, first)
        with pytest.raises(RollbackRefused, match=rf"2 of shop\.notes by sync_id {notes}, .* rows of shop\.lines"):
            undo(conn, lines)
        assert (self.state(conn), count(conn, "confidence.change_log")) == before

    def test_are_logged_and_counted_and_come_back(self, conn, ordered):
        before = self.state(conn)
        undone = undo(conn, ordered[0], force=True)
        deleted = {table: counts.deleted for table, counts in undone.tables.items()}
        assert deleted == {"shop.orders": 1, "shop.lines": 2, "shop.notes": 2}
        assert [set(table) for table in self.state(conn)] == [{(2,)}, {(21,)}, {(21, 1)}]
        logged = {(table, tuple(key.values())): before for table, key, _, before, *_ in changes(conn, undone.sync_id)}
        assert logged == {
            (table.full_name, tuple(row[part] for part in sorted(table.key, key=lambda name: (len(name), name)))): row
            for table, found in zip(FAMILY, before, strict=True)
            for key, row in found.items()
            if key not in {(2,), (21,), (21, 1)}
        }
        undo(conn, undone.sync_id)
        assert self.state(conn) == before

    def test_stay_where_their_sync_is_undone_first(self, conn, ordered):
        for sync_id in reversed(ordered):
            undo(conn, sync_id)
        assert self.state(conn) == [{}, {}, {}]

    def test_of_the_same_sync_are_no_conflict(self, conn):
        """A sync writes the rows that belong together in one go."""
        stages = [planned(conn, ORDERS, [{"id": 1, "name": "x"}]), planned(conn, LINES, [{"id": 11, "order_id": 1}])]
        sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/test")
        with fence.writing(conn, SOURCE, epoch=0):
            for stage in stages:
                apply_plan(conn, stage.table, stage.plan, sync_id)
        undone = undo(conn, sync_id)
        assert {table: counts.deleted for table, counts in undone.tables.items()} == {"shop.orders": 1, "shop.lines": 1}
        assert [len(changes(conn, each)) for each in (sync_id, undone.sync_id)] == [2, 2]

    def test_that_the_same_sync_has_moved_go_back(self, conn, ordered):
        """A line belongs to a new order now, and to its old one again afterwards."""
        before = self.state(conn)
        orders = [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}, {"id": 3, "name": "z"}]
        lines = [{"id": 11, "order_id": 3}, {"id": 21, "order_id": 2}, {"id": 12, "order_id": 1}]
        stages = [planned(conn, ORDERS, orders), planned(conn, LINES, lines)]
        sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/test")
        with fence.writing(conn, SOURCE, epoch=0):
            for stage in stages:
                apply_plan(conn, stage.table, stage.plan, sync_id)
        undo(conn, sync_id)
        assert self.state(conn) == before


@pytest.mark.drill("killed-rollback")
def test_all_or_nothing(conn):
    synced(conn, PARTS, [part(1), part(2)])
    done = synced(conn, PARTS, [part(1, "new"), part(2, "new")])
    # With the old name the second row may not come back.
    conn.execute("ALTER TABLE shop.parts ADD CHECK (id <> 2 OR name = 'new')")
    before = everything(conn)
    with pytest.raises(psycopg.errors.CheckViolation):
        undo(conn, done.sync_id)
    assert everything(conn) == before
    state = conn.execute("SELECT state FROM confidence.sync_log ORDER BY sync_id DESC LIMIT 1").fetchone()
    assert state == ("failed",)


def test_a_run_at_work_is_not_interrupted(conn):
    done = synced(conn, PARTS, [part(1)])
    fence.stop(conn, SOURCE, "shop_reconcile/tonight", timeout=1)
    with pytest.raises(FenceError, match="at work"):
        undo(conn, done.sync_id)
    assert len(rows(conn, PARTS)) == 1


def test_waits_for_writers_no_longer_than_told(conn, connect):
    done = synced(conn, PARTS, [part(1)])
    with fence.writing(connect("shop_sync/scheduled"), SOURCE, epoch=0), pytest.raises(DrainTimeout, match="shop_sync"):
        roll_back(conn, Tables(conn), done.sync_id, run="t/1", reason="", dry_run=False, timeout=0.05)
    assert len(rows(conn, PARTS)) == 1


def test_sync_that_read_before_it_can_not_write_after_it(conn, connect):
    done = synced(conn, PARTS, [part(1)])
    epoch = fence.read(conn, SOURCE).epoch
    undo(conn, done.sync_id)
    with pytest.raises(FenceError, match="rolled back since"), fence.writing(connect(), SOURCE, epoch=epoch):
        pass
