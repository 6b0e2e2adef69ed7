"""Write the status of images: prove each change once more, lock, write, read back, audit; and recover from a crash.

A trigger or a policy of the application's database may change what is written. So rows are locked and compared before
the write, and read after it. The audit keeps what they show then; a row that doesn't show the planned status has
failed. So has one that the database refuses with an error, which keeps no other row from being written.

Images and audit are in two databases, whose transactions are open at the same time. The audit is committed first, with
the number of the other transaction. After a crash between the two commits, the application's database is asked whether
that transaction was committed (see `resolve_cut_off_commits`).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import UUID

from psycopg import Connection, errors, sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from include.api.bucket import Presence, Way
from include.api.errors import TryLater
from include.confidence import scan_log
from include.confidence.summary import ForensicSummary
from include.sources.base import Check
from include.sources.storage import breaker, images, look
from include.sources.storage.check import CheckOptions, StorageContext
from include.sources.storage.images import IMAGES, OBJECTS, Scope
from include.sources.storage.others import ANY_ROW, KeysOfOthers
from include.sources.storage.plan import as_planned, planned, supersede
from include.sources.storage.second_look import count_suspects, settle, suspects_of
from include.sources.storage.update import update_images
from include.warehouse import fence, rollback, sync_log
from include.warehouse.staging import Stage, plan_table, stage_name
from include.warehouse.sync_log import Counts

log = logging.getLogger(__name__)

TABLE = "images"
# Short, since the fence is locked meanwhile.
LOCK_TIMEOUT = "30s"
# So many images of a batch that the database refuses are named in the log.
NAMED = 20
# Written images whose objects `verify` looks at once more.
SAMPLE = 20

STANDING = sql.SQL("""
SELECT i.id::text, i.status::text, i.error, {} FROM images i WHERE i.id = ANY (%s::uuid[]) ORDER BY i.id
""").format(images.CHANGED)


def repair_images(
    context: StorageContext, summary: ForensicSummary, options: CheckOptions
) -> tuple[int, Mapping[str, Counts]]:
    """Apply the plan of the scan under one sync_id; return it with the counts.

    Raises FenceError, PlanGone, and what `apply` raises.
    """
    writer = fence.require_stopped(context.conn, context.source.name, context.run)
    scan_log.require_latest(context.conn, summary)
    with logged(context, "repair") as done:
        done.counts = apply(context, options, done.sync_id, summary, epoch=writer.epoch, run=context.run)
    return done.sync_id, done.counts


class Logged:
    """An open row of the sync log, and the counts to close it with."""

    def __init__(self, sync_id: int):
        self.sync_id = sync_id
        self.counts: Mapping[str, Counts] = {}


@contextmanager
def logged(context: StorageContext, kind: str) -> Iterator[Logged]:
    """Open a row of the sync log; close it at the end of the block with its counts or its error."""
    done = Logged(sync_log.begin(context.conn, context.source.name, kind, context.run))
    try:
        yield done
    except BaseException as error:
        _finish(context, done.sync_id, {}, error=error)
        raise
    _finish(context, done.sync_id, done.counts)


def _finish(
    context: StorageContext, sync_id: int, counts: Mapping[str, Counts], error: BaseException | None = None
) -> None:
    bucket = context.bucket
    traffic = {"requests": bucket.requests, "request_errors": bucket.requests_failed}
    sync_log.finish(context.conn, sync_id, counts, error, **traffic)


def apply(
    context: StorageContext,
    options: CheckOptions,
    sync_id: int,
    summary: ForensicSummary,
    *,
    epoch: int,
    run: str | None = None,
    also: Callable[[Counts], None] = lambda counts: None,
) -> Mapping[str, Counts]:
    """Write the confirmed changes of the check's plan; return the counts of `images` and `healed`.

    Each change is proven once more by HEAD and by LIST before, since the plan may be hours old. `also(counts)` runs in
    the transaction of the warehouse. Raises TryLater, without writing anything, if a look has no answer.
    """
    conn, plan = context.conn, plan_of(context, options.purpose)
    confirmed = _count(conn, plan)
    prove_again(context, plan, f"{options.purpose}_proof", f"sync_id {sync_id}", options.workers)
    marked = healed = Counts()
    with changing(context.images), fence.writing(conn, context.source.name, epoch=epoch, run=run):
        for rows in planned(conn, plan, options.batch):
            marked += write(context, plan, sync_id, [row for row in rows if row["_operation"] == "mark"])
            healed += write(context, plan, sync_id, [row for row in rows if row["_operation"] == "heal"])
        note_transaction(conn, context.images, sync_id)
        written = replace(
            marked,
            superseded=confirmed - marked.updated - healed.updated - marked.failed - healed.failed,
            failed=marked.failed + healed.failed,
        )
        looked_at, whole = summary.metrics["looked_at"], options.scope.whole
        breaker.remember(conn, context.run, sync_id, looked_at=looked_at, marked=marked.updated, whole=whole)
        also(written)
    return {IMAGES.name: written, "healed": Counts(updated=healed.updated)}


@contextmanager
def changing(images: Connection) -> Iterator[None]:
    """Open a transaction of the application's database. Raises TryLater if the application keeps a row locked."""
    try:
        with images.transaction():
            images.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
            yield
    except errors.LockNotAvailable:
        raise TryLater(
            f"the application kept rows of images locked for {LOCK_TIMEOUT}, nothing was written. Run the task again"
            " later."
        ) from None


