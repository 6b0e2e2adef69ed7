"""Rows of which no scan could prove whether source and copy agree."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE confidence.unproven (
  source text NOT NULL,
  entity text NOT NULL,
  key jsonb NOT NULL,
  why text NOT NULL,
  first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
  nights integer NOT NULL DEFAULT 1,
  last_look timestamptz,
  run text NOT NULL,
  PRIMARY KEY (source, entity, key)
);
COMMENT ON TABLE confidence.unproven IS
  'One row for each row, of the source or of the copy, that the last scan of its table could not prove. entity is the '
  'name of the table, key the values of its key columns, nights the number of runs that could not prove it, run the '
  'last of them. last_look is null until a scan has asked the source for this row by itself.';
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute("DROP TABLE confidence.unproven")
