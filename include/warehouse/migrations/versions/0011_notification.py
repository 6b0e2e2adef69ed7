"""What people were told, and what they are still to be told."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE confidence.notification (
  notification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key text NOT NULL,
  source text NOT NULL,
  run text NOT NULL,
  kind text NOT NULL,
  title text NOT NULL,
  text text NOT NULL,
  noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  sent_at timestamptz,
  ended_at timestamptz
);
CREATE UNIQUE INDEX ON confidence.notification (key) WHERE ended_at IS NULL;
CREATE INDEX ON confidence.notification (noted_at) WHERE sent_at IS NULL AND ended_at IS NULL;
COMMENT ON TABLE confidence.notification IS
  'One row for each event that people are told of. Its key names the event; until it has ended the same is not told '
  'again. sent_at is null until a service has taken it.';
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute("DROP TABLE confidence.notification")
