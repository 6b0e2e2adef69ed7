"""The hand on a running simulator: its habits, faults, drift and truth, over its control API."""

from collections.abc import Sequence
from dataclasses import asdict

from include.simulators import control
from include.simulators.repairshopr.account import Counters, Trigger
from include.simulators.repairshopr.config import Config
from include.simulators.repairshopr.store import Mutation
from include.simulators.repairshopr.values import Row


class Control(control.Control):
    """Commands to the simulator at a URL. A wrong command raises ValueError with the reason."""

    config = Config
    counting = Counters

    def on_page(self, resource: str, page: int, *mutations: Mutation) -> None:
        """Order mutations for once, as soon as that page of the resource's list has been served."""
        self._send("POST", "triggers", asdict(Trigger(resource, page, mutations)))

    def script_pages(self, resource: str, pages: Sequence[Sequence[Row]]) -> None:
        """Let the resource's list answer exactly these pages, whatever the store holds.

        Lists narrowed by `invoice_id` or `estimate_id` and single rows still come from the store.
        """
        self._send("PUT", f"pages/{resource}", pages)

    def lag(self, *resources: str, embedded: bool = False) -> None:
        """Let lists and single rows of these resources stay as they are now, whatever changes, until `catch_up`.

        `embedded`: the lines inside invoices and estimates too, if `line_items` are among them.
        """
        self._send("PUT", "lag", {"resources": resources, "embedded": embedded})

    def catch_up(self) -> None:
        """Let everything be shown as it is."""
        self._send("DELETE", "lag")

    def mutate(self, *mutations: Mutation) -> list[int]:
        """Change rows now; returns the ids of the rows, in order."""
        return self._send("POST", "mutations", [asdict(mutation) for mutation in mutations])

    def load(self, resource: str, rows: Sequence[Row]) -> None:
        """Replace a resource's rows by exactly these; each needs an integer `id`."""
        self._send("PUT", f"rows/{resource}", rows)

    def totals(self) -> dict[str, int]:
        """Live rows by resource."""
        return self._send("GET", "totals")

    def ids(self, resource: str) -> list[int]:
        """Return the ids of the live rows, ascending."""
        return self._send("GET", f"ids/{resource}")

    def rows(self, resource: str) -> list[Row]:
        """Return all live rows of a resource, sorted by id, as a list would send them."""
        return self._send("GET", f"rows/{resource}")

    def row(self, resource: str, row_id: int) -> Row | None:
        """A live row as a list would send it (numbers with places as Decimal), or None when it is gone."""
        return self._send("GET", f"rows/{resource}/{row_id}")
