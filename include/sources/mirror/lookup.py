"""Narrow requests: the rows that the source has for given values, and the records that its lists show in brief."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from psycopg import sql

from include.api.client import Answer, Request, refuse_envelope
from include.api.errors import ApiError, FixConfiguration, NotFound, RefuseData
from include.api.fetch import fetch_all, page_request, pages
from include.api.paginators import Page
from include.sources.mirror.entity import Context, Discovered, Entity, Lookup
from include.warehouse.table import RowRefused, Table, among, identifiers

# Why a record was skipped, when the reason is on our side.
OVER_LIMIT = "over the limit"
# How often batches that get no usable answer are asked for in halves, per call.
SPLITS = 32
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Look:
    """What the source says to one tuple of values.

    `absent`: what `rows` don't show is proven to be gone. `tombstone`: the record says itself that it is deleted.
    `unknown`: why nothing can be told, else empty; `needs_person`: asking again would not change that.
    """

    rows: tuple[Row, ...] = ()
    absent: bool = False
    tombstone: bool = False
    unknown: str = ""
    needs_person: bool = False


def names(value: Any, *path: str) -> Callable[[Any], None]:
    """A check of a request: the answer names this value at the path, as the id of the record that was asked for."""

    def check(data: Any) -> None:
        if len(path) > 1:
            refuse_envelope(data)
        found = data
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if found is None or str(found) != str(value):
            raise RefuseData(f"its {'.'.join(path)} is {'missing' if found is None else 'that of another record'}")

    return check


def rows_of(read: Callable[..., Iterable[Row]], *data: Any) -> list[Row]:
    """What a source's reader finds in the answers. Raises RefuseData where they have another shape than it reads."""
    try:
        rows = list(read(*data))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # The error's text may quote the data.
        raise RefuseData(f"the answer has not the shape that is read ({type(error).__name__})") from None
    if not all(isinstance(row, Mapping) for row in rows):
        raise RefuseData("the answer holds something that is no JSON object in place of a row")
    return rows


