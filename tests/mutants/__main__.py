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
from collections.abc import Iterator, Mapping, Sequence
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

# The tests that are run for a module, by how its path begins, in their order: the first to fail ends it.
TESTS: Mapping[str, Sequence[str]] = {
    "include/warehouse": ("tests/warehouse", "tests/sources/test_scan.py", "tests/contract -k square"),
    "include/confidence": ("tests/confidence", "tests/plugins/test_operators.py tests/plugins/test_watch.py"),
    "include/api": ("tests/api", "tests/sources/test_faults.py"),
    "include/sources/mirror": (
        "tests/sources/test_scan.py tests/sources/test_sync.py tests/sources/test_mirror_evidence.py",
        "tests/contract/test_mirrors.py",
        "tests/sources/test_square_evidence.py tests/sources/test_tekmetric_lies.py",
    ),
}
MIGRATIONS = "include/warehouse/migrations"
HASTY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
# No mutant may run for longer: most that take long wait for something that never comes.
LIMIT_SECONDS = 240
# What a process of pytest takes a second to import, and what no mutant changes.
PRELOADED = ("pytest", "psycopg", "requests", "hypothesis", "starlette.applications", "uvicorn", "boto3", "msgspec")
OURS = ("include", "tests", "stack", "plugins", "dags", "benchmarks", "docs")


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the first test that failed, or "" when none did."""

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
        for verdict in pool.map(_verdict, chosen):
            verdicts.append(verdict)
            told = f"noticed by {verdict.noticed_by}" if verdict.noticed_by else "NOT NOTICED"
            print(f"{len(verdicts)}/{len(chosen)} {verdict.mutant}: {told} ({verdict.seconds:.0f} s)", flush=True)
    print(report(verdicts, len(mutants)))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("path", nargs="*", default=list(TESTS), help="modules or folders; all of the core by default")
    parser.add_argument("--number", type=int, help="so many of the mutants, by chance; all by default")
    parser.add_argument("--seed", type=int, default=0, help="the chance")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    return parser.parse_args()


def _modules(paths: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if not str(module).startswith(MIGRATIONS):
                yield module


def report(verdicts: Sequence[Verdict], of: int) -> str:
    """The share that was noticed, and each mutant that wasn't."""
    missed = [verdict for verdict in verdicts if not verdict.noticed_by]
    noticed = len(verdicts) - len(missed)
    share = 100 * noticed / max(1, len(verdicts))
    lines = [f"{noticed} of {len(verdicts)} mutants were noticed ({share:.1f} %), of {of} that there are"]
    return "\n".join([*lines, *(f"  {verdict.mutant}" for verdict in missed)])


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
        postgres = self._closing.enter_context(Postgres(self._folder / "postgres", settings=HASTY))
        os.environ["STACK_POSTGRES_URL"] = postgres.url("postgres")
        for name in PRELOADED:
            import_module(name)

    def noticed_by(self, mutant: Mutant) -> str:
        file = self.copy / mutant.path
        whole = file.read_bytes()
        file.write_bytes(mutant.source())
        try:
            return next(filter(None, map(self._failed, _tests(mutant.path))), "")
        finally:
            file.write_bytes(whole)

    def _failed(self, tests: str) -> str:
        """The first test that failed, or "" when all passed."""
        output = self._folder / "output"
        pid = os.fork()
        if pid == 0:
            self._run(tests, output)
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return f"the time of {tests}"
            time.sleep(0.05)
        if os.waitstatus_to_exitcode(status) == 0:
            return ""
        failed = [line.split()[1] for line in output.read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0] if failed else f"the end of {tests}"

    def _run(self, tests: str, output: Path) -> None:
        """The child: pytest in the copy, with nothing of ours imported."""
        try:
            os.setsid()
            os.chdir(self.copy)
            with output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
                del sys.modules[name]
            sys.path[:] = [str(self.copy), *(path for path in sys.path if path not in ("", os.environ.get("PWD")))]
            code = import_module("pytest").main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests.split()])
            sys.stdout.flush()
        except BaseException:  # noqa: BLE001
            os._exit(9)
        os._exit(int(code))


_bench: list[_Bench] = []


def _verdict(mutant: Mutant) -> Verdict:
    if not _bench:
        _bench.append(_Bench())
    began = time.monotonic()
    return Verdict(mutant, _bench[0].noticed_by(mutant), time.monotonic() - began)


def _tests(path: Path) -> Sequence[str]:
    return next(tests for begin, tests in TESTS.items() if str(path).startswith(begin))


if __name__ == "__main__":
    sys.exit(main())
