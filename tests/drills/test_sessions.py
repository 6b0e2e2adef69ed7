"""Sessions of the warehouse that are refused or killed, and a disk that is really full."""

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors, sql

from include.warehouse import fence
from plugins.failures import on_failure
from plugins.operators.sync import SyncOperator
from stack.airflow import until
from stack.postgres import Server
from tests.plugins.conftest import POOL, SOURCE, Run, execute, live_lines, skipped

PASSWORD = "of-a-drill"


@pytest.fixture
def limited(warehouse: str, connected: str, conn, superuser, monkeypatch) -> Iterator[Callable[[int], None]]:
    """The tasks' role, with all rights to the tables, may have so many connections: call it with how many."""
    role = sql.Identifier(f"tasks_{uuid4().hex}")
    superuser.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE {} PASSWORD {}").format(role, owner(conn), PASSWORD))
    url = urlsplit(warehouse)
    place = f"{role.as_string()[1:-1]}:{PASSWORD}@{url.hostname}:{url.port}"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", url._replace(netloc=place).geturl())
    yield lambda number: superuser.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(role, number))
    # It owns the staging tables that it has made.
    superuser.execute(sql.SQL("DROP OWNED BY {}").format(role))
    superuser.execute(sql.SQL("DROP ROLE {}").format(role))


def owner(conn: psycopg.Connection) -> sql.Identifier:
    (name,) = conn.execute("SELECT current_user").fetchone()
    return sql.Identifier(name)


@pytest.mark.drill("connections-used-up")
def test_no_connection_is_left(limited, airflow, synced, conn, service):
    limited(0)
    with pytest.raises(psycopg.OperationalError, match="too many connections"):
        execute(Run(), "stop_writer")
    assert (airflow.pools[POOL]["slots"], fence.read(conn, SOURCE).stopped) == (1, False)
    sync, operator = Run("1", dag_id=f"{SOURCE}_sync", params={"mode": "incremental"}), sync_task()
    with pytest.raises(psycopg.OperationalError) as refusal:
        sync.execute(operator)
    sync.call_back(on_failure, operator, exception=refusal.value)
    [message] = service.told
    assert message["message"].startswith("the connection to the database was refused or lost: the task's log says why")
    limited(-1)
    sync.execute(operator)


@pytest.mark.drill("connections-used-up")
def test_connections_run_out_in_the_middle(limited, airflow, synced, conn):
    """A scan needs two, the second for the rate limit."""
    run = Run()
    execute(run, "stop_writer")
    limited(1)
    with pytest.raises(psycopg.OperationalError, match="too many connections"):
        execute(run, "scan")
    limited(-1)
    execute(run, "scan")
    skipped(run, "gate_check")
    execute(run, "resume_writer")
    assert not fence.read(conn, SOURCE).stopped


def sync_task() -> SyncOperator:
    return SyncOperator(task_id="sync", source=SOURCE)


@pytest.mark.drill("dns-gone")
def test_warehouse_has_no_address(airflow, synced, conn, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgresql://somebody@nowhere.invalid/warehouse")
    for act in (lambda: execute(Run(), "stop_writer"), lambda: Run("1", dag_id="x").execute(sync_task())):
        with pytest.raises(psycopg.OperationalError):
            act()
    assert (airflow.pools[POOL]["slots"], fence.read(conn, SOURCE).stopped) == (1, False)


def killed(url: str, run: Run, act: Callable[[], object], waiting_for: str) -> None:
    """Kill the session of the task while it waits for that table, as `kill -9` does; Postgres restarts all others."""
    task = threading.Thread(target=lambda: suppressing(act))
    with suppress(psycopg.OperationalError), psycopg.connect(url) as psql:
        psql.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(sql.Identifier(*waiting_for.split("."))))
        task.start()
        with psycopg.connect(url, autocommit=True) as looking:
            query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
            until(lambda: looking.execute(query, [run.name]).fetchone() is not None, "the task to wait", 30)
            (pid,) = looking.execute(query, [run.name]).fetchone()
            os.kill(pid, signal.SIGKILL)
    task.join()
    until(lambda: answers(url), "Postgres to be back", 30)


