"""The gate of a crew call in Flex: it lets one writer in at a time, and keeps a journal of what the writer sends.

The row of the gate does not expire. The writer also holds an advisory lock of its database session, which ends with the
session. So a busy gate whose lock is free was left by a crash. A write that was under way may have happened, and a
person has to decide.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg import Connection, sql

from include.sources.flex.calls import Outcome
from include.sources.flex.desired import Call
from include.sources.flex.plan import Member

LOCK = sql.SQL("hashtextextended('flex.element_gate/' || %(element)s::uuid, 0)")
RELEASE = "Look at the crew call in Flex, then run flex_sync with release_element"
CRASHED = "its run ended before it knew the outcome"

TAKE = """
UPDATE flex.element_gate SET state = 'busy', owner = %(owner)s, acquired_at = clock_timestamp(),
  last_claim = clock_timestamp(), operation_id = NULL
WHERE flex_element_id = %(element)s AND state <> 'uncertain' AND operation_id IS NULL
RETURNING acquired_at
"""

UNCERTAIN = "SELECT FROM flex.element_gate WHERE flex_element_id = %s AND state = 'uncertain'"

IDLE = """
UPDATE flex.element_gate SET state = 'idle', owner = NULL, acquired_at = NULL, operation_id = NULL
WHERE flex_element_id = %s AND state = 'uncertain'
"""

DOUBT = """
UPDATE flex.operation SET state = 'unknown', reason = %(reason)s, settled_at = coalesce(settled_at, clock_timestamp())
WHERE operation_id = ANY (%(operations)s)
"""

SENT = """
INSERT INTO flex.operation (sync_id, flex_element_id, kind, flex_line_item_id, flex_resource_id, job_id, department,
  crew_call_id, technician_id, role_before, role_after)
VALUES (%(sync_id)s, %(element)s, %(kind)s, %(line)s, %(resource)s, %(job)s, %(department)s,
  %(call)s, %(technician)s, %(before)s, %(after)s)
RETURNING operation_id
"""

ANSWERED = """
UPDATE flex.operation SET state = 'answered', reason = %(reason)s,
  flex_line_item_id = coalesce(flex_line_item_id, %(line)s)
WHERE operation_id = %(operation)s AND state = 'sent'
"""

SETTLE = """
UPDATE flex.operation SET state = %(state)s, reason = %(reason)s, settled_at = clock_timestamp(),
  flex_line_item_id = coalesce(flex_line_item_id, %(line)s)
WHERE operation_id = %(operation)s AND state IN ('sent', 'answered')
"""

LEFT = """
SELECT o.operation_id FROM flex.element_gate g JOIN flex.operation o USING (flex_element_id)
WHERE flex_element_id = %s AND g.state = 'busy' AND g.operation_id IS NOT NULL
  AND (o.state IN ('sent', 'answered') OR o.operation_id = g.operation_id)
ORDER BY 1
"""


class GateClosed(Exception):
    """The element can't be written now. `state` is that of its gate. The message says what to do."""

    def __init__(self, element_id: UUID, state: Literal["busy", "uncertain"]) -> None:
        advice = {
            "busy": "another run is at work there. It gets its turn with the next sync",
            "uncertain": f"nobody knows whether a write there happened. {RELEASE}",
        }
        super().__init__(f"element {element_id} is {state}: {advice[state]}")
        self.state = state


class GateLost(Exception):
    """Another run has claimed the gate meanwhile. Nothing was written."""


@dataclass(frozen=True)
class Gate:
    """A claimed gate. `acquired_at` identifies the claim, since a run may claim a gate several times."""

    element_id: UUID
    owner: str
    acquired_at: datetime
    sync_id: int


@dataclass(frozen=True)
class Write:
    """A write to Flex as the journal stores it. `line_id` is None for an add.

    `call` is the member's. The journal copies it, since the call may be deleted while the line is still ours.
    """

    kind: Literal["add", "remove", "role"]
    line_id: UUID | None
    resource_id: UUID | None
    member: Member | None = None
    role_before: UUID | None = None
    role_after: UUID | None = None
    call: Call | None = None


@contextmanager
def claimed(conn: Connection, element_id: UUID, owner: str, sync_id: int) -> Iterator[Gate]:
    """Claim the gate until the block ends. `conn` is in autocommit and used by one thread only. Raises GateClosed.

    If an operation is not settled at the end, the gate stays busy or uncertain.
    """
    gate = claim(conn, element_id, owner, sync_id)
    try:
        yield gate
    finally:
        # If the connection is lost, the lock is gone with its session.
        if not conn.closed:
            release(conn, gate)


@contextmanager
def reopened(conn: Connection, element_id: UUID) -> Iterator[None]:
    """Lock an uncertain gate until the block ends. It becomes idle then, or stays uncertain if the block fails.

    A gate that a crash left with an operation under way is uncertain too. Raises GateClosed if another run is at work,
    and ValueError if the gate is not uncertain.
    """
    if not _try_lock(conn, element_id):
        raise GateClosed(element_id, "busy")
    try:
        with conn.transaction():
            _mark_uncertain_after_crash(conn, element_id)
        if conn.execute(UNCERTAIN, [element_id]).fetchone() is None:
            raise ValueError(f"element {element_id} is not uncertain, there is nothing to release")
        yield
        conn.execute(IDLE, [element_id])
    finally:
        if not conn.closed:
            _unlock(conn, element_id)


