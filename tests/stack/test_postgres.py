import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from stack.ports import LOOPBACK, free_port
from stack.postgres import Postgres, PostgresError, Server, binaries
from tests.conftest import as_role

SMALL = {"shared_buffers": "16MB", "fsync": "off"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Below a folder that only its owner may enter, as in a home folder."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    return closed / "postgres"


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's programs lie below the closed folder too, as those of a .venv in a home folder do."""
    programs = folder.parent / "bin"
    programs.symlink_to(binaries())
    monkeypatch.setattr("stack.postgres.binaries", lambda: programs)


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchone()[0]


def test_serves_both_databases_with_a_password_and_is_gone_afterwards(folder: Path):
    with Postgres(folder, settings=SMALL) as server:
        pid = server.pid
        assert ask(server.url("warehouse"), "SELECT current_database()") == "warehouse"
        assert ask(server.url("airflow"), "SHOW timezone") == "UTC"
        assert ask(server.url("airflow"), "SHOW shared_buffers") == "16MB"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url("airflow").replace("postgres:", "postgres:x", 1))
    assert not psutil.pid_exists(pid)
    assert server.pid is None


def test_keeps_its_data_password_and_port_over_a_restart(folder: Path):
    with Postgres(folder, settings=SMALL) as server:
        url = server.url("warehouse")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    with Postgres(folder, settings=SMALL) as server:
        assert server.url("warehouse") == url
        assert ask(url, "SELECT value FROM kept") == 7


def test_recovers_from_a_crash_on_the_same_port(folder: Path):
    with Postgres(folder, settings=SMALL) as server:
        url, pid = server.url("warehouse"), server.pid
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
        server.kill()
        assert server.pid is None
        assert (server.data / "postmaster.pid").exists()
        server.start()
        assert server.pid not in (None, pid)
        assert server.url("warehouse") == url
        assert ask(url, "SELECT value FROM kept") == 7


def test_a_pid_file_that_names_another_process_is_stale(folder: Path):
    with Postgres(folder, settings=SMALL) as server:
        pass
    (server.data / "postmaster.pid").write_text(f"{psutil.Process().ppid()}\n")
    with server:
        assert ask(server.url("warehouse"), "SELECT 1") == 1


def test_a_server_left_running_is_replaced(folder: Path):
    with Postgres(folder, settings=SMALL) as left_behind, Postgres(folder, settings=SMALL) as server:
        assert ask(server.url("warehouse"), "SELECT 1") == 1
        assert left_behind.pid == server.pid


def test_an_interrupted_initdb_is_begun_anew(folder: Path):
    (folder / "unfinished").mkdir(parents=True)
    (folder / "unfinished" / "PG_VERSION").write_text("18")
    with Postgres(folder, settings=SMALL) as server:
        assert ask(server.url("warehouse"), "SELECT 1") == 1


def test_a_busy_port_is_told(busy_port: int, folder: Path):
    with pytest.raises(PostgresError, match=f"port {busy_port} is busy"):
        Postgres(folder, port=busy_port, settings=SMALL).start()


def test_a_remembered_port_that_is_busy_is_replaced(busy_port: int, folder: Path):
    folder.mkdir(parents=True)
    (folder / "port").write_text(str(busy_port))
    with Postgres(folder, settings=SMALL) as server:
        assert server.port != busy_port


def test_a_server_that_does_not_start_names_its_log(folder: Path):
    server = Postgres(folder, settings={"shared_buffers": "nonsense"})
    with pytest.raises(PostgresError, match=r"see the end of .*postgres\.log"):
        server.start()
    assert "shared_buffers" in server.log.read_text()


def test_a_server_of_somebody_else_gets_the_databases_and_stays(postgres: Server, warehouse_url: str):
    with Server(as_role(None, warehouse_url, postgres)) as server:
        assert ask(server.url("airflow"), "SELECT current_database()") == "airflow"
    assert ask(warehouse_url, "SELECT 1") == 1


def test_a_chosen_port_is_used(folder: Path):
    port = free_port()
    with Postgres(folder, port=port, settings=SMALL) as server:
        assert server.port == port
        assert f":{port}/" in server.url("warehouse")


@pytest.mark.usefixtures("closed_wheel")
def test_programs_in_a_closed_folder_are_reached(folder):
    with Postgres(folder, settings=SMALL) as server:
        assert ask(server.url("postgres"), "SELECT 1") == 1
