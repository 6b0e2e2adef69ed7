"""Celery workers and their Redis as processes that can be lost and frozen as machines are."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from stack.airflow import until
from stack.ports import LOOPBACK, free_port, is_free

REDIS = shutil.which("redis-server")
TASKS_PER_WORKER = 4


class Machine:
    """A command with everything that it starts. It ends with the block, and with this process, whatever ends that."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]):
        self.log = log
        self._command = ["setpriv", "--pdeathsig=KILL", *command]
        self._env = dict(env)
        self._process: subprocess.Popen | None = None
        self._frozen: list[psutil.Process] = []

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._process:
            return
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Lose it: all its processes at once."""
        if self._process:
            # None of them can start another meanwhile.
            self.freeze()
            self._signal(signal.SIGKILL)
            self._process.wait(20)
            psutil.wait_procs(self._frozen, timeout=20)
            self._process = None

    def freeze(self) -> None:
        """Stop all its processes where they are."""
        self._frozen = []
        while len(found := self.processes) > len(self._frozen):
            self._frozen = found
            self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all of them go on."""
        self._signal(signal.SIGCONT)

    @property
    def processes(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def has(self, pid: int) -> bool:
        """Whether the process is one of its."""
        return pid in {process.pid for process in self.processes}

    def _signal(self, number: signal.Signals) -> None:
        for process in self._frozen:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Redis(Machine):
    """A broker that keeps what is queued, also over a crash."""

    def __init__(self, folder: Path):
        self.port = free_port()
        folder.mkdir()
        command = [str(REDIS), f"--port {self.port}", f"--bind {LOOPBACK}", f"--dir {folder}", "--appendonly yes"]
        super().__init__([part for option in command for part in option.split()], folder / "redis.log", os.environ)

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        super().start()
        until(lambda: not is_free(self.port), f"Redis to listen, see {self.log}", 20)


class Worker(Machine):
    """A Celery worker on a machine of that name, which shares logs and settings with the stack."""

    def __init__(self, name: str, logs: Path, env: Mapping[str, str]):
        self.name = name
        # As the stack's scheduler, since imports take most of a short task's time.
        command = [sys.executable, "-m", "stack.preloaded", "celery", "worker", "--skip-serve-logs"]
        command += ["--celery-hostname", name, "--pid", str(logs / f"{name}.pid")]
        super().__init__([*command, f"--concurrency={TASKS_PER_WORKER}"], logs / f"{name}.log", env)

    def wait_until_ready(self) -> None:
        until(lambda: " ready." in self.log.read_text(), f"the worker to be ready, see {self.log}", 90)

    def tasks(self, dag: str) -> int:
        """How many tasks of the DAG it has begun since its start."""
        lines = self.log.read_text().splitlines()
        return sum("Executing workload" in line and f"dag_id='{dag}'" in line for line in lines)
