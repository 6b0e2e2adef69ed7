"""Where an answer has the rows, the totals and the next address of a list."""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from include.api.envelopes import ERRORS, refuse_envelope
from include.api.errors import RefuseData
from include.api.request import Answer


def optional_rows(data: Any, key: str, beside: Collection[str | None] = ()) -> list[dict]:
    """Return the rows under `key`. The key may be missing if the answer has no keys but those in `beside`.

    Raises RefuseData for any other answer without rows, since its meaning is unknown.
    """
    data = as_object(data, key)
    if key not in data and data.keys() - {*beside, *ERRORS}:
        raise RefuseData(f"the answer has no list {key!r}, but something else")
    return as_rows(data.get(key, []), key)


def query_of(link: Any) -> str:
    """Return the query of an address. Raises RefuseData if it has none."""
    try:
        query = urlsplit(link).query if isinstance(link, str) else ""
    except ValueError:
        query = ""
    if not query:
        raise RefuseData("the address of the next page has no query to ask for it by")
    return query


def value_at(data: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path with dots, None if it ends early. Raises RefuseData if no object is on its way.

    A key may have dots itself, as `@odata.nextLink` does.
    """
    if path in data:
        return data[path]
    value: Any = data
    for name in path.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise RefuseData(f"{path!r} leads into something that is no JSON object")
        value = value.get(name)
    return value


def listed_rows(answer: Answer, path: str) -> list[dict]:
    """Return the rows at the path, out of what wraps each of them. Raises RefuseData if there is no such list."""
    to_list, _, to_record = path.partition("[*].")
    rows = as_rows(value_at(as_object(answer.data, to_list.partition(".")[0]), to_list), to_list)
    return as_rows([value_at(row, to_record) for row in rows], path) if to_record else rows


def as_object(data: Any, around: str = "") -> dict:
    """Return the answer as an object. Raises RefuseData if it is none, or carries an error.

    `around`: as in `refuse_envelope`.
    """
    if not isinstance(data, dict):
        raise RefuseData("the answer is no JSON object")
    refuse_envelope(data, around)
    return data


def as_rows(rows: Any, key: str) -> list[dict]:
    """Return a list of objects. `key`: its name, for the message. Raises RefuseData if it is something else."""
    if not isinstance(rows, list):
        raise RefuseData(f"the answer has no list {key!r}")
    if not all(isinstance(row, dict) for row in rows):
        raise RefuseData(f"the list {key!r} holds something that is no JSON object")
    return rows


def as_count(value: Any) -> int | None:
    """Return a count given as a number or as digits, None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return value if type(value) is int and 0 <= value < 10**18 else None
