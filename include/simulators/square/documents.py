"""What hangs on an order, made from the order itself: tenders, payments, refunds and the orders that return goods."""

from collections.abc import Iterable, Sequence

from include.simulators.square.assortment import Row, money
from include.simulators.square.clock import instant, milliseconds
from include.simulators.square.ids import id_of, mix

TENDERS = 2  # at most in an order; a payment's number is the order's times this, and the tender's place
_SECOND, _DAY = 1_000, 86_400_000
_BRANDS = ("VISA", "MASTERCARD", "AMERICAN_EXPRESS")
_ENTRIES = ("EMV", "CONTACTLESS", "SWIPED")
_SUMS = ("total_money", "total_tax_money", "total_discount_money")
_KEPT = ("name", "quantity", "quantity_unit", "catalog_object_id", "catalog_version", "variation_name", "item_type")
_MONEY = ("base_price_money", "variation_total_price_money", *_SUMS)
_APPROVAL = {"COMPLETED": "APPROVED"}
_DETAILS = {"PICKUP": "pickup_details", "SHIPMENT": "shipment_details", "DELIVERY": "delivery_details"}


def round_half_up(numerator: int, denominator: int) -> int:
    """A quotient of whole numbers from 0, rounded to the nearest."""
    return (2 * numerator + denominator) // (2 * denominator)


def amounts(total: int, tax: int, discount: int, tip: int, charge: int) -> Row:
    """Five sums of an order, in cents, as one object."""
    return {
        "total_money": money(total),
        "tax_money": money(tax),
        "discount_money": money(discount),
        "tip_money": money(tip),
        "service_charge_money": money(charge),
    }


def is_apportioned(charge: Row) -> bool:
    """Whether a service charge is part of the lines' totals, and so doesn't come on top of them."""
    return charge["calculation_phase"].startswith("APPORTIONED_")


