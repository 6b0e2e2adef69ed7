"""Read what runs have left undone in the warehouse, for the watch: scans, repairs and rows of the sync log.

Each function returns rows of (run, what of it is undone).
"""

from psycopg import Connection
from psycopg.rows import tuple_row


def unjudged(conn: Connection, source: str) -> list[tuple[str, str]]:
    """Return (run, entities) for the entities whose newest scan was not judged. Only scans of the last week count.

    A scan of an entity that its run has put off afterwards needs no judgement.
    """
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(
            """
            SELECT run, string_agg(entity, ', ' ORDER BY entity) FROM (
              SELECT DISTINCT ON (entity) entity, run, verdict FROM confidence.forensic_run
              WHERE source = %s AND scanned_at > now() - interval '7 days' ORDER BY entity, scanned_at DESC
            ) AS newest
            WHERE verdict IS NULL AND NOT EXISTS (
              SELECT FROM confidence.put_off p WHERE p.source = %s AND p.run = newest.run AND p.entity = newest.entity
            )
            GROUP BY run ORDER BY run
            """,
            [source, source],
        ).fetchall()


def unverified(conn: Connection, source: str) -> list[tuple[str, str]]:
    """Return (run, sync_id) of repairs of the last week that neither verify nor a later scan has checked."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(UNVERIFIED, [source]).fetchall()


def unfinished(conn: Connection, source: str) -> list[tuple[str, str]]:
    """Return (run, kind and sync_id) of each row of the sync log that is still open."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(
            "SELECT run, kind || ' ' || sync_id FROM confidence.sync_log WHERE source = %s AND state = 'running'"
            " ORDER BY sync_id",
            [source],
        ).fetchall()


# A later judged scan of the same entities and scopes has checked every row that the repair may have changed.
UNVERIFIED = """
SELECT l.run, 'sync_id ' || l.sync_id FROM confidence.sync_log l
WHERE l.source = %s AND l.kind = 'repair' AND l.state = 'success' AND l.verified_at IS NULL
  AND l.finished_at > now() - interval '7 days'
  AND NOT EXISTS (SELECT FROM confidence.sync_log u WHERE u.undoes = l.sync_id AND u.state = 'success')
  AND (
    NOT EXISTS (SELECT FROM confidence.forensic_run later
                WHERE later.source = l.source AND later.scanned_at > l.finished_at)
    OR EXISTS (
      SELECT FROM confidence.forensic_run own
      WHERE own.source = l.source AND own.run = l.run AND NOT EXISTS (
        SELECT FROM confidence.forensic_run later
        WHERE later.source = own.source AND later.entity = own.entity AND later.scope = own.scope
          AND later.scanned_at > l.finished_at AND later.verdict IS NOT NULL AND NOT later.rescanned
      )
    )
  )
ORDER BY l.sync_id
"""
