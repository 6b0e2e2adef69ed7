"""Health: what the requests of a sync came to, and a view that sums up how each table stands."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = """
ALTER TABLE confidence.sync_log
  ADD requests bigint NOT NULL DEFAULT 0,
  ADD request_errors bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN confidence.sync_log.requests IS 'Requests that a sync sent to the source, retries included.';
COMMENT ON COLUMN confidence.sync_log.request_errors IS
  'Of those the ones that failed, retried ones included; a 404 is an answer.';
CREATE INDEX ON confidence.sync_log (source, started_at);

CREATE VIEW confidence.health AS
SELECT w.source, t.entity, t.sync_id, l.started_at AS synced_at, changed.rows_changed,
  t.watermark, now() - coalesce(t.watermark, l.started_at) AS freshness, schedule.schedule,
  runs.run_seconds, runs.median_run_seconds,
  traffic.requests, traffic.request_errors, traffic.request_errors / nullif(traffic.requests, 0) AS error_rate,
  scan.discrepancies, scan.verdict, scan.scanned_at
FROM confidence.writer w
CROSS JOIN LATERAL (
  SELECT (max(seconds) FILTER (WHERE newest = 1))::double precision AS run_seconds,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds::double precision) FILTER (WHERE newest > 1)
      AS median_run_seconds
  FROM (
    SELECT duration_seconds AS seconds, row_number() OVER (ORDER BY sync_id DESC) AS newest
    FROM confidence.sync_log WHERE source = w.source AND kind = 'sync' AND state = 'success'
    ORDER BY sync_id DESC LIMIT 21
  ) AS ended
) AS runs
CROSS JOIN LATERAL (
  SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY gap) AS schedule
  FROM (
    SELECT began - lag(began) OVER (ORDER BY began) AS gap
    FROM (
      SELECT min(started_at) AS began FROM confidence.sync_log
      WHERE source = w.source AND kind = 'sync' AND run LIKE '%/scheduled\\_\\_%'
        AND started_at > now() - interval '7 days'
      GROUP BY run ORDER BY began DESC LIMIT 21
    ) AS scheduled
  ) AS gaps
) AS schedule
CROSS JOIN LATERAL (
  SELECT coalesce(sum(requests), 0) AS requests, coalesce(sum(request_errors), 0) AS request_errors
  FROM confidence.sync_log WHERE source = w.source AND kind = 'sync' AND started_at > now() - interval '1 day'
) AS traffic
CROSS JOIN LATERAL (
  (
    SELECT DISTINCT ON (entity) entity, watermark, sync_id FROM confidence.sync_state
    WHERE source = w.source ORDER BY entity, sync_id DESC, watermark
  )
  UNION ALL
  SELECT computed.entity, NULL, last.sync_id
  FROM (
    SELECT sync_id, entities FROM confidence.sync_log
    WHERE source = w.source AND kind = 'sync' AND state = 'success' ORDER BY sync_id DESC LIMIT 1
  ) AS last, jsonb_object_keys(last.entities) AS computed (entity)
  WHERE to_regclass(format('%I.%I', w.source, computed.entity)) IS NOT NULL
    AND NOT EXISTS (SELECT FROM confidence.sync_state s WHERE s.source = w.source AND s.entity = computed.entity)
) AS t
JOIN confidence.sync_log l ON l.sync_id = t.sync_id
CROSS JOIN LATERAL (
  SELECT coalesce(sum(value::bigint), 0)::bigint AS rows_changed FROM jsonb_each_text(l.entities -> t.entity)
  WHERE key IN ('inserted', 'updated', 'deleted')
) AS changed
LEFT JOIN LATERAL (
  SELECT f.verdict, f.scanned_at,
    (SELECT sum(value::bigint)::bigint FROM jsonb_each_text(f.summary -> 'plan')) AS discrepancies
  FROM confidence.forensic_run f WHERE f.source = w.source AND f.entity = t.entity AND f.scope = 'all'
  ORDER BY f.scanned_at DESC LIMIT 1
) AS scan ON true;
COMMENT ON VIEW confidence.health IS
  'Per source and table, as of now. Of the source: seconds of the last successful sync and the median of the 20 '
  'before it, the gap between its scheduled syncs, requests of the last day. Of the table: its last sync and what that '
  'changed, how far it is behind (of partitions the last one; of a computed table since the sync that computed it), '
  'and what the last whole scan planned to change.';
"""


def upgrade() -> None:
    op.execute(STATEMENTS)
