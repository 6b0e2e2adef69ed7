"""The control's HTTP side for what only this simulator can be ordered, carried out on the account."""

from typing import get_args

from include.simulators import control_api
from include.simulators.control import decoded
from include.simulators.control_api import Carry, Path
from include.simulators.tekmetric import arithmetic
from include.simulators.tekmetric.arithmetic import Sums
from include.simulators.tekmetric.changes import Mutation
from include.simulators.tekmetric.faults import Fault, Trigger
from include.simulators.tekmetric.orders import Job, Order
from include.simulators.tekmetric.people import Row
from include.simulators.tekmetric.store import KINDS, Kind, View


def _one_of(word: str, allowed: tuple[str, ...]) -> str:
    if word not in allowed:
        raise KeyError(f"{word!r} is none of {', '.join(allowed)}")
    return word


class ControlApi(control_api.TimedControlApi):
    """What else can be ordered of it."""

    fault_kind = Fault

    def routes(self) -> list[tuple[str, str, Carry]]:
        return [
            *super().routes(),
            ("POST", "triggers", self.trigger),
            ("PUT", "spoilt/{view}/{id:int}", self.spoil),
            ("POST", "mutations", self.mutate),
            ("POST", "some", self.change_some),
            ("GET", "ids/{kind}", self.ids),
            ("GET", "ids/{kind}/{shop:int}", self.ids),
            ("GET", "rows/{kind}", self.rows),
            ("GET", "rows/{kind}/{id:int}", self.row),
            ("GET", "authorized/{id:int}", self.authorized),
            ("GET", "potential/{id:int}", self.potential),
        ]

    def trigger(self, path: Path, body: bytes) -> None:
        self._account.triggers.add(decoded(body, Trigger))

    def spoil(self, path: Path, body: bytes) -> None:
        view = _one_of(path["view"], get_args(View))
        self._account.store.spoilt[view, self._account.store.order(path["id"]).id] = decoded(body, dict)

    def mutate(self, path: Path, body: bytes) -> list[int]:
        return self._account.mutate(decoded(body, list[Mutation]))

    def change_some(self, path: Path, body: bytes) -> list[int]:
        return self._account.change_some(decoded(body, int))

    def ids(self, path: Path, body: bytes) -> list[int]:
        return self._account.store.ids(self._kind(path), path.get("shop"))

    def rows(self, path: Path, body: bytes) -> list[Order | Job | Row]:
        kind = self._kind(path)
        return [self._row(kind, row_id) for row_id in self._account.store.ids(kind)]

    def row(self, path: Path, body: bytes) -> Order | Job | Row:
        return self._row(self._kind(path), path["id"])

    def authorized(self, path: Path, body: bytes) -> Sums:
        return arithmetic.authorized(self._account.store.order(path["id"]))

    def potential(self, path: Path, body: bytes) -> Sums:
        return arithmetic.potential(self._account.store.order(path["id"]))

    def _row(self, kind: Kind, row_id: int) -> Order | Job | Row:
        store = self._account.store
        match kind:
            case "orders":
                return store.order(row_id)
            case "jobs":
                return store.job(row_id)[1]
        return store.person(kind, row_id)

    def _kind(self, path: Path) -> Kind:
        return _one_of(path["kind"], KINDS)
