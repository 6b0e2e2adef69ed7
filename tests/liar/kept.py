"""Putting a database back to how it was: rows and sequences, in a fraction of the time that a new copy takes."""

import psycopg
from psycopg import sql

TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'kept')
ORDER BY 1, 2
"""
COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum
"""
SEQUENCES = (
    "SELECT schemaname, sequencename, coalesce(last_value, start_value), last_value IS NOT NULL FROM pg_sequences"
)


class Kept:
    """The state of a database at one moment. What comes later goes when it is put back."""

    def __init__(self, conn: psycopg.Connection) -> None:
        """Keep the state as it is now, in a schema `kept` of the database."""
        conn.execute("CREATE SCHEMA kept")
        self._tables = conn.execute(TABLES).fetchall()
        parts = [sql.SQL("SET LOCAL session_replication_role = replica")]
        for schema, name in self._tables:
            table, kept = sql.Identifier(schema, name), sql.Identifier("kept", f"{schema}.{name}")
            columns = [column for (column,) in conn.execute(COLUMNS, [f'"{schema}"."{name}"'])]
            named = sql.SQL(", ").join(map(sql.Identifier, columns))
            parts.append(sql.SQL("DELETE FROM {}").format(table))
            if conn.execute(sql.SQL("CREATE TABLE {} AS SELECT {} FROM {}").format(kept, named, table)).rowcount:
                query = "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}"
                parts.append(sql.SQL(query).format(table, named, named, kept))
        for schema, name, value, called in conn.execute(SEQUENCES).fetchall():
            query = "SELECT setval({}::regclass, {}, {})"
            parts.append(sql.SQL(query).format(*map(sql.Literal, (f'"{schema}"."{name}"', value, called))))
        self._restore = sql.SQL("; ").join(parts)

    def put_back(self, conn: psycopg.Connection) -> None:
        with conn.transaction():
            known = set(self._tables)
            for schema, name in conn.execute(TABLES).fetchall():
                if (schema, name) not in known:
                    # Staging tables are used again.
                    forget = "DELETE FROM {}" if schema == "staging" else "DROP TABLE {}"
                    conn.execute(sql.SQL(forget).format(sql.Identifier(schema, name)))
            conn.execute(self._restore)
