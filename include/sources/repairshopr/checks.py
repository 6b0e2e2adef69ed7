"""Metrics of line items besides those of every mirror, and which of them are judged."""

from collections.abc import Mapping

from psycopg import Connection, sql

from include.confidence.policy import Trend
from include.sources.mirror.entity import DRIFT

# The list always shows some rows twice, so only a rise of these metrics is a sign of drift.
LINE_ITEM_GATES = (
    *DRIFT,
    Trend("api_duplicate_rows"),
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


METRICS: Mapping[str, str] = {
    "missing_invoice_ids_count": "Invoices whose line items are missing in the copy.",
    "missing_invoice_ids_without_parent_invoice_row": "Invoices whose line items are missing in the copy, "
    "and which the copy lacks as well.",
    "db_null_parent_invoice_id_count": "Live line items of the copy without an invoice in the copy.",
}


def line_item_forensics(conn: Connection, plan: sql.Identifier) -> Mapping[str, int]:
    """Count invoices with missing lines, those of them that the copy lacks, and the copy's lines without an invoice."""
    missing, without_parent = conn.execute(sql.SQL(MISSING).format(plan=plan)).fetchone()
    (orphans,) = conn.execute(ORPHANS).fetchone()
    return {
        "missing_invoice_ids_count": missing,
        "missing_invoice_ids_without_parent_invoice_row": without_parent,
        "db_null_parent_invoice_id_count": orphans,
    }
