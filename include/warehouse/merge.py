"""Apply a plan to the copy, and each change only if the row is still as the plan saw it.

Each change that is made gets an entry in the change log.
"""

from dataclasses import dataclass

from psycopg import Connection, sql

from include.warehouse.sql_fragments import identifiers, key_object, same_key
from include.warehouse.table import Table

# After a change of this share of a table's rows its statistics are renewed. Autovacuum's default is the same.
OUTDATED = 0.1


@dataclass(frozen=True)
class Merged:
    """How many rows were written. `superseded`: planned changes left out because the row is not as the plan saw it."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    superseded: int = 0


def apply_plan(conn: Connection, table: Table, plan: sql.Identifier, sync_id: int) -> Merged:
    """Apply the confirmed changes of `plan` under `sync_id`, in a transaction of `fence.writing`.

    A delete sets a tombstone. A row that comes back over its tombstone counts as inserted, and the change log has it as
    an update.
    """
    parts = {
        "plan": plan,
        "target": table.sql,
        "columns": identifiers(table.names),
        "data": identifiers([name for name in table.names if name not in table.key]),
        "p_data": _new_values(table),
        "key": identifiers(table.key),
        "t_is_p": same_key(table.key, "t", "p"),
        "t_is_old": same_key(table.key, "t", "old"),
        "key_object": key_object(table.key, "t"),
        "name": sql.Literal(table.full_name),
        "sync_id": sql.Literal(sync_id),
    }
    planned = conn.execute(sql.SQL(PLANNED).format(plan=plan)).fetchone()
    inserts, revivals, updates, deletes = planned
    inserted = _write(conn, inserts, INSERT, parts)
    revived = _write(conn, revivals, UPDATE, parts | {"which": sql.SQL(REVIVAL)})
    updated = _write(conn, updates, UPDATE, parts | {"which": sql.SQL("p._operation = 'update'")})
    deleted = _write(conn, deletes, DELETE, parts)
    written = inserted + revived + updated + deleted
    if written:
        _renew_statistics(conn, table, written)
    return Merged(inserted + revived, updated, deleted, sum(planned) - written)


def _new_values(table: Table) -> sql.Composable:
    """Return the SQL of an update's values. A value that isn't compared stays if the source doesn't send it now."""
    values = [
        sql.SQL("p.{0}" if name in table.compared else "coalesce(p.{0}, t.{0})").format(sql.Identifier(name))
        for name in table.names
        if name not in table.key
    ]
    return sql.SQL(", ").join(values)


# How many confirmed changes the plan has: inserts, rows that come back over their tombstones, updates, deletes.
PLANNED = """
SELECT count(*) FILTER (WHERE _operation = 'insert' AND _seen_hash IS NULL),
  count(*) FILTER (WHERE _operation = 'insert' AND _seen_hash IS NOT NULL),
  count(*) FILTER (WHERE _operation = 'update'), count(*) FILTER (WHERE _operation = 'delete')
FROM {plan} WHERE _status = 'confirmed'
"""

REVIVAL = "p._operation = 'insert' AND p._seen_hash IS NOT NULL"

INSERT = """
WITH new AS (
  INSERT INTO {target} AS t ({columns}, sync_id)
  SELECT {columns}, {sync_id} FROM {plan}
  WHERE _operation = 'insert' AND _status = 'confirmed' AND _seen_hash IS NULL
  ON CONFLICT ({key}) DO NOTHING
  RETURNING {key_object} AS key, row_hash
), audit AS (
  INSERT INTO confidence.change_log (sync_id, table_name, key, operation, after_hash)
  SELECT {sync_id}, {name}, key, 'insert', row_hash FROM new
)
SELECT count(*) FROM new
"""

# RETURNING gives the row before and after at once. Postgres would plan a join of both as a loop over single rows.
UPDATE = """
WITH old AS (
  SELECT t.* FROM {target} t JOIN {plan} p ON {t_is_p}
  WHERE p._status = 'confirmed' AND {which}
    AND t.row_hash = p._seen_hash AND (t.deleted_at IS NOT NULL) = p._seen_deleted
  FOR UPDATE OF t
), new AS (
  UPDATE {target} t SET ({data}, deleted_at, sync_id) = ROW({p_data}, NULL, {sync_id})
  FROM {plan} p, old WHERE {t_is_p} AND {t_is_old}
  RETURNING {key_object} AS key, to_jsonb(old.*) AS before, to_jsonb(t.*) AS after, t.row_hash
), audit AS (
  INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after, after_hash)
  SELECT {sync_id}, {name}, key, 'update', before, after, row_hash FROM new
)
SELECT count(*) FROM new
"""

DELETE = """
WITH old AS (
  SELECT t.* FROM {target} t JOIN {plan} p ON {t_is_p}
  WHERE p._status = 'confirmed' AND p._operation = 'delete'
    AND t.row_hash = p._seen_hash AND t.deleted_at IS NULL
  FOR UPDATE OF t
), new AS (
  UPDATE {target} t SET deleted_at = clock_timestamp(), sync_id = {sync_id} FROM old WHERE {t_is_old}
  RETURNING {key_object} AS key, to_jsonb(old.*) AS before, to_jsonb(t.*) AS after, t.row_hash
), audit AS (
  INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after, after_hash)
  SELECT {sync_id}, {name}, key, 'delete', before, after, row_hash FROM new
)
SELECT count(*) FROM new
"""


def _write(conn: Connection, planned: int, query: str, parts: dict[str, sql.Composable]) -> int:
    """Make the changes of one kind and return how many were made. Postgres is not asked if none is `planned`."""
    return conn.execute(sql.SQL(query).format(**parts)).fetchone()[0] if planned else 0


def _renew_statistics(conn: Connection, table: Table, written: int) -> None:
    """Analyze the table after a large change, without waiting for autovacuum.

    A table that was never analyzed looks almost empty to Postgres. The next queries on it, those of the derived tables
    first, would run as nested loops that take minutes.
    """
    query = "SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = %s::regclass"
    known = conn.execute(query, [table.full_name]).fetchone()[0]
    if written > OUTDATED * known:
        conn.execute(sql.SQL("ANALYZE {}").format(table.sql))
