"""Checks of the vendor's answers: each by itself, and the three about an order together. Others count as unknown.

The vendor documents none of this. Its examples and an audit of real orders show: an estimate's total is that of its
jobs, fees and discounts with tax; the items of a job add up to the job's amounts; the labor of a profit is that of the
authorized jobs. That an estimate's id is the order's is a guess. Whether declined jobs count in a total is not known.
Values that the vendor leaves out (null) are not compared.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from include.api.errors import RefuseData
from include.sources.tekmetric import tables, values
from include.warehouse.readers import boolean, instant

Record = Mapping[str, Any]
Check = Callable[[Any], None]

DELETED = 7
# By how many cents and hours sums may differ, since the vendor's rounding is not known.
CENTS, HOURS = 100, Decimal("0.05")
# The highest tax in per cent, used if the estimate names neither tax nor rate.
ANY_TAX = 15
# The profit of an order without authorized jobs.
NO_PROFIT: Record = {
    "totalProfit": {"retail": 0, "cost": 0, "profit": 0, "margin": None},
    "laborProfit": {"retail": 0, "cost": 0, "profit": 0, "hours": 0},
}
# The lists of items in a job, and the job's field with the sum of each.
ITEMS = {"parts": "partsPrice", "labor": "laborPrice", "sublets": "subletPrice", "fees": "feePrice"}


def head(shop_id: int, id_: int) -> Check:
    """Return the check of a head: it has the order's id and, unless the order is deleted, number, status and dates."""

    def check(data: Any) -> None:
        order = _of_order(data, id_)
        of_shop(shop_id)([order])
        if is_deleted(order):
            return
        if status_of(order) is None:
            raise RefuseData("the order has no status")
        if number_of(order) is None:
            raise RefuseData("the order has no number")
        for name in ("createdDate", "updatedDate"):
            if _value(order, name, instant) is None:
                raise RefuseData(f"the order has no {name}")

    return check


def estimate(id_: int) -> Check:
    """Return the check of an estimate: it has the order's id, and its lists add up to its amounts."""

    def check(data: Any) -> None:
        order = _of_order(data, id_)
        if "jobs" not in order or "total" not in order:
            raise RefuseData("the estimate has no jobs or no total")
        jobs = objects(order, "jobs")
        if any(job.get("repairOrderId") not in (None, id_, str(id_)) for job in jobs):
            raise RefuseData("a job is that of another order")
        _require_distinct_ids(jobs)
        for job in jobs:
            _require_job_sums(job)
        _require_total(order, jobs)
        _require_fees(order, jobs)

    return check


def profit(data: Any) -> None:
    """Check a profit: raise RefuseData if a figure is missing, in total or for labor. 0 is a figure.

    No figures at all may be right, see `profit_of`. The answer does not say which order it belongs to; `agree` compares
    it with the order's other answers.
    """
    if _is_empty(data):
        return
    for name in NO_PROFIT:
        part = _object(data).get(name)
        if not isinstance(part, dict):
            raise RefuseData(f"the profit has no {name}")
        for field in ("retail", "cost", "profit"):
            if _cents(part, field) is None:
                raise RefuseData(f"{name} has no {field}")
    if _value(data["laborProfit"], "hours", values.hours) is None:
        raise RefuseData("laborProfit has no hours")


def profit_of(estimate: Record, profit: Record | None) -> Record:
    """Return the profit. Raises RefuseData if it has no figures although a job is authorized.

    If none is, the profit is 0. What the vendor answers then is not known: zeros, nulls, {} or a 404.
    """
    if profit is not None and not _is_empty(profit):
        return profit
    if _authorized(estimate):
        raise RefuseData("jobs are authorized, but their profit was not found or is empty. Run the task again later")
    return NO_PROFIT


