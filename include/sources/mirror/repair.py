"""Repair: apply the confirmed plans of a run's scans, then look whether the copy really got better."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from psycopg import sql

from include.api.errors import TryLater
from include.api.paginators import Page
from include.confidence import history, unproven
from include.confidence.summary import ForensicSummary
from include.confidence.unproven import Doubt
from include.sources.base import Check, entity_of
from include.sources.mirror.derive import derive
from include.sources.mirror.entity import Context, Entity
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import look_up
from include.sources.mirror.partitions import known_partitions
from include.sources.mirror.planning import newly_deleted_implicitly, plan_nested_rows
from include.sources.mirror.sync import source_time
from include.warehouse import compare, fence, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.staging import plan_table, stage_name
from include.warehouse.sync_log import Counts
from include.warehouse.table import Table, identifiers, pairs, same_key

log = logging.getLogger(__name__)

# Repaired rows that verify compares with the source once more, per entity and kind of change.
SAMPLE = 20


def repair_entities(context: Context, summaries: Sequence[ForensicSummary]) -> tuple[int, Mapping[str, Counts]]:
    """Apply the plans of all scans under one sync_id, in one transaction; return it with the counts per entity."""
    conn, source = context.conn, context.source
    writer = fence.require_stopped(conn, source.name, context.run)
    for summary in summaries:
        history.require_latest(conn, summary)
    sync_id = sync_log.begin(conn, source.name, "repair", context.run)
    counts: dict[str, Counts] = {}
    try:
        with fence.writing(conn, source.name, epoch=writer.epoch, run=context.run):
            known = {summary.entity: _partitions(context, summary.entity) for summary in summaries}
            for summary in summaries:
                for table in entity_of(source, summary.entity).tables:
                    counts[table.name] = Counts.of(apply_plan(conn, table, _plan(context, table), sync_id))
            for summary in summaries:
                for name, fallen in _fall(context, entity_of(source, summary.entity), sync_id).items():
                    counts[name] += fallen
            counts |= derive(context, sync_id)
            for summary in summaries:
                _doubt_unasked(context, summary, _partitions(context, summary.entity) - known[summary.entity])
    except BaseException as error:
        sync_log.finish(conn, sync_id, {}, error=str(error) or type(error).__name__)
        raise
    sync_log.finish(conn, sync_id, counts)
    return sync_id, counts


def verify_repair(context: Context, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
    """Compare the copy after the repair with the plans and, for a sample of the repaired rows, with the source.

    Raises TryLater where the source tells nothing of any row of the sample.
    """
    checks = []
    for summary in summaries:
        entity = entity_of(context.source, summary.entity)
        still_open = sum(_still_open(context, table, sync_id) for table in entity.tables)
        checks.append(Check(entity.name, "planned_changes_open", 0, still_open))
        if entity.forensics:
            after = _recounted(context, entity, _plan(context, entity.table))
            checks += _figures(context, entity, summary, after)
        checks.append(Check(entity.name, "repaired_rows_unlike_source", 0, _unlike_source(context, entity, sync_id)))
    return checks


def reset_watermarks(context: Context) -> int:
    """Set the watermarks to the source's present time: what changed while the writer stood is skipped.

    An entity that was never synced keeps none, or its first load would be skipped as well.
    """
    conn, source = context.conn, context.source
    now = source_time(context)
    writer = fence.require_stopped(conn, source.name, context.run)
    sync_id = sync_log.begin(conn, source.name, "watermark", context.run, reason="reset_watermark")
    with fence.writing(conn, source.name, epoch=writer.epoch, run=context.run):
        for entity in source.entities:
            for partition in known_partitions(context, entity):
                state = sync_log.state(conn, source.name, entity.name, partition)
                if state.watermark:
                    moved = {"watermark": now, "read_from": now, "version": state.version, "partition": partition}
                    sync_log.advance(conn, sync_id, source.name, entity.name, **moved)
    sync_log.finish(conn, sync_id, {})
    return sync_id


def _fall(context: Context, entity: Entity, sync_id: int) -> Mapping[str, Counts]:
    """Tombstone the rows that fall with what the repair has changed in another table, and the rows inside them."""
    if entity.falls is None:
        return {}
    extract = Extract.open(context, entity, "falls", f"sync_id {sync_id}")
    compare.plan_deletes(extract.stage, status="confirmed", within=newly_deleted_implicitly(context, extract))
    for part, stage in extract.parts:
        of_fallen = sql.SQL("({}) IN (SELECT {} FROM {})").format(
            identifiers(part.by, "t"), identifiers(entity.table.key), extract.stage.plan
        )
        compare.plan_deletes(stage, status="confirmed", within=of_fallen)
    counts = {
        stage.table.name: Counts.of(apply_plan(context.conn, stage.table, stage.plan, sync_id))
        for stage in extract.stages
    }
    extract.drop()
    return counts


def _partitions(context: Context, name: str) -> set[str]:
    return set(known_partitions(context, entity_of(context.source, name)))


def _doubt_unasked(context: Context, summary: ForensicSummary, new: set[str]) -> None:
    """Make unproven what is in partitions that the copy has only now, where the scan did not ask for all of them.

    Each scan asks the source which partitions there are, and one answer may lack what another showed.
    """
    asked = summary.telemetry.get("partitions_asked")
    if new and asked is not None and len(_partitions(context, summary.entity)) > asked:
        why = "the scan did not ask for it: the source listed it to another scan alone. The next scan asks for it"
        doubts = [Doubt([f"the list of {partition}"], why) for partition in sorted(new)]
        unproven.add(context.conn, context.source.name, summary.entity, context.run, doubts)


def _plan(context: Context, table: Table) -> sql.Identifier:
    return plan_table(stage_name(context.source.name, table.name, "scan"))


def _still_open(context: Context, table: Table, sync_id: int) -> int:
    """Confirmed changes that were not made, or otherwise: the row is as the scan saw it, or as nobody planned it.

    A row that something else has changed since the scan is superseded, and was rightly left alone.
    """
    return context.conn.execute(
        sql.SQL(
            "SELECT count(*) FROM {plan} p LEFT JOIN {target} t ON {same} WHERE p._status = 'confirmed'"
            " AND (t.row_hash IS NOT DISTINCT FROM p._seen_hash"
            "   AND (t.deleted_at IS NOT NULL) = coalesce(p._seen_deleted, false)"
            "  OR t.sync_id = %s AND (t.row_hash IS DISTINCT FROM p.row_hash"
            "   OR (t.deleted_at IS NOT NULL) <> (p._operation = 'delete')))"
        ).format(plan=_plan(context, table), target=table.sql, same=same_key(table.key, "t", "p")),
        [sync_id],
    ).fetchone()[0]


def _recounted(context: Context, entity: Entity, plan: sql.Identifier) -> Mapping[str, int]:
    """The entity's own figures, with only what is still missing counted as missing."""
    conn = context.conn
    with conn.transaction(force_rollback=True):
        conn.execute(
            sql.SQL(
                "DELETE FROM {plan} p USING {target} t WHERE {same} AND t.deleted_at IS NULL"
                " AND p._operation = 'insert'"
            ).format(plan=plan, target=entity.table.sql, same=same_key(entity.table.key, "t", "p"))
        )
        return entity.forensics(conn, plan)


