"""Whatever ends guardian, worker or a child, nothing is left behind. Cheap processes stand for the services."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from stack.postgres import Postgres
from stack.settings import REPOSITORY

# A service of three processes, whose grandchild ignores SIGTERM.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN) if os.fork() == 0 and os.fork() == 0 else None
open({mark!r} + f"/{{os.getpid()}}", "w").close()
time.sleep(600)
"""
FAMILY = """
import sys
from pathlib import Path
from stack import guardian
from stack.postgres import Postgres

guardian.GRACE_SECONDS = 1.0
folder = Path(sys.argv[1])
postgres = Postgres(folder / "postgres", settings={"shared_buffers": "16MB", "fsync": "off"})

def work(family):
    postgres.start()
    family.adopt("postgres", postgres.pid)
    family.run("quick", [sys.executable, "-c", "print('done')"], {})
    for name in ("one", "two"):
        family.start(name, [sys.executable, "-c", (folder / "service.py").read_text()], {})
    while True:
        family.wait()

owner = int(sys.argv[2]) if sys.argv[2:] else None
sys.exit(guardian.guarded(work, folder, postgres, owner))
"""
SERVICE_PROCESSES = 6  # two services of three processes each


class Running:
    """A guardian with its worker, a Postgres and two services."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder = folder
        self.marks = folder / "marks"
        self.marks.mkdir()
        (folder / "service.py").write_text(STUBBORN.format(mark=str(self.marks)))
        with (folder / "out").open("wb") as out:
            command = [sys.executable, "-c", FAMILY, str(folder), *arguments]
            self.guardian = subprocess.Popen(command, cwd=REPOSITORY, stdout=out, stderr=out, start_new_session=True)
        wait_until(lambda: len(list(self.marks.iterdir())) == SERVICE_PROCESSES, 20)
        [self.worker] = psutil.Process(self.guardian.pid).children()
        self.services = [psutil.Process(int(mark.name)) for mark in self.marks.iterdir()]
        self.postmaster = psutil.Process(Postgres(folder / "postgres").pid)
        self.everything = [self.worker, *self.services, self.postmaster, *self.postmaster.children()]

    @property
    def told(self) -> str:
        return (self.folder / "out").read_text()

    def end(self) -> int:
        """The guardian's exit code, once all its processes are gone."""
        code = self.guardian.wait(timeout=20)
        assert not psutil.wait_procs(self.everything, timeout=20)[1]
        return code


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.05)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    started = Running(tmp_path)
    yield started
    for process in [started.guardian, *started.everything]:
        if psutil.pid_exists(process.pid):
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end(running: Running, number: signal.Signals):
    running.guardian.send_signal(number)
    assert running.end() == 0
    assert "database system is shut down" in (running.folder / "postgres/postgres.log").read_text()


def test_the_worker_is_killed(running: Running):
    running.worker.kill()
    assert running.end() == 1
    assert "database system is shut down" in (running.folder / "postgres/postgres.log").read_text()


def test_the_guardian_is_killed(running: Running):
    running.guardian.kill()
    assert running.end() == -signal.SIGKILL
    assert "database system is shut down" in (running.folder / "postgres/postgres.log").read_text()


@pytest.mark.drill("killed-part")
def test_a_service_crashes(running: Running):
    service = next(process for process in running.services if process.ppid() == running.worker.pid)
    service.kill()
    assert running.end() == 1
    assert f"ended (killed by SIGKILL): see {running.folder}/" in running.told
    assert running.told.count("\n") == 1


@pytest.mark.drill("killed-postgres")
def test_postgres_crashes(running: Running):
    running.postmaster.kill()
    assert running.end() == 1
    assert "postgres ended (killed by SIGKILL)" in running.told


def test_the_owner_ends(tmp_path: Path):
    """The process that asked for the family ends by SIGKILL: the family ends with it."""
    script = "import os, subprocess, sys; subprocess.Popen([*sys.argv[1:], str(os.getpid())]).wait()"
    (tmp_path / "marks").mkdir()
    (tmp_path / "service.py").write_text(STUBBORN.format(mark=str(tmp_path / "marks")))
    family = [sys.executable, "-c", FAMILY, str(tmp_path)]
    owner = subprocess.Popen([sys.executable, "-c", script, *family], cwd=REPOSITORY, start_new_session=True)
    wait_until(lambda: len(list((tmp_path / "marks").iterdir())) == SERVICE_PROCESSES, 20)
    everything = psutil.Process(owner.pid).children(recursive=True)
    owner.kill()
    owner.wait()
    assert not psutil.wait_procs(everything, timeout=20)[1]


def test_a_failing_step_names_its_log(tmp_path: Path):
    script = FAMILY.replace("print('done')", "raise SystemExit(3)")
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"stack: quick ended (exit code 3): see {tmp_path}/quick.log\n"


def test_a_stop_during_the_first_moment_is_heard(tmp_path: Path):
    command = [sys.executable, "-c", FAMILY, str(tmp_path)]
    guardian = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
    wait_until(lambda: bool(psutil.Process(guardian.pid).children()), 20)
    guardian.terminate()
    assert guardian.wait(timeout=20) == 0
    assert not (tmp_path / "postgres/data/postmaster.pid").exists()
