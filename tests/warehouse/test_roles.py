"""Each role of Postgres, by trying what it may do and what it may not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from alembic import command
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from include.warehouse import roles
from include.warehouse.migrate import migrate
from include.warehouse.staging import Stage
from stack.postgres import Postgres
from stack.roles import APPLICATION, METADATA, set_up
from tests.folders import quick_folder
from tests.warehouse.conftest import add_shop
from tests.warehouse.shop import PARTS

# What each may not do with a table that migrations have made, and with the database.
CHANGES = (
    "INSERT INTO confidence.writer (source) VALUES ('another')",
    "UPDATE confidence.writer SET epoch = epoch + 1",
    "DELETE FROM confidence.writer",
)
OWNERSHIP = (
    "TRUNCATE confidence.change_log",
    "DROP TABLE shop.parts",
    "ALTER TABLE shop.parts ADD colour text",
    "CREATE INDEX ON shop.parts (name)",
    "CREATE TABLE confidence.another (id int)",
    "CREATE TABLE shop.another (id int)",
    "CREATE TABLE public.another (id int)",
    "CREATE SCHEMA another",
    "ALTER TABLE confidence.sync_log DISABLE TRIGGER ALL",
    "UPDATE confidence.alembic_version SET version_num = '0001'",
    "CREATE ROLE another",
    "SET ROLE warehouse_owner",
    "COPY confidence.writer TO PROGRAM 'cat'",
)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """The embedded server with the warehouse, and Airflow's database with a table."""
    with quick_folder("roles") as folder, Postgres(folder / "postgres", settings={"fsync": "off"}) as running:
        migrate(running.url("warehouse", roles.OWNER))
        add_shop(running.url("warehouse", roles.OWNER))
        with psycopg.connect(running.url("airflow", METADATA)) as conn:
            conn.execute("CREATE TABLE slot_pool (pool text)")
        yield running


@pytest.fixture
def as_(server: Postgres) -> Callable:
    @contextmanager
    def connected(role: str, database: str = "warehouse") -> Iterator[psycopg.Connection]:
        """What the role does is undone at the end."""
        with psycopg.connect(server.url(database, role)) as conn:
            yield conn
            conn.rollback()

    return connected


@pytest.mark.parametrize("statement", OWNERSHIP)
def test_tasks_own_no_more_than_their_staging_tables(as_: Callable, statement: str):
    with as_(roles.TASKS) as conn, pytest.raises(errors.InsufficientPrivilege):
        conn.execute(statement)


def test_tasks_write_rows_and_make_staging_tables(as_: Callable):
    with as_(roles.TASKS) as conn:
        for change in CHANGES:
            conn.execute(change)
        stage = Stage.open(conn, PARTS, "shop", "sync", "test")
        stage.append([], next_position=None, page_info={})
        stage.drop()
        conn.execute("CREATE TEMPORARY TABLE own (id int)")


def test_tasks_renew_the_statistics_of_a_table(as_: Callable):
    """Postgres only warns if it may not."""
    with as_(roles.TASKS) as conn:
        notices: list[str] = []
        conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        for (table,) in tables(conn):
            conn.execute(sql.SQL("ANALYZE {}").format(sql.SQL(table)))
        assert [notice for notice in notices if "alembic_version" not in notice] == []


def tables(conn: psycopg.Connection) -> list[tuple[str]]:
    return conn.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relpersistence = 'p'"
        " AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'"
    ).fetchall()


def test_tasks_see_rows_behind_row_level_security(as_: Callable):
    with as_(roles.OWNER) as conn:
        guarded = conn.execute("SELECT oid::regclass::text FROM pg_class WHERE relrowsecurity").fetchall()
    assert len(guarded) > 10
    with as_(roles.TASKS) as conn:
        conn.execute("INSERT INTO tekmetric.shops (tm_id, name, timezone, sync_id) VALUES (1, 'x', 'UTC', 1)")
        assert conn.execute("SELECT count(*) FROM tekmetric.shops").fetchone() == (1,)
    with as_(roles.READ) as conn:
        for (name,) in guarded:
            policies = conn.execute(
                "SELECT polcmd FROM pg_policy WHERE polrelid = %s::regclass AND polname = %s", [name, roles.READ]
            ).fetchall()
            assert policies == [("r",)]


