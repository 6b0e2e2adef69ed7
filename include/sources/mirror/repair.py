"""Repairs: apply the confirmed plans of a run's scans, and verify that the copy got better."""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime

from psycopg import sql

from include.api.errors import TryLater
from include.api.paginators import Page
from include.confidence import scan_log, unproven
from include.confidence.scan_log import PlanGone
from include.confidence.summary import ForensicSummary
from include.confidence.unproven import Doubt
from include.sources.base import Check, entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.derive import derive
from include.sources.mirror.entity import Discovered, Entity
from include.sources.mirror.extract import Extract
from include.sources.mirror.implicit_deletes import newly_deleted_implicitly
from include.sources.mirror.implied_rows import lacking_rows
from include.sources.mirror.lookup import look_up_or_parent
from include.sources.mirror.partitions import known_partitions, state_partitions
from include.sources.mirror.planning import plan_nested_rows
from include.sources.mirror.watermarks import source_time
from include.warehouse import compare, fence, row_conditions, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.sql_fragments import among, identifiers, pairs, same_key
from include.warehouse.staging import plan_table, stage_name
from include.warehouse.sync_log import Counts
from include.warehouse.table import Table

log = logging.getLogger(__name__)

# The number of written records, and of deleted ones, that verify looks up at the source for each entity.
SAMPLE = 20
CHANGED_SINCE = "the source shows it otherwise than the repair has written it, so it may have changed since the scan"


def repair_entities(context: MirrorContext, summaries: Sequence[ForensicSummary]) -> tuple[int, Mapping[str, Counts]]:
    """Apply the plans of all scans in one transaction. Return (sync_id, counts per table).

    Raises FenceError where the run has not stopped the writer, and PlanGone where a later scan has replaced a plan.
    """
    conn, source = context.conn, context.source
    writer = fence.require_stopped(conn, source.name, context.run)
    for summary in summaries:
        scan_log.require_latest(conn, summary)
        for table in entity_of(source, summary.entity).tables:
            _require_fitting_plan(context, table)
    sync_id = sync_log.begin(conn, source.name, "repair", context.run)
    counts: dict[str, Counts] = {}
    try:
        with fence.writing(conn, source.name, epoch=writer.epoch, run=context.run):
            known = {summary.entity: _partitions(context, summary.entity) for summary in summaries}
            for summary in summaries:
                for table in entity_of(source, summary.entity).tables:
                    counts[table.name] = Counts.of(apply_plan(conn, table, _plan(context, table), sync_id))
            for summary in summaries:
                for name, deleted in _delete_implicitly(context, entity_of(source, summary.entity), sync_id).items():
                    counts[name] += deleted
            counts |= derive(context, sync_id)
            for summary in summaries:
                new = _partitions(context, summary.entity) - known[summary.entity]
                _mark_unscanned_partitions(context, summary, new)
                _mark_implied_rows(context, summary.entity, sync_id, scanned=known.keys())
    except BaseException as error:
        sync_log.finish(conn, sync_id, {}, error=error)
        raise
    sync_log.finish(conn, sync_id, counts)
    return sync_id, counts


