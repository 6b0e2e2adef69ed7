"""The forensic scan: one entity of the source against its copy, read only, every suspect looked at twice."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from include.api.errors import ApiError, NotFound
from include.api.fetch import pages
from include.confidence import history
from include.confidence.summary import ForensicSummary, Plan
from include.sources.base import ScanRefused
from include.sources.mirror.entity import Context, Entity, Lookup
from include.sources.mirror.sync import look_up
from include.warehouse import compare, sync_log
from include.warehouse.staging import Stage, count_new
from include.warehouse.table import RowRefused, identifiers

log = logging.getLogger(__name__)

# Narrow requests that a scan of one entity may spend on its suspects; what exceeds it stays unconfirmed.
SECOND_LOOKS = 500


@dataclass(frozen=True)
class Scope:
    """What part of the list is scanned.

    `page_start`: first page, from 1; `page_end`: last page, 0 for all. `not_in_api`: whether to look for rows of the
    copy that the source has not, which only a whole scan can tell. `progress_every`: pages between two progress
    lines, 0 for the last page only.
    """

    page_start: int = 1
    page_end: int = 0
    progress_every: int = 250
    not_in_api: bool = True

    def __post_init__(self) -> None:
        if self.partial and self.not_in_api:
            raise ScanRefused(
                f"compute_db_not_in_api needs a whole scan, but only {self} were asked for:"
                " untick it, or leave page_start at 1 and page_end at 0"
            )

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Scope":
        """The scope that a run's params ask for."""
        return cls(
            page_start=params["page_start"],
            page_end=params["page_end"],
            progress_every=params["progress_every"],
            not_in_api=params["compute_db_not_in_api"],
        )

    @property
    def first(self) -> int:
        return max(1, self.page_start)

    @property
    def partial(self) -> bool:
        return self.first > 1 or self.page_end > 0

    def __str__(self) -> str:
        return f"pages {self.first}-{self.page_end or 'end'}" if self.partial else "all"


def scan(context: Context, entity: Entity, epoch: int, scope: Scope) -> ForensicSummary:
    """Scan the entity, leave the evidence in confidence.forensic_run and the plan in staging; return the summary.

    A scan that was cut off goes on from the page that it had reached, as long as the writer has been stopped all the
    time (same run, same epoch).
    """
    conn, source = context.conn, context.source
    _require_synced(context, entity)
    scan_id = f"{context.run}/{entity.name}/{epoch}"
    stage = Stage.open(conn, entity.table, source.name, "scan", f"{scan_id}/{scope}")
    _read_pages(context, entity, scope, stage)
    figures = _compared(context, entity, scope, stage)
    _second_look(context, entity, stage)
    summary = _summary(context, entity, scope, stage, figures, scan_id, epoch)
    log.info(summary.line())
    with conn.transaction():
        history.record(conn, summary)
        stage.drop()
    return summary


def _require_synced(context: Context, entity: Entity) -> None:
    """Figures of a copy that was never filled would be the baseline of all later runs."""
    if sync_log.state(context.conn, context.source.name, entity.name).watermark is None:
        raise ScanRefused(
            f"{context.source.name}.{entity.name} was never synced, there is nothing to compare yet:"
            f" run the DAG {context.source.name}_sync, then clear scan with downstream"
        )


def _read_pages(context: Context, entity: Entity, scope: Scope, stage: Stage) -> None:
    if stage.pull.complete:
        return
    if stage.resumed:
        log.info("going on from page %d, %d rows are staged", scope.first + stage.pull.pages, stage.pull.rows_read)
    feed = pages(
        context.client,
        entity.listing,
        entity.paginator,
        position=stage.pull.position or (scope.first if scope.partial else None),
        stop=scope.page_end or None,
        workers=context.workers,
    )
    for page in feed:
        last = page.next is None or page.position == (scope.page_end or None)
        info = {
            "source_time": page.date,
            "total_entries": page.total_entries,
            "total_pages": page.total_pages,
        }
        stage.append(page.rows, next_position=None if last else page.next, page_info=info)
        if last or (scope.progress_every and stage.pull.pages % scope.progress_every == 0):
            _progress(stage, scope)


def _progress(stage: Stage, scope: Scope) -> None:
    """One log line; the counts go on from the line before, so a line costs what came since."""
    before = stage.pull.progress or {}
    unique, missing = count_new(stage, before.get("pages", 0))
    unique += before.get("unique", 0)
    missing += before.get("missing", 0)
    stage.save_progress(pages=stage.pull.pages, unique=unique, missing=missing)
    scanned = stage.pull.rows_read - stage.pull.rows_refused
    # Counted, not asked for: a cursor's position is a token, which belongs into no log.
    number = scope.first + stage.pull.pages - 1
    line = {
        "event": "scan_progress",
        "entity": stage.pull.entity,
        "page": number,
        "final_page": scope.page_end or max(stage.pull.total_pages or 0, number),
        "api_rows_scanned": scanned,
        "api_unique_ids": unique,
        "duplicate_rows": scanned - unique,
        "missing_unique_ids_so_far": missing,
    }
    log.info(json.dumps(line, sort_keys=True))


