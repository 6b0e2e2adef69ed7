"""Migrations that make a column of a field in `extra`: as if the column's reader had read the vendor's record."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from include.sources.repairshopr.tables import CUSTOMERS
from include.warehouse import sync_log
from include.warehouse.migrations import extra
from include.warehouse.migrations.extra import column_from_extra, column_to_extra
from include.warehouse.readers import structure
from include.warehouse.rollback import RollbackRefused, roll_back
from include.warehouse.sql_fragments import identifiers
from include.warehouse.table import Column, RowRefused, Table
from include.warehouse.table_rollback import Tables
from stack.new_source import TYPES

NAME = CUSTOMERS.full_name
TIMES = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-02T00:00:00Z"}
# What readers take, refuse, or make nothing of.
WORDS = [
    "",
    " ",
    "0",
    "7",
    "-7",
    "1.50",
    "1E+2",
    "abc",
    "true",
    "false",
    "2026-03-01",
    "2026-03-01T12:00:00.5+02:00",
    "ü",
]
NUMBERS = [0, 1, -1, 2**63 - 1, 2**63, -(10**25), Decimal("0.10"), Decimal("-12.5"), Decimal("7.0"), Decimal("1e-7")]
SCALARS = st.one_of(st.none(), st.booleans(), st.sampled_from(WORDS), st.sampled_from(NUMBERS))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
)
PRICES = st.one_of(VALUES, st.fixed_dictionaries({}, optional={"amount": VALUES, "unit": SCALARS}))
RECORDS = st.lists(
    st.fixed_dictionaries({}, optional={"price": PRICES, "amount": VALUES, "more": SCALARS}), min_size=10, max_size=40
)


@contextmanager
def migrating(url: str) -> Iterator[psycopg.Connection]:
    """A migration's transaction, which is rolled back; its connection."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection, Operations.context(MigrationContext.configure(connection)):
        yield connection.connection.driver_connection
        connection.rollback()
    engine.dispose()


def write(conn: psycopg.Connection, table: Table, target: str, rows: list[tuple]) -> None:
    statement = sql.SQL("COPY {} ({}, sync_id) FROM STDIN").format(
        sql.Identifier(*target.split(".")), identifiers(table.names)
    )
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row((*row, 1))


def records(given_: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records as the vendor's answers are decoded."""
    whole = [{"id": number, **TIMES, **record} for number, record in enumerate(given_, 1)]
    return [extra._decode(structure(record)) for record in whole]


@pytest.mark.parametrize("field", ["amount", "price.amount"])
@pytest.mark.parametrize("read", TYPES, ids=lambda read: read.__name__)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=RECORDS)
def test_has_what_the_reader_makes_of_the_record(warehouse, read, field, sent):
    """Value, extra and hash. A record that is refused keeps its field in `extra`."""
    column = Column("new_one", read, field)
    with_column = replace(CUSTOMERS, columns=(*CUSTOMERS.columns, column))
    old, new, refused = [], [], []
    for record in records(sent):
        old.append(CUSTOMERS.row(record))
        try:
            new.append(with_column.row(record))
        except RowRefused:
            refused.append(record["id"])
            *values, kept = old[-1]
            new.append((*values, None, kept))
    with migrating(warehouse) as conn:
        write(conn, CUSTOMERS, NAME, old)
        column_from_extra(NAME, column, TYPES[read])
        conn.execute(f"CREATE TEMPORARY TABLE expected (LIKE {NAME} INCLUDING GENERATED)")
        write(conn, with_column, "expected", new)
        found = conn.execute(f"SELECT to_jsonb(t)::text FROM {NAME} t ORDER BY id").fetchall()
        assert found == conn.execute("SELECT to_jsonb(t)::text FROM expected t ORDER BY id").fetchall()


