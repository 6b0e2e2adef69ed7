"""The invented sales: orders, payments and refunds, made when somebody asks.

A row is a function of seed and number, so that a million lines need little memory. Some orders return goods of
one shortly before. A payment follows from its order and so can't disagree with it.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from include.simulators.square.assortment import (
    DISCOUNT_PERCENT,
    END,
    START,
    TAX_PERCENT,
    Assortment,
    Row,
    measurement_unit,
    money,
)
from include.simulators.square.clock import instant
from include.simulators.square.config import Config
from include.simulators.square.documents import (
    TENDERS,
    amounts,
    fulfillment,
    payment_of,
    refund_in_order,
    refund_of,
    refunded,
    return_order,
    round_half_up,
    tender,
)
from include.simulators.square.ids import id_of, mix

_SECOND, _MINUTE, _HOUR, _DAY = 1_000, 60_000, 3_600_000, 86_400_000
_RETURN_EVERY = 25  # orders, of which the last returns goods of another, where one of them was sold and paid by card
_WEIGHTS, _PIECES = (("1", 1_000), ("0.75", 750), ("2.125", 2_125)), (("1", 1_000), ("2", 2_000), ("3", 3_000))
_FORGOTTEN = 5  # variations that orders name and the catalog has no more
_FULFILLED = {"COMPLETED": "COMPLETED", "OPEN": "PROPOSED", "DRAFT": "PROPOSED", "CANCELED": "CANCELED"}
_TAX = {
    "uid": "tax",
    "catalog_object_id": id_of("taxes", 0),
    "name": "Sales Tax",
    "type": "ADDITIVE",
    "percentage": TAX_PERCENT,
    "scope": "LINE_ITEM",
}
_DISCOUNT = {
    "uid": "discount",
    "catalog_object_id": id_of("discounts", 0),
    "name": "Regulars",
    "type": "FIXED_PERCENTAGE",
    "percentage": DISCOUNT_PERCENT,
    "scope": "LINE_ITEM",
}
_CHARGE = {"uid": "charge", "name": "Delivery", "calculation_phase": "TOTAL_PHASE", "taxable": False, "type": "CUSTOM"}
_CHARGED = ("amount_money", "applied_money", "total_money")
# Charges that are part of a line's total. One tells it by its treatment too, the other by its phase alone.
_APPORTIONED = (
    {"calculation_phase": "APPORTIONED_PERCENTAGE_PHASE", "treatment_type": "APPORTIONED_TREATMENT"},
    {"calculation_phase": "APPORTIONED_AMOUNT_PHASE"},
)
_SHARE = {"uid": "share", "name": "Kitchen", "taxable": False, "type": "CUSTOM", "scope": "LINE_ITEM"}
_SHARED = 120  # cents
_WAYS = ("PICKUP", "SHIPMENT", "DELIVERY")

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True)
class _Line:
    """A line item as JSON but for its uid, and its sums in cents."""

    text: bytes
    discount: int
    tax: int
    total: int


@dataclass(frozen=True)
class Sale:
    """What fixes an order that sells: instants in milliseconds (`closed` 0: not yet), `lines` by their numbers."""

    number: int
    location_id: str
    state: str
    created: int
    updated: int
    closed: int
    lines: range


class Sales:
    """The orders, payments and refunds that were there from the start.

    `created`, `updated`, `closed` (milliseconds; 0: never) and `place` (of the location) are those of the orders.
    """

    def __init__(self, config: Config, assortment: Assortment) -> None:
        self._variations = config.variations
        self._assortment = assortment
        self._salt = (mix(config.seed + 77) & 0xFFFF_FFFF) << 24
        self._made: dict[tuple[int | None, int, bool], _Line] = {}
        self._first_line = self._lay_lines(config.orders, config.line_items)
        self._returned: dict[int, int] = {}  # the number of the return, by that of the order
        self._return_of: dict[int, int] = {}
        self.created, self.updated, self.closed = (array("q", bytes(8 * config.orders)) for _ in range(3))
        self.place = array("q", bytes(8 * config.orders))
        for number in range(config.orders):
            self._lay_order(number, START + (END - START - _DAY) * number // config.orders)

    def _lay_lines(self, orders: int, lines: int) -> array:
        """The first line of each order: spread evenly, but for up to 45 % of an order."""
        selling = orders - orders // _RETURN_EVERY
        bounds, place = array("q", [0]), 0
        for number in range(orders):
            place += not _is_return(number)
            jitter = mix(self._salt ^ number) % 901 - 450 if place < selling else 0
            bounds.append(bounds[-1] if _is_return(number) else lines * (place * 1_000 + jitter) // (selling * 1_000))
        return bounds

    def _lay_order(self, number: int, created: int) -> None:
        """Fix times and location of an order. One in sixteen goes on changing for days, the others for an hour."""
        chance = self._chance(number)
        busy_for = (chance >> 16) % (20 * _DAY if chance & 15 == 0 else _HOUR)
        self.created[number] = created
        self.updated[number] = min(created + 5 * _SECOND + busy_for, END)
        self.place[number] = (chance >> 4) % len(self._assortment.location_ids)
        if _is_return(number):
            self._lay_return(number)
        if self._state(number) in ("COMPLETED", "CANCELED"):
            self.closed[number] = created + 4 * _SECOND

    def _lay_return(self, number: int) -> None:
        first = number + 1 - _RETURN_EVERY + self._chance(number) % (_RETURN_EVERY // 2)
        source = next((other for other in range(first, number) if self._returnable(other)), None)
        if source is not None:
            self._returned[source], self._return_of[number] = number, source
            self.place[number] = self.place[source]
            self.updated[number] = self.updated[source] = self.created[number] + _MINUTE

    def order(self, number: int) -> Row:
        """An order of the start. Its line items may be JSON already: `msgspec.Raw`."""
        if number in self._return_of:
            return self._return(number)
        place = self._assortment.location_ids[self.place[number]]
        times = self.created[number], self.updated[number], self.closed[number]
        order = self.sale(Sale(number, place, self._state(number), *times, self._line_numbers(number)))
        if number in self._returned:
            order["refunds"] = [refund_in_order(self.refund(self._returned[number]), order["id"])]
            if "version" in order:
                order["version"] += 1
        return order

    def payment(self, number: int) -> Row:
        """A payment of the start."""
        order, place = self.order(number // TENDERS), number % TENDERS
        updated = self._payment_updated(number)
        payment = payment_of(order, order["tenders"][place], updated)
        return refunded(payment, order["refunds"], updated) if "refunds" in order else payment

    def refund(self, number: int) -> Row:
        """A refund of the start, by the number of the order with its return."""
        status = "PENDING" if self._chance(number) % 15 == 0 else "COMPLETED"
        return refund_of(self._return(number), id_of("payments", self._return_of[number] * TENDERS), status)

    def payment_times(self) -> tuple[array, array]:
        """`created_at` and `updated_at` of the payments by number; 0 where there is none."""
        created, updated = (array("q", bytes(8 * TENDERS * len(self.created))) for _ in range(2))
        for order in range(len(self.created)):
            for number in range(order * TENDERS, order * TENDERS + self._tenders(order)):
                created[number] = self.created[order]
                updated[number] = self._payment_updated(number)
        return created, updated

    def refund_times(self) -> tuple[array, array]:
        """`created_at` and `updated_at` of the refunds by number; 0 where there is none."""
        created, updated = (array("q", bytes(8 * len(self.created))) for _ in range(2))
        for number in self._return_of:
            created[number], updated[number] = self.created[number], self.updated[number]
        return created, updated

    def sale(self, sale: Sale) -> Row:
        """The order of a sale. It has its tenders if it is COMPLETED."""
        chance = self._chance(sale.number)
        lines = [self._line(number) for number in sale.lines]
        if lines and _shares(chance):
            lines[0] = _with_share(lines[0])
        order: Row = {
            "id": id_of("orders", sale.number),
            "location_id": sale.location_id,
            "source": {"name": ("Square Point of Sale", "Online Store")[chance >> 5 & 1]},
            "created_at": instant(sale.created),
            "updated_at": instant(sale.updated),
            "state": sale.state,
        }
        # Orders that the API hasn't made have no version; some of a till's are shown with one all the same.
        if chance >> 5 & 3:
            order["version"] = 1 + (chance >> 6) % 4
        if sale.closed:
            order["closed_at"] = instant(sale.closed)
        if chance % 3 == 0:
            order["customer_id"] = id_of("customers", chance % 500)
        if chance % 7 == 0:
            order |= {"reference_id": f"R-{sale.number}", "ticket_name": f"Table {chance % 30}"}
        if chance % 9 == 0:
            order["metadata"] = {"campaign": f"spring-{chance % 4}"}
        if chance % 11 == 5:
            order["pricing_options"] = {"auto_apply_taxes": True, "auto_apply_discounts": False}
        if chance % 36 == 0:
            order["rewards"] = [{"id": f"REWARD{sale.number:07}", "reward_tier_id": "TIER1"}]
        if lines:
            texts = [b'{"uid":"line-%d",%b' % (place, line.text) for place, line in enumerate(lines, 1)]
            order["line_items"] = msgspec.Raw(b"[" + b",".join(texts) + b"]")
        if chance % 8 == 1:
            order["fulfillments"] = [fulfillment(_WAYS[chance % 3], _FULFILLED[sale.state], sale.created)]
        return order | self._sums(order, lines, chance)

    def _sums(self, order: Row, lines: Sequence[_Line], chance: int) -> Row:
        """Everything about money: it follows from the lines."""
        tax = discount = 0
        total = charge = 300 if lines and chance % 30 == 2 else 0
        charges = [_CHARGE | {name: money(charge) for name in _CHARGED}] if charge else []
        if lines and _shares(chance):
            charge += _SHARED
            charges.append(_SHARE | _APPORTIONED[chance >> 8 & 1] | {name: money(_SHARED) for name in _CHARGED})
        for line in lines:
            tax, discount, total = tax + line.tax, discount + line.discount, total + line.total
        paid = order["state"] == "COMPLETED" and bool(lines)
        tip = total * 15 // 100 if paid and _by_card(chance) and chance % 4 == 0 else 0
        total += tip
        sums = amounts(total, tax, discount, tip, charge)
        row: Row = {
            "net_amounts": sums,
            "total_money": sums["total_money"],
            "total_tax_money": sums["tax_money"],
            "total_discount_money": sums["discount_money"],
            "total_tip_money": sums["tip_money"],
            "total_service_charge_money": sums["service_charge_money"],
            "net_amount_due_money": money(total if order["state"] in ("OPEN", "DRAFT") else 0),
        }
        if tax:
            row["taxes"] = [_TAX | {"applied_money": money(tax)}]
        if discount:
            row["discounts"] = [_DISCOUNT | {"applied_money": money(discount)}]
        if charges:
            row["service_charges"] = charges
        if paid:
            row["tenders"] = self._paid_by(order, total, tip, chance)
        return row

    def _paid_by(self, order: Row, total: int, tip: int, chance: int) -> list[Row]:
        """One tender, or a second one in cash for a third of the total."""
        number = int(order["id"][7:])
        fee = number < len(self.created) and self._has_fee(number)
        second = total // 3 if _splits(chance) else 0
        first = tender(order, number * TENDERS, total - second, tip, card=_by_card(chance), fee=fee)
        if not second:
            return [first]
        return [first, tender(order, number * TENDERS + 1, second, 0, card=False, fee=False)]

    def _line(self, number: int) -> _Line:
        """The line item of that number. Many are alike but for the uid, so each kind is made once."""
        # Made for every line of every answer: one multiplication spreads well enough.
        chance = (self._salt + number) * 0x9E3779B97F4A7C15 >> 20 & 0xFFFFFFFFFFF
        kinds = self._variations + (_FORGOTTEN if chance % 11 == 0 else 0)
        variation = (chance >> 8) % kinds if kinds and chance % 25 else None
        key = variation, (chance >> 32) % 3, (chance >> 36) % 10 == 0
        line = self._made.get(key)
        if line is None:
            line = self._made[key] = self._make_line(*key)
        return line

    def _make_line(self, variation: int | None, amount: int, discounted: bool) -> _Line:
        goods = self._assortment.goods(variation or 0)
        weighed = goods.weighed and variation is not None
        quantity, thousandths = (_WEIGHTS if weighed else _PIECES)[amount]
        gross = round_half_up(goods.price * thousandths, 1_000)
        discount = round_half_up(gross * int(DISCOUNT_PERCENT), 100) if discounted else 0
        tax = round_half_up((gross - discount) * 825, 10_000) if goods.taxed else 0
        total = gross - discount + tax
        row: Row = {"quantity": quantity, "item_type": "CUSTOM_AMOUNT" if variation is None else "ITEM"}
        if variation is not None:
            row |= {
                "name": goods.name,
                "variation_name": goods.variation_name,
                "catalog_object_id": id_of("variations", variation),
                "catalog_version": goods.version,
            }
        if weighed:
            row["quantity_unit"] = measurement_unit() | {"catalog_object_id": id_of("units", 0)}
        if amount == 2:
            row["note"] = "as a gift"
        if tax:
            row["applied_taxes"] = [{"uid": "applied-tax", "tax_uid": "tax", "applied_money": money(tax)}]
        if discount:
            applied = {"uid": "applied-discount", "discount_uid": "discount", "applied_money": money(discount)}
            row["applied_discounts"] = [applied]
        row |= {
            "base_price_money": money(goods.price),
            "variation_total_price_money": money(gross),
            "gross_sales_money": money(gross),
            "total_tax_money": money(tax),
            "total_discount_money": money(discount),
            "total_money": money(total),
        }
        return _Line(_encoder.encode(row)[1:], discount, tax, total)

    def _return(self, number: int) -> Row:
        """The order by which all lines of another come back, or just the first."""
        source = self._return_of[number]
        numbers = self._line_numbers(source)
        if self._chance(number) >> 8 & 1:
            numbers = numbers[:1]
        lines = [
            {"uid": f"line-{place}"} | msgspec.json.decode(b"{" + self._line(line).text)
            for place, line in enumerate(numbers, 1)
        ]
        place = self._assortment.location_ids[self.place[number]]
        sold = {"id": id_of("orders", source), "location_id": place}
        return return_order(number, sold, lines, self.created[number], self.updated[number])

    def _line_numbers(self, number: int) -> range:
        return range(self._first_line[number], self._first_line[number + 1])

    def _state(self, number: int) -> str:
        if _is_return(number):
            return "COMPLETED" if number in self._return_of else "CANCELED"
        percent = (self._chance(number) >> 40) % 100
        return "DRAFT" if percent < 2 else "CANCELED" if percent < 5 else "OPEN" if percent < 8 else "COMPLETED"

    def _tenders(self, number: int) -> int:
        if _is_return(number) or self._state(number) != "COMPLETED" or not self._line_numbers(number):
            return 0
        return 2 if _splits(self._chance(number)) else 1

    def _returnable(self, number: int) -> bool:
        return self._tenders(number) == 1 and _by_card(self._chance(number))

    def _has_fee(self, number: int) -> bool:
        """Fees come later than payments: half of those of the last days have none yet."""
        return self.created[number] < END - 4 * _DAY or bool(self._chance(number) >> 44 & 1)

    def _payment_updated(self, number: int) -> int:
        order = number // TENDERS
        if order in self._returned:
            return self.updated[order]
        return min(self.created[order] + 10 * _SECOND + self._chance(order) % _DAY, END)

    def _chance(self, number: int) -> int:
        return mix(self._salt + number)


def _with_share(line: _Line) -> _Line:
    """The line with its share of a charge that is apportioned."""
    row = msgspec.json.decode(b"{" + line.text)
    row |= {
        "applied_service_charges": [
            {"uid": "applied-share", "service_charge_uid": _SHARE["uid"], "applied_money": money(_SHARED)}
        ],
        "total_service_charge_money": money(_SHARED),
        "total_money": money(line.total + _SHARED),
    }
    return _Line(_encoder.encode(row)[1:], line.discount, line.tax, line.total + _SHARED)


def _shares(chance: int) -> bool:
    return (chance >> 56) % 12 == 0


def _is_return(number: int) -> bool:
    return number % _RETURN_EVERY == _RETURN_EVERY - 1


def _by_card(chance: int) -> bool:
    return (chance >> 48) % 5 < 3


def _splits(chance: int) -> bool:
    return (chance >> 52) % 20 == 0
