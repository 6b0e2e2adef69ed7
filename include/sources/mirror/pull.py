"""Records on their way into staging: those of an entity, and the rows inside them, with one resume point for all."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg import sql

from include.api.errors import ApiError, FixConfiguration, RefuseData
from include.api.fetch import page_request, pages
from include.api.paginators import Page
from include.sources.base import entity_of
from include.sources.mirror import gap, lookup
from include.sources.mirror.entity import Context, Discovered, Entity, Listing, Part
from include.sources.mirror.lookup import Completed, Row, Skipped, rows_of
from include.warehouse import compare
from include.warehouse.compare import Repeats
from include.warehouse.staging import PullError, Stage, TooManyRefused, staged, too_many_refused
from include.warehouse.table import Table, among, are, identifiers, pairs

log = logging.getLogger(__name__)

# How often a list may be read that shows fewer rows than it says; each time it has to show some more.
READINGS = 8


@dataclass(frozen=True)
class Pulled:
    """The stage of an entity's own rows, and those of its parts in the order in which they are declared."""

    entity: Entity
    stage: Stage
    parts: tuple[tuple[Part, Stage], ...]

    @classmethod
    def open(cls, context: Context, entity: Entity, purpose: str, ticket: str) -> "Pulled":
        """Resume the unfinished pull of this ticket, or start anew."""

        def stage(table: Table) -> Stage:
            return Stage.open(context.conn, table, context.source.name, purpose, ticket)

        pulled = cls(entity, stage(entity.table), tuple((part, stage(part.table)) for part in entity.parts))
        if len({each.pull.pages for each in pulled.stages}) == 1:
            return pulled
        # One that failed for its refused rows starts anew, and the others with it.
        pulled.drop()
        return cls.open(context, entity, purpose, ticket)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.stage, *(stage for _, stage in self.parts))

    def append(
        self, page: Page, next_position: Any, found: Completed | None = None, number: int = 0, partition: str = ""
    ) -> None:
        """Store a page's records with their parts, and the next resume point: all or nothing.

        `found` is what became of the page's other records; `number` and `partition` are of the page's list.
        """
        # No list knows what comes after the source's own clock.
        info = {"source_time": min(filter(None, (page.as_of, page.date)), default=None)}
        info |= {"total_entries": page.total_entries, "total_pages": page.total_pages}
        inside, refuse = self._inside(page.rows)
        before = self._counts
        with self.stage.conn.transaction():
            for part, stage in self.parts:
                rows, places = [row for _, row in inside[part]], [place for place, _ in inside[part]]
                stage.store(rows, next_position=next_position, page_info=info, places=places)
            self.stage.store(page.rows, next_position=next_position, page_info=info, refuse=refuse)
            self.stage.save_progress(lists=self._lists(number, partition, page, before))
            if found:
                self.stage.remember_refused([(each.key, True, each.reason) for each in found.skipped if each.failed])
                self.stage.save_progress(
                    deleted=[*self._progress("deleted"), *map(list, found.deleted)],
                    delete_events=[*self._progress("delete_events"), *map(list, found.delete_events)],
                    skipped=[*self._progress("skipped"), *map(asdict, found.skipped)],
                    absent=[*self._progress("absent"), *(list(map(str, key)) for key in found.absent)],
                    known=self.progress.get("known", 0) + found.known,
                )

    def _inside(self, records: Sequence[Row]) -> tuple[Mapping[Part, list[tuple[int, Row]]], Mapping[int, str]]:
        """The nested rows with the places of their records, and why records at some places are refused.

        A record without a key is refused, and has no nested rows that could be told from others.
        """
        inside: dict[Part, list[tuple[int, Row]]] = {part: [] for part, _ in self.parts}
        refuse: dict[int, str] = {}
        for place, record in enumerate(records):
            if not self.parts or not self.entity.table.key_of(record):
                continue
            try:
                found = {part: nested(part, record) for part, _ in self.parts}
            except RefuseData as error:
                refuse[place] = str(error)
                continue
            for part, rows in found.items():
                inside[part] += [(place, row) for row in rows]
        return inside, refuse

    @property
    def progress(self) -> Mapping[str, Any]:
        return self.stage.pull.progress or {}

    def _progress(self, name: str) -> list:
        return self.progress.get(name, [])

    @property
    def _counts(self) -> list[tuple[int, int]]:
        """Of each stage, how many rows were read, and how many of those refused."""
        return [(stage.pull.rows_read, stage.pull.rows_refused) for stage in self.stages]

    @property
    def _none(self) -> list[tuple[int, int]]:
        return [(0, 0) for _ in self.stages]

    @property
    def lists(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known of each list, by its number."""
        return self.progress.get("lists") or {}

    def told(self, number: int) -> Mapping[str, Any]:
        """The same of one list: empty before its first page."""
        return self.lists.get(str(number), {})

    def save_told(self, number: int, **told: Any) -> None:
        self.stage.save_progress(lists={**self.lists, str(number): {**self.told(number), **told}})

    def start_again(self, number: int, **told: Any) -> None:
        """Count the rows of a list anew."""
        self.save_told(number, counts=self._none, **told)

    def _lists(
        self, number: int, partition: str, page: Page, counts: Sequence[tuple[int, int]]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Of each list by its number: its first page in staging, and how many rows it says that it has.

        The largest counts: of a list that becomes shorter while it is read nobody knows whether it left out the others.
        `counts`: those before the page.
        """
        before = self.told(number) or {
            "partition": partition,
            "first_page": self.stage.pull.pages,
            "promised": None,
            "largest": 0,
            "counts": self._none,
        }
        largest = max(before["largest"], len(page.rows))
        promised = _promised(page, largest)
        added = [(read - r, refused - f) for (read, refused), (r, f) in zip(self._counts, counts, strict=True)]
        total = [(r + read, f + refused) for (r, f), (read, refused) in zip(before["counts"], added, strict=True)]
        promised = max(filter(None, (before["promised"], promised)), default=None)
        return {**self.lists, str(number): {**before, "promised": promised, "largest": largest, "counts": total}}

    def require_stored(self, *partitions: str, ended: bool = False) -> None:
        """Raise TooManyRefused if so many rows of these partitions can't be stored that the others are no evidence."""
        for stage, (read, refused) in zip(self.stages, self.stored(*partitions), strict=True):
            if too_many_refused(read, refused, ended=ended):
                raise stage.refusal(read, refused)

    def stored(self, *partitions: str) -> list[tuple[int, int]]:
        """Of each stage, how many rows of these partitions were read, and how many of those refused."""
        counts = [told["counts"] for told in self.lists.values() if told["partition"] in (partitions or [""])]
        return [tuple(map(sum, zip(*each, strict=True))) for each in zip(self._none, *counts, strict=True)]

    @property
    def deleted(self) -> list[list]:
        """The keys of the records that a list has shown and that say themselves that they are deleted."""
        return self._progress("deleted")

    @property
    def delete_events(self) -> list[list]:
        """The keys of the records of which a feed of changes says that they are deleted."""
        return self._progress("delete_events")

    @property
    def absent(self) -> list[list[str]]:
        """The keys of the records that a list has shown and that are not at their own address, as texts."""
        return self._progress("absent")

    @property
    def skipped(self) -> list[Skipped]:
        """The records that were not read, nor by another list that shows them too."""
        skipped = {tuple(each["key"]): Skipped(**each) for each in self._progress("skipped")}
        found = staged(self.stage, skipped) if skipped else set()
        return [each for key, each in skipped.items() if key not in found]

    @property
    def partitions(self) -> Sequence[str]:
        """What a pull of everything has asked for."""
        return self._progress("partitions")

    @property
    def failed(self) -> Mapping[str, str]:
        """The partitions whose lists could not be read, each with the reason."""
        return self.progress.get("failed", {})

    def leave_out(self, partition: str, why: str) -> None:
        """Remember that a partition's lists can't be read: nobody knows what they would have shown."""
        log.error("%s of %s is left out: %s", partition, self.entity.name, why)
        self.stage.save_progress(failed={**self.failed, partition: why})
        self.stage.remember_refused([([f"the list of {partition}"], False, why)])

    @property
    def cut(self) -> Mapping[str, str]:
        """The partitions of which a list was too short to show all that changed, each with the reason."""
        return self.progress.get("cut", {})

    def shortage(self, number: int) -> int:
        """How many rows the list of that number says that it has, and has not shown."""
        told = self.told(number)
        if not told or not told["promised"]:
            return 0
        key = identifiers(self.entity.table.key)
        query = sql.SQL("SELECT count(*) FROM (SELECT DISTINCT {key} FROM {stage} WHERE _page >= %s) s")
        (shown,) = self.stage.conn.execute(query.format(key=key, stage=self.stage.sql), [told["first_page"]]).fetchone()
        return max(0, told["promised"] - shown - told["counts"][0][1])

    def drop_repeats(self, standing: Sequence[tuple] = ()) -> Repeats:
        """Deduplicate by key, then drop nested rows whose record was dropped, and rows that fall.

        `standing`: the rows that others fall with in the copy alone, not at the source.
        """
        repeats = compare.drop_repeats(self.stage)
        fallen = 0
        if self.entity.falls:
            query = sql.SQL("DELETE FROM {} t WHERE {} AND NOT {}")
            stand = among(self.entity.falls.by, standing, "t")
            fallen = self.stage.conn.execute(query.format(self.stage.sql, self.falls, stand)).rowcount
        self.stage.save_progress(repeats=asdict(repeats), fallen=fallen)
        for part, stage in self.parts:
            dropped = stage.conn.execute(
                sql.SQL(
                    "DELETE FROM {part} p WHERE NOT EXISTS (SELECT FROM {whole} w WHERE {same}"
                    " AND w._page = p._page AND w._place = p._place)"
                ).format(part=stage.sql, whole=self.stage.sql, same=self.of_record(part, "p", "w"))
            ).rowcount
            stage.save_progress(repeats=asdict(compare.drop_repeats(stage)), fallen=dropped)
        return repeats

    def drop(self) -> None:
        for stage in self.stages:
            stage.drop()

    def fresh(self, context: Context) -> "Pulled":
        """The same pull from its beginning."""
        pull = self.stage.pull
        self.drop()
        return Pulled.open(context, self.entity, pull.purpose, pull.ticket)

    @property
    def falls(self) -> sql.Composable | None:
        """The condition on rows `t` that fall with another."""
        return sql.SQL(f"({self.entity.falls.condition})") if self.entity.falls else None

    def of_record(self, part: Part, rows: str, records: str) -> sql.Composed:
        """The condition that `rows` of the part belong to `records`."""
        return pairs(part.by, rows, self.entity.table.key, records)


def fell_since(context: Context, pulled: Pulled) -> sql.Composable | None:
    """The condition on rows `t` that fell with one which was written after the last sync of theirs.

    Not with any row that the copy takes for deleted: what no sync wrote may be what is wrong.
    """
    falls = pulled.entity.falls
    if falls is None:
        return None
    other = entity_of(context.source, falls.entity).table
    return sql.SQL(
        "({fell} AND EXISTS (SELECT FROM {other} o WHERE {same} AND o.sync_id > coalesce("
        "(SELECT min(sync_id) FROM confidence.sync_state WHERE source = {source} AND entity = {entity}), 0)))"
    ).format(
        fell=pulled.falls,
        other=other.sql,
        same=pairs(other.key, "o", falls.by, "t"),
        source=sql.Literal(context.source.name),
        entity=sql.Literal(pulled.entity.name),
    )


def nested(part: Part, record: Row) -> list[Row]:
    """The rows of a part inside a record. Raises RefuseData where they have no such shape, or one comes twice."""
    rows = rows_of(part.rows, record)
    keys = Counter(key for row in rows if (key := part.table.key_of(row)))
    if any(count > 1 for count in keys.values()):
        raise RefuseData(f"the record lists one of its {part.table.name} twice")
    return rows


def _promised(page: Page, largest: int) -> int | None:
    """How many rows the list has at least, as the page says; None where it says nothing. `largest`: rows of a page."""
    if page.total_entries is None and page.total_pages and page.total_pages > 1:
        # All pages but the last are full.
        return (page.total_pages - 1) * largest + 1
    return page.total_entries


Progress = Callable[[Pulled], None]
_Step = tuple[int, Listing, Page, Any]


def read(
    context: Context,
    pulled: Pulled,
    listings: Sequence[Listing],
    *,
    first: int | None = None,
    last: int | None = None,
    known_before: datetime | None = None,
    progress: Progress = lambda _: None,
) -> Pulled:
    """Append all pages of the lists, one list after the other, from where the pull has come to.

    `first`, `last`: page numbers to begin and to end with, for a single list. `known_before`: records that a list shows
    in brief are left out where the copy has them so, and they changed before that time. A list whose token is not
    accepted any more is read again from its start, with everything before it: what was staged may have changed
    meanwhile. A list that shows fewer rows than it says is read again while that shows more. Of several partitions one
    may fail: then `Pulled.failed` names it.
    """
    again = False
    if not listings:
        parts = pulled.entity.partitions.column
        raise PullError(f"{pulled.entity.name} is read by {parts}, and none is known yet. Mend what failed before it")
    while not pulled.stage.pull.complete:
        number, position = pulled.stage.pull.position or (0, first)
        listing = listings[number]
        try:
            for step in _walk(context, pulled, listings, number, position, last):
                _append(context, pulled, step, known_before)
                _require_stored(pulled, listings, number)
                progress(pulled)
        except FixConfiguration as error:
            resumed = pulled.stage.pull.position and pulled.stage.pull.position[1] is not None
            if resumed and listing.paginator.expires and not again:
                again = True
                # Where the first page is refused too, it isn't the token, and what was staged stays.
                next(_walk(context, pulled, listings, 0, first, last))
                log.warning("%s In case that its token has expired, the list is read again from its start", error)
                pulled = pulled.fresh(context)
            else:
                _fail(pulled, listings, number, error)
        except (ApiError, TooManyRefused) as error:
            _fail(pulled, listings, number, error)
        else:
            if last is None and not pulled.failed.get(listing.partition):
                _read_again_if_short(context, pulled, listings, number)
    _leave_out_refused(pulled)
    return pulled


def read_partitions(
    context: Context, pulled: Pulled, listings: Callable[[bool], Sequence[Listing]], **asked: Any
) -> Pulled:
    """`read` the lists; if one of several partitions fails, read them once more, each partition by itself.

    `listings` gives them as handfuls, or singly.
    """
    singly = pulled.progress.get("singly", False)
    try:
        return read(context, pulled, listings(singly), **asked)
    except (ApiError, TooManyRefused) as error:
        several = pulled.entity.partitions and pulled.entity.partitions.size > 1
        concerns_all = isinstance(error, FixConfiguration) and error.concerns_all
        if singly or not several or concerns_all:
            raise
        log.warning("%s Since that may concern one partition alone, each is asked for by itself", error)
        pulled = pulled.fresh(context)
        pulled.stage.save_progress(singly=True)
        return read(context, pulled, listings(True), **asked)


def _require_stored(pulled: Pulled, listings: Sequence[Listing], number: int) -> None:
    """`Pulled.require_stored` of the partition of that list, which may have come to its end."""
    partition, pull = listings[number].partition, pulled.stage.pull
    pulled.require_stored(partition, ended=pull.complete or listings[pull.position[0]].partition != partition)


def _leave_out_refused(pulled: Pulled) -> None:
    """Where each partition alone has few refused rows, but all together have too many, leave out those that have some.

    Raises TooManyRefused if none is left.
    """
    names = sorted({told["partition"] for told in pulled.lists.values()} - {"", *pulled.failed})
    try:
        pulled.require_stored(*names, ended=True)
    except TooManyRefused as error:
        refused = [name for name in names if any(count for _, count in pulled.stored(name))]
        if refused == names:
            pulled.drop()
            raise
        for name in refused:
            pulled.leave_out(name, str(error))


def _fail(pulled: Pulled, listings: Sequence[Listing], number: int, error: ApiError | TooManyRefused) -> None:
    """Go on with the next list, if this one is of a partition and the error may concern it alone; else raise."""
    partition = listings[number].partition
    others = {listing.partition for listing in listings} - {partition}
    concerns_all = isinstance(error, FixConfiguration) and error.concerns_all
    if concerns_all or not partition or not others - set(pulled.failed):
        if isinstance(error, TooManyRefused) or (pulled.failed and not concerns_all):
            # Or the next attempt would not ask again for what was refused, or for the partitions that failed before.
            pulled.drop()
        raise error
    pulled.leave_out(partition, str(error))
    left = [place for place in range(number + 1, len(listings)) if listings[place].partition not in pulled.failed]
    for stage in pulled.stages:
        if left:
            stage.reopen((left[0], None))
        else:
            stage.finish()


def _read_again_if_short(context: Context, pulled: Pulled, listings: Sequence[Listing], number: int) -> None:
    """Reopen the list if it shows fewer rows than it says; a sync always, a scan if that costs fewer look-ups.

    Where a sync's list stays short its partition is cut: what it leaves out would be missing in the copy.
    """
    # Lists in brief and feeds of events tell how many of those there are, not how many records.
    if isinstance(pulled.entity, Discovered) or listings[number].deleted:
        return
    if pulled.shortage(number):
        _ask_total_again(context, pulled, listings[number], number)
    shortage, told = pulled.shortage(number), pulled.told(number)
    readings, before = told.get("readings", 1), told.get("shortage")
    syncs = pulled.stage.pull.purpose == "sync"
    if not shortage or not (syncs or shortage > (pulled.stage.pull.total_pages or 1)):
        return
    if readings < READINGS and (before is None or shortage < before):
        log.warning("%s: a list shows %d rows less than it says, it is read again", pulled.entity.name, shortage)
        pulled.start_again(number, readings=readings + 1, shortage=shortage)
        for stage in pulled.stages:
            stage.reopen((number, None))
    elif syncs:
        why = (
            f"a list of {pulled.entity.name} says that it has {told['promised']} rows, and {shortage} of them were"
            f" not shown in {readings} readings: they may be missing in the copy. Run the task again; if it stays so,"
            " ask the API's vendor"
        )
        pulled.stage.save_progress(cut={**pulled.cut, listings[number].partition: why})


def _ask_total_again(context: Context, pulled: Pulled, listing: Listing, number: int) -> None:
    """Keep the total that the first page tells now: the list may have become shorter while it was read."""
    paginator, told = listing.paginator, pulled.told(number)
    try:
        answer = context.client.send(page_request(listing.request, paginator, paginator.start))
        total = _promised(paginator.read(answer, paginator.start), told["largest"])
    except ApiError as error:
        log.warning("%s The list of %s counts as short, since nobody knows its total", error, pulled.entity.name)
        return
    if total is not None and total < told["promised"]:
        pulled.save_told(number, promised=total)


def _append(context: Context, pulled: Pulled, step: _Step, known_before: datetime | None) -> None:
    number, listing, page, following = step
    shapes = _taken_out(listing.shape, page)
    rows = [{**listing.adds, **row} for row in shapes] if listing.adds else shapes
    found = _completed(context, pulled, listing, dataclasses.replace(page, rows=rows), known_before)
    if listing.deleted:
        found = dataclasses.replace(found, delete_events=_delete_events(pulled.entity.table, listing, page))
    if listing.named:
        # No list has shown what the run names.
        found = dataclasses.replace(found, absent=())
    pulled.append(found.page, following, found, number, listing.partition)
    if listing.newest:
        gap.note(pulled, number, listing, rows, left_out=len(page.rows) - len(rows))


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
    context: Context, pulled: Pulled, listing: Listing, page: Page, known_before: datetime | None
) -> Completed:
    """The page with its records in full."""
    entity, stage = pulled.entity, pulled.stage
    if not isinstance(entity, Discovered):
        return Completed(page)
    skip = staged(stage, filter(None, map(entity.table.key_of, page.rows)))
    if known_before:
        skip |= lookup.known(context, entity, page, known_before)
    limit = entity.limit(context) if stage.pull.purpose == "sync" else 0
    room = max(0, limit - stage.pull.rows_read) if limit else None
    return lookup.complete(context, entity, page, listing.partition, skip=skip, room=room)


