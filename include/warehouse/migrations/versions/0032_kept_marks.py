"""Keep the log of syncs that have marked an image which no later one has changed: to heal it takes its state before."""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

INSERT = """
INSERT INTO confidence.retention (table_name, source, days, keep_if, note) VALUES
('confidence.sync_log', 'storage', 400,
  'EXISTS (SELECT FROM confidence.change_log c
     WHERE c.sync_id = t.sync_id AND c.table_name = ''images'' AND c.after ->> ''status'' = ''error''
       AND NOT EXISTS (SELECT FROM confidence.change_log l WHERE l.table_name = ''images''
         AND l.key ->> ''id'' = c.key ->> ''id'' AND l.change_id > c.change_id))',
  'Kept too: those that have marked an image which is not healed yet.');
"""

DELETE = "DELETE FROM confidence.retention WHERE table_name = 'confidence.sync_log' AND source = 'storage'"


def upgrade() -> None:
    op.execute(INSERT)


def downgrade() -> None:
    op.execute(DELETE)
