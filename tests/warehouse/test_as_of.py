"""confidence.as_of: a table as it stood at any earlier time, whatever syncs and rollbacks did to it since."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from include.warehouse import fence, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.rollback import roll_back
from include.warehouse.sql_fragments import identifiers
from include.warehouse.staging import Stage
from include.warehouse.table import EXTRA, Column, Table
from include.warehouse.table_rollback import Tables
from tests.warehouse.shop import (
    FAMILY,
    LINES,
    NOTES,
    ORDERS,
    PARTS,
    SOURCE,
    STOCK,
    TABLES,
    day,
    empty,
    expire_log,
    part,
    planned,
    rows,
    synced,
)

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Values that a careless query or a careless JSON would spoil.
NAMES = ["a", "A/b", "'\"; --", "<b>%s</b>", "\\", "ü€😀", "", "null", None]
PRICES = ["1.00", "1.0", "-0.000000000001", "12345678901234567890.123", None]


def then(conn: psycopg.Connection, table: Table, when: datetime | int) -> dict[tuple, dict]:
    """Every row of the mirror as it was at a time or after a sync, by its key."""
    query = sql.SQL("SELECT to_jsonb(t) FROM confidence.as_of(NULL::{}, %s) t").format(table.sql)
    found = [row for (row,) in conn.execute(query, [when])]
    keyed = {tuple(row[k] for k in table.key): row for row in found}
    assert len(keyed) == len(found)
    return keyed


def now(conn: psycopg.Connection) -> datetime:
    return conn.execute("SELECT clock_timestamp()").fetchone()[0]


def undo(conn: psycopg.Connection, sync_id: int) -> int:
    undone = roll_back(conn, Tables(conn), sync_id, run="t/1", reason="a test", force=True, dry_run=False)
    return undone.sync_id


parts = st.lists(
    st.builds(
        lambda id_, name, price, tags, changed: part(id_, name, price, changed, tags=tags),
        st.integers(1, 6),
        st.sampled_from(NAMES),
        st.sampled_from(PRICES),
        st.sampled_from([None, [], {"a": [1, {"b": None}]}, "x", 0.1]),
        st.integers(0, 2),
    ),
    max_size=6,
    unique_by=lambda record: record["id"],
)
stock = st.lists(
    st.builds(
        lambda place, bin_, count: {"place": place, "bin": bin_, "count": count},
        st.sampled_from(["A", "A/1", "'\"", "ü", ""]),
        st.integers(1, 2),
        st.sampled_from([None, 0, -1, 2**63 - 1]),
    ),
    max_size=6,
    unique_by=lambda record: (record["place"], record["bin"]),
)
# A sync of one table, the rollback of the n-th sync or rollback so far, or a sync that fails after its merge.
steps = st.lists(
    st.tuples(st.just(PARTS), parts)
    | st.tuples(st.just(STOCK), stock)
    | st.tuples(st.just("undo"), st.integers(0, 20))
    | st.tuples(st.just("dies"), parts),
    max_size=10,
)


@QUIET
@given(steps=steps)
def test_every_moment_and_every_sync_is_given_back(conn, steps):
    empty(conn)
    ids: list[int] = []
    seen: list[tuple[datetime | int, dict]] = [(now(conn), {PARTS: {}, STOCK: {}})]
    for what, given_ in steps:
        if what == "undo":
            if not ids:
                continue
            ids.append(undo(conn, ids[given_ % len(ids)]))
        elif what == "dies":
            ids.append(dies(conn, given_))
        else:
            ids.append(synced(conn, what, given_).sync_id)
        state = {table: rows(conn, table) for table in TABLES}
        seen += [(ids[-1], state), (now(conn), state)]
    # A sync that died is known to have ended only once the next one begins.
    synced(conn, STOCK, [])
    for when, state in seen:
        for table in TABLES:
            assert then(conn, table, when) == state[table]


def dies(conn: psycopg.Connection, records: list[dict[str, Any]]) -> int:
    """A sync whose process ends after its merge."""
    stage = planned(conn, PARTS, records)
    sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/test")
    with fence.writing(conn, SOURCE, epoch=fence.read(conn, SOURCE).epoch):
        apply_plan(conn, PARTS, stage.plan, sync_id)
    return sync_id


@pytest.fixture
def history(conn) -> tuple[datetime, int, dict]:
    """A time with two parts, the sync before it, and the parts; since then one has changed, one is gone, one is new."""
    done = synced(conn, PARTS, [part(1), part(2)])
    moment, state = now(conn), rows(conn, PARTS)
    synced(conn, PARTS, [part(1, "new", changed=1), part(3)])
    return moment, done.sync_id, state


class TestRows:
    def test_result_has_the_columns_of_the_table(self, conn, history):
        cursor = conn.execute("SELECT * FROM confidence.as_of(NULL::shop.parts, now())")
        found = [column.name for column in cursor.description], sorted(cursor.fetchall())
        cursor = conn.execute("SELECT * FROM shop.parts")
        assert found == ([column.name for column in cursor.description], sorted(cursor.fetchall()))

    @pytest.mark.parametrize(
        "asked", ["'{0}'", "'{0}'::timestamptz", "moment => '{0}'", "{1}", "{1}::bigint", "after_sync => {1}"]
    )
    def test_time_or_sync_as_people_write_them(self, conn, history, asked):
        query = "SELECT count(*), count(deleted_at) FROM confidence.as_of(NULL::shop.parts, " + asked + ")"
        assert conn.execute(query.format(*history)).fetchone() == (2, 0)

    def test_mark_of_a_deletion_is_as_it_was(self, conn):
        synced(conn, PARTS, [part(1)])
        alive = now(conn)
        synced(conn, PARTS, [])
        gone = now(conn)
        mark = rows(conn, PARTS)[1,]["deleted_at"]
        synced(conn, PARTS, [part(1)])
        assert [then(conn, PARTS, at)[1,]["deleted_at"] for at in (alive, gone, now(conn))] == [None, mark, None]

    def test_whole_transaction_counts_from_its_begin(self, conn, connect):
        """Half of a merge is never shown."""
        synced(conn, PARTS, [part(1), part(2)])
        stage = planned(conn, PARTS, [part(1, "new"), part(3)])
        sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/test")
        before = now(conn)
        with fence.writing(conn, SOURCE, epoch=0):
            within = [now(conn)]
            apply_plan(conn, PARTS, stage.plan, sync_id)
            within.append(now(conn))
            other = connect()
            assert then(other, PARTS, within[0]) == rows(other, PARTS)
        after = rows(conn, PARTS)
        assert [then(conn, PARTS, at) == after for at in (before, *within)] == [False, True, True]

    def test_running_sync_counts_piece_by_piece(self, conn):
        sync_id, states = sync_log.begin(conn, SOURCE, "sync", "shop_sync/test"), []
        for number in range(3):
            stage = planned(conn, PARTS, [part(id_) for id_ in range(number + 1)])
            with fence.writing(conn, SOURCE, epoch=0):
                apply_plan(conn, PARTS, stage.plan, sync_id)
            states.append((now(conn), rows(conn, PARTS)))
        assert [then(conn, PARTS, at) == state for at, state in states] == [True] * 3
        sync_log.finish(conn, sync_id, {})
        assert [then(conn, PARTS, at) == state for at, state in states] == [True] * 3

    def test_sync_that_writes_after_it_was_closed_as_failed(self, conn):
        synced(conn, PARTS, [part(1)])
        stage = planned(conn, PARTS, [part(1, "late")])
        late = sync_log.begin(conn, SOURCE, "sync", "shop_sync/late")
        sync_log.finish(conn, sync_log.begin(conn, SOURCE, "sync", "shop_sync/next"), {})
        moment, state = now(conn), rows(conn, PARTS)
        with fence.writing(conn, SOURCE, epoch=0):
            apply_plan(conn, PARTS, stage.plan, late)
        assert then(conn, PARTS, moment) == state

    def test_entries_without_a_time_count_from_the_begin_of_their_sync(self, conn, history):
        moment, _, state = history
        conn.execute("UPDATE confidence.change_log SET changed_at = NULL")
        assert then(conn, PARTS, moment) == state
        assert then(conn, PARTS, moment - timedelta(days=1)) == {}

    def test_column_of_a_later_migration_is_empty_in_older_images(self, conn, history):
        moment, _, state = history
        conn.execute("ALTER TABLE shop.parts ADD later jsonb")
        assert then(conn, PARTS, moment) == {key: row | {"later": None} for key, row in state.items()}

    def test_dropped_column_is_no_hindrance(self, conn, history):
        moment, _, _ = history
        conn.execute("ALTER TABLE shop.stock DROP count CASCADE")
        conn.execute("ALTER TABLE shop.parts ADD a int, ADD b int")
        conn.execute("ALTER TABLE shop.parts DROP a")
        assert set(then(conn, PARTS, moment)) == {(1,), (2,)}

    def test_change_outside_of_the_log_is_not_known(self, conn, history):
        moment, _, _ = history
        conn.execute("UPDATE shop.parts SET name = 'by hand' WHERE id = 3")
        conn.execute("INSERT INTO shop.parts (id, sync_id) VALUES (9, 1)")
        assert (9,) in then(conn, PARTS, moment)
        assert (3,) not in then(conn, PARTS, moment)

    def test_other_tables_and_sources_are_left_out(self, conn, history):
        moment, sync_id, state = history
        conn.execute(
            "INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before)"
            " SELECT sync_id + 1, 'other.parts', key, 'delete', '{\"id\": 1}' FROM confidence.change_log"
        )
        assert then(conn, PARTS, moment) == then(conn, PARTS, sync_id) == state


class TestRefusals:
    def refused(self, conn: psycopg.Connection, call: str) -> str:
        with pytest.raises(psycopg.errors.InvalidParameterValue) as refusal:
            conn.execute(f"SELECT * FROM confidence.as_of({call})")
        return refusal.value.diag.message_primary

    def test_time_before_what_was_cleaned_up(self, conn, history):
        _, sync_id, _ = history
        last = synced(conn, PARTS, [part(4)], day(1))
        ended = "UPDATE confidence.sync_log SET finished_at = %s, started_at = %s WHERE sync_id = %s"
        for number, each in enumerate((sync_id, sync_id + 1)):
            conn.execute(ended, [day(number), day(number), each])
        assert expire_log(conn, 30) == 2
        told = self.refused(conn, f"NULL::shop.parts, '{day(1) - timedelta(seconds=1)}'")
        assert "the change log of shop reaches back to 2026-01-02 00:00:00+00, so shop.parts as of 2026-01-01" in told
        assert "ask for a later time" in told
        assert set(then(conn, PARTS, day(1))) == {(1,), (2,), (3,)}
        assert "has no sync_id" in self.refused(conn, f"NULL::shop.parts, {sync_id}")
        assert then(conn, PARTS, last.sync_id) == rows(conn, PARTS)
        # What is kept for the sake of a watermark can be older than what is gone.
        conn.execute(ended, [day(0), day(0), last.sync_id])
        assert "ask for a later sync_id" in self.refused(conn, f"NULL::shop.parts, {last.sync_id}")

    def test_source_whose_log_is_kept_for_good_has_no_such_limit(self, conn, history):
        assert expire_log(conn, 30) == 0
        assert then(conn, PARTS, datetime(1, 1, 1, tzinfo=UTC)) == {}

    @pytest.mark.parametrize("asked", ["now() + interval '1 hour'", "NULL::timestamptz", "'infinity'"])
    def test_time_that_has_not_passed(self, conn, history, asked):
        assert "is not in the past" in self.refused(conn, f"NULL::shop.parts, {asked}")

    def test_sync_of_another_source_or_none_or_one_that_runs(self, conn, history):
        running = sync_log.begin(conn, SOURCE, "repair", "shop_reconcile/1")
        other = sync_log.begin(conn, "square", "sync", "square_sync/1")
        sync_log.finish(conn, other, {})
        for asked in (running, other, 4711, "NULL::bigint"):
            assert "shop has no sync_id" in self.refused(conn, f"NULL::shop.parts, {asked}")

    @pytest.mark.parametrize(
        "what",
        ["confidence.sync_log", "flex.flex_crew_assignments", "tekmetric.customers_analytics", "bigint", "regclass"],
    )
    def test_what_is_not_mirrored(self, conn, what):
        told = self.refused(conn, f"NULL::{what}, now()")
        assert f"{what} is not a mirrored table" in told
        assert "NULL::square.orders" in told

    def test_plan_of_a_scan_is_no_mirror(self, conn):
        planned(conn, PARTS, [part(1)])
        assert "is not a mirrored table" in self.refused(conn, "NULL::staging.shop_parts_test_plan, now()")

    def test_name_as_text_says_what_to_write(self, conn):
        assert "write NULL::square.orders instead of 'square.orders'" in self.refused(
            conn, "'square.orders', '2026-11-20 03:00+00'"
        )

    def test_who_may_not_read_the_log_may_not_read_the_past(self, conn, history):
        conn.execute("DO $$ BEGIN CREATE ROLE as_of_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        conn.execute("GRANT USAGE ON SCHEMA shop, confidence TO as_of_reader")
        conn.execute("GRANT SELECT ON shop.parts, confidence.writer, confidence.dropped_changes TO as_of_reader")
        conn.execute("GRANT SELECT ON confidence.sync_log TO as_of_reader")
        conn.execute("SET ROLE as_of_reader")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="change_log"):
            then(conn, PARTS, history[0])
        conn.execute("RESET ROLE")
        conn.execute("GRANT SELECT ON confidence.change_log TO as_of_reader")
        conn.execute("SET ROLE as_of_reader")
        assert then(conn, PARTS, history[0]) == history[2]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            then(conn, STOCK, history[0])


lines = st.lists(st.builds(lambda id_: {"id": id_, "order_id": id_ // 2}, st.integers(2, 7)), max_size=6)


@QUIET
@given(
    rounds=st.lists(
        st.tuples(st.just("sync"), lines, st.integers(0, 9))
        | st.tuples(st.just("undo"), st.integers(0, 9), st.just(0)),
        max_size=8,
    )
)
def test_rows_that_go_with_others_are_given_back(conn, rounds):
    """Rollbacks remove rows, and Postgres all that refer to them; other syncs have added those."""
    empty(conn)
    conn.execute("TRUNCATE shop.orders CASCADE")
    ids: list[int] = []
    seen = []
    for what, given_, number in rounds:
        if what == "undo" and ids:
            # A row can't come back without the one that it refers to.
            with suppress(psycopg.errors.ForeignKeyViolation):
                ids.append(undo(conn, ids[given_ % len(ids)]))
        elif what == "sync":
            kept = [*rows(conn, LINES)]
            ids += [
                synced(conn, ORDERS, [{"id": id_, "name": f"name {number}"} for id_ in range(1, 4)]).sync_id,
                synced(conn, LINES, [*{line["id"]: line for line in given_}.values()]).sync_id,
                synced(conn, NOTES, [{"line_id": id_, "n": number, "text": "x"} for (id_,) in kept]).sync_id,
            ]
        seen.append((now(conn), {table: rows(conn, table) for table in FAMILY}))
    for when, state in seen:
        for table in FAMILY:
            assert then(conn, table, when) == state[table]


# A value of each type of a mirrored column, with the number of its row.
VALUES = {
    "bigint": "n",
    "integer": "n",
    "smallint": "n",
    "numeric": "n + 0.50",
    "text": "'Ünï \"' || n || '\" \\'",
    "boolean": "n = 1",
    "date": "date '2026-01-01' + n",
    "timestamp with time zone": "timestamptz '2026-01-01 12:00:00.123456+02' + n * interval '1 day'",
    "jsonb": "jsonb_build_object('a', jsonb_build_array(n, NULL, 1.10))",
    "text[]": "ARRAY['a,\"b', NULL, n::text]",
    "bigint[]": "ARRAY[n, NULL]",
    "uuid": "lpad(n::text, 32, '0')::uuid",
}
# Of each mirrored table the columns that are written, their types, and those of the key.
MIRRORS = """
SELECT nspname, relname, array_agg(attname ORDER BY attnum),
  array_agg(format_type(atttypid, NULL) ORDER BY attnum),
  array_agg(attname ORDER BY attnum) FILTER (WHERE attnum = ANY (indkey))
