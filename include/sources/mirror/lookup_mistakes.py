"""What is wrong with how a look-up asks: found by the request that it makes for an id which no record has."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from include.api.request import Request
from include.sources.mirror.lookup_request import Lookup
from include.warehouse.readers import text
from include.warehouse.table import Table

# A text with the signs that mean something in an address, and a number.
ANY_TEXT, ANY_NUMBER = "a/b?c#d", 7_654_321_987


def lookup_mistake(table: Table, lookup: Lookup, *, of_parent: bool) -> str:
    """Return what is wrong with the requests of a look-up and its witness; empty if nothing is.

    `of_parent`: it asks for rows by their parent.
    """
    return next(
        (found for each in (lookup, lookup.witness) if each and (found := _mistake(table, each, of_parent))), ""
    )


def _mistake(table: Table, lookup: Lookup, of_parent: bool) -> str:
    readers = {column.name: column.read for column in table.columns}
    values = [ANY_TEXT if readers[name] is text else ANY_NUMBER for name in lookup.by]
    try:
        request = lookup.request([tuple(values)]) if lookup.batch > 1 else lookup.request(*values)
    except Exception:  # noqa: BLE001 - a function of the source may want other ids
        return ""
    if ANY_TEXT in request.path:
        return (
            "its look-up puts an id into the path as it is, so that one with a slash asks for another address: write"
            " quote(id_, safe='')"
        )
    if of_parent and lookup.own and not names_in_path(request, values):
        return (
            "the own address of a parent has its id in the path. What a parameter asks for is a filtered list: say"
            " own=False"
        )
    return ""


def names_in_path(request: Request, values: Sequence[Any]) -> bool:
    """Return whether all these values are in the path of the request."""
    return all(quote(str(value), safe="") in request.path or str(value) in request.path for value in values)


def names_all(data: Any, values: Sequence[Any]) -> bool:
    """Return whether all these values are somewhere in an answer, compared as text."""
    left, waiting = set(map(str, values)), [data]
    while left and waiting:
        found = waiting.pop()
        if isinstance(found, dict | list):
            waiting += found.values() if isinstance(found, dict) else found
        else:
            left.discard(str(found))
    return not left
