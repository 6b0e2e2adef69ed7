"""Roll back the tables of a mirror: find rows that have changed since, restore the others from the change log."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from psycopg import Connection, sql

from include.warehouse.rollback import Conflict
from include.warehouse.sql_fragments import identifiers, key_object, pairs, same_key
from include.warehouse.sync_log import Counts


@dataclass(frozen=True)
class Tables:
    """The copy of a mirror: tables in the warehouse itself. Its methods are those of Copy."""

    conn: Connection

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()

    def conflicts(self, sync_id: int) -> list[Conflict]:
        return [found for name in self._changed(sync_id) for found in _conflicts(self.conn, name, sync_id)]

    def restore(self, sync_id: int, rollback_id: int, *, dry_run: bool) -> Mapping[str, Counts]:
        restored: dict[str, Counts] = {}
        for name in self._changed(sync_id):
            for table, counts in _restore(self.conn, name, sync_id, rollback_id).items():
                restored[table] = restored.get(table, Counts()) + counts
        return restored

    def _changed(self, sync_id: int) -> list[str]:
        """Return the tables to restore, in an order that keeps foreign keys intact."""
        return [name for (name,) in self.conn.execute(CHANGED, [sync_id])]


def _conflicts(conn: Connection, name: str, sync_id: int) -> list[Conflict]:
    """Return the conflicts of restoring a table: its rows that have changed since, and rows that later refer to them.

    To undo an insert removes the row, and by foreign keys the rows that refer to it. Those that the sync did not write
    itself are conflicts too.
    """
    parts = _parts(conn, name, sync_id)
    found = []
    if changed := conn.execute(sql.SQL(CONFLICTS).format(**parts)).fetchall():
        later = sorted({number for _, numbers in changed for number in numbers or ()})
        found.append(Conflict.of_rows(name, _by(later), [key for key, _ in changed], later))
    for child in _children(conn, name):
        query = sql.SQL(ADDED).format(**parts, **child.parts, child_key=key_object(_key(conn, child.name), "ch"))
        if referring := conn.execute(query).fetchall():
            later = sorted({number for _, number in referring if number != sync_id})
            who = f"{_by(later)}, which would be removed with their rows of {name}"
            found.append(Conflict.of_rows(child.name, who, [key for key, _ in referring], later))
    return found


def _by(later: Sequence[int]) -> str:
    return f"by sync_id {', '.join(map(str, later))}" if later else "by hand or by a migration"


def _restore(conn: Connection, name: str, sync_id: int, rollback_id: int) -> dict[str, Counts]:
    """Put back the rows of the table `name` that `sync_id` changed; return the counts by table.

    Rows of other tables that refer to a row which the sync inserted are removed with it.
    """
    parts = _parts(conn, name, sync_id) | {"rollback_id": sql.Literal(rollback_id)}
    removed = _remove(conn, name, sql.SQL(INSERTED).format(**parts), rollback_id)
    updated = conn.execute(sql.SQL(RESTORE_CHANGED).format(**parts)).fetchone()[0]
    inserted = conn.execute(sql.SQL(RESTORE_REMOVED).format(**parts)).fetchone()[0]
    counts = {table: Counts(deleted=rows) for table, rows in removed.items()}
    return counts | {name: Counts(inserted=inserted, updated=updated, deleted=removed[name])}


def _remove(conn: Connection, name: str, places: sql.Composable, rollback_id: int) -> Counter[str]:
    """Delete rows for good, without a tombstone, and log them; return how many, by table.

    `places`: a query for the ctids of the rows. Rows that Postgres would delete with them, by foreign keys, are removed
    first: the change log would lack them.
    """
    removed: Counter[str] = Counter()
    if not conn.execute(sql.SQL("SELECT EXISTS ({})").format(places)).fetchone()[0]:
        return removed
    target = sql.Identifier(*name.split("."))
    for child in _children(conn, name):
        removed += _remove(
            conn, child.name, sql.SQL(OF_PARENTS).format(target=target, places=places, **child.parts), rollback_id
        )
    parts = {
        "name": sql.Literal(name),
        "rollback_id": sql.Literal(rollback_id),
        "key": key_object(_key(conn, name), "t"),
    }
    removed[name] += conn.execute(sql.SQL(REMOVE).format(target=target, places=places, **parts)).fetchone()[0]
    return removed


@dataclass(frozen=True)
class _Child:
    """A table with a foreign key ON DELETE CASCADE: its `columns` refer to the columns `referred` of another table."""

    name: str
    columns: tuple[str, ...]
    referred: tuple[str, ...]

    @property
    def parts(self) -> dict[str, sql.Composable]:
        """The parts of the statements below: the child has the alias `ch`, the table that it refers to `t`."""
        return {
            "child": sql.Identifier(*self.name.split(".")),
            "child_name": sql.Literal(self.name),
            "refers": pairs(self.columns, "ch", self.referred, "t"),
        }


def _children(conn: Connection, name: str) -> list[_Child]:
    """Return the tables that refer to the table `name` by a foreign key ON DELETE CASCADE."""
    return [
        _Child(child, tuple(columns), tuple(referred)) for child, columns, referred in conn.execute(CHILDREN, [name])
    ]


def _parts(conn: Connection, name: str, sync_id: int) -> dict[str, sql.Composable]:
    """Return the parts of the statements below, by the names in their braces, for one table and sync."""
    schema, table = name.split(".")
    columns = conn.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
        " AND is_generated = 'NEVER' ORDER BY ordinal_position",
        [schema, table],
    ).fetchall()
    target = sql.Identifier(schema, table)
    names = _key(conn, name)
    return {
        "target": target,
        "name": sql.Literal(name),
        "sync_id": sql.Literal(sync_id),
        "same": same_key(names, "t", "k"),
        "key_object": key_object(names, "new"),
        "columns": identifiers([c for (c,) in columns]),
        "b_columns": identifiers([c for (c,) in columns], "b"),
        # The sync's changes, each with its key as typed columns (k).
        "changes": sql.SQL(
            "(SELECT * FROM confidence.change_log WHERE sync_id = {} AND table_name = {}) c"
            " CROSS JOIN LATERAL jsonb_populate_record(NULL::{}, c.key) k"
        ).format(sql.Literal(sync_id), sql.Literal(name), target),
    }


def _key(conn: Connection, name: str) -> tuple[str, ...]:
    """Return the columns of the table's primary key."""
    query = (
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
        " WHERE i.indisprimary AND i.indrelid = format('%%I.%%I', %s::text, %s::text)::regclass"
    )
    return tuple(column for (column,) in conn.execute(query, name.split(".")))


