"""Implied rows: a live row of one entity tells that a row of another is there, whatever the list of that one shows."""

from collections.abc import Iterator

from psycopg import sql

from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity, Implies
from include.sources.mirror.extract import Extract
from include.warehouse.sql_fragments import identifiers, pairs
from include.warehouse.table import Table


def suspect_implied_rows(context: MirrorContext, extract: Extract) -> None:
    """Make a row that neither list nor copy has a candidate for an insert if live rows of the copy imply it.

    Rows that can't be looked up by their key are left out.
    """
    entity, stage = extract.entity, extract.stage
    table = entity.table
    if not set(entity.lookup.by) <= set(table.key):
        return
    for other, implies in _implying(context, entity):
        names = {
            "plan": stage.plan,
            "key": identifiers(table.key),
            "lacking": lacking_rows(other, implies, table),
            "staged": pairs(table.key, "s", table.key, "l"),
            "stage": stage.sql,
        }
        stage.conn.execute(sql.SQL(SUSPECTS).format(**names))


def _implying(context: MirrorContext, entity: Entity) -> Iterator[tuple[Entity, Implies]]:
    """Yield each entity with rows that imply rows of this one, with what says so."""
    for other in context.source.entities:
        yield from ((other, implies) for implies in other.implied if implies.entity == entity.name)


def lacking_rows(entity: Entity, implies: Implies, other: Table, which: sql.Composable | None = None) -> sql.Composed:
    """Return the query for the keys in `other` that the copy lacks, although live rows of the entity imply them.

    `which`: an SQL condition on those rows `t`; all of them by default.
    """
    names = {
        "by": sql.SQL(", ").join(
            sql.SQL("t.{} AS {}").format(*map(sql.Identifier, pair)) for pair in zip(implies.by, other.key, strict=True)
        ),
        "t_by": identifiers(implies.by, "t"),
        "table": entity.table.sql,
        "deleted": sql.Identifier("t", entity.table.tombstone) if entity.table.tombstone else sql.SQL("false"),
        "ended": sql.SQL(entity.ended),
        "where": sql.SQL(implies.where),
        "which": which or sql.SQL("true"),
        "other": other.sql,
        "same": pairs(other.key, "o", implies.by, "t"),
    }
    return sql.SQL(LACKING).format(**names)


SUSPECTS = """
INSERT INTO {plan} ({key}, _operation, _status, _listed)
SELECT {key}, 'insert', 'candidate', false FROM ({lacking}) l WHERE NOT EXISTS (SELECT FROM {stage} s WHERE {staged})
ON CONFLICT DO NOTHING
"""

LACKING = """
SELECT DISTINCT {by} FROM {table} t
WHERE t.deleted_at IS NULL AND {deleted} IS NOT TRUE AND NOT ({ended}) AND ({where}) AND {which}
  AND ({t_by}) IS NOT NULL AND NOT EXISTS (SELECT FROM {other} o WHERE {same} AND o.deleted_at IS NULL)
"""
