"""The fence, the evidence, the audit: schema `confidence`, and `staging` for rows on their way."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE confidence.writer (
  source text PRIMARY KEY,
  state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'stopped')),
  epoch bigint NOT NULL DEFAULT 0,
  run text,
  since timestamptz NOT NULL DEFAULT now(),
  hold_reason text,
  CHECK (hold_reason IS NULL OR state = 'stopped')
);
COMMENT ON TABLE confidence.writer IS
  'The fence. Whoever writes for a source locks its row FOR SHARE first; stopping updates the row.';

CREATE TABLE confidence.sync_log (
  sync_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('sync', 'repair', 'rollback', 'watermark')),
  run text NOT NULL,
  state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'success', 'failed')),
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz,
  duration_seconds numeric GENERATED ALWAYS AS (extract(epoch FROM finished_at - started_at)) STORED,
  rows_read bigint NOT NULL DEFAULT 0,
  rows_inserted bigint NOT NULL DEFAULT 0,
  rows_updated bigint NOT NULL DEFAULT 0,
  rows_deleted bigint NOT NULL DEFAULT 0,
  rows_unchanged bigint NOT NULL DEFAULT 0,
  rows_superseded bigint NOT NULL DEFAULT 0,
  rows_failed bigint NOT NULL DEFAULT 0,
  entities jsonb NOT NULL DEFAULT '{}',
  state_before jsonb NOT NULL DEFAULT '{}',
  undoes bigint REFERENCES confidence.sync_log,
  reason text,
  error text
);
CREATE INDEX ON confidence.sync_log (source, sync_id);
COMMENT ON COLUMN confidence.sync_log.entities IS 'The counts, per entity.';
COMMENT ON COLUMN confidence.sync_log.state_before IS
  'Per entity the sync_state row as this sync found it (null: there was none), for the way back.';

CREATE TABLE confidence.sync_state (
  source text NOT NULL,
  entity text NOT NULL,
  partition text NOT NULL DEFAULT '',
  watermark timestamptz,
  version bigint,
  counts jsonb NOT NULL DEFAULT '{}',
  duration_seconds numeric,
  sync_id bigint NOT NULL REFERENCES confidence.sync_log,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (source, entity, partition)
);

CREATE TABLE confidence.change_log (
  change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  sync_id bigint NOT NULL,
  table_name text NOT NULL,
  key jsonb NOT NULL,
  operation text NOT NULL CHECK (operation IN ('insert', 'update', 'delete')),
  before jsonb,
  after jsonb,
  after_hash bigint
);
CREATE INDEX ON confidence.change_log (sync_id, table_name);
COMMENT ON TABLE confidence.change_log IS
  'Per changed row: before (update, delete) and after (update, and delete by tombstone). An insert keeps only the '
  'hash of what it wrote. after_hash is null where the row is gone.';

CREATE TABLE confidence.forensic_run (
  scan_id text PRIMARY KEY,
  source text NOT NULL,
  entity text NOT NULL,
  scope text NOT NULL,
  run text NOT NULL,
  epoch bigint NOT NULL,
  scanned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  summary jsonb NOT NULL,
  metrics jsonb NOT NULL,
  verdict text CHECK (verdict IN ('pass', 'warn', 'hold')),
  worse text[] NOT NULL DEFAULT '{}',
  reasons text[] NOT NULL DEFAULT '{}',
  baseline jsonb NOT NULL DEFAULT '{}',
  decision text CHECK (decision IN ('keep', 'resume', 'repair')),
  decided_by text,
  decided_at timestamptz
);
CREATE INDEX ON confidence.forensic_run (source, entity, scope, scanned_at DESC);
COMMENT ON COLUMN confidence.forensic_run.verdict IS 'null until the gate has judged the scan.';
COMMENT ON COLUMN confidence.forensic_run.decision IS
  'What a person decided about a hold: resume accepts the metrics as the new baseline.';

CREATE TABLE confidence.quarantine (
  quarantine_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source text NOT NULL,
  entity text NOT NULL,
  pull text NOT NULL,
  key text,
  reason text NOT NULL,
  payload json,
  refused_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON confidence.quarantine (source, entity, refused_at);

CREATE TABLE confidence.rate_limit (
  api text PRIMARY KEY,
  next_at timestamptz NOT NULL
);
COMMENT ON TABLE confidence.rate_limit IS 'When the next request may be sent; shared by all parallel tasks of an api.';

CREATE SCHEMA IF NOT EXISTS staging;

-- Unlogged like the staged rows: a crash of the server empties both, so a cursor never outlives its rows.
CREATE UNLOGGED TABLE staging.pull (
  pull text PRIMARY KEY,
  source text NOT NULL,
  entity text NOT NULL,
  purpose text NOT NULL,
  ticket text NOT NULL,
  attempt uuid NOT NULL,
  position jsonb,
  complete boolean NOT NULL DEFAULT false,
  pages bigint NOT NULL DEFAULT 0,
  rows_read bigint NOT NULL DEFAULT 0,
  rows_refused bigint NOT NULL DEFAULT 0,
  source_time timestamptz,
  total_entries bigint,
  total_pages bigint,
  progress jsonb NOT NULL DEFAULT '{}',
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


def upgrade() -> None:
    op.execute(STATEMENTS)
