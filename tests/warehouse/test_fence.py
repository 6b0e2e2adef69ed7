"""The fence: what stopping waits for, what it shuts out, and who may open it again."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from include.warehouse import fence
from include.warehouse.fence import DrainTimeout, FenceError
from tests.warehouse.shop import SOURCE

RUN, OTHER = "shop_reconcile/tonight", "shop_reconcile/tomorrow"


@pytest.fixture
def background():
    """Runs a call in a thread of its own; all have ended when the test is over."""
    with ThreadPoolExecutor(4) as executor:
        yield executor.submit


def until_waiting(conn: psycopg.Connection, waiting: psycopg.Connection) -> None:
    """Return as soon as the session waits for another one's lock."""
    deadline = time.monotonic() + 30
    query = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    while conn.execute(query, [waiting.info.backend_pid]).fetchone() != (True,):
        assert time.monotonic() < deadline, "the session never waited"
        time.sleep(0.01)


def insert(conn: psycopg.Connection, id_: int) -> None:
    conn.execute("INSERT INTO shop.parts (id, sync_id) VALUES (%s, 0)", [id_])


def ids(conn: psycopg.Connection) -> list[int]:
    return [id_ for (id_,) in conn.execute("SELECT id FROM shop.parts ORDER BY id")]


def hold(conn: psycopg.Connection, reason: str | None = "too much drift") -> None:
    conn.execute("UPDATE confidence.writer SET hold_reason = %s WHERE source = %s", [reason, SOURCE])