def agree(head: Record, estimate: Record, profit: Record) -> None:
    """Raise RefuseData if the answers are of different orders, or of different states of one order.

    A profit of another order with the same authorized labor is not recognized.
    """
    numbers = {number_of(head), number_of(estimate)} - {None}
    if len(numbers) > 1:
        raise RefuseData("head and estimate have different numbers, so they are not of one order")
    jobs = _authorized(estimate)
    labor, total = profit["laborProfit"], profit["totalProfit"]
    # Labor may be discounted already or not, so a profit may be lower by any of the discounts, or higher in a refund.
    discounts = [_cents(each, "discount") or 0 for each in (*jobs, estimate)]
    taken_off, given_back = _positive(*discounts), _positive(*(-each for each in discounts))
    sold = sum(_amount_of(job, "labor") for job in jobs)
    # Whether sublets and fees are in the total is not known. In a refund they make it smaller.
    others = [_amount_of(job, kind) for job in jobs for kind in ("sublets", "fees")]
    refunded = _positive(*(-each for each in (*others, _cents(estimate, "feesTotal") or 0)))
    least = sold + sum(_amount_of(job, "parts") for job in jobs) - taken_off - refunded - CENTS
    if (
        abs(_value(labor, "hours", values.hours) - sum(map(_hours, jobs))) > HOURS
        or not -CENTS - taken_off <= _cents(labor, "retail") - sold <= CENTS + given_back
        or _cents(total, "retail") < least
    ):
        raise RefuseData(
            "the profit is not that of the authorized jobs in the estimate, so the two are not of one state"
        )


def record(shop_id: int, fields: Sequence[str]) -> Check:
    """Return the check of a record: it is of the shop, and has at least one of these fields, null included."""

    def check(data: Any) -> None:
        of_shop(shop_id)([_object(data)])
        if not any(name in data for name in fields):
            raise RefuseData(f"it has none of {', '.join(fields)}")

    return check


def of_shop(shop_id: int) -> Check:
    """Return the check of a list: no row names another shop."""

    def check(data: Any) -> None:
        rows = data.get("content") if isinstance(data, dict) else data
        for row in rows if isinstance(rows, list) else ():
            stated = row.get("shopId") if isinstance(row, dict) else None
            if stated is not None and tables.identifier(stated) != shop_id:
                raise RefuseData("it shows something of another shop")

    return check


def whole(shop_id: int, size: int) -> Check:
    """Return the check of a list without pages: it is a list of the shop's, with fewer rows than `size`.

    With `size` rows there may be more.
    """

    def check(data: Any) -> None:
        if not isinstance(data, list):
            raise RefuseData("it is no list")
        if len(data) >= size:
            raise RefuseData(f"it shows {len(data)} rows where {size} were asked for, so there may be more")
        of_shop(shop_id)(data)

    return check


def is_deleted(head: Record) -> bool:
    """Return whether the order says itself that it is deleted."""
    return status_of(head) == DELETED or bool(head.get("deletedDate"))


def status_of(head: Record) -> int | None:
    """Return the id of the order's status."""
    status = head.get("repairOrderStatus")
    if status is not None and not isinstance(status, dict):
        raise RefuseData("'repairOrderStatus' is no object")
    return _value(status or {}, "id", tables.integer)


def number_of(order: Record) -> int | None:
    """Return the number by which people know the order. Either of two fields has it."""
    return _value(order, "repairOrderNumber" if "repairOrderNumber" in order else "roNumber", tables.integer)


def objects(record: Record, name: str) -> list[Record]:
    """Return the list of that name, empty if there is none. Raises RefuseData for anything but a list of objects."""
    value = record.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise RefuseData(f"{name!r} is no list of objects")
    return value


def _authorized(estimate: Record) -> list[Record]:
    return [job for job in objects(estimate, "jobs") if _value(job, "authorized", boolean)]


def _is_empty(profit: Any) -> bool:
    """Return whether a profit is an object with nothing but empty figures in it."""
    known = {"labor", *NO_PROFIT}
    return _object(profit).keys() <= known and not any(_has_figures(part) for part in profit.values())


def _has_figures(part: Any) -> bool:
    """Return whether there is a figure. "NaN" is none: the vendor's share of nothing."""
    return any(value not in (None, "NaN") for value in part.values()) if isinstance(part, dict) else bool(part)


def _object(data: Any) -> Record:
    if not isinstance(data, dict):
        raise RefuseData("it is no JSON object")
    return data


