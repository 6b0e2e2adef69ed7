"""The plan of each scan row by row, kept in `confidence.planned_change`: people decide by it, and look at it later."""

from collections.abc import Sequence

from psycopg import Connection, sql

from include.confidence.summary import ForensicSummary

# The largest number of rows that is kept of the plan of one table.
MOST = 100_000

# Only the rows that are kept become JSON, as `chosen` does not ask for it: a plan may have a million rows. `kept` is
# materialized so that each JSON value is made once, and not for each column that is compared. Several changes may have
# the same place, so the limit is set twice.
KEEP = """
WITH chosen AS MATERIALIZED (
  SELECT place FROM ({changes}) q ORDER BY status <> 'confirmed', operation, place LIMIT {most}
), kept AS MATERIALIZED (
  SELECT * FROM ({changes}) q WHERE place = ANY (ARRAY(SELECT place FROM chosen))
)
INSERT INTO confidence.planned_change (evidence, source, table_name, key, key_values, operation, status, why, looked,
  before, after, differs)
SELECT {evidence}, {source}, {table}, key, ARRAY(SELECT value FROM jsonb_each_text(key)), operation, status, why,
  looked, before, after,
  CASE WHEN operation = 'update' THEN ARRAY(
    SELECT c FROM unnest({columns}::text[]) c WHERE before -> c IS DISTINCT FROM after -> c
  ) ELSE ARRAY[]::text[] END
FROM kept ORDER BY status <> 'confirmed', operation, key LIMIT {most}
"""


def keep(
    conn: Connection, summary: ForensicSummary, table: str, columns: Sequence[str], changes: sql.Composable
) -> None:
    """Keep the planned changes of a table.

    - `columns`: those that are compared
    - `changes`: a query for `place` (names the row of the plan, by its ctid), `key` (by column), `operation`, `status`,
      `why`, `looked`, `before` and `after` (rows as jsonb, null where there is none)

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
