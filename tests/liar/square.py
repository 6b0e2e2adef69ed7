"""Square on the liar's stage."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from random import Random
from typing import Any

import psycopg
from starlette.types import ASGIApp

from include.api.client import ApiClient
from include.simulators import square as simulator
from include.simulators.serving import Simulator
from include.simulators.square.app import create
from include.simulators.square.changes import Mutation
from include.simulators.square.seller import Seller
from include.sources.base import Api
from tests.contract import square as contract
from tests.liar.mirrored import Mirrored, MirrorVendor, is_off_topic
from tests.liar.stage import Key, patient
from tests.liar.wire import Asked

SIZES = {
    "locations": 3,
    "categories": 6,
    "items": 7,
    "variations": 8,
    "vendors": 4,
    "orders": 14,
    "line_items": 24,
}
CONFIG = simulator.Config(**SIZES)
# What people change without a trace of when.
SILENT = 0.3


class Account(Mirrored, contract.Account):
    """Few rows a page."""

    spoilt = contract.SPOILED
    # One that Square doesn't know would make it refuse to list the orders of the others with it.
    never_invented = ("locations", "catalog_vendor_info", "transactions")

    def __init__(self, running: Simulator, conn: psycopg.Connection):
        super().__init__(running, conn)
        self.conn = conn

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        with patient(name, self._running.url + api.base_path, api.authorize(self._running.token)) as client:
            yield client

    def tombstones(self) -> Mapping[tuple[str, Key], datetime]:
        found = {}
        for entity in self.source.entities:
            if not entity.name.startswith("catalog_") or entity.name == "catalog_inventory":
                continue
            for table in entity.tables:
                by = table.key if table is entity.table else ("variation_id",)
                for key, row in self._live(table).items():
                    record = self.control.row(contract.KINDS[entity.name], row[by[0]])
                    if record and record["is_deleted"]:
                        found[table.name, key] = datetime.fromisoformat(record["updated_at"])
        return found

    def name_of(self, table: str, key: Key) -> str | None:
        if table == "catalog_inventory":
            return ":".join((*key, "IN_STOCK"))
        return ":".join(map(str, key)) if table == "inventory_counts" else super().name_of(table, key)

    def has_ended(self, table: str, key: Key) -> bool:
        if table != "catalog_inventory":
            return False
        variation = self.control.row("variations", key[0])
        return variation is None or variation["is_deleted"]

    def change(self, random: Random, about: Collection[str]) -> list[list[Mutation]]:
        numbers, kinds = range(random.choice([1, 2, 4])), {contract.KINDS[name] for name in about}
        everything = {contract.KINDS[entity.name] for entity in self.source.entities}
        return [
            step
            for number in numbers
            for step in self._change(random, everything if is_off_topic(number, random) else kinds)
        ]

    def _change(self, random: Random, kinds: Collection[str]) -> list[list[Mutation]]:
        kind = random.choice(sorted(kinds))
        ids, silent = self.control.ids(kind), random.random() < SILENT
        id_ = random.choice(ids)
        catalog = kind in ("categories", "items", "variations")
        match random.choice(["create", "update", "update", "delete"]):
            case "create" if catalog or kind in ("orders", "vendors", "locations"):
                return self._made(Mutation("create", kind))
            case "delete" if catalog:
                # The variations of an item go with it.
                return self._made(Mutation("delete", kind, id_, silent=silent and kind != "items"))
            case "update" if kind in ("orders", "payments"):
                return self._made(Mutation("update", kind, id_, {"reference_id": self._word(random)}, silent=silent))
            case "update" if kind == "counts":
                return self._made(Mutation("update", kind, id_, {"quantity": str(random.randrange(900))}))
            case "update" if kind != "refunds":
                return self._made(Mutation("update", kind, id_, {"name": self._word(random)}, silent=silent))
        payments = [row for row in self.control.rows("payments") if "refund_ids" not in row]
        if payments:
            return self._made(Mutation("refund", "payments", random.choice(payments)["id"]))
        return self._made(Mutation("create", "orders"))

    def _word(self, random: Random) -> str:
        return f"changed {random.randrange(1000)}"

    def _made(self, *step: Mutation) -> list[list[Mutation]]:
        self.control.mutate(*step)
        return [list(step)]

    def hide(self, random: Random, about: Collection[str]) -> list[list[Mutation]]:
        kind = contract.KINDS[random.choice(sorted(about))]
        ids = self.control.ids(kind)
        some = random.sample(ids, random.randint(1, max(1, len(ids) // 2)))
        return [[Mutation("delete", kind, id_, silent=True) for id_ in some]]


class Vendor(MirrorVendor):
    """The harness's knowledge of Square."""

    source = "square"
    account_type = Account

    def application(self, *, other: bool = False) -> ASGIApp:
        config = simulator.Config(**{**vars(CONFIG), "seed": 2}) if other else CONFIG
        return create(Seller(config))

    def control(self, url: str) -> Any:
        return simulator.Control(url)

    def prepare(self, control: Any) -> None:
        contract.prepare(control)

    def family(self, asked: Asked) -> str:
        *path, last = asked.path.removeprefix("/v2/").split("/")
        one = path and path[-1] in ("locations", "vendors", "payments", "refunds", "orders") and last not in SEARCHES
        kinds = asked.params.get("object_types") or asked.params.get("states") or ()
        times = sorted(name for name in _names(asked.params) if name in TIMES)
        name = "/".join([*path, "id" if one else last])
        return f"{name} {','.join(kinds)}{'&'.join(times)}".strip()

    def entities(self, family: str) -> Collection[str]:
        return ABOUT[next(name for name in ABOUT if family.startswith(name))]

    def records(self, family: str) -> str:
        return family if family.startswith("catalog") else family.partition("/")[0].partition(" ")[0]

    def group(self, family: str) -> str:
        return self.entities(family)[0].partition("_")[0]


COUNTS = ("catalog_inventory", "inventory_counts", "catalog_variations")
# What families tell of, by how their names begin.
ABOUT: Mapping[str, Sequence[str]] = {
    "catalog/search CATEGORY": ("catalog_categories",),
    "catalog/search ITEM_VARIATION": ("catalog_variations",),
    "catalog/search ITEM": ("catalog_items",),
    "catalog": ("catalog_categories", "catalog_items", "catalog_variations"),
    "inventory": COUNTS,
    "locations": ("locations",),
    "vendors": ("vendors",),
    "orders": ("orders",),
    "payments": ("orders", "payments"),
    "refunds": ("orders", "order_refunds"),
}
SEARCHES = ("search", "batch-retrieve", "bulk-retrieve")
# Parameters that make a list one of what has changed.
TIMES = ("begin_time", "updated_after", "updated_at", "created_at", "updated_at_begin_time", "catalog_object_ids")


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield name
            yield from _names(inner)
