"""Find out whether planned rows were changed in the copy by something other than a sync or repair."""

from psycopg import sql

from include.warehouse.chance import LIFT
from include.warehouse.patterns import SHARE, Operation, Pattern
from include.warehouse.sql_fragments import key_object
from include.warehouse.staging import Stage


def find_edited(stage: Stage, operation: Operation, planned: sql.Composable, others: sql.Composable) -> list[Pattern]:
    """Return the fact that most planned rows differ from what the last sync wrote there; no fact if they don't.

    `planned`: a query for the planned rows. `others`: a query for some rows that are in step. If about as many of these
    were edited, it is no fact: a migration that computes all hashes again looks like an edit of every row.
    """
    table = stage.table
    parts = {"key": key_object(table.key, "q"), "table_name": sql.Literal(table.full_name)}
    edited, of = stage.conn.execute(sql.SQL(EDITED).format(rows=planned, **parts)).fetchone()
    # Unlike other facts it needs no least number of rows: it was not picked from many columns, where chance would help.
    if not edited or edited < SHARE * of:
        return []
    edited_others, of_others = stage.conn.execute(sql.SQL(EDITED).format(rows=others, **parts)).fetchone()
    if not of_others or edited / of < LIFT * edited_others / of_others:
        return []
    return [Pattern(table.name, operation, "edited", "", None, edited, of)]


# Materialized: Postgres takes both for small, and would look for each row in the log by itself.
EDITED = """
WITH q AS MATERIALIZED (SELECT {key} AS key, sync_id, row_hash FROM ({rows}) q),
logged AS MATERIALIZED (
  SELECT sync_id, key, after_hash FROM confidence.change_log
  WHERE table_name = {table_name} AND sync_id = ANY (ARRAY(SELECT DISTINCT sync_id FROM q)) AND after_hash IS NOT NULL
    AND key IN (SELECT key FROM q)
)
SELECT count(*) FILTER (WHERE EXISTS (SELECT FROM logged l WHERE (l.sync_id, l.key) = (q.sync_id, q.key))
    AND NOT EXISTS (SELECT FROM logged l WHERE (l.sync_id, l.key, l.after_hash) = (q.sync_id, q.key, q.row_hash))),
  count(*)
FROM q
"""
