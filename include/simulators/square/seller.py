"""One running seller: rows, clock, cursors, open orders and counters, all touched by one thread only."""

from collections.abc import Sequence
from dataclasses import dataclass

from include.simulators.account import Account
from include.simulators.square import changes
from include.simulators.square.changes import Mutation
from include.simulators.square.clock import Clock
from include.simulators.square.config import SIZES, Config
from include.simulators.square.cursors import Cursors
from include.simulators.square.store import Store


@dataclass(frozen=True)
class Trigger:
    """Mutations to carry out once: after a page of an endpoint was made, before any later request."""

    endpoint: str
    page: int
    mutations: tuple[Mutation, ...]


class Seller(Account):
    """The state behind the API and its control."""

    fixed = frozenset({"seed", "now", *SIZES})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.clock = Clock(config.now)
        self.cursors = Cursors(self.clock)
        self.store = Store(config)
        self.triggers: list[Trigger] = []

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

    def clear_rules(self) -> None:
        super().clear_rules()
        self.triggers.clear()
