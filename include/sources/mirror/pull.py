"""Records on their way into staging: those of an entity, and the rows inside them, with one resume point for all."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg import sql

from include.api.errors import FixConfiguration, TryLater
from include.api.fetch import pages
from include.api.paginators import Page
from include.sources.mirror import lookup
from include.sources.mirror.entity import Context, Entity, Listing, Part
from include.sources.mirror.lookup import Completed, Left
from include.warehouse import compare
from include.warehouse.compare import Repeats
from include.warehouse.staging import Stage, staged
from include.warehouse.table import are, identifiers, pairs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pulled:
    """The stage of an entity's own rows, and those of its parts in the order in which they are declared."""

    entity: Entity
    stage: Stage
    parts: tuple[tuple[Part, Stage], ...]

    @classmethod
    def open(cls, context: Context, entity: Entity, purpose: str, ticket: str) -> "Pulled":
        """Resume the unfinished pull of this ticket, or start anew."""

        def stage(table: Any) -> Stage:
            return Stage.open(context.conn, table, context.source.name, purpose, ticket)

        return cls(entity, stage(entity.table), tuple((part, stage(part.table)) for part in entity.parts))

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.stage, *(stage for _, stage in self.parts))

    def append(self, page: Page, next_position: Any, gone: Sequence[tuple] = (), left: Sequence[Left] = ()) -> None:
        """Store a page's records with their parts, and the next resume point: all or nothing.

        `gone` and `left` are what became of the page's other records.
        """
        info = {"source_time": page.as_of or page.date}
        info |= {"total_entries": page.total_entries, "total_pages": page.total_pages}
        # One without a key is refused, and has no parts that could be told from others.
        known = [(place, record) for place, record in enumerate(page.rows) if self.entity.table.key_of(record)]
        with self.stage.conn.transaction():
            for part, stage in self.parts:
                found = [(place, row) for place, record in known for row in part.rows(record)]
                rows, places = [row for _, row in found], [place for place, _ in found]
                stage.append(rows, next_position=next_position, page_info=info, places=places)
            self.stage.append(page.rows, next_position=next_position, page_info=info)
            if gone or left:
                self.stage.save_progress(
                    gone=[*self._progress("gone"), *map(list, gone)],
                    left=[*self._progress("left"), *map(asdict, left)],
                )

    @property
    def gone(self) -> list[list]:
        """The keys of the records that a list has shown and that are not there."""
        return self._progress("gone")

    @property
    def left(self) -> list[Left]:
        """The records that were not read."""
        return [Left(**each) for each in self._progress("left")]

    def _progress(self, name: str) -> list:
        return (self.stage.pull.progress or {}).get(name, [])

    def drop_repeats(self) -> Repeats:
        """Keep one record a key, leave out those that fall, and keep of the parts those of the kept records."""
        repeats = compare.drop_repeats(self.stage)
        if self.entity.falls:
            self.stage.conn.execute(sql.SQL("DELETE FROM {} t WHERE {}").format(self.stage.sql, self.falls))
        for part, stage in self.parts:
            stage.conn.execute(
                sql.SQL(
                    "DELETE FROM {part} p WHERE NOT EXISTS (SELECT FROM {whole} w WHERE {same}"
                    " AND w._page = p._page AND w._place = p._place)"
                ).format(part=stage.sql, whole=self.stage.sql, same=self.of_record(part, "p", "w"))
            )
            compare.drop_repeats(stage)
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
        return sql.SQL(f"({self.entity.falls})") if self.entity.falls else None

    def of_record(self, part: Part, rows: str, records: str) -> sql.Composed:
        """The condition that `rows` of the part belong to `records`."""
        return pairs(part.by, rows, self.entity.table.key, records)


Progress = Callable[[Pulled], None]
_Step = tuple[Listing, Page, tuple[int, Any] | None]


def read(
    context: Context,
    pulled: Pulled,
    listings: Sequence[Listing],
    *,
    first: int | None = None,
    last: int | None = None,
    known: bool = False,
    progress: Progress = lambda _: None,
) -> Pulled:
    """Append all pages of the lists, one list after the other, from where the pull has come to.

    `first`, `last`: page numbers to begin and to end with, for a single list. `known`: records that a list shows in
    brief are left out where the copy has them so. A list whose token is not accepted any more is read again from its
    start, with everything before it: what was staged may have changed meanwhile.
    """
    if pulled.stage.pull.complete:
        return pulled
    number, position = pulled.stage.pull.position or (0, first)
    steps, again = _walk(context, listings, number, position, last), False
    while True:
        try:
            step = next(steps, None)
        except FixConfiguration as error:
            number, position = pulled.stage.pull.position or (0, None)
            if again or position is None or not listings[number].paginator.expires:
                raise
            steps, again = _walk(context, listings, 0, first, last), True
            # Where the first page is refused too, it isn't the token, and what was staged stays.
            step = next(steps)
            log.warning("%s In case that its token has expired, the list is read again from its start", error)
            pulled = pulled.fresh(context)
        if step is None:
            return pulled
        _append(context, pulled, step, known)
        progress(pulled)


def _append(context: Context, pulled: Pulled, step: _Step, known: bool) -> None:
    listing, page, following = step
    shapes = filter(None, map(listing.shape, page.rows))
    rows = [{**listing.adds, **row} for row in shapes] if listing.adds else list(shapes)
    whole = _whole(context, pulled, listing, dataclasses.replace(page, rows=rows), known)
    pulled.append(whole.page, following, whole.gone, whole.left)


