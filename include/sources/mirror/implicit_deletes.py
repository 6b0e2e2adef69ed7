"""Implicit deletes: rows that are deleted because a row of another entity is, and what they say about that row."""

from collections.abc import Mapping

from psycopg import sql

from include.sources.base import entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity
from include.sources.mirror.extract import Extract
from include.warehouse.sql_fragments import are, identifiers, pairs
from include.warehouse.table import Table


def doubt_implied_deletes(context: MirrorContext, extract: Extract) -> None:
    """Make a new row that its list flags as deleted a candidate if other entities' live rows would be deleted with it.

    If the copy has the row without the flag, it is a candidate already.
    """
    table, stage = extract.entity.table, extract.stage
    cascades = [(each.table, each.cascade) for each in context.source.entities if each.cascade]
    for other, cascade in cascades:
        if table.tombstone and cascade.entity == extract.entity.name:
            names = {
                "plan": stage.plan,
                "flag": sql.Identifier("p", table.tombstone),
                "other": other.sql,
                "same": pairs(cascade.by, "t", table.key, "p"),
            }
            stage.conn.execute(sql.SQL(IMPLIED_DELETES).format(**names))


def suspect_rows_depended_on(context: MirrorContext, extract: Extract) -> None:
    """Make a row that neither list nor copy has a candidate for an insert if live rows of the copy depend on it.

    Such rows would be deleted with it. So either it is there, or they are gone.
    """
    table, stage = extract.entity.table, extract.stage
    for other in context.source.entities:
        if other.cascade and other.cascade.entity == extract.entity.name and extract.entity.lookup.by == table.key:
            names = {
                "plan": stage.plan,
                "key": identifiers(table.key),
                "lacking": rows_depended_on(other, table),
                "staged": pairs(table.key, "s", table.key, "l"),
                "stage": stage.sql,
            }
            stage.conn.execute(sql.SQL(DEPENDED_ON).format(**names))


def rows_depended_on(entity: Entity, other: Table) -> sql.Composed:
    """Return the query for the keys in `other` that the copy lacks, although live rows of the entity depend on them."""
    names = {
        "by": sql.SQL(", ").join(
            sql.SQL("t.{} AS {}").format(*map(sql.Identifier, pair))
            for pair in zip(entity.cascade.by, other.key, strict=True)
        ),
        "t_by": identifiers(entity.cascade.by, "t"),
        "table": entity.table.sql,
        "deleted": sql.Identifier("t", entity.table.tombstone) if entity.table.tombstone else sql.SQL("false"),
        "other": other.sql,
        "same": pairs(other.key, "o", entity.cascade.by, "t"),
    }
    return sql.SQL(LACKING).format(**names)


def newly_deleted_implicitly(context: MirrorContext, extract: Extract) -> sql.Composable | None:
    """Return SQL over rows `t`, true if the row was implicitly deleted after this entity's last sync.

    None if the entity has no implicit deletes. Other rows that are deleted in the copy don't count, since they may be
    deleted by mistake.
    """
    cascade = extract.entity.cascade
    if cascade is None:
        return None
    other = entity_of(context.source, cascade.entity).table
    return sql.SQL(
        "({implicit} AND EXISTS (SELECT FROM {other} o WHERE {same} AND o.sync_id > coalesce("
        "(SELECT min(sync_id) FROM confidence.sync_state WHERE source = {source} AND entity = {entity}), 0)))"
    ).format(
        implicit=extract.implicitly_deleted,
        other=other.sql,
        same=pairs(other.key, "o", cascade.by, "t"),
        source=sql.Literal(context.source.name),
        entity=sql.Literal(extract.entity.name),
    )


def mark_unknown_deletes(extract: Extract, unknown: Mapping[tuple, str]) -> None:
    """Mark staged rows as unproven that may be implicitly deleted, even if they equal the copy.

    `unknown`: the keys of the rows that they would be deleted with, each with the reason why its state is unknown.
    """
    stage = extract.stage
    for value, why in unknown.items():
        names = {
            "plan": stage.plan,
            "stage": stage.sql,
            "columns": identifiers(stage.table.names),
            "key": identifiers(stage.table.key),
            "why": sql.Literal(why),
            "implicit": are(extract.entity.cascade.by, value),
        }
        stage.conn.execute(sql.SQL(UNKNOWN).format(**names))


IMPLIED_DELETES = """
UPDATE {plan} p SET _status = 'candidate' WHERE _operation = 'insert' AND _status = 'confirmed' AND {flag} IS TRUE
  AND EXISTS (SELECT FROM {other} t WHERE {same} AND t.deleted_at IS NULL)
"""

DEPENDED_ON = """
INSERT INTO {plan} ({key}, _operation, _status, _listed)
SELECT {key}, 'insert', 'candidate', false FROM ({lacking}) l WHERE NOT EXISTS (SELECT FROM {stage} s WHERE {staged})
ON CONFLICT DO NOTHING
"""

LACKING = """
SELECT DISTINCT {by} FROM {table} t
WHERE t.deleted_at IS NULL AND {deleted} IS NOT TRUE AND ({t_by}) IS NOT NULL
  AND NOT EXISTS (SELECT FROM {other} o WHERE {same} AND o.deleted_at IS NULL)
"""

UNKNOWN = """
INSERT INTO {plan} ({columns}, _operation, _status, _why, _looked)
SELECT {columns}, 'update', 'unproven', {why}, true FROM {stage} WHERE {implicit}
ON CONFLICT ({key}) DO UPDATE SET _status = excluded._status, _why = excluded._why, _looked = true
"""
