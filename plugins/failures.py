"""What a task does when it fails: when it is tried again, and whom it tells."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from include.confidence.messages import Failure

# Errors that a second try can't mend. Their messages say what a person has to do.
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
    "plugins.operators.report.RunFailed",
]


def on_failure(context: Mapping[str, Any]) -> None:
    """Call the task's `tell_failure` if it has one; else leave the reason as the XCom `failure` for `report`.

    Airflow calls this after the last try of a task has failed.
    """
    task = context["task"]
    failure = Failure.of(context.get("exception"), getattr(task, "entity", ""))
    if hasattr(task, "tell_failure"):
        task.tell_failure(context, failure)
    elif context.get("exception"):
        # Without an exception this is another process than the task's, which can't push an XCom.
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
