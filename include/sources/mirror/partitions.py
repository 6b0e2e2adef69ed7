"""The partitions of an entity, and the lists that show what each of them has."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime

from include.api.fetch import pages
from include.sources.base import entity_of
from include.sources.mirror.entity import Context, Discovered, Entity, Listing


def whole_list(context: Context, entity: Entity, values: Sequence[str], *, singly: bool = False) -> list[Listing]:
    """What shows all of these partitions: one list, or one for each handful of them, or for each of them."""
    return [each for handful in handfuls(entity, values, singly=singly) for each in lists(context, entity, handful)]


def partitions(context: Context, entity: Entity) -> Sequence[str]:
    """The entity's partitions as the warehouse knows them; one without a name where it has none."""
    return entity.partitions.values(context) if entity.partitions else [""]


def every_partition(context: Context, entity: Entity) -> Sequence[str]:
    """The entity's partitions, with those that only the source's list of them shows."""
    known = partitions(context, entity)
    if not entity.partitions or not entity.partitions.listed_by:
        return known
    return [*known, *sorted(_listed(context, entity_of(context.source, entity.partitions.listed_by)) - set(known))]


def _listed(context: Context, entity: Entity) -> set[str]:
    """The ids that an entity's own lists show."""
    return {
        "/".join(map(str, key))
        for listing in whole_list(context, entity, partitions(context, entity))
        for page in pages(context.client, listing.request, listing.paginator)
        for row in page.rows
        if (key := entity.table.key_of(row))
    }


def handfuls(entity: Entity, values: Sequence[str], *, singly: bool = False) -> list[tuple[str, ...]]:
    """As many partitions as go into one request."""
    size = entity.partitions.size if entity.partitions and not singly else 1
    return [tuple(values[place : place + size]) for place in range(0, len(values), size)]


def lists(context: Context, entity: Entity, handful: Sequence[str], since: datetime | None = None) -> list[Listing]:
    """The lists of some partitions: of what changed since then for records that are discovered, else of everything."""
    if isinstance(entity, Discovered):
        return [each for partition in handful for each in entity.lists(context, partition, since)]
    listing = entity.listing
    requests = [dataclasses.replace(listing, params={**listing.params, **view}) for view in entity.views]
    parts, (partition, *others) = entity.partitions, handful
    if parts is None:
        return [Listing(each, entity.paginator) for each in requests]
    adds = {parts.column: partition} if parts.adds else {}
    # A list of several partitions fails as a whole.
    name = "" if others else partition
    return [Listing(parts.request(each, handful), entity.paginator, name, adds) for each in requests]