def _of_order(data: Any, id_: int) -> Record:
    found = tables.identifier(_object(data).get("id"))
    if found != id_:
        raise RefuseData("it names no order" if found is None else "it is about another order")
    return data


def _value(record: Record, name: str, read: Callable[[Any], Any]) -> Any:
    try:
        return read(record.get(name))
    except ValueError as error:
        raise RefuseData(f"{name} {error}") from None


def _cents(record: Record, name: str) -> int | None:
    return _value(record, name, values.cents)


def _require_distinct_ids(jobs: Sequence[Record]) -> None:
    """Raise RefuseData if a job has no id, or if two jobs, or two items of one kind, have the same id."""
    ids = [tables.identifier(job.get("id")) for job in jobs]
    if None in ids:
        raise RefuseData("a job has no id")
    for kind in ("parts", "labor", "sublets", "fees"):
        items = (tables.identifier(item.get("id")) for job in jobs for item in objects(job, kind))
        counts = Counter(id_ for id_ in items if id_ is not None)
        if any(count > 1 for count in counts.values()):
            raise RefuseData(f"one of its {kind} is listed twice")
    if len(set(ids)) < len(ids):
        raise RefuseData("a job is listed twice")


def _require_job_sums(job: Record) -> None:
    """Raise RefuseData if the items of a job don't add up to the job's amounts.

    The amounts may be lower by the job's discount, higher in a refund. That of parts may be higher by their core
    charges.
    """
    discount = _cents(job, "discount") or 0
    cores = sum((_cents(part, "coreCharge") or 0) * _quantity(part) for part in objects(job, "parts"))
    for kind, name in ITEMS.items():
        stated, listed = _cents(job, name), _sum_of_items(job, kind)
        if stated and job.get(kind) is None:
            raise RefuseData(f"the list of a job's {kind} is missing, though they come to something")
        if stated is None or listed is None:
            continue
        more = stated - listed
        with_cores = kind == "parts" and abs(more - cores) <= CENTS
        if not -CENTS - _positive(discount) <= more <= CENTS + _positive(-discount) and not with_cores:
            raise RefuseData(f"a job's {kind} don't come to what the job says of them")
    stated, listed = _value(job, "laborHours", values.hours), _sum_of_hours(job)
    if stated is not None and abs(stated - listed) > HOURS:
        raise RefuseData("a job's labor doesn't come to the hours that the job tells")


def _require_total(estimate: Record, jobs: Sequence[Record]) -> None:
    """Raise RefuseData unless the estimate's total is between the lowest and the highest sum that its parts allow.

    The parts are jobs, fees, discounts and tax. Declined jobs and the order's own sublets, whose amounts are not known,
    may count or not. If the estimate names no tax, it is estimated.
    """
    total = _cents(estimate, "total")
    if total and estimate["jobs"] is None:
        raise RefuseData("the list of jobs is missing, though they come to something")
    if total is None and jobs:
        raise RefuseData("the estimate has jobs, but no total")
    if total is None:
        return
    declined = [job for job in jobs if _value(job, "declined", boolean)]
    prices = _prices(jobs)
    fees, own_fees = _cents(estimate, "feesTotal"), 0
    if fees is None:
        fees, own_fees = sum(_amount_of(job, "fees") for job in jobs), _own_fees(estimate, prices) or 0
    # The stated discount may leave out the order's own, and the stated fees what has a field of its own.
    all_discounts = sum(_cents(each, "discount") or 0 for each in (*jobs, estimate))
    discount = _cents(estimate, "discountTotal")
    discount = all_discounts if discount is None else discount
    named = sum(_cents(estimate, name) or 0 for name in ("shopSuppliesTotal", "epaTotal"))
    beside = max(0, named - (_own_fees(estimate, prices) or 0))
    tax = _cents(estimate, "taxes" if estimate.get("tax") is None else "tax")
    rate = _value(estimate, "taxRate", values.exact)
    # A rate below 1 may be meant as a fraction.
    per_cent = ANY_TAX if rate is None or 0 < rate < 1 else rate
    taxes = (0, (prices + fees) * per_cent / 100) if tax is None else (tax, tax)
    # Declined jobs and the order's own fees count or not, and any of them may be negative, as in a refund.
    optional = [_prices([job]) + _amount_of(job, "fees") + (_cents(job, "discount") or 0) for job in declined]
    least = prices - _positive(*optional) + fees - _positive(-own_fees) - max(discount, all_discounts) + min(taxes)
    most = prices + _positive(*(-each for each in optional)) + fees + _positive(own_fees) + beside - discount
    least, most = least - CENTS, most + max(taxes) + CENTS
    if total < least or (total > most and not estimate.get("sublets")):
        raise RefuseData("the jobs don't come to the estimate's total")


