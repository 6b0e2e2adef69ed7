"""Staging: pages and the resume point are one, attempts take turns, and a crash loses both or neither."""

from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from include.warehouse import compare
from include.warehouse.migrate import migrate
from include.warehouse.pull import REFUSED_FLOOR, PullError
from include.warehouse.readers import instant, integer
from include.warehouse.staging import Stage, count_new
from include.warehouse.table import Column, RowRefused, Table
from stack.postgres import Postgres
from tests.warehouse.conftest import add_shop
from tests.warehouse.sessions import while_changing
from tests.warehouse.shop import PARTS, SOURCE, STOCK, count, day, empty, part, planned, staged, synced

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def open_(conn: psycopg.Connection, ticket: str = "ticket") -> Stage:
    return Stage.open(conn, PARTS, SOURCE, "test", ticket)


def rows(stage: Stage) -> list[tuple]:
    """Key, content, page and place of every staged row."""
    query = sql.SQL("SELECT id, row_hash, _page, _place FROM {} ORDER BY _page, _place").format(stage.sql)
    return stage.conn.execute(query).fetchall()


def of(stage: Stage) -> tuple[sql.Identifier, sql.Identifier]:
    """The tables that go with the pull."""
    return stage.sql, stage.refused


def size(conn: psycopg.Connection, table: sql.Identifier) -> int:
    return conn.execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()[0]


def oids(conn: psycopg.Connection, stage: Stage) -> list[int | None]:
    """What identifies the stage's three tables."""
    tables = [table.as_string() for table in (*of(stage), stage.plan)]
    return [conn.execute("SELECT to_regclass(%s)::oid", [table]).fetchone()[0] for table in tables]


def pull(conn: psycopg.Connection) -> tuple:
    return conn.execute("SELECT position, complete, pages, rows_read, rows_refused FROM staging.pull").fetchone()


class TestAppend:
    def test_moves_rows_and_position_together(self, conn):
        stage = open_(conn)
        assert not stage.resumed
        stage.append([part(1), part(2)], next_position=2, page_info={})
        assert pull(conn) == (2, False, 1, 2, 0)
        stage.append([part(3)], next_position=None, page_info={})
        assert pull(conn) == (None, True, 2, 3, 0)
        assert [(id_, page, place) for id_, _, page, place in rows(stage)] == [(1, 1, 0), (2, 1, 1), (3, 2, 0)]
        assert (stage.pull.complete, stage.pull.pages, stage.pull.rows_read) == (True, 2, 3)

    def test_keeps_neither_when_the_rows_can_not_be_stored(self, conn):
        stage = open_(conn)
        stage.append([part(1)], next_position=2, page_info={})
        conn.execute(sql.SQL("ALTER TABLE {} ADD CHECK (id <> 13)").format(stage.sql))
        before = pull(conn), rows(stage)
        with pytest.raises(psycopg.errors.CheckViolation):
            stage.append([part(12), part(""), part(13)], next_position=3, page_info={})
        assert (pull(conn), rows(stage)) == before
        assert count(conn, "confidence.quarantine") == 0
        assert open_(conn).pull.position == 2

    @pytest.mark.parametrize("position", [7, "token/é", {"last": [1, 2]}, 2**60])
    def test_position_comes_back_as_it_was(self, conn, position):
        open_(conn).append([], next_position=position, page_info={})
        again = open_(conn)
        assert again.pull.position == position
        assert again.resumed

    def test_keeps_the_first_clock_and_the_first_total(self, conn):
        stage = open_(conn)
        stage.append([], next_position=2, page_info={"source_time": day(1), "total_entries": 10, "total_pages": 3})
        stage.append([], next_position=3, page_info={"source_time": day(2), "total_entries": 11, "total_pages": 4})
        stage.append([], next_position=None, page_info={})
        for read in (stage.pull, open_(conn).pull):
            assert (read.source_time, read.total_entries, read.total_pages) == (day(1), 10, 4)


