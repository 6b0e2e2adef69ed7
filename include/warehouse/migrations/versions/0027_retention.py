"""How long the rows of each table are kept: the policy of the DAG `confidence_retention`."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# The watch, the unfinished repairs and the breaker of storage look a week back; hence the least number of days.
STATEMENTS = """
CREATE TABLE confidence.retention (
  table_name text NOT NULL,
  source text NOT NULL DEFAULT '',
  days integer NOT NULL CHECK (days >= 7),
  moment text CHECK (moment IS NOT NULL OR source <> ''),
  keep_if text NOT NULL DEFAULT 'false',
  note text NOT NULL DEFAULT '',
  dropped_until timestamptz,
  PRIMARY KEY (table_name, source)
);
COMMENT ON TABLE confidence.retention IS
  'Rows of table_name are dropped days after their moment by the DAG confidence_retention. A row with the source '''' '
  'is for all sources without a row of their own; those need the days only. Change days by UPDATE, nothing else.';
COMMENT ON COLUMN confidence.retention.moment IS
  'The time of a row, as SQL. A row without a time is kept. Null: as in the row with the source ''''.';
COMMENT ON COLUMN confidence.retention.keep_if IS
  'A condition as SQL, in which t is the row: rows for which it is true are kept however old they are. That of a '
  'source''s row counts beside that of the row with the source ''''.';
COMMENT ON COLUMN confidence.retention.dropped_until IS
  'Rows from before this time may have been dropped; null if none was.';

-- Of any sync whose log row is dropped, also by hand: as_of must not guess what it has changed.
CREATE FUNCTION confidence.note_dropped_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO confidence.dropped_changes AS d (source, until)
  SELECT source, max(coalesce(finished_at, now())) FROM dropped GROUP BY source
  ON CONFLICT (source) DO UPDATE SET until = greatest(d.until, excluded.until);
  RETURN NULL;
END $$;
CREATE TRIGGER note_dropped_changes AFTER DELETE ON confidence.sync_log REFERENCING OLD TABLE AS dropped
  FOR EACH STATEMENT EXECUTE FUNCTION confidence.note_dropped_changes();

COMMENT ON TABLE confidence.planned_change IS
  'One row for each change that a scan has planned, kept as confidence.retention says. evidence is that of the scan '
  '(summary ->> ''evidence'' in confidence.forensic_run). key_values are those of key as texts. before is the row as '
  'the copy had it, after as the source showed it, differs the columns in which an update changes it. looked: whether '
  'the row was looked up by itself. Only changes with the status confirmed may be applied.';
"""

# 42 is GROWTH_RUNS: judgements.past_runs goes back to the 42nd good run before the one that it judges, which may be
# good itself, and to the newest run that a person accepted.
SEEDS = """
INSERT INTO confidence.retention (table_name, days, moment, keep_if, note) VALUES
('confidence.sync_log', 400, 'finished_at',
  'EXISTS (SELECT FROM confidence.sync_state s WHERE s.sync_id = t.sync_id)
   OR EXISTS (SELECT FROM confidence.sync_log later WHERE later.undoes = t.sync_id)',
  'With the rows of confidence.change_log. Kept: what a present watermark comes from, and what a rollback has undone.'),
('confidence.forensic_run', 400, 'scanned_at',
  'coalesce(t.scanned_at >= (
     SELECT g.scanned_at FROM confidence.forensic_run g
     WHERE g.source = t.source AND g.entity = t.entity AND g.scope = t.scope AND g.verdict IS NOT NULL
       AND (g.verdict <> ''hold'' OR g.decision = ''resume'' OR g.decision = ''repair'' AND g.left_out)
     ORDER BY g.scanned_at DESC LIMIT 1 OFFSET 42), true)
   OR t.scan_id = (
     SELECT g.scan_id FROM confidence.forensic_run g
     WHERE g.source = t.source AND g.entity = t.entity AND g.scope = t.scope AND g.verdict IS NOT NULL
       AND (g.decision = ''resume'' OR g.decision = ''repair'' AND g.left_out)
     ORDER BY g.scanned_at DESC LIMIT 1)
   OR EXISTS (SELECT FROM confidence.writer w
     WHERE w.source = t.source AND w.run = t.run AND w.state = ''stopped'')',
  'Kept: of each entity and scope all scans since the 43rd newest good one, and the newest that a person accepted: the '
  'baseline and the open holds are among them. Kept too: the scans of a run that keeps the writer stopped.'),
('confidence.planned_change', 30, 'planned_at',
  'EXISTS (SELECT FROM confidence.forensic_run f JOIN confidence.writer w ON w.source = f.source
     WHERE f.summary ->> ''evidence'' = t.evidence AND w.state = ''stopped''
       AND (f.run = w.run OR f.verdict = ''hold'' AND coalesce(f.decision, ''keep'') = ''keep''))',
  'The plans row by row. Kept: while the writer is stopped, those of its run and of holds that nobody has ended.'),
('confidence.writer_stop', 400, 'ended_at', 'false', 'Kept: a stop that goes on.'),
('confidence.notification', 400, 'coalesce(t.ended_at, t.sent_at)',
  't.ended_at IS NULL AND (EXISTS (SELECT FROM confidence.finding f WHERE t.key = ''watch/'' || f.key)
     OR EXISTS (SELECT FROM confidence.writer w
       WHERE w.source = t.source AND w.run = t.run AND w.state = ''stopped''))',
  'Kept: what is neither ended nor sent, and what is told of a finding that stands or of a run that keeps the writer '
  'stopped.'),
('confidence.quarantine', 90, 'refused_at', 'false',
  'Refused rows with what the source sent, customers'' data among it.'),
('confidence.integrity_check', 400, 'checked_at',
  'NOT EXISTS (SELECT FROM confidence.integrity_check later WHERE later.source = t.source AND later.name = t.name
     AND (later.checked_at, later.check_id) > (t.checked_at, t.check_id))',
  'Kept: the newest of each check.'),
('confidence.field_change', 400, 'found_at', 'false', 'Changes in the fields of the records.'),
('staging.pull', 14, 'updated_at', 'false',
  'With the tables of the pull. Kept: while the source''s writer is stopped.');
"""

# An operation is what a rollback undoes, so it goes with its sync. A line that is gone stays for a while without it.
SOURCES = """
ALTER TABLE flex.operation DROP CONSTRAINT operation_sync_id_fkey,
  ADD FOREIGN KEY (sync_id) REFERENCES confidence.sync_log ON DELETE CASCADE;
ALTER TABLE flex.owned_line DROP CONSTRAINT owned_line_made_by_fkey,
  ADD FOREIGN KEY (made_by) REFERENCES confidence.sync_log ON DELETE SET NULL;
COMMENT ON COLUMN flex.owned_line.made_by IS
  'The sync_id that made it; null for a line that was there before us, or is gone and whose sync was dropped.';

INSERT INTO confidence.retention (table_name, source, days, keep_if, note) VALUES
('confidence.sync_log', 'tekmetric', 30, 'false', ''),
('confidence.sync_log', 'flex', 400,
  'EXISTS (SELECT FROM flex.operation o WHERE o.sync_id = t.sync_id AND (o.state NOT IN (''done'', ''refused'')
     OR EXISTS (SELECT FROM flex.element_gate g WHERE g.operation_id = o.operation_id)))
   OR EXISTS (SELECT FROM flex.owned_line l WHERE l.made_by = t.sync_id AND l.gone_at IS NULL)',
  'With the rows of flex.operation. Kept too: syncs with a write whose outcome is open, and those that have made a '
  'line which is still there.'),
('confidence.forensic_run', 'storage', 400,
  'EXISTS (SELECT FROM storage.breaker b WHERE b.refused IS NOT NULL AND b.ended_at IS NULL
     AND b.at < greatest(t.scanned_at, t.decided_at))',
  'Kept too: scans after a refusal of the breaker, which they may have ended.');

INSERT INTO confidence.retention (table_name, days, moment, keep_if, note) VALUES
('flex.owned_line', 400, 'gone_at',
  'EXISTS (SELECT FROM flex.operation o WHERE o.flex_line_item_id = t.flex_line_item_id)
   OR EXISTS (SELECT FROM flex.flex_crew_assignments a WHERE a.flex_line_item_id = t.flex_line_item_id)',
  'Lines that are gone. Kept: what an assignment or a kept write names.'),
('storage.breaker', 30, 'at',
  't.refused IS NOT NULL AND t.ended_at IS NULL AND NOT EXISTS (
     SELECT FROM confidence.forensic_run f
     WHERE f.source = ''storage'' AND (f.decision IN (''resume'', ''repair'') AND f.decided_at > t.at
       OR f.scope = ''all'' AND f.verdict IN (''pass'', ''warn'') AND f.scanned_at > t.at))',
  'Kept: a refusal that stands.'),
('tekmetric.tm_raw_payloads', 7, 'fetched_at', 't.expires_at > now()', 'Answers that store_raw has kept.');
"""

DROPS = """
DROP TRIGGER note_dropped_changes ON confidence.sync_log;
DROP FUNCTION confidence.note_dropped_changes();
DROP TABLE confidence.retention;
ALTER TABLE flex.operation DROP CONSTRAINT operation_sync_id_fkey,
  ADD FOREIGN KEY (sync_id) REFERENCES confidence.sync_log;
ALTER TABLE flex.owned_line DROP CONSTRAINT owned_line_made_by_fkey,
  ADD FOREIGN KEY (made_by) REFERENCES confidence.sync_log;
"""


def upgrade() -> None:
    op.execute(STATEMENTS)
    op.execute(SEEDS)
    op.execute(SOURCES)


def downgrade() -> None:
    op.execute(DROPS)
