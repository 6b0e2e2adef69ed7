"""Invariants between Square's tables: rows name rows that exist, and the money adds up."""

from psycopg import sql

from include.confidence.integrity import Severity
from include.sources.mirror.invariant import Invariant
from include.sources.square import tables
from include.sources.square.derived import SALES
from include.warehouse.sql_fragments import identifiers
from include.warehouse.table import Table

ORPHANS = sql.SQL("""
SELECT {key} FROM {child} t WHERE {living} AND t.{column} IS NOT NULL
AND NOT EXISTS (SELECT FROM {parent} p WHERE p.id = t.{column} AND {parent_living})
""")


def _living(table: Table, alias: str) -> sql.Composable:
    """Return the condition that a row is live: neither `deleted_at` nor the vendor's `is_deleted` is set."""
    gone = sql.SQL("{}.deleted_at IS NULL").format(sql.Identifier(alias))
    if "is_deleted" not in table.names:
        return gone
    return sql.SQL("{} AND {}.is_deleted IS NOT TRUE").format(gone, sql.Identifier(alias))


def _no_orphans(
    name: str, entity: str, child: Table, column: str, parent: Table, severity: Severity = Severity.ERROR
) -> Invariant:
    """Return the invariant that no live row of `child` lacks its parent.

    The parent is the live row of `parent` whose `id` is in `column`. A row with nothing in `column` has no parent.
    """
    query = ORPHANS.format(
        key=identifiers(child.key, "t"),
        child=child.sql,
        living=_living(child, "t"),
        column=sql.Identifier(column),
        parent=parent.sql,
        parent_living=_living(parent, "p"),
    )
    return Invariant(name, entity, query, severity)


# The vendor also counts deleted variations, so any variation that was ever known is enough.
INVENTORY_OF_VARIATIONS = """
SELECT i.variation_id, i.location_id FROM square.catalog_inventory i
WHERE i.deleted_at IS NULL AND NOT EXISTS (SELECT FROM square.catalog_variations v WHERE v.id = i.variation_id)
"""

# An item names categories in the old field, the new one, and one for reports.
ITEM_CATEGORIES = """
SELECT i.id FROM square.catalog_items i
WHERE i.deleted_at IS NULL AND i.is_deleted IS NOT TRUE AND EXISTS (
  SELECT FROM (
    SELECT i.category_id UNION SELECT i.reporting_category_id
    UNION SELECT k #>> '{}' FROM jsonb_path_query(i.categories, '$[*].id') k
  ) named (id)
  WHERE named.id IS NOT NULL AND NOT EXISTS (
    SELECT FROM square.catalog_categories c
    WHERE c.id = named.id AND c.deleted_at IS NULL AND c.is_deleted IS NOT TRUE))
"""

# The lines' totals include apportioned charges; a charge says so by its treatment or its phase. Square does not
# document whether a rounding is added or subtracted, so both are right.
ORDER_TOTALS = """
WITH lines AS (
  SELECT order_id, sum(total_money) AS total FROM square.order_line_items WHERE deleted_at IS NULL GROUP BY order_id
), charges AS (
  SELECT o.id AS order_id, sum((amount #>> '{}')::numeric) AS total
  FROM square.orders o, jsonb_path_query(
    o.service_charges, '$[*] ? (!(@.treatment_type == "APPORTIONED_TREATMENT"
      || @.calculation_phase == "APPORTIONED_PERCENTAGE_PHASE"
      || @.calculation_phase == "APPORTIONED_AMOUNT_PHASE")).total_money.amount') amount
  WHERE jsonb_typeof(amount) = 'number' GROUP BY o.id
)
SELECT o.id FROM square.orders o LEFT JOIN lines ON lines.order_id = o.id LEFT JOIN charges ON charges.order_id = o.id
WHERE o.deleted_at IS NULL AND o.total_money IS NOT NULL
  AND abs(coalesce(lines.total, 0) + coalesce(charges.total, 0) + coalesce(o.total_tip_money, 0) - o.total_money)
    NOT IN (0, abs(coalesce(o.rounding_adjustment_money, 0)))
"""

# An amount includes its tip. Orders with returns are left out, since the returned goods pay a part of the total.
ORDER_TENDERS = """
SELECT o.id FROM square.orders o
LEFT JOIN (
  SELECT order_id, sum(amount_money) AS paid FROM square.tenders WHERE deleted_at IS NULL GROUP BY order_id
) t ON t.order_id = o.id
WHERE o.deleted_at IS NULL AND o.state = 'COMPLETED'
  AND NOT EXISTS (SELECT FROM square.order_returns r WHERE r.order_id = o.id AND r.deleted_at IS NULL)
  AND coalesce(t.paid, 0) <> o.total_money - coalesce(o.net_amount_due_money, 0)
"""