class TestStop:
    def test_counts_and_names(self, conn):
        before = fence.read(conn, SOURCE)
        writer = fence.stop(conn, SOURCE, RUN, timeout=1)
        assert (writer.stopped, writer.epoch, writer.run) == (True, before.epoch + 1, RUN)
        assert writer.since > before.since
        assert fence.read(conn, SOURCE) == writer
        assert str(writer).startswith(f"writer of shop has been stopped by {RUN} since 20")

    def test_of_the_same_run_once_more_keeps_everything(self, conn):
        assert fence.stop(conn, SOURCE, RUN, timeout=1) == fence.stop(conn, SOURCE, RUN, timeout=1)

    def test_waits_for_the_open_transaction_and_sees_what_it_wrote(self, conn, connect, background):
        stopping = connect()
        with fence.writing(conn, SOURCE, epoch=0):
            insert(conn, 1)
            stopped = background(fence.stop, stopping, SOURCE, RUN, timeout=30)
            until_waiting(connect(), stopping)
            insert(conn, 2)
            assert not stopped.done()
        assert stopped.result(30).epoch == 1
        assert ids(stopping) == [1, 2]

    def test_waits_for_every_one_of_several_writers(self, conn, connect, background):
        stopping, other = connect(), connect()
        with fence.writing(conn, SOURCE, epoch=0):
            with fence.writing(other, SOURCE, epoch=0):
                stopped = background(fence.stop, stopping, SOURCE, RUN, timeout=30)
                until_waiting(connect(), stopping)
            assert not stopped.done()
        assert stopped.result(30).stopped

    @pytest.mark.drill("locked-table")
    def test_times_out_naming_the_session_and_leaves_the_writer_running(self, conn, connect):
        writing = connect("shop_sync/scheduled")
        with fence.writing(writing, SOURCE, epoch=0):
            with pytest.raises(DrainTimeout) as refused:
                fence.stop(conn, SOURCE, RUN, timeout=0.05)
            insert(writing, 1)
        named = f"any source: pid {writing.info.backend_pid} shop_sync/scheduled)"
        assert named in str(refused.value)
        assert "clear stop_writer with downstream" in str(refused.value)
        assert not fence.read(conn, SOURCE).stopped
        assert ids(conn) == [1]
        assert fence.stop(conn, SOURCE, RUN, timeout=1).epoch == 1

    def test_names_no_session_that_only_reads_the_fence_or_writes_elsewhere(self, conn, connect):
        reading, elsewhere, writing = connect("a page"), connect("somebody"), connect("shop_sync/scheduled")
        with reading.transaction(), elsewhere.transaction(), fence.writing(writing, SOURCE, epoch=0):
            fence.read(reading, SOURCE)
            elsewhere.execute("SELECT FROM confidence.sync_log FOR SHARE")
            with pytest.raises(DrainTimeout, match=r"any source: pid [0-9]+ shop_sync/scheduled\)"):
                fence.stop(conn, SOURCE, RUN, timeout=0.05)

    def test_leaves_no_lock_timeout_behind(self, conn):
        fence.stop(conn, SOURCE, RUN, timeout=1)
        assert conn.execute("SHOW lock_timeout").fetchone() == ("0",)

    def test_is_not_held_up_by_another_source(self, conn, connect):
        with fence.writing(connect(), "repairshopr", epoch=0):
            assert fence.stop(conn, SOURCE, RUN, timeout=0.05).stopped

    @pytest.mark.drill("two-deployments")
    def test_of_another_run_takes_over_with_its_hold(self, conn):
        first = fence.stop(conn, SOURCE, RUN, timeout=1)
        hold(conn)
        taken = fence.stop(conn, SOURCE, OTHER, timeout=1)
        assert (taken.run, taken.epoch, taken.since) == (OTHER, first.epoch + 1, first.since)
        assert taken.hold_reason == "too much drift"
        with pytest.raises(FenceError, match=f"stopped by {OTHER}.*not stopped by this run"):
            fence.require_stopped(conn, SOURCE, RUN)

    @pytest.mark.drill("two-deployments")
    def test_two_at_once_take_turns(self, conn, connect, background):
        with fence.writing(conn, SOURCE, epoch=0):
            sessions = {run: connect() for run in (RUN, OTHER)}
            stops = {run: background(fence.stop, session, SOURCE, run, timeout=30) for run, session in sessions.items()}
            for session in sessions.values():
                until_waiting(connect(), session)
        epochs = {stopped.result(30).epoch: run for run, stopped in stops.items()}
        assert sorted(epochs) == [1, 2]
        now = fence.read(conn, SOURCE)
        assert (now.epoch, now.run) == (2, epochs[2])

    def test_without_a_row_names_the_migration(self, conn):
        with pytest.raises(FenceError, match="no row for nowhere: run the DAG warehouse_migrate"):
            fence.stop(conn, "nowhere", RUN, timeout=1)


class TestResume:
    def test_lets_the_writer_run(self, conn):
        stopped = fence.stop(conn, SOURCE, RUN, timeout=1)
        writer = fence.resume(conn, SOURCE, RUN)
        assert (writer.stopped, writer.epoch) == (False, stopped.epoch)
        assert writer.since > stopped.since
        assert str(writer) == "writer of shop is running"

    def test_of_a_running_writer_changes_nothing(self, conn):
        before = fence.read(conn, SOURCE)
        assert fence.resume(conn, SOURCE, RUN) == before

    def test_is_for_the_run_that_stopped_it(self, conn):
        fence.stop(conn, SOURCE, RUN, timeout=1)
        with pytest.raises(FenceError, match=f"stopped by {RUN}.*only that run"):
            fence.resume(conn, SOURCE, OTHER)
        assert fence.read(conn, SOURCE).stopped

    def test_is_refused_while_held(self, conn):
        fence.stop(conn, SOURCE, RUN, timeout=1)
        hold(conn)
        with pytest.raises(FenceError, match="held: too much drift; clear decide"):
            fence.resume(conn, SOURCE, RUN)
        assert fence.read(conn, SOURCE).stopped

    def test_a_running_writer_can_not_be_held(self, conn):
        with pytest.raises(psycopg.errors.CheckViolation):
            hold(conn)


