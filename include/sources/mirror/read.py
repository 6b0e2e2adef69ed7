"""Reading lists into staging, page by page, from the resume point of the pull."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from include.api.errors import ApiError, FixConfiguration, NotFound, RefuseData
from include.api.fetch import pages
from include.api.paginators import Page
from include.sources.base import entity_of
from include.sources.mirror import brief, short_lists
from include.sources.mirror.brief import CompletePage
from include.sources.mirror.changes import Feed
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Discovered, Entity
from include.sources.mirror.entity_census import keep_fields
from include.sources.mirror.extract import Extract
from include.sources.mirror.incomplete_lists import read_again_if_short
from include.sources.mirror.listing import Listing
from include.sources.mirror.lookup import Row, deleted_parents, read_rows
from include.sources.mirror.partitions import all_listings, all_partitions, short_name
from include.sources.mirror.wrong_pages import refuse_circle
from include.warehouse.pull import PullError, TooManyRefused
from include.warehouse.staging import staged
from include.warehouse.table import Table, add

log = logging.getLogger(__name__)

OnPage = Callable[[Extract], None]
# The number of a list, the list, one of its pages, and the resume point behind the page (None behind the last list).
_Step = tuple[int, Listing, Page, Any]


def read_lists(
    context: MirrorContext,
    extract: Extract,
    listings: Sequence[Listing],
    *,
    first: int | None = None,
    last: int | None = None,
    unchanged_before: datetime | None = None,
    on_page: OnPage = lambda _: None,
) -> Extract:
    """Append all pages of the lists, one list after the other, from the resume point. Return the extract to go on with.

    - `first`, `last`: the first and the last page number to read, for a single list
    - `unchanged_before`: for lists in brief, the time before which unchanged records need no look-up
    - `on_page`: called after each page

    If a list shows fewer rows than its total claims, it is read again as long as this brings more. If one of several
    partitions fails, `Extract.failed_partitions` names it and the others are read.

    If the token of the next page is no longer taken, the pull is restarted: what was staged may have changed meanwhile.
    The restarted extract is then the returned one.

    Raises ApiError or TooManyRefused where nothing else is left to read, and PullError where no partition is known or
    the pages show the same rows again and again.
    """
    if not listings:
        return _read_nothing(extract)
    if last is None:
        _check_last_ended(context, extract, listings)
    begun, restarted = extract.stage.pull.position, False
    while not extract.stage.pull.complete:
        number, position = extract.stage.pull.position or (0, first)
        try:
            for step in _list_pages(context, extract, listings, number, position, last):
                _append_page(context, extract, step, unchanged_before)
                _check_refused(extract, listings, number)
                # Events tell of one record again and again.
                if not isinstance(extract.entity.changes, Feed):
                    refuse_circle(extract)
                on_page(extract)
        except (ApiError, TooManyRefused) as error:
            if restarted or not _may_have_expired(extract, listings[number], begun, error):
                _skip_partition_or_raise(context, extract, listings, number, error)
            else:
                # If the first page fails too, the token is not the reason. Then this raises, and the stage is kept.
                next(_list_pages(context, extract, listings, 0, first, last))
                log.warning("%s Its token may have expired, so the list is read again from its start", error)
                extract, restarted = extract.restart(context), True
        else:
            if last is None and not extract.failed_partitions.get(listings[number].partition):
                _check_ended(context, extract, listings, number)
    _skip_refused_partitions(extract)
    return extract


def _read_nothing(extract: Extract) -> Extract:
    """End the pull of an entity without a list: children whose parents are all unknown. Return the extract.

    Raises PullError if the entity is read by partitions, since its source must have at least one.
    """
    if not isinstance(extract.entity, Child):
        column = extract.entity.partitions.column
        raise PullError(f"{extract.entity.name} is read by {column}, and none is known yet. Mend what failed before it")
    extract.append(Page(None, [], None), None)
    return extract


def read_partitions(
    context: MirrorContext, extract: Extract, listings: Callable[[bool], Sequence[Listing]], **options: Any
) -> Extract:
    """Read the lists of partitions. If a request for several of them fails, read each partition by itself.

    `listings`: return the lists; its argument says whether each partition has a list of its own. `options` are those
    of `read_lists`. Return the extract to go on with.
    """
    singly = extract.progress.get("singly", False)
    try:
        return read_lists(context, extract, listings(singly), **options)
    except (ApiError, TooManyRefused) as error:
        several = extract.entity.partitions and extract.entity.partitions.size > 1
        concerns_all = isinstance(error, FixConfiguration) and error.concerns_all
        if singly or not several or concerns_all:
            raise
        log.warning("%s Since that may concern one partition alone, each is asked for by itself", error)
        extract = extract.restart(context)
        extract.stage.save_progress(singly=True)
        return read_lists(context, extract, listings(True), **options)


def _may_have_expired(extract: Extract, listing: Listing, begun: Any, error: ApiError | TooManyRefused) -> bool:
    """Return whether an error may come from a token that has expired. Too many refused rows never do.

    `begun`: the resume point at which this attempt began. If the attempt got no further, any error of the API counts: a
    vendor may answer 404 or 500 to a token that it no longer knows, to each later attempt as well.
    """
    position = extract.stage.pull.position
    led = isinstance(error, ApiError) and listing.paginator.expires and position and position[1] is not None
    return bool(led) and (isinstance(error, FixConfiguration) or position == begun)


def _check_refused(extract: Extract, listings: Sequence[Listing], number: int) -> None:
    """Raise TooManyRefused if too many rows of the list's partition were refused."""
    partition, pull = listings[number].partition, extract.stage.pull
    extract.check_refused(partition, ended=pull.complete or listings[pull.position[0]].partition != partition)