class TestOpen:
    @pytest.mark.drill("upgrade-in-between")
    def test_starts_again_where_the_mirrored_table_got_another_column(self, conn):
        """An upgrade in the middle of a pull: its rows lack the column."""
        open_(conn).append([part(1)], next_position=2, page_info={})
        conn.execute("ALTER TABLE shop.parts ADD colour text")
        again = open_(conn)
        assert not again.resumed
        assert rows(again) == []

    def test_resumes_the_same_ticket_only(self, conn):
        open_(conn).append([part(1)], next_position=2, page_info={})
        assert open_(conn).pull.position == 2
        other = open_(conn, "another")
        assert (other.pull.position, other.pull.pages, rows(other)) == (None, 0, [])
        assert open_(conn).pull.position is None

    def test_takes_the_pull_over(self, conn, connect):
        first = open_(connect())
        first.append([part(1)], next_position=2, page_info={})
        second = open_(conn)
        with pytest.raises(PullError, match=r"shop\.parts was taken over by a later attempt"):
            first.append([part(2)], next_position=3, page_info={})
        assert pull(conn) == (2, False, 1, 1, 0)
        second.append([part(2)], next_position=None, page_info={})
        assert [row[0] for row in rows(second)] == [1, 2]

    def test_drops_a_page_that_the_first_attempt_is_just_storing(self, conn, connect):
        first = connect()
        page = "WITH moved AS (UPDATE staging.pull SET pages = 1) INSERT INTO {} (id, _page, _place) VALUES (1, 1, 0)"
        change = sql.SQL(page).format(open_(first).sql)
        stage = while_changing(first, change, [], conn, lambda: open_(conn, "another"))
        assert (stage.pull.pages, rows(stage)) == (0, [])

    def test_empty_plan_drops_what_another_attempt_is_just_planning(self, conn, connect):
        stage, row = open_(conn), "INSERT INTO {} (id, _operation, _status) VALUES (1, 'insert', 'confirmed')"
        while_changing(connect(), sql.SQL(row).format(stage.plan), [], conn, stage.empty_plan)
        assert conn.execute(sql.SQL("SELECT id FROM {}").format(stage.plan)).fetchall() == []

    def test_first_attempt_can_not_note_progress_any_more(self, conn, connect):
        first = open_(connect())
        open_(conn)
        with pytest.raises(PullError):
            first.save_progress(pages=1)

    def test_progress_adds_up_and_stays(self, conn):
        stage = open_(conn)
        stage.save_progress(pages=1, unique=5)
        stage.save_progress(pages=2)
        assert open_(conn).pull.progress == {"pages": 2, "unique": 5}

    def test_purposes_and_tables_do_not_meet(self, conn):
        open_(conn).append([part(1)], next_position=2, page_info={})
        assert Stage.open(conn, PARTS, SOURCE, "other", "ticket").pull.pages == 0
        assert Stage.open(conn, STOCK, SOURCE, "test", "ticket").pull.pages == 0
        assert open_(conn).pull.pages == 1

    def test_next_pull_uses_the_tables_again_and_finds_them_empty(self, conn):
        stage = planned(conn, PARTS, [part(1)])
        stage.remember_refused([([1], True, "why")])
        before = oids(conn, stage)
        again = Stage.open(conn, PARTS, SOURCE, stage.pull.purpose, "another")
        assert oids(conn, again) == before
        assert [size(conn, table) for table in (*of(again), again.plan)] == [0, 0, 0]

    @pytest.mark.parametrize(
        "change",
        [
            "ALTER TABLE {table} ADD colour text",
            "ALTER TABLE {table} RENAME name TO title",
            "DROP TABLE {stage}",
            "DROP TABLE {refused}",
            "DROP TABLE {plan}",
        ],
    )
    def test_next_pull_makes_tables_that_do_not_fit_any_more_anew(self, conn, change):
        stage = open_(conn)
        before = oids(conn, stage)
        names = {"table": PARTS.sql, "stage": stage.sql, "refused": stage.refused, "plan": stage.plan}
        conn.execute(sql.SQL(change).format(**names))
        again = oids(conn, open_(conn, "another"))
        assert None not in again
        assert not set(before) & set(again)

    def test_dropped_stage_leaves_its_plan(self, conn):
        stage = planned(conn, PARTS, [part(1)])
        stage.drop()
        assert conn.execute(sql.SQL("SELECT count(*) FROM {}").format(stage.plan)).fetchone() == (1,)
        assert pull(conn) is None

    def test_dropped_stage_leaves_no_rows_and_no_other_pull(self, conn):
        dropped, other = open_(conn), Stage.open(conn, STOCK, SOURCE, "test", "ticket")
        for stage in (dropped, other):
            stage.remember_refused([([1], True, "why")])
        dropped.append([part(1)], next_position=2, page_info={})
        dropped.drop()
        assert [size(conn, table) for table in (*of(dropped), other.refused)] == [0, 0, 1]
        assert conn.execute("SELECT pull FROM staging.pull").fetchall() == [(other.pull.pull,)]


class TestTakenOver:
    """Another attempt has opened the pull since."""

    def test_is_claimed_no_more(self, conn):
        stage = planned(conn, PARTS, [part(1)])
        with conn.transaction():
            stage.claim()
        open_(conn, "another")
        with pytest.raises(PullError, match="taken over by a later attempt"), conn.transaction():
            stage.claim()

    def test_drops_nothing_of_the_other(self, conn):
        stage = open_(conn)
        other = open_(conn, "another")
        other.append([part(1)], next_position=2, page_info={})
        stage.drop()
        assert size(conn, other.sql) == 1
        other.append([part(2)], next_position=None, page_info={})