def _walk(
    context: Context, pulled: Pulled, listings: Sequence[Listing], number: int, position: Any, last: int | None
) -> Iterator[_Step]:
    """The pages of one list from a resume point on, each with the resume point behind it, None at the end of all."""
    listing = listings[number]
    rows = pulled.told(number).get("counts", [(0, 0)])[0][0]
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
) -> Pulled:
    """Read all that the source has of an entity, or go on with that. If its partitions have changed, start anew."""
    values = every_partition(context, entity)
    pulled = Pulled.open(context, entity, purpose, "/".join(filter(None, [ticket, ",".join(values)])))
    pull = pulled.stage.pull
    if pulled.stage.resumed and not pull.complete:
        log.info("going on from page %d, %d rows are staged", (first or 1) + pull.pages, pull.rows_read)

    def listings(singly: bool) -> list[Listing]:
        return whole_list(context, entity, values, singly=singly)

    pulled = read_partitions(context, pulled, listings, first=first, **asked)
    pulled.stage.save_progress(partitions=list(values))
    return pulled


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


def plan_parts(pulled: Pulled, *, surplus: bool = False) -> None:
    """Plan the nested rows of the records that are staged, each record's as a set, by the status of its own plan.

    Nested rows of a record that is older than the copy count for nothing. Those that differ while their record shows no
    newer version want a second look, as do all that seem to be gone. A nested row that could not be read may be any of
    those that seem to be gone: then none counts as gone. `surplus`: those whose record neither list nor copy has want a
    second look too.
    """
    table = pulled.entity.table
    for part, stage in pulled.parts:
        names = {
            "part": stage.sql,
            "plan": stage.plan,
            "whole": pulled.stage.sql,
            "whole_plan": pulled.stage.plan,
            "key": identifiers(table.key),
            "t_by": identifiers(part.by, "t"),
            "same": pulled.of_record(part, "p", "w"),
            "records": table.sql,
            "of_copy": pulled.of_record(part, "t", "r"),
            "of_list": pulled.of_record(part, "t", "w"),
            "p_of_copy": pulled.of_record(part, "p", "r"),
            "w_newer": compare.newer(table, "w", "r"),
        }
        older = stage.conn.execute(sql.SQL(DROP_OLDER).format(**names)).rowcount
        if older:
            stage.save_progress(fallen=(stage.pull.progress or {}).get("fallen", 0) + older)
        compare.plan_writes(stage, doubtful="candidate")
        compare.plan_deletes(stage, status="candidate", within=sql.SQL(OF_RECORDS).format(**names))
        stage.conn.execute(sql.SQL(NOT_NEWER).format(**names))
        leave_unreadable(stage)
        if surplus:
            compare.plan_deletes(stage, status="candidate", within=sql.SQL(ORPHANS).format(**names))
        stage.conn.execute(sql.SQL(AS_THE_RECORD).format(**names))


