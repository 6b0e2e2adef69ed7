"""Look-ups: narrow requests for certain rows, and what their answers prove."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from typing import Any

from psycopg import sql

from include.api.envelopes import refuse_envelope
from include.api.errors import ApiError, FixConfiguration, NotFound, RefuseData
from include.api.fetch import fetch_all, page_request, pages
from include.api.request import Answer, Request
from include.sources.base import entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Entity
from include.sources.mirror.lookup_mistakes import names_all, names_in_path
from include.sources.mirror.lookup_request import Inside, Lookup
from include.sources.mirror.other_name import prefers_keys, shows_other
from include.warehouse.row_conditions import is_ahead, version_columns
from include.warehouse.sql_fragments import are
from include.warehouse.table import RowRefused, Table, set_aside

# The largest number of batches without a usable answer that one call splits in halves.
MAX_SPLITS = 32
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Look:
    """The result of looking up one tuple of values.

    - `rows`: what the source shows. If `unknown` is empty, it shows no other row; `Lookup` says what that proves
    - `tombstone`: an own address answered without a row: the record is deleted, or the parent has no such rows. Never
      set for a list with pages: without rows it shows no record at all
    - `unknown`: why the look-up proved nothing; empty if it did
    - `needs_person`: asking again would give the same, until a person acts
    - `no_list`: there is no list at its address. It is unknown, unless the parent is gone too
    """

    rows: tuple[Row, ...] = ()
    tombstone: bool = False
    unknown: str = ""
    needs_person: bool = False
    no_list: bool = False

    @property
    def shows_record(self) -> bool:
        """Whether the address has shown a record, also one that is deleted."""
        return bool(self.rows) or self.tombstone


def not_there(lookup: Lookup, look: Look) -> bool:
    """Return whether the address of the record, or of its parent, does not exist."""
    return not look.unknown and (look.no_list or (lookup.own and not look.shows_record))


def names(value: Any, *path: str) -> Callable[[Any], None]:
    """Return a check for a request's answer: it must have this value, the requested id, at the path.

    Values are compared as text. The check raises RefuseData where the value is missing or another.
    """

    def check(data: Any) -> None:
        # A longer path means that the record is wrapped in an object, where an error may stand beside it.
        if len(path) > 1:
            refuse_envelope(data, path[0])
        found = data
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if found is None or str(found) != str(value):
            raise RefuseData(f"its {'.'.join(path)} is {'missing' if found is None else 'that of another record'}")

    return check


def read_rows(read: Callable[..., Iterable[Row]], *data: Any) -> list[Row]:
    """Return the rows that a source's reader finds in the answers.

    Raises RefuseData where the answers don't have the shape that the reader expects.
    """
    try:
        found = read(*data)
        rows = list(found)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # The error's text may quote the data.
        raise RefuseData(f"the answer does not have the shape that is read ({type(error).__name__})") from None
    if isinstance(found, Mapping | str):  # Even an empty one is no empty list.
        raise RefuseData("the answer has an object or a text in place of a list")
    if not all(isinstance(row, Mapping) for row in rows):
        raise RefuseData("the answer holds something that is no JSON object in place of a row")
    return rows


def look_up(
    context: MirrorContext, table: Table, lookup: Lookup, values: Iterable[tuple]
) -> Iterator[tuple[tuple, Look]]:
    """Look up each tuple of values, in parallel. Yields (values, Look) in the order of the answers.

    The unknown values of a batch are requested again in halves, because one value can spoil the answer for all. The
    number of splits is bounded, because the address may be out of order.
    """
    splits, waiting = MAX_SPLITS, [values]
    while waiting:
        for looks in _look_up_batches(context, table, lookup, waiting.pop()):
            unknown = [value for value, look in looks if look.unknown]
            if lookup.whole or not (len(looks) > 1 and splits and unknown):
                yield from looks
                continue
            splits -= 1
            yield from (each for each in looks if not each[1].unknown)
            waiting += filter(None, [unknown[: len(unknown) // 2], unknown[len(unknown) // 2 :]])


def look_up_or_parent(
    context: MirrorContext, entity: Entity, lookup: Lookup, values: Iterable[tuple]
) -> Iterator[tuple[tuple, Look]]:
    """Look up the values, as `look_up` does. The list of a parent that is gone, by its own address, shows no rows."""
    without_list: dict[tuple, Look] = {}
    for value, look in look_up(context, entity.table, lookup, values):
        if look.no_list and isinstance(entity, Child):
            without_list[value] = look
        else:
            yield value, look
    gone = deleted_parents(context, entity, without_list) if without_list else ()
    yield from ((value, Look(no_list=True) if value in gone else look) for value, look in without_list.items())


def deleted_parents(context: MirrorContext, child: Child, keys: Iterable[tuple]) -> set[tuple]:
    """Return the keys of those parents whose own address says that they are gone, or flagged as deleted."""
    parent = entity_of(context.source, child.parent)
    table, lookup = parent.table, parent.lookup.witness or parent.lookup
    flag = [table.tombstone] if table.tombstone else []
    return {
        key
        for key, look in look_up(context, table, lookup, keys)
        if lookup.own and not look.unknown and all(table.named(row, flag) == (True,) for row in look.rows)
    }


def _look_up_batches(
    context: MirrorContext, table: Table, lookup: Lookup, values: Iterable[tuple]
) -> Iterator[list[tuple[tuple, Look]]]:
    """Look up the values batch by batch. Yields the looks of each batch, as [(values, Look)].

    Each batch has one request, or one with several beside it if the look-up has any.
    """
    # By the id of a request that is under way: its batch, and its place, 0 for the first and from 1 for those beside.
    under_way: dict[int, tuple[list[tuple], int]] = {}
    # By the first values of a batch: the answers to its requests so far, by place.
    batch_answers: dict[tuple, list[Answer | ApiError | None]] = {}
    # Asked once, however many answers show another record.
    by_key_first = cache(partial(prefers_keys, context, lookup))

    def first_request(batch: Sequence[tuple]) -> Request:
        request = lookup.request(list(batch)) if lookup.batch > 1 else lookup.request(*batch[0])
        request = _checked_request(request, table, lookup, batch)
        under_way[id(request)] = list(batch), 0
        return request

    def requests_beside(request: Request, outcome: Answer | ApiError) -> Iterator[Request]:
        batch, place = under_way[id(request)]
        if place or _failed(outcome):
            return
        for number, make in enumerate(lookup.beside, 1):
            beside = make(*batch[0])
            under_way[id(beside)] = batch, number
            yield beside

    requests = (first_request(batch) for batch in _batches(values, lookup.batch))
    for request, answer in fetch_all(context.client, requests, workers=context.workers, then=requests_beside):
        batch, place = under_way.pop(id(request))
        if isinstance(answer, Answer):
            context.on_answer(batch[0], request, answer)
        answers = batch_answers.setdefault(batch[0], [None] * (1 + len(lookup.beside)))
        answers[place] = answer
        if (place == 0 and _failed(answer)) or None not in answers:
            del batch_answers[batch[0]]
            yield list(_batch_looks(context, table, lookup, batch, request, answers, by_key_first))


def _failed(outcome: Answer | ApiError | None) -> bool:
    """Return whether a request failed. The API's own 404 is an answer."""
    return isinstance(outcome, ApiError) and not isinstance(outcome, NotFound)


