"""One running account: rows, clock, open orders and counters, all touched by one thread only."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import replace

from include.simulators.tekmetric import changes
from include.simulators.tekmetric.changes import Mutation
from include.simulators.tekmetric.clock import Clock
from include.simulators.tekmetric.config import SIZES, Config
from include.simulators.tekmetric.faults import Book, Fault, Trigger
from include.simulators.tekmetric.orders import Job
from include.simulators.tekmetric.store import Store

_FIXED = frozenset({"seed", "shops", "now", *SIZES})
_MORE = Decimal("0.25")  # hours


@dataclass(frozen=True)
class Counters:
    """What was asked since the start or the last reset.

    `requests` maps endpoints (`shop/{shop}/repair-order/{id}`, `repair-order/{id}/estimate`) to the number of answers
    by status; what got no whole answer counts as `cut`. `faults` are the orders carried out.
    """

    requests: dict[str, dict[str, int]]
    faults: int
    max_concurrent: int

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
        self.store = Store(config, self.clock.now())
        self.faults: Book[Fault] = Book()
        self.triggers: Book[Trigger] = Book()
        self._active = 0
        self.reset_counters()

    def change(self, fields: Mapping[str, Any]) -> None:
        """Change habits. Raises ValueError for a field that is unknown, fixed or of a wrong type."""
        present = asdict(self.config)
        if unknown := fields.keys() - present.keys():
            raise ValueError(f"an account has no {', '.join(sorted(unknown))}")
        if fixed := _FIXED & fields.keys():
            raise ValueError(f"{', '.join(sorted(fixed))} can't change: start another simulator")
        self.config = msgspec.convert(present | fields, Config)

    def mutate(self, mutations: Sequence[Mutation]) -> list[int]:
        """Carry out changes, all at one instant, and return the ids of their rows."""
        moment = self.clock.step()
        return [changes.apply(self.store, self.config, mutation, moment) for mutation in mutations]

    def change_some(self, number: int) -> list[int]:
        """Let the first labor of that many orders take a quarter of an hour more; they lie evenly among all.

        Raises ValueError when there are fewer orders whose first job has labor.
        """
        orders = map(self.store.order, self.store.ids("orders"))
        able = [order for order in orders if order.jobs and order.jobs[0].labor]
        if number > len(able):
            raise ValueError(f"only {len(able)} orders have a first job with labor, so not {number}")
        chosen = [able[place * len(able) // number] for place in range(number)]
        self.mutate([_longer(order.jobs[0]) for order in chosen])
        return [order.id for order in chosen]

    def before(self, path: str, query: Mapping[str, str]) -> Fault | None:
        """Carry out the changes that are due before a request; returns the fault that it meets, if any."""
        for trigger in self.triggers.strike(path, query):
            self.mutate(trigger.mutations)
        fault = next(self.faults.strike(path, query), None)
        self._struck += fault is not None
        return fault

    def clear_orders(self) -> None:
        """Drop open faults and triggers, and all that was ordered to be wrong."""
        self.faults.clear()
        self.triggers.clear()
        self.store.spoilt.clear()

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


def _longer(job: Job) -> Mutation:
    first, *rest = job.labor
    return Mutation("update", "jobs", job.id, {"labor": (replace(first, hours=first.hours + _MORE), *rest)})
