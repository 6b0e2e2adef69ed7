"""RepairShopr's tables: names as in the API, times with a zone, money exact."""

from collections.abc import Mapping

from include.warehouse.readers import boolean, decimal, identifier, instant, integer, structure, text
from include.warehouse.table import Column, Table

ID = Column("id", identifier)
TIMES = (Column("created_at", instant), Column("updated_at", instant))


# What only the own address of a document shows.
EMBEDDED = {
    "customer": "a copy of the customer, which only the document's own address shows",
    "line_items": "they are rows of line_items; only the document's own address shows them here",
}


def _table(
    name: str, *columns: Column, required: tuple[str, ...] = (), ignored: Mapping[str, str] | None = None
) -> Table:
    """Return a table. `required`: columns that every record has, in addition to its times."""
    times = tuple(column.name for column in TIMES)
    return Table("repairshopr", name, (ID, *columns, *TIMES), required=(*required, *times), ignored=ignored or {})


CUSTOMERS = _table(
    "customers",
    Column("firstname"),
    Column("lastname"),
    Column("business_name"),
    Column("email"),
    Column("phone"),
    Column("mobile"),
    Column("address"),
    Column("address_2"),
    Column("city"),
    Column("state"),
    Column("zip"),
    Column("notes"),
    Column("disabled", boolean),
    Column("get_sms", boolean),
    Column("opt_out", boolean),
    Column("no_email", boolean),
    Column("referred_by"),
    Column("tax_rate_id", identifier),
    Column("location_id", identifier),
    Column("properties", structure),
    Column("contacts", structure),
    Column("invoice_cc_emails"),
    Column("location_name"),
    Column("online_profile_url"),
    Column("pdf_url"),
    ignored={
        "fullname": "firstname and lastname in one",
        "business_then_name": "business_name, or else the full name",
    },
)

INVOICES = _table(
    "invoices",
    Column("customer_id", identifier),
    Column("customer_business_then_name"),
    Column("number"),
    Column("date", instant),
    Column("due_date", instant),
    Column("subtotal", decimal),
    Column("total", decimal),
    Column("tax", decimal),
    Column("verified_paid", boolean),
    Column("tech_marked_paid", boolean),
    Column("is_paid", boolean),
    Column("ticket_id", identifier),
    Column("user_id", identifier),
    Column("location_id", identifier),
    Column("contact_id", identifier),
    Column("po_number"),
    Column("note"),
    Column("pdf_url"),
    Column("hardwarecost", decimal),
    ignored={**EMBEDDED, "payments": "they are rows of payments; only the invoice's own address shows them here"},
)

LINE_ITEMS = _table(
    "line_items",
    Column("invoice_id", identifier),
    Column("item"),
    Column("name"),
    Column("cost", decimal),
    Column("price", decimal),
    Column("quantity", decimal),
    Column("product_id", identifier),
    Column("taxable", boolean),
    Column("discount_percent", decimal),
    Column("position", integer),
    Column("invoice_bundle_id", identifier),
    Column("discount_dollars", decimal),
    Column("product_category"),
    # The list is asked for lines of invoices only.
    required=("invoice_id",),
)


def _customer_id(value: object) -> int | None:
    """Return the id of the customer, whom a payment embeds as an object."""
    return identifier(value.get("id") if isinstance(value, dict) else value)


PAYMENTS = _table(
    "payments",
    Column("success", boolean),
    Column("payment_amount", decimal),
    Column("invoice_ids", structure),
    Column("ref_num"),
    Column("applied_at", instant),
    Column("payment_method"),
    Column("customer_id", _customer_id, field="customer", uses=("id",)),
    ignored={
        "customer": "a copy of the customer",
        "signature_name": "personal data that no account of payments needs",
        "signature_date": "it belongs to the signature",
        "signature_data": "a picture of the signature",
        "transaction_response": "the card processor's answer, which may name card and holder",
    },
)

PRODUCTS = _table(
    "products",
    Column("name"),
    Column("description"),
    Column("sku"),
    Column("upc_code"),
    Column("price_retail", decimal),
    Column("price_cost", decimal),
    Column("price_wholesale", decimal),
    Column("quantity", decimal),
    Column("taxable", boolean),
    Column("disabled", boolean),
    Column("product_category"),
    Column("sort_order", text),
    Column("maintain_stock", boolean),
    Column("reorder_at", decimal),
    Column("notes"),
)

TICKETS = _table(
    "tickets",
    Column("number", integer),
    Column("subject"),
    Column("customer_id", identifier),
    Column("status"),
    Column("problem_type"),
    Column("user_id", identifier),
    Column("contact_id", identifier),
    Column("resolved_at", instant),
    Column("properties", structure),
    Column("comments", structure),
    Column("customer_business_then_name"),
    Column("due_date", instant),
    Column("start_at", instant),
    Column("location_id", identifier),
    Column("ticket_type_id", identifier),
    Column("priority"),
)

ESTIMATES = _table(
    "estimates",
    Column("customer_id", identifier),
    Column("customer_business_then_name"),
    Column("number"),
    Column("status"),
    Column("date", instant),
    Column("subtotal", decimal),
    Column("total", decimal),
    Column("tax", decimal),
    Column("ticket_id", identifier),
    Column("invoice_id", identifier),
    Column("location_id", identifier),
    Column("contact_id", identifier),
    Column("user_id", identifier),
    Column("note"),
    Column("employee"),
    Column("pdf_url"),
    ignored=EMBEDDED,
)
