"""All that an account has at the moment: crew calls and the lines on them."""

from collections import defaultdict, deque
from dataclasses import dataclass
from random import Random
from typing import Literal
from uuid import UUID

from include.simulators.flex.config import Config

_REMEMBERED = 50  # changes of a crew call that can be shown as they were before
_UNDER_HEADER = 1 / 3  # share of the lines that don't lie directly on their element


@dataclass(frozen=True)
class Line:
    """A line item; a header has neither resource nor role, gear (inventory) no role."""

    id: UUID
    kind: Literal["contact", "inventory", "header"]
    resource_id: UUID | None = None
    role_id: UUID | None = None
    parent_id: UUID | None = None


class Store:
    """`elements`: the lines of each crew call by their ids, in the order in which they came. `home`: the element of
    every line that ever was. `deleted`: the lines that are gone."""

    def __init__(self, config: Config) -> None:
        self._random = Random(config.seed)
        self.elements: dict[UUID, dict[UUID, Line]] = {}
        self.home: dict[UUID, UUID] = {}
        self.deleted: dict[UUID, Line] = {}
        self._past: dict[UUID, deque[list[Line]]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        for _ in range(config.elements):
            element_id = self.create(self.new_id())
            for _ in range(config.crew):
                role_id = self._random.choice((None, *config.roles))
                self.add(element_id, "contact", self.new_id(), role_id)

    def new_id(self) -> UUID:
        """An id that nothing has."""
        return UUID(int=self._random.getrandbits(128), version=4)

    def create(self, element_id: UUID) -> UUID:
        """Make a crew call with one header, with gear under it, and return its id. Raises ValueError if it exists."""
        if element_id in self.elements:
            raise ValueError(f"element {element_id} exists")
        self.elements[element_id] = {}
        header = self.add(element_id, "header", None)
        self.add(element_id, "inventory", self.new_id(), parent_id=header.id)
        return element_id

    def lines(self, element_id: UUID) -> list[Line]:
        """The lines of a crew call. Raises KeyError where there is none."""
        if element_id not in self.elements:
            raise KeyError(f"there is no element {element_id}")
        return list(self.elements[element_id].values())

    def before(self, element_id: UUID, changes: int) -> list[Line]:
        """The lines of a crew call as they were so many changes ago. Raises KeyError where there is none."""
        past = self._past[element_id]
        return past[-min(changes, len(past))] if past and changes else self.lines(element_id)

    def line(self, line_id: UUID) -> Line:
        """A line. Raises KeyError where there is none, or where it was deleted."""
        line = self.elements.get(self.home.get(line_id), {}).get(line_id)
        if line is None:
            raise KeyError(f"there is no line {line_id}")
        return line

    def add(
        self,
        element_id: UUID,
        kind: Literal["contact", "inventory", "header"],
        resource_id: UUID | None,
        role_id: UUID | None = None,
        parent_id: UUID | None = None,
    ) -> Line:
        """Put a line on an element, whatever is on it already. One without a parent may be put under the header.

        Raises KeyError for an element or a parent that isn't there.
        """
        lines = self.lines(element_id)
        headers = [line.id for line in lines if line.kind == "header"]
        if parent_id is None and headers and self._random.random() < _UNDER_HEADER:
            parent_id = headers[0]
        if parent_id is not None and parent_id not in self.elements[element_id]:
            raise KeyError(f"element {element_id} has no line {parent_id}")
        line = Line(self.new_id(), kind, resource_id, role_id, parent_id)
        self.put(element_id, line)
        return line

    def put(self, element_id: UUID, line: Line) -> None:
        """Store a line, in the place of that with its id."""
        self._past[element_id].append(self.lines(element_id))
        self.elements[element_id][line.id] = line
        self.home[line.id] = element_id

    def delete(self, line_id: UUID) -> list[Line]:
        """Delete a line, with what lies under it, and return what is gone. Raises KeyError where there is none."""
        gone = [self.line(line_id)]
        lines = self.elements[self.home[line_id]]
        self._past[self.home[line_id]].append([*lines.values()])
        gone += [line for line in lines.values() if line.parent_id == line_id]
        for line in gone:
            self.deleted[line.id] = lines.pop(line.id)
        return gone

    def restore(self, line_id: UUID) -> Line:
        """Put a line back that was deleted. Raises KeyError for one that wasn't."""
        line = self.deleted.pop(line_id)
        self.put(self.home[line_id], line)
        return line
