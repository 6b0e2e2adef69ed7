"""Tables computed from Square's: where items are sold, the sales, and the item library as the vendor exports it."""

from include.sources.mirror.derive import Derived
from include.sources.square.tables import SCHEMA
from include.warehouse.table import Column, Table


def _table(name: str, names: str, key: str) -> Table:
    return Table(SCHEMA, name, tuple(map(Column, names.split())), tuple(key.split()), version=None, keeps_extra=False)


# An item is sold out at a location if one of its variations is. Archived items and closed locations are included.
AVAILABILITY = Derived(
    _table("catalog_location_availability", "item_id location_id sold_out", "item_id location_id"),
    """
WITH sold_out AS (
  SELECT DISTINCT v.item_id, o ->> 'location_id' AS location_id
  FROM square.catalog_variations v, jsonb_array_elements(v.location_overrides) o
  WHERE v.is_deleted IS NOT TRUE AND v.deleted_at IS NULL AND o ->> 'sold_out' = 'true'
    AND coalesce(nullif(o ->> 'sold_out_valid_until', '')::timestamptz > now(), true)
)
SELECT i.id, l.id, s.item_id IS NOT NULL
FROM square.catalog_items i CROSS JOIN square.locations l
LEFT JOIN sold_out s ON s.item_id = i.id AND s.location_id = l.id
WHERE i.is_deleted IS NOT TRUE AND i.deleted_at IS NULL AND l.deleted_at IS NULL
  AND square.present(i.present_at_all_locations, i.present_at_location_ids, i.absent_at_location_ids, l.id)
""",
)

# A return is an order without line items, and no sale. An exchange has line items, so it is one. Amounts are in minor
# units.
SALES = Derived(
    _table(
        "square_sales",
        "order_id location_id created_at amount currency status payment_id item_count",
        "order_id",
    ),
    """
WITH lines AS (
  SELECT order_id, count(*) AS item_count FROM square.order_line_items WHERE deleted_at IS NULL GROUP BY order_id
), paid AS (
  SELECT DISTINCT ON (order_id) order_id, coalesce(payment_id, id) AS payment_id
  FROM square.tenders WHERE deleted_at IS NULL ORDER BY order_id, created_at, id
)
SELECT o.id, o.location_id, o.created_at, o.total_money, o.currency, o.state, paid.payment_id,
  coalesce(lines.item_count, 0)
FROM square.orders o
LEFT JOIN lines ON lines.order_id = o.id
LEFT JOIN paid ON paid.order_id = o.id
WHERE o.state = 'COMPLETED' AND o.deleted_at IS NULL
  AND (lines.order_id IS NOT NULL OR NOT EXISTS (
    SELECT FROM square.order_returns r WHERE r.order_id = o.id AND r.deleted_at IS NULL))
""",
)