def _batches(values: Iterable[tuple], size: int) -> Iterator[list[tuple]]:
    waiting = iter(values)
    while batch := list(islice(waiting, size)):
        yield batch


def _checked_request(request: Request, table: Table, lookup: Lookup, batch: Sequence[tuple]) -> Request:
    """Return the request with a check of its answer: it must have the requested rows.

    A list has its pages checked instead. If requests are sent beside this one, all answers are checked together later.
    """
    if lookup.paginator:
        return page_request(request, lookup.paginator, lookup.paginator.start)
    if lookup.beside:
        return request

    def check(data: Any) -> None:
        if shows_other(lookup, batch[0], data):
            return
        if request.check:
            request.check(data)
        _require_requested(table, lookup, batch, _without_added(table, lookup, read_rows(lookup.rows, data)))

    return replace(request, check=check)


def _without_added(table: Table, lookup: Lookup, rows: Sequence[Row]) -> list[Row]:
    """Return the rows without the vendor's fields that have names of fields that our own code fills in."""
    names = set(table.added).intersection(lookup.by)
    return [set_aside(row, names) for row in rows]


def _require_requested(table: Table, lookup: Lookup, batch: Sequence[tuple], rows: Sequence[Row]) -> None:
    """Raise RefuseData where a row has other values in the columns `lookup.by` than the requested ones.

    A row must have at least one of these values. Children that come inside their parent's record needn't name the
    parent, so they may have none. In a batch of several some rows may be wrong, but not all.
    """
    if lookup.whole:
        return
    if lookup.batch > 1:
        if rows and not any(table.named(row, lookup.by) in batch for row in rows):
            raise _wrong_row(lookup)
        return
    [requested] = batch
    comes_inside_parent = lookup.own and lookup.by != table.key
    for row in rows:
        row_values = table.named(row, lookup.by)
        contradicts = any(shown not in (None, value) for shown, value in zip(row_values, requested, strict=True))
        says_nothing = all(shown is None for shown in row_values)
        if contradicts or (says_nothing and not comes_inside_parent):
            raise _wrong_row(lookup)


