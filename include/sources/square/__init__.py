"""Square: cursors, versions and tombstones, mirrored in schema `square`.

The lists have different filters for changes: the catalog and the counts since a time; orders, payments and refunds
within a window of times; locations and vendors none, so they are read as a whole. Only the catalog deletes objects, and
shows tombstones: `is_deleted` is the vendor's mark, `deleted_at` is ours. An archived item is not deleted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from include.api.errors import RefuseData
from include.api.list_answers import optional_rows
from include.api.paginators import FRESH, Crawl, Cursor, Page, Position
from include.api.request import Answer, Request
from include.confidence.policy import Trend
from include.sources.base import NOTHING, LeftOut
from include.sources.mirror.changes import FullList, Since, Window
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Cascade, Implies, Listed, Part
from include.sources.mirror.listing import Partitions
from include.sources.mirror.lookup import names
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.source import Mirror
from include.sources.mirror.validate import with_invariants
from include.sources.square import tables
from include.sources.square.answers import Check, all_are, all_of, has, lines_of, some
from include.sources.square.checks import CHECKS
from include.sources.square.derived import DERIVED
from include.warehouse.table import Table, add

# The version of the API whose shapes the tables follow.
API_VERSION = "2025-10-16"
# Offline sales come up to 72 hours late, with the times of the till.
LATE = timedelta(hours=96)
# Before any payment or refund.
BEGINNING = "2009-01-01T00:00:00Z"

Record = Mapping[str, Any]


def _post(path: str, body: Record, check: Check | None = None) -> Request:
    """Return a POST that only reads, so it may be sent again."""
    return Request(path, method="POST", body=body, check=check)


def _own(path: str, singular: str) -> Lookup:
    """Return the look-up of a record at its own address, which answers 404 if there is none."""
    return Lookup(
        request=lambda id_: Request(f"{path}/{quote(id_, safe='')}", check=names(id_, singular, "id")),
        rows=lambda data: [data[singular]],
    )


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


DELETED = LeftOut({"deleted objects": "include_deleted_objects"})


def _catalog(table: Table, kind: str, *, leaves_out: LeftOut = DELETED, **more: Any) -> Listed:
    listing = {"object_types": [kind], "include_deleted_objects": True, "limit": 1000}
    of_kind = all_are("objects", "type", [kind])
    return Listed(
        table=table,
        listing=_post("/v2/catalog/search", listing, all_of(of_kind, has("latest_time"))),
        paginator=Cursor(rows="objects", in_body=True, optional=True, as_of="latest_time"),
        lookup=Lookup(
            request=lambda ids: _post(
                "/v2/catalog/batch-retrieve",
                {"object_ids": [id_ for (id_,) in ids], "include_deleted_objects": True},
                of_kind,
            ),
            rows=lambda data: optional_rows(data, "objects"),
            own=False,
            batch=1000,
            witness=replace(CATALOG_OBJECT, rows=_alive),
        ),
        changes=Since("begin_time", in_body=True),
        leaves_out=leaves_out,
        **more,
    )


CATALOG_OBJECT = _own("/v2/catalog/object", "object")


def _alive(data: Record) -> list[Record]:
    """Return [the object] of an answer at its own address, [] for a tombstone."""
    return [] if data["object"].get("is_deleted") else [data["object"]]


def _inside(record: Record, name: str, by: str, id_: Any) -> list[Record]:
    """Return the objects of the list `name` in a record, each with the record's id in column `by`.

    The vendor leaves out empty lists. Raises RefuseData for anything but a list of objects.
    """
    rows = record.get(name)
    if rows is None:
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RefuseData(f"{name!r} of {by} {id_} is no list of objects. See whether the API has changed")
    return [add(row, **{by: id_}) for row in rows]


def _vendor_infos(variation: Record) -> list[Record]:
    """Return the vendor infos of a variation, none if it is deleted, even if its tombstone still shows them."""
    data = variation.get("item_variation_data")
    # If the data are no object, the variation's own row is refused.
    if variation.get("is_deleted") or not isinstance(data, dict):
        return []
    return _inside(data, "item_variation_vendor_infos", "variation_id", variation.get("id"))


COUNTS = Cursor(rows="counts", in_body=True, optional=True)


@dataclass(frozen=True)
class CountsLikeListed(Cursor):
    """The pages of an address that shows all counts of a variation, without those that the lists leave out.

    The lists leave out counts that Square estimates from components, and the counts in other states than `states` if
    it names any.
    """

    states: Sequence[str] = ()

    def read(self, answer: Answer, position: Position, crawl: Crawl = FRESH) -> Page:
        page = super().read(answer, position, crawl)
        return replace(page, rows=[count for count in page.rows if self._is_listed(count)])

    def _is_listed(self, count: Record) -> bool:
        return not count.get("is_estimated") and (not self.states or count.get("state") in self.states)


ESTIMATED = {"counts that are estimated from components": "they follow from the counts of the components"}


def _counts(table: Table, by: str, states: Sequence[str], **more: Any) -> Listed:
    """Return the entity for counts in these states, in all states if none are named."""
    path, body = "/v2/inventory/counts/batch-retrieve", {"limit": 1000, **({"states": states} if states else {})}
    in_states = all_are("counts", "state", states) if states else None

    return Listed(
        table=table,
        listing=_post(path, body, in_states),
        paginator=COUNTS,
        lookup=Lookup(
            by=(by,),
            request=lambda ids: _post(path, {**body, "catalog_object_ids": [id_ for (id_,) in ids]}, in_states),
            rows=lambda data: optional_rows(data, "counts", ["cursor"]),
            own=False,
            batch=100,
            paginator=COUNTS,
            witness=Lookup(
                by=(by,),
                request=lambda id_: Request(f"/v2/inventory/{quote(id_, safe='')}"),
                rows=lambda data: optional_rows(data, "counts", ["cursor"]),
                paginator=CountsLikeListed(rows="counts", optional=True, states=tuple(states)),
            ),
        ),
        changes=Since("updated_after", in_body=True),
        **more,
    )


def _locations(context: MirrorContext) -> list[str]:
    """Return the ids of all locations in the copy. Closed ones have orders and payments too."""
    return [
        id_ for (id_,) in context.conn.execute("SELECT id FROM square.locations WHERE deleted_at IS NULL ORDER BY id")
    ]


def _of_order(name: str) -> Callable[[Record], list[Record]]:
    """Return the function that returns the objects of a list inside an order."""
    return lambda order: _inside(order, name, "order_id", order.get("id"))


def _line_items(order: Record) -> list[Record]:
    """Return the line items of an order, each with its place in the list under `position`, from 1."""
    lines = _inside({"line_items": lines_of(order)}, "line_items", "order_id", order.get("id"))
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
    between = {"start_at": _time(start), "end_at": _time(end)}
    return replace(listing, body={**listing.body, "query": _orders(field, between)})


ORDERS = Listed(
    table=tables.ORDERS,
    listing=_post("/v2/orders/search", {"limit": 1000, "query": _orders("created_at")}),
    paginator=Cursor(rows="orders", in_body=True, optional=True),
    lookup=Lookup(
        request=lambda ids: _post("/v2/orders/batch-retrieve", {"order_ids": [id_ for (id_,) in ids]}),
        rows=lambda data: optional_rows(data, "orders"),
        own=False,
        batch=100,
        witness=_own("/v2/orders", "order"),
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
        lookup=_own(f"/v2/{resource}", singular),
        changes=Window(_changed_between, late=_created_between),
        leaves_out=LeftOut({f"{resource} older than a year": "begin_time", **leaves_out}),
        **more,
    )


def _changed_between(listing: Request, start: datetime, end: datetime) -> Request:
    between = {"updated_at_begin_time": _time(start), "updated_at_end_time": _time(end)}
    return replace(listing, params={**listing.params, **between, "sort_field": "UPDATED_AT"})


def _created_between(listing: Request, start: datetime, end: datetime) -> Request:
    between = {"begin_time": _time(start - LATE), "end_time": _time(end)}
    return replace(listing, params={**listing.params, **between})


ENTITIES = (
    Listed(
        table=tables.LOCATIONS,
        listing=Request("/v2/locations", check=some("locations")),
        paginator=Cursor(rows="locations"),
        lookup=_own("/v2/locations", "location"),
        changes=FullList(),
        # Closed ones are listed too.
        leaves_out=NOTHING,
    ),
    Listed(
        table=tables.VENDORS,
        listing=_post(
            "/v2/vendors/search",
            {"filter": {"status": ["ACTIVE", "INACTIVE"]}, "sort": {"field": "CREATED_AT", "order": "ASC"}},
        ),
        paginator=Cursor(rows="vendors", in_body=True, optional=True),
        lookup=_own("/v2/vendors", "vendor"),
        changes=FullList(),
        leaves_out=LeftOut({"perhaps inactive vendors": "status"}),
    ),
    _catalog(
        tables.CATALOG_CATEGORIES,
        "CATEGORY",
        leaves_out=LeftOut(
            DELETED.asked_for,
            {
                "a category's `path_to_root`": "the vendor refuses to show it together with deleted objects;"
                " `parent_category_id` leads along the same path"
            },
        ),
    ),
    _catalog(tables.CATALOG_ITEMS, "ITEM"),
    _catalog(
        tables.CATALOG_VARIATIONS,
        "ITEM_VARIATION",
        parts=(Part(tables.CATALOG_VENDOR_INFO, _vendor_infos, by=("variation_id",)),),
        # The tombstone of an item is not always followed by those of its variations, but deletes them too.
        cascade=Cascade(
            "t.is_deleted IS NOT TRUE AND t.item_id IN"
            " (SELECT id FROM square.catalog_items WHERE is_deleted OR deleted_at IS NOT NULL)",
            entity="catalog_items",
            by=("item_id",),
            alive=lambda item: not item.get("is_deleted"),
        ),
    ),
    _counts(
        tables.CATALOG_INVENTORY,
        "variation_id",
        ["IN_STOCK"],
        implies=(Implies("locations", ("location_id",)),),
        leaves_out=LeftOut(missing={"counts in other states": "they are rows of inventory_counts", **ESTIMATED}),
    ),
    # The list shows only the newest counts. Older ones in the copy are history, and never surplus.
    _counts(
        tables.INVENTORY_COUNTS,
        "catalog_object_id",
        [],
        history=True,
        ended="t.catalog_object_id IN (SELECT id FROM square.catalog_variations"
        " WHERE is_deleted OR deleted_at IS NOT NULL)",
        implies=(
            Implies("catalog_inventory", ("catalog_object_id", "location_id"), "t.state = 'IN_STOCK'"),
            Implies("locations", ("location_id",)),
        ),
        leaves_out=LeftOut(
            missing={"older counts": "the list shows the newest ones; the copy keeps what it has seen", **ESTIMATED}
        ),
        gates=(Trend("api_unique_not_in_db"), Trend("rows_differing")),
    ),
    ORDERS,
    _money_moved(
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
    ),
    _money_moved(
        tables.ORDER_REFUNDS,
        "refunds",
        "refund",
        {},
        implies=(
            Implies("locations", ("location_id",)),
            Implies("payments", ("payment_id",)),
            Implies("orders", ("order_id",)),
        ),
    ),
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
