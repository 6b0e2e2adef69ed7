"""Flex's crew calls: schema `flex` with the application's tables, and what we know of our writes to Flex.

Jobs, people, assignments and crew calls are the application's: where its tables lie in the schema already they are
taken as they are, and no downgrade drops them.
"""

from alembic import op
from sqlalchemy import text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = {"id": "uuid PRIMARY KEY DEFAULT gen_random_uuid()"}
CREATED = {"created_at": "timestamptz NOT NULL DEFAULT now()"}
CHANGED = {**CREATED, "updated_at": "timestamptz NOT NULL DEFAULT now()"}


def _names(table: str) -> str:
    return f"uuid NOT NULL REFERENCES flex.{table} ON DELETE CASCADE"


# Columns, and what else each table has to keep.
SHARED = {
    "jobs": (
        {
            **ID,
            "title": "text",
            "job_type": "text",
            "start_time": "timestamptz",
            "end_time": "timestamptz",
            **CREATED,
        },
        (),
    ),
    "profiles": (
        {
            **ID,
            "first_name": "text",
            "last_name": "text",
            "role": "text",
            "department": "text",
            "flex_resource_id": "uuid",
            **CREATED,
        },
        (),
    ),
    "job_assignments": (
        {
            **ID,
            "job_id": _names("jobs"),
            "technician_id": _names("profiles"),
            "sound_role": "text",
            "lights_role": "text",
            "video_role": "text",
            "production_role": "text",
            "status": "text",
            "assignment_source": "text",
            "single_day": "boolean NOT NULL DEFAULT false",
            "assignment_date": "date",
            **CREATED,
        },
        (),
    ),
    "flex_crew_calls": (
        {
            **ID,
            "job_id": _names("jobs"),
            "department": "text NOT NULL CHECK (department IN ('sound', 'lights'))",
            "flex_element_id": "uuid NOT NULL",
            **CHANGED,
        },
        ("UNIQUE (job_id, department)",),
    ),
    "flex_crew_assignments": (
        {
            **ID,
            "crew_call_id": _names("flex_crew_calls"),
            "technician_id": _names("profiles"),
            "flex_line_item_id": "uuid",
            **CREATED,
        },
        (),
    ),
    "flex_sync_log": (
        {
            **ID,
            "job_id": "uuid NOT NULL",
            "department": "text NOT NULL",
            "added_count": "integer DEFAULT 0",
            "removed_count": "integer DEFAULT 0",
            "kept_count": "integer DEFAULT 0",
            "failed_count": "integer DEFAULT 0",
            "duration_ms": "integer",
            "triggered_by": "uuid",
            "summary": "jsonb",
            "created_at": "timestamptz DEFAULT now()",
        },
        (),
    ),
}

# Not asked of a table that was there before: nothing reads these.
OPTIONAL = {
    ("jobs", "title"),
    ("profiles", "role"),
    *((table, "created_at") for table in ("jobs", "profiles", "job_assignments")),
    *(("job_assignments", name) for name in ("assignment_source", "single_day", "assignment_date")),
    *(("flex_crew_calls", name) for name in CHANGED),
}

# A job may be deleted while its crew is still in Flex, and what was done about that is logged after it is gone.
LOG_OUTLIVES_JOBS = """
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = 'flex.flex_sync_log'::regclass AND contype = 'f' LOOP
    EXECUTE format('ALTER TABLE flex.flex_sync_log DROP CONSTRAINT %I', name);
  END LOOP;
END $$;
"""

INDEXES = """
CREATE INDEX IF NOT EXISTS job_assignments_job_id_idx ON flex.job_assignments (job_id);
CREATE INDEX IF NOT EXISTS job_assignments_technician_id_idx ON flex.job_assignments (technician_id);
CREATE INDEX IF NOT EXISTS flex_crew_calls_flex_element_id_idx ON flex.flex_crew_calls (flex_element_id);
CREATE INDEX IF NOT EXISTS flex_crew_assignments_crew_call_id_idx ON flex.flex_crew_assignments (crew_call_id);
CREATE INDEX IF NOT EXISTS flex_crew_assignments_technician_id_idx ON flex.flex_crew_assignments (technician_id);
CREATE INDEX IF NOT EXISTS flex_sync_log_created_at_idx ON flex.flex_sync_log (created_at);
"""

