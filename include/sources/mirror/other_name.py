"""Addresses that take records by another column too, such as their number, which may be another record's key."""

from dataclasses import replace
from typing import Any

from psycopg import sql

from include.api.errors import ApiError, RefuseData
from include.api.list_answers import as_object
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.lookup_request import Lookup
from include.warehouse.sql_fragments import identifiers

# The number of rows that tell whether an address prefers keys.
TRIED_ROWS = 3

SHARED = """
SELECT {key}, {o_key} FROM {table} t JOIN {table} o ON o.{column}::text = ({key})::text
WHERE t.deleted_at IS NULL AND o.deleted_at IS NULL AND ({o_key}) <> ({key})
LIMIT {few}
"""


def shows_other(lookup: Lookup, value: tuple, data: Any) -> bool:
    """Return whether an answer shows another record than the requested one, by its other name."""
    other = lookup.other_name
    if other is None:
        return False
    try:
        record = other.record(as_object(data))
        key, name = other.table.key_of(record), other.table.named(record, (other.column,))
    except (RefuseData, AttributeError, LookupError, TypeError):
        return False
    return key not in (None, value) and tuple(map(str, name)) == tuple(map(str, value))


def prefers_keys(context: MirrorContext, lookup: Lookup) -> bool:
    """Return whether the address shows the record that has the requested key, if another has it as its other name.

    Only then there is no record with the key if it shows another. It is tried on rows of the copy; without such rows
    nobody knows.
    """
    other = lookup.other_name
    query = sql.SQL(SHARED).format(
        key=identifiers(other.table.key, "t"),
        o_key=identifiers(other.table.key, "o"),
        table=other.table.sql,
        column=sql.Identifier(other.column),
        few=sql.Literal(TRIED_ROWS),
    )
    size = len(other.table.key)
    pairs = context.conn.execute(query).fetchall()
    return any(_prefers(context, lookup, pair[:size], pair[size:]) for pair in pairs)


def _prefers(context: MirrorContext, lookup: Lookup, key: tuple, namesake: tuple) -> bool:
    """Return whether the address shows the record with this key, though it is the other name of `namesake`.

    The copy may be behind, so `namesake` is asked for as well: if it has another name by now, there is nothing to
    prefer.
    """
    other = lookup.other_name
    try:
        record = other.record(as_object(_answered(context, lookup, key)))
        return other.table.key_of(record) == key and shows_other(lookup, key, _answered(context, lookup, namesake))
    except (ApiError, AttributeError, LookupError, TypeError):
        return False


def _answered(context: MirrorContext, lookup: Lookup, key: tuple) -> Any:
    """Return what the address answers for this key, whatever record it shows."""
    return context.client.send(replace(lookup.request(*key), check=None)).data
