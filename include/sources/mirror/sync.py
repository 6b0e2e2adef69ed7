"""Sync: what changed since the watermark, or everything, from the source into the warehouse."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from psycopg import sql

from include.api.client import Request
from include.api.errors import ApiError, NotFound, RefuseData
from include.api.fetch import fetch_all, pages
from include.api.paginators import Page
from include.sources.base import SyncFailed, entity_of
from include.sources.mirror.entity import Context, Ends, Entity, Lookup, Since, Whole, Window
from include.sources.mirror.pull import Pulled, plan_parts, read
from include.warehouse import compare, fence, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.staging import PullError, Stage
from include.warehouse.sync_log import Counts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """Partitions that are read together, since they have got as far; one without a name where there are none.

    `since`: what changed from then on is read, everything where it is None.
    """

    partitions: tuple[str, ...] = ("",)
    since: datetime | None = None

    def __str__(self) -> str:
        what = f"since {self.since.isoformat()}" if self.since else "full"
        return " of ".join(filter(None, [what, ",".join(self.partitions)]))


def sync(context: Context, *, full: bool = False) -> tuple[int, Mapping[str, Counts]]:
    """Bring every entity of the source up to date and return (sync_id, counts per table).

    Each entity's rows, audit and watermark are one transaction, so an entity that fails doesn't hold up the others:
    it keeps its watermark, and the failure is raised at the end as SyncFailed, which names each with its reason.
    """
    source, conn = context.source, context.conn
    writer = fence.read(conn, source.name)
    if writer.stopped:
        raise fence.FenceError(f"{writer}; nothing was read or written, the sync catches up after the resume")
    sync_id = sync_log.begin(conn, source.name, "sync", context.run)
    run = _Run(context, sync_id, writer.epoch, full)
    counts: dict[str, Counts] = {}
    failures: dict[str, Exception] = {}
    try:
        for entity in source.entities:
            if entity.parent and not (full or _never_synced(context, entity)):
                continue
            try:
                counts |= run.sync(entity)
            except (ApiError, PullError) as error:
                log.error("%s.%s: %s", source.name, entity.name, error)
                failures[entity.name] = error
        with fence.writing(conn, source.name, epoch=writer.epoch):
            counts |= derive(context, sync_id)
        if failures:
            raise SyncFailed(_failures(source.name, failures, counts))
    except BaseException as error:
        _finish(context, sync_id, counts, error=str(error) or type(error).__name__)
        raise
    _finish(context, sync_id, counts)
    return sync_id, counts


def _finish(context: Context, sync_id: int, counts: Mapping[str, Counts], error: str | None = None) -> None:
    client = context.client
    traffic = {"requests": client.requests_sent, "request_errors": client.requests_failed}
    sync_log.finish(context.conn, sync_id, counts, error, **traffic)


def derive(context: Context, sync_id: int) -> Mapping[str, Counts]:
    """Bring the computed tables in line with the mirrored ones; the caller's transaction holds the fence."""
    counts = {}
    for derived in context.source.derived:
        stage = Stage.open(context.conn, derived.table, context.source.name, "derive", f"sync_id {sync_id}")
        stage.fill(sql.SQL(derived.query))
        compare.plan_writes(stage)
        compare.plan_deletes(stage, status="confirmed")
        counts[derived.table.name] = Counts.of(apply_plan(context.conn, derived.table, stage.plan, sync_id))
        stage.drop()
    return counts


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


