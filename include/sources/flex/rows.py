"""The lines of a crew call as Flex shows them, or why what it shows can't be relied on.

A read that is taken for an empty crew would have everybody added once more, so any doubt ends it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

CONTACT = "contact"
# The one type that is known to have a resource and not to be a contact.
GEAR = "inventory"
TYPES = ("managedResourceLineItemType", "type")
# A failure that comes with status 200, in place of an answer or beside one.
ERRORS = ("exceptionMessage", "error", "errors", "message")
# Under which of these an item shows what lies under it; the same within `data`.
CHILDREN = ("children", "lineItems", "items")


class Unreadable(ValueError):
    """An answer that proves nothing of what is on the crew call. The message is one line, with ids and no names."""


@dataclass(frozen=True)
class Line:
    """A line on a crew call. `role_id`: the business role of a contact, None where it has none, or tells none
    (`role_told`).

    All but contacts are `other`: gear, and headers, which have no resource.
    """

    line_id: UUID
    kind: Literal["contact", "other"]
    resource_id: UUID | None
    role_id: UUID | None = None
    role_told: bool = True


@dataclass(frozen=True)
class Item:
    """A line in a crew call's own record, which need tell neither its type nor its resource (None)."""

    kind: str | None = None
    resource_id: UUID | None = None


def read(answer: Any, mapped: Collection[UUID]) -> list[Line]:
    """The lines in an answer to row-data (decoded JSON), each before those under it.

    `mapped` are the lines that are ours: in our rows, or in the journal. Raises Unreadable unless the answer is an
    array of rows and proves of each, once, what it is, and what resource it has if it is a contact; and if one of
    ours is no contact. A resource on two lines is left to the caller (see `duplicates`), who must not write then.
    """
    if not isinstance(answer, list):
        raise Unreadable("the answer is no array of rows")
    lines = [_line(row) for row in _flat(answer)]
    seen: set[UUID] = set()
    for line in lines:
        if line.line_id in seen:
            raise Unreadable(f"line {line.line_id} is there twice")
        if line.kind != CONTACT and line.line_id in mapped:
            raise Unreadable(f"line {line.line_id} is one of ours, but no contact")
        seen.add(line.line_id)
    return lines


def duplicates(lines: Collection[Line]) -> dict[UUID, list[Line]]:
    """The contacts that have several lines, by their resources."""
    by_resource: dict[UUID, list[Line]] = {}
    for line in lines:
        if line.kind == CONTACT and line.resource_id:
            by_resource.setdefault(line.resource_id, []).append(line)
    return {resource_id: found for resource_id, found in by_resource.items() if len(found) > 1}


def items(answer: Any, element_id: UUID) -> dict[UUID, Item]:
    """All lines in a crew call's own record (decoded JSON), by their ids.

    Raises Unreadable unless the record is that of the crew call, and shows what is on it, each line once.
    """
    top = _children(require_record(answer, element_id))
    if top is None:
        raise Unreadable(f"the record of {element_id} doesn't show what is on it")
    found: dict[UUID, Item] = {}
    left = list(top)
    while left:
        item = left.pop()
        if not isinstance(item, dict):
            raise Unreadable("an item is no object")
        item_id = _id(item, "id")
        if item_id is None:
            raise Unreadable("an item has no id")
        if item_id in found:
            raise Unreadable(f"item {item_id} is there twice")
        kind = _type(item, item_id) if any(item.get(key) is not None for key in TYPES) else None
        found[item_id] = Item(kind, _resource(item, item_id))
        children = _children(item)
        # A branch that isn't shown may hide contacts.
        if children is None and (item.get("leaf") is False or item.get("container") is True):
            raise Unreadable(f"what lies under item {item_id} isn't shown")
        left += children or []
    return found