class TestStops:
    """Each time for which the writer stood still is kept, by run and reason."""

    def stops(self, conn: psycopg.Connection) -> list[tuple]:
        """Run, reason, and whether it has ended, oldest first; each began when the one before ended."""
        rows = conn.execute(
            "SELECT run, hold_reason, began_at, ended_at FROM confidence.writer_stop WHERE source = %s"
            " ORDER BY began_at",
            [SOURCE],
        ).fetchall()
        assert all(before[3] == after[2] for before, after in pairwise(rows))
        return [(run, reason, ended is not None) for run, reason, _, ended in rows]

    def test_change_with_run_and_reason(self, conn):
        fence.stop(conn, SOURCE, RUN, timeout=1)
        hold(conn)
        hold(conn)
        fence.stop(conn, SOURCE, OTHER, timeout=1)
        hold(conn, None)
        assert self.stops(conn) == [
            (RUN, None, True),
            (RUN, "too much drift", True),
            (OTHER, "too much drift", True),
            (OTHER, None, False),
        ]
        resumed = fence.resume(conn, SOURCE, OTHER)
        assert self.stops(conn)[-1] == (OTHER, None, True)
        ended = conn.execute("SELECT max(ended_at) FROM confidence.writer_stop").fetchone()[0]
        assert 0 <= (ended - resumed.since).total_seconds() < 1

    def test_are_not_changed_by_what_stops_nothing(self, conn):
        fence.resume(conn, SOURCE, RUN)
        with fence.exclusive(conn, SOURCE, timeout=1):
            pass
        assert self.stops(conn) == []
        fence.stop(conn, SOURCE, RUN, timeout=1)
        fence.stop(conn, SOURCE, RUN, timeout=1)
        assert self.stops(conn) == [(RUN, None, False)]

    def test_that_fail_leave_nothing(self, conn, connect):
        with fence.writing(connect(), SOURCE, epoch=0), pytest.raises(DrainTimeout):
            fence.stop(conn, SOURCE, RUN, timeout=0.05)
        assert self.stops(conn) == []

    def test_by_hand_are_kept_too(self, conn):
        conn.execute("UPDATE confidence.writer SET state = 'stopped' WHERE source = %s", [SOURCE])
        assert self.stops(conn) == [(None, None, False)]
        conn.execute("UPDATE confidence.writer SET state = 'running' WHERE source = %s", [SOURCE])
        assert self.stops(conn) == [(None, None, True)]


class TestWriting:
    def test_is_refused_while_stopped(self, conn):
        writer = fence.stop(conn, SOURCE, RUN, timeout=1)
        with pytest.raises(FenceError, match="nothing was written"):
            write(conn, writer.epoch, 1)
        assert ids(conn) == []

    def test_that_began_before_a_stop_is_refused_after_it(self, conn, connect):
        """A sync that was cut off from the scheduler and goes on reading: what it read is older than the repair."""
        zombie = connect()
        epoch = fence.read(zombie, SOURCE).epoch
        fence.stop(conn, SOURCE, RUN, timeout=1)
        fence.resume(conn, SOURCE, RUN)
        with (
            pytest.raises(FenceError, match=r"epoch 0, now 1.*Clear the task"),
            fence.writing(zombie, SOURCE, epoch=epoch),
        ):
            pytest.fail("the writer wrote")

    def test_that_asks_while_a_stop_waits_is_refused_with_it(self, conn, connect, background):
        stopping, late = connect(), connect()
        with fence.writing(conn, SOURCE, epoch=0):
            stopped = background(fence.stop, stopping, SOURCE, RUN, timeout=30)
            until_waiting(connect(), stopping)
            written = background(write, late, 0, 7)
            # Postgres lets a share lock past a waiting update: then it is one more that the stop waits for.
            time.sleep(0.1)
            insert(conn, 1)
        assert stopped.result(30).stopped
        assert outcome(written) in (None, FenceError)
        assert ids(conn) == ([1, 7] if outcome(written) is None else [1])
        with pytest.raises(FenceError):
            write(late, 0, 8)

    def test_rolls_back_as_a_whole(self, conn):
        insert(conn, 1)
        with pytest.raises(psycopg.errors.UniqueViolation):
            write(conn, 0, 2, 1)
        assert ids(conn) == [1]
        assert fence.stop(conn, SOURCE, RUN, timeout=0.05).stopped

    def test_of_a_repair_needs_its_own_stop(self, conn):
        writer = fence.stop(conn, SOURCE, RUN, timeout=1)
        with fence.writing(conn, SOURCE, epoch=writer.epoch, run=RUN):
            insert(conn, 1)
        for run, epoch in ((OTHER, writer.epoch), (RUN, writer.epoch - 1)):
            with pytest.raises(FenceError):
                write(conn, epoch, 2, run=run)
        fence.resume(conn, SOURCE, RUN)
        with pytest.raises(FenceError, match="is running, and not stopped by this run"):
            write(conn, writer.epoch, 2, run=RUN)
        assert ids(conn) == [1]

    def test_delays_a_stop_by_another_run_until_the_repair_is_done(self, conn, connect, background):
        stopping = connect()
        writer = fence.stop(conn, SOURCE, RUN, timeout=1)
        with fence.writing(conn, SOURCE, epoch=writer.epoch, run=RUN):
            taken = background(fence.stop, stopping, SOURCE, OTHER, timeout=30)
            until_waiting(connect(), stopping)
            insert(conn, 1)
        assert taken.result(30).epoch == writer.epoch + 1
        with pytest.raises(FenceError, match=f"stopped by {OTHER}"):
            write(conn, writer.epoch, 2, run=RUN)


