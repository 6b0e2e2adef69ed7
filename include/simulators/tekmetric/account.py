"""One running account: rows, clock, open orders and counters, all touched by one thread only."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random

from msgspec.structs import replace

from include.simulators import account
from include.simulators.clock import Clock
from include.simulators.rules import OpenRules
from include.simulators.tekmetric import changes
from include.simulators.tekmetric.changes import Mutation
from include.simulators.tekmetric.config import SIZES, Config
from include.simulators.tekmetric.faults import Fault, Trigger
from include.simulators.tekmetric.orders import Job
from include.simulators.tekmetric.store import Store

_MORE = Decimal("0.25")  # hours


class Account(account.Account):
    """The state behind the API and its control."""

    fixed = frozenset({"seed", "shops", "now", *SIZES})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.clock = Clock(config.now)
        self.store = Store(config, self.clock.now())
        self.triggers: OpenRules[Trigger] = OpenRules()
        self.random = Random(config.seed)

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
        return self.fault_for(path, query)

    def clear_rules(self) -> None:
        super().clear_rules()
        self.triggers.clear()
        self.store.spoilt.clear()


def _longer(job: Job) -> Mutation:
    first, *rest = job.labor
    return Mutation("update", "jobs", job.id, {"labor": (replace(first, hours=first.hours + _MORE), *rest)})
