"""The fence: one row of `confidence.writer` for each source. Every writing transaction locks it, so that a stopped
writer can't write.

Airflow's pool shows people that the writer is stopped, and keeps its tasks waiting. The fence is the guarantee. `stop`
updates the row, and so waits for every open writing transaction; a later one finds the new state and is refused.

A trigger keeps each time for which a writer stood still in `confidence.writer_stop`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection, errors, sql
from psycopg.rows import class_row


class FenceError(Exception):
    """The fence refuses the step. The message says who stopped the writer, and what to do."""


class DrainTimeout(FenceError):
    """The writer could not be stopped in time: a writing transaction was still open."""


@dataclass(frozen=True)
class Writer:
    """A source's writer, as the fence's row has it.

    - `state`: `running` or `stopped`
    - `epoch`: how often the writer was stopped or a sync rolled back
    - `run`: the run (`dag_id/run_id`) that stopped the writer last
    - `since`: when `state` last changed
    - `hold_reason`: why the writer is held; None if it is not
    """

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
        return f"writer of {self.source} has been stopped by {self.run} since {self.since:%Y-%m-%d %H:%M %Z}{held}"


def read(conn: Connection, source: str) -> Writer:
    """Return the source's writer as it is committed now. Raises FenceError if the source has no row."""
    return _fetch(conn, source, "")


def stop(conn: Connection, source: str, run: str, timeout: float) -> Writer:
    """Stop the writer for `run` and return it. Waits up to `timeout` seconds for open writing transactions to end.

    If this run has stopped the writer before, the epoch stays, as nobody wrote in between. If another run has, this
    run takes the stop over: the epoch rises, and a hold stays. Raises DrainTimeout, which names the sessions that
    still write.
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
    """Let the writer run again and return it. A running writer is returned as it is.

    Raises FenceError if another run has stopped the writer, or if it is held.
    """
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
    """Return the writer if `run` has stopped it, else raise FenceError. Every step of a runbook calls this first."""
    return _required(_fetch(conn, source, ""), run)


@contextmanager
def writing(conn: Connection, source: str, *, epoch: int, run: str | None = None) -> Iterator[Writer]:
    """Open a transaction that may write to the source's copy. The writer can't be stopped until it ends.

    `epoch`: the epoch when the caller began. A sync leaves out `run`, and the writer has to be running. A repair gives
    its `run`, which has to have stopped the writer. Raises FenceError otherwise, or if the epoch has changed.
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
    """Open a transaction during which nobody else can write to the source's copy.

    It waits up to `timeout` seconds for open writing transactions, and raises the epoch: a sync that began before
    can't write afterwards, and earlier scans are no evidence any more. Raises FenceError while a runbook is at work on
    the source, DrainTimeout if a writing transaction does not end in time.
    """
    try:
        with conn.transaction():
            conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{max(1, int(timeout * 1000))}ms"])
            # A copy at a vendor is written through other connections meanwhile.
            conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
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
    """Return the sessions that lock a row of the fence, for a message. Postgres does not tell which source's row."""
    rows = conn.execute(
        "SELECT DISTINCT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.relation = 'confidence.writer'::regclass AND l.mode = 'RowShareLock' AND a.pid <> pg_backend_pid()"
        " ORDER BY a.pid"
    ).fetchall()
    return ", ".join(f"pid {pid} {name}".strip() for pid, name in rows) or "gone meanwhile"
