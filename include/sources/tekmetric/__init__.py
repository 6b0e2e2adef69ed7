"""Tekmetric: boards that show little, orders that take three answers to be whole, mirrored in schema `tekmetric`.

The internal API of the vendor's web pages, since only that tells what an order earns. Its shops are those that the
connection names. Customers, vehicles and employees have no filter for changes and are many: their lists are read once a
day, and in between those are asked for by themselves that an order names and the copy lacks.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from include.api.client import Request
from include.api.paginators import Single, SpringPage
from include.confidence.health import Limits
from include.sources.mirror.changes import FullList
from include.sources.mirror.entity import Context, Discovered, Listed, Listing, Lookup
from include.sources.mirror.validate import with_invariants
from include.sources.tekmetric import answers, tables
from include.sources.tekmetric.checks import CHECKS
from include.sources.tekmetric.metrics import DERIVED
from include.sources.tekmetric.orders import REPAIR_ORDERS
from include.sources.tekmetric.shops import partitions
from include.sources.tekmetric.source import Tekmetric
from include.warehouse.table import Table

DAILY = timedelta(days=1)


# Of each kind of record some of the fields that tell one from a mere message.
FIELDS = {
    "customer": ("firstName", "lastName", "companyName"),
    "vehicle": ("customerId", "year", "make", "model", "vin"),
    "employee": ("firstName", "lastName"),
}
# The most employees that the list is asked for at once.
EMPLOYEES_AT_MOST = 500


def _listed(table: Table, singular: str) -> Listed:
    """Customers or vehicles, whose list shows them whole."""

    def of_shop(listing: Request, shop_id: str) -> Request:
        return replace(listing, path=f"/shop/{shop_id}{listing.path}", check=answers.of_shop(int(shop_id)))

    return Listed(
        table=table,
        listing=Request(f"/{singular}", {"size": 100}),
        paginator=SpringPage(),
        lookup=_lookup(singular),
        changes=FullList(every=DAILY),
        partitions=partitions(of_shop),
    )


def _lookup(singular: str) -> Lookup:
    return Lookup(
        by=("shop_id", "tm_id"),
        request=lambda shop_id, id_: Request(
            f"/shop/{shop_id}/{singular}/{id_}", check=answers.record(shop_id, FIELDS[singular])
        ),
        rows=lambda data: [data],
    )


def _employees(context: Context, shop_id: str, since: Any) -> list[Listing]:
    """Their list tells neither pay nor rights."""
    request = Request(
        f"/shop/{shop_id}/employees-lite",
        {"status": "ALL", "size": EMPLOYEES_AT_MOST},
        check=answers.whole(int(shop_id), EMPLOYEES_AT_MOST),
    )
    return [Listing(request, Single(), shop_id, {"shop_id": int(shop_id)})]


# Of an employee the list shows nothing that tells of a change.
NAMED = Table(tables.SCHEMA, "employees", tables.EMPLOYEES.columns[:2], key=tables.EMPLOYEES.key, version=None)
EMPLOYEES = Discovered(
    table=tables.EMPLOYEES,
    lookup=_lookup("employee"),
    lists=_employees,
    shown=NAMED,
    read_every=DAILY,
    partitions=partitions(lambda listing, shop_id: listing),
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
    health=Limits(rarely={entity.name: DAILY for entity in ENTITIES if entity.read_every == DAILY}),
)
