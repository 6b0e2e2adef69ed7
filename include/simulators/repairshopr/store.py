"""The account's rows as they are now: the base rows, what was written since, and the lists over both."""

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any, Literal, Self

from include.simulators.repairshopr.config import RESOURCES, Config, Sort
from include.simulators.repairshopr.data import ID_STEP, LINE_PARENTS, Row, Shop, instant, totals, whole

_BLOCK = 7  # rows; divides no page size of the vendor, so that blocks lie across page boundaries


@dataclass(frozen=True)
class Mutation:
    """One change behind the API's back, as another user of the shop would make it.

    `where` with `page` places an insert or a delete relative to a reader who has just been served that page
    in the account's default order: `behind` shifts the rows that are still to be read, `ahead` doesn't. An
    inserted line belongs, unless `row` says otherwise, to the parent of its neighbour. `silent` touches
    nothing else: no `updated_at`, no totals of a parent, no lines of a deleted invoice.
    """

    op: Literal["insert", "update", "delete"]
    resource: str
    id: int | None = None
    row: Row = field(default_factory=dict)
    silent: bool = False
    where: Literal["ahead", "behind"] | None = None
    page: int = 1


@dataclass(frozen=True)
class Selection:
    """The ids of a list: `ids` forwards or backwards, or locally permuted by a non-zero `shuffle`."""

    ids: Sequence[int]
    backwards: bool = False
    shuffle: int = 0

    def page(self, number: int, size: int) -> list[int]:
        """The ids on a page (from 1); none past the end."""
        start, end = (number - 1) * size, min(number * size, len(self.ids))
        if self.shuffle:
            return [self.ids[self._shuffled(place)] for place in range(start, end)]
        if self.backwards:
            start, end = len(self.ids) - end, len(self.ids) - start
            return list(self.ids[max(start, 0) : max(end, 0)])[::-1]
        return list(self.ids[start:end])

    def _shuffled(self, place: int) -> int:
        block = place - place % _BLOCK
        if block + _BLOCK > len(self.ids):
            return place
        return block + (place + self.shuffle) % _BLOCK


def now() -> str:
    """The present instant, as the vendor writes it."""
    return instant(int(datetime.now(UTC).timestamp() * 1_000))


class _View:
    """The ids of the rows that `holds` accepts, kept in the order of `key` while rows come and go."""

    def __init__(self, ids: Iterable[int], key: Callable[[int], Any], holds: Callable[[int], bool]) -> None:
        self._key, self._holds = key, holds
        self.ids = array("q", sorted(filter(holds, ids), key=key))

    def add(self, row_id: int) -> None:
        if self._holds(row_id):
            insort(self.ids, row_id, key=self._key)

    def discard(self, row_id: int) -> None:
        place = bisect_left(self.ids, self._key(row_id), key=self._key)
        if place < len(self.ids) and self.ids[place] == row_id:
            del self.ids[place]


def _sortable(value: object) -> tuple[int, Any]:
    """Values of one JSON field in a total order: null, then numbers, then texts."""
    if value is None:
        return 0, 0
    return (2, value) if isinstance(value, str) else (1, value)


