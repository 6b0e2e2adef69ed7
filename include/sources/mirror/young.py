"""Young rows: their list shows a change after the last sync. They are no drift, since the next sync brings them.

So a list that shows a false time of change would hide any difference, and so does a row that no sync reads by its own
time of change. Both are looked up once more.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice

from psycopg import sql

from include.sources.base import entity_of
from include.sources.mirror.both_ends import is_sorted
from include.sources.mirror.changes import BothEnds
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Discovered
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import Row, look_up
from include.sources.mirror.same_value import is_earlier
from include.warehouse import sync_log
from include.warehouse.sql_fragments import among, identifiers, same_key
from include.warehouse.table import Table

# The largest number of requests for one entity. Young rows beyond it stay young.
LOOKS_AT_YOUNG = 100

# By the values to look a young row up by: its key, and the time of its change as the list shows it.
Young = Mapping[tuple, Sequence[tuple[tuple, datetime]]]


def doubt_young(context: MirrorContext, extract: Extract) -> None:
    """Make young rows, with their nested rows, suspects if the next sync may not bring them.

    The next sync may not bring a row if its own address shows no change as late as the list does; nor a child whose
    parent has not changed, since syncs read children with their parent; nor a row in the middle of a list that syncs
    read from both ends. If a look-up has no answer, the row stays young. Rows of lists in brief come from their own
    address already: only those that no list shows are not young. Rows of a history may have been followed by newer
    ones.
    """
    entity = extract.entity
    if entity.history or not entity.table.moment:
        return
    keys = list(_not_brought(context, extract))
    if not keys:
        return
    pairs = [(extract.stage, entity.table.key), *((stage, part.by) for part, stage in extract.parts)]
    for stage, by in pairs:
        query = sql.SQL("UPDATE {} p SET _status = 'candidate' WHERE _status = 'young' AND {}")
        stage.conn.execute(query.format(stage.plan, among(by, keys, "p")))


def _not_brought(context: MirrorContext, extract: Extract) -> Iterable[tuple]:
    """Return the keys of the young rows that the next sync may not bring."""
    if isinstance(extract.entity, Discovered):
        return _unlisted(extract)
    young = _young_rows(extract)
    if isinstance(extract.entity, Child):
        return _unchanged_parents(context, extract.entity, young)
    return [*_early(context, extract, young), *_between_the_ends(context, extract)]


def _unlisted(extract: Extract) -> Sequence[tuple]:
    """Return the keys of the young rows that no list shows, so that only a scan looks them up."""
    key = extract.entity.table.key
    query = sql.SQL("SELECT {} FROM {} p JOIN {} s ON {} WHERE p._status = 'young' AND s._page = ANY ({})").format(
        identifiers(key, "p"),
        extract.stage.plan,
        extract.stage.sql,
        same_key(key, "p", "s"),
        sql.Literal(list(extract.unlisted_pages)),
    )
    return extract.stage.conn.execute(query).fetchall()


def _young_rows(extract: Extract) -> Young:
    """Return the young rows of the plan, of as many values as there may be requests."""
    table, by = extract.entity.table, extract.entity.lookup.by
    query = sql.SQL("SELECT {}, {}, {} FROM {} WHERE _status = 'young' AND ({}) IS NOT NULL ORDER BY {} DESC").format(
        identifiers(by),
        identifiers(table.key),
        sql.Identifier(table.moment),
        extract.stage.plan,
        identifiers(by),
        sql.Identifier(table.moment),
    )
    found: dict[tuple, list[tuple[tuple, datetime]]] = {}
    for *values, moment in extract.stage.conn.execute(query):
        found.setdefault(tuple(values[: len(by)]), []).append((tuple(values[len(by) :]), moment))
    return dict(islice(found.items(), LOOKS_AT_YOUNG * extract.entity.lookup.batch))


def _early(context: MirrorContext, extract: Extract, young: Young) -> Iterator[tuple]:
    """Yield the keys of young rows whose own address shows no change as late as their list."""
    table = extract.entity.table
    for value, look in look_up(context, table, extract.entity.lookup, young):
        shown = {table.key_of(row): _moment(table, row) for row in look.rows}
        for key, listed in young[value] if not look.unknown else ():
            moment = shown.get(key)
            if moment is None or is_earlier(moment, listed):
                yield key


def _between_the_ends(context: MirrorContext, extract: Extract) -> Sequence[tuple]:
    """Return the keys of the young rows between the two pages at which a sync stops that reads the list from its ends.

    Of a list that is not sorted it reads everything.
    """
    entity = extract.entity
    watermark = sync_log.oldest_watermark(context.conn, context.source.name, entity.name)
    if not isinstance(entity.changes, BothEnds) or watermark is None:
        return []
    conn, key = extract.stage.conn, entity.table.key
    names = {
        "key": identifiers(key, "s"),
        "moment": sql.Identifier(entity.table.moment),
        "since": sql.Literal(watermark - context.source.lookback),
        "stage": extract.stage.sql,
        "plan": extract.stage.plan,
        "same": same_key(key, "p", "s"),
    }
    first = conn.execute(sql.SQL(UP_TO_THE_FIRST_STOP).format(**names)).fetchall()
    keys, moments = [row[:-1] for row in first], [row[-1] for row in first if row[-1]]
    return conn.execute(sql.SQL(BETWEEN_THE_ENDS).format(**names)).fetchall() if is_sorted(keys, moments) else []


def _unchanged_parents(context: MirrorContext, entity: Child, young: Young) -> Iterator[tuple]:
    """Yield the keys of young children whose parent shows no change that the next sync would read."""
    parent = entity_of(context.source, entity.parent)
    watermark = sync_log.oldest_watermark(context.conn, context.source.name, parent.name)
    if watermark is None or parent.table.moment is None:
        return
    since = watermark - context.source.lookback
    for value, look in look_up(context, parent.table, parent.lookup, young):
        moments = [_moment(parent.table, row) for row in look.rows]
        if not look.unknown and not any(moment and moment >= since for moment in moments):
            yield from (key for key, _ in young[value])


def _moment(table: Table, row: Row) -> datetime | None:
    return table.named(row, [table.moment])[0]


UP_TO_THE_FIRST_STOP = """
WITH stops AS (SELECT _page FROM {stage} GROUP BY _page HAVING max({moment}) < {since})
SELECT {key}, {moment} FROM {stage} s WHERE _page <= (SELECT min(_page) FROM stops) ORDER BY _page, _place
"""

BETWEEN_THE_ENDS = """
WITH stops AS (SELECT _page FROM {stage} GROUP BY _page HAVING max({moment}) < {since}),
ends AS (SELECT min(_page) AS first, max(_page) AS last FROM stops)
SELECT {key} FROM {plan} p JOIN {stage} s ON {same} JOIN ends ON s._page > ends.first AND s._page < ends.last
WHERE p._status = 'young'
"""