def leave_unreadable(stage: Stage) -> None:
    """Leave rows that seem to be gone unproven where they may be ones that could not be stored."""
    if stage.pull.rows_refused:
        names = {"plan": stage.plan, "refused": stage.refused, "p_key": identifiers(stage.table.key, "p")}
        stage.conn.execute(sql.SQL(UNREADABLE).format(**names))


def leave_unknown(pulled: Pulled, unknown: Mapping[tuple, str]) -> None:
    """Leave staged rows unproven that may have fallen with others, also those that are as in the copy.

    `unknown`: those others, each with the reason why nobody knows.
    """
    stage = pulled.stage
    for value, why in unknown.items():
        names = {
            "plan": stage.plan,
            "stage": stage.sql,
            "columns": identifiers(stage.table.names),
            "key": identifiers(stage.table.key),
            "why": sql.Literal(why),
            "fell": are(pulled.entity.falls.by, value),
        }
        stage.conn.execute(sql.SQL(UNKNOWN).format(**names))


def replace(pulled: Pulled, record: Row) -> None:
    """Put a fresher reading of a record in place of what the pull saw, and plan it anew, confirmed.

    Raises RefuseData or RowRefused, and changes nothing then.
    """
    key = pulled.entity.table.key_of(record)
    rows = {part: nested(part, record) for part, _ in pulled.parts}
    _replace_rows(pulled.stage, are(pulled.entity.table.key, key), [record])
    for part, stage in pulled.parts:
        of_record = are(part.by, key)
        _replace_rows(stage, of_record, rows[part])
        compare.plan_deletes(stage, status="confirmed", within=of_record)


