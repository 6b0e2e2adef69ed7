"""What the original's forensic pass knew of line items beyond missing and surplus rows."""

from collections.abc import Mapping

from psycopg import Connection, sql

from include.confidence.policy import Trend

# The four metrics that the runbook names. The feed shows rows twice by its nature: only growth of it is a sign.
LINE_ITEM_GATES = (
    Trend("api_duplicate_rows"),
    Trend("api_unique_not_in_db"),
    Trend("missing_invoice_ids_without_parent_invoice_row"),
    Trend("db_null_parent_invoice_id_count"),
)

MISSING = """
WITH missing AS (
  SELECT DISTINCT invoice_id FROM {plan}
  WHERE _operation = 'insert' AND _status <> 'young' AND invoice_id IS NOT NULL
)
SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (
  SELECT FROM repairshopr.invoices i WHERE i.id = missing.invoice_id AND i.deleted_at IS NULL))
FROM missing
"""

ORPHANS = """
SELECT count(*) FROM repairshopr.line_items l WHERE deleted_at IS NULL AND NOT EXISTS (
  SELECT FROM repairshopr.invoices i WHERE i.id = l.invoice_id AND i.deleted_at IS NULL)
"""


def line_item_forensics(conn: Connection, plan: sql.Identifier) -> Mapping[str, int]:
    """Missing lines by invoice, and lines of the copy whose invoice is unknown or missing there."""
    missing, without_parent = conn.execute(sql.SQL(MISSING).format(plan=plan)).fetchone()
    (orphans,) = conn.execute(ORPHANS).fetchone()
    return {
        "missing_invoice_ids_count": missing,
        "missing_invoice_ids_without_parent_invoice_row": without_parent,
        "db_null_parent_invoice_id_count": orphans,
    }
