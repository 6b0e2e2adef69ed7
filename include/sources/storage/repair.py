"""Writing the status of images: each change proven once more, guarded, audited; and what became of it after a crash.

Images and audit are in two databases. Both transactions are open together; the audit is committed first, with the
number of the other transaction, so that after a crash between the two the application's database can be asked.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection, errors, sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from include.api.bucket import Presence
from include.api.errors import TryLater
from include.confidence import history
from include.confidence.summary import ForensicSummary
from include.sources.base import Check
from include.sources.storage import look
from include.sources.storage.check import Context, Order, settle, suspects_of
from include.sources.storage.images import IMAGES, OBJECTS
from include.warehouse import fence, rollback, sync_log
from include.warehouse.staging import Stage, plan_table, stage_name
from include.warehouse.sync_log import Counts

log = logging.getLogger(__name__)

TABLE = "images"
# The fence is held meanwhile.
LOCK_TIMEOUT = "30s"
# Marked images whose object verify asks for once more.
SAMPLE = 20

UPDATE = """
UPDATE images i SET status = p.new_status::image_status, error = p.new_error, updated_at = clock_timestamp()
FROM unnest(%(id)s::uuid[], %(status)s::text[], %(error)s::text[], %(updated_at)s::timestamptz[],
  %(new_status)s::text[], %(new_error)s::text[]) AS p (id, status, error, updated_at, new_status, new_error)
WHERE i.id = p.id AND i.deleted_at IS NULL AND i.status::text = p.status AND i.updated_at = p.updated_at
  AND i.error IS NOT DISTINCT FROM p.error
RETURNING i.id::text, i.status::text, i.error, i.updated_at, p.status AS old_status, p.error AS old_error,
  p.updated_at AS old_updated_at
"""


def repair(context: Context, summary: ForensicSummary, order: Order) -> tuple[int, Mapping[str, Counts]]:
    """Apply the plan of the scan under one sync_id; return it with the counts."""
    writer = fence.require_stopped(context.conn, context.source.name, context.run)
    history.require_latest(context.conn, summary)
    with logged(context, "repair") as done:
        done.counts = apply(context, order, done.sync_id, epoch=writer.epoch, run=context.run)
    return done.sync_id, done.counts


class Logged:
    """A row of the sync log that is open, and the counts to close it with."""

    def __init__(self, sync_id: int):
        self.sync_id = sync_id
        self.counts: Mapping[str, Counts] = {}


@contextmanager
def logged(context: Context, kind: str) -> Iterator[Logged]:
    """Open a row of the sync log and close it with what became of the block."""
    done = Logged(sync_log.begin(context.conn, context.source.name, kind, context.run))
    try:
        yield done
    except BaseException as error:
        _finish(context, done.sync_id, {}, error=str(error) or type(error).__name__)
        raise
    _finish(context, done.sync_id, done.counts)


def _finish(context: Context, sync_id: int, counts: Mapping[str, Counts], error: str | None = None) -> None:
    bucket = context.bucket
    traffic = {"requests": bucket.requests, "request_errors": bucket.requests_failed}
    sync_log.finish(context.conn, sync_id, counts, error, **traffic)


def apply(
    context: Context,
    order: Order,
    sync_id: int,
    *,
    epoch: int,
    run: str | None = None,
    also: Callable[[], None] = lambda: None,
) -> Mapping[str, Counts]:
    """Write the confirmed changes of the order's plan; `also` runs in the warehouse's transaction.

    Before that each is proven once more by HEAD: the plan may be hours old. Raises TryLater, and nothing is written,
    where an object's presence can't be told.
    """
    conn, plan = context.conn, plan_of(context, order.purpose)
    confirmed = _count(conn, plan)
    prove_again(context, plan, f"{order.purpose}_proof", f"sync_id {sync_id}", order.workers)
    marked = healed = 0
    with changing(context.images), fence.writing(conn, context.source.name, epoch=epoch, run=run):
        for rows in planned(conn, plan, order.batch):
            marked += write(context, sync_id, [row for row in rows if row["_operation"] == "mark"])
            healed += write(context, sync_id, [row for row in rows if row["_operation"] == "heal"])
        note_transaction(conn, context.images, sync_id)
        also()
    return {
        IMAGES.name: Counts(updated=marked, superseded=confirmed - marked - healed),
        "healed": Counts(updated=healed),
    }


@contextmanager
def changing(images: Connection) -> Iterator[None]:
    """A transaction of the application's database. Raises TryLater where a row stays locked by the application."""
    try:
        with images.transaction():
            images.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
            yield
    except errors.LockNotAvailable:
        raise TryLater(
            f"the application kept rows of images locked for {LOCK_TIMEOUT}, nothing was written. Run the task again"
            " later."
        ) from None


