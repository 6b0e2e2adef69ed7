"""What a task does when it fails: when it is tried again, and whom it tells."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from include.confidence.failure import Failure
from plugins.hooks import airflow_api
from plugins.runs import run_name

log = logging.getLogger(__name__)


# To connect and to read. Two requests and the message (see notify.py) take less than the 20 seconds after which Airflow
# ends the process of a failed task.
API_TIMEOUT = (1.0, 2.0)
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
    "include.sources.installed.NotInstalled",
    "include.sources.installed.WrongSources",
    "include.sources.slices.WrongSlices",
    "include.warehouse.fence.FenceError",
    "include.warehouse.migrate.NewerWarehouse",
    "include.warehouse.rollback.RollbackRefused",
    "plugins.operators.report.RunFailed",
]


def on_failure(context: Mapping[str, Any]) -> None:
    """Call the task's `tell_failure` if it has one; else leave the reason as the XCom `failure` for `report`.

    Airflow calls this after the last try of a task has failed. It also calls it in a worker that was cut off from
    Airflow and comes back while a later try has done the work: then this does nothing.
    """
    task = context["task"]
    if _is_superseded(context):
        log.warning("a later try of %s has begun, so nobody is told of this one", task.task_id)
        return
    failure = Failure.of(context.get("exception"), getattr(task, "entity", ""))
    if hasattr(task, "tell_failure"):
        task.tell_failure(context, failure)
    elif context.get("exception"):
        # Without an exception this is another process than the task's, which can't push an XCom.
        context["ti"].xcom_push(key="failure", value=vars(failure))


def _is_superseded(context: Mapping[str, Any]) -> bool:
    """Return whether a later try of the task has begun; False if Airflow can't be asked."""
    try:
        with airflow_api.opened(timeout=API_TIMEOUT, attempts=1) as api:
            latest = api.try_number(run_name(context), context["task"].task_id)
    except Exception as error:  # noqa: BLE001
        # Better told once too often than never.
        log.warning("Airflow can't say whether a later try has begun (%s)", type(error).__name__)
        return False
    return latest is not None and latest > context["ti"].try_number


DEFAULT_ARGS = {
    "owner": "sync-confidence",
    "retries": 2,
    # From [core] default_task_retry_delay, doubled with each try.
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "on_failure_callback": [on_failure],
    "retry_policy": ExceptionRetryPolicy(rules=[RetryRule(exception=FAILS_AT_ONCE, action=RetryAction.FAIL)]),
}
