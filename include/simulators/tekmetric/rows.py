"""Orders and people as each endpoint shows them, with the vendor's names and noise."""

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from include.simulators.tekmetric import arithmetic
from include.simulators.tekmetric.arithmetic import Sums, job_sums, margin_of
from include.simulators.tekmetric.noise import Noise
from include.simulators.tekmetric.orders import STATUSES, Fee, Job, Labor, Order, Part, Sublet
from include.simulators.tekmetric.people import Row
from include.simulators.tekmetric.store import Store


def board_row(store: Store, order: Order) -> Row:
    """An order on a board: neither customer nor vehicle, and its number under either of two names."""
    noise = store.noise(f"board {order.id}")
    sums, agreed = arithmetic.potential(order), arithmetic.authorized(order)
    return {
        "id": order.id,
        "roNumber" if order.id % 4 == 0 else "repairOrderNumber": order.number,
        "repairOrderStatus": _status(order),
        "total": noise.cents(sums.total),
        "subtotal": noise.unless(0.5, noise.cents(sums.retail)),
        "authorizedTotal": noise.cents(agreed.total),
        "amountPaid": noise.cents(order.paid),
        **_dates(order),
    }


def head(store: Store, order: Order) -> Row:
    """An order without its jobs."""
    noise = store.noise(f"head {order.id}")
    return {
        "id": order.id,
        "repairOrderNumber": order.number,
        "shopId": order.shop_id,
        "repairOrderStatus": _status(order),
        "repairOrderLabel": {"id": 12, "name": "Waiting"} if order.id % 9 == 0 else None,
        "customer": _brief_customer(store, order),
        "vehicle": _brief_vehicle(store, order, noise),
        "serviceWriter": _writer(store, order),
        "jobs": None,
        "amountPaid": noise.cents(order.paid),
        "balanceDue": noise.cents(arithmetic.authorized(order).total - order.paid),
        "promisedDate": order.completed if order.id % 3 == 0 else None,
        "droppedOffDate": order.created,
        "pickedUpDate": order.posted,
        "notes": None,
        "milesIn": 20_000 + order.id % 90_000,
        "milesOut": 20_003 + order.id % 90_000 if order.posted else None,
        "keytag": f"K-{order.id % 40}" if order.id % 3 else None,
        **_dates(order),
    }


def estimate(store: Store, order: Order) -> Row:
    """An order with its jobs and all that is in them; its sums are those of all jobs, authorized or not."""
    noise = store.noise(f"estimate {order.id}")
    sums, agreed = arithmetic.potential(order), arithmetic.authorized(order)
    named = {
        word: sum(arithmetic.fee_amount(fee, sums.base) for fee in order.fees if word in fee.name)
        for word in ("supplies", "Environmental")
    }
    return {
        "id": order.id,
        "repairOrderNumber": order.number,
        "total": noise.cents(sums.total),
        "subtotal": noise.unless(0.6, noise.cents(sums.retail)),
        "tax": noise.unless(0.7, noise.cents(sums.tax)),
        "taxes": noise.cents(sums.tax),
        "taxRate": noise.decimal(order.tax_rate),
        "authorizedTotal": noise.cents(agreed.total),
        "feesTotal": noise.cents(sums.fees + sums.order_fees),
        "discountTotal": noise.cents(sums.discounts + sums.order_discount),
        "discount": noise.cents(order.discount),
        "shopSuppliesTotal": noise.cents(named["supplies"]),
        "epaTotal": noise.cents(named["Environmental"]),
        "balanceDue": noise.cents(agreed.total - order.paid),
        "fees": {"data": [_order_fee(noise, fee) for fee in order.fees]},
        "customer": _brief_customer(store, order),
        "vehicle": _brief_vehicle(store, order, noise),
        "serviceWriter": _writer(store, order),
        "jobs": [_job(store, noise, order, place, job) for place, job in enumerate(order.jobs)],
    }


