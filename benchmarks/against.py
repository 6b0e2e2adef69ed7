"""This folder against a commit, pair by pair: `make bench BASE=<commit>`.

The commit is checked out in a temporary folder, which gets the benchmarks of this one, so that both do the same work.
If they don't run on its code, its own ones are taken. The two are measured in turns, with our roads alone and in
smaller sizes than those of the results. Of each figure the ratios of the pairs have a median; one above LIMIT is a
failure.
"""

import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from subprocess import DEVNULL, PIPE

from benchmarks.figures import Section
from benchmarks.measure import REPOSITORY, BenchError

log = logging.getLogger(__name__)

LIMIT = 1.15
# By measure what is lost in the noise: what is less counts as so much.
FLOORS = {"wall s": 0.2, "CPU s": 0.2, "requests": 1, "peak MB": 20}

# By "section: line" its measures.
Readings = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Compared:
    """A measure of a line: the medians on both sides, and the median of the pairs' ratios (above 1: it got worse)."""

    line: str
    measure: str
    base: float
    now: float
    ratio: float

    @property
    def worse(self) -> bool:
        return self.ratio > LIMIT

    def __str__(self) -> str:
        verdict = "  WORSE" if self.worse else ""
        return f"{self.ratio:6.2f} x  {self.line}, {self.measure}: {self.base:,.2f} -> {self.now:,.2f}{verdict}"


def readings(sections: Sequence[Section]) -> dict[str, dict[str, float]]:
    """Return the measures of each of our own figures, by its title. Two versions are compared by them."""
    found: dict[str, dict[str, float]] = {}
    for section in sections:
        for figure in section.figures:
            took = figure.measured
            if took is None or figure.peer:
                continue
            cpu = took.cpu + (took.postgres_cpu or 0)
            known = {"wall s": took.wall, "CPU s": cpu, "requests": figure.requests, "peak MB": took.memory}
            measures = {name: value for name, value in known.items() if value is not None}
            found[f"{section.title}: {figure.what}"] = measures
    return found


def compared(pairs: Sequence[tuple[Readings, Readings]]) -> list[Compared]:
    """Return the measures that all of the pairs (base, now) have, the worst ratio first."""
    first = pairs[0][0]
    every = [reading for pair in pairs for reading in pair]
    common = [
        (line, measure)
        for line in first
        for measure in first[line]
        if all(measure in reading.get(line, {}) for reading in every)
    ]
    return sorted((_compared(line, measure, pairs) for line, measure in common), key=lambda each: -each.ratio)


def _compared(line: str, measure: str, pairs: Sequence[tuple[Readings, Readings]]) -> Compared:
    floor = FLOORS[measure]
    sides = [(base[line][measure], now[line][measure]) for base, now in pairs]
    ratio = median(max(now, floor) / max(base, floor) for base, now in sides)
    return Compared(line, measure, *(median(side) for side in zip(*sides, strict=True)), ratio)


def left_out(pairs: Sequence[tuple[Readings, Readings]]) -> list[str]:
    """Return the lines that one side lacks, so that they can't be compared."""
    base, now = pairs[0]
    return sorted(base.keys() ^ now.keys())


def compare(commit: str, pairs: int, *, quick: bool = False) -> int:
    """Measure so many pairs and print the ratios; return 1 if one is worse than LIMIT, else 0.

    Raises BenchError if there is no such commit, or if a side can't be measured.
    """
    with checked_out(commit) as base:
        found = []
        for number in range(pairs):
            log.info("pair %d of %d", number + 1, pairs)
            before = _fitting(base, quick) if number == 0 else _measured(base, quick)
            found.append((before, _measured(REPOSITORY, quick)))
    results = compared(found)
    for line in left_out(found):
        print(f"not compared, as one side lacks it: {line}")
    for result in results:
        print(result)
    worse = sum(result.worse for result in results)
    print(f"{worse} of {len(results)} figures are worse than {LIMIT} x {commit}, by the median of {pairs} pairs")
    return 1 if worse else 0


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A temporary folder with the commit's files, but with this folder's benchmarks and virtual environment."""
    with tempfile.TemporaryDirectory(prefix="bench-base-") as folder:
        tree = Path(folder) / "base"
        _git(REPOSITORY, "worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            shutil.rmtree(tree / "benchmarks", ignore_errors=True)
            shutil.copytree(
                REPOSITORY / "benchmarks", tree / "benchmarks", ignore=shutil.ignore_patterns("__pycache__")
            )
            (tree / ".venv").symlink_to(REPOSITORY / ".venv")
            yield tree
        finally:
            _git(REPOSITORY, "worktree", "remove", "--force", str(tree))


def _fitting(tree: Path, quick: bool) -> Readings:
    """Measure the base by the benchmarks of this folder; if they fail there, by its own, which stay then."""
    try:
        return _measured(tree, quick)
    except BenchError as error:
        log.info("%s: trying the benchmarks of the base's own", error)
        shutil.rmtree(tree / "benchmarks")
        _git(tree, "checkout", "--quiet", "--", "benchmarks")
        return _measured(tree, quick)


def _measured(tree: Path, quick: bool) -> Readings:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "readings.json"
        command = [sys.executable, "-m", "benchmarks", "--pair", "--json", str(file)]
        command += ["--quick"] if quick else []
        with subprocess.Popen(command, cwd=tree, stdout=DEVNULL, stderr=PIPE, text=True) as process:
            try:
                _, errors = process.communicate()
            finally:
                # It takes its servers with it.
                process.terminate()
        if process.returncode:
            last = errors.strip().rpartition("\n")[2]
            raise BenchError(f"the benchmarks in {tree} ended with code {process.returncode}: {last}")
        return json.loads(file.read_text())


def _git(folder: Path, *command: str) -> None:
    done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"git {' '.join(command)}: {done.stderr.strip()}")
