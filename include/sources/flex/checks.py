"""Checks of our tables: queries, and how many rows each has to find."""

from dataclasses import dataclass

from psycopg import Connection

from include.confidence.integrity import Finding, Severity
from include.confidence.summary import MAX_EXAMPLES
from include.sources.base import IntegrityFailed
from include.warehouse.unique import key_query


@dataclass(frozen=True)
class Verification:
    """A query and the number of rows that it has to find. Its columns identify a row in messages."""

    name: str
    query: str
    expected: int = 0
    severity: Severity = Severity.ERROR


DUPLICATES = """
SELECT crew_call_id, technician_id FROM flex.flex_crew_assignments
GROUP BY crew_call_id, technician_id HAVING count(*) > 1
"""

# Rows are written with ON CONFLICT on these columns.
UNIQUE_KEY = key_query("flex.flex_crew_assignments", ("crew_call_id", "technician_id"))
MIGRATE = "Run the DAG warehouse_migrate: it removes duplicates and puts the unique key back"

RECENT_FAILURES = """
SELECT job_id, department, failed_count FROM (
  SELECT job_id, department, failed_count FROM flex.flex_sync_log ORDER BY created_at DESC LIMIT 10
) recent WHERE failed_count > 0
"""

# Only Flex knows which lines it has. These are lines that a sync has seen to be gone.
STALE_ASSIGNMENTS = """
SELECT a.crew_call_id, a.technician_id, a.flex_line_item_id
FROM flex.flex_crew_assignments a JOIN flex.owned_line o USING (flex_line_item_id) WHERE o.gone_at IS NOT NULL
"""

VERIFICATIONS = (
    Verification("duplicate_assignments", DUPLICATES),
    Verification("unique_key", UNIQUE_KEY, expected=1),
    Verification("recent_failures", RECENT_FAILURES, severity=Severity.WARNING),
    Verification("stale_assignments", STALE_ASSIGNMENTS, severity=Severity.WARNING),
)


def require_unique_key(conn: Connection) -> None:
    """Raise IntegrityFailed if the key is missing: then lines added in Flex could not be stored here."""
    if conn.execute(UNIQUE_KEY).fetchone() is None:
        raise IntegrityFailed(
            "the unique key of flex.flex_crew_assignments is missing, so nothing was asked of Flex and nothing was"
            f" written. {MIGRATE}"
        )


def verify(conn: Connection) -> list[Finding]:
    """Make all checks; return a finding for each. Rows that should not exist are named as `a/b`."""
    return [_find(conn, each) for each in VERIFICATIONS]


def _find(conn: Connection, verification: Verification) -> Finding:
    rows = conn.execute(verification.query).fetchall()
    surplus = [] if verification.expected else sorted("/".join(map(str, row)) for row in rows)
    return Finding(
        verification.name, verification.severity, verification.expected, len(rows), tuple(surplus[:MAX_EXAMPLES])
    )
