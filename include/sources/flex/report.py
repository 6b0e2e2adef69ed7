"""What came of the work on one crew call."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from include.sources.flex.desired import Crew
from include.sources.flex.plan import Finding, Member

Kind = Literal[
    "added",
    "removed",
    "pruned",
    "kept",
    "role_set",
    "adopted",
    "remapped",
    "forgotten",
    "stale",
    "back",
    "add_failed",
    "remove_failed",
    "role_failed",
    "prune_failed",
]
# Refusals that leave a crew wrong. A line that could not be pruned harms no crew.
FAILED = ("add_failed", "remove_failed", "role_failed")
State = Literal["done", "failed", "waiting", "refused", "changed", "unreadable", "busy", "uncertain", "stopped"]


@dataclass(frozen=True)
class Event:
    """What happened to a resource, and for which rows. `kept`: it was there already; `..._failed`: Flex refused."""

    kind: Kind
    resource_id: UUID | None
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Report:
    """The result of the work on an element. `problems` and `diagnostics` are one line each.

    The states: `done`; `failed`: Flex did not do something; `waiting`: a line has to stay until its technician has one
    elsewhere; `refused`: the crew can't be written as it is; `changed`: people kept changing the crew; `unreadable`,
    `busy` and `uncertain`: nothing more was written for this reason; `stopped`: `stop` was raised, and nothing more
    was written here.

    `crew` and the number of `lines` are what was read last, None and 0 if nothing was. `called_for`: the changes that
    were needed (`plan.key`). `orphans_left`: why orphans were not deleted. `agreed`: rows and record showed the same
    lines. `answered`: False if it is unreadable because there was no answer.
    """

    element_id: UUID
    state: State
    events: tuple[Event, ...] = ()
    findings: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = ()
    diagnostics: tuple[str, ...] = ()
    crew: Crew | None = None
    lines: int = 0
    stop: Exception | None = None
    called_for: frozenset[str] = frozenset()
    orphans_left: tuple[str, ...] = ()
    agreed: bool = False
    answered: bool = True
    seconds: float = 0.0

    def count(self, *kinds: Kind) -> int:
        """Return the number of events of these kinds."""
        return sum(event.kind in kinds for event in self.events)
