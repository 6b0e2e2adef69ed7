"""What the pages of people show: the gates as they were judged, and the runs by time and by name."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STATEMENTS = """
ALTER TABLE confidence.forensic_run ADD gates jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN confidence.forensic_run.gates IS
  'Each gate as it was judged: metric, baseline, limit, value, verdict, reason. Empty until then.';

CREATE INDEX forensic_run_source_scanned_at ON confidence.forensic_run (source, scanned_at DESC, scan_id DESC);
CREATE INDEX forensic_run_run ON confidence.forensic_run (run);
CREATE INDEX sync_log_run ON confidence.sync_log (run);
CREATE INDEX sync_log_undoes ON confidence.sync_log (undoes) WHERE undoes IS NOT NULL;
"""

DROPS = """
DROP INDEX confidence.forensic_run_source_scanned_at, confidence.forensic_run_run, confidence.sync_log_run,
  confidence.sync_log_undoes;
ALTER TABLE confidence.forensic_run DROP gates;
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute(DROPS)