def look_up(context: Context, table: Table, lookup: Lookup, values: Iterable[tuple]) -> Iterator[tuple[tuple, Look]]:
    """Ask for the rows of each tuple of values, in parallel. Yields (values, Look).

    What a batch doesn't tell is asked for in halves, and so on: one value may spoil the answer about all. How often is
    bounded, since it may be the address that answers nobody.
    """
    splits, waiting = SPLITS, [values]
    while waiting:
        for looks in _look_up(context, table, lookup, waiting.pop()):
            unknown = [value for value, look in looks if look.unknown]
            if not (len(looks) > 1 and splits and unknown):
                yield from looks
                continue
            splits -= 1
            yield from (each for each in looks if not each[1].unknown)
            waiting += filter(None, [unknown[: len(unknown) // 2], unknown[len(unknown) // 2 :]])


def _look_up(
    context: Context, table: Table, lookup: Lookup, values: Iterable[tuple]
) -> Iterator[list[tuple[tuple, Look]]]:
    """The same for each handful of values that share a request."""
    asked: dict[int, tuple[list[tuple], int]] = {}
    found: dict[tuple, list[Answer | ApiError]] = {}

    def first(some: Sequence[tuple]) -> Request:
        request = lookup.request(list(some)) if lookup.batch > 1 else lookup.request(*some[0])
        request = _checked(request, table, lookup, some)
        asked[id(request)] = list(some), 0
        return request

    def then(request: Request, outcome: Answer | ApiError) -> Iterator[Request]:
        some, place = asked[id(request)]
        if place or (isinstance(outcome, ApiError) and not isinstance(outcome, NotFound)):
            return
        for number, make in enumerate(lookup.beside, 1):
            beside = make(*some[0])
            asked[id(beside)] = some, number
            yield beside

    requests = (first(some) for some in _batches(values, lookup.batch))
    for request, answer in fetch_all(context.client, requests, workers=context.workers, then=then):
        some, place = asked.pop(id(request))
        if isinstance(answer, Answer):
            context.on_answer(some[0], request, answer)
        answers = found.setdefault(some[0], [None] * (1 + len(lookup.beside)))
        answers[place] = answer
        failed = isinstance(answer, ApiError) and not isinstance(answer, NotFound) and place == 0
        if failed or None not in answers:
            del found[some[0]]
            yield list(_looks(context, table, lookup, some, request, answers))


def _batches(values: Iterable[tuple], size: int) -> Iterator[list[tuple]]:
    waiting = iter(values)
    while some := list(islice(waiting, size)):
        yield some


def _checked(request: Request, table: Table, lookup: Lookup, some: Sequence[tuple]) -> Request:
    """The request, whose answer has to be about what it asks for; answers of several requests are checked together."""
    if lookup.paginator:
        return page_request(request, lookup.paginator, lookup.paginator.start)
    if lookup.beside:
        return request

    def check(data: Any) -> None:
        if request.check:
            request.check(data)
        _asked_for(table, lookup, some, rows_of(lookup.rows, data))

    return replace(request, check=check)


def _asked_for(table: Table, lookup: Lookup, some: Sequence[tuple], rows: Sequence[Row]) -> None:
    """Raise RefuseData where a row names other values than those that were asked for, or none of them.

    Rows inside the record of their parent, whose own address was asked, needn't name it. Of a batch some rows may be
    strange, but not all.
    """
    if lookup.batch > 1:
        if rows and not any(table.named(row, lookup.by) in some for row in rows):
            raise _strange(lookup)
        return
    inside = lookup.own and lookup.by != table.key
    for row in rows:
        named = table.named(row, lookup.by)
        fits = any(all(name in (None, value) for name, value in zip(named, values, strict=True)) for values in some)
        if not fits or not (inside or any(name is not None for name in named)):
            raise _strange(lookup)


def _strange(lookup: Lookup) -> RefuseData:
    return RefuseData(f"a row doesn't name the {' and '.join(lookup.by)} that was asked for")


def _looks(
    context: Context,
    table: Table,
    lookup: Lookup,
    some: list[tuple],
    request: Request,
    answers: Sequence[Answer | ApiError | None],
) -> Iterator[tuple[tuple, Look]]:
    look = _look(context, table, lookup, some, request, answers)
    rows, strange = _by_value(table, lookup, some, look.rows)
    for value in some:
        given = list(zip(lookup.by, value, strict=True))
        whole = [{**row, **{name: each for name, each in given if row.get(name) is None}} for row in rows[value]]
        told = replace(look, rows=tuple(lookup.finish(context, row) for row in whole))
        # A strange row may have come in the place of what is not shown, which a witness will be asked about.
        all_told = rows[value] and (lookup.by == table.key or lookup.witness)
        yield value, Look(unknown=f"{request}: {_strange(lookup)}") if strange and not all_told else told


def _by_value(
    table: Table, lookup: Lookup, some: Sequence[tuple], rows: Sequence[Row]
) -> tuple[Mapping[tuple, list[Row]], bool]:
    """The rows by the values that were asked for, and whether a batch has shown others beside them."""
    if lookup.batch == 1:
        return {some[0]: list(rows)}, False
    found: dict[tuple, list[Row]] = {value: [] for value in some}
    strange = False
    for row in rows:
        named = table.named(row, lookup.by)
        strange |= named not in found
        found.get(named, []).append(row)
    return found, strange


def _look(
    context: Context,
    table: Table,
    lookup: Lookup,
    some: Sequence[tuple],
    request: Request,
    answers: Sequence[Answer | ApiError | None],
) -> Look:
    failed = [a for a in answers if isinstance(a, ApiError) and not isinstance(a, NotFound)]
    if failed:
        return Look(unknown=str(failed[0]), needs_person=isinstance(failed[0], FixConfiguration))
    first, *others = answers
    if isinstance(first, NotFound):
        if any(isinstance(other, Answer) for other in others):
            return Look(unknown=f"{first} But another address shows what belongs to it, so that proves nothing")
        return Look(absent=True) if lookup.own else Look(unknown=f"{first} It is a list, so that proves nothing")
    try:
        if lookup.paginator:
            rows = _all_pages(context, lookup, request, first)
        else:
            rows = rows_of(lookup.rows, *(None if isinstance(a, NotFound) else a.data for a in answers))
        _asked_for(table, lookup, some, rows)
    except ApiError as error:
        return Look(unknown=str(error))
    return Look(tuple(rows), absent=lookup.own, tombstone=lookup.own and not rows)


def _all_pages(context: Context, lookup: Lookup, request: Request, first: Answer) -> list[Row]:
    """All rows of a narrow list, which has to show as many as it says; if it doesn't, it is read once more."""
    paginator = lookup.paginator
    page = paginator.read(first, paginator.start)
    if page.next is None and len(page.rows) >= (page.total_entries or 0):
        return page.rows
    for _ in range(2):
        rows, promised = [], 0
        for page in pages(context.client, request, paginator):
            rows += page.rows
            promised = page.total_entries or 0
        if len(rows) >= promised:
            return rows
    raise RefuseData(f"{request} shows {len(rows)} rows, but says that it has {promised}")


@dataclass(frozen=True)
class Skipped:
    """A record that a list shows and that was not read: when it changed, in ISO 8601, and why it was skipped.

    `needs_person`: as in `Look`.
    """

    key: list
    partition: str
    moment: str | None
    reason: str
    needs_person: bool = False

    @property
    def failed(self) -> bool:
        return self.reason != OVER_LIMIT

    @property
    def name(self) -> str:
        return "/".join(map(str, self.key))


@dataclass(frozen=True)
class Completed:
    """A page with its records in full.

    `deleted`: the keys of those that say themselves that they are deleted; `delete_events`: of those of which a feed of
    changes says so. `absent`: of those that are not at their own address, though the list shows them. `known`: how
    many the list shows once more, or as the copy has them.
    """

    page: Page
    deleted: tuple[tuple, ...] = ()
    absent: tuple[tuple, ...] = ()
    known: int = 0
    skipped: tuple[Skipped, ...] = ()
    delete_events: tuple[tuple, ...] = ()


def complete(
    context: Context, entity: Entity, page: Page, partition: str, *, skip: Container[tuple], room: int | None
) -> Completed:
    """Look up the records that the page shows in brief.

    `skip`: keys of records that nobody has to look up. `room`: how many may be, None for all. A row without a usable
    key stays as it is, to be refused with its reason.
    """
    table = entity.table
    briefs = {key: row for row in page.rows if (key := table.key_of(row)) and key not in skip}
    rows = [row for row in page.rows if table.key_of(row) is None]
    known = len(page.rows) - len(rows) - len(briefs)
    wanted = list(briefs)
    deleted, absent, skipped = [], [], [(key, Look(unknown=OVER_LIMIT)) for key in wanted[room:] if room is not None]
    buried: list[tuple] = []
    for key, look in _twice(context, entity, wanted[:room], buried):
        if look.unknown:
            skipped.append((key, look))
        elif look.tombstone:
            deleted.append(key)
        elif not look.rows:
            absent.append(key)
        else:
            rows += look.rows
    return Completed(
        replace(page, rows=rows),
        tuple(deleted),
        tuple(absent),
        known,
        tuple(_skipped(entity, key, partition, briefs[key], look) for key, look in skipped),
    )


def _twice(
    context: Context, entity: Entity, keys: Sequence[tuple], buried: list[tuple]
) -> Iterator[tuple[tuple, Look]]:
    """Look up the keys; one that says that it is deleted, though a list shows it, is asked once more."""
    for key, look in look_up(context, entity.table, entity.lookup, keys):
        if look.tombstone:
            buried.append(key)
        else:
            yield key, look
    yield from look_up(context, entity.table, entity.lookup, buried)


def _skipped(entity: Entity, key: tuple, partition: str, brief: Row, look: Look) -> Skipped:
    moment = moment_of(entity, brief)
    return Skipped(list(key), partition, moment and moment.isoformat(), look.unknown, look.needs_person)


def known(context: Context, entity: Discovered, page: Page, since: datetime) -> set[tuple]:
    """The keys of the page's rows of which the copy has just what they show, and that did not change since then.

    What changed in the lookback is read again: what belongs to a record may come later than the record.
    """
    shown = entity.shown
    briefs = {key: row for row in page.rows if (key := shown.key_of(row))}
    if shown.names == shown.key or not briefs:
        return set()
    copies = context.conn.execute(
        sql.SQL("SELECT {} FROM {} WHERE deleted_at IS NULL AND {}").format(
            identifiers(shown.names), entity.table.sql, among(shown.key, briefs)
        )
    ).fetchall()
    there = set(copies)
    return {
        key
        for key, row in briefs.items()
        if _brief(shown, row) in there and not ((moment := moment_of(entity, row)) and moment >= since)
    }


def _brief(shown: Table, row: Row) -> tuple | None:
    """What a list shows of a record; None where that can't be read, which the whole record may mend."""
    try:
        return shown.row(row)
    except RowRefused:
        return None


def moment_of(entity: Discovered, row: Row) -> datetime | None:
    """From when on the lists show the record, as far as that can be read."""
    shown = entity.shown
    brief = _brief(shown, row) or ()
    told = dict(zip(shown.names, brief, strict=False))
    return told.get(shown.version) or told.get(shown.changed)