class TestRefusedRows:
    def test_are_quarantined_with_their_reason_and_counted(self, conn):
        stage = open_(conn)
        records = [part(1), part(""), part(2, price="1,5"), part(3, name={"a": 1}), part("0")]
        stage.append(records, next_position=None, page_info={})
        assert [row[0] for row in rows(stage)] == [1]
        assert (stage.pull.rows_read, stage.pull.rows_refused) == (5, 4)
        found = conn.execute(
            "SELECT source, entity, pull, key, reason, payload FROM confidence.quarantine ORDER BY quarantine_id"
        ).fetchall()
        assert [row[:3] for row in found] == [("shop", "parts", "ticket")] * 4
        assert [row[3:5] for row in found] == [
            (None, "id is no usable id"),
            ("2", "price is no decimal number"),
            ("3", "name is a structure, not text"),
            (None, "id is no usable id"),
        ]
        assert [row[5] for row in found] == [records[place] for place in (1, 2, 3, 4)]

    def test_are_named_as_the_copy_names_them_whatever_a_key_is_made_of(self, conn):
        conn.execute("CREATE TABLE shop.counts (place text, counted_at timestamptz, number bigint, row_hash bigint)")
        columns = (Column("place"), Column("counted_at", instant), Column("number", integer))
        counts = Table(SOURCE, "counts", columns, key=("place", "counted_at"), version=None, keeps_extra=False)
        stage = Stage.open(conn, counts, SOURCE, "test", "ticket")
        records = [{"place": "a", "counted_at": "2026-03-01T12:00:00.5+02:00", "number": number} for number in ("x", 1)]
        stage.append(records, next_position=[day(1)], page_info={})
        query = sql.SQL("SELECT r.key = jsonb_build_array(place, counted_at) FROM {} r, {} s")
        assert conn.execute(query.format(stage.refused, stage.sql)).fetchall() == [(True,)]

    def test_any_payload_can_be_kept(self, conn):
        open_(conn).append([part("", name="a\0b\\ 😀", price="1E+999999")], next_position=None, page_info={})
        kept = conn.execute("SELECT payload::text FROM confidence.quarantine").fetchone()[0]
        assert r"a\u0000b\\ 😀" in kept

    def test_up_to_the_floor_are_borne(self, conn):
        stage = staged(conn, PARTS, [[part(1), *[part(0)] * REFUSED_FLOOR]])
        assert stage.pull.complete

    def test_rows_of_which_none_can_be_stored_fail_the_pull(self, conn):
        staged(conn, PARTS, [[part(0)]])
        with pytest.raises(PullError, match="2 of 2 rows"):
            staged(conn, PARTS, [[part(0)], [part(0)]])

    def test_above_floor_and_share_fail_the_pull(self, conn):
        stage = open_(conn)
        with pytest.raises(PullError, match=r"21 of 21 rows of shop\.parts could not.*confidence\.quarantine"):
            stage.append([part(0)] * (REFUSED_FLOOR + 1), next_position=2, page_info={})

    def test_share_is_one_in_a_hundred(self, conn):
        stage = open_(conn)
        stage.append([part(id_) for id_ in range(1, 2976)], next_position=2, page_info={})
        stage.append([part(0)] * 30, next_position=3, page_info={})
        with pytest.raises(PullError, match="31 of 3006 rows"):
            stage.append([part(0)], next_position=4, page_info={})

    def test_pull_that_failed_for_them_starts_anew(self, conn):
        """Going on behind them would pass, at the end of the list, for a pull that is whole."""
        stage = open_(conn)
        with pytest.raises(PullError):
            stage.append([part(0)] * (REFUSED_FLOOR + 1), next_position=None, page_info={})
        again = open_(conn)
        assert (again.pull.complete, again.pull.position, again.pull.rows_read) == (False, None, 0)


def test_replaced_row_is_the_fresher_one(conn):
    stage = staged(conn, PARTS, [[part(1, "old"), part(2)]])
    stage.replace_rows(sql.SQL("id = 1"), [part(1, "new")])
    stage.replace_rows(sql.SQL("id = 3"), [part(3, "late")])
    names = conn.execute(sql.SQL("SELECT id, name FROM {} ORDER BY id").format(stage.sql)).fetchall()
    assert names == [(1, "new"), (2, "x"), (3, "late")]
    with pytest.raises(RowRefused, match="price"):
        stage.replace_rows(sql.SQL("id = 1"), [part(1, price="much")])


