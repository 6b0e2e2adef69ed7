"""The partitions of an entity, and the lists that show their records."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from include.api.fetch import pages
from include.sources.base import entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Discovered, Entity
from include.sources.mirror.listing import Listing
from include.warehouse.table import key_text

# The longest text of partitions that a ticket quotes.
LONGEST_NAME = 200


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


def short_name(partitions: str) -> str:
    """Return the names of partitions for a ticket: a hash of them if there are many, as messages quote tickets."""
    if len(partitions) <= LONGEST_NAME:
        return partitions
    return f"many parts, {hashlib.sha256(partitions.encode()).hexdigest()[:16]}"


def all_listings(
    context: MirrorContext, entity: Entity, values: Sequence[str], *, singly: bool = False
) -> list[Listing]:
    """Return the lists with everything in these partitions. `singly`: request each partition by itself."""
    return [
        listing
        for batch in batches(entity, values, singly=singly)
        for listing in batch_listings(context, entity, batch)
    ]


def known_partitions(context: MirrorContext, entity: Entity) -> Sequence[str]:
    """Return the entity's partitions that the warehouse knows, as texts; [""] if the entity has none."""
    return [str(value) for value in entity.partitions.values(context)] if entity.partitions else [""]


def state_partitions(context: MirrorContext, entity: Entity) -> Sequence[str]:
    """Return the partitions that have a state of their own in confidence.sync_state; [""] if there is one state.

    Children are read with their parents, so they have one, even if each parent has a list of its own.
    """
    return [""] if isinstance(entity, Child) else known_partitions(context, entity)


def all_partitions(context: MirrorContext, entity: Entity) -> Sequence[str]:
    """Return the entity's known partitions, and those that only the source lists. Raises ApiError."""
    known = known_partitions(context, entity)
    if not entity.partitions or not entity.partitions.listed_by:
        return known
    return [*known, *sorted(_listed_ids(context, entity_of(context.source, entity.partitions.listed_by)) - set(known))]


def _listed_ids(context: MirrorContext, entity: Entity) -> set[str]:
    """Return the ids that the entity's own lists show at the source."""
    return {
        key_text(key)
        for listing in all_listings(context, entity, known_partitions(context, entity))
        for page in pages(context.client, listing.request, listing.paginator)
        for row in page.rows
        if (key := entity.table.key_of(row))
    }


def batches(entity: Entity, values: Sequence[str], *, singly: bool = False) -> list[tuple[str, ...]]:
    """Return the partitions in batches for one request each. `singly`: one partition in each batch."""
    size = entity.partitions.size if entity.partitions and not singly else 1
    return [tuple(values[place : place + size]) for place in range(0, len(values), size)]


def batch_listings(
    context: MirrorContext, entity: Entity, batch: Sequence[str], since: datetime | None = None
) -> list[Listing]:
    """Return the lists of one batch of partitions.

    They show everything. Only the lists of a `Discovered` entity show what changed since `since`.
    """
    if isinstance(entity, Discovered):
        return [listing for partition in batch for listing in entity.lists(context, partition, since)]
    listing, partitions, (partition, *others) = entity.listing, entity.partitions, batch
    requests = [listing and dataclasses.replace(listing, params={**listing.params, **view}) for view in entity.views]
    if partitions is None:
        return [Listing(request, entity.paginator) for request in requests]
    adds = {partitions.column: partition} if partitions.adds else {}
    # A list of several partitions fails as a whole, so it has the name of none.
    name = "" if others else partition
    return [Listing(partitions.request(request, batch), entity.paginator, name, adds) for request in requests]
