"""Simulated shops, and their mirror, for the tests of it."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from include.api.client import ApiClient
from include.confidence.summary import ForensicSummary
from include.simulators import tekmetric as simulator
from include.simulators.tekmetric import Mutation
from include.sources.base import Api, Synced
from include.sources.tekmetric import SOURCE
from include.sources.tekmetric.tables import SHOPS
from include.warehouse import fence, sync_log
from include.warehouse.rollback import Undone, roll_back
from include.warehouse.sync_log import Counts
from include.warehouse.table import Table
from include.warehouse.table_rollback import Tables

RUN = "tekmetric_sync/test"
MIRRORED: dict[str, Table] = {table.name: table for entity in SOURCE.entities for table in entity.tables}
COMPUTED: dict[str, Table] = {derived.table.name: derived.table for derived in SOURCE.derived}
TABLES = MIRRORED | COMPUTED
ITEMS = ("job_parts", "job_labor", "job_sublets", "job_fees")
EAST, WEST = 6212, 7301
SMALL = {"orders": 12, "customers": 6, "employees": 4, "days": 60}
# No two items have the same id.
ITEM_IDS = itertools.count(501)
# The simulator's clock stands still long ago, by ours: 0 looks back to the beginning.
PARAMS: Mapping[str, Any] = {
    "mode": "incremental",
    "shop_id": None,
    "days_back": 0,
    "board": "ALL",
    "limit": 0,
    "ro_id": None,
    "store_raw": False,
}


@dataclass(frozen=True)
class Shops:
    """Running shops and the means to reach them; `settings_` are what the connection says beside address and token."""

    simulator: simulator.Simulator
    conn: psycopg.Connection
    settings_: Mapping[str, Any]
    run: str = RUN

    @property
    def control(self) -> simulator.Control:
        return self.simulator.control

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        url, headers = self.simulator.url + api.base_path, api.authorize(self.simulator.token)
        with ApiClient(name, url, headers=headers, timeout=(2, 5), attempts=2, backoff=(0.01, 0.02)) as client:
            yield client

    def settings(self, name: str) -> Mapping[str, Any]:
        return self.settings_

    def sync(self, mode: str = "incremental", **params: Any) -> Synced:
        with SOURCE.open(self.conn, self.run, self) as context:
            return SOURCE.sync(context, {**PARAMS, "mode": mode, **params}, dry_run=False)

    def scan(self, entity: str = "repair_orders", **params: Any) -> ForensicSummary:
        """Stop the writer, if it isn't, and scan."""
        epoch = fence.stop(self.conn, SOURCE.name, self.run, timeout=1).epoch
        with SOURCE.open(self.conn, self.run, self) as context:
            return SOURCE.scan(context, entity, epoch, {"days_back": 0, "shop_id": None, "progress_every": 0, **params})

    def mend(self, *summaries: ForensicSummary) -> Mapping[str, Counts]:
        """Repair what the scans have found, and let the writer run again."""
        with SOURCE.open(self.conn, self.run, self) as context:
            sync_id, counts = SOURCE.repair(context, summaries, {})
            assert [check for check in SOURCE.verify(context, summaries, sync_id) if check.worse] == []
        self.resume()
        return counts

    def resume(self) -> None:
        fence.resume(self.conn, SOURCE.name, self.run)

    def roll_back(self, sync_id: int) -> Undone:
        return roll_back(self.conn, Tables(self.conn), sync_id, run=self.run, reason="test", dry_run=False, timeout=1)

    def watermark(self, shop: int, entity: str = "repair_orders") -> datetime | None:
        return sync_log.state(self.conn, SOURCE.name, entity, str(shop)).watermark

    def asked(self, part: str = "") -> int:
        """How many requests for paths with that in them were answered since the last reset."""
        return self.control.counters().total(part)


@contextmanager
def trading(conn: psycopg.Connection, **fields: Any) -> Iterator[Shops]:
    """Two small shops, but for the given fields of their Config."""
    config = simulator.Config(**SMALL | fields)
    with simulator.running(config) as running:
        yield Shops(running, conn, {"shops": [asdict(shop) for shop in config.shops]})


def rows(conn: psycopg.Connection, table: str, *, live: bool = True) -> dict[tuple, dict[str, Any]]:
    """The data of the rows by key, as far as it is compared; tombstones too unless `live`."""
    declared = TABLES[table]
    query = sql.SQL("SELECT * FROM {} {}").format(declared.sql, sql.SQL("WHERE deleted_at IS NULL" if live else ""))
    found = conn.cursor(row_factory=dict_row).execute(query).fetchall()
    names = (*declared.key, *declared.compared)
    return {tuple(row[name] for name in declared.key): {n: row[n] for n in names} for row in found}


def order(conn: psycopg.Connection, order_id: int) -> dict[str, Any] | None:
    """The mirrored order, None where there is none alive."""
    return next((row for (_, id_), row in rows(conn, "repair_orders").items() if id_ == order_id), None)


def of_order(conn: psycopg.Connection, table: str, order_id: int) -> list[dict[str, Any]]:
    """The live rows of a table that belong to an order."""
    return [row for row in rows(conn, table).values() if row["tm_repair_order_id"] == order_id]


def contents(conn: psycopg.Connection, *, live: bool = True) -> dict[str, dict]:
    """The data of every table."""
    return {name: rows(conn, name, live=live) for name in TABLES}


def everything(conn: psycopg.Connection) -> dict[str, list]:
    """All that a rollback has to give back: every row with the mirror's own columns, and the watermarks."""
    found = {
        name: conn.execute(sql.SQL("SELECT to_jsonb(t) j FROM {} t ORDER BY 1").format(table.sql)).fetchall()
        for name, table in (TABLES | {"shops": SHOPS}).items()
    }
    query = "SELECT to_jsonb(s) FROM confidence.sync_state s ORDER BY entity, partition"
    return found | {"sync_state": conn.execute(query).fetchall()}


def written(synced: Synced) -> int:
    """How many rows a sync has changed."""
    return sum(count.inserted + count.updated + count.deleted for count in synced.counts.values())


def instant(text: str | None) -> datetime | None:
    """A moment as the vendor writes it."""
    return text and datetime.fromisoformat(text)


def job(**fields: Any) -> dict[str, Any]:
    """A job with two parts, one of them without an id, and so its labor; a sublet; two fees of one name."""
    return {
        "authorized": True,
        "parts": [
            {"id": next(ITEM_IDS), "name": "Strut", "retail": 15_450, "cost": 8_275, "quantity": "2.5"},
            {"name": "Washer", "retail": 10, "cost": 5},
        ],
        "labor": [
            {"id": next(ITEM_IDS), "name": "Work", "hours": "1.25", "rate": 16_500},
            {"hours": "0.1", "rate": 16_500},
        ],
        "sublets": [{"name": "Towing", "retail": 9_000, "cost": 5_000}],
        "fees": [{"name": "Oil disposal", "amount": 395}, {"name": "Oil disposal", "amount": 395}],
        **fields,
    }


def with_job(shops: Shops, **fields: Any) -> int:
    """An order in work with such a job, unless `fields` say otherwise."""
    order = {"shop_id": EAST, "status": 2, "jobs": [job()], "fees": [], **fields}
    return shops.control.mutate(Mutation("create", fields=order))[0]


def settle(shops: Shops) -> None:
    """Let the next sync's lookback reach back to nothing that has changed so far."""
    shops.control.advance(3_600)
    shops.sync()


def elsewhere(shops: Shops, settings: Mapping[str, Any]) -> Shops:
    """The same shops behind a connection that says something else of them."""
    return replace(shops, settings_=settings)
