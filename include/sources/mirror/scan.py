"""The forensic scan: one entity of the source against its copy, read only, every suspect looked at twice."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql

from include.api.errors import ApiError, NotFound
from include.confidence import history
from include.confidence.spans import span
from include.confidence.summary import ForensicSummary, Plan
from include.sources.base import ScanRefused
from include.sources.mirror.entity import Context, Entity
from include.sources.mirror.lookup import look_up
from include.sources.mirror.pull import Pulled, partitions, plan_parts, read, replace, whole_list
from include.warehouse import compare, sync_log
from include.warehouse.compare import Repeats
from include.warehouse.staging import Stage, count_new
from include.warehouse.table import RowRefused, among, are, identifiers

log = logging.getLogger(__name__)

# Narrow requests that a scan of one entity may spend on its suspects; what exceeds it stays unconfirmed.
SECOND_LOOKS = 500


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


def scan(context: Context, entity: Entity, epoch: int, scope: Scope) -> ForensicSummary:
    """Scan the entity, leave the evidence in confidence.forensic_run and the plan in staging; return the summary.

    A scan that was cut off goes on from the page that it had reached, as long as the writer has been stopped all the
    time (same run, same epoch).
    """
    conn = context.conn
    _require_synced(context, entity)
    scan_id = f"{context.run}/{entity.name}/{epoch}"
    pulled = _read(context, entity, scope, Pulled.open(context, entity, "scan", f"{scan_id}/{scope}"))
    figures = _compared(context, scope, pulled)
    second_look(context, pulled)
    summary = _summary(context, scope, pulled, figures, scan_id, epoch)
    with conn.transaction():
        history.record(conn, summary)
        pulled.drop()
    return summary


def _require_synced(context: Context, entity: Entity) -> None:
    """Figures of a copy that was never filled would be the baseline of all later runs."""
    if sync_log.oldest_watermark(context.conn, context.source.name, entity.name) is None:
        raise ScanRefused(
            f"{context.source.name}.{entity.name} was never synced, there is nothing to compare yet:"
            f" run the DAG {context.source.name}_sync, then clear scan with downstream"
        )


def _read(context: Context, entity: Entity, scope: Scope, pulled: Pulled) -> Pulled:
    if pulled.stage.resumed and not pulled.stage.pull.complete:
        pull = pulled.stage.pull
        log.info("going on from page %d, %d rows are staged", scope.first + pull.pages, pull.rows_read)
    return read(
        context,
        pulled,
        whole_list(context, entity),
        first=scope.first if scope.partial else None,
        last=scope.page_end or None,
        progress=lambda pulled: _progress(pulled.stage, scope),
    )


def _progress(stage: Stage, scope: Scope) -> None:
    """Now and then a log line; its counts go on from the line before, so a line costs what came since."""
    pull = stage.pull
    if not (pull.complete or (scope.progress_every and pull.pages % scope.progress_every == 0)):
        return
    before = pull.progress or {}
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


def _compared(context: Context, scope: Scope, pulled: Pulled) -> Mapping[str, Any]:
    """Compare stage and copy once; the figures stay with the pull for an attempt that comes after."""
    stage, entity, conn = pulled.stage, pulled.entity, context.conn
    done = (stage.pull.progress or {}).get("compared")
    if done:
        return done
    work = {"source": context.source.name, "entity": entity.name, "run": context.run}
    with span("compare", **work) as opened, conn.transaction():
        repeats = suspect(context, pulled, surplus=scope.not_in_api)
        forensics = entity.forensics(conn, stage.plan) if entity.forensics else {}
        figures = {
            "identical": repeats.identical,
            "differing": repeats.differing,
            "live_rows": compare.live_rows(stage),
            "live_parts": sum(compare.live_rows(part) for _, part in pulled.parts),
            "missing": _suspects(compare.plan_counts(stage), "insert"),
            "surplus": _suspects(compare.plan_counts(stage), "delete"),
            "missing_examples": compare.plan_examples(stage, "insert"),
            "forensics": dict(forensics),
        }
        stage.save_progress(compared=figures)
        opened.set_attributes({name: figure for name, figure in figures.items() if isinstance(figure, int)})
    return figures


def suspect(context: Context, pulled: Pulled, *, surplus: bool = True) -> Repeats:
    """Plan what differs between the list and the copy: candidates where a second look has to decide.

    `surplus`: rows of the copy that the list has not count too. The caller's transaction holds it together.
    """
    stage, entity, conn = pulled.stage, pulled.entity, context.conn
    for each in pulled.stages:
        conn.execute(sql.SQL("ANALYZE {}").format(each.sql))
        conn.execute(sql.SQL("TRUNCATE {}").format(each.plan))
    repeats = pulled.drop_repeats()
    compare.plan_writes(
        stage,
        young_after=_in_step(context, entity),
        missing="candidate",
        older="candidate",
        overwrite=not entity.history,
    )
    if surplus and not entity.history:
        compare.plan_deletes(stage, status="candidate", within=_listed(context, entity))
    plan_parts(pulled, surplus=surplus)
    return repeats


def _in_step(context: Context, entity: Entity) -> datetime | sql.Composable | None:
    """Up to when the entity has been read, or the part of it that the staged row `s` is in."""
    conn, source, column = context.conn, context.source.name, entity.partitions and entity.partitions.column
    if not column:
        return sync_log.oldest_watermark(conn, source, entity.name)
    parts = [
        sql.SQL("WHEN {} THEN {}").format(
            sql.Literal(each), sql.Literal(sync_log.state(conn, source, entity.name, each).watermark)
        )
        for each in partitions(context, entity)
    ]
    return sql.SQL("CASE s.{}::text {} END").format(sql.Identifier(column), sql.SQL(" ").join(parts))


def _listed(context: Context, entity: Entity) -> sql.Composable:
    """The condition on rows `t` of the copy that the lists would show: those of the partitions that were read."""
    conditions = [sql.SQL("true")]
    if entity.partitions and entity.partitions.column:
        read_ones = [(each,) for each in partitions(context, entity)]
        conditions.append(among((entity.partitions.column,), read_ones, "t"))
    if entity.discovery:
        conditions.append(entity.discovery.within(context))
    return sql.SQL(" AND ").join(conditions)


def _suspects(counts: Mapping[tuple[str, str], int], operation: str) -> int:
    return sum(n for (op, status), n in counts.items() if op == operation and status != "young")


def second_look(context: Context, pulled: Pulled) -> None:
    """Ask the narrow request about every candidate, as far as the budget goes; the rest is unconfirmed."""
    stage, lookup = pulled.stage, pulled.entity.lookup
    values = stage.conn.execute(
        sql.SQL(
            "SELECT DISTINCT {by} FROM {plan} WHERE _status = 'candidate' AND ({by}) IS NOT NULL"
            " ORDER BY {by} LIMIT {limit}"
        ).format(by=identifiers(lookup.by), plan=stage.plan, limit=sql.Literal(SECOND_LOOKS))
    ).fetchall()
    for value, found in look_up(context, lookup, values):
        with stage.conn.transaction():
            _settle(pulled, value, found)
    left = 0
    for each in pulled.stages:
        left += stage.conn.execute(
            sql.SQL("UPDATE {} SET _status = 'unconfirmed' WHERE _status = 'candidate'").format(each.plan)
        ).rowcount
    if left:
        log.warning("%d suspects of %s are not confirmed and will not be repaired by this run", left, stage.pull.entity)


def _settle(pulled: Pulled, value: tuple, found: list | ApiError) -> None:
    """Decide the candidates that share `value` by what the narrow request found."""
    stage, table = pulled.stage, pulled.entity.table
    candidates = stage.conn.execute(
        sql.SQL("SELECT _operation, {key} FROM {plan} WHERE _status = 'candidate' AND {same}").format(
            key=identifiers(table.key), plan=stage.plan, same=are(pulled.entity.lookup.by, value)
        )
    ).fetchall()
    rows = _by_key(stage, found)
    for operation, *key in candidates:
        row = rows.get(tuple(key)) if rows is not None else None
        if rows is None or (row is None and None in rows):
            _set_status(pulled, key, "unconfirmed")
        elif row is None:
            _set_status(pulled, key, "confirmed" if operation == "delete" else "noise")
        else:
            _take(pulled, key, row)


def _by_key(stage: Stage, found: list | ApiError) -> dict[tuple | None, Any] | None:
    """The rows found by key (None: of a row without a usable id); nothing where all is absent; None if unknown."""
    if isinstance(found, NotFound):
        return {}
    if isinstance(found, ApiError):
        log.warning("a second look failed, its suspects stay unconfirmed: %s", found)
        return None
    return {stage.table.key_of(row): row for row in found}


def _take(pulled: Pulled, key: list, row: Mapping[str, Any]) -> None:
    try:
        with pulled.stage.conn.transaction():
            replace(pulled, row)
    except RowRefused as reason:
        log.warning("%s of %s is there but can't be stored: %s", key, pulled.entity.name, reason)
        _set_status(pulled, key, "unconfirmed")


def _set_status(pulled: Pulled, key: list, status: str) -> None:
    """Settle a row and what is part of it."""
    plans = [(pulled.stage.plan, pulled.entity.table.key)]
    plans += [(stage.plan, part.by) for part, stage in pulled.parts]
    for plan, columns in plans:
        pulled.stage.conn.execute(
            sql.SQL("UPDATE {} SET _status = {} WHERE _status = 'candidate' AND {}").format(
                plan, sql.Literal(status), are(columns, key)
            )
        )


def _summary(
    context: Context,
    scope: Scope,
    pulled: Pulled,
    figures: Mapping[str, Any],
    scan_id: str,
    epoch: int,
) -> ForensicSummary:
    entity, stage = pulled.entity, pulled.stage
    counts, pull = compare.plan_counts(stage), stage.pull
    compared = scope.not_in_api and not entity.history
    scanned = pull.rows_read - pull.rows_refused
    repeats = figures["identical"] + figures["differing"]
    confirmed = _total([counts])
    total = pull.total_entries
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
        "unconfirmed": sum(n for (_, status), n in counts.items() if status == "unconfirmed"),
        "rows_young": sum(n for (_, status), n in counts.items() if status == "young"),
        "rows_refused": pull.rows_refused,
        **figures["forensics"],
    }
    parts = {part.table.name: compare.plan_counts(each) for part, each in pulled.parts}
    for name, found in parts.items():
        metrics |= {
            f"{name}_missing": found["insert", "confirmed"],
            f"{name}_surplus": found["delete", "confirmed"],
            f"{name}_differing": found["update", "confirmed"],
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
        plan=_total([counts, *parts.values()]),
        live_rows=figures["live_rows"] + figures["live_parts"],
        examples=examples,
    )


def _total(counts: Sequence[Mapping[tuple[str, str], int]]) -> Plan:
    """What the plans would change together."""
    return Plan(*(sum(c[operation, "confirmed"] for c in counts) for operation in ("insert", "update", "delete")))
