"""The endpoints that answer in pages: filters, order and cursor of each query."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from include.simulators.square.assortment import STATES, Row
from include.simulators.square.catalog import DATA, TOP_LEVEL
from include.simulators.square.clock import instant, microseconds
from include.simulators.square.cursors import Place
from include.simulators.square.parameters import (
    CatalogList,
    CatalogSearch,
    Counts,
    Listing,
    MoneyList,
    OrderSearch,
    OwnCounts,
    PaymentList,
    RefundList,
    VendorSearch,
)
from include.simulators.square.protocol import Refused
from include.simulators.square.seller import Seller
from include.simulators.square.table import Table

_YEAR = 365 * 86_400_000
_FOREVER = 1 << 41  # milliseconds: the year 2039, the last that fits a key
_CATALOG_PAGE, _VENDOR_PAGE, _MONEY_PAGE, _COUNTS_PAGE = 100, 100, 100, 100
_UNTRACKED = {"NONE", "SOLD", "UNLINKED_RETURN"}
_OTHERS = (
    "IMAGE MODIFIER_LIST MODIFIER PRICING_RULE PRODUCT_SET TIME_PERIOD ITEM_OPTION ITEM_OPTION_VAL "
    "CUSTOM_ATTRIBUTE_DEFINITION QUICK_AMOUNTS_SETTINGS SUBSCRIPTION_PLAN SUBSCRIPTION_PLAN_VARIATION "
    "AVAILABILITY_PERIOD"
)
_TYPES = frozenset((*DATA, *_OTHERS.split()))  # of which this seller's catalog has those with data


@dataclass(frozen=True)
class Page:
    """The `rows` of a page, the place behind it (None: it is the last) and what else the answer has, by its key."""

    key: str
    rows: Sequence[Row]
    behind: int | None
    pin: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def instant_of(text: str, field_name: str) -> int:
    """Microseconds of an instant in a request. Raises Refused for what is none."""
    try:
        return microseconds(text)
    except ValueError:
        raise Refused("INVALID_TIME", "Not a valid RFC 3339 timestamp.", field_name) from None


def unsupported(parameters: Listing, *names: str) -> None:
    """Raises Refused where a request has what the vendor knows and this simulator doesn't."""
    for name in names:
        if getattr(parameters, name) is not None:
            raise Refused("NOT_IMPLEMENTED", "The simulator doesn't know this parameter.", name)


def catalog_list(seller: Seller, asked: CatalogList, place: Place) -> Page:
    """GET /v2/catalog/list: never what is deleted."""
    unsupported(asked, "catalog_version")
    types = asked.types.upper().replace(" ", "").split(",") if asked.types else TOP_LEVEL
    return _objects(seller, _known_types(types, "types"), place, _CATALOG_PAGE)


def catalog_search(seller: Seller, asked: CatalogSearch, place: Place) -> Page:
    """POST /v2/catalog/search."""
    unsupported(asked, "query")
    if asked.include_deleted_objects and asked.include_category_path_to_root:
        raise Refused(
            "CONFLICTING_PARAMETERS", "Deleted objects have no path to root.", "include_category_path_to_root"
        )
    if asked.include_category_path_to_root:
        raise Refused("NOT_IMPLEMENTED", "The simulator knows no path to root.", "include_category_path_to_root")
    after = instant_of(asked.begin_time, "begin_time") // 1_000 if asked.begin_time else -1
    types = _known_types(asked.object_types or TOP_LEVEL, "object_types")
    limit = asked.limit if 1 <= asked.limit <= 1_000 else 1_000
    page = _objects(seller, types, place, limit, after, deleted=asked.include_deleted_objects)
    more = {"latest_time": instant(page.pin)}
    if asked.include_related_objects:
        more["related_objects"] = seller.store.catalog.related(page.rows, page.pin)
    return Page(page.key, page.rows, page.behind, page.pin, more)


def _known_types(types: Sequence[str], name: str) -> Sequence[str]:
    if unknown := [kind for kind in types if kind not in _TYPES]:
        raise Refused("INVALID_ENUM_VALUE", f"`{unknown[0]}` is not a valid object type.", name)
    return types


