"""A mirrored table as it stood at an earlier time, from the change log: `confidence.as_of`."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# Older entries get no time: a default for them would rewrite the log, and be wrong. The index leaves out what merges
# insert, most of a log: it would make first loads slower, and each row names the sync that inserted it.
LOG = """
ALTER TABLE confidence.change_log ADD changed_at timestamptz;
ALTER TABLE confidence.change_log ALTER changed_at SET DEFAULT now();
COMMENT ON COLUMN confidence.change_log.changed_at IS
  'When the transaction that made the change began. Null in entries older than this column.';
CREATE INDEX change_log_key ON confidence.change_log USING hash (key)
  WHERE coalesce(before, after) IS NOT NULL OR after_hash IS NULL;

CREATE TABLE confidence.dropped_changes (
  source text PRIMARY KEY,
  until timestamptz NOT NULL
);
COMMENT ON TABLE confidence.dropped_changes IS
  'Sources of whose change log old entries were deleted: of times before until it is not complete.';
-- So far only this source's log was cleaned up, after 30 days.
INSERT INTO confidence.dropped_changes
SELECT source, now() - interval '30 days' FROM confidence.sync_log WHERE source = 'tekmetric' GROUP BY source;
"""

MIRROR = """
CREATE FUNCTION confidence.mirror_of(of_type regtype) RETURNS regclass LANGUAGE plpgsql STABLE AS $$
DECLARE
  target regclass := (
    SELECT c.oid FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'r'
      JOIN pg_namespace n ON n.oid = c.relnamespace JOIN confidence.writer w ON w.source = n.nspname
    WHERE t.oid = of_type AND 3 = (
      SELECT count(*) FROM pg_attribute a
      WHERE a.attrelid = c.oid AND a.attname IN ('row_hash', 'deleted_at', 'sync_id') AND NOT a.attisdropped));
BEGIN
  IF target IS NULL THEN
    RAISE 'confidence.as_of: % is not a mirrored table, so the change log does not have all its changes; name a '
      'mirrored table by its row type, such as NULL::square.orders', of_type USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN target;
END $$;
COMMENT ON FUNCTION confidence.mirror_of IS 'The mirrored table with rows of this type; an error if there is none.';
"""

# Rows that have changed since come from the image before the first of these changes, all others from the table itself.
# Postgres can't guess how many have changed, and a nested loop over a million rows would take hours: as_of forbids it.
QUERY = """
CREATE FUNCTION confidence.query_of_past(target regclass) RETURNS text LANGUAGE sql STABLE AS $query$
  SELECT format(
    $$
    WITH changed AS MATERIALIZED (
      SELECT DISTINCT ON (c.key) c.key, c.before FROM confidence.change_log c
      WHERE c.sync_id = ANY ($1) AND c.table_name = %1$L AND coalesce(c.changed_at,
        (SELECT l.started_at FROM confidence.sync_log l WHERE l.sync_id = c.sync_id)) > $2
      ORDER BY c.key, c.change_id
    )
    SELECT t.* FROM %2$s t WHERE NOT EXISTS (SELECT FROM (SELECT %3$s FROM changed OFFSET 0) k WHERE %4$s)
    UNION ALL
    SELECT (b.image).* FROM (
      SELECT jsonb_populate_record(NULL::%2$s, before) AS image FROM changed WHERE before IS NOT NULL OFFSET 0) b
    $$,
    n.nspname || '.' || c.relname, target,
    string_agg(format('(key ->> %L)::%s AS %I', a.attname, format_type(a.atttypid, a.atttypmod), a.attname), ', '),
    string_agg(format('k.%I = t.%I', a.attname, a.attname), ' AND '))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
  WHERE c.oid = target GROUP BY n.nspname, c.relname
$query$;
COMMENT ON FUNCTION confidence.query_of_past IS
  'The query for the rows of a mirrored table without the changes that the syncs $1 have made after the time $2.';
"""

AS_OF = """
CREATE FUNCTION confidence.as_of(of_table anyelement, moment timestamptz) RETURNS SETOF anyelement
LANGUAGE plpgsql STABLE SET enable_nestloop TO off SET jit TO off AS $$
DECLARE
  target regclass := confidence.mirror_of(pg_typeof(of_table));
  of_source text := (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = target);
  dropped timestamptz := (SELECT until FROM confidence.dropped_changes WHERE source = of_source);
