"""What every task of the house has in common: its run's name, its refusal of unknown params, when it is retried."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowFailException


class ConfRefused(AirflowFailException):
    """The run's conf has keys that the DAG does not know."""


# What a second try can't mend: the message says what a person has to do.
FAILS_AT_ONCE = [
    "include.api.errors.FixConfiguration",
    "include.confidence.summary.UnusableSummary",
    "include.sources.repair.PlanGone",
    "include.sources.scan.ScanRefused",
    "include.warehouse.fence.FenceError",
    "include.warehouse.rollback.RollbackRefused",
]

DEFAULT_ARGS = {
    "owner": "sync-confidence",
    "retries": 2,
    # From [core] default_task_retry_delay, doubled with each try.
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": ExceptionRetryPolicy(rules=[RetryRule(exception=FAILS_AT_ONCE, action=RetryAction.FAIL)]),
}


def run_name(context: Mapping[str, Any]) -> str:
    """`dag_id/run_id`, the name of a run in the warehouse."""
    return f"{context['dag'].dag_id}/{context['run_id']}"


def refuse_unknown_conf(context: Mapping[str, Any]) -> None:
    """Airflow accepts any key in a run's conf; a misspelt one would silently do nothing."""
    # The run's own params are no help here: Airflow merges the conf into them.
    known = set(context["dag"].params)
    unknown = sorted(set(context["dag_run"].conf or {}) - known)
    if unknown:
        raise ConfRefused(
            f"unknown in the run's conf: {', '.join(unknown)}. Known params: {', '.join(sorted(known))}."
            " Trigger a new run with the right names"
        )
