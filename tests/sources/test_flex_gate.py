"""One writer at a time on a crew call, and nothing forgotten of what it sent."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest

from include.sources.flex import gate
from include.sources.flex.calls import Outcome
from include.sources.flex.gate import GateClosed, GateLost, Write
from include.sources.flex.plan import Member
from include.warehouse import sync_log

RUN = "flex_sync/test"
RESOURCE, LINE = uuid4(), uuid4()
ADD = Write("add", None, RESOURCE, Member(uuid4(), uuid4()), role_after=uuid4())


@pytest.fixture
def conn(url) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def other(url) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def sync_id(conn) -> int:
    return sync_log.begin(conn, "flex", "sync", RUN)


@pytest.fixture
def element() -> UUID:
    return uuid4()


def state(conn: psycopg.Connection, element: UUID) -> tuple:
    query = "SELECT state, operation_id FROM flex.element_gate WHERE flex_element_id = %s"
    return conn.execute(query, [element]).fetchone()


def operation(conn: psycopg.Connection, operation_id: int) -> tuple:
    query = (
        "SELECT state, flex_line_item_id, reason, settled_at IS NOT NULL FROM flex.operation WHERE operation_id = %s"
    )
    return conn.execute(query, [operation_id]).fetchone()


def killed(conn: psycopg.Connection, other: psycopg.Connection) -> None:
    """End the first session as a killed process's ends."""
    pid = conn.info.backend_pid
    other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


class TestClaim:
    def test_keeps_others_out_until_it_is_released(self, conn, other, element, sync_id):
        with gate.claimed(conn, element, RUN, sync_id):
            assert state(other, element) == ("busy", None)
            with pytest.raises(GateClosed, match="another run") as caught:
                gate.claim(other, element, RUN, sync_id)
            assert caught.value.state == "busy"
        assert state(other, element) == ("idle", None)
        with gate.claimed(other, element, RUN, sync_id):
            pass

    def test_is_of_one_element(self, conn, other, element, sync_id):
        with gate.claimed(conn, element, RUN, sync_id), gate.claimed(other, uuid4(), RUN, sync_id):
            pass

    def test_is_released_when_the_block_fails(self, conn, other, element, sync_id):
        with pytest.raises(ZeroDivisionError), gate.claimed(conn, element, RUN, sync_id):
            raise ZeroDivisionError
        with gate.claimed(other, element, RUN, sync_id):
            pass

    def test_takes_over_what_a_crash_left_idle(self, conn, other, element, sync_id):
        before = gate.claim(conn, element, RUN, sync_id)
        killed(conn, other)
        after = gate.claim(other, element, RUN, sync_id)
        assert after.acquired_at > before.acquired_at
        # Whoever was thought dead, but isn't, writes nothing any more.
        with pytest.raises(GateLost), other.transaction():
            gate.journal_write(other, before, ADD)
        gate.release(other, before)
        assert state(other, element)[0] == "busy"

    def test_doubts_what_a_crash_left_underway(self, conn, other, element, sync_id):
        ours = gate.claim(conn, element, RUN, sync_id)
        operation_id = gate.journal_write(conn, ours, ADD)
        killed(conn, other)
        for _ in range(2):
            with pytest.raises(GateClosed, match="release_element") as caught:
                gate.claim(other, element, RUN, sync_id)
            assert caught.value.state == "uncertain"
        assert state(other, element) == ("uncertain", operation_id)
        assert operation(other, operation_id) == ("unknown", None, gate.CRASHED, True)

    def test_that_fails_leaves_no_lock(self, conn, other, element, sync_id):
        ours = gate.claim(conn, element, RUN, sync_id)
        gate.mark_uncertain(conn, element, [gate.journal_write(conn, ours, ADD)], "lost")
        gate.release(conn, ours)
        with pytest.raises(GateClosed):
            gate.claim(conn, element, RUN, sync_id)
        assert other.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


class TestJournal:
    def test_keeps_what_was_sent_and_what_became_of_it(self, conn, element, sync_id):
        with gate.claimed(conn, element, RUN, sync_id) as ours:
            with conn.transaction():
                operation_id = gate.journal_write(conn, ours, ADD)
            assert operation(conn, operation_id) == ("sent", None, None, False)
            assert state(conn, element) == ("busy", operation_id)
            with conn.transaction():
                gate.settle(conn, operation_id, Outcome("done", LINE))
                gate.set_open_operation(conn, ours, None)
            assert operation(conn, operation_id) == ("done", LINE, None, True)
        assert state(conn, element) == ("idle", None)
        query = "SELECT crew_call_id, technician_id, role_after FROM flex.operation WHERE operation_id = %s"
        who = (ADD.member.crew_call_id, ADD.member.technician_id, str(ADD.role_after))
        assert conn.execute(query, [operation_id]).fetchone() == who

    def test_has_one_write_underway(self, conn, element, sync_id):
        with gate.claimed(conn, element, RUN, sync_id) as ours:
            first = gate.journal_write(conn, ours, ADD)
            with pytest.raises(psycopg.errors.UniqueViolation), conn.transaction():
                gate.journal_write(conn, ours, ADD)
            gate.settle(conn, first, Outcome("refused", reason="no"))
            assert operation(conn, first) == ("refused", None, "no", True)
            gate.journal_write(conn, ours, Write("remove", LINE, RESOURCE))

    def test_is_not_released_with_a_write_underway(self, conn, other, element, sync_id):
        with gate.claimed(conn, element, RUN, sync_id) as ours:
            operation_id = gate.journal_write(conn, ours, ADD)
        assert state(conn, element) == ("busy", operation_id)
        with pytest.raises(GateClosed):
            gate.claim(other, element, RUN, sync_id)
        assert state(conn, element) == ("uncertain", operation_id)

    def test_doubts_what_was_done_but_not_proven(self, conn, element, sync_id):
        with gate.claimed(conn, element, RUN, sync_id) as ours:
            operation_id = gate.journal_write(conn, ours, ADD)
            gate.settle(conn, operation_id, Outcome("done", LINE))
            gate.mark_uncertain(conn, element, [operation_id], "not shown")
        assert state(conn, element) == ("uncertain", operation_id)
        assert operation(conn, operation_id) == ("unknown", LINE, "not shown", True)
