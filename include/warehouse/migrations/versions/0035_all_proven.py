"""A scan that found rows which differ, and planned nothing for them, does not count as one that proved every row."""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

# Postgres before 17 can't change the expression of a column.
COLUMN = """
ALTER TABLE confidence.forensic_run DROP all_proven;
ALTER TABLE confidence.forensic_run ADD all_proven boolean GENERATED ALWAYS AS (
  coalesce(summary ->> 'incomplete', '') = '' AND summary @? '$.accounts.*'
  AND NOT summary @? '$.accounts.* ? (@.unproven > 0 || @.missing_unproven > 0 || @.unseen > 0)'
  AND NOT metrics @? '$.unproven ? (@ > 0)'{}
) STORED;
"""
UNPLANNED = """
  AND (summary @? '$.plan.* ? (@ > 0)' OR NOT summary @? '$.accounts.* ? (@.differing > 0 || @.surplus > 0)')"""
COMMENT = "COMMENT ON COLUMN confidence.forensic_run.all_proven IS '{}'"
IS_PROVEN = "The scan is evidence, kept an account, and proved every row; nor was any row of its tables unproven before"


def upgrade() -> None:
    op.execute(COLUMN.format(UNPLANNED))
    op.execute(COMMENT.format(f"{IS_PROVEN}. If rows differ, it has planned changes."))


def downgrade() -> None:
    op.execute(COLUMN.format(""))
    op.execute(COMMENT.format(f"{IS_PROVEN}."))
