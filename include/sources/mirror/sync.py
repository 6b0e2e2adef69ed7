"""Syncs: read what changed since the watermark, or everything, and write it to the warehouse."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property

from psycopg import sql

from include.api.errors import ApiError, FixConfiguration, ListCapped, RefuseData
from include.sources.base import NeedsPerson, SyncFailed
from include.sources.mirror import short_lists
from include.sources.mirror.both_ends import Unsorted, pages_from_both_ends
from include.sources.mirror.changes import BothEnds, Feed, FullList, Since, Window
from include.sources.mirror.derive import derive
from include.sources.mirror.entity import Child, Discovered, Entity, Listing, MirrorContext
from include.sources.mirror.entity_census import keep_fields
from include.sources.mirror.extract import Extract
from include.sources.mirror.partitions import all_listings, all_partitions, batch_listings, batches, known_partitions
from include.sources.mirror.planning import plan_sync, skip_changes_before_reset
from include.sources.mirror.read import read_partitions
from include.sources.mirror.related import (
    Problem,
    never_synced,
    stage_children,
    stage_needed,
    unproven_rows,
    unread_records,
)
from include.sources.mirror.second_look import has_lost_all_rows, second_look
from include.warehouse import compare, fence, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.pull import PullError
from include.warehouse.staging import Stage
from include.warehouse.sync_log import Counts

log = logging.getLogger(__name__)

# The number of records that a message names.
EXAMPLES = 10


@dataclass(frozen=True)
class PartitionGroup:
    """Partitions that are read by the same requests, from the same time on.

    `partitions` is ("",) for an entity without partitions. `since` is None if everything is read.
    """

    partitions: tuple[str, ...] = ("",)
    since: datetime | None = None

    def __str__(self) -> str:
        what = f"since {self.since.isoformat()}" if self.since else "full"
        return " of ".join(filter(None, [what, ",".join(self.partitions)]))


@dataclass(frozen=True)
class NewState:
    """The state of a partition after a sync. `in_step`: the sync left out nothing that changed before it began."""

    watermark: datetime | None
    in_step: bool


class RecordsSkipped(Exception):
    """Some records are not proven, so they were not written. The message names them."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(
            f"{len(problems)} of its records are not proven and were not written:"
            f" {', '.join(map(str, problems[:EXAMPLES]))}. The others were written"
        )
        self.needs_person = any(each.needs_person for each in problems)


