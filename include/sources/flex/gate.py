"""The gate of a crew call in Flex: one writer at a time, and a journal of what it sent.

The gate's row doesn't expire. Beside it the writer holds a lock of its database session, which nobody outlives: a busy
gate whose lock is free was left by a crash. What was underway then may have happened, and a person has to decide.
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
    """Nothing may be written to the element now; `state` is that of its gate. The message says what to do."""

    def __init__(self, element_id: UUID, state: Literal["busy", "uncertain"]) -> None:
        advice = {
            "busy": "another run is at work there. It gets its turn with the next sync",
            "uncertain": f"nobody knows whether a write there happened. {RELEASE}",
        }
        super().__init__(f"element {element_id} is {state}: {advice[state]}")
        self.state = state


class GateLost(Exception):
    """Somebody took the gate meanwhile; nothing was written."""


@dataclass(frozen=True)
class Gate:
    """A gate that is ours. `acquired_at` tells this claim from any other, of the same run too."""

    element_id: UUID
    owner: str
    acquired_at: datetime
    sync_id: int


@dataclass(frozen=True)
class Write:
    """A write to Flex, as the journal keeps it: for whom it is, and a line unless one is added.

    `call` is that of the member: the line is ours, or in doubt, though the call may be gone by then.
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
    """The gate, ours until the block ends; `conn` is in autocommit, and no other thread's. Raises GateClosed.

    A gate with an operation that isn't cleared by then stays as it is.
    """
    gate = claim(conn, element_id, owner, sync_id)
    try:
        yield gate
    finally:
        # With its session a lost connection has lost the lock too.
        if not conn.closed:
            release(conn, gate)


@contextmanager
def reopened(conn: Connection, element_id: UUID) -> Iterator[None]:
    """Keep an uncertain gate from everybody until the block ends: idle then, or uncertain still if the block fails.

    One that a crash left with an operation underway is uncertain too. Raises GateClosed where another is at work,
    ValueError where nothing is uncertain.
    """
    if not _locked(conn, element_id):
        raise GateClosed(element_id, "busy")
    try:
        with conn.transaction():
            _doubt_what_a_crash_left(conn, element_id)
        if conn.execute(UNCERTAIN, [element_id]).fetchone() is None:
            raise ValueError(f"element {element_id} is not uncertain, there is nothing to release")
        yield
        conn.execute(IDLE, [element_id])
    finally:
        if not conn.closed:
            _unlock(conn, element_id)


def claim(conn: Connection, element_id: UUID, owner: str, sync_id: int) -> Gate:
    """Take the gate for a run (`dag_id/run_id`). Raises GateClosed.

    One that was left by a crash is taken over; if an operation was underway it becomes uncertain instead.
    """
    if not _locked(conn, element_id):
        raise GateClosed(element_id, "busy")
    try:
        with conn.transaction():
            acquired_at = _take(conn, element_id, owner)
        if acquired_at is None:
            raise GateClosed(element_id, "uncertain")
    except BaseException:
        if not conn.closed:
            _unlock(conn, element_id)
        raise
    return Gate(element_id, owner, acquired_at, sync_id)


def release(conn: Connection, gate: Gate) -> None:
    """Give the gate back, unless an operation is underway or in doubt."""
    conn.execute(
        "UPDATE flex.element_gate SET state = 'idle', owner = NULL, acquired_at = NULL"
        " WHERE flex_element_id = %s AND state = 'busy' AND acquired_at = %s AND operation_id IS NULL",
        [gate.element_id, gate.acquired_at],
    )
    _unlock(conn, gate.element_id)


def sent(conn: Connection, gate: Gate, write: Write) -> int:
    """Journal a write that is about to be sent and return its operation; the caller commits first. Raises GateLost."""
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
    stand(conn, gate, operation_id)
    return operation_id


def answered(conn: Connection, operation_id: int, outcome: Outcome) -> None:
    """Note what the answer to a write says. The gate stands for it until a read has shown what happened."""
    conn.execute(ANSWERED, {"operation": operation_id, "reason": outcome.reason, "line": outcome.line_id})


def settle(conn: Connection, operation_id: int, outcome: Outcome) -> None:
    """Note what became of a write, as a read has shown it: done or refused."""
    values = {"operation": operation_id, "state": outcome.kind, "reason": outcome.reason, "line": outcome.line_id}
    conn.execute(SETTLE, values)


def stand(conn: Connection, gate: Gate, operation_id: int | None) -> None:
    """Have the gate name the operation that it stands for; None: there is nothing to wait for. Raises GateLost."""
    changed = conn.execute(
        "UPDATE flex.element_gate SET operation_id = %s"
        " WHERE flex_element_id = %s AND state = 'busy' AND acquired_at = %s",
        [operation_id, gate.element_id, gate.acquired_at],
    ).rowcount
    if not changed:
        raise _lost(gate)


def require(conn: Connection, gate: Gate) -> None:
    """Raises GateLost unless the gate is ours still; it is until the caller's transaction ends."""
    query = "SELECT FROM flex.element_gate WHERE flex_element_id = %s AND state = 'busy' AND acquired_at = %s FOR SHARE"
    if conn.execute(query, [gate.element_id, gate.acquired_at]).fetchone() is None:
        raise _lost(gate)


def doubt(conn: Connection, element_id: UUID, operations: Sequence[int], reason: str) -> None:
    """Note that nobody knows what became of these operations, and keep everybody away from the element."""
    conn.execute(DOUBT, {"operations": list(operations), "reason": reason})
    conn.execute(
        "UPDATE flex.element_gate SET state = 'uncertain', operation_id = %s WHERE flex_element_id = %s",
        [operations[-1], element_id],
    )


def _lost(gate: Gate) -> GateLost:
    return GateLost(f"element {gate.element_id} was claimed by another run, nothing was written. Run the sync again")


def _take(conn: Connection, element_id: UUID, owner: str) -> datetime | None:
    """When the gate was taken; None where it is uncertain, or is found to be."""
    conn.execute(
        "INSERT INTO flex.element_gate (flex_element_id) VALUES (%s) ON CONFLICT DO NOTHING",
        [element_id],
    )
    taken = conn.execute(TAKE, {"element": element_id, "owner": owner}).fetchone()
    if taken:
        return taken[0]
    _doubt_what_a_crash_left(conn, element_id)
    return None


def _doubt_what_a_crash_left(conn: Connection, element_id: UUID) -> None:
    """Where a gate is busy with an operation, and its lock is ours, whoever was at work is gone."""
    left = [operation_id for (operation_id,) in conn.execute(LEFT, [element_id])]
    if left:
        doubt(conn, element_id, left, CRASHED)


def _locked(conn: Connection, element_id: UUID) -> bool:
    query = sql.SQL("SELECT pg_try_advisory_lock({})").format(LOCK)
    return conn.execute(query, {"element": element_id}).fetchone()[0]


def _unlock(conn: Connection, element_id: UUID) -> None:
    conn.execute(sql.SQL("SELECT pg_advisory_unlock({})").format(LOCK), {"element": element_id})
