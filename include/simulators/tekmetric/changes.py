"""Changes behind the API's back, as the shop's people make them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from include.simulators.clock import instant
from include.simulators.tekmetric import people
from include.simulators.tekmetric.config import Config
from include.simulators.tekmetric.data import invent_jobs, tax_rate, technicians_of
from include.simulators.tekmetric.orders import (
    COMPLETE,
    DELETED,
    ESTIMATE,
    PER_PARENT,
    POSTED,
    RECEIVABLE,
    WORK_IN_PROGRESS,
    Job,
    Labor,
    Order,
)
from include.simulators.tekmetric.people import Row
from include.simulators.tekmetric.store import Kind, Store

_FINAL = (POSTED, RECEIVABLE, DELETED)


@dataclass(frozen=True)
class Mutation:
    """One change. `fields` are those of `Order` and `Job` for orders and jobs, the vendor's for everything else.

    - `create`: `fields` over an invented row. An order is an estimate of the first shop unless `fields` say otherwise;
      a job needs `order_id`, a vehicle belongs to `customerId`.
    - `update`: `fields` over those of the row with the `id`. Parts, labor, sublets and fees of a job are replaced as a
      whole, as are the jobs of an order. A new `hourlyRate` of an employee counts in orders that aren't posted yet.
    - `delete`: an order gets status 7, and with `hidden` in `fields` is answered 404; a job, customer, vehicle or
      employee is gone.
    - `complete`, `post`, `unpost`, `reopen`: an order, now, or when `fields` say (`completed`, `posted`). Posted once
      more, it moves to another time.
    - `authorize`, `decline`: a job.

    A change moves the order's `updatedDate` unless it is `silent`. Labor without an
    `hourly_rate` gets its technician's.
    """

    op: Literal["create", "update", "delete", "complete", "post", "unpost", "reopen", "authorize", "decline"]
    kind: Kind = "orders"
    id: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    silent: bool = False


def apply(store: Store, config: Config, mutation: Mutation, moment: int) -> int:
    """Carry out a change at an instant and return the row's id.

    Raises KeyError where the row doesn't live, ValueError where the change makes no sense.
    """
    change = _Change(store, config, mutation, instant(moment))
    match mutation.kind, mutation.op:
        case "orders", "create":
            return change.create_order()
        case "orders", "update" | "delete" | "complete" | "post" | "unpost" | "reopen":
            return change.change_order()
        case "jobs", "create":
            return change.create_job()
        case "jobs", "update" | "delete" | "authorize" | "decline":
            return change.change_job()
        case "customers" | "vehicles" | "employees", "create":
            return change.create_row()
        case "customers" | "vehicles" | "employees", "update" | "delete":
            return change.change_row()
    raise ValueError(f"there is no {mutation.op} of {mutation.kind}")


class _Change:
    def __init__(self, store: Store, config: Config, mutation: Mutation, now: str) -> None:
        self._store, self._config, self._mutation, self._now = store, config, mutation, now
        self._fields = mutation.fields

    def create_order(self) -> int:
        orders = self._store.orders
        shop_id = self._fields.get("shop_id", self._config.shops[0].tm_id)
        if shop_id not in self._store.shops:
            raise KeyError(f"there is no shop {shop_id}")
        order_id = max(orders, default=880_000) + 1
        status = self._fields.get("status", ESTIMATE)
        cars, staff = self._store.live("vehicles", shop_id), self._store.live("employees", shop_id)
        invented = {
            "id": order_id,
            "shop_id": shop_id,
            "number": max((order.number for order in orders.values() if order.shop_id == shop_id), default=4_000) + 1,
            "status": status,
            "created": self._now,
            "updated": self._now,
            "completed": self._now if status in (COMPLETE, *_FINAL) else None,
            "posted": self._now if status in (POSTED, RECEIVABLE) else None,
            "customer_id": cars[0]["customerId"] if cars else None,
            "vehicle_id": cars[0]["id"] if cars else None,
            "tax_rate": tax_rate(self._config, shop_id),
        }
        if "jobs" not in self._fields:
            invented["jobs"] = invent_jobs(Random(order_id), order_id, status, technicians_of(staff), self._now)
        self._put(_read(invented | self._fields, Order))
        return order_id

    def change_order(self) -> int:
        order = self._own_order(self._mutation.id)
        fields = {
            "delete": {"status": DELETED},
            "complete": {"status": COMPLETE, "completed": self._now, "posted": None},
            "unpost": {"status": COMPLETE, "posted": None},
            "reopen": {"status": WORK_IN_PROGRESS, "completed": None, "posted": None},
            "post": {
                "status": POSTED,
                "posted": self._now,
                "completed": order.completed or self._fields.get("posted", self._now),
            },
        }.get(self._mutation.op, {})
        self._put(self._touched(_over(order, fields | self._fields)))
        return order.id

    def create_job(self) -> int:
        order = self._own_order(self._fields.get("order_id", 0))
        job = _read({name: value for name, value in self._fields.items() if name != "order_id"}, Job)
        stored = self._put(self._touched(replace(order, jobs=(*order.jobs, job))))
        return stored.jobs[-1].id

    def change_job(self) -> int:
        order, job = self._store.job(self._mutation.id)
        fields = {
            "authorize": {"authorized": True, "authorized_date": self._now, "declined": False},
            "decline": {"authorized": False, "authorized_date": None, "declined": True},
        }.get(self._mutation.op, {})
        changed = () if self._mutation.op == "delete" else (_over(job, fields | self._fields),)
        jobs = [new for old in order.jobs for new in (changed if old is job else (old,))]
        self._put(self._touched(replace(order, jobs=tuple(jobs))))
        return job.id

    def create_row(self) -> int:
        kind, rows = self._mutation.kind, self._store.rows[self._mutation.kind]
        row_id = max(rows, default=0) + 1
        shop = self._store.shops.get(self._fields.get("shopId", self._config.shops[0].tm_id))
        if shop is None:
            raise KeyError(f"there is no shop {self._fields['shopId']}")
        match kind:
            case "customers":
                row = people.customer(shop, row_id, self._now)
            case "vehicles":
                row = people.vehicle(shop, row_id, self._fields.get("customerId", 0), self._now)
            case _:
                row = people.employee(shop, row_id, len(rows), self._now)
        rows[row_id] = row | self._fields
        return row_id

    def change_row(self) -> int:
        kind, row = self._mutation.kind, self._store.person(self._mutation.kind, self._mutation.id)
        if self._mutation.op == "delete":
            self._store.gone.add((kind, row["id"]))
            return row["id"]
        if unknown := self._fields.keys() - row.keys():
            raise ValueError(f"{kind} have no {', '.join(sorted(unknown))}")
        touched = {} if self._mutation.silent else {"updatedDate": self._now}
        self._store.rows[kind][row["id"]] = row | touched | self._fields
        if kind == "employees" and "hourlyRate" in self._fields:
            self._pay(row["id"], self._fields["hourlyRate"])
        return row["id"]

    def _pay(self, employee_id: int, rate: int) -> None:
        """What the technician's work costs from now on; no order counts as changed by it."""

        def paid(line: Labor) -> Labor:
            return replace(line, hourly_rate=rate) if line.technician_id == employee_id else line

        for order in list(self._store.orders.values()):
            if order.status not in _FINAL:
                self._store.orders[order.id] = replace(order, jobs=_each_labor(order.jobs, paid))

    def _own_order(self, order_id: int) -> Order:
        order = self._store.order(order_id)
        if order.status == DELETED:
            raise KeyError(f"order {order_id} is deleted")
        return order

    def _touched(self, order: Order) -> Order:
        moved = not self._mutation.silent and "updated" not in self._fields
        return replace(order, updated=self._now) if moved else order

    def _put(self, order: Order) -> Order:
        """Store an order, with an id for each job and a rate for each technician."""
        last = max((job.id for job in order.jobs), default=0) or order.id * PER_PARENT
        free = iter(range(last + 1, (order.id + 1) * PER_PARENT))
        jobs = tuple(job if job.id else replace(job, id=next(free)) for job in order.jobs)
        self._store.orders[order.id] = replace(order, jobs=_each_labor(jobs, self._rated))
        return self._store.orders[order.id]

    def _rated(self, line: Labor) -> Labor:
        technician: Row = self._store.rows["employees"].get(line.technician_id, {})
        return line if line.hourly_rate else replace(line, hourly_rate=technician.get("hourlyRate") or 0)


def _each_labor(jobs: Iterable[Job], change: Callable[[Labor], Labor]) -> tuple[Job, ...]:
    return tuple(replace(job, labor=tuple(map(change, job.labor))) for job in jobs)


def _over(row: Any, fields: dict[str, Any]) -> Any:
    """An order or a job with other fields. Raises ValueError for fields that it hasn't, or of a wrong type."""
    return _read(msgspec.structs.asdict(row) | fields, type(row))


def _read(fields: dict[str, Any], kind: type) -> Any:
    return msgspec.convert(fields, kind)
