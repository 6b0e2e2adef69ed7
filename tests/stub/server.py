"""The stub over HTTP: routes from the declaration, rows from the store, and faults to order."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from include.simulators.control import decoded, encoder
from include.sources.base import entity_of
from include.sources.mirror.changes import BothEnds, Feed
from include.sources.mirror.entity import Child, Entity
from include.sources.mirror.lookup_mistakes import names_in_path
from include.sources.mirror.source import Mirror
from tests.stub import moments, paging
from tests.stub.declared import (
    ListRoute,
    LookupRoute,
    Route,
    WrongLookup,
    changed_after,
    parent_of,
    routes,
    value_of,
    values_of,
)
from tests.stub.shapes import Record
from tests.stub.store import Store, WrongExamples
from tests.stub.template import Said, asked

TOKEN = "stub-token"
PAGE = 4
# Makes the answer about a deleted record from the record.
Gone = Callable[[Record], Mapping[str, Any]]


@dataclass
class Fault:
    """What happens to requests in place of an answer: a status, or a page that has lost its rows (`dropped`).

    `entity`: only requests for pages of its list. `after`: how many of those are answered before. `times`: how often,
    None for good. `of_lookups`: another status for look-ups.
    """

    status: int = 503
    dropped: bool = False
    entity: str | None = None
    after: int = 0
    times: int | None = 1
    of_lookups: int | None = None

    def meets(self, route: Route | None) -> bool:
        """Whether it happens to a request, which counts then."""
        if (self.entity or self.dropped) and not isinstance(route, ListRoute):
            return False
        if (self.entity and route.entity.name != self.entity) or self.times == 0:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times = self.times and self.times - 1
        return True


class Stub:
    """An ASGI application. `store` has its rows, which may be changed while it runs.

    `gone`: by entity, what a deleted record's own address answers, made from the record; else it answers 404. Raises
    WrongLookup if the declaration would take that answer for the record. `oldest_first`: the entities whose events come
    in the order of time; others come in the opposite one.
    """

    def __init__(
        self,
        store: Store,
        *,
        page: int = PAGE,
        gone: Mapping[str, Gone] | None = None,
        oldest_first: Collection[str] = (),
    ):
        self.store = store
        self._oldest_first = oldest_first
        self._page = page
        self._gone = gone or {}
        self._routes = routes(store.source, store.rows)
        for name in oldest_first:
            _require_feed(store.source, name)
        for name, answer in self._gone.items():
            _require_known(store.source, "gone", name)
            _require_none(entity_of(store.source, name), answer(store.rows[name][0]))
        self._headers = store.source.authorize(TOKEN)
        self._faults: list[Fault] = []
        self._lock = Lock()

    def fault(self, fault: Fault) -> None:
        """Order misbehaviour."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Drop the faults that are still open."""
        with self._lock:
            self._faults.clear()

    def is_list(self, request: Said) -> bool:
        """Whether the request is for a page of a list."""
        return isinstance(self._found(request)[0], ListRoute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        query = parse_qsl(request.url.query, keep_blank_values=True)
        said = asked(request.method, scope["path"], query, decoded(body) if body else None)
        status, data, headers = self._answer(said, request.headers)
        response = Response(encoder.encode(data), status, headers, media_type="application/json")
        await response(scope, receive, send)

    def _answer(self, request: Said, headers: Mapping[str, str]) -> tuple[int, Any, Mapping[str, str]]:
        if any(headers.get(name) != value for name, value in self._headers.items()):
            return 401, {"error": "wrong token"}, {}
        route, values = self._found(request)
        with self._lock:
            fault = next((fault for fault in self._faults if fault.meets(route)), None)
        if fault and not fault.dropped:
            of_lookup = fault.of_lookups if isinstance(route, LookupRoute) else None
            return of_lookup or fault.status, {"error": "on order"}, {}
        if route is None:
            return 404, {"error": "no such address"}, {}
        if isinstance(route, ListRoute):
            try:
                page = self._list(route, request, values, dropped=bool(fault))
            except paging.UnknownPage:
                return 400, {"error": "no such page"}, {}
            told = route.paginator, page, request
            return 200, paging.answer(*told), paging.headers(*told)
        return *self._look(route, request, values), {}

    def _found(self, request: Said) -> tuple[Route | None, list[tuple[str, ...]]]:
        path = request["path",]
        path = path.removeprefix(self.store.source.base_path)
        for route in self._routes:
            values = route.read({**request, ("path",): path})
            if values is not None:
                return route, values
        return None, []

    def _list(
        self, route: ListRoute, request: Said, values: Sequence[tuple[str, ...]], *, dropped: bool
    ) -> paging.Asked:
        since, until = (
            [moments.read(request[place], form=route.form) for place in places if place in request]
            for places in (route.since, route.until)
        )
        first, last = min(since, default=None), max(until, default=None)
        rows = self._events(route, first) if route.feed else self._records(route, values, first, last)
        page = paging.cut(route.paginator, request, rows, self._page)
        return replace(page, rows=()) if dropped else page

    def _events(self, route: ListRoute, since: datetime | None) -> Sequence[Record]:
        """The events since then; where several entities ask for the same feed, those of all of them."""
        asking = {each.entity.name for each in self._routes if each.template == route.template}
        told = [each for each in self.store.events if each.entity in asking and each.delete == route.deletes]
        ordered = told if route.entity.name in self._oldest_first else reversed(told)
        return [each.data for each in ordered if since is None or each.moment >= since]

    def _records(
        self, route: ListRoute, values: Sequence[tuple[str, ...]], since: datetime | None, until: datetime | None
    ) -> Sequence[Record]:
        rows = self._rows(route)
        if parts := route.entity.partitions:
            rows = [row for row in rows if values_of(route.entity, row, [parts.column]) in values]
        return [row for row in rows if changed_after(route, row, since, until)]

    def _rows(self, route: ListRoute) -> Sequence[Record]:
        """All rows of a list. One that is read from both ends has those first that changed last."""
        rows, entity = list(self.store.rows[route.entity.name]), route.entity
        if isinstance(entity.changes, BothEnds) and entity.table.moment:
            rows.sort(key=lambda row: moments.read(value_of(entity, row, entity.table.moment)), reverse=True)
        return rows

    def _look(self, route: LookupRoute, request: Said, values: Sequence[tuple[str, ...]]) -> tuple[int, Any]:
        """The answer to a look-up; a record's own address shows it with all that several look-ups find inside it."""
        same = [each for each in self._routes if isinstance(each, LookupRoute) and each.template == route.template]
        answers = [answer for each in same if (answer := self._looked(each, request, values)) is not None]
        if answers:
            return 200, reduce(_merged, answers)
        for row in self.store.deleted[route.entity.name]:
            if route.entity.name in self._gone and values_of(route.entity, row, route.lookup.by) in values:
                return 200, self._gone[route.entity.name](row)
        return 404, {"error": "not found"}

    def _looked(self, route: LookupRoute, request: Said, values: Sequence[tuple[str, ...]]) -> Any:
        """What one look-up is to read, None where its own address shows nothing."""
        entity, lookup = route.entity, route.lookup
        rows = [row for row in self.store.rows[entity.name] if values_of(entity, row, lookup.by) in values]
        if lookup.paginator:
            if not rows and self._has_gone_with_its_parent(route, values[0]):
                return None
            return paging.answer(lookup.paginator, paging.Asked(0, rows, None, 1, len(rows)), request)
        parent = parent_of(self.store.source, route, values[0], self.store.rows)
        if lookup.own and not rows and not parent:
            return None
        return route.shape.answer(rows, parent or {})

    def _has_gone_with_its_parent(self, route: LookupRoute, values: tuple[str, ...]) -> bool:
        """Whether the path of a list names a parent that is not there any more."""
        if not isinstance(route.entity, Child) or not names_in_path(route.lookup.request(*values), values):
            return False
        parent = entity_of(self.store.source, route.entity.parent)
        return all(values_of(parent, row, parent.table.key) != values for row in self.store.rows[parent.name])


def _require_known(source: Mirror, word: str, name: str) -> None:
    """Raise WrongExamples if the source has no such entity."""
    if name not in (known := [entity.name for entity in source.entities]):
        raise WrongExamples(f"`{word}` names {name}, which {source.name} doesn't have: it has {', '.join(known)}")


def _require_feed(source: Mirror, name: str) -> None:
    """Raise WrongExamples if the source has no such entity with a feed."""
    _require_known(source, "oldest_first", name)
    if not isinstance(entity_of(source, name).changes, Feed):
        raise WrongExamples(f"`oldest_first` names {name}, whose changes are no Feed: leave it out")


def _require_none(entity: Entity, answer: Any) -> None:
    """Raise WrongLookup unless the lookup finds nothing in the answer about a deleted record."""
    with suppress(AttributeError, LookupError, TypeError):
        if not entity.lookup.rows(answer):
            return
    raise WrongLookup(
        f"the lookup of {entity.table.full_name} does not read the answer about a deleted record as none: let its"
        " `rows` return [] for it"
    )


def _merged(one: Any, other: Any) -> Any:
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return other
    return {**one, **{name: _merged(one.get(name), inner) for name, inner in other.items()}}
