"""What a sync is to write of the records that it has staged."""

from psycopg import sql

from include.sources.mirror.entity import Context
from include.sources.mirror.pull import Pulled, fell_since, partitions, plan_parts
from include.warehouse import compare, sync_log
from include.warehouse.table import among


def plan(context: Context, pulled: Pulled) -> None:
    """Plan what a sync writes: candidates where a second look has to decide."""
    for stage in pulled.stages:
        stage.conn.execute(sql.SQL("TRUNCATE {}").format(stage.plan))
    deleted_by_event = among(pulled.entity.table.key, pulled.delete_events, "t") if pulled.delete_events else None
    if deleted_by_event:
        # What the feed showed of them before counts for nothing.
        pulled.stage.conn.execute(sql.SQL("DELETE FROM {} t WHERE {}").format(pulled.stage.sql, deleted_by_event))
    pulled.drop_repeats()
    compare.plan_writes(pulled.stage, doubtful="candidate")
    if fell := fell_since(context, pulled):
        compare.plan_deletes(pulled.stage, status="confirmed", within=fell)
    if deleted_by_event:
        compare.plan_deletes(pulled.stage, status="candidate", within=deleted_by_event)
    if pulled.deleted:
        within = among(pulled.entity.table.key, pulled.deleted, "t")
        compare.plan_deletes(pulled.stage, status="confirmed", within=within)
    plan_parts(pulled)


def skip_changes_before_reset(context: Context, pulled: Pulled) -> None:
    """Leave out what changed before a person reset the watermark, in lists that show it all the same."""
    table = pulled.entity.table
    for partition in partitions(context, pulled.entity):
        read_from = sync_log.state(context.conn, context.source.name, pulled.entity.name, partition).read_from
        if read_from and table.moment:
            query = sql.SQL("DELETE FROM {} WHERE {} < {}").format(
                pulled.stage.sql, sql.Identifier(table.moment), sql.Literal(read_from)
            )
            if partition:
                column = sql.Identifier(pulled.entity.partitions.column)
                query += sql.SQL(" AND {}::text = {}").format(column, sql.Literal(partition))
            context.conn.execute(query)
