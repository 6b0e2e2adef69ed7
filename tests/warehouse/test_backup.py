"""Backup and restore by the commands of docs/operating.md: rows and rights come back, and syncs can be undone."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from include.simulators import repairshopr as simulator
from include.warehouse.migrate import migrate
from include.warehouse.roles import OWNER, READ, TASKS
from stack import roles
from stack.postgres import Postgres, binaries
from stack.settings import REPOSITORY
from tests.contract.account import Run
from tests.contract.repairshopr import SIZES, Account
from tests.folders import quick_folder

SECTION = re.search(r"\n## Backup and restore\n(.*?)\n## ", (REPOSITORY / "docs/operating.md").read_text(), re.DOTALL)[
    1
]
BACKUP, RESTORE = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
# The one error that the docs allow.
SUPERUSER_EXISTS = 'ERROR:  role "postgres" already exists\n'
NOTHING = {"insert": 0, "update": 0, "delete": 0}


@pytest.fixture
def servers() -> Iterator[tuple[Postgres, Postgres]]:
    """The server that is lost, and an empty one."""
    with ExitStack() as running:
        folder = running.enter_context(quick_folder("backup"))
        yield tuple(
            running.enter_context(Postgres(folder / name, settings={"fsync": "off"})) for name in ("lost", "empty")
        )


def run(commands: str, server: Postgres, folder: Path) -> None:
    """Run the commands as in the server's container, by its own superuser."""
    commands = commands.replace("docker compose exec -T postgres ", "").replace("--username=airflow", "")
    connection = psycopg.conninfo.conninfo_to_dict(server.url("postgres"))
    environment = {f"PG{name.upper()}": connection[name] for name in ("host", "port", "user", "password")}
    # As the image has it.
    environment["PATH"] = os.pathsep.join([str(binaries()), os.environ["PATH"]])
    done = subprocess.run(["sh", "-ec", commands], cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.replace(SUPERUSER_EXISTS, "")) == (0, "")


def empty_out(server: Postgres) -> None:
    """Leave what a new container has: the superuser, and two databases of its own."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
        for database in roles.DATABASES:
            server.drop_database(database)
            roles.make_database(conn, database, None)
        for (role,) in conn.execute("SELECT rolname FROM pg_roles WHERE oid >= 16384 ORDER BY 1").fetchall():
            conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def contents(conn: psycopg.Connection) -> dict[str, list]:
    """Every row of every table that a crash would not empty."""
    tables = conn.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relpersistence = 'p'"
        " AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)' ORDER BY 1"
    ).fetchall()
    query = "SELECT to_jsonb(t) FROM {} t ORDER BY 1"
    return {name: conn.execute(sql.SQL(query).format(sql.SQL(name))).fetchall() for (name,) in tables}


def rights(conn: psycopg.Connection) -> dict[str, list[tuple]]:
    """Who owns what, who may do what, who is in which role, and who may log in. The superusers' names differ."""
    queries = {
        "relations": "SELECT oid::regclass::text, relowner::regrole::text, relacl::text FROM pg_class"
        " WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)'",
        "schemas": "SELECT nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_'",
        "databases": "SELECT datname, datdba::regrole::text, datacl::text FROM pg_database WHERE NOT datistemplate",
        "members": "SELECT roleid::regrole::text, member::regrole::text, admin_option FROM pg_auth_members",
        "roles": "SELECT rolname, rolcanlogin, rolcreaterole, rolsuper FROM pg_roles",
    }
    return {name: sorted(map(str, conn.execute(query).fetchall())) for name, query in queries.items()}


@pytest.mark.drill("warehouse-restored")
def test_a_restored_warehouse_is_in_step_and_its_syncs_can_be_undone(
    servers: tuple[Postgres, Postgres], tmp_path: Path
):
    lost, empty = servers
    migrate(lost.url("warehouse", OWNER))
    with ExitStack() as running:
        shop = running.enter_context(simulator.running(simulator.Config(rate_limit=None, **SIZES)))
        before = running.enter_context(psycopg.connect(lost.url("warehouse", TASKS), autocommit=True))
        account = Account(shop, before)
        work = Run(account, before, "repairshopr_reconcile/before")
        work.sync()
        state = work.state()
        account.change()
        sync_id = work.sync().sync_id
        kept = contents(before)
        (tmp_path / ".env").write_text("FERNET_KEY=of-the-backup\n")
        run(BACKUP, lost, tmp_path)
        [backup] = (tmp_path / "backups").iterdir()
        assert {file.name for file in backup.iterdir()} == {"roles.sql", "warehouse.dump", "airflow.dump", "env"}
        assert {file.stat().st_mode & 0o077 for file in (backup, *backup.iterdir())} == {0}

        empty_out(empty)
        [named] = re.findall(r"^backup=(.+)$", RESTORE, re.MULTILINE)
        run(RESTORE.replace(named, str(backup)), empty, tmp_path)
        # Every start makes the roles that are missing, and gives them their passwords.
        empty.start()
        after = running.enter_context(psycopg.connect(empty.url("warehouse", TASKS), autocommit=True))
        assert contents(after) == kept
        migrate(empty.url("warehouse", OWNER))
        assert rights(after) == rights(before)
        reader = running.enter_context(psycopg.connect(empty.url("warehouse", READ), autocommit=True))
        assert reader.execute("SELECT count(*) FROM repairshopr.customers").fetchone() > (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("DELETE FROM repairshopr.customers")
        restored = Run(Account(shop, after), after, "repairshopr_reconcile/after")
        assert [(vars(summary.plan), summary.incomplete) for summary in restored.scan()] == [(NOTHING, "")] * 7
        restored.resume()
        assert restored.sync().sync_id > sync_id
        restored.roll_back(sync_id)
        assert restored.state()["copy"] == state["copy"]