def profit(store: Store, order: Order) -> Row:
    """What the authorized jobs earn; of labor line by line, of parts, sublets and fees only in the total.

    If there are none, the answer is at times empty: what the vendor says then is not known.
    """
    if not any(job.authorized for job in order.jobs) and store.noise(f"no profit {order.id}").unless(0.3, True) is None:
        return {}
    noise = store.noise(f"profit {order.id}")
    sums = arithmetic.authorized(order)
    lines = [line for job in order.jobs if job.authorized for line in job.labor]
    return {
        "labor": [
            {
                "name": line.name,
                "rate": noise.cents(line.rate),
                "hours": noise.decimal(line.hours),
                "jobTechnician": _job_technician(store, noise, line),
                **_profit(noise, arithmetic.labor_retail(line), arithmetic.labor_cost(line)),
            }
            for line in lines
        ],
        "laborProfit": {"hours": noise.decimal(sums.hours), **_profit(noise, sums.labor, sums.labor_cost)},
        "totalProfit": _profit(noise, sums.retail, sums.cost),
    }


def report_row(store: Store, order: Order) -> Row:
    """A posted order in the report, with the day of its shop."""
    noise = store.noise(f"report {order.id}")
    sums = arithmetic.authorized(order)
    zone = ZoneInfo(store.shops[order.shop_id].timezone)
    return {
        "repairOrderId": order.id,
        "repairOrderNumber": order.number,
        "shopId": order.shop_id,
        "customerId": order.customer_id,
        "vehicleId": order.vehicle_id,
        "serviceWriterId": order.writer_id,
        "postedDate": datetime.fromisoformat(order.posted).astimezone(zone).isoformat(),
        "totalRetail": noise.cents(sums.retail),
        "totalCost": noise.cents(sums.cost),
        "totalProfit": noise.cents(sums.profit),
        "totalProfitMargin": noise.share(sums.margin),
        "laborProfit": noise.cents(sums.labor - sums.labor_cost),
        "partsTotalProfit": noise.cents(sums.parts - sums.parts_cost),
        "subletProfit": noise.cents(sums.sublets - sums.sublets_cost),
        "feesProfit": noise.cents(sums.fees + sums.order_fees),
    }


def vehicle(store: Store, row: Row, view: str) -> Row:
    """A vehicle; make, model and the like with their ids or without."""
    noise = store.noise(f"{view} {row['id']}")
    return row | {name: noise.named(row[name]) for name in ("make", "model", "subModel", "engine")}


def employee(store: Store, row: Row) -> Row:
    """An employee in detail."""
    noise = store.noise(f"employee {row['id']}")
    return row | {"hourlyRate": noise.cents(row["hourlyRate"]), "salary": noise.cents(row["salary"])}


def employee_lite(row: Row) -> Row:
    """An employee in the list: nothing about pay and rights."""
    kept = ("id", "firstName", "lastName", "email", "employeeRole", "disabled", "deactivated")
    return {name: row[name] for name in kept} | {"fullName": _full_name(row)}


def _dates(order: Order) -> Row:
    return {
        "createdDate": order.created,
        "updatedDate": order.updated,
        "postedDate": order.posted,
        "completedDate": order.completed,
    }


def _status(order: Order) -> Row:
    return {"id": order.status, "code": STATUSES.get(order.status, "OTHER")}


def _brief_customer(store: Store, order: Order) -> Row | None:
    row = store.rows["customers"].get(order.customer_id)
    return row and {name: row[name] for name in ("id", "firstName", "lastName")}


def _brief_vehicle(store: Store, order: Order, noise: Noise) -> Row | None:
    row = store.rows["vehicles"].get(order.vehicle_id)
    return row and {
        "id": row["id"],
        "year": row["year"],
        "make": noise.named(row["make"]),
        "model": noise.named(row["model"]),
    }


def _writer(store: Store, order: Order) -> Row | None:
    row = store.rows["employees"].get(order.writer_id)
    return row and _person(row)


def _person(row: Row) -> Row:
    return {name: row[name] for name in ("id", "firstName", "lastName")} | {"fullName": _full_name(row)}


def _full_name(row: Row) -> str:
    return f"{row['firstName']} {row['lastName']}"


