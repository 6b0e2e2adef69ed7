"""Who should be on a crew call in Flex by our assignments, and what the warehouse knows about it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import scalar_row, tuple_row

from include.sources.flex.plan import Desired, Member, Row
from include.sources.flex.roles import Roles
from include.sources.flex.rows import Line

# The job type of gear without crew; it is spelt in several ways.
DRY_HIRE = "dryhire"

ROLE = sql.SQL("CASE c.department WHEN 'sound' THEN a.sound_role ELSE a.lights_role END")

# A role of blanks is no role. Postgres does not count the no-break space among the blanks.
HAS_ROLE = sql.SQL(r"{role} ~ '[^\s\u00a0\u200b\ufeff]'").format(role=ROLE)

# Technicians with an explicit role in the call's department, whatever the state of the invitation. One may be assigned
# several times, for a day each.
ASSIGNED = sql.SQL("""
FROM flex.flex_crew_calls c
JOIN flex.jobs j ON j.id = c.job_id AND regexp_replace(lower(coalesce(j.job_type, '')), '[^a-z]', '', 'g') <>
  %(dry_hire)s
JOIN flex.job_assignments a ON a.job_id = c.job_id AND c.department IN ('sound', 'lights') AND {has_role}
JOIN flex.profiles p ON p.id = a.technician_id
""").format(has_role=HAS_ROLE)

DESIRED = sql.SQL("""
SELECT DISTINCT c.id, p.id, c.department, {role}, p.flex_resource_id
{assigned}
WHERE c.flex_element_id = %(element)s
ORDER BY 1, 2, 4
""").format(role=ROLE, assigned=ASSIGNED)

CALLS = sql.SQL("""
SELECT c.id, c.job_id, c.department, coalesce(j.end_time < now(), false)
FROM flex.flex_crew_calls c LEFT JOIN flex.jobs j ON j.id = c.job_id
WHERE c.flex_element_id = %(element)s ORDER BY c.id
""")

# The last columns: the line is on another crew call in Flex, so the row named it before the call pointed here; and it
# is gone there.
ROWS = """
SELECT a.crew_call_id, a.technician_id, a.flex_line_item_id, p.flex_resource_id,
  coalesce(o.flex_element_id, k.flex_element_id, c.flex_element_id) <> c.flex_element_id, o.gone_at IS NOT NULL
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

# Lines here that wanted technicians still need: their call points to another crew call in Flex now, and they have no
# line there yet; or the profile has no contact, so that no other line can be made. A line may have been made for
# another of those who use it, and the call may be a new one of the same job and department.
NEEDED = sql.SQL("""
SELECT DISTINCT used.flex_line_item_id, c.id, p.id, p.flex_resource_id IS NULL
{assigned}
JOIN (
  SELECT o.flex_line_item_id, r.crew_call_id, r.technician_id
  FROM flex.owned_line o JOIN flex.flex_crew_assignments r USING (flex_line_item_id)
  WHERE o.flex_element_id = %(element)s AND o.gone_at IS NULL
  UNION ALL
  SELECT o.flex_line_item_id, n.id, o.technician_id
  FROM flex.owned_line o
  JOIN flex.flex_crew_calls n ON n.id = o.crew_call_id OR (n.job_id, n.department) = (o.job_id, o.department)
  LEFT JOIN flex.flex_crew_assignments r ON r.crew_call_id = n.id AND r.technician_id = o.technician_id
  WHERE o.flex_element_id = %(element)s AND o.gone_at IS NULL AND r.flex_line_item_id IS NULL
) used ON used.crew_call_id = c.id AND used.technician_id = p.id
WHERE c.flex_element_id <> %(element)s OR p.flex_resource_id IS NULL
""").format(assigned=ASSIGNED)

# The newest role that we have written to each line here, by reads that have shown it.
WRITTEN_ROLES = """
SELECT DISTINCT ON (flex_line_item_id) flex_line_item_id, role_after::uuid FROM flex.operation
WHERE flex_element_id = %(element)s AND kind = 'role' AND state = 'done'
ORDER BY flex_line_item_id, operation_id DESC
"""

