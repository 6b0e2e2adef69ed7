"""Where in a request its values stand. That is found by building the request with marks in their place."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from include.api.request import Request

# A place in a request: ("method",), ("path",), ("query", name), or ("body", name, ...).
Place = tuple[str, ...]
Said = Mapping[Place, Any]


def mark(number: int) -> str:
    """A value that no vendor has, in letters and digits alone."""
    return f"mark{number}mark"


def said(request: Request) -> Said:
    """What a request says, by place. A list counts as one value, unless it has objects."""
    query = {("query", name): value for name, value in request.params.items()}
    return {("method",): request.method, ("path",): request.path, **query, **dict(_inside(("body",), request.body))}


def _inside(place: Place, value: Any) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _inside((*place, name), inner)
    elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        names = {name for each in value for name in each}
        if len(names) == 1 and not any(isinstance(inner, Mapping | list) for each in value for inner in each.values()):
            # Such as [{"id": 1}, {"id": 2}]: values of one kind.
            yield (*place, "*", *names), [inner for each in value for inner in each.values()]
            return
        for number, inner in enumerate(value):
            yield from _inside((*place, str(number)), inner)
    elif value is not None:
        yield place, value


def asked(method: str, path: str, query: Sequence[tuple[str, str]], body: Any) -> Said:
    """The same of a request as it has come over HTTP, where a list in the query is a name that comes again."""
    found: dict[Place, Any] = {("method",): method, ("path",): path}
    for name, value in query:
        place = ("query", name)
        found[place] = [*_several(found[place]), value] if place in found else value
    return {**found, **dict(_inside(("body",), body))}


def _several(value: Any) -> list:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Slot:
    """How the values stand in their place: within a text, as a list, or in a text with commas between them."""

    pattern: re.Pattern | None = None
    commas: bool = False

    def read(self, value: Any) -> list[tuple[str, ...]] | None:
        """Return the tuples of values that are asked for; None where it is another request."""
        if self.pattern:
            found = self.pattern.fullmatch(str(value))
            return found and [tuple(found.groups())]
        several = str(value).split(",") if self.commas else _several(value)
        return [(str(each),) for each in several]


@dataclass(frozen=True)
class Template:
    """A request with slots for values."""

    fixed: Said
    slots: Mapping[Place, Slot]

    def read(self, request: Said) -> list[tuple[str, ...]] | None:
        """Return the values that the request asks for; None where it is another request."""
        if any(place not in request or not _same(request[place], value) for place, value in self.fixed.items()):
            return None
        values: list[tuple[str, ...]] = []
        for place, slot in self.slots.items():
            found = slot.read(request[place]) if place in request else None
            if found is None:
                return None
            values = [(*before, *more) for before, more in zip(values or [()] * len(found), found, strict=True)]
        return values

    @property
    def rank(self) -> int:
        """How much it says: of two templates that fit a request the one that says more is meant."""
        return 2 * len(self.fixed) + len(self.slots)


def template(request: Request, marks: Sequence[str], *, several: bool = False) -> Template | None:
    """Return the request with slots where its marks are; None where it doesn't show them, each once and in order.

    `several`: the marks are values of one kind, which go into one place.
    """
    slots = {place: slot for place, value in said(request).items() if (slot := _slot(value, marks, several))}
    fixed = {place: value for place, value in said(request).items() if place not in slots}
    made = Template(fixed, slots)
    wanted = [(each,) for each in marks] if several else [tuple(marks)] if marks else []
    return made if made.read(said(request)) == wanted else None


def _slot(value: Any, marks: Sequence[str], several: bool) -> Slot | None:
    if marks and value == list(marks):
        return Slot()
    if several and len(marks) > 1:
        return Slot(commas=True) if value == ",".join(marks) else None
    if not isinstance(value, str) or not any(each in value for each in marks):
        return None
    pattern = re.escape(value)
    for each in marks:
        pattern = pattern.replace(each, "([^/]+)")
    return Slot(re.compile(pattern))


def _same(asked: Any, value: Any) -> bool:
    """Everything in a query is text."""
    if isinstance(asked, list) and isinstance(value, list):
        return list(map(str, asked)) == list(map(str, value))
    return asked == value or str(asked) == str(value)