def _positive(*amounts: Decimal | int) -> Decimal | int:
    """Return the sum of those amounts that are above 0."""
    return sum(max(0, amount) for amount in amounts)


def _require_fees(estimate: Record, jobs: Sequence[Record]) -> None:
    """Raise RefuseData if the estimate's sum of fees is above the fees of its jobs and of its own list."""
    stated, listed = _cents(estimate, "feesTotal"), _own_fees(estimate, _prices(jobs))
    of_jobs = [
        _cents(job, "feePrice") if _sum_of_items(job, "fees") is None else _amount_of(job, "fees") for job in jobs
    ]
    if None in (stated, listed, *of_jobs):
        return
    if stated - sum(of_jobs) - listed > CENTS:
        raise RefuseData("the list of the order's own fees is missing or too short")


def _own_fees(estimate: Record, prices: Decimal | int) -> Decimal | int | None:
    """Return the highest sum of the order's own fees, None if a fee has no amount.

    A fee in per cent is at most that share of the prices of all jobs.
    """
    fees = estimate.get("fees")
    amounts = []
    for fee in objects(_object(fees), "data") if fees is not None else []:
        share, cap = _value(fee, "percentage", values.exact), _cents(fee, "cap")
        amount = prices * share / 100 if share else _cents(fee, "amount")
        amounts.append(max(-cap, min(amount, cap)) if amount is not None and share and cap and cap > 0 else amount)
    return None if None in amounts else sum(amounts)


def _prices(jobs: Sequence[Record]) -> Decimal | int:
    return sum(_amount_of(job, kind) for job in jobs for kind in ("parts", "labor", "sublets"))


def _amount_of(job: Record, kind: str) -> Decimal | int:
    """Return the job's amount for a kind of items; if it has none, their sum, or 0 if an item has no amount."""
    stated = _cents(job, ITEMS[kind])
    return (_sum_of_items(job, kind) or 0) if stated is None else stated


def _sum_of_items(job: Record, kind: str) -> Decimal | int | None:
    """Return the sum of the items of a kind, None if one has no amount."""
    amounts = [LINES[kind](item) for item in objects(job, kind)]
    return None if None in amounts else sum(amounts)


def _part(part: Record) -> Decimal | int | None:
    total, price = _cents(part, "total"), _cents(part, "retail")
    return price * _quantity(part) if total is None and price is not None else total


def _quantity(part: Record) -> Decimal | int:
    quantity = _value(part, "quantity", values.quantity)
    return quantity if quantity and quantity > 0 else 1


def _labor(line: Record) -> Decimal | int | None:
    total, rate, hours = _cents(line, "total"), _cents(line, "rate"), _value(line, "hours", values.hours)
    return rate * hours if total is None and None not in (rate, hours) else total


def _fee(fee: Record) -> int | None:
    total = _cents(fee, "total")
    return _cents(fee, "amount") if total is None else total


LINES: Mapping[str, Callable[[Record], Decimal | int | None]] = {
    "parts": _part,
    "labor": _labor,
    "sublets": lambda sublet: _cents(sublet, "retail"),
    "fees": _fee,
}


def _sum_of_hours(job: Record) -> Decimal | int:
    return sum(_value(line, "hours", values.hours) or 0 for line in objects(job, "labor"))


def _hours(job: Record) -> Decimal | int:
    stated = _value(job, "laborHours", values.hours)
    return _sum_of_hours(job) if stated is None else stated