def _whole(context: Context, pulled: Pulled, listing: Listing, page: Page, known: bool) -> Completed:
    """The page with its records in full. Only a sync may leave one: a scan that didn't see all is no evidence."""
    entity, stage = pulled.entity, pulled.stage
    if entity.discovery is None:
        return Completed(page)
    skip = staged(stage, filter(None, map(entity.table.key_of, page.rows)))
    if known:
        skip |= lookup.known(context, entity, page)
    syncs = stage.pull.purpose == "sync"
    limit = entity.discovery.limit(context) if syncs else 0
    room = max(0, limit - stage.pull.rows_read) if limit else None
    whole = lookup.make_whole(context, entity, page, listing.partition, skip=skip, room=room)
    if whole.left and not syncs:
        (first, *_), count = whole.left, len(whole.left)
        raise TryLater(f"{count} of {entity.name} could not be read, such as {first.key}: {first.reason}")
    return whole


def _walk(
    context: Context, listings: Sequence[Listing], number: int, position: Any, last: int | None
) -> Iterator[_Step]:
    """The pages from a resume point on, each with its list and the resume point behind it, None at the end."""
    for index in range(number, len(listings)):
        listing = listings[index]
        asked = {"position": position, "stop": last, "workers": context.workers}
        named = [Page(None, list(listing.named), None)]
        for page in named if listing.named else pages(context.client, listing.request, listing.paginator, **asked):
            ended = page.next is None or (last is not None and page.position == last)
            if not ended:
                yield listing, page, (index, page.next)
            else:
                yield listing, page, (index + 1, None) if index + 1 < len(listings) else None
        position = None


def whole_list(context: Context, entity: Entity) -> list[Listing]:
    """What shows all of an entity: one list, or one for each handful of its partitions."""
    return [
        each for handful in handfuls(entity, partitions(context, entity)) for each in lists(context, entity, handful)
    ]


def partitions(context: Context, entity: Entity) -> Sequence[str]:
    """The entity's partitions; one without a name where it has none."""
    return entity.partitions.values(context) if entity.partitions else [""]


def handfuls(entity: Entity, values: Sequence[str]) -> list[tuple[str, ...]]:
    """As many partitions as go into one request."""
    size = entity.partitions.size if entity.partitions else 1
    return [tuple(values[place : place + size]) for place in range(0, len(values), size)]


def lists(context: Context, entity: Entity, handful: Sequence[str], since: datetime | None = None) -> list[Listing]:
    """The lists of some partitions: of what changed since then where there is a discovery, else of everything."""
    if entity.discovery:
        return [each for partition in handful for each in entity.discovery.lists(context, partition, since)]
    parts, (partition, *_) = entity.partitions, handful
    if parts is None:
        return [Listing(entity.listing, entity.paginator)]
    adds = {parts.column: partition} if parts.column else {}
    return [Listing(parts.request(entity.listing, handful), entity.paginator, partition, adds)]


def plan_parts(pulled: Pulled, *, surplus: bool = False) -> None:
    """Plan the parts of the records that are staged, each record's as a set, by the status of the record's own plan.

    The parts of a record that is older than the copy count for nothing. A part that could not be read may be any of
    those that seem to have gone: then none counts as gone. `surplus`: parts whose record neither list nor copy has
    count as gone too, whatever the source has: a record that comes brings its parts.
    """
    for part, stage in pulled.parts:
        names = {
            "part": stage.sql,
            "plan": stage.plan,
            "whole": pulled.stage.sql,
            "whole_plan": pulled.stage.plan,
            "key": identifiers(pulled.entity.table.key),
            "t_by": identifiers(part.by, "t"),
            "same": pulled.of_record(part, "p", "w"),
            "records": pulled.entity.table.sql,
            "of_copy": pulled.of_record(part, "t", "r"),
            "of_list": pulled.of_record(part, "t", "w"),
        }
        stage.conn.execute(sql.SQL(DROP_OLDER).format(**names))
        compare.plan_writes(stage)
        status = "unconfirmed" if stage.pull.rows_refused else "confirmed"
        compare.plan_deletes(stage, status=status, within=sql.SQL(OF_RECORDS).format(**names))
        if surplus:
            compare.plan_deletes(stage, status=status, within=sql.SQL(ORPHANS).format(**names))
        stage.conn.execute(sql.SQL(AS_THE_RECORD).format(**names))


def replace(pulled: Pulled, record: Mapping[str, Any]) -> None:
    """Put a fresher reading of a record in place of what the pull saw, and plan it anew. Raises RowRefused."""
    key = pulled.entity.table.key_of(record)
    pulled.stage.replace_row(record)
    compare.replan(pulled.stage, [key])
    for part, stage in pulled.parts:
        of_record = are(part.by, key)
        stage.replace_rows(of_record, list(part.rows(record)))
        stage.conn.execute(sql.SQL("DELETE FROM {} WHERE {}").format(stage.plan, of_record))
        compare.plan_writes(stage, only=of_record)
        compare.plan_deletes(stage, status="confirmed", within=of_record)


DROP_OLDER = "DELETE FROM {part} p USING {whole_plan} w WHERE {same} AND w._status = 'stale'"

# One set, so that it is joined: an OR of several would search each for every row once memory is short.
OF_RECORDS = """({t_by}) IN (
  SELECT {key} FROM {whole} EXCEPT SELECT {key} FROM {whole_plan} WHERE _status = 'stale'
  UNION SELECT {key} FROM {whole_plan} WHERE _operation = 'delete')
"""

ORPHANS = """NOT EXISTS (SELECT FROM {records} r WHERE {of_copy} AND r.deleted_at IS NULL)
  AND NOT EXISTS (SELECT FROM {whole} w WHERE {of_list})
"""

AS_THE_RECORD = """
UPDATE {plan} p SET _status = w._status FROM {whole_plan} w
WHERE {same} AND w._status IN ('candidate', 'young', 'unconfirmed') AND p._status = 'confirmed'
"""
