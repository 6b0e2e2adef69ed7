"""The forensic scan: compare one entity of the source with its copy. It writes nothing but evidence."""

import json
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from psycopg import sql

from include.confidence import scan_log
from include.confidence.spans import span
from include.confidence.summary import ForensicSummary
from include.sources.base import ScanRefused, entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Entity
from include.sources.mirror.entity_census import keep_fields
from include.sources.mirror.evidence import in_scope, keep_plan, remember_unproven
from include.sources.mirror.extract import MAY_LAG, Extract
from include.sources.mirror.implicit_deletes import doubt_implied_deletes, mark_unknown_deletes
from include.sources.mirror.implied_rows import suspect_implied_rows
from include.sources.mirror.lookup import look_up
from include.sources.mirror.planning import doubt_lagging_source, doubt_unlike, plan_nested_rows
from include.sources.mirror.read import read_whole
from include.sources.mirror.scan_summary import summarize
from include.sources.mirror.scope import Scope
from include.sources.mirror.second_look import read_listed_again, second_look
from include.sources.mirror.series import keep_ended_series, unlisted_series
from include.sources.mirror.young import doubt_young
from include.warehouse import compare, sync_log
from include.warehouse.compare import Repeats
from include.warehouse.sql_fragments import identifiers
from include.warehouse.staging import Stage, count_new

# How long a row is young at most. Entities with `read_every` have that time in addition.
SYNC_BRINGS_WITHIN = timedelta(days=1)

log = logging.getLogger(__name__)


def scan_entity(context: MirrorContext, entity: Entity, epoch: int, scope: Scope) -> ForensicSummary:
    """Scan the entity and return the summary. Leave it in confidence.forensic_run, and the plan in staging.

    An interrupted scan of the same run and epoch resumes at the page that it had reached: the writer has been stopped
    all the time. Raises ScanRefused where the entity was never synced, and ApiError or PullError where its lists can't
    be read.
    """
    conn = context.conn
    _require_synced(context, entity)
    scan_id = f"{context.run}/{entity.name}/{epoch}"
    extract = read_whole(
        context,
        entity,
        "scan",
        f"{scan_id}/{scope}",
        first=scope.first if scope.partial else None,
        last=scope.page_end or None,
        on_page=lambda extract: _log_progress(extract, scope),
    )
    if entity.history:
        extract.require_rows()
    figures = _comparison(context, scope, extract)
    suspect_implied_rows(context, extract)
    doubt_young(context, extract)
    looks = second_look(context, extract)
    if entity.history:
        keep_ended_series(extract)
    read_listed_again(context, extract)
    doubt_lagging_source(extract, extract.clock - MAY_LAG)
    with conn.transaction():
        remember_unproven(context, extract, whole=scope.whole)
        fields = keep_fields(context, extract, whole=_tells_shares(context, scope, extract))
        summary = summarize(context, scope, extract, figures, scan_id, epoch, looks, fields)
        scan_log.record(conn, summary)
        scan_log.keep_progress(conn, scan_id, extract.progress.get("lines", []))
        keep_plan(extract, summary)
        extract.drop()
    return summary


def _tells_shares(context: MirrorContext, scope: Scope, extract: Extract) -> bool:
    """Return whether the scan has the usual scope, so that it can show which fields have vanished."""
    usual = scan_log.is_usual(context.conn, context.source.name, extract.entity.name, context.run, str(scope))
    return usual and not scope.partial and not extract.failed_partitions


def _require_synced(context: MirrorContext, entity: Entity) -> None:
    """Raise ScanRefused if the entity was never synced: its figures would be the baseline of all later runs."""
    if sync_log.oldest_watermark(context.conn, context.source.name, entity.name) is None:
        raise ScanRefused(
            f"{context.source.name}.{entity.name} was never synced, there is nothing to compare yet:"
            f" run the DAG {context.source.name}_sync, then clear scan with downstream"
        )