def _skip_refused_partitions(extract: Extract) -> None:
    """Mark all partitions with refused rows as failed, if these rows are too many together.

    Each partition alone has few enough. Raises TooManyRefused if no partition would be left.
    """
    names = sorted({state["partition"] for state in extract.lists.values()} - {"", *extract.failed_partitions})
    try:
        extract.check_refused(*names, ended=True)
    except TooManyRefused as error:
        refused = [name for name in names if any(count for _, count in extract.row_counts(name))]
        if refused == names:
            extract.drop()
            raise
        for name in refused:
            extract.mark_failed(name, str(error))


def _skip_partition_or_raise(
    context: MirrorContext,
    extract: Extract,
    listings: Sequence[Listing],
    number: int,
    error: ApiError | TooManyRefused,
) -> None:
    """Mark the list's partition as failed and go on with the next one. Raise the error if it concerns all partitions.

    It is also raised if no other partition is left.
    """
    if isinstance(error, TooManyRefused):
        # A field that has changed its type may be why. No scan or sync comes to its end to tell it.
        with context.conn.transaction():
            keep_fields(context, extract, whole=False)
    partition = listings[number].partition
    others = {listing.partition for listing in listings} - {partition}
    concerns_all = isinstance(error, FixConfiguration) and error.concerns_all
    if concerns_all or not partition or not others - set(extract.failed_partitions):
        if isinstance(error, TooManyRefused) or (extract.failed_partitions and not concerns_all):
            # Else the next attempt would not request the refused rows or the failed partitions again.
            extract.drop()
        raise error
    extract.mark_failed(partition, str(error), needs_person=isinstance(error, FixConfiguration))
    failed = extract.failed_partitions
    left = [place for place in range(number + 1, len(listings)) if listings[place].partition not in failed]
    for stage in extract.stages:
        if left:
            stage.reopen((left[0], None))
        else:
            stage.finish()


def _check_last_ended(context: MirrorContext, extract: Extract, listings: Sequence[Listing]) -> None:
    """Check the list that ended last, if the attempt before this one ended between its last page and its check."""
    pull = extract.stage.pull
    number, position = pull.position or (len(listings) if pull.complete else 0, None)
    state = extract.list_state(number - 1) if number and position is None else {}
    # A stage without its repeats has been compared already.
    if not state or state.get("unseen") is not None or "repeats" in extract.progress:
        return
    if not extract.failed_partitions.get(listings[number - 1].partition):
        _check_ended(context, extract, listings, number - 1)


def _check_ended(context: MirrorContext, extract: Extract, listings: Sequence[Listing], number: int) -> None:
    """Let a list that has ended be read again if it is short."""

    def stage(page: Page) -> None:
        if rows := _unstaged(extract, listings[number], page):
            step = number, listings[number], dataclasses.replace(page, rows=rows), extract.stage.pull.position
            _append_page(context, extract, step, None)

    read_again_if_short(context, extract, listings, number, stage)


def _unstaged(extract: Extract, listing: Listing, page: Page) -> list[Row]:
    """Return the rows of a page, as it shows them, whose records are neither staged nor refused yet.

    Raises RefuseData where a row has another shape than is read.
    """
    found = {}
    for row in page.rows:
        for shaped in _shaped_rows(listing.shape, dataclasses.replace(page, rows=[row])):
            found[extract.entity.table.key_of(add(shaped, **listing.adds))] = row
    found.pop(None, None)
    # A refused row that counted twice would make up for one that the list leaves out.
    known = staged(extract.stage, found) | {tuple(key) for key, _ in extract.stage.refusals()}
    return [row for key, row in found.items() if key not in known]


def _append_page(context: MirrorContext, extract: Extract, step: _Step, unchanged_before: datetime | None) -> None:
    """Stage a page of a list, with its records in full. Raises RefuseData where its rows have another shape."""
    number, listing, page, next_position = step
    shaped = _shaped_rows(listing.shape, page)
    rows = [add(row, **listing.adds) for row in shaped] if listing.adds else shaped
    complete = _complete_page(context, extract, listing, dataclasses.replace(page, rows=rows), unchanged_before)
    if isinstance(extract.entity, Discovered):
        complete = dataclasses.replace(complete, shown=_names(extract.entity.table, listing, page))
    if listing.deleted:
        deleted = _event_deleted_keys(extract.entity.table, listing, page)
        complete = dataclasses.replace(complete, delete_events=deleted)
    if listing.named:
        # No list shows these rows, so it is no contradiction if a record is absent.
        complete = dataclasses.replace(complete, absent=())
        extract.mark_unlisted_page()
    extract.append(complete.page, next_position, complete, number, listing.partition)
    if listing.newest:
        ignored = len(page.rows) - len(rows) - len(complete.delete_events)
        short_lists.remember_reach(extract, number, listing, rows, ignored=ignored)


