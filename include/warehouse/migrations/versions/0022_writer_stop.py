"""How long each writer stood still, by run and reason, and what the figures of months are read by."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# A trigger, because a person who mends the fence by hand stops and resumes the writer too.
STOPS = """
CREATE TABLE confidence.writer_stop (
  source text NOT NULL,
  began_at timestamptz NOT NULL,
  ended_at timestamptz,
  run text,
  hold_reason text,
  PRIMARY KEY (source, began_at)
);
COMMENT ON TABLE confidence.writer_stop IS
  'One row for each time during which a writer was stopped by one run, held for one reason or (null) not held. If run '
  'or reason change in between, the next row begins when this one ends. ended_at is null while it goes on.';

CREATE FUNCTION confidence.keep_stop() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  moment timestamptz := clock_timestamp();
BEGIN
  UPDATE confidence.writer_stop SET ended_at = moment WHERE source = NEW.source AND ended_at IS NULL;
  IF NEW.state = 'stopped' THEN
    INSERT INTO confidence.writer_stop (source, began_at, run, hold_reason)
    VALUES (NEW.source, moment, NEW.run, NEW.hold_reason);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER keep_stop AFTER UPDATE ON confidence.writer FOR EACH ROW
  WHEN ((OLD.state, OLD.run, OLD.hold_reason) IS DISTINCT FROM (NEW.state, NEW.run, NEW.hold_reason))
  EXECUTE FUNCTION confidence.keep_stop();

ALTER TABLE confidence.writer ADD stops_kept_since timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN confidence.writer.stops_kept_since IS 'How long the writer stood still before is not known.';
INSERT INTO confidence.writer_stop (source, began_at, run, hold_reason)
SELECT source, stops_kept_since, run, hold_reason FROM confidence.writer WHERE state = 'stopped';
"""

READING = """
ALTER TABLE confidence.forensic_run
  ADD all_proven boolean GENERATED ALWAYS AS (
    coalesce(summary ->> 'incomplete', '') = '' AND summary @? '$.accounts.*'
    AND NOT summary @? '$.accounts.* ? (@.unproven > 0 || @.missing_unproven > 0 || @.unseen > 0)'
    AND NOT metrics @? '$.unproven ? (@ > 0)'
  ) STORED,
  ADD plans_changes boolean GENERATED ALWAYS AS (summary @? '$.plan.* ? (@ > 0)') STORED;
COMMENT ON COLUMN confidence.forensic_run.all_proven IS
  'The scan is evidence, kept an account, and proved every row; nor was any row of its tables unproven before.';

CREATE INDEX sync_log_kind ON confidence.sync_log (source, kind, finished_at) INCLUDE (started_at, state);
CREATE INDEX sync_log_whole ON confidence.sync_log (source, finished_at) INCLUDE (started_at)
  WHERE kind = 'sync' AND state = 'success' AND run LIKE '%/scheduled\\_\\_%' AND reason IS NULL
    AND state_before <> '{}' AND NOT state_before @? '$.keyvalue() ? (@.key like_regex "/dry run$")';
CREATE INDEX forensic_run_asked ON confidence.forensic_run (source, asked_at) WHERE asked_at IS NOT NULL;
CREATE INDEX forensic_run_decided ON confidence.forensic_run (source, decided_at) WHERE decided_at IS NOT NULL;
COMMENT ON COLUMN confidence.forensic_run.asked_at IS
  'When a person was first asked about this hold. An answer counts only for holds that were asked about.';
"""

DROPS = """
ALTER TABLE confidence.forensic_run DROP all_proven, DROP plans_changes;
COMMENT ON COLUMN confidence.forensic_run.asked_at IS
  'When a person was last asked about this hold. An answer counts only for holds that were asked about.';
DROP INDEX confidence.sync_log_kind, confidence.sync_log_whole, confidence.forensic_run_asked,
  confidence.forensic_run_decided;
DROP TRIGGER keep_stop ON confidence.writer;
DROP FUNCTION confidence.keep_stop();
DROP TABLE confidence.writer_stop;
ALTER TABLE confidence.writer DROP stops_kept_since;
"""


def upgrade() -> None:
    op.execute(STOPS)
    op.execute(READING)


def downgrade() -> None:
    op.execute(DROPS)
