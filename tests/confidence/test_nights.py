"""Sequences of nights through the whole gate, on a real warehouse: what the team lives through, in order."""

from itertools import count

import pytest
from psycopg import Connection

from include.confidence import holds, judgements, scan_log
from include.confidence.policy import GROWTH_RUNS, Growth, RepairShare, Trend, judge
from tests.confidence.builders import METRIC, summary

POLICIES = [Trend(METRIC), Trend("api_duplicate_rows"), Growth(METRIC), RepairShare()]


class Runbook:
    """Nightly runs of one source, up to the gate."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.nights = count(1)

    def night(self, value: int, duplicates: int = 0, **figures) -> str:
        """Run one night and return its verdict."""
        metrics = {METRIC: value, "api_duplicate_rows": duplicates}
        return self.gate(summary(scan_id=f"night {next(self.nights)}", metrics=metrics, **figures))

    def gate(self, scanned) -> str:
        scan_log.record(self.conn, scanned)
        judgement = judge(scanned, judgements.past_runs(self.conn, scanned), POLICIES)
        judgements.save_judgement(self.conn, scanned, judgement)
        holds.refresh_hold(self.conn, scanned.source)
        return judgement.verdict

    def answer(self, decision: str) -> None:
        holds.decide(self.conn, "repairshopr", decision, "oncall")

    @property
    def held(self) -> str | None:
        query = "SELECT hold_reason FROM confidence.writer WHERE source = 'repairshopr'"
        return self.conn.execute(query).fetchone()[0]


@pytest.fixture
def runbook(conn: Connection) -> Runbook:
    return Runbook(conn)


def test_the_first_run_sets_the_baseline_whatever_it_finds(runbook):
    assert runbook.night(5000) == "pass"
    assert runbook.held is None


def test_stable_nights_pass(runbook):
    assert [runbook.night(value) for value in (100, 104, 98, 125, 110, 101)] == ["pass"] * 6


def test_a_spike_once_is_a_warning(runbook):
    assert [runbook.night(value) for value in (100, 400, 100)] == ["pass", "warn", "pass"]
    assert runbook.held is None


def test_a_spike_twice_is_a_hold_that_says_why(runbook):
    assert [runbook.night(value) for value in (100, 400, 390)] == ["pass", "warn", "hold"]
    assert runbook.held == (
        f"line_items (all): {METRIC} is 390, above its limit 125 (baseline 100): "
        "worse in two consecutive runs, the writer is kept stopped until a decision"
    )


def test_two_spikes_with_a_good_night_between_are_two_warnings(runbook):
    assert [runbook.night(value) for value in (100, 400, 100, 400)] == ["pass", "warn", "pass", "warn"]


def test_two_metrics_worse_one_night_each_are_two_warnings(runbook):
    assert [runbook.night(100), runbook.night(400), runbook.night(100, duplicates=300)] == [
        "pass",
        "warn",
        "warn",
    ]


def test_a_hold_that_nobody_answers_stays_until_the_figures_recover(runbook):
    assert [runbook.night(value) for value in (100, 400, 400, 400, 400)][2:] == ["hold"] * 3
    assert runbook.night(101) == "pass"
    assert runbook.held is None


def test_a_hundred_held_nights_do_not_make_a_new_normal(runbook):
    runbook.night(100)
    assert [runbook.night(400) for _ in range(100)] == ["warn"] + ["hold"] * 99


def test_resume_makes_the_figures_the_new_baseline(runbook):
    runbook.night(100), runbook.night(400), runbook.night(400)
    runbook.answer("resume")
    assert runbook.held is None
    assert [runbook.night(value) for value in (410, 440, 445)] == ["pass", "pass", "pass"]
    assert [runbook.night(value) for value in (500, 500)] == ["warn", "hold"]


def test_worse_than_what_was_accepted_warns_first(runbook):
    runbook.night(100), runbook.night(400), runbook.night(400)
    runbook.answer("resume")
    assert [runbook.night(value) for value in (441, 441)] == ["warn", "hold"]


def test_keep_is_still_held_the_next_night(runbook):
    runbook.night(100), runbook.night(400), runbook.night(400)
    runbook.answer("keep")
    assert runbook.held
    assert runbook.night(400) == "hold"
    assert runbook.night(100) == "pass"
    assert runbook.held is None


def test_a_hold_does_not_end_while_another_metric_is_worse(runbook):
    runbook.night(100), runbook.night(400), runbook.night(400)
    assert runbook.night(100, duplicates=300) == "hold"
    assert "the hold of scan night 3 stays" in runbook.held


def test_repair_ends_the_hold_without_accepting(runbook):
    runbook.night(100), runbook.night(400), runbook.night(400)
    runbook.answer("repair")
    assert runbook.held is None
    assert runbook.night(100) == "pass"


def test_a_repair_that_did_not_help_holds_again(runbook):
    runbook.night(100), runbook.night(400), runbook.night(400)
    runbook.answer("repair")
    assert runbook.night(400) == "hold"


def test_after_a_repair_another_metric_is_worse_for_the_first_time(runbook):
    runbook.night(100), runbook.night(400), runbook.night(400)
    runbook.answer("repair")
    assert runbook.night(100, duplicates=300) == "warn"


def test_a_mass_repair_holds_at_once_and_again_as_long_as_it_is_that_large(runbook):
    runbook.night(100)
    assert runbook.night(100, plan=(0, 0, 60)) == "hold"
    runbook.answer("resume")
    assert runbook.held is None
    assert runbook.night(100, plan=(0, 0, 60)) == "hold"
    assert runbook.night(100, plan=(0, 0, 50)) == "pass"
    assert runbook.held is None


def test_slow_growth_warns_a_week_and_then_holds_and_says_since_when(runbook):
    verdicts = [runbook.night(5 * night) for night in range(19)]
    assert verdicts == ["pass"] * 11 + ["warn"] * 7 + ["hold"]
    query = "SELECT scanned_at::date FROM confidence.forensic_run WHERE scan_id = 'night 4'"
    since = runbook.conn.execute(query).fetchone()[0]
    assert runbook.held.startswith(
        f"line_items (all): 60 more rows than on {since} ({METRIC}): the median of 7 runs has grown from 15 to 75"
        " and still grows after 7 warnings, the writer is kept stopped until a decision."
    )


def test_a_hold_for_growth_stays_however_long_nobody_answers(runbook):
    [runbook.night(5 * night) for night in range(19)]
    assert [runbook.night(90) for _ in range(2 * GROWTH_RUNS)] == ["hold"] * 2 * GROWTH_RUNS
    assert "it has not fallen back since the hold of scan night " in runbook.held
    assert runbook.night(20) == "pass"
    assert runbook.held is None


def test_resume_accepts_the_level_that_has_grown(runbook):
    [runbook.night(5 * night) for night in range(19)]
    runbook.answer("resume")
    assert runbook.held is None
    assert {runbook.night(90) for _ in range(GROWTH_RUNS)} == {"pass"}
    assert [runbook.night(90 + 5 * night) for night in range(1, 16)] == ["pass"] * 7 + ["warn"] * 7 + ["hold"]


@pytest.mark.parametrize(("left", "verdict"), [(0, "pass"), (90, "hold")])
def test_a_repair_answers_growth_if_it_helps(runbook, left, verdict):
    [runbook.night(5 * night) for night in range(19)]
    runbook.answer("repair")
    assert runbook.held is None
    assert runbook.night(left) == verdict


def test_nights_on_which_another_metric_is_worse_count_for_the_one_that_grows(runbook):
    """Trend warns of duplicates every other night."""
    nights = 0
    while runbook.night(5 * nights, duplicates=100 * (nights % 2)) != "hold":
        nights += 1
    assert nights + 1 == 19
    assert f"({METRIC}): the median of 7 runs has grown from 15 to 75" in runbook.held


def test_a_repair_that_made_things_worse_is_held_over_the_next_scan(runbook):
    runbook.night(100)
    runbook.night(100)
    holds.mark_hold(runbook.conn, "night 2", "verify found 300 more than scan, roll back sync_id 7")
    assert "roll back sync_id 7" in holds.refresh_hold(runbook.conn, "repairshopr")
    assert runbook.night(400) == "hold"
    assert runbook.night(100) == "pass"
    assert runbook.held is None


def test_a_scan_made_again_in_the_same_run_is_not_a_second_bad_night(runbook):
    runbook.night(100)
    assert runbook.gate(summary(400, scan_id="a", run="tonight")) == "warn"
    assert runbook.gate(summary(400, scan_id="b", run="tonight")) == "warn"
    assert runbook.gate(summary(400, scan_id="b", run="tonight")) == "warn"
    assert runbook.gate(summary(400, scan_id="c", run="tomorrow")) == "hold"


@pytest.mark.parametrize("again", ["tonight's scan", "another scan"])
def test_a_scan_made_again_does_not_shake_off_the_hold(runbook, again):
    runbook.night(100)
    runbook.gate(summary(100, scan_id="tonight's scan", run="tonight"))
    holds.mark_hold(runbook.conn, "tonight's scan", "the outcome of a repair is unknown")
    holds.refresh_hold(runbook.conn, "repairshopr")
    scan_log.record(runbook.conn, summary(400, scan_id=again, run="tonight"))
    assert "outcome of a repair is unknown" in holds.refresh_hold(runbook.conn, "repairshopr")
    assert runbook.gate(summary(400, scan_id=again, run="tonight")) == "hold"
    assert runbook.gate(summary(100, scan_id=again, run="tonight")) == "pass"
    assert runbook.held is None


def test_a_scan_made_again_after_a_resume_finds_its_figures_accepted(runbook):
    runbook.night(100), runbook.night(400)
    assert runbook.gate(summary(400, scan_id="tonight's scan", run="tonight")) == "hold"
    runbook.answer("resume")
    assert runbook.gate(summary(400, scan_id="tonight's scan", run="tonight")) == "pass"


def test_entities_and_scopes_are_judged_apart(runbook):
    runbook.night(100), runbook.night(400)
    assert runbook.night(400, entity="invoices") == "pass"
    assert runbook.night(400, scope="pages 3-10") == "pass"
    assert runbook.night(400) == "hold"
