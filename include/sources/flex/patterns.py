"""What the planned changes of a scan have in common: one crew call, job, department or day.

A change of Flex has no row of its own, so its facts are about the place where it is made. An insert is compared with
all people who belong on the scanned crew calls; other changes are compared with our rows, which say who is on them.
"""

from typing import get_args

from psycopg import Connection, sql

from include.warehouse.find_patterns import MOST, facts_of
from include.warehouse.patterns import Operation, Pattern

TYPES = {
    "flex_element_id": "uuid",
    "job_id": "uuid",
    "department": "text",
    "start_time": "timestamp with time zone",
}


def find_patterns(conn: Connection, entity: str, stored_as: str) -> list[Pattern]:
    """Return what the changes have in common that this scan of flex.element_scan has planned, by operation."""
    found: list[Pattern] = []
    for operation in get_args(Operation):
        parts = {
            "scan": sql.Literal(stored_as),
            "operation": sql.Literal(operation),
            "figure": sql.Literal("desired" if operation == "insert" else "rows"),
        }
        planned, rows = (sql.SQL(PLACES + each).format(**parts) for each in (PLANNED, LOOKED_AT))
        found += facts_of(conn, entity, operation, planned, rows, types=TYPES)[:MOST]
    return found


# Of several crew calls of ours that point to the same one in Flex, the first stands for all. The department is a code.
PLACES = """
SELECT s.flex_element_id, place.job_id, place.department, place.start_time
FROM flex.element_scan s CROSS JOIN LATERAL (
  SELECT min(c.job_id::text)::uuid AS job_id, upper(min(c.department)) AS department, min(j.start_time) AS start_time
  FROM flex.flex_crew_calls c JOIN flex.jobs j ON j.id = c.job_id WHERE c.flex_element_id = s.flex_element_id
) AS place
"""

PLANNED = """
CROSS JOIN LATERAL jsonb_each_text(s.planned) AS p WHERE s.scan_id = {scan} AND p.value = {operation}
"""

LOOKED_AT = """
CROSS JOIN LATERAL generate_series(1, greatest(
  (s.figures ->> {figure})::bigint,
  (SELECT count(*) FROM jsonb_each_text(s.planned) AS p WHERE p.value = {operation})
)) WHERE s.scan_id = {scan} AND NOT s.figures ? 'unreadable'
"""
