"""The hand on a running simulator: its clock, habits, faults, changes and truth, over its control API."""

from dataclasses import asdict

from include.simulators import control
from include.simulators.square.assortment import Row
from include.simulators.square.changes import Mutation
from include.simulators.square.config import Config
from include.simulators.square.seller import Trigger
from include.simulators.square.store import Kind


class Control(control.TimedControl):
    """Commands to the simulator at a URL. A wrong command raises ValueError with the reason."""

    config = Config

    def mutate(self, *mutations: Mutation) -> list[str]:
        """Change rows, all at one instant; returns the ids of the rows, in order. A clock that stands still
        moves on by a second before."""
        return self._send("POST", "mutations", [asdict(mutation) for mutation in mutations])

    def on_page(self, endpoint: str, page: int, *mutations: Mutation) -> None:
        """Order mutations for once, as soon as that page of a crawl of the endpoint has been served."""
        self._send("POST", "triggers", asdict(Trigger(endpoint, page, mutations)))

    def expire_cursors(self) -> None:
        """Make all cursors bad that were given out so far."""
        self._send("DELETE", "cursors")

    def totals(self) -> dict[str, int]:
        """Live rows by kind; of the catalog those that are not deleted."""
        return self._send("GET", "totals")

    def ids(self, kind: Kind) -> list[str]:
        """Ids of the live rows of a kind, ascending. A count's is `variation:location:state`."""
        return self._send("GET", f"ids/{kind}")

    def rows(self, kind: Kind) -> list[Row]:
        """The live rows of a kind by `ids`, as the API shows them."""
        return self._send("GET", f"rows/{kind}")

    def row(self, kind: Kind, row_id: str) -> Row | None:
        """A row as the API shows it, perhaps a tombstone; None where there is none."""
        return self._send("GET", f"rows/{kind}/{row_id}")