BEGIN
  IF moment IS NULL OR moment > clock_timestamp() THEN
    RAISE 'confidence.as_of: % is not in the past, so what % holds then is not known; give a time that has passed',
      coalesce(moment::text, 'null'), target USING ERRCODE = 'invalid_parameter_value';
  ELSIF moment < dropped THEN
    RAISE 'confidence.as_of: the change log of % reaches back to %, so % as of % is not known; ask for a later time, '
      'or look into a backup of the warehouse', of_source, dropped, target, moment
    USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- One that was taken for dead, and closed as failed, may have written later.
  RETURN QUERY EXECUTE confidence.query_of_past(target) USING ARRAY(
    SELECT sync_id FROM confidence.sync_log
    WHERE source = of_source AND (finished_at > moment OR finished_at IS NULL OR state = 'failed')), moment;
END $$;
COMMENT ON FUNCTION confidence.as_of(anyelement, timestamptz) IS
  'The mirrored table of this row type, such as NULL::square.orders, as it stood at a time.';

CREATE FUNCTION confidence.as_of(of_table anyelement, after_sync bigint) RETURNS SETOF anyelement
LANGUAGE plpgsql STABLE SET enable_nestloop TO off SET jit TO off AS $$
DECLARE
  target regclass := confidence.mirror_of(pg_typeof(of_table));
  of_source text := (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = target);
  dropped timestamptz := (SELECT until FROM confidence.dropped_changes WHERE source = of_source);
  ended timestamptz := (SELECT finished_at FROM confidence.sync_log WHERE sync_id = after_sync AND source = of_source);
BEGIN
  IF ended IS NULL THEN
    RAISE 'confidence.as_of: % has no sync_id % that has ended; look it up in confidence.sync_log', of_source,
      coalesce(after_sync::text, 'null') USING ERRCODE = 'invalid_parameter_value';
  ELSIF ended < dropped THEN
    RAISE 'confidence.as_of: the change log of % reaches back to %, so % after sync_id %, which ended at %, is not '
      'known; ask for a later sync_id, or look into a backup of the warehouse',
      of_source, dropped, target, after_sync, ended USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN QUERY EXECUTE confidence.query_of_past(target) USING ARRAY(
    SELECT sync_id FROM confidence.sync_log WHERE source = of_source AND sync_id > after_sync), timestamptz '-infinity';
END $$;
COMMENT ON FUNCTION confidence.as_of(anyelement, bigint) IS
  'The mirrored table of this row type as it stood after a sync, repair or rollback, without the later ones.';

-- Without this one Postgres could not tell whether a quoted text is a time or a sync_id.
CREATE FUNCTION confidence.as_of(of_table anyelement, moment text) RETURNS SETOF anyelement LANGUAGE sql STABLE AS $$
  SELECT * FROM confidence.as_of(of_table, moment::timestamptz)
$$;
COMMENT ON FUNCTION confidence.as_of(anyelement, text) IS 'The same for a time that is written as text.';

CREATE FUNCTION confidence.as_of(of_table text, moment text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
  RAISE 'confidence.as_of: the name of a table does not tell Postgres which columns the result has; write NULL::% '
    'instead of %', of_table, quote_nullable(of_table) USING ERRCODE = 'invalid_parameter_value';
END $$;
COMMENT ON FUNCTION confidence.as_of(text, text) IS 'Only says that a table is given as NULL::schema.table.';
"""

DROPS = """
DROP FUNCTION confidence.as_of(text, text), confidence.as_of(anyelement, text), confidence.as_of(anyelement, bigint),
  confidence.as_of(anyelement, timestamptz), confidence.query_of_past, confidence.mirror_of;
DROP TABLE confidence.dropped_changes;
DROP INDEX confidence.change_log_key;
ALTER TABLE confidence.change_log DROP changed_at;
"""


def upgrade() -> None:
    for statements in (LOG, MIRROR, QUERY, AS_OF):
        op.execute(statements)


def downgrade() -> None:
    op.execute(DROPS)
