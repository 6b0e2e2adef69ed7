"""What a sync reads of an entity: since the watermark of each partition, as the entity's changes are declared."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from include.api.errors import ApiError, FixConfiguration
from include.sources.mirror import short_lists
from include.sources.mirror.address_doubt import has_lost_all_rows
from include.sources.mirror.both_ends import Unsorted, pages_from_both_ends
from include.sources.mirror.changes import BothEnds, Feed, FullList, Since
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Discovered, Entity
from include.sources.mirror.extract import Extract
from include.sources.mirror.listing import Listing
from include.sources.mirror.partitions import (
    PartitionGroup,
    all_partitions,
    batch_listings,
    batches,
    known_partitions,
    short_name,
)
from include.sources.mirror.read import read_partitions
from include.sources.mirror.related import Problem
from include.sources.mirror.watermarks import SourceClock
from include.warehouse import sync_log

log = logging.getLogger(__name__)


def partitions_to_read(context: MirrorContext, entity: Entity) -> tuple[Sequence[str], list[Problem]]:
    """Return the entity's partitions, and a problem if the source could not list them, so that some may be missing."""
    try:
        return all_partitions(context, entity), []
    except ApiError as error:
        name = entity.partitions.listed_by
        needs_person = isinstance(error, FixConfiguration)
        problem = Problem(f"perhaps all of {name} that the copy lacks", str(error), needs_person)
        return known_partitions(context, entity), [problem]


def groups_to_read(
    context: MirrorContext, entity: Entity, partitions: Sequence[str], full: bool
) -> list[PartitionGroup]:
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


def stage_changes(
    context: MirrorContext, entity: Entity, groups: Sequence[PartitionGroup], clock: SourceClock, *, full: bool
) -> Extract:
    """Read what changed in all groups into staging. An interrupted read is resumed only if it reads whole lists.

    `full`: read whole lists, though changes could be asked for.

    Raises ListCapped, ApiError or PullError where the lists can't be read.
    """
    ticket = short_name("; ".join(map(str, groups)))
    if isinstance(entity, Discovered):
        # What its lists show depends on the params.
        ticket += f"; {json.dumps(dict(context.params), sort_keys=True)}"
    extract = Extract.open(context, entity, "sync", ticket)
    incremental = any(group.since for group in groups) and not full
    if extract.stage.resumed and incremental:
        extract = extract.restart(context)
    # A list that is read from both ends has no partitions, so there is one group.
    if isinstance(entity.changes, BothEnds) and groups[0].since:
        if _stage_both_ends(context, extract, groups[0].since):
            return extract
        extract = extract.restart(context)

    def listings(singly: bool) -> list[Listing]:
        single = [PartitionGroup((partition,), each.since) for each in groups for partition in each.partitions]
        return [
            listing for group in (single if singly else groups) for listing in _listings(context, entity, group, clock)
        ]

    unchanged_before = None if full else min((each.since for each in groups if each.since), default=None)
    extract = read_partitions(context, extract, listings, unchanged_before=unchanged_before)
    if isinstance(entity, Discovered) and not entity.partial(context) and not entity.limit(context):
        short_lists.look_up_hidden(context, extract, listings(singly=False))
    return extract


def _stage_both_ends(context: MirrorContext, extract: Extract, since: datetime) -> bool:
    """Stage the pages of a list that is read from both ends. Return False if it is not sorted as expected."""
    entity = extract.entity
    try:
        for page in pages_from_both_ends(context, entity, since):
            extract.append(page, page.next)
            extract.check_refused(ended=extract.stage.pull.complete)
    except Unsorted:
        log.info("%s: the list is not sorted as expected, so all of it is read", entity.name)
        return False
    if not (extract.stage.pull.rows_read or has_lost_all_rows(context, extract)):
        extract.require_rows()
    return True


def _listings(context: MirrorContext, entity: Entity, group: PartitionGroup, clock: SourceClock) -> list[Listing]:
    """Return the lists with the changes in the group since its time, or with everything if it has none."""
    listings = _record_listings(context, entity, group, clock)
    if (deletes := entity.deletes) and group.since:
        none = {"shape": lambda entry: None, "deleted": deletes.deleted}
        listings.append(Listing(deletes.request(group.since), deletes.paginator, **none))
    return listings


def _record_listings(
    context: MirrorContext, entity: Entity, group: PartitionGroup, clock: SourceClock
) -> list[Listing]:
    """Do what `_listings` does, without the list of deletes."""
    changes, whole = entity.changes, batch_listings(context, entity, group.partitions, group.since)
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
        replace(each, request=request(each.request, group.since, clock.now)) for each in whole for request in requests
    ]
