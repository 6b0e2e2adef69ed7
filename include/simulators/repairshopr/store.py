"""The account's rows as they are now: all tables, and the rules by which a write of one row touches others."""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Literal

from include.simulators.repairshopr.config import RESOURCES, Config, Sort
from include.simulators.repairshopr.data import LINE_PARENTS, Shop
from include.simulators.repairshopr.table import BLOCK, LineTable, Selection, Table
from include.simulators.repairshopr.values import Row, instant, now, totals, whole


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
        shuffle = self._random.randrange(1, BLOCK) if sort == "unstable" else 0
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

        Raises KeyError if the row to change does not exist, or if the row to insert exists already.
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