FROM confidence.writer JOIN pg_namespace n ON nspname = source JOIN pg_class c ON relnamespace = n.oid
  JOIN pg_attribute ON attrelid = c.oid JOIN pg_index ON indrelid = c.oid AND indisprimary
WHERE relkind = 'r' AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
  AND attname NOT IN ('sync_id', 'deleted_at')
  AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'row_hash')
GROUP BY 1, 2
"""
FILL = """
INSERT INTO {plan} ({columns}, _operation, _status) SELECT {values}, 'insert', 'confirmed' FROM generate_series(1, 3) n
"""
DELETE = """
INSERT INTO {plan} ({columns}, _operation, _status, _seen_hash)
SELECT {columns}, 'delete', 'confirmed', row_hash FROM {table}
"""


def test_every_mirrored_table_of_every_source(conn):
    """Each one with made-up rows that a later sync deletes, so that all come from their images in JSON."""
    mirrors = conn.execute(MIRRORS).fetchall()
    assert {schema for schema, *_ in mirrors} == {"repairshopr", "square", "tekmetric", SOURCE}
    conn.execute("SET session_replication_role = replica")
    for schema, name, names, types, key in mirrors:
        columns = tuple(Column(each) for each in names if each != EXTRA)
        table = Table(schema, name, columns, tuple(key), None, keeps_extra=EXTRA in names)
        for (check,) in conn.execute(
            "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = %s::regclass", [table.full_name]
        ).fetchall():
            conn.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table.sql, sql.Identifier(check)))
        stage = Stage.open(conn, table, schema, "test", "ticket")
        states = []
        for query in (FILL, DELETE):
            conn.execute(sql.SQL("TRUNCATE {}").format(stage.plan))
            values = sql.SQL(", ".join(VALUES[each] for each in types))
            parts = {"plan": stage.plan, "columns": identifiers(names), "values": values, "table": table.sql}
            conn.execute(sql.SQL(query).format(**parts))
            sync_id = sync_log.begin(conn, schema, "sync", f"{schema}_sync/test")
            apply_plan(conn, table, stage.plan, sync_id)
            sync_log.finish(conn, sync_id, {})
            states.append((sync_id, rows(conn, table)))
        assert len(states[0][1]) == 3
        assert all(row["deleted_at"] for row in states[1][1].values())
        for when, state in states:
            assert then(conn, table, when) == state, table.full_name
