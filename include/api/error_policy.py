"""What the statuses of one API mean, beyond what they mean everywhere."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorPolicy:
    """What an API's own statuses between 400 and 499 mean, besides those that mean the same everywhere.

    `wait`: the same request may succeed later, as with 408, 429 and 5xx. `unknown`: the API can't tell about this
    record; it is asked once more, then the record stays unproven. `absent`: the address has no record, as with 404; at
    a record's own address that proves that the record is gone. All others want a person, and 401 always does.

    Raises ValueError for a status that can't be meant.
    """

    wait: frozenset[int] = frozenset()
    unknown: frozenset[int] = frozenset()
    absent: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        named = [*self.wait, *self.unknown, *self.absent]
        others = sorted(status for status in named if not 400 <= status < 500 or status in (401, 404, 408, 429))
        if others:
            raise ValueError(f"the meaning of {', '.join(map(str, others))} is the same for all APIs: leave it out")
        if 403 in self.absent:
            raise ValueError("403 says that a right is missing, which proves no absence")
        if len(set(named)) < len(named):
            raise ValueError("a status of an API means one thing: wait, unknown or absent")
