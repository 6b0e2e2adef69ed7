"""`python -m tests.mutants`: put small faults into the core, one at a time, and see whether a test notices each.

Each runs in a process of its own, on a copy of the repository, against a Postgres of the worker's. What no test noticed
is named: it is a test that lacks, or a mutant that behaves as the original does.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.util import Finalize
from pathlib import Path
from random import Random

from stack.postgres import Postgres
from tests.folders import quick_folder
from tests.mutants.mutations import Mutant, mutants_of
from tests.mutants.reach import Reach, Recorder

CORE = ("include/warehouse", "include/confidence", "include/api", "include/sources/mirror")
# The tests that may notice a fault in it.
TESTS = (
    "tests/api",
    "tests/confidence",
    "tests/warehouse",
    "tests/contract",
    "tests/plugins/test_operators.py",
    "tests/plugins/test_watch.py",
    "tests/sources",
)
# How long the tests of one mutant may take, measured without it.
TESTS_SECONDS = 240
MIGRATIONS = "include/warehouse/migrations"
HASTY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
# No mutant may run for longer: most that take long wait for something that never comes.
LIMIT_SECONDS = 600
SLOW = "the time of the tests"
# What a process of pytest takes a second to import, and what no mutant changes.
PRELOADED = ("pytest", "psycopg", "requests", "hypothesis", "starlette.applications", "uvicorn", "boto3", "msgspec")
OURS = ("include", "tests", "stack", "plugins", "dags", "benchmarks", "docs")


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the first test that failed, SLOW when they did not end, or "" when none did."""

    mutant: Mutant
    noticed_by: str
    seconds: float


def main() -> int:
    """Run them, name those that nothing noticed, and tell the share."""
    arguments = _arguments()
    mutants = [mutant for path in _modules(arguments.path) for mutant in mutants_of(path)]
    chosen = Random(arguments.seed).sample(mutants, min(arguments.number or len(mutants), len(mutants)))
    verdicts = []
    with ProcessPoolExecutor(arguments.processes) as pool:
        reach = _reach(pool, arguments.reach)
        tests = [reach.tests_of(mutant, TESTS_SECONDS) for mutant in chosen]
        for verdict in pool.map(_verdict, chosen, tests):
            verdicts.append(verdict)
            told = f"noticed by {verdict.noticed_by}" if verdict.noticed_by else "NOT NOTICED"
            print(f"{len(verdicts)}/{len(chosen)} {verdict.mutant}: {told} ({verdict.seconds:.0f} s)", flush=True)
    print(report(verdicts, len(mutants)))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("path", nargs="*", default=CORE, help="modules or folders; all of the core by default")
    parser.add_argument("--number", type=int, help="so many of the mutants, by chance; all by default")
    parser.add_argument("--seed", type=int, default=0, help="the chance")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--reach", type=Path, help="a file that keeps which tests reach what, for another run")
    return parser.parse_args()


def _reach(pool: ProcessPoolExecutor, kept: Path | None) -> Reach:
    """Which tests reach what: as it was kept, else found by running them once."""
    if kept and kept.exists():
        return Reach.read(kept)
    files = [
        file for path in map(Path, TESTS) for file in (sorted(path.glob("test_*.py")) if path.is_dir() else [path])
    ]
    reach = Reach()
    for file, found in zip(files, pool.map(_reached, files), strict=True):
        # Such as tests of what one role may not see: all roles are one user here.
        left_out = f", left out since they fail without a mutant: {', '.join(found.failed)}" if found.failed else ""
        print(f"{file}: {len(found.seconds)} tests{left_out}", flush=True)
        reach.add(found)
    if kept:
        reach.write(kept)
    return reach


