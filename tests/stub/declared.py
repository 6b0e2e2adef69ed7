"""What a mirror's declaration says of its vendor: which requests there are, and what each asks for.

All that depends on how entities are declared stands here and in `paging`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from include.api.paginators import Paginator
from include.api.request import Request
from include.sources.mirror.changes import Deletes, Feed, Since, Window
from include.sources.mirror.entity import Child, Discovered, Entity
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.source import Mirror
from tests.stub import moments, paging
from tests.stub.shapes import NoShape, Record, Shape, find
from tests.stub.template import Place, Said, Template, mark, said, template

# Four moments by which the filter for changes is found in a request.
SINCE, OTHER_SINCE = datetime(2031, 3, 4, 5, 6, 7, tzinfo=UTC), datetime(2032, 4, 5, 6, 7, 8, tzinfo=UTC)
UNTIL, OTHER_UNTIL = datetime(2033, 5, 6, 7, 8, 9, tzinfo=UTC), datetime(2034, 6, 7, 8, 9, 10, tzinfo=UTC)
# A filter may reach further back than it is asked to, for what comes late.
LATEST = timedelta(days=100)


class NotServed(Exception):
    """The stub doesn't know the vendor's ways. The message says which, and what to write by hand."""

    def __init__(self, source: str, what: str):
        super().__init__(
            f"{what}. If that is what the API wants, the stub doesn't know such an API: write a simulator"
            f" (include/simulators/{source}/) and an adapter (tests/contract/{source}.py) by hand, as tekmetric has"
            " them"
        )


class WrongLookup(Exception):
    """A look-up doesn't find the examples. The message says which request, what it does, and what to change."""


@dataclass(frozen=True)
class ListRoute:
    """A request for a list: of everything, or of what changed between the moments in these places of it.

    The values of the template are partitions. `feed`: its rows are the events of changes (or of `deletes` alone), not
    the records.
    """

    entity: Entity
    template: Template
    paginator: Paginator
    since: tuple[Place, ...] = ()
    until: tuple[Place, ...] = ()
    form: str = ""
    feed: bool = False
    deletes: bool = False

    def read(self, request: Said) -> list[tuple[str, ...]] | None:
        """Return the values that the request asks for; None where it is another request."""
        if any(place not in request for place in (*self.since, *self.until)):
            return None
        return self.template.read(request)

    @property
    def rank(self) -> int:
        return self.template.rank + 2 * len(self.since + self.until)


@dataclass(frozen=True)
class LookupRoute:
    """A request for the rows that have the template's values in the lookup's columns.

    `inside`: the rows come inside the record of their parent.
    """

    entity: Entity
    lookup: Lookup
    template: Template
    inside: bool
    shape: Shape | None = None

    def read(self, request: Said) -> list[tuple[str, ...]] | None:
        """Return the values that the request asks for; None where it is another request."""
        return self.template.read(request)

    @property
    def rank(self) -> int:
        return self.template.rank


Route = ListRoute | LookupRoute


def path_of(entity: Entity, name: str) -> tuple[str, ...]:
    """Where in a record the value of a column stands."""
    return tuple(next(column.path for column in entity.table.columns if column.name == name))


def value_of(entity: Entity, record: Record, name: str) -> Any:
    """Return the value in the column's place of a record, None where there is none."""
    value: Any = record
    for each in path_of(entity, name):
        value = value.get(each) if isinstance(value, Mapping) else None
    return value


def values_of(entity: Entity, record: Record, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(value_of(entity, record, name)) for name in names)


def routes(source: Mirror, rows: Mapping[str, Sequence[Record]]) -> list[Route]:
    """Return every request that the declaration makes, those that say most first. Raises NotServed."""
    require_served(source)
    found: list[Route] = []
    for entity in source.entities:
        found += _lists(source, entity)
        found += _feeds(source, entity)
        lookups = [each for each in (entity.lookup, entity.lookup.witness) if each and not each.whole]
        found += [_looked(source, entity, each, rows) for each in lookups]
    return sorted(found, key=lambda route: -route.rank)


def require_served(source: Mirror) -> None:
    """Raise NotServed for a declaration that the stub can't serve at all."""
    for entity in source.entities:
        _require_known(source, entity)


def _require_known(source: Mirror, entity: Entity) -> None:
    reasons = {
        "is found by lists in brief (Discovered), whose requests depend on the run": isinstance(entity, Discovered),
        "deletes rows with others (Cascade)": entity.cascade,
        "is looked up by several requests for one record (Lookup.beside)": entity.lookup.beside,
        "has a paginator of its own": not all(type(each) in paging.KINDS for each in _paginators(entity)),
    }
    for reason, found in reasons.items():
        if found:
            raise NotServed(source.name, f"{source.name}.{entity.name} {reason}")


def _paginators(entity: Entity) -> list[Paginator]:
    if isinstance(entity, Discovered):
        return []
    return [entity.paginator, *(each.paginator for each in feeds_of(entity))]


def feeds_of(entity: Entity) -> list[Feed | Deletes]:
    """The lists of events that the entity reads."""
    return [each for each in (entity.changes, entity.deletes) if isinstance(each, Feed | Deletes)]


def _feeds(source: Mirror, entity: Entity) -> Iterator[ListRoute]:
    """The requests for events."""
    for feed in feeds_of(entity):
        request = feed.request(SINCE)
        since = _unlike(request, feed.request(OTHER_SINCE))
        for place in since:
            _require_moment(source, entity, said(request)[place], "", SINCE)
        made = template(_without(request, set(since)), [])
        yield ListRoute(entity, made, feed.paginator, since, feed=True, deletes=isinstance(feed, Deletes))


