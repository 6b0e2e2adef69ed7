"""The census of the fields of an entity's records: what is counted, and what becomes of it.

Counted are the records as they are given to the tables: in full, after a source's own readers. Lists in brief and
second looks are not counted. Only whole scans tell shares and what has vanished.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import sql

from include.confidence import fields
from include.confidence.census import Census, Counted, Questions, Reader, Record, value_at
from include.confidence.fields import FieldChange, Kind, KnownField, State
from include.sources.mirror.entity import Entity, MirrorContext, Part
from include.warehouse.readers import structure
from include.warehouse.sql_fragments import among, identifiers
from include.warehouse.staging import Stage
from include.warehouse.table import Column, Table, lies_in

if TYPE_CHECKING:
    from include.sources.mirror.extract import Extract

log = logging.getLogger(__name__)

# Two fields are the same, renamed, if so many values can be compared, of them so many different ones, and this share
# is equal.
MIN_PAIRS, MIN_DIFFERENT, EQUAL_SHARE = 5, 2, 0.9

METRICS: Mapping[str, str] = {
    "fields": "Fields that the records of the entity's tables have, those in nested objects included.",
    "fields_new": "Fields that no whole scan before had seen.",
    "fields_vanished": "Fields that were in nearly all records, and are now in none.",
    "declared_fields": "Fields that the columns of the entity's tables read.",
    "declared_fields_vanished": "Declared fields that were in nearly all records, and are now in none.",
    "declared_fields_retyped": "Fields that a column reads, and that now have a type which the column can't read.",
}
# The metrics of fields whose values the copy loses.
LOST = ("declared_fields_vanished", "declared_fields_retyped")


@dataclass(frozen=True)
class FieldFigures:
    """What a scan says of fields: its metrics, and by metric the declared fields that are lost, as `table.path`."""

    metrics: Mapping[str, int | None] = field(default_factory=lambda: dict.fromkeys(METRICS))
    lost: Mapping[str, Sequence[str]] = field(default_factory=dict)


def censuses(entity: Entity, codes: Mapping[str, Sequence[str]], before: Mapping[str, Any]) -> dict[str, Census]:
    """Return a census for each table of the entity that is counted by itself, by the table's name.

    `codes`: by table, the fields whose values are kept. `before`: what an earlier attempt has counted.
    """
    found = {}
    for table in counted_tables(entity):
        census = Census(_questions(entity, table, codes.get(table.name, ())))
        found[table.name] = census.go_on(before[table.name]) if table.name in before else census
    return found


def counted_tables(entity: Entity) -> list[Table]:
    """Return the tables of the entity that are counted by themselves."""
    return [entity.table, *(part.table for part in entity.parts if not _is_record(part))]


def _is_record(part: Part) -> bool:
    """Return whether a record has one nested row with its own key: then both are the same object."""
    return part.by == part.table.key


def count_page(
    found: Mapping[str, Census], entity: Entity, records: Sequence[Record], nested: Mapping[str, Sequence[Record]]
) -> None:
    """Count the records of a page, and their nested rows by table."""
    rows = {name: nested[name] for name in found if name in nested}
    for name, census in found.items():
        census.count(records if name == entity.table.name else rows[name], rows.values())


def state_of(entity: Entity, table: Table, path: str) -> State:
    """Return what becomes of a field of the table's records: declared if a column reads it, or something in it."""
    path = path.removesuffix("[]")
    if any(lies_in(path, read) or lies_in(read, path) for column in _columns(entity, table) for read in column.reads):
        return State.DECLARED
    return State.IGNORED if table.why_ignored(path) else State.KEPT


def keep_fields(context: MirrorContext, extract: "Extract", *, whole: bool) -> FieldFigures:
    """Keep what the censuses of a pull have counted, and tell what has changed. Call it in a transaction.

    `whole`: the pull is that of a whole scan.
    """
    entity, figures = extract.entity, []
    for stage in extract.stages:
        census = extract.censuses.get(stage.table.name)
        if census is None:
            continue
        counted, name = census.counted(), stage.table.name
        before = fields.known_fields(context.conn, context.source.name, name) if whole or counted.records else {}
        if counted.records:
            _keep_table(context, entity, stage, census, before, whole=whole)
        if whole:
            now = fields.known_fields(context.conn, context.source.name, name)
            figures.append(_figures(entity, stage.table, before, now, counted))
    if not whole:
        return FieldFigures()
    totals = {name: sum(each.metrics[name] for each in figures) for name in METRICS}
    lost = {metric: [name for each in figures for name in each.lost[metric]] for metric in LOST}
    return FieldFigures(totals, lost)


