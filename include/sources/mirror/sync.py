"""Sync: what changed since the watermark, or everything, from the source into the warehouse."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg import sql

from include.api.client import Request
from include.api.errors import ApiError, NotFound
from include.api.fetch import fetch_all, pages
from include.api.paginators import Page
from include.sources.base import SyncFailed, entity_of
from include.sources.mirror.entity import Context, Ends, Entity, Lookup
from include.warehouse import compare, fence, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.staging import PullError, Stage
from include.warehouse.sync_log import Counts, State

log = logging.getLogger(__name__)


def sync(context: Context, *, full: bool = False) -> tuple[int, Mapping[str, Counts]]:
    """Bring every entity of the source up to date and return (sync_id, counts per entity).

    Each entity's rows, audit and watermark are one transaction, so an entity that fails doesn't hold up the others:
    it keeps its watermark, and the failure is raised at the end as SyncFailed, which names each with its reason.
    """
    source, conn = context.source, context.conn
    writer = fence.read(conn, source.name)
    if writer.stopped:
        raise fence.FenceError(f"{writer}; nothing was read or written, the sync catches up after the resume")
    sync_id = sync_log.begin(conn, source.name, "sync", context.run)
    counts: dict[str, Counts] = {}
    failures: dict[str, Exception] = {}
    try:
        for entity in source.entities:
            if entity.parent and not (full or _never_synced(context, entity)):
                continue
            try:
                counts |= _sync_entity(context, entity, sync_id, writer.epoch, full)
            except (ApiError, PullError) as error:
                log.error("%s.%s: %s", source.name, entity.name, error)
                failures[entity.name] = error
        if failures:
            raise SyncFailed(_failures(source.name, failures, counts))
    except BaseException as error:
        sync_log.finish(conn, sync_id, counts, error=str(error) or type(error).__name__)
        raise
    sync_log.finish(conn, sync_id, counts)
    return sync_id, counts


def look_up(context: Context, lookup: Lookup, values: Iterable[Any]) -> Iterator[tuple[Any, list | ApiError]]:
    """Ask for each value's rows, in parallel: yields (value, rows), or NotFound or TryLater in place of the rows."""
    under_way: dict[int, Any] = {}

    def requests() -> Iterator[Request]:
        for value in values:
            request = lookup.request(value)
            under_way[id(request)] = value
            yield request

    for request, answer in fetch_all(context.client, requests(), workers=context.workers):
        value = under_way.pop(id(request))
        if isinstance(answer, ApiError):
            yield value, answer
        elif lookup.paginator is None:
            yield value, lookup.rows(answer.data)
        else:
            first = lookup.paginator.read(answer, lookup.paginator.start)
            yield value, _all_pages(context, lookup, request, first)


def _all_pages(context: Context, lookup: Lookup, request: Request, first: Page) -> list | ApiError:
    rows = list(first.rows)
    if first.next is None:
        return rows
    try:
        for page in pages(context.client, request, lookup.paginator, position=first.next):
            rows += page.rows
    except ApiError as error:
        return error
    return rows


def _sync_entity(context: Context, entity: Entity, sync_id: int, epoch: int, full: bool) -> Mapping[str, Counts]:
    started = time.monotonic()
    source, conn = context.source, context.conn
    state = sync_log.state(conn, source.name, entity.name)
    since = None if full or state.watermark is None else state.watermark - source.overlap
    stage = _pull(context, entity, since)
    children = [] if since is None else _pull_children(context, entity, stage)
    watermark = _watermark(stage, state)
    counts = {}
    with fence.writing(conn, source.name, epoch=epoch):
        _plan(stage)
        for child in children:
            _plan_set(child, entity_of(source, child.table.name), stage)
        for part in (stage, *children):
            counts[part.table.name] = _merge(part, sync_id)
            sync_log.advance(
                conn,
                sync_id,
                source.name,
                part.table.name,
                watermark=watermark,
                counts=counts[part.table.name],
                duration_seconds=time.monotonic() - started,
            )
    for part in (stage, *children):
        part.drop()
    log.info("%s.%s: %s, watermark %s", source.name, entity.name, counts, watermark)
    return counts


def _merge(stage: Stage, sync_id: int) -> Counts:
    merged = apply_plan(stage.conn, stage.table, stage.plan, sync_id)
    read, refused = stage.pull.rows_read, stage.pull.rows_refused
    unchanged = max(0, read - refused - merged.inserted - merged.updated - merged.superseded)
    return Counts.of(merged, read=read, unchanged=unchanged, failed=refused)


def _never_synced(context: Context, entity: Entity) -> bool:
    return sync_log.state(context.conn, context.source.name, entity.name).watermark is None


def _pull(context: Context, entity: Entity, since: datetime | None) -> Stage:
    """Stage the entity's rows: those changed since, or all; a full pull that was cut off goes on where it was."""
    ticket = "full" if since is None else f"since {since.isoformat()}"
    stage = Stage.open(context.conn, entity.table, context.source.name, "sync", ticket)
    if since is None:
        feed = _unread(context, entity, stage)
    else:
        if stage.resumed:
            stage = _fresh(stage)
        feed = _changed(context, entity, since)
    for page in feed:
        info = {
            "source_time": page.date,
            "total_entries": page.total_entries,
            "total_pages": page.total_pages,
        }
        stage.append(page.rows, next_position=page.next, page_info=info)
    return stage


