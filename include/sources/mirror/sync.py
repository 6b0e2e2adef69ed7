"""Sync: what changed since the watermark, or everything, from the source into the warehouse."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property

from psycopg import sql

from include.api.errors import ApiError, FixConfiguration, RefuseData
from include.sources.base import NeedsPerson, SyncFailed
from include.sources.mirror import gap
from include.sources.mirror.both_ends import pages_from_both_ends, require_rows
from include.sources.mirror.changes import BothEnds, Feed, FullList, Since, Window
from include.sources.mirror.derive import derive
from include.sources.mirror.entity import Child, Context, Discovered, Entity, Listing
from include.sources.mirror.extract import Extract
from include.sources.mirror.partitions import all_listings, all_partitions, batch_listings, batches, known_partitions
from include.sources.mirror.planning import plan_sync, skip_changes_before_reset
from include.sources.mirror.read import read_partitions
from include.sources.mirror.related import Problem, children_of, needed_by, never_synced, skipped, unproven
from include.sources.mirror.second_look import second_look
from include.warehouse import fence, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.staging import PullError, Stage
from include.warehouse.sync_log import Counts

log = logging.getLogger(__name__)

# Records that a message names.
EXAMPLES = 10


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


@dataclass(frozen=True)
class Reached:
    """How far a partition has come. `in_step`: nothing of it was left out, as of the sync's beginning."""

    watermark: datetime | None
    in_step: bool


