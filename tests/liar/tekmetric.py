"""Tekmetric on the liar's stage."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import psycopg
import requests
from starlette.types import ASGIApp

from include.api.client import ApiClient
from include.api.decoding import decode_json
from include.simulators import tekmetric as simulator
from include.simulators.serving import Simulator
from include.simulators.tekmetric.account import Account as Simulated
from include.simulators.tekmetric.app import create
from include.simulators.tekmetric.changes import Mutation
from include.sources.base import Api
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity
from tests.contract import tekmetric as contract
from tests.liar.lies import KINDS, Lie
from tests.liar.mirrored import Mirrored, MirrorVendor, is_off_topic
from tests.liar.stage import patient
from tests.liar.wire import Asked

CONFIG = replace(contract.CONFIG, orders=4, customers=4, board_size=2)
ORDERS = "repair_orders"
# A field of each kind of rows to change.
FIELDS = {"employees": "username", "customers": "notes", "vehicles": "vin"}


class Account(Mirrored, contract.Account):
    """Two rows a page."""

    spoilt: Mapping[str, str] = {
        **contract.SPOILED,
        **dict.fromkeys(("jobs", "job_parts", "job_labor", "job_sublets", "job_fees"), "name"),
    }

    def __init__(self, running: Simulator, conn: psycopg.Connection):
        super().__init__(running, conn)
        self.conn = conn
        self._session = requests.Session()

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        with patient(name, self._running.url + api.base_path, api.authorize(self._running.token)) as client:
            yield client

    def records(self, entity: Entity) -> list[dict[str, Any]]:
        """Every record that belongs into the mirror, from answers that nobody has touched."""
        context = MirrorContext(self.source, None, self.conn, "liar", settings=self.settings("tekmetric"))
        return [
            self._whole(context, entity, (shop, id_))
            for shop in self._shops()
            for id_ in self.control.ids(contract.KINDS[entity.name], shop)
        ]

    def _whole(self, context: MirrorContext, entity: Entity, value: tuple) -> dict[str, Any]:
        lookup = entity.lookup
        answers = [self._told(make(*value).path) for make in (lookup.request, *lookup.beside)]
        [row] = lookup.rows(*answers)
        return lookup.finish(context, {**dict(zip(lookup.by, value, strict=True)), **row})

    def _told(self, path: str) -> Any:
        headers = self.source.authorize(self._running.token)
        return decode_json(self._session.get(self._running.url + self.source.base_path + path, headers=headers).content)

    def change(self, random: Random, about: Collection[str]) -> list[list[Mutation]]:
        numbers, names = range(random.choice([1, 2, 4])), [entity.name for entity in self.source.entities]
        return [
            step
            for number in numbers
            for step in self._change(random, names if is_off_topic(number, random) else about)
        ]

    def _change(self, random: Random, entities: Collection[str]) -> list[list[Mutation]]:
        kind = contract.KINDS[random.choice(sorted(entities))]
        id_, silent = random.choice(self.control.ids(kind)), random.random() < 0.3
        if kind == "orders":
            return self._made(self._of_order(random, id_, silent))
        match random.choice(["create", "update", "update", "delete"]):
            case "create":
                of = {"customerId": random.choice(self.control.ids("customers"))} if kind == "vehicles" else {}
                return self._made(Mutation("create", kind, fields=of))
            case "update":
                fields = {FIELDS[kind]: f"changed {random.randrange(1000)}"}
                return self._made(Mutation("update", kind, id_, fields, silent=silent))
        return self._made(Mutation("delete", kind, id_))

    def _of_order(self, random: Random, id_: int, silent: bool) -> Mutation:
        jobs = [job["id"] for job in self.control.order(id_)["jobs"]]
        match random.choice(["create", "delete", "post", "job", "job", "job gone", "job new"]):
            case "create":
                return Mutation("create")
            case "delete":
                return Mutation("delete", "orders", id_, {"hidden": random.random() < 0.5}, silent=silent)
            case "post":
                return Mutation("post", "orders", id_)
            case "job" if jobs:
                return Mutation(
                    "update", "jobs", random.choice(jobs), {"discount": random.randrange(500)}, silent=silent
                )
            case "job gone" if jobs:
                return Mutation("delete", "jobs", random.choice(jobs), silent=silent)
        fields = contract.job(id_, 50 + random.randrange(40), named=random.random() < 0.5)
        return Mutation("create", "jobs", fields={"order_id": id_, **fields, "id": 0}, silent=silent)

    def _made(self, *step: Mutation) -> list[list[Mutation]]:
        self.control.mutate(*step)
        return [list(step)]

    def hide(self, random: Random, about: Collection[str]) -> list[list[Mutation]]:
        kind = contract.KINDS[random.choice(sorted(about))]
        ids = self.control.ids(kind)
        some = random.sample(ids, random.randint(1, max(1, len(ids) // 2)))
        fields = {"hidden": True} if kind == "orders" else {}
        return [[Mutation("delete", kind, id_, fields, silent=True) for id_ in some]]


class Vendor(MirrorVendor):
    """The harness's knowledge of Tekmetric."""

    source = "tekmetric"
    first_page = 0
    account_type = Account

    def application(self, *, other: bool = False) -> ASGIApp:
        return create(Simulated(replace(CONFIG, seed=2) if other else CONFIG))

    def control(self, url: str) -> Any:
        return simulator.Control(url)

    def prepare(self, control: Any) -> None:
        contract.prepare(control)

    def family(self, asked: Asked) -> str:
        name = re.sub(r"\d+", "id", asked.path.removeprefix("/api/")).removeprefix("shop/id/")
        return f"{name} {asked.params.get('board', '')}".strip()

    def kinds(self, family: str) -> Mapping[str, Lie]:
        # An order's total is an amount, of which a cent more or less is no lie: nobody knows where the vendor rounds.
        return {
            name: lie for name, lie in KINDS.items() if name != "miscounted" or not family.startswith("repair-order")
        }

    def entities(self, family: str) -> Collection[str]:
        kinds = {"customer": "customers", "vehicle": "vehicles", "employee": "employees", "employees-lite": "employees"}
        return (kinds.get(family.partition("/")[0], ORDERS),)

    def records(self, family: str) -> str:
        return family
