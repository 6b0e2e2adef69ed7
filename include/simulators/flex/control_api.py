"""The control's HTTP side for what only this simulator can be ordered, carried out on the account."""

from uuid import UUID

from include.simulators import control_api
from include.simulators.control import decoded
from include.simulators.control_api import Carry, Path
from include.simulators.flex.account import Write
from include.simulators.flex.changes import Mutation
from include.simulators.flex.faults import Fault, Trigger
from include.simulators.flex.store import Line


class ControlApi(control_api.TimedControlApi):
    """What else can be ordered of it."""

    fault_kind = Fault

    def routes(self) -> list[tuple[str, str, Carry]]:
        return [
            *super().routes(),
            ("POST", "triggers", self.trigger),
            ("POST", "mutations", self.mutate),
            ("GET", "journal", self.journal),
            ("GET", "elements", self.elements),
            ("POST", "elements", self.create),
            ("GET", "elements/{id:uuid}", self.lines),
        ]

    def trigger(self, path: Path, body: bytes) -> None:
        self._account.triggers.add(decoded(body, Trigger))

    def mutate(self, path: Path, body: bytes) -> list[list[UUID]]:
        return self._account.mutate(decoded(body, list[Mutation]))

    def journal(self, path: Path, body: bytes) -> list[Write]:
        return self._account.journal

    def elements(self, path: Path, body: bytes) -> list[UUID]:
        return list(self._account.store.elements)

    def create(self, path: Path, body: bytes) -> list[UUID]:
        return self._account.create(decoded(body, list[UUID | None]))

    def lines(self, path: Path, body: bytes) -> list[Line]:
        return self._account.store.lines(path["id"])