@pytest.mark.parametrize("field", ["amount", "price.amount", "a.b c.D"])
def test_downgrade_puts_the_values_back(warehouse, field):
    """Where they have the column's own type, row and hash are as they were."""
    column, path = Column("new_one", field=field), field.split(".")
    with migrating(warehouse) as conn:
        sent = [{}, {"more": 1}, {"price": {"unit": "h"}}]
        for value in ("x", "7"):
            for each in list(sent[:3]):
                record: Any = dict(each)
                around = record
                for name in path[:-1]:
                    around[name] = dict(around.get(name, {}))
                    around = around[name]
                around[path[-1]] = value
                sent.append(record)
        write(conn, CUSTOMERS, NAME, [CUSTOMERS.row(record) for record in records(sent)])
        everything = f"SELECT to_jsonb(t)::text FROM {NAME} t ORDER BY id"
        before = conn.execute(everything).fetchall()
        expression = extra._hash_of(conn, NAME)
        column_from_extra(NAME, column, "text")
        assert conn.execute(f"SELECT count(new_one), count(DISTINCT new_one) FROM {NAME}").fetchone() == (6, 2)
        column_from_extra(NAME, Column("later", field="none"), "text")
        with pytest.raises(ValueError, match="undo the later migrations first"):
            column_to_extra(NAME, column)
        column_to_extra(NAME, Column("later", field="none"))
        column_to_extra(NAME, column)
        assert conn.execute(everything).fetchall() == before
        assert extra._hash_of(conn, NAME) == expression


def test_many_rows_in_batches(warehouse, monkeypatch):
    monkeypatch.setattr(extra, "BATCH", 7)
    with migrating(warehouse) as conn:
        sent = records([{"amount": number} for number in range(50)])
        write(conn, CUSTOMERS, NAME, [CUSTOMERS.row(record) for record in sent])
        column_from_extra(NAME, Column("amount"), "text")
        kept = conn.execute(f"SELECT count(DISTINCT amount), count(extra) FROM {NAME}").fetchone()
        assert kept == (50, 0)


def test_a_value_in_another_column_is_another_hash(warehouse):
    with migrating(warehouse) as conn:
        sent = records([{"one": "x"}, {"two": "x"}])
        write(conn, CUSTOMERS, NAME, [CUSTOMERS.row(record) for record in sent])
        for name in ("one", "two"):
            column_from_extra(NAME, Column(name), "text")
        assert conn.execute(f"SELECT count(DISTINCT row_hash) FROM {NAME}").fetchone() == (2,)


def test_older_syncs_are_undone_where_no_value_moved(warehouse, conn):
    """Where one did, the rollback is refused and says so."""
    first = sync_log.begin(conn, "repairshopr", "sync", "a_dag/1")
    second = sync_log.begin(conn, "repairshopr", "sync", "a_dag/2")
    rows = [CUSTOMERS.row(record) for record in records([{"more": 1}, {"amount": "x"}])]
    write(conn, CUSTOMERS, NAME, rows)
    for sync_id, id_ in ((first, 1), (second, 2)):
        conn.execute(
            "INSERT INTO confidence.change_log (sync_id, table_name, key, operation, after_hash)"
            f" SELECT %s, %s, jsonb_build_object('id', id), 'insert', row_hash FROM {NAME} WHERE id = %s",
            [sync_id, NAME, id_],
        )
        sync_log.finish(conn, sync_id, {})
    third = sync_log.begin(conn, "repairshopr", "sync", "a_dag/3")
    conn.execute(
        "WITH old AS (SELECT to_jsonb(t) AS before FROM repairshopr.customers t WHERE id = 2), new AS ("
        ' UPDATE repairshopr.customers t SET extra = \'{"amount": "y"}\', sync_id = %s WHERE id = 2'
        " RETURNING to_jsonb(t) AS after, row_hash)"
        " INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after, after_hash)"
        " SELECT %s, %s, '{\"id\": 2}', 'update', before, after, row_hash FROM old, new",
        [third, third, NAME],
    )
    sync_log.finish(conn, third, {})
    engine = create_engine(make_url(warehouse).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        column_from_extra(NAME, Column("amount"), "text")
    engine.dispose()
    how = {"run": "a_dag/3", "reason": "test", "dry_run": False, "timeout": 1}
    assert roll_back(conn, Tables(conn), first, **how).conflicts == ()
    with pytest.raises(RollbackRefused, match=r"1 of repairshopr\.customers by hand or by a migration"):
        roll_back(conn, Tables(conn), third, **how)
    assert conn.execute(f"SELECT id, amount FROM {NAME}").fetchall() == [(2, "y")]
    # As the log has it: in `extra` at that time.
    was = f"SELECT id, amount, extra FROM confidence.as_of(NULL::{NAME}, %s::bigint) ORDER BY id"
    assert conn.execute(was, [second]).fetchall() == [(1, None, {"more": 1}), (2, None, {"amount": "x"})]
    assert conn.execute(was, [third]).fetchall() == [(1, None, {"more": 1}), (2, "y", None)]
    roll_back(conn, Tables(conn), third, **how, force=True)
    assert conn.execute(f"SELECT id, amount, extra FROM {NAME}").fetchall() == [(2, None, {"amount": "x"})]
