"""Lies to order: answers that are sound in their form, and not the truth."""

from collections.abc import Mapping

from include.simulators.altered import doubled, over, without
from include.simulators.square.assortment import Row
from include.simulators.square.faults import Fault
from include.simulators.square.protocol import Refused, decoder, encoder, error_of
from include.simulators.square.store import CATALOG_TYPES, Kind, Store, count_id

# Under which keys an answer has rows: several, or one.
_SEVERAL = ("objects", "orders", "payments", "refunds", "vendors", "locations", "counts")
_ONE = tuple(key.removesuffix("s") for key in _SEVERAL)
_KINDS: Mapping[str, Kind] = {type_: kind for kind, type_ in CATALOG_TYPES.items()}


def told(store: Store, content: Row, fault: Fault) -> Row:
    """The content of an answer as the fault has it."""
    told = dict(content)
    for key in content.keys() & {*_SEVERAL, *_ONE}:
        rows = content[key] if key in _SEVERAL else [content[key]]
        rows = _lie(store, key, decoder.decode(encoder.encode(rows)), fault)
        told[key] = rows if key in _SEVERAL else next(iter(rows), None)
    if fault.kind in ("no_rows", "no_cursor"):
        told.pop("cursor", None)
    if fault.kind == "errors":
        code = fault.code or ("FORBIDDEN" if fault.location else "INTERNAL_SERVER_ERROR")
        told["errors"] = [error_of(Refused(code))]
    return told


def _lie(store: Store, key: str, rows: list[Row], fault: Fault) -> list[Row]:
    first, others = rows[: fault.rows], rows[fault.rows :]
    match fault.kind:
        case "no_rows":
            return []
        case "errors" if fault.location:
            return [row for row in rows if fault.location not in (row.get("location_id"), row.get("id"))]
        case "errors" | "missing_rows":
            return others
        case "duplicate_rows":
            return rows + first
        case "swapped":
            name = "catalog_object_id" if key == "counts" else "id"
            ids = [row[name] for row in first]
            return [row | {name: id_} for row, id_ in zip(first, ids[1:] + ids[:1], strict=True)] + others
        case "other":
            return [_next(store, _kind(key, row), row) for row in first] + others
        case "stale":
            before = (_before(store, _kind(key, row), row) for row in first)
            return [row for row in before if row] + others
    return [_altered(row, fault) for row in first] + others


def _altered(row: Row, fault: Fault) -> Row:
    match fault.kind:
        case "poorer":
            return without(row, fault.fields)
        case "doubled":
            return doubled(row, fault.fields)
        case "changed":
            return over(row, fault.changes)
    return row


def _kind(key: str, row: Row) -> Kind | None:
    """The kind of a row; None for an object of the catalog that no list of ids has, such as a tax."""
    if key in ("objects", "object"):
        return _KINDS.get(row["type"])
    return key if key in _SEVERAL else f"{key}s"


def _id(kind: Kind, row: Row) -> str:
    return count_id(row) if kind == "counts" else row["id"]


def _next(store: Store, kind: Kind | None, row: Row) -> Row:
    ids = store.ids(kind) if kind else []
    return store.row(kind, next((id_ for id_ in ids if id_ > _id(kind, row)), ids[0])) if ids else row


def _before(store: Store, kind: Kind | None, row: Row) -> Row | None:
    return store.before(kind, _id(kind, row), row) if kind else row