def _log_progress(extract: Extract, scope: Scope) -> None:
    """Log the progress of a scan, every `scope.progress_every` pages and at the end.

    The counts add to those of the last line, so that a line only costs the pages since then.
    """
    stage, pull = extract.stage, extract.stage.pull
    if not (pull.complete or (scope.progress_every and pull.pages % scope.progress_every == 0)):
        return
    before = extract.progress.get("told") or {}
    unique, missing = count_new(stage, before.get("pages", 0))
    unique += before.get("unique", 0)
    missing += before.get("missing", 0)
    scanned = pull.rows_read - pull.rows_refused
    line = {
        "event": "scan_progress",
        "entity": pull.entity,
        # Counted, since the position of a cursor is a token, which must not be logged.
        "page": scope.first + pull.pages - 1,
        "final_page": scope.final_page(stage),
        "api_rows_scanned": scanned,
        "api_unique_ids": unique,
        "duplicate_rows": scanned - unique,
        "missing_unique_ids_so_far": missing,
    }
    logged = {"pages": pull.pages, "unique": unique, "missing": missing}
    stage.save_progress(told=logged, lines=[*extract.progress.get("lines", []), line])
    log.info(json.dumps(line, sort_keys=True))


def _comparison(context: MirrorContext, scope: Scope, extract: Extract) -> Mapping[str, Any]:
    """Plan the differences between list and copy and return their figures. They are kept for the next attempt."""
    stage, entity, conn = extract.stage, extract.entity, context.conn
    done = extract.progress.get("compared")
    if done:
        return done
    work = {"source": context.source.name, "entity": entity.name, "run": context.run}
    possibly_alive = find_possibly_alive(context, extract)
    with span("compare", **work) as opened, conn.transaction():
        repeats = plan_suspects(context, extract, surplus=scope.not_in_api, possibly_alive=possibly_alive)
        forensics = entity.forensics(conn, stage.plan) if entity.forensics else {}
        planned = compare.plan_counts(stage)
        figures = {
            "identical": repeats.identical,
            "differing": repeats.differing,
            "compared": {each.table.name: _count_staged(each) for each in extract.stages},
            "live_rows": compare.live_rows(stage),
            "missing": _planned(planned, "insert") + _refused_missing(stage),
            "surplus": _planned(planned, "delete"),
            "missing_examples": compare.plan_examples(stage, "insert"),
            "forensics": dict(forensics),
        }
        stage.save_progress(compared=figures)
        opened.set_attributes({name: figure for name, figure in figures.items() if isinstance(figure, int)})
    return figures


def _count_staged(stage: Stage) -> int:
    """Return the number of staged rows."""
    return stage.conn.execute(sql.SQL("SELECT count(*) FROM {}").format(stage.sql)).fetchone()[0]


def _refused_missing(stage: Stage) -> int:
    """Return the number of refused rows that the copy lacks."""
    key = sql.SQL("jsonb_build_array({})").format(identifiers(stage.table.key, "t"))
    return stage.conn.execute(
        sql.SQL(
            "SELECT count(DISTINCT r.key) FROM {} r"
            " WHERE NOT EXISTS (SELECT FROM {} t WHERE t.deleted_at IS NULL AND {} = r.key)"
        ).format(stage.refused, stage.table.sql, key)
    ).fetchone()[0]


def find_possibly_alive(context: MirrorContext, extract: Extract) -> Mapping[tuple, str]:
    """Return the rows of the cascade's other entity that are deleted in the copy, but may be alive at the source.

    Only those with which staged rows are implicitly deleted. Each row is {key: reason}: why its state is unknown, or
    empty if it is alive. Then the copy is wrong about it: the row's own scan of the run brings it back, and this scan
    has to bring back the rows that were deleted with it.
    """
    cascade = extract.entity.cascade
    if cascade is None:
        return {}
    other = entity_of(context.source, cascade.entity)
    query = sql.SQL("SELECT DISTINCT {} FROM {} t WHERE {}").format(
        identifiers(cascade.by, "t"), extract.stage.sql, extract.implicitly_deleted
    )
    deleted = extract.stage.conn.execute(query).fetchall()
    found: dict[tuple, str] = {}
    for lookup in filter(None, (other.lookup, other.lookup.witness)):
        not_shown = []
        for value, look in look_up(context, other.table, lookup, deleted):
            found.pop(value, None)
            if look.unknown:
                found[value] = f"{other.name} {'/'.join(map(str, value))} could not be looked up: {look.unknown}"
            elif any(cascade.alive(row) for row in look.rows):
                found[value] = ""
            if not look.rows:
                not_shown.append(value)
        # The witness is asked only about these.
        deleted = not_shown
    return found


