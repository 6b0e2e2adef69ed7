"""How far a table is behind its source, by when a sync last read everything, not by what it found.

A watermark may be the time of the source's last change: by that a table of a quiet source was years behind its source
after its first sync.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

COLUMN = """
ALTER TABLE confidence.sync_state ADD in_step_at timestamptz;
COMMENT ON COLUMN confidence.sync_state.in_step_at IS
  'When the last sync that has left out nothing of it began: the copy is in step with the source as of then.';
"""

VIEW = """
CREATE OR REPLACE VIEW confidence.health AS
SELECT w.source, t.entity, t.sync_id, l.started_at AS synced_at, changed.rows_changed,
  t.watermark, now() - coalesce(t.in_step_at,
    CASE WHEN t.watermark = t.watermark_before AND l.state = 'success' THEN l.started_at
      ELSE coalesce(t.watermark, l.started_at) END) AS freshness, schedule.schedule,
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
    SELECT DISTINCT ON (entity) entity, watermark, sync_id, in_step_at,
      (state_before -> (entity || '/' || partition) ->> 'watermark')::timestamptz AS watermark_before
    FROM confidence.sync_state JOIN confidence.sync_log USING (sync_id, source)
    WHERE source = w.source ORDER BY entity, sync_id DESC, coalesce(in_step_at, watermark)
  )
  UNION ALL
  SELECT computed.entity, NULL, last.sync_id, NULL, NULL
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
"""


def upgrade() -> None:
    op.execute(COLUMN)
    op.execute(VIEW)


def downgrade() -> None:
    before = op.get_context().opts["script"].get_revision("0013").module
    op.execute("DROP VIEW confidence.health; ALTER TABLE confidence.sync_state DROP in_step_at")
    op.execute(before.VIEW)
