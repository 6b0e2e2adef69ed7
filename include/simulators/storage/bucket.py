"""One running bucket: its objects, habits, open orders and counters, all touched by one thread only."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from include.simulators.storage.config import Config
from include.simulators.storage.faults import FaultBook
from include.simulators.storage.objects import Object, Objects

FILLER = b"picture"  # the content of objects that are put by key alone


@dataclass(frozen=True)
class Trigger:
    """A change to carry out once: after the `page`-th LIST page from the order on, before any later request."""

    page: int
    put: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counters:
    """What was asked since the start or the last reset.

    `requests` maps operations (`list`, `head`, `head_bucket`, `get`, `put`, ...) to the number of answers by
    status; what got no whole answer counts as `cut`. `faults` are the orders carried out.
    """

    requests: dict[str, dict[str, int]]
    faults: int
    max_concurrent: int

    def total(self, operation: str | None = None, status: int | str | None = None) -> int:
        """Answers to an operation (None: any), of one status or of any."""
        return sum(
            number
            for name, statuses in self.requests.items()
            if operation in (None, name)
            for key, number in statuses.items()
            if status is None or str(status) == key
        )


class Bucket:
    """The state behind the API and its control."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.objects = Objects()
        self.faults = FaultBook()
        self._pages = 0  # LIST pages served
        self._triggers: list[tuple[int, Trigger]] = []  # with the page after which it is due
        self._active = 0
        self.reset_counters()

    def put(self, keys: list[str]) -> None:
        """Lay a small object under each key."""
        self.objects.put(keys, Object(FILLER))

    def change(self, fields: Mapping[str, Any]) -> None:
        """Change habits. Raises ValueError for a field that is unknown or of a wrong type."""
        present = asdict(self.config)
        if unknown := fields.keys() - present.keys():
            raise ValueError(f"a store has no {', '.join(sorted(unknown))}")
        self.config = msgspec.convert(present | fields, Config)

    def order(self, trigger: Trigger) -> None:
        """Take an order for after a LIST page."""
        self._triggers.append((self._pages + trigger.page, trigger))

    def listed(self) -> None:
        """A LIST page was served: carry out what was ordered for after it."""
        self._pages += 1
        due = [trigger for page, trigger in self._triggers if page <= self._pages]
        self._triggers = [(page, trigger) for page, trigger in self._triggers if page > self._pages]
        for trigger in due:
            self.put(list(trigger.put))
            self.objects.delete(trigger.delete)

    def clear_orders(self) -> None:
        """Drop open faults and triggers."""
        self.faults.clear()
        self._triggers.clear()

    @contextmanager
    def underway(self) -> Iterator[None]:
        """Count a request as one of those underway at the same time."""
        self._active += 1
        self._max_active = max(self._max_active, self._active)
        try:
            yield
        finally:
            self._active -= 1

    def count(self, operation: str, status: int | str) -> None:
        """Count an answer."""
        self._requests[operation, str(status)] += 1

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
