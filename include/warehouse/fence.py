"""The fence: one row a source that every writing transaction locks, so that a stopped writer can't write.

The pool in Airflow is what people see and what keeps the queue waiting; this row is the guarantee. Stopping updates
the row, and so waits for every open writing transaction; a later one finds the new state and epoch and is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection, errors, sql
from psycopg.rows import class_row


class FenceError(Exception):
    """The fence doesn't let this through. The message says who holds it and what to do."""


class DrainTimeout(FenceError):
    """A writing transaction was still open when the time to stop ran out."""


@dataclass(frozen=True)
class Writer:
    """A source's writer: `epoch` counts its stops, `run` is who stopped it last, `since` the last change of state."""

    source: str
    state: str
    epoch: int
    run: str | None
    since: datetime
    hold_reason: str | None

    @property
    def stopped(self) -> bool:
        return self.state == "stopped"

    def __str__(self) -> str:
        if not self.stopped:
            return f"writer of {self.source} is running"
        held = f", held: {self.hold_reason}" if self.hold_reason else ""
        return f"writer of {self.source} is stopped by {self.run} since {self.since:%Y-%m-%d %H:%M %Z}{held}"


def read(conn: Connection, source: str) -> Writer:
    """Return the writer as committed now."""
    return _fetch(conn, source, "")


def stop(conn: Connection, source: str, run: str, timeout: float) -> Writer:
    """Stop the writer for `run`, after every open writing transaction; waits at most `timeout` seconds.

    A stop that this run already has is kept with its epoch: nobody wrote in between. A stop of another run is taken
    over with a new epoch, and its hold with it. Raises DrainTimeout naming the sessions that still write.
    """
    try:
        with conn.transaction():
            conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{max(1, int(timeout * 1000))}ms"])
            writer = _fetch(conn, source, "FOR UPDATE")
            if not (writer.stopped and writer.run == run):
                conn.execute(
                    "UPDATE confidence.writer SET state = 'stopped', epoch = epoch + 1, run = %s,"
                    " since = CASE state WHEN 'stopped' THEN since ELSE clock_timestamp() END WHERE source = %s",
                    [run, source],
                )
            return _fetch(conn, source, "")
    except errors.LockNotAvailable:
        raise DrainTimeout(
            f"the writer of {source} still has an open transaction after {timeout:.0f} s"
            f" (sessions that write, for any source: {_writing(conn)});"
            " end that session (pg_terminate_backend) or wait for it, then clear stop_writer with downstream"
        ) from None


def resume(conn: Connection, source: str, run: str) -> Writer:
    """Let the writer run again. Only the run that stopped it may, and only while nothing holds it."""
    with conn.transaction():
        writer = _fetch(conn, source, "FOR UPDATE")
        if not writer.stopped:
            return writer
        if writer.run != run:
            raise FenceError(f"{writer}; only that run or a later one of the runbook may resume it")
        if writer.hold_reason:
            raise FenceError(f"{writer}; clear decide with downstream to be asked again, or let a later run recover")
        conn.execute(
            "UPDATE confidence.writer SET state = 'running', since = clock_timestamp() WHERE source = %s",
            [source],
        )
        return _fetch(conn, source, "")


def require_stopped(conn: Connection, source: str, run: str) -> Writer:
    """Return the writer if it is stopped by `run`; every step of a runbook checks this first."""
    return _required(_fetch(conn, source, ""), run)


@contextmanager
def writing(conn: Connection, source: str, *, epoch: int, run: str | None = None) -> Iterator[Writer]:
    """A transaction that may write for the source, holding the fence open until it ends.

    A sync gives the epoch at which it began and needs a running writer; a repair gives its `run` too and needs the
    writer stopped by that run.
    """
    with conn.transaction():
        writer = _fetch(conn, source, "FOR SHARE")
        if run is not None:
            _required(writer, run)
        elif writer.stopped:
            raise FenceError(f"{writer}; nothing was written. The sync catches up from its watermark after the resume")
        if writer.epoch != epoch:
            raise FenceError(
                f"{source} was stopped or rolled back since this task began (epoch {epoch}, now {writer.epoch});"
                " nothing was written. Clear the task to start over"
            )
        yield writer


@contextmanager
def exclusive(conn: Connection, source: str, timeout: float) -> Iterator[Writer]:
    """A transaction that keeps every other writer of the source out; a reconcile run at work is not interrupted.

    It takes an epoch of its own: a sync that has read before it can't write after it, and scans from before it are
    no evidence any more.
    """
    try:
        with conn.transaction():
            conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{max(1, int(timeout * 1000))}ms"])
            writer = _fetch(conn, source, "FOR UPDATE")
            if writer.stopped and not writer.hold_reason:
                raise FenceError(f"{writer} and at work; wait for that run to end, then clear this task")
            conn.execute("UPDATE confidence.writer SET epoch = epoch + 1 WHERE source = %s", [source])
            yield writer
    except errors.LockNotAvailable:
        raise DrainTimeout(
            f"the writer of {source} still has an open transaction after {timeout:.0f} s"
            f" (sessions that write, for any source: {_writing(conn)});"
            " wait for it or end that session (pg_terminate_backend), then clear this task"
        ) from None


def _required(writer: Writer, run: str) -> Writer:
    if not writer.stopped or writer.run != run:
        raise FenceError(
            f"{writer}, and not stopped by this run ({run}): clear stop_writer with downstream,"
            " so that the steps run in order behind a stopped writer"
        )
    return writer


def _fetch(conn: Connection, source: str, lock: str) -> Writer:
    query = sql.SQL(
        "SELECT source, state, epoch, run, since, hold_reason FROM confidence.writer WHERE source = %s {}"
    ).format(sql.SQL(lock))
    with conn.cursor(row_factory=class_row(Writer)) as cursor:
        writer = cursor.execute(query, [source]).fetchone()
    if writer is None:
        raise FenceError(f"confidence.writer has no row for {source}: run the DAG warehouse_migrate")
    return writer


def _writing(conn: Connection) -> str:
    """The sessions that write behind a fence, for the message. Postgres doesn't tell which source's row they lock."""
    rows = conn.execute(
        "SELECT DISTINCT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.relation = 'confidence.writer'::regclass AND l.mode = 'RowShareLock' AND a.pid <> pg_backend_pid()"
        " ORDER BY a.pid"
    ).fetchall()
    return ", ".join(f"pid {pid} {name}".strip() for pid, name in rows) or "gone meanwhile"
