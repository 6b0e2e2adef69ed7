"""RepairShopr's side of the contract: a simulated account, and what the suite orders from it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from include.api.client import ApiClient
from include.simulators import repairshopr as simulator
from include.simulators.repairshopr import Control, Fault, Mutation
from include.sources import get_source
from include.sources.base import entity_of
from include.sources.mirror.entity import Context, Entity

SOURCE = get_source("repairshopr")
SIZES = {
    "customers": 25,
    "invoices": 25,
    "line_items": 35,
    "payments": 22,
    "products": 12,
    "tickets": 21,
    "estimates": 11,
}


@dataclass(frozen=True)
class Account:
    """A running account of a few dozen rows, ten a page."""

    context: Context
    control: Control

    def records(self, entity: Entity) -> list[dict[str, Any]]:
        """Every record that belongs into the mirror, as the API sends it."""
        found = [self.control.row(entity.name, id_) for id_ in self.control.ids(entity.name)]
        return [row for row in found if entity.name != "line_items" or row["invoice_id"]]

    def pages(self, entity: Entity) -> int:
        """How many pages the entity's list has."""
        return -(-len(self.records(entity)) // 10)

    def cut(self, entity: Entity, page: int) -> None:
        """Let the page fail once, for good."""
        self.control.fault(Fault("status", resource=entity.name, page=page, status=401))

    def absent(self, entity: Entity) -> Any:
        """A value to look up that the source has nothing for."""
        return 987_654_321

    def change(self) -> None:
        """An insert, an update and a delete, such as a sync brings into the copy."""
        line = self.records(entity_of(SOURCE, "line_items"))[0]
        self.control.mutate(
            Mutation("insert", "customers", row={"firstname": "New"}),
            Mutation("update", "invoices", line["invoice_id"], {"note": "changed"}),
            Mutation("delete", "line_items", line["id"]),
        )


@contextmanager
def opened(conn: psycopg.Connection, run: str) -> Iterator[Account]:
    """An account for the run; server and connections are gone afterwards."""
    config = simulator.Config(rate_limit=None, page_sizes=dict.fromkeys(SIZES, 10), **SIZES)
    with (
        simulator.running(config) as account,
        ApiClient(
            SOURCE.name,
            account.url + SOURCE.base_path,
            headers=SOURCE.authorize(account.token),
            timeout=(2, 10),
            attempts=2,
            backoff=(0.01, 0.02),
        ) as client,
    ):
        yield Account(Context(SOURCE, client, conn, run), account.control)
