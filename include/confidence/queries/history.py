"""Read the history of one row: its logged changes, and the row as it is now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection, errors, sql
from psycopg.rows import dict_row, tuple_row
from psycopg.types.json import Jsonb

from include.confidence.queries.changes import Difference, change_of
from include.confidence.queries.paging import MAX_PAGE, PAGE, bounded, decode_cursor, make_page


class KeyRefused(ValueError):
    """The key can't be one of a row of this table. The message says why."""


@dataclass(frozen=True)
class RowChange:
    """A logged change of one row.

    - `kind`, `run`, `undoes`: of the sync, repair or rollback that made it
    - `changed_at`: when its transaction began; None for changes logged before this time was recorded
    - `sync_started_at`: when the sync began
    - `operation`, `differences`: see Change
    - `before`, `after`: the whole row; None if there was none. The log has no copy of most inserted rows: `after` is
      then the row as the next change found it. `after_known`: False if that may differ from what was inserted
    """

    change_id: int
    sync_id: int
    kind: str
    run: str
    undoes: int | None
    sync_started_at: datetime
    changed_at: datetime | None
    operation: str
    differences: tuple[Difference, ...]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    after_known: bool


@dataclass(frozen=True)
class RowHistory:
    """One row with a page of its changes, newest first.

    - `table`, `key`: as the change log has them
    - `row_known`: False if the table is not a mirrored one of the warehouse, so the present row is not known here
    - `row`: the row as it is now, None if there is none
    - `kept_since`: changes before this time are not kept; None if all are

    Columns stand in the order of the table.
    """

    table: str
    key: Mapping[str, Any]
    row_known: bool
    row: Mapping[str, Any] | None
    kept_since: datetime | None
    items: tuple[RowChange, ...]
    next_cursor: str | None


def read_history(
    conn: Connection, source: str, table: str, key: Mapping[str, Any], *, cursor: str | None = None, limit: int = PAGE
) -> RowHistory | None:
    """Return the history of a row of the source; None if there is no such row and no change of it.

    `table`: as the change log names it, such as `<source>.<table>`. Raises CursorRefused and KeyRefused.
    """
    row_known, row = _present_row(conn, source, table, key)
    with conn.cursor(row_factory=tuple_row) as found:
        kept = found.execute("SELECT until FROM confidence.dropped_changes WHERE source = %s", [source]).fetchone()
    asked = {"source": source, "table": table, "key": Jsonb(key), "row": None if row is None else Jsonb(row)}
    asked |= {"before": decode_cursor(cursor, int)[0] if cursor else None, "rows": bounded(limit, MAX_PAGE) + 1}
    asked["writers"] = _writers(conn, asked, row)
    with conn.cursor(row_factory=dict_row) as found:
        rows = found.execute(HISTORY, asked).fetchall()
    if row is None and not rows and not cursor:
        return None
    places = _places(conn, table)
    images = [each | {name: _ordered(each[name], places) for name in ("before", "after")} for each in rows]
    page = make_page([_row_change(each) for each in images], limit, lambda change: [change.change_id])
    since = kept[0] if kept else None
    return RowHistory(table, key, row_known, _ordered(row, places), since, page.items, page.next_cursor)


def _places(conn: Connection, table: str) -> Mapping[str, int]:
    """Return the place of each column in the table; empty if the warehouse has no such table."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return dict(cursor.execute(PLACES, [table]).fetchall())


def _ordered(row: Mapping[str, Any] | None, places: Mapping[str, int]) -> Mapping[str, Any] | None:
    """Return the row with its columns in the order of the table: jsonb has none. Others come last."""
    return row and dict(sorted(row.items(), key=lambda column: places.get(column[0], len(places) + 1)))


def logged_tables(conn: Connection, source: str, tables: Sequence[str]) -> dict[str, str]:
    """Return the change log's names of the source's tables, by the plan's names for them, as far as it can know them.

    The change log names a table of the warehouse with its schema, which is the source's name.
    """
    with conn.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(LOGGED, {"source": source, "tables": list(tables)}).fetchall()
    return dict(found)


def _present_row(
    conn: Connection, source: str, table: str, key: Mapping[str, Any]
) -> tuple[bool, Mapping[str, Any] | None]:
    """Return whether the table is a mirrored one of the source, and its row with the key. Raises KeyRefused."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        columns = cursor.execute(KEY_COLUMNS, [source, table]).fetchall()
        if not columns:
            return False, None
        if sorted(key) != sorted(name for name, _ in columns):
            names = ", ".join(name for name, _ in columns)
            raise KeyRefused(f"the key of {table} is made of {names}: name each of them, and nothing else")
        same = [
            sql.SQL("t.{} = {}::{}").format(sql.Identifier(name), sql.Literal(str(key[name])), sql.SQL(type_))
            for name, type_ in columns
        ]
        query = sql.SQL("SELECT to_jsonb(t.*) FROM {} t WHERE {}").format(
            sql.Identifier(source, table.removeprefix(f"{source}.")), sql.SQL(" AND ").join(same)
        )
        try:
            found = cursor.execute(query).fetchone()
        except errors.DataError:
            types = ", ".join(f"{name} ({type_})" for name, type_ in columns)
            raise KeyRefused(f"the key of {table} is made of {types}: a value is not of its type") from None
    if found and any(found[0][name] != value for name, value in key.items()):
        types = ", ".join(f"{name} ({type_})" for name, type_ in columns)
        raise KeyRefused(f"the key of {table} is made of {types}: write each value as the row has it")
    return True, found[0] if found else None


