"""What every task of the house has in common."""

from importlib import import_module
from types import SimpleNamespace

import pytest
from airflow.sdk import RetryAction

from include.api.errors import TryLater
from include.warehouse.fence import DrainTimeout
from plugins.runs import DEFAULT_ARGS, FAILS_AT_ONCE, ConfRefused, refuse_unknown_conf, run_name


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