def verify_repair(context: MirrorContext, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
    """Compare the copy after the repair with the plans and a sample of the repaired rows with the source.

    Raises TryLater where the source shows no row of the sample.
    """
    checks = []
    for summary in summaries:
        entity = entity_of(context.source, summary.entity)
        unapplied = sum(_count_unapplied(context, table, sync_id) for table in entity.tables)
        checks.append(Check(entity.name, "planned_changes_open", 0, unapplied))
        if entity.forensics:
            after = _forensics_after_repair(context, entity, _plan(context, entity.table))
            checks += _forensic_checks(context, entity, summary, after)
        differing = _count_unlike_source(context, entity, sync_id)
        checks.append(Check(entity.name, "repaired_rows_unlike_source", 0, differing))
    return checks


def reset_watermarks(context: MirrorContext) -> int:
    """Set all watermarks to the source's present time and return the sync_id of that.

    The next sync then skips what changed while the writer was stopped. An entity without a watermark
    gets none, because its first load would be skipped. Raises FenceError where the run has not stopped the writer.
    """
    conn, source = context.conn, context.source
    now = source_time(context)
    writer = fence.require_stopped(conn, source.name, context.run)
    sync_id = sync_log.begin(conn, source.name, "watermark", context.run, reason="reset_watermark")
    with fence.writing(conn, source.name, epoch=writer.epoch, run=context.run):
        for entity in source.entities:
            for partition in state_partitions(context, entity):
                state = sync_log.state(conn, source.name, entity.name, partition)
                if state.watermark:
                    moved = {"watermark": now, "read_from": now, "version": state.version, "partition": partition}
                    sync_log.advance(conn, sync_id, source.name, entity.name, **moved)
    sync_log.finish(conn, sync_id, {})
    return sync_id


def _require_fitting_plan(context: MirrorContext, table: Table) -> None:
    """Raise PlanGone if the plan lacks a column of the table: it is from before an upgrade."""
    query = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
    columns = {name for (name,) in context.conn.execute(query, [_plan(context, table).as_string()])}
    if not columns.issuperset(table.names):
        raise PlanGone(
            f"the plan of {table.full_name} was made before the table got other columns: clear scan with downstream to"
            " make a new one"
        )


def _delete_implicitly(context: MirrorContext, entity: Entity, sync_id: int) -> Mapping[str, Counts]:
    """Tombstone the rows that are implicitly deleted by the repair of another table, with their nested rows.

    Return the counts of each table.
    """
    if entity.cascade is None:
        return {}
    extract = Extract.open(context, entity, "cascade", f"sync_id {sync_id}")
    compare.plan_deletes(extract.stage, status="confirmed", within=newly_deleted_implicitly(context, extract))
    for part, stage in extract.parts:
        of_deleted = sql.SQL("({}) IN (SELECT {} FROM {})").format(
            identifiers(part.by, "t"), identifiers(entity.table.key), extract.stage.plan
        )
        compare.plan_deletes(stage, status="confirmed", within=of_deleted)
    counts = {
        stage.table.name: Counts.of(apply_plan(context.conn, stage.table, stage.plan, sync_id))
        for stage in extract.stages
    }
    extract.drop()
    return counts


def _partitions(context: MirrorContext, name: str) -> set[str]:
    """Return the known partitions of an entity by its name."""
    return set(known_partitions(context, entity_of(context.source, name)))


def _mark_unscanned_partitions(context: MirrorContext, summary: ForensicSummary, new: set[str]) -> None:
    """Make the `new` partitions unproven if the scan may not have requested them. New: known only since the repair.

    Each scan asks the source for the partitions, and the answer to one scan may lack what another was shown.
    """
    asked = summary.telemetry.get("partitions_asked")
    if new and asked is not None and len(_partitions(context, summary.entity)) > asked:
        why = "the scan did not ask for it: the source listed it to another scan alone. The next scan asks for it"
        doubts = [Doubt([f"the list of {partition}"], why) for partition in sorted(new)]
        unproven.add(context.conn, context.source.name, summary.entity, context.run, doubts)


def _mark_implied_rows(context: MirrorContext, name: str, sync_id: int, scanned: Collection[str]) -> None:
    """Make rows of other entities unproven that rows of the named one imply since the repair, if the copy lacks them.

    `scanned`: the names of the entities that are repaired. What their plans name has been looked at by their scans.
    """
    entity = entity_of(context.source, name)
    why = f"rows of {name} imply it, but the copy lacks it and its list doesn't show it. The next scan looks it up"
    for implies in entity.implied:
        other = entity_of(context.source, implies.entity).table
        query = lacking_rows(entity, implies, other, sql.SQL("t.sync_id = {}").format(sql.Literal(sync_id)))
        if implies.entity in scanned:
            key, plan = identifiers(other.key), _plan(context, other)
            query += sql.SQL(" EXCEPT SELECT {} FROM {}").format(key, plan)
        if doubts := [Doubt(key, why) for key in context.conn.execute(query)]:
            unproven.add(context.conn, context.source.name, implies.entity, context.run, doubts)


def _plan(context: MirrorContext, table: Table) -> sql.Identifier:
    """Return the plan that the scan left for a table."""
    return plan_table(stage_name(context.source.name, table.name, "scan"))


def _count_unapplied(context: MirrorContext, table: Table, sync_id: int) -> int:
    """Return how many confirmed changes the repair did not make, or made in another way than planned.

    A row that something else has changed since the scan is superseded and doesn't count.
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


def _forensics_after_repair(context: MirrorContext, entity: Entity, plan: sql.Identifier) -> Mapping[str, int]:
    """Return the entity's own metrics after the repair. Planned inserts that were made don't count as missing.

    They leave the plan for this query only: the transaction is rolled back.
    """
    conn = context.conn
    with conn.transaction(force_rollback=True):
        conn.execute(
            sql.SQL(
                "DELETE FROM {plan} p USING {target} t WHERE {same} AND t.deleted_at IS NULL"
                " AND p._operation = 'insert'"
            ).format(plan=plan, target=entity.table.sql, same=same_key(entity.table.key, "t", "p"))
        )
        return entity.forensics(conn, plan)


def _forensic_checks(
    context: MirrorContext, entity: Entity, summary: ForensicSummary, after: Mapping[str, int]
) -> Iterator[Check]:
    """Yield a check of each of the entity's own metrics, before and after the repair.

    For invariants the margin of the gate is allowed: if the source itself breaks one, so does a true copy.
    """
    invariants = {each.metric for each in context.source.checks}
    for gate in entity.gates:
        if gate.metric in after:
            before = summary.metrics[gate.metric] or 0
            margin = int(gate.margin(before, summary)) if gate.metric in invariants else 0
            yield Check(entity.name, gate.metric, before, after[gate.metric], margin)


def _count_unlike_source(context: MirrorContext, entity: Entity, sync_id: int) -> int:
    """Look up a sample of the records that the repair wrote, and return how many rows differ from the source.

    Nested rows count too. Records that changed at the source since the scan don't count: the next sync brings them. Nor
    do rows of a history that are not shown, since newer ones may have followed them. If nothing but a change since the
    scan explains what is found, the record is unproven until the next scan (see `_may_have_changed`).
    Raises TryLater where no look-up proved anything.
    """
    table = entity.table
    sample = _sample(context, entity, sync_id)
    extract = Extract.open(context, entity, "verify", f"sync_id {sync_id}, {context.run}")
    seen, unknown, why = set(), set(), ""
    for value, look in look_up_or_parent(context, entity, entity.lookup, {by for by, _ in sample.values()}):
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
    compare.plan_writes(extract.stage, young_after=_scanned_until(context, entity))
    plan_nested_rows(extract)
    unlike = _unlike_by_record(extract)
    refused = sum(stage.pull.rows_refused for stage in extract.stages)
    extract.drop()
    if not entity.history:
        unlike |= {key: 1 for key, (_, gone) in sample.items() if not gone and key not in seen | unknown}
    changed = _may_have_changed(context, entity, unlike, seen)
    if changed:
        doubts = [Doubt(key, CHANGED_SINCE) for key in changed]
        unproven.add(context.conn, context.source.name, entity.name, context.run, doubts)
    return sum(count for key, count in unlike.items() if key not in changed) + refused


def _unlike_by_record(extract: Extract) -> dict[tuple, int]:
    """Return how many rows of each record, by its key, the verification found otherwise than in the copy."""
    found: Counter[tuple] = Counter()
    for stage, by in [(extract.stage, extract.entity.table.key), *((stage, part.by) for part, stage in extract.parts)]:
        query = sql.SQL("SELECT {} FROM {} WHERE _status IN ('confirmed', 'candidate', 'unproven')")
        found.update(stage.conn.execute(query.format(identifiers(by), stage.plan)))
    return dict(found)


def _may_have_changed(
    context: MirrorContext, entity: Entity, unlike: Collection[tuple], seen: set[tuple]
) -> set[tuple]:
    """Return the keys of unlike records that may have changed since the scan, without any sign of it.

    They are gone now, or have no version. Two looks of the scan agreed on each of them, so the third one, which is
    later, tells of a change.
    """
    versioned = bool(row_conditions.version_columns(entity.table))
    silent = [key for key in unlike if not (versioned and key in seen)]
    if isinstance(entity, Discovered):
        # Each record comes from its own address, after a list.
        return set(silent)
    twice: set[tuple] = set()
    for table, by in [(entity.table, entity.table.key), *((part.table, part.by) for part in entity.parts)]:
        query = sql.SQL("SELECT {} FROM {} p WHERE _looked AND {}")
        twice.update(context.conn.execute(query.format(identifiers(by), _plan(context, table), among(by, silent, "p"))))
    return twice


def _scanned_until(context: MirrorContext, entity: Entity) -> datetime | None:
    """Return the time after which changes are not in the plan: the watermark, or the newest planned change if later."""
    table, watermark = entity.table, sync_log.oldest_watermark(context.conn, context.source.name, entity.name)
    if table.moment is None:
        return watermark
    newest = sql.SQL("SELECT max({}) FROM {} WHERE _status = 'confirmed'")
    query = newest.format(sql.Identifier(table.moment), _plan(context, table))
    planned = context.conn.execute(query).fetchone()[0]
    return max(filter(None, (watermark, planned)), default=None)


def _sample(context: MirrorContext, entity: Entity, sync_id: int) -> dict[tuple, tuple[tuple, bool]]:
    """Return a sample of the records that the repair has changed, in themselves or in their nested rows.

    As {key: (values to look the record up by, whether it is tombstoned)}. The sample depends on the sync_id only.
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
            "SELECT _gone, {by}, {key} FROM (SELECT *, deleted_at IS NOT NULL AS _gone,"
            " row_number() OVER (PARTITION BY deleted_at IS NOT NULL"
            " ORDER BY hashtextextended(jsonb_build_array({key})::text, {sync_id})) AS _turn"
            " FROM {target} t WHERE ({touched}) AND ({by}) IS NOT NULL) r WHERE _turn <= %s"
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