class _Run:
    """One sync: its id, the epoch at which it began, and the source's clock then."""

    def __init__(self, context: Context, sync_id: int, epoch: int, full: bool):
        self.context = context
        self.sync_id = sync_id
        self.epoch = epoch
        self.full = full

    @cached_property
    def until(self) -> datetime:
        """The end of every window of this sync."""
        return source_time(self.context)

    def sync(self, entity: Entity) -> Mapping[str, Counts]:
        started, context = time.monotonic(), self.context
        source, conn = context.source, context.conn
        groups = _groups(context, entity, self.full)
        pulled = self._pull(entity, groups)
        incremental = all(group.since for group in groups)
        children = _pull_children(context, pulled) if incremental else []
        watermark = self._watermark(pulled, groups)
        counts = {}
        with fence.writing(conn, source.name, epoch=self.epoch):
            _plan(pulled)
            for child in children:
                _plan_set(child, entity_of(source, child.table.name), pulled.stage)
            for stage in (*pulled.stages, *children):
                name = stage.table.name
                counts[name] = _merge(stage, self.sync_id)
                partitions = [p for group in groups for p in group.partitions] if stage is pulled.stage else [""]
                # Parts are as far as their records, which number the versions.
                version = _newest_version(stage if stage in children else pulled.stage)
                for partition in partitions:
                    sync_log.advance(
                        conn,
                        self.sync_id,
                        source.name,
                        name,
                        watermark=watermark,
                        version=version,
                        counts=counts[name],
                        partition=partition,
                        duration_seconds=time.monotonic() - started,
                    )
        for stage in (*pulled.stages, *children):
            stage.drop()
        log.info("%s.%s: %s, watermark %s", source.name, entity.name, counts, watermark)
        return counts

    def _pull(self, entity: Entity, groups: Sequence[Group]) -> Pulled:
        """Stage what the groups ask for; only a full pull that was cut off goes on where it was."""
        context = self.context
        pulled = Pulled.open(context, entity, "sync", "; ".join(map(str, groups)))
        if pulled.stage.resumed and any(group.since for group in groups):
            pulled = pulled.fresh(context)
        if isinstance(entity.changes, Ends) and groups[0].since:
            for page in _from_both_ends(context, entity, groups[0].since):
                pulled.append(page, page.next)
            return pulled
        return read(context, pulled, [request for group in groups for request in self._requests(entity, group)])

    def _requests(self, entity: Entity, group: Group) -> list[Request]:
        listing, changes = entity.listing, entity.changes
        if entity.partitions:
            listing = entity.partitions.request(listing, group.partitions)
        if group.since is None or isinstance(changes, Whole):
            return [listing]
        if isinstance(changes, Since):
            return [changes.request(listing, group.since)]
        readings = [changes.request, changes.late] if changes.late else [changes.request]
        return [reading(listing, group.since, self.until) for reading in readings]

    def _watermark(self, pulled: Pulled, groups: Sequence[Group]) -> datetime | None:
        """The source's clock when the pull began, or its newest row where it tells no time; it never moves back."""
        stage, moment = pulled.stage, pulled.stage.pull.source_time
        if isinstance(pulled.entity.changes, Window) and any(group.since for group in groups):
            moment = self.until
        if moment is None and stage.table.moment:
            newest = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(stage.table.moment), stage.sql)
            moment = stage.conn.execute(newest).fetchone()[0]
        before = sync_log.oldest_watermark(stage.conn, self.context.source.name, pulled.entity.name)
        return max((time for time in (moment, before) if time), default=None)


def _newest_version(stage: Stage) -> int | None:
    """The highest version in the copy, where the source numbers its versions."""
    table = stage.table
    if table.changed is None or table.version is None:
        return None
    query = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(table.version), table.sql)
    return stage.conn.execute(query).fetchone()[0]


def source_time(context: Context) -> datetime:
    """The source's clock. Raises RefuseData where it tells none."""
    now = context.client.send(context.source.entities[0].listing).date
    if now is None:
        raise RefuseData(f"{context.source.name} tells no time in its answers, so there is no end to read up to")
    return now


def _groups(context: Context, entity: Entity, full: bool) -> list[Group]:
    """The entity's partitions, those that have got as far together, as many as go into one request."""
    partitions = entity.partitions.values(context.conn) if entity.partitions else [""]
    size = entity.partitions.size if entity.partitions else 1
    by_since: dict[datetime | None, list[str]] = {}
    for partition in partitions:
        state = sync_log.state(context.conn, context.source.name, entity.name, partition)
        since = None if full or state.watermark is None else state.watermark - context.source.overlap
        by_since.setdefault(since, []).append(partition)
    return [
        Group(tuple(values[place : place + size]), since)
        for since, values in by_since.items()
        for place in range(0, len(values), size)
    ]


