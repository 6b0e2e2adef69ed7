"""Square's tables: money in minor units beside its currency, quantities exact.

Lists and objects whose parts are not needed stay JSON. Ids of line items, fulfillments and returns are unique only in
their order. The required columns are those that every object has by the vendor's description; an answer without one
shows only a part of the object.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from include.warehouse.readers import boolean, decimal, instant, integer, structure, text
from include.warehouse.table import Column, Table

SCHEMA = "square"


def token(value: Any) -> str | None:
    """Return a vendor's id, None for a blank text or any other type."""
    return text(value) if isinstance(value, str) and value.strip() else None


def in_sql(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the reader of a value that SQL reads out of JSON too, which takes fewer forms of texts than Python."""

    def as_sql_reads(value: Any) -> Any:
        if isinstance(value, str) and value and not SQL_READS.fullmatch(value):
            raise ValueError("is written in a way that SQL does not read")
        return read(value)

    return as_sql_reads


# A whole number, or a time in RFC 3339.
SQL_READS = re.compile(r"[+-]?\d+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-](0\d|1[0-5]):\d\d)", re.ASCII)
# The fields of an override that the derived tables need. Overrides are stored as JSON, not in this table.
OVERRIDE = Table(
    SCHEMA,
    "location_overrides",
    (
        Column("location_id", token),
        Column("sold_out", boolean),
        Column("sold_out_valid_until", in_sql(instant)),
        Column("inventory_alert_threshold", in_sql(integer)),
        Column("price", in_sql(integer), "price_money.amount"),
    ),
    key=("location_id",),
    version=None,
    keeps_extra=False,
)


def overrides(value: Any) -> str | None:
    """Return a variation's overrides for single locations as JSON text. Raises ValueError if one is unusable."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(override, dict) for override in value):
        raise ValueError("is no list of objects")
    for override in value:
        OVERRIDE.row(override)
    return structure(value)


def _money(name: str, field: str = "") -> Column:
    """Return a column for an amount in minor units, without its currency."""
    return Column(name, integer, f"{field or name}.amount")


def _tokens(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, token) for name in names)


def _texts(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name) for name in names)


def _structures(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, structure) for name in names)


def _instants(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, instant) for name in names)


def _amounts(*names: str) -> tuple[Column, ...]:
    return tuple(_money(name) for name in names)


ID = Column("id", token)
CREATED, UPDATED = _instants("created_at", "updated_at")
VERSION = Column("version", integer)
# The columns that every object of the catalog has. A tombstone has no others.
OBJECT = (
    VERSION,
    Column("is_deleted", boolean),
    UPDATED,
    Column("present_at_all_locations", boolean),
    *_structures("present_at_location_ids", "absent_at_location_ids"),
)


# Sellers define such attributes for items and variations.
CUSTOM = _structures("custom_attribute_values")

# The list is asked for one type of object, and its answer is checked for it.
OF_ONE_TYPE = {"type": "all objects of this table have the same type"}


def _catalog(
    name: str,
    data: str,
    *columns: tuple[str, Callable[[Any], Any], str],
    beside: tuple[Column, ...] = (),
    ignored: Mapping[str, str] | None = None,
) -> Table:
    """Return a table of catalog objects. Its own columns (name, reader, field) are read from the object `data`.

    The columns `beside` are read from what stands beside that object.
    """
    own = (Column(column, read, f"{data}.{field or column}") for column, read, field in columns)
    return Table(
        SCHEMA,
        name,
        (ID, *own, *beside, *OBJECT),
        version="version",
        changed="updated_at",
        required=("version", "updated_at"),
        tombstone="is_deleted",
        ignored={**OF_ONE_TYPE, **(ignored or {})},
    )


