"""Undo a sync, a repair or an earlier rollback by its sync_id: put rows and watermarks back as they were before it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from psycopg import Connection, sql

from include.warehouse import fence, sync_log
from include.warehouse.sql_fragments import identifiers, key_object, pairs, same_key
from include.warehouse.sync_log import Counts

# How many keys a conflict or a message names.
EXAMPLES = 5


class RollbackRefused(Exception):
    """The sync_id is unknown, or rows have changed since. The message says which, and what to do."""


@dataclass(frozen=True)
class Conflict:
    """Rows that stand against a rollback, most often because they have changed since.

    - `rows` and `what`: such as 3 and "of shop.parts by sync_id 9"
    - `examples`: the keys of the first rows, as people read them
    - `later`: the sync_ids that changed the rows since
    - `table`, `keys`: the rows of the examples as the change log names them; None and empty if they are not rows of one
      table
    """

    rows: int
    what: str
    examples: tuple[str, ...]
    later: tuple[int, ...] = ()
    table: str | None = None
    keys: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, what: str, examples: Sequence[str], later: Sequence[int] = ()) -> Self:
        """Return the conflict of these things. `examples` has all of them."""
        return cls(len(examples), what, tuple(examples[:EXAMPLES]), tuple(later))

    @classmethod
    def of_rows(cls, table: str, who: str, keys: Sequence[Mapping[str, Any]], later: Sequence[int] = ()) -> Self:
        """Return the conflict of rows. `keys`: the keys of all of them. `who`: who has changed them."""
        shown = tuple(keys[:EXAMPLES])
        examples = tuple("/".join(map(str, key.values())) for key in shown)
        return cls(len(keys), f"of {table} {who}", examples, tuple(later), table, shown)

    def __str__(self) -> str:
        return f"{self.rows} {self.what} (such as {', '.join(self.examples)})"


@dataclass(frozen=True)
class Undone:
    """What a rollback did, or on a dry run would do.

    - `sync_id`: the rollback's own; None on a dry run
    - `tables`: the counts of rows, by table
    - `conflicts`: what stood against it, which takes `force`
    """

    sync_id: int | None
    tables: Mapping[str, Counts]
    conflicts: tuple[Conflict, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON, from which `from_json` reads it."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the result that `as_json` has written. Raises TypeError or KeyError for any other data."""
        conflicts = (
            Conflict(
                **each
                | {"examples": tuple(each["examples"]), "later": tuple(each["later"])}
                | {"keys": tuple(each.get("keys", ()))}
            )
            for each in data["conflicts"]
        )
        tables = {table: Counts(**counts) for table, counts in data["tables"].items()}
        return cls(data["sync_id"], tables, tuple(conflicts))


class Copy(Protocol):
    """What a rollback needs of a source's copy, wherever the copy is."""

    def transaction(self) -> AbstractContextManager[Any]:
        """Open a transaction in the copy's own database. It commits after the warehouse's."""

    def conflicts(self, sync_id: int) -> list[Conflict]:
        """Return what stands against undoing `sync_id`: for each table, the rows that have changed since."""

    def restore(self, sync_id: int, own: int, *, dry_run: bool) -> Mapping[str, Counts]:
        """Put back the rows that `sync_id` changed, with entries in the change log under `own`; return counts by table.

        After a dry run the caller rolls both transactions back. Rows outside them must only be counted then.
        """


@dataclass(frozen=True)
class Tables:
    """The copy of a mirror: tables in the warehouse itself. Its methods are those of Copy."""

    conn: Connection

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()

    def conflicts(self, sync_id: int) -> list[Conflict]:
        return [found for name in self._changed(sync_id) for found in _conflicts(self.conn, name, sync_id)]

    def restore(self, sync_id: int, own: int, *, dry_run: bool) -> Mapping[str, Counts]:
        restored: dict[str, Counts] = {}
        for name in self._changed(sync_id):
            for table, counts in _restore(self.conn, name, sync_id, own).items():
                restored[table] = restored.get(table, Counts()) + counts
        return restored

    def _changed(self, sync_id: int) -> list[str]:
        """Return the tables to restore, in an order that keeps foreign keys intact."""
        return [name for (name,) in self.conn.execute(CHANGED, [sync_id])]


class _DryRun(Exception):
    """Raised at the end of a dry run, to roll its transactions back."""


def source_of(conn: Connection, sync_id: int) -> str:
    """Return the source that the sync belongs to. Raises RollbackRefused for an unknown sync_id."""
    row = conn.execute("SELECT source FROM confidence.sync_log WHERE sync_id = %s", [sync_id]).fetchone()
    if row is None:
        raise RollbackRefused(f"there is no sync_id {sync_id}: look it up in confidence.sync_log")
    return row[0]


