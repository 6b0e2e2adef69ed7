"""What a census of fields is asked for and what it has counted."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from include.warehouse.field_path import split

NULL = "null"
TYPES: Mapping[type, str] = {
    str: "text",
    int: "number",
    Decimal: "number",
    float: "number",
    bool: "flag",
    dict: "object",
    list: "list",
    type(None): NULL,
}

Record = Mapping[str, Any]
Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class Questions:
    """What a table asks of the census besides the fields.

    - `readers`: by path, how the table's columns read it
    - `opaque`: paths whose content one column keeps as a whole, so that nothing in it can be lost
    - `codes`: paths of enumerations, whose values are kept
    - `added`: fields that our own code puts into the records; they don't count
    - `aside`: vendor fields that our readers renamed because an added field has their name: {our name: vendor's name}
    """

    readers: Mapping[str, Reader] = field(default_factory=dict)
    opaque: Collection[str] = ()
    codes: Collection[str] = ()
    added: Collection[str] = ()
    aside: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FieldCount:
    """A field as it was seen.

    - `place`: the path of the objects that could have it; empty for the records themselves
    - `objects`: how many objects there were at that place; `seen`: how many of them had the field, null included
    - `types`: by the names in `TYPES`; `usual_type`: that of nearly all values, empty if there is none. Null
      is no value.
    - `unreadable`: the types of which the column could not read the first value, or made nothing of it
    - `codes`: the values of an enumeration; empty for any other field
    """

    path: str
    place: str
    objects: int
    seen: int
    types: frozenset[str]
    unreadable: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    usual_type: str = ""


@dataclass(frozen=True)
class Counted:
    """What a census has counted.

    - `places`: the number of objects by their path, that of the records by the empty one
    - `maps`: the paths of objects whose keys are data
    - `cut`: there were more paths than are kept
    """

    places: Mapping[str, int]
    fields: Mapping[str, FieldCount]
    maps: frozenset[str] = frozenset()
    cut: bool = False

    @property
    def records(self) -> int:
        return self.places.get("", 0)


def value_at(record: Any, path: str) -> Any:
    """Return the value at the end of a path without lists; None if there is none."""
    for step in split(path):
        record = record.get(step) if type(record) is dict else None
    return record