OURS = """
CREATE TABLE flex.element_gate (
  flex_element_id uuid PRIMARY KEY,
  state text NOT NULL DEFAULT 'idle' CHECK (state IN ('idle', 'busy', 'uncertain')),
  owner text,
  acquired_at timestamptz,
  operation_id bigint,
  CHECK (CASE state
    WHEN 'idle' THEN num_nonnulls(owner, acquired_at, operation_id) = 0
    WHEN 'busy' THEN num_nulls(owner, acquired_at) = 0
    ELSE operation_id IS NOT NULL END)
);
COMMENT ON TABLE flex.element_gate IS
  'One gate for each crew call in Flex, whatever jobs and departments name it: two writers would both miss the same '
  'line and both add it. It doesn''t expire: where the outcome of a write is unknown, a person decides.';
COMMENT ON COLUMN flex.element_gate.owner IS 'The run (dag_id/run_id) that works at the element.';
COMMENT ON COLUMN flex.element_gate.operation_id IS 'The write that is outstanding, or whose outcome is unknown.';

CREATE TABLE flex.operation (
  operation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  sync_id bigint NOT NULL REFERENCES confidence.sync_log,
  flex_element_id uuid NOT NULL REFERENCES flex.element_gate,
  kind text NOT NULL CHECK (kind IN ('add', 'remove', 'role')),
  flex_line_item_id uuid,
  flex_resource_id uuid,
  job_id uuid,
  department text,
  crew_call_id uuid,
  technician_id uuid,
  role_before text,
  role_after text,
  state text NOT NULL DEFAULT 'sent' CHECK (state IN ('sent', 'done', 'refused', 'unknown')),
  reason text,
  sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  settled_at timestamptz,
  CHECK ((state = 'sent') = (settled_at IS NULL)),
  CHECK (kind <> 'add' OR flex_resource_id IS NOT NULL),
  CHECK (flex_line_item_id IS NOT NULL OR kind = 'add' AND state <> 'done')
);
CREATE INDEX ON flex.operation (sync_id);
CREATE INDEX ON flex.operation (flex_element_id);
CREATE UNIQUE INDEX operation_one_outstanding_key ON flex.operation (flex_element_id) WHERE state = 'sent';
COMMENT ON TABLE flex.operation IS
  'Every write to Flex, committed before it is sent: an add that is repeated makes a second line, so after a crash it '
  'has to be known that it may have happened. Job, crew call and person are kept here though their rows may go.';
COMMENT ON COLUMN flex.operation.state IS
  'sent: no answer yet. refused: Flex said no, nothing happened. unknown: it may have happened.';

ALTER TABLE flex.element_gate ADD FOREIGN KEY (operation_id) REFERENCES flex.operation;

CREATE TABLE flex.owned_line (
  flex_line_item_id uuid PRIMARY KEY,
  flex_element_id uuid NOT NULL,
  flex_resource_id uuid,
  job_id uuid NOT NULL,
  department text NOT NULL,
  crew_call_id uuid NOT NULL,
  technician_id uuid NOT NULL,
  made_by bigint REFERENCES confidence.sync_log,
  made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  gone_at timestamptz
);
CREATE INDEX ON flex.owned_line (flex_element_id) WHERE gone_at IS NULL;
CREATE INDEX ON flex.owned_line (job_id) WHERE gone_at IS NULL;
COMMENT ON TABLE flex.owned_line IS
  'The lines in Flex that we made, the only ones that we ever delete. No foreign keys: a line stays ours when its job, '
  'crew call, person or assignment is deleted here.';
COMMENT ON COLUMN flex.owned_line.made_by IS 'The sync_id that made it; null for a line that was there before us.';
COMMENT ON COLUMN flex.owned_line.gone_at IS 'When it was deleted, or seen to be gone.';

CREATE TABLE flex.job_change (
  change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  job_id uuid NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON flex.job_change (job_id);
COMMENT ON TABLE flex.job_change IS
  'The jobs whose crew may differ from Flex, a row for each change; a sync deletes those that it has seen. One row for '
  'a job would make people who edit several jobs wait for each other, and a time would miss what commits late.';
"""

