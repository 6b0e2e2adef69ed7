"""No lie wins: a hundred runs of each source; `make liar N=...` plays more."""

import pytest

from include.sources import REGISTRY
from stack.settings import SIMULATORS
from tests.liar.play import play
from tests.liar.stage import STAGED, UNSTAGED

# Each process that plays some of a source's runs opens its stage, which takes as long as twenty of them.
HANDFULS, RUNS = 2, 50


@pytest.mark.parametrize("source", REGISTRY)
def test_every_source_with_a_simulator_has_a_stage(source):
    """One that a stub stands in for has none: the report's head names it, and nothing is proven of it here."""
    assert (source in UNSTAGED) == (source not in SIMULATORS)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", STAGED)
def test_honest_runs_are_confirmed(open_stage, source):
    """Without a lie the property holds, and every row is proven."""
    _, _, outcomes = open_stage(source)
    assert [outcome.message(source) for outcome in outcomes if outcome.broken or not outcome.confirmed] == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("handful", range(HANDFULS))
@pytest.mark.parametrize("source", STAGED)
def test_no_lie_wins(open_stage, source, handful):
    stage, heard, _ = open_stage(source)
    outcomes = [play(stage, heard, seed) for seed in range(handful * RUNS, (handful + 1) * RUNS)]
    broken = [outcome.message(source) for outcome in outcomes if outcome.broken]
    assert not broken, "\n\n".join(broken)
    assert any(outcome.told for outcome in outcomes), "no lie was told, so nothing is proven"
