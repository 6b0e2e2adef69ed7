"""Which tests are run for a mutant."""

from pathlib import Path

import pytest

from tests.mutants.mutations import Mutant
from tests.mutants.reach import Reach

MODULE = """\
LIMIT = 3
QUERY = "SELECT 1"


def first(x):
    return (
        x
        < LIMIT
    )


def second():
    return QUERY
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    return path


def reach_of(module: Path, **tests: list[int]) -> Reach:
    """Each test reaches those lines and takes as many seconds as its place."""
    lines: dict[int, list[str]] = {}
    for name, reached in tests.items():
        for line in reached:
            lines.setdefault(line, []).append(name)
    return Reach({name: float(place) for place, name in enumerate(tests, 1)}, {str(module): lines})


def mutant_at(module: Path, line: int) -> Mutant:
    return Mutant(module, line, 0, 0, "", "")


@pytest.mark.parametrize(
    ("line", "reached", "tests"),
    [
        (13, {"here": [13], "elsewhere": [6]}, ["here"]),
        (8, {"statement": [6], "elsewhere": [13]}, ["statement"]),
        (1, {"mention": [8], "elsewhere": [13]}, ["mention"]),
        (2, {"mention": [13], "elsewhere": [6]}, ["mention"]),
        (2, {"import": [1, 2, 5], "mention": [13]}, ["mention"]),
        (4, {"one": [13], "other": [6]}, ["one", "other"]),
        (13, {}, []),
    ],
)
def test_those_that_come_closest(module, line, reached, tests):
    """The line, else its statement, else the lines that name what it declares, else the module."""
    assert reach_of(module, **reached).tests_of(mutant_at(module, line), 100) == tests


def test_one_of_each_function_before_a_second(module):
    reach = Reach({"a[1]": 1, "a[2]": 1, "b": 5, "c": 9}, {str(module): {13: ["a[1]", "a[2]", "b", "c"]}})
    assert reach.tests_of(mutant_at(module, 13), 7) == ["a[1]", "b"]
    assert reach.tests_of(mutant_at(module, 13), 100) == ["a[1]", "b", "c", "a[2]"]


def test_all_of_the_own_file_before_others(module):
    own = f"tests/test_{module.name}::a"
    reach = Reach({"b": 1, f"{own}[1]": 2, f"{own}[2]": 3}, {str(module): {13: ["b", f"{own}[1]", f"{own}[2]"]}})
    assert reach.tests_of(mutant_at(module, 13), 5) == [f"{own}[1]", f"{own}[2]"]


def test_one_at_least(module):
    assert reach_of(module, slow=[13]).tests_of(mutant_at(module, 13), 0.5) == ["slow"]


def test_is_kept_in_a_file(module, tmp_path):
    reach = reach_of(module, one=[1], other=[1, 13])
    reach.write(tmp_path / "reach")
    assert Reach.read(tmp_path / "reach") == reach