def _merge(stage: Stage, sync_id: int) -> Counts:
    merged = apply_plan(stage.conn, stage.table, stage.plan, sync_id)
    read, refused = stage.pull.rows_read, stage.pull.rows_refused
    unchanged = max(0, read - refused - merged.inserted - merged.updated - merged.superseded)
    return Counts.of(merged, read=read, unchanged=unchanged, failed=refused)


def _never_synced(context: Context, entity: Entity) -> bool:
    return sync_log.oldest_watermark(context.conn, context.source.name, entity.name) is None


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
    """When the page's rows last changed, as far as that can be read."""
    column = next(column for column in entity.table.columns if column.name == entity.table.moment)
    return [moment for row in page.rows if (moment := _time(column, row))]


def _time(column: Any, row: Mapping[str, Any]) -> datetime | None:
    try:
        return column.read(row.get(column.field or column.name))
    except ValueError:
        return None


def _pull_children(context: Context, pulled: Pulled) -> list[Stage]:
    """Stage the children of the parents that changed, for each kind of child that has had its first full sync."""
    parents = pulled.stage
    kinds = [child for child in context.source.children(pulled.entity) if not _never_synced(context, child)]
    if not kinds:
        return []
    _plan(pulled)
    changed = parents.conn.execute(
        sql.SQL("SELECT {} FROM {} WHERE _status = 'confirmed' ORDER BY 1").format(pulled.key, parents.plan)
    ).fetchall()
    stages = []
    for child in kinds:
        stage = _fresh(context, child, f"children of {parents.pull.ticket}")
        for value, rows in look_up(context, child.lookup, (row[0] for row in changed)):
            if isinstance(rows, ApiError) and not isinstance(rows, NotFound):
                raise rows
            found = [] if isinstance(rows, NotFound) else rows
            stage.append(found, next_position=value, page_info={})
        stages.append(stage)
    return stages


def _fresh(context: Context, entity: Entity, ticket: str) -> Stage:
    """The stage of a pull that never goes on where it was."""
    stage = Stage.open(context.conn, entity.table, context.source.name, "sync", ticket)
    if stage.resumed:
        stage.drop()
        stage = Stage.open(context.conn, entity.table, context.source.name, "sync", ticket)
    return stage


def _plan(pulled: Pulled) -> None:
    for stage in pulled.stages:
        stage.conn.execute(sql.SQL("TRUNCATE {}").format(stage.plan))
    pulled.drop_repeats()
    compare.plan_writes(pulled.stage, overwrite=not pulled.entity.history)
    if pulled.falls:
        compare.plan_deletes(pulled.stage, status="confirmed", within=pulled.falls)
    plan_parts(pulled)


def _plan_set(children: Stage, child: Entity, parents: Stage) -> None:
    """The children of a changed parent are a set: what is not in it any more is deleted.

    A child that could not be read may be any of those that seem to have gone: then none counts as gone.
    """
    children.conn.execute(sql.SQL("TRUNCATE {}").format(children.plan))
    compare.drop_repeats(children)
    compare.plan_writes(children)
    within = sql.SQL("t.{} IN (SELECT {} FROM {} WHERE _status = 'confirmed')").format(
        sql.Identifier(child.lookup.by), sql.Identifier(parents.table.key[0]), parents.plan
    )
    status = "unconfirmed" if children.pull.rows_refused else "confirmed"
    compare.plan_deletes(children, status=status, within=within)


def _failures(source: str, failures: Mapping[str, Exception], done: Mapping[str, Counts]) -> str:
    lines = "; ".join(f"{entity}: {str(error).rstrip('.')}" for entity, error in failures.items())
    return (
        f"{len(failures)} of {len(failures) + len(done)} entities of {source} were not synced and keep their watermark:"
        f" {lines}. Mend what the reason names, then clear this task"
    )