def _modules(paths: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if not str(module).startswith(MIGRATIONS):
                yield module


def report(verdicts: Sequence[Verdict], of: int) -> str:
    """The share that was noticed, and each mutant that wasn't, or whose tests did not end: it may be the machine."""
    missed = [verdict for verdict in verdicts if not verdict.noticed_by]
    noticed = len(verdicts) - len(missed)
    share = 100 * noticed / max(1, len(verdicts))
    slow = [verdict for verdict in verdicts if verdict.noticed_by == SLOW]
    lines = [f"{noticed} of {len(verdicts)} mutants were noticed ({share:.1f} %), of {of} that there are"]
    lines += [f"  {verdict.mutant}" for verdict in missed]
    lines += [f"{len(slow)} of those that were noticed were so only by {SLOW}"] if slow else []
    return "\n".join([*lines, *(f"  {verdict.mutant}" for verdict in slow)])


class _Bench:
    """A worker's copy of the repository and its Postgres."""

    def __init__(self) -> None:
        self._closing = ExitStack()
        Finalize(None, self._closing.close, exitpriority=1)
        self._folder = self._closing.enter_context(quick_folder("mutants"))
        self.copy = self._folder / "copy"
        for name in subprocess.check_output(["git", "ls-files", "-z"], text=True).split("\0")[:-1]:
            if Path(name).exists():
                (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(name, self.copy / name)
        (self.copy / ".venv").symlink_to(Path(".venv").resolve())
        postgres = self._closing.enter_context(Postgres(self._folder / "postgres", settings=HASTY))
        os.environ["STACK_POSTGRES_URL"] = postgres.url("postgres")
        for name in PRELOADED:
            import_module(name)

    def noticed_by(self, mutant: Mutant, tests: Sequence[str]) -> str:
        """The first test that failed, or "" when all passed."""
        file = self.copy / mutant.path
        whole = file.read_bytes()
        file.write_bytes(mutant.source())
        try:
            code = self._pytest(["-x", *tests], limit=LIMIT_SECONDS)
        finally:
            file.write_bytes(whole)
        if code == 0:
            return ""
        if code is None:
            return SLOW
        lines = self._output.read_text().splitlines()
        failed = [line.split()[1] for line in lines if line.startswith(("FAILED", "ERROR"))]
        return failed[0] if failed else "the end of the tests"

    def reached(self, file: Path) -> Reach:
        """What the tests of a file reach."""
        found = self._folder / "reach"
        code = self._pytest([str(file)], reach=found)
        if code not in (0, 1):
            raise RuntimeError(f"{file} fails without a mutant ({code}):\n{self._output.read_text()[-2000:]}")
        return Reach.read(found)

    def _pytest(self, arguments: Sequence[str], *, limit: float | None = None, reach: Path | None = None) -> int | None:
        """The exit code of pytest in a process of its own, None where it took too long."""
        pid = os.fork()
        if pid == 0:
            self._run(arguments, reach)
        deadline = time.monotonic() + limit if limit else None
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if deadline and time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return None
            time.sleep(0.05)

    @property
    def _output(self) -> Path:
        return self._folder / "output"

    def _run(self, arguments: Sequence[str], reach: Path | None) -> None:
        """The child: pytest in the copy, with nothing of ours imported."""
        try:
            os.setsid()
            os.chdir(self.copy)
            with self._output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
                del sys.modules[name]
            sys.path[:] = [str(self.copy), *(path for path in sys.path if path not in ("", os.environ.get("PWD")))]
            recorder = Recorder() if reach else None
            always = ["-q", "-p", "no:cacheprovider", "--no-header"]
            code = import_module("pytest").main([*always, *arguments], plugins=[recorder] if recorder else [])
            if recorder:
                recorder.reach(self.copy).write(reach)
            sys.stdout.flush()
        except BaseException:  # noqa: BLE001
            os._exit(9)
        os._exit(int(code))


_bench: list[_Bench] = []


def _verdict(mutant: Mutant, tests: Sequence[str]) -> Verdict:
    began = time.monotonic()
    return Verdict(mutant, _my_bench().noticed_by(mutant, tests) if tests else "", time.monotonic() - began)


def _reached(file: Path) -> Reach:
    return _my_bench().reached(file)


def _my_bench() -> _Bench:
    if not _bench:
        _bench.append(_Bench())
    return _bench[0]


if __name__ == "__main__":
    sys.exit(main())