def _in_one_currency(
    name: str, columns: tuple[Column, ...], *, ignored: Mapping[str, str] | None = None, **more: Any
) -> Table:
    """Return a table with one column for the currency. The currencies of its other amounts are the same, so ignored."""
    read = {column.dotted_path for column in columns}
    priced = [column.path[:-1] for column in columns if column.path[-1] == "amount"]
    others = {".".join([*path, "currency"]) for path in priced} - read
    same = dict.fromkeys(sorted(others), "all amounts of a row are in the currency of its column currency")
    return Table(SCHEMA, name, columns, ignored={**same, **(ignored or {})}, **more)


LOCATIONS = Table(
    SCHEMA,
    "locations",
    (
        ID,
        *_texts("name", "business_name", "description", "status", "type", "timezone", "country", "language_code"),
        *_texts("currency", "merchant_id", "mcc", "phone_number", "business_email", "website_url"),
        *_structures("address", "coordinates", "business_hours", "capabilities", "tax_ids"),
        CREATED,
        *_texts("twitter_username", "instagram_username", "facebook_url"),
        *_texts("logo_url", "pos_background_url", "full_format_logo_url"),
    ),
    version=None,
    required=("name", "status", "created_at"),
)

VENDORS = Table(
    SCHEMA,
    "vendors",
    (
        ID,
        *_texts("name", "account_number", "note", "status"),
        *_structures("address", "contacts"),
        VERSION,
        CREATED,
        UPDATED,
    ),
    version="version",
    changed="updated_at",
    required=("name", "status", "version", "created_at", "updated_at"),
)

CATALOG_CATEGORIES = _catalog(
    "catalog_categories",
    "category_data",
    ("name", text, ""),
    ("description", text, ""),
    ("category_type", text, ""),
    ("parent_category_id", token, "parent_category.id"),
    ("root_category_id", token, "root_category"),
    ("is_top_level", boolean, ""),
    ("online_visibility", boolean, ""),
    ("channels", structure, ""),
    ("image_ids", structure, ""),
    ("ecom_seo_data", structure, ""),
    ("parent_category_ordinal", integer, "parent_category.ordinal"),
    ("availability_period_ids", structure, ""),
)

CATALOG_ITEMS = _catalog(
    "catalog_items",
    "item_data",
    ("name", text, ""),
    ("abbreviation", text, ""),
    ("sort_name", text, ""),
    ("description", text, ""),
    ("description_html", text, ""),
    ("description_plaintext", text, ""),
    ("category_id", token, ""),
    ("categories", structure, ""),
    ("reporting_category_id", token, "reporting_category.id"),
    ("product_type", text, ""),
    ("is_taxable", boolean, ""),
    ("tax_ids", structure, ""),
    ("is_archived", boolean, ""),
    ("is_alcoholic", boolean, ""),
    ("skip_modifier_screen", boolean, ""),
    ("ecom_visibility", text, ""),
    ("ecom_uri", text, ""),
    ("ecom_seo_data", structure, ""),
    ("channels", structure, ""),
    ("image_ids", structure, ""),
    ("units_per_case", decimal, ""),
    ("label_color", text, ""),
    ("modifier_list_info", structure, ""),
    ("item_options", structure, ""),
    ("food_and_beverage_details", structure, ""),
    ("ecom_image_uris", structure, ""),
    ("reporting_category_ordinal", integer, "reporting_category.ordinal"),
    beside=CUSTOM,
    ignored={"item_data.variations": "they are rows of catalog_variations"},
)

CATALOG_VARIATIONS = _catalog(
    "catalog_variations",
    "item_variation_data",
    ("item_id", token, ""),
    ("name", text, ""),
    ("sku", text, ""),
    ("upc", text, ""),
    ("ordinal", integer, ""),
    ("pricing_type", text, ""),
    ("price_money", integer, "price_money.amount"),
    ("price_currency", text, "price_money.currency"),
    ("default_unit_cost", integer, "default_unit_cost.amount"),
    ("default_unit_cost_currency", text, "default_unit_cost.currency"),
    ("location_overrides", overrides, ""),
    ("track_inventory", boolean, ""),
    ("inventory_alert_type", text, ""),
    ("inventory_alert_threshold", integer, ""),
    ("sellable", boolean, ""),
    ("stockable", boolean, ""),
    ("stockable_conversion", structure, ""),
    ("measurement_unit_id", token, ""),
    ("item_option_values", structure, ""),
    ("image_ids", structure, ""),
    ("units_per_case", decimal, ""),
    ("user_data", text, ""),
    ("service_duration", integer, ""),
    ("available_for_booking", boolean, ""),
    ("team_member_ids", structure, ""),
    beside=CUSTOM,
    ignored={"item_variation_data.item_variation_vendor_infos": "they are rows of catalog_vendor_info"},
)

