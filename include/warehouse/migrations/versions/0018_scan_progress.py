"""A scan's lines of progress beside its evidence, and from when on a sync reads after its watermark was reset."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

STATEMENTS = """
ALTER TABLE confidence.forensic_run ADD progress jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN confidence.forensic_run.progress IS 'The scan_progress lines that the scan has logged.';
ALTER TABLE confidence.sync_state ADD read_from timestamptz;
COMMENT ON COLUMN confidence.sync_state.read_from IS
  'Set where a person has reset the watermark: changes from before this moment are not read, whatever the lookback.';
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute("ALTER TABLE confidence.forensic_run DROP progress; ALTER TABLE confidence.sync_state DROP read_from")
