"""One running account: lines, clock, quota, open orders and counters, all touched by one thread only."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal
from uuid import UUID

import msgspec

from include.simulators.flex import changes
from include.simulators.flex.changes import Mutation
from include.simulators.flex.clock import Clock
from include.simulators.flex.config import SIZES, Config
from include.simulators.flex.faults import Book, Fault, Trigger
from include.simulators.flex.protocol import Call
from include.simulators.flex.rows import Shapes
from include.simulators.flex.store import Line, Store

_FIXED = frozenset({"seed", "now", *SIZES})
_HOUR, _DAY = 3_600, 86_400


@dataclass(frozen=True)
class Write:
    """A write that the API carried out; the line as it was afterwards, or before it was deleted."""

    op: Literal["add", "role", "delete"]
    element_id: UUID
    line_id: UUID
    resource_id: UUID | None
    role_id: UUID | None


@dataclass(frozen=True)
class Counters:
    """What was asked since the start or the last reset.

    `requests` maps endpoints (`GET line-item/{id}/row-data`) to the number of answers by status; what got no whole
    answer counts as `cut`. `adds` are the requests to add, carried out or not, by element and resource. `faults` are
    the orders carried out.
    """

    requests: dict[str, dict[str, int]]
    adds: dict[UUID, dict[UUID, int]]
    faults: int
    max_concurrent: int
    max_concurrent_by_element: dict[UUID, int]

    def total(self, part: str = "", status: int | str | None = None) -> int:
        """Answers of endpoints with that in their name, of one status or of any."""
        return sum(
            number
            for name, statuses in self.requests.items()
            if part in name
            for key, number in statuses.items()
            if status is None or str(status) == key
        )


class Account:
    """The state behind the API and its control."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = Clock(config.now)
        self.store = Store(config)
        self.shapes = Shapes(config.seed)
        self.journal: list[Write] = []
        self.faults: Book[Fault] = Book()
        self.triggers: Book[Trigger] = Book()
        self._spent: Counter[tuple[int, int]] = Counter()
        self._active: Counter[UUID | None] = Counter()
        self.reset_counters()

    def change(self, fields: Mapping[str, Any]) -> None:
        """Change habits. Raises ValueError for a field that is unknown, fixed or of a wrong type."""
        present = asdict(self.config)
        if unknown := fields.keys() - present.keys():
            raise ValueError(f"an account has no {', '.join(sorted(unknown))}")
        if fixed := _FIXED & fields.keys():
            raise ValueError(f"{', '.join(sorted(fixed))} can't change: start another simulator")
        self.config = msgspec.convert(present | fields, Config)

    def create(self, element_ids: Sequence[UUID | None]) -> list[UUID]:
        """Make crew calls with these ids, or with new ones, and return the ids. Raises ValueError if one exists."""
        return [self.store.create(element_id or self.store.new_id()) for element_id in element_ids]

    def mutate(self, mutations: Sequence[Mutation]) -> list[list[UUID]]:
        """Carry out changes and return the lines of each."""
        return [changes.apply(self.store, mutation) for mutation in mutations]

    def wrote(self, op: Literal["add", "role", "delete"], element_id: UUID, line: Line) -> None:
        """Note a write of the API."""
        self.journal.append(Write(op, element_id, line.id, line.resource_id, line.role_id))

    def before(self, call: Call) -> Fault | None:
        """Count a request, carry out the changes that are due before it, and return the fault that it meets, if any."""
        if call.name.startswith("POST") and "resource" in call.ids:
            self._adds[call.ids["id"], call.ids["resource"]] += 1
        for trigger in self.triggers.strike(call.method, call.path):
            self.mutate(trigger.mutations)
        fault = next(self.faults.strike(call.method, call.path), None)
        self._struck += fault is not None
        return fault

    def clear_orders(self) -> None:
        """Drop open faults and triggers."""
        self.faults.clear()
        self.triggers.clear()

    def spend(self) -> bool:
        """Take a request from the quota of this hour and this day; False, and nothing taken, when one is used up."""
        limits = {_HOUR: self.config.per_hour, _DAY: self.config.per_day}
        spans = [(span, self.clock.now() // span) for span in limits]
        if any(limits[span[0]] is not None and self._spent[span] >= limits[span[0]] for span in spans):
            return False
        self._spent.update(spans)
        return True

    @contextmanager
    def underway(self, call: Call) -> Iterator[None]:
        """Count a request as one of those underway at the same time, at all and for its element."""
        thing = call.ids.get("id")
        element_id = thing if thing in self.store.elements else self.store.home.get(thing)
        self._active[element_id] += 1
        self._max_active = max(self._max_active, self._active.total())
        self._max_by_element[element_id] = max(self._max_by_element[element_id], self._active[element_id])
        try:
            yield
        finally:
            self._active[element_id] -= 1

    def count(self, name: str, status: int | str) -> None:
        """Count an answer."""
        self._requests[name, str(status)] += 1

    def counters(self) -> Counters:
        """The counters as they stand."""
        requests: dict[str, dict[str, int]] = {}
        for (name, status), number in sorted(self._requests.items()):
            requests.setdefault(name, {})[status] = number
        adds: dict[UUID, dict[UUID, int]] = {}
        for (element_id, resource_id), number in self._adds.items():
            adds.setdefault(element_id, {})[resource_id] = number
        by_element = {key: number for key, number in self._max_by_element.items() if key is not None}
        return Counters(requests, adds, self._struck, self._max_active, by_element)

    def reset_counters(self) -> None:
        """Start counting anew."""
        self._requests: Counter[tuple[str, str]] = Counter()
        self._adds: Counter[tuple[UUID, UUID]] = Counter()
        self._struck = 0
        self._max_active = self._active.total()
        self._max_by_element = +self._active
