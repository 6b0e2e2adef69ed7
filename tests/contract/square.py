"""Square's side of the contract: a simulated seller, and what the suites order from it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from include.api.client import ApiClient
from include.api.request import Request
from include.confidence.summary import Plan
from include.simulators import square as simulator
from include.simulators.square import Fault, Mutation
from include.sources import get_source
from include.sources.base import Api
from include.sources.mirror.entity import Entity
from include.warehouse.table import Table
from tests.contract.account import Asking, Questions

SIZES = {
    "locations": 4,
    "categories": 11,
    "items": 12,
    "variations": 14,
    "vendors": 5,
    "orders": 32,
    "line_items": 60,
}
# Payments that are given back; the seller itself has next to none at this size.
REFUNDS = 5
# Rows a page, where a page can be asked to be short, and locations a request.
PAGE = {"/v2/catalog/search": 8, "/v2/inventory/counts/batch-retrieve": 30}
USUAL_PAGE, HANDFUL = 10, 3
# The seller's kinds of rows.
KINDS = {
    "locations": "locations",
    "vendors": "vendors",
    "catalog_categories": "categories",
    "catalog_items": "items",
    "catalog_variations": "variations",
    "catalog_inventory": "counts",
    "inventory_counts": "counts",
    "orders": "orders",
    "payments": "payments",
    "order_refunds": "refunds",
}
# The rows that are gone without a trace; the others Square never deletes, though a copy may hold one too many.
DELETED = ("catalog_categories", "catalog_items", "catalog_variations", "catalog_inventory")
# A column of each table, to spoil.
SPOILED = {
    "locations": "name",
    "vendors": "name",
    "catalog_categories": "name",
    "catalog_items": "name",
    "catalog_variations": "name",
    "catalog_vendor_info": "sku",
    "catalog_inventory": "quantity",
    "inventory_counts": "quantity",
    "orders": "state",
    "order_line_items": "name",
    "order_fulfillments": "type",
    "order_returns": "source_order_id",
    "tenders": "note",
    "transactions": "location_id",
    "payments": "status",
    "order_refunds": "reason",
}


def short(entity: Entity) -> Entity:
    """The entity with a few rows a page and a few partitions a request."""
    listing, parts = entity.listing, entity.partitions
    limit = {"limit": PAGE.get(listing.path, USUAL_PAGE)}
    if "limit" in listing.params:
        listing = replace(listing, params={**listing.params, **limit})
    elif "limit" in (listing.body or {}):
        listing = replace(listing, body={**listing.body, **limit})
    return replace(entity, listing=listing, partitions=parts and replace(parts, size=min(parts.size, HANDFUL)))


SOURCE = get_source("square")


class Account:
    """Few rows a page; the clock stands still."""

    source = replace(SOURCE, entities=tuple(map(short, SOURCE.entities)))
    computed = frozenset(derived.table.name for derived in SOURCE.derived)
    atomic = True
    params: Mapping[str, Any] = {"progress_every": 250}
    part = None
    shapes: Mapping[str, Callable[[Any], Any]] = {}

    def __init__(self, running: simulator.Simulator, conn: psycopg.Connection):
        self.questions = Questions()
        self.control = running.control
        self._running = running
        self._conn = conn
        self._cuts: list[tuple[Request, int]] = []
        self._listing = False

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        url, headers = self._running.url + api.base_path, api.authorize(self._running.token)
        # One attempt, or it would mend the failure of a list.
        with Asking(self._asked, name, url, headers=headers, timeout=(2, 10), attempts=1) as client:
            yield client

    def settings(self, name: str) -> Mapping[str, Any]:
        return {}

    def copy(self) -> Mapping[str, Mapping]:
        tables = [table for entity in self.source.entities for table in entity.tables]
        return {table.name: self._rows(table) for table in (*tables, *(d.table for d in self.source.derived))}

    def change(self) -> None:
        """A sale, a new name, and a tombstone."""
        items = self.control.ids("items")
        self.control.mutate(
            Mutation("create", "orders"),
            Mutation("update", "items", items[0], {"name": "Renamed"}),
            Mutation("delete", "items", items[1], cascade=False),
        )

    def drift(self) -> Mapping[str, Plan]:
        """A record that the copy lacks, one that differs, and one that the source hasn't any more, or never had.

        So it is with the rows inside records.
        """
        before = self._truth()
        for name in DELETED:
            kind = KINDS[name]
            self.control.mutate(Mutation("delete", kind, self._ids(name)[-1], silent=True))
        # In a location that the copy lacks it lacks all orders too, and there are none in a new one.
        self.control.mutate(Mutation("create", "locations"))
        after = self._truth()
        return {entity.name: self._drift_of(entity, before, after) for entity in self.source.entities}

    def _drift_of(self, entity: Entity, before: Mapping[str, set], after: Mapping[str, set]) -> Plan:
        inserts = updates = 0
        deletes = sum(len(before[table.name] - after[table.name]) for table in entity.tables)
        records = iter(self.records(entity))
        if entity.name == "locations":
            # One that Square doesn't know would make it refuse to list the orders of the others with it.
            self._spoil(entity.table, entity.table.key_of(next(records)))
            return Plan(insert=1, update=1, delete=0)
        missing = next(records)
        inserts += self._lose(entity.table, entity.table.key_of(missing))
        for part in entity.parts:
            inserts += sum(self._lose(part.table, part.table.key_of(row)) for row in part.rows(missing))
        updates += self._spoil(entity.table, entity.table.key_of(next(records)))
        if entity.history:
            return Plan(insert=inserts, update=updates, delete=0)
        if entity.name not in DELETED:
            deletes += self._invent(entity.table, entity.table.key_of(next(records)))
        others = list(records)
        for part in entity.parts:
            keys = [part.table.key_of(row) for record in others for row in part.rows(record)]
            inserts += self._lose(part.table, keys[0])
            updates += self._spoil(part.table, keys[1])
            # Where the key is that of the record, a record can't have one too many.
            if part.table.key != part.by:
                deletes += self._invent(part.table, keys[2])
        return Plan(insert=inserts, update=updates, delete=deletes)

    def fail(self) -> None:
        # A list that is refused is read again from its start, in case that its cursor has expired; a record that
        # can't be looked up now is left for later.
        self.control.fault(Fault("status", status=503 if self._listing else 401))

    @contextmanager
    def down(self) -> Iterator[None]:
        self.control.fault(Fault("status", status=503, times=None))
        yield
        self.control.clear()

    def records(self, entity: Entity) -> list[dict[str, Any]]:
        """Every record that belongs into the mirror, as the API sends it."""
        rows = dict(zip(self.control.ids(KINDS[entity.name]), self.control.rows(KINDS[entity.name]), strict=True))
        return [rows[id_] for id_ in self._ids(entity.name)]

    def pages(self, entity: Entity) -> int:
        """How many pages the entity's list has, in all of its requests."""
        return sum(self._pages(entity, view) for view in entity.views)

    def _pages(self, entity: Entity, view: Mapping[str, Any]) -> int:
        records, parts = self.records(entity), entity.partitions
        if view:
            records = [record for record in records if record.get("is_offline_payment")]
        listing = entity.listing
        limit = {**listing.params, **(listing.body or {})}.get("limit", len(records))
        if parts is None:
            return -(-len(records) // limit)
        places = self._ids("locations")
        handfuls = [places[at : at + parts.size] for at in range(0, len(places), parts.size)]
        sizes = [sum(record["location_id"] in handful for record in records) for handful in handfuls]
        return sum(max(1, -(-size // limit)) for size in sizes)

    def cut(self, entity: Entity, page: int) -> None:
        """Let the page of the whole list fail once, for good."""
        self._cuts.append((entity.listing, page))

    def absent(self, entity: Entity) -> tuple:
        """Values to look up that the source has nothing for."""
        return tuple("ABSENT" for _ in entity.lookup.by)

    def _asked(self, request: Request) -> None:
        self._listing = any(is_page(request, entity.listing) for entity in self.source.entities)
        cuts, self._cuts = self._cuts, []
        for listing, page in cuts:
            page -= is_page(request, listing)
            if page:
                self._cuts.append((listing, page))
            else:
                self.fail()
        self.questions.ask()

    def _ids(self, name: str) -> list[str]:
        ids = self.control.ids(KINDS[name])
        return [id_ for id_ in ids if id_.endswith(":IN_STOCK")] if name == "catalog_inventory" else ids

    def _truth(self) -> Mapping[str, set[tuple]]:
        """The keys of what the source has, by table."""
        keys: dict[str, set[tuple]] = {}
        for entity in self.source.entities:
            records = self.records(entity)
            keys[entity.name] = set(map(entity.table.key_of, records))
            for part in entity.parts:
                keys[part.table.name] = {part.table.key_of(row) for record in records for row in part.rows(record)}
        return keys

    def _rows(self, table: Table) -> Mapping[tuple, Mapping]:
        rows = self._conn.execute(sql.SQL("SELECT to_jsonb(t) FROM {} t").format(table.sql))
        return {tuple(row[name] for name in table.key): row for (row,) in rows}

    def _lose(self, table: Table, key: tuple) -> int:
        return self._do("DELETE FROM {table} t WHERE {same}", table, key)

    def _spoil(self, table: Table, key: tuple) -> int:
        return self._do("UPDATE {table} t SET {spoiled} = '987654321' WHERE {same}", table, key)

    def _invent(self, table: Table, key: tuple) -> int:
        """A row that the source never had, otherwise like the one of that key."""
        query = (
            "INSERT INTO {table} ({names}, sync_id) SELECT {r_names}, 0 FROM {table} t,"
            " jsonb_populate_record(NULL::{table}, to_jsonb(t) || {other}) r WHERE {same}"
        )
        return self._do(query, table, key)

    def _do(self, query: str, table: Table, key: tuple) -> int:
        """How many rows the query has written for that of the key."""
        same = [
            sql.SQL("t.{} = {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in zip(table.key, key, strict=True)
        ]
        parts = {
            "table": table.sql,
            "names": sql.SQL(", ").join(map(sql.Identifier, table.names)),
            "r_names": sql.SQL(", ").join(sql.Identifier("r", name) for name in table.names),
            "spoiled": sql.Identifier(SPOILED.get(table.name, "")) if table.name in SPOILED else sql.SQL("NULL"),
            "other": sql.Literal(Jsonb({table.key[-1]: "INVENTED"})),
            "same": sql.SQL(" AND ").join(same),
        }
        written = self._conn.execute(sql.SQL(query).format(**parts)).rowcount
        assert written == 1, f"{table.name}: {written} rows for {key}"
        return written


def is_page(request: Request, listing: Request) -> bool:
    """Whether the request is for a page of the whole list, be it of some partitions or in one of its views."""
    part = ("cursor", "location_id", "location_ids", "is_offline_payment")

    def asked(request: Request) -> tuple:
        given = {**request.params, **(request.body or {})}
        return request.path, {k: v for k, v in given.items() if k not in part}

    return asked(request) == asked(listing)


def prepare(control: simulator.Control) -> None:
    """Give some payments back, and let some time pass."""
    paid = [row for row in control.rows("payments") if "refund_ids" not in row]
    control.mutate(*(Mutation("refund", "payments", row["id"]) for row in paid[:REFUNDS]))
    control.advance(6 * 3600)


@contextmanager
def opened(warehouse: str) -> Iterator[Account]:
    """An account; server and connections are gone afterwards."""
    with simulator.running(simulator.Config(**SIZES)) as running, psycopg.connect(warehouse, autocommit=True) as conn:
        prepare(running.control)
        yield Account(running, conn)
