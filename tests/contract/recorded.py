"""Answers of an API as it sends them, read by the declaration.

The stub answers as the declaration says, so both could be wrong alike: a token under another name would end each list
after its first page, in every sync and scan. An answer that the API has sent shows it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from requests.structures import CaseInsensitiveDict

from include.api.errors import RefuseData
from include.api.list_answers import value_at
from include.api.paginators import Cursor, LastId, NextLink, Page, PageNumber, Paginator, Single
from include.api.request import Answer
from include.sources.mirror.changes import Feed
from include.sources.mirror.entity import Entity, Part
from include.sources.mirror.lookup import read_rows
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.source import Mirror
from include.warehouse.field_path import join, split
from include.warehouse.table import Table
from tests.stub import WrongExamples
from tests.stub.store import has_field

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Recorded:
    """What the API answers about an entity: JSON, or `Answer(<JSON>, headers={"Link": ...})` if a header matters.

    - `listing`: the first page of its list, of several
    - `lookup`: the answer to the look-up of the list's first record, unless that is the whole list again
    - `witness`: the same of the look-up's witness, if it has one
    - `feed`: the first page of its `Feed`, of several, if it has one
    - `deletes`: the same of its `Deletes`
    """

    listing: Any
    lookup: Any = None
    witness: Any = None
    feed: Any = None
    deletes: Any = None


def read_examples(source: Mirror, answers: Mapping[str, Recorded]) -> dict[str, list[Record]]:
    """Return the records in the lists' answers, by entity. Raises WrongExamples where the declaration misreads one."""
    return {entity.name: _read(source, entity, answers.get(entity.name)) for entity in source.entities}


def _read(source: Mirror, entity: Entity, recorded: Recorded | None) -> list[Record]:
    if recorded is None:
        raise WrongExamples(
            f"ANSWERS has nothing of {entity.name}: give Recorded(listing=..., lookup=...), as the API of"
            f" {source.name} answers {entity.listing} and the look-up of the first record in it"
        )
    name = entity.table.full_name
    records = _first_page(f"the list of {name}", entity.paginator, recorded.listing).rows
    shown = [records[0]]
    if not entity.lookup.whole:
        shown.append(_looked_up(f"the look-up of {name}", entity, entity.lookup, records, recorded.lookup))
    if witness := entity.lookup.witness:
        shown.append(_looked_up(f"the witness of {name}", entity, witness, records, recorded.witness))
    if isinstance(feed := entity.changes, Feed):
        where = f"the feed of {name}"
        told = _read_events(where, entity, feed.paginator, recorded.feed, feed.record, feed.deleted)
        for record in (each for each in told if entity.table.key_of(each) == entity.table.key_of(records[0])):
            _require_fields(where, "feed", entity, records[0], record)
        shown += told
    if deletes := entity.deletes:
        _read_events(f"the deletes of {name}", entity, deletes.paginator, recorded.deletes, deletes.deleted)
    _require_ignored(entity.table, shown)
    return records


def _answer(recorded: Any) -> Answer:
    """Return the answer as the client would: numbers are exact, and headers ignore case."""
    answer = recorded if isinstance(recorded, Answer) else Answer(recorded)
    data = json.loads(json.dumps(answer.data), parse_float=Decimal)
    return replace(answer, data=data, headers=CaseInsensitiveDict(answer.headers))


def _first_page(where: str, paginator: Paginator, recorded: Any) -> Page:
    """Return the page that the paginator reads. Raises WrongExamples unless it has records, and leads on."""
    answer = _answer(recorded)
    try:
        page = paginator.read(answer, paginator.start)
    except RefuseData as error:
        raise WrongExamples(
            f"the recorded answer of {where} can't be read by its {type(paginator).__name__}: {error}. See what the"
            " API calls it"
        ) from error
    if not page.rows:
        raise WrongExamples(f"the recorded answer of {where} has no records: record a page that has some")
    if missing := [name for name in _names_beside(paginator) if value_at(answer.data, name) is None]:
        raise WrongExamples(
            f"the recorded answer of {where} has no {', '.join(map(repr, missing))}, which its"
            f" {type(paginator).__name__} reads: see what the API calls it"
        )
    if page.next is None and not isinstance(paginator, Single):
        raise WrongExamples(
            f"the recorded answer of {where} leads to no second page by {_what_leads_on(paginator)}: see what the API"
            " calls it. If there was one page only, ask the API for smaller ones, and record the first"
        )
    if address := _unread_address(paginator, answer.data):
        raise WrongExamples(
            f"the recorded answer of {where} has the address of its next page under {address!r}, and its"
            f" {type(paginator).__name__} asks for that page in another way: take NextLink(..., key={address!r})"
        )
    return page


def _unread_address(paginator: Paginator, data: Any) -> str:
    """Return the name of the next page's address if it lacks what the paginator asks for that page by; else empty."""
    if isinstance(paginator, NextLink) or not isinstance(data, Mapping):
        return ""
    param = getattr(paginator, "param", "")
    for name, value in data.items():
        is_next = "next" in name.lower() and isinstance(value, str) and value.startswith(("http", "/"))
        if is_next and param not in dict(parse_qsl(urlsplit(value).query)):
            return name
    return ""


def _names_beside(paginator: Paginator) -> Iterator[str]:
    """The keys that the declaration names, and that an answer without them would not contradict."""
    names = [getattr(paginator, name, None) for name in ("more", "end", "as_of", "total")]
    if isinstance(paginator, PageNumber) and paginator.meta != PageNumber.meta:
        names.append(paginator.meta)
    return filter(None, names)


