"""What a repair rests on and whether it was verified, and what the watch has found."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

STATEMENTS = """
ALTER TABLE confidence.forensic_run ADD rescanned boolean NOT NULL DEFAULT false, ADD asked_at timestamptz;
COMMENT ON COLUMN confidence.forensic_run.rescanned IS
  'true once the same scan has begun again: its plan may be overwritten, so nothing may be repaired by this evidence.';
COMMENT ON COLUMN confidence.forensic_run.asked_at IS
  'When a person was last asked about this hold. An answer counts only for holds that were asked about.';

ALTER TABLE confidence.sync_log ADD verified_at timestamptz, ADD checks jsonb;
COMMENT ON COLUMN confidence.sync_log.checks IS
  'What verify has found after a repair: entity, figure, before, after and margin of each check.';

CREATE TABLE confidence.finding (
  key text PRIMARY KEY,
  source text NOT NULL,
  code text NOT NULL,
  run text,
  what text NOT NULL,
  consequence text NOT NULL,
  next_step text NOT NULL,
  first_seen timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE confidence.finding IS
  'What the last pass of the DAG confidence_watch has found: warehouse and Airflow disagree, or nothing moves. A row '
  'is gone once a pass does not find it any more.';

CREATE TABLE confidence.watch (
  source text PRIMARY KEY,
  looked_at timestamptz NOT NULL
);
COMMENT ON TABLE confidence.watch IS 'When confidence_watch has last looked at a source.';
"""

DROPS = """
DROP TABLE confidence.watch, confidence.finding;
ALTER TABLE confidence.sync_log DROP checks, DROP verified_at;
ALTER TABLE confidence.forensic_run DROP asked_at, DROP rescanned;
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute(DROPS)