class Table:
    """The live rows of one resource."""

    def __init__(self, name: str, shop: Shop) -> None:
        self.name = name
        self._shop = shop
        self._written: dict[int, Row] = {}
        self._ids = array("q", shop.ids(name))
        self._views: dict[tuple[str, str | None], _View] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids)

    def __contains__(self, row_id: object) -> bool:
        if not isinstance(row_id, int):
            return False
        place = bisect_left(self._ids, row_id)
        return place < len(self._ids) and self._ids[place] == row_id

    def get(self, row_id: int) -> Row | None:
        """The row of an id, or None when no such row lives. The row is not to be changed in place."""
        return self.row(row_id) if row_id in self else None

    def row(self, row_id: int) -> Row:
        """The row of an id that is known to live."""
        return self._written.get(row_id) or self._shop.row(self.name, row_id)

    def put(self, row: Row) -> None:
        """Insert the row, or replace the one with its id."""
        self.remove(row["id"])
        self._written[row["id"]] = row
        insort(self._ids, row["id"])
        for view in self._views.values():
            view.add(row["id"])

    def remove(self, row_id: int) -> None:
        """Forget a row; one that doesn't live is no error."""
        if row_id not in self:
            return
        for view in self._views.values():
            view.discard(row_id)
        del self._ids[bisect_left(self._ids, row_id)]
        self._written.pop(row_id, None)

    def load(self, rows: Sequence[Row]) -> None:
        """Replace the whole content by exactly these rows. Raises ValueError for an id that is no number."""
        if not all(isinstance(row.get("id"), int) for row in rows):
            raise ValueError(f"rows of {self.name} need integer ids: script pages to send others")
        self._views.clear()
        self._written = {row["id"]: row for row in rows}
        self._ids = array("q", sorted(self._written))

    def written(self) -> Sequence[int]:
        """Ids of the live rows that are no longer as the seed made them."""
        return tuple(self._written)

    def next_id(self) -> int:
        """An id above all that live."""
        return self._ids[-1] + ID_STEP if self._ids else self._shop.ids(self.name).start

    def free_id(self, start: int, step: Literal[1, -1]) -> int:
        """The unused id nearest to `start` in one direction."""
        return next(row_id for row_id in count(start + step, step) if row_id not in self)

    def ids(self, order: str = "id", having: str | None = None) -> Sequence[int]:
        """Ids ascending by a field, then by id; with `having` only of rows where that field isn't null."""
        if (order, having) == ("id", None):
            return self._ids
        if (order, having) not in self._views:
            self._views[order, having] = _View(self._ids, self._key(order), self._holds(having))
        return self._views[order, having].ids

    def since(self, instant_text: str) -> Sequence[int]:
        """Ids of the rows updated at or after an instant, in ascending order of `updated_at`."""
        first = ((2, instant_text), 0)
        ids = self.ids("updated_at")
        return ids[bisect_left(ids, first, key=self._key("updated_at")) :]

    def _key(self, order: str) -> Callable[[int], Any]:
        if order == "id":
            return int
        if order == "updated_at":
            return lambda row_id: (_sortable(self._updated_at(row_id)), row_id)
        return lambda row_id: (_sortable(self.row(row_id).get(order)), row_id)

    def _updated_at(self, row_id: int) -> str | None:
        if row_id in self._written:
            return self._written[row_id].get("updated_at")
        return self._shop.updated_at(self.name, row_id)

    def _holds(self, having: str | None) -> Callable[[int], bool]:
        if having is None:
            return lambda _: True
        return lambda row_id: self.row(row_id).get(having) is not None

    def frozen(self) -> Self:
        """A copy that later changes leave alone."""
        twin = copy(self)
        twin._written, twin._ids, twin._views = dict(self._written), self._ids[:], {}
        return twin


class LineTable(Table):
    """The lines, which are also found by the invoice or estimate they belong to."""

    def __init__(self, name: str, shop: Shop) -> None:
        super().__init__(name, shop)
        self._from_shop = True
        self._owned: dict[tuple[str, int], list[int]] = {}  # only of owners whose lines were written

    def of(self, owner: str, owner_id: int) -> Sequence[int]:
        """Ids of the lines of an invoice or estimate (`owner` is the resource), ascending."""
        if (owner, owner_id) in self._owned:
            return self._owned[owner, owner_id]
        return self._shop.line_ids(owner, owner_id) if self._from_shop else ()

    def put(self, row: Row) -> None:
        super().put(row)
        for owned in self._owned_by(row):
            insort(owned, row["id"])

    def remove(self, row_id: int) -> None:
        row = self.get(row_id)
        super().remove(row_id)
        for owned in self._owned_by(row or {}):
            owned.remove(row_id)

    def frozen(self) -> Self:
        twin = super().frozen()
        twin._owned = {owner: list(lines) for owner, lines in self._owned.items()}
        return twin

    def load(self, rows: Sequence[Row]) -> None:
        super().load(rows)
        self._from_shop = False
        self._owned.clear()
        for row in rows:
            for owned in self._owned_by(row):
                insort(owned, row["id"])

    def _holds(self, having: str | None) -> Callable[[int], bool]:
        # Asking the shop saves making the rows, which takes seconds for a million.
        written = super()._holds(having)
        if having not in LINE_PARENTS.values():
            return written
        return lambda line_id: (
            written(line_id) if line_id in self._written else LINE_PARENTS[self._shop.line_owner(line_id)[0]] == having
        )

    def _owned_by(self, row: Row) -> Iterator[list[int]]:
        for owner, name in LINE_PARENTS.items():
            if isinstance(owner_id := row.get(name), int):
                if (owner, owner_id) not in self._owned:
                    self._owned[owner, owner_id] = list(self.of(owner, owner_id))
                yield self._owned[owner, owner_id]


