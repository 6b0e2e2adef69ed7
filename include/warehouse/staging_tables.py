"""The tables of a pull: the staged rows, the plan, and the rows that could not be stored.

They have the columns of the mirrored table and some more. If the mirrored table has changed, they are made again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from psycopg import Connection, sql

from include.warehouse.sql_fragments import identifiers
from include.warehouse.table import Table


@dataclass(frozen=True)
class StagingTables:
    """The three tables of the pull `name`."""

    name: str

    @property
    def stage(self) -> sql.Identifier:
        return sql.Identifier("staging", self.name)

    @property
    def plan(self) -> sql.Identifier:
        """The plan (see compare.py). Only this table outlives the pull."""
        return sql.Identifier("staging", f"{self.name}_plan")

    @property
    def refused(self) -> sql.Identifier:
        return sql.Identifier("staging", f"{self.name}_refused")

    def make_empty(self, conn: Connection, table: Table) -> None:
        """Empty all three tables. If they don't exist, or `table` has changed since, create them again."""
        if self.fit(conn, table):
            _empty(conn, self.stage, self.plan, self.refused)
            return
        self.drop(conn)
        for statement in _statements(self, table):
            conn.execute(statement)
        made_for = sql.Literal(self._made_for(conn, table))
        conn.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(self.plan, made_for))

    def fit(self, conn: Connection, table: Table) -> bool:
        """Return whether the tables exist, and were made for the mirrored `table` as it is now."""
        tables = [each.as_string() for each in (self.plan, self.stage, self.refused)]
        return conn.execute(MADE_FOR, tables).fetchone() == (self._made_for(conn, table),)

    def empty(self, conn: Connection) -> None:
        """Delete the staged and the refused rows. The plan stays."""
        _empty(conn, self.stage, self.refused)

    def empty_plan(self, conn: Connection) -> None:
        """Delete the planned rows, also those that an earlier attempt is just writing."""
        with conn.transaction():
            conn.execute(sql.SQL("LOCK TABLE {}").format(self.plan))
            _empty(conn, self.plan)

    def drop(self, conn: Connection) -> None:
        tables = sql.SQL(", ").join([self.stage, self.plan, self.refused])
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(tables))

    def _made_for(self, conn: Connection, table: Table) -> str:
        """Return a hash of what the tables depend on: the statements that create them, and the mirrored columns."""
        columns = conn.execute(COLUMNS, [table.sql.as_string()]).fetchall()
        text = "".join([*_statements(self, table), *map(str, columns)])
        return hashlib.sha256(text.encode()).hexdigest()


@cache
def _statements(tables: StagingTables, table: Table) -> list[str]:
    """Return the statements that create the tables."""
    names: Mapping[str, sql.Composable] = {
        "stage": tables.stage,
        "plan": tables.plan,
        "refused": tables.refused,
        "table": table.sql,
        "key": identifiers(table.key),
    }
    return [sql.SQL(each).format(**names).as_string() for each in CREATE]


def _empty(conn: Connection, *tables: sql.Identifier) -> None:
    # To find a table empty is much cheaper than to truncate it.
    queries = [sql.SQL("EXISTS (SELECT FROM {})").format(table) for table in tables]
    has_rows = conn.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(queries))).fetchone()
    full = [table for table, found in zip(tables, has_rows, strict=True) if found]
    if full:
        conn.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(full)))


# The plan is a logged table: Postgres empties unlogged ones after a crash, and an empty plan would mean that there is
# nothing to repair.
CREATE = (
    "CREATE UNLOGGED TABLE {stage} (LIKE {table} INCLUDING GENERATED)",
    """
    ALTER TABLE {stage} DROP COLUMN IF EXISTS deleted_at, DROP COLUMN IF EXISTS sync_id,
      ADD _page bigint, ADD _place int, ADD _lacks text[], ADD _unlike text
    """,
    "CREATE INDEX ON {stage} ({key})",
    """
    CREATE UNLOGGED TABLE {refused} (
      key jsonb, reason text, usable boolean, looked boolean DEFAULT false, mended boolean DEFAULT false)
    """,
    "CREATE TABLE {plan} (LIKE {table} INCLUDING GENERATED)",
    """
    ALTER TABLE {plan} DROP COLUMN IF EXISTS deleted_at, DROP COLUMN IF EXISTS sync_id,
      ADD _operation text NOT NULL, ADD _status text NOT NULL, ADD _seen_hash bigint, ADD _seen_deleted boolean,
      ADD _why text, ADD _looked boolean NOT NULL DEFAULT false, ADD _listed boolean NOT NULL DEFAULT true,
      ADD PRIMARY KEY ({key})
    """,
)

COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum AND attgenerated <> ''
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

MADE_FOR = """
SELECT obj_description(to_regclass(%s), 'pg_class')
WHERE to_regclass(%s) IS NOT NULL AND to_regclass(%s) IS NOT NULL
"""