def _shaped_rows(shape: Callable[[Row], Row | None], page: Page) -> list[Row]:
    """Return the rows of a page as `shape` converts them, without those that it ignores.

    Raises RefuseData where a row has another shape than `shape` reads.
    """
    return read_rows(lambda: (shaped for row in page.rows if (shaped := shape(row)) is not None))


def _names(table: Table, listing: Listing, page: Page) -> tuple[str, ...]:
    """Return a name for each row of a page, by which a repeat is known: its key, or a hash if the row is ignored."""
    shaped = [listing.shape(row) for row in page.rows]
    keys = [table.key_of(add(row, **listing.adds)) if row is not None else None for row in shaped]
    return tuple(
        json.dumps(key, default=str) if key else hashlib.sha256(repr(row).encode()).hexdigest()[:16]
        for key, row in zip(keys, page.rows, strict=True)
    )


def _event_deleted_keys(table: Table, listing: Listing, page: Page) -> tuple[tuple, ...]:
    """Return the keys of the records that events report as deleted. Raises RefuseData where one has no usable key."""
    keys = [table.key_of(record) for record in _shaped_rows(listing.deleted, page)]
    if None in keys:
        raise RefuseData(f"an event says that a record of {table.name} is deleted, but not which")
    return tuple(keys)


def _complete_page(
    context: MirrorContext, extract: Extract, listing: Listing, page: Page, unchanged_before: datetime | None
) -> CompletePage:
    """Return the page with its records in full: look up those of a list in brief that are new or may have changed.

    A sync looks up no more records than the entity's `limit`.
    """
    entity, stage = extract.entity, extract.stage
    if not isinstance(entity, Discovered):
        return CompletePage(page)
    # A record that contradicts one list is not taken from another list that shows less of it.
    skip = brief.read_keys(stage, entity, page) | set(extract.lookups.contradicted)
    if unchanged_before:
        skip |= brief.unchanged_keys(context, entity, page, unchanged_before)
    limit = entity.limit(context) if stage.pull.purpose == "sync" else 0
    return brief.complete_page(
        context,
        entity,
        page,
        listing.partition,
        skip=skip,
        limit=max(0, limit - stage.pull.rows_read) if limit else None,
        skipped_before=extract.lookups.all_skipped,
        listed=listing.request is not None,
    )


def _list_pages(
    context: MirrorContext, extract: Extract, listings: Sequence[Listing], number: int, position: Any, last: int | None
) -> Iterator[_Step]:
    """Yield the pages of one list, from a resume point on. If its parent is gone, it ends with an empty page."""
    listing = listings[number]
    following = (number + 1, None) if number + 1 < len(listings) else None
    rows = extract.list_state(number).get("counts", [(0, 0)])[0][0]
    options = {"position": position, "stop": last, "rows": rows, "workers": context.workers}
    if rows:
        options["total_pages"] = extract.stage.pull.total_pages
    named = [Page(None, list(listing.named), None)]
    try:
        for page in pages(context.client, listing.request, listing.paginator, **options) if listing.request else named:
            ended = page.next is None or (last is not None and page.position == last)
            yield number, listing, page, following if ended else (number, page.next)
    except NotFound:
        if not _is_of_deleted_parent(context, extract.entity, listing.partition):
            raise
        yield number, listing, Page(None, [], None), following


def _is_of_deleted_parent(context: MirrorContext, entity: Entity, partition: str) -> bool:
    """Return whether the partition is a parent that is gone, or flagged as deleted."""
    if not (isinstance(entity, Child) and partition):
        return False
    table = entity_of(context.source, entity.parent).table
    (read,) = (column.read for column in table.columns if column.name in table.key)
    return bool(deleted_parents(context, entity, [(read(partition),)]))


def read_whole(
    context: MirrorContext, entity: Entity, purpose: str, ticket: str, *, first: int | None = None, **options: Any
) -> Extract:
    """Read everything that the source has of an entity. Resume an unfinished pull of the same ticket.

    The pull starts again if the entity's partitions have changed meanwhile. `options` are those of `read_lists`.
    """
    values = all_partitions(context, entity)
    extract = Extract.open(context, entity, purpose, "/".join(filter(None, [ticket, short_name(",".join(values))])))
    pull = extract.stage.pull
    if extract.stage.resumed and not pull.complete:
        log.info("going on from page %d, %d rows are staged", (first or 1) + pull.pages, pull.rows_read)

    def listings(singly: bool) -> list[Listing]:
        return all_listings(context, entity, values, singly=singly)

    extract = read_partitions(context, extract, listings, first=first, **options)
    extract.stage.save_progress(partitions=list(values))
    return extract