def plan_of(context: StorageContext, purpose: str) -> sql.Identifier:
    """Return the table with the plan of a check of that purpose (`sync` or `scan`)."""
    return plan_table(stage_name(context.source.name, IMAGES.name, purpose))


def prove_again(context: StorageContext, plan: sql.Identifier, purpose: str, ticket: str, workers: int) -> None:
    """Look at each object of the confirmed changes again, by HEAD and by LIST, and settle the plan.

    A change that is not needed any more becomes `noise`. If the store refuses to answer about its object, it becomes
    `unproven`. Raises TryLater if a later look may have an answer, or if no look had one.
    """
    conn, bucket, source = context.conn, context.bucket, context.source.name
    look.prove(bucket)
    suspects = suspects_of(conn, plan, "confirmed")
    size = images.size(context.images, Scope())
    many = look.listing_is_cheaper(count_suspects(conn, plan, "confirmed"), size) and bucket.honours_start_after
    looks = {way: Stage.open(conn, OBJECTS, source, f"{purpose}_{way}", ticket) for way in Way}
    known = keys_of_other_images(context, plan)
    for way, stage in looks.items():
        by_pages = many and way is Way.LIST
        look.look_again(bucket, suspects, stage, way, by_pages=by_pages, workers=workers, known=known)
    unproven = [reason for stage in looks.values() if (reason := _nothing_proven(stage))]
    if not unproven:
        settle(conn, plan, list(looks.values()), status="confirmed")
    for stage in looks.values():
        stage.drop()
    if unproven:
        raise TryLater(f"the changes could not be proven once more, nothing was written: {unproven[0]}")


def keys_of_other_images(context: StorageContext, plan: sql.Identifier) -> KeysOfOthers:
    """Return the keys of some objects that should exist, since images outside the plan need them.

    If many looks at the planned changes have no answer, a look at these tells whether the store is down.
    """
    before = images.clock(context.images) - images.GRACE
    return KeysOfOthers(context, plan, before, str(UUID(int=0)), look.KNOWN, ANY_ROW)


def _nothing_proven(looks: Stage) -> str:
    """Return why the looks prove nothing, empty if they do.

    They prove nothing if one of them may have an answer later, or if none had an answer.
    """
    later, answered, reason = looks.conn.execute(
        sql.SQL(
            "SELECT count(*) FILTER (WHERE presence = 'unknown' AND later),"
            " count(*) FILTER (WHERE presence <> 'unknown'), min(reason) FROM {}"
        ).format(looks.sql)
    ).fetchone()
    return reason if reason and (later or not answered) else ""