class TestExclusive:
    def test_waits_for_writers_and_shuts_out_those_that_read_before_it(self, conn, connect, background):
        undoing = connect()
        with fence.writing(conn, SOURCE, epoch=0):
            undone = background(exclusively, undoing, 30, 5)
            until_waiting(connect(), undoing)
            insert(conn, 1)
        assert outcome(undone) is None
        with pytest.raises(FenceError, match="stopped or rolled back since this task began"):
            write(conn, 0, 2)
        write(conn, 1, 3)
        assert ids(conn) == [1, 3, 5]

    def test_makes_writers_wait(self, conn, connect, background):
        writing = connect()
        with fence.exclusive(conn, SOURCE, timeout=1):
            written = background(write, writing, 0, 1)
            until_waiting(connect(), writing)
        assert outcome(written) is FenceError
        assert ids(conn) == []

    def test_does_not_interrupt_a_run_at_work(self, conn):
        fence.stop(conn, SOURCE, RUN, timeout=1)
        with pytest.raises(FenceError, match=f"stopped by {RUN}.*at work; wait"):
            exclusively(conn, 1, 5)
        hold(conn)
        exclusively(conn, 1, 5)
        assert ids(conn) == [5]

    def test_times_out_naming_the_session(self, conn, connect):
        writing = connect("shop_sync/scheduled")
        with fence.writing(writing, SOURCE, epoch=0), pytest.raises(DrainTimeout, match="shop_sync/scheduled"):
            exclusively(conn, 0.05, 5)
        assert ids(conn) == []

    def test_that_fails_leaves_the_epoch(self, conn):
        with pytest.raises(ZeroDivisionError), fence.exclusive(conn, SOURCE, timeout=1):
            raise ZeroDivisionError
        assert fence.read(conn, SOURCE).epoch == 0


def write(conn: psycopg.Connection, epoch: int, *parts: int, **run: Any) -> None:
    with fence.writing(conn, SOURCE, epoch=epoch, **run):
        for id_ in parts:
            insert(conn, id_)


def exclusively(conn: psycopg.Connection, timeout: float, id_: int) -> None:
    with fence.exclusive(conn, SOURCE, timeout):
        insert(conn, id_)


def outcome(call: Future) -> Callable | None:
    """What class of error the call ended with; None for a good end."""
    error = call.exception(30)
    return error and type(error)
