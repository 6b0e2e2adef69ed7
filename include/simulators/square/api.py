"""The vendor's API over one seller: each endpoint as status and body."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from include.simulators.square import lies, lists
from include.simulators.square.assortment import Row
from include.simulators.square.cursors import Place
from include.simulators.square.faults import Fault
from include.simulators.square.parameters import (
    CatalogBatch,
    CatalogList,
    CatalogObject,
    CatalogSearch,
    Counts,
    Listing,
    OrderBatch,
    OrderSearch,
    OwnCounts,
    Parameters,
    PaymentList,
    RefundList,
    VendorBatch,
    VendorSearch,
)
from include.simulators.square.protocol import Answer, Call, Refused, error, error_of, ok
from include.simulators.square.seller import Seller

_LISTS: Mapping[str, tuple[type[Listing], Callable[[Seller, Any, Place], lists.Page]]] = {
    "GET catalog/list": (CatalogList, lists.catalog_list),
    "POST catalog/search": (CatalogSearch, lists.catalog_search),
    "POST inventory/counts/batch-retrieve": (Counts, lists.counts),
    "POST inventory/batch-retrieve-counts": (Counts, lists.counts),
    "GET inventory/{id}": (OwnCounts, lists.own_counts),
    "POST vendors/search": (VendorSearch, lists.vendors),
    "POST orders/search": (OrderSearch, lists.orders),
    "GET payments": (PaymentList, lists.payments),
    "GET refunds": (RefundList, lists.refunds),
}


def page_number(seller: Seller, call: Call) -> int | None:
    """The how-manieth page of its crawl a request asks for; None where there are none, or its cursor is bad."""
    if call.name not in _LISTS:
        return None
    try:
        asked = _asked(call, _LISTS[call.name][0])
        return seller.cursors.open(_query(call, asked), asked.cursor, seller.config.cursor_seconds).page
    except Refused:
        return None


def answer(seller: Seller, call: Call, fault: Fault | None) -> Answer:
    """Carry out a request that was let through; `fault` spoils what it reads."""
    try:
        if call.name in _LISTS:
            return _listed(seller, call, fault)
        if call.name in _SINGLE:
            content = _SINGLE[call.name](seller, call)
            return ok(lies.told(seller.store, content, fault) if fault else content)
        if call.endpoint in _PLAIN:
            raise Refused("METHOD_NOT_ALLOWED", f"{call.method} isn't a method of this endpoint.")
        raise Refused("NOT_FOUND", "The requested resource could not be found.")
    except Refused as refused:
        return error(refused)


def _listed(seller: Seller, call: Call, fault: Fault | None) -> Answer:
    kind, make = _LISTS[call.name]
    asked = _asked(call, kind)
    query = _query(call, asked)
    place = seller.cursors.open(query, asked.cursor, seller.config.cursor_seconds)
    page = make(seller, asked, place)
    if fault and fault.kind == "empty_page":
        again = seller.cursors.issue(query, Place(place.page + 1, place.behind, page.pin))
        return ok({"cursor": again, **{name: value for name, value in page.more.items() if name == "latest_time"}})
    cursor = None if page.behind is None else seller.cursors.issue(query, Place(place.page + 1, page.behind, page.pin))
    content = {page.key: list(page.rows), **page.more, "cursor": cursor}
    whole = ok(lies.told(seller.store, content, fault) if fault else content)
    seller.served(call.endpoint, place.page)
    return whole


def _asked(call: Call, kind: type[Listing]) -> Any:
    asked = call.read(kind)
    return msgspec.structs.replace(asked, catalog_object_id=call.item) if kind is OwnCounts else asked


def _query(call: Call, asked: Listing) -> bytes:
    """What a cursor is good for: the request without it."""
    return call.name.encode() + msgspec.json.encode(msgspec.structs.replace(asked, cursor=None))


def _locations(seller: Seller, call: Call) -> Row:
    call.read(Parameters)
    return {"locations": sorted(seller.store.locations.values(), key=lambda row: row["name"])}


def _location(seller: Seller, call: Call) -> Row:
    wanted = seller.store.main_location if call.item == "main" else call.item
    return {"location": _require_row(seller.store.locations.get(wanted), "Location", call.item)}


def _catalog_info(seller: Seller, call: Call) -> Row:
    return {
        "limits": {
            "batch_upsert_max_objects_per_batch": 1_000,
            "batch_upsert_max_total_objects": 10_000,
            "batch_retrieve_max_object_ids": 1_000,
            "search_max_page_limit": 1_000,
            "batch_delete_max_object_ids": 200,
        }
    }


def _object(seller: Seller, call: Call) -> Row:
    asked = call.read(CatalogObject)
    lists.unsupported(asked, "catalog_version", "include_category_path_to_root")
    row = seller.store.catalog.now(call.item)
    if row and row["is_deleted"] and seller.config.deleted_object == "not_found":
        row = None
    row = _require_row(row, "Catalog object", call.item)
    return {"object": row} | _related(seller, [row], asked.include_related_objects)


def _objects(seller: Seller, call: Call) -> Row:
    """Objects by their ids; ids that don't exist are ignored."""
    asked = call.read(CatalogBatch)
    lists.unsupported(asked, "catalog_version", "include_category_path_to_root")
    rows = [row for row_id in dict.fromkeys(asked.object_ids) if (row := seller.store.catalog.now(row_id))]
    rows = [row for row in rows if asked.include_deleted_objects or not row["is_deleted"]]
    return {"objects": rows} | _related(seller, rows, asked.include_related_objects)