def _lists(source: Mirror, entity: Entity) -> Iterator[ListRoute]:
    changes, parts = entity.changes, entity.partitions
    marks = [mark(number) for number in range(parts.size)] if parts else []
    for view in entity.views:
        listing = entity.listing and replace(entity.listing, params={**entity.listing.params, **view})
        listing = parts.request(listing, marks) if parts else listing
        for ask in _readings(changes):
            request = ask(listing, SINCE, UNTIL)
            since = _unlike(request, ask(listing, OTHER_SINCE, UNTIL))
            until = _unlike(request, ask(listing, SINCE, OTHER_UNTIL))
            form = changes.format if isinstance(changes, Since) and isinstance(changes.format, str) else ""
            for place, moment in (*((each, SINCE) for each in since), *((each, UNTIL) for each in until)):
                _require_moment(source, entity, said(request)[place], form, moment)
            made = template(_without(request, {*since, *until}), marks, several=True)
            if made is None:
                raise NotServed(source.name, f"{source.name}.{entity.name} doesn't show which parts it asks for")
            yield ListRoute(entity, made, entity.paginator, since, until, form)


def _readings(changes: Any) -> list[Callable[[Request, datetime, datetime], Request]]:
    """The whole list, and the lists of what changed."""
    whole = [lambda listing, since, until: listing]
    if isinstance(changes, Since):
        return [*whole, lambda listing, since, until: changes.request(listing, since)]
    if isinstance(changes, Window):
        return [*whole, changes.request, *filter(None, [changes.late])]
    return whole


def _unlike(request: Request, other: Request) -> tuple[Place, ...]:
    """The places in which two requests differ."""
    one, two = said(request), said(other)
    return tuple(place for place in one if one[place] != two.get(place))


def _without(request: Request, places: set[Place]) -> Request:
    """The request without what stands in these places of query and body."""

    def kept(inner: Any, place: Place) -> Any:
        if isinstance(inner, list):
            return [kept(each, (*place, str(number))) for number, each in enumerate(inner)]
        if not isinstance(inner, Mapping):
            return inner
        return {name: kept(each, (*place, name)) for name, each in inner.items() if (*place, name) not in places}

    return replace(request, params=kept(request.params, ("query",)), body=kept(request.body, ("body",)))


def _require_moment(source: Mirror, entity: Entity, value: Any, form: str, moment: datetime) -> None:
    try:
        told = abs(moments.read(value, form=form) - moment) < LATEST
    except (ValueError, ArithmeticError, re.error):
        told = False
    if not told:
        where = f"{source.name}.{entity.name}"
        raise NotServed(source.name, f"{where} is asked for changes in a form that is no time: {value!r}")


def _looked(source: Mirror, entity: Entity, lookup: Lookup, rows: Mapping[str, Sequence[Record]]) -> LookupRoute:
    several = lookup.batch > 1
    marks = [mark(number) for number in range(2 if several else len(lookup.by))]
    where = f"{source.name}.{entity.name}"
    try:
        request = lookup.request([(each,) for each in marks]) if several else lookup.request(*marks)
    except Exception as error:
        raise NotServed(source.name, f"the look-up of {where} takes no text ({type(error).__name__})") from error
    made = template(request, marks, several=several)
    if made is None:
        raise NotServed(source.name, f"the look-up of {where} doesn't show which {', '.join(lookup.by)} it asks for")
    inside = lookup.own and lookup.by != entity.table.key
    looked = LookupRoute(entity, lookup, made, inside)
    return looked if lookup.paginator else replace(looked, shape=_shape(source, looked, rows))


def _shape(source: Mirror, looked: LookupRoute, rows: Mapping[str, Sequence[Record]]) -> Shape:
    """The shape in which the reader takes the rows that belong to the first row."""
    entity, lookup = looked.entity, looked.lookup
    values = values_of(entity, rows[entity.name][0], lookup.by)
    records = [row for row in rows[entity.name] if values_of(entity, row, lookup.by) == values]
    request = lookup.request([values]) if lookup.batch > 1 else lookup.request(*values)
    around = parent_of(source, looked, values, rows) or {}
    try:
        return find(lookup.rows, records, around, request.check or (lambda data: None))
    except NoShape as error:
        raise WrongLookup(
            f"the look-up of {source.name}.{entity.name} ({request}) doesn't find the example: {error}. Change `rows`"
            " and `check` so that they read the API's answer, and find the record in it as the list has it"
        ) from error


def parent_of(
    source: Mirror, looked: LookupRoute, values: tuple[str, ...], rows: Mapping[str, Sequence[Record]]
) -> Record | None:
    """The record of the parent that has these values as its key, where its rows come inside it."""
    if not (looked.inside and isinstance(looked.entity, Child)):
        return None
    parent = next(entity for entity in source.entities if entity.name == looked.entity.parent)
    found = (row for row in rows[parent.name] if values_of(parent, row, parent.table.key) == values)
    return next(found, None)


def changed_after(listed: ListRoute, record: Record, since: datetime | None, until: datetime | None) -> bool:
    """Whether the record changed between the moments; one that doesn't say when did."""
    moment = value_of(listed.entity, record, listed.entity.table.moment) if listed.entity.table.moment else None
    if moment is None:
        return True
    changed = moments.read(moment)
    # A filter may be less exact than the records.
    return not (since and changed < since) and not (until and changed > until + timedelta(seconds=1))