# The newest line of each other crew call, then the second newest. People may have deleted one or the other. Lines that
# people made come last. Rows name those that were there when a sync last looked, and nobody looks once a job is over.
LINES_ELSEWHERE = """
SELECT flex_line_item_id FROM (
  SELECT flex_line_item_id, made_at, ours,
    row_number() OVER (PARTITION BY ours, flex_element_id ORDER BY made_at DESC, flex_line_item_id) AS place
  FROM (
    SELECT flex_line_item_id, flex_element_id, made_at, true AS ours FROM flex.owned_line WHERE gone_at IS NULL
    UNION ALL
    SELECT k.flex_line_item_id, k.flex_element_id, k.kept_at, false FROM flex.kept_line k WHERE EXISTS (
      SELECT FROM flex.flex_crew_assignments a
      JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id JOIN flex.jobs j ON j.id = c.job_id
      WHERE a.flex_line_item_id = k.flex_line_item_id AND (j.end_time IS NULL OR j.end_time >= now()))
  ) known WHERE flex_element_id <> %(element)s AND NOT (ours AND %(of_people)s)
) lines ORDER BY ours DESC, place, made_at DESC LIMIT 10
"""

# Our rows and lines are left out: only the holder of the gate changes them, and cascades from these tables.
FINGERPRINT = sql.SQL("""
SELECT md5((SELECT coalesce(jsonb_agg(c), '[]') FROM ({calls}) c)::text
  || (SELECT coalesce(jsonb_agg(d), '[]') FROM ({desired}) d (call, technician, department, code, resource))::text)
""").format(calls=CALLS, desired=DESIRED)


@dataclass(frozen=True)
class Call:
    """A crew call of ours. `over`: its job has ended."""

    job_id: UUID
    department: str
    over: bool = False


@dataclass(frozen=True)
class Crew:
    """What the warehouse knows about one crew call in Flex at one instant; several calls of ours may point to it.

    - `owned`, `gone`: lines there that we made, with their contacts if known; the latter no longer exist in Flex
    - `elsewhere`: lines that rows name and that are on another crew call in Flex; `gone_elsewhere` no longer exist
    - `leaving`: lines of technicians who need a line on another crew call before these may be deleted
    - `staying`: lines of wanted technicians without a contact in the profile, with them; these stay, since no other
      line can be made for them
    - `roles`: the business role that we wrote last to a line
    - `fingerprint` changes whenever a call, a desired technician, a role or a resource changes
    - `diagnostics` are one line each
    """

    calls: Mapping[UUID, Call]
    desired: tuple[Desired, ...]
    rows: tuple[Row, ...]
    owned: Mapping[UUID, UUID | None]
    gone: Mapping[UUID, UUID | None]
    elsewhere: frozenset[UUID]
    gone_elsewhere: frozenset[UUID]
    leaving: frozenset[UUID]
    staying: Mapping[UUID, tuple[Member, ...]]
    roles: Mapping[UUID, UUID]
    diagnostics: tuple[str, ...]
    fingerprint: str

    @property
    def mapped(self) -> frozenset[UUID]:
        """All lines that are ours by our rows or by the journal, gone ones included."""
        return frozenset(self.owned) | frozenset(self.gone) | {row.line_id for row in self.rows if row.line_id}

    @property
    def over(self) -> bool:
        """Whether calls of ours point to it, and the jobs of all of them have ended."""
        return bool(self.calls) and all(call.over for call in self.calls.values())

    @property
    def known(self) -> frozenset[UUID]:
        """The lines of ours that should be on this crew call in Flex."""
        return self.mapped - self.gone.keys() - self.elsewhere

    def ours(self, lines: Collection[Line]) -> frozenset[UUID]:
        """Return the lines that we made and that still show the contact they were made for.

        If a line shows another contact, a person has put it there, and the line is theirs. If nobody knows for whom it
        was made, it is ours only if a row names it for a technician with this contact.
        """
        unknown = self._of_unknown(lines)
        same = {line.line_id for line in lines if line.resource_id and self.owned.get(line.line_id) == line.resource_id}
        return frozenset(same | {row.line_id for row in self.rows if (row.line_id, row.resource_id) in unknown.items()})

    def learnable(self, lines: Collection[Line]) -> dict[UUID, UUID]:
        """Return the contacts of lines that we own without knowing for whom they were made.

        Only of those that a row names for a desired technician who has no other contact. On any other line a person may
        have put somebody else by now.
        """
        wanted, unknown = {each.member for each in self.desired}, self._of_unknown(lines)
        return {
            row.line_id: unknown[row.line_id]
            for row in self.rows
            if row.member in wanted and row.line_id in unknown and row.resource_id in (None, unknown[row.line_id])
        }

    def _of_unknown(self, lines: Collection[Line]) -> dict[UUID, UUID]:
        """Return the contacts that lines show which we own without knowing for whom they were made."""
        without_contact = {line_id for line_id, resource_id in self.owned.items() if resource_id is None}
        return {
            line.line_id: line.resource_id for line in lines if line.line_id in without_contact and line.resource_id
        }