class Store:
    """All tables of an account, and the rules by which a write of one row touches others."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._random = Random(0)
        self.lines = LineTable("line_items", shop)
        self.tables: dict[str, Table] = {
            name: self.lines if name == "line_items" else Table(name, shop) for name in RESOURCES
        }

    def frozen(self, resources: Iterable[str]) -> "Store":
        """The same store but for these resources, which stay as they are now."""
        twin = copy(self)
        twin.tables = self.tables | {name: self.tables[name].frozen() for name in resources}
        twin.lines = twin.tables["line_items"]
        return twin

    def default_list(self, resource: str, sort: Sort) -> Selection:
        """The whole list of a resource in the account's default order."""
        table = self.tables[resource]
        return self.ordered(table.ids("updated_at" if sort == "updated_at_desc" else "id"), sort)

    def ordered(self, ids: Sequence[int], sort: Sort) -> Selection:
        """Ids, ascending by the sort field, in the account's default order; unstable: new at each call."""
        shuffle = self._random.randrange(1, _BLOCK) if sort == "unstable" else 0
        return Selection(ids, backwards=sort in ("id_desc", "updated_at_desc"), shuffle=shuffle)

    def shape(self, resource: str) -> Row:
        """A row as the seed makes it: what fields the resource has."""
        return self._shop.row(resource, self.tables[resource].next_id())

    def invoice_numbered(self, number: str) -> Row | None:
        """The invoice with a number; None when there is none."""
        invoices = self.tables["invoices"]
        original = [] if whole(number) is None else [self._shop.invoice_id(int(number))]
        suspects = (*original, *invoices.written())
        rows = (invoices.row(invoice_id) for invoice_id in suspects if invoice_id in invoices)
        return next((row for row in rows if row["number"] == number), None)

    def payments_of(self, invoice_id: int) -> list[Row]:
        """The payments that name an invoice."""
        payments = self.tables["payments"]
        suspects = sorted({*self._shop.payment_ids(invoice_id), *payments.written()})
        rows = (payments.row(payment_id) for payment_id in suspects if payment_id in payments)
        return [row for row in rows if invoice_id in row["invoice_ids"]]

    def lines_of(self, owner: str, owner_id: int) -> list[Row]:
        """The lines of an invoice or estimate."""
        return [self.lines.row(line_id) for line_id in self.lines.of(owner, owner_id)]

    def insert(self, resource: str, fields: Row, row_id: int | None = None, *, silent: bool = False, bump: bool) -> int:
        """Add a row, `fields` over an invented one, and return its id; times not given are now."""
        table = self.tables[resource]
        row_id = table.next_id() if row_id is None else row_id
        moment = now()
        row = self._shop.row(resource, row_id) | {"created_at": moment, "updated_at": moment}
        if not fields.keys().isdisjoint(LINE_PARENTS.values()) and resource == "line_items":
            row["invoice_id"] = None
            row.pop("estimate_id", None)
        table.put(row | fields | {"id": row_id})
        if not silent:
            self._recalculate_parents(resource, table.row(row_id), bump=bump)
        return row_id

    def update(self, resource: str, row_id: int, fields: Row, *, silent: bool = False, bump: bool) -> None:
        """Change fields of a live row; `updated_at` becomes now unless given or `silent`."""
        table = self.tables[resource]
        before = table.row(row_id)
        table.put(before | ({} if silent else {"updated_at": now()}) | fields)
        if not silent:
            self._recalculate_parents(resource, before, bump=bump)
            self._recalculate_parents(resource, table.row(row_id), bump=bump)

    def delete(self, resource: str, row_id: int, *, silent: bool = False, bump: bool) -> None:
        """Remove a live row for good, with its lines if it has any; `silent` touches nothing but the row."""
        table = self.tables[resource]
        row = table.row(row_id)
        table.remove(row_id)
        if silent:
            return
        self._recalculate_parents(resource, row, bump=bump)
        if resource in LINE_PARENTS:
            for line_id in tuple(self.lines.of(resource, row_id)):
                self.lines.remove(line_id)

    def apply(self, mutation: Mutation, config: Config) -> int:
        """Carry out an ordered change and return the id of its row.

        Raises KeyError when the row to change doesn't live or the one to insert does, or when there's no row
        at the named place.
        """
        resource, table = mutation.resource, self.tables[mutation.resource]
        if mutation.op == "insert":
            return self._insert_ordered(mutation, config)
        row_id = mutation.id if mutation.where is None else self._last_or_first(mutation, config)
        if row_id is None or row_id not in table:
            raise KeyError(f"{resource} has no row {row_id}")
        bump = config.line_edit_bumps_parent
        if mutation.op == "update":
            self.update(resource, row_id, mutation.row, silent=mutation.silent, bump=bump)
        else:
            self.delete(resource, row_id, silent=mutation.silent, bump=bump)
        return row_id

    def _insert_ordered(self, mutation: Mutation, config: Config) -> int:
        if mutation.id in self.tables[mutation.resource]:
            raise KeyError(f"{mutation.resource} already has a row {mutation.id}")
        row_id, times = (mutation.id, {}) if mutation.where is None else self._slot(mutation, config)
        return self.insert(
            mutation.resource,
            times | mutation.row,
            row_id,
            silent=mutation.silent,
            bump=config.line_edit_bumps_parent,
        )

    def _recalculate_parents(self, resource: str, line: Row, *, bump: bool) -> None:
        if resource != "line_items":
            return
        for owner, name in LINE_PARENTS.items():
            parent_id = line.get(name)
            if isinstance(parent_id, int) and (parent := self.tables[owner].get(parent_id)):
                fresh = {"updated_at": now()} if bump else {}
                self.tables[owner].put(parent | totals(self.lines_of(owner, parent_id)) | fresh)

    def _last_or_first(self, mutation: Mutation, config: Config) -> int | None:
        """The first row of the page just served (behind), or the last row of the next page (ahead)."""
        chosen = self.default_list(mutation.resource, config.sort)
        size = config.page_size(mutation.resource)
        behind = mutation.where == "behind"
        ids = chosen.page(mutation.page if behind else mutation.page + 1, size)
        return (ids[0] if behind else ids[-1]) if ids else None

    def _slot(self, mutation: Mutation, config: Config) -> tuple[int, Row]:
        """An unused id, and times where these decide the order, just before or after the page just served."""
        table = self.tables[mutation.resource]
        ids = self.default_list(mutation.resource, config.sort).page(mutation.page, config.page_size(mutation.resource))
        if not ids:
            raise KeyError(f"{mutation.resource} has no page {mutation.page}")
        behind = mutation.where == "behind"
        if config.sort == "updated_at_desc":
            moment = now() if behind else _just_before(table.row(ids[-1])["updated_at"])
            return table.next_id(), {"created_at": moment, "updated_at": moment}
        forwards = config.sort != "id_desc"
        return table.free_id(ids[0] if behind else ids[-1], -1 if behind is forwards else 1), {}


def _just_before(instant_text: str) -> str:
    earlier = datetime.fromisoformat(instant_text) - timedelta(milliseconds=1)
    return instant(round(earlier.timestamp() * 1_000))