# What a scan has seen, and what of it the figures of the syncs say.
EVIDENCE = """
CREATE TABLE flex.element_scan (
  scan_id text NOT NULL,
  flex_element_id uuid NOT NULL,
  figures jsonb NOT NULL,
  examples jsonb NOT NULL,
  planned jsonb NOT NULL,
  PRIMARY KEY (scan_id, flex_element_id)
);
COMMENT ON TABLE flex.element_scan IS 'What the newest scan found on each crew call in Flex, and plans to do there.';

CREATE VIEW flex.sync_health AS
SELECT period,
  count(l.id) AS syncs,
  count(*) FILTER (WHERE failed) AS failures,
  count(*) FILTER (WHERE failed)::numeric / nullif(count(l.id), 0) AS failure_rate,
  avg(l.duration_ms) / 1000.0 AS mean_seconds,
  max(l.duration_ms) / 1000.0 AS max_seconds,
  count(*) FILTER (WHERE failed)::numeric / nullif(count(l.id), 0) < 0.01 AS success_on_target,
  avg(l.duration_ms) < 5000 AS mean_on_target,
  (SELECT count(*) FROM (
    SELECT FROM flex.flex_crew_assignments GROUP BY crew_call_id, technician_id HAVING count(*) > 1) twice
  ) AS duplicates
FROM (VALUES ('hour', interval '1 hour'), ('day', interval '1 day')) AS periods (period, length)
LEFT JOIN LATERAL (
  SELECT id, duration_ms, coalesce(failed_count, 0) > 0 OR coalesce(summary ->> 'state', 'done') <> 'done' AS failed
  FROM flex.flex_sync_log WHERE created_at > now() - length
) l ON true
GROUP BY period;
COMMENT ON VIEW flex.sync_health IS
  'How the syncs of crew calls did in the last hour and day. Targets: more than 99 % succeed, 5 seconds on average.';
"""

# What the old sync noted in its rows it also made, duplicates included.
OWN_WHAT_IS_THERE = """
INSERT INTO flex.owned_line
  (flex_line_item_id, flex_element_id, flex_resource_id, job_id, department, crew_call_id, technician_id, made_at)
SELECT DISTINCT ON (a.flex_line_item_id) a.flex_line_item_id, c.flex_element_id, p.flex_resource_id, c.job_id,
  c.department, c.id, a.technician_id, coalesce(a.created_at, clock_timestamp())
FROM flex.flex_crew_assignments a
JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id
LEFT JOIN flex.profiles p ON p.id = a.technician_id
WHERE a.flex_line_item_id IS NOT NULL
ORDER BY a.flex_line_item_id, a.created_at, a.id;
"""