# A vendor info comes inside its variation, whose version decides; so its own version is not used.
_INFO = "item_variation_vendor_info_data"
CATALOG_VENDOR_INFO = Table(
    SCHEMA,
    "catalog_vendor_info",
    (
        ID,
        Column("variation_id", token),
        Column("vendor_id", token, f"{_INFO}.vendor_id"),
        Column("ordinal", integer, f"{_INFO}.ordinal"),
        Column("sku", text, f"{_INFO}.sku"),
        _money("price_money", f"{_INFO}.price_money"),
        Column("price_currency", text, f"{_INFO}.price_money.currency"),
        *OBJECT,
    ),
    version=None,
    added=("variation_id",),
    ignored={**OF_ONE_TYPE, f"{_INFO}.item_variation_id": "variation_id has it, from the record around the info"},
)

CATALOG_INVENTORY = Table(
    SCHEMA,
    "catalog_inventory",
    (
        Column("variation_id", token, "catalog_object_id"),
        Column("location_id", token),
        Column("quantity", decimal),
        Column("is_estimated", boolean),
        Column("calculated_at", instant),
    ),
    key=("variation_id", "location_id"),
    version="calculated_at",
    required=("quantity", "calculated_at"),
    ignored={
        "state": "all counts of this table are IN_STOCK",
        "catalog_object_type": "only variations are counted; inventory_counts has it",
    },
)

INVENTORY_COUNTS = Table(
    SCHEMA,
    "inventory_counts",
    (
        *_tokens("catalog_object_id", "location_id", "state"),
        Column("calculated_at", instant),
        Column("catalog_object_type"),
        Column("quantity", decimal),
        Column("is_estimated", boolean),
    ),
    key=("catalog_object_id", "location_id", "state", "calculated_at"),
    version="calculated_at",
    required=("quantity",),
)

# An order that was not made through the API may have no version; then its time of change is used.
ORDERS = _in_one_currency(
    "orders",
    (
        ID,
        *_tokens("location_id", "customer_id"),
        *_texts("reference_id", "ticket_name", "state"),
        VERSION,
        *_amounts("total_money", "total_tax_money", "total_discount_money", "total_tip_money"),
        *_amounts("total_service_charge_money", "net_amount_due_money"),
        _money("rounding_adjustment_money", "rounding_adjustment.amount_money"),
        Column("currency", text, "total_money.currency"),
        *_structures("net_amounts", "return_amounts", "taxes", "discounts", "service_charges", "refunds", "source"),
        *_structures("pricing_options", "rewards"),
        Column("order_metadata", structure, "metadata"),
        CREATED,
        UPDATED,
        Column("closed_at", instant),
    ),
    version="version",
    changed="updated_at",
    required=("location_id", "state", "created_at", "updated_at"),
    ignored={
        "line_items": "they are rows of order_line_items",
        "fulfillments": "they are rows of order_fulfillments",
        "returns": "they are rows of order_returns",
        "tenders": "they are rows of tenders",
    },
)