REFUNDS_ABOVE_PAYMENT = """
SELECT p.id FROM square.payments p JOIN square.order_refunds r ON r.payment_id = p.id
WHERE p.deleted_at IS NULL AND r.deleted_at IS NULL AND coalesce(r.status, '') NOT IN ('REJECTED', 'FAILED')
GROUP BY p.id HAVING sum(r.amount_money) > p.total_money
"""

# Only in this direction: the history keeps counts that the vendor no longer shows.
STOCK_UNLIKE_HISTORY = """
SELECT i.variation_id, i.location_id FROM square.catalog_inventory i
LEFT JOIN LATERAL (
  SELECT c.quantity, c.calculated_at FROM square.inventory_counts c
  WHERE c.catalog_object_id = i.variation_id AND c.location_id = i.location_id AND c.state = 'IN_STOCK'
    AND c.deleted_at IS NULL
  ORDER BY c.calculated_at DESC LIMIT 1
) newest ON true
WHERE i.deleted_at IS NULL
  AND (i.quantity, i.calculated_at) IS DISTINCT FROM (newest.quantity, newest.calculated_at)
"""

CHECKS = (
    _no_orphans("lines_without_order", "orders", tables.ORDER_LINE_ITEMS, "order_id", tables.ORDERS),
    _no_orphans("fulfillments_without_order", "orders", tables.ORDER_FULFILLMENTS, "order_id", tables.ORDERS),
    _no_orphans("returns_without_order", "orders", tables.ORDER_RETURNS, "order_id", tables.ORDERS),
    # Returned goods may have been sold before the oldest order that Square shows.
    _no_orphans(
        "returns_of_unknown_order", "orders", tables.ORDER_RETURNS, "source_order_id", tables.ORDERS, Severity.WARNING
    ),
    _no_orphans("tenders_without_order", "orders", tables.TENDERS, "order_id", tables.ORDERS),
    _no_orphans("transactions_without_order", "orders", tables.TRANSACTIONS, "id", tables.ORDERS),
    _no_orphans("sales_without_order", "orders", SALES.table, "order_id", tables.ORDERS),
    _no_orphans("orders_without_location", "orders", tables.ORDERS, "location_id", tables.LOCATIONS),
    _no_orphans("payments_without_order", "payments", tables.PAYMENTS, "order_id", tables.ORDERS),
    _no_orphans("payments_without_location", "payments", tables.PAYMENTS, "location_id", tables.LOCATIONS),
    _no_orphans("refunds_without_payment", "order_refunds", tables.ORDER_REFUNDS, "payment_id", tables.PAYMENTS),
    _no_orphans("refunds_without_order", "order_refunds", tables.ORDER_REFUNDS, "order_id", tables.ORDERS),
    _no_orphans(
        "variations_without_item", "catalog_variations", tables.CATALOG_VARIATIONS, "item_id", tables.CATALOG_ITEMS
    ),
    _no_orphans(
        "vendor_infos_without_variation",
        "catalog_variations",
        tables.CATALOG_VENDOR_INFO,
        "variation_id",
        tables.CATALOG_VARIATIONS,
    ),
    _no_orphans(
        "vendor_infos_without_vendor", "catalog_variations", tables.CATALOG_VENDOR_INFO, "vendor_id", tables.VENDORS
    ),
    Invariant("items_without_category", "catalog_items", sql.SQL(ITEM_CATEGORIES), Severity.WARNING),
    Invariant("inventory_without_variation", "catalog_inventory", sql.SQL(INVENTORY_OF_VARIATIONS)),
    _no_orphans(
        "inventory_without_location", "catalog_inventory", tables.CATALOG_INVENTORY, "location_id", tables.LOCATIONS
    ),
    Invariant("stock_unlike_counts", "catalog_inventory", sql.SQL(STOCK_UNLIKE_HISTORY)),
    Invariant("order_totals_unlike_lines", "orders", sql.SQL(ORDER_TOTALS)),
    Invariant("tenders_unlike_order_total", "orders", sql.SQL(ORDER_TENDERS)),
    Invariant("refunds_above_payment", "payments", sql.SQL(REFUNDS_ABOVE_PAYMENT)),
)
