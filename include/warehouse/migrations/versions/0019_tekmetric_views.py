"""Tekmetric's views: customers for analysts who may not read the tables, and each sync by the kind that it was."""

from alembic import op

from include.warehouse.migrations.ddl import create_role, drop_role

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

ANALYTICS = "tekmetric_analytics"
READERS = f"tekmetric_service, tekmetric_shop, {ANALYTICS}"

COLUMNS = """
SELECT c.id, c.shop_id, c.tm_id, c.customer_type_id, c.customer_type_name, c.tax_exempt, c.ok_for_marketing,
  c.lead_source, c.lead_source_id, c.city, c.state, left(c.zip, 3) AS zip_prefix, c.country,
  coalesce(cardinality(c.email), 0) > 0 AS has_email, c.phone_primary IS NOT NULL AS has_phone,
  (SELECT count(*) FROM tekmetric.vehicles v
   WHERE v.shop_id = c.shop_id AND v.tm_customer_id = c.tm_id AND v.deleted_at IS NULL) AS vehicle_count,
  (SELECT count(*) FROM tekmetric.repair_orders o
   WHERE o.shop_id = c.shop_id AND o.tm_customer_id = c.tm_id AND o.deleted_at IS NULL) AS repair_order_count,
  c.created_date, c.updated_date
FROM tekmetric.customers c
"""

# With its owner's rights, which row level security doesn't hold back, so the view tells each role its shop itself.
CUSTOMERS_ANALYTICS = f"""
CREATE FUNCTION tekmetric.analysed(shop_id bigint) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT tekmetric.visible(shop_id) OR coalesce(current_user = '{ANALYTICS}_' || shop_id, false)
$$;
COMMENT ON FUNCTION tekmetric.analysed IS
  'Whether the role that asks may see what is this shop''s and of no person.';
CREATE VIEW tekmetric.customers_analytics WITH (security_barrier = true) AS
{COLUMNS} WHERE c.deleted_at IS NULL AND tekmetric.analysed(c.shop_id);
COMMENT ON VIEW tekmetric.customers_analytics IS
  'Customers without personal data, for dashboards. Whoever reads it needs no right to the tables beneath.';
"""

CUSTOMERS_BEFORE = f"""
CREATE VIEW tekmetric.customers_analytics WITH (security_invoker = true) AS
{COLUMNS} WHERE c.deleted_at IS NULL;
COMMENT ON VIEW tekmetric.customers_analytics IS 'Customers without personal data, for dashboards.';
"""

SYNC_TYPE = """CASE WHEN {0}kind <> 'sync' THEN {0}kind
    WHEN {0}reason IS NULL THEN 'incremental' WHEN {0}reason = 'full' THEN 'full_backfill'
    WHEN {0}reason = 'snapshot' THEN 'snapshot_rebuild' ELSE {0}reason END"""
SYNC_TYPE_BEFORE = "CASE WHEN {0}kind = 'sync' THEN coalesce({0}reason, 'incremental') ELSE {0}kind END"

SYNC_LOG = """
CREATE OR REPLACE VIEW tekmetric.sync_log WITH (security_barrier = true) AS
SELECT * FROM (
  SELECT l.sync_id AS id, c.shop_id, {of_shop} AS sync_type,
    CASE l.state WHEN 'success' THEN 'completed' ELSE l.state END AS status,
    l.started_at, l.finished_at AS completed_at, round(l.duration_seconds * 1000)::bigint AS duration_ms,
    NULL::bigint AS records_fetched, c.created AS records_created, c.updated AS records_updated,
    c.deleted AS records_deleted, NULL::bigint AS records_skipped, NULL::bigint AS error_count, NULL AS errors
  FROM confidence.sync_log l CROSS JOIN LATERAL (
    SELECT (key ->> 'shop_id')::bigint AS shop_id, count(*) FILTER (WHERE operation = 'insert') AS created,
      count(*) FILTER (WHERE operation = 'update') AS updated, count(*) FILTER (WHERE operation = 'delete') AS deleted
    FROM confidence.change_log WHERE sync_id = l.sync_id AND key ? 'shop_id' GROUP BY 1
  ) c
  WHERE l.source = 'tekmetric'
  UNION ALL
  SELECT sync_id, NULL, {of_all},
    CASE state WHEN 'success' THEN 'completed' ELSE state END, started_at, finished_at,
    round(duration_seconds * 1000)::bigint, rows_read, rows_inserted, rows_updated, rows_deleted, rows_unchanged,
    rows_failed, error
  FROM confidence.sync_log WHERE source = 'tekmetric'
) s WHERE tekmetric.visible(shop_id)
"""


def upgrade() -> None:
    create_role(ANALYTICS)
    op.execute(f"GRANT USAGE ON SCHEMA tekmetric TO {ANALYTICS}")
    op.execute("DROP VIEW tekmetric.customers_analytics")
    op.execute(CUSTOMERS_ANALYTICS)
    op.execute(f"GRANT SELECT ON tekmetric.customers_analytics TO {READERS}")
    op.execute(SYNC_LOG.format(of_shop=SYNC_TYPE.format("l."), of_all=SYNC_TYPE.format("")))


def downgrade() -> None:
    op.execute(SYNC_LOG.format(of_shop=SYNC_TYPE_BEFORE.format("l."), of_all=SYNC_TYPE_BEFORE.format("")))
    op.execute("DROP VIEW tekmetric.customers_analytics")
    op.execute("DROP FUNCTION tekmetric.analysed")
    op.execute(CUSTOMERS_BEFORE)
    op.execute("GRANT SELECT ON tekmetric.customers_analytics TO tekmetric_service, tekmetric_shop")
    op.execute(f"REVOKE USAGE ON SCHEMA tekmetric FROM {ANALYTICS}")
    drop_role(ANALYTICS)