def _require_one_state(request: Request, table: Table, rows: Sequence[Row], *, at_once: bool) -> None:
    """Raise RefuseData where the answer shows a row twice, with other content.

    `at_once`: the rows are of one answer. Else a row may have changed between two pages: then one of them is newer.
    """
    versions, seen = [] if at_once else version_columns(table), dict[tuple, Row]()
    for row in rows:
        key = table.key_of(row)
        first = seen.setdefault(key, row) if key else row
        if (
            first is not row
            and table.named(first, versions) == table.named(row, versions)
            and _content(table, first) != _content(table, row)
        ):
            raise RefuseData(f"{request} shows two different rows with the same key")


def _content(table: Table, row: Row) -> list[Any] | None:
    """Return the values by which two rows differ; None if the row can't be stored."""
    try:
        return [value for name, value in zip(table.names, table.row(row), strict=True) if name in table.compared]
    except RowRefused:
        return None


def _wrong_row(lookup: Lookup) -> RefuseData:
    return RefuseData(f"a row doesn't name the {' and '.join(lookup.by)} that was asked for")


def _batch_looks(
    context: MirrorContext,
    table: Table,
    lookup: Lookup,
    batch: list[tuple],
    request: Request,
    answers: Sequence[Answer | ApiError | None],
    by_key_first: Callable[[], bool],
) -> Iterator[tuple[tuple, Look]]:
    """Yield (values, Look) for each tuple of values in the batch. The arguments are those of `_batch_look`."""
    batch_look = _batch_look(context, table, lookup, batch, request, answers, by_key_first)
    rows, has_wrong_rows = _rows_by_value(table, lookup, batch, batch_look.rows)
    for value in batch:
        requested = dict(zip(lookup.by, value, strict=True))
        full = [table.filled(row, requested) for row in rows[value]]
        # A wrong row may have come in place of a right one. It does no harm if the key allows one row only, or if a
        # witness will be asked about the missing rows.
        complete = rows[value] and (lookup.by == table.key or lookup.witness)
        if has_wrong_rows and not complete:
            yield value, Look(unknown=f"{request}: {_wrong_row(lookup)}")
        else:
            yield value, replace(batch_look, rows=tuple(lookup.finish(context, row) for row in full))


def _rows_by_value(
    table: Table, lookup: Lookup, batch: Sequence[tuple], rows: Sequence[Row]
) -> tuple[Mapping[tuple, list[Row]], bool]:
    """Return the rows of each requested tuple of values, and whether rows with other values were left out."""
    if lookup.batch == 1:
        # Rows needn't name the values, and those with other values have been refused.
        return {batch[0]: list(rows)}, False
    found: dict[tuple, list[Row]] = {value: [] for value in batch}
    has_wrong_rows = False
    for row in rows:
        row_values = table.named(row, lookup.by)
        # In a whole list only a row without a key may be one that was asked for.
        has_wrong_rows |= None in row_values if lookup.whole else row_values not in found
        found.get(row_values, []).append(row)
    return found, has_wrong_rows


