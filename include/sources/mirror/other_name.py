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
SELECT {key} FROM {table} t WHERE deleted_at IS NULL AND EXISTS (
  SELECT FROM {table} o WHERE o.deleted_at IS NULL AND o.{column}::text = ({key})::text AND ({o_key}) <> ({key}))
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
    return any(_shows(context, lookup, key) for key in context.conn.execute(query).fetchall())


def _shows(context: MirrorContext, lookup: Lookup, key: tuple) -> bool:
    """Return whether the address shows the record with this key."""
    other, request = lookup.other_name, replace(lookup.request(*key), check=None)
    try:
        return other.table.key_of(other.record(as_object(context.client.send(request).data))) == key
    except (ApiError, AttributeError, LookupError, TypeError):
        return False
