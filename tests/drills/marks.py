"""Which tests play which drill, by the marks in their files. No test is imported."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# Of tests that only `make drills` runs.
LONG = "long"


@dataclass(frozen=True)
class Played:
    """A test that plays a drill: its file below the repository, and its name there, with its class."""

    path: str
    name: str
    long: bool


def played(repository: Path) -> Mapping[str, list[Played]]:
    """Return the tests by the name of the drill, in the order of their files."""
    found: dict[str, list[Played]] = {}
    for path in sorted((repository / "tests").rglob("test_*.py")):
        text = path.read_text()
        # To parse all files takes a good part of a run of `make docs`.
        if "mark.drill" not in text:
            continue
        for drill, test in _of_file(text, path.relative_to(repository).as_posix()):
            found.setdefault(drill, []).append(test)
    return found


def _of_file(text: str, name: str) -> Iterator[tuple[str, Played]]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            tests = [(f"{node.name}.{test.name}", test) for test in node.body if isinstance(test, ast.FunctionDef)]
        else:
            tests = [(node.name, node)] if isinstance(node, ast.FunctionDef) else []
        for full_name, test in tests:
            marks = dict(_marks(test))
            for drill in marks.get("drill", ()):
                yield drill, Played(name, full_name, LONG in marks)


def _marks(test: ast.FunctionDef) -> Iterator[tuple[str, list[str]]]:
    """Yield the marks of the test with their texts."""
    for decorator in test.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        mark = call.func if call else decorator
        if isinstance(mark, ast.Attribute):
            yield mark.attr, [text.value for text in (call.args if call else ()) if isinstance(text, ast.Constant)]