def tender(order: Row, number: int, amount: int, tip: int, *, card: bool, fee: bool) -> Row:
    """How an order, or part of it, is paid; `amount` includes the tip, `number` is that of its payment."""
    payment_id = id_of("payments", number)
    row = {
        "id": payment_id,
        "location_id": order["location_id"],
        "transaction_id": order["id"],
        "created_at": order["created_at"],
        "amount_money": money(amount),
        "type": "CARD" if card else "CASH",
        "payment_id": payment_id,
    }
    if tip:
        row["tip_money"] = money(tip)
    if "customer_id" in order:
        row["customer_id"] = order["customer_id"]
    if number % 26 == 4:
        fee_of_app = {"description": "Application fees", "amount_money": money(10), "receivable_id": f"RCV{number:07}"}
        row["additional_recipients"] = [{"location_id": order["location_id"], **fee_of_app}]
    if not card:
        given = -(-amount // 500) * 500
        row["cash_details"] = {"buyer_tendered_money": money(given), "change_back_money": money(given - amount)}
        return row
    chance = mix(number)
    row["card_details"] = {
        "status": "CAPTURED",
        "card": {"card_brand": _BRANDS[chance % 3], "last_4": f"{chance % 10_000:04}"},
        "entry_method": _ENTRIES[chance % 3],
    }
    return row | {"processing_fee_money": money(fee_of(amount))} if fee else row


def fee_of(amount: int) -> int:
    """What the vendor takes of a card payment, in cents."""
    return round_half_up(amount * 26, 1_000) + 10


def processing_fee(amount: int, created_at: str) -> list[Row]:
    """The fee of a card payment, as the payment names it."""
    effective = instant(milliseconds(created_at) + 2 * _DAY)
    return [{"effective_at": effective, "type": "INITIAL", "amount_money": money(fee_of(amount))}]


def payment_of(order: Row, paid: Row, updated: int) -> Row:
    """The payment behind a tender of an order, as of an instant."""
    total, tip = paid["amount_money"]["amount"], paid.get("tip_money", {"amount": 0})["amount"]
    row = {
        "id": paid["payment_id"],
        "created_at": paid["created_at"],
        "updated_at": instant(updated),
        "amount_money": money(total - tip),
        "total_money": money(total),
        "approved_money": money(total),
        "status": "COMPLETED",
        "source_type": paid["type"],
        "location_id": order["location_id"],
        "order_id": order["id"],
        "receipt_number": paid["payment_id"][-4:],
        "receipt_url": f"https://receipts.example/{paid['payment_id']}",
        "version_token": version_token(paid["payment_id"], updated),
    }
    if tip:
        row["tip_money"] = money(tip)
    for name in ("customer_id", "reference_id"):
        if name in order:
            row[name] = order[name]
    if paid["type"] == "CASH":
        cash = paid["cash_details"]
        row["cash_details"] = {
            "buyer_supplied_money": cash["buyer_tendered_money"],
            "change_back_money": cash["change_back_money"],
        }
        return row
    if mix(int(row["id"][7:])) % 19 == 3:
        row |= {"is_offline_payment": True, "offline_payment_details": {"client_created_at": row["created_at"]}}
    row |= {
        "card_details": paid["card_details"] | {"cvv_status": "CVV_ACCEPTED", "avs_status": "AVS_ACCEPTED"},
        "delay_duration": "PT168H",
        "delay_action": "CANCEL",
        "delayed_until": instant(milliseconds(paid["created_at"]) + 7 * _DAY),
    }
    if "processing_fee_money" in paid:
        row["processing_fee"] = processing_fee(total, paid["created_at"])
    return row


def version_token(payment_id: str, updated: int) -> str:
    """What tells one version of a payment from another."""
    return f"{mix(int(payment_id[7:]) << 44 ^ updated):016x}"


def return_order(number: int, source: Row, lines: Sequence[Row], created: int, updated: int) -> Row:
    """The order by which lines of another come back; its own total is 0, what it returns is `return_amounts`."""
    sums = [sum(line.get(name, {"amount": 0})["amount"] for line in lines) for name in _SUMS]
    returned = amounts(*sums, tip=0, charge=0)
    back = {
        "uid": "return-1",
        "source_order_id": source["id"],
        "return_line_items": [_return_line(place, line) for place, line in enumerate(lines, 1)],
        "return_amounts": returned,
    }
    if sums[1]:
        back["return_taxes"] = [{"uid": "return-tax", "name": "Sales Tax", "applied_money": money(sums[1])}]
    row = {
        "id": id_of("orders", number),
        "location_id": source["location_id"],
        "source": {"name": "Square Point of Sale"},
        "created_at": instant(created),
        "updated_at": instant(updated),
        "closed_at": instant(created),
        "state": "COMPLETED",
        "version": 1,
        "returns": [back],
        "return_amounts": returned,
        "net_amounts": amounts(*(-value for value in sums), tip=0, charge=0),
        "net_amount_due_money": money(0),
    }
    totals = ("total_money", "total_tax_money", "total_discount_money", "total_tip_money")
    return row | {name: money(0) for name in (*totals, "total_service_charge_money")}


def _return_line(place: int, line: Row) -> Row:
    row = {"uid": f"return-line-{place}", "gross_return_money": line["gross_sales_money"]}
    if "uid" in line:
        row["source_line_item_uid"] = line["uid"]
    return row | {name: line[name] for name in (*_KEPT, *_MONEY) if name in line}


def amount_line(amount: int) -> Row:
    """A line that stands for an amount and no goods."""
    priced = ("base_price_money", "variation_total_price_money", "gross_sales_money", "total_money")
    return {"quantity": "1", "item_type": "CUSTOM_AMOUNT"} | {name: money(amount) for name in priced}


def refund_of(returning: Row, payment_id: str, status: str = "COMPLETED") -> Row:
    """The refund that an order of returned goods led to."""
    return {
        "id": id_of("refunds", int(returning["id"][7:])),
        "status": status,
        "location_id": returning["location_id"],
        "unlinked": False,
        "amount_money": returning["return_amounts"]["total_money"],
        "payment_id": payment_id,
        "order_id": returning["id"],
        "reason": "Returned goods",
        "created_at": returning["created_at"],
        "updated_at": returning["updated_at"],
    }


def refund_in_order(refund: Row, order_id: str) -> Row:
    """The refund as the refunded order tells it: another status, and no `updated_at`."""
    return {
        "id": refund["id"],
        "location_id": refund["location_id"],
        "transaction_id": order_id,
        "tender_id": refund["payment_id"],
        "created_at": refund["created_at"],
        "reason": refund["reason"],
        "amount_money": refund["amount_money"],
        "status": _APPROVAL.get(refund["status"], refund["status"]),
    }


def refunded(payment: Row, refunds: Iterable[Row], updated: int) -> Row:
    """A payment after all of its refunds."""
    ids, total = zip(*((row["id"], row["amount_money"]["amount"]) for row in refunds), strict=True)
    return payment | {
        "refund_ids": list(ids),
        "refunded_money": money(sum(total)),
        "updated_at": instant(updated),
        "version_token": version_token(payment["id"], updated),
    }


def fulfillment(kind: str, state: str, placed: int) -> Row:
    """How an order comes to its buyer."""
    details: Row = {"placed_at": instant(placed), "recipient": {"display_name": "Liv Hale"}}
    if kind == "PICKUP":
        details |= {"schedule_type": "SCHEDULED", "pickup_at": instant(placed + 3_600 * _SECOND)}
    return {
        "uid": "fulfillment-1",
        "type": kind,
        "state": state,
        "line_item_application": "ALL",
        _DETAILS[kind]: details,
    }
