"""What is behind the API of every simulator: habits, open faults, and a count of what was asked. One thread uses it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import msgspec

from include.simulators.rules import OpenRules, Rule


@dataclass(frozen=True)
class Counters:
    """What was asked since the start or the last reset.

    `requests` maps what was asked, as the simulator calls it, to the number of answers by status; what got no whole
    answer counts as `cut`. `faults` are the orders carried out.
    """

    requests: dict[str, dict[str, int]]
    faults: int
    max_concurrent: int

    def total(self, part: str = "", status: int | str | None = None) -> int:
        """Answers to what has that in its name, of one status or of any."""
        return sum(
            number
            for name, statuses in self.requests.items()
            if part in name
            for key, number in statuses.items()
            if status is None or str(status) == key
        )


class Account:
    """The state that a simulator serves. Of its `config`, a dataclass, the fields in `fixed` never change."""

    fixed: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Any) -> None:
        self.config = config
        self.faults: OpenRules[Any] = OpenRules()
        self._active = 0
        self.reset_counters()

    def change(self, fields: Mapping[str, Any]) -> None:
        """Change habits. Raises ValueError for a field that is unknown, fixed or of a wrong type."""
        present = asdict(self.config)
        if unknown := fields.keys() - present.keys():
            raise ValueError(f"there is no {', '.join(sorted(unknown))}: it's one of {', '.join(present)}")
        if fixed := self.fixed & fields.keys():
            raise ValueError(f"{', '.join(sorted(fixed))} can't change: start another simulator")
        self.config = msgspec.convert(present | fields, type(self.config))

    def fault_for(self, *request: Any) -> Rule | None:
        """The fault that a request meets, if any: the first that is due. It is counted."""
        fault = next(self.faults.strike(*request), None)
        self._struck += fault is not None
        return fault

    def clear_rules(self) -> None:
        """Drop all that is open of what was ordered."""
        self.faults.clear()

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
