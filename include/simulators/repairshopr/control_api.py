"""The control's HTTP side for what only this simulator can be ordered, carried out on the account."""

from include.simulators import control_api
from include.simulators.control import decoded
from include.simulators.control_api import Carry, Path
from include.simulators.repairshopr.account import Trigger
from include.simulators.repairshopr.faults import Fault
from include.simulators.repairshopr.store import Mutation
from include.simulators.repairshopr.table import Table
from include.simulators.repairshopr.values import Row


class ControlApi(control_api.ControlApi):
    """What else can be ordered of it."""

    fault_kind = Fault

    def routes(self) -> list[tuple[str, str, Carry]]:
        return [
            *super().routes(),
            ("POST", "triggers", self.trigger),
            ("PUT", "pages/{resource}", self.script_pages),
            ("PUT", "lag", self.lag),
            ("DELETE", "lag", self.catch_up),
            ("POST", "mutations", self.mutate),
            ("PUT", "rows/{resource}", self.load),
            ("GET", "totals", self.totals),
            ("GET", "ids/{resource}", self.ids),
            ("GET", "rows/{resource}", self.rows),
            ("GET", "rows/{resource}/{id:int}", self.row),
        ]

    def trigger(self, path: Path, body: bytes) -> None:
        trigger = decoded(body, Trigger)
        self._table(trigger.resource)
        self._account.triggers.append(trigger)

    def script_pages(self, path: Path, body: bytes) -> None:
        self._account.scripts[self._table(path["resource"]).name] = decoded(body, list[list[dict]])

    def lag(self, path: Path, body: bytes) -> None:
        asked = decoded(body)
        self._account.lag([self._table(name).name for name in asked["resources"]], embedded=asked["embedded"])

    def catch_up(self, path: Path, body: bytes) -> None:
        self._account.catch_up()

    def mutate(self, path: Path, body: bytes) -> list[int]:
        mutations = decoded(body, list[Mutation])
        return [self._account.store.apply(mutation, self._account.config) for mutation in mutations]

    def load(self, path: Path, body: bytes) -> None:
        self._table(path["resource"]).load(decoded(body, list[dict]))

    def totals(self, path: Path, body: bytes) -> dict[str, int]:
        return {name: len(table) for name, table in self._account.store.tables.items()}

    def ids(self, path: Path, body: bytes) -> list[int]:
        return list(self._table(path["resource"]))

    def rows(self, path: Path, body: bytes) -> list[Row]:
        table = self._table(path["resource"])
        return [table.row(row_id) for row_id in table]

    def row(self, path: Path, body: bytes) -> Row | None:
        return self._table(path["resource"]).get(path["id"])

    def _table(self, resource: str) -> Table:
        if resource not in self._account.store.tables:
            raise KeyError(f"{resource!r} is no resource: it's one of {', '.join(self._account.store.tables)}")
        return self._account.store.tables[resource]
