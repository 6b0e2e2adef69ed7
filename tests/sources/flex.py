"""Jobs with their crew in a warehouse, for the tests of Flex."""

from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from include.simulators.flex.config import ROLES
from include.sources.flex.roles import Roles, roles_of

LEAD, EXPERT, HAND = ROLES
SOUND: Roles = roles_of(
    {"business_roles": {"sound": {"responsible": str(LEAD), "specialist": str(EXPERT), "technician": str(HAND)}}}
)


def put(conn: psycopg.Connection, table: str, **values) -> UUID:
    """A row with a new id, which is returned."""
    row = {"id": uuid4()} | values
    query = sql.SQL("INSERT INTO flex.{} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(map(sql.Literal, row.values())),
    )
    conn.execute(query)
    return row["id"]


def person(conn: psycopg.Connection, resource_id: UUID | None) -> UUID:
    return put(conn, "profiles", flex_resource_id=resource_id)


def call(conn: psycopg.Connection, element_id: UUID, department: str = "sound", job: UUID | None = None, **of) -> UUID:
    """A crew call, of a job of its own unless one is named."""
    job_id = job or put(conn, "jobs", **of)
    return put(conn, "flex_crew_calls", job_id=job_id, department=department, flex_element_id=element_id)


def assign(conn: psycopg.Connection, call_id: UUID, technician_id: UUID, code: str = "FOH-T", **values) -> UUID:
    """An assignment to the call's job, in the call's department."""
    job_id, department = conn.execute(
        "SELECT job_id, department FROM flex.flex_crew_calls WHERE id = %s", [call_id]
    ).fetchone()
    roles = {f"{department}_role": code}
    return put(conn, "job_assignments", job_id=job_id, technician_id=technician_id, **roles | values)


def note(conn: psycopg.Connection, call_id: UUID, technician_id: UUID, line_id: UUID | None) -> None:
    """A row that names a line."""
    values = {"crew_call_id": call_id, "technician_id": technician_id, "flex_line_item_id": line_id}
    put(conn, "flex_crew_assignments", **values)


def own(conn: psycopg.Connection, element_id: UUID, line_id: UUID, resource_id: UUID | None = None) -> None:
    """A line that we made, for a job that nobody knows any more."""
    conn.execute(
        "INSERT INTO flex.owned_line VALUES (%s, %s, %s, gen_random_uuid(), 'sound', gen_random_uuid(),"
        " gen_random_uuid())",
        [line_id, element_id, resource_id],
    )


def rows(conn: psycopg.Connection, element_id: UUID) -> dict[tuple[UUID, UUID], UUID | None]:
    """The lines that our rows name, by crew call and technician."""
    query = (
        "SELECT crew_call_id, technician_id, flex_line_item_id FROM flex.flex_crew_assignments a"
        " JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id WHERE c.flex_element_id = %s"
    )
    return {(call_id, who): line_id for call_id, who, line_id in conn.execute(query, [element_id])}


def owned(conn: psycopg.Connection, element_id: UUID) -> set[UUID]:
    """The lines that we made and that are there."""
    query = "SELECT flex_line_item_id FROM flex.owned_line WHERE flex_element_id = %s AND gone_at IS NULL"
    return {line_id for (line_id,) in conn.execute(query, [element_id])}
