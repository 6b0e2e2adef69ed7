"""The log of syncs, repairs and rollbacks (`confidence.sync_log`), and each entity's watermark (`sync_state`)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta

from psycopg import Connection, sql
from psycopg.rows import class_row, tuple_row
from psycopg.types.json import Jsonb

from include.warehouse import refusals
from include.warehouse.merge import Merged

# The partition of the watermark of dry syncs. With a shared one a writing sync would skip what a dry one has seen.
DRY = "dry run"


@dataclass(frozen=True)
class Counts:
    """What a sync or a repair did with the rows of an entity, in rows.

    `read`: rows that the source sent. `superseded`: planned changes left out because the row had changed since.
    `failed`: rows that could not be stored.
    """

    read: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    superseded: int = 0
    failed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def of(cls, merged: Merged, *, read: int = 0, unchanged: int = 0, failed: int = 0) -> "Counts":
        """Return the counts of an applied plan (`merged`), with those that the caller has counted."""
        return cls(read=read, unchanged=unchanged, failed=failed, **asdict(merged))


@dataclass(frozen=True)
class State:
    """How far an entity, or a partition of it, was read.

    - `watermark`: the source's time up to which everything was read; None before the first sync
    - `version`: the same as a version number, for sources that count versions
    - `read_from`: where a person has set the watermark by hand; nothing that changed earlier is read again
    - `counts`: what the last sync did, as Counts has it
    - `sync_id`: the sync that wrote this state
    - `before`: the watermark before that sync
    """

    watermark: datetime | None = None
    version: int | None = None
    read_from: datetime | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    sync_id: int | None = None
    before: datetime | None = None

    def since(self, lookback: timedelta) -> datetime | None:
        """Return the time from which to read changes: `lookback` before the watermark, but never before `read_from`.

        If the last sync came so late that it read more than that, read all of it again: each change has a second
        chance. None before the first sync.
        """
        since = self.watermark and min(self.watermark - lookback, self.before or self.watermark)
        return max(since, self.read_from) if since and self.read_from else since


def begin(
    conn: Connection,
    source: str,
    kind: str,
    run: str,
    *,
    undoes: int | None = None,
    reason: str | None = None,
) -> int:
    """Open a row of the sync log and return its sync_id.

    `kind`: `sync`, `repair`, `rollback` or `watermark`. `undoes`: the sync_id that a rollback undoes. Rows of the same
    source and kind that an earlier attempt left open are closed as failed.
    """
    with conn.transaction():
        conn.execute(
            "UPDATE confidence.sync_log SET state = 'failed', finished_at = clock_timestamp(),"
            " error = 'its process ended without closing this row; change_log has what it had committed'"
            " WHERE source = %s AND kind = %s AND state = 'running'",
            [source, kind],
        )
        return conn.execute(
            "INSERT INTO confidence.sync_log (source, kind, run, undoes, reason) VALUES (%s, %s, %s, %s, %s)"
            " RETURNING sync_id",
            [source, kind, run, undoes, reason],
        ).fetchone()[0]


def finish(
    conn: Connection,
    sync_id: int,
    entities: Mapping[str, Counts],
    error: BaseException | None = None,
    *,
    requests: int = 0,
    request_errors: int = 0,
) -> None:
    """Close the log row: as failed if there is an `error`, else as a success.

    `entities`: the counts by entity. `requests`: how many requests it took, of which `request_errors` failed.
    """
    total = sum(entities.values(), Counts())
    names = [f.name for f in fields(Counts)]
    assignments = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(f"rows_{name}")) for name in names)
    conn.execute(
        sql.SQL(
            "UPDATE confidence.sync_log SET {}, entities = %s, state = %s, error = %s, requests = %s,"
            " request_errors = %s, finished_at = clock_timestamp() WHERE sync_id = %s"
        ).format(assignments),
        [
            *(getattr(total, name) for name in names),
            Jsonb({entity: asdict(counts) for entity, counts in entities.items()}),
            "failed" if error else "success",
            error and refusals.reason(error),
            requests,
            request_errors,
            sync_id,
        ],
    )


def save_checks(conn: Connection, sync_id: int, checks: Sequence[Mapping[str, str | int]]) -> None:
    """Mark the repair as verified now, and keep the checks that verify made."""
    conn.execute(
        "UPDATE confidence.sync_log SET verified_at = clock_timestamp(), checks = %s WHERE sync_id = %s",
        [Jsonb([dict(check) for check in checks]), sync_id],
    )


def unlogged(conn: Connection) -> list[int]:
    """Return the sync_ids that are in the change log, but no longer in the sync log."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return [sync_id for (sync_id,) in cursor.execute(UNLOGGED).fetchall()]


def drop_changes(conn: Connection, sync_ids: Sequence[int], most: int) -> int:
    """Drop at most so many rows of these syncs from the change log, and return how many."""
    return conn.execute(
        "DELETE FROM confidence.change_log WHERE ctid = ANY (ARRAY("
        "SELECT ctid FROM confidence.change_log WHERE sync_id = ANY (%s) LIMIT %s))",
        [list(sync_ids), most],
    ).rowcount


def state(conn: Connection, source: str, entity: str, partition: str = "") -> State:
    """Return the state of the entity, or of a partition of it; an empty State before its first sync."""
    with conn.cursor(row_factory=class_row(State)) as cursor:
        found = cursor.execute(
            "SELECT watermark, version, read_from, counts, sync_id, (SELECT"
            "  (state_before -> (s.entity || '/' || s.partition) ->> 'watermark')::timestamptz"
            "  FROM confidence.sync_log l WHERE l.sync_id = s.sync_id) AS before"
            " FROM confidence.sync_state s WHERE source = %s AND entity = %s AND partition = %s",
            [source, entity, partition],
        ).fetchone()
    return found or State()


