"""The roles of the warehouse, and what each may do. Whoever migrates grants it again each time.

A role that does not exist is left out: then one role does everything, as the owner of all tables may.
"""

from sqlalchemy import Connection, text

# Owns the tables and runs the migrations; does the work of syncs and runbooks; reads, for the pages.
OWNER, TASKS, READ = "warehouse_owner", "warehouse_tasks", "warehouse_read"

# Only what is missing is granted, in the schemas of the sources, of the evidence and of staging: the database may hold
# more. Staging tables that tasks have made are left alone: they come and go meanwhile. MAINTAIN is for ANALYZE. A table
# with row level security shows its rows by a policy only.
GRANT = """
DO $$
DECLARE
  ours CONSTANT oid[] := ARRAY(
    SELECT oid FROM pg_namespace WHERE (nspname IN ('confidence', 'staging')
      OR nspname IN (SELECT source FROM confidence.writer)) AND pg_has_role(nspowner, 'USAGE'));
  each record;
BEGIN
  FOR each IN
    SELECT 'GRANT ' || right_ || ' ON SCHEMA ' || schema::regnamespace || ' TO ' || role AS statement
    FROM unnest(ours) schema,
      (VALUES ('warehouse_tasks', 'USAGE'), ('warehouse_tasks', 'CREATE'), ('warehouse_read', 'USAGE'))
        wanted(role, right_)
    WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = role)
      AND (right_ = 'USAGE' OR schema::regnamespace::text = 'staging')
      AND NOT has_schema_privilege(role, schema, right_)
    UNION ALL
    SELECT 'GRANT ' || string_agg(right_, ', ') || ' ON ' || oid::regclass || ' TO ' || role
    FROM pg_class,
      (VALUES ('warehouse_tasks', '{SELECT,INSERT,UPDATE,DELETE,MAINTAIN}'::text[]), ('warehouse_read', '{SELECT}'))
        wanted(role, rights),
      unnest(rights) right_
    WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = role)
      AND relnamespace = ANY (ours) AND pg_has_role(relowner, 'USAGE')
      AND relowner::regrole::text <> 'warehouse_tasks'
      AND (relkind = 'r' AND relname <> 'alembic_version' OR relkind IN ('r', 'v') AND right_ = 'SELECT')
      AND NOT has_table_privilege(role, oid, right_)
    GROUP BY oid, role
    UNION ALL
    SELECT 'CREATE POLICY ' || role || ' ON ' || oid::regclass || ' FOR ' || command || ' TO ' || role
      || ' USING (true)'
    FROM pg_class, (VALUES ('warehouse_tasks', 'ALL'), ('warehouse_read', 'SELECT')) wanted(role, command)
    WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = role)
      AND relnamespace = ANY (ours) AND relrowsecurity AND pg_has_role(relowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = role)
  LOOP
    EXECUTE each.statement;
  END LOOP;
END $$
"""


def grant(connection: Connection) -> None:
    """Let the roles do what they are for with all tables that the connection's role owns."""
    connection.execute(text(GRANT))
