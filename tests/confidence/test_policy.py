"""The gate's borders, and what holds for any figures."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.confidence.account import Account
from include.confidence.policy import (
    BASELINE_RUNS,
    FieldsLost,
    Gate,
    Limit,
    PastRun,
    RepairShare,
    Trend,
    Verdict,
    judge,
)
from tests.confidence.builders import METRIC, passes, past, summary

TREND = Trend(METRIC)


def verdict(value, history, policy=TREND, **figures) -> str:
    return judge(summary(value, **figures), history, [policy]).verdict


@pytest.mark.parametrize(
    ("baseline", "live_rows", "limit"),
    [
        # up to 250 the 25 rows are the wider margin ...
        (0, 1000, 25),
        (3, 1000, 28),
        (100, 1000, 125),
        (250, 1000, 275),
        # ... above it the 10 %,
        (260, 1000, 286),
        (5000, 1000, 5500),
        # and from 25,000 live rows on 0.1 % of them where that is more.
        (100, 25_000, 125),
        (100, 26_000, 126),
        (100, 1_000_000, 1100),
        (20_000, 1_000_000, 22_000),
    ],
)
def test_worse_is_strictly_above_both_margins(baseline, live_rows, limit):
    history = passes(baseline)
    assert verdict(limit, history, live_rows=live_rows) == "pass"
    assert verdict(limit + 1, history, live_rows=live_rows) == "warn"
    assert judge(summary(limit, live_rows=live_rows), history, [TREND]).gates == (
        Gate(METRIC, baseline, limit, limit, Verdict.PASS),
    )


def test_a_limit_between_two_rows():
    judged = judge(summary(281), passes(255), [TREND])
    assert (judged.verdict, judged.gates[0].limit) == ("warn", 280.5)
    assert verdict(280, passes(255)) == "pass"


def test_a_policy_can_be_stricter_than_the_default():
    assert verdict(1, passes(0), Trend(METRIC, relative=0, absolute=0, share=0)) == "warn"


@pytest.mark.parametrize(
    ("values", "baseline"),
    [
        ([7], 7),
        ([7, 10], 8.5),
        ([1, 2, 9], 2),
        ([1, 2, 9, 3, 4], 3),
        ([1, 2, 9, 3, 4, 900, 900, 900], 3),
    ],
)
def test_baseline_is_the_median_of_the_last_five_passes(values, baseline):
    assert judge(summary(), passes(*values), [TREND]).gates[0].baseline == baseline


def test_only_passes_make_a_baseline():
    history = [past(900, Verdict.WARN), past(900, Verdict.HOLD), past(10)]
    assert judge(summary(), history, [TREND]).gates[0].baseline == 10


def test_a_run_that_did_not_measure_the_metric_takes_no_place_in_the_baseline():
    history = [
        past(None),
        PastRun("other", {}, Verdict.PASS, (), accepted=False),
        *passes(10, 11, 12, 13, 14, 90),
    ]
    assert judge(summary(), history, [TREND]).gates[0].baseline == 12


@pytest.mark.parametrize("metrics", [{}, {METRIC: None}])
def test_a_metric_that_was_not_measured_is_not_judged(metrics):
    judged = judge(summary(metrics=metrics), passes(0), [TREND])
    assert (judged.verdict, judged.worse, judged.reasons) == ("pass", (), ())
    assert judged.gates == (Gate(METRIC, 0, None, None, None),)


def test_nothing_to_judge_passes():
    assert judge(summary(900), [], []).verdict == "pass"


@pytest.mark.parametrize(("rows", "limit"), [(0, 20), (100, 20), (400, 20), (420, 21), (10_000, 500)])
def test_share_of_deletes(rows, limit):
    assert verdict(0, [], RepairShare(), live_rows=rows, plan=(0, 0, limit)) == "pass"
    assert verdict(0, [], RepairShare(), live_rows=rows, plan=(0, 0, limit + 1)) == "hold"


@pytest.mark.parametrize(("rows", "limit"), [(0, 20), (100, 20), (105, 21), (10_000, 2000)])
def test_share_of_changes(rows, limit):
    assert verdict(0, [], RepairShare(), live_rows=rows, plan=(0, limit, 0)) == "pass"
    assert verdict(0, [], RepairShare(), live_rows=rows, plan=(0, limit + 1, 0)) == "hold"


def test_filling_an_empty_copy_is_not_a_mass_change():
    assert verdict(0, [], RepairShare(), live_rows=0, plan=(1_000_000, 0, 0)) == "pass"


@pytest.mark.parametrize(("changed", "verdict_"), [(20, "pass"), (21, "hold")])
def test_repair_of_one_table_among_larger_ones(changed, verdict_):
    """A fifth of the orders would be changed, and hardly any of all rows that belong to them."""
    tables = {
        "orders": Account(live=97, equal=97 - changed, differing=changed),
        "lines": Account(live=903, equal=903),
    }
    scanned = summary(live_rows=1000, plan=(0, changed, 0), accounts=tables)
    judged = judge(scanned, [], [RepairShare()])
    assert judged.verdict == verdict_
    assert ("21 of 97 live rows of orders" in "".join(judged.reasons)) is (verdict_ == "hold")


def test_repair_of_rows_that_a_plan_leaves_as_they_are():
    accounts = {"images": Account(live=100, equal=50, surplus=50)}
    assert verdict(0, [], RepairShare(), live_rows=100, plan=(0, 0, 0), accounts=accounts) == "pass"


def test_a_mass_repair_says_what_would_happen_and_what_does_not():
    judged = judge(summary(live_rows=10_000, plan=(0, 2500, 700)), [], [RepairShare()])
    assert judged.worse == ("plan.delete", "plan.update")
    assert judged.reasons == (
        "the repair would delete 700 of 10000 live rows looked at, above its limit 500: "
        "not applied, the writer is kept stopped until a decision",
        "the repair would update 2500 of 10000 live rows looked at, above its limit 2000: "
        "not applied, the writer is kept stopped until a decision",
    )


LIMIT = Limit("missing", of="checked", share=0.05, min_rows=20, message="is it the right bucket?")


def checked(missing, of, history=()):
    return judge(summary(metrics={"missing": missing, "checked": of}), history, [LIMIT])


@pytest.mark.parametrize(("of", "limit"), [(0, 20), (400, 20), (1000, 50)])
def test_limit_holds_at_once_even_on_a_first_run(of, limit):
    assert checked(limit, of).verdict == "pass"
    judged = checked(limit + 1, of)
    assert judged.verdict == "hold"
    assert judged.reasons == (
        f"missing is {limit + 1} of {of} checked, above its limit {limit}: is it the right bucket?",
    )


@pytest.mark.parametrize("figures", [(None, 100), (100, None)])
def test_limit_without_both_figures_is_not_judged(figures):
    judged = checked(*figures)
    assert (judged.verdict, judged.gates[0].verdict) == ("pass", None)


def test_limit_counts_from_the_level_that_a_person_accepted():
    accepted = [past(0, Verdict.HOLD, accepted=True, missing=80, checked=1000)]
    assert checked(130, 1000, accepted).verdict == "pass"
    assert checked(131, 1000, accepted).verdict == "hold"
    # One within the limit moves nothing.
    assert checked(51, 1000, [past(0, Verdict.PASS, accepted=True, missing=50, checked=1000)]).verdict == "hold"


def test_limit_does_not_move_when_fewer_rows_are_checked():
    assert checked(45, 100, [past(0, missing=45, checked=1000)]).verdict == "hold"


LOST = FieldsLost("lost", message="in no record any more")


def lost(count, declared=40, history=(), names=None):
    figures = {"lost": count, "declared_fields": declared}
    named = [f"tickets.{number}" for number in range(count or 0)] if names is None else names
    return judge(summary(metrics=figures, examples={"lost_examples": named[:25]}), history, [LOST])


def accepted_fields(*names, count=None):
    """A run whose lost fields a person has accepted; it may have named some of them only."""
    run = past(0, Verdict.HOLD, accepted=True, lost=len(names) if count is None else count, declared_fields=40)
    return [replace(run, examples={"lost_examples": list(names)})]


@pytest.mark.parametrize(("declared", "most"), [(5, 2), (20, 2), (40, 4)])
def test_a_lost_field_warns_and_many_hold_at_once(declared, most):
    assert [lost(count, declared).verdict for count in (0, 1, most, most + 1)] == ["pass", "warn", "warn", "hold"]


def test_lost_fields_are_named_with_what_to_do():
    (reason,) = lost(1).reasons
    assert reason.startswith("1 of 40 declared fields is in no record any more (lost): tickets.0. Syncs and repairs")
    assert "mend the declaration" in reason


def test_lost_fields_that_a_person_accepted_pass_and_more_of_them_do_not():
    history = accepted_fields(*(f"tickets.{number}" for number in range(5)))
    assert [lost(count, history=history).verdict for count in (5, 6, 9, 10)] == ["pass", "warn", "warn", "hold"]


def test_a_person_accepts_fields_by_their_names():
    history = accepted_fields("tickets.a")
    assert lost(1, history=history, names=["tickets.a"]).verdict == "pass"
    judged = lost(1, history=history, names=["tickets.b"])
    assert (judged.verdict, judged.gates[0].limit) == ("warn", 0)
    (reason,) = lost(2, history=history, names=["tickets.a", "tickets.b"]).reasons
    assert reason.startswith(
        "1 of 40 declared fields is in no record any more (lost), besides 1 that a person has accepted: tickets.b."
    )


@pytest.mark.parametrize(("count", "found"), [(30, "pass"), (31, "warn")])
def test_accepted_fields_above_those_that_a_summary_names_count_by_their_number(count, found):
    history = accepted_fields(*(f"tickets.{number}" for number in range(25)), count=30)
    assert lost(count, history=history).verdict == found


def test_an_open_hold_of_lost_fields_stays_while_any_is_lost():
    held = [past(0, Verdict.HOLD, held=True, worse=("lost",), lost=5)]
    assert [lost(count, history=held).verdict for count in (0, 1)] == ["pass", "hold"]
    assert lost(None, history=held).verdict == "hold"


def test_without_a_census_there_is_no_gate_of_fields():
    assert judge(summary(0), [], [LOST]).gates == ()


def test_limit_without_a_least_number_of_rows_is_the_share_alone():
    limit = Limit("missing", of="checked", share=0.05, message="is it the right bucket?")
    assert [verdict(0, (), limit, metrics={"missing": missing, "checked": 20}) for missing in (1, 2)] == [
        "pass",
        "hold",
    ]
    assert verdict(0, (), limit, metrics={"missing": 1, "checked": 19}) == "hold"


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ([past(400, Verdict.HOLD, held=True)], "hold"),
        ([past(400, Verdict.WARN)], "pass"),
        ([past(400, Verdict.HOLD, held=True, worse=("another",))], "pass"),
        ([past(100), past(400, Verdict.HOLD, held=True)], "pass"),
        ([], "pass"),
    ],
)
def test_a_figure_that_was_not_measured_stays_held(before, found):
    judged = judge(summary(metrics={}), before, [TREND])
    assert judged.verdict == found
    told = (
        f"{METRIC} was not measured: the hold of scan scan with 400 stays, the writer is kept stopped until a decision"
    )
    assert judged.reasons == ((told,) if found == "hold" else ())


def test_the_worst_gate_decides_and_the_worst_line_comes_first():
    other = Trend("api_duplicate_rows")
    scanned = summary(metrics={METRIC: 50, "api_duplicate_rows": 5}, plan=(0, 0, 900))
    judged = judge(scanned, passes(0), [other, TREND, RepairShare()])
    assert judged.verdict == "hold"
    assert judged.worse == (METRIC, "plan.delete")
    assert [line.split()[0] for line in judged.reasons] == ["the", METRIC]
    assert [gate.verdict for gate in judged.gates] == ["pass", "warn", "hold", "pass"]


def test_two_policies_on_one_metric_name_it_once():
    judged = judge(summary(metrics={"missing": 90, "checked": 1000}), [past(0, missing=0)], [Trend("missing"), LIMIT])
    assert (judged.verdict, judged.worse, len(judged.reasons)) == ("hold", ("missing",), 2)


figures = st.integers(min_value=0, max_value=10**7)
runs = st.builds(past, figures, st.sampled_from(Verdict), accepted=st.booleans(), held=st.booleans(), worse=st.just(()))


@given(st.lists(figures, min_size=1), figures, figures)
def test_never_worse_at_or_below_the_baseline(values, live_rows, below):
    history = passes(*values)
    baseline = judge(summary(), history, [TREND]).gates[0].baseline
    value = max(0, int(baseline) - below)
    assert verdict(value, history, live_rows=live_rows) == "pass"


@given(st.lists(runs), figures, figures, figures)
def test_a_higher_figure_is_never_judged_milder(history, live_rows, value, more):
    mild, strict = (verdict(figure, history, live_rows=live_rows) for figure in (value, value + more))
    order = ["pass", "warn", "hold"]
    assert order.index(mild) <= order.index(strict)


@given(st.lists(figures, min_size=BASELINE_RUNS, max_size=BASELINE_RUNS), st.data(), figures)
def test_what_is_older_than_five_passes_does_not_matter(newest, data, value):
    older = data.draw(st.lists(runs))
    assert judge(summary(value), passes(*newest) + older, [TREND]) == judge(summary(value), passes(*newest), [TREND])


@given(st.permutations([3, 50, 700, 9000, 10]), figures)
def test_the_order_of_the_last_five_passes_does_not_matter(values, value):
    assert judge(summary(value), passes(*values), [TREND]) == judge(
        summary(value), passes(3, 10, 50, 700, 9000), [TREND]
    )


@given(st.lists(figures, max_size=3), figures, st.lists(runs), figures)
def test_an_accepted_run_hides_everything_older(newer, accepted, older, value):
    known = [*passes(*newer), past(accepted, Verdict.HOLD, accepted=True)]
    assert judge(summary(value), known + older, [TREND]) == judge(summary(value), known, [TREND])
