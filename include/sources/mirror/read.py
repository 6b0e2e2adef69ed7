"""Lists read into staging, page by page, from where a pull has come to."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from include.api.errors import ApiError, FixConfiguration, RefuseData
from include.api.fetch import page_request, pages
from include.api.paginators import Page
from include.sources.mirror import gap, lookup
from include.sources.mirror.entity import Context, Discovered, Entity, Listing
from include.sources.mirror.extract import Extract, least_rows
from include.sources.mirror.lookup import Completed, Row, rows_of
from include.sources.mirror.partitions import every_partition, whole_list
from include.warehouse.staging import PullError, TooManyRefused, staged
from include.warehouse.table import Table

log = logging.getLogger(__name__)

# How often a list may be read that shows fewer rows than it says; each time it has to show some more.
READINGS = 8

Progress = Callable[[Extract], None]
_Step = tuple[int, Listing, Page, Any]


def read(
    context: Context,
    extract: Extract,
    listings: Sequence[Listing],
    *,
    first: int | None = None,
    last: int | None = None,
    known_before: datetime | None = None,
    progress: Progress = lambda _: None,
) -> Extract:
    """Append all pages of the lists, one list after the other, from where the pull has come to.

    `first`, `last`: page numbers to begin and to end with, for a single list. `known_before`: records that a list shows
    in brief are left out where the copy has them so, and they changed before that time. A list whose token is not
    accepted any more is read again from its start, with everything before it: what was staged may have changed
    meanwhile. A list that shows fewer rows than it says is read again while that shows more. Of several partitions one
    may fail: then `Extract.failed` names it.
    """
    again = False
    if not listings:
        parts = extract.entity.partitions.column
        raise PullError(f"{extract.entity.name} is read by {parts}, and none is known yet. Mend what failed before it")
    while not extract.stage.pull.complete:
        number, position = extract.stage.pull.position or (0, first)
        listing = listings[number]
        try:
            for step in _walk(context, extract, listings, number, position, last):
                _append(context, extract, step, known_before)
                _require_stored(extract, listings, number)
                progress(extract)
        except FixConfiguration as error:
            resumed = extract.stage.pull.position and extract.stage.pull.position[1] is not None
            if resumed and listing.paginator.expires and not again:
                again = True
                # Where the first page is refused too, it isn't the token, and what was staged stays.
                next(_walk(context, extract, listings, 0, first, last))
                log.warning("%s In case that its token has expired, the list is read again from its start", error)
                extract = extract.fresh(context)
            else:
                _fail(extract, listings, number, error)
        except (ApiError, TooManyRefused) as error:
            _fail(extract, listings, number, error)
        else:
            if last is None and not extract.failed.get(listing.partition):
                _read_again_if_short(context, extract, listings, number)
    _leave_out_refused(extract)
    return extract


def read_partitions(
    context: Context, extract: Extract, listings: Callable[[bool], Sequence[Listing]], **asked: Any
) -> Extract:
    """`read` the lists; if one of several partitions fails, read them once more, each partition by itself.

    `listings` gives them as handfuls, or singly.
    """
    singly = extract.progress.get("singly", False)
    try:
        return read(context, extract, listings(singly), **asked)
    except (ApiError, TooManyRefused) as error:
        several = extract.entity.partitions and extract.entity.partitions.size > 1
        concerns_all = isinstance(error, FixConfiguration) and error.concerns_all
        if singly or not several or concerns_all:
            raise
        log.warning("%s Since that may concern one partition alone, each is asked for by itself", error)
        extract = extract.fresh(context)
        extract.stage.save_progress(singly=True)
        return read(context, extract, listings(True), **asked)


def _require_stored(extract: Extract, listings: Sequence[Listing], number: int) -> None:
    """`Extract.require_stored` of the partition of that list, which may have come to its end."""
    partition, pull = listings[number].partition, extract.stage.pull
    extract.require_stored(partition, ended=pull.complete or listings[pull.position[0]].partition != partition)


def _leave_out_refused(extract: Extract) -> None:
    """Where each partition alone has few refused rows, but all together have too many, leave out those that have some.

    Raises TooManyRefused if none is left.
    """
    names = sorted({state["partition"] for state in extract.lists.values()} - {"", *extract.failed})
    try:
        extract.require_stored(*names, ended=True)
    except TooManyRefused as error:
        refused = [name for name in names if any(count for _, count in extract.stored(name))]
        if refused == names:
            extract.drop()
            raise
        for name in refused:
            extract.leave_out(name, str(error))


def _fail(extract: Extract, listings: Sequence[Listing], number: int, error: ApiError | TooManyRefused) -> None:
    """Go on with the next list, if this one is of a partition and the error may concern it alone; else raise."""
    partition = listings[number].partition
    others = {listing.partition for listing in listings} - {partition}
    concerns_all = isinstance(error, FixConfiguration) and error.concerns_all
    if concerns_all or not partition or not others - set(extract.failed):
        if isinstance(error, TooManyRefused) or (extract.failed and not concerns_all):
            # Or the next attempt would not ask again for what was refused, or for the partitions that failed before.
            extract.drop()
        raise error
    extract.leave_out(partition, str(error))
    left = [place for place in range(number + 1, len(listings)) if listings[place].partition not in extract.failed]
    for stage in extract.stages:
        if left:
            stage.reopen((left[0], None))
        else:
            stage.finish()


def _read_again_if_short(context: Context, extract: Extract, listings: Sequence[Listing], number: int) -> None:
    """Reopen the list if it shows fewer rows than it says; a sync always, a scan if that costs fewer look-ups.

    Where a sync's list stays short its partition is cut: what it leaves out would be missing in the copy.
    """
    # Lists in brief and feeds of events tell how many of those there are, not how many records.
    if isinstance(extract.entity, Discovered) or listings[number].deleted:
        return
    if extract.shortage(number):
        _ask_total_again(context, extract, listings[number], number)
    shortage, state = extract.shortage(number), extract.list_state(number)
    readings, before = state.get("readings", 1), state.get("shortage")
    syncs = extract.stage.pull.purpose == "sync"
    if not shortage or not (syncs or shortage > (extract.stage.pull.total_pages or 1)):
        return
    if readings < READINGS and (before is None or shortage < before):
        log.warning("%s: a list shows %d rows less than it says, it is read again", extract.entity.name, shortage)
        extract.start_again(number, readings=readings + 1, shortage=shortage)
        for stage in extract.stages:
            stage.reopen((number, None))
    elif syncs:
        why = (
            f"a list of {extract.entity.name} says that it has {state['promised']} rows, and {shortage} of them were"
            f" not shown in {readings} readings: they may be missing in the copy. Run the task again; if it stays so,"
            " ask the API's vendor"
        )
        extract.stage.save_progress(cut={**extract.cut, listings[number].partition: why})


def _ask_total_again(context: Context, extract: Extract, listing: Listing, number: int) -> None:
    """Keep the total that the first page tells now: the list may have become shorter while it was read."""
    paginator, state = listing.paginator, extract.list_state(number)
    try:
        answer = context.client.send(page_request(listing.request, paginator, paginator.start))
        total = least_rows(paginator.read(answer, paginator.start), state["largest"])
    except ApiError as error:
        log.warning("%s The list of %s counts as short, since nobody knows its total", error, extract.entity.name)
        return
    if total is not None and total < state["promised"]:
        extract.save_list_state(number, promised=total)


def _append(context: Context, extract: Extract, step: _Step, known_before: datetime | None) -> None:
    number, listing, page, following = step
    shapes = _taken_out(listing.shape, page)
    rows = [{**listing.adds, **row} for row in shapes] if listing.adds else shapes
    found = _completed(context, extract, listing, dataclasses.replace(page, rows=rows), known_before)
    if listing.deleted:
        found = dataclasses.replace(found, delete_events=_delete_events(extract.entity.table, listing, page))
    if listing.named:
        # No list has shown what the run names.
        found = dataclasses.replace(found, absent=())
    extract.append(found.page, following, found, number, listing.partition)
    if listing.newest:
        gap.note(extract, number, listing, rows, left_out=len(page.rows) - len(rows))


def _taken_out(read: Callable[[Row], Row | None], page: Page) -> list[Row]:
    """What the reader finds in each row of the page, if anything. Raises RefuseData for a row of another shape."""
    return rows_of(lambda: (found for row in page.rows if (found := read(row)) is not None))


def _delete_events(table: Table, listing: Listing, page: Page) -> tuple[tuple, ...]:
    """The keys of the records that events say are deleted. Raises RefuseData where one has no usable key."""
    keys = [table.key_of(record) for record in _taken_out(listing.deleted, page)]
    if None in keys:
        raise RefuseData(f"an event says that a record of {table.name} is deleted, but not which")
    return tuple(keys)


def _completed(
    context: Context, extract: Extract, listing: Listing, page: Page, known_before: datetime | None
) -> Completed:
    """The page with its records in full."""
    entity, stage = extract.entity, extract.stage
    if not isinstance(entity, Discovered):
        return Completed(page)
    skip = staged(stage, filter(None, map(entity.table.key_of, page.rows)))
    if known_before:
        skip |= lookup.known(context, entity, page, known_before)
    limit = entity.limit(context) if stage.pull.purpose == "sync" else 0
    room = max(0, limit - stage.pull.rows_read) if limit else None
    return lookup.complete(context, entity, page, listing.partition, skip=skip, room=room)


def _walk(
    context: Context, extract: Extract, listings: Sequence[Listing], number: int, position: Any, last: int | None
) -> Iterator[_Step]:
    """The pages of one list from a resume point on, each with the resume point behind it, None at the end of all."""
    listing = listings[number]
    rows = extract.list_state(number).get("counts", [(0, 0)])[0][0]
    asked = {"position": position, "stop": last, "rows": rows, "workers": context.workers}
    named = [Page(None, list(listing.named), None)]
    for page in pages(context.client, listing.request, listing.paginator, **asked) if listing.request else named:
        ended = page.next is None or (last is not None and page.position == last)
        if not ended:
            yield number, listing, page, (number, page.next)
        else:
            yield number, listing, page, (number + 1, None) if number + 1 < len(listings) else None


def read_whole(
    context: Context, entity: Entity, purpose: str, ticket: str, *, first: int | None = None, **asked: Any
) -> Extract:
    """Read all that the source has of an entity, or go on with that. If its partitions have changed, start anew."""
    values = every_partition(context, entity)
    extract = Extract.open(context, entity, purpose, "/".join(filter(None, [ticket, ",".join(values)])))
    pull = extract.stage.pull
    if extract.stage.resumed and not pull.complete:
        log.info("going on from page %d, %d rows are staged", (first or 1) + pull.pages, pull.rows_read)

    def listings(singly: bool) -> list[Listing]:
        return whole_list(context, entity, values, singly=singly)

    extract = read_partitions(context, extract, listings, first=first, **asked)
    extract.stage.save_progress(partitions=list(values))
    return extract
