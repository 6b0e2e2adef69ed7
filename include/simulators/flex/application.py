"""The application that plans the crews: its jobs, people, assignments and crew calls, all of them invented.

Flex has the crew calls; here is the database that names them. The tables are there already, in the connection's
current schema, and are named without one.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import psycopg
import tenacity
from psycopg import sql

# Whatever has an id here has it from this one, so that it is the same at every start.
_NAMESPACE = UUID("5f1e0c9a-7b64-4d0e-9d55-2f6c31a0b7e4")

# Title, type, the departments that have a crew call.
_JOBS = (
    ("Harbour lights, open air", "single", ("sound", "lights")),
    ("Northern tour", "tour", ("sound", "lights")),
    ("City festival", "festival", ("sound", "lights")),
    ("Chamber music", "single", ("sound",)),
    ("Trade fair", "single", ("sound", "lights")),
    ("Line array for a club", "dryhire", ("sound",)),
)
# The crew calls of this one are one and the same in Flex.
_SHARED = "Trade fair"
_FIRST = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Juniper", "Linden", "Maple", "Rowan", "Willow")
_LAST = ("Anvil", "Bracket", "Clamp", "Dowel", "Flange", "Gasket")
_PEOPLE = 30
# One of them has no contact in Flex yet.
_WITHOUT_CONTACT = 7
_CREW = 6  # of a department, on a job
_CODES = {
    "sound": ("FOH-R", "MON-R", "FOH-E", "PA-E", "PA-T", "STAGE-T"),
    "lights": ("LX-R", "DESK-E", "DESK-T", "DIM-E", "DIM-T", "FOLLOW-T"),
}
_STATUSES = ("confirmed", "confirmed", "invited", "declined")
# Of a stack that is kept for long, too, they aren't over.
_AHEAD = timedelta(days=365)

Row = Mapping[str, Any]


def set_up(database: str) -> list[UUID]:
    """Wait until the tables are there, `fill` them if there is no job, and return the crew calls that are named.

    Raises psycopg.OperationalError or psycopg.errors.UndefinedTable when there are none within five minutes.
    """
    with _patient(database) as conn, conn.transaction():
        if not conn.execute("SELECT EXISTS (SELECT FROM jobs)").fetchone()[0]:
            fill(conn)
        found = conn.execute("SELECT DISTINCT flex_element_id FROM flex_crew_calls ORDER BY 1").fetchall()
    return [element_id for (element_id,) in found]


def fill(conn: psycopg.Connection) -> None:
    """Write the rows into empty tables."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for table, rows in {
        "jobs": _jobs(now),
        "profiles": _profiles(),
        "job_assignments": _assignments(),
        "flex_crew_calls": _crew_calls(),
    }.items():
        for row in rows:
            _insert(conn, table, row)


def _jobs(now: datetime) -> Iterator[Row]:
    for number, (title, kind, _) in enumerate(_JOBS):
        start = now + timedelta(days=number)
        yield {"id": _id(title), "title": title, "job_type": kind, "start_time": start, "end_time": start + _AHEAD}


def _profiles() -> Iterator[Row]:
    for number in range(_PEOPLE):
        yield {
            "id": _person(number),
            "first_name": _FIRST[number % len(_FIRST)],
            "last_name": _LAST[number % len(_LAST)],
            "role": "technician",
            "department": ("sound", "lights")[number % 2],
            "flex_resource_id": None if number == _WITHOUT_CONTACT else _id(f"contact {number}"),
        }


def _assignments() -> Iterator[Row]:
    for job, (title, _, departments) in enumerate(_JOBS):
        for department in departments:
            for place, code in enumerate(_CODES[department]):
                # Everybody of a department takes turns.
                turn = (job * _CREW + place) % (_PEOPLE // 2)
                yield {
                    "id": _id(f"{title} {code}"),
                    "job_id": _id(title),
                    "technician_id": _person(2 * turn + (department == "lights")),
                    f"{department}_role": code,
                    "status": _STATUSES[(job + place) % len(_STATUSES)],
                    "assignment_source": "direct",
                }


def _crew_calls() -> Iterator[Row]:
    for title, _, departments in _JOBS:
        for department in departments:
            call = f"{title} crew call" + ("" if title == _SHARED else f" {department}")
            yield {
                "id": _id(f"{title} {department}"),
                "job_id": _id(title),
                "department": department,
                "flex_element_id": _id(call),
            }


@tenacity.retry(
    retry=tenacity.retry_if_exception_type((psycopg.OperationalError, psycopg.errors.UndefinedTable)),
    wait=tenacity.wait_fixed(0.5),
    stop=tenacity.stop_after_delay(300),
    reraise=True,
)
def _patient(database: str) -> psycopg.Connection:
    """A connection to a database that answers and has the tables: whoever migrates it may be at it still."""
    conn = psycopg.connect(database, autocommit=True)
    try:
        conn.execute("SELECT FROM jobs, profiles, job_assignments, flex_crew_calls LIMIT 0")
    except psycopg.Error:
        conn.close()
        raise
    return conn


def _insert(conn: psycopg.Connection, table: str, row: Row) -> None:
    conn.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        ),
        row,
    )


def _person(number: int) -> UUID:
    return _id(f"person {number}")


def _id(what: str) -> UUID:
    return uuid5(_NAMESPACE, what)
