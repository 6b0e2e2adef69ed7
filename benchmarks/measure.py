"""Running a job and watching it: wall time, CPU time, the memory at its peak, and what Postgres spent on it."""

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any, NoReturn, TextIO

import psutil

from stack.postgres import Postgres

log = logging.getLogger(__name__)

REPOSITORY = Path(__file__).parent.parent
SAMPLE_SECONDS = 0.01
MEGABYTE = 2**20


class BenchError(Exception):
    """A measurement that failed or that shows something wrong; the message says which and why."""


@dataclass(frozen=True)
class Measured:
    """What a job gave back and took: seconds of wall and CPU time (its own, and all of Postgres), and its highest
    resident memory above where it stood when it began, in MB, with all that a process had which it started. None: not
    measured."""

    result: Any
    wall: float
    cpu: float
    postgres_cpu: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Job:
    """A job's process that has prepared and waits for its beginning."""

    work: str
    process: subprocess.Popen
    errors: TextIO

    def begin(self) -> None:
        self.say("go")

    def finish(self) -> tuple[dict[str, Any], float]:
        """Wait for the end and return what the job told, and its peak memory in bytes."""
        peak = 0
        while self.process.poll() is None:
            peak = max(peak, self.memory())
            time.sleep(SAMPLE_SECONDS)
        if self.process.returncode:
            self.fail()
        return json.loads(self.process.stdout.readline()), peak

    def memory(self) -> int:
        """Bytes of resident memory now, 0 when the process has ended."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).memory_info().rss
        return 0

    def say(self, line: str) -> None:
        print(line, file=self.process.stdin, flush=True)

    def fail(self) -> NoReturn:
        """Raise BenchError with the last line that the process, which has failed, wrote to stderr."""
        self.process.wait()
        self.errors.seek(0)
        last = self.errors.read().strip().rpartition("\n")[2]
        raise BenchError(f"{self.work} ended with code {self.process.returncode}: {last}")


@contextmanager
def prepared(work: str, **arguments: Any) -> Iterator[Job]:
    """A job that waits for its beginning; its process has ended when the context is left."""
    command = [sys.executable, "-m", "benchmarks.job", work]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, cwd=REPOSITORY, stdin=PIPE, stdout=PIPE, stderr=errors, text=True) as process,
    ):
        job = Job(work, process, errors)
        try:
            job.say(json.dumps(arguments))
            if process.stdout.readline() != "ready\n":
                job.fail()
            yield job
        finally:
            process.kill()


def run(postgres: Postgres, what: str, work: str, **arguments: Any) -> Measured:
    """Run a job alone, measure it and log a line; `what` names it there. Raises BenchError if it fails."""
    with prepared(work, **arguments) as job:
        before, at_rest = postgres_cpu(postgres), job.memory()
        job.begin()
        told, peak = job.finish()
        spent = postgres_cpu(postgres) - before
    log.info("%s: %.1f s", what, told["wall"])
    memory = max(0, peak - at_rest) + told["child"]
    return Measured(told["result"], told["wall"], told["cpu"], spent, memory / MEGABYTE)


def postgres_cpu(postgres: Postgres) -> float:
    """CPU seconds of the server and its sessions so far, those that have ended included."""
    server = psutil.Process(postgres.pid)
    seconds = sum(server.cpu_times()[:4])
    for session in server.children():
        with suppress(psutil.NoSuchProcess):
            seconds += sum(session.cpu_times()[:2])
    return seconds
