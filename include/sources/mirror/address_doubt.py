"""Whether an address that finds nothing is believed: it may be out of order, or the token may be another account's."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from psycopg import sql

from include.sources.base import entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Entity
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import look_up
from include.sources.mirror.lookup_request import Lookup
from include.warehouse.sql_fragments import among, identifiers, same_key
from include.warehouse.table import Table

# The number of rows that tell whether an address finds anything at all.
KNOWN_ROWS = 3
NOTHING_FOUND = "it is not found by itself, but neither is a row that list and copy have"
NO_LIST_SHOWN = (
    "its parent's list does not show it, but no other parent's list that was asked for shows anything either"
)
NO_ROW_SHOWN = "no list shows it, but none shows anything else that the copy has either"
NOTHING_SHOWN = (
    "it is not found, but nor is anything else that the copy has from there, as if the token were another account's"
)
PLACE_HIDDEN = (
    "it is not found, but nor is anything else that the copy has of {place}, as if the token had lost its rights there"
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
    not see this partition any more. If the copy has none either, the address is believed. An address that is a list is
    never believed if it has shown none of these rows: it may be out of order, or empty for lack of rights.
    """
    known = _known_rows(extract, lookup, place)
    if _shows_one(context, extract.entity.table, lookup, known):
        return ""
    if lookup.paginator:
        return NO_LIST_SHOWN if lookup.own or isinstance(extract.entity, Child) else NO_ROW_SHOWN
    if known and lookup.by == extract.entity.table.key:
        return NOTHING_FOUND
    return "" if _finds_another_entity(context, extract, place) else NOTHING_SHOWN


def hidden_places(context: MirrorContext, extract: Extract, absent: Sequence[tuple]) -> Mapping[tuple, str]:
    """Return which of the absent rows may only be hidden with all else of their place, as {key: why}.

    A place is one of the partitions by which lists of the source are read, such as a location. A token that has lost
    its rights there finds nothing of it at any address. Rows whose address names the place are left to `address_doubt`.
    A place that is deleted in the copy hides nothing.
    """
    listed_by, column = _place(context, extract.entity)
    if column is None or column in extract.entity.lookup.by or not absent:
        return {}
    key, places = extract.entity.table.key, entity_of(context.source, listed_by).table
    query = sql.SQL(PLACES).format(
        place=sql.Identifier("p", column),
        key=identifiers(key, "p"),
        plan=extract.stage.plan,
        absent=among(key, absent, "p"),
        places=places.sql,
        own=sql.Identifier("l", *places.key),
        stage=extract.stage.sql,
        listed=sql.Identifier("s", column),
    )
    unlisted: dict[object, list[tuple]] = defaultdict(list)
    for place, *found in extract.stage.conn.execute(query):
        unlisted[place].append(tuple(found))
    return {
        each: PLACE_HIDDEN.format(place=place)
        for place, keys in unlisted.items()
        if not _finds_another_entity(context, extract, place)
        for each in keys
    }


def _place(context: MirrorContext, entity: Entity) -> tuple[str, str] | tuple[None, None]:
    """Return (the entity that lists the places, the column with a row's place); (None, None) if rows have no place."""
    lists = {
        each.partitions.listed_by
        for each in context.source.entities
        if each.partitions and each.partitions.listed_by and not isinstance(each, Child)
    }
    own = [(each.entity, *each.by) for each in entity.implied if each.entity in lists and len(each.by) == 1]
    return own[0] if own else (None, None)


def is_another_account(context: MirrorContext, extract: Extract) -> bool:
    """Return whether a sync has read another account: only rows that the copy lacks, and the source shows none of it.

    Rows whose address names a partition can't be mistaken for another account's.
    """
    entity, stage = extract.entity, extract.stage
    if entity.partitions and entity.partitions.column in entity.lookup.by:
        return False
    if not stage.conn.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(stage.sql)).rowcount or shows_known_row(extract):
        return False
    newest = _newest_rows(context, entity)
    if not newest or _shows_one(context, entity.table, entity.lookup, newest, outage=True):
        return False
    return not _finds_another_entity(context, extract, None, outage=True)


