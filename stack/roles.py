"""The roles of our own Postgres: one for each purpose, so that none may do more than it must.

The server's superuser makes them, and is used for nothing else but backups.
"""

from collections.abc import Callable, Mapping

import psycopg
from psycopg import sql

from include.warehouse.roles import OWNER, READ, TASKS

# The owner of Airflow's database, and, of a trial, the application whose images lie in the warehouse's schema `app`.
METADATA, APPLICATION = "metadata", "application"
ALL = (METADATA, OWNER, TASKS, READ, APPLICATION)
DATABASES = {"airflow": METADATA, "warehouse": OWNER}
# What each role may do with the warehouse as a database. PUBLIC, which is everybody, may do nothing.
WAREHOUSE_RIGHTS = {TASKS: "CONNECT, TEMPORARY", READ: "CONNECT", APPLICATION: "CONNECT, TEMPORARY, CREATE"}

# Hand what one role for everything has created to the roles that own it now. Tasks own the staging tables.
HAND_OVER = """
DO $$
DECLARE
  each record;
BEGIN
  FOR each IN
    WITH object AS (
      SELECT 'SCHEMA ' || oid::regnamespace AS name, oid AS schema, nspowner AS owner, false AS staged, oid,
        'pg_namespace' AS catalog
      FROM pg_namespace
      UNION ALL
      SELECT CASE relkind WHEN 'v' THEN 'VIEW ' WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || oid::regclass,
        relnamespace, relowner, relname NOT IN ('pull', 'pull_range'), oid, 'pg_class'
      FROM pg_class c WHERE relkind IN ('r', 'p', 'v') OR relkind = 'S' AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype IN ('a', 'i'))
      UNION ALL
      SELECT 'ROUTINE ' || oid::regprocedure, pronamespace, proowner, false, oid, 'pg_proc' FROM pg_proc
      UNION ALL
      SELECT 'TYPE ' || oid::regtype, typnamespace, typowner, false, oid, 'pg_type' FROM pg_type
      WHERE typtype IN ('d', 'e')
        OR typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = typrelid AND relkind = 'c')
    )
    SELECT name, CASE WHEN schema::regnamespace::text = 'staging' AND staged THEN {tasks}
      WHEN schema::regnamespace::text = 'app' THEN {application} ELSE {owner} END AS new
    FROM object
    WHERE owner = current_user::regrole AND schema::regnamespace::text !~ '^(pg_|information_schema$)'
      AND NOT EXISTS (SELECT FROM pg_depend d
        WHERE d.classid = catalog::regclass AND d.objid = object.oid AND d.deptype = 'e')
  LOOP
    EXECUTE 'ALTER ' || each.name || ' OWNER TO ' || each.new;
  END LOOP;
END $$
"""


def set_up(url: Callable[[str], str], passwords: Mapping[str, str]) -> None:
    """Make the roles with these passwords, and the databases, and hand over what they are to own. Safe at every start.

    `url`: gives the superuser's libpq URL of a database. `passwords`: by role. Without one a role can't log in.
    """
    with psycopg.connect(url("postgres"), autocommit=True, connect_timeout=10) as conn:
        for role in ALL:
            _make_role(conn, role, passwords.get(role))
        for database, owner in DATABASES.items():
            make_database(conn, database, owner)
            _execute(conn, "REVOKE ALL ON DATABASE {} FROM PUBLIC", database)
        for role, rights in WAREHOUSE_RIGHTS.items():
            _execute(conn, f"GRANT {rights} ON DATABASE warehouse TO {{}}", role)
        # A migration may change a plan that waits in a staging table.
        _execute(conn, "GRANT {} TO {}", TASKS, OWNER)
    for database, owner in DATABASES.items():
        with psycopg.connect(url(database), autocommit=True, connect_timeout=10) as conn:
            names = {"owner": owner, "tasks": TASKS, "application": APPLICATION}
            conn.execute(sql.SQL(HAND_OVER).format(**{key: sql.Literal(name) for key, name in names.items()}))


def make_database(conn: psycopg.Connection, name: str, owner: str | None) -> None:
    """Create an empty database unless there is one of that name; then give it to the owner, if there is one."""
    if not conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
        _execute(conn, "CREATE DATABASE {} TEMPLATE template0", name)
    if owner:
        _execute(conn, "ALTER DATABASE {} OWNER TO {}", name, owner)


def _make_role(conn: psycopg.Connection, role: str, password: str | None) -> None:
    if not conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
        _execute(conn, "CREATE ROLE {} NOLOGIN", role)
    login = sql.SQL("NOLOGIN") if password is None else sql.SQL("LOGIN PASSWORD {}").format(sql.Literal(password))
    conn.execute(sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(role), login))
    if role == OWNER:
        # Migrations make the roles of people who may see parts of the warehouse.
        _execute(conn, "ALTER ROLE {} CREATEROLE", role)


def _execute(conn: psycopg.Connection, statement: str, *names: str) -> None:
    conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