def require_record(answer: Any, thing_id: UUID) -> dict[str, Any]:
    """Return the record in an answer to a request for one thing. Raises Unreadable unless it is that thing's."""
    if not isinstance(answer, dict):
        raise Unreadable(f"the record of {thing_id} is no object")
    if any(answer.get(key) for key in ERRORS):
        raise Unreadable(f"the record of {thing_id} comes with an error")
    told = named(answer)
    if told != {thing_id}:
        raise Unreadable(f"the record of {thing_id} is that of {'another' if told else 'nothing that it names'}")
    return answer


def named(answer: Mapping[str, Any]) -> set[UUID]:
    """The ids by which an answer names the line that it is about, in any of the shapes that were seen."""
    nested = answer.get("data")
    holders = [answer, *([nested] if isinstance(nested, dict) else [])]
    return {_id(holder, key) for holder in holders for key in ("id", "lineItemId")} - {None}


def _children(item: Mapping[str, Any]) -> list[Any] | None:
    nested = item.get("data")
    holders = [item, *([nested] if isinstance(nested, dict) else [])]
    shown = [holder[key] for holder in holders for key in CHILDREN if holder.get(key) is not None]
    if len(shown) > 1 or not all(isinstance(each, list) for each in shown):
        raise Unreadable(f"what lies under item {_id(item, 'id')} is shown in no way that is known")
    return shown[0] if shown else None


def _flat(rows: list[Any]) -> Iterator[dict[str, Any]]:
    left = rows[::-1]
    while left:
        row = left.pop()
        if not isinstance(row, dict):
            raise Unreadable("a row is no object")
        if any(row.get(key) for key in ERRORS):
            raise Unreadable("a row comes with an error")
        yield row
        children = row.get("children")
        if isinstance(children, list):
            left += children[::-1]
        # A branch that isn't shown may hide contacts.
        elif children is not None or row.get("leaf") is False:
            raise Unreadable(f"the children of row {_id(row, 'id')} aren't shown")


def _line(row: dict[str, Any]) -> Line:
    line_id = _id(row, "id")
    if line_id is None:
        raise Unreadable("a row has no line id")
    resource_id, told = _resource(row, line_id), _type(row, line_id)
    if told == CONTACT:
        if resource_id is None:
            raise Unreadable(f"line {line_id} is a contact without a resource")
        return Line(line_id, "contact", resource_id, *_role(row))
    # What has no resource is nobody. Of anything else a type that isn't known doesn't tell.
    if resource_id is not None and told != GEAR:
        raise Unreadable(f"line {line_id} has a resource, and a type that isn't known")
    return Line(line_id, "other", resource_id)


def _resource(row: dict[str, Any], line_id: UUID) -> UUID | None:
    nested = row.get("resource")
    if nested is not None and not isinstance(nested, dict):
        raise Unreadable(f"the resource of line {line_id} is no object")
    found = {_id(row, "resourceId"), *(_id(nested, key) for key in ("id", "resourceId") if nested)} - {None}
    if len(found) > 1:
        raise Unreadable(f"line {line_id} names several resources")
    return found.pop() if found else None


def _type(row: dict[str, Any], line_id: UUID) -> str:
    told = [row[key] for key in TYPES if row.get(key) is not None]
    if not told or not all(isinstance(each, str) and each for each in told):
        raise Unreadable(f"line {line_id} has no type")
    if len(set(told)) > 1:
        raise Unreadable(f"line {line_id} has two types")
    return told[0]


def _role(row: dict[str, Any]) -> tuple[UUID | None, bool]:
    """The role, and whether the row tells it: nobody knows in what shape Flex does, or whether it always does."""
    value = row.get("business-role")
    if "business-role" not in row or (isinstance(value, dict) and "data" not in value):
        return None, False
    try:
        return (_id(value, "data") if isinstance(value, dict) else _id(row, "business-role")), True
    except Unreadable:
        return None, False


def _id(holder: dict[str, Any], key: str) -> UUID | None:
    value = holder.get(key)
    if value is None or value == "":
        return None
    try:
        return UUID(value)
    except (AttributeError, TypeError, ValueError):
        raise Unreadable(f"a row's {key} is no id") from None
