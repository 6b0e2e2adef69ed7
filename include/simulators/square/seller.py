"""One running seller: rows, clock, cursors, open orders and counters, all touched by one thread only."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from include.simulators.square import changes
from include.simulators.square.changes import Mutation
from include.simulators.square.clock import Clock
from include.simulators.square.config import SIZES, Config
from include.simulators.square.cursors import Cursors
from include.simulators.square.faults import FaultBook
from include.simulators.square.store import Store

_FIXED = frozenset({"seed", "now", *SIZES})


@dataclass(frozen=True)
class Trigger:
    """Mutations to carry out once: after a page of an endpoint was made, before any later request."""

    endpoint: str
    page: int
    mutations: tuple[Mutation, ...]


@dataclass(frozen=True)
class Counters:
    """What was asked since the start or the last reset.

    `requests` maps what was asked (`POST orders/search`, `GET payments/{id}`) to the number of answers by status;
    what got no whole answer counts as `cut`. `faults` are the orders carried out.
    """

    requests: dict[str, dict[str, int]]
    faults: int
    max_concurrent: int

    def total(self, prefix: str = "", status: int | str | None = None) -> int:
        """Answers to requests whose name starts with `prefix`, of one status or of any."""
        return sum(
            number
            for name, statuses in self.requests.items()
            if name.startswith(prefix)
            for key, number in statuses.items()
            if status is None or str(status) == key
        )


class Seller:
    """The state behind the API and its control."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = Clock(config.now)
        self.cursors = Cursors(self.clock)
        self.store = Store(config)
        self.faults = FaultBook()
        self.triggers: list[Trigger] = []
        self._active = 0
        self.reset_counters()

    def change(self, fields: Mapping[str, Any]) -> None:
        """Change habits. Raises ValueError for a field that is unknown, fixed or of a wrong type."""
        present = asdict(self.config)
        if unknown := fields.keys() - present.keys():
            raise ValueError(f"a seller has no {', '.join(sorted(unknown))}")
        if fixed := _FIXED & fields.keys():
            raise ValueError(f"{', '.join(sorted(fixed))} can't change: start another simulator")
        self.config = msgspec.convert(present | fields, Config)

    def mutate(self, mutations: Sequence[Mutation]) -> list[str]:
        """Carry out changes, all at one instant, and return the ids of their rows."""
        moment = max(self.clock.step(), self.store.catalog.latest + 1)
        return [changes.apply(self.store, mutation, moment) for mutation in mutations]

    def served(self, endpoint: str, page: int) -> None:
        """Carry out what was ordered for after this page."""
        due = [order for order in self.triggers if (order.endpoint, order.page) == (endpoint, page)]
        self.triggers = [order for order in self.triggers if order not in due]
        for trigger in due:
            self.mutate(trigger.mutations)

    def clear_orders(self) -> None:
        """Drop open faults and triggers."""
        self.faults.clear()
        self.triggers.clear()

    @contextmanager
    def underway(self) -> Iterator[None]:
        """Count a request as one of those underway at the same time."""
        self._active += 1
        self._max_active = max(self._max_active, self._active)
        try:
            yield
        finally:
            self._active -= 1

    def count(self, name: str, status: int | str) -> None:
        """Count an answer."""
        self._requests[name, str(status)] += 1

    def count_fault(self) -> None:
        """Count an order carried out."""
        self._struck += 1

    def counters(self) -> Counters:
        """The counters as they stand."""
        requests: dict[str, dict[str, int]] = {}
        for (name, status), number in sorted(self._requests.items()):
            requests.setdefault(name, {})[status] = number
        return Counters(requests, self._struck, self._max_active)

    def reset_counters(self) -> None:
        """Start counting anew."""
        self._requests: Counter[tuple[str, str]] = Counter()
        self._struck = 0
        self._max_active = self._active
