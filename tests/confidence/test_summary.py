"""The summary on its way through XCom and into the log."""

import json

import pytest

from include.confidence.summary import MAX_EXAMPLES, ForensicSummary, UnusableSummary
from tests.confidence.builders import METRIC, summary


def test_json_round_trip_gives_the_same_summary():
    scanned = summary(3, plan=(1, 2, 3), metrics={METRIC: 3, "db_not_in_api_unique": None})
    assert ForensicSummary.from_json(json.loads(json.dumps(scanned.to_json()))) == scanned


def test_json_is_a_copy():
    scanned = summary(3)
    scanned.to_json()["metrics"][METRIC] = 4
    scanned.to_json()["plan"]["delete"] = 4
    assert scanned == summary(3)


def test_json_stays_a_few_kb():
    names = {f"a_metric_with_a_rather_long_name_{number}": 10**9 for number in range(20)}
    examples = {f"examples_{number}": list(range(10**9, 10**9 + MAX_EXAMPLES)) for number in range(5)}
    assert len(json.dumps(summary(metrics=names, examples=examples).to_json())) < 4096


def _without(key):
    data = summary(3).to_json()
    del data[key]
    return data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "version is None"),
        ([], "version is None"),
        ("scan", "version is None"),
        (_without("version"), "version is None"),
        (summary(3).to_json() | {"version": 3}, "version is 3, this code reads 2"),
        (_without("metrics"), "`metrics`"),
        (_without("plan"), "`plan`"),
        (_without("live_rows"), "`live_rows`"),
        (summary(3).to_json() | {"epoch": "1"}, "$.epoch"),
        (summary(3).to_json() | {"metrics": {METRIC: "3"}}, "$.metrics"),
        (summary(3).to_json() | {"metrics": {METRIC: 3.5}}, "$.metrics"),
        (summary(3).to_json() | {"plan": {"insert": 1, "update": 1}}, "`delete`"),
        (summary(3).to_json() | {"examples": {"missing_examples": list(range(26))}}, "more than 25 examples"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line_that_says_what_to_clear(data, why):
    with pytest.raises(UnusableSummary) as refusal:
        ForensicSummary.from_json(data)
    message = str(refusal.value)
    assert why in message
    assert message.startswith("The forensic_summary that scan left can't be used")
    assert message.endswith("clear scan with downstream.")
    assert "\n" not in message


def test_line_is_one_line_of_json_with_sorted_keys_and_every_figure_at_the_top():
    line = summary(3, plan=(1, 0, 0), evidence="this one").line()
    assert "\n" not in line
    fields = json.loads(line)
    assert list(fields) == sorted(fields)
    assert fields == {
        "event": "forensic_summary",
        "source": "repairshopr",
        "entity": "line_items",
        "scope": "all",
        "scan_id": "scan",
        "run": "run of scan",
        "epoch": 1,
        METRIC: 3,
        "api_reported_total_entries": 990,
        "missing_examples": [7, 8],
        "plan": {"insert": 1, "update": 0, "delete": 0},
        "live_rows": 1000,
        "accounts": {},
        "incomplete": "",
        "evidence": "this one",
        "version": 2,
    }


def test_each_scan_is_evidence_of_its_own_and_stays_so_on_its_way():
    scanned = summary(3)
    assert scanned.evidence != summary(3).evidence
    assert ForensicSummary.from_json(json.loads(json.dumps(scanned.to_json()))).evidence == scanned.evidence


@pytest.mark.parametrize("metrics", [{"epoch": 1}, {"event": 1}, {"api_reported_total_entries": 1}])
def test_a_figure_must_not_hide_another_in_the_line(metrics):
    with pytest.raises(ValueError, match=f"names used twice.*line_items: {next(iter(metrics))}"):
        summary(metrics=metrics)
