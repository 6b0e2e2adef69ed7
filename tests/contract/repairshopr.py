"""RepairShopr's side of the contract: a simulated account, and what the suites order from it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from include.api.client import ApiClient
from include.api.limits import NoLimit
from include.confidence.summary import Plan
from include.simulators import repairshopr as simulator
from include.simulators.repairshopr import Fault, Mutation
from include.sources import get_source
from include.sources.base import Api, entity_of
from include.sources.mirror.entity import Entity
from tests.contract.account import Questions

SIZES = {
    "customers": 25,
    "invoices": 25,
    "line_items": 35,
    "payments": 22,
    "products": 12,
    "tickets": 21,
    "estimates": 11,
}
# A text column of each table, to spoil.
TEXTS = {
    "customers": "firstname",
    "invoices": "note",
    "line_items": "name",
    "payments": "ref_num",
    "products": "name",
    "tickets": "subject",
    "estimates": "number",
}


class Account:
    """Ten rows a page."""

    source = get_source("repairshopr")
    computed = ()
    atomic = True
    params: Mapping[str, Any] = {
        "page_start": 1,
        "page_end": 0,
        "progress_every": 250,
        "compute_db_not_in_api": True,
    }
    part: Mapping[str, Any] = {"page_end": 1, "compute_db_not_in_api": False}
    shapes: Mapping[str, Callable[[Any], Any]] = {}

    def __init__(self, running: simulator.Simulator, conn: psycopg.Connection):
        self.questions = Questions()
        self.control = running.control
        self._running = running
        self._conn = conn

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        with ApiClient(
            name,
            self._running.url + api.base_path,
            headers=api.authorize(self._running.token),
            limiter=Asking(self.questions),
            timeout=(2, 10),
            attempts=2,
            backoff=(0.01, 0.02),
        ) as client:
            yield client

    def settings(self, name: str) -> Mapping[str, Any]:
        return {}

    def copy(self) -> Mapping[str, Mapping]:
        return {entity.name: self._rows(entity) for entity in self.source.entities}

    def change(self) -> None:
        """An insert, an update and a delete."""
        line = self.records(entity_of(self.source, "line_items"))[0]
        self.control.mutate(
            Mutation("insert", "customers", row={"firstname": "New"}),
            Mutation("update", "invoices", line["invoice_id"], {"note": "changed"}),
            Mutation("delete", "line_items", line["id"]),
        )

    def drift(self) -> Mapping[str, Plan]:
        """A row that the copy lacks, one that differs, and one that the source hasn't any more."""
        before = self._ids()
        for entity in self.source.entities:
            ids = [record["id"] for record in self.records(entity)]
            parts = {"table": entity.table.sql, "text": sql.Identifier(TEXTS[entity.name])}
            self._conn.execute(sql.SQL("DELETE FROM {table} WHERE id = %s").format(**parts), [ids[0]])
            self._conn.execute(sql.SQL("UPDATE {table} SET {text} = 'spoiled' WHERE id = %s").format(**parts), [ids[1]])
            # An invoice takes its lines with it, or they would be orphans at the source.
            silent = entity.name != "invoices"
            self.control.mutate(Mutation("delete", entity.name, ids[2], silent=silent))
        after = self._ids()
        return {name: Plan(insert=1, update=1, delete=len(before[name] - after[name])) for name in before}

    def fail(self) -> None:
        self.control.fault(Fault("status", status=401))

    @contextmanager
    def down(self) -> Iterator[None]:
        self.control.fault(Fault("status", status=503, times=None))
        yield
        self.control.clear()

    def records(self, entity: Entity) -> list[dict[str, Any]]:
        """Every record that belongs into the mirror, as the API sends it."""
        return [row for row in self.control.rows(entity.name) if entity.name != "line_items" or row["invoice_id"]]

    def pages(self, entity: Entity) -> int:
        """How many pages the entity's list has."""
        return -(-len(self.records(entity)) // 10)

    def cut(self, entity: Entity, page: int) -> None:
        """Let the page fail once, for good."""
        self.control.fault(Fault("status", resource=entity.name, page=page, status=401))

    def absent(self, entity: Entity) -> tuple:
        """Values to look up that the source has nothing for."""
        return tuple(987_654_321 for _ in entity.lookup.by)

    def _ids(self) -> Mapping[str, set[int]]:
        return {entity.name: {record["id"] for record in self.records(entity)} for entity in self.source.entities}

    def _rows(self, entity: Entity) -> Mapping[tuple, Mapping]:
        rows = self._conn.execute(sql.SQL("SELECT to_jsonb(t) FROM {} t").format(entity.table.sql))
        return {tuple(row[name] for name in entity.table.key): row for (row,) in rows}


class Asking(NoLimit):
    """Counts the requests of a client."""

    def __init__(self, questions: Questions):
        self._questions = questions

    def acquire(self) -> None:
        self._questions.ask()


@contextmanager
def opened(warehouse: str) -> Iterator[Account]:
    """An account; server and connections are gone afterwards."""
    config = simulator.Config(rate_limit=None, page_sizes=dict.fromkeys(SIZES, 10), **SIZES)
    with simulator.running(config) as running, psycopg.connect(warehouse, autocommit=True) as conn:
        yield Account(running, conn)