def _job(store: Store, noise: Noise, order: Order, place: int, job: Job) -> Row:
    sums = job_sums(job, order.tax_rate)
    return {
        "id": job.id,
        "name": job.name,
        "authorized": job.authorized,
        "authorizedDate": job.authorized_date,
        "declined": job.declined,
        "total": noise.cents(sums.total),
        "subTotal": noise.unless(0.3, noise.cents(sums.retail)),
        "discount": noise.cents(job.discount),
        "tax": noise.unless(0.3, noise.cents(sums.tax)),
        "partsPrice": noise.cents(sums.parts),
        "partsCost": noise.cents(sums.parts_cost),
        "laborPrice": noise.cents(sums.labor),
        "laborHours": noise.decimal(sums.hours),
        "subletPrice": noise.cents(sums.sublets),
        "subletCost": noise.cents(sums.sublets_cost),
        "feePrice": noise.cents(sums.fees),
        "grossProfitAmount": noise.cents(sums.profit),
        "grossProfitPercentage": noise.share(sums.margin),
        "partsTaxTotal": noise.cents(sums.parts_tax),
        "laborTaxTotal": noise.cents(sums.labor_tax),
        "feesTaxTotal": noise.cents(sums.fees_tax),
        "jobCategory": job.category and {"id": 5, "name": job.category},
        "cannedJobId": None,
        "sortOrder": place,
        "parts": [_part(noise, part) for part in job.parts],
        "labor": [_labor(store, noise, line) for line in job.labor],
        "sublets": [_sublet(noise, sublet) for sublet in job.sublets],
        "fees": [_job_fee(noise, fee, sums) for fee in job.fees],
    }


def _part(noise: Noise, part: Part) -> Row:
    retail, cost = arithmetic.part_retail(part), arithmetic.part_cost(part)
    return _identity(part.id) | {
        "name": part.name,
        "brand": part.brand,
        "partNumber": part.part_number,
        "quantity": noise.decimal(part.quantity),
        "retail": noise.cents(retail if part.per_line else part.retail),
        "cost": noise.cents(cost if part.per_line else part.cost),
        "total": noise.cents(retail) if part.per_line else noise.unless(0.1, _exact(part.quantity * part.retail)),
        "coreCharge": noise.cents(part.core_charge),
        "vendorId": part.vendor_id,
        "ordered": True,
        "received": part.received,
        "backordered": not part.received,
    }


def _labor(store: Store, noise: Noise, line: Labor) -> Row:
    row = store.rows["employees"].get(line.technician_id)
    return _identity(line.id) | {
        "name": line.name,
        "hours": noise.decimal(line.hours),
        "rate": noise.cents(line.rate),
        "total": _exact(line.hours * line.rate),
        "technician": row and _person(row) | {"hourlyRate": noise.cents(line.hourly_rate)},
        "laborType": "STANDARD",
        "skillLevel": None,
    }


def _sublet(noise: Noise, sublet: Sublet) -> Row:
    return _identity(sublet.id) | {
        "name": sublet.name,
        "cost": noise.cents(sublet.cost),
        "retail": noise.cents(sublet.retail),
        "vendor": sublet.vendor,
        "invoiceNumber": sublet.invoice_number,
        "poNumber": sublet.po_number,
    }


def _order_fee(noise: Noise, fee: Fee) -> Row:
    return {
        "name": fee.name,
        "percentage": fee.percentage and noise.decimal(fee.percentage),
        "cap": noise.cents(fee.cap),
        "amount": noise.cents(fee.amount) if fee.percentage is None else None,
        "taxable": fee.taxable,
    }


def _job_fee(noise: Noise, fee: Fee, sums: Sums) -> Row:
    return _order_fee(noise, fee) | {"total": noise.cents(arithmetic.fee_amount(fee, sums.base))}


def _identity(item_id: int | None) -> Row:
    """Items without an id lack the field."""
    return {} if item_id is None else {"id": item_id}


def _exact(cents: Decimal) -> float:
    """An amount that nobody rounded, as the vendor's floating point has it."""
    return float(cents)


def _job_technician(store: Store, noise: Noise, line: Labor) -> Row | None:
    row = store.rows["employees"].get(line.technician_id)
    return row and {"accountFullName": _full_name(row), "hourlyRate": noise.cents(line.hourly_rate)}


def _profit(noise: Noise, retail: int, cost: int) -> Row:
    return {
        "retail": noise.cents(retail),
        "cost": noise.cents(cost),
        "profit": noise.cents(retail - cost),
        "margin": noise.share(margin_of(retail - cost, retail)),
    }
