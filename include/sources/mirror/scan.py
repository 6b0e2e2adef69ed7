"""The forensic scan: one entity of the source against its copy, read only, every suspect looked at twice."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from psycopg import sql

from include.confidence import history, unproven
from include.confidence.account import Account
from include.confidence.spans import span
from include.confidence.summary import ForensicSummary, Plan
from include.sources.base import ScanRefused, entity_of
from include.sources.mirror.entity import Context, Entity
from include.sources.mirror.evidence import account, remember, scope_of, too_much_left_out
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import look_up
from include.sources.mirror.planning import mark_unknown_deletes, plan_nested_rows
from include.sources.mirror.read import read_whole
from include.sources.mirror.second_look import LookCounts, second_look
from include.warehouse import compare, sync_log
from include.warehouse.compare import Repeats
from include.warehouse.staging import Stage, count_new
from include.warehouse.table import identifiers

# What changed at the source longer ago is missing, though no sync has run since.
SYNC_BRINGS_WITHIN = timedelta(days=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scope:
    """What part of the list is scanned.

    `page_start`: first page, from 1; `page_end`: last page, 0 for all. `not_in_api`: whether to look for rows of the
    copy that the source has not, which only a whole scan can tell. `progress_every`: pages between two progress
    lines, 0 for the last page only. `filtered`: what the lists are asked for, where that isn't all.
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
        """The scope that a run's params ask for; lists without page numbers have no params for them."""
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
        return self.first > 1 or self.page_end > 0

    def __str__(self) -> str:
        pages = f"pages {self.first}-{self.page_end or 'end'}" if self.partial else ""
        return ", ".join(filter(None, [self.filtered, pages])) or "all"


def scan_entity(context: Context, entity: Entity, epoch: int, scope: Scope) -> ForensicSummary:
    """Scan the entity, leave the evidence in confidence.forensic_run and the plan in staging; return the summary.

    A scan that was cut off goes on from the page that it had reached, as long as the writer has been stopped all the
    time (same run, same epoch).
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
        on_page=lambda extract: _progress(extract, scope),
    )
    figures = _compared(context, scope, extract)
    looks = second_look(context, extract)
    with conn.transaction():
        remember(context, extract, whole=str(scope) == "all")
        summary = _summary(context, scope, extract, figures, scan_id, epoch, looks)
        history.record(conn, summary)
        history.keep_progress(conn, scan_id, extract.progress.get("lines", []))
        extract.drop()
    return summary


def _require_synced(context: Context, entity: Entity) -> None:
    """Figures of a copy that was never filled would be the baseline of all later runs."""
    if sync_log.oldest_watermark(context.conn, context.source.name, entity.name) is None:
        raise ScanRefused(
            f"{context.source.name}.{entity.name} was never synced, there is nothing to compare yet:"
            f" run the DAG {context.source.name}_sync, then clear scan with downstream"
        )


def _progress(extract: Extract, scope: Scope) -> None:
    """Now and then a log line; its counts go on from the line before, so a line costs what came since."""
    stage, pull = extract.stage, extract.stage.pull
    if not (pull.complete or (scope.progress_every and pull.pages % scope.progress_every == 0)):
        return
    before = extract.progress.get("told") or {}
    unique, missing = count_new(stage, before.get("pages", 0))
    unique += before.get("unique", 0)
    missing += before.get("missing", 0)
    scanned = stage.pull.rows_read - stage.pull.rows_refused
    # Counted, not asked for: a cursor's position is a token, which belongs into no log.
    number = scope.first + stage.pull.pages - 1
    line = {
        "event": "scan_progress",
        "entity": stage.pull.entity,
        "page": number,
        "final_page": _final_page(stage, scope),
        "api_rows_scanned": scanned,
        "api_unique_ids": unique,
        "duplicate_rows": scanned - unique,
        "missing_unique_ids_so_far": missing,
    }
    told = {"pages": stage.pull.pages, "unique": unique, "missing": missing}
    stage.save_progress(told=told, lines=[*extract.progress.get("lines", []), line])
    log.info(json.dumps(line, sort_keys=True))


def _final_page(stage: Stage, scope: Scope) -> int:
    """The last page that is scanned: the one that was asked for, or the list's last one if that comes before."""
    reached = scope.first + stage.pull.pages - 1
    if stage.pull.complete:
        return reached
    last = max(stage.pull.total_pages or 0, reached)
    return min(scope.page_end, last) if scope.page_end else last


