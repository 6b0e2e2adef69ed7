"""Ten recorded shapes: of each value that a vendor sends it is known where it stands in the copy, or why it doesn't."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from include.sources import get_source
from include.sources.base import entity_of
from include.sources.mirror.entity_census import censuses, count_page, state_of
from include.sources.mirror.extract import nested_rows
from include.sources.tekmetric.values import percent
from include.warehouse.field_path import lies_in
from include.warehouse.readers import structure
from include.warehouse.table import EXTRA, Column, Table

from .recorded_shapes import ADDED, SHAPES

Path = tuple[str | int, ...]
ABSENT = object()


@dataclass(frozen=True)
class Read:
    """A record as the tables get it, with its nested rows by table."""

    entity: Any
    record: dict[str, Any]
    nested: dict[str, list[dict[str, Any]]]

    @property
    def records(self) -> Iterator[tuple[Table, dict[str, Any]]]:
        yield self.entity.table, self.record
        for part in self.entity.parts:
            # Rows with the record's own key are the record once more.
            if part.by != part.table.key:
                yield from ((part.table, row) for row in self.nested[part.table.name])


@pytest.fixture(params=SHAPES, ids="/".join)
def shape(request) -> tuple[str, str]:
    return request.param


def read(shape: tuple[str, str]) -> Read:
    source, name = shape
    entity = entity_of(get_source(source), name)
    (record,) = entity.lookup.rows(*SHAPES[shape])
    record = {**record, **ADDED.get(source, {})}
    return Read(
        entity,
        record,
        {part.table.name: nested_rows(part, record, entity.table.key_of(record)) for part in entity.parts},
    )


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield each value that is no object or list, with its path. Null is no value."""
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, step))
    elif value is not None:
        yield path, value


def at(value: Any, path: Path) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return ABSENT
    return value


def dotted(path: Path) -> str:
    return ".".join(step for step in path if isinstance(step, str))


def same(sent: Any, stored: Any) -> bool:
    """Return whether a column has the value that was sent, by its own type."""
    if isinstance(stored, datetime):
        return datetime.fromisoformat(sent) == stored
    if isinstance(stored, Decimal):
        return Decimal(str(sent)) == stored
    return stored is not None and str(sent) == str(stored)


def has_it(column: Column, value: Any, path: Path, sent: Any) -> bool:
    """Return whether the column, which has `value`, has what was sent at that path of the record."""
    around = tuple(column.path)
    if path[: len(around)] != around:
        return False
    inside = path[len(around) :]
    if column.read is percent:
        # The vendor sends a share.
        return not inside and value == sent * 100
    if column.uses is not None:
        return inside in [(), *((use,) for use in column.uses)] and same(sent, value)
    parsed = json.loads(value, parse_float=Decimal) if inside and isinstance(value, str) else value
    return same(sent, at(parsed, inside))


def row_of(table: Table, record: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the row's columns, and what `extra` has."""
    row = dict(zip(table.names, table.row(record), strict=True))
    return row, json.loads(row.pop(EXTRA, None) or "{}", parse_float=Decimal)


def ignored(table: Table, path: Path) -> bool:
    return any(lies_in(dotted(path), field) for field in table.ignored)


def test_there_are_ten_shapes_of_three_vendors():
    assert (len(SHAPES), {source for source, _ in SHAPES}) == (10, {"repairshopr", "square", "tekmetric"})


def test_all_that_was_sent_comes_to_the_tables(shape):
    """A flag counts with its name, since other flags have the same value."""
    given = list(leaves(read(shape).record))
    values = {value for _, value in given if not isinstance(value, bool)}
    flags = {(path[-1], value) for path, value in given if isinstance(value, bool)}
    for answer in SHAPES[shape]:
        for path, value in leaves(answer):
            assert (path[-1], value) in flags if isinstance(value, bool) else value in values, path


def fields_of(value: Any, path: str = "") -> list[str]:
    """Return the paths to all that is no object. What is in a list is counted where its rows stand."""
    if not isinstance(value, dict):
        return [path]
    return [each for name, inner in value.items() for each in fields_of(inner, f"{path}.{name}" if path else name)]


def test_the_tables_get_as_many_fields_as_were_sent(shape):
    """Without those that our own code adds. So what a census says of them is what the vendor sends."""
    source, _ = shape
    given = read(shape)
    (sent, *others) = [next(iter(answer.values())) if len(answer) == 1 else answer for answer in SHAPES[shape]]
    sent = sent[0] if isinstance(sent, list) else sent
    expected = [field for answer in (sent, *others) for field in fields_of(answer)]
    told = [field for field in fields_of(given.record) if field not in given.entity.table.added]
    assert len(told) == len(expected), (source, sorted(told), sorted(expected))


def test_each_value_is_read_ignored_or_kept(shape):
    for table, record in read(shape).records:
        columns, extra = row_of(table, record)
        kept = set()
        for path, value in leaves(record):
            if any(has_it(column, columns[column.name], path, value) for column in table.columns):
                continue
            if not ignored(table, path):
                assert at(extra, path) == value, f"{table.name}: {path} is in no column, not ignored and not kept"
                kept.add(path)
        assert {path for path, _ in leaves(extra)} == kept, table.name


def test_nothing_else_is_in_the_row(shape):
    for table, record in read(shape).records:
        columns, _ = row_of(table, record)
        values = {column.name: at(record, tuple(column.path)) for column in table.columns}
        assert not [n for n, v in columns.items() if v is not None and values[n] is ABSENT and v is not False]


def test_what_is_ignored_as_rows_is_there_as_rows(shape):
    found = read(shape)
    values = {name: {value for row in rows for _, value in leaves(row)} for name, rows in found.nested.items()}
    for table, record in found.records:
        for path, value in leaves(record):
            reason = table.why_ignored(dotted(path))
            rows = next((name for name in values if reason == f"they are rows of {name}"), None)
            # What stands in rows of rows has been moved on.
            assert rows is None or value in set().union(*values.values()), path


def test_the_census_names_the_same_paths(shape):
    found = read(shape)
    counts = censuses(found.entity, {}, {})
    count_page(counts, found.entity, [found.record], found.nested)
    sent: dict[str, set[str]] = {}
    for table, record in found.records:
        opaque = {".".join(column.path) for column in table.columns if column.read is structure}
        sent.setdefault(table.name, set()).update(set(paths(record, opaque)) - set(table.added))
    for table in {table.name: table for table, _ in found.records}.values():
        counted = set(counts[table.name].counted().fields)
        assert counted <= sent[table.name]
        # Nested rows are counted as those of their own table.
        rows = {field for field, reason in table.ignored.items() if reason.startswith("they are rows of ")}
        elsewhere = {path for path in sent[table.name] - counted if any(lies_in(path, f"{row}[]") for row in rows)}
        elsewhere |= {path for path in sent[table.name] - counted if deep(path)}
        assert sent[table.name] - counted - elsewhere == set()
        assert all(state_of(found.entity, table, path) for path in counted)


def paths(value: Any, opaque: set[str], path: str = "") -> Iterator[str]:
    """Yield the path of each field, `[]` for the elements of a list; nothing of what one column keeps as a whole."""
    if path:
        yield path
    if path in opaque:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, opaque, f"{path}.{name}" if path else name)
    for inner in value if isinstance(value, list) else ():
        yield from paths(inner, opaque, f"{path}[]")


def deep(path: str) -> bool:
    """Return whether a path has more steps than are counted."""
    return len(path.replace("[]", ".[]").split(".")) > 4
