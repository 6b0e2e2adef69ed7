"""An element about which nobody knew what became of a write, opened again by a person."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from include.api.errors import NotFound
from include.sources.flex import calls, desired, gate
from include.sources.flex.desired import Crew
from include.sources.flex.element import Worker
from include.sources.flex.rows import CONTACT, Line, Unreadable, duplicates

UNKNOWN = """
SELECT o.operation_id, o.kind, o.flex_line_item_id AS line_id, o.flex_resource_id AS resource_id,
  o.role_after::uuid AS role_id, o.crew_call_id, o.technician_id
FROM flex.operation o WHERE o.flex_element_id = %s AND o.state = 'unknown' ORDER BY o.operation_id
"""

SETTLE = """
UPDATE flex.operation SET state = %(state)s, flex_line_item_id = coalesce(flex_line_item_id, %(line)s),
  reason = reason || %(note)s, settled_at = clock_timestamp() WHERE operation_id = %(operation)s
"""

OWN = """
INSERT INTO flex.owned_line (flex_line_item_id, flex_element_id, flex_resource_id, job_id, department, crew_call_id,
  technician_id, made_by)
SELECT %(line)s, flex_element_id, flex_resource_id, job_id, department, crew_call_id, technician_id, sync_id
FROM flex.operation WHERE operation_id = %(operation)s
ON CONFLICT (flex_line_item_id) DO NOTHING
"""


@dataclass(frozen=True)
class Doubtful:
    """An operation of which nobody knows whether it happened."""

    operation_id: int
    kind: Literal["add", "remove", "role"]
    line_id: UUID | None
    resource_id: UUID | None
    role_id: UUID | None
    crew_call_id: UUID | None
    technician_id: UUID | None


def release(worker: Worker, element_id: UUID) -> int:
    """Settle what is unknown by what Flex shows now, make the gate idle, and return how many operations that were.

    An add happened if there is one line of its resource, which then counts as ours. Raises Unreadable, and all stays
    as it is, where the read proves nothing or a resource has several lines; GateClosed; ValueError where nothing is
    uncertain; and whatever `ApiClient.send` does.
    """
    conn = worker.conn
    with gate.reopened(conn, element_id):
        crew = desired.crew(conn, element_id, worker.roles)
        lines = _shown(worker, element_id, crew)
        for resource_id, found in duplicates(lines).items():
            raise Unreadable(
                f"resource {resource_id} has {len(found)} lines on element {element_id}. Delete all but one in Flex"
            )
        with worker.fenced(conn), conn.cursor(row_factory=class_row(Doubtful)) as cursor:
            doubtful = cursor.execute(UNKNOWN, [element_id]).fetchall()
            for each in doubtful:
                _settle(worker, each, lines)
    return len(doubtful)


def _shown(worker: Worker, element_id: UUID, crew: Crew) -> Collection[Line]:
    """What is there now; nothing, if the element itself is not."""
    try:
        return calls.lines(worker.api, element_id, crew.mapped)
    except NotFound:
        return ()


def _settle(worker: Worker, doubtful: Doubtful, lines: Collection[Line]) -> None:
    contacts = [line for line in lines if line.kind == CONTACT and line.resource_id == doubtful.resource_id]
    # The line of an add is only known if its answer came.
    shown = next((line for line in contacts if doubtful.line_id in (None, line.line_id)), None)
    happened = {
        "add": shown is not None,
        "remove": shown is None,
        "role": shown is not None and shown.role_id == doubtful.role_id,
    }[doubtful.kind]
    values = {
        "operation": doubtful.operation_id,
        "state": "done" if happened else "refused",
        "line": shown and shown.line_id,
        "note": f"; released by {worker.run}",
    }
    worker.conn.execute(SETTLE, values)
    if doubtful.kind == "add" and happened:
        worker.conn.execute(OWN, values)