def write(context: StorageContext, plan: sql.Identifier, sync_id: int, rows: Sequence[Mapping[str, Any]]) -> Counts:
    """Update the images that are still as the plan saw them, and audit what the database shows then.

    Images that have changed become `superseded` in the plan. Return the counts.
    """
    if not rows:
        return Counts()
    found = images.read_again(context.images, [row["id"] for row in rows], context.bucket, lock=True)
    same = [row for row in rows if row["id"] in found and as_planned(found[row["id"]], row)]
    supersede(context.conn, plan, {row["id"] for row in rows} - {row["id"] for row in same})
    for id_, why in islice(update_images(context.images, same).items(), NAMED):
        log.warning("image %s was not written, since the application's database refused it: %s", id_, why)
    after = standing(context.images, [row["id"] for row in same])
    before = {row["id"]: state(row["status"], row["error"], row["updated_at"]) for row in same}
    changed = [id_ for id_, now in after.items() if now != before[id_]]
    audit(context.conn, sync_id, [(id_, before[id_], after[id_]) for id_ in changed])
    done = sum(shows(after.get(row["id"]), row) for row in same)
    return Counts(updated=done, failed=len(same) - done)


def standing(images_: Connection, ids: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """Return the present status, error and time of change of these images, by id."""
    return {id_: state(*rest) for id_, *rest in images_.execute(STANDING, [list(ids)]).fetchall()}


def shows(now: Mapping[str, str | None] | None, row: Mapping[str, Any]) -> bool:
    """Return whether the image has the status and the error that were planned."""
    return now is not None and (now["status"], now["error"]) == (row["new_status"], row["new_error"])


def state(status: str, error: str | None, updated_at: datetime) -> dict[str, str | None]:
    """Return status, error and time of change as the audit stores them."""
    return {"status": status, "error": error, "updated_at": updated_at.astimezone(UTC).isoformat()}


def audit(conn: Connection, sync_id: int, changes: Sequence[tuple[str, Mapping, Mapping]]) -> None:
    """Write changes (id, before, after) to the change log."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after)"
            " VALUES (%s, %s, %s, 'update', %s, %s)",
            [(sync_id, TABLE, Jsonb({"id": id_}), Jsonb(before), Jsonb(after)) for id_, before, after in changes],
        )


def note_transaction(conn: Connection, images: Connection, sync_id: int) -> None:
    """Store the number of the application's open transaction in the sync log, for `resolve_cut_off_commits`."""
    (number,) = images.execute("SELECT pg_current_xact_id()::text").fetchone()
    conn.execute("UPDATE confidence.sync_log SET copy_transaction = %s WHERE sync_id = %s", [number, sync_id])


def resolve_cut_off_commits(conn: Connection, images: Connection, source: str) -> None:
    """Find out whether writes were committed that a crash cut off between the two commits; correct the sync log.

    Raises TryLater while such a transaction is still open, and RuntimeError if the application's database no longer
    knows it.
    """
    open_ = conn.execute(
        "SELECT sync_id, copy_transaction FROM confidence.sync_log"
        " WHERE source = %s AND state <> 'success' AND copy_transaction IS NOT NULL ORDER BY sync_id DESC",
        [source],
    ).fetchall()
    for sync_id, number in open_:
        outcome = _outcome(images, number)
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


def _outcome(images: Connection, number: str) -> str | None:
    """Return what became of the application's transaction, None if its database does not know."""
    try:
        return images.execute("SELECT pg_xact_status(%s::xid8)", [number]).fetchone()[0]
    except errors.InvalidParameterValue:
        # It has not come to that number: it is another server, or a restored copy.
        return None


def verify_repair(context: StorageContext, summary: ForensicSummary, sync_id: int, *, workers: int) -> list[Check]:
    """Count planned changes that the images don't show, and written images of a sample that contradict their objects.

    Raises TryLater if the store gives no answer about any image of the sample.
    """
    plan = plan_of(context, "scan")
    unlike = sum(_open(context, sync_id, rows) for rows in planned(context.conn, plan, 1000))
    return [
        Check(IMAGES.name, "planned_changes_open", 0, unlike),
        Check(IMAGES.name, "repaired_rows_unlike_source", 0, _unlike_objects(context, plan, sync_id, workers)),
    ]


def _open(context: StorageContext, sync_id: int, rows: Sequence[Mapping[str, Any]]) -> int:
    """Count images that don't show what was planned, unless the application has changed them after the repair.

    Superseded changes are not among the `rows`.
    """
    ids = [row["id"] for row in rows]
    now = standing(context.images, ids)
    written = dict(context.conn.execute(WRITTEN, [sync_id, TABLE, ids]).fetchall())
    return sum(not shows(now.get(row["id"]), row) and not _changed_since(now, written, row) for row in rows)


def _changed_since(now: Mapping[str, Mapping], written: Mapping[str, Mapping], row: Mapping[str, Any]) -> bool:
    """Return whether the image did show the planned status, and was changed or deleted afterwards."""
    after, present = written.get(row["id"]), now.get(row["id"])
    return shows(after, row) and (present is None or present["updated_at"] != after["updated_at"])


def _unlike_objects(context: StorageContext, plan: sql.Identifier, sync_id: int, workers: int) -> int:
    """Count images of a sample that were marked although the object is present, or healed although it is missing.

    Raises TryLater if the store gives no answer about any of them.
    """
    with context.conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(SAMPLE_ROWS.format(plan), [sync_id, TABLE, sync_id, SAMPLE]).fetchall()
    look.prove(context.bucket)
    looks = list(context.bucket.look_all(sorted({key for row in rows for key in row["keys"]}), workers))
    there = {found.key for found in looks if found.presence in (Presence.PRESENT, Presence.EMPTY)}
    unknown = {found.key: found.reason for found in looks if found.presence is Presence.UNKNOWN}
    told = [row for row in rows if not there.isdisjoint(row["keys"]) or unknown.keys().isdisjoint(row["keys"])]
    for reason in {*unknown.values()}:
        log.warning(
            "%d of %d written images could not be looked at again: %s", len(rows) - len(told), len(rows), reason
        )
    if rows and not told:
        why = min(unknown.values())
        raise TryLater(f"The repair of {IMAGES.name} is applied (sync_id {sync_id}), and could not be verified: {why}")
    # A marked image lacks its object, a healed one has it.
    return sum(there.isdisjoint(row["keys"]) is (row["_operation"] == "heal") for row in told)


def _count(conn: Connection, plan: sql.Identifier) -> int:
    query = sql.SQL("SELECT count(*) FROM {} WHERE _status = 'confirmed'").format(plan)
    return conn.execute(query).fetchone()[0]


WRITTEN = """
SELECT key ->> 'id', after FROM confidence.change_log
WHERE sync_id = %s AND table_name = %s AND key ->> 'id' = ANY (%s)
"""

# A pseudorandom sample, the same for all attempts. `keys` of a marked image: those of the missing object that its error
# names. Of a healed image: those of the original.
SAMPLE_ROWS = sql.SQL("""
SELECT _operation, array_remove(CASE WHEN _operation = 'heal' OR original_state = 'absent'
  THEN original_key || original_others ELSE staged_key || staged_others END, NULL) AS keys
FROM {} p
WHERE _status = 'confirmed' AND EXISTS
  (SELECT FROM confidence.change_log c WHERE c.sync_id = %s AND c.table_name = %s AND c.key ->> 'id' = p.id::text)
ORDER BY hashtextextended(id::text, %s), id LIMIT %s
""")
