"""Which faults are put into a module, and that each is a module still."""

import ast
from pathlib import Path

import pytest

from tests.mutants.mutations import mutants_of

MODULE = Path(__file__).with_name("mutations.py")


def changed(tmp_path: Path, source: str) -> list[str]:
    """The mutants of a module, without what they have in common with it."""
    path = tmp_path / "module.py"
    path.write_text(source)
    return [mutant.source().decode() for mutant in mutants_of(path)]


@pytest.mark.parametrize(
    ("source", "mutants"),
    [
        ("a <= b < c", ["a < b < c", "a <= b <= c"]),
        ("a is not\\\n b", ["a is\\\n b"]),
        ("(a) and (b or c)", ["(a) or (b or c)", "(a) and (b and c)"]),
        ("x = not a", ["x = a"]),
        ("if a(b): pass", ["if (not (a(b))): pass"]),
        ("x = [a for a in b if a]", ["x = [a for a in b if (not (a))]"]),
        ("x = 1 + y", ["x = 2 + y", "x = 1 - y"]),
        ("x = 'a' + y", []),
        ("raise A(b)", ["pass"]),
        ("def f(a: int = 0) -> int:\n  'A docstring: SELECT a AND b.'", ["a: int = 1"]),
        ("log.info('%s', a)\nx = True", ["log.info('%s', a)\nx = False"]),
        (
            "x = 'SELECT a FROM b WHERE c IS NOT NULL AND d <= 1 FOR UPDATE'",
            ["c IS NULL", "NULL OR d", "d < 1", "<= 1'"],
        ),
        ("x = 'SELECT (' 'CREATE TABLE IF NOT EXISTS a)'", []),
        ("x = 'UPDATE ä SET a = 1 WHERE b = 2'", ["a = 1 WHERE b <> 2"]),
        ("x = 'only a text = true AND false'.lower()", ["= false AND", "true OR false", "AND true'"]),
        ("x = 'words alone'", []),
    ],
)
def test_the_mutants_of_a_module(tmp_path, source, mutants):
    found = changed(tmp_path, source)
    assert len(found) == len(mutants)
    for mutant in mutants:
        assert any(mutant in each for each in found), (mutant, found)


def test_each_mutant_is_a_module():
    mutants = mutants_of(MODULE)
    assert len(mutants) > 50
    for mutant in mutants:
        ast.parse(mutant.source())
        assert mutant.source() != MODULE.read_bytes()
