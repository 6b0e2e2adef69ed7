"""What a valid answer of Square has beyond its form: it is about what was asked, and it is whole.

Each check is given an answer's data and raises RefuseData for one that is no answer to the question.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from include.api.errors import RefuseData
from include.api.paginators import optional_rows

Check = Callable[[Any], None]
Record = Mapping[str, Any]


def both(*checks: Check) -> Check:
    """All of the checks, one after the other."""

    def check(data: Any) -> None:
        for each in checks:
            each(data)

    return check


def all_are(rows: str, field: str, wanted: Collection[str]) -> Check:
    """Each of the `rows` names one of the wanted values in `field`, or none: then its own table decides."""

    def check(data: Any) -> None:
        others = [row for row in _rows(data, rows) if row.get(field) is not None and row[field] not in wanted]
        if others:
            raise RefuseData(f"{len(others)} of its {rows} have another {field} than was asked for")

    return check


def has(field: str) -> Check:
    """The answer has the field, and not as null."""

    def check(data: Any) -> None:
        if not isinstance(data, dict) or data.get(field) is None:
            raise RefuseData(f"it has no {field!r}, which every such answer has")

    return check


def whole(data: Any) -> None:
    """The answer shows everything: no page follows it."""
    if isinstance(data, dict) and data.get("cursor"):
        raise RefuseData("it shows a page where everything was asked for")


def some(rows: str) -> Check:
    """The list is not empty: every seller has some of these."""

    def check(data: Any) -> None:
        if not _rows(data, rows):
            raise RefuseData(f"it shows no {rows} at all, and every seller has some")

    return check


def lines_of(order: Record) -> Any:
    """The line items of an order as they came, which Square leaves out where there are none.

    Raises RefuseData where the total says that there are some: what is neither tip nor charge is the lines', custom
    amounts included.
    """
    rows = order.get("line_items")
    if rows or order.get("returns"):
        return rows
    rest = _cents(order, "total_money") - _cents(order, "total_tip_money")
    rest -= sum(_cents(charge, "total_money") for charge in order.get("service_charges") or [])
    if abs(rest) > abs(_cents(order.get("rounding_adjustment") or {}, "amount_money")):
        raise RefuseData("the order has no line items, though its total says that it has")
    return rows


def counts_of(inventory: Record, variation: Record | None) -> list[Record]:
    """The counts of a variation by its own address, and the variation itself by its own, None if it is not there.

    Raises RefuseData where a variation that is there seems to have no count at all: only the counts beside it prove
    that one is gone. Counts that Square computes from those of components are in no list, and so count as gone.
    """
    counts = optional_rows(inventory, "counts", ["cursor"])
    gone = variation is None or variation["object"].get("is_deleted")
    if not counts and not gone:
        raise RefuseData("it shows no count at all of a variation that is there, which proves nothing")
    return [count for count in counts if not count.get("is_estimated")]


def _rows(data: Any, name: str) -> list[Record]:
    """The rows of an answer, as far as they are there; their form is for the reader to judge."""
    rows = data.get(name) if isinstance(data, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _cents(record: Record, name: str) -> int:
    return (record.get(name) or {}).get("amount") or 0
