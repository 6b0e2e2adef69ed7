"""Release an uncertain element: settle its unknown writes by what Flex shows, when a person asks for it."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from include.api.errors import NotFound
from include.sources.flex import assignments, calls, desired, gate
from include.sources.flex.desired import Call, Crew
from include.sources.flex.look import Looked, both, look, require_same, retry_unreadable
from include.sources.flex.plan import Member
from include.sources.flex.rows import CONTACT, Line, Unreadable, duplicates
from include.sources.flex.worker import Worker

log = logging.getLogger(__name__)

UNKNOWN = """
SELECT o.operation_id, o.kind, o.flex_line_item_id AS line_id, o.flex_resource_id AS resource_id,
  o.role_after::uuid AS role_id, o.job_id, o.department, o.crew_call_id, o.technician_id, o.sync_id
FROM flex.operation o WHERE o.flex_element_id = %s AND o.state = 'unknown' ORDER BY o.operation_id
"""

# Every other crew call that we know. If the line is ours, the crew call on which we made it comes first.
OTHERS = """
SELECT flex_element_id FROM (
  SELECT flex_element_id, false AS named FROM flex.flex_crew_calls
  UNION ALL SELECT flex_element_id, flex_line_item_id = %(line)s FROM flex.owned_line
) e WHERE flex_element_id <> %(element)s GROUP BY 1 ORDER BY bool_or(named) DESC, 1
"""

SETTLE = """
UPDATE flex.operation SET state = %(state)s, reason = reason || %(note)s, settled_at = clock_timestamp()
WHERE operation_id = %(operation)s
"""


@dataclass(frozen=True)
class Doubtful:
    """An operation with unknown outcome. The `line_id` of an add is the line that its answer named."""

    operation_id: int
    kind: Literal["add", "remove", "role"]
    line_id: UUID | None
    resource_id: UUID | None
    role_id: UUID | None
    job_id: UUID | None
    department: str | None
    crew_call_id: UUID | None
    technician_id: UUID | None
    sync_id: int


def release(worker: Worker, element_id: UUID) -> int:
    """Settle unknown operations by what Flex shows now and make the gate idle. Return how many were settled.

    A line is ours only if the answer to an add named it, and this crew call has it. Another line of the same contact
    may be a person's: it stays, and no line is added. A named line that is on another crew call stays there.

    Raises, and changes nothing: Unreadable if Flex proves nothing or a resource has several lines; GateClosed;
    ValueError if the gate is not uncertain; and whatever `ApiClient.send` raises.
    """
    conn = worker.conn
    with gate.reopened(conn, element_id):
        crew = desired.crew(conn, element_id, worker.roles)
        looked = retry_unreadable(worker.pauses, lambda: _look(worker, element_id, crew))
        for resource_id, found in duplicates(looked.lines).items():
            raise Unreadable(
                f"resource {resource_id} has {len(found)} lines on element {element_id}. Delete all but one in Flex"
            )
        with conn.cursor(row_factory=class_row(Doubtful)) as cursor:
            doubtful = cursor.execute(UNKNOWN, [element_id]).fetchall()
        shown = {line.line_id for line in looked.lines}
        named = [each.line_id for each in doubtful if each.kind == "add" and each.line_id]
        strays = {
            line_id: _element_of(worker, element_id, line_id)
            for line_id in named
            if line_id not in shown and calls.exists(worker.api, line_id)
        }
        with worker.fenced(conn):
            assignments.mark_gone(conn, looked.gone)
            for each in doubtful:
                _settle(worker, element_id, each, looked.lines, strays.get(each.line_id))
    return len(doubtful)


def _element_of(worker: Worker, element_id: UUID, line_id: UUID) -> UUID:
    """Return the crew call, other than this one, on which both lists of Flex show the line. Raises Unreadable."""
    others = worker.conn.execute(OTHERS, {"element": element_id, "line": line_id}).fetchall()
    for (other,) in others:
        try:
            if any(line.line_id == line_id for line in both(worker.api, other, ())):
                return other
        except (NotFound, Unreadable) as reason:
            log.info("whether element %s has line %s can't be told: %s", other, line_id, reason)
    raise Unreadable(
        f"line {line_id} isn't shown on its crew call, but its own address shows it, and none of {len(others)} other"
        " crew calls has it. Find it in Flex and delete it there"
    )


def _look(worker: Worker, element_id: UUID, crew: Crew) -> Looked:
    """Read both lists, and the rows twice, since roles are settled by the rows."""
    looked = look(worker.api, worker.conn, element_id, crew, worker.pauses, with_record=True)
    if looked.exists:
        require_same(worker.api, element_id, crew, looked)
    return looked


def _settle(
    worker: Worker, element_id: UUID, doubtful: Doubtful, lines: Collection[Line], stray_on: UUID | None
) -> None:
    """Set the operation to done or refused by the lines that are there now.

    `stray_on`: the other crew call that has the line which the answer to an add named.
    """
    there = next((line for line in lines if line.line_id == doubtful.line_id and line.kind == CONTACT), None)
    happened = {
        "add": there is not None and there.resource_id == doubtful.resource_id,
        "remove": there is None,
        "role": there is not None and there.role_id == doubtful.role_id,
    }[doubtful.kind]
    note = f"; released by {worker.run}"
    if doubtful.kind == "add" and not happened and any(_is_of(line, doubtful.resource_id) for line in lines):
        note += ", the contact's line counts as a person's"
    if stray_on:
        note += f", line {doubtful.line_id} is on element {stray_on} and stays there: look at it in Flex"
        log.warning("element %s%s", element_id, note)
    values = {"operation": doubtful.operation_id, "state": "done" if happened else "refused", "note": note}
    worker.conn.execute(SETTLE, values)
    if doubtful.kind == "add" and happened:
        call, member = Call(doubtful.job_id, doubtful.department), Member(doubtful.crew_call_id, doubtful.technician_id)
        line_id, resource_id = doubtful.line_id, doubtful.resource_id
        assignments.record_own_line(worker.conn, line_id, element_id, resource_id, call, member, doubtful.sync_id)


def _is_of(line: Line, resource_id: UUID | None) -> bool:
    return line.kind == CONTACT and line.resource_id == resource_id
