"""Migrations: safe at every start, and what they give every mirrored table."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from include.warehouse import migrate as module
from include.warehouse.migrate import migrate
from tests.warehouse.conftest import add_shop

NEWEST = max(path.name[:4] for path in (Path(module.__file__).parent / "migrations" / "versions").glob("0*.py"))


def schema(url: str) -> list:
    """Every table and column."""
    with psycopg.connect(url) as conn:
        return conn.execute(
            "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, ordinal_position"
        ).fetchall()


def command_with(**environment: str) -> subprocess.CompletedProcess:
    """Run the command in that environment."""
    command = [sys.executable, "-m", "include.warehouse.migrate"]
    root = Path(module.__file__).parents[2]
    return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=60)


def test_twice_is_once(warehouse_url):
    assert migrate(warehouse_url) == NEWEST
    before = schema(warehouse_url)
    assert migrate(warehouse_url) == NEWEST
    assert schema(warehouse_url) == before


def test_rows_of_before_are_kept_without_requests(warehouse_url, monkeypatch):
    upgrade = module.command.upgrade
    monkeypatch.setattr(module.command, "upgrade", lambda config, _: upgrade(config, "0004"))
    assert migrate(warehouse_url) == "0004"
    with psycopg.connect(warehouse_url, autocommit=True) as conn:
        conn.execute("INSERT INTO confidence.sync_log (source, kind, run) VALUES ('repairshopr', 'sync', 'a_dag/1')")
        monkeypatch.undo()
        assert migrate(warehouse_url) == NEWEST
        kept = conn.execute("SELECT run, requests, request_errors FROM confidence.sync_log").fetchall()
    assert kept == [("a_dag/1", 0, 0)]


def test_a_writer_that_stands_is_known_to_stand_since_the_migration(warehouse_url, monkeypatch):
    upgrade = module.command.upgrade
    monkeypatch.setattr(module.command, "upgrade", lambda config, _: upgrade(config, "0021"))
    migrate(warehouse_url)
    with psycopg.connect(warehouse_url, autocommit=True) as conn:
        conn.execute(
            "UPDATE confidence.writer SET state = 'stopped', run = 'a_dag/1', hold_reason = 'too much',"
            " since = now() - interval '1 day' WHERE source = 'square'"
        )
        monkeypatch.undo()
        migrate(warehouse_url)
        kept = conn.execute(
            "SELECT s.source, s.run, s.hold_reason, s.ended_at, s.began_at = w.stops_kept_since"
            " FROM confidence.writer_stop s JOIN confidence.writer w USING (source)"
        ).fetchall()
    assert kept == [("square", "a_dag/1", "too much", None, True)]


def test_log_that_was_cleaned_up_before_is_known_to_have_an_end(warehouse_url, monkeypatch):
    upgrade = module.command.upgrade
    monkeypatch.setattr(module.command, "upgrade", lambda config, _: upgrade(config, "0022"))
    migrate(warehouse_url)
    with psycopg.connect(warehouse_url, autocommit=True) as conn:
        for source in ("tekmetric", "tekmetric", "square"):
            conn.execute("INSERT INTO confidence.sync_log (source, kind, run) VALUES (%s, 'sync', 'a_dag/1')", [source])
        conn.execute(
            "INSERT INTO confidence.change_log (sync_id, table_name, key, operation) VALUES (1, 'x', '{}', 'insert')"
        )
        monkeypatch.undo()
        migrate(warehouse_url)
        dropped = conn.execute("SELECT source, now() - until > interval '30 days' FROM confidence.dropped_changes")
        assert dropped.fetchall() == [("tekmetric", True)]
        # Nobody knows when entries of before were made.
        assert conn.execute("SELECT changed_at FROM confidence.change_log").fetchall() == [(None,)]


def test_rows_from_before_extra_keep_their_hash_and_are_known(warehouse_url, monkeypatch):
    upgrade, before = module.command.upgrade, "0023"
    monkeypatch.setattr(module.command, "upgrade", lambda config, _: upgrade(config, before))
    migrate(warehouse_url)
    hashed = "SELECT row_hash FROM repairshopr.customers"
    with psycopg.connect(warehouse_url, autocommit=True) as conn:
        conn.execute("INSERT INTO confidence.sync_log (source, kind, run) VALUES ('repairshopr', 'sync', 'a_dag/1')")
        conn.execute("INSERT INTO repairshopr.customers (id, firstname, sync_id) VALUES (1, 'Ann', 1)")
        hash_before = conn.execute(hashed).fetchall()
        monkeypatch.undo()
        migrate(warehouse_url)
        assert conn.execute("SELECT * FROM confidence.extra_since").fetchall() == [("repairshopr", 1)]
        assert conn.execute(hashed).fetchall() == hash_before
        conn.execute("UPDATE repairshopr.customers SET extra = '{\"a\": 1}'")
        assert conn.execute(hashed).fetchall() != hash_before
        downgrade = module.command.downgrade
        monkeypatch.setattr(module.command, "upgrade", lambda config, _: downgrade(config, before))
        assert migrate(warehouse_url) == before
        assert conn.execute(hashed).fetchall() == hash_before


def test_pulls_of_before_that_have_no_ranges_are_begun_anew(warehouse_url, monkeypatch):
    upgrade, before = module.command.upgrade, "0032"
    monkeypatch.setattr(module.command, "upgrade", lambda config, _: upgrade(config, before))
    migrate(warehouse_url)
    with psycopg.connect(warehouse_url, autocommit=True) as conn:
        for pull in ("storage_objects_scan", "square_orders_scan"):
            conn.execute(
                "INSERT INTO staging.pull (pull, source, entity, purpose, ticket, attempt, pages)"
                " VALUES (%s, split_part(%s, '_', 1), split_part(%s, '_', 2), 'scan', 'x', gen_random_uuid(), 1)",
                [pull] * 3,
            )
        monkeypatch.undo()
        migrate(warehouse_url)
        assert conn.execute("SELECT pull FROM staging.pull").fetchall() == [("square_orders_scan",)]


def test_three_at_once_take_turns(warehouse_url):
    with ThreadPoolExecutor(3) as executor:
        assert list(executor.map(migrate, [warehouse_url] * 3)) == [NEWEST] * 3


@pytest.mark.drill("upgrade-in-between")
def test_failure_leaves_nothing_behind(warehouse_url):
    with psycopg.connect(warehouse_url, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA repairshopr")
    with pytest.raises(Exception, match='schema "repairshopr" already exists'):
        migrate(warehouse_url)
    assert schema(warehouse_url) == []


@pytest.mark.drill("downgrade-refused")
def test_a_warehouse_of_a_newer_version_is_refused_and_stays_as_it_is(warehouse_url):
    migrate(warehouse_url)
    with psycopg.connect(warehouse_url, autocommit=True) as conn:
        conn.execute("UPDATE confidence.alembic_version SET version_num = '9999'")
        conn.execute("ALTER TABLE repairshopr.customers ADD COLUMN of_tomorrow text")
    before = schema(warehouse_url)
    done = command_with(AIRFLOW_CONN_WAREHOUSE=warehouse_url)
    assert done.returncode != 0
    assert done.stderr.startswith("the warehouse is at revision 9999, which this version does not know")
    assert "Traceback" not in done.stderr
    assert schema(warehouse_url) == before


def test_command_reads_the_connection_of_the_environment(warehouse_url):
    done = command_with(AIRFLOW_CONN_WAREHOUSE=warehouse_url)
    assert (done.returncode, done.stdout) == (0, f"warehouse is at revision {NEWEST}\n")
    done = command_with()
    assert done.returncode != 0
    assert done.stderr.startswith("AIRFLOW_CONN_WAREHOUSE is not set")


class TestRowHash:
    COLUMNS = ("name", "price", "tags", "updated_at")

    def hash_of(self, conn, id_=1, **values):
        row = [id_, *(values.get(column) for column in self.COLUMNS)]
        conn.execute(
            "INSERT INTO shop.parts (id, name, price, tags, updated_at, sync_id) VALUES (%s, %s, %s, %s, %s, 0)"
            " ON CONFLICT (id) DO UPDATE SET (name, price, tags, updated_at) ="
            " (excluded.name, excluded.price, excluded.tags, excluded.updated_at)",
            row,
        )
        return conn.execute("SELECT row_hash FROM shop.parts WHERE id = %s", [id_]).fetchone()[0]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"price": "95.0"}, {"price": "95.00"}),
            ({"price": "1E+2"}, {"price": "100"}),
            ({"price": "-0.0"}, {"price": "0"}),
            ({"tags": '{"a": 1, "b": 2}'}, {"tags": '{"b":2,"a":1}'}),
            ({"updated_at": "2026-01-01T12:00Z"}, {"updated_at": "2026-01-01T07:00-05:00"}),
        ],
    )
    def test_equal_values_have_equal_hashes(self, conn, one, other):
        assert self.hash_of(conn, **one) == self.hash_of(conn, **other)

    def test_differs_with_every_column_and_place(self, conn):
        variants = [
            {},
            *({"name": name} for name in ("", "x", "X", "x ", "95")),
            *({"price": price} for price in ("95", "-95", "0", "95.0000001", "1")),
            *({"tags": tags} for tags in ("null", "[]", "{}", '"x"', "5", "-5", "[5]", "[-5]")),
            *({"tags": tags} for tags in ("[[1],2]", "[[1,2]]", '{"a":{"b":1},"c":2}', '{"a":{"b":1,"c":2}}')),
            *({"updated_at": f"2026-01-01T12:00:00.00000{digit}Z"} for digit in (0, 1)),
            {"updated_at": "2000-01-01T00:00Z"},
        ]
        hashes = [self.hash_of(conn, **variant) for variant in variants]
        assert len(set(hashes)) == len(variants)

    def test_is_of_the_content_alone(self, conn):
        content = self.hash_of(conn, id_=1, name="x")
        assert self.hash_of(conn, id_=2, name="x") == content
        conn.execute("UPDATE shop.parts SET deleted_at = now(), sync_id = 7")
        assert conn.execute("SELECT DISTINCT row_hash FROM shop.parts").fetchall() == [(content,)]

    def test_follows_an_edit_by_hand(self, conn):
        before = self.hash_of(conn, name="x")
        conn.execute("UPDATE shop.parts SET name = 'y'")
        assert conn.execute("SELECT row_hash FROM shop.parts").fetchone()[0] != before

    def test_is_the_same_in_every_database(self, conn, warehouse_url):
        migrate(warehouse_url)
        add_shop(warehouse_url)
        with psycopg.connect(warehouse_url, autocommit=True) as other:
            assert self.hash_of(other, name="Zoë", price="9.95") == self.hash_of(conn, name="Zoë", price="9.95")
