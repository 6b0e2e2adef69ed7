"""Storage: what a check of the application's images stages, and the way back where the copy is another database."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The images themselves are the application's; these are the shapes of the staged rows.
STATEMENTS = """
CREATE SCHEMA storage;

CREATE TYPE storage.images AS (
  id uuid,
  status text,
  error text,
  updated_at timestamptz,
  deleted boolean,
  young boolean,
  has_staged boolean,
  original_place text,
  original_key text COLLATE "C",
  original_others text[],
  staged_place text,
  staged_key text COLLATE "C",
  staged_others text[],
  original_missing boolean,
  staged_missing boolean,
  new_status text,
  new_error text
);
COMMENT ON TYPE storage.images IS
  'An image as a check reads it. place: here, foreign (bucket), unreadable or none; key: the url''s standard reading, '
  'others: what else it may mean. The last four columns are those of the plan.';

CREATE TYPE storage.objects AS (
  key text COLLATE "C",
  presence text,
  reason text
);
COMMENT ON TYPE storage.objects IS 'An object that is present, or unknown for the reason; absent ones have no row.';

ALTER TABLE confidence.sync_log ADD copy_transaction text;
COMMENT ON COLUMN confidence.sync_log.copy_transaction IS
  'Where the copy is another database: its transaction, which that database can be asked about after a crash.';

CREATE INDEX ON confidence.change_log ((key ->> 'id'), change_id) WHERE table_name = 'images';

INSERT INTO confidence.writer (source) VALUES ('storage');
"""


def upgrade() -> None:
    op.execute(STATEMENTS)
