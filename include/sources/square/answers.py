"""Checks of Square's answers: whether they fit the question, and are complete.

A check is called with an answer's data, and raises RefuseData if the answer doesn't fit the question.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from include.api.errors import RefuseData

Check = Callable[[Any], None]
Record = Mapping[str, Any]


def all_of(*checks: Check) -> Check:
    """Return the check that makes all of these checks."""

    def check(data: Any) -> None:
        for each in checks:
            each(data)

    return check


def all_are(rows: str, field: str, wanted: Collection[str]) -> Check:
    """Return the check that no row has another value in `field` than the wanted ones.

    A row without the field passes; its table decides whether that is allowed.
    """

    def check(data: Any) -> None:
        others = [row for row in _rows(data, rows) if row.get(field) is not None and row[field] not in wanted]
        if others:
            raise RefuseData(f"{len(others)} of its {rows} have another {field} than was asked for")

    return check


def requires(field: str) -> Check:
    """Return a check that refuses an answer without the field, or with null in it."""

    def check(data: Any) -> None:
        if not isinstance(data, dict) or data.get(field) is None:
            raise RefuseData(f"it has no {field!r}, which every such answer has")

    return check


def some(rows: str) -> Check:
    """Return the check that the list is not empty. Every seller has rows in such a list."""

    def check(data: Any) -> None:
        if not _rows(data, rows):
            raise RefuseData(f"it shows no {rows} at all, and every seller has some")

    return check


def lines_of(order: Record) -> Any:
    """Return the line items of an order as they came. Square leaves them out if there are none.

    Raises RefuseData if they are missing although the total says that there are some: whatever is neither tip nor
    service charge comes from line items, custom amounts included.
    """
    rows = order.get("line_items")
    if rows or order.get("returns"):
        return rows
    rest = _cents(order, "total_money") - _cents(order, "total_tip_money")
    rest -= sum(_cents(charge, "total_money") for charge in order.get("service_charges") or [])
    if abs(rest) > abs(_cents(order.get("rounding_adjustment") or {}, "amount_money")):
        raise RefuseData("the order has no line items, though its total says that it has")
    return rows


def _rows(data: Any, name: str) -> list[Record]:
    """Return the rows of an answer that are objects. Other forms are refused later, by the paginator."""
    rows = data.get(name) if isinstance(data, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _cents(record: Record, name: str) -> int:
    return (record.get(name) or {}).get("amount") or 0