def _objects(
    seller: Seller, types: Sequence[str], place: Place, limit: int, after: int = -1, *, deleted: bool = False
) -> Page:
    catalog = seller.store.catalog
    pin = catalog.latest if place.pin is None else place.pin
    ids = catalog.select(types, pin, after, deleted=deleted)
    start = place.behind or 0
    behind = start + limit if start + limit < len(ids) else None
    rows = [row for row_id in ids[start : start + limit] if (row := catalog.at(row_id, pin))]
    return Page("objects", rows, behind, pin)


def counts(seller: Seller, asked: Counts, place: Place) -> Page:
    """POST /v2/inventory/counts/batch-retrieve: newest first."""
    table = seller.store.counts
    after = instant_of(asked.updated_after, "updated_after") // 1_000 if asked.updated_after else 0
    states = set(asked.states or ()) - _UNTRACKED
    objects = set(asked.catalog_object_ids or ())

    def wanted(row: Row) -> bool:
        return (not states or row["state"] in states) and (not objects or row["catalog_object_id"] in objects)

    walk = table.walk(
        "calculated_at",
        asked.location_ids or table.places(),
        after + 1,
        _FOREVER,
        after=place.behind,
        newest_first=True,
    )
    rows = ((key, row) for key, number in walk if wanted(row := table.row(number)))
    return _page("counts", rows, asked.limit)


def own_counts(seller: Seller, asked: OwnCounts, place: Place) -> Page:
    """GET /v2/inventory/{id}: of one object, in the order of its places."""
    states = ["IN_STOCK"] if seller.config.own_counts == "in_stock" else list(STATES)
    places = asked.location_ids.split(",") if asked.location_ids else sorted(seller.store.locations)
    named = (f"{asked.catalog_object_id}:{each}:{state}" for each in places for state in states)
    rows = [row for row_id in named if (row := seller.store.row("counts", row_id))]
    if not rows and seller.config.uncounted == "not_found":
        raise Refused("NOT_FOUND", f"Catalog object not found for id {asked.catalog_object_id}.")
    start, end = place.behind or 0, (place.behind or 0) + _COUNTS_PAGE
    return Page("counts", rows[start:end], end if end < len(rows) else None)


def vendors(seller: Seller, asked: VendorSearch, place: Place) -> Page:
    """POST /v2/vendors/search."""
    names, statuses = asked.filter.name, asked.filter.status
    rows = [
        row
        for row in seller.store.vendors.values()
        if (not names or row["name"] in names) and (not statuses or row["status"] in statuses)
    ]
    field_name = asked.sort.field.lower()
    rows.sort(key=lambda row: (row[field_name], row["id"]), reverse=asked.sort.order == "DESC")
    start, end = place.behind or 0, (place.behind or 0) + _VENDOR_PAGE
    return Page("vendors", rows[start:end], end if end < len(rows) else None)


def orders(seller: Seller, asked: OrderSearch, place: Place) -> Page:
    """POST /v2/orders/search."""
    wanted = asked.query.filter
    unsupported(wanted, "fulfillment_filter", "source_filter", "customer_filter")
    _known_places(seller, asked.location_ids, "location_ids")
    field_name = asked.query.sort.sort_field.lower()
    pin = seller.clock.now() if place.pin is None else place.pin
    low, high = 0, _FOREVER
    if wanted.date_time_filter:
        low, high = _window(wanted.date_time_filter, field_name, pin)
    table = seller.store.orders
    walk = table.walk(
        field_name,
        asked.location_ids,
        low,
        high,
        after=place.behind,
        newest_first=asked.query.sort.sort_order == "DESC",
    )
    rows = ((key, table.row(number)) for key, number in walk)
    if wanted.state_filter:
        states = frozenset(wanted.state_filter.states)
        rows = ((key, row) for key, row in rows if row["state"] in states)
    page = _page("orders", rows, asked.limit, pin)
    if not asked.return_entries:
        return page
    entries = [
        {"order_id": row["id"]} | {name: row[name] for name in ("version", "location_id") if name in row}
        for row in page.rows
    ]
    return Page("order_entries", entries, page.behind, page.pin)