def plan_of(context: Context, purpose: str) -> sql.Identifier:
    return plan_table(stage_name(context.source.name, IMAGES.name, purpose))


def prove_again(context: Context, plan: sql.Identifier, purpose: str, ticket: str, workers: int) -> None:
    """Ask for each object of the confirmed changes; a change that isn't called for any more becomes `noise`."""
    look.prove(context.bucket)
    proof = Stage.open(context.conn, OBJECTS, context.source.name, purpose, ticket)
    suspects = suspects_of(context.conn, plan, "confirmed")
    look.look_again(context.bucket, suspects, proof, by_listing=False, workers=workers)
    unknown, reason = context.conn.execute(
        sql.SQL("SELECT count(*), min(reason) FROM {} WHERE presence = 'unknown'").format(proof.sql)
    ).fetchone()
    if not unknown:
        settle(context.conn, plan, proof, "confirmed")
    proof.drop()
    if unknown:
        raise TryLater(f"{unknown} objects could not be proven before the write, nothing was written: {reason}")


def planned(conn: Connection, plan: sql.Identifier, batch: int) -> Iterator[list[dict[str, Any]]]:
    """The confirmed changes in the order of their ids, `batch` rows at a time."""
    query = sql.SQL(
        "SELECT id::text, status, error, updated_at, new_status, new_error, _operation FROM {}"
        " WHERE _status = 'confirmed' AND (%(last)s::uuid IS NULL OR id > %(last)s) ORDER BY id LIMIT %(batch)s"
    ).format(plan)
    last = None
    with conn.cursor(row_factory=dict_row) as cursor:
        while rows := cursor.execute(query, {"last": last, "batch": batch}).fetchall():
            yield rows
            last = rows[-1]["id"]


def write(context: Context, sync_id: int, rows: Sequence[Mapping[str, Any]]) -> int:
    """Update the images that are still as read and audit them; return how many were."""
    if not rows:
        return 0
    names = ("id", "status", "error", "updated_at", "new_status", "new_error")
    with context.images.cursor(row_factory=dict_row) as cursor:
        written = cursor.execute(UPDATE, {name: [row[name] for row in rows] for name in names}).fetchall()
    audit(
        context.conn,
        sync_id,
        [
            (
                row["id"],
                state(row["old_status"], row["old_error"], row["old_updated_at"]),
                state(row["status"], row["error"], row["updated_at"]),
            )
            for row in written
        ],
    )
    return len(written)


def state(status: str, error: str | None, updated_at: datetime) -> dict[str, str | None]:
    """What of an image we change, as the audit keeps it."""
    return {"status": status, "error": error, "updated_at": updated_at.astimezone(UTC).isoformat()}


def audit(conn: Connection, sync_id: int, changes: Sequence[tuple[str, Mapping, Mapping]]) -> None:
    """Enter changes (id, before, after) into the change log."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after)"
            " VALUES (%s, %s, %s, 'update', %s, %s)",
            [(sync_id, TABLE, Jsonb({"id": id_}), Jsonb(before), Jsonb(after)) for id_, before, after in changes],
        )


def note_transaction(conn: Connection, images: Connection, sync_id: int) -> None:
    """Keep the number of the application's open transaction with the sync, for `resolve`."""
    (number,) = images.execute("SELECT pg_current_xact_id()::text").fetchone()
    conn.execute("UPDATE confidence.sync_log SET copy_transaction = %s WHERE sync_id = %s", [number, sync_id])