def plan_suspects(
    context: MirrorContext,
    extract: Extract,
    *,
    surplus: bool = True,
    possibly_alive: Mapping[tuple, str] = MappingProxyType({}),
) -> Repeats:
    """Plan the differences between list and copy. Those that need a second look become candidates.

    - `surplus`: plan deletes too, of rows of the copy that the list doesn't show
    - `possibly_alive`: the result of `find_possibly_alive`

    Return how many repeated rows were dropped. Call it in a transaction.
    """
    stage, entity, conn = extract.stage, extract.entity, context.conn
    for each in extract.stages:
        conn.execute(sql.SQL("ANALYZE {}").format(each.sql))
        each.empty_plan()
    repeats = extract.drop_repeats(list(possibly_alive))
    compare.plan_writes(stage, young_after=_young_after(context, extract), doubtful="candidate", older="candidate")
    doubt_unlike(extract)
    doubt_implied_deletes(context, extract)
    if surplus:
        within = in_scope(context, extract, "t")
        if entity.history:
            within = sql.SQL("({} AND {})").format(within, unlisted_series(extract))
        compare.plan_deletes(stage, status="candidate", within=within)
        _mark_failed_partitions(extract)
    mark_unknown_deletes(extract, {value: why for value, why in possibly_alive.items() if why})
    plan_nested_rows(extract, surplus=surplus)
    return repeats


def _mark_failed_partitions(extract: Extract) -> None:
    """Mark the planned deletes of failed partitions as unproven: their lists could not be read."""
    plan = extract.stage.plan
    update = sql.SQL("UPDATE {} SET _status = 'unproven', _why = {} WHERE _operation = 'delete' AND {}::text = {}")
    for partition, why in extract.failed_partitions.items():
        column = sql.Identifier(extract.entity.partitions.column)
        extract.stage.conn.execute(update.format(plan, sql.Literal(why), column, sql.Literal(partition)))


def _young_after(context: MirrorContext, extract: Extract) -> datetime | sql.Composable | None:
    """Return the time after which a changed row is young. None if there is no watermark.

    It is the watermark, but no earlier than SYNC_BRINGS_WITHIN ago: a row that has waited longer is drift, even if no
    sync has run. For an entity with partitions it is SQL over rows `s`, with the watermark of the row's partition.
    """
    entity, conn, source = extract.entity, context.conn, context.source.name
    earliest = extract.clock - SYNC_BRINGS_WITHIN - (entity.read_every or timedelta(0))

    def young_after(watermark: datetime | None) -> datetime | None:
        return watermark and max(watermark, earliest)

    if not entity.partitions or isinstance(entity, Child):
        return young_after(sync_log.oldest_watermark(conn, source, entity.name))
    parts = [
        sql.SQL("WHEN {} THEN {}").format(
            sql.Literal(each), sql.Literal(young_after(sync_log.state(conn, source, entity.name, each).watermark))
        )
        for each in extract.partitions
    ]
    column = sql.Identifier(entity.partitions.column)
    return sql.SQL("CASE s.{}::text {} END").format(column, sql.SQL(" ").join(parts)) if parts else None


def _planned(counts: Mapping[tuple[str, str], int], operation: str) -> int:
    """Return the number of rows planned for the operation, without young and due ones."""
    return sum(n for (op, status), n in counts.items() if op == operation and status not in ("young", "due"))
