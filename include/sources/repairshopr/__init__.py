"""RepairShopr: a REST API with page numbers, mirrored in schema `repairshopr`.

Lists change while they are read, a deleted record leaves no trace but a 404, and only invoices and tickets have a
filter for changes. So a scan of a list only names suspects, and a narrow request decides.

Each list is asked for all records. `leaves_out` says what that takes; all other lists are complete without their
filters (`paid`, `status`, `mine` and the like).
"""

from datetime import timedelta

from include.api.paginators import PageNumber
from include.api.request import Request
from include.sources.base import NOTHING, LeftOut
from include.sources.mirror.changes import BothEnds, Since
from include.sources.mirror.entity import Child, Listed
from include.sources.mirror.lookup import names
from include.sources.mirror.lookup_request import Inside, Lookup, OtherName
from include.sources.mirror.source import Mirror
from include.sources.repairshopr import tables
from include.sources.repairshopr.checks import LINE_ITEM_GATES, METRICS, line_item_forensics
from include.warehouse.table import Table

NEWEST_FIRST = {"sort": "updated_at DESC"}


def _listed(
    table: Table,
    singular: str,
    changes: Since | BothEnds,
    params: dict[str, str] | None = None,
    *,
    leaves_out: LeftOut = NOTHING,
    other_name: OtherName | None = None,
) -> Listed:
    return Listed(
        table=table,
        listing=Request(f"/{table.name}", params or {}),
        paginator=PageNumber(rows=table.name),
        lookup=Lookup(
            request=lambda id_: Request(f"/{table.name}/{id_}", check=names(id_, singular, "id")),
            rows=lambda data: [data[singular]],
            other_name=other_name,
        ),
        changes=changes,
        leaves_out=leaves_out,
    )


# The address of an invoice takes its number too, which may be the id of another.
NUMBER = OtherName(tables.INVOICES, "number", lambda data: data["invoice"])
LINES = PageNumber(rows="line_items")
# A list without a line does not prove that the line is gone. The whole invoice does: it holds all its lines.
INVOICE = Lookup(
    by=("invoice_id",),
    request=lambda id_: Request(f"/invoices/{id_}", check=names(id_, "invoice", "id")),
    rows=lambda data: data["invoice"]["line_items"],
    inside=Inside(tables.INVOICES, lambda data: data["invoice"]),
    other_name=NUMBER,
)

SOURCE = Mirror(
    name="repairshopr",
    base_path="/api/v1",
    authorize=lambda token: {"Authorization": f"Bearer {token}"},
    per_minute=180,
    every=timedelta(minutes=15),
    entities=(
        _listed(
            tables.CUSTOMERS,
            "customer",
            BothEnds(),
            {**NEWEST_FIRST, "include_disabled": "true"},
            leaves_out=LeftOut({"disabled customers": "include_disabled"}),
        ),
        _listed(tables.INVOICES, "invoice", Since("since_updated_at"), other_name=NUMBER),
        Child(
            table=tables.LINE_ITEMS,
            listing=Request("/line_items", {"invoice_id_not_null": "true"}),
            paginator=LINES,
            lookup=Lookup(
                by=("invoice_id",),
                request=lambda id_: Request("/line_items", {"invoice_id": id_}),
                rows=lambda data: data["line_items"],
                paginator=LINES,
                own=False,
                witness=INVOICE,
            ),
            parent="invoices",
            leaves_out=LeftOut(
                missing={"lines of estimates": "they are not mirrored, so the list is asked for others"}
            ),
            gates=LINE_ITEM_GATES,
            forensics=line_item_forensics,
        ),
        _listed(tables.PAYMENTS, "payment", BothEnds()),
        _listed(
            tables.PRODUCTS,
            "product",
            BothEnds(),
            NEWEST_FIRST,
            leaves_out=LeftOut(
                missing={
                    "disabled products, if the account's list hides them": "no parameter is known that asks for them."
                    " One that the copy has is looked up at its own address, and stays"
                }
            ),
        ),
        _listed(tables.TICKETS, "ticket", Since("since_updated_at")),
        _listed(tables.ESTIMATES, "estimate", BothEnds()),
    ),
    own_metrics=METRICS,
    enumerations={"tickets": ("status",), "estimates": ("status",), "payments": ("payment_method",)},
)