def sync_entities(
    context: MirrorContext, *, full: bool = False, only: str | None = None
) -> tuple[int, Mapping[str, Counts]]:
    """Bring all entities of the source up to date, or `only` that one. Return (sync_id, counts per table).

    `full`: read everything, not only what changed since the watermarks.

    Each entity is written in one transaction with its audit and watermark. If one fails, the others are still synced.
    The failed one keeps its watermark. Raises SyncFailed at the end, with all failures and their reasons, and
    FenceError where the writer is stopped.
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


def _finish(context: MirrorContext, sync_id: int, counts: Mapping[str, Counts], error: str | None = None) -> None:
    """Complete the entry in confidence.sync_log."""
    client = context.client
    traffic = {"requests": client.requests_sent, "request_errors": client.requests_failed}
    sync_log.finish(context.conn, sync_id, counts, error, **traffic)


class _Sync:
    """One sync in progress. `counts` grow with each table that is written."""

    def __init__(self, context: MirrorContext, sync_id: int, epoch: int, full: bool):
        self.context = context
        self.sync_id = sync_id
        self.epoch = epoch
        self.full = full
        self.counts: dict[str, Counts] = {}

    @cached_property
    def window_end(self) -> datetime:
        """The end of every `Window` of this sync: the source's clock at the first use of it."""
        return source_time(self.context)

    def due(self, entity: Entity) -> bool:
        """Return whether the sync reads the entity's lists.

        Children are read with their parents. Some whole lists are read only after `read_every`.
        """
        if self.full or never_synced(self.context, entity):
            return True
        if entity.read_every is not None:
            elapsed = sync_log.time_since_in_step(self.context.conn, self.context.source.name, entity.name)
            return elapsed is None or elapsed >= entity.read_every
        return not isinstance(entity, Child)

    def sync_entity(self, entity: Entity) -> None:
        """Read an entity's changes, and write them with their children and the records that they refer to.

        Raises RecordsSkipped after everything that is proven is written. No watermark has passed what is not.
        Raises ApiError or PullError where the entity can't be read, so that nothing is written.
        """
        started, context = time.monotonic(), self.context
        partitions, partition_problems = _partitions_to_read(context, entity)
        groups = _groups(context, entity, partitions, self.full)
        try:
            extract = self._stage_changes(entity, groups)
        except ListCapped as error:
            if all(group.since is None for group in groups):
                raise
            log.warning("%s The whole list is read instead", error)
            groups = [replace(group, since=None) for group in groups]
            extract = self._stage_changes(entity, groups)
        if not self.full:
            skip_changes_before_reset(context, extract)
        feed = entity.changes if isinstance(entity.changes, Feed) and all(group.since for group in groups) else None
        plan_sync(context, extract, newest_first=feed is not None and feed.newest_first)
        # A person may read everything because a column is new. Then every row is a suspect, and no budget must apply.
        looks = second_look(context, extract, every=self.full)
        # Judged by the watermark: a sync that is too far behind a feed reads whole lists, but needs the children too.
        children, problems = ([], []) if self.full else stage_children(context, extract)
        problems += unproven_rows(extract, needs_person=looks.needs_person)
        needed, needed_problems = stage_needed(context, extract)
        states = self._new_states(extract, groups, unproven=bool(problems))
        # The other problems stop no watermark, or only that of their partition.
        problems += needed_problems + partition_problems + unread_records(extract)
        self._write(extract, children, needed, states, started)
        log.info("%s.%s: %s, %s", context.source.name, entity.name, self.counts[entity.name], states)
        if problems:
            raise RecordsSkipped(problems)

    def _write(
        self,
        extract: Extract,
        children: Sequence[Extract],
        needed: Sequence[Stage],
        states: Mapping[str, NewState],
        started: float,
    ) -> None:
        """Apply all plans and save the new states in one transaction, then drop the staged rows."""
        watermarks, entity = [state.watermark for state in states.values()], extract.entity
        oldest = min(filter(None, watermarks), default=None)
        # Nested rows and children have one state for all partitions: the one of the partition furthest behind.
        together = {"": NewState(oldest, all(state.in_step for state in states.values()))}
        if isinstance(entity, Child):
            # If the list of one parent failed, the first sync of all has to be repeated.
            states = together if None not in watermarks else {"": NewState(None, in_step=False)}
        with fence.writing(self.context.conn, self.context.source.name, epoch=self.epoch):
            for stage in needed:
                self._apply(stage)
            for each in (extract, *children):
                keep_fields(self.context, each, whole=False)
                for stage in each.stages:
                    counts = self._apply(stage)
                    # Nested rows have no versions of their own.
                    version = _newest_version(extract.stage if stage in extract.stages else stage)
                    self._save_states(stage, states if stage is extract.stage else together, version, counts, started)
        for each in (extract, *children):
            each.drop()
        for stage in needed:
            stage.drop()

    def _save_states(
        self, stage: Stage, states: Mapping[str, NewState], version: int | None, counts: Counts, started: float
    ) -> None:
        """Save the new state of each partition of a table in confidence.sync_state."""
        for partition, state in states.items():
            sync_log.advance(
                self.context.conn,
                self.sync_id,
                self.context.source.name,
                stage.table.name,
                watermark=state.watermark,
                in_step=state.in_step,
                version=version,
                counts=counts,
                partition=partition,
                duration_seconds=time.monotonic() - started,
            )

    def _apply(self, stage: Stage) -> Counts:
        """Apply a table's plan and return its counts. Raises PullError if another sync has begun to read the table."""
        stage.claim()
        compare.confirm_due(stage)
        merged = apply_plan(stage.conn, stage.table, stage.plan, self.sync_id)
        read, refused = stage.pull.rows_read, stage.pull.rows_refused
        unchanged = max(0, read - refused - merged.inserted - merged.updated - merged.superseded)
        counts, name = Counts.of(merged, read=read, unchanged=unchanged, failed=refused), stage.table.name
        self.counts[name] = self.counts.get(name, Counts()) + counts
        return counts

    def _stage_changes(self, entity: Entity, groups: Sequence[PartitionGroup]) -> Extract:
        """Read the changes of all groups into staging. Only an interrupted reading of everything is resumed."""
        context = self.context
        ticket = "; ".join(map(str, groups))
        if isinstance(entity, Discovered):
            # What its lists show depends on the params.
            ticket += f"; {json.dumps(dict(context.params), sort_keys=True)}"
        extract = Extract.open(context, entity, "sync", ticket)
        incremental = any(group.since for group in groups) and not self.full
        if extract.stage.resumed and incremental:
            extract = extract.restart(context)
        # A list that is read from both ends has no partitions, so there is one group.
        if isinstance(entity.changes, BothEnds) and groups[0].since:
            try:
                for page in pages_from_both_ends(context, entity, groups[0].since):
                    extract.append(page, page.next)
                    extract.check_refused(ended=extract.stage.pull.complete)
            except Unsorted:
                log.info("%s: the list is not sorted as expected, so all of it is read", entity.name)
                extract = extract.restart(context)
            else:
                if not (extract.stage.pull.rows_read or has_lost_all_rows(context, extract)):
                    extract.require_rows()
                return extract

        def listings(singly: bool) -> list[Listing]:
            single = [PartitionGroup((partition,), each.since) for each in groups for partition in each.partitions]
            return [listing for group in (single if singly else groups) for listing in self._listings(entity, group)]

        unchanged_before = None if self.full else min((each.since for each in groups if each.since), default=None)
        extract = read_partitions(context, extract, listings, unchanged_before=unchanged_before)
        if isinstance(entity, Discovered) and not entity.partial(context) and not entity.limit(context):
            short_lists.look_up_hidden(context, extract, listings(singly=False))
        return extract

    def _listings(self, entity: Entity, group: PartitionGroup) -> list[Listing]:
        """Return the lists with the changes in the group since its time, or with everything if it has none."""
        listings = self._changed(entity, group)
        if (deletes := entity.deletes) and group.since:
            none = {"shape": lambda entry: None, "deleted": deletes.deleted}
            listings.append(Listing(deletes.request(group.since), deletes.paginator, **none))
        return listings

    def _changed(self, entity: Entity, group: PartitionGroup) -> list[Listing]:
        changes, whole = entity.changes, batch_listings(self.context, entity, group.partitions, group.since)
        # Children and discovered entities have no `changes`. The lists of the latter show what changed by themselves.
        if group.since is None or changes is None or isinstance(changes, FullList | BothEnds):
            return whole
        if isinstance(changes, Feed):
            shape = {"shape": changes.record, "deleted": changes.deleted}
            return [Listing(changes.request(group.since), changes.paginator, **shape)]
        if isinstance(changes, Since):
            return [replace(each, request=changes.request(each.request, group.since)) for each in whole]
        # A `Window`.
        requests = [changes.request, changes.late] if changes.late else [changes.request]
        return [
            replace(each, request=request(each.request, group.since, self.window_end))
            for each in whole
            for request in requests
        ]

    def _new_states(
        self, extract: Extract, groups: Sequence[PartitionGroup], *, unproven: bool
    ) -> Mapping[str, NewState]:
        """Return the new state of each partition.

        If a record was skipped, the watermark stops before its version (or change time). The watermark doesn't move
        if a row is unproven, if the partition's list could not be read whole, or if the run reads only a part. If a
        list shows fewer rows than its total claims, the watermark stays as long as a sync of it still changes the copy.
        After that the total is taken for wrong; scans count the rows that are missing to it as unseen.
        """
        context, entity = self.context, extract.entity
        read_until, states = self._read_until(extract, groups), {}
        if not groups:
            before = sync_log.state(context.conn, context.source.name, entity.name).watermark
            return {"": NewState(_later(before, read_until), in_step=not unproven)}
        stays = unproven or (isinstance(entity, Discovered) and entity.partial(context))
        # The total of a list in brief is not that of its records.
        brings = isinstance(entity, Discovered) or any(
            status == "confirmed" for _, status in compare.plan_counts(extract.stage)
        )
        for partition in (partition for group in groups for partition in group.partitions):
            kept_as = "" if isinstance(entity, Child) else partition
            before = sync_log.state(context.conn, context.source.name, entity.name, kept_as).watermark
            skipped = [each.moment for each in extract.skipped_records if each.partition == partition]
            failed, short = partition in extract.failed_partitions, partition in extract.short_partitions
            if stays or failed or (short and brings) or None in skipped:
                states[partition] = NewState(before, in_step=False)
            else:
                times = [datetime.fromisoformat(each) for each in skipped] + [_later(before, read_until)]
                in_step = not (skipped or short)
                states[partition] = NewState(min(filter(None, times), default=None), in_step=in_step)
        return states

    def _read_until(self, extract: Extract, groups: Sequence[PartitionGroup]) -> datetime | None:
        """Return the time up to which a sync has read the changes, if it read everything that it was to read.

        It is the source's clock when the pull began, or the time of the newest row if the source tells no time. But it
        is not later than the beginning of the pull by our own clock. Else the changes until then would be left out, if
        the source's clock is ahead, if only later pages tell the time, or if rows have changed while the list was read.
        """
        stage, moment = extract.stage, extract.stage.pull.source_time
        # Without groups nothing was read that could tell the time.
        if not groups or (isinstance(extract.entity.changes, Window) and any(group.since for group in groups)):
            moment = min(filter(None, (self.window_end, moment)))
        if moment is None and stage.table.moment:
            newest = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(stage.table.moment), stage.sql)
            moment = stage.conn.execute(newest).fetchone()[0]
        return moment and min(moment, stage.pull.started_at)


