"""RepairShopr on the liar's stage."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from random import Random
from typing import Any
from unittest.mock import patch

import psycopg
from starlette.types import ASGIApp

from include.api.client import ApiClient
from include.simulators import repairshopr as simulator
from include.simulators.repairshopr import store
from include.simulators.repairshopr.account import Account as Simulated
from include.simulators.repairshopr.app import create
from include.simulators.repairshopr.store import Mutation
from include.simulators.repairshopr.values import instant
from include.simulators.serving import Simulator
from include.sources.base import Api
from tests.contract import repairshopr as contract
from tests.liar.mirrored import Mirrored, MirrorVendor, is_off_topic
from tests.liar.stage import patient
from tests.liar.wire import Asked

SIZES = {
    "customers": 14,
    "invoices": 13,
    "line_items": 26,
    "payments": 12,
    "products": 8,
    "tickets": 12,
    "estimates": 7,
}
CONFIG = simulator.Config(rate_limit=None, page_sizes=dict.fromkeys(SIZES, 5), **SIZES)
# Later than all that the shop has.
START = datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()


class Account(Mirrored, contract.Account):
    """Five rows a page."""

    spoilt = contract.TEXTS
    unlinked: Mapping[str, str] = {"line_items": "invoice_id"}

    def __init__(self, running: Simulator, conn: psycopg.Connection):
        super().__init__(running, conn)
        self.conn = conn

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        with patient(name, self._running.url + api.base_path, api.authorize(self._running.token)) as client:
            yield client

    def change(self, random: Random, about: Collection[str]) -> list[list[Mutation]]:
        numbers, names = range(random.choice([1, 2, 4])), [entity.name for entity in self.source.entities]
        return [
            step
            for number in numbers
            for step in self._change(random, names if is_off_topic(number, random) else about)
        ]

    def _change(self, random: Random, resources: Collection[str]) -> list[list[Mutation]]:
        resource = random.choice(sorted(resources))
        ids = self.control.ids(resource)
        silent = random.random() < 0.3 and resource not in ("invoices", "estimates")
        match random.choice(["insert", "update", "update", "delete"]):
            case "insert" if resource == "line_items":
                of = {"invoice_id": random.choice(self.control.ids("invoices"))}
                return self._made([Mutation("insert", resource, row=of, silent=silent)])
            case "insert" if resource == "invoices":
                return self._invoice(random)
            case "insert":
                return self._made([Mutation("insert", resource, silent=silent)])
            case "update":
                fields = {contract.TEXTS[resource]: f"changed {random.randrange(1000)}"}
                return self._made([Mutation("update", resource, random.choice(ids), fields, silent=silent)])
        return self._made([Mutation("delete", resource, random.choice(ids), silent=silent)])

    def _invoice(self, random: Random) -> list[list[Mutation]]:
        """A new invoice with some lines."""
        first = [Mutation("insert", "invoices")]
        [invoice_id] = self.control.mutate(*first)
        lines = [Mutation("insert", "line_items", row={"invoice_id": invoice_id}) for _ in range(random.randint(1, 3))]
        return [first, *self._made(lines)]

    def _made(self, step: list[Mutation]) -> list[list[Mutation]]:
        self.control.mutate(*step)
        return [step]

    def hide(self, random: Random, about: Collection[str]) -> list[list[Mutation]]:
        resource = random.choice(sorted(about))
        ids = self.control.ids(resource)
        some = random.sample(ids, random.randint(1, max(1, len(ids) // 2)))
        return [[Mutation("delete", resource, id_, silent=True) for id_ in some]]


class Control(simulator.Control):
    """Each step of changes comes a minute after the one before, whatever the real time is."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.steps = 0

    def mutate(self, *mutations: Mutation) -> list[int]:
        self.steps += 1
        with patch.object(store, "now", lambda: instant(int(self.present * 1000))):
            return super().mutate(*mutations)

    @property
    def present(self) -> float:
        return START + 60 * self.steps


class Vendor(MirrorVendor):
    """The harness's knowledge of RepairShopr."""

    source = "repairshopr"
    account_type = Account

    def application(self, *, other: bool = False) -> ASGIApp:
        config = simulator.Config(**{**vars(CONFIG), "seed": 2}) if other else CONFIG
        return create(Simulated(config))

    def control(self, url: str) -> Any:
        return Control(url)

    def present(self, control: Control, world: str) -> float:
        return START if world == "old" else control.present + 30

    def family(self, asked: Asked) -> str:
        _, _, _, resource, *item = asked.path.split("/")
        filters = sorted(set(asked.params) - {"page"})
        return f"{resource}/id" if item else f"{resource}?{'&'.join(filters)}"

    def entities(self, family: str) -> Collection[str]:
        resource = self.records(family)
        return ("invoices", "line_items") if resource in ("invoices", "line_items") else (resource,)

    def records(self, family: str) -> str:
        return family.partition("/")[0].partition("?")[0]
