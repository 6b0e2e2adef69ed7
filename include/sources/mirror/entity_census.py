"""The census of the fields of an entity's records: count them, store the counts, report what has changed.

The census counts records as the tables get them: in full, after a source's own readers. It leaves out lists in brief
and second looks. Only a whole scan can say what share of the records has a field, and which fields have vanished.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from include.confidence.census import Census
from include.confidence.field_changes import State
from include.confidence.field_counts import Questions, Reader, Record
from include.confidence.field_figures import Declaration, FieldFigures, figures, keep_counts, total
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity, Part
from include.sources.mirror.renamed_fields import find_renames
from include.warehouse.field_path import lies_in
from include.warehouse.readers import structure
from include.warehouse.table import Column, Table

if TYPE_CHECKING:
    from include.sources.mirror.extract import Extract


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
    conn, source, found = context.conn, context.source.name, []
    for stage in extract.stages:
        census = extract.censuses.get(stage.table.name)
        if census is None:
            continue
        counted, declared = census.counted(), _declaration(extract.entity, stage.table)
        renames = partial(find_renames, stage, _columns(extract.entity, stage.table), census)
        if whole or counted.records:
            before = keep_counts(conn, source, context.run, declared, counted, whole=whole, find_renames=renames)
            found += [figures(conn, source, declared, before, counted.fields)] if whole else []
    return total(found) if whole else FieldFigures()


def _declaration(entity: Entity, table: Table) -> Declaration:
    read = {column.dotted_path for column in _columns(entity, table)}
    state = cache(partial(state_of, entity, table))

    def why_ignored(path: str) -> str:
        return table.why_ignored(path) if state(path) is State.IGNORED else ""

    return Declaration(table.name, len(read), state, why_ignored)


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
