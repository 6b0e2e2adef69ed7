"""What earlier scans of all images have found: it excuses no image twice, and holds up no sync once it is judged."""

from datetime import datetime, timedelta

from psycopg import Connection, sql

from include.confidence import planned_changes
from include.sources.storage.images import GRACE

# The least number of days that `confidence.retention` takes for the plan of a scan.
KEPT_FOR = timedelta(days=7)


def leave_judged(conn: Connection, plan: sql.Identifier) -> int:
    """Turn what a judged scan of all images has found alike into `judged`: it is left alone. Return how many it is.

    The newest scan counts that passed, or that a person has decided on. Only images count that are still as it saw
    them.
    """
    return conn.execute(sql.SQL(LEAVE_JUDGED).format(plan=plan, scan=sql.SQL(JUDGED_SCAN))).rowcount


def leave_proven(conn: Connection, plan: sql.Identifier) -> None:
    """Turn images without an answer into `judged` if a judged scan of all images has found them in order.

    Such a scan lists the bucket, so it may have an answer about objects whose own addresses never give one. Only images
    count that have not changed since. What the scan did not find in order is in its kept plan, so that plan has to be
    whole: it is cut off at `planned_changes.MOST` rows, and dropped after some days.
    """
    parts = {"grace": sql.Literal(GRACE), "kept_for": sql.Literal(KEPT_FOR), "most": sql.Literal(planned_changes.MOST)}
    conn.execute(sql.SQL(LEAVE_PROVEN).format(plan=plan, scan=sql.SQL(JUDGED_SCAN), **parts))


def noted(conn: Connection, run: str | None, started: datetime) -> sql.Composable:
    """Return the query for a row if an earlier scan of all images than that of `run` has noted the image `i` as young.

    `started`: the application's time when this check began. The scan has to be GRACE older, so that an upload which
    was under way then has ended.
    """
    earlier = conn.execute(EARLIER_SCAN, {"run": run, "before": started - GRACE}).fetchone()
    if not earlier:
        return sql.SQL("SELECT WHERE false")
    evidence, began = earlier
    return sql.SQL(NOTED).format(evidence=sql.Literal(evidence), since=sql.Literal(began - GRACE))


EARLIER_SCAN = """
SELECT evidence, started FROM (
  SELECT summary ->> 'evidence' AS evidence, (summary -> 'telemetry' ->> 'started')::timestamptz AS started, scanned_at
  FROM confidence.forensic_run WHERE source = 'storage' AND scope = 'all' AND run <> %(run)s
) scan
WHERE greatest(started, scanned_at) <= %(before)s ORDER BY scanned_at DESC LIMIT 1
"""

# An image that the scan could not prove counts if it was young then, or its time of change lay ahead: another reason to
# be unproven does not make a later upload late.
NOTED = """
SELECT FROM confidence.planned_change c
WHERE c.evidence = {evidence} AND c.key ->> 'id' = i.id::text AND (c.status = 'young'
  OR c.status = 'unproven' AND (c.before ->> 'updated_at')::timestamptz > {since})
"""

JUDGED_SCAN = """
SELECT summary ->> 'evidence' AS evidence, (summary -> 'telemetry' ->> 'started')::timestamptz AS started,
  scanned_at
FROM confidence.forensic_run
WHERE source = 'storage' AND scope = 'all' AND (verdict IN ('pass', 'warn') OR decision IN ('resume', 'repair'))
ORDER BY scanned_at DESC LIMIT 1
"""

LEAVE_JUDGED = """
WITH scan AS ({scan})
UPDATE {plan} p SET _status = 'judged' FROM confidence.planned_change c JOIN scan USING (evidence)
WHERE c.key ->> 'id' = p.id::text AND c.status = p._status AND c.after ->> 'error' IS NOT DISTINCT FROM p.new_error
  AND (c.before ->> 'updated_at')::timestamptz = p.updated_at
  AND p._operation = 'mark' AND p._status IN ('confirmed', 'left', 'unproven')
"""

LEAVE_PROVEN = """
WITH scan AS MATERIALIZED (
  SELECT * FROM ({scan}) judged
  WHERE scanned_at > clock_timestamp() - {kept_for} AND {most} > (
    SELECT count(*) FROM (SELECT FROM confidence.planned_change c WHERE c.evidence = judged.evidence LIMIT {most}) kept)
)
UPDATE {plan} p SET _status = 'judged' FROM scan
WHERE p._operation = 'mark' AND p._status = 'unproven' AND p.unknown IS NOT NULL
  AND p.updated_at <= scan.started - {grace} AND NOT EXISTS (
    SELECT FROM confidence.planned_change c WHERE c.evidence = scan.evidence AND c.key ->> 'id' = p.id::text)
  AND NOT EXISTS (
    SELECT FROM confidence.unproven u
    WHERE u.source = 'storage' AND u.entity = 'images' AND u.key = jsonb_build_array(p.id))
"""
