"""The forensic scan: compare one entity of the source with its copy. It writes nothing but evidence."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from psycopg import sql

from include.confidence import scan_log, unproven
from include.confidence.account import Account
from include.confidence.policy import lost_examples
from include.confidence.spans import span
from include.confidence.summary import MAX_EXAMPLES, ForensicSummary, Plan
from include.sources.base import ScanRefused, entity_of
from include.sources.mirror.entity import BothEnds, Entity, MirrorContext
from include.sources.mirror.entity_census import FieldFigures, keep_fields, lost_fields
from include.sources.mirror.evidence import account, in_scope, keep_plan, remember_unproven, too_many_unlisted
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import look_up
from include.sources.mirror.planning import doubt_lagging_source, mark_unknown_deletes, plan_nested_rows
from include.sources.mirror.read import read_whole
from include.sources.mirror.second_look import LookCounts, read_listed_again, second_look
from include.warehouse import compare, sync_log
from include.warehouse.compare import Repeats
from include.warehouse.sql_fragments import identifiers, same_key
from include.warehouse.staging import Stage, count_new

# How long a source may lag behind. Only then is it believed that a record has gone back to an older version.
OLDER_BELIEVED_AFTER = timedelta(days=1)
# How long a row is young at most. Entities with `read_every` have that time in addition.
SYNC_BRINGS_WITHIN = timedelta(days=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scope:
    """The part of an entity that a scan looks at.

    - `page_start`: the first page, from 1
    - `page_end`: the last page, 0 for the list's last
    - `progress_every`: pages between two log lines, 0 for a line at the end only
    - `not_in_api`: whether to look for rows of the copy that the lists don't show. Only a scan of all pages can.
    - `filtered`: a text that names the filter of the lists; empty if there is none

    Raises ScanRefused where `not_in_api` is asked of single pages.
    """

    page_start: int = 1
    page_end: int = 0
    progress_every: int = 250
    not_in_api: bool = True
    filtered: str = ""

    def __post_init__(self) -> None:
        if self.partial and self.not_in_api:
            raise ScanRefused(
                f"compute_db_not_in_api needs a whole scan, but only {self} were asked for:"
                " untick it, or leave page_start at 1 and page_end at 0"
            )

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Scope":
        """Return the scope that the params of a run ask for. Sources without page numbers have no params for pages."""
        return cls(
            page_start=params.get("page_start", 1),
            page_end=params.get("page_end", 0),
            progress_every=params["progress_every"],
            not_in_api=params.get("compute_db_not_in_api", True),
        )

    @property
    def first(self) -> int:
        return max(1, self.page_start)

    @property
    def partial(self) -> bool:
        """Whether only some pages are scanned."""
        return self.first > 1 or self.page_end > 0

    @property
    def whole(self) -> bool:
        """Whether the whole entity is scanned, with all pages and no filter."""
        return str(self) == "all"

    def __str__(self) -> str:
        pages = f"pages {self.first}-{self.page_end or 'end'}" if self.partial else ""
        return ", ".join(filter(None, [self.filtered, pages])) or "all"


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
    looks = second_look(context, extract)
    if entity.history:
        keep_ended_series(extract)
    read_listed_again(context, extract)
    doubt_lagging_source(extract, _clock(extract) - OLDER_BELIEVED_AFTER)
    with conn.transaction():
        remember_unproven(context, extract, whole=scope.whole)
        fields = keep_fields(context, extract, whole=_tells_shares(context, scope, extract))
        summary = _summary(context, scope, extract, figures, scan_id, epoch, looks, fields)
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
        "final_page": _final_page(stage, scope),
        "api_rows_scanned": scanned,
        "api_unique_ids": unique,
        "duplicate_rows": scanned - unique,
        "missing_unique_ids_so_far": missing,
    }
    logged = {"pages": pull.pages, "unique": unique, "missing": missing}
    stage.save_progress(told=logged, lines=[*extract.progress.get("lines", []), line])
    log.info(json.dumps(line, sort_keys=True))


def _final_page(stage: Stage, scope: Scope) -> int:
    """Return the last page of the scan: the requested one, or the list's last if that comes first."""
    reached = scope.first + stage.pull.pages - 1
    if stage.pull.complete:
        return reached
    last = max(stage.pull.total_pages or 0, reached)
    return min(scope.page_end, last) if scope.page_end else last


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
        figures = {
            "identical": repeats.identical,
            "differing": repeats.differing,
            "compared": {each.table.name: _count_staged(each) for each in extract.stages},
            "live_rows": compare.live_rows(stage),
            "missing": _planned(compare.plan_counts(stage), "insert") + _refused_missing(stage),
            "surplus": _planned(compare.plan_counts(stage), "delete"),
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
    """Return the rows of the other entity that may be alive at the source, though staged rows are deleted with them.

    As {key: reason}: why the row's state is unknown, or empty if the row is alive. The copy is then wrong about that
    row, and another scan of the run repairs it. This scan has to bring back the rows that were deleted with it.
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
        conn.execute(sql.SQL("TRUNCATE {}").format(each.plan))
    repeats = extract.drop_repeats(list(possibly_alive))
    compare.plan_writes(stage, young_after=_young_after(context, extract), doubtful="candidate", older="candidate")
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


def unlisted_series(extract: Extract) -> sql.Composable:
    """Return SQL over rows `t` of a history, true for the newest row of a series if the list shows none as new.

    A series are the rows whose keys differ in their version alone. If the key has no version, each row is all there is
    of its series, and the list may show it no more.
    """
    table = extract.entity.table
    series = tuple(name for name in table.key if name not in compare.version_columns(table))
    if series in ((), table.key):
        return sql.SQL("false")
    return sql.SQL(UNLISTED_SERIES).format(
        table=table.sql,
        stage=extract.stage.sql,
        n_is_t=same_key(series, "n", "t"),
        s_is_t=same_key(series, "s", "t"),
        version=sql.Identifier(table.version),
        ended=sql.SQL(extract.entity.ended),
    )


def keep_ended_series(extract: Extract) -> None:
    """Take the deletes that are proven out of the plan of a history: the series has ended, and its rows stay."""
    query = sql.SQL("DELETE FROM {} WHERE _operation = 'delete' AND _status = 'confirmed'")
    extract.stage.conn.execute(query.format(extract.stage.plan))


def _young_after(context: MirrorContext, extract: Extract) -> datetime | sql.Composable | None:
    """Return the time after which a changed row is young. None if there is no watermark.

    It is the watermark, but no earlier than SYNC_BRINGS_WITHIN ago: a row that has waited longer is drift, even if no
    sync has run. For an entity with partitions it is SQL over rows `s`, with the watermark of the row's partition. If
    syncs may miss changes in the middle of the list, only new rows are young. It is then SQL over `s` and the copy's
    row `t`.
    """
    entity, conn, source = extract.entity, context.conn, context.source.name
    earliest = _clock(extract) - SYNC_BRINGS_WITHIN - (entity.read_every or timedelta(0))

    def young_after(watermark: datetime | None) -> datetime | None:
        return watermark and max(watermark, earliest)

    if not entity.partitions:
        after = young_after(sync_log.oldest_watermark(conn, source, entity.name))
        if isinstance(entity.changes, BothEnds) and not entity.changes.newest_first:
            is_new = sql.SQL("t.{} IS NULL").format(sql.Identifier(entity.table.key[0]))
            return sql.SQL("CASE WHEN {} THEN {} END").format(is_new, sql.Literal(after))
        return after
    parts = [
        sql.SQL("WHEN {} THEN {}").format(
            sql.Literal(each), sql.Literal(young_after(sync_log.state(conn, source, entity.name, each).watermark))
        )
        for each in extract.partitions
    ]
    column = sql.Identifier(entity.partitions.column)
    return sql.SQL("CASE s.{}::text {} END").format(column, sql.SQL(" ").join(parts)) if parts else None


def _clock(extract: Extract) -> datetime:
    """Return the source's clock when the scan began; ours if the source tells no time."""
    return extract.stage.pull.source_time or datetime.now(UTC)


def _planned(counts: Mapping[tuple[str, str], int], operation: str) -> int:
    """Return the number of rows planned for the operation, without young and due ones."""
    return sum(n for (op, status), n in counts.items() if op == operation and status not in ("young", "due"))


def _summary(
    context: MirrorContext,
    scope: Scope,
    extract: Extract,
    figures: Mapping[str, Any],
    scan_id: str,
    epoch: int,
    looks: LookCounts,
    fields: FieldFigures,
) -> ForensicSummary:
    """Return the summary of a scan after the second look. `figures` are those of `_comparison`."""
    accounts = {
        stage.table.name: account(
            context, extract, stage, figures["compared"][stage.table.name], surplus=scope.not_in_api
        )
        for stage in extract.stages
    }
    return ForensicSummary(
        source=context.source.name,
        entity=extract.entity.name,
        scope=str(scope),
        scan_id=scan_id,
        run=context.run,
        epoch=epoch,
        metrics={**_metrics(context, scope, extract, figures), **fields.metrics},
        telemetry=_telemetry(scope, extract, figures),
        plan=_total_plan([compare.plan_counts(stage) for stage in extract.stages]),
        live_rows=sum(each.looked_at for each in accounts.values()),
        examples=_examples(context, extract, figures, fields),
        accounts=accounts,
        incomplete=_incomplete(extract, accounts, looks, fields),
    )


def _metrics(context: MirrorContext, scope: Scope, extract: Extract, figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metrics of the glossary. None for those that the scan could not tell."""
    counts, pull = compare.plan_counts(extract.stage), extract.stage.pull
    confirmed = _total_plan([counts])
    scanned = pull.rows_read - pull.rows_refused
    repeats = figures["identical"] + figures["differing"]
    found_surplus = scope.not_in_api and not extract.entity.history
    metrics = {
        "api_rows_scanned": scanned,
        "api_unique_ids": scanned - repeats,
        "api_duplicate_rows": repeats,
        "api_duplicate_rows_differing": figures["differing"],
        "db_total_rows": figures["live_rows"],
        "api_unique_not_in_db": figures["missing"],
        "confirmed_missing": confirmed.insert,
        "db_not_in_api_unique": figures["surplus"] if found_surplus else None,
        "confirmed_deleted": confirmed.delete if found_surplus else None,
        "rows_differing": confirmed.update,
        "feed_noise": sum(n for (_, status), n in counts.items() if status == "noise"),
        "rows_young": sum(n for (_, status), n in counts.items() if status == "young"),
        "rows_due": sum(n for (_, status), n in counts.items() if status == "due"),
        "rows_refused": pull.rows_refused,
        **unproven.metrics(context.conn, context.source.name, _table_names(extract)),
        **figures["forensics"],
    }
    if extract.parts:
        nested = _total_plan([compare.plan_counts(stage) for _, stage in extract.parts])
        metrics["nested_rows_drifted"] = nested.rows
    for part, stage in extract.parts:
        name, changes = part.table.name, _total_plan([compare.plan_counts(stage)])
        metrics |= {
            f"{name}_missing": changes.insert,
            f"{name}_surplus": changes.delete,
            f"{name}_differing": changes.update,
        }
    return metrics


def _telemetry(scope: Scope, extract: Extract, figures: Mapping[str, Any]) -> Mapping[str, Any]:
    total = extract.stage.pull.total_entries
    return {
        "page_start": scope.first,
        "page_end": _final_page(extract.stage, scope),
        "api_reported_total_entries": total,
        "gap_vs_api_reported_total": None if total is None else total - figures["live_rows"],
        "partitions_asked": len(extract.partitions) if extract.entity.partitions else None,
    }


def _examples(
    context: MirrorContext, extract: Extract, figures: Mapping[str, Any], fields: FieldFigures
) -> Mapping[str, list]:
    """Return what the summary names: keys of rows (missing before the second look, the rest after it), lost fields."""
    stage = extract.stage
    lost = {lost_examples(metric): list(names[:MAX_EXAMPLES]) for metric, names in fields.lost.items() if names}
    return lost | {
        "missing_examples": figures["missing_examples"],
        **{f"{operation}_examples": compare.plan_examples(stage, operation) for operation in ("update", "delete")},
        **unproven.examples(context.conn, context.source.name, _table_names(extract)),
    }


def _table_names(extract: Extract) -> list[str]:
    return [stage.table.name for stage in extract.stages]


def _incomplete(extract: Extract, accounts: Mapping[str, Account], looks: LookCounts, fields: FieldFigures) -> str:
    """Return why the scan is no evidence; empty if it is evidence."""
    entity, name = extract.entity, extract.entity.name
    if looks.all_unknown:
        return f"{name}: none of the {looks.asked} requests for a second look got a usable answer"
    why = entity.unproven.no_evidence(accounts) or too_many_unlisted(extract, accounts[name])
    return ". ".join([why, *lost_fields(fields.lost)]) if why else ""


def _total_plan(counts: Sequence[Mapping[tuple[str, str], int]]) -> Plan:
    """Return the numbers of confirmed changes in all the plans together."""
    return Plan(*(sum(c[operation, "confirmed"] for c in counts) for operation in ("insert", "update", "delete")))


UNLISTED_SERIES = """(NOT ({ended})
  AND NOT EXISTS (SELECT FROM {table} n WHERE n.deleted_at IS NULL AND {n_is_t} AND n.{version} > t.{version})
  AND NOT EXISTS (SELECT FROM {stage} s WHERE {s_is_t} AND s.{version} >= t.{version}))
"""
