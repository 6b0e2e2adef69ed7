"""Square's orders, payments and refunds: lists within a window of times, the late ones read once more."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from include.api.list_answers import optional_rows
from include.api.paginators import Cursor
from include.api.request import Request
from include.sources.base import LeftOut
from include.sources.mirror.changes import Window
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Implies, Listed, Part
from include.sources.mirror.listing import Partitions
from include.sources.mirror.lookup_request import Lookup
from include.sources.square import tables
from include.sources.square.answers import all_are, lines_of
from include.sources.square.requests import Record, inside, own, post, time_text
from include.warehouse.table import Table, add

# Offline sales come up to 72 hours late, with the times of the till.
LATE = timedelta(hours=96)
# Before any payment or refund.
BEGINNING = "2009-01-01T00:00:00Z"


def _locations(context: MirrorContext) -> list[str]:
    """Return the ids of all locations in the copy. Closed ones have orders and payments too."""
    return [
        id_ for (id_,) in context.conn.execute("SELECT id FROM square.locations WHERE deleted_at IS NULL ORDER BY id")
    ]


def _of_order(name: str) -> Callable[[Record], list[Record]]:
    """Return the function that returns the objects of a list inside an order."""
    return lambda order: inside(order, name, "order_id", order.get("id"))


def _line_items(order: Record) -> list[Record]:
    """Return the line items of an order, each with its place in the list under `position`, from 1."""
    lines = inside({"line_items": lines_of(order)}, "line_items", "order_id", order.get("id"))
    return [add(line, position=place) for place, line in enumerate(lines, start=1)]


def _fulfillments(order: Record) -> list[Record]:
    """Return the fulfillments of an order, each with the details of its type under `details` in place of their name.

    One that has a field `details` already keeps all its names.
    """
    return [_with_details(row) for row in _of_order("fulfillments")(order)]


def _with_details(fulfillment: Record) -> Record:
    if "details" in fulfillment:
        return fulfillment
    name = f"{str(fulfillment.get('type')).lower()}_details"
    return {**{field: value for field, value in fulfillment.items() if field != name}, "details": fulfillment.get(name)}


def _orders(field: str, between: Record | None = None) -> Record:
    """Return the query for orders sorted by `field`, within the bounds `between` if there are any."""
    # All states are named: the vendor does not say which ones the default leaves out.
    wanted: dict[str, Any] = {"state_filter": {"states": ["OPEN", "COMPLETED", "CANCELED", "DRAFT"]}}
    if between:
        wanted["date_time_filter"] = {field: between}
    # Ascending, or pages would miss orders that change while the list is read. The API wants the filter's field.
    return {"filter": wanted, "sort": {"sort_field": field.upper(), "sort_order": "ASC"}}


def _orders_between(listing: Request, field: str, start: datetime, end: datetime) -> Request:
    between = {"start_at": time_text(start), "end_at": time_text(end)}
    return replace(listing, body={**listing.body, "query": _orders(field, between)})


ORDERS = Listed(
    table=tables.ORDERS,
    listing=post("/v2/orders/search", {"limit": 1000, "query": _orders("created_at")}),
    paginator=Cursor(rows="orders", in_body=True, optional=True),
    lookup=Lookup(
        request=lambda ids: post("/v2/orders/batch-retrieve", {"order_ids": [id_ for (id_,) in ids]}),
        rows=lambda data: optional_rows(data, "orders"),
        own=False,
        batch=100,
        witness=own("/v2/orders", "order"),
    ),
    changes=Window(
        lambda listing, start, end: _orders_between(listing, "updated_at", start, end),
        late=lambda listing, start, end: _orders_between(listing, "created_at", start - LATE, end),
    ),
    partitions=Partitions(
        _locations,
        lambda listing, places: replace(
            listing,
            body={**listing.body, "location_ids": list(places)},
            check=all_are("orders", "location_id", places),
        ),
        column="location_id",
        listed_by="locations",
        size=10,
    ),
    leaves_out=LeftOut({"orders of locations that are not named": "location_ids", "perhaps drafts": "states"}),
    parts=(
        Part(tables.ORDER_LINE_ITEMS, _line_items, by=("order_id",)),
        Part(tables.ORDER_FULFILLMENTS, _fulfillments, by=("order_id",)),
        Part(tables.ORDER_RETURNS, _of_order("returns"), by=("order_id",)),
        Part(tables.TENDERS, _of_order("tenders"), by=("order_id",)),
        Part(tables.TRANSACTIONS, lambda order: [order], by=("id",)),
    ),
)


def _money_moved(table: Table, resource: str, singular: str, leaves_out: Mapping[str, str], **more: Any) -> Listed:
    """Return the entity for payments or refunds.

    They may first come without a status or a fee, so young ones are read once more (`late`).
    """
    return Listed(
        table=table,
        listing=Request(f"/v2/{resource}", {"begin_time": BEGINNING, "sort_order": "ASC", "limit": 100}),
        paginator=Cursor(rows=resource, optional=True),
        lookup=own(f"/v2/{resource}", singular),
        changes=Window(_changed_between, late=_created_between),
        leaves_out=LeftOut({f"{resource} older than a year": "begin_time", **leaves_out}),
        **more,
    )


def _changed_between(listing: Request, start: datetime, end: datetime) -> Request:
    between = {"updated_at_begin_time": time_text(start), "updated_at_end_time": time_text(end)}
    return replace(listing, params={**listing.params, **between, "sort_field": "UPDATED_AT"})


def _created_between(listing: Request, start: datetime, end: datetime) -> Request:
    between = {"begin_time": time_text(start - LATE), "end_time": time_text(end)}
    return replace(listing, params={**listing.params, **between})


PAYMENTS = _money_moved(
    tables.PAYMENTS,
    "payments",
    "payment",
    {
        "payments of other locations than the main one": "location_id",
        "perhaps payments taken offline": "is_offline_payment",
    },
    partitions=Partitions(
        _locations,
        lambda listing, place: replace(
            listing,
            params={**listing.params, "location_id": place[0]},
            check=all_are("payments", "location_id", place),
        ),
        column="location_id",
        listed_by="locations",
    ),
    implies=(Implies("orders", ("order_id",)),),
    # Two lists, since `is_offline_payment` is false by default, and may leave out payments that were taken offline.
    views=({}, {"is_offline_payment": "true"}),
)

ORDER_REFUNDS = _money_moved(
    tables.ORDER_REFUNDS,
    "refunds",
    "refund",
    {},
    implies=(
        Implies("locations", ("location_id",)),
        Implies("payments", ("payment_id",)),
        Implies("orders", ("order_id",)),
    ),
)
