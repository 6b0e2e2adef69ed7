"""A simulated seller, and records by hand, for the tests of its mirror."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from include.api.client import ApiClient
from include.simulators import square as simulator
from include.sources.mirror.context import MirrorContext
from include.sources.square import SOURCE
from include.warehouse.table import Table

RUN = "square_reconcile/test"
MIRRORED: dict[str, Table] = {table.name: table for entity in SOURCE.entities for table in entity.tables}
COMPUTED: dict[str, Table] = {derived.table.name: derived.table for derived in SOURCE.derived}
TABLES = MIRRORED | COMPUTED


@dataclass(frozen=True)
class Seller:
    """A simulated seller and the means to reach it."""

    simulator: simulator.Simulator
    context: MirrorContext

    @property
    def control(self) -> simulator.Control:
        return self.simulator.control


@contextmanager
def selling(conn: psycopg.Connection, **fields: Any) -> Iterator[Seller]:
    """A seller of the given Config."""
    with simulator.running(simulator.Config(**fields)) as running:
        headers = SOURCE.authorize(running.token)
        with ApiClient("square", running.url, headers=headers, timeout=(2, 5), attempts=3, backoff=(0.01, 0.05)) as api:
            yield Seller(running, MirrorContext(SOURCE, api, conn, RUN))


def rows(conn: psycopg.Connection, table: str, *, live: bool = True) -> dict[Any, dict[str, Any]]:
    """The data of the rows by key, a key of several columns as a tuple; tombstones too unless `live`."""
    declared = TABLES[table]
    alive = sql.SQL("WHERE deleted_at IS NULL" if live else "")
    query = sql.SQL("SELECT to_jsonb(t) FROM {} t {}").format(declared.sql, alive)
    found = [row for (row,) in conn.execute(query)]
    keys = [tuple(row[name] for name in declared.key) for row in found]
    data = [{name: row[name] for name in declared.names} for row in found]
    return {key if len(key) > 1 else key[0]: row for key, row in zip(keys, data, strict=True)}


def contents(conn: psycopg.Connection, *, live: bool = True) -> dict[str, dict]:
    """The data of every table."""
    return {name: rows(conn, name, live=live) for name in TABLES}


def everything(conn: psycopg.Connection) -> dict[str, list]:
    """All that a rollback has to give back: every row with the mirror's own columns, and the watermarks."""
    found = {
        name: conn.execute(sql.SQL("SELECT to_jsonb(t) j FROM {} t ORDER BY 1").format(table.sql)).fetchall()
        for name, table in TABLES.items()
    }
    query = "SELECT to_jsonb(s) FROM confidence.sync_state s ORDER BY entity, partition"
    return found | {"sync_state": conn.execute(query).fetchall()}


USUAL = {
    "amount_money": {"amount": 0, "currency": "USD"},
    "calculated_at": "2026-01-01T00:00:00Z",
    "created_at": "2026-01-01T00:00:00Z",
    "location_id": "L1",
    "name": "Name",
    "quantity": "1",
    "state": "OPEN",
    "status": "ACTIVE",
    "type": "CARD",
    "updated_at": "2026-01-01T00:00:00Z",
    "version": 1,
}


def filled(table: Table, record: dict[str, Any]) -> dict[str, Any]:
    """The record with what the table requires, as far as it has not got it."""
    return {name: USUAL[name] for name in table.required} | record


def put(conn: psycopg.Connection, table: str, *records: dict[str, Any]) -> None:
    """Write records into the mirror as the source would send them, with what its table requires."""
    declared = TABLES[table]
    names = sql.SQL(", ").join(map(sql.Identifier, declared.names))
    places = sql.SQL(", ").join([sql.Placeholder()] * len(declared.names))
    for record in records:
        query = sql.SQL("INSERT INTO {} ({}, sync_id) VALUES ({}, 0)").format(declared.sql, names, places)
        conn.execute(query, declared.row(filled(declared, record)))
