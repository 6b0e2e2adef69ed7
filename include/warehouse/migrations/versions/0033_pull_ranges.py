"""The ranges of a pull that several tasks read at the same time."""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

# Unlogged like the pulls: a crash of the server empties both.
STATEMENTS = """
CREATE UNLOGGED TABLE staging.pull_range (
  pull text NOT NULL REFERENCES staging.pull ON DELETE CASCADE,
  number int NOT NULL,
  bounds jsonb NOT NULL,
  position jsonb,
  complete boolean NOT NULL DEFAULT false,
  slice int,
  reader uuid,
  pages bigint NOT NULL DEFAULT 0,
  rows_read bigint NOT NULL DEFAULT 0,
  rows_refused bigint NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (pull, number)
);
COMMENT ON TABLE staging.pull_range IS
  'One row for each range of a pull that is read in ranges: who reads it, and how far they have come.';

-- A pull that was cut off has rows and no ranges: it would be read a second time into the same table.
DELETE FROM staging.pull WHERE source = 'storage';
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute("DROP TABLE staging.pull_range; DELETE FROM staging.pull WHERE source = 'storage'")
