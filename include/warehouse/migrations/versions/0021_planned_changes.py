"""The plan of each scan row by row, what its rows have in common, and answers for some entities with a reason."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

STATEMENTS = """
CREATE TABLE confidence.planned_change (
  change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  evidence text NOT NULL,
  source text NOT NULL,
  table_name text NOT NULL,
  key jsonb NOT NULL,
  key_values text[] NOT NULL,
  operation text NOT NULL,
  status text NOT NULL,
  why text,
  looked boolean NOT NULL,
  before jsonb,
  after jsonb,
  differs text[] NOT NULL,
  planned_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON confidence.planned_change (evidence, change_id);
CREATE INDEX ON confidence.planned_change (planned_at);
CREATE INDEX forensic_run_evidence ON confidence.forensic_run ((summary ->> 'evidence'));
COMMENT ON TABLE confidence.planned_change IS
  'One row for each change that a scan has planned, kept for 30 days. evidence is that of the scan (summary ->> '
  '''evidence'' in confidence.forensic_run). key_values are those of key as texts. before is the row as the copy had '
  'it, after as the source showed it, differs the columns in which an update changes it. looked: whether the row was '
  'looked up by itself. Only changes with the status confirmed may be applied.';

ALTER TABLE confidence.forensic_run ADD patterns jsonb NOT NULL DEFAULT '[]',
  ADD left_out boolean NOT NULL DEFAULT false, ADD decision_reason text;
COMMENT ON COLUMN confidence.forensic_run.left_out IS
  'A person has decided that the plan of this scan is not applied, while those of other scans of the run are.';
COMMENT ON COLUMN confidence.forensic_run.patterns IS
  'What many of the planned rows have in common, and few other rows of the table.';
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute("DROP TABLE confidence.planned_change; DROP INDEX confidence.forensic_run_evidence")
    op.execute("ALTER TABLE confidence.forensic_run DROP patterns, DROP left_out, DROP decision_reason")
