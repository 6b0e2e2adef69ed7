"""Lasting: plans that are never empty, however small they are."""

import pytest

from include.confidence.policy import Lasting, PastRun, Verdict, judge
from tests.confidence.builders import summary

POLICY = Lasting()


def runs(*plans: int, accepted: int | None = None, warned: int | None = None) -> list[PastRun]:
    """Earlier runs, newest first, by the number of their planned changes."""
    return [
        PastRun(
            f"run {number}",
            {},
            Verdict.PASS,
            (POLICY.metric,) if number == warned else (),
            accepted=number == accepted,
            planned=planned,
        )
        for number, planned in enumerate(plans)
    ]


def verdict(planned: int, history: list[PastRun]) -> str:
    return judge(summary(plan=(planned, 0, 0)), history, [POLICY]).verdict


def test_one_row_that_is_wrong_in_seven_runs_warns():
    assert verdict(1, runs(1, 1, 1, 1, 1, 1)) == "warn"
    assert verdict(1, runs(1, 1, 1, 1, 1)) == "pass"


@pytest.mark.parametrize("night", range(6))
def test_a_run_without_a_plan_ends_it(night):
    plans = [1] * 6
    plans[night] = 0
    assert verdict(1, runs(*plans)) == "pass"
    assert verdict(0, runs(*[1] * 6)) == "pass"


def test_warns_once_a_week():
    assert [verdict(1, runs(*[1] * 20, warned=ago)) for ago in (0, 5, 6)] == ["pass", "pass", "warn"]


def test_each_kind_of_change_counts():
    for plan in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert judge(summary(plan=plan), runs(*[1] * 6), [POLICY]).verdict == "warn"


def test_what_a_person_accepted_counts_no_more():
    assert verdict(9, runs(*[9] * 6, 9, accepted=6)) == "pass"
    assert verdict(10, runs(*[10] * 6, 9, accepted=6)) == "warn"
    assert verdict(10, runs(*[10] * 5, 9, accepted=5)) == "pass"
    # It was mended since.
    assert verdict(8, runs(*[8] * 6, 0, 9, accepted=7)) == "warn"


def test_says_how_many_rows_and_what_to_do():
    reasons = judge(summary(plan=(5, 2, 1)), runs(3, 4, 5, 6, 7, 8), [POLICY]).reasons
    assert reasons == (
        "each of the last 7 plans had 3 or more changes, now 8 (plan.lasting): rows stay wrong, or go wrong again after"
        " each repair, and no sync mends it. Look at the plan, find what its rows have in common, mend the cause, and"
        " repair",
    )
