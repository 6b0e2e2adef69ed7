"""All that an account has at the moment, and which orders each board and the report show."""

from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

from include.simulators.tekmetric.config import Config
from include.simulators.tekmetric.data import generate
from include.simulators.tekmetric.noise import Noise
from include.simulators.tekmetric.orders import (
    COMPLETE,
    DELETED,
    ESTIMATE,
    PER_PARENT,
    POSTED,
    RECEIVABLE,
    WORK_IN_PROGRESS,
    Job,
    Order,
)
from include.simulators.tekmetric.people import Row

Kind = Literal["orders", "jobs", "customers", "vehicles", "employees"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Board = Literal["ACTIVE", "POSTED", "COMPLETE"]
View = Literal["board", "head", "plain", "estimate", "profit", "report"]
# An order that was completed after this is both on the board ACTIVE and on COMPLETE.
RECENTLY = 7 * 86_400
_POSTED = (POSTED, RECEIVABLE)


class Store:
    """Orders by id; `rows` of everything else by kind and id, what is `gone` included, since orders still name it."""

    def __init__(self, config: Config, now: int) -> None:
        made = generate(config, now)
        self._seed = config.seed
        self.shops = {shop.tm_id: shop for shop in config.shops}
        self.orders: dict[int, Order] = {order.id: order for order in made.orders}
        self.rows: Mapping[str, dict[int, Row]] = {
            kind: {row["id"]: row for row in getattr(made, kind)} for kind in ("customers", "vehicles", "employees")
        }
        self.gone: set[tuple[str, int]] = set()
        self.spoilt: dict[tuple[View, int], Row] = {}

    def noise(self, thing: str) -> Noise:
        """The forms in which the values of a thing are written, the same each time."""
        return Noise(self._seed, thing)

    def live(self, kind: str, shop_id: int) -> list[Row]:
        """The rows of people or vehicles in a shop, by id."""
        rows = self.rows[kind].values()
        return [row for row in rows if row["shopId"] == shop_id and (kind, row["id"]) not in self.gone]

    def ids(self, kind: Kind, shop_id: int | None = None) -> list[int]:
        """The ids of what isn't deleted, in one shop or in all."""
        shops = self.shops if shop_id is None else (shop_id,)
        if kind not in ("orders", "jobs"):
            return sorted(row["id"] for shop in shops for row in self.live(kind, shop))
        orders = [order for order in self.orders.values() if order.shop_id in shops and order.status != DELETED]
        jobs = (job.id for order in orders for job in order.jobs)
        return sorted(jobs if kind == "jobs" else (order.id for order in orders))

    def on_board(self, board: Board, shop_id: int, recent: str) -> list[Order]:
        """The orders that a board can show, those that changed last first; completion is recent after `recent`."""

        def shown(order: Order) -> bool:
            match board:
                case "POSTED":
                    return order.status in _POSTED
                case "COMPLETE":
                    return order.status == COMPLETE
            recently = order.status == COMPLETE and (order.completed is None or order.completed > recent)
            return recently or order.status in (ESTIMATE, WORK_IN_PROGRESS)

        orders = [order for order in self.orders.values() if order.shop_id == shop_id and shown(order)]
        return sorted(orders, key=lambda order: (order.updated, order.id), reverse=True)

    def posted(self, shop_ids: Collection[int], start: str, end: str) -> list[Order]:
        """The orders that were posted from `start` to `end`, both included, in that order."""
        found = (order for order in self.orders.values() if order.shop_id in shop_ids and order.status in _POSTED)
        return sorted(
            (order for order in found if order.posted and start <= order.posted <= end),
            key=lambda order: (order.posted, order.id),
        )

    def order(self, order_id: int) -> Order:
        """An order, deleted ones too. Raises KeyError where there is none."""
        if order_id not in self.orders:
            raise KeyError(f"there is no order {order_id}")
        return self.orders[order_id]

    def job(self, job_id: int) -> tuple[Order, Job]:
        """A job and its order. Raises KeyError where there is none."""
        order = self.order(job_id // PER_PARENT)
        for job in order.jobs:
            if job.id == job_id:
                return order, job
        raise KeyError(f"there is no job {job_id}")

    def person(self, kind: str, row_id: int) -> Row:
        """A customer, a vehicle or an employee. Raises KeyError where there is none."""
        if row_id not in self.rows[kind] or (kind, row_id) in self.gone:
            raise KeyError(f"there is no row {row_id} among the {kind}")
        return self.rows[kind][row_id]

    def shown(self, view: View, order_id: int, row: Row) -> dict[str, Any]:
        """A view of an order with what was ordered to be wrong in it."""
        return row | self.spoilt.get((view, order_id), {})
