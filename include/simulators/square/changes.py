"""Changes behind the API's back, and the rules by which a change of one row touches others."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from include.simulators.square.assortment import Row, money
from include.simulators.square.clock import instant, milliseconds
from include.simulators.square.documents import (
    TENDERS,
    amount_line,
    amounts,
    fee_of,
    is_apportioned,
    payment_of,
    processing_fee,
    refund_in_order,
    refund_of,
    refunded,
    return_order,
    tender,
    version_token,
)
from include.simulators.square.ids import id_of
from include.simulators.square.protocol import decoder, encoder
from include.simulators.square.sales import Sale
from include.simulators.square.store import CATALOG_TYPES, Kind, Store, count_id

_TOTALS = {
    "total_money": "total_money",
    "tax_money": "total_tax_money",
    "discount_money": "total_discount_money",
    "tip_money": "total_tip_money",
    "service_charge_money": "total_service_charge_money",
}
_LINES = 3  # of an invented order


@dataclass(frozen=True)
class Mutation:
    """One change behind the API's back, as the seller's people and the vendor make it.

    - `create`: `fields` over an invented row. An order is COMPLETED and paid, with its payments, unless `fields`
      has another `state`; with an old `created_at` it is a sale that a till made offline and sends now. A count
      needs `catalog_object_id`, `location_id`, `state` and `quantity`.
    - `update`: `fields` over those of the row with the `id`; in the catalog over the fields of the object's data,
      except for presence. New `line_items` of an order change its sums, unless the change is silent.
    - `delete`: a catalog object becomes a tombstone, and an item's variations with it; without `cascade` these
      leave no trace. What the vendor never deletes is gone without a trace, as is a catalog object if `silent`.
    - `complete`, `cancel`: an order that is OPEN or a DRAFT.
    - `fee`: the fee of a card payment becomes known, in payment and order.
    - `refund`: `fields["amount"]` cents of a payment, or all that is left. It adds a refund and an order that
      returns the goods, and changes payment and order. Its id is the refund's.

    `silent` moves neither `updated_at` nor version: what only a full scan can find.
    """

    op: Literal["create", "update", "delete", "complete", "cancel", "fee", "refund"]
    kind: Kind
    id: str = ""
    fields: Row = field(default_factory=dict)
    silent: bool = False
    cascade: bool = True


def apply(store: Store, mutation: Mutation, moment: int) -> str:
    """Carry out a change at an instant and return the row's id.

    Raises KeyError where the row doesn't live, ValueError where the change makes no sense.
    """
    change = _Change(store, mutation, moment)
    match mutation.op, mutation.kind:
        case "create", kind:
            return change.create_object() if kind in CATALOG_TYPES else change.create()
        case "update", kind:
            return change.update_object() if kind in CATALOG_TYPES else change.update()
        case "delete", _:
            return change.delete()
        case "complete" | "cancel", "orders":
            return change.close()
        case "fee", "payments":
            return change.fee()
        case "refund", "payments":
            return change.refund()
    raise ValueError(f"there is no {mutation.op} of {mutation.kind}")


class _Change:
    def __init__(self, store: Store, mutation: Mutation, moment: int) -> None:
        self._store, self._mutation, self._moment = store, mutation, moment
        self._kind, self._fields = mutation.kind, mutation.fields

    def create_object(self) -> str:
        """A catalog object."""
        makers: dict[str, Callable[[int], Row]] = {
            "categories": self._store.goods.category,
            "items": self._store.goods.item,
            "variations": self._store.goods.variation,
        }
        row = makers[self._kind](self._free_number(self._kind, lambda row_id: self._store.catalog.now(row_id)))
        self._store.catalog.put(row, self._moment)
        self._store.catalog.change(row["id"], self._fields, self._moment, silent=True)
        self._store.catalog.before[row["id"]] = None
        return row["id"]

    def update_object(self) -> str:
        """Fields of a catalog object."""
        row_id = self._own()["id"]
        self._store.catalog.change(row_id, self._fields, self._moment, silent=self._mutation.silent)
        return row_id

    def create(self) -> str:
        """Anything else."""
        match self._kind:
            case "orders":
                return self._create_order()
            case "counts":
                row = {"catalog_object_type": "ITEM_VARIATION", "calculated_at": instant(self._moment)} | self._fields
                self._store.counts.put(self._store.count_number(count_id(row)), row)
                return count_id(row)
            case "vendors":
                row = self._store.goods.vendor(self._free_number("vendors", self._store.vendors.get))
                row |= {"created_at": instant(self._moment), "updated_at": instant(self._moment), "version": 1}
            case "locations":
                row = self._store.goods.location(self._free_number("locations", self._store.locations.get))
                row |= {"created_at": instant(self._moment), "status": "ACTIVE"}
            case _:
                raise ValueError(f"{self._kind} come with orders: create an order, or refund a payment")
        self._store.lists[self._kind][row["id"]] = row | self._fields
        return row["id"]

    def update(self) -> str:
        """Fields of anything but a catalog object."""
        row = self._own()
        if self._kind == "orders" and "line_items" in self._fields and not self._mutation.silent:
            row |= _sums(row | self._fields)
        self._put(self._touched(row) | self._fields)
        return self._mutation.id

    def delete(self) -> str:
        """A tombstone in the catalog; elsewhere no trace."""
        row = self._own()
        if self._kind in CATALOG_TYPES:
            tombstone = not self._mutation.silent
            self._store.catalog.delete(row["id"], self._moment, tombstone=tombstone, cascade=self._mutation.cascade)
        elif self._kind in self._store.lists:
            del self._store.lists[self._kind][row["id"]]
        else:
            self._store.tables[self._kind].remove(self._store.tables[self._kind].find(self._mutation.id))
        return self._mutation.id

    def close(self) -> str:
        """The end of an open order: paid in cash, or canceled."""
        order = self._own()
        if order["state"] not in ("OPEN", "DRAFT"):
            raise ValueError(f"order {order['id']} is {order['state']}, so it can't change to that")
        state = "COMPLETED" if self._mutation.op == "complete" else "CANCELED"
        order = self._touched(order) | {"state": state, "closed_at": instant(self._moment)}
        due = order["net_amount_due_money"]["amount"]
        order["net_amount_due_money"] = money(0)
        if "fulfillments" in order:
            order["fulfillments"] = [part | {"state": state} for part in order["fulfillments"]]
        if state == "COMPLETED" and due:
            paid = tender(order, int(order["id"][7:]) * TENDERS, due, 0, card=False, fee=False)
            order["tenders"] = [paid | {"created_at": instant(self._moment)}]
        self._put(order | self._fields)
        self._pay(order)
        return order["id"]

    def fee(self) -> str:
        """The fee of a card payment."""
        payment = self._own()
        if payment["source_type"] != "CARD":
            raise ValueError(f"payment {payment['id']} is {payment['source_type']}: only a card payment has a fee")
        total = payment["total_money"]["amount"]
        self._put(self._touched(payment) | {"processing_fee": processing_fee(total, payment["created_at"])})
        order = self._store.row("orders", payment["order_id"])
        tenders = [
            row | {"processing_fee_money": money(fee_of(total))} if row["payment_id"] == payment["id"] else row
            for row in order["tenders"]
        ]
        self._put(self._touched(order, "orders") | {"tenders": tenders}, "orders")
        return payment["id"]

    def refund(self) -> str:
        """Money back for a payment: a refund, an order that returns the goods, and the traces in what was paid."""
        store, payment = self._store, self._own()
        order = store.row("orders", payment["order_id"])
        left = payment["total_money"]["amount"] - payment.get("refunded_money", money(0))["amount"]
        amount = self._fields.get("amount", left)
        if not 0 < amount <= left:
            raise ValueError(f"payment {payment['id']} has {left} cents left to refund, so not {amount}")
        number = store.orders.next_number()
        lines = order["line_items"]
        if sum(line["total_money"]["amount"] for line in lines) != amount:
            lines = [amount_line(amount)]
        returning = return_order(number, order, lines, self._moment, self._moment)
        row = refund_of(returning, payment["id"], self._fields.get("status", "COMPLETED"))
        self._put(returning, "orders")
        store.refunds.put(number, row)
        earlier = [store.row("refunds", row_id) for row_id in payment.get("refund_ids", ())]
        kept = payment["updated_at"], payment["version_token"]
        after = refunded(payment, [*earlier, row], self._moment)
        if self._mutation.silent:
            after["updated_at"], after["version_token"] = kept
        self._put(after)
        refunds = [*order.get("refunds", ()), refund_in_order(row, order["id"])]
        self._put(self._touched(order, "orders") | {"refunds": refunds}, "orders")
        return row["id"]

    def _create_order(self) -> str:
        store, number = self._store, self._store.orders.next_number()
        state = self._fields.get("state", "COMPLETED")
        created = milliseconds(self._fields.get("created_at", instant(self._moment)))
        closed = self._moment if state in ("COMPLETED", "CANCELED") else 0
        place = self._fields.get("location_id", store.main_location)
        lines = range(number * _LINES, (number + 1) * _LINES)
        order = store.sales.sale(Sale(number, place, state, created, self._moment, closed, lines))
        order = decoder.decode(encoder.encode(order)) | {"version": 1} | self._fields
        if "line_items" in self._fields:
            order |= _sums(order)
        store.orders.put(number, order)
        self._pay(order)
        return order["id"]

    def _pay(self, order: Row) -> None:
        """The payments behind an order's tenders."""
        for paid in order.get("tenders", ()):
            payment = payment_of(order, paid, self._moment)
            self._store.payments.put(int(payment["id"][7:]), payment)

    def _free_number(self, kind: str, find: Callable[[str], Row | None]) -> int:
        """The lowest number that no row of the kind has, above those of the start."""
        number = len(self._store.ids(kind))
        while find(id_of(kind, number)):
            number += 1
        return number

    def _own(self) -> Row:
        row = self._store.row(self._kind, self._mutation.id)
        if row is None or row.get("is_deleted"):
            raise KeyError(f"there is no row {self._mutation.id!r} among the {self._kind}")
        return row

    def _touched(self, row: Row, kind: Kind | None = None) -> Row:
        """The row with what the vendor moves at a change."""
        if self._mutation.silent:
            return dict(row)
        moment = instant(self._moment)
        match kind or self._kind:
            case "orders" | "vendors":
                version = {"version": row["version"] + 1} if "version" in row else {}
                return row | {"updated_at": moment} | version
            case "payments":
                return row | {"updated_at": moment, "version_token": version_token(row["id"], self._moment)}
            case "refunds":
                return row | {"updated_at": moment}
            case "counts":
                return row | {"calculated_at": moment}
        return dict(row)

    def _put(self, row: Row, kind: Kind | None = None) -> None:
        kind = kind or self._kind
        if kind in self._store.lists:
            self._store.lists[kind][row["id"]] = row
        elif kind == "counts":
            self._store.counts.put(self._store.count_number(count_id(row)), row)
        else:
            self._store.tables[kind].put(int(row["id"][7:]), row)


def _sums(order: Row) -> Row:
    """An order's sums and tax and discount lists, as they follow from its lines, with its tip and charges."""
    lines = order["line_items"]
    tax, discount, goods = (
        sum(line.get(name, money(0))["amount"] for line in lines)
        for name in ("total_tax_money", "total_discount_money", "total_money")
    )
    tip, charge = order["total_tip_money"]["amount"], order["total_service_charge_money"]["amount"]
    charges = (row for row in order.get("service_charges", ()) if not is_apportioned(row))
    total = goods + tip + sum(row["total_money"]["amount"] for row in charges)
    sums = amounts(total, tax, discount, tip, charge)
    paid = sum(row["amount_money"]["amount"] for row in order.get("tenders", ()))
    due = total - paid if order["state"] != "CANCELED" else 0
    return {"net_amounts": sums, "net_amount_due_money": money(due)} | {
        name: sums[short] for short, name in _TOTALS.items()
    }
