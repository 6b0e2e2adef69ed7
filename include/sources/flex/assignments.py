"""Our rows of a crew, with their audit, and the lines in Flex that are ours."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from psycopg import Connection

from include.sources.flex.desired import Call
from include.sources.flex.plan import Member

PUT = """
WITH before AS (
  SELECT to_jsonb(a) AS row FROM flex.flex_crew_assignments a
  WHERE crew_call_id = %(call)s AND technician_id = %(technician)s
), put AS (
  INSERT INTO flex.flex_crew_assignments AS a (id, crew_call_id, technician_id, flex_line_item_id)
  SELECT gen_random_uuid(), c.id, p.id, %(line)s FROM flex.flex_crew_calls c, flex.profiles p
  WHERE c.id = %(call)s AND p.id = %(technician)s FOR KEY SHARE
  ON CONFLICT (crew_call_id, technician_id) DO UPDATE SET flex_line_item_id = excluded.flex_line_item_id
  RETURNING to_jsonb(a) AS row
)
INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after)
SELECT %(sync_id)s, 'flex.flex_crew_assignments',
  jsonb_build_object('crew_call_id', %(call)s::uuid, 'technician_id', %(technician)s::uuid),
  CASE WHEN before.row IS NULL THEN 'insert' ELSE 'update' END, before.row, put.row
FROM put LEFT JOIN before ON true
"""

DROP = """
WITH gone AS (
  DELETE FROM flex.flex_crew_assignments a WHERE crew_call_id = %(call)s AND technician_id = %(technician)s
  RETURNING to_jsonb(a) AS row
)
INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before)
SELECT %(sync_id)s, 'flex.flex_crew_assignments',
  jsonb_build_object('crew_call_id', %(call)s::uuid, 'technician_id', %(technician)s::uuid), 'delete', row
FROM gone
"""

OWN = """
INSERT INTO flex.owned_line (flex_line_item_id, flex_element_id, flex_resource_id, job_id, department, crew_call_id,
  technician_id, made_by)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (flex_line_item_id) DO NOTHING
"""

KEEP = """
INSERT INTO flex.kept_line (flex_line_item_id, flex_element_id) VALUES (%s, %s) ON CONFLICT DO NOTHING
"""

LEARN = """
UPDATE flex.owned_line o SET flex_resource_id = seen.resource_id
FROM unnest(%s::uuid[], %s::uuid[]) AS seen (line_id, resource_id)
WHERE o.flex_line_item_id = seen.line_id AND o.flex_resource_id IS NULL
"""

GONE = """
UPDATE flex.owned_line SET gone_at = clock_timestamp() WHERE flex_line_item_id = ANY (%s) AND gone_at IS NULL
"""

BACK = "UPDATE flex.owned_line SET gone_at = NULL WHERE flex_line_item_id = ANY (%s)"


def put(conn: Connection, member: Member, line_id: UUID | None, sync_id: int) -> None:
    """Write the member's row, naming the line. If call or technician are gone, there is no row."""
    conn.execute(PUT, _row(member, sync_id) | {"line": line_id})


def drop(conn: Connection, member: Member, sync_id: int) -> None:
    """Delete the member's row, if there is one."""
    conn.execute(DROP, _row(member, sync_id))


def record_own_line(
    conn: Connection, line_id: UUID, element_id: UUID, resource_id: UUID, call: Call, member: Member, sync_id: int
) -> None:
    """Store that this sync has made the line, for the member."""
    who = [call.job_id, call.department, member.crew_call_id, member.technician_id, sync_id]
    conn.execute(OWN, [line_id, element_id, resource_id, *who])


def record_foreign_line(conn: Connection, line_id: UUID, element_id: UUID) -> None:
    """Store that somebody else has made the line: it is never deleted."""
    conn.execute(KEEP, [line_id, element_id])


def learn_contacts(conn: Connection, contacts: Mapping[UUID, UUID]) -> None:
    """Store whose lines of ours are, by line, where nobody knows it yet. A line whose contact changes is a person's."""
    if contacts:
        conn.execute(LEARN, [[*contacts], [*contacts.values()]])


def mark_gone(conn: Connection, line_ids: Iterable[UUID]) -> None:
    """Store that these lines are no longer in Flex."""
    conn.execute(GONE, [list(line_ids)])


def mark_back(conn: Connection, line_ids: Iterable[UUID]) -> None:
    """Store that these lines are in Flex again."""
    conn.execute(BACK, [list(line_ids)])


def _row(member: Member, sync_id: int) -> dict[str, UUID | int]:
    return {"call": member.crew_call_id, "technician": member.technician_id, "sync_id": sync_id}
