"""Repair orders: each is put together from three answers.

Each order is looked up: its head (dates, status, people), its estimate (jobs and their items) and its profit (what the
authorized jobs earn). An order is deleted if its head says so; or if head, estimate and profit all answer 404, twice,
and no list shows the order. A 404 of the head alone proves nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from include.api.errors import RefuseData
from include.api.request import Request
from include.sources.base import LeftOut
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Discovered, Need, Part
from include.sources.mirror.lookup_request import Lookup
from include.sources.tekmetric import answers, tables, values
from include.sources.tekmetric.lists import SHOWN, contradiction, day_of, lists, partial, within
from include.sources.tekmetric.shops import partitions, shops_of
from include.warehouse.known_fields import Known
from include.warehouse.table import add

Record = Mapping[str, Any]

# By id, since the vendor has several words for a status.
STATUSES = {1: "ESTIMATE", 2: "WORKINPROGRESS", 3: "COMPLETE", 4: "SAVED", 5: "POSTED", 6: "ACCRECV"}
# The sums of jobs: our names and the vendor's.
OF_JOBS = {
    "total": "total",
    "subtotal": "subTotal",
    "tax": "tax",
    "discount": "discount",
    "parts_total": "partsPrice",
    "labor_total": "laborPrice",
    "sublet_total": "subletPrice",
    "fees_total": "feePrice",
}
# Sums that the vendor often leaves out, and how to compute them.
MADE_OF = {
    "subTotal": {"partsPrice": 1, "laborPrice": 1, "subletPrice": 1, "feePrice": 1, "discount": -1},
    "tax": {"partsTaxTotal": 1, "laborTaxTotal": 1, "feesTaxTotal": 1},
}
# The fields of an order in its answers: our columns, and the paths in the vendor's names.
HEAD = {
    "tm_customer_id": "customer.id",
    "tm_vehicle_id": "vehicle.id",
    "tm_service_advisor_id": "serviceWriter.id",
    "created_date": "createdDate",
    "updated_date": "updatedDate",
    "promised_date": "promisedDate",
    "dropped_off_date": "droppedOffDate",
    "picked_up_date": "pickedUpDate",
    "posted_at": "postedDate",
    "completed_at": "completedDate",
    "amount_paid": "amountPaid",
    "label": "repairOrderLabel.name",
    "label_id": "repairOrderLabel.id",
    "notes": "notes",
}
# The estimate's own sums include what belongs to no job.
ESTIMATE = {
    "potential_total": "total",
    "potential_subtotal": "subtotal",
    "potential_discount": "discountTotal",
    "potential_fees_total": "feesTotal",
    "order_discount": "discount",
    "discount_total": "discountTotal",
    "fees_total": "feesTotal",
    "shop_supplies_total": "shopSuppliesTotal",
    "epa_total": "epaTotal",
    "tax_rate": "taxRate",
    "balance_due": "balanceDue",
}
PROFIT = {
    "authorized_revenue": "totalProfit.retail",
    "authorized_cost": "totalProfit.cost",
    "authorized_profit": "totalProfit.profit",
    "margin": "totalProfit.margin",
    "authorized_labor_revenue": "laborProfit.retail",
    "authorized_labor_cost": "laborProfit.cost",
    "authorized_labor_profit": "laborProfit.profit",
    "authorized_labor_hours": "laborProfit.hours",
}
# The fields of the answers that are read; the others come into `extra`.
HEAD_READ = Known.of([], [*HEAD.values(), "id", "repairOrderNumber", "roNumber", "repairOrderStatus.id"])
ESTIMATE_READ = Known.of([], [*ESTIMATE.values(), "tax", "jobs", "fees.data"])
PROFIT_READ = Known.of([], PROFIT.values())


def record(head: Record, estimate: Record | None, profit: Record | None) -> list[Record]:
    """Return [the order with its jobs, as the tables need it], or [] if the head says that it is deleted.

    Fields that the answers leave out are missing in the order too. Raises RefuseData if the answers are of no order, of
    different orders, or of different states of one; and if the head is there, but not the estimate, or not the profit
    of authorized jobs.
    """
    if not isinstance(head, dict) or not tables.identifier(head.get("id")):
        raise RefuseData("the head names no order")
    if answers.is_deleted(head):
        return []
    if estimate is None:
        raise RefuseData("the order is there, but its estimate was not found. Run the task again later")
    answers.estimate(tables.identifier(head["id"]))(estimate)
    profit = answers.profit_of(estimate, profit)
    answers.profit(profit)
    answers.agree(head, estimate, profit)
    try:
        return [_record(head, estimate, profit)]
    except ValueError as error:
        raise RefuseData(f"an amount or a decision of a job {error}") from None


def _record(head: Record, estimate: Record, profit: Record) -> Record:
    jobs = [_job(job) for job in answers.objects(estimate, "jobs")]
    agreed = [job for job in jobs if values.decided(job.get("authorized"))]
    status_id = answers.status_of(head)
    return {
        "tm_id": head["id"],
        "ro_number": answers.number_of(head),
        "status": STATUSES.get(status_id, "UNKNOWN"),
        "status_id": status_id,
        **_sums("potential", jobs, {name: OF_JOBS[name] for name in ("parts_total", "labor_total", "sublet_total")}),
        **_sums("authorized", agreed, OF_JOBS),
        **_fields(head, HEAD),
        **_fields(estimate, ESTIMATE),
        # Either of two fields has the tax; the other may be null.
        **_fields(estimate, {"potential_tax": "taxes" if estimate.get("tax") is None else "tax"}),
        **_fields(profit, PROFIT),
        "jobs": jobs,
        "fees": _lines(answers.objects(_object(estimate, "fees"), "data")),
        "head": HEAD_READ.rest(head),
        "estimate": ESTIMATE_READ.rest(estimate),
        "profit": PROFIT_READ.rest(profit),
    }


def _fields(answer: Record, fields: Mapping[str, str]) -> Record:
    """Return the values of these fields (column -> path in the vendor's names) that the answer has."""
    found = {}
    for column, path in fields.items():
        outer, _, name = path.rpartition(".")
        inner = _object(answer, outer) if outer else answer
        if name in inner:
            found[column] = inner[name]
        elif outer in answer and answer[outer] is None:
            found[column] = None
    return found


def _sums(kind: str, jobs: list[Record], fields: Mapping[str, str]) -> Record:
    """Return number and sums of the jobs as columns `<kind>_...`. Raises ValueError for an amount that is none."""
    sums = {f"{kind}_{name}": sum(_amount(job, field) for job in jobs) for name, field in fields.items()}
    return {f"{kind}_job_count": len(jobs), **sums}


def _amount(job: Record, field: str) -> int:
    """Return the amount of a job in that field; if the vendor leaves it out, computed from other fields, or 0."""
    amount = values.cents(job.get(field))
    if amount is None:
        return sum(sign * _amount(job, each) for each, sign in MADE_OF.get(field, {}).items())
    return amount


def _job(job: Record) -> Record:
    """Return a job whose items have a `line`, which identifies them in the job."""
    return {**job, **{kind: _lines(answers.objects(job, kind)) for kind in answers.ITEMS}}


def _lines(items: list[Record]) -> list[Record]:
    """Return the items with their `line`: the vendor's id, or the name and a number among those of that name."""
    turns: Counter[str] = Counter()
    lines = []
    for item in items:
        line = item.get("id")
        if not line:
            name = str(item.get("name") or "")
            turns[name] += 1
            line = f"{name}#{turns[name]}"
        lines.append(add(item, line=str(line)))
    return lines


def _object(record: Record, name: str) -> Record:
    """Return the object of that name, empty if there is none. Raises RefuseData for anything else."""
    value = record.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RefuseData(f"{name!r} is no object")
    return value


def _local(context: MirrorContext, order: Record) -> Record:
    """Return the order with the days of posting and completion in the shop's time zone."""
    shop = shops_of(context)[int(order["shop_id"])]
    moments = {"posted_date": "posted_at", "completed_date": "completed_at"}
    return {**order, **{day: day_of(shop, order[moment]) for day, moment in moments.items() if moment in order}}


def _of_order(order: Record) -> Record:
    return {"shop_id": order["shop_id"], "tm_repair_order_id": order["tm_id"]}


def _jobs(order: Record) -> Iterator[Record]:
    return (add(job, **_of_order(order)) for job in order["jobs"])


def _items(name: str) -> Callable[[Record], Iterator[Record]]:
    return lambda order: (
        add(item, **_of_order(order), tm_job_id=job.get("id")) for job in order["jobs"] for item in job[name]
    )


def _fees(order: Record) -> Iterator[Record]:
    """Yield the fees of the jobs, and those of the order itself as of job 0."""
    yield from _items("fees")(order)
    yield from (add(fee, **_of_order(order), tm_job_id=0) for fee in order["fees"])


OF_ORDER = ("shop_id", "tm_repair_order_id")
REPAIR_ORDERS = Discovered(
    table=tables.REPAIR_ORDERS,
    lookup=Lookup(
        by=("shop_id", "tm_id"),
        request=lambda shop_id, id_: Request(f"/shop/{shop_id}/repair-order/{id_}", check=answers.head(shop_id, id_)),
        beside=(
            lambda shop_id, id_: Request(f"/repair-order/{id_}/estimate", check=answers.estimate(id_)),
            lambda shop_id, id_: Request(f"/repair-order/{id_}/profit/labor", check=answers.profit),
        ),
        rows=record,
        finish=_local,
    ),
    lists=lists,
    shown=SHOWN,
    contradiction=contradiction,
    within=within,
    partial=partial,
    limit=lambda context: context.params.get("limit", 0),
    partitions=partitions(lambda listing, shop_id: listing),
    leaves_out=LeftOut(
        {
            "orders that are done": "board",
            "orders in work that their board shows in columns only": "view",
            "posted orders that have left the boards": "start",
        },
        {
            "orders saved for later, or deleted": "no list shows them. One that the copy has is looked up at its own"
            " address",
            "orders posted or changed longer ago than the param `days_back`": "a run with 0 reads all posted ones",
        },
    ),
    parts=(
        Part(tables.JOBS, _jobs, by=OF_ORDER),
        Part(tables.JOB_PARTS, _items("parts"), by=OF_ORDER),
        Part(tables.JOB_LABOR, _items("labor"), by=OF_ORDER),
        Part(tables.JOB_SUBLETS, _items("sublets"), by=OF_ORDER),
        Part(tables.JOB_FEES, _fees, by=OF_ORDER),
    ),
    needs=(
        Need("employees", ("shop_id", "tm_service_advisor_id")),
        Need("customers", ("shop_id", "tm_customer_id")),
        Need("vehicles", ("shop_id", "tm_vehicle_id")),
    ),
)