def resolve(conn: Connection, images: Connection, source: str) -> None:
    """Find out what became of writes that a crash cut off between the two commits, and make the log true.

    Raises TryLater while such a transaction is still open, and RuntimeError where its database has forgotten it.
    """
    open_ = conn.execute(
        "SELECT sync_id, copy_transaction FROM confidence.sync_log"
        " WHERE source = %s AND state <> 'success' AND copy_transaction IS NOT NULL ORDER BY sync_id DESC",
        [source],
    ).fetchall()
    for sync_id, number in open_:
        (outcome,) = images.execute("SELECT pg_xact_status(%s::xid8)", [number]).fetchone()
        if outcome == "in progress":
            raise TryLater(f"sync_id {sync_id} is still being committed in the images' database. Run the task again.")
        if outcome is None:
            raise RuntimeError(
                f"the images' database can't tell any more whether sync_id {sync_id} (transaction {number}) was"
                " committed: compare its entries in confidence.change_log with the images, then set the state of its"
                " row in confidence.sync_log to success, or delete the entries"
            )
        with conn.transaction():
            if outcome == "aborted":
                conn.execute("DELETE FROM confidence.change_log WHERE sync_id = %s", [sync_id])
                rollback.put_back_states(conn, source, sync_id)
            conn.execute(
                "UPDATE confidence.sync_log SET copy_transaction = NULL, finished_at = clock_timestamp(),"
                " state = CASE WHEN %(committed)s THEN 'success' ELSE 'failed' END,"
                " rows_updated = (SELECT count(*) FROM confidence.change_log WHERE sync_id = %(sync_id)s),"
                " error = CASE WHEN NOT %(committed)s THEN 'cut off before its commit, nothing was written' END"
                " WHERE sync_id = %(sync_id)s",
                {"committed": outcome == "committed", "sync_id": sync_id},
            )
        log.warning("sync_id %d had been cut off at its commit, which was %s", sync_id, outcome)


def verify(context: Context, summary: ForensicSummary, sync_id: int, *, workers: int) -> list[Check]:
    """Which planned changes the images don't show, and which of a sample of marked images have their objects."""
    plan = plan_of(context, "scan")
    open_ = sum(_still_as_seen(context.images, rows) for rows in planned(context.conn, plan, 1000))
    return [
        Check(IMAGES.name, "planned_changes_open", summary.plan.update, open_),
        Check(IMAGES.name, "repaired_rows_unlike_source", 0, _marked_but_there(context, plan, sync_id, workers)),
    ]


def _still_as_seen(images: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Images that a change was planned for and that nobody has changed."""
    names = ("id", "status", "updated_at")
    return images.execute(
        "SELECT count(*) FROM images i JOIN unnest(%(id)s::uuid[], %(status)s::text[], %(updated_at)s::timestamptz[])"
        " AS p (id, status, updated_at) ON i.id = p.id AND i.status::text = p.status AND i.updated_at = p.updated_at"
        " WHERE i.deleted_at IS NULL",
        {name: [row[name] for row in rows] for name in names},
    ).fetchone()[0]


def _marked_but_there(context: Context, plan: sql.Identifier, sync_id: int, workers: int) -> int:
    sample = context.conn.execute(
        sql.SQL(
            "SELECT CASE WHEN original_missing THEN original_key ELSE staged_key END FROM {} p"
            " WHERE _operation = 'mark' AND EXISTS"
            " (SELECT FROM confidence.change_log c WHERE c.sync_id = %s AND c.key ->> 'id' = p.id::text)"
            " ORDER BY id LIMIT %s"
        ).format(plan),
        [sync_id, SAMPLE],
    ).fetchall()
    look.prove(context.bucket)
    looks = list(context.bucket.look_all([key for (key,) in sample], workers))
    for reason in {found.reason for found in looks if found.presence is Presence.UNKNOWN}:
        log.warning("a marked image's object could not be looked at again: %s", reason)
    return sum(found.presence is Presence.PRESENT for found in looks)


def _count(conn: Connection, plan: sql.Identifier) -> int:
    query = sql.SQL("SELECT count(*) FROM {} WHERE _status = 'confirmed'").format(plan)
    return conn.execute(query).fetchone()[0]
