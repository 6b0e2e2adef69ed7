"""Processes that end together: whatever ends one of them, none is left behind.

Two processes watch each other. The *guardian* starts the *worker*, which starts everything else. When the
guardian dies, the worker ends everything and itself; when the worker dies, the guardian does. Both are
"subreapers": a process whose parent has died becomes their child, so that nothing escapes by forking twice.
(Subreapers are Linux's; elsewhere an orphan of a worker that was killed with SIGKILL can escape.)
"""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from stack.postgres import PostgresError, Server

POLL_SECONDS = 0.1
GRACE_SECONDS = 15.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_CHILD_SUBREAPER = 36


class StackError(Exception):
    """The stack can't go on; the message says what happened, where, and what to do."""


class Stopped(Exception):
    """Somebody asked the stack to end."""


class Family:
    """The processes that the worker started, and its only way to wait: so it never misses the end of one."""

    def __init__(self, guardian: int, logs: Path):
        self._guardian = guardian
        self._logs = logs
        self._names: dict[int, str] = {}
        self._asked_to_end = False
        self._listen()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start a process that has to live as long as the stack; its output goes to `<name>.log`."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.adopt(name, process.pid)
        return process.pid

    def adopt(self, name: str, pid: int) -> None:
        """Watch a child that was started elsewhere as one that has to live as long as the stack."""
        self._names[pid] = name

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run a command to its end; raises `StackError` when it fails."""
        pid = self.start(name, command, environment)
        while pid in self._names:
            self.wait(finishing=pid)

    def wait(self, finishing: int | None = None) -> None:
        """Let a moment pass. Raises `StackError` when a process has ended, `Stopped` when all are to end.

        `finishing`: the process that may end, with code 0.
        """
        for pid, code in _reap():
            name = self._names.pop(pid, None)
            if name and (pid != finishing or code):
                raise StackError(f"{name} ended ({_describe(code)}): see {self.log(name)}")
        if self._asked_to_end or os.getppid() != self._guardian:
            raise Stopped
        time.sleep(POLL_SECONDS)

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _listen(self) -> None:
        def ask(*_: object) -> None:
            self._asked_to_end = True

        for number in SIGNALS:
            signal.signal(number, ask)


def guarded(work: Callable[[Family], None], logs: Path, postgres: Server, owner: int | None = None) -> int:
    """Do `work` in a worker process; return its exit code when it and everything that it started are gone.

    The code is 0 when the work was done or somebody asked for its end (Ctrl-C, SIGTERM), else 1.
    `postgres` is ended last. `owner`: the parent's process id, if its end is to end the work as well.
    """
    asked: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda number, _: asked.append(number))
    _adopt_orphans()
    worker = multiprocessing.get_context("fork").Process(target=_work, args=(work, logs, postgres, os.getpid()))
    worker.start()
    while worker.exitcode is None:
        if asked or (owner and os.getppid() != owner):
            worker.terminate()  # at every turn: at the first it may not listen yet
        worker.join(POLL_SECONDS)
    end_descendants(postgres)
    return 1 if worker.exitcode else 0


def end_descendants(postgres: Server) -> None:
    """End every process below this one: first all others, then Postgres."""
    _end(lambda: _descendants(without=postgres.pid), GRACE_SECONDS)
    try:
        postgres.stop()
    except PostgresError as error:
        print(error, file=sys.stderr, flush=True)
    _end(_descendants, 0)


def _work(work: Callable[[Family], None], logs: Path, postgres: Server, guardian: int) -> None:
    os.setsid()  # Ctrl-C reaches the guardian alone, which passes it on
    _adopt_orphans()
    family = Family(guardian, logs)
    try:
        work(family)
    except Stopped:
        pass
    except (StackError, PostgresError) as error:
        print(f"stack: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    finally:
        end_descendants(postgres)


def _end(find: Callable[[], list[psutil.Process]], grace: float) -> None:
    """Ask the children among the found processes to end, and kill whatever is left after `grace` seconds.

    If a child ends and leaves processes behind, these become children and are asked as well.
    """
    deadline = time.monotonic() + grace
    asked: set[int] = set()
    while processes := find():
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                if time.monotonic() >= deadline:
                    process.kill()
                elif process.ppid() == os.getpid() and process.pid not in asked:
                    asked.add(process.pid)
                    process.terminate()
        time.sleep(POLL_SECONDS / 2)


def _descendants(without: int | None = None) -> list[psutil.Process]:
    """Return the living processes below this one, except the process `without` and its children."""
    _reap()
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            spared = without and without in (process.pid, process.ppid())
            if not spared and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _reap() -> list[tuple[int, int]]:
    """Return the children that have ended since the last call, with their exit codes (negative: the signal)."""
    ended = []
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


def _describe(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
