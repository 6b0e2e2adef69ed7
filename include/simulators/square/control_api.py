"""The control's HTTP side for what only this simulator can be ordered, carried out on the seller."""

from include.simulators import control_api
from include.simulators.control import decoded
from include.simulators.control_api import Carry, Path
from include.simulators.square.assortment import Row
from include.simulators.square.changes import Mutation
from include.simulators.square.faults import Fault
from include.simulators.square.seller import Trigger
from include.simulators.square.store import KINDS, Kind


def _kind(path: Path) -> Kind:
    if path["kind"] not in KINDS:
        raise KeyError(f"{path['kind']!r} is no kind: it's one of {', '.join(KINDS)}")
    return path["kind"]


class ControlApi(control_api.TimedControlApi):
    """What else can be ordered of it."""

    fault_kind = Fault

    def routes(self) -> list[tuple[str, str, Carry]]:
        return [
            *super().routes(),
            ("POST", "triggers", self.trigger),
            ("DELETE", "cursors", self.expire_cursors),
            ("POST", "mutations", self.mutate),
            ("GET", "totals", self.totals),
            ("GET", "ids/{kind}", self.ids),
            ("GET", "rows/{kind}", self.rows),
            ("GET", "rows/{kind}/{id}", self.row),
        ]

    def trigger(self, path: Path, body: bytes) -> None:
        self._account.triggers.append(decoded(body, Trigger))

    def expire_cursors(self, path: Path, body: bytes) -> None:
        self._account.cursors.expire()

    def mutate(self, path: Path, body: bytes) -> list[str]:
        return self._account.mutate(decoded(body, list[Mutation]))

    def totals(self, path: Path, body: bytes) -> dict[str, int]:
        return self._account.store.totals()

    def ids(self, path: Path, body: bytes) -> list[str]:
        return self._account.store.ids(_kind(path))

    def rows(self, path: Path, body: bytes) -> list[Row]:
        store, kind = self._account.store, _kind(path)
        return [store.row(kind, row_id) for row_id in store.ids(kind)]

    def row(self, path: Path, body: bytes) -> Row | None:
        return self._account.store.row(_kind(path), path["id"])
