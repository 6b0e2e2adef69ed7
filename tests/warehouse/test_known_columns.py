"""The migration that makes columns of what the vendors are known to send: each is filled from `extra`, and back."""

from functools import reduce
from importlib import import_module

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from include.sources import get_source
from include.warehouse import migrate as module
from include.warehouse.migrate import migrate
from include.warehouse.readers import boolean, identifier, instant, integer, structure, text
from include.warehouse.table import Column, Table
from tests.conftest import as_role

MIGRATION = import_module("include.warehouse.migrations.versions.0026_known_columns")
BEFORE = MIGRATION.down_revision
SENT = {
    boolean: True,
    identifier: 7,
    instant: "2026-03-01T08:00:00+00:00",
    integer: 12,
    structure: [{"a": 1}],
    text: "word",
}
KEYS = {"bigint": 1, "text": "k"}


def declared(name: str) -> Table:
    schema, table = name.split(".")
    tables = (each for entity in get_source(schema).entities for each in entity.tables)
    return next(each for each in tables if each.name == table)


def record(columns: list[Column]) -> dict:
    """A record with a value in each column's field, and one field that no column reads."""
    made: dict = {"other": {"b": 2}}
    for column in columns:
        *outer, last = column.path
        reduce(lambda inside, name: inside.setdefault(name, {}), outer, made)[last] = SENT[column.read]
    return made


@pytest.mark.parametrize("name", MIGRATION.TABLES)
def test_reads_as_the_declaration_does(name):
    """Else the next scan would find other values than the migration has made."""
    there = {column.name: (column.path, column.read) for column in declared(name).columns}
    made = {column.name: (column.path, column.read) for column, _ in MIGRATION.TABLES[name]}
    assert {column: there.get(column) for column in made} == made


def test_fills_the_columns_from_extra_and_back(warehouse_url, postgres, monkeypatch):
    command = module.command
    upgrade, downgrade = command.upgrade, command.downgrade
    monkeypatch.setattr(command, "upgrade", lambda config, _: upgrade(config, BEFORE))
    migrate(warehouse_url)
    with psycopg.connect(as_role(None, warehouse_url, postgres), autocommit=True) as conn:
        # No other table has the rows that these name.
        conn.execute("SET session_replication_role = replica")
        for name, columns in MIGRATION.TABLES.items():
            insert(conn, declared(name), record([column for column, _ in columns]))
        before = {name: content(conn, name) for name in MIGRATION.TABLES}

        monkeypatch.setattr(command, "upgrade", lambda config, _: upgrade(config, MIGRATION.revision))
        migrate(warehouse_url)
        for name, columns in MIGRATION.TABLES.items():
            after, extra = content(conn, name), {"other": {"b": 2}}
            for column, type_ in columns:
                value = after[column.name]
                assert (value.isoformat() if type_ == "timestamptz" else value) == SENT[column.read], column.name
            assert (after["extra"], after["row_hash"] == before[name]["row_hash"]) == (extra, False)

        monkeypatch.setattr(command, "upgrade", lambda config, _: downgrade(config, BEFORE))
        migrate(warehouse_url)
        assert {name: content(conn, name) for name in MIGRATION.TABLES} == before


def insert(conn: psycopg.Connection, table: Table, extra: dict) -> None:
    query = "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass"
    types = dict(conn.execute(query, [table.full_name]).fetchall())
    row = {key: KEYS[types[key]] for key in table.key} | {"sync_id": 1, "extra": Jsonb(extra)}
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