@pytest.mark.parametrize("statement", [*CHANGES, *OWNERSHIP, "CREATE TABLE staging.another (id int)"])
def test_pages_change_nothing(as_: Callable, statement: str):
    with as_(roles.READ) as conn, pytest.raises(errors.InsufficientPrivilege):
        conn.execute(statement)


def test_pages_read_every_table_that_migrations_make(as_: Callable):
    with as_(roles.READ) as conn:
        for (table,) in tables(conn):
            conn.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(sql.SQL(table)))


@pytest.mark.parametrize("role", [METADATA, roles.TASKS, roles.READ, roles.OWNER, APPLICATION])
def test_airflows_database_and_the_warehouse_are_kept_apart(server: Postgres, role: str):
    other = "warehouse" if role == METADATA else "airflow"
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(server.url(other, role))


def test_the_application_of_a_trial_has_its_own_tables_and_no_others(as_: Callable):
    with as_(APPLICATION) as conn:
        conn.execute("CREATE SCHEMA app CREATE TABLE images (id int)")
        for table in ("confidence.writer", "shop.parts", "staging.pull"):
            with pytest.raises(errors.InsufficientPrivilege), conn.transaction():
                conn.execute(sql.SQL("SELECT FROM {}").format(sql.SQL(table)))


def test_no_role_of_a_purpose_is_a_superuser(server: Postgres):
    with psycopg.connect(server.url("postgres")) as conn:
        rights = "rolsuper OR rolcreatedb OR rolreplication OR rolbypassrls"
        assert conn.execute(f"SELECT rolname FROM pg_roles WHERE ({rights})").fetchall() == [("postgres",)]
        assert conn.execute("SELECT rolname FROM pg_roles WHERE rolcreaterole AND NOT rolsuper").fetchall() == [
            (roles.OWNER,)
        ]


def test_a_table_of_a_later_migration_follows(server: Postgres, as_: Callable):
    url = server.url("warehouse", roles.OWNER)
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE shop.later (id int)")
    try:
        migrate(url)
        with as_(roles.TASKS) as conn:
            conn.execute("INSERT INTO shop.later VALUES (1)")
        with as_(roles.READ) as conn:
            conn.execute("SELECT FROM shop.later")
    finally:
        with psycopg.connect(url) as conn:
            conn.execute("DROP TABLE shop.later")


def test_other_schemas_of_the_database_stay_closed(server: Postgres, as_: Callable):
    url = server.url("warehouse", roles.OWNER)
    with psycopg.connect(url) as conn:
        conn.execute("CREATE SCHEMA theirs CREATE TABLE salaries (id int)")
    try:
        migrate(url)
        with as_(roles.TASKS) as conn, pytest.raises(errors.InsufficientPrivilege):
            conn.execute("SELECT FROM theirs.salaries")
    finally:
        with psycopg.connect(url) as conn:
            conn.execute("DROP SCHEMA theirs CASCADE")