# The columns of the vendor's export that the catalog can fill. `locations` holds the columns that the export has for
# each location, by the location's name. The API does not show some of the export's columns (reference handle,
# customer-facing name, weight, social media, online sale price, shipping, delivery, pickup and self-serve ordering).
# Others are in objects that are not mirrored: names of options, taxes, modifier sets and units.
ITEM_LIBRARY = Derived(
    _table(
        "square_item_library_export",
        "token item_id item_name abbreviation variation_name ordinal sku gtin description description_html"
        " categories reporting_category item_type seo_title seo_description permalink square_online_item_visibility"
        " pricing_type price currency default_unit_cost default_unit_cost_currency default_vendor_name"
        " default_vendor_code archived sellable stockable track_inventory stock_alert_enabled stock_alert_count"
        " contains_alcohol skip_detail_screen_in_pos taxable tax_ids measurement_unit_id units_per_case locations",
        "token",
    ),
    """
WITH places AS (
  SELECT id, CASE WHEN count(*) OVER (PARTITION BY name) > 1 OR name IS NULL THEN concat_ws(' ', name, id)
    ELSE name END AS name
  FROM square.locations WHERE deleted_at IS NULL
), bought AS (
  SELECT DISTINCT ON (b.variation_id) b.variation_id, b.sku, v.name
  FROM square.catalog_vendor_info b LEFT JOIN square.vendors v ON v.id = b.vendor_id AND v.deleted_at IS NULL
  WHERE b.deleted_at IS NULL AND b.is_deleted IS NOT TRUE ORDER BY b.variation_id, b.ordinal, b.id
), filing AS (
  SELECT i.id, k #>> '{}' AS category_id FROM square.catalog_items i, jsonb_path_query(i.categories, '$[*].id') k
  UNION
  SELECT id, category_id FROM square.catalog_items WHERE categories IS NULL
), filed AS (
  SELECT f.id, string_agg(c.name, ', ' ORDER BY c.name, c.id) AS categories
  FROM filing f JOIN square.catalog_categories c ON c.id = f.category_id
  WHERE c.deleted_at IS NULL AND c.is_deleted IS NOT TRUE
  GROUP BY f.id
)
SELECT v.id, i.id, i.name, i.abbreviation, v.name, v.ordinal, v.sku, v.upc, i.description, i.description_html,
  filed.categories, r.name, i.product_type, i.ecom_seo_data ->> 'page_title', i.ecom_seo_data ->> 'page_description',
  i.ecom_seo_data ->> 'permalink', i.ecom_visibility, v.pricing_type, v.price_money, v.price_currency,
  v.default_unit_cost, v.default_unit_cost_currency, bought.name, bought.sku, coalesce(i.is_archived, false),
  v.sellable, v.stockable, v.track_inventory, coalesce(v.inventory_alert_type = 'LOW_QUANTITY', false),
  v.inventory_alert_threshold, i.is_alcoholic, i.skip_modifier_screen, i.is_taxable, i.tax_ids, v.measurement_unit_id,
  coalesce(v.units_per_case, i.units_per_case), coalesce(sold.at, '{}')
FROM square.catalog_variations v
JOIN square.catalog_items i ON i.id = v.item_id AND i.is_deleted IS NOT TRUE AND i.deleted_at IS NULL
LEFT JOIN square.catalog_categories r
  ON r.id = i.reporting_category_id AND r.is_deleted IS NOT TRUE AND r.deleted_at IS NULL
LEFT JOIN filed ON filed.id = i.id
LEFT JOIN bought ON bought.variation_id = v.id
CROSS JOIN LATERAL (
  SELECT jsonb_object_agg(p.name, jsonb_build_object(
    'location_id', p.id,
    'enabled', square.present(i.present_at_all_locations, i.present_at_location_ids, i.absent_at_location_ids, p.id)
      AND square.present(v.present_at_all_locations, v.present_at_location_ids, v.absent_at_location_ids, p.id),
    'price', CASE WHEN coalesce(o ->> 'pricing_type', v.pricing_type) IS DISTINCT FROM 'VARIABLE_PRICING'
      THEN coalesce(nullif(o #>> '{price_money,amount}', '')::numeric::bigint, v.price_money) END,
    'current_quantity', q.quantity,
    'stock_alert_enabled', coalesce(o ->> 'inventory_alert_type', v.inventory_alert_type, '') = 'LOW_QUANTITY',
    'stock_alert_count',
      coalesce(nullif(o ->> 'inventory_alert_threshold', '')::numeric::bigint, v.inventory_alert_threshold)
  )) AS at
  FROM places p
  LEFT JOIN jsonb_array_elements(v.location_overrides) o ON o ->> 'location_id' = p.id
  LEFT JOIN square.catalog_inventory q ON q.variation_id = v.id AND q.location_id = p.id AND q.deleted_at IS NULL
) sold
WHERE v.is_deleted IS NOT TRUE AND v.deleted_at IS NULL
""",
)

DERIVED = (AVAILABILITY, SALES, ITEM_LIBRARY)
