"""Unique keys, as `INSERT ... ON CONFLICT (columns)` needs them."""

from collections.abc import Collection

from psycopg import sql

# Its columns may be in any order, and others may be included.
INDEXES = sql.SQL("""
SELECT i.indexrelid, i.indimmediate FROM pg_index i
WHERE i.indrelid = {table}::regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND {columns} = ARRAY(
    SELECT a.attname::text COLLATE "C" FROM pg_attribute a
    WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) ORDER BY 1)
""")

# With a deferrable one beside it no other serves: Postgres refuses the statement.
KEY = sql.SQL("""
SELECT min(indexrelid::regclass::text) AS key FROM ({indexes}) AS indexes HAVING bool_and(indimmediate)
""")

DEFERRABLE = sql.SQL("""
SELECT c.conname, pg_get_constraintdef(c.oid) FROM ({indexes}) AS indexes
JOIN pg_constraint c ON c.conindid = indexes.indexrelid WHERE NOT indimmediate
""")


def key_query(table: str, columns: Collection[str]) -> str:
    """A query for the unique key over exactly these columns, whatever its name: one row, or none if none serves."""
    return KEY.format(indexes=_indexes(table, columns)).as_string()


def deferrable_query(table: str, columns: Collection[str]) -> str:
    """A query for the deferrable keys over these columns, which keep others from serving: name and definition."""
    return DEFERRABLE.format(indexes=_indexes(table, columns)).as_string()


def _indexes(table: str, columns: Collection[str]) -> sql.Composed:
    return INDEXES.format(table=sql.Literal(table), columns=sql.Literal(sorted(columns)))
