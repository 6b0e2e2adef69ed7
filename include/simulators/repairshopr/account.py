"""One running account: its rows, habits, open orders and counters, all touched by one thread only."""

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import msgspec

from include.simulators.repairshopr.config import RESOURCES, Config
from include.simulators.repairshopr.data import Row, Shop
from include.simulators.repairshopr.faults import Call, FaultBook
from include.simulators.repairshopr.store import Mutation, Store

_FIXED = frozenset({"seed", *RESOURCES})
_WINDOW = 60.0  # seconds


@dataclass(frozen=True)
class Trigger:
    """Mutations to carry out once: after a page of a list was rendered, before any later request."""

    resource: str
    page: int
    mutations: tuple[Mutation, ...]


@dataclass(frozen=True)
class Counters:
    """What was asked since the start or the last reset.

    `requests` maps what was asked (`GET line_items`, `GET line_items?invoice_id`, `GET invoices/id`) to the
    number of answers by status; what got no whole answer counts as `cut`. `limited` are the 429s of the rate
    limit, `faults` the orders carried out.
    """

    requests: dict[str, dict[str, int]]
    limited: int
    faults: int
    max_concurrent: int

    def total(self, prefix: str = "", status: int | str | None = None) -> int:
        """Answers to requests whose name starts with `prefix`, of one status or of any."""
        return sum(
            number
            for name, statuses in self.requests.items()
            if name.startswith(prefix)
            for key, number in statuses.items()
            if status in (None, key) or str(status) == key
        )


class RateLimit:
    """A sliding window of 60 seconds over the requests that were let through."""

    def __init__(self) -> None:
        self._taken: deque[float] = deque()

    def take(self, limit: int | None) -> int | None:
        """Let a request through and return None, or the whole seconds until the next one would be."""
        moment = time.monotonic()
        while self._taken and self._taken[0] <= moment - _WINDOW:
            self._taken.popleft()
        if limit is not None and len(self._taken) >= limit:
            return ceil(self._taken[len(self._taken) - limit] + _WINDOW - moment) if limit else int(_WINDOW)
        self._taken.append(moment)
        return None


class Account:
    """The state behind the API and its control."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.store = Store(Shop(config.seed, config.sizes()))
        self.faults = FaultBook()
        self.limit = RateLimit()
        self.triggers: list[Trigger] = []
        self.scripts: dict[str, Sequence[Sequence[Row]]] = {}
        self._active = 0
        self.reset_counters()

    def change(self, fields: Mapping[str, Any]) -> None:
        """Change habits of the account. Raises ValueError for a field that is unknown, fixed or of a wrong type."""
        present = asdict(self.config)
        if unknown := fields.keys() - present.keys():
            raise ValueError(f"an account has no {', '.join(sorted(unknown))}")
        if fixed := _FIXED & fields.keys():
            raise ValueError(f"{', '.join(sorted(fixed))} can't change: start another simulator")
        self.config = msgspec.convert(present | fields, Config)

    def served(self, call: Call) -> None:
        """Carry out what was ordered for after this page."""
        due = [order for order in self.triggers if (order.resource, order.page) == (call.resource, call.page)]
        self.triggers = [order for order in self.triggers if order not in due]
        for trigger in due:
            for mutation in trigger.mutations:
                self.store.apply(mutation, self.config)

    def clear_orders(self) -> None:
        """Drop open faults, triggers and scripted pages."""
        self.faults.clear()
        self.triggers.clear()
        self.scripts.clear()

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

    def count_limited(self) -> None:
        """Count a 429 of the rate limit."""
        self._limited += 1

    def count_fault(self) -> None:
        """Count an order carried out."""
        self._struck += 1

    def counters(self) -> Counters:
        """The counters as they stand."""
        requests: dict[str, dict[str, int]] = {}
        for (name, status), number in sorted(self._requests.items()):
            requests.setdefault(name, {})[status] = number
        return Counters(requests, self._limited, self._struck, self._max_active)

    def reset_counters(self) -> None:
        """Start counting anew."""
        self._requests: Counter[tuple[str, str]] = Counter()
        self._limited = self._struck = 0
        self._max_active = self._active
