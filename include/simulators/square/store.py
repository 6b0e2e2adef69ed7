"""All that the seller has: the rows of the start and what was written since."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, get_args

from include.simulators.square.assortment import STATES, Assortment, Row
from include.simulators.square.catalog import Catalog
from include.simulators.square.config import Config
from include.simulators.square.documents import TENDERS
from include.simulators.square.ids import id_of, number_of
from include.simulators.square.protocol import decoder, encoder
from include.simulators.square.sales import Sales
from include.simulators.square.table import Table

Kind = Literal["locations", "categories", "items", "variations", "vendors", "counts", "orders", "payments", "refunds"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CATALOG_TYPES = {"categories": "CATEGORY", "items": "ITEM", "variations": "ITEM_VARIATION"}


class Rows(dict[str, Row]):
    """A short list by id; `before`: rows as they were before their last change, None where they were not there."""

    def __init__(self, rows: dict[str, Row]) -> None:
        super().__init__(rows)
        self.before: dict[str, Row | None] = {}

    def __setitem__(self, row_id: str, row: Row) -> None:
        self.before[row_id] = self.get(row_id)
        super().__setitem__(row_id, row)


class Store:
    """The rows of every kind."""

    def __init__(self, config: Config) -> None:
        self.goods = goods = Assortment(config)
        self.sales = sales = Sales(config, goods)
        self.main_location = goods.location_ids[0]
        self.locations = Rows({row["id"]: row for row in map(goods.location, range(config.locations))})
        self.vendors = Rows({row["id"]: row for row in map(goods.vendor, range(config.vendors))})
        self.catalog = Catalog(_objects(config, goods))
        # The table's own, since the sales go on to make rows by the times of the start.
        columns = {"created_at": sales.created, "updated_at": sales.updated, "closed_at": sales.closed}
        closing = {name: column[:] for name, column in columns.items()}
        self.orders = _table("orders", sales.order, closing, self._place_of_order)
        self.payments = _table(
            "payments",
            sales.payment,
            _created_updated(sales.payment_times()),
            lambda number: self._place_of_order(number // TENDERS),
        )
        self.refunds = _table("refunds", sales.refund, _created_updated(sales.refund_times()), self._place_of_order)
        self.counts = self._lay_counts(config)
        self.tables = {
            "orders": self.orders,
            "payments": self.payments,
            "refunds": self.refunds,
            "counts": self.counts,
        }
        self.lists = {"locations": self.locations, "vendors": self.vendors}

    def totals(self) -> dict[str, int]:
        """Live rows by kind; of the catalog those that are not deleted."""
        return {kind: self._total(kind) for kind in KINDS}

    def ids(self, kind: Kind) -> list[str]:
        """Ids of the live rows of a kind, ascending; of the catalog those that are not deleted."""
        if kind in CATALOG_TYPES:
            return self.catalog.ids(CATALOG_TYPES[kind])
        if kind in self.lists:
            return sorted(self.lists[kind])
        if kind == "counts":
            return sorted(count_id(self.counts.row(number)) for number in self.counts)
        return sorted(id_of(kind, number) for number in self.tables[kind])

    def row(self, kind: Kind, row_id: str) -> Row | None:
        """A row as the API shows it, tombstones included; None if there is none. The caller may change it in place."""
        if kind in CATALOG_TYPES:
            row = self.catalog.now(row_id)
            return row if row and row["type"] == CATALOG_TYPES[kind] else None
        if kind in self.lists:
            return self.lists[kind].get(row_id)
        number = self.tables[kind].find(row_id)
        return None if number is None else decoder.decode(encoder.encode(self.tables[kind].row(number)))

    def before(self, kind: Kind, row_id: str, row: Row) -> Row | None:
        """A row before its last change: None if that change created it, `row` itself if it never changed."""
        if kind in CATALOG_TYPES:
            return self.catalog.before.get(row_id, row)
        if kind in self.lists:
            return self.lists[kind].before.get(row_id, row)
        number = self.tables[kind].find(row_id)
        return self.tables[kind].before.get(number, row)

    def count_number(self, row_id: str) -> int:
        """The number of the count with an id, a new one where there was none yet."""
        return self._count_numbers.setdefault(row_id, len(self._count_numbers))

    def _total(self, kind: Kind) -> int:
        if kind in CATALOG_TYPES:
            return len(self.ids(kind))
        return len(self.lists[kind] if kind in self.lists else self.tables[kind])

    def _place_of_order(self, number: int) -> str:
        return self.goods.location_ids[self.sales.place[number]]

    def _lay_counts(self, config: Config) -> Table:
        keys, calculated = [], array("q")
        for variation in range(config.variations):
            for place in range(config.locations):
                for state in range(len(STATES)):
                    if moment := self.goods.counted(variation, place, state):
                        keys.append((variation, place, state))
                        calculated.append(moment)
        places = self.goods.location_ids
        ids = (f"{id_of('variations', item)}:{places[place]}:{STATES[state]}" for item, place, state in keys)
        self._count_numbers = {row_id: number for number, row_id in enumerate(ids)}
        return Table(
            "counts",
            lambda number: self.goods.count(*keys[number]),
            {"calculated_at": calculated},
            lambda number: places[keys[number][1]],
            self._count_numbers.get,
        )


def count_id(row: Row) -> str:
    """What names a count here; the vendor gives it no id."""
    return f"{row['catalog_object_id']}:{row['location_id']}:{row['state']}"


def _table(kind: Kind, make: Callable[[int], Row], times: dict[str, array], place_of: Callable[[int], str]) -> Table:
    return Table(kind, make, times, place_of, lambda row_id: number_of(kind, row_id))


def _created_updated(times: Iterable[array]) -> dict[str, array]:
    return dict(zip(("created_at", "updated_at"), times, strict=True))


def _objects(config: Config, goods: Assortment) -> Iterator[Row]:
    yield from (goods.tax(), goods.discount(), goods.unit())
    yield from map(goods.category, range(config.categories))
    yield from map(goods.item, range(config.items))
    yield from map(goods.variation, range(config.variations))
