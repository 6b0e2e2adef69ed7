"""Tekmetric's side of the contract: two simulated shops, and what the suites order from them."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from include.api.client import ApiClient
from include.api.request import Request
from include.confidence.summary import Plan
from include.simulators import tekmetric as simulator
from include.simulators.tekmetric import Fault, Mutation
from include.sources import get_source
from include.sources.base import Api
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity
from include.sources.mirror.lookup import look_up
from include.warehouse.table import Table
from tests.contract.account import Asking, Questions

CONFIG = simulator.Config(orders=4, customers=5, employees=2, days=40, board_size=3, list_size=2)
# The simulator's kinds of rows.
KINDS = {"employees": "employees", "customers": "customers", "vehicles": "vehicles", "repair_orders": "orders"}
# How the paths end that list each entity.
LISTS = {
    "employees": ("/employees-lite",),
    "customers": ("/customer",),
    "vehicles": ("/vehicle",),
    "repair_orders": ("/job-board-group-by", "/profit-details-report"),
}
# A column of each table, to spoil.
SPOILED = {"employees": "username", "customers": "notes", "vehicles": "vin", "repair_orders": "notes"}
STRANGER = 987_654_321
# Jobs with some of everything, with ids and without.
PART = {"name": "Strut", "retail": 15_450, "cost": 8_275}
LABOR = {"name": "Work", "hours": "1.5", "rate": 16_500}
SUBLET = {"name": "Towing", "retail": 9_000, "cost": 5_000}
FEE = {"name": "Oil disposal", "amount": 395}


def job(order_id: int, number: int, *, named: bool) -> dict[str, Any]:
    """A job with two of each item, whose ids the vendor tells or doesn't."""
    job_id = order_id * 100 + number

    def two(item: Mapping[str, Any], kind: int) -> list[dict[str, Any]]:
        ids = [{"id": job_id * 100 + kind + place} if named else {} for place in range(2)]
        return [{**item, **id_} for id_ in ids]

    items = {"parts": two(PART, 0), "labor": two(LABOR, 10), "sublets": two(SUBLET, 20)}
    return {"id": job_id, "authorized": True, "fees": [FEE, FEE], **items}