def _compared(context: Context, scope: Scope, extract: Extract) -> Mapping[str, Any]:
    """Compare stage and copy once; the figures stay with the pull for an attempt that comes after."""
    stage, entity, conn = extract.stage, extract.entity, context.conn
    done = extract.progress.get("compared")
    if done:
        return done
    work = {"source": context.source.name, "entity": entity.name, "run": context.run}
    standing = still_standing(context, extract)
    with span("compare", **work) as opened, conn.transaction():
        repeats = suspect(context, extract, surplus=scope.not_in_api, standing=standing)
        forensics = entity.forensics(conn, stage.plan) if entity.forensics else {}
        figures = {
            "identical": repeats.identical,
            "differing": repeats.differing,
            "compared": {each.table.name: stage_rows(each) for each in extract.stages},
            "live_rows": compare.live_rows(stage),
            "missing": _planned(compare.plan_counts(stage), "insert") + _refused_missing(stage),
            "surplus": _planned(compare.plan_counts(stage), "delete"),
            "missing_examples": compare.plan_examples(stage, "insert"),
            "forensics": dict(forensics),
        }
        stage.save_progress(compared=figures)
        opened.set_attributes({name: figure for name, figure in figures.items() if isinstance(figure, int)})
    return figures


def stage_rows(stage: Stage) -> int:
    """How many rows are staged."""
    return stage.conn.execute(sql.SQL("SELECT count(*) FROM {}").format(stage.sql)).fetchone()[0]


def _refused_missing(stage: Stage) -> int:
    """The refused rows that the copy lacks."""
    key = sql.SQL("jsonb_build_array({})").format(identifiers(stage.table.key, "t"))
    return stage.conn.execute(
        sql.SQL(
            "SELECT count(DISTINCT r.key) FROM {} r"
            " WHERE NOT EXISTS (SELECT FROM {} t WHERE t.deleted_at IS NULL AND {} = r.key)"
        ).format(stage.refused, stage.table.sql, key)
    ).fetchone()[0]


def still_standing(context: Context, extract: Extract) -> Mapping[tuple, str]:
    """The rows with which listed ones have fallen in the copy, though they stand at the source, or may stand there.

    Each with the reason why that is unknown, empty where it is known. What the copy holds of those that stand is wrong,
    and another scan of the run repairs it; what fell with them comes back with them.
    """
    falls = extract.entity.falls
    if falls is None:
        return {}
    other = entity_of(context.source, falls.entity)
    fallen = extract.stage.conn.execute(
        sql.SQL("SELECT DISTINCT {} FROM {} t WHERE {}").format(
            identifiers(falls.by, "t"), extract.stage.sql, extract.implicitly_deleted
        )
    ).fetchall()
    standing: dict[tuple, str] = {}
    for lookup in filter(None, (other.lookup, other.lookup.witness)):
        silent = []
        for value, look in look_up(context, other.table, lookup, fallen):
            standing.pop(value, None)
            if look.unknown:
                standing[value] = f"{other.name} {'/'.join(map(str, value))} could not be looked up: {look.unknown}"
            elif any(falls.alive(row) for row in look.rows):
                standing[value] = ""
            if not look.rows:
                silent.append(value)
        # What a list doesn't show is asked for at its own address.
        fallen = silent
    return standing


def suspect(
    context: Context, extract: Extract, *, surplus: bool = True, standing: Mapping[tuple, str] = MappingProxyType({})
) -> Repeats:
    """Plan what differs between the list and the copy: candidates where a second look has to decide.

    `surplus`: rows of the copy that the list has not count too. `standing`: what `still_standing` has found. The
    caller's transaction holds it together.
    """
    stage, entity, conn = extract.stage, extract.entity, context.conn
    for each in extract.stages:
        conn.execute(sql.SQL("ANALYZE {}").format(each.sql))
        conn.execute(sql.SQL("TRUNCATE {}").format(each.plan))
    repeats = extract.drop_repeats(list(standing))
    compare.plan_writes(stage, young_after=_in_step(context, extract), doubtful="candidate", older="candidate")
    if surplus and not entity.history:
        compare.plan_deletes(stage, status="candidate", within=scope_of(context, extract, "t"))
        _leave_failed(extract)
    mark_unknown_deletes(extract, {value: why for value, why in standing.items() if why})
    plan_nested_rows(extract, surplus=surplus)
    return repeats


