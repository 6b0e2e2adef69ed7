"""An order as it truly is: whole cents, decimal hours and quantities, instants in UTC, and no noise."""

from decimal import Decimal

import msgspec


class _Truth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Part(_Truth, kw_only=True):
    """`retail` and `cost` are those of one piece; where `per_line`, the vendor shows those of all pieces instead."""

    id: int | None = None
    name: str | None = None
    brand: str | None = None
    part_number: str | None = None
    quantity: Decimal = Decimal(1)
    retail: int
    cost: int
    per_line: bool = False
    core_charge: int = 0
    vendor_id: int | None = None
    received: bool = True


class Labor(_Truth, kw_only=True):
    """`rate` is what an hour is sold for, `hourly_rate` what the technician cost when the work was done."""

    id: int | None = None
    name: str | None = None
    hours: Decimal
    rate: int
    technician_id: int | None = None
    hourly_rate: int = 0


class Sublet(_Truth, kw_only=True):
    id: int | None = None
    name: str | None = None
    retail: int
    cost: int
    vendor: str | None = None
    invoice_number: str | None = None
    po_number: str | None = None


class Fee(_Truth, kw_only=True):
    """A fixed `amount`, or a `percentage` of what is sold, up to `cap` if that is above 0."""

    name: str
    amount: int = 0
    percentage: Decimal | None = None
    cap: int | None = None
    taxable: bool = False


class Job(_Truth, kw_only=True):
    """`authorized` is None until the customer decides. An id of 0 is replaced by a free one."""

    id: int = 0
    name: str = "Work"
    category: str | None = None
    authorized: bool | None = None
    authorized_date: str | None = None
    declined: bool = False
    discount: int = 0
    parts: tuple[Part, ...] = ()
    labor: tuple[Labor, ...] = ()
    sublets: tuple[Sublet, ...] = ()
    fees: tuple[Fee, ...] = ()


class Order(_Truth, kw_only=True):
    """`fees` and `discount` are the order's own, beside those of its jobs. `tax_rate` is in per cent.

    An order of status 7 is deleted: shown as such, or, if `hidden`, answered 404.
    """

    id: int
    shop_id: int
    number: int
    status: int
    created: str
    updated: str
    completed: str | None = None
    posted: str | None = None
    customer_id: int | None = None
    vehicle_id: int | None = None
    writer_id: int | None = None
    jobs: tuple[Job, ...] = ()
    fees: tuple[Fee, ...] = ()
    discount: int = 0
    tax_rate: Decimal = Decimal(0)
    paid: int = 0
    hidden: bool = False


ESTIMATE, WORK_IN_PROGRESS, COMPLETE, SAVED, POSTED, RECEIVABLE, DELETED = range(1, 8)
STATUSES = {
    ESTIMATE: "ESTIMATE",
    WORK_IN_PROGRESS: "WORKINPROGRESS",
    COMPLETE: "COMPLETE",
    SAVED: "SAVEDFORLATER",
    POSTED: "POSTED",
    RECEIVABLE: "ACCRECV",
    DELETED: "DELETED",
}
# Ids hold their parent's, by which a job is found: an order's hundred jobs, and a job's hundred items.
PER_PARENT = 100
