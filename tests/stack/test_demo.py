"""How the demo judges, and what it refuses; the whole story is `make demo ONCE=1`."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from stack import demo
from stack.control import Stack
from stack.demo.steps import Unexpected, expect, some
from stack.guardian import StackError
from stack.settings import SIMULATORS


def test_every_source_has_its_act():
    assert sorted(demo.SCENARIOS) == sorted(SIMULATORS)


def test_only_the_sources_that_there_are_have_their_act(monkeypatch: pytest.MonkeyPatch):
    played = []
    for source in demo.SCENARIOS:
        monkeypatch.setitem(demo.SCENARIOS, source, lambda told, _: played.append(told.source))
    monkeypatch.setattr(demo, "Airflow", lambda *_: None)
    monkeypatch.setattr(demo.psycopg, "connect", lambda *_, **__: SimpleNamespace(close=lambda: None))
    stack = SimpleNamespace(api_url="", warehouse_url="", password=str, sources=("square", "flex"))
    demo.play(stack, Console(quiet=True))
    assert played == ["square", "flex"]


def test_an_unexpected_outcome_names_what_differs_and_nothing_else():
    expect("counts", {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2})
    with pytest.raises(Unexpected, match=r"counts should be \{'b': 3\}, found \{'b': 2\}"):
        expect("counts", {"a": 1, "b": 2}, {"a": 1, "b": 3})


def test_of_many_the_first_are_named():
    assert some([1, 2, 3, 4]) == "1, 2, 3, 4"
    assert some(range(5)) == "0, 1, 2, 3, ..."


@pytest.mark.parametrize(
    "connection", ["warehouse", "notifications", *(name for each in SIMULATORS.values() for name in each.connections)]
)
def test_a_real_account_or_database_is_refused_before_anything_starts(
    connection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    variable = f"AIRFLOW_CONN_{connection.upper()}"
    monkeypatch.setenv(variable, "postgresql://somewhere.example/real")
    with pytest.raises(StackError, match=f"{variable} may be real: unset it first"):
        demo.run(Stack(tmp_path), once=True)
    assert not any(tmp_path.iterdir())
