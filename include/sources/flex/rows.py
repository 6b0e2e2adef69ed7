"""Parse the lines of a crew call from answers of Flex, or say why an answer proves nothing.

If a bad answer were taken for an empty crew, everybody would be added again. So any doubt raises Unreadable.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

CONTACT = "contact"
# The only known type with a resource that is no contact.
GEAR = "inventory"
TYPES = ("managedResourceLineItemType", "type")
# How else a flag may be written.
FLAGS = {"true": True, "1": True, "false": False, "0": False}
# Keys of an error that comes with status 200, in place of data or beside them.
ERRORS = ("exceptionMessage", "error", "errors", "message")
# Keys under which an item may show the items below it, also within `data`.
CHILDREN = ("children", "lineItems", "items")


class Unreadable(ValueError):
    """The answer does not prove what is on the crew call. The message is one line, with ids and no names."""


@dataclass(frozen=True)
class Line:
    """A line on a crew call. All lines but contacts are `other`: gear, and headers, which have no resource.

    `role_id`: the business role of a contact, None if it has none, or if the answer doesn't say (`role_told` is False).
    `holds`: other lines lie under it, which Flex deletes with it.
    """

    line_id: UUID
    kind: Literal["contact", "other"]
    resource_id: UUID | None
    role_id: UUID | None = None
    role_told: bool = True
    holds: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Item:
    """A line in a crew call's own record. Type and resource are None if the record leaves them out.

    `holds` is as in Line.
    """

    kind: str | None = None
    resource_id: UUID | None = None
    holds: bool = field(default=False, compare=False)

    @property
    def may_be_contact(self) -> bool:
        return self.kind in (None, CONTACT) or _may_be_contact(self.kind, self.resource_id)


def read(answer: Any, mapped: Collection[UUID]) -> list[Line]:
    """Return the lines in an answer to row-data (decoded JSON), each before the lines below it.

    `mapped` are the lines that are ours, by our rows or by the journal.

    Raises Unreadable unless the answer is an array of rows, each row says what it is (and of a contact, which
    resource), each line comes once, and all lines of ours are contacts. Several lines of one resource are no error
    here: the caller must look for `duplicates`, and not write if there are any.
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
    """Return the lines of each contact that has several, by resource."""
    by_resource: dict[UUID, list[Line]] = {}
    for line in lines:
        if line.kind == CONTACT and line.resource_id:
            by_resource.setdefault(line.resource_id, []).append(line)
    return {resource_id: found for resource_id, found in by_resource.items() if len(found) > 1}


def items(answer: Any, element_id: UUID) -> dict[UUID, Item]:
    """Return all lines in a crew call's own record (decoded JSON), by their ids.

    Raises Unreadable unless the record is the crew call's and shows all lines on it, each once.
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
        children = _children(item)
        found[item_id] = Item(kind, _resource(item, item_id), holds=bool(children))
        _require_opened(item, children)
        left += children or []
    return found


def require_record(answer: Any, thing_id: UUID) -> dict[str, Any]:
    """Return the record of one line or crew call. Raises Unreadable unless the answer has that id, and no error."""
    if not isinstance(answer, dict):
        raise Unreadable(f"the record of {thing_id} is no object")
    if any(answer.get(key) for key in ERRORS):
        raise Unreadable(f"the record of {thing_id} comes with an error")
    ids = named(answer)
    if ids != {thing_id}:
        raise Unreadable(f"the record of {thing_id} has {'another id' if ids else 'no id'}")
    return answer


def named(answer: Mapping[str, Any]) -> set[UUID]:
    """Return the ids of the line that an answer is about, in any known form of the answer."""
    nested = answer.get("data")
    holders = [answer, *([nested] if isinstance(nested, dict) else [])]
    return {_id(holder, key) for holder in holders for key in ("id", "lineItemId")} - {None}


def _children(item: Mapping[str, Any]) -> list[Any] | None:
    """Return the items below an item, None if it shows none. Raises Unreadable for an unknown form."""
    nested = item.get("data")
    holders = [item, *([nested] if isinstance(nested, dict) else [])]
    shown = [holder[key] for holder in holders for key in CHILDREN if holder.get(key) is not None]
    if len(shown) > 1 or not all(isinstance(each, list) for each in shown):
        raise Unreadable(f"what lies under item {_id(item, 'id')} is shown in no way that is known")
    return shown[0] if shown else None


def _flat(rows: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield all rows, each before the rows below it. Raises Unreadable."""
    left = rows[::-1]
    while left:
        row = left.pop()
        if not isinstance(row, dict):
            raise Unreadable("a row is no object")
        if any(row.get(key) for key in ERRORS):
            raise Unreadable("a row comes with an error")
        yield row
        children = row.get("children")
        if children is not None and not isinstance(children, list):
            raise Unreadable(f"what lies under line {_id(row, 'id')} isn't shown")
        _require_opened(row, children)
        left += (children or [])[::-1]


def _require_opened(line: Mapping[str, Any], children: list[Any] | None) -> None:
    """Raise Unreadable if lines may lie under a line that are not shown: they may be contacts.

    `children` are those that are shown, None if the answer does not say. A header that is no leaf and has an empty list
    is believed to be empty: before anything is written the other list has to show so too.
    """
    leaf, container = (_flag(line, name) for name in ("leaf", "container"))
    if children is None and (leaf is False or (container and leaf is None)):
        raise Unreadable(
            f"what lies under line {_id(line, 'id')} isn't shown, though it is no leaf. If it is an empty header,"
            " delete it in Flex"
        )


def _flag(line: Mapping[str, Any], name: str) -> bool | None:
    """Return a flag of a line, None if it has none. Raises Unreadable if it can't be told what it says."""
    value = line.get(name)
    if value is None or isinstance(value, bool):
        return value
    if str(value).lower() not in FLAGS:
        raise Unreadable(f"line {_id(line, 'id')} says in no way that is known whether others lie under it")
    return FLAGS[str(value).lower()]


def _may_be_contact(type_: str, resource_id: UUID | None) -> bool:
    """Return whether a line may be a contact although its type is another: an unknown type may be one's own word."""
    return type_ not in (CONTACT, GEAR) and (resource_id is not None or CONTACT in type_.lower())


def _line(row: dict[str, Any]) -> Line:
    line_id = _id(row, "id")
    if line_id is None:
        raise Unreadable("a row has no line id")
    resource_id, type_, holds = _resource(row, line_id), _type(row, line_id), bool(row.get("children"))
    if type_ == CONTACT:
        if resource_id is None:
            raise Unreadable(f"line {line_id} is a contact without a resource")
        return Line(line_id, "contact", resource_id, *_role(row), holds=holds)
    if _may_be_contact(type_, resource_id):
        raise Unreadable(f"line {line_id} may be a contact, and has a type that isn't known")
    return Line(line_id, "other", resource_id, holds=holds)


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
    """Return the role, and whether the row says it. The vendor does not document how, or whether it always does."""
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