class RecordsSkipped(Exception):
    """Some records were not read, so the watermark stays before them. The message names them."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(
            f"{len(problems)} of its records are not proven and were not written, the others were:"
            f" {', '.join(map(str, problems[:EXAMPLES]))}"
        )
        self.needs_person = any(each.needs_person for each in problems)


def sync_entities(context: Context, *, full: bool = False, only: str | None = None) -> tuple[int, Mapping[str, Counts]]:
    """Bring every entity of the source, or `only` that one, up to date and return (sync_id, counts per table).

    Each entity's rows, audit and watermark are one transaction, so an entity that fails doesn't hold up the others:
    it keeps its watermark, and the failure is raised at the end as SyncFailed, which names each with its reason.
    """
    source, conn = context.source, context.conn
    writer = fence.read(conn, source.name)
    if writer.stopped:
        raise fence.FenceError(f"{writer}; nothing was read or written, the sync catches up after the resume")
    sync_id = sync_log.begin(conn, source.name, "sync", context.run, reason="full" if full else None)
    run = _Sync(context, sync_id, writer.epoch, full)
    failures: dict[str, Exception] = {}
    try:
        for entity in source.entities:
            if entity.name != only and (only or not run.due(entity)):
                continue
            try:
                run.sync_entity(entity)
            except (ApiError, PullError, RecordsSkipped) as error:
                log.error("%s.%s: %s", source.name, entity.name, error)
                failures[entity.name] = error
        with fence.writing(conn, source.name, epoch=writer.epoch):
            run.counts |= derive(context, sync_id, whole=full)
        if failures:
            raise _failure(source.name, failures)
    except BaseException as error:
        _finish(context, sync_id, run.counts, error=str(error) or type(error).__name__)
        raise
    _finish(context, sync_id, run.counts)
    return sync_id, run.counts


def _finish(context: Context, sync_id: int, counts: Mapping[str, Counts], error: str | None = None) -> None:
    client = context.client
    traffic = {"requests": client.requests_sent, "request_errors": client.requests_failed}
    sync_log.finish(context.conn, sync_id, counts, error, **traffic)


class _Sync:
    """One sync: its id, the epoch at which it began, the source's clock then, and its counts per table so far."""

    def __init__(self, context: Context, sync_id: int, epoch: int, full: bool):
        self.context = context
        self.sync_id = sync_id
        self.epoch = epoch
        self.full = full
        self.counts: dict[str, Counts] = {}

    @cached_property
    def until(self) -> datetime:
        """The end of every window of this sync."""
        return source_time(self.context)

    def due(self, entity: Entity) -> bool:
        """Whether the entity is read at all: a child comes with its parent, and some lists are read now and then."""
        if self.full or never_synced(self.context, entity):
            return True
        if entity.read_every is not None:
            since = sync_log.since_in_step(self.context.conn, self.context.source.name, entity.name)
            return since is None or since >= entity.read_every
        return not isinstance(entity, Child)

    def sync_entity(self, entity: Entity) -> None:
        """Read, compare and write an entity with what belongs to it.

        Raises RecordsSkipped once all that is proven is written: the watermark stays before what is not.
        """
        started, context = time.monotonic(), self.context
        source, conn = context.source, context.conn
        values, unlisted = _partitions(context, entity)
        groups = _groups(context, entity, values, self.full)
        extract, groups = self._pull(entity, groups)
        # A list that is read in place of a feed, since that doesn't reach back so far, shows changes too.
        incremental = not (self.full or never_synced(context, entity))
        if not self.full:
            skip_changes_before_reset(context, extract)
        plan_sync(context, extract)
        # A person who asks for everything may have added a column, which makes a suspect of every row.
        second_look(context, extract, every=self.full)
        children, problems = children_of(context, extract) if incremental else ([], [])
        needed, unreadable = needed_by(context, extract)
        problems += [each for some in (extract, *children) for each in unproven(some)]
        reached = self._reached(extract, groups, unproven=bool(problems))
        problems += unreadable + unlisted + skipped(extract)
        with fence.writing(conn, source.name, epoch=self.epoch):
            for stage in needed:
                self._merge(stage)
            for each in (extract, *children):
                for stage in each.stages:
                    self._advance(stage, extract, reached if stage is extract.stage else None, reached, started)
        for each in (extract, *children):
            each.drop()
        for stage in needed:
            stage.drop()
        log.info("%s.%s: %s, %s", source.name, entity.name, self.counts[entity.name], reached)
        if problems:
            raise RecordsSkipped(problems)

    def _advance(
        self,
        stage: Stage,
        extract: Extract,
        own: Mapping[str, Reached] | None,
        reached: Mapping[str, Reached],
        started: float,
    ) -> None:
        """Write a table's plan and move its state; nested rows and children are as far as their records."""
        counts = self._merge(stage)
        # Nested rows have no versions, their records have.
        version = _newest_version(extract.stage if stage in extract.stages else stage)
        oldest = min(filter(None, (each.watermark for each in reached.values())), default=None)
        whole = {"": Reached(oldest, all(each.in_step for each in reached.values()))}
        for partition, each in (own or whole).items():
            sync_log.advance(
                self.context.conn,
                self.sync_id,
                self.context.source.name,
                stage.table.name,
                watermark=each.watermark,
                in_step=each.in_step,
                version=version,
                counts=counts,
                partition=partition,
                duration_seconds=time.monotonic() - started,
            )

    def _merge(self, stage: Stage) -> Counts:
        counts, name = _merge(stage, self.sync_id), stage.table.name
        self.counts[name] = self.counts.get(name, Counts()) + counts
        return counts

    def _pull(self, entity: Entity, groups: Sequence[Group]) -> tuple[Extract, Sequence[Group]]:
        """Stage what the groups ask for; only a full pull that was cut off goes on where it was."""
        context = self.context
        ticket = "; ".join(map(str, groups))
        if isinstance(entity, Discovered):
            ticket += f"; {json.dumps(dict(context.params), sort_keys=True)}"
        extract = Extract.open(context, entity, "sync", ticket)
        incremental = any(group.since for group in groups) and not self.full
        if extract.stage.resumed and incremental:
            extract = extract.restart(context)
        if isinstance(entity.changes, BothEnds) and groups[0].since:
            for page in pages_from_both_ends(context, entity, groups[0].since):
                extract.append(page, page.next)
                extract.check_refused(ended=extract.stage.pull.complete)
            require_rows(extract)
            return extract, groups

        def listings(singly: bool) -> list[Listing]:
            some = [Group((one,), g.since) for g in groups for one in g.partitions] if singly else groups
            return [listing for group in some for listing in self._listings(entity, group)]

        unchanged_before = None if self.full else min((g.since for g in groups if g.since), default=None)
        extract = read_partitions(context, extract, listings, unchanged_before=unchanged_before)
        if isinstance(entity, Discovered) and not entity.partial(context) and not entity.limit(context):
            gap.look_up_hidden(context, extract, listings(singly=False))
        return extract, groups

    def _listings(self, entity: Entity, group: Group) -> list[Listing]:
        changes, whole = entity.changes, batch_listings(self.context, entity, group.partitions, group.since)
        if group.since is None or changes is None or isinstance(changes, FullList):
            return whole
        if isinstance(changes, Feed):
            shape = {"shape": changes.record, "deleted": changes.deleted}
            return [Listing(changes.request(group.since), changes.paginator, **shape)]
        if isinstance(changes, Since):
            return [replace(each, request=changes.request(each.request, group.since)) for each in whole]
        readings = [changes.request, changes.late] if changes.late else [changes.request]
        return [
            replace(each, request=reading(each.request, group.since, self.until))
            for each in whole
            for reading in readings
        ]

    def _reached(self, extract: Extract, groups: Sequence[Group], *, unproven: bool) -> Mapping[str, Reached]:
        """How far each partition has come.

        If a record is skipped, the watermark stops before its version (or its change time). It stays where it is if
        something is not proven, if the partition's list could not be read, or if a part was asked for.
        """
        context, entity = self.context, extract.entity
        moment, found = self._moment(extract, groups), {}
        stays = unproven or (isinstance(entity, Discovered) and entity.partial(context))
        for partition in (partition for group in groups for partition in group.partitions):
            before = sync_log.state(context.conn, context.source.name, entity.name, partition).watermark
            skipped = [each.moment for each in extract.skipped_records if each.partition == partition]
            unread = partition in extract.failed_partitions or partition in extract.short_partitions
            if stays or unread or None in skipped:
                found[partition] = Reached(before, in_step=False)
            else:
                times = [datetime.fromisoformat(each) for each in skipped] + [moment]
                found[partition] = Reached(min(filter(None, times), default=None), in_step=not skipped)
        return found

    def _moment(self, extract: Extract, groups: Sequence[Group]) -> datetime | None:
        """The source's clock when the pull began, or its newest row where it tells no time; it never moves back.

        It never passes our own clock: where the source's is wrong all changes until then would be left out.
        """
        stage, moment = extract.stage, extract.stage.pull.source_time
        if isinstance(extract.entity.changes, Window) and any(group.since for group in groups):
            moment = self.until
        if moment is None and stage.table.moment:
            newest = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(stage.table.moment), stage.sql)
            moment = stage.conn.execute(newest).fetchone()[0]
        before = sync_log.oldest_watermark(stage.conn, self.context.source.name, extract.entity.name)
        found = max((time for time in (moment, before) if time), default=None)
        return found and min(found, datetime.now(UTC))


