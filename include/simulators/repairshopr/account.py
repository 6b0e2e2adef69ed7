"""One running account: its rows, habits, open orders and counters, all touched by one thread only."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from include.simulators import account
from include.simulators.repairshopr.config import RESOURCES, Config
from include.simulators.repairshopr.data import Shop
from include.simulators.repairshopr.faults import Call
from include.simulators.repairshopr.store import Mutation, Store
from include.simulators.repairshopr.values import Row

_WINDOW = 60.0  # seconds


@dataclass(frozen=True)
class Trigger:
    """Mutations to carry out once: after a page of a list was rendered, before any later request."""

    resource: str
    page: int
    mutations: tuple[Mutation, ...]


@dataclass(frozen=True)
class Counters(account.Counters):
    """Of requests such as `GET line_items`, `GET line_items?invoice_id` and `GET invoices/id`; `limited` are the 429s
    of the rate limit."""

    limited: int


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


class Account(account.Account):
    """The state behind the API and its control."""

    fixed = frozenset({"seed", *RESOURCES})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.store = Store(Shop(config.seed, config.sizes()))
        self.limit = RateLimit()
        self.triggers: list[Trigger] = []
        self._replica: Store | None = None
        self._embedding: Store | None = None
        self.scripts: dict[str, Sequence[Sequence[Row]]] = {}

    @property
    def shown(self) -> Store:
        """The rows as lists and single rows show them."""
        return self._replica or self.store

    @property
    def embedded(self) -> Store:
        """The lines as their invoice or estimate shows them."""
        return self._embedding or self.store

    def lag(self, resources: Sequence[str], *, embedded: bool) -> None:
        """Show these resources as they are now, whatever changes, until `catch_up`."""
        self._replica = self.store.frozen(resources)
        self._embedding = self._replica if embedded else None

    def catch_up(self) -> None:
        """Show all as it is."""
        self._replica = self._embedding = None

    def served(self, call: Call) -> None:
        """Carry out what was ordered for after this page."""
        due = [order for order in self.triggers if (order.resource, order.page) == (call.resource, call.page)]
        self.triggers = [order for order in self.triggers if order not in due]
        for trigger in due:
            for mutation in trigger.mutations:
                self.store.apply(mutation, self.config)

    def clear_rules(self) -> None:
        super().clear_rules()
        self.triggers.clear()
        self.scripts.clear()
        self.catch_up()

    def count_limited(self) -> None:
        """Count a 429 of the rate limit."""
        self._limited += 1

    def counters(self) -> Counters:
        return Counters(**vars(super().counters()), limited=self._limited)

    def reset_counters(self) -> None:
        super().reset_counters()
        self._limited = 0