# A table comes before those that it refers to by foreign keys, so that a row is counted where the sync inserted it.
CHANGED = """
WITH RECURSIVE changed AS (
  SELECT DISTINCT table_name AS name FROM confidence.change_log WHERE sync_id = %s
), referred AS (
  SELECT name, to_regclass(name)::oid AS relation FROM changed
  UNION
  SELECT name, confrelid FROM referred JOIN pg_constraint ON conrelid = relation AND contype = 'f'
)
SELECT name FROM referred GROUP BY name ORDER BY count(*) DESC, name
"""

# A row has changed since the sync if its content or its tombstone has, or if the sync removed it and it is back.
CONFLICTS = """
SELECT c.key, (SELECT array_agg(DISTINCT l.sync_id) FROM confidence.change_log l
               WHERE l.table_name = {name} AND l.key = c.key AND l.sync_id > {sync_id})
FROM {changes} LEFT JOIN {target} t ON {same}
WHERE CASE WHEN c.after_hash IS NULL THEN t.sync_id IS NOT NULL
      ELSE t.row_hash IS DISTINCT FROM c.after_hash
        OR (t.deleted_at IS NULL) <> (c.after IS NULL OR c.after ->> 'deleted_at' IS NULL) END
ORDER BY c.change_id
"""

CHILDREN = """
SELECT n.nspname || '.' || c.relname,
  ARRAY(SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY u (number, place)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY place),
  ARRAY(SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY u (number, place)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY place)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confdeltype = 'c' AND k.confrelid = to_regclass(%s) ORDER BY 1, 2
"""

# Rows that refer to a row that the sync inserted, and were written by something else. Rows that the sync wrote itself
# are no conflict: they get their earlier reference back before the inserted rows are removed.
ADDED = """
SELECT {child_key}, ch.sync_id FROM {changes} JOIN {target} t ON {same} JOIN {child} ch ON {refers}
WHERE c.operation = 'insert' AND NOT EXISTS (
  SELECT FROM confidence.change_log o
  WHERE o.sync_id = {sync_id} AND o.table_name = {child_name} AND o.key = {child_key})
ORDER BY 1
"""

# The rows that the sync inserted: the rollback removes them.
INSERTED = "SELECT t.ctid FROM {target} t, {changes} WHERE {same} AND c.operation = 'insert'"

OF_PARENTS = "SELECT ch.ctid FROM {child} ch JOIN {target} t ON {refers} WHERE t.ctid IN ({places})"

REMOVE = """
WITH gone AS (
  DELETE FROM {target} t WHERE t.ctid IN ({places}) RETURNING {key} AS key, to_jsonb(t.*) AS before
), audit AS (
  INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before)
  SELECT {rollback_id}, {name}, key, 'delete', before FROM gone
)
SELECT count(*) FROM gone
"""

RESTORE_CHANGED = """
WITH old AS (
  SELECT c.key, c.before AS wanted, to_jsonb(t.*) AS found FROM {changes} JOIN {target} t ON {same}
  WHERE c.operation <> 'insert'
), new AS (
  UPDATE {target} t SET ({columns}) = ROW({b_columns})
  FROM old CROSS JOIN LATERAL jsonb_populate_record(NULL::{target}, old.wanted) b
    CROSS JOIN LATERAL jsonb_populate_record(NULL::{target}, old.key) k
  WHERE {same}
  RETURNING old.key, old.found, to_jsonb(t.*) AS after, t.row_hash, t.deleted_at
), audit AS (
  INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after, after_hash)
  SELECT {rollback_id}, {name}, key, CASE WHEN deleted_at IS NULL THEN 'update' ELSE 'delete' END,
    found, after, row_hash
  FROM new
)
SELECT count(*) FROM new
"""

RESTORE_REMOVED = """
WITH new AS (
  INSERT INTO {target} AS t ({columns})
  SELECT {b_columns} FROM {changes} CROSS JOIN LATERAL jsonb_populate_record(NULL::{target}, c.before) b
  WHERE c.operation <> 'insert' AND NOT EXISTS (SELECT FROM {target} t WHERE {same})
  RETURNING t.*
), audit AS (
  INSERT INTO confidence.change_log (sync_id, table_name, key, operation, after, after_hash)
  SELECT {rollback_id}, {name}, {key_object}, 'insert', to_jsonb(new.*), row_hash FROM new
)
SELECT count(*) FROM new
"""
