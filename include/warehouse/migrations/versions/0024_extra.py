"""The column `extra` of every mirrored table: the fields of a record that no other column reads.

It is part of `row_hash`. A row without extra fields keeps its hash, so older entries of the change log still fit.
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# By schema: the tables whose rows are the source's records, or come inside them.
TABLES = {
    "repairshopr": "customers invoices line_items payments products tickets estimates",
    "square": "locations vendors catalog_categories catalog_items catalog_variations catalog_vendor_info"
    " catalog_inventory inventory_counts orders order_line_items order_fulfillments order_returns tenders payments"
    " order_refunds",
    "tekmetric": "employees customers vehicles repair_orders jobs job_parts job_labor job_sublets job_fees",
}

SINCE = """
CREATE TABLE confidence.extra_since (source text PRIMARY KEY, sync_id bigint NOT NULL);
COMMENT ON TABLE confidence.extra_since IS
  'Rows of the copy that this sync or an earlier one wrote have no extra, whatever the source has sent: it was not '
  'kept then. Sources that were never synced before are not named.';
INSERT INTO confidence.extra_since
SELECT source, max(sync_id) FROM confidence.sync_log WHERE source = ANY (string_to_array('{sources}', ' '))
GROUP BY source;
"""

# The new expression has the old one in it.
COLUMN = """
DO $$
DECLARE
  content text := (
    SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
    WHERE attrelid = '{table}'::regclass AND attname = 'row_hash');
BEGIN
  ALTER TABLE {table} ADD extra jsonb;
  EXECUTE format('ALTER TABLE {table} ALTER row_hash SET EXPRESSION AS '
    '(%s # coalesce(hashtextextended(extra::text, 1), 0))', content);
END $$
"""

# The expression before is the left side of the operator.
DROP_COLUMN = """
DO $$
DECLARE
  content text := (
    SELECT substring(pg_get_expr(adbin, adrelid) FROM
      '^\\((.*) # COALESCE\\(hashtextextended\\(\\(extra\\)::text.*\\)$')
    FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
    WHERE attrelid = '{table}'::regclass AND attname = 'row_hash');
BEGIN
  EXECUTE format('ALTER TABLE {table} ALTER row_hash SET EXPRESSION AS (%s)', content);
  ALTER TABLE {table} DROP extra;
END $$
"""


def upgrade() -> None:
    op.execute(SINCE.format(sources=" ".join(TABLES)))
    for table in _tables():
        op.execute(COLUMN.format(table=table))
        op.execute(f"COMMENT ON COLUMN {table}.extra IS 'What the source sends and no other column has.'")


def downgrade() -> None:
    for table in _tables():
        op.execute(DROP_COLUMN.format(table=table))
    op.execute("DROP TABLE confidence.extra_since")


def _tables() -> list[str]:
    return [f"{schema}.{name}" for schema, names in TABLES.items() for name in names.split()]