def _writers(conn: Connection, asked: Mapping[str, Any], row: Mapping[str, Any] | None) -> list[int]:
    """Return the sync_ids that the row names, or named when it was changed: one of them has inserted it."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        found = {sync_id for (sync_id,) in cursor.execute(WRITERS, asked)}
    return sorted((found | {row["sync_id"]} if row else found) - {None})


def _row_change(row: Mapping[str, Any]) -> RowChange:
    change = change_of(row)
    same = ("change_id", "sync_id", "kind", "run", "undoes", "changed_at", "before", "after", "after_known")
    return RowChange(
        **{name: row[name] for name in same},
        sync_started_at=row["started_at"],
        operation=change.operation,
        differences=change.differences,
    )


# The index has no entries of rows that a merge has inserted. Each image of the row names the sync that has last written
# it, and so the one that has inserted it. They are asked for by themselves: knowing them, Postgres chooses the index.
WRITERS = """
SELECT DISTINCT (before ->> 'sync_id')::bigint FROM confidence.change_log
WHERE key = %(key)s AND table_name = %(table)s AND (coalesce(before, after) IS NOT NULL OR after_hash IS NULL)
"""

HISTORY = """
WITH logged AS (
  SELECT * FROM confidence.change_log
  WHERE key = %(key)s AND table_name = %(table)s AND (coalesce(before, after) IS NOT NULL OR after_hash IS NULL)
), inserted AS (
  SELECT * FROM confidence.change_log
  WHERE sync_id = ANY (%(writers)s) AND table_name = %(table)s AND key = %(key)s
    AND coalesce(before, after) IS NULL AND after_hash IS NOT NULL
), changes AS (
  SELECT c.*, l.kind, l.run, l.undoes, l.started_at,
    lead(c.before, 1, %(row)s::jsonb) OVER (ORDER BY c.change_id) AS found_next
  FROM (SELECT * FROM logged UNION ALL SELECT * FROM inserted) c JOIN confidence.sync_log l USING (sync_id)
  WHERE l.source = %(source)s
), told AS (
  SELECT *, after IS NULL AND operation = 'insert' AS without_copy,
    coalesce((found_next ->> 'row_hash')::bigint = after_hash, false) AS found_as_inserted
  FROM changes
)
SELECT change_id, sync_id, kind, run, undoes, started_at, changed_at, operation, table_name, key, before,
  CASE WHEN without_copy AND found_as_inserted THEN found_next ELSE after END AS after,
  NOT without_copy OR found_as_inserted AS after_known
FROM told WHERE change_id < %(before)s::numeric OR %(before)s::numeric IS NULL
ORDER BY change_id DESC LIMIT %(rows)s
"""

PLACES = """
SELECT a.attname, a.attnum
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE n.nspname || '.' || c.relname = %s AND NOT a.attisdropped
"""

KEY_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE n.nspname = %s AND n.nspname || '.' || c.relname = %s AND EXISTS (
  SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'row_hash')
ORDER BY a.attnum
"""

LOGGED = """
SELECT t.name, CASE WHEN mirrored THEN %(source)s || '.' || t.name ELSE t.name END
FROM unnest(%(tables)s::text[]) t (name), LATERAL (
  SELECT EXISTS (
    SELECT FROM pg_class WHERE oid = to_regclass(format('%%I.%%I', %(source)s::text, t.name)) AND relkind <> 'c'
  ) AS mirrored) m
WHERE mirrored OR EXISTS (
  SELECT FROM confidence.sync_log s JOIN confidence.change_log c USING (sync_id)
  WHERE s.source = %(source)s AND c.table_name = t.name)
"""
