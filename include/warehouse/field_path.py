"""Paths to the fields of a record: how they are written (`price.amount`), and what stands there in a record."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

_SPECIAL = re.compile(r'[.\[\]"]')
# A name in quotes, or one without any; then the dot before the next.
_STEP = re.compile(r'("(?:[^"\\]|\\.)*"|[^".]*)(?:\.|$)')


def join(place: str, key: str) -> str:
    """Return the path of a field: `price.amount`, `lines[].name`. A key with such signs, or an empty one, is quoted."""
    name = json.dumps(key, ensure_ascii=False) if _SPECIAL.search(key) or not key else key
    return f"{place}.{name}" if place else name


def split(path: str) -> list[str]:
    """Return the names that lead to a field, without quotes: of `price."@odata.type"` price and @odata.type."""
    if '"' not in path:
        return path.split(".")
    # The last match is the empty one at the end.
    *steps, _ = _STEP.findall(path)
    return [json.loads(step) if step.startswith('"') else step for step in steps]


def places_of(path: str) -> list[str]:
    """Return the paths of the objects that a field lies in: of `a.b.c` a and a.b."""
    *around, _ = split(path)
    return list(accumulate(around, join, initial=""))[1:]


def lies_in(path: str, outer: str) -> bool:
    """Return whether the path leads to the field `outer`, or into it."""
    return path == outer or (path.startswith(outer) and path.startswith((".", "[]"), len(outer)))


def within(value: Any, path: list[str]) -> Any:
    """Return the value at the end of `path` into nested objects; None if something on the way is missing or null.

    Raises ValueError if something on the way is no object.
    """
    for name in path:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError("lies in something that is no object")
        value = value.get(name)
    return value


def has_field(value: Any, path: list[str]) -> bool:
    """Return whether the record names the field that `path` leads to, or has an explicit null on the way to it."""
    for name in path:
        if not isinstance(value, dict):
            return value is None
        if name not in value:
            return False
        value = value[name]
    return True


def put(record: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return the record with the value in the place that `path` leads to."""
    name, *inner = path
    around = record.get(name)
    return {**record, name: put(around if isinstance(around, Mapping) else {}, inner, value) if inner else value}
