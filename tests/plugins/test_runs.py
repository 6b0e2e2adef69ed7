"""What all tasks have in common."""

import json
import logging
from importlib import import_module
from types import SimpleNamespace

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowFailException

from include.api.errors import TryLater
from include.warehouse.fence import DrainTimeout
from plugins.failures import DEFAULT_ARGS, FAILS_AT_ONCE
from plugins.results import push_result
from plugins.runs import ConfRefused, is_dry, refuse_unknown_conf, run_name
from plugins.settings import NoDuration, NotEnabled, duration, require_enabled


def context(conf, *params):
    return {
        "dag": SimpleNamespace(dag_id="a_dag", params=dict.fromkeys(params)),
        "run_id": "manual__1",
        "dag_run": SimpleNamespace(conf=conf),
        # As Airflow does it.
        "params": dict.fromkeys(params) | (conf or {}),
    }


def test_run_name():
    assert run_name(context({})) == "a_dag/manual__1"


@pytest.mark.parametrize("conf", [None, {}, {"dry_run": False}, {"dry_run": True, "mode": "full"}])
def test_known_params_pass(conf):
    refuse_unknown_conf(context(conf, "dry_run", "mode"))


def test_unknown_params_are_refused_by_name():
    with pytest.raises(ConfRefused, match=r"conf: drY_run, pages\. Known params: dry_run, mode\. Trigger a new run"):
        refuse_unknown_conf(context({"pages": 1, "drY_run": False, "mode": "full"}, "mode", "dry_run"))


def decided(error: BaseException) -> RetryAction:
    return DEFAULT_ARGS["retry_policy"].evaluate(error, try_number=1, max_tries=2).action


@pytest.mark.parametrize("path", FAILS_AT_ONCE)
def test_what_a_person_has_to_mend_is_not_tried_again(path):
    module, _, name = path.rpartition(".")
    assert decided(getattr(import_module(module), name)("x")) == RetryAction.FAIL


def test_what_passes_by_itself_is_tried_again():
    assert decided(TryLater("x")) == RetryAction.DEFAULT
    assert decided(ConnectionError("x")) == RetryAction.DEFAULT


def test_a_kind_of_a_named_error_is_not_tried_again_either():
    assert decided(DrainTimeout("x")) == RetryAction.FAIL


@pytest.mark.parametrize(
    ("dry_run", "run_type", "nightly", "dry"),
    [
        (True, "manual", "", True),
        (False, "manual", "", False),
        (None, "manual", "", False),
        (True, "scheduled", "", True),
        (True, "scheduled", "square", True),
        (True, "scheduled", "square, storage", False),
        (True, "scheduled", "my_storage", True),
        (False, "scheduled", "", False),
        # What a person starts is as the person says.
        (True, "manual", "storage", True),
        (True, "backfill", "storage", True),
    ],
)
def test_dry_unless_the_param_or_the_setting_for_scheduled_runs_says_otherwise(
    monkeypatch, dry_run, run_type, nightly, dry
):
    monkeypatch.setenv("AIRFLOW_VAR_NIGHTLY_REPAIR_SOURCES", nightly)
    params = {} if dry_run is None else {"dry_run": dry_run}
    run = {"params": params, "dag_run": SimpleNamespace(run_type=run_type)}
    assert is_dry(run, "storage") is dry


class TestSwitch:
    @pytest.mark.parametrize(
        ("variable", "environment", "enabled"),
        [
            (None, None, False),
            (None, "1", True),
            (None, "0", False),
            (None, "true", False),
            ("1", None, True),
            ("0", None, False),
            # Airflow's Variable wins, both ways.
            ("1", "0", True),
            ("0", "1", False),
            ("", "1", False),
        ],
    )
    def test_variable_wins_over_the_environment(self, monkeypatch, variable, environment, enabled):
        for name, value in (("AIRFLOW_VAR_RECONCILE_ENABLED", variable), ("RECONCILE_ENABLED", environment)):
            if value is not None:
                monkeypatch.setenv(name, value)
        if enabled:
            require_enabled("storage")
            return
        with pytest.raises(NotEnabled, match=r"^reconciliation is not enabled: .* RECONCILE_ENABLED.* to 1; then"):
            require_enabled("storage")

    def test_source_without_one_needs_none(self):
        require_enabled("repairshopr")

    def test_is_nothing_that_a_second_try_mends(self):
        assert issubclass(NotEnabled, AirflowFailException)


class TestDuration:
    @pytest.mark.parametrize(
        ("value", "expected"), [(None, 900.0), ("0", 0.0), ("4", 4.0), ("0.003", 0.003), ("86400", 86400.0)]
    )
    def test_is_the_variables_if_it_is_set(self, monkeypatch, value, expected):
        if value is not None:
            monkeypatch.setenv("AIRFLOW_VAR_DRAIN_TIMEOUT_SECONDS", value)
        assert duration("drain_timeout_seconds", 900.0, most=86400) == expected

    @pytest.mark.parametrize("value", ["", "15 min", "-1", "nan", "inf", "86401"])
    def test_that_is_none_is_refused_with_what_to_do(self, monkeypatch, value):
        monkeypatch.setenv("AIRFLOW_VAR_DRAIN_TIMEOUT_SECONDS", value)
        with pytest.raises(
            NoDuration, match=r"Variable drain_timeout_seconds has to be a number from 0 to 86400.*Variables"
        ):
            duration("drain_timeout_seconds", 900.0, most=86400)


class TestResult:
    def test_is_left_as_an_xcom_and_as_one_line(self, caplog):
        pushed = {}
        ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
        with caplog.at_level(logging.INFO):
            push_result(context({}) | {"ti": ti}, "storage", {"checked": 3, "examples": []})
        assert pushed == {"result": {"checked": 3, "examples": []}}
        [line] = [json.loads(record.message) for record in caplog.records]
        assert line == {"event": "result", "source": "storage", "run": "a_dag/manual__1", "checked": 3, "examples": []}

    def test_that_is_empty_is_not_left(self, caplog):
        with caplog.at_level(logging.INFO):
            push_result({}, "repairshopr", {})
        assert caplog.records == []
