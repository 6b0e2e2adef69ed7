"""What the validations of the copies found."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE confidence.integrity_check (
  check_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run text NOT NULL,
  source text NOT NULL,
  name text NOT NULL,
  severity text NOT NULL CHECK (severity IN ('error', 'warning')),
  expected bigint NOT NULL,
  actual bigint NOT NULL,
  examples jsonb NOT NULL DEFAULT '[]',
  checked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON confidence.integrity_check (source, name, checked_at DESC);
COMMENT ON TABLE confidence.integrity_check IS
  'One row for each check of a validation. It failed where expected and actual differ or examples name rows.';
"""


def upgrade() -> None:
    op.execute(STATEMENTS)
