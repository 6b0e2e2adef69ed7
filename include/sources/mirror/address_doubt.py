"""Whether an address that finds nothing is believed: it may be out of order, or the token may be another account's."""

from collections.abc import Sequence

from psycopg import sql

from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Entity
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import look_up
from include.sources.mirror.lookup_request import Lookup
from include.warehouse.sql_fragments import identifiers, same_key
from include.warehouse.table import Table

# The number of rows that tell whether an address finds anything at all.
KNOWN_ROWS = 3
NOTHING_FOUND = "it is not found by itself, but neither is a row that list and copy have"
NO_LIST_SHOWN = (
    "its parent's list does not show it, but no other parent's list that was asked for shows anything either"
)
NOTHING_SHOWN = (
    "it is not found, but nor is anything else that the copy has from there, as if the token were another account's"
)


def place_of(extract: Extract, lookup: Lookup, value: tuple) -> object:
    """Return the partition that an address with these values belongs to; None if addresses name no partition.

    The parents that have a list each are no places: what is shown of one tells nothing about another.
    """
    partitions = None if isinstance(extract.entity, Child) else extract.entity.partitions
    return dict(zip(lookup.by, value, strict=True)).get(partitions.column) if partitions else None


def address_doubt(context: MirrorContext, extract: Extract, lookup: Lookup, place: object) -> str:
    """Return why a row is not absent although an address that has found nothing says so; empty if it is.

    The address must find a row that both list and copy have. If there is none, or if it is a parent's address, the
    source may show a row of another entity that the copy has instead: else the token may be another account's, or may
    not see this partition any more. If the copy has none either, the address is believed. A parent's list that has
    shown no rows at all is never believed.
    """
    known = _known_rows(extract, lookup, place)
    if _shows_one(context, extract.entity.table, lookup, known):
        return ""
    if lookup.own and lookup.paginator:
        return NO_LIST_SHOWN
    if known and lookup.by == extract.entity.table.key:
        return NOTHING_FOUND
    return "" if _finds_another_entity(context, extract, place) else NOTHING_SHOWN


def has_lost_all_rows(context: MirrorContext, extract: Extract) -> bool:
    """Return whether an empty list is true: the rows of the copy that changed last are gone at their own addresses."""
    entity, moment = extract.entity, extract.entity.table.moment
    query = sql.SQL("SELECT {} FROM {} t WHERE deleted_at IS NULL ORDER BY {} DESC NULLS LAST LIMIT {}").format(
        identifiers(entity.lookup.by), entity.table.sql, sql.Identifier(moment), sql.Literal(KNOWN_ROWS)
    )
    newest = context.conn.execute(query).fetchall()
    return (
        entity.lookup.own
        and all(not (look.unknown or look.rows) for _, look in look_up(context, entity.table, entity.lookup, newest))
        and _finds_another_entity(context, extract, None)
    )


def _known_rows(extract: Extract, lookup: Lookup, place: object) -> list[tuple]:
    """Return the values to look up a few rows that both list and copy have, as one may have been deleted meanwhile.

    None of them is a row that the list shows as deleted.
    """
    table, stage = extract.entity.table, extract.stage
    query = (
        "SELECT {by} FROM {stage} s JOIN {table} t ON {same}"
        " WHERE t.deleted_at IS NULL AND {deleted} IS NOT TRUE AND ({by}) IS NOT NULL AND {there} LIMIT {few}"
    )
    parts = {
        "by": identifiers(lookup.by, "t"),
        "stage": stage.sql,
        "table": table.sql,
        "same": same_key(table.key, "s", "t"),
        "deleted": sql.Identifier("s", table.tombstone) if table.tombstone else sql.SQL("false"),
        "there": _is_there(extract.entity, place),
        "few": sql.Literal(KNOWN_ROWS),
    }
    return stage.conn.execute(sql.SQL(query).format(**parts)).fetchall()


def _finds_another_entity(context: MirrorContext, extract: Extract, place: object) -> bool:
    """Return whether the source shows a row of another entity that the copy has. True if there is none to try."""
    tried = False
    for other in context.source.entities:
        if other.table is extract.entity.table or other.lookup.by != other.table.key:
            continue
        if place is not None and (other.partitions is None or other.partitions.column not in other.lookup.by):
            continue
        query = sql.SQL("SELECT {} FROM {} t WHERE t.deleted_at IS NULL AND {} LIMIT {}").format(
            identifiers(other.lookup.by, "t"), other.table.sql, _is_there(other, place), sql.Literal(KNOWN_ROWS)
        )
        rows = context.conn.execute(query).fetchall()
        if _shows_one(context, other.table, other.lookup, rows):
            return True
        tried = tried or bool(rows)
    return not tried


def _shows_one(context: MirrorContext, table: Table, lookup: Lookup, rows: Sequence[tuple]) -> bool:
    """Return whether the address shows one of these rows. It is asked for one after the other, until one is shown."""
    return any(look.shows_record for row in rows for _, look in look_up(context, table, lookup, [row]))


def _is_there(entity: Entity, place: object) -> sql.Composable:
    """Return the condition on rows `t` that they are of this partition; none if `place` is None."""
    if place is None:
        return sql.SQL("true")
    return sql.SQL("{} = {}").format(sql.Identifier("t", entity.partitions.column), sql.Literal(place))