def _replace_rows(stage: Stage, which: sql.Composable, records: Sequence[Row]) -> None:
    """Stage these rows in place of others, and plan them anew; one that was planned and turns out equal is noise."""
    key = stage.table.key
    planned = stage.conn.execute(
        sql.SQL("DELETE FROM {} WHERE {} RETURNING {}, _listed").format(stage.plan, which, identifiers(key))
    ).fetchall()
    stage.replace_rows(which, records)
    compare.plan_writes(stage, only=which, older="confirmed")
    for *values, listed in planned:
        names = {
            "plan": stage.plan,
            "stage": stage.sql,
            "columns": identifiers(stage.table.names),
            "this": are(key, values),
            "listed": sql.Literal(listed),
        }
        stage.conn.execute(sql.SQL(NOISE).format(**names))
        stage.conn.execute(sql.SQL("UPDATE {plan} SET _looked = true, _listed = {listed} WHERE {this}").format(**names))


NOISE = """
INSERT INTO {plan} ({columns}, _operation, _status) SELECT {columns}, 'update', 'noise' FROM {stage} WHERE {this}
ON CONFLICT DO NOTHING
"""

UNKNOWN = """
INSERT INTO {plan} ({columns}, _operation, _status, _why, _looked)
SELECT {columns}, 'update', 'unproven', {why}, true FROM {stage} WHERE {fell}
ON CONFLICT ({key}) DO UPDATE SET _status = excluded._status, _why = excluded._why, _looked = true
"""