def suppressing(act: Callable[[], object]) -> None:
    with suppress(psycopg.OperationalError):
        act()


def answers(url: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


@pytest.mark.drill("killed-backend")
def test_session_is_killed_in_the_scan_and_in_the_repair(airflow, synced, warehouse):
    def query(text: str) -> list[tuple]:
        with psycopg.connect(warehouse, autocommit=True) as fresh:
            return fresh.execute(text).fetchall()

    with psycopg.connect(warehouse, autocommit=True) as fresh:
        before = live_lines(fresh)
        fresh.execute("DELETE FROM repairshopr.line_items WHERE id = ANY (%s)", [sorted(before)[:3]])
    run = Run(conf={"dry_run": False})
    execute(run, "stop_writer")
    killed(warehouse, run, lambda: execute(run, "scan"), "confidence.forensic_run")
    execute(run, "scan")
    skipped(run, "gate_check")
    killed(warehouse, run, lambda: execute(run, "reconcile"), "confidence.change_log")
    changes = (
        "SELECT count(*) FROM confidence.change_log JOIN confidence.sync_log USING (sync_id) WHERE kind = 'repair'"
    )
    assert query(changes) == [(0,)]
    assert execute(run, "reconcile")["counts"]["line_items"]["inserted"] == 3
    execute(run, "verify")
    execute(run, "resume_writer")
    assert query(changes) == [(3,)]
    with psycopg.connect(warehouse, autocommit=True) as fresh:
        assert live_lines(fresh) == before
        assert not fence.read(fresh, SOURCE).stopped


@pytest.fixture
def small_disk(postgres: Server) -> Iterator[str]:
    """A tablespace of one megabyte on a disk of its own. Only root can mount one."""
    name = f"small_{uuid4().hex}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
        (data,) = admin.execute("SHOW data_directory").fetchone()
        with tempfile.TemporaryDirectory(prefix="disk-") as folder:
            Path(folder).chmod(0o711)
            place, user = Path(folder) / "disk", os.stat(data)
            place.mkdir()
            options = f"size=1m,mode=700,uid={user.st_uid},gid={user.st_gid}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
            try:
                admin.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(sql.Identifier(name), str(place)))
                yield name
                admin.execute(sql.SQL("DROP TABLESPACE {}").format(sql.Identifier(name)))
            finally:
                subprocess.run(["umount", str(place)], check=True)


@pytest.mark.long
@pytest.mark.drill("disk-full-merge")
def test_disk_is_full_in_the_repair(small_disk, airflow, synced, conn, superuser):
    lost = sorted(live_lines(conn))[:3]
    conn.execute("DELETE FROM repairshopr.line_items WHERE id = ANY (%s)", [lost])
    run = Run(conf={"dry_run": False})
    execute(run, "stop_writer")
    execute(run, "scan")
    skipped(run, "gate_check")
    space = sql.Identifier(small_disk)
    superuser.execute(sql.SQL("CREATE TABLE public.filler (text text) TABLESPACE {}").format(space))
    superuser.execute("TRUNCATE confidence.change_log")
    superuser.execute(sql.SQL("ALTER TABLE confidence.change_log SET TABLESPACE {}").format(space))
    more = "INSERT INTO public.filler SELECT repeat('x', 1000) FROM generate_series(1, 10000)"
    with pytest.raises(errors.DiskFull):
        superuser.execute(more)
    with pytest.raises(errors.DiskFull):
        execute(run, "reconcile")
    assert not set(lost) & live_lines(conn)
    superuser.execute("DROP TABLE public.filler")
    assert execute(run, "reconcile")["counts"]["line_items"]["inserted"] == 3
    execute(run, "verify")
    execute(run, "resume_writer")
    superuser.execute("ALTER TABLE confidence.change_log SET TABLESPACE pg_default")