def _what_leads_on(paginator: Paginator) -> str:
    if isinstance(paginator, Cursor):
        return f"the token {paginator.token!r}"
    if isinstance(paginator, LastId):
        return f"the flag {paginator.more!r}"
    if isinstance(paginator, NextLink):
        return f"the address {paginator.key!r}" if paginator.key else "its Link header"
    return "its totals"


def _read_events(
    where: str, entity: Entity, paginator: Paginator, recorded: Any, *readers: Callable[[Record], Record | None]
) -> list[Record]:
    """Return the records that the first reader finds in a recorded page of events.

    Raises WrongExamples unless the page tells a change of one of the entity's records.
    """
    if recorded is None:
        raise WrongExamples(f"ANSWERS lacks {where}: record the first page of its events")
    events = _first_page(where, paginator, recorded).rows
    found = [record for event in events for record in _told(where, event, *readers)]
    if None in map(entity.table.key_of, found) or not found:
        raise WrongExamples(
            f"the recorded answer of {where} has no event in which `record` or `deleted` finds a record with its key:"
            " change them, or record a page with such an event"
        )
    return [record for event in events for record in _told(where, event, readers[0])]


def _told(where: str, event: Record, *readers: Callable[[Record], Record | None]) -> Iterator[Record]:
    for read in readers:
        try:
            record = read(event)
        except Exception as error:
            raise WrongExamples(
                f"the recorded answer of {where} has an event that `record` or `deleted` can't read"
                f" ({type(error).__name__}: {error}): change them so that they read each event, None for one of another"
                " kind"
            ) from error
        if record is not None:
            yield record


def _looked_up(where: str, entity: Entity, lookup: Lookup, records: Sequence[Record], recorded: Any) -> Record:
    """Return the list's first record as the look-up shows it.

    Raises WrongExamples unless it does, with the fields and nested rows of the list.
    """
    first = records[0]
    values = entity.table.named(first, lookup.by)
    if None in values or entity.table.key_of(first) is None:
        raise WrongExamples(
            f"the first record in the recorded list of {entity.table.full_name} has nothing that the readers of"
            f" {', '.join(dict.fromkeys((*entity.table.key, *lookup.by)))} take: see the columns' fields and readers"
        )
    request = lookup.request([values]) if lookup.batch > 1 else lookup.request(*values)
    if recorded is None:
        raise WrongExamples(f"ANSWERS lacks {where}: record what the API answers to {request}")
    answer = _answer(recorded)
    try:
        if request.check:
            request.check(answer.data)
        paginator = lookup.paginator
        rows = paginator.read(answer, paginator.start).rows if paginator else read_rows(lookup.rows, answer.data)
    except RefuseData as error:
        raise WrongExamples(
            f"the recorded answer of {where} ({request}) is refused: {error}. Change `rows` and `check`, or record the"
            " answer about the first record of the list"
        ) from error
    # Rows inside their parent's record needn't name it.
    found = (entity.table.filled(row, dict(zip(lookup.by, values, strict=True))) for row in rows)
    same = next((row for row in found if entity.table.key_of(row) == entity.table.key_of(first)), None)
    if same is None:
        raise WrongExamples(
            f"`rows` doesn't find the list's first record in the recorded answer of {where} ({request}): change `rows`,"
            " or record the answer about that record"
        )
    _require_fields(where, "look-up", entity, first, same)
    for part in entity.parts:
        listed, looked_up = (_nested_keys(where, part, record) for record in (first, same))
        if listed != looked_up:
            raise WrongExamples(
                f"{where} shows other rows of {part.table.full_name} than the list, so they would stay unproven: let"
                " both requests ask for them, or record both answers again"
            )
    return same


def _require_ignored(table: Table, shown: Sequence[Record]) -> None:
    """Raise WrongExamples unless each field that the table ignores is in one of the records."""
    for path in table.ignored:
        if not any(has_field(record, split(path)) for record in shown):
            raise WrongExamples(
                f"{table.full_name} ignores {path}, which no recorded answer shows: see what the API calls it, or"
                " record a record that has it"
            )


def _nested_keys(where: str, part: Part, record: Record) -> set[tuple | None]:
    """Return the keys of the part's rows in a record. Raises WrongExamples if they can't be read."""
    try:
        return {part.table.key_of(row) for row in part.rows(record)}
    except Exception as error:
        raise WrongExamples(
            f"{where} has a record in which the rows of {part.table.full_name} can't be read"
            f" ({type(error).__name__}: {error}): let its request ask for them as the list's does, or change the Part"
        ) from error


def _require_fields(where: str, name: str, entity: Entity, listed: Record, shown: Record) -> None:
    """Raise WrongExamples if only one of the list and another answer shows a field: each scan would find it changed.

    `name`: how the message calls the other answer.
    """
    for one, other, which in ((listed, shown, "only the list"), (shown, listed, f"only the {name}")):
        if only := sorted(one.keys() - other.keys() - set(_unlike(entity))):
            fields = ", ".join(join("", name) for name in only)
            raise WrongExamples(
                f"{which} shows {fields} ({where}), and each scan would find the record changed: name it in"
                " `ignored`, with that reason, or say compared=False for its column"
            )


def _unlike(entity: Entity) -> Iterable[str]:
    """The fields in which a record's answers may differ."""
    uncompared = (column.path[0] for column in entity.table.columns if not column.compared)
    return (*(split(path)[0] for path in entity.table.ignored), *uncompared)
