"""Alerts from the view flex.sync_health: failures within an hour, slow syncs, duplicates."""

from collections.abc import Iterator
from typing import Any

from psycopg import Connection
from psycopg.rows import namedtuple_row

from include.confidence.health import Alert

FAILURE_RATE = 0.05
SECONDS = 10.0


def alerts(conn: Connection) -> list[Alert]:
    """Return an alert for each figure of the last hour that is above its limit."""
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        hour = cursor.execute("SELECT * FROM flex.sync_health WHERE period = 'hour'").fetchone()
    return list(_above(hour))


def _above(hour: Any) -> Iterator[Alert]:
    """Yield an alert for each figure above its limit. `hour`: a row of the view."""
    if hour.failure_rate is not None and hour.failure_rate > FAILURE_RATE:
        yield Alert(
            "failure_rate",
            "flex",
            float(hour.failure_rate),
            FAILURE_RATE,
            f"{hour.failures} of {hour.syncs} syncs of crew calls failed within an hour ({hour.failure_rate:.1%}),"
            f" above the limit {FAILURE_RATE:.0%}. flex.flex_sync_log names the errors; see whether Flex answers,"
            " and whether a crew call has to be released",
        )
    if hour.max_seconds is not None and hour.max_seconds > SECONDS:
        yield Alert(
            "slow_sync",
            "flex",
            float(hour.max_seconds),
            SECONDS,
            f"the sync of a crew call took {hour.max_seconds:.1f} s, above the limit {SECONDS:.0f} s. See how fast Flex"
            " answers, and how many changes flex.flex_sync_log names for it",
        )
    if hour.duplicates:
        yield Alert(
            "unique_key",
            "flex",
            hour.duplicates,
            0,
            f"{hour.duplicates} technicians are in flex.flex_crew_assignments more than once for a crew call: the"
            " unique key is missing. Run the DAG warehouse_migrate",
        )
