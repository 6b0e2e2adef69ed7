"""Find declared fields that the source has renamed, by comparing the values of new fields with the copy."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psycopg import sql

from include.confidence.census import Census
from include.confidence.field_changes import FieldChange, Kind, KnownField, State
from include.confidence.field_counts import Record, value_at
from include.warehouse.field_path import lies_in
from include.warehouse.sql_fragments import among, identifiers
from include.warehouse.staging import Stage
from include.warehouse.table import Column

# Two fields count as the same one if at least MIN_PAIRS values can be compared, with MIN_DIFFERENT different ones among
# them, and the share EQUAL_SHARE of the pairs is equal.
MIN_PAIRS, MIN_DIFFERENT, EQUAL_SHARE = 5, 2, 0.9


def find_renames(
    stage: Stage,
    columns: Sequence[Column],
    census: Census,
    found: Iterable[FieldChange],
    known: Mapping[str, KnownField],
) -> dict[str, str]:
    """Return {old: new} for each declared field that has vanished, if a new field has the values of its column.

    The values in a sample of records are compared with the copy, by key; none of them is stored. If a whole object has
    vanished, the new name is that of the object whose inner field has the values.
    """
    vanished = {each.path for each in found if each.kind is Kind.VANISHED and each.state is State.DECLARED}
    # An object's field fits a column better than the object.
    gone = sorted(vanished, key=len, reverse=True)
    new = [
        path
        for path, each in census.counted().fields.items()
        if "[]" not in path
        and each.seen
        and (path not in known or known[path].scanned_at is None)
        and not any(lies_in(path, name) for name in stage.table.added)
    ]
    pairs: dict[str, str] = {}
    for column, read in [(each, path) for each in columns for path in (*each.reads, each.dotted_path)]:
        old = next((path for path in gone if lies_in(read, path)), None)
        if new and old and column.name in stage.table.names and old not in pairs:
            values = _copied_values(stage, column, census.sample)
            same = [
                path
                for path in new
                if path not in pairs.values() and _is_same(column, read, path + read.removeprefix(old), values)
            ]
            if same:
                pairs[old] = same[0]
    return pairs


def _copied_values(stage: Stage, column: Column, sample: Sequence[Record]) -> list[tuple[Record, Any]]:
    """Return the records of the sample, each with what the copy has in the column."""
    records = {key: record for record in sample if (key := stage.table.key_of(record))}
    rows = stage.conn.execute(
        sql.SQL("SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL AND {among}").format(
            key=identifiers(stage.table.key),
            column=sql.Identifier(column.name),
            table=stage.table.sql,
            among=among(stage.table.key, records),
        )
    ).fetchall()
    return [(records[tuple(key)], value) for *key, value in rows if tuple(key) in records]


def _is_same(column: Column, read: str, path: str, values: Sequence[tuple[Record, Any]]) -> bool:
    """Return whether the field at `path` has the values that the copy has in the column, which reads `read`."""
    if len(values) < MIN_PAIRS or len({str(value) for _, value in values}) < MIN_DIFFERENT:
        return False
    equal = sum(_equal(column, _put_back(column, read, record, path), value) for record, value in values)
    return equal >= EQUAL_SHARE * len(values)


def _put_back(column: Column, read: str, record: Record, path: str) -> Any:
    """Return what the column would be given if the value at `path` still were at `read`; None without a value there."""
    value = value_at(record, path)
    if read == column.dotted_path or value is None:
        return value
    around = value_at(record, column.dotted_path)
    return {**(around if isinstance(around, dict) else {}), read.removeprefix(f"{column.dotted_path}."): value}


def _equal(column: Column, value: Any, copied: Any) -> bool:
    try:
        read = column.read(value)
    except ValueError:
        return False
    return (json.loads(read) if isinstance(copied, dict | list) and isinstance(read, str) else read) == copied
