"""All answers to a question about holds, not the newest alone."""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE confidence.answer (
  source text NOT NULL,
  asked_at timestamptz NOT NULL,
  decided_at timestamptz NOT NULL,
  run text NOT NULL,
  decision text NOT NULL,
  decided_by text NOT NULL,
  reason text,
  left_out text[] NOT NULL,
  PRIMARY KEY (source, asked_at, decided_at),
  FOREIGN KEY (source, asked_at) REFERENCES confidence.question ON DELETE CASCADE
);
COMMENT ON TABLE confidence.answer IS
  'One row for each answer to a question (confidence.question, which has the newest one too): people may keep the '
  'writer stopped, be asked again, and answer otherwise. run asked then. Expires with its question.';

CREATE INDEX answer_run ON confidence.answer (run, decided_at);

INSERT INTO confidence.answer (source, asked_at, decided_at, run, decision, decided_by, reason, left_out)
SELECT source, asked_at, decided_at, run, decision, decided_by, reason, left_out
FROM confidence.question WHERE decided_at IS NOT NULL;
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute("DROP TABLE confidence.answer")