class TestMove:
    """From one role for everything, as before: the server's superuser."""

    @pytest.fixture
    def without_roles(self) -> Iterator[Postgres]:
        with quick_folder("moved") as folder, Postgres(folder / "postgres", settings={"fsync": "off"}) as running:
            for database in ("airflow", "warehouse"):
                running.drop_database(database)
                with psycopg.connect(running.url("postgres"), autocommit=True) as conn:
                    conn.execute(f"CREATE DATABASE {database}")
            with psycopg.connect(running.url("postgres"), autocommit=True) as conn:
                for role in (METADATA, roles.OWNER, roles.TASKS, roles.READ, APPLICATION):
                    conn.execute(f"DROP ROLE {role}")
            yield running

    @pytest.fixture
    def moved(self, without_roles: Postgres) -> Postgres:
        running = without_roles
        migrate(running.url("warehouse"))
        add_shop(running.url("warehouse"))
        with psycopg.connect(running.url("warehouse")) as conn:
            conn.execute("CREATE SCHEMA app CREATE TABLE images (id int)")
            conn.execute("INSERT INTO app.images VALUES (7)")
        with psycopg.connect(running.url("warehouse"), autocommit=True) as conn:
            stage = Stage.open(conn, PARTS, "shop", "scan", "before")
            stage.append([{"id": 1}], next_position=2, page_info={})
        with psycopg.connect(running.url("airflow")) as conn:
            conn.execute("CREATE TYPE kind AS ENUM ('a')")
            conn.execute("CREATE TABLE dag_run (id serial PRIMARY KEY, kind kind)")
            conn.execute("INSERT INTO dag_run (kind) VALUES ('a')")
        return running

    def test_an_old_warehouse_is_migrated_by_its_new_owner(
        self, without_roles: Postgres, monkeypatch: pytest.MonkeyPatch
    ):
        """Migrations change types, and plans that wait in staging tables, that the one role has made."""
        upgrade = command.upgrade
        with monkeypatch.context() as before:
            before.setattr(command, "upgrade", lambda config, _: upgrade(config, "0013"))
            migrate(without_roles.url("warehouse"))
        with psycopg.connect(without_roles.url("warehouse")) as conn:
            conn.execute(
                "CREATE TABLE staging.storage_images_scan_plan AS SELECT true original_missing, true staged_missing"
            )
        without_roles.start()
        migrate(without_roles.url("warehouse", roles.OWNER))
        with psycopg.connect(without_roles.url("warehouse", roles.TASKS)) as conn:
            plan = conn.execute("SELECT original_state, staged_state FROM staging.storage_images_scan_plan")
            assert plan.fetchall() == [("absent", "absent")]
            left = "SELECT relname FROM pg_class WHERE relkind = 'c' AND relowner::regrole::text NOT LIKE 'warehouse_%'"
            assert conn.execute(left).fetchall() == []

    def test_everything_goes_to_the_role_that_it_is_for(self, moved: Postgres):
        moved.start()
        owner = moved.url("warehouse", roles.OWNER)
        migrate(owner)
        query = """
            SELECT DISTINCT relnamespace::regnamespace::text
                || CASE WHEN relname IN ('pull', 'pull_range') THEN '.' || relname ELSE '' END,
              relowner::regrole::text FROM pg_class c WHERE relkind IN ('r', 'v', 'S')
              AND relnamespace::regnamespace::text IN ('confidence', 'staging', 'shop', 'flex', 'app')
        """
        with psycopg.connect(moved.url("warehouse")) as conn:
            assert dict(conn.execute(query).fetchall()) == {
                "confidence": roles.OWNER,
                "shop": roles.OWNER,
                "flex": roles.OWNER,
                "staging": roles.TASKS,
                "staging.pull": roles.OWNER,
                "staging.pull_range": roles.OWNER,
                "app": APPLICATION,
            }
            assert (
                conn.execute(
                    "SELECT proname FROM pg_proc WHERE proowner <> 'warehouse_owner'::regrole"
                    " AND pronamespace::regnamespace::text IN ('confidence', 'flex')"
                ).fetchall()
                == []
            )
        with psycopg.connect(moved.url("warehouse", roles.TASKS), autocommit=True) as conn:
            stage = Stage.open(conn, PARTS, "shop", "scan", "before")
            assert stage.resumed
            stage.drop()
        with psycopg.connect(moved.url("airflow", METADATA)) as conn:
            conn.execute("ALTER TYPE kind RENAME TO sort")
            conn.execute("INSERT INTO dag_run DEFAULT VALUES")
            conn.execute("ALTER TABLE dag_run ADD note text")
        with psycopg.connect(moved.url("warehouse", APPLICATION)) as conn:
            assert conn.execute("SELECT id FROM app.images").fetchall() == [(7,)]

    def test_one_role_for_everything_still_works(self, moved: Postgres):
        """As on somebody else's server, where nobody has made the roles."""
        url = moved.url("warehouse")
        migrate(url)
        with psycopg.connect(url) as conn:
            assert conn.execute("SELECT FROM pg_roles WHERE rolname LIKE 'warehouse%'").fetchall() == []


def test_a_password_is_changed_at_the_next_start_and_a_role_without_one_is_locked_out():
    with quick_folder("passwords") as folder, Postgres(folder / "postgres", settings={"fsync": "off"}) as server:
        set_up(server.url, {roles.TASKS: "it's new"})
        url = server.url("warehouse")
        with psycopg.connect(make_conninfo(url, user=roles.TASKS, password="it's new")):
            pass
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            psycopg.connect(server.url("warehouse", roles.READ))
