"""Make a column of a field that is kept in `extra`, without asking the vendor: for migrations of `make column`.

The next scan reads the vendor's records by the declared columns, so the values have to be what these readers make of
them. That is why the readers fill the column here too. SQL of its own would be a second opinion.
"""

import re
from collections.abc import Sequence
from decimal import Decimal

import msgspec
from alembic import op
from psycopg import Connection, sql

from include.warehouse.migrations.ddl import hashed
from include.warehouse.table import EXTRA, Column, RowRefused, Table

# How many rows are read and written at a time.
BATCH = 10_000
# As the vendor's answers are decoded.
_decode = msgspec.json.Decoder(float_hook=Decimal).decode

KEPT = "SELECT ctid::text, extra::text FROM {table} WHERE extra ?| {outer}"
MOVED = "CREATE TEMPORARY TABLE moved ON COMMIT DROP AS SELECT ctid AS place, {names}, extra FROM {table} WITH NO DATA"
FILL = "UPDATE {table} t SET {values}, extra = m.extra FROM moved m WHERE t.ctid = m.place"
# In an object within `extra`, or in a new one.
PUT_BACK = "UPDATE {table} SET extra = {put} WHERE {name} IS NOT NULL"
HASH = "ALTER TABLE {table} ALTER row_hash SET EXPRESSION AS ({expression})"
EXPRESSION = """
SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
WHERE attrelid = %s::regclass AND attname = 'row_hash'
"""


def column_from_extra(table: str, column: Column, type_: str) -> None:
    """Add the column to `table` (schema.name) and fill it with its field out of `extra`."""
    columns_from_extra(table, [(column, type_)])


def columns_from_extra(table: str, columns: Sequence[tuple[Column, str]]) -> None:
    """Add the columns, each with its type, to `table` (schema.name) and fill them with their fields out of `extra`.

    If a reader refuses its field, the row's fields stay in `extra`: the next scan refuses the record too. What a reader
    makes nothing of stays there as well. A row without the fields keeps its hash, so older entries of the change log
    still fit.
    """
    conn, parts = _connection(), {"table": sql.Identifier(*table.split("."))}
    expression = _hash_of(conn, table)
    added = sql.SQL(", ").join(
        sql.SQL("ADD {} {}").format(sql.Identifier(column.name), sql.SQL(type_)) for column, type_ in columns
    )
    _execute(conn, "ALTER TABLE {table} {added}", parts | {"added": added})
    _fill(conn, parts, Table("", "", tuple(column for column, _ in columns), key=(), version=None))
    for column, type_ in columns:
        # The name is hashed too: a value that moves to another column is another row.
        expression += (
            f' # CASE WHEN "{column.name}" IS NULL THEN 0'
            f" ELSE hash_record_extended(ROW('{column.name}'::text, {hashed(column.name, type_)}), 0) END"
        )
    _execute(conn, HASH, parts | {"expression": sql.SQL(expression)})


def column_to_extra(table: str, column: Column) -> None:
    """Undo `column_from_extra`: put the values back into `extra`, as JSON of the column's type."""
    conn = _connection()
    parts = {"table": sql.Identifier(*table.split(".")), "name": sql.Identifier(column.name)}
    before = _hash_before(_hash_of(conn, table), column.name)
    _execute(conn, PUT_BACK, parts | {"put": _put(column)})
    _execute(conn, HASH, parts | {"expression": sql.SQL(before)})
    _execute(conn, "ALTER TABLE {table} DROP {name}", parts)


def _fill(conn: Connection, parts: dict[str, sql.Composable], reader: Table) -> None:
    """Move the fields from `extra` to the columns. `reader` has these columns only, and takes `extra` for a record."""
    names = [sql.Identifier(column.name) for column in reader.columns]
    parts = parts | {
        "names": sql.SQL(", ").join(names),
        "values": sql.SQL(", ").join(sql.SQL("{0} = m.{0}").format(name) for name in names),
        "outer": sql.Literal(sorted({column.path[0] for column in reader.columns})),
    }
    _execute(conn, MOVED, parts)
    copy = sql.SQL("COPY moved (place, {names}, extra) FROM STDIN").format(**parts)
    with conn.cursor("kept") as kept:
        kept.execute(sql.SQL(KEPT).format(**parts))
        while rows := kept.fetchmany(BATCH):
            with conn.cursor() as cursor, cursor.copy(copy) as moved:
                for place, extra in rows:
                    try:
                        moved.write_row((place, *reader.row(_decode(extra))))
                    except RowRefused:
                        continue
    _execute(conn, FILL, parts)
    _execute(conn, "DROP TABLE moved", parts)


def _put(column: Column) -> sql.Composed:
    """Return an expression for `extra` with the column's value at its path."""
    put = sql.SQL("coalesce({}, '{{}}')").format(sql.Identifier(EXTRA))
    # Of an object, the column has the one field that it uses.
    path = [*column.path, *(column.uses or ())]
    for depth in range(1, len(path)):
        place = sql.Literal(path[:depth])
        put = sql.SQL("jsonb_set({put}, {place}, coalesce(extra #> {place}, '{{}}'))").format(put=put, place=place)
    value = sql.SQL("to_jsonb({})").format(sql.Identifier(column.name))
    return sql.SQL("jsonb_set({}, {}, {})").format(put, sql.Literal(path), value)


def _hash_of(conn: Connection, table: str) -> str:
    """Return the expression of the table's `row_hash`."""
    return conn.execute(EXPRESSION, [table]).fetchone()[0]


def _hash_before(expression: str, name: str) -> str:
    """Return the expression without the term of the column. Raises ValueError if its end is not that term."""
    found = re.fullmatch(rf'\((.*) #\s+CASE\s+WHEN \("?{name}"? IS NULL\) THEN [^#]*\)', expression, re.DOTALL)
    if not found:
        raise ValueError(f"row_hash was made anew since the column {name} was added: undo the later migrations first")
    return found[1]


def _connection() -> Connection:
    """Return the psycopg connection of the running migration.

    Deferred constraints are checked at once: Postgres alters no table that has rows to be checked later.
    """
    conn = op.get_bind().connection.driver_connection
    conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
    return conn


def _execute(conn: Connection, statement: str, parts: dict[str, sql.Composable]) -> None:
    conn.execute(sql.SQL(statement).format(**parts))