ORDER_LINE_ITEMS = _in_one_currency(
    "order_line_items",
    (
        *_tokens("order_id", "uid"),
        *_texts("name", "variation_name", "item_type", "note"),
        Column("catalog_object_id", token),
        Column("catalog_version", integer),
        Column("quantity", decimal),
        Column("quantity_unit", structure),
        *_amounts("base_price_money", "variation_total_price_money", "gross_sales_money", "total_tax_money"),
        *_amounts("total_discount_money", "total_service_charge_money", "total_money"),
        Column("currency", text, "total_money.currency"),
        *_structures("modifiers", "applied_taxes", "applied_discounts", "applied_service_charges"),
        *_structures("pricing_blocklists", "metadata"),
        # The first line of an order has 1. The order of the list says so, and no field.
        Column("position", integer, added_later=True),
    ),
    key=("order_id", "uid"),
    version=None,
    required=("quantity",),
    added=("order_id", "position"),
)

ORDER_FULFILLMENTS = Table(
    SCHEMA,
    "order_fulfillments",
    (
        *_tokens("order_id", "uid"),
        *_texts("type", "state", "line_item_application"),
        *_structures("entries", "details", "metadata"),
    ),
    key=("order_id", "uid"),
    version=None,
    added=("order_id",),
)

ORDER_RETURNS = Table(
    SCHEMA,
    "order_returns",
    (
        *_tokens("order_id", "uid", "source_order_id"),
        *_structures("return_line_items", "return_service_charges", "return_taxes", "return_discounts", "return_tips"),
        *_structures("rounding_adjustment", "return_amounts"),
    ),
    key=("order_id", "uid"),
    version=None,
    added=("order_id",),
)

TENDERS = _in_one_currency(
    "tenders",
    (
        ID,
        *_tokens("order_id", "location_id", "transaction_id", "payment_id", "customer_id"),
        *_texts("type", "note"),
        *_amounts("amount_money", "tip_money", "processing_fee_money"),
        Column("currency", text, "amount_money.currency"),
        *_structures("card_details", "cash_details", "bank_account_details", "buy_now_pay_later_details"),
        *_structures("square_account_details", "additional_recipients"),
        CREATED,
    ),
    version=None,
    required=("type",),
    added=("order_id",),
)

# The vendor has replaced transactions by orders. What is left of one is its id, location and time; the table of orders
# has all else.
TRANSACTIONS = Table(
    SCHEMA,
    "transactions",
    (ID, *_tokens("location_id"), CREATED),
    version=None,
    required=("location_id", "created_at"),
    keeps_extra=False,
)

PAYMENTS = _in_one_currency(
    "payments",
    (
        ID,
        *_tokens("order_id", "location_id", "customer_id", "team_member_id", "employee_id"),
        *_texts("status", "source_type", "reference_id", "note"),
        *_amounts("amount_money", "tip_money", "total_money", "app_fee_money", "approved_money", "refunded_money"),
        Column("currency", text, "amount_money.currency"),
        *_structures("processing_fee", "refund_ids", "risk_evaluation", "capabilities"),
        *_structures("card_details", "cash_details", "external_details", "wallet_details", "bank_account_details"),
        *_structures("buy_now_pay_later_details", "square_account_details"),
        *_structures("billing_address", "shipping_address", "device_details", "application_details"),
        Column("offline_payment_details", structure),
        Column("is_offline_payment", boolean),
        *_texts("buyer_email_address", "statement_description_identifier", "receipt_number", "receipt_url"),
        *_texts("terminal_checkout_id", "delay_duration", "delay_action", "version_token"),
        *_instants("delayed_until"),
        CREATED,
        UPDATED,
    ),
    required=("status", "location_id", "amount_money", "created_at", "updated_at"),
)

ORDER_REFUNDS = _in_one_currency(
    "order_refunds",
    (
        ID,
        *_tokens("order_id", "payment_id", "location_id", "team_member_id"),
        *_texts("status", "reason", "destination_type", "terminal_refund_id"),
        *_amounts("amount_money", "app_fee_money"),
        Column("currency", text, "amount_money.currency"),
        *_structures("processing_fee", "destination_details"),
        Column("unlinked", boolean),
        CREATED,
        UPDATED,
    ),
    required=("status", "amount_money", "created_at", "updated_at"),
)