def _newest_version(stage: Stage) -> int | None:
    """The highest version in the copy, where the source numbers its versions."""
    table = stage.table
    if table.changed is None or table.version is None:
        return None
    query = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(table.version), table.sql)
    return stage.conn.execute(query).fetchone()[0]


def source_time(context: Context) -> datetime:
    """The source's clock, but not later than ours. Raises RefuseData where it tells none."""
    entity = context.source.entities[0]
    listing, *_ = all_listings(context, entity, known_partitions(context, entity))
    now = context.client.send(listing.request).date
    if now is None:
        raise RefuseData(f"{context.source.name} tells no time in its answers, so there is no end to read up to")
    return min(now, datetime.now(UTC))


def _partitions(context: Context, entity: Entity) -> tuple[Sequence[str], list[Problem]]:
    """The entity's partitions; also what is to be told where the source doesn't list them, so that some may lack."""
    try:
        return all_partitions(context, entity), []
    except ApiError as error:
        name = entity.partitions.listed_by
        return known_partitions(context, entity), [Problem(f"perhaps all of {name} that the copy lacks", str(error))]


def _groups(context: Context, entity: Entity, values: Sequence[str], full: bool) -> list[Group]:
    """The partitions, those that have got as far together, as many as go into one request."""
    by_since: dict[datetime | None, list[str]] = {}
    for partition in values:
        state = sync_log.state(context.conn, context.source.name, entity.name, partition)
        since = None if full else state.since(context.source.lookback)
        changes = entity.changes
        if isinstance(changes, Feed) and changes.keeps and since:
            since = since if since > datetime.now(UTC) - changes.keeps else None
        by_since.setdefault(since, []).append(partition)
    return [Group(handful, since) for since, values in by_since.items() for handful in batches(entity, values)]


def _merge(stage: Stage, sync_id: int) -> Counts:
    merged = apply_plan(stage.conn, stage.table, stage.plan, sync_id)
    read, refused = stage.pull.rows_read, stage.pull.rows_refused
    unchanged = max(0, read - refused - merged.inserted - merged.updated - merged.superseded)
    return Counts.of(merged, read=read, unchanged=unchanged, failed=refused)


def _failure(source: str, failures: Mapping[str, Exception]) -> SyncFailed:
    lines = "; ".join(f"{entity}: {str(error).rstrip('.')}" for entity, error in failures.items())
    message = (
        f"{source} was not synced as a whole, and the watermarks stay before what is missing. {lines}."
        " Mend what the reason names, then clear this task"
    )
    needs_person = any(
        isinstance(error, FixConfiguration) or (isinstance(error, RecordsSkipped) and error.needs_person)
        for error in failures.values()
    )
    return NeedsPerson(message) if needs_person else SyncFailed(message)
