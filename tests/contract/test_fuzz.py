"""No answer that a vendor should not give ends in an unforeseen error, or in a false copy; `make fuzz` plays more."""

import psycopg
import pytest

from include.sources import REGISTRY, get_source
from include.sources.mirror.source import Mirror
from tests.contract.account import Account, Run
from tests.fuzz.outcome import Outcome
from tests.fuzz.pages import opened_pages
from tests.fuzz.play import Fuzz

RUNS, PAGES = 2, 150
MIRRORS = [source for source in REGISTRY if isinstance(get_source(source), Mirror)]


def require_sound(source: str, outcomes: list[Outcome]) -> None:
    broken = [outcome.message(source) for outcome in outcomes if outcome.faults]
    assert not broken, "\n\n".join(broken)


@pytest.mark.parametrize("source", REGISTRY)
def test_no_changed_answer_harms_the_copy(account: Account, superuser: psycopg.Connection, source: str):
    fuzz = Fuzz(account, superuser)
    require_sound(source, [fuzz.play(seed) for seed in range(RUNS)])


@pytest.mark.parametrize("source", MIRRORS)
def test_no_changed_page_ends_a_pull_in_an_unforeseen_error(run: Run, source: str):
    with opened_pages(run) as pages:
        outcomes = [pages.play(seed) for seed in range(PAGES)]
    require_sound(source, outcomes)
    assert sum(outcome.answers for outcome in outcomes) > PAGES / 2
    assert any(outcome.answers and outcome.ended[0].endswith(": well") for outcome in outcomes)
