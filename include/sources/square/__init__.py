"""Square: cursors, versions and tombstones, mirrored in schema `square`.

The lists have different filters for changes: the catalog and the counts since a time; orders, payments and refunds
within a window of times; locations and vendors none, so they are read as a whole. Only the catalog deletes objects, and
shows tombstones: `is_deleted` is the vendor's mark, `deleted_at` is ours. An archived item is not deleted.
"""

from datetime import timedelta

from include.api.paginators import Cursor
from include.api.request import Request
from include.sources.base import NOTHING, LeftOut
from include.sources.mirror.changes import FullList
from include.sources.mirror.entity import Listed
from include.sources.mirror.source import Mirror
from include.sources.mirror.validate import with_invariants
from include.sources.square import tables
from include.sources.square.answers import some
from include.sources.square.catalog import CATALOG
from include.sources.square.checks import CHECKS
from include.sources.square.derived import DERIVED
from include.sources.square.orders import ORDER_REFUNDS, ORDERS, PAYMENTS
from include.sources.square.requests import own, post

# The version of the API whose shapes the tables follow.
API_VERSION = "2025-10-16"

ENTITIES = (
    Listed(
        table=tables.LOCATIONS,
        listing=Request("/v2/locations", check=some("locations")),
        paginator=Cursor(rows="locations"),
        lookup=own("/v2/locations", "location"),
        changes=FullList(),
        # Closed ones are listed too.
        leaves_out=NOTHING,
    ),
    Listed(
        table=tables.VENDORS,
        listing=post(
            "/v2/vendors/search",
            {"filter": {"status": ["ACTIVE", "INACTIVE"]}, "sort": {"field": "CREATED_AT", "order": "ASC"}},
        ),
        paginator=Cursor(rows="vendors", in_body=True, optional=True),
        lookup=own("/v2/vendors", "vendor"),
        changes=FullList(),
        leaves_out=LeftOut({"perhaps inactive vendors": "status"}),
    ),
    *CATALOG,
    ORDERS,
    PAYMENTS,
    ORDER_REFUNDS,
)

SOURCE = Mirror(
    name="square",
    base_path="",
    authorize=lambda token: {"Authorization": f"Bearer {token}", "Square-Version": API_VERSION},
    per_minute=100,
    every=timedelta(minutes=30),
    lookback=timedelta(minutes=45),
    entities=tuple(with_invariants(entity, CHECKS) for entity in ENTITIES),
    derived=DERIVED,
    checks=CHECKS,
    enumerations={
        "locations": ("status", "type"),
        "vendors": ("status",),
        "catalog_categories": ("category_data.category_type",),
        "catalog_items": ("item_data.product_type",),
        "catalog_variations": ("item_variation_data.pricing_type",),
        "catalog_inventory": ("state",),
        "inventory_counts": ("state", "catalog_object_type"),
        "orders": ("state",),
        "order_line_items": ("item_type",),
        "order_fulfillments": ("type", "state"),
        "tenders": ("type",),
        "payments": ("status", "source_type"),
        "order_refunds": ("status",),
    },
)
