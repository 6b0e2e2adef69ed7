"""The questions about holds: as they were put to people, and how they were answered."""

from alembic import op

revision = "0029"
down_revision = "0027"
branch_labels = None
depends_on = None

# Of earlier questions the scans know when they were asked and answered, but not the text.
STATEMENTS = """
CREATE TABLE confidence.question (
  source text NOT NULL,
  asked_at timestamptz NOT NULL,
  run text NOT NULL,
  text text NOT NULL,
  planned text[] NOT NULL DEFAULT '{}',
  decision text,
  decided_by text,
  decided_at timestamptz,
  reason text,
  left_out text[] NOT NULL DEFAULT '{}',
  PRIMARY KEY (source, asked_at)
);
CREATE INDEX question_run ON confidence.question (run, asked_at);
COMMENT ON TABLE confidence.question IS
  'One row for each question about holds. asked_at is when people were first asked, as in the scans that it is about '
  '(confidence.forensic_run); if they are asked again about the same holds, run, text and planned are those of the '
  'newest question. text is Markdown, empty if it is not known. planned: the entities with planned changes. decision, '
  'decided_by, decided_at and reason are those of the newest answer, null before it; left_out: the entities that a '
  'repair leaves out.';

INSERT INTO confidence.question (source, asked_at, run, text, decision, decided_by, decided_at, reason)
SELECT DISTINCT ON (source, date_trunc('second', asked_at))
  source, asked_at, run, '', decision, decided_by, decided_at, decision_reason
FROM confidence.forensic_run WHERE asked_at IS NOT NULL
ORDER BY source, date_trunc('second', asked_at), decided_at IS NULL, decided_by = 'nobody (unanswered)', decided_at;

DROP INDEX confidence.forensic_run_asked;
INSERT INTO confidence.retention (table_name, days, moment, note) VALUES
('confidence.question', 400, 'asked_at', 'The questions about holds, with their answers.');
"""

DROPS = """
DELETE FROM confidence.retention WHERE table_name = 'confidence.question';
CREATE INDEX forensic_run_asked ON confidence.forensic_run (source, asked_at) WHERE asked_at IS NOT NULL;
DROP TABLE confidence.question;
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute(DROPS)
