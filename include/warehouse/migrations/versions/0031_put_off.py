"""What a night puts off if the writer may stand for a limited time only, and how long each scan takes."""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE confidence.put_off (
  source text NOT NULL,
  run text NOT NULL,
  entity text NOT NULL,
  why text NOT NULL,
  put_off_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (source, run, entity)
);
CREATE INDEX put_off_entity ON confidence.put_off (source, entity, put_off_at DESC);
COMMENT ON TABLE confidence.put_off IS
  'One row for each entity that a run has left to a later night, since the writer may stand for a limited time only.';

ALTER TABLE confidence.forensic_run ADD seconds double precision;
COMMENT ON COLUMN confidence.forensic_run.seconds IS
  'How long the attempt took that left this evidence; null before this was kept.';

INSERT INTO confidence.retention (table_name, days, moment, note) VALUES
('confidence.put_off', 400, 'put_off_at', 'What a night has put off.');
"""

DROPS = """
DELETE FROM confidence.retention WHERE table_name = 'confidence.put_off';
ALTER TABLE confidence.forensic_run DROP seconds;
DROP TABLE confidence.put_off;
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute(DROPS)
