"""Lies to order: rows that are sound in their form, and not the truth."""

from collections.abc import Mapping, Sequence
from typing import Any

from include.simulators.altered import doubled, over, without
from include.simulators.control import decoded, encoder
from include.simulators.repairshopr.faults import Fault
from include.simulators.repairshopr.table import Table
from include.simulators.repairshopr.values import Row


def told(table: Table, rows: Sequence[Row], fault: Fault) -> list[Row]:
    """The rows of an answer as the fault has them."""
    rows = decoded(encoder.encode(rows))
    chosen = set(range(len(rows)) if fault.rows is None else fault.rows)
    match fault.kind:
        case "empty_page":
            return []
        case "duplicate_rows":
            return rows + [row | fault.changes for row in rows[: fault.value or 1]]
        case "missing_rows" | "error_beside":
            return [row for place, row in enumerate(rows) if place not in chosen]
    return [_altered(table, row, fault) if place in chosen else row for place, row in enumerate(rows)]


def told_meta(meta: Row | None, fault: Fault) -> Row | None:
    """The totals of an answer as the fault has them; None where there are none."""
    told = dict(meta or {})
    if fault.kind == "total_pages":
        told.pop("total_pages", None)
        told |= {} if fault.value is None else {"total_pages": fault.value}
    return told | fault.meta if meta is not None or fault.meta else None


def beside(fault: Fault) -> Mapping[str, Any]:
    """What else the answer has."""
    return {"error": "Something went wrong"} if fault.kind == "error_beside" else {}


def _altered(table: Table, row: Row, fault: Fault) -> Row:
    match fault.kind:
        case "ids":
            forms = {"text": str(row[fault.id_field]), "blank": "", "null": None, "zero": "0"}
            return row | {fault.id_field: forms[fault.id_form]}
        case "poorer":
            return without(row, fault.fields)
        case "doubled":
            return doubled(row, fault.fields)
        case "changed":
            return over(row, fault.changes)
        case "stub":
            return {"id": row["id"]} | fault.changes
        case "other":
            return table.row(next((row_id for row_id in table if row_id > row["id"]), next(iter(table))))
    return row
