"""The harness itself: it sees what a source does wrong, and it plays a seed the same way each time."""

from collections.abc import Callable
from typing import Any

import pytest
from psycopg import sql

from tests.contract.account import Run
from tests.liar.plan import Plan, draw
from tests.liar.play import _played, play

SOURCE = "repairshopr"
NIGHT = Plan(1, changed=False, synced=False)


@pytest.fixture
def stage(open_stage):
    return open_stage(SOURCE)[0]


@pytest.fixture
def heard(open_stage):
    return open_stage(SOURCE)[1]


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a verb do something more, as a source would that does it wrong: the statement runs behind it."""

    def after(verb: str, statement: str) -> None:
        honest = getattr(Run, verb)

        def wrong(run: Run, *args: Any, **params: Any) -> Any:
            result = honest(run, *args, **params)
            run.conn.execute(sql.SQL(statement))
            return result

        monkeypatch.setattr(Run, verb, wrong)

    return after


ONE = "WHERE id = (SELECT min(id) FROM repairshopr.customers)"


class TestSees:
    def test_a_live_row_that_is_gone(self, stage, after):
        after("scan_one", f"UPDATE repairshopr.customers SET deleted_at = now() {ONE}")
        assert "lost" in _played(stage, NIGHT, None, ignore).broken

    def test_a_true_row_that_is_made_false(self, stage, after):
        after("scan_one", f"UPDATE repairshopr.customers SET firstname = 'false' {ONE}")
        assert "harmed" in _played(stage, NIGHT, None, ignore).broken

    def test_a_copy_that_is_confirmed_and_false(self, stage, after):
        after("verify", "DELETE FROM repairshopr.line_items")
        assert "false" in _played(stage, NIGHT, None, ignore).broken

    def test_nothing_where_all_is_well(self, stage):
        outcome = _played(stage, NIGHT, None, ignore)
        assert (outcome.confirmed, outcome.broken) == (True, {})


def ignore(*_: object) -> None:
    pass


def test_a_seed_is_played_alike(stage, heard):
    seed = next(seed for seed in range(100) if draw(stage.vendor, heard, seed).night == "repair")
    first, second = play(stage, heard, seed), play(stage, heard, seed)
    assert (first.plan, sorted(first.told), first.confirmed) == (second.plan, sorted(second.told), second.confirmed)