class Account:
    """Two rows a page, three on a board; the clock stands still."""

    source = get_source("tekmetric")
    computed = frozenset(derived.table.name for derived in source.derived)
    atomic = True
    params: Mapping[str, Any] = {
        "shop_id": None,
        "days_back": 0,
        "board": "ALL",
        "limit": 0,
        "ro_id": None,
        "store_raw": False,
        "progress_every": 250,
    }
    part: Mapping[str, Any] = {"shop_id": CONFIG.shops[0].tm_id}
    shapes: Mapping[str, Callable[[Any], Any]] = {
        **dict.fromkeys(("phone_primary_type",), lambda value: [{"type": value}]),
        "phone_secondary": lambda value: [{"primary": True}, {"number": value}],
        "phone_secondary_type": lambda value: [{"primary": True}, {"type": value}],
        "customer_type_code": lambda value: {"code": value},
        "technician_name": lambda value: {"fullName": value},
        **dict.fromkeys(
            (
                "customer_type_id",
                "lead_source_id",
                "make_id",
                "model_id",
                "sub_model_id",
                "engine_id",
                "transmission_id",
                "job_category_id",
            ),
            lambda value: {"id": value},
        ),
    }

    def __init__(self, running: simulator.Simulator, conn: psycopg.Connection):
        self.questions = Questions()
        self.control = running.control
        self._running = running
        self._conn = conn
        self._asking = threading.local()
        self._pages: Counter[str] = Counter()
        self._cuts: Counter[str] = Counter()

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        url, headers = self._running.url + api.base_path, api.authorize(self._running.token)
        # One attempt, or it would mend the failure of a list.
        with Asking(self._asked, name, url, headers=headers, timeout=(2, 10), attempts=1) as client:
            yield client

    def settings(self, name: str) -> Mapping[str, Any]:
        return {"shops": [asdict(shop) for shop in CONFIG.shops]}

    def copy(self) -> Mapping[str, Mapping]:
        tables = [table for entity in self.source.entities for table in entity.tables]
        return {table.name: self._rows(table) for table in (*tables, *(d.table for d in self.source.derived))}

    def change(self) -> None:
        """An order of a new customer, another that comes to more, and one with a job less."""
        first, second, *_ = self.control.ids()
        customer, *_ = self.control.mutate(Mutation("create", "customers"))
        vehicle, *_ = self.control.mutate(Mutation("create", "vehicles", fields={"customerId": customer}))
        self.control.mutate(
            Mutation("create", fields={"customer_id": customer, "vehicle_id": vehicle}),
            Mutation("update", "jobs", first * 100 + 1, {"discount": 100}),
            Mutation("delete", "jobs", second * 100 + 2),
        )

    def drift(self) -> Mapping[str, Plan]:
        """A record that the copy lacks, one that differs, one that the source hasn't any more, and one it never had.

        So it is with the rows inside records.
        """
        for kind in KINDS.values():
            # Of orders an old one, which was posted: what is computed tells of it.
            gone, fields = (0, {"hidden": True}) if kind == "orders" else (-1, {})
            self.control.mutate(Mutation("delete", kind, self.control.ids(kind)[gone], fields, silent=True))
        return {entity.name: self._drift_of(entity) for entity in self.source.entities}

    def _drift_of(self, entity: Entity) -> Plan:
        missing, spoilt, *others = self.records(entity)
        self._lose(entity.table, entity.table.key_of(missing))
        self._spoil(entity.table, entity.table.key_of(spoilt))
        self._invent(entity.table, entity.table.key_of(spoilt))
        for part in entity.parts:
            # What is in a lost job is lost too.
            keys = [part.table.key_of(row) for record in others for row in part.rows(record)]
            lost, other, *_ = [key for key in keys if key in self._live(part.table)]
            self._spoil(part.table, other)
            self._invent(part.table, other)
            self._lose(part.table, lost)
        truth = self._truth(entity)
        copy = {table.name: self._live(table) for table in entity.tables}
        return Plan(
            insert=sum(len(truth[name] - copy[name]) for name in copy),
            update=len(entity.tables),
            delete=sum(len(copy[name] - truth[name]) for name in copy),
        )

    def fail(self) -> None:
        # A list that is refused is read again from its start, in case that its keys have expired; an order that can't
        # be looked up now is left for later.
        request = self._asking.request
        status = 503 if entity_listed(request) else 401
        params = {name: str(value) for name, value in request.params.items()}
        self.control.fault(Fault("status", path=request.path.lstrip("/"), params=params, status=status))

    @contextmanager
    def down(self) -> Iterator[None]:
        self.control.fault(Fault("status", status=503, times=None))
        yield
        self.control.clear()

    def records(self, entity: Entity) -> list[dict[str, Any]]:
        """Every record that belongs into the mirror, as the API shows it."""
        values = [(shop, id_) for shop in self._shops() for id_ in self.control.ids(KINDS[entity.name], shop)]
        headers = self.source.authorize(self._running.token)
        with ApiClient("tekmetric", self._running.url + self.source.base_path, headers=headers) as client:
            context = MirrorContext(self.source, client, self._conn, "contract", settings=self.settings("tekmetric"))
            found = {value: look.rows[0] for value, look in look_up(context, entity.table, entity.lookup, values)}
        return [found[value] for value in values]

    def pages(self, entity: Entity) -> int:
        """How many pages its lists had, those asked for twice included."""
        return self._pages[entity.name]

    def cut(self, entity: Entity, page: int) -> None:
        """Let the page of its lists fail once, for good."""
        self._cuts[entity.name] = page

    def absent(self, entity: Entity) -> tuple:
        """Values to look up that the source has nothing for."""
        return CONFIG.shops[0].tm_id, STRANGER

    def _asked(self, request: Request) -> None:
        self._asking.request = request
        if name := entity_listed(request):
            self._pages[name] += 1
            if self._cuts[name]:
                self._cuts[name] -= 1
                if not self._cuts[name]:
                    self.fail()
        self.questions.ask()

    def _shops(self) -> list[int]:
        return [shop.tm_id for shop in CONFIG.shops]

    def _truth(self, entity: Entity) -> Mapping[str, set[tuple]]:
        """The keys of what the source has, by table."""
        records = self.records(entity)
        keys = {
            part.table.name: {part.table.key_of(row) for r in records for row in part.rows(r)} for part in entity.parts
        }
        return keys | {entity.name: set(map(entity.table.key_of, records))}

    def _rows(self, table: Table) -> Mapping[tuple, Mapping]:
        rows = self._conn.execute(sql.SQL("SELECT to_jsonb(t) FROM {} t").format(table.sql))
        return {tuple(row[name] for name in table.key): row for (row,) in rows}

    def _live(self, table: Table) -> set[tuple]:
        return {key for key, row in self._rows(table).items() if row["deleted_at"] is None}

    def _lose(self, table: Table, key: tuple) -> None:
        self._do("DELETE FROM {table} t WHERE {same}", table, key)

    def _spoil(self, table: Table, key: tuple) -> None:
        self._do("UPDATE {table} t SET {spoiled} = 'spoiled' WHERE {same}", table, key)

    def _invent(self, table: Table, key: tuple) -> None:
        """A row that the source never had, otherwise like the one of that key."""
        query = (
            "INSERT INTO {table} ({names}, sync_id) SELECT {r_names}, 0 FROM {table} t,"
            " jsonb_populate_record(NULL::{table}, to_jsonb(t) || {other}) r WHERE {same}"
        )
        self._do(query, table, key)

    def _do(self, query: str, table: Table, key: tuple) -> None:
        same = [
            sql.SQL("t.{} = {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in zip(table.key, key, strict=True)
        ]
        other = {"tm_id": STRANGER} | ({"line": "INVENTED"} if "line" in table.key else {})
        parts = {
            "table": table.sql,
            "names": sql.SQL(", ").join(map(sql.Identifier, table.names)),
            "r_names": sql.SQL(", ").join(sql.Identifier("r", name) for name in table.names),
            "spoiled": sql.Identifier(SPOILED.get(table.name, "name")),
            "other": sql.Literal(Jsonb(other)),
            "same": sql.SQL(" AND ").join(same),
        }
        written = self._conn.execute(sql.SQL(query).format(**parts)).rowcount
        assert written == 1, f"{table.name}: {written} rows for {key}"


def entity_listed(request: Request) -> str | None:
    """The entity of which the request asks for a page, None for a look-up."""
    return next((name for name, ends in LISTS.items() if request.path.endswith(ends)), None)


def prepare(control: simulator.Control) -> None:
    """Fill the orders, and let some time pass."""
    filled = [
        Mutation("update", "orders", id_, {"jobs": [job(id_, 1, named=True), job(id_, 2, named=False)]})
        for id_ in control.ids()
    ]
    control.mutate(*filled)
    control.advance(6 * 3600)


@contextmanager
def opened(warehouse: str) -> Iterator[Account]:
    """An account; server and connections are gone afterwards."""
    with simulator.running(CONFIG) as running, psycopg.connect(warehouse, autocommit=True) as conn:
        prepare(running.control)
        yield Account(running, conn)