def _figures(context: Context, entity: Entity, summary: ForensicSummary, after: Mapping[str, int]) -> Iterator[Check]:
    """The entity's own figures before and after.

    A source that breaks an invariant itself makes a true copy that breaks it too: of those a gate's margin is allowed.
    """
    invariants = {each.metric for each in context.source.checks}
    for gate in entity.gates:
        if gate.metric in after:
            before = summary.metrics[gate.metric] or 0
            margin = int(gate.margin(before, summary)) if gate.metric in invariants else 0
            yield Check(entity.name, gate.metric, before, after[gate.metric], margin)


def _unlike_source(context: Context, entity: Entity, sync_id: int) -> int:
    """Look up some of the records that the repair wrote, and count rows that the source shows otherwise.

    Rows inside a record count too. Records that changed at the source since the scan don't count: the next sync brings
    them.
    """
    table = entity.table
    sample = _sample(context, entity, sync_id)
    extract = Extract.open(context, entity, "verify", f"sync_id {sync_id}, {context.run}")
    seen, unknown, why = set(), set(), ""
    for value, look in look_up(context, table, entity.lookup, {by for by, _ in sample.values()}):
        if look.unknown:
            why = look.unknown
            log.warning("could not look at repaired rows of %s again: %s", entity.name, why)
            unknown |= {key for key, (by, _) in sample.items() if by == value}
            continue
        rows = [row for row in look.rows if table.key_of(row) in sample]
        seen |= {table.key_of(row) for row in rows}
        extract.append(Page(None, rows, None), list(value))
    if sample and unknown == set(sample):
        raise TryLater(f"The repair of {entity.name} is applied (sync_id {sync_id}), and could not be verified: {why}")
    extract.drop_repeats()
    compare.plan_writes(extract.stage, young_after=_changed_since(context, entity))
    plan_nested_rows(extract)
    unlike = sum(
        n
        for stage in extract.stages
        for (_, status), n in compare.plan_counts(stage).items()
        if status in ("confirmed", "candidate", "unproven")
    )
    refused = sum(stage.pull.rows_refused for stage in extract.stages)
    extract.drop()
    vanished = sum(1 for key, (_, gone) in sample.items() if not gone and key not in seen | unknown)
    return unlike + refused + vanished