def shows_known_row(extract: Extract) -> bool:
    """Return whether a list has shown a row that the copy has too."""
    names = {"stage": extract.stage.sql, "table": extract.entity.table.sql}
    same = same_key(extract.entity.table.key, "s", "t")
    query = sql.SQL("SELECT FROM {stage} s JOIN {table} t ON {same} LIMIT 1").format(same=same, **names)
    return extract.stage.conn.execute(query).rowcount > 0


def has_lost_all_rows(context: MirrorContext, extract: Extract) -> bool:
    """Return whether an empty list is true: the rows of the copy that changed last are gone at their own addresses."""
    entity, newest = extract.entity, _newest_rows(context, extract.entity)
    return (
        entity.lookup.own
        and all(not (look.unknown or look.rows) for _, look in look_up(context, entity.table, entity.lookup, newest))
        and _finds_another_entity(context, extract, None)
    )


def _newest_rows(context: MirrorContext, entity: Entity) -> list[tuple]:
    """Return the values to look up the few rows of the copy that changed last."""
    query = "SELECT {by} FROM {table} t WHERE deleted_at IS NULL AND ({by}) IS NOT NULL ORDER BY {order} LIMIT {few}"
    order = sql.SQL("{} DESC NULLS LAST").format(sql.Identifier(entity.table.moment or entity.table.key[0]))
    names = {"by": identifiers(entity.lookup.by), "table": entity.table.sql, "few": sql.Literal(KNOWN_ROWS)}
    return context.conn.execute(sql.SQL(query).format(order=order, **names)).fetchall()


def _known_rows(extract: Extract, lookup: Lookup, place: object) -> list[tuple]:
    """Return the values to look up a few rows that both list and copy have, as one may have been deleted meanwhile.

    None of them is a row that the list shows as deleted.
    """
    table, stage, partitions = extract.entity.table, extract.stage, extract.entity.partitions
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
        "there": _is_at(partitions and partitions.column, place),
        "few": sql.Literal(KNOWN_ROWS),
    }
    return stage.conn.execute(sql.SQL(query).format(**parts)).fetchall()


def _finds_another_entity(context: MirrorContext, extract: Extract, place: object, *, outage: bool = False) -> bool:
    """Return whether the source shows a row of another entity that the copy has. True if there is none to try.

    `outage`: as in `_shows_one`.
    """
    tried = False
    for other in context.source.entities:
        if other.table is extract.entity.table or other.lookup.by != other.table.key:
            continue
        if place is not None and _place_column(context, other) is None:
            continue
        query = sql.SQL("SELECT {} FROM {} t WHERE t.deleted_at IS NULL AND {} LIMIT {}").format(
            identifiers(other.lookup.by, "t"),
            other.table.sql,
            _is_at(_place_column(context, other), place),
            sql.Literal(KNOWN_ROWS),
        )
        rows = context.conn.execute(query).fetchall()
        if _shows_one(context, other.table, other.lookup, rows, outage=outage):
            return True
        tried = tried or bool(rows)
    return not tried


def _shows_one(
    context: MirrorContext, table: Table, lookup: Lookup, rows: Sequence[tuple], *, outage: bool = False
) -> bool:
    """Return whether the address shows one of these rows. It is asked for one after the other, until one is shown.

    `outage`: whether no answer counts as one, unless the request is refused
    """
    looks = (look for row in rows for _, look in look_up(context, table, lookup, [row]))
    return any(look.shows_record or (outage and look.unknown and not look.needs_person) for look in looks)


def _place_column(context: MirrorContext, entity: Entity) -> str | None:
    """Return the column with the place of a row, whether its address names the place or not; None if it has none."""
    partitions = entity.partitions
    if partitions and partitions.column in entity.lookup.by:
        return partitions.column
    return _place(context, entity)[1]


def _is_at(column: str | None, place: object) -> sql.Composable:
    """Return the condition on rows `t` that they are of this place; none if `place` is None."""
    if place is None:
        return sql.SQL("true")
    return sql.SQL("{} = {}").format(sql.Identifier("t", column), sql.Literal(place))


PLACES = """
SELECT {place}, {key} FROM {plan} p LEFT JOIN {places} l ON {own} = {place}
WHERE p._operation = 'delete' AND {absent} AND {place} IS NOT NULL AND l.deleted_at IS NULL
  AND NOT EXISTS (SELECT FROM {stage} s WHERE {listed} = {place})
"""