def test_replaced_row_keeps_a_time_that_is_only_written_otherwise(conn):
    stage = staged(conn, PARTS, [[part(1, updated_at="2026-01-01T08:00:00Z"), part(2, updated_at=day(1))]])
    later, other = "2026-01-01T08:00:00.123Z", "2026-01-01T08:00:01Z"
    stage.replace_rows(sql.SQL("true"), [part(1, "new", updated_at=later), part(2, updated_at=other)], same_second)
    query = sql.SQL("SELECT id, name, updated_at FROM {} ORDER BY id").format(stage.sql)
    assert conn.execute(query).fetchall() == [
        (1, "new", instant("2026-01-01T08:00:00Z")),
        (2, "x", instant(other)),
    ]


def same_second(one: object, other: object) -> bool:
    return one.replace(microsecond=0) == other.replace(microsecond=0)


def test_new_keys_are_counted_once_and_against_the_live_copy(conn):
    synced(conn, PARTS, [part(1), part(2)])
    synced(conn, PARTS, [part(1)])
    stage = staged(conn, PARTS, [[part(1), part(2)], [part(2), part(3), part(3)], [part(1), part(4)]])
    assert count_new(stage, 0) == (4, 3)
    assert count_new(stage, 1) == (2, 2)
    assert count_new(stage, 2) == (1, 1)
    assert count_new(stage, 3) == (0, 0)


feeds = st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=6).filter(
    lambda feed: any(map(any, feed)) or not any(feed)
)


@QUIET
@given(feed=feeds, crashes=st.lists(st.integers(0, 5), max_size=4))
def test_any_split_and_any_crash_stage_the_same_rows(conn, feed, crashes):
    """`crashes`: before which pages the attempt ends; id 0 is a row that is refused."""
    empty(conn)
    pages = [[part(id_, f"page {number}") for id_ in page] for number, page in enumerate(feed)]
    whole = staged(conn, PARTS, pages)
    expected, figures = rows(whole), pull(conn)
    whole.drop()
    stage = open_(conn, "cut off")
    while not stage.pull.complete:
        number = stage.pull.position or 0
        if number in crashes:
            crashes.remove(number)
            stage = open_(conn, "cut off")
            continue
        following = number + 1 if number + 1 < len(pages) else None
        stage.append(pages[number], next_position=following, page_info={})
    assert rows(stage) == expected
    assert pull(conn)[1:] == figures[1:]


@QUIET
@given(ids=st.lists(st.integers(1, 8), max_size=20), cuts=st.sets(st.integers(1, 19)))
def test_any_split_gives_the_same_rows_after_repeats_are_dropped(conn, ids, cuts):
    empty(conn)
    records = [part(id_, f"row {place}", changed=place % 3) for place, id_ in enumerate(ids)]
    edges = [0, *sorted(cut for cut in cuts if cut < len(ids)), len(ids)]
    pages = [records[start:end] for start, end in pairwise(edges)]
    kept = {}
    for split in ([records], pages):
        stage = staged(conn, PARTS, split)
        repeats = compare.drop_repeats(stage)
        kept[len(split) > 1] = {row[:2] for row in rows(stage)}
        assert repeats.total == len(ids) - len(set(ids))
    assert len({frozenset(found) for found in kept.values()}) == 1


@pytest.fixture
def own_server(tmp_path: Path):
    """A server of the test's own, to be killed."""
    with Postgres(tmp_path / "postgres", settings={"fsync": "off"}) as server:
        server.create_database("w")
        migrate(server.url("w"))
        add_shop(server.url("w"))
        yield server


@pytest.mark.drill("killed-postgres")
def test_crash_of_the_server_empties_stage_and_position_together_and_spares_the_plan(own_server):
    with psycopg.connect(own_server.url("w"), autocommit=True) as conn:
        synced(conn, PARTS, [part(1)])
        stage = planned(conn, PARTS, [part(1, "changed"), part(2)])
        stage.append([part(3)], next_position=3, page_info={})
        own_server.kill()
        with pytest.raises(psycopg.OperationalError):
            stage.append([part(4)], next_position=4, page_info={})
    own_server.start()
    with psycopg.connect(own_server.url("w"), autocommit=True) as conn:
        assert count(conn, "staging.pull") == 0
        assert count(conn, f"staging.{stage.pull.pull}") == 0
        plan = conn.execute(sql.SQL("SELECT id, _operation, _status FROM {} ORDER BY id").format(stage.plan)).fetchall()
        assert plan == [(1, "update", "confirmed"), (2, "insert", "confirmed")]
        assert count(conn, "shop.parts") == 1
        stage.conn = conn
        with pytest.raises(PullError, match="or the warehouse restarted: nothing is lost"):
            stage.append([part(4)], next_position=4, page_info={})
        fresh = open_(conn)
        assert (fresh.pull.position, rows(fresh)) == (None, [])
