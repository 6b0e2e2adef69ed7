"""What all tasks have in common: its run's name, its refusal of unknown params, when it is retried."""

import json
import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule, Variable
from airflow.sdk.exceptions import AirflowFailException

from include.confidence.messages import Failure
from include.sources import get_source

log = logging.getLogger(__name__)


class ConfRefused(AirflowFailException):
    """The run's conf has keys that the DAG does not know."""


class NotEnabled(AirflowFailException):
    """The setting without which the source's copy is never changed is off."""


# What a second try can't mend: the message says what a person has to do.
FAILS_AT_ONCE = [
    "include.api.errors.FixConfiguration",
    "include.confidence.holds.HoldChanged",
    "include.confidence.repair_lock.NotJudged",
    "include.confidence.scan_log.PlanGone",
    "include.confidence.summary.UnusableSummary",
    "include.sources.base.IntegrityFailed",
    "include.sources.base.NeedsPerson",
    "include.sources.base.OutcomeUnknown",
    "include.sources.base.ScanRefused",
    "include.warehouse.fence.FenceError",
    "include.warehouse.rollback.RollbackRefused",
]


def on_failure(context: Mapping[str, Any]) -> None:
    """The last try of a task has failed: it tells people itself, or leaves why, as the XCom `failure` for `report`."""
    task = context["task"]
    failure = Failure.of(context.get("exception"), getattr(task, "entity", ""))
    if hasattr(task, "tell_failure"):
        task.tell_failure(context, failure)
    elif context.get("exception"):
        # Without an error it is not the task's own process that tells, and that one can't leave anything.
        context["ti"].xcom_push(key="failure", value=vars(failure))


DEFAULT_ARGS = {
    "owner": "sync-confidence",
    "retries": 2,
    # From [core] default_task_retry_delay, doubled with each try.
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "on_failure_callback": [on_failure],
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


def is_dry(context: Mapping[str, Any], source: str) -> bool:
    """Whether the run only looks. The DAG's param `dry_run` says so; without that param the run writes.

    The Airflow Variable `nightly_repair_sources` (names, separated by commas) tells whose scheduled runs write all
    the same; none by default.
    """
    repairing = {name.strip() for name in Variable.get("nightly_repair_sources", default="").split(",")}
    scheduled = context["dag_run"].run_type == "scheduled"
    return context["params"].get("dry_run", False) and not (scheduled and source in repairing)


def variable(name: str) -> str | None:
    """The Airflow Variable of that name, else the variable of the workers' environment; None where nobody set it."""
    return Variable.get(name, default=os.environ.get(name))


def require_enabled(source: str) -> None:
    """Raise NotEnabled unless the source's switch, if it has one, is on: an Airflow Variable, else the environment."""
    switch = get_source(source).switch
    if switch and variable(switch) != "1":
        raise NotEnabled(
            f"reconciliation is not enabled: to apply changes to {source}, set the Airflow Variable {switch}, or"
            f" {switch} in the environment of Airflow's workers, to 1; then trigger a new run. Or leave dry_run on"
        )


def log_line(context: Mapping[str, Any], source: str, event: str, **figures: Any) -> dict[str, Any]:
    """Log what a step has done as one line of JSON, and return what it says: event, source, run, and the figures."""
    told = {"event": event, "source": source, "run": run_name(context), **figures}
    log.info(json.dumps(told, sort_keys=True))
    return told


def push_result(context: Mapping[str, Any], source: str, result: Mapping[str, Any]) -> None:
    """Leave the result as the XCom `result` and as one JSON log line; nothing where it is empty."""
    if result:
        log_line(context, source, "result", **result)
        context["ti"].xcom_push(key="result", value=dict(result))
