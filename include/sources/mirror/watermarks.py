"""Watermarks: up to when a sync has read each partition, by the source's own clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from psycopg import sql

from include.api.errors import RefuseData
from include.sources.mirror.changes import FullList, Window
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Discovered
from include.sources.mirror.extract import Extract
from include.sources.mirror.partitions import PartitionGroup, all_listings, known_partitions
from include.warehouse import compare, sync_log
from include.warehouse.staging import Stage


@dataclass(frozen=True)
class NewState:
    """The state of a partition after a sync. `in_step`: the sync left out nothing that changed before it began."""

    watermark: datetime | None
    in_step: bool


class SourceClock:
    """The source's time, read once when it is first needed. It is the end of every `Window` of a sync."""

    def __init__(self, context: MirrorContext):
        self._context = context

    @cached_property
    def now(self) -> datetime:
        return source_time(self._context)


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


def new_states(
    context: MirrorContext,
    extract: Extract,
    groups: Sequence[PartitionGroup],
    clock: SourceClock,
    *,
    children_unproven: bool,
) -> Mapping[str, NewState]:
    """Return the new state of each partition.

    If a record was skipped, the watermark stops before its version (or change time). The watermark doesn't move
    if a row is unproven, if the partition's list could not be read whole, or if the run reads only a part. If a
    list shows fewer rows than its total claims, the watermark stays as long as a sync of it still changes the copy.
    After that the total is taken for wrong, and scans count the missing rows as unseen.

    A first load moves it up to the earliest change of an unproven row. Otherwise a row that stays unproven would make
    every sync read everything, and no scan could begin.
    """
    entity, states = extract.entity, {}
    own_unproven = any(status == "unproven" for each in extract.stages for _, status in compare.plan_counts(each))
    unproven = own_unproven or children_unproven
    read_until = _read_until(extract, groups, clock)
    if not groups:
        before = sync_log.state(context.conn, context.source.name, entity.name).watermark
        return {"": NewState(_later(before, read_until), in_step=not unproven)}
    first_unproven = None if children_unproven or not read_until else _first_unproven(extract, read_until)
    stays = isinstance(entity, Discovered) and entity.partial(context)
    brings = any(status == "confirmed" for _, status in compare.plan_counts(extract.stage))
    for partition in (partition for group in groups for partition in group.partitions):
        kept_as = "" if isinstance(entity, Child) else partition
        before = sync_log.state(context.conn, context.source.name, entity.name, kept_as).watermark
        skipped = [each.moment for each in extract.lookups.skipped_records if each.partition == partition]
        times = [datetime.fromisoformat(each) for each in skipped if each]
        failed, short = partition in extract.failed_partitions, partition in extract.short_partitions
        if stays or failed or (short and brings) or None in skipped:
            states[partition] = NewState(before, in_step=False)
        elif unproven:
            first_load = first_unproven and min([first_unproven, *times])
            states[partition] = NewState(before or first_load, in_step=False)
        else:
            # If nothing tells the source's time, the first watermark is ours. It stays, so that no change is left out.
            moment = _later(before, read_until) or extract.stage.pull.started_at
            states[partition] = NewState(min([*times, moment]), in_step=not (skipped or short))
    return states


def _read_until(extract: Extract, groups: Sequence[PartitionGroup], clock: SourceClock) -> datetime | None:
    """Return the time up to which a sync has read the changes, if it read everything that it was to read.

    It is the source's clock when the pull began, or the time of the newest row if the source tells no time. It is never
    later than the beginning of the pull by our own clock. Otherwise changes could be left out: if the source's clock is
    ahead, if only later pages tell the time, or if rows have changed while the list was read.
    """
    stage, moment = extract.stage, extract.stage.pull.source_time
    # Without groups nothing was read that could tell the time.
    if not groups or (isinstance(extract.entity.changes, Window) and any(group.since for group in groups)):
        moment = min(filter(None, (clock.now, moment)))
    if moment is None and stage.table.moment:
        newest = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(stage.table.moment), stage.sql)
        moment = stage.conn.execute(newest).fetchone()[0]
    return moment and min(moment, stage.pull.started_at)


def _first_unproven(extract: Extract, read_until: datetime) -> datetime | None:
    """Return the earliest time of change of an unproven row, but no later one than `read_until`.

    None if there is no such row, or if the time of one of them is not known. If each sync reads the whole list, it
    shows these rows again, so the time is `read_until`.
    """
    if isinstance(extract.entity.changes, FullList):
        return read_until
    stage, moment = extract.stage, extract.entity.table.moment
    if moment is None:
        return None
    time, plan = sql.Identifier(moment), stage.plan
    conditions = [sql.SQL("bool_and({} IS NOT NULL)").format(time)]
    for part, each in extract.parts:
        of_record = extract.belongs_to_record(part, "p", "w")
        conditions.append(sql.SQL(RECORDS_UNPROVEN).format(part=each.plan, plan=plan, of_record=of_record))
    query = sql.SQL("SELECT min({}) FROM {} WHERE _status = 'unproven' HAVING {}")
    found = stage.conn.execute(query.format(time, plan, sql.SQL(" AND ").join(conditions)))
    return next((min(first, read_until) for (first,) in found), None)


def _later(before: datetime | None, read_until: datetime | None) -> datetime | None:
    """Return the later of two watermarks, as a watermark never moves back. It is not later than our own clock."""
    latest = max((time for time in (before, read_until) if time), default=None)
    return latest and min(latest, datetime.now(UTC))


def newest_version(stage: Stage) -> int | None:
    """Return the highest version in the copy; None if the source doesn't number its versions."""
    table = stage.table
    if table.changed is None or table.version is None:
        return None
    query = sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(table.version), table.sql)
    return stage.conn.execute(query).fetchone()[0]


# A nested row has no time of change of its own: that of its record counts only if the record is unproven too.
RECORDS_UNPROVEN = """
NOT EXISTS (SELECT FROM {part} p WHERE p._status = 'unproven' AND NOT EXISTS (
  SELECT FROM {plan} w WHERE {of_record} AND w._status = 'unproven'))
"""