def _unread(context: Context, entity: Entity, stage: Stage) -> Iterator[Page]:
    if stage.pull.complete:
        return iter(())
    return pages(
        context.client,
        entity.listing,
        entity.paginator,
        position=stage.pull.position,
        workers=context.workers,
    )


def _fresh(stage: Stage) -> Stage:
    stage.drop()
    return Stage.open(stage.conn, stage.table, stage.pull.source, stage.pull.purpose, stage.pull.ticket)


def _changed(context: Context, entity: Entity, since: datetime) -> Iterator[Page]:
    if isinstance(entity.changes, Ends):
        return _from_both_ends(context, entity, since)
    text = since.strftime(entity.changes.format)
    request = replace(entity.listing, params={**entity.listing.params, entity.changes.param: text})
    return pages(context.client, request, entity.paginator, workers=context.workers)


def _from_both_ends(context: Context, entity: Entity, since: datetime) -> Iterator[Page]:
    """Pages from the first on, then from the last back, each way until a page holds nothing young.

    Without a usable total there is no last page to begin at: then the list is read on to its end, unless it is in
    falling order of its versions, in which all that follows is older.
    """
    seen: list[datetime] = []
    for page in pages(context.client, entity.listing, entity.paginator):
        yield page
        moments = _times(entity, page)
        seen += moments
        if max(moments, default=since) < since and (page.total_pages or seen == sorted(seen, reverse=True)):
            break
    for number in range(page.total_pages or 0, page.position, -1):
        answer = context.client.send(entity.paginator.request(entity.listing, number))
        page = entity.paginator.read(answer, number)
        yield page
        if max(_times(entity, page), default=since) < since:
            break


def _times(entity: Entity, page: Page) -> list[datetime]:
    """The versions of the page's rows, as far as they can be read."""
    column = next(column for column in entity.table.columns if column.name == entity.table.version)
    return [moment for row in page.rows if (moment := _time(column, row))]


def _time(column: Any, row: Mapping[str, Any]) -> datetime | None:
    try:
        return column.read(row.get(column.field or column.name))
    except ValueError:
        return None


def _pull_children(context: Context, entity: Entity, parents: Stage) -> list[Stage]:
    """Stage the children of the parents that changed, for each kind of child that has had its first full sync."""
    _plan(parents)
    key = sql.Identifier(entity.table.key[0])
    changed = parents.conn.execute(
        sql.SQL("SELECT {} FROM {} WHERE _status = 'confirmed' ORDER BY 1").format(key, parents.plan)
    ).fetchall()
    ticket = f"children of {parents.pull.ticket}"
    stages = []
    for child in context.source.children(entity):
        if _never_synced(context, child):
            continue
        stage = _fresh(Stage.open(context.conn, child.table, context.source.name, "sync", ticket))
        for value, rows in look_up(context, child.lookup, (row[0] for row in changed)):
            if isinstance(rows, ApiError) and not isinstance(rows, NotFound):
                raise rows
            found = [] if isinstance(rows, NotFound) else rows
            stage.append(found, next_position=value, page_info={})
        stages.append(stage)
    return stages


def _plan(stage: Stage) -> None:
    stage.conn.execute(sql.SQL("TRUNCATE {}").format(stage.plan))
    compare.drop_repeats(stage)
    compare.plan_writes(stage)


def _plan_set(children: Stage, child: Entity, parents: Stage) -> None:
    """The children of a changed parent are a set: what is not in it any more is deleted.

    A child that could not be read may be any of those that seem to have gone: then none counts as gone.
    """
    _plan(children)
    within = sql.SQL("t.{} IN (SELECT {} FROM {} WHERE _status = 'confirmed')").format(
        sql.Identifier(child.lookup.by), sql.Identifier(parents.table.key[0]), parents.plan
    )
    status = "unconfirmed" if children.pull.rows_refused else "confirmed"
    compare.plan_deletes(children, status=status, within=within)


def _watermark(stage: Stage, state: State) -> datetime | None:
    """The source's clock when the pull began, or its newest row where it tells no time; it never moves back."""
    moment = stage.pull.source_time
    if moment is None and stage.table.version:
        newest = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(stage.table.version), stage.sql)
        moment = stage.conn.execute(newest).fetchone()[0]
    return max((time for time in (moment, state.watermark) if time), default=None)


def _failures(source: str, failures: Mapping[str, Exception], done: Mapping[str, Counts]) -> str:
    lines = "; ".join(f"{entity}: {str(error).rstrip('.')}" for entity, error in failures.items())
    return (
        f"{len(failures)} of {len(failures) + len(done)} entities of {source} were not synced and keep their watermark:"
        f" {lines}. Mend what the reason names, then clear this task"
    )