def _compared(context: Context, entity: Entity, scope: Scope, stage: Stage) -> Mapping[str, Any]:
    """Compare stage and copy once; the figures stay with the pull for an attempt that comes after."""
    done = (stage.pull.progress or {}).get("compared")
    if done:
        return done
    watermark = sync_log.state(context.conn, context.source.name, entity.name).watermark
    with context.conn.transaction():
        context.conn.execute(sql.SQL("ANALYZE {}").format(stage.sql))
        context.conn.execute(sql.SQL("TRUNCATE {}").format(stage.plan))
        repeats = compare.drop_repeats(stage)
        compare.plan_writes(stage, young_after=watermark, missing="candidate", older="candidate")
        if scope.not_in_api:
            compare.plan_deletes(stage, status="candidate")
        forensics = entity.forensics(context.conn, stage.plan) if entity.forensics else {}
        figures = {
            "identical": repeats.identical,
            "differing": repeats.differing,
            "live_rows": compare.live_rows(stage),
            "missing": _suspects(compare.plan_counts(stage), "insert"),
            "surplus": _suspects(compare.plan_counts(stage), "delete"),
            "missing_examples": compare.plan_examples(stage, "insert"),
            "forensics": dict(forensics),
        }
        stage.save_progress(compared=figures)
    return figures


def _suspects(counts: Mapping[tuple[str, str], int], operation: str) -> int:
    return sum(n for (op, status), n in counts.items() if op == operation and status != "young")


def _second_look(context: Context, entity: Entity, stage: Stage) -> None:
    """Ask the narrow request about every candidate, as far as the budget goes; the rest is unconfirmed."""
    by, lookup = sql.Identifier(entity.lookup.by), entity.lookup
    values = stage.conn.execute(
        sql.SQL(
            "SELECT DISTINCT {by} FROM {plan} WHERE _status = 'candidate' AND {by} IS NOT NULL ORDER BY 1 LIMIT {limit}"
        ).format(by=by, plan=stage.plan, limit=sql.Literal(SECOND_LOOKS))
    ).fetchall()
    for value, found in look_up(context, lookup, (row[0] for row in values)):
        with stage.conn.transaction():
            _settle(stage, lookup, value, found)
    left = stage.conn.execute(
        sql.SQL("UPDATE {} SET _status = 'unconfirmed' WHERE _status = 'candidate'").format(stage.plan)
    ).rowcount
    if left:
        log.warning("%d suspects of %s got no second look and will not be repaired by this run", left, entity.name)


def _settle(stage: Stage, lookup: Lookup, value: Any, found: list | ApiError) -> None:
    """Decide the candidates that share `value` by what the narrow request found."""
    table = stage.table
    candidates = stage.conn.execute(
        sql.SQL("SELECT _operation, {key} FROM {plan} WHERE _status = 'candidate' AND {by} = %s").format(
            key=identifiers(table.key), plan=stage.plan, by=sql.Identifier(lookup.by)
        ),
        [value],
    ).fetchall()
    rows = _by_key(stage, found)
    for operation, *key in candidates:
        row = rows.get(tuple(key)) if rows is not None else None
        if rows is None or (row is None and None in rows):
            _set_status(stage, key, "unconfirmed")
        elif row is None:
            _set_status(stage, key, "confirmed" if operation == "delete" else "noise")
        else:
            _take(stage, key, row)


def _by_key(stage: Stage, found: list | ApiError) -> dict[tuple | None, Any] | None:
    """The rows found by key (None: of a row without a usable id); nothing where all is absent; None if unknown."""
    if isinstance(found, NotFound):
        return {}
    if isinstance(found, ApiError):
        log.warning("a second look failed, its suspects stay unconfirmed: %s", found)
        return None
    return {stage.table.key_of(row): row for row in found}


def _take(stage: Stage, key: list, row: Mapping[str, Any]) -> None:
    try:
        stage.replace_row(row)
    except RowRefused as reason:
        log.warning("%s of %s is there but can't be stored: %s", key, stage.pull.entity, reason)
        _set_status(stage, key, "unconfirmed")
    else:
        compare.replan(stage, [tuple(key)])


def _set_status(stage: Stage, key: list, status: str) -> None:
    where = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(part))
        for name, part in zip(stage.table.key, key, strict=True)
    )
    stage.conn.execute(sql.SQL("UPDATE {} SET _status = {} WHERE {}").format(stage.plan, sql.Literal(status), where))


def _summary(
    context: Context,
    entity: Entity,
    scope: Scope,
    stage: Stage,
    figures: Mapping[str, Any],
    scan_id: str,
    epoch: int,
) -> ForensicSummary:
    counts, pull = compare.plan_counts(stage), stage.pull
    scanned = pull.rows_read - pull.rows_refused
    repeats = figures["identical"] + figures["differing"]
    confirmed = Plan(*(counts[operation, "confirmed"] for operation in ("insert", "update", "delete")))
    total = pull.total_entries
    metrics = {
        "api_rows_scanned": scanned,
        "api_unique_ids": scanned - repeats,
        "api_duplicate_rows": repeats,
        "api_duplicate_rows_differing": figures["differing"],
        "db_total_rows": figures["live_rows"],
        "api_unique_not_in_db": figures["missing"],
        "confirmed_missing": confirmed.insert,
        "db_not_in_api_unique": figures["surplus"] if scope.not_in_api else None,
        "confirmed_deleted": confirmed.delete if scope.not_in_api else None,
        "rows_differing": confirmed.update,
        "feed_noise": sum(n for (_, status), n in counts.items() if status == "noise"),
        "unconfirmed": sum(n for (_, status), n in counts.items() if status == "unconfirmed"),
        "rows_young": sum(n for (_, status), n in counts.items() if status == "young"),
        "rows_refused": pull.rows_refused,
        **figures["forensics"],
    }
    telemetry = {
        "page_start": scope.first,
        "page_end": scope.page_end or scope.first + pull.pages - 1,
        "api_reported_total_entries": total,
        "gap_vs_api_reported_total": None if total is None else total - figures["live_rows"],
    }
    examples = {
        "missing_examples": figures["missing_examples"],
        **{f"{operation}_examples": compare.plan_examples(stage, operation) for operation in ("update", "delete")},
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
        plan=confirmed,
        live_rows=figures["live_rows"],
        examples=examples,
    )
