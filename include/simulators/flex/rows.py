"""Lines as the API writes them: in many shapes, but each line in the same one whenever it is asked for."""

from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import UUID

import msgspec

from include.simulators.flex.config import Headers, Tell
from include.simulators.flex.faults import Spoil
from include.simulators.flex.store import Line

Row = dict[str, Any]
# Lines and resources that nobody has.
_INVENTED, _ANOTHER = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


class Shapes:
    """The shapes of one account, by its seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def rows(
        self, lines: Sequence[Line], parent_id: UUID | None, codes: Sequence[str], headers: Headers = "leaf"
    ) -> list[Row]:
        """Rows of the lines under a header (None: on the element), with those under them and the fields of `codes`."""
        return [self._row(line, lines, codes, headers) for line in lines if line.parent_id == parent_id]

    def positions(self, lines: Sequence[Line], parent_id: UUID | None) -> list[Row]:
        """The lines under a header, all at one level, with nothing but where they are."""
        return [
            {
                "id": line.id,
                "rootLineId": line.parent_id or line.id,
                "leaf": line.kind != "header",
                "container": line.kind == "header",
            }
            for line in lines
            if parent_id in (None, line.parent_id)
        ]

    def items(
        self,
        lines: Sequence[Line],
        parent_id: UUID | None,
        keys: Sequence[str],
        tell: Tell | None = None,
        headers: Headers = "leaf",
    ) -> list[Row]:
        """Line items under a header, with those under them under one of `keys`; not all `tell` resource or type."""
        return [self._item(line, lines, keys, tell, headers) for line in lines if line.parent_id == parent_id]

    def nested(self, thing: UUID, items: list[Row], keys: Sequence[str]) -> Row:
        """Items under one of `keys`, where a dot leads further down."""
        outer, _, inner = self._of(thing, "key").choice(keys).partition(".")
        return {outer: {inner: items}} if inner else {outer: items}

    def wrapped(self, thing: UUID, items: list[Row]) -> list[Row] | Row:
        """A plain array, or one within something."""
        chance = self._of(thing, "wrapper")
        return items if chance.random() < 0.25 else self.nested(thing, items, ("data.items", "items", "results"))

    def added(self, line_id: UUID) -> Row:
        """The answer to an add: the line's id under one of five names."""
        forms = (
            {"id": line_id},
            {"lineItemId": line_id},
            {"data": {"id": line_id}},
            {"data": {"lineItemId": line_id}},
            {"addedResourceLineIds": [line_id]},
        )
        return self._of(line_id, "added").choice(forms)

    def _row(self, line: Line, lines: Sequence[Line], codes: Sequence[str], headers: Headers) -> Row:
        children = self.rows(lines, line.id, codes, headers) if headers != "closed" else []
        values = {
            "contact": name_of(line.resource_id) if line.kind == "contact" else None,
            "business-role": line.role_id,
        }
        closed = line.kind == "header" and headers == "closed"
        return {
            "id": line.id,
            **self._resource(line),
            **self._type(line),
            **{code: self._value(line, value) for code, value in values.items() if code in codes},
            "leaf": not children and (line.kind != "header" or headers == "leaf"),
            "container": line.kind == "header",
            "children": None if closed else children,
        }

    def _item(self, line: Line, lines: Sequence[Line], keys: Sequence[str], tell: Tell | None, headers: Headers) -> Row:
        forms = {"whole": self._resource(line) | self._type(line), "types": self._type(line), "ids": {}}
        told = forms[tell or self._of(line.id, "item").choice([*forms])]
        items = self.items(lines, line.id, keys, tell, headers) if headers != "closed" else []
        shown = self.nested(line.id, items, keys) if items or (line.kind == "header" and headers != "closed") else {}
        leaf = {"leaf": False} if line.kind == "header" and headers != "leaf" else {}
        return {"id": line.id, **told, **leaf, **shown}

    def _resource(self, line: Line) -> Row:
        if line.resource_id is None:
            return {}
        flat, nested = {"resourceId": line.resource_id}, {"resource": {"id": line.resource_id}}
        forms = (flat, nested, {"resource": {"resourceId": line.resource_id}}, flat | nested)
        return self._of(line.id, "resource").choice(forms)

    def _type(self, line: Line) -> Row:
        long, short = {"managedResourceLineItemType": line.kind}, {"type": line.kind}
        return self._of(line.id, "type").choice((long, short, long | short))

    def _value(self, line: Line, value: Any) -> Any:
        return self._of(line.id, "value").choice(({"data": value}, value))

    def _of(self, thing: UUID, what: str) -> Random:
        return Random(f"{self._seed} {thing} {what}")


def name_of(contact_id: UUID | None) -> str:
    """The invented name of a contact."""
    return f"Tech {str(contact_id)[:4].upper()}"


def spoilt(body: bytes, kind: Spoil, line_id: UUID | None) -> bytes:
    """The rows of an answer with something wrong in them (see `Fault`)."""
    rows: list[Row] = msgspec.json.decode(body)
    row = _meant(rows, line_id)
    content: Any = rows
    match kind:
        case "object":
            content = {"rows": rows}
        case "null":
            content = None
        case "null_row":
            content = [*rows, None]
        case "no_line_id":
            del row["id"]
        case "no_resource":
            _without(row, "resourceId", "resource")
        case "no_type":
            _without(row, "managedResourceLineItemType", "type")
        case "inventory":
            _without(row, "managedResourceLineItemType", "type")
            row["type"] = "inventory"
        case "line_twice":
            content = [*rows, row]
        case "resource_twice":
            content = [*rows, row | {"id": _ANOTHER}]
        case "ids_disagree":
            row |= {"resourceId": _resource_of(row), "resource": {"id": _ANOTHER}}
        case "types_disagree":
            row |= {"managedResourceLineItemType": "contact", "type": "inventory"}
    return msgspec.json.encode(content)


def without_roles(body: bytes) -> bytes:
    """The rows of an answer without their business roles."""
    rows: list[Row] = msgspec.json.decode(body)
    for row in _all(rows):
        row.pop("business-role", None)
    return msgspec.json.encode(rows)


def _meant(rows: list[Row], line_id: UUID | None) -> Row:
    for row in _all(rows):
        kind = row.get("managedResourceLineItemType", row.get("type"))
        if row["id"] == str(line_id) or (line_id is None and kind == "contact"):
            return row
    rows.append({"id": _INVENTED, "resourceId": _INVENTED, "type": "contact", "children": []})
    return rows[-1]


def _all(rows: list[Row]) -> list[Row]:
    return [found for row in rows for found in (row, *_all(row["children"]))]


def _resource_of(row: Row) -> Any:
    nested = row.get("resource", {})
    return row.get("resourceId") or nested.get("id") or nested.get("resourceId")


def _without(row: Row, *keys: str) -> None:
    for key in keys:
        row.pop(key, None)