def _window(ranges: Any, sort_field: str, now: int) -> tuple[int, int]:
    given = {name: getattr(ranges, name) for name in ("created_at", "updated_at", "closed_at")}
    given = {name: value for name, value in given.items() if value}
    path = "query.filter.date_time_filter"
    if len(given) != 1:
        raise Refused("CONFLICTING_PARAMETERS", "Filter by exactly one of created_at, updated_at, closed_at.", path)
    (name, asked), *_ = given.items()
    if name != sort_field:
        raise Refused("BAD_REQUEST", f"sort_field must be {name.upper()}, as in the filter.", "query.sort.sort_field")
    return _bounds(asked.start_at, asked.end_at, f"{path}.{name}.start_at", f"{path}.{name}.end_at", 0, now)


def _bounds(
    start: str | None, end: str | None, start_name: str, end_name: str, usual_start: int, usual_end: int
) -> tuple[int, int]:
    """A window in milliseconds, both ends in it. Raises Refused where it ends before it starts."""
    low = -(-instant_of(start, start_name) // 1_000) if start else usual_start
    high = instant_of(end, end_name) // 1_000 if end else usual_end
    if start and end and instant_of(start, start_name) > instant_of(end, end_name):
        raise Refused("INVALID_TIME_RANGE", "The time range ends before it starts.", end_name)
    return max(low, 0), min(max(high, 0), _FOREVER)


def payments(seller: Seller, asked: PaymentList, place: Place) -> Page:
    """GET /v2/payments: of the main location, unless another is asked for."""
    unsupported(asked, "total", "last_4", "card_brand", "offline_begin_time", "offline_end_time")
    places = [asked.location_id or seller.store.main_location]
    offline = asked.is_offline_payment
    if offline is None and not seller.config.offline_payments_listed:
        offline = False

    def wanted(row: Row) -> bool:
        return offline in (None, row.get("is_offline_payment", False))

    return _moneys(seller, seller.store.payments, "payments", asked, place, places, wanted)


def refunds(seller: Seller, asked: RefundList, place: Place) -> Page:
    """GET /v2/refunds: of all locations, unless one is asked for."""
    places = [asked.location_id] if asked.location_id else seller.store.refunds.places()

    def wanted(row: Row) -> bool:
        if asked.status and row["status"] != asked.status:
            return False
        return not asked.source_type or _source(seller, row) == asked.source_type

    return _moneys(seller, seller.store.refunds, "refunds", asked, place, places, wanted)


def _source(seller: Seller, refund: Row) -> str | None:
    payment = seller.store.row("payments", refund["payment_id"])
    return payment and payment["source_type"]


def _moneys(
    seller: Seller,
    table: Table,
    key: str,
    asked: MoneyList,
    place: Place,
    places: Sequence[str],
    wanted: Callable[[Row], bool],
) -> Page:
    if asked.location_id:
        _known_places(seller, places, "location_id")
    pin = seller.clock.now() if place.pin is None else place.pin
    windows = {
        "created_at": _bounds(asked.begin_time, asked.end_time, "begin_time", "end_time", pin - _YEAR, pin),
        "updated_at": _bounds(
            asked.updated_at_begin_time,
            asked.updated_at_end_time,
            "updated_at_begin_time",
            "updated_at_end_time",
            0,
            pin,
        ),
    }
    sort_field = asked.sort_field.lower()
    low, high = windows.pop(sort_field)
    [(other_field, (earliest, latest))] = windows.items()
    walk = table.walk(sort_field, places, low, high, after=place.behind, newest_first=asked.sort_order == "DESC")
    numbers = (pair for pair in walk if earliest <= table.moment(pair[1], other_field) <= latest)
    rows = ((at, row) for at, number in numbers if wanted(row := table.row(number)))
    return _page(key, rows, min(asked.limit, _MONEY_PAGE), pin)


def _known_places(seller: Seller, places: Sequence[str], name: str) -> None:
    if unknown := [place for place in places if place not in seller.store.locations]:
        raise Refused("INVALID_VALUE", f"There is no location {unknown[0]}.", name)


def _page(key: str, rows: Any, limit: int, pin: int | None = None) -> Page:
    """The next rows of a walk, which comes as keys and rows."""
    found = list(islice(rows, limit + 1))
    behind = found[limit - 1][0] if len(found) > limit else None
    return Page(key, [row for _, row in found[:limit]], behind, pin)
