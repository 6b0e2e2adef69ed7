"""The vendor's own SDK reads from the simulator what our mirror reads: neither of the two can please the other only."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import psycopg
import pytest
from square import Square

from include.simulators.square import Mutation
from include.sources.mirror.sync import sync_entities

from .square import Seller, rows, selling

BEGINNING = "2009-01-01T00:00:00Z"


@pytest.fixture
def synced(conn: psycopg.Connection) -> Iterator[Seller]:
    """A small seller with a tombstone, a refund and a late sale, and its mirror."""
    with selling(conn, orders=60, items=12, variations=15, vendors=3) as seller:
        payment = seller.control.row("payments", seller.control.ids("payments")[0])
        seller.control.mutate(
            Mutation("delete", "items", seller.control.ids("items")[0]),
            Mutation("create", "orders", fields={"created_at": "2026-01-03T10:00:00Z"}),
            Mutation("refund", "payments", payment["id"], {"amount": 1}),
        )
        sync_entities(seller.context)
        yield seller


@pytest.fixture
def sdk(synced: Seller) -> Square:
    return Square(token=synced.simulator.token, base_url=synced.simulator.url)


def cents(money: Any) -> int | None:
    return money.amount if money else None


def all_pages(search: Any, name: str, **query: Any) -> Iterator[Any]:
    """The objects of every page of a search, which the SDK leaves to its caller."""
    cursor = None
    while True:
        page = search(**query, **({"cursor": cursor} if cursor else {}))
        yield from getattr(page, name) or ()
        cursor = page.cursor
        if not cursor:
            return


def test_locations_and_vendors(conn, sdk):
    read = {place.id: (place.name, place.status) for place in sdk.locations.list().locations}
    assert {id_: (row["name"], row["status"]) for id_, row in rows(conn, "locations").items()} == read
    read = {
        vendor.id: (vendor.name, vendor.version)
        for vendor in all_pages(sdk.vendors.search, "vendors", filter={"status": ["ACTIVE", "INACTIVE"]})
    }
    assert {id_: (row["name"], row["version"]) for id_, row in rows(conn, "vendors").items()} == read


@pytest.mark.parametrize(
    ("table", "kind"),
    [("catalog_categories", "CATEGORY"), ("catalog_items", "ITEM"), ("catalog_variations", "ITEM_VARIATION")],
)
def test_catalog_with_its_tombstones(conn, sdk, table, kind):
    search = all_pages(sdk.catalog.search, "objects", object_types=[kind], include_deleted_objects=True, limit=10)
    read = {found.id: (found.version, bool(found.is_deleted)) for found in search}
    # Variations fall with their item here, whatever becomes of them there.
    mirrored = rows(conn, table, live=False)
    assert {id_: (row["version"], bool(row["is_deleted"])) for id_, row in mirrored.items()} == read
    assert len(read) > 2


def test_inventory(conn, sdk):
    read = {
        (count.catalog_object_id, count.location_id): count.quantity
        for count in sdk.inventory.batch_get_counts(states=["IN_STOCK"])
    }
    mirrored = {key: row["quantity"] for key, row in rows(conn, "catalog_inventory").items()}
    assert {key: float(quantity) for key, quantity in mirrored.items()} == {k: float(q) for k, q in read.items()}
    assert read


def test_orders_with_their_lines_and_tenders(conn, sdk):
    places = [place.id for place in sdk.locations.list().locations]
    states = {"state_filter": {"states": ["OPEN", "COMPLETED", "CANCELED", "DRAFT"]}}
    orders = [
        order
        for place in places
        for order in all_pages(sdk.orders.search, "orders", location_ids=[place], limit=20, query={"filter": states})
    ]
    mirrored = rows(conn, "orders")
    read = {order.id: (order.state, order.version, cents(order.total_money)) for order in orders}
    assert {id_: (row["state"], row["version"], row["total_money"]) for id_, row in mirrored.items()} == read
    lines = {(o.id, line.uid): (line.name, cents(line.total_money)) for o in orders for line in o.line_items or ()}
    found = {key: (row["name"], row["total_money"]) for key, row in rows(conn, "order_line_items").items()}
    assert found == lines
    tenders = {tender.id: cents(tender.amount_money) for o in orders for tender in o.tenders or ()}
    assert {id_: row["amount_money"] for id_, row in rows(conn, "tenders").items()} == tenders
    assert len(read) > 60


def test_payments_and_refunds(conn, sdk):
    places = [place.id for place in sdk.locations.list().locations]
    payments = chain.from_iterable(sdk.payments.list(location_id=id_, begin_time=BEGINNING) for id_ in places)
    read = {payment.id: (payment.status, payment.order_id, cents(payment.amount_money)) for payment in payments}
    found = {id_: (row["status"], row["order_id"], row["amount_money"]) for id_, row in rows(conn, "payments").items()}
    assert found == read
    read = {
        refund.id: (refund.payment_id, cents(refund.amount_money)) for refund in sdk.refunds.list(begin_time=BEGINNING)
    }
    found = {id_: (row["payment_id"], row["amount_money"]) for id_, row in rows(conn, "order_refunds").items()}
    assert found == read
    assert read
