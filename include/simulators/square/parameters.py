"""What each endpoint takes, as the vendor describes it. What isn't described is refused."""

from typing import Annotated, Any, Literal

import msgspec

Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
Order = Literal["ASC", "DESC"]


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of a request; for one that takes none."""


class Listing(Parameters):
    """Parameters of a list that comes in pages."""

    cursor: str | None = None


class CatalogList(Listing):
    types: str | None = None
    catalog_version: Any = None


class CatalogSearch(Listing):
    object_types: list[str] | None = None
    include_deleted_objects: bool = False
    include_related_objects: bool = False
    begin_time: str | None = None
    limit: int = 1_000
    include_category_path_to_root: bool = False
    query: Any = None


class CatalogObject(Parameters):
    include_related_objects: bool = False
    catalog_version: Any = None
    include_category_path_to_root: Any = None


class CatalogBatch(Parameters):
    object_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=1_000)]
    include_related_objects: bool = False
    include_deleted_objects: bool = False
    catalog_version: Any = None
    include_category_path_to_root: Any = None


class Counts(Listing):
    catalog_object_ids: list[str] | None = None
    location_ids: list[str] | None = None
    updated_after: str | None = None
    states: list[str] | None = None
    limit: Limit = 1_000


class OwnCounts(Listing):
    """`catalog_object_id` is the one in the path."""

    catalog_object_id: str = ""
    location_ids: str | None = None


class VendorFilter(Parameters):
    name: list[str] | None = None
    status: list[Literal["ACTIVE", "INACTIVE"]] | None = None


class VendorSort(Parameters):
    field: Literal["NAME", "CREATED_AT"] = "CREATED_AT"
    order: Order = "ASC"


class VendorSearch(Listing):
    filter: VendorFilter = VendorFilter()
    sort: VendorSort = VendorSort()


class VendorBatch(Parameters):
    vendor_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)]


class TimeRange(Parameters):
    start_at: str | None = None
    end_at: str | None = None


class DateTimeFilter(Parameters):
    created_at: TimeRange | None = None
    updated_at: TimeRange | None = None
    closed_at: TimeRange | None = None


class StateFilter(Parameters):
    states: Annotated[list[Literal["OPEN", "COMPLETED", "CANCELED", "DRAFT"]], msgspec.Meta(min_length=1)]


class OrderFilter(Parameters):
    date_time_filter: DateTimeFilter | None = None
    state_filter: StateFilter | None = None
    fulfillment_filter: Any = None
    source_filter: Any = None
    customer_filter: Any = None


class OrderSort(Parameters):
    sort_field: Literal["CREATED_AT", "UPDATED_AT", "CLOSED_AT"]
    sort_order: Order = "DESC"


class OrderQuery(Parameters):
    filter: OrderFilter = OrderFilter()
    sort: OrderSort = OrderSort("CREATED_AT")


class OrderSearch(Listing, kw_only=True):
    location_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=10)]
    query: OrderQuery = OrderQuery()
    limit: Limit = 500
    return_entries: bool = False


class OrderBatch(Parameters):
    order_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)]
    location_id: str | None = None


class MoneyList(Listing):
    """What payments and refunds have in common."""

    begin_time: str | None = None
    end_time: str | None = None
    updated_at_begin_time: str | None = None
    updated_at_end_time: str | None = None
    sort_field: Literal["CREATED_AT", "UPDATED_AT"] = "CREATED_AT"
    sort_order: Order = "DESC"
    location_id: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = 100


class PaymentList(MoneyList):
    total: Any = None
    last_4: Any = None
    card_brand: Any = None
    is_offline_payment: bool | None = None
    offline_begin_time: Any = None
    offline_end_time: Any = None


class RefundList(MoneyList):
    status: str | None = None
    source_type: str | None = None
