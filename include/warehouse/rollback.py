"""Undo a sync, a repair or an earlier rollback by its sync_id: put rows and watermarks back as they were before it.

Each kind of copy restores its own rows (`Copy`). Those of mirrors do it in `include/warehouse/table_rollback.py`.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from psycopg import Connection

from include.warehouse import fence, sync_log
from include.warehouse.sync_log import Counts
from include.warehouse.table import key_text

# How many keys a conflict or a message names.
EXAMPLES = 5


class RollbackRefused(Exception):
    """The sync_id is unknown, or rows have changed since. The message says which, and what to do."""


@dataclass(frozen=True)
class Conflict:
    """Why a rollback needs `force`: most often rows that have changed since, and would lose that change.

    - `rows` and `what`: such as 3 and "of shop.parts by sync_id 9"
    - `examples`: the keys of the first rows, as text
    - `later`: the sync_ids that changed the rows since
    - `table`, `keys`: the examples as the change log names them; None and empty if they are not rows of one table
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
        examples = tuple(key_text(key.values()) for key in shown)
        return cls(len(keys), f"of {table} {who}", examples, tuple(later), table, shown)

    def __str__(self) -> str:
        return f"{self.rows} {self.what} (such as {', '.join(self.examples)})"


@dataclass(frozen=True)
class Undone:
    """What a rollback did, or on a dry run would do.

    - `sync_id`: the rollback's own; None on a dry run
    - `tables`: the counts of rows, by table
    - `conflicts`: the rows that only `force` overwrites
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
        """Return the rows that have changed since `sync_id`, a conflict for each table."""

    def restore(self, sync_id: int, rollback_id: int, *, dry_run: bool) -> Mapping[str, Counts]:
        """Put back the rows that `sync_id` changed and log each under `rollback_id`; return the counts by table.

        After a dry run the caller rolls the warehouse's transaction back; on a dry run only count rows outside of it.
        """


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
    if dry_run:
        return _count(conn, copy, source, sync_id, run=run, reason=reason)
    rollback_id = sync_log.begin(conn, source, "rollback", run, undoes=sync_id, reason=reason)
    try:
        with copy.transaction(), fence.exclusive(conn, source, timeout):
            conflicts = copy.conflicts(sync_id)
            if conflicts and not force:
                raise RollbackRefused(
                    f"sync_id {sync_id} can't be undone, rows have changed since: {'; '.join(map(str, conflicts))}."
                    " Roll back the later sync_ids first, newest first, or set force to overwrite those rows"
                )
            tables = copy.restore(sync_id, rollback_id, dry_run=False)
            _restore_states(conn, source, sync_id, rollback_id)
    except Exception as error:
        sync_log.finish(conn, rollback_id, {}, error=error)
        raise
    sync_log.finish(conn, rollback_id, tables)
    return Undone(rollback_id, tables, tuple(conflicts))


def _count(conn: Connection, copy: Copy, source: str, sync_id: int, *, run: str, reason: str) -> Undone:
    """Return what a rollback would do. Its log row is rolled back too: a dropped one would cut the history off."""
    with copy.transaction(), conn.transaction(force_rollback=True):
        rollback_id = sync_log.begin(conn, source, "rollback", run, undoes=sync_id, reason=reason)
        conflicts = copy.conflicts(sync_id)
        return Undone(None, copy.restore(sync_id, rollback_id, dry_run=True), tuple(conflicts))


def _restore_states(conn: Connection, source: str, sync_id: int, rollback_id: int) -> None:
    """Put back the watermarks that `sync_id` moved. The present ones are stored with the rollback's log row first."""
    sync_log.remember_states(conn, rollback_id, source, _states(conn, sync_id))
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
