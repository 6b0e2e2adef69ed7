"""Which tests reach which lines of the core, and how long each takes."""

import ast
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import coverage
import pytest

from tests.mutants.mutations import Mutant


class Recorder:
    """A plugin of pytest that notes for each test what of the core it reaches."""

    def __init__(self) -> None:
        self._coverage = coverage.Coverage(data_file=None, source=["include"], concurrency="thread", config_file=False)
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        began = time.monotonic()
        try:
            return (yield)
        finally:
            self._seconds[item.nodeid] = time.monotonic() - began

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    def reach(self, copy: Path) -> "Reach":
        """What was noted; paths are those inside the copy. Tests that failed notice nothing."""
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {
            str(Path(file).relative_to(copy)): {
                line: [test for test in tests if test and test not in self._failed]
                for line, tests in data.contexts_by_lineno(file).items()
            }
            for file in data.measured_files()
        }
        return Reach(self._seconds, lines, sorted(self._failed))


@dataclass
class Reach:
    """`seconds`: of each test. `lines`: the tests by module and line. `failed`: those that fail without a mutant."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path) -> "Reach":
        seconds, lines, failed = json.loads(file.read_text()).values()
        by_line = {path: {int(line): tests for line, tests in found.items()} for path, found in lines.items()}
        return cls(seconds, by_line, failed)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    def add(self, other: "Reach") -> None:
        self.seconds |= other.seconds
        self.failed += other.failed
        for path, lines in other.lines.items():
            for line, tests in lines.items():
                self.lines.setdefault(path, {}).setdefault(line, []).extend(tests)

    def tests_of(self, mutant: Mutant, within: float) -> list[str]:
        """The tests that may notice it, as many as take so many seconds: those of the module's own file first, then of
        each function one, then one more of each.

        Those that reach its line; if none does, those that reach its statement, then those that reach a line that names
        what it declares, then those of the module. Whatever imports a module first reaches its lines outside of
        functions, so the tests that reach such a line don't count.
        """
        lines = self.lines.get(str(mutant.path), {})
        text = mutant.path.read_text()
        near = ([mutant.line], _statement(text, mutant.line)) if mutant.line in _in_functions(text) else ()
        ways = (*near, _mentions(text, mutant.line), lines)
        found = next(filter(None, (self._of(lines, way) for way in ways)), set())
        return self._as_many(found, f"test_{mutant.path.name}", within)

    def _of(self, lines: Mapping[int, list[str]], numbers: Iterable[int]) -> set[str]:
        return {test for number in numbers for test in lines.get(number, ())}

    def _as_many(self, found: Iterable[str], own: str, within: float) -> list[str]:
        turns: dict[str, int] = {}
        ordered = []
        for test in sorted(found, key=lambda test: (self.seconds[test], test)):
            function = test.partition("[")[0]
            turns[function] = turns.get(function, 0) + 1
            turn = 0 if Path(function.partition("::")[0]).name == own else turns[function]
            ordered.append((turn, self.seconds[test], test))
        chosen, left = [], within
        for _, seconds, test in sorted(ordered):
            left -= seconds
            if left < 0 and chosen:
                break
            chosen.append(test)
        return chosen


def _in_functions(text: str) -> frozenset[int]:
    """The lines of all functions' bodies."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return frozenset(line for node in functions for line in range(node.body[0].lineno, node.end_lineno + 1))


def _statement(text: str, line: int) -> Sequence[int]:
    """The lines of the innermost statement at a line."""
    around = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.stmt) and node.lineno <= line <= node.end_lineno
    ]
    inner = min(around, key=lambda node: node.end_lineno - node.lineno, default=None)
    return range(inner.lineno, inner.end_lineno + 1) if inner else ()


def _mentions(text: str, line: int) -> Iterator[int]:
    """The lines of functions that name what the outermost or the class's statement at a line declares."""
    tree, inside = ast.parse(text), _in_functions(text)
    for node in ast.walk(tree):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if targets and node.lineno <= line <= node.end_lineno:
            names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
            named = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b") if names else None
            yield from (
                n for n, each in enumerate(text.splitlines(), 1) if n in inside and named and named.search(each)
            )