def crew(conn: Connection, element_id: UUID, roles: Roles) -> Crew:
    """Read what the warehouse knows about an element. `conn` is in autocommit, and not in a transaction."""
    named = {"element": element_id, "dry_hire": DRY_HIRE}
    with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        calls = {call_id: Call(*rest) for call_id, *rest in cursor.execute(CALLS, named)}
        wanted = cursor.execute(DESIRED, named).fetchall()
        rows = cursor.execute(ROWS, named).fetchall()
        lines = cursor.execute(OWNED, named).fetchall()
        needed = [(found[0], Member(*found[1:3]), found[3]) for found in cursor.execute(NEEDED, named)]
        written = written_roles(conn, element_id)
        current = fingerprint(conn, element_id)
    told = [roles.role(department, code) for _, _, department, code, _ in wanted]
    return Crew(
        calls=calls,
        desired=tuple(
            Desired(Member(call_id, technician_id), resource_id, role.role_id, has_roles=department in roles.ids)
            for (call_id, technician_id, department, _, resource_id), role in zip(wanted, told, strict=True)
        ),
        rows=tuple(Row(Member(*found[:2]), *found[2:4]) for found in rows),
        owned={line_id: resource_id for line_id, resource_id, gone in lines if not gone},
        gone={line_id: resource_id for line_id, resource_id, gone in lines if gone},
        elsewhere=frozenset(found[2] for found in rows if found[4]),
        gone_elsewhere=frozenset(found[2] for found in rows if found[4] and found[5]),
        leaving=frozenset(line_id for line_id, _, without_contact in needed if not without_contact),
        staying=_by_line((line_id, member) for line_id, member, without_contact in needed if without_contact),
        roles=written,
        diagnostics=tuple(sorted({role.diagnostic for role in told if role.diagnostic})),
        fingerprint=current,
    )


def _by_line(needed: Iterable[tuple[UUID, Member]]) -> dict[UUID, tuple[Member, ...]]:
    found: dict[UUID, tuple[Member, ...]] = {}
    for line_id, member in needed:
        found[line_id] = (*found.get(line_id, ()), member)
    return found


def lines_elsewhere(conn: Connection, element_id: UUID, *, of_people: bool = False) -> list[UUID]:
    """Return some lines on other crew calls that should be there: ours, then people's that our rows name.

    `of_people`: only the latter.
    """
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(LINES_ELSEWHERE, {"element": element_id, "of_people": of_people}).fetchall()


def written_roles(conn: Connection, element_id: UUID) -> dict[UUID, UUID]:
    """Return the business role that we wrote last to each line of an element."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return dict(cursor.execute(WRITTEN_ROLES, {"element": element_id}).fetchall())


def fingerprint(conn: Connection, element_id: UUID) -> str:
    """Return a hash of an element's calls and desired crew as they are now. It changes whenever one of them does."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(FINGERPRINT, {"element": element_id, "dry_hire": DRY_HIRE}).fetchone()[0]
