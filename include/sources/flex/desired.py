"""Who shall be on a crew call in Flex, as the application says, and what we know of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import tuple_row

from include.sources.flex.plan import Desired, Member, Row
from include.sources.flex.roles import Roles

# Spelt in several ways; gear goes out without crew.
DRY_HIRE = "dryhire"

# Who has an explicit role in the call's department, whatever became of the invitation. A person may be assigned several
# times, a day each.
DESIRED = sql.SQL("""
SELECT DISTINCT c.id, p.id, c.department,
  CASE c.department WHEN 'sound' THEN a.sound_role ELSE a.lights_role END, p.flex_resource_id
FROM flex.flex_crew_calls c
JOIN flex.jobs j ON j.id = c.job_id
JOIN flex.job_assignments a ON a.job_id = c.job_id
JOIN flex.profiles p ON p.id = a.technician_id
WHERE c.flex_element_id = %(element)s AND c.department IN ('sound', 'lights')
  AND CASE c.department WHEN 'sound' THEN a.sound_role ELSE a.lights_role END <> ''
  AND regexp_replace(lower(coalesce(j.job_type, '')), '[^a-z]', '', 'g') <> %(dry_hire)s
ORDER BY 1, 2, 4
""")

CALLS = sql.SQL("""
SELECT id, job_id, department FROM flex.flex_crew_calls WHERE flex_element_id = %(element)s ORDER BY id
""")

ROWS = """
SELECT a.crew_call_id, a.technician_id, a.flex_line_item_id, p.flex_resource_id
FROM flex.flex_crew_assignments a
JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id
JOIN flex.profiles p ON p.id = a.technician_id
WHERE c.flex_element_id = %(element)s ORDER BY 1, 2
"""

OWNED = "SELECT flex_line_item_id FROM flex.owned_line WHERE flex_element_id = %(element)s AND gone_at IS NULL"

WRITTEN = """
SELECT DISTINCT ON (flex_line_item_id) flex_line_item_id, role_after::uuid FROM flex.operation
WHERE flex_element_id = %(element)s AND kind = 'role' AND state = 'done'
ORDER BY flex_line_item_id, operation_id DESC
"""

# Not over our rows and lines: those only change in the hands of who holds the gate, and by cascades from these.
TOKEN = sql.SQL("""
SELECT md5((SELECT coalesce(jsonb_agg(c), '[]') FROM ({calls}) c)::text
  || (SELECT coalesce(jsonb_agg(d), '[]') FROM ({desired}) d (call, technician, department, code, resource))::text)
""").format(calls=CALLS, desired=DESIRED)


@dataclass(frozen=True)
class Call:
    """A crew call of ours."""

    job_id: UUID
    department: str


@dataclass(frozen=True)
class Crew:
    """All that the warehouse holds about one crew call in Flex, of all of ours that point to it, at one instant.

    `owned` are the lines there that we made, as far as we know of them; `written` are the business roles that we gave
    to lines last. `token` changes with who is desired, with
    what role and resource, and with the calls. `diagnostics` are one line each.
    """

    calls: Mapping[UUID, Call]
    desired: tuple[Desired, ...]
    rows: tuple[Row, ...]
    owned: frozenset[UUID]
    written: Mapping[UUID, UUID]
    diagnostics: tuple[str, ...]
    token: str

    @property
    def mapped(self) -> frozenset[UUID]:
        """The lines that are ours by our rows or by the journal."""
        return self.owned | {row.line_id for row in self.rows if row.line_id}


def crew(conn: Connection, element_id: UUID, roles: Roles) -> Crew:
    """Read the crew of an element. `conn` is in autocommit, and not in a transaction."""
    named = {"element": element_id, "dry_hire": DRY_HIRE}
    with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        calls = {call_id: Call(*rest) for call_id, *rest in cursor.execute(CALLS, named)}
        wanted = cursor.execute(DESIRED, named).fetchall()
        rows = tuple(Row(Member(*found[:2]), *found[2:]) for found in cursor.execute(ROWS, named))
        owned = frozenset(line_id for (line_id,) in cursor.execute(OWNED, named))
        written = dict(cursor.execute(WRITTEN, named).fetchall())
        current = token(conn, element_id)
    told = [roles.role(department, code) for _, _, department, code, _ in wanted]
    desired = tuple(
        Desired(Member(call_id, technician_id), resource_id, role.role_id)
        for (call_id, technician_id, _, _, resource_id), role in zip(wanted, told, strict=True)
    )
    diagnostics = tuple(sorted({role.diagnostic for role in told if role.diagnostic}))
    return Crew(calls, desired, rows, owned, written, diagnostics, current)


def token(conn: Connection, element_id: UUID) -> str:
    """The present token of an element's crew."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(TOKEN, {"element": element_id, "dry_hire": DRY_HIRE}).fetchone()[0]
