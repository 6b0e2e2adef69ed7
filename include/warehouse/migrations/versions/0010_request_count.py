"""How many requests each API was sent, by the minute, for those that have a quota."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE confidence.request_count (
  api text NOT NULL,
  minute timestamptz NOT NULL,
  requests integer NOT NULL,
  PRIMARY KEY (api, minute)
);
COMMENT ON TABLE confidence.request_count IS 'Requests sent to an api that has a quota, of the last two days.';
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute("DROP TABLE confidence.request_count")
