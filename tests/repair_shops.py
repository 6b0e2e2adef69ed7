"""Rows of repair shops by hand, and the tables that are computed from them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import psycopg
from psycopg import sql

from include.sources.tekmetric import tables
from include.sources.tekmetric.derived import DERIVED
from include.warehouse import compare
from include.warehouse.merge import Merged, apply_plan
from include.warehouse.sql_fragments import identifiers
from include.warehouse.staging import Stage
from include.warehouse.table import Table

MIRRORED = {value.name: value for value in vars(tables).values() if isinstance(value, Table)}
COMPUTED = {derived.table.name: derived.table for derived in DERIVED}
TABLES = MIRRORED | COMPUTED
ITEMS = {"parts": "job_parts", "labor": "job_labor", "sublets": "job_sublets", "fees": "job_fees"}


def put(conn: psycopg.Connection, table: str, *records: Mapping[str, Any], sync_id: int = 0) -> None:
    """Write records into a mirrored table as the source would send them, over what is there."""
    declared = MIRRORED[table]
    for record in records:
        write(
            conn,
            table,
            dict(zip(declared.names, replace(declared, required=()).row(record), strict=True)),
            sync_id=sync_id,
        )


def write(conn: psycopg.Connection, table: str, row: Mapping[str, Any], sync_id: int = 0) -> None:
    """Write a row of any of the tables by its columns, over what is there."""
    declared = TABLES[table]
    row = {**row, "sync_id": sync_id, "deleted_at": None}
    conn.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
            declared.sql,
            identifiers(list(row)),
            sql.SQL(", ").join(map(sql.Literal, row.values())),
            identifiers(declared.key),
            sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in row),
        )
    )


def bury(conn: psycopg.Connection, table: str, sync_id: int = 0, **where: Any) -> None:
    """Put tombstones on rows."""
    condition = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in where.items()
    )
    conn.execute(
        sql.SQL("UPDATE {} SET deleted_at = now(), sync_id = {} WHERE {}").format(
            TABLES[table].sql, sql.Literal(sync_id), condition
        )
    )


def order(
    conn: psycopg.Connection,
    shop_id: int,
    tm_id: int,
    *,
    jobs: Iterable[Mapping[str, Any]] = (),
    fees: Iterable[Mapping[str, Any]] = (),
    sync_id: int = 0,
    **head: Any,
) -> None:
    """Write an order, its jobs (as in an estimate, items inside) and its own fees, in one transaction."""
    own = {"shop_id": shop_id, "tm_repair_order_id": tm_id}
    with conn.transaction():
        put(conn, "repair_orders", {"shop_id": shop_id, "tm_id": tm_id, "status": "POSTED"} | head, sync_id=sync_id)
        for job in jobs:
            put(conn, "jobs", own | job, sync_id=sync_id)
            for kind, table in ITEMS.items():
                _items(conn, table, own | {"tm_job_id": job["id"]}, job.get(kind, ()), sync_id)
        _items(conn, "job_fees", own | {"tm_job_id": 0}, fees, sync_id)


def _items(conn: psycopg.Connection, table: str, own: dict, items: Iterable[Mapping[str, Any]], sync_id: int) -> None:
    for number, item in enumerate(items, 1):
        put(conn, table, own | {"line": str(item.get("id") or f"{item.get('name')}#{number}")} | item, sync_id=sync_id)


def derive(conn: psycopg.Connection, sync_id: int | None = None) -> dict[str, Merged]:
    """Compute what that sync and later ones have touched, or everything, and say what was written in each table."""
    counts = {}
    with conn.transaction():
        for derived in DERIVED:
            touched = sql.SQL(derived.touched if sync_id else "true").format(since=sql.Literal((sync_id or 0) - 1))
            within = sql.SQL("{} AND NOT ({})").format(touched, sql.SQL(derived.keep))
            stage = Stage.open(conn, derived.table, "tekmetric", "derive", "a test")
            stage.fill(sql.SQL(derived.query).format(touched=touched))
            compare.plan_writes(stage)
            compare.plan_deletes(stage, status="confirmed", within=within)
            counts[derived.table.name] = apply_plan(conn, derived.table, stage.plan, sync_id or 0)
            stage.drop()
    return counts


def rows(conn: psycopg.Connection, table: str) -> dict[tuple, dict[str, Any]]:
    """The living rows of a table by key, a column each."""
    declared = TABLES[table]
    query = sql.SQL("SELECT {} FROM {} WHERE deleted_at IS NULL").format(identifiers(declared.names), declared.sql)
    found = [dict(zip(declared.names, row, strict=True)) for row in conn.execute(query)]
    return {tuple(row[name] for name in declared.key): row for row in found}


def computed(conn: psycopg.Connection) -> dict[str, dict]:
    """All that is computed."""
    return {name: rows(conn, name) for name in COMPUTED}


def march(day: int) -> date:
    return date(2026, 3, day)
