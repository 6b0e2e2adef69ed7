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

ROLE = sql.SQL("CASE c.department WHEN 'sound' THEN a.sound_role ELSE a.lights_role END")

# Who has an explicit role in the call's department, whatever became of the invitation. A person may be assigned several
# times, a day each.
ASSIGNED = sql.SQL("""
FROM flex.flex_crew_calls c
JOIN flex.jobs j ON j.id = c.job_id AND regexp_replace(lower(coalesce(j.job_type, '')), '[^a-z]', '', 'g') <>
  %(dry_hire)s
JOIN flex.job_assignments a ON a.job_id = c.job_id AND c.department IN ('sound', 'lights') AND {role} <> ''
JOIN flex.profiles p ON p.id = a.technician_id
""").format(role=ROLE)

DESIRED = sql.SQL("""
SELECT DISTINCT c.id, p.id, c.department, {role}, p.flex_resource_id
{assigned}
WHERE c.flex_element_id = %(element)s
ORDER BY 1, 2, 4
""").format(role=ROLE, assigned=ASSIGNED)

CALLS = sql.SQL("""
SELECT id, job_id, department FROM flex.flex_crew_calls WHERE flex_element_id = %(element)s ORDER BY id
""")

# A line that is known to be on another crew call in Flex is named from before the call came to point here.
ROWS = """
SELECT a.crew_call_id, a.technician_id, a.flex_line_item_id, p.flex_resource_id,
  coalesce(o.flex_element_id, k.flex_element_id, c.flex_element_id) <> c.flex_element_id
FROM flex.flex_crew_assignments a
JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id
JOIN flex.profiles p ON p.id = a.technician_id
LEFT JOIN flex.owned_line o USING (flex_line_item_id)
LEFT JOIN flex.kept_line k USING (flex_line_item_id)
WHERE c.flex_element_id = %(element)s ORDER BY 1, 2
"""

OWNED = """
SELECT flex_line_item_id, flex_resource_id, gone_at IS NOT NULL FROM flex.owned_line
WHERE flex_element_id = %(element)s
"""

# The lines here of people whose call points to another crew call in Flex now, as long as they have no line there.
LEAVING = sql.SQL("""
SELECT DISTINCT o.flex_line_item_id
{assigned}
JOIN flex.owned_line o ON o.crew_call_id = c.id AND o.technician_id = p.id
LEFT JOIN flex.flex_crew_assignments r ON r.crew_call_id = c.id AND r.technician_id = p.id
WHERE o.flex_element_id = %(element)s AND o.gone_at IS NULL AND c.flex_element_id <> o.flex_element_id
  AND p.flex_resource_id IS NOT NULL AND coalesce(r.flex_line_item_id, o.flex_line_item_id) = o.flex_line_item_id
""").format(assigned=ASSIGNED)

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

    `owned` are the lines there that we made, and their contacts as far as they are known; `gone` are those that we made
    and that were found to be gone. `elsewhere` are lines that rows name and that are on another crew call in Flex;
    `leaving` are lines of people who have to be on another one before they may go. `token` changes with who is
    desired, with what role and resource, and with the calls. `diagnostics` are one line each.
    """

    calls: Mapping[UUID, Call]
    desired: tuple[Desired, ...]
    rows: tuple[Row, ...]
    owned: Mapping[UUID, UUID | None]
    gone: frozenset[UUID]
    elsewhere: frozenset[UUID]
    leaving: frozenset[UUID]
    diagnostics: tuple[str, ...]
    token: str

    @property
    def mapped(self) -> frozenset[UUID]:
        """The lines that are ours by our rows or by the journal, be they gone."""
        return frozenset(self.owned) | self.gone | {row.line_id for row in self.rows if row.line_id}

    @property
    def known(self) -> frozenset[UUID]:
        """The lines that have to be there, as far as we know."""
        return self.mapped - self.gone - self.elsewhere


def crew(conn: Connection, element_id: UUID, roles: Roles) -> Crew:
    """Read the crew of an element. `conn` is in autocommit, and not in a transaction."""
    named = {"element": element_id, "dry_hire": DRY_HIRE}
    with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        calls = {call_id: Call(*rest) for call_id, *rest in cursor.execute(CALLS, named)}
        wanted = cursor.execute(DESIRED, named).fetchall()
        rows = cursor.execute(ROWS, named).fetchall()
        lines = cursor.execute(OWNED, named).fetchall()
        leaving = frozenset(line_id for (line_id,) in cursor.execute(LEAVING, named))
        current = token(conn, element_id)
    told = [roles.role(department, code) for _, _, department, code, _ in wanted]
    return Crew(
        calls=calls,
        desired=tuple(
            Desired(Member(call_id, technician_id), resource_id, role.role_id)
            for (call_id, technician_id, _, _, resource_id), role in zip(wanted, told, strict=True)
        ),
        rows=tuple(Row(Member(*found[:2]), *found[2:4]) for found in rows),
        owned={line_id: resource_id for line_id, resource_id, gone in lines if not gone},
        gone=frozenset(line_id for line_id, _, gone in lines if gone),
        elsewhere=frozenset(found[2] for found in rows if found[4]),
        leaving=leaving,
        diagnostics=tuple(sorted({role.diagnostic for role in told if role.diagnostic})),
        token=current,
    )


def token(conn: Connection, element_id: UUID) -> str:
    """The present token of an element's crew."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(TOKEN, {"element": element_id, "dry_hire": DRY_HIRE}).fetchone()[0]