def claim(conn: Connection, element_id: UUID, owner: str, sync_id: int) -> Gate:
    """Claim the gate for a run (`dag_id/run_id`). Raises GateClosed.

    A gate that a crash left busy is taken over. If an operation was under way, it becomes uncertain instead.
    """
    if not _try_lock(conn, element_id):
        raise GateClosed(element_id, "busy")
    try:
        with conn.transaction():
            acquired_at = _mark_busy(conn, element_id, owner)
        if acquired_at is None:
            raise GateClosed(element_id, "uncertain")
    except BaseException:
        if not conn.closed:
            _unlock(conn, element_id)
        raise
    return Gate(element_id, owner, acquired_at, sync_id)


def release(conn: Connection, gate: Gate) -> None:
    """Make the gate idle, unless an operation is under way or unknown; give the lock back."""
    conn.execute(
        "UPDATE flex.element_gate SET state = 'idle', owner = NULL, acquired_at = NULL"
        " WHERE flex_element_id = %s AND state = 'busy' AND acquired_at = %s AND operation_id IS NULL",
        [gate.element_id, gate.acquired_at],
    )
    _unlock(conn, gate.element_id)


def journal_write(conn: Connection, gate: Gate, write: Write) -> int:
    """Journal a write before it is sent; return its operation_id. Raises GateLost.

    The caller commits before it sends the write.
    """
    values = {
        "sync_id": gate.sync_id,
        "element": gate.element_id,
        "kind": write.kind,
        "line": write.line_id,
        "resource": write.resource_id,
        "job": write.call and write.call.job_id,
        "department": write.call and write.call.department,
        "call": write.member and write.member.crew_call_id,
        "technician": write.member and write.member.technician_id,
        "before": write.role_before and str(write.role_before),
        "after": write.role_after and str(write.role_after),
    }
    (operation_id,) = conn.execute(SENT, values).fetchone()
    set_open_operation(conn, gate, operation_id)
    return operation_id


def journal_answer(conn: Connection, operation_id: int, outcome: Outcome) -> None:
    """Store what the answer to a write says. The gate still names the operation, until a read proves the outcome."""
    conn.execute(ANSWERED, {"operation": operation_id, "reason": outcome.reason, "line": outcome.line_id})


def settle(conn: Connection, operation_id: int, outcome: Outcome) -> None:
    """Store the outcome of a write that a read has proven: done or refused."""
    values = {"operation": operation_id, "state": outcome.kind, "reason": outcome.reason, "line": outcome.line_id}
    conn.execute(SETTLE, values)


def set_open_operation(conn: Connection, gate: Gate, operation_id: int | None) -> None:
    """Store at the gate which operation has no proven outcome yet, None if there is none. Raises GateLost."""
    changed = conn.execute(
        "UPDATE flex.element_gate SET operation_id = %s"
        " WHERE flex_element_id = %s AND state = 'busy' AND acquired_at = %s",
        [operation_id, gate.element_id, gate.acquired_at],
    ).rowcount
    if not changed:
        raise _lost(gate)


def require_claim(conn: Connection, gate: Gate) -> None:
    """Raise GateLost unless the gate is still ours. It stays ours until the caller's transaction ends."""
    query = "SELECT FROM flex.element_gate WHERE flex_element_id = %s AND state = 'busy' AND acquired_at = %s FOR SHARE"
    if conn.execute(query, [gate.element_id, gate.acquired_at]).fetchone() is None:
        raise _lost(gate)


def mark_uncertain(conn: Connection, element_id: UUID, operations: Sequence[int], reason: str) -> None:
    """Store that the outcome of these operations is unknown. The gate becomes uncertain, so nobody writes."""
    conn.execute(DOUBT, {"operations": list(operations), "reason": reason})
    conn.execute(
        "UPDATE flex.element_gate SET state = 'uncertain', operation_id = %s WHERE flex_element_id = %s",
        [operations[-1], element_id],
    )


def _lost(gate: Gate) -> GateLost:
    return GateLost(f"element {gate.element_id} was claimed by another run, nothing was written. Run the sync again")


def _mark_busy(conn: Connection, element_id: UUID, owner: str) -> datetime | None:
    """Mark the gate as busy; return the time of the claim. The caller holds the lock.

    Return None if the gate is uncertain. It becomes uncertain if a crash left it with an operation under way.
    """
    conn.execute(
        "INSERT INTO flex.element_gate (flex_element_id) VALUES (%s) ON CONFLICT DO NOTHING",
        [element_id],
    )
    taken = conn.execute(TAKE, {"element": element_id, "owner": owner}).fetchone()
    if taken:
        return taken[0]
    _mark_uncertain_after_crash(conn, element_id)
    return None


def _mark_uncertain_after_crash(conn: Connection, element_id: UUID) -> None:
    """Make the gate uncertain if it is busy with an operation. The caller holds the lock, so its writer has crashed."""
    left = [operation_id for (operation_id,) in conn.execute(LEFT, [element_id])]
    if left:
        mark_uncertain(conn, element_id, left, CRASHED)


def _try_lock(conn: Connection, element_id: UUID) -> bool:
    query = sql.SQL("SELECT pg_try_advisory_lock({})").format(LOCK)
    return conn.execute(query, {"element": element_id}).fetchone()[0]


def _unlock(conn: Connection, element_id: UUID) -> None:
    conn.execute(sql.SQL("SELECT pg_advisory_unlock({})").format(LOCK), {"element": element_id})
