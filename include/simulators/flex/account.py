"""One running account: lines, clock, quota, open orders and counters, all touched by one thread only."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from include.simulators import account
from include.simulators.clock import Clock
from include.simulators.flex import changes
from include.simulators.flex.changes import Mutation
from include.simulators.flex.config import SIZES, Config
from include.simulators.flex.faults import Fault, Trigger
from include.simulators.flex.protocol import Call
from include.simulators.flex.rows import Shapes
from include.simulators.flex.store import Line, Store
from include.simulators.rules import OpenRules

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
class Counters(account.Counters):
    """Of endpoints such as `GET line-item/{id}/row-data`.

    `adds` are the requests to add, carried out or not, by element and resource.
    """

    adds: dict[UUID, dict[UUID, int]]
    max_concurrent_by_element: dict[UUID, int]


class Account(account.Account):
    """The state behind the API and its control."""

    fixed = frozenset({"seed", "now", *SIZES})

    def __init__(self, config: Config) -> None:
        self._by_element: Counter[UUID | None] = Counter()
        super().__init__(config)
        self.clock = Clock(config.now)
        self.store = Store(config)
        self.shapes = Shapes(config.seed)
        self.journal: list[Write] = []
        self.triggers: OpenRules[Trigger] = OpenRules()
        self._spent: Counter[tuple[int, int]] = Counter()
        self._lie: Fault | None = None

    @contextmanager
    def lying(self, fault: Fault | None) -> Iterator[None]:
        """While it answers, it shows what the fault says; None: what is true."""
        self._lie = fault
        try:
            yield
        finally:
            self._lie = None

    @property
    def ignoring(self) -> bool:
        """Whether a write is to be taken for done and not carried out."""
        return self._lie is not None and self._lie.kind == "ignored"

    def added_to(self, element_id: UUID) -> UUID:
        """The crew call on which an add makes its line."""
        lie = self._lie
        return lie.element if lie is not None and lie.kind == "misplaced" and lie.element else element_id

    def shown(self, element_id: UUID) -> list[Line]:
        """The lines of a crew call as it shows them. Raises KeyError where there is none."""
        lines = self.store.lines(element_id)
        match self._lie:
            case Fault(kind="empty"):
                return []
            case Fault(kind="lag", changes=changes):
                return self.store.before(element_id, changes)
            case Fault(kind="swapped", element=other) if other:
                return self.store.lines(other)
            case Fault(kind="short", line=line_id):
                contacts = [line.id for line in lines if line.kind == "contact"]
                hidden = line_id or (contacts[-1] if contacts else None)
                return [line for line in lines if line.id != hidden]
        return lines

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
        return self.fault_for(call.method, call.path)

    def clear_rules(self) -> None:
        super().clear_rules()
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
    def at_work(self, call: Call) -> Iterator[None]:
        """Count a request as one of those underway at the same time, at all and for its element."""
        thing = call.ids.get("id")
        element_id = thing if thing in self.store.elements else self.store.home.get(thing)
        self._by_element[element_id] += 1
        self._max_by_element[element_id] = max(self._max_by_element[element_id], self._by_element[element_id])
        try:
            with self.underway():
                yield
        finally:
            self._by_element[element_id] -= 1

    def counters(self) -> Counters:
        adds: dict[UUID, dict[UUID, int]] = {}
        for (element_id, resource_id), number in self._adds.items():
            adds.setdefault(element_id, {})[resource_id] = number
        by_element = {key: number for key, number in self._max_by_element.items() if key is not None}
        return Counters(**vars(super().counters()), adds=adds, max_concurrent_by_element=by_element)

    def reset_counters(self) -> None:
        super().reset_counters()
        self._adds: Counter[tuple[UUID, UUID]] = Counter()
        self._max_by_element = +self._by_element
