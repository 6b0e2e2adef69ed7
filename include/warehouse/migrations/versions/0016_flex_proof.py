"""Flex: what proves a write, which lines people made, and the tables that hold whenever migrations are run."""

import logging
from importlib import import_module

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

log = logging.getLogger(__name__)

# It exports and removes duplicates, then adds the key.
unique_key = import_module("include.warehouse.migrations.versions.0009_flex_unique")

# Since 0008 a row may name a line that people made: the audit says which rows a sync has written.
KEPT_LINES = """
CREATE TABLE flex.kept_line (
  flex_line_item_id uuid PRIMARY KEY,
  flex_element_id uuid NOT NULL,
  kept_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE flex.kept_line IS
  'The lines that people made in Flex and a sync found: rows of flex_crew_assignments may name them, and they are '
  'never deleted.';
INSERT INTO flex.kept_line (flex_line_item_id, flex_element_id)
SELECT DISTINCT ON (a.flex_line_item_id) a.flex_line_item_id, c.flex_element_id
FROM flex.flex_crew_assignments a
JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id
JOIN confidence.change_log l ON l.table_name = 'flex.flex_crew_assignments'
  AND (l.after ->> 'flex_line_item_id')::uuid = a.flex_line_item_id
WHERE NOT EXISTS (SELECT FROM flex.owned_line o WHERE o.flex_line_item_id = a.flex_line_item_id)
ORDER BY a.flex_line_item_id;
"""

JOURNAL = """
ALTER TABLE flex.operation
  DROP CONSTRAINT operation_state_check,
  DROP CONSTRAINT operation_check,
  ADD CONSTRAINT operation_state_check CHECK (state IN ('sent', 'answered', 'done', 'refused', 'unknown')),
  ADD CONSTRAINT operation_check CHECK ((state IN ('sent', 'answered')) = (settled_at IS NULL));
COMMENT ON COLUMN flex.operation.state IS
  'sent: no answer yet. answered: Flex has answered, and no read has shown yet what happened. done: a read has '
  'shown it. refused: nothing happened. unknown: it may have happened.';
"""
JOURNAL_BEFORE = """
ALTER TABLE flex.operation
  DROP CONSTRAINT operation_state_check,
  DROP CONSTRAINT operation_check,
  ADD CONSTRAINT operation_state_check CHECK (state IN ('sent', 'done', 'refused', 'unknown')),
  ADD CONSTRAINT operation_check CHECK ((state = 'sent') = (settled_at IS NULL));
COMMENT ON COLUMN flex.operation.state IS
  'sent: no answer yet. refused: Flex said no, nothing happened. unknown: it may have happened.';
"""

EVIDENCE = """
ALTER TABLE flex.element_scan
  ADD COLUMN accounts jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN doubts jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN superseded jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN flex.element_scan.accounts IS 'Where each row has ended up, by table.';
COMMENT ON COLUMN flex.element_scan.doubts IS 'The rows that could not be proven, by table, with the reason.';
COMMENT ON COLUMN flex.element_scan.superseded IS
  'Planned changes that were not called for any more when the repair came to make them.';
ALTER TABLE flex.element_gate ADD COLUMN last_claim timestamptz;
COMMENT ON COLUMN flex.element_gate.last_claim IS 'A sync takes first what it has not worked at for the longest time.';
"""

# Taken for gone because one read did not show it. A crew call that is in use is read anyway; nobody reads these.
INFERRED = """
UPDATE flex.owned_line l SET gone_at = NULL
WHERE gone_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM flex.flex_crew_calls c WHERE c.flex_element_id = l.flex_element_id)
  AND NOT EXISTS (SELECT FROM flex.operation o
    WHERE o.flex_line_item_id = l.flex_line_item_id AND o.kind = 'remove' AND o.state = 'done')
"""

# A row that no sync has written is the application's own, and so is the line that it names.
OWN_WHAT_ROWS_NAME = """
INSERT INTO flex.owned_line
  (flex_line_item_id, flex_element_id, flex_resource_id, job_id, department, crew_call_id, technician_id, made_at)
SELECT DISTINCT ON (a.flex_line_item_id) a.flex_line_item_id, c.flex_element_id, p.flex_resource_id, c.job_id,
  c.department, c.id, a.technician_id, coalesce(a.created_at, clock_timestamp())
FROM flex.flex_crew_assignments a
JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id
LEFT JOIN flex.profiles p ON p.id = a.technician_id
WHERE a.flex_line_item_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM flex.kept_line k WHERE k.flex_line_item_id = a.flex_line_item_id)
ORDER BY a.flex_line_item_id, a.created_at, a.id
ON CONFLICT (flex_line_item_id) DO NOTHING
"""

REFUSE_WHILE_AT_WORK = """
DO $$ DECLARE count bigint; BEGIN
  SELECT count(*) INTO count FROM flex.element_gate WHERE state <> 'idle';
  IF count > 0 THEN
    RAISE EXCEPTION 'flex.element_gate: % elements are busy or uncertain. Release them first (flex_sync)', count;
  END IF;
END $$;
"""


def upgrade() -> None:
    op.execute(KEPT_LINES)
    op.execute(JOURNAL)
    op.execute(EVIDENCE)
    op.execute(INFERRED)


def ensure() -> None:
    """Own the lines that the application's rows name, and put a missing unique key back."""
    owned = op.get_bind().exec_driver_sql(OWN_WHAT_ROWS_NAME).rowcount
    if owned:
        log.info("%d lines that rows of flex.flex_crew_assignments name count as ours from now on", owned)
    if op.get_bind().exec_driver_sql(unique_key.KEYED).one_or_none() is None:
        unique_key.upgrade()


def downgrade() -> None:
    op.execute(REFUSE_WHILE_AT_WORK)
    op.execute(JOURNAL_BEFORE)
    op.execute("ALTER TABLE flex.element_scan DROP COLUMN accounts, DROP COLUMN doubts, DROP COLUMN superseded")
    op.execute("ALTER TABLE flex.element_gate DROP COLUMN last_claim")
    op.execute("DROP TABLE flex.kept_line")
