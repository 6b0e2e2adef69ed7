"""Implicit deletes: rows that are deleted because a row of another entity is, and what they say about that row."""

from collections.abc import Mapping

from psycopg import sql

from include.sources.base import entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.extract import Extract
from include.warehouse.sql_fragments import are, identifiers, pairs


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

UNKNOWN = """
INSERT INTO {plan} ({columns}, _operation, _status, _why, _looked)
SELECT {columns}, 'update', 'unproven', {why}, true FROM {stage} WHERE {implicit}
ON CONFLICT ({key}) DO UPDATE SET _status = excluded._status, _why = excluded._why, _looked = true
"""
