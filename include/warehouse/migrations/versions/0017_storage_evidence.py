"""Storage: what each look at an object said, why an image is not proven, and what the breaker remembers over runs."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

STATEMENTS = """
ALTER TYPE storage.images DROP ATTRIBUTE original_missing, DROP ATTRIBUTE staged_missing,
  ADD ATTRIBUTE original_state text, ADD ATTRIBUTE staged_state text, ADD ATTRIBUTE unknown text,
  ADD ATTRIBUTE reason text, ADD ATTRIBUTE restorable boolean, ADD ATTRIBUTE looked boolean;
COMMENT ON TYPE storage.images IS
  'An image as a check reads it. place: here, foreign (bucket), unreadable or none; key: the url''s standard reading, '
  'others: what else it may mean. From new_status on the columns are those of the plan. state: present, empty, '
  'elsewhere (only under another reading), absent, unknown, disputed (LIST shows it, HEAD does not), or the place; '
  'unknown: later (there may be an answer another time), refused or disputed; looked: a second time.';

ALTER TYPE storage.objects ADD ATTRIBUTE way text, ADD ATTRIBUTE later boolean, ADD ATTRIBUTE restorable boolean;
COMMENT ON TYPE storage.objects IS
  'What a look at an object said: present, empty, absent or unknown, for the reason. way: head or list. A listing has no '
  'rows for what is absent. later: another time there may be an answer. restorable: absent by a delete marker.';

-- Pulls that were cut off have tables of the old form.
DELETE FROM staging.pull WHERE source = 'storage';

-- A plan that waits for a decision is still to be applied.
DO $$
BEGIN
  IF to_regclass('staging.storage_images_scan_plan') IS NOT NULL THEN
    ALTER TABLE staging.storage_images_scan_plan
      ADD original_state text, ADD staged_state text, ADD unknown text, ADD reason text, ADD restorable boolean,
      ADD looked boolean;
    UPDATE staging.storage_images_scan_plan SET
      original_state = CASE WHEN original_missing THEN 'absent' ELSE 'present' END,
      staged_state = CASE WHEN staged_missing THEN 'absent' ELSE 'present' END;
    ALTER TABLE staging.storage_images_scan_plan DROP original_missing, DROP staged_missing;
  END IF;
END $$;

CREATE TABLE storage.breaker (
  at timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
  run text NOT NULL,
  sync_id bigint,
  looked_at integer NOT NULL,
  marked integer NOT NULL DEFAULT 0,
  refused text,
  keys text[],
  ended_at timestamptz
);
COMMENT ON TABLE storage.breaker IS
  'What the checks that were to write have looked at and marked, so that a mass loss is seen over many '
  'small runs, too. refused: why a sync wrote nothing; it stays refused until a person decides, a whole scan passes, or '
  'the objects under keys are there again (ended_at).';
"""


def upgrade() -> None:
    op.execute(STATEMENTS)


def downgrade() -> None:
    op.execute(
        "DROP TABLE storage.breaker;"
        "ALTER TYPE storage.objects DROP ATTRIBUTE way, DROP ATTRIBUTE later, DROP ATTRIBUTE restorable;"
        "ALTER TYPE storage.images ADD ATTRIBUTE original_missing boolean, ADD ATTRIBUTE staged_missing boolean,"
        "  DROP ATTRIBUTE original_state, DROP ATTRIBUTE staged_state, DROP ATTRIBUTE unknown, DROP ATTRIBUTE reason,"
        "  DROP ATTRIBUTE restorable, DROP ATTRIBUTE looked;"
        "DROP TABLE IF EXISTS staging.storage_images_scan_plan;"
        "DELETE FROM staging.pull WHERE source = 'storage'"
    )