def _changed_since(context: Context, entity: Entity) -> datetime | None:
    """What changed later at the source was not planned: it is newer than the watermark, and than all that was."""
    table, watermark = entity.table, sync_log.oldest_watermark(context.conn, context.source.name, entity.name)
    if table.moment is None:
        return watermark
    newest = sql.SQL("SELECT max({}) FROM {} WHERE _status = 'confirmed'")
    query = newest.format(sql.Identifier(table.moment), _plan(context, table))
    planned = context.conn.execute(query).fetchone()[0]
    return max(filter(None, (watermark, planned)), default=None)


def _sample(context: Context, entity: Entity, sync_id: int) -> dict[tuple, tuple[tuple, bool]]:
    """Some of the records that the repair wrote, of those it wrote rows inside, and of those it tombstoned.

    By their key: the values to look them up by, and whether they are gone.
    """
    table, by = entity.table, entity.lookup.by
    touched = [sql.SQL("sync_id = {}").format(sql.Literal(sync_id))]
    touched += [
        sql.SQL("EXISTS (SELECT FROM {} p WHERE p.sync_id = {} AND {})").format(
            part.table.sql, sql.Literal(sync_id), pairs(part.by, "p", table.key, "t")
        )
        for part in entity.parts
    ]
    rows = context.conn.execute(
        sql.SQL(
            "SELECT gone, {by}, {key} FROM (SELECT *, deleted_at IS NOT NULL AS gone,"
            " row_number() OVER (PARTITION BY deleted_at IS NOT NULL"
            " ORDER BY hashtextextended(jsonb_build_array({key})::text, {sync_id})) AS n"
            " FROM {target} t WHERE ({touched}) AND ({by}) IS NOT NULL) r WHERE n <= %s"
        ).format(
            by=identifiers(by),
            key=identifiers(table.key),
            target=table.sql,
            touched=sql.SQL(" OR ").join(touched),
            sync_id=sql.Literal(sync_id),
        ),
        [SAMPLE],
    ).fetchall()
    return {row[len(by) :]: (row[: len(by)], gone) for gone, *values in rows if (row := tuple(values))}
