"""Syncs: read what changed since the watermark, or everything, and write it to the warehouse."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from include.api.errors import ApiError, FixConfiguration, ListCapped
from include.sources.base import NeedsPerson, SyncFailed
from include.sources.mirror.address_doubt import is_another_account, shows_known_row
from include.sources.mirror.changes import Feed
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.derive import derive
from include.sources.mirror.entity import Child, Entity
from include.sources.mirror.entity_census import keep_fields
from include.sources.mirror.extract import Extract
from include.sources.mirror.planning import plan_sync, skip_changes_before_reset
from include.sources.mirror.read_changes import groups_to_read, partitions_to_read, stage_changes
from include.sources.mirror.related import (
    Problem,
    never_synced,
    stage_children,
    stage_needed,
    unproven_rows,
    unread_records,
)
from include.sources.mirror.second_look import second_look
from include.sources.mirror.watermarks import NewState, SourceClock, new_states, newest_version
from include.sources.mirror.wrong_pages import require_declared_start
from include.warehouse import compare, fence, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.pull import PullError
from include.warehouse.staging import Stage
from include.warehouse.sync_log import Counts

log = logging.getLogger(__name__)

# The number of records that a message names.
EXAMPLES = 10


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
        _finish(context, sync_id, run.counts, error=error)
        raise
    _finish(context, sync_id, run.counts)
    return sync_id, run.counts


def _finish(
    context: MirrorContext, sync_id: int, counts: Mapping[str, Counts], error: BaseException | None = None
) -> None:
    """Complete the entry in confidence.sync_log."""
    client = context.client
    traffic = {"requests": client.requests_sent, "request_errors": client.requests_failed}
    sync_log.finish(context.conn, sync_id, counts, error, **traffic)


class _Sync:
    """One sync in progress.

    - `counts`: grow with each table that is written
    - `is_known_account`: a list has shown a row that the copy has, so the token is of the same account for all of them
    """

    def __init__(self, context: MirrorContext, sync_id: int, epoch: int, full: bool):
        self.context = context
        self.sync_id = sync_id
        self.epoch = epoch
        self.full = full
        self.clock = SourceClock(context)
        self.counts: dict[str, Counts] = {}
        self.is_known_account = False

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
        Raises ApiError or PullError where the entity can't be read, so that nothing is written; and NeedsPerson where
        the account is another one.
        """
        started, context = time.monotonic(), self.context
        partitions, partition_problems = partitions_to_read(context, entity)
        groups = groups_to_read(context, entity, partitions, self.full)
        try:
            extract = stage_changes(context, entity, groups, self.clock, full=self.full)
        except ListCapped as error:
            if all(group.since is None for group in groups):
                raise
            log.warning("%s The whole list is read instead", error)
            groups = [replace(group, since=None) for group in groups]
            extract = stage_changes(context, entity, groups, self.clock, full=self.full)
        if never_synced(context, entity):
            require_declared_start(context, extract)
        if not self.is_known_account:
            if is_another_account(context, extract):
                extract.drop()
                raise _another_account(context.source.name, entity)
            self.is_known_account = shows_known_row(extract)
        if not self.full:
            skip_changes_before_reset(context, extract)
        feed = entity.changes if isinstance(entity.changes, Feed) and all(group.since for group in groups) else None
        plan_sync(context, extract, feed=feed)
        # A person may read everything because a column is new. Then every row is a suspect, and no budget must apply.
        looks = second_look(context, extract, every=self.full)
        # Judged by the watermark: a sync that is too far behind a feed reads whole lists, but needs the children too.
        children, problems = ([], []) if self.full else stage_children(context, extract)
        states = new_states(context, extract, groups, self.clock, children_unproven=bool(problems))
        problems += unproven_rows(extract, needs_person=looks.needs_person)
        needed, needed_problems = stage_needed(context, extract)
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
                    version = newest_version(extract.stage if stage in extract.stages else stage)
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


def _another_account(source: str, entity: Entity) -> NeedsPerson:
    return NeedsPerson(
        f"{source} was not synced. All that it lists of {entity.name} is new to the copy, and it shows nothing that the"
        f" copy has: host or token of connection {source!r} seem to be another account's. None of it was written. Mend"
        " the connection, then clear this task"
    )


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