# The functions write for whoever changes a row: the application's roles need not know job_change.
TRIGGERS = """
CREATE FUNCTION flex.note_jobs() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO flex.job_change (job_id)
  SELECT DISTINCT job_id FROM (VALUES (OLD.job_id), (NEW.job_id)) AS jobs (job_id) WHERE job_id IS NOT NULL;
  RETURN NULL;
END $$;

CREATE FUNCTION flex.note_job() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO flex.job_change (job_id) VALUES (NEW.id);
  RETURN NULL;
END $$;

CREATE FUNCTION flex.note_jobs_of_profile() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO flex.job_change (job_id)
  SELECT job_id FROM flex.job_assignments WHERE technician_id = NEW.id
  UNION
  SELECT c.job_id FROM flex.flex_crew_assignments a JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id
  WHERE a.technician_id = NEW.id;
  RETURN NULL;
END $$;

CREATE TRIGGER note_jobs AFTER INSERT OR DELETE ON flex.job_assignments
FOR EACH ROW EXECUTE FUNCTION flex.note_jobs();

CREATE TRIGGER note_jobs_updated AFTER UPDATE ON flex.job_assignments FOR EACH ROW
WHEN ((OLD.job_id, OLD.technician_id, OLD.sound_role, OLD.lights_role)
  IS DISTINCT FROM (NEW.job_id, NEW.technician_id, NEW.sound_role, NEW.lights_role))
EXECUTE FUNCTION flex.note_jobs();

CREATE TRIGGER note_jobs AFTER INSERT OR DELETE ON flex.flex_crew_calls
FOR EACH ROW EXECUTE FUNCTION flex.note_jobs();

CREATE TRIGGER note_jobs_updated AFTER UPDATE ON flex.flex_crew_calls FOR EACH ROW
WHEN ((OLD.job_id, OLD.department, OLD.flex_element_id)
  IS DISTINCT FROM (NEW.job_id, NEW.department, NEW.flex_element_id))
EXECUTE FUNCTION flex.note_jobs();

CREATE TRIGGER note_jobs_updated AFTER UPDATE ON flex.profiles FOR EACH ROW
WHEN ((OLD.flex_resource_id, OLD.department) IS DISTINCT FROM (NEW.flex_resource_id, NEW.department))
EXECUTE FUNCTION flex.note_jobs_of_profile();

CREATE TRIGGER note_jobs_updated AFTER UPDATE ON flex.jobs FOR EACH ROW
WHEN (OLD.job_type IS DISTINCT FROM NEW.job_type)
EXECUTE FUNCTION flex.note_job();

INSERT INTO confidence.writer (source) VALUES ('flex');
"""

# Forgetting that an outcome is unknown would let the next sync add the line a second time.
REFUSE_WHILE_AT_WORK = """
DO $$ DECLARE count bigint; BEGIN
  SELECT count(*) INTO count FROM flex.element_gate WHERE state <> 'idle';
  IF count > 0 THEN
    RAISE EXCEPTION 'flex.element_gate: % elements are busy or uncertain. Release them first (flex_sync)', count;
  END IF;
END $$;
"""

DROPS = """
DROP VIEW flex.sync_health;
DROP TABLE flex.element_scan;
DROP FUNCTION flex.note_jobs(), flex.note_job(), flex.note_jobs_of_profile() CASCADE;
DROP TABLE flex.job_change, flex.owned_line, flex.operation, flex.element_gate;
DELETE FROM confidence.writer WHERE source = 'flex';
"""


def _create_or_adopt(name: str, columns: dict[str, str], constraints: tuple[str, ...]) -> None:
    """Raises ValueError where a table of that name has not the columns."""
    definitions = [*(f"{column} {type_}" for column, type_ in columns.items()), *constraints]
    op.execute(f"CREATE TABLE IF NOT EXISTS flex.{name} (\n  " + ",\n  ".join(definitions) + "\n)")
    found = dict(
        op.get_bind()
        .execute(
            text(
                "SELECT column_name, udt_name FROM information_schema.columns"
                " WHERE table_schema = 'flex' AND table_name = :name"
            ),
            {"name": name},
        )
        .fetchall()
    )
    wrong = [
        f"{column} {type_.split()[0]}"
        for column, type_ in columns.items()
        if (name, column) not in OPTIONAL
        and (column not in found or (type_.startswith("uuid") and found[column] != "uuid"))
    ]
    if wrong:
        raise ValueError(
            f"flex.{name} was there before, without {', '.join(wrong)}: give it these columns, then migrate again"
        )


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS flex")
    for name, (columns, constraints) in SHARED.items():
        _create_or_adopt(name, columns, constraints)
    op.execute(LOG_OUTLIVES_JOBS)
    op.execute(INDEXES)
    op.execute(OURS)
    op.execute(EVIDENCE)
    op.execute(OWN_WHAT_IS_THERE)
    op.execute(TRIGGERS)


def downgrade() -> None:
    """The tables of SHARED stay: they are the truth, and no copy of anything."""
    op.execute(REFUSE_WHILE_AT_WORK)
    op.execute(DROPS)
