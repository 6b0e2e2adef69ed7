"""Look up which unique key of a table serves `INSERT ... ON CONFLICT (columns)`."""

from collections.abc import Collection

from psycopg import sql

# The unique indexes over exactly the given columns, in any order. INCLUDE columns are not counted.
INDEXES = sql.SQL("""
SELECT i.indexrelid, i.indimmediate FROM pg_index i
WHERE i.indrelid = {table}::regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND {columns} = ARRAY(
    SELECT a.attname::text COLLATE "C" FROM pg_attribute a
    WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) ORDER BY 1)
""")

# If one of the indexes is deferrable, Postgres refuses the statement, whatever other indexes there are.
KEY = sql.SQL("""
SELECT min(indexrelid::regclass::text) AS key FROM ({indexes}) AS indexes HAVING bool_and(indimmediate)
""")

DEFERRABLE = sql.SQL("""
SELECT c.conname, pg_get_constraintdef(c.oid) FROM ({indexes}) AS indexes
JOIN pg_constraint c ON c.conindid = indexes.indexrelid WHERE NOT indimmediate
""")


def key_query(table: str, columns: Collection[str]) -> str:
    """Return the SQL that names the unique key over exactly these columns: one row, or none if no key serves."""
    return KEY.format(indexes=_indexes(table, columns)).as_string()


def deferrable_query(table: str, columns: Collection[str]) -> str:
    """Return the SQL for the deferrable keys over these columns, which keep any other from serving.

    Its rows have the name and the definition of each.
    """
    return DEFERRABLE.format(indexes=_indexes(table, columns)).as_string()


def _indexes(table: str, columns: Collection[str]) -> sql.Composed:
    return INDEXES.format(table=sql.Literal(table), columns=sql.Literal(sorted(columns)))
