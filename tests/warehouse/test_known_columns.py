"""The migrations that make columns of what the vendors are known to send: each is filled from `extra`, and back."""

from decimal import Decimal
from functools import reduce
from importlib import import_module

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from include.sources import get_source
from include.sources.tekmetric import tables
from include.warehouse import migrate as module
from include.warehouse.migrate import migrate
from include.warehouse.readers import boolean, decimal, identifier, instant, integer, structure, text
from include.warehouse.table import Column, Table
from tests.conftest import as_role

VERSIONS = "include.warehouse.migrations.versions"
MIGRATIONS = [import_module(f"{VERSIONS}.{name}") for name in ("0026_known_columns", "0030_more_columns")]
SENT = {
    boolean: True,
    decimal: Decimal("0.75"),
    identifier: 7,
    instant: "2026-03-01T08:00:00+00:00",
    integer: 12,
    structure: [{"a": 1}],
    text: "word",
}
# Readers of a source's own, and what they are sent. Those of the migration stay as they were written.
OWN = {"whole": "cents", "code": "code_beside_name", "share": "share"}
SENT_TO = {"whole": 41_873, "code": "BUSINESS", "share": Decimal("0.806")}
GIVEN = {"bigint": 1, "text": "ESTIMATE"}
REQUIRED = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND attnotnull AND NOT atthasdef AND NOT attisdropped
"""


def declared(name: str) -> Table:
    schema, table = name.split(".")
    tables = (each for entity in get_source(schema).entities for each in entity.tables)
    return next(each for each in tables if each.name == table)


def record(columns: list[Column]) -> dict:
    """A record with a value in each column's field, and one field that no column reads."""
    made: dict = {"other": {"b": 2}}
    for column in columns:
        *outer, last = (*column.path, *(column.uses or ()))
        reduce(lambda inside, name: inside.setdefault(name, {}), outer, made)[last] = sent(column)
    return made


def sent(column: Column):
    return SENT.get(column.read) or SENT_TO[column.read.__name__]


def described(column: Column) -> tuple:
    """What makes two columns read alike."""
    return column.path, OWN.get(column.read.__name__, column.read.__name__), column.uses


@pytest.mark.parametrize("migration", MIGRATIONS)
def test_reads_as_the_declaration_does(migration):
    """Else the next scan would find other values than the migration has made."""
    for name, columns in migration.TABLES.items():
        there = {column.name: described(column) for column in declared(name).columns}
        made = {column.name: described(column) for column, _ in columns}
        assert {column: there.get(column) for column in made} == made


@pytest.mark.parametrize("value", [41_873, "8907.0", "8907.5", "", None, -3, "NaN", {"code": "B"}, {"name": "b"}, "b"])
@pytest.mark.parametrize("name", OWN)
def test_a_reader_of_its_own_reads_as_the_sources(name, value):
    made, there = getattr(MIGRATIONS[1], name), getattr(tables, OWN[name])
    assert result_of(made, value) == result_of(there, value)


def result_of(read, value):
    try:
        return read(value)
    except ValueError:
        return ValueError


@pytest.mark.parametrize("migration", MIGRATIONS)
def test_fills_the_columns_from_extra_and_back(warehouse_url, postgres, monkeypatch, migration):
    command, before_it = module.command, migration.down_revision
    upgrade, downgrade = command.upgrade, command.downgrade
    monkeypatch.setattr(command, "upgrade", lambda config, _: upgrade(config, before_it))
    migrate(warehouse_url)
    with psycopg.connect(as_role(None, warehouse_url, postgres), autocommit=True) as conn:
        # No other table has the rows that these name.
        conn.execute("SET session_replication_role = replica")
        conn.execute("INSERT INTO tekmetric.shops (tm_id, name, timezone, sync_id) VALUES (1, 'A', 'UTC', 1)")
        for name, columns in migration.TABLES.items():
            insert(conn, declared(name), record([column for column, _ in columns]))
        before = {name: content(conn, name) for name in migration.TABLES}

        monkeypatch.setattr(command, "upgrade", lambda config, _: upgrade(config, migration.revision))
        migrate(warehouse_url)
        for name, columns in migration.TABLES.items():
            after, extra = content(conn, name), {"other": {"b": 2}}
            for column, type_ in columns:
                value = after[column.name]
                assert (value.isoformat() if type_ == "timestamptz" else value) == sent(column), column.name
            assert (after["extra"], after["row_hash"] == before[name]["row_hash"]) == (extra, False)

        monkeypatch.setattr(command, "upgrade", lambda config, _: downgrade(config, before_it))
        migrate(warehouse_url)
        assert {name: content(conn, name) for name in migration.TABLES} == before


def insert(conn: psycopg.Connection, table: Table, extra: dict) -> None:
    types = dict(conn.execute(REQUIRED, [table.full_name]).fetchall())
    row = {name: GIVEN[type_] for name, type_ in types.items()} | {"extra": Jsonb(extra, structure)}
    conn.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            table.sql, sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join([sql.Placeholder()] * len(row))
        ),
        list(row.values()),
    )


def content(conn: psycopg.Connection, name: str) -> dict:
    """The one row of the table."""
    cursor = conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(*name.split("."))))
    return dict(zip([each.name for each in cursor.description], cursor.fetchone(), strict=True))
