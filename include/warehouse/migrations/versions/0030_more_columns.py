"""More columns of fields that the vendors name, filled from `extra`; and a line's place in its order, which is in none.

Rows of lines that were written before lack their place until a full sync of Square brings it.
"""

from decimal import ROUND_HALF_UP
from typing import Any

from alembic import op

from include.warehouse.migrations.extra import column_to_extra, columns_from_extra
from include.warehouse.readers import boolean, decimal, identifier, instant, integer, structure, text
from include.warehouse.table import Column

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def whole(value: Any) -> int | None:
    """Return a number as Tekmetric's amounts are read: rounded half up."""
    number = decimal(value)
    return None if number is None else int(number.to_integral_value(ROUND_HALF_UP))


def share(value: Any) -> Any:
    """Return a share as Tekmetric's are read: that of nothing is "NaN"."""
    return None if value == "NaN" else decimal(value)


def code(value: Any) -> str | None:
    """Return the code in an object, as Tekmetric's are read."""
    return text(value.get("code")) if isinstance(value, dict) else None


def _texts(*names: str) -> list[tuple[Column, str]]:
    return [(Column(name), "text") for name in names]


# By table: its new columns, each with its type.
TABLES: dict[str, list[tuple[Column, str]]] = {
    "repairshopr.customers": _texts("invoice_cc_emails", "location_name", "online_profile_url", "pdf_url"),
    "repairshopr.products": [
        (Column("maintain_stock", boolean), "boolean"),
        (Column("reorder_at", decimal), "numeric"),
        *_texts("notes"),
    ],
    "repairshopr.tickets": [
        *_texts("customer_business_then_name"),
        (Column("due_date", instant), "timestamptz"),
        (Column("start_at", instant), "timestamptz"),
        (Column("location_id", identifier), "bigint"),
        (Column("ticket_type_id", identifier), "bigint"),
        *_texts("priority"),
    ],
    "repairshopr.estimates": _texts("employee", "pdf_url"),
    "square.locations": _texts(
        "twitter_username",
        "instagram_username",
        "facebook_url",
        "logo_url",
        "pos_background_url",
        "full_format_logo_url",
    ),
    "square.catalog_categories": [
        (Column("parent_category_ordinal", integer, "category_data.parent_category.ordinal"), "bigint"),
        (Column("availability_period_ids", structure, "category_data.availability_period_ids"), "jsonb"),
    ],
    "square.catalog_items": [
        (Column("reporting_category_ordinal", integer, "item_data.reporting_category.ordinal"), "bigint"),
    ],
    "square.order_line_items": [(Column("position", integer), "bigint")],
    "tekmetric.customers": [
        (Column("customer_type_code", code, "customerType", uses=("code",)), "text"),
    ],
    "tekmetric.repair_orders": [
        (Column("estimate_authorized_total", whole, "estimate.authorizedTotal"), "bigint"),
        (Column("authorized_labor_margin", share, "profit.laborProfit.margin", uses=()), "numeric"),
        (Column("miles_in", whole, "head.milesIn"), "bigint"),
        (Column("miles_out", whole, "head.milesOut"), "bigint"),
        (Column("keytag", field="head.keytag"), "text"),
    ],
}

SINCE = """
CREATE TABLE confidence.column_since (
  table_name text, column_name text, sync_id bigint NOT NULL, PRIMARY KEY (table_name, column_name));
COMMENT ON TABLE confidence.column_since IS
  'Rows of the table that this sync or an earlier one wrote lack the column, whatever the source has shown: it was not '
  'kept then, not even in extra. Columns that came with their table, or from extra, are not named.';
INSERT INTO confidence.column_since
SELECT 'square.order_line_items', 'position', max(sync_id) FROM confidence.sync_log WHERE source = 'square'
HAVING count(*) > 0;
"""


# By table, what our own code adds to the records: the census counted it as if the vendor had sent it.
ADDED = {
    "catalog_vendor_info": "variation_id",
    "order_line_items": "order_id",
    "order_fulfillments": "order_id",
    "order_returns": "order_id",
    "tenders": "order_id",
    "employees": "shop_id",
    "customers": "shop_id",
    "vehicles": "shop_id",
    "repair_orders": "shop_id status posted_date completed_date discount_total fees_total"
    " potential_job_count potential_parts_total potential_labor_total potential_sublet_total authorized_total"
    " authorized_subtotal authorized_tax authorized_discount authorized_job_count authorized_parts_total"
    " authorized_labor_total authorized_sublet_total authorized_fees_total",
    "jobs": "shop_id tm_repair_order_id",
    **dict.fromkeys(("job_parts", "job_labor", "job_sublets", "job_fees"), "shop_id tm_repair_order_id tm_job_id line"),
}
FORGET = """
DELETE FROM confidence.field_census
WHERE source IN ('square', 'tekmetric') AND entity = '{table}' AND path = ANY (string_to_array('{paths}', ' '))
"""


def upgrade() -> None:
    op.execute(SINCE)
    for table, paths in ADDED.items():
        op.execute(FORGET.format(table=table, paths=paths))
    for table, columns in TABLES.items():
        columns_from_extra(table, columns)


def downgrade() -> None:
    for table, columns in TABLES.items():
        # The hash has the last one at its end.
        for column, _ in reversed(columns):
            column_to_extra(table, column)
    op.execute("DROP TABLE confidence.column_since")