def _later(before: datetime | None, read_until: datetime | None) -> datetime | None:
    """Return the later of two watermarks, as a watermark never moves back. It is not later than our own clock."""
    latest = max((time for time in (before, read_until) if time), default=None)
    return latest and min(latest, datetime.now(UTC))


def _newest_version(stage: Stage) -> int | None:
    """Return the highest version in the copy; None if the source doesn't number its versions."""
    table = stage.table
    if table.changed is None or table.version is None:
        return None
    query = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(table.version), table.sql)
    return stage.conn.execute(query).fetchone()[0]


def source_time(context: MirrorContext) -> datetime:
    """Return the source's clock, or ours if that is earlier. Raises RefuseData where the source tells no time."""
    entity = context.source.entities[0]
    listing, *_ = all_listings(context, entity, known_partitions(context, entity))
    now = context.client.send(listing.request).date
    if now is None:
        raise RefuseData(
            f"{context.source.name} gives no time in its answers, so the sync doesn't know up to when it has read."
            " Nothing was written"
        )
    return min(now, datetime.now(UTC))


def _partitions_to_read(context: MirrorContext, entity: Entity) -> tuple[Sequence[str], list[Problem]]:
    """Return the entity's partitions, and a problem if the source could not list them, so that some may be missing."""
    try:
        return all_partitions(context, entity), []
    except ApiError as error:
        name = entity.partitions.listed_by
        return known_partitions(context, entity), [Problem(f"perhaps all of {name} that the copy lacks", str(error))]


