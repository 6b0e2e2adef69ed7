"""Starting and ending the stack from outside: for the commands, and for tests and the demo as `Stack`."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from stack.guardian import POLL_SECONDS, StackError
from stack.settings import (
    REPOSITORY,
    Home,
    Ports,
    Secrets,
    api_url,
    environment,
    simulated,
    simulator_url,
    sources_of,
)

DOWN_SECONDS = 120.0


class Stack:
    """A stack in the background, with its files in the folder `home`.

    `api_port`: where Airflow's UI and API listen, or the next free port; 0 = any free one.
    `settings`: variables on top of this process's environment, such as AIRFLOW__CORE__DAGS_FOLDER,
    AIRFLOW_CONN_... or STACK_REPAIRSHOPR_OPTIONS.

    As a context manager it ends with the block, and with this process, whatever ends that.
    """

    def __init__(self, home: Path, *, api_port: int = 0, settings: Mapping[str, str] | None = None):
        self.home = Home(Path(home).absolute())
        self._api_port = api_port
        self._inherited = {**os.environ, **(settings or {}), "STACK_HOME": str(self.home.folder)}

    def start(self, *, owned: bool) -> Iterator[str]:
        """Start the stack; yield what it tells on the way, a line each, until it is ready.

        `owned`: it ends with this process. Raises `StackError` when it ends instead of getting ready.
        """
        if self.runs:
            raise StackError(f"{self.home.folder} is in use by a running stack: `python -m stack down` ends it")
        self.home.logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "stack", "run", f"--api-port={self._api_port}"]
        command += [f"--owner={os.getpid()}"] if owned else []
        self.home.state.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=self._inherited,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with self._log.open() as told:
            while not self.home.state.exists():
                ended = process.poll() is not None
                lines = told.read().splitlines()
                yield from lines
                if ended:
                    raise StackError(f"the stack didn't start; see {self.home.logs}")
                time.sleep(POLL_SECONDS)
            yield from told.read().splitlines()

    def stop(self) -> None:
        """End the stack and wait until all its processes are gone; nothing to do when it doesn't run."""
        deadline = time.monotonic() + DOWN_SECONDS
        while self.runs:
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(self.home.lock.read_text()), signal.SIGTERM)
            if time.monotonic() > deadline:
                raise StackError(f"the stack doesn't end; see {self._log}")
            time.sleep(POLL_SECONDS)

    @property
    def runs(self) -> bool:
        """Whether any process of the stack is there."""
        if not self.home.lock.exists():
            return False
        with self.home.lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @property
    def is_ready(self) -> bool:
        return self.runs and self.home.state.exists()

    @property
    def api_url(self) -> str:
        return api_url(self._ports)

    @property
    def env(self) -> dict[str, str]:
        """The environment of its Airflow processes."""
        return environment(self.home, self._ports, self.home.postgres(self._inherited), self._inherited)

    @property
    def warehouse_url(self) -> str:
        """The warehouse's libpq URL, for its owner."""
        return self.env.get("AIRFLOW_CONN_WAREHOUSE_OWNER") or self.env["AIRFLOW_CONN_WAREHOUSE"]

    @property
    def simulator_urls(self) -> dict[str, str]:
        """The base URL of each running simulator by its name."""
        return {name: simulator_url(name, self._ports) for name in simulated(self._inherited)}

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that it has."""
        return sources_of(self._inherited)

    def password(self, user: str) -> str:
        return Secrets.of(self.home).passwords[user]

    @property
    def _log(self) -> Path:
        return self.home.logs / "stack.log"

    @property
    def _ports(self) -> Ports:
        try:
            return Ports(**json.loads(self.home.state.read_text()))
        except FileNotFoundError:
            raise StackError("the stack isn't up: `python -m stack up` starts it") from None

    def __enter__(self) -> Self:
        told = []
        try:
            told.extend(self.start(owned=True))
        except StackError as error:
            raise StackError("\n".join([*told, str(error)])) from None
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