def _batch_look(
    context: MirrorContext,
    table: Table,
    lookup: Lookup,
    batch: Sequence[tuple],
    request: Request,
    answers: Sequence[Answer | ApiError | None],
    by_key_first: Callable[[], bool],
) -> Look:
    """Return the result for a batch as a whole.

    - `answers`: the answer to `request`, then those to the requests beside it
    - `by_key_first`: return whether the address prefers keys to other names
    """
    failed = [answer for answer in answers if _failed(answer)]
    if failed:
        return Look(unknown=str(failed[0]), needs_person=isinstance(failed[0], FixConfiguration))
    first, *beside = answers
    if isinstance(first, NotFound):
        if any(isinstance(answer, Answer) for answer in beside):
            return Look(unknown=f"{first} But another address shows what belongs to it, so that proves nothing")
        if not lookup.own:
            return Look(unknown=f"{first} It is a list, so that proves nothing", no_list=True)
        return Look()
    if shows_other(lookup, batch[0], first.data):
        if by_key_first():
            return Look()
        other = lookup.other_name
        return Look(
            unknown=f"{request} shows another row of {other.table.name}, whose {other.column} is the id that was asked"
            " for. Whether there is one with that id, nobody knows: no row of the copy shows which the address prefers"
        )
    try:
        if lookup.paginator:
            rows = _all_pages(context, table, lookup, request, first)
        else:
            rows = read_rows(lookup.rows, *(None if isinstance(a, NotFound) else a.data for a in answers))
        rows = _without_added(table, lookup, rows)
        _require_requested(table, lookup, batch, rows)
        _require_one_state(request, table, rows, at_once=not lookup.paginator)
        if lookup.inside and _is_outdated(context, lookup.inside, first.data):
            raise RefuseData(f"{request} shows an older version of {lookup.inside.table.name} than the copy has")
    except ApiError as error:
        return Look(unknown=str(error))
    if lookup.own and not rows and not (names_in_path(request, batch[0]) or names_all(first.data, batch[0])):
        return Look(unknown=f"{request} is asked by a parameter and shows nothing, as a list does: that proves nothing")
    return Look(tuple(rows), tombstone=lookup.own and not (rows or lookup.paginator))


def _is_outdated(context: MirrorContext, inside: Inside, data: Any) -> bool:
    """Return whether the copy has a newer version of the record in an answer. Versions from the future don't count."""
    table = inside.table
    (record,) = read_rows(lambda: [inside.record(data)])
    key, versions = table.key_of(record), version_columns(table)
    if key is None or not versions:
        return False
    newer = [
        sql.SQL("t.{} > {}").format(sql.Identifier(name), sql.Literal(shown))
        for name, shown in zip(versions, table.named(record, versions), strict=True)
    ]
    query = sql.SQL("SELECT FROM {} t WHERE deleted_at IS NULL AND {} AND coalesce({}, false) AND NOT {}").format(
        table.sql, are(table.key, key, "t"), sql.SQL(", ").join(newer), is_ahead(table, "t")
    )
    return context.conn.execute(query).rowcount > 0


def _all_pages(context: MirrorContext, table: Table, lookup: Lookup, request: Request, first: Answer) -> list[Row]:
    """Return all rows of a narrow list, given its first answer. The list is read again if it is not complete.

    Raises RefuseData where it still shows fewer rows than its total claims. Repeats don't count: a server that ignores
    which page it is asked for shows the same rows again.
    """
    paginator = lookup.paginator
    page = paginator.read(first, paginator.start)
    if page.next is None and _count_rows(table, page.rows) >= (page.total_entries or 0):
        return page.rows
    rows: list[Row] = []
    for _ in range(2):
        promised = 0
        for page in pages(context.client, request, paginator):
            rows += page.rows
            promised = page.total_entries or 0
        shown = _count_rows(table, rows)
        if shown >= promised:
            return rows
    raise RefuseData(f"{request} shows {shown} rows, but says that it has {promised}")


def _count_rows(table: Table, rows: Sequence[Row]) -> int:
    """Return the number of different rows. Those without a usable key count one by one."""
    keys = [table.key_of(row) for row in rows]
    return len(set(keys) - {None}) + keys.count(None)
