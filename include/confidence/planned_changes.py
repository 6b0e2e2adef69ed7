"""The plan of each scan row by row, kept in `confidence.planned_change`: people decide by it, and look at it later."""

from collections.abc import Sequence

from psycopg import Connection, sql

from include.confidence.summary import ForensicSummary

# Plans are kept for so long.
DAYS = 30
# The largest number of rows that is kept of the plan of one table.
MOST = 100_000

KEEP = """
INSERT INTO confidence.planned_change (evidence, source, table_name, key, key_values, operation, status, why, looked,
  before, after, differs)
SELECT {evidence}, {source}, {table}, q.key, ARRAY(SELECT value FROM jsonb_each_text(q.key)), q.operation, q.status,
  q.why, q.looked, q.before, q.after,
  CASE WHEN q.operation = 'update' THEN ARRAY(
    SELECT c FROM unnest({columns}::text[]) c WHERE q.before -> c IS DISTINCT FROM q.after -> c
  ) ELSE ARRAY[]::text[] END
FROM ({changes}) q ORDER BY q.status <> 'confirmed', q.operation, q.key LIMIT {most}
"""

EXPIRE = "DELETE FROM confidence.planned_change WHERE planned_at < now() - make_interval(days => %s)"


def keep(
    conn: Connection, summary: ForensicSummary, table: str, columns: Sequence[str], changes: sql.Composable
) -> None:
    """Keep the planned changes of a table, and forget all plans that are older than DAYS.

    - `columns`: those that are compared
    - `changes`: a query for `key` (by column), `operation`, `status`, `why`, `looked`, `before` and `after` (rows as
      jsonb, null where there is none)

    Call it in the transaction that records the scan.
    """
    conn.execute(
        sql.SQL(KEEP).format(
            evidence=sql.Literal(summary.evidence),
            source=sql.Literal(summary.source),
            table=sql.Literal(table),
            columns=sql.Literal(list(columns)),
            changes=changes,
            most=sql.Literal(MOST),
        )
    )
    conn.execute(EXPIRE, [DAYS])