def _keep_table(
    context: MirrorContext,
    entity: Entity,
    stage: Stage,
    census: Census,
    known: Mapping[str, KnownField],
    *,
    whole: bool,
) -> None:
    """Keep what was counted of one table's records, and tell what has changed. `known`: the fields before."""
    conn, source, table = context.conn, context.source.name, stage.table
    counted = fields.bounded(known, census.counted())
    states = {path: state_of(entity, table, path) for path in (*counted.fields, *known) if path != fields.RECORD}
    found = fields.changes(known, counted, states, whole=whole)
    vanished = [each.path for each in found if each.kind is Kind.VANISHED]
    pairs = _renames(stage, _columns(entity, table), census, found, known) if vanished else {}
    found = fields.renamed(found, pairs)
    for change in found:
        log.warning("%s.%s: %s", source, table.name, change)
    fields.tell(conn, source, table.name, context.run, found)
    reasons = {path: table.why_ignored(path) for path, state in states.items() if state is State.IGNORED}
    fields.save(conn, source, table.name, known, counted, states, whole=whole, vanished=vanished, reasons=reasons)


def _figures(
    entity: Entity,
    table: Table,
    before: Mapping[str, KnownField],
    now: Mapping[str, KnownField],
    counted: Counted,
) -> FieldFigures:
    """Return what a whole scan says of one table's fields."""
    baseline = fields.RECORD in before and before[fields.RECORD].scanned_at
    new = [p for p in counted.fields if baseline and (p not in before or before[p].scanned_at is None)]
    vanished = [path for path, each in now.items() if each.vanished_at]
    # By the declarations as they are now: a person may have mended them.
    lost = [path for path in vanished if state_of(entity, table, path) is State.DECLARED]
    retyped = [p for p in counted.fields if p in now and now[p].unreadable and now[p].state is State.DECLARED]
    metrics = {
        "fields": len(counted.fields),
        "fields_new": len(new),
        "fields_vanished": len(vanished),
        "declared_fields": len({_path(column) for column in _columns(entity, table)}),
        "declared_fields_vanished": len(lost),
        "declared_fields_retyped": len(retyped),
    }
    named = {"declared_fields_vanished": lost, "declared_fields_retyped": retyped}
    return FieldFigures(metrics, {m: [f"{table.name}.{path}" for path in paths] for m, paths in named.items()})


def _questions(entity: Entity, table: Table, codes: Sequence[str]) -> Questions:
    columns = _columns(entity, table)
    return Questions(
        readers=_readers(columns),
        opaque={_path(column) for column in columns if column.read is structure},
        codes=codes,
    )


def _readers(columns: Sequence[Column]) -> dict[str, Reader]:
    """Return how the columns read each path. Where several read it, one of them has to make something of a value."""
    by_path: dict[str, list[Reader]] = defaultdict(list)
    for column in columns:
        by_path[_path(column)].append(column.read)
    return {path: _first_of(reads) for path, reads in by_path.items()}


def _first_of(reads: Sequence[Reader]) -> Reader:
    """Return a reader of the first value that these readers make of one; none of them may refuse it."""
    return lambda value: next((found for found in [read(value) for read in reads] if found is not None), None)


def _columns(entity: Entity, table: Table) -> list[Column]:
    """Return the columns that read the table's records, those of other tables with the same records included."""
    if table is not entity.table:
        return list(table.columns)
    return [*table.columns, *(column for part in entity.parts if _is_record(part) for column in part.table.columns)]


def _path(column: Column) -> str:
    return column.field or column.name


def _renames(
    stage: Stage,
    columns: Sequence[Column],
    census: Census,
    found: Iterable[FieldChange],
    known: Mapping[str, KnownField],
) -> dict[str, str]:
    """Return {old: new} for each declared field that has vanished while a new field has the values of its column.

    If an object has vanished, what lies in a new one at the same place has the values of the column. The values of some
    records are compared with the copy, by key. None of them is kept.
    """
    vanished = {each.path for each in found if each.kind is Kind.VANISHED and each.state is State.DECLARED}
    # An object's field fits a column better than the object.
    gone = sorted(vanished, key=len, reverse=True)
    new = [
        path
        for path, each in census.counted().fields.items()
        if "[]" not in path and each.seen and (path not in known or known[path].scanned_at is None)
    ]
    pairs: dict[str, str] = {}
    for column in columns:
        old = next((path for path in gone if lies_in(_path(column), path)), None)
        if new and old and column.name in stage.table.names and old not in pairs:
            values, inner = _copied_values(stage, column, census.sample), _path(column).removeprefix(old)
            same = [path for path in new if path not in pairs.values() and _is_same(column, path + inner, values)]
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


def _is_same(column: Column, path: str, values: Sequence[tuple[Record, Any]]) -> bool:
    """Return whether a new field has the values that the copy has in the column."""
    if len(values) < MIN_PAIRS or len({str(value) for _, value in values}) < MIN_DIFFERENT:
        return False
    return sum(_equal(column, value_at(record, path), value) for record, value in values) >= EQUAL_SHARE * len(values)


def _equal(column: Column, value: Any, copied: Any) -> bool:
    try:
        read = column.read(value)
    except ValueError:
        return False
    return (json.loads(read) if isinstance(copied, dict | list) and isinstance(read, str) else read) == copied


def lost_fields(lost: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a sentence that names the lost fields, if there are any."""
    names = [name for metric in LOST for name in lost.get(metric, ())]
    if names:
        yield f"These fields are lost at the source, which may be why: {', '.join(names[:5])}"
