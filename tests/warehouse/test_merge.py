"""Comparison, plan and merge: the copy becomes the source, and the audit can tell what it was."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

from include.warehouse import compare, row_conditions
from include.warehouse.merge import Merged
from include.warehouse.staging import Stage
from include.warehouse.table import EXTRA
from tests.warehouse.sessions import while_changing
from tests.warehouse.shop import (
    PARTS,
    STOCK,
    apply,
    changes,
    day,
    empty,
    live,
    part,
    planned,
    rows,
    staged,
    synced,
)

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Small enough that ids, names and days collide.
records = st.builds(
    part,
    st.integers(1, 8),
    st.sampled_from([None, "", "a", "b"]),
    st.sampled_from(["1", "1.0", "-1", "2.50", None]),
    st.integers(0, 3),
    tags=st.sampled_from([None, [], {}, [1], {"a": 1}]),
    more=st.sampled_from([None, 1, {"extra": []}]),
)
feeds = st.lists(records, max_size=12)
touches = st.dictionaries(st.integers(1, 8), st.sampled_from(["name", "tombstone", "gone"]))
lists = st.lists(records, max_size=8, unique_by=lambda record: record["id"])


def plan(stage: Stage) -> dict[int, tuple[str, str]]:
    """Operation and status by id."""
    query = sql.SQL("SELECT id, _operation, _status FROM {}").format(stage.plan)
    return {id_: (operation, status) for id_, operation, status in stage.conn.execute(query)}


def newest(feed: list[dict]) -> dict[int, dict]:
    """Of each id the newest record, of those the last."""
    kept: dict[int, dict] = {}
    for record in feed:
        if record["id"] not in kept or record["updated_at"] >= kept[record["id"]]["updated_at"]:
            kept[record["id"]] = record
    return kept


@QUIET
@given(copy=lists, gone=st.sets(st.integers(1, 8)), feed=feeds)
def test_copy_becomes_the_source_and_the_audit_knows_the_copy_before(conn, copy, gone, feed):
    """`gone`: ids that are tombstoned in the copy before."""
    empty(conn)
    synced(conn, PARTS, copy)
    synced(conn, PARTS, [record for record in copy if record["id"] not in gone])
    before = rows(conn, PARTS)
    done = synced(conn, PARTS, feed)
    after = rows(conn, PARTS)

    source, alive = newest(feed), {key for key, row in before.items() if row["deleted_at"] is None}
    old = {r["id"]: r for r in copy}
    stale = {i for i in source if (i,) in alive and source[i]["updated_at"] < old[i]["updated_at"]}
    for id_, record in source.items():
        shown = old[id_] if id_ in stale else record
        assert PARTS.row(as_record(after[id_,])) == PARTS.row(shown)
    assert {key for key, row in after.items() if row["deleted_at"] is None} == {(id_,) for id_ in source}

    audit = changes(conn, done.sync_id)
    assert done.merged == Merged(
        inserted=sum(1 for i in source if (i,) not in alive),
        updated=sum(1 for _, k, op, *_ in audit if op == "update" and (k["id"],) in alive),
        deleted=len(alive - {(i,) for i in source}),
        superseded=0,
    )
    assert undone(after, audit) == before
    written = {(key["id"],) for _, key, *_ in audit}
    assert {key for key, row in after.items() if row["sync_id"] == done.sync_id} == written
    assert {key for key in after if before.get(key) != after[key]} == written
    for _, key, operation, _, shown, after_hash in audit:
        row = after[key["id"],]
        assert after_hash == row["row_hash"]
        assert shown == (None if operation == "insert" else row)


def as_record(row: dict) -> dict:
    """A row of the copy as the source would have sent it."""
    fields = {name: row[name] for name in PARTS.names if name != "extra"} | (row["extra"] or {})
    return fields | {"price": None if row["price"] is None else str(row["price"])}


def undone(after: dict, audit: list) -> dict:
    """The copy before the changes, as the audit alone tells it."""
    found = dict(after)
    for _, key, operation, before, *_ in audit:
        if operation == "insert":
            del found[key["id"],]
        else:
            found[key["id"],] = before
    return found


@QUIET
@given(
    copy=lists, feed=lists, touched=st.dictionaries(st.integers(1, 8), st.sampled_from(["name", "tombstone", "gone"]))
)
def test_rows_that_changed_since_they_were_seen_are_left_alone(conn, copy, feed, touched):
    empty(conn)
    synced(conn, PARTS, copy)
    stage = planned(conn, PARTS, feed)
    due = {id_ for id_, (_, status) in plan(stage).items() if status == "confirmed"}
    for id_, how in touched.items():
        if how == "name":
            conn.execute("UPDATE shop.parts SET name = 'by hand' WHERE id = %s", [id_])
        elif how == "tombstone":
            conn.execute("UPDATE shop.parts SET deleted_at = now() WHERE id = %s", [id_])
        else:
            conn.execute("DELETE FROM shop.parts WHERE id = %s", [id_])
    between = rows(conn, PARTS)
    spoiled = {record["id"] for record in copy} & set(touched)
    done = apply(conn, stage).merged
    after = rows(conn, PARTS)
    assert done.superseded == len(due & spoiled)
    assert done.inserted + done.updated + done.deleted == len(due - spoiled)
    assert {id_: after.get((id_,)) for id_ in spoiled} == {id_: between.get((id_,)) for id_ in spoiled}


def test_insert_of_a_row_that_came_meanwhile_is_superseded(conn):
    stage = planned(conn, PARTS, [part(1, "planned"), part(2)])
    conn.execute("INSERT INTO shop.parts (id, name, sync_id) VALUES (1, 'by hand', 0)")
    assert apply(conn, stage).merged == Merged(inserted=1, superseded=1)
    assert rows(conn, PARTS)[1,]["name"] == "by hand"


@pytest.mark.drill("locked-table")
@pytest.mark.parametrize("feed", [[part(1, "planned", changed=1)], []], ids=["update", "delete"])
def test_a_row_that_somebody_is_changing_is_superseded(conn, connect, feed):
    """The change is committed after the merge has begun: the merge waits for it, and sees it."""
    synced(conn, PARTS, [part(1)])
    stage = planned(conn, PARTS, feed)
    by_hand = "UPDATE shop.parts SET name = 'by hand' WHERE id = %s"
    done = while_changing(connect(), by_hand, [1], conn, lambda: apply(conn, stage))
    assert done.merged == Merged(superseded=1)
    assert (rows(conn, PARTS)[1,]["name"], rows(conn, PARTS)[1,]["deleted_at"]) == ("by hand", None)
    assert changes(conn, done.sync_id) == []


@pytest.mark.parametrize(("shown", "kept"), [({}, "steel"), ({"name": "wood"}, "wood")])
def test_what_only_some_answers_show_stays_where_this_one_lacks_it(conn, shown, kept):
    columns = tuple(replace(column, compared=column.name != "name") for column in PARTS.columns)
    table = replace(PARTS, columns=columns)
    synced(conn, table, [part(1, "steel")])
    synced(conn, table, [{**part(1, None, "2.00", changed=1), **shown}])
    found = rows(conn, table)[1,]
    assert (found["name"], found["price"]) == (kept, 2)


def test_plan_applied_twice_writes_once(conn):
    synced(conn, PARTS, [part(1), part(2)])
    stage = planned(conn, PARTS, [part(1, "new"), part(3)])
    assert apply(conn, stage).merged == Merged(inserted=1, updated=1, deleted=1)
    before = rows(conn, PARTS)
    again = apply(conn, stage)
    assert again.merged == Merged(superseded=3)
    assert (rows(conn, PARTS), changes(conn, again.sync_id)) == (before, [])


def test_the_same_again_plans_nothing(conn):
    synced(conn, PARTS, [part(1, price="95.0", tags={"a": 1, "b": [2]}), part(2, price=None)])
    stage = planned(conn, PARTS, [part(1, price="95.00", tags={"b": [2], "a": 1}), part(2, price="")])
    assert plan(stage) == {}
    assert apply(conn, stage).merged == Merged()


def test_tombstone_is_revived_even_by_the_same_row(conn):
    synced(conn, PARTS, [part(1, changed=2)])
    synced(conn, PARTS, [])
    assert live(conn, PARTS) == {}
    done = synced(conn, PARTS, [part(1, changed=2)])
    assert done.merged == Merged(inserted=1)
    row = rows(conn, PARTS)[1,]
    assert (row["deleted_at"], row["sync_id"]) == (None, done.sync_id)
    [(_, _, operation, before, after, _)] = changes(conn, done.sync_id)
    assert operation == "update"
    assert before["deleted_at"] is not None
    assert after == row


def test_tombstoned_row_is_deleted_once(conn):
    synced(conn, PARTS, [part(1)])
    first = synced(conn, PARTS, [])
    assert first.merged == Merged(deleted=1)
    before = rows(conn, PARTS)
    assert synced(conn, PARTS, []).merged == Merged()
    assert rows(conn, PARTS) == before


class TestStatus:
    def test_older_versions_are_stale_or_what_the_caller_says(self, conn):
        synced(conn, PARTS, [part(1, changed=2), part(2, changed=2)])
        stage = staged(conn, PARTS, [[part(1, "older", changed=1), part(2, "same age", changed=2)]])
        compare.plan_writes(stage)
        assert plan(stage) == {1: ("update", "stale"), 2: ("update", "confirmed")}
        assert apply(conn, stage).merged == Merged(updated=1)
        stage = staged(conn, PARTS, [[part(1, "older", changed=1)]])
        compare.plan_writes(stage, older="candidate")
        assert plan(stage) == {1: ("update", "candidate")}
        assert apply(conn, stage).merged == Merged()

    def test_rows_after_the_watermark_are_young(self, conn):
        synced(conn, PARTS, [part(1), part(2), part(3)])
        feed = [part(1, "new", changed=1), part(2, "new", changed=2), part(4, changed=1), part(5, changed=2)]
        stage = staged(conn, PARTS, [feed])
        compare.plan_writes(stage, young_after=day(1), doubtful="candidate")
        assert plan(stage) == {
            1: ("update", "confirmed"),
            2: ("update", "young"),
            4: ("insert", "confirmed"),
            5: ("insert", "young"),
        }
        assert compare.plan_counts(stage)["insert", "young"] == 1
        assert compare.plan_counts(stage)["delete", "confirmed"] == 0

    def test_rows_that_are_dated_days_ahead_are_not_young(self, conn):
        """No sync would bring them. A clock that is some hours fast is no such date."""
        ahead = {1: timedelta(0), 2: timedelta(hours=23), 3: timedelta(hours=25)}
        feed = [part(id_) | {"updated_at": (datetime.now(UTC) + by).isoformat()} for id_, by in ahead.items()]
        stage = staged(conn, PARTS, [feed])
        compare.plan_writes(stage, young_after=day(1))
        young, sure = ("insert", "young"), ("insert", "confirmed")
        assert plan(stage) == {1: young, 2: young, 3: sure}

    def test_a_version_of_the_future_in_the_copy_makes_no_true_one_stale(self, conn):
        """Else a date that was wrong once would keep every change out."""
        ahead = {1: timedelta(hours=23), 2: timedelta(hours=25)}
        feed = [part(id_) | {"updated_at": (datetime.now(UTC) + by).isoformat()} for id_, by in ahead.items()]
        synced(conn, PARTS, feed)
        stage = staged(conn, PARTS, [[part(1, "true"), part(2, "true")]])
        compare.plan_writes(stage, doubtful="candidate")
        assert plan(stage) == {1: ("update", "stale"), 2: ("update", "candidate")}

    def test_rows_without_a_version_are_neither(self, conn):
        synced(conn, PARTS, [part(1, changed=2)])
        stage = staged(conn, PARTS, [[part(1, "new") | {"updated_at": None}]])
        compare.plan_writes(stage, young_after=day(0))
        assert plan(stage) == {1: ("update", "confirmed")}

    def test_rows_of_a_table_without_versions_are_never_young(self, conn):
        stage = staged(conn, STOCK, [[bin_("A", 1, 5)]])
        compare.plan_writes(stage, young_after=day(0))
        assert compare.plan_counts(stage) == {("insert", "confirmed"): 1}

    def test_deletes_stay_within_their_condition(self, conn):
        synced(conn, PARTS, [part(1, "a"), part(2, "a"), part(3, "b")])
        stage = staged(conn, PARTS, [[part(1, "a")]])
        compare.plan_deletes(stage, status="candidate", within=sql.SQL("t.name = 'a'"))
        assert plan(stage) == {2: ("delete", "candidate")}

    def test_planned_delete_shows_the_row_as_it_stood(self, conn):
        synced(conn, PARTS, [part(1, "a", "9.95")])
        stage = planned(conn, PARTS, [])
        found = conn.execute(sql.SQL("SELECT name, price::text FROM {}").format(stage.plan)).fetchall()
        assert found == [("a", "9.95")]


class TestDoubtful:
    """What one look does not prove."""

    def test_is_what_differs_without_being_newer(self, conn):
        synced(conn, PARTS, [part(1, changed=2), part(2, changed=2), part(3, changed=2)])
        feed = [part(1, "other", changed=2), part(2, "other", changed=3), part(3, changed=2)]
        feed.append(part(4, "new", changed=1))
        stage = staged(conn, PARTS, [feed])
        compare.plan_writes(stage, doubtful="candidate")
        assert plan(stage) == {1: ("update", "candidate"), 2: ("update", "confirmed"), 4: ("insert", "confirmed")}

    def test_is_what_lacks_a_value_that_the_copy_has(self, conn):
        before = [part(1, "a", changed=1), part(2, "b", changed=1), part(3, None, changed=1), part(4, None, changed=1)]
        synced(conn, PARTS, before)
        poorer = {name: value for name, value in part(1, changed=2).items() if name != "name"}
        feed = [poorer, part(2, None, changed=2), {**poorer, "id": 3}, part(4, "d", changed=2)]
        stage = staged(conn, PARTS, [feed])
        compare.plan_writes(stage, doubtful="candidate")
        doubtful, sure = ("update", "candidate"), ("update", "confirmed")
        assert plan(stage) == {1: doubtful, 2: doubtful, 3: sure, 4: sure}

    def test_is_what_comes_back_over_its_tombstone(self, conn):
        synced(conn, PARTS, [part(1, changed=1)])
        synced(conn, PARTS, [])
        stage = staged(conn, PARTS, [[part(1, changed=2)]])
        compare.plan_writes(stage, doubtful="candidate")
        assert plan(stage) == {1: ("insert", "candidate")}


class TestRepeats:
    def test_identical_and_differing_are_told_apart(self, conn):
        feed = [part(1), part(2), part(1), part(1, "other"), part(3), part(3)]
        stage = staged(conn, PARTS, [feed[:2], feed[2:]])
        repeats = compare.drop_repeats(stage)
        # Of the three of id 1 the last counts: the two before differ from it.
        assert (repeats.identical, repeats.differing, repeats.total) == (1, 2, 3)

    def test_newest_version_is_kept_and_of_those_the_last(self, conn):
        pages = [[part(1, "new", changed=2), part(2, "first")], [part(1, "old", changed=1), part(2, "last")]]
        pages.append([part(1, "no version") | {"updated_at": None}])
        stage = staged(conn, PARTS, pages)
        compare.drop_repeats(stage)
        found = conn.execute(sql.SQL("SELECT id, name FROM {} ORDER BY id").format(stage.sql)).fetchall()
        assert found == [(1, "new"), (2, "last")]

    def test_without_a_version_the_last_is_kept(self, conn):
        stage = staged(conn, STOCK, [[bin_("A", 1, 5), bin_("A", 1, 6), bin_("B", 1, 7)]])
        assert compare.drop_repeats(stage).differing == 1
        found = conn.execute(sql.SQL("SELECT place, count FROM {} ORDER BY place").format(stage.sql)).fetchall()
        assert found == [("A", 6), ("B", 7)]


def bin_(place: str, number: int, count: int) -> dict:
    return {"place": place, "bin": number, "count": count}


def test_key_of_several_columns(conn):
    synced(conn, STOCK, [bin_("A", 1, 5), bin_("A", 2, 5), bin_("B", 1, 5)])
    stage = planned(conn, STOCK, [bin_("A", 1, 5), bin_("A", 2, 6), bin_("B", 2, 5)])
    assert compare.plan_examples(stage, "delete") == [["B", 1]]
    assert compare.plan_examples(stage, "insert") == [["B", 2]]
    done = apply(conn, stage)
    assert done.merged == Merged(inserted=1, updated=1, deleted=1)
    assert live(conn, STOCK) == {("A", 1): ("A", 1, 5), ("A", 2): ("A", 2, 6), ("B", 2): ("B", 2, 5)}
    assert [key for _, key, *_ in changes(conn, done.sync_id)] == [
        {"place": "B", "bin": 2},
        {"place": "A", "bin": 2},
        {"place": "B", "bin": 1},
    ]


def test_mass_change_costs_as_much_a_row_as_a_small_one(conn):
    """Each row compared with each would take minutes."""
    bins = range(30_000)
    synced(conn, STOCK, [bin_("A", number, 5) for number in bins])
    conn.execute("SET statement_timeout = '10s'")
    assert synced(conn, STOCK, [bin_("A", number, 6) for number in bins]).merged == Merged(updated=len(bins))
    assert synced(conn, STOCK, []).merged == Merged(deleted=len(bins))


def test_statistics_follow_a_large_change_and_not_a_small_one(conn):
    conn.execute("ALTER TABLE shop.parts SET (autovacuum_enabled = false)")
    known = []
    for number in (0, 100, 105, 150):
        synced(conn, PARTS, [part(id_) for id_ in range(1, number + 1)])
        known.append(conn.execute("SELECT reltuples FROM pg_class WHERE oid = 'shop.parts'::regclass").fetchone()[0])
    assert known == [-1, 100, 100, 150]


def test_examples_are_the_first_of_what_is_drift(conn):
    stage = staged(conn, PARTS, [[part(id_, changed=id_ > 40) for id_ in range(50, 0, -1)]])
    compare.plan_writes(stage, young_after=day(0))
    # In the order of the list.
    assert compare.plan_examples(stage, "insert") == list(range(40, 15, -1))
    assert compare.plan_examples(stage, "insert", limit=100) == list(range(40, 0, -1))
    assert compare.plan_examples(stage, "update") == []


def test_live_rows_are_those_without_a_tombstone(conn):
    synced(conn, PARTS, [part(1), part(2), part(3)])
    synced(conn, PARTS, [part(1), part(2)])
    assert compare.live_rows(staged(conn, PARTS, [[]])) == 2


@pytest.mark.parametrize("hostile", ["'; DROP TABLE shop.parts; --", "%s {} %(x)s", '"', "\\N", "\t\n\r\\."])
def test_text_goes_through_as_it_is(conn, hostile):
    synced(conn, PARTS, [part(1, hostile, tags={hostile: hostile})])
    row = rows(conn, PARTS)[1,]
    assert (row["name"], row["tags"]) == (hostile, {hostile: hostile})
    assert plan(planned(conn, PARTS, [part(1, hostile, tags={hostile: hostile})])) == {}


VERSIONED = replace(PARTS, version="price", changed="updated_at")


def versioned(version: int | None, changed: int) -> dict:
    return {"id": 1, "price": version, "updated_at": day(changed).isoformat()}


@pytest.mark.parametrize(
    ("version", "changed", "status"),
    [(6, 1, "confirmed"), (4, 9, "stale"), (None, 9, "confirmed"), (None, 1, "stale")],
)
def test_where_a_row_lacks_its_version_the_time_of_its_change_decides(conn, version, changed, status):
    synced(conn, PARTS, [versioned(5, 5)])
    stage = staged(conn, VERSIONED, [[versioned(version, changed)]])
    compare.plan_writes(stage)
    assert compare.plan_counts(stage) == {("update", status): 1}


def test_of_repeats_the_version_decides_and_then_the_time_of_the_change(conn):
    seen = [(4, 9), (5, 1), (5, 2), (None, 8)]
    stage = staged(conn, VERSIONED, [[versioned(*each) for each in seen]])
    assert compare.drop_repeats(stage).total == 3
    query = sql.SQL("SELECT price, updated_at FROM {}").format(stage.sql)
    assert conn.execute(query).fetchall() == [(5, day(2))]


@pytest.mark.parametrize(
    ("copy", "shown", "gained"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, True),
        ({"a": [{"b": 1}, 2]}, {"a": [{"b": 1, "c": None}, 2]}, True),
        (None, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": [1, 1]}, {"a": [1], "b": 2}, False),
        ({"a": [1, 2]}, {"a": [2, 1], "b": 2}, False),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1}, {"b": 1}], "c": 2}, False),
        ({"a": [[1]]}, {"a": [{"0": 1}], "c": 2}, False),
        ({"a": 1}, None, False),
    ],
)
def test_a_row_has_only_gained_fields_if_it_has_all_of_the_copy(conn, copy, shown, gained):
    columns = ", ".join(f"NULL::text AS {name}" for name in PARTS.compared if name not in ("tags", EXTRA))
    row = f"(SELECT {columns}, %s::jsonb AS tags, %s::jsonb AS extra)"
    query = sql.SQL("SELECT {} FROM " + row + " s, " + row + " t").format(row_conditions.lost_nothing(PARTS))
    values = [Jsonb(each) if each else None for each in (shown, shown, copy, copy)]
    assert bool(*conn.execute(query, values).fetchone()) == gained