def ever_synced(conn: Connection, source: str) -> bool:
    """Return whether a sync of the source has brought anything: it succeeded, or one of its entities is synced."""
    query = (
        "SELECT FROM confidence.sync_log WHERE source = %(source)s AND kind = 'sync' AND state = 'success' UNION ALL"
        " SELECT FROM confidence.sync_state WHERE source = %(source)s AND watermark IS NOT NULL LIMIT 1"
    )
    return conn.execute(query, {"source": source}).rowcount == 1


def oldest_watermark(conn: Connection, source: str, entity: str) -> datetime | None:
    """Return the lowest watermark of the entity's partitions; None before its first sync."""
    query = "SELECT min(watermark) FROM confidence.sync_state WHERE source = %s AND entity = %s"
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, [source, entity]).fetchone()[0]


def time_since_in_step(conn: Connection, source: str, entity: str) -> timedelta | None:
    """Return the time since the entity's last sync that left nothing out began; None if there was none.

    If the entity has partitions: the longest of their times; None if one of them never had such a sync.
    """
    query = (
        "SELECT CASE WHEN bool_and(in_step_at IS NOT NULL) THEN clock_timestamp() - min(in_step_at) END"
        " FROM confidence.sync_state WHERE source = %s AND entity = %s"
    )
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, [source, entity]).fetchone()[0]


def advance(
    conn: Connection,
    sync_id: int,
    source: str,
    entity: str,
    *,
    watermark: datetime | None,
    version: int | None = None,
    counts: Counts | None = None,
    partition: str = "",
    duration_seconds: float | None = None,
    read_from: datetime | None = None,
    in_step: bool = False,
) -> None:
    """Set the state of an entity, or of a partition of it, in the transaction that writes its rows.

    The state before is kept in the log row, for a rollback. `duration_seconds`: how long the sync of the entity took.
    `read_from`: None keeps the present one. `in_step`: the sync left nothing out, so the copy has everything that the
    source had when the sync began; that time becomes `in_step_at`.
    """
    remember_states(conn, sync_id, source, [(entity, partition)])
    conn.execute(
        "INSERT INTO confidence.sync_state"
        " (source, entity, partition, watermark, version, counts, duration_seconds, sync_id, read_from, in_step_at)"
        " VALUES (%(source)s, %(entity)s, %(partition)s, %(watermark)s, %(version)s, %(counts)s, %(duration)s,"
        "  %(sync_id)s, %(read_from)s,"
        "  CASE WHEN %(in_step)s THEN (SELECT started_at FROM confidence.sync_log WHERE sync_id = %(sync_id)s) END)"
        " ON CONFLICT (source, entity, partition) DO UPDATE SET watermark = excluded.watermark,"
        " version = excluded.version, counts = excluded.counts, duration_seconds = excluded.duration_seconds,"
        " sync_id = excluded.sync_id, read_from = coalesce(excluded.read_from, sync_state.read_from),"
        " in_step_at = coalesce(excluded.in_step_at, sync_state.in_step_at),"
        " updated_at = clock_timestamp()",
        {
            "source": source,
            "entity": entity,
            "partition": partition,
            "watermark": watermark,
            "version": version,
            "counts": Jsonb(asdict(counts or Counts())),
            "duration": duration_seconds,
            "sync_id": sync_id,
            "read_from": read_from,
            "in_step": in_step,
        },
    )


def forget(conn: Connection, sync_id: int, source: str, states: list[tuple[str, str]]) -> None:
    """Delete the states (entity, partition) of what is not synced any more; keep them in the log row for a rollback.

    The caller's transaction holds the fence.
    """
    remember_states(conn, sync_id, source, states)
    for entity, partition in states:
        conn.execute(
            "DELETE FROM confidence.sync_state WHERE source = %s AND entity = %s AND partition = %s",
            [source, entity, partition],
        )


def remember_states(conn: Connection, sync_id: int, source: str, entities: list[tuple[str, str]]) -> None:
    """Keep the present state of each (entity, partition) in the log row, unless the row has one of it already."""
    for entity, partition in entities:
        conn.execute(
            "UPDATE confidence.sync_log SET state_before = jsonb_build_object(%(name)s::text,"
            " (SELECT to_jsonb(s) FROM confidence.sync_state s"
            "  WHERE source = %(source)s AND entity = %(entity)s AND partition = %(partition)s)) || state_before"
            " WHERE sync_id = %(sync_id)s",
            {
                "name": f"{entity}/{partition}",
                "source": source,
                "entity": entity,
                "partition": partition,
                "sync_id": sync_id,
            },
        )


# It jumps from sync to sync by the index, as the log may have millions of rows of each.
UNLOGGED = """
WITH RECURSIVE audited AS (
  SELECT min(sync_id) AS sync_id FROM confidence.change_log
  UNION ALL
  SELECT (SELECT min(c.sync_id) FROM confidence.change_log c WHERE c.sync_id > a.sync_id)
  FROM audited a WHERE a.sync_id IS NOT NULL
)
SELECT sync_id FROM audited a
WHERE sync_id IS NOT NULL AND NOT EXISTS (SELECT FROM confidence.sync_log l WHERE l.sync_id = a.sync_id)
"""
