"""Columns of fields that the vendors name and that were kept in `extra`; filled from there, without the vendor."""

from include.warehouse.migrations.extra import column_to_extra, columns_from_extra
from include.warehouse.readers import boolean, identifier, integer, structure
from include.warehouse.table import Column

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def _structures(*fields: str) -> list[tuple[Column, str]]:
    """Return the columns for fields that stay JSON, each under the last name of its path."""
    return [(Column(field.rpartition(".")[2], structure, field), "jsonb") for field in fields]


# By table: its new columns, each with its type.
TABLES: dict[str, list[tuple[Column, str]]] = {
    "repairshopr.customers": [
        (Column("address_2"), "text"),
        (Column("get_sms", boolean), "boolean"),
        (Column("opt_out", boolean), "boolean"),
        (Column("no_email", boolean), "boolean"),
        (Column("referred_by"), "text"),
        (Column("tax_rate_id", identifier), "bigint"),
        *_structures("contacts"),
    ],
    "repairshopr.tickets": [(Column("contact_id", identifier), "bigint")],
    "repairshopr.estimates": [
        (Column("contact_id", identifier), "bigint"),
        (Column("user_id", identifier), "bigint"),
        (Column("note"), "text"),
    ],
    "square.locations": _structures("tax_ids"),
    "square.catalog_categories": _structures(
        "category_data.channels", "category_data.image_ids", "category_data.ecom_seo_data"
    ),
    "square.catalog_items": [
        (Column("label_color", field="item_data.label_color"), "text"),
        *_structures(
            "item_data.modifier_list_info",
            "item_data.item_options",
            "item_data.food_and_beverage_details",
            "item_data.ecom_image_uris",
            "custom_attribute_values",
        ),
    ],
    "square.catalog_variations": [
        (Column("user_data", field="item_variation_data.user_data"), "text"),
        (Column("service_duration", integer, "item_variation_data.service_duration"), "bigint"),
        (Column("available_for_booking", boolean, "item_variation_data.available_for_booking"), "boolean"),
        *_structures("item_variation_data.team_member_ids", "custom_attribute_values"),
    ],
    "square.orders": _structures("pricing_options", "rewards"),
    "square.tenders": _structures("additional_recipients"),
}


def upgrade() -> None:
    for table, columns in TABLES.items():
        columns_from_extra(table, columns)


def downgrade() -> None:
    for table, columns in TABLES.items():
        # The hash has the last one at its end.
        for column, _ in reversed(columns):
            column_to_extra(table, column)