def roll_back(
    conn: Connection,
    copy: Copy,
    sync_id: int,
    *,
    run: str,
    reason: str,
    force: bool = False,
    dry_run: bool = True,
    timeout: float = 60,
) -> Undone:
    """Put back every row that `sync_id` changed and the watermarks that it moved, all of it or nothing.

    The rollback gets a sync_id of its own, with `reason`, and can be rolled back too. A dry run only counts, the
    conflicts too. Raises RollbackRefused if a row has changed since, unless `force` overwrites such rows; FenceError
    while a runbook is at work on the source; DrainTimeout if a writing transaction does not end within `timeout`
    seconds.
    """
    source = source_of(conn, sync_id)
    own = sync_log.begin(conn, source, "rollback", run, undoes=sync_id, reason=reason)
    tables: Mapping[str, Counts] = {}
    conflicts: list[Conflict] = []
    try:
        with copy.transaction(), _alone(conn, source, timeout, dry_run=dry_run):
            conflicts = copy.conflicts(sync_id)
            if conflicts and not (force or dry_run):
                raise RollbackRefused(
                    f"sync_id {sync_id} can't be undone, rows have changed since: {'; '.join(map(str, conflicts))}."
                    " Roll back the later sync_ids first, newest first, or set force to overwrite those rows"
                )
            tables = copy.restore(sync_id, own, dry_run=dry_run)
            _restore_states(conn, source, sync_id, own)
            if dry_run:
                raise _DryRun
    except _DryRun:
        conn.execute("DELETE FROM confidence.sync_log WHERE sync_id = %s", [own])
        return Undone(None, tables, tuple(conflicts))
    except Exception as error:
        sync_log.finish(conn, own, {}, error=str(error) or type(error).__name__)
        raise
    sync_log.finish(conn, own, tables)
    return Undone(own, tables, tuple(conflicts))


@contextmanager
def _alone(conn: Connection, source: str, timeout: float, *, dry_run: bool) -> Iterator[None]:
    """Open a transaction during which nobody else can write to the copy; on a dry run others can."""
    if dry_run:
        with conn.transaction():
            yield
    else:
        with fence.exclusive(conn, source, timeout):
            yield


def _conflicts(conn: Connection, name: str, sync_id: int) -> list[Conflict]:
    """Return what stands against restoring a table: its rows that have changed since, and rows of other tables.

    The latter refer to a row that the sync inserted, but the sync did not insert them. They would be removed with that
    row.
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


def _restore(conn: Connection, name: str, sync_id: int, own: int) -> dict[str, Counts]:
    """Put back the rows of the table `name` that `sync_id` changed; return the counts by table.

    Rows of other tables that refer to a row which the sync inserted are removed with it. `own`: the rollback's sync_id.
    """
    parts = _parts(conn, name, sync_id) | {"own": sql.Literal(own)}
    removed = _remove(conn, name, sql.SQL(INSERTED).format(**parts), own)
    updated = conn.execute(sql.SQL(RESTORE_CHANGED).format(**parts)).fetchone()[0]
    inserted = conn.execute(sql.SQL(RESTORE_REMOVED).format(**parts)).fetchone()[0]
    counts = {table: Counts(deleted=rows) for table, rows in removed.items()}
    return counts | {name: Counts(inserted=inserted, updated=updated, deleted=removed[name])}


def _remove(conn: Connection, name: str, places: sql.Composable, own: int) -> Counter[str]:
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
            conn, child.name, sql.SQL(OF_PARENTS).format(target=target, places=places, **child.parts), own
        )
    parts = {"name": sql.Literal(name), "own": sql.Literal(own), "key": key_object(_key(conn, name), "t")}
    removed[name] += conn.execute(sql.SQL(REMOVE).format(target=target, places=places, **parts)).fetchone()[0]
    return removed


@dataclass(frozen=True)
class _Child:
    """A table whose rows Postgres deletes with the rows of another that they refer to, and the columns of both."""

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
    """Return the tables whose rows Postgres deletes with the rows of the table `name` that they refer to."""
    return [
        _Child(child, tuple(columns), tuple(referred)) for child, columns, referred in conn.execute(CHILDREN, [name])
    ]


def _restore_states(conn: Connection, source: str, sync_id: int, own: int) -> None:
    """Put back the watermarks that `sync_id` moved, after storing the present ones with the rollback `own`."""
    sync_log.remember_states(conn, own, source, _states(conn, sync_id))
    put_back_states(conn, source, sync_id)


def put_back_states(conn: Connection, source: str, sync_id: int) -> None:
    """Put the states (watermarks) of the source back as they were when `sync_id` first moved them."""
    for entity, partition in _states(conn, sync_id):
        conn.execute(
            "DELETE FROM confidence.sync_state WHERE source = %s AND entity = %s AND partition = %s",
            [source, entity, partition],
        )
    conn.execute(
        "INSERT INTO confidence.sync_state SELECT r.* FROM confidence.sync_log, jsonb_each(state_before) b,"
        " jsonb_populate_record(NULL::confidence.sync_state, b.value) r"
        " WHERE sync_log.sync_id = %s AND b.value <> 'null'",
        [sync_id],
    )


def _states(conn: Connection, sync_id: int) -> list[tuple[str, str]]:
    """Return entity and partition of each state that the sync moved."""
    return conn.execute(
        # Each key is entity/partition; the partition may contain slashes too.
        "SELECT split_part(key, '/', 1), substr(key, strpos(key, '/') + 1)"
        " FROM confidence.sync_log, jsonb_object_keys(state_before) AS key WHERE sync_id = %s",
        [sync_id],
    ).fetchall()


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

# Rows that refer to rows which the sync has inserted, but were not written by it. Those that it has moved there go back
# before the rows that it inserted are removed.
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
  SELECT {own}, {name}, key, 'delete', before FROM gone
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
  SELECT {own}, {name}, key, CASE WHEN deleted_at IS NULL THEN 'update' ELSE 'delete' END, found, after, row_hash
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
  SELECT {own}, {name}, {key_object}, 'insert', to_jsonb(new.*), row_hash FROM new
)
SELECT count(*) FROM new
"""