DROP_OLDER = "DELETE FROM {part} p USING {whole_plan} w WHERE {same} AND w._status = 'stale'"

# One set, so that it is joined: an OR of several would search each for every row once memory is short.
OF_RECORDS = """({t_by}) IN (
  SELECT {key} FROM {whole} EXCEPT SELECT {key} FROM {whole_plan} WHERE _status = 'stale'
  UNION SELECT {key} FROM {whole_plan} WHERE _operation = 'delete')
"""

ORPHANS = """NOT EXISTS (SELECT FROM {records} r WHERE {of_copy} AND r.deleted_at IS NULL)
  AND NOT EXISTS (SELECT FROM {whole} w WHERE {of_list})
"""

NOT_NEWER = """
UPDATE {plan} p SET _status = 'candidate' FROM {whole} w JOIN {records} r USING ({key})
WHERE {same} AND p._status = 'confirmed' AND r.deleted_at IS NULL AND NOT {w_newer}
"""

UNREADABLE = """
UPDATE {plan} p SET _status = 'unproven', _why = 'a row can not be stored as it is shown, and may be this one'
WHERE _operation = 'delete'
  AND (jsonb_build_array({p_key}) IN (SELECT key FROM {refused}) OR EXISTS (SELECT FROM {refused} WHERE NOT usable))
"""

AS_THE_RECORD = """
UPDATE {plan} p SET _status = w._status, _why = w._why FROM {whole_plan} w
WHERE {same} AND (w._status IN ('candidate', 'young', 'unproven') AND p._status IN ('confirmed', 'candidate')
  OR w._status = 'confirmed' AND w._operation = 'delete' AND p._status = 'candidate')
"""
