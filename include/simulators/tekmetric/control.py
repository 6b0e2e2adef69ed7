"""The hand on a running simulator: its clock, habits, faults, changes and truth, over its control API."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from include.simulators import control
from include.simulators.tekmetric.arithmetic import Sums
from include.simulators.tekmetric.changes import Mutation
from include.simulators.tekmetric.config import Config
from include.simulators.tekmetric.faults import Trigger
from include.simulators.tekmetric.people import Row
from include.simulators.tekmetric.store import Kind, View


class Control(control.TimedControl):
    """Commands to the simulator at a URL. A wrong command raises ValueError with the reason."""

    config = Config

    def expire_token(self) -> None:
        """Let no request in until `set(token=...)`; those underway are answered by what holds then."""
        self.set(token="")

    def mutate(self, *mutations: Mutation) -> list[int]:
        """Change rows, all at one instant; returns the ids of the rows, in order. A clock that stands still moves
        on by a second before."""
        return self._send("POST", "mutations", [asdict(mutation) for mutation in mutations])

    def touch(self, order_ids: Iterable[int]) -> None:
        """Move the `updatedDate` of orders and nothing else."""
        self.mutate(*(Mutation("update", "orders", order_id) for order_id in order_ids))

    def change_some(self, number: int) -> list[int]:
        """Change the labor of that many orders, evenly among all, and return their ids."""
        return self._send("POST", "some", number)

    def before(self, path: str, nth: int, *mutations: Mutation, **params: Any) -> None:
        """Order mutations for once: before the `nth` request from now on whose path and query match (see `Fault`)."""
        texts = {name: str(value) for name, value in params.items()}
        self._send("POST", "triggers", asdict(Trigger(mutations, path=path, params=texts, nth=nth)))

    def spoil(self, view: View, order_id: int, **fields: Any) -> None:
        """Let a view of an order have these fields, whatever is true; none: let it be right again."""
        self._send("PUT", f"spoilt/{view}/{order_id}", fields)

    def ids(self, kind: Kind = "orders", shop: int | None = None) -> list[int]:
        """Return the ids of live records, ascending, of one shop or all."""
        return self._send("GET", f"ids/{kind}" if shop is None else f"ids/{kind}/{shop}")

    def rows(self, kind: Kind = "orders") -> list[Row]:
        """Return all live records, by id, as `row` gives them."""
        return self._send("GET", f"rows/{kind}")

    def row(self, kind: Kind, row_id: int) -> Row:
        """A row as it truly is: of orders and jobs the fields of `Order` and `Job`, else the vendor's."""
        return self._send("GET", f"rows/{kind}/{row_id}")

    def order(self, order_id: int) -> Row:
        """An order as it truly is, deleted ones too."""
        return self.row("orders", order_id)

    def profit(self, order_id: int) -> Sums:
        """What the authorized jobs of an order come to, to the cent."""
        return self._sums("authorized", order_id)

    def potential(self, order_id: int) -> Sums:
        """What all jobs of an order come to, to the cent."""
        return self._sums("potential", order_id)

    def _sums(self, of: str, order_id: int) -> Sums:
        return self._send("GET", f"{of}/{order_id}", kind=Sums)
