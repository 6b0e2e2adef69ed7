"""Narrow requests: the rows that the source has for given values, and the records that its lists show in brief."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from include.api.client import Answer, Request
from include.api.errors import ApiError, NotFound, RefuseData, TryLater
from include.api.fetch import fetch_all, pages
from include.api.paginators import Page
from include.sources.mirror.entity import Context, Entity, Lookup
from include.warehouse.table import RowRefused, Table, among, identifiers

# Of a record that was not read, why, where it isn't the source's doing.
OVER_LIMIT = "over the limit"


def look_up(context: Context, lookup: Lookup, values: Iterable[tuple]) -> Iterator[tuple[tuple, list | ApiError]]:
    """Ask for the rows of each tuple of values, in parallel.

    Yields (values, rows), or in place of the rows NotFound, TryLater or RefuseData.
    """
    makers = (lookup.request, *lookup.beside)
    under_way: dict[int, tuple[tuple, int]] = {}
    found: dict[tuple, dict[int, Answer | ApiError]] = {}

    def requests() -> Iterator[Request]:
        for value in values:
            for place, make in enumerate(makers):
                request = make(*value)
                under_way[id(request)] = value, place
                yield request

    for request, answer in fetch_all(context.client, requests(), workers=context.workers):
        value, place = under_way.pop(id(request))
        if isinstance(answer, Answer):
            context.keep(value, request, answer)
        answers = found.setdefault(value, {})
        answers[place] = answer
        if len(answers) == len(makers):
            del found[value]
            rows = _rows(context, lookup, request, [answers[place] for place in range(len(makers))])
            if not isinstance(rows, ApiError):
                named = dict(zip(lookup.by, value, strict=True))
                rows = [lookup.finish(context, {**named, **row}) for row in rows]
            yield value, rows


def _rows(context: Context, lookup: Lookup, request: Request, answers: Sequence[Answer | ApiError]) -> list | ApiError:
    unknown = [answer for answer in answers if isinstance(answer, ApiError) and not isinstance(answer, NotFound)]
    if unknown:
        return unknown[0]
    first, *others = answers
    if isinstance(first, NotFound):
        return _half_there(first) if any(isinstance(other, Answer) for other in others) else first
    if lookup.paginator:
        return _all_pages(context, lookup, request, lookup.paginator.read(first, lookup.paginator.start))
    try:
        return lookup.rows(*(None if isinstance(answer, NotFound) else answer.data for answer in answers))
    except RefuseData as error:
        return error


def _half_there(absent: NotFound) -> TryLater:
    return TryLater(f"{absent} But it shows what belongs to it, so that proves nothing. Run the task again later.")


def _all_pages(context: Context, lookup: Lookup, request: Request, first: Page) -> list | ApiError:
    rows = list(first.rows)
    if first.next is None:
        return rows
    try:
        for page in pages(context.client, request, lookup.paginator, position=first.next):
            rows += page.rows
    except ApiError as error:
        return error
    return rows


@dataclass(frozen=True)
class Left:
    """A record that a list shows and that was not read: when it changed, in ISO 8601, and why it was left."""

    key: str
    partition: str
    moment: str | None
    reason: str

    @property
    def failed(self) -> bool:
        return self.reason != OVER_LIMIT


@dataclass(frozen=True)
class Completed:
    """A page with its records in full, the keys of those that are gone after all, and what was left."""

    page: Page
    gone: tuple[tuple, ...] = ()
    left: tuple[Left, ...] = ()


def make_whole(
    context: Context, entity: Entity, page: Page, partition: str, *, skip: Container[tuple], room: int | None
) -> Completed:
    """Look up the records that the page shows in brief.

    `skip`: keys of records that nobody has to look up. `room`: how many may be, None for all. A row without a usable
    key stays as it is, to be refused with its reason. What could not be read is left, for the caller to decide what
    that means.
    """
    table = entity.table
    briefs = {key: row for row in page.rows if (key := table.key_of(row)) and key not in skip}
    rows = [row for row in page.rows if table.key_of(row) is None]
    wanted = list(briefs)
    gone, left = [], [(key, OVER_LIMIT) for key in wanted[room:] if room is not None]
    for key, found in look_up(context, entity.lookup, wanted[:room]):
        if isinstance(found, NotFound) or found == []:
            gone.append(key)
        elif isinstance(found, ApiError):
            left.append((key, str(found)))
        else:
            rows += found
    return Completed(
        replace(page, rows=rows),
        tuple(gone),
        tuple(Left("/".join(map(str, key)), partition, _moment(entity, briefs[key]), why) for key, why in left),
    )


def known(context: Context, entity: Entity, page: Page) -> set[tuple]:
    """The keys of the page's rows of which the copy has just what they show."""
    shown = entity.discovery.shown
    briefs = {key: row for row in page.rows if (key := shown.key_of(row))}
    if shown.names == shown.key or not briefs:
        return set()
    copies = context.conn.execute(
        sql.SQL("SELECT {} FROM {} WHERE deleted_at IS NULL AND {}").format(
            identifiers(shown.names), entity.table.sql, among(shown.key, briefs)
        )
    ).fetchall()
    there = set(copies)
    return {key for key, row in briefs.items() if _brief(shown, row) in there}


def _brief(shown: Table, row: Mapping[str, Any]) -> tuple | None:
    """What a list shows of a record; None where that can't be read, which the whole record may mend."""
    try:
        return shown.row(row)
    except RowRefused:
        return None


def _moment(entity: Entity, row: Mapping[str, Any]) -> str | None:
    """From when on the lists show the record, as far as that can be read."""
    shown = entity.discovery.shown
    brief = _brief(shown, row) or ()
    told = dict(zip(shown.names, brief, strict=False))
    moment = told.get(shown.version) or told.get(shown.changed)
    return moment and moment.isoformat()