def _leave_failed(extract: Extract) -> None:
    """Rows of a partition whose list could not be read are unproven, and no suspects."""
    plan = extract.stage.plan
    update = sql.SQL("UPDATE {} SET _status = 'unproven', _why = {} WHERE _operation = 'delete' AND {}::text = {}")
    for partition, why in extract.failed_partitions.items():
        column = sql.Identifier(extract.entity.partitions.column)
        extract.stage.conn.execute(update.format(plan, sql.Literal(why), column, sql.Literal(partition)))


def _in_step(context: Context, extract: Extract) -> datetime | sql.Composable | None:
    """The time after which a staged row `s` is young: how far the entity, or the row's partition, has been synced."""
    entity, conn, source = extract.entity, context.conn, context.source.name
    clock = extract.stage.pull.source_time or datetime.now(UTC)
    overdue = clock - SYNC_BRINGS_WITHIN - (entity.read_every or timedelta(0))

    def young_after(watermark: datetime | None) -> datetime | None:
        return watermark and max(watermark, overdue)

    if not entity.partitions:
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
    return sum(n for (op, status), n in counts.items() if op == operation and status != "young")


def _summary(
    context: Context,
    scope: Scope,
    extract: Extract,
    figures: Mapping[str, Any],
    scan_id: str,
    epoch: int,
    looks: LookCounts,
) -> ForensicSummary:
    entity, stage = extract.entity, extract.stage
    counts, pull = compare.plan_counts(stage), stage.pull
    compared = scope.not_in_api and not entity.history
    scanned = pull.rows_read - pull.rows_refused
    repeats = figures["identical"] + figures["differing"]
    confirmed = _total([counts])
    total = pull.total_entries
    accounts = {
        each.table.name: account(context, extract, each, figures["compared"][each.table.name], surplus=scope.not_in_api)
        for each in extract.stages
    }
    tables = [each.table.name for each in extract.stages]
    metrics = {
        "api_rows_scanned": scanned,
        "api_unique_ids": scanned - repeats,
        "api_duplicate_rows": repeats,
        "api_duplicate_rows_differing": figures["differing"],
        "db_total_rows": figures["live_rows"],
        "api_unique_not_in_db": figures["missing"],
        "confirmed_missing": confirmed.insert,
        "db_not_in_api_unique": figures["surplus"] if compared else None,
        "confirmed_deleted": confirmed.delete if compared else None,
        "rows_differing": confirmed.update,
        "feed_noise": sum(n for (_, status), n in counts.items() if status == "noise"),
        "rows_young": sum(n for (_, status), n in counts.items() if status == "young"),
        "rows_refused": pull.rows_refused,
        **unproven.metrics(context.conn, context.source.name, tables),
        **figures["forensics"],
    }
    parts = {part.table.name: compare.plan_counts(each) for part, each in extract.parts}
    for name, found in parts.items():
        metrics |= {
            f"{name}_missing": found["insert", "confirmed"],
            f"{name}_surplus": found["delete", "confirmed"],
            f"{name}_differing": found["update", "confirmed"],
        }
    telemetry = {
        "page_start": scope.first,
        "page_end": _final_page(stage, scope),
        "api_reported_total_entries": total,
        "gap_vs_api_reported_total": None if total is None else total - figures["live_rows"],
        "partitions_asked": len(extract.partitions) if entity.partitions else None,
    }
    examples = {
        "missing_examples": figures["missing_examples"],
        **{f"{operation}_examples": compare.plan_examples(stage, operation) for operation in ("update", "delete")},
        **unproven.examples(context.conn, context.source.name, tables),
    }
    return ForensicSummary(
        source=context.source.name,
        entity=entity.name,
        scope=str(scope),
        scan_id=scan_id,
        run=context.run,
        epoch=epoch,
        metrics=metrics,
        telemetry=telemetry,
        plan=_total([counts, *parts.values()]),
        live_rows=sum(each.looked_at for each in accounts.values()),
        examples=examples,
        accounts=accounts,
        incomplete=_incomplete(extract, accounts, looks),
    )


def _incomplete(extract: Extract, accounts: Mapping[str, Account], looks: LookCounts) -> str:
    """Why the scan is no evidence; empty if it is."""
    entity, name = extract.entity, extract.entity.name
    if looks.all_unknown:
        return f"{name}: none of the {looks.asked} requests for a second look got a usable answer"
    return entity.unproven.no_evidence(accounts) or too_much_left_out(extract, accounts[name])


def _total(counts: Sequence[Mapping[tuple[str, str], int]]) -> Plan:
    """What the plans would change together."""
    return Plan(*(sum(c[operation, "confirmed"] for c in counts) for operation in ("insert", "update", "delete")))