def _related(seller: Seller, rows: Sequence[Row], wanted: bool) -> Row:
    catalog = seller.store.catalog
    return {"related_objects": catalog.related(rows, catalog.latest)} if wanted else {}


def _vendor(seller: Seller, call: Call) -> Row:
    return {"vendor": _require_row(seller.store.vendors.get(call.item), "Vendor", call.item)}


def _vendors(seller: Seller, call: Call) -> Row:
    """An answer for each id, of which each may be an error."""

    def one(vendor_id: str) -> Row:
        vendor = seller.store.vendors.get(vendor_id)
        return {"vendor": vendor} if vendor else {"errors": [error_of(_missing("Vendor", vendor_id))]}

    return {"responses": {vendor_id: one(vendor_id) for vendor_id in call.read(VendorBatch).vendor_ids}}


def _order(seller: Seller, call: Call) -> Row:
    return {"order": _require_row(seller.store.row("orders", call.item), "Order", call.item)}


def _orders(seller: Seller, call: Call) -> Row:
    """Orders by their ids; ids that don't exist are ignored."""
    asked = call.read(OrderBatch)
    rows = [row for row_id in dict.fromkeys(asked.order_ids) if (row := seller.store.row("orders", row_id))]
    return {"orders": [row for row in rows if asked.location_id in (None, row["location_id"])]}


def _payment(seller: Seller, call: Call) -> Row:
    return {"payment": _require_row(seller.store.row("payments", call.item), "Payment", call.item)}


def _refund(seller: Seller, call: Call) -> Row:
    return {"refund": _require_row(seller.store.row("refunds", call.item), "Refund", call.item)}


def _require_row(row: Row | None, what: str, row_id: str) -> Row:
    """Return the row. Raises the vendor's 404 if there is none."""
    if row is None:
        raise _missing(what, row_id)
    return row


def _missing(what: str, row_id: str) -> Refused:
    return Refused("NOT_FOUND", f"{what} not found for id {row_id}.")


_SINGLE: Mapping[str, Callable[[Seller, Call], Row]] = {
    "GET locations": _locations,
    "GET locations/{id}": _location,
    "GET catalog/info": _catalog_info,
    "GET catalog/object/{id}": _object,
    "POST catalog/batch-retrieve": _objects,
    "GET vendors/{id}": _vendor,
    "POST vendors/bulk-retrieve": _vendors,
    "GET orders/{id}": _order,
    "POST orders/batch-retrieve": _orders,
    "GET payments/{id}": _payment,
    "GET refunds/{id}": _refund,
}
_PLAIN = frozenset(name.partition(" ")[2] for name in (*_LISTS, *_SINGLE))
_LAST = re.compile(r"(?P<before>.*)/(?P<item>[^/]+)")


def endpoint_of(path: str) -> tuple[str, str]:
    """The endpoint that a path below /v2 means, and the id in it, or ''."""
    if path in _PLAIN:
        return path, ""
    match = _LAST.fullmatch(path)
    if match and f"{match['before']}/{{id}}" in _PLAIN:
        return f"{match['before']}/{{id}}", match["item"]
    return path, ""