def _groups(context: MirrorContext, entity: Entity, partitions: Sequence[str], full: bool) -> list[PartitionGroup]:
    """Return the partitions in groups for one request each. A group has one time to read from.

    A partition is read as a whole if its vendor doesn't keep events for long enough.
    """
    by_since: dict[datetime | None, list[str]] = {}
    for partition in partitions:
        since = None if full else _since(context, entity, partition)
        changes = entity.changes
        if isinstance(changes, Feed) and changes.keeps and since:
            since = since if since > datetime.now(UTC) - changes.keeps else None
        by_since.setdefault(since, []).append(partition)
    return [PartitionGroup(batch, since) for since, values in by_since.items() for batch in batches(entity, values)]


def _since(context: MirrorContext, entity: Entity, partition: str) -> datetime | None:
    """Return the time from which a sync reads a partition's changes; None before its first sync.

    The first load of children may end long after it began. What changed in between is read with the parents, so an
    entity without partitions is read from where its children were last read.
    """
    names = [entity.name, *(child.name for child in context.source.children(entity) if not partition)]
    states = [sync_log.state(context.conn, context.source.name, name, partition) for name in names]
    since, *of_children = (state.since(context.source.lookback) for state in states)
    return since and min(filter(None, [since, *of_children]))


def _failure(source: str, failures: Mapping[str, Exception]) -> SyncFailed:
    """Return the error of a sync in which these entities failed."""
    lines = "; ".join(f"{entity}: {str(error).rstrip('.')}" for entity, error in failures.items())
    message = (
        f"{source} was not synced completely. {lines}. The watermarks stop before what"
        " is missing, so the next sync reads it again. Fix what the reasons name, then clear this task"
    )
    needs_person = any(
        isinstance(error, FixConfiguration) or (isinstance(error, RecordsSkipped) and error.needs_person)
        for error in failures.values()
    )
    return NeedsPerson(message) if needs_person else SyncFailed(message)
