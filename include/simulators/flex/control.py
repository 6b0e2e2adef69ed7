"""The hand on a running simulator: its clock, habits, faults, changes and truth, over its control API."""

from collections.abc import Iterable
from dataclasses import asdict
from uuid import UUID

from include.simulators import control
from include.simulators.flex.account import Counters, Write
from include.simulators.flex.changes import Mutation
from include.simulators.flex.config import Config
from include.simulators.flex.faults import Trigger
from include.simulators.flex.store import Line


class Control(control.TimedControl):
    """Commands to the simulator at a URL. A wrong command raises ValueError with the reason."""

    config = Config
    counting = Counters

    def create_element(self, element_id: UUID | None = None) -> UUID:
        """Make a crew call with this id, or with a new one: without crew, with a header and gear under it."""
        return self.create_elements([element_id])[0]

    def create_elements(self, element_ids: Iterable[UUID | None]) -> list[UUID]:
        """Make many crew calls."""
        return self._send("POST", "elements", list(element_ids), list[UUID])

    def elements(self) -> list[UUID]:
        """The ids of all crew calls, in the order in which they came."""
        return self._send("GET", "elements", kind=list[UUID])

    def lines(self, element_id: UUID) -> list[Line]:
        """What truly is on a crew call, in the order in which it came."""
        return self._send("GET", f"elements/{element_id}", kind=list[Line])

    def mutate(self, *mutations: Mutation) -> list[list[UUID]]:
        """Let people change lines; returns, for each change, the lines that it made, changed or deleted."""
        return self._send("POST", "mutations", [asdict(mutation) for mutation in mutations], list[list[UUID]])

    def before(self, path: str, nth: int, *mutations: Mutation, method: str = "*") -> None:
        """Order changes for once: before the `nth` request from now on that matches (see `Fault`)."""
        self._send("POST", "triggers", asdict(Trigger(mutations, path=path, method=method, nth=nth)))

    def journal(self) -> list[Write]:
        """All writes that the API ever carried out, in order; what people did is not among them."""
        return self._send("GET", "journal", kind=list[Write])
