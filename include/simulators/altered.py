"""Rows as a lie has them: some of their fields gone, doubled or otherwise. Dots in a field lead into objects and lists.

Rows are changed in place: give copies.
"""

from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]


def without(row: Row, fields: Iterable[str]) -> Row:
    """The row without these fields."""
    return _at_each(row, fields, lambda holder, name: holder.pop(name, None))


def doubled(row: Row, fields: Iterable[str]) -> Row:
    """The row with the first entry of the lists in these fields once more at their end."""
    return _at_each(row, fields, lambda holder, name: holder[name].extend(holder[name][:1]))


def over(value: Any, changes: Any) -> Any:
    """The value with changes put over it, object by object."""
    if not (isinstance(value, dict) and isinstance(changes, dict)):
        return changes
    return value | {name: over(value.get(name), change) for name, change in changes.items()}


def _at_each(row: Row, fields: Iterable[str], change: Callable[[Row, str], Any]) -> Row:
    for name in fields:
        _at(row, name.split("."), change)
    return row


def _at(value: Any, path: list[str], change: Callable[[Row, str], Any]) -> None:
    if isinstance(value, list):
        for entry in value:
            _at(entry, path, change)
    elif isinstance(value, dict) and path[0] in value:
        if path[1:]:
            _at(value[path[0]], path[1:], change)
        else:
            change(value, path[0])
