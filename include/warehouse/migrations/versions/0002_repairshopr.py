"""The mirror of RepairShopr: schema `repairshopr`."""

from alembic import op

from include.warehouse.migrations.ddl import create_mirror

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MONEY = "numeric"
INSTANT = "timestamptz"

TABLES = {
    "customers": {
        "firstname": "text",
        "lastname": "text",
        "business_name": "text",
        "email": "text",
        "phone": "text",
        "mobile": "text",
        "address": "text",
        "city": "text",
        "state": "text",
        "zip": "text",
        "notes": "text",
        "disabled": "boolean",
        "location_id": "bigint",
        "properties": "jsonb",
        "created_at": INSTANT,
        "updated_at": INSTANT,
    },
    "invoices": {
        "customer_id": "bigint",
        "customer_business_then_name": "text",
        "number": "text",
        "date": INSTANT,
        "due_date": INSTANT,
        "subtotal": MONEY,
        "total": MONEY,
        "tax": MONEY,
        "verified_paid": "boolean",
        "tech_marked_paid": "boolean",
        "is_paid": "boolean",
        "ticket_id": "bigint",
        "user_id": "bigint",
        "location_id": "bigint",
        "contact_id": "bigint",
        "po_number": "text",
        "note": "text",
        "pdf_url": "text",
        "hardwarecost": MONEY,
        "created_at": INSTANT,
        "updated_at": INSTANT,
    },
    # invoice_id is the vendor's value, kept also where the invoice's row is missing; hence no foreign key.
    "line_items": {
        "invoice_id": "bigint",
        "item": "text",
        "name": "text",
        "cost": MONEY,
        "price": MONEY,
        "quantity": "numeric",
        "product_id": "bigint",
        "taxable": "boolean",
        "discount_percent": "numeric",
        "position": "bigint",
        "invoice_bundle_id": "bigint",
        "discount_dollars": MONEY,
        "product_category": "text",
        "created_at": INSTANT,
        "updated_at": INSTANT,
    },
    "payments": {
        "success": "boolean",
        "payment_amount": MONEY,
        "invoice_ids": "jsonb",
        "ref_num": "text",
        "applied_at": INSTANT,
        "payment_method": "text",
        "customer_id": "bigint",
        "created_at": INSTANT,
        "updated_at": INSTANT,
    },
    "products": {
        "name": "text",
        "description": "text",
        "sku": "text",
        "upc_code": "text",
        "price_retail": MONEY,
        "price_cost": MONEY,
        "price_wholesale": MONEY,
        "quantity": "numeric",
        "taxable": "boolean",
        "disabled": "boolean",
        "product_category": "text",
        "sort_order": "text",
        "created_at": INSTANT,
        "updated_at": INSTANT,
    },
    "tickets": {
        "number": "bigint",
        "subject": "text",
        "customer_id": "bigint",
        "status": "text",
        "problem_type": "text",
        "user_id": "bigint",
        "resolved_at": INSTANT,
        "properties": "jsonb",
        "comments": "jsonb",
        "created_at": INSTANT,
        "updated_at": INSTANT,
    },
    "estimates": {
        "customer_id": "bigint",
        "customer_business_then_name": "text",
        "number": "text",
        "status": "text",
        "date": INSTANT,
        "subtotal": MONEY,
        "total": MONEY,
        "tax": MONEY,
        "ticket_id": "bigint",
        "invoice_id": "bigint",
        "location_id": "bigint",
        "created_at": INSTANT,
        "updated_at": INSTANT,
    },
}


def upgrade() -> None:
    op.execute("CREATE SCHEMA repairshopr")
    for name, columns in TABLES.items():
        create_mirror("repairshopr", name, {"id": "bigint"}, columns)
    op.execute("CREATE INDEX ON repairshopr.line_items (invoice_id)")
    op.execute("INSERT INTO confidence.writer (source) VALUES ('repairshopr')")
