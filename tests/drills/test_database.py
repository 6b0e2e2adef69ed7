"""The warehouse refuses, locks or loses: every source's sync, scan and repair leave it as it was, and go on later."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.confidence.failure import Failure
from include.sources import REGISTRY, get_source
from include.sources.base import SyncFailed
from include.sources.mirror.source import Mirror
from tests.contract.account import Run
from tests.contract.test_contract import mended, planned, written

# Where a refusal by the database may come up.
REFUSED = (psycopg.Error, SyncFailed)
# What a sync or repair writes to, besides the copy: nothing is written that is not noted there.
LOGS = ("confidence.change_log", "confidence.sync_log", "flex.operation")
TABLES = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname = ANY (%s)"
# Each kind of source: one mirror is played every day, the others with `make drills`.
MIRRORS = [source for source in REGISTRY if isinstance(get_source(source), Mirror)]
EVERY_DAY = [source for source in REGISTRY if source not in MIRRORS[1:]]


@pytest.fixture(params=[*EVERY_DAY, *(pytest.param(source, marks=pytest.mark.long) for source in MIRRORS[1:])])
def source(request: pytest.FixtureRequest) -> str:
    return request.param


def tables(conn: psycopg.Connection, *schemas: str) -> list[str]:
    """The tables of these schemas."""
    return [name for (name,) in conn.execute(TABLES, [list(schemas)])]


@contextmanager
def read_only(conn: psycopg.Connection) -> Iterator[None]:
    """The session is one of a standby that takes no writes."""
    conn.execute("SET default_transaction_read_only = on")
    yield
    conn.execute("SET default_transaction_read_only = off")


@contextmanager
def full(superuser: psycopg.Connection, tables: list[str]) -> Iterator[None]:
    """The disk that these tables are on is full: Postgres refuses what it would say then, 53100."""
    superuser.execute(
        "CREATE FUNCTION public.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$"
    )
    create = "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {} EXECUTE FUNCTION public.full_disk()"
    for table in tables:
        superuser.execute(sql.SQL(create).format(sql.Identifier(*table.split("."))))
    yield
    superuser.execute("DROP FUNCTION public.full_disk CASCADE")


def refused(act: Callable[[], Any]) -> str:
    """What people are told of the refusal."""
    with pytest.raises(REFUSED) as refusal:
        act()
    return str(Failure.of(refusal.value))


def goes_on(run: Run) -> None:
    """A sync brings what has changed, and a repair what has drifted."""
    assert written(run.sync().counts) > 0
    run.account.drift()
    scans = run.scan()
    assert mended(run, run.repair(scans)[1]) == sum(map(planned, scans)) > 0
    run.resume()


@pytest.mark.drill("read-only")
def test_standby_takes_nothing(filled: Run, conn):
    filled.account.change()
    before = filled.standing()
    with read_only(conn):
        assert "point the connection to the primary" in refused(filled.sync)
    filled.stop()
    with read_only(conn):
        assert "point the connection to the primary" in refused(filled.scan)
    filled.resume()
    assert filled.standing() == before
    goes_on(filled)


@pytest.mark.drill("read-only")
def test_standby_takes_no_repair(filled: Run, conn):
    filled.account.drift()
    scans, before = filled.scan(), filled.standing()
    with read_only(conn):
        assert "point the connection to the primary" in refused(lambda: filled.repair(scans))
    assert filled.standing() == before
    assert mended(filled, filled.repair(scans)[1]) == sum(map(planned, scans))


@pytest.mark.drill("disk-full-staging")
def test_full_disk_ends_a_scan_without_evidence(filled: Run, conn, superuser):
    filled.account.drift()
    before = filled.standing()
    filled.stop()
    with full(superuser, [*tables(conn, "staging"), "confidence.forensic_run"]):
        assert "make room, then clear the task" in refused(filled.scan)
    assert filled.standing() == before
    assert sum(map(planned, filled.scan())) > 0


@pytest.mark.drill("disk-full-merge")
def test_full_disk_keeps_out_the_whole_sync(filled: Run, superuser):
    filled.account.change()
    before = filled.standing()
    with full(superuser, list(LOGS)):
        assert "make room, then clear the task" in refused(filled.sync)
    assert filled.standing() == before
    goes_on(filled)


@pytest.mark.drill("disk-full-merge")
def test_full_disk_keeps_out_the_whole_repair(filled: Run, superuser):
    filled.account.drift()
    scans, before = filled.scan(), filled.standing()
    with full(superuser, list(LOGS)):
        assert "make room, then clear the task" in refused(lambda: filled.repair(scans))
    assert filled.standing() == before
    assert mended(filled, filled.repair(scans)[1]) == sum(map(planned, scans))


@pytest.mark.drill("long-transaction")
def test_open_transaction_that_reads_hinders_nobody(filled: Run, conn, warehouse):
    conn.execute("SET lock_timeout = '5s'")
    read = tables(conn, filled.source.name, "confidence", "app")
    filled.account.change()
    with psycopg.connect(warehouse) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for table in read:
            reader.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*table.split("."))))
        goes_on(filled)


@pytest.mark.drill("locked-table")
def test_lock_of_somebody_is_waited_for_no_longer_than_it_may(filled: Run, conn, warehouse):
    filled.account.drift()
    scans, before = filled.scan(), filled.standing()
    conn.execute("SET lock_timeout = '200ms'")
    with psycopg.connect(warehouse) as psql:
        psql.execute("LOCK TABLE confidence.sync_log IN ACCESS EXCLUSIVE MODE")
        assert "pg_blocking_pids()" in refused(lambda: filled.repair(scans))
        filled.resume()
        assert "pg_blocking_pids()" in refused(filled.sync)
    assert filled.standing() == before
    filled.stop()
    scans = filled.scan()
    assert mended(filled, filled.repair(scans)[1]) == sum(map(planned, scans))
