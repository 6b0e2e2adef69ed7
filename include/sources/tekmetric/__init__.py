"""Tekmetric: lists that show orders in brief, orders that take three answers each, mirrored in schema `tekmetric`.

The API is the one behind the vendor's web pages: no other shows what an order earns. The connection names the
shops. The lists of customers, vehicles and employees are long and have no filter for changes, so they are read once a
day. In between, a record is looked up if an order names it and the copy lacks it.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from include.api.paginators import Single, SpringPage
from include.api.request import Request
from include.confidence.health import Limits
from include.sources.base import NOTHING, LeftOut, ReadAnswer
from include.sources.mirror.changes import FullList
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Discovered, Listed
from include.sources.mirror.listing import Listing
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.validate import with_invariants
from include.sources.tekmetric import answers, tables
from include.sources.tekmetric.checks import CHECKS
from include.sources.tekmetric.derived import DERIVED
from include.sources.tekmetric.lists import IN_BRIEF
from include.sources.tekmetric.orders import REPAIR_ORDERS
from include.sources.tekmetric.shops import partitions
from include.sources.tekmetric.source import Tekmetric
from include.warehouse.table import Table

DAILY = timedelta(days=1)


# Fields of each kind of record. An answer without any of them is not a record.
FIELDS = {
    "customer": ("firstName", "lastName", "companyName"),
    "vehicle": ("customerId", "year", "make", "model", "vin"),
    "employee": ("firstName", "lastName"),
}
# What people call the shop of a planned change.
SHOP_NAME = "(SELECT s.name FROM tekmetric.shops s WHERE s.tm_id::text = coalesce(p.after, p.before) ->> 'shop_id')"
# The page size of the list of employees, which has no other pages.
EMPLOYEES_AT_MOST = 500


def _listed(table: Table, singular: str) -> Listed:
    """Return the entity for customers or vehicles, whose list shows the whole records."""

    def of_shop(listing: Request, shop_id: str) -> Request:
        return replace(listing, path=f"/shop/{shop_id}{listing.path}", check=answers.of_shop(int(shop_id)))

    return Listed(
        table=table,
        listing=Request(f"/{singular}", {"size": 100}),
        paginator=SpringPage(),
        lookup=_lookup(singular),
        changes=FullList(every=DAILY),
        partitions=partitions(of_shop),
        leaves_out=NOTHING,
    )


def _lookup(singular: str) -> Lookup:
    """Return the look-up of a record at its own address in its shop."""
    return Lookup(
        by=("shop_id", "tm_id"),
        request=lambda shop_id, id_: Request(
            f"/shop/{shop_id}/{singular}/{id_}", check=answers.record(shop_id, FIELDS[singular])
        ),
        rows=lambda data: [data],
    )


def _employees(context: MirrorContext, shop_id: str, since: Any) -> list[Listing]:
    """Return the request for a shop's employees. This list shows neither pay nor rights."""
    request = Request(
        f"/shop/{shop_id}/employees-lite",
        {"status": "ALL", "size": EMPLOYEES_AT_MOST},
        check=answers.whole(int(shop_id), EMPLOYEES_AT_MOST),
    )
    return [Listing(request, Single(), shop_id, {"shop_id": int(shop_id)})]


# The list shows nothing that tells whether an employee has changed.
NAMED = tables.EMPLOYEES.in_brief(*tables.OF_SHOP)
EMPLOYEE_IN_BRIEF = ReadAnswer(
    "a row of the list of employees",
    read={"id": "the employee, who is looked up", "shopId": "the row is of the shop that was asked for"},
    ignored=dict.fromkeys(
        ("firstName", "lastName", "fullName", "email", "employeeRole", "disabled", "deactivated"),
        "the employee's own address shows it",
    ),
    rest="each employee is read in full at the own address",
)
EMPLOYEES = Discovered(
    table=tables.EMPLOYEES,
    lookup=_lookup("employee"),
    lists=_employees,
    shown=NAMED,
    read_every=DAILY,
    partitions=partitions(lambda listing, shop_id: listing),
    leaves_out=LeftOut({"inactive employees": "status"}),
)

ENTITIES = (EMPLOYEES, _listed(tables.CUSTOMERS, "customer"), _listed(tables.VEHICLES, "vehicle"), REPAIR_ORDERS)

SOURCE = Tekmetric(
    name="tekmetric",
    base_path="/api",
    authorize=lambda token: {"x-auth-token": token},
    # The vendor names no limit for these pages; five a second is what other clients are known to keep to.
    per_minute=300,
    every=timedelta(minutes=10),
    lookback=timedelta(minutes=25),
    entities=tuple(with_invariants(entity, CHECKS) for entity in ENTITIES),
    derived=DERIVED,
    checks=CHECKS,
    enumerations={"job_labor": ("laborType",)},
    planned_name=SHOP_NAME,
    in_brief=(*IN_BRIEF, EMPLOYEE_IN_BRIEF),
    health=Limits(rarely={entity.name: DAILY for entity in ENTITIES if entity.read_every == DAILY}),
)
