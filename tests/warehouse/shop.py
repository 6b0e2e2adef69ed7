"""A small source that only these tests know: a few mirrored tables, and the road from records to rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from include.warehouse import compare, fence, retention, sync_log
from include.warehouse.merge import Merged, apply_plan
from include.warehouse.migrations.ddl import foreign_key
from include.warehouse.readers import decimal, identifier, instant, integer, structure
from include.warehouse.staging import Stage
from include.warehouse.sync_log import Counts
from include.warehouse.table import Column, Table

SOURCE = "shop"
PARTS = Table(
    SOURCE,
    "parts",
    (
        Column("id", identifier),
        Column("name"),
        Column("price", decimal),
        Column("tags", structure),
        Column("updated_at", instant),
    ),
)
STOCK = Table(
    SOURCE,
    "stock",
    (Column("place"), Column("bin", integer), Column("count", integer)),
    ("place", "bin"),
    None,
    keeps_extra=False,
)
TABLES = {
    PARTS: (
        {"id": "bigint"},
        {"name": "text", "price": "numeric", "tags": "jsonb", "updated_at": "timestamptz", "extra": "jsonb"},
    ),
    STOCK: ({"place": "text", "bin": "bigint"}, {"count": "bigint"}),
}
# Orders, their lines, and notes on the lines: what refers to a removed row goes with it.
ORDERS = Table(SOURCE, "orders", (Column("id", identifier), Column("name")), version=None, keeps_extra=False)
LINES = Table(
    SOURCE, "lines", (Column("id", identifier), Column("order_id", identifier)), version=None, keeps_extra=False
)
NOTES = Table(
    SOURCE,
    "notes",
    (Column("line_id", identifier), Column("n", integer), Column("text")),
    ("line_id", "n"),
    None,
    keeps_extra=False,
)
FAMILY = {
    ORDERS: ({"id": "bigint"}, {"name": "text"}, ()),
    LINES: ({"id": "bigint"}, {"order_id": "bigint"}, (foreign_key("order_id", "shop.orders (id)", cascade=True),)),
    NOTES: (
        {"line_id": "bigint", "n": "bigint"},
        {"text": "text"},
        (foreign_key("line_id", "shop.lines (id)", cascade=True),),
    ),
}
START = datetime(2026, 1, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def part(id_: Any, name: Any = "x", price: Any = "1.00", changed: int = 0, **more: Any) -> dict[str, Any]:
    """A part as the source would send it, changed on day `changed`."""
    return {"id": id_, "name": name, "price": price, "updated_at": day(changed).isoformat()} | more


def rows(conn: psycopg.Connection, table: Table) -> dict[tuple, dict]:
    """Every row of the mirror by its key, tombstones and the mirror's own columns too."""
    query = sql.SQL("SELECT to_jsonb(t) FROM {} t").format(table.sql)
    return {tuple(row[k] for k in table.key): row for (row,) in conn.execute(query)}


def live(conn: psycopg.Connection, table: Table) -> dict[tuple, tuple]:
    """The data of the live rows by key."""
    found = rows(conn, table).items()
    return {key: tuple(row[n] for n in table.names) for key, row in found if row["deleted_at"] is None}


def everything(conn: psycopg.Connection) -> dict[str, Any]:
    """All that a rollback has to give back."""
    states = conn.execute("SELECT to_jsonb(s) FROM confidence.sync_state s ORDER BY entity, partition").fetchall()
    return {table.name: rows(conn, table) for table in TABLES} | {"sync_state": states}


def changes(conn: psycopg.Connection, sync_id: int) -> list:
    return conn.execute(
        "SELECT table_name, key, operation, before, after, after_hash FROM confidence.change_log"
        " WHERE sync_id = %s ORDER BY change_id",
        [sync_id],
    ).fetchall()


def count(conn: psycopg.Connection, table: str) -> int:
    return conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*table.split(".")))).fetchone()[0]


def empty(conn: psycopg.Connection) -> None:
    """Forget all rows and all history: a property's examples follow one another in one database."""
    conn.execute(
        "TRUNCATE shop.parts, shop.stock, confidence.change_log, confidence.sync_log, confidence.sync_state,"
        " confidence.quarantine, staging.pull CASCADE"
    )
    conn.execute("UPDATE confidence.writer SET state = 'running', run = NULL, hold_reason = NULL, epoch = 0")


def staged(conn: psycopg.Connection, table: Table, pages: Iterable[Sequence[Mapping]], ticket: str = "ticket") -> Stage:
    """A finished pull of the pages."""
    stage = Stage.open(conn, table, SOURCE, "test", ticket)
    stage.drop()
    stage = Stage.open(conn, table, SOURCE, "test", ticket)
    pages = list(pages)
    for number, page in enumerate(pages, 1):
        stage.append(page, next_position=number + 1 if number < len(pages) else None, page_info={})
    return stage


def planned(conn: psycopg.Connection, table: Table, records: Sequence[Mapping]) -> Stage:
    """The records staged, and a plan that would make the copy like them."""
    stage = staged(conn, table, [records])
    compare.drop_repeats(stage)
    compare.plan_writes(stage)
    compare.plan_deletes(stage, status="confirmed")
    return stage


@dataclass(frozen=True)
class Synced:
    sync_id: int
    merged: Merged


def apply(conn: psycopg.Connection, stage: Stage, watermark: datetime | None = None) -> Synced:
    """Apply the stage's plan as a sync of its own."""
    sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/test")
    with fence.writing(conn, SOURCE, epoch=fence.read(conn, SOURCE).epoch):
        merged = apply_plan(conn, stage.table, stage.plan, sync_id)
        sync_log.advance(conn, sync_id, SOURCE, stage.table.name, watermark=watermark, counts=Counts.of(merged))
    sync_log.finish(conn, sync_id, {stage.table.name: Counts.of(merged)})
    return Synced(sync_id, merged)


def synced(
    conn: psycopg.Connection, table: Table, records: Sequence[Mapping], watermark: datetime | None = None
) -> Synced:
    """Make the copy like the records."""
    return apply(conn, planned(conn, table, records), watermark)


def expire_log(conn: psycopg.Connection, days: int) -> int:
    """Let the policy keep the shop's sync log for so many days, and return how many rows it drops."""
    conn.execute(
        "INSERT INTO confidence.retention (table_name, source, days) VALUES ('confidence.sync_log', %s, %s)"
        " ON CONFLICT (table_name, source) DO UPDATE SET days = excluded.days",
        [SOURCE, days],
    )
    return retention.expire(conn)["confidence.sync_log"]
