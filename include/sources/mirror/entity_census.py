"""The census of the fields of an entity's records: count them, store the counts, report what has changed.

The census counts records as the tables get them: in full, after a source's own readers. It leaves out lists in brief
and second looks. Only a whole scan can say what share of the records has a field, and which fields have vanished.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.confidence.census import Census
from include.confidence.field_changes import (
    RECORD,
    Kind,
    KnownField,
    State,
    find_changes,
    known_fields,
    limit_fields,
    merge_renames,
    save_census,
    save_changes,
)
from include.confidence.field_counts import Counted, Questions, Reader, Record
from include.sources.mirror.entity import Entity, MirrorContext, Part
from include.sources.mirror.renamed_fields import find_renames
from include.warehouse.readers import structure
from include.warehouse.staging import Stage
from include.warehouse.table import Column, Table, lies_in

if TYPE_CHECKING:
    from include.sources.mirror.extract import Extract

log = logging.getLogger(__name__)

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
    """The figures of a scan about fields: its metrics, and by metric the lost declared fields, as `table.path`."""

    metrics: Mapping[str, int | None] = field(default_factory=lambda: dict.fromkeys(METRICS))
    lost: Mapping[str, Sequence[str]] = field(default_factory=dict)


def censuses(entity: Entity, codes: Mapping[str, Sequence[str]], before: Mapping[str, Any]) -> dict[str, Census]:
    """Return a census for each table of the entity that has its own, by the table's name.

    `codes`: by table, the fields whose values are kept. `before`: what an earlier attempt has counted.
    """
    found = {}
    for table in counted_tables(entity):
        census = Census(_questions(entity, table, codes.get(table.name, ())))
        found[table.name] = census.restore(before[table.name]) if table.name in before else census
    return found


def counted_tables(entity: Entity) -> list[Table]:
    """Return the tables of the entity that have a census of their own."""
    return [entity.table, *(part.table for part in entity.parts if not _is_record(part))]


def _is_record(part: Part) -> bool:
    """Return whether the part's rows have the record's own key: one row for each record, of the same object."""
    return part.by == part.table.key


def count_page(
    found: Mapping[str, Census], entity: Entity, records: Sequence[Record], nested: Mapping[str, Sequence[Record]]
) -> None:
    """Count the records of a page, and their nested rows by table. `found`: the census of each table."""
    rows = {name: nested[name] for name in found if name in nested}
    for name, census in found.items():
        census.count(records if name == entity.table.name else rows[name], rows.values())


def state_of(entity: Entity, table: Table, path: str) -> State:
    """Return what becomes of a field of the table's records: declared if a column reads it, or something in it."""
    path, columns = path.removesuffix("[]"), _columns(entity, table)
    if any(lies_in(path, name) for name in table.added):
        # The columns of these names read what our own code adds.
        return State.KEPT
    if any(lies_in(path, read) or lies_in(read, path) for column in columns for read in column.reads):
        return State.DECLARED
    # A column that `uses` no field of an object may still read any other value, such as a share or a list of phones.
    if path in (column.dotted_path for column in columns if column.uses == ()):
        return State.DECLARED
    return State.IGNORED if table.why_ignored(path) else State.KEPT


def keep_fields(context: MirrorContext, extract: "Extract", *, whole: bool) -> FieldFigures:
    """Store what the censuses of a pull have counted and what has changed; return the figures.

    Call it in a transaction. `whole`: the pull is that of a whole scan. The figures of any other pull are None.
    """
    entity, figures = extract.entity, []
    for stage in extract.stages:
        census = extract.censuses.get(stage.table.name)
        if census is None:
            continue
        counted, name = census.counted(), stage.table.name
        before = known_fields(context.conn, context.source.name, name) if whole or counted.records else {}
        if counted.records:
            _keep_table(context, entity, stage, census, before, whole=whole)
        if whole:
            now = known_fields(context.conn, context.source.name, name)
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
    """Store what was counted of one table's records; store and log what has changed. `known`: the fields before."""
    conn, source, table = context.conn, context.source.name, stage.table
    counted = limit_fields(known, census.counted())
    states = {path: state_of(entity, table, path) for path in (*counted.fields, *known) if path != RECORD}
    found = find_changes(known, counted, states, whole=whole)
    vanished = [each.path for each in found if each.kind is Kind.VANISHED]
    pairs = find_renames(stage, _columns(entity, table), census, found, known) if vanished else {}
    found = merge_renames(found, pairs)
    for change in found:
        log.warning("%s.%s: %s", source, table.name, change)
    save_changes(conn, source, table.name, context.run, found)
    reasons = {path: table.why_ignored(path) for path, state in states.items() if state is State.IGNORED}
    save_census(conn, source, table.name, known, counted, states, whole=whole, vanished=vanished, reasons=reasons)


def _figures(
    entity: Entity,
    table: Table,
    before: Mapping[str, KnownField],
    now: Mapping[str, KnownField],
    counted: Counted,
) -> FieldFigures:
    """Return what a whole scan says of one table's fields."""
    baseline = RECORD in before and before[RECORD].scanned_at
    new = [p for p in counted.fields if baseline and (p not in before or before[p].scanned_at is None)]
    vanished = [path for path, each in now.items() if each.vanished_at]
    # By the declarations as they are now: a person may have mended them.
    lost = [path for path in vanished if state_of(entity, table, path) is State.DECLARED]
    retyped = [p for p in counted.fields if p in now and now[p].unreadable and now[p].state is State.DECLARED]
    metrics = {
        "fields": len(counted.fields),
        "fields_new": len(new),
        "fields_vanished": len(vanished),
        "declared_fields": len({column.dotted_path for column in _columns(entity, table)}),
        "declared_fields_vanished": len(lost),
        "declared_fields_retyped": len(retyped),
    }
    named = {"declared_fields_vanished": lost, "declared_fields_retyped": retyped}
    return FieldFigures(metrics, {m: [f"{table.name}.{path}" for path in paths] for m, paths in named.items()})


def _questions(entity: Entity, table: Table, codes: Sequence[str]) -> Questions:
    columns = _columns(entity, table)
    return Questions(
        readers=_readers(columns),
        opaque={column.dotted_path for column in columns if column.read is structure},
        codes=codes,
        added=table.added,
        aside={name: sent for each in entity.tables for name, sent in each.aside.items()},
    )


def _readers(columns: Sequence[Column]) -> dict[str, Reader]:
    """Return the reader of each path. If several columns read a path, it is enough that one of them keeps a value."""
    by_path: dict[str, list[Reader]] = defaultdict(list)
    for column in columns:
        by_path[column.dotted_path].append(column.read)
    return {path: _first_of(reads) for path, reads in by_path.items()}


def _first_of(reads: Sequence[Reader]) -> Reader:
    """Return a reader with the first result of these readers that is not None. None of them may refuse a value."""
    return lambda value: next((found for found in [read(value) for read in reads] if found is not None), None)


def _columns(entity: Entity, table: Table) -> list[Column]:
    """Return the columns that read the table's records, those of other tables with the same records included."""
    if table is not entity.table:
        return list(table.columns)
    return [*table.columns, *(column for part in entity.parts if _is_record(part) for column in part.table.columns)]


def lost_fields(lost: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a sentence that names the lost fields, if there are any."""
    names = [name for metric in LOST for name in lost.get(metric, ())]
    if names:
        yield f"These fields are lost at the source, which may be why: {', '.join(names[:5])}"
