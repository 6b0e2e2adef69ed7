"""`verify`: did the repair make the copy better? If anything got worse, the writer is held."""

import logging
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from include.confidence import history
from include.sources import verbs
from include.sources.base import Check
from include.warehouse import fence
from plugins import metrics
from plugins.hooks import source as source_hook
from plugins.operators.base import SourceOperator
from plugins.operators.scan import summaries
from plugins.runs import log_line, run_name

log = logging.getLogger(__name__)


class MadeWorse(AirflowFailException):
    """After the repair a figure is worse than the scan found it."""


ON_CALL = """
Looks whether the copy is better for the repair.

**If it fails:** the writer is held. Roll back the `sync_id` that the message names (`warehouse_rollback`), then clear
`scan` with downstream.
"""


class VerifyOperator(SourceOperator):
    """Compare the repaired copy with the scans and a sample of it with the source.

    Returns the figures before and after. Where one got worse it holds the writer and fails, naming the sync_id to
    roll back.
    """

    on_call = ON_CALL

    def execute(self, context: Any) -> list[dict[str, Any]]:
        applied = context["ti"].xcom_pull(task_ids="reconcile")
        if not applied:
            raise AirflowSkipException("nothing was applied")
        scans = summaries(context)
        with source_hook.opened(self.source, run_name(context)) as opened:
            fence.require_stopped(opened.conn, self.source, opened.run)
            with metrics.timed(self.source, "verify"):
                checks = verbs.verify(opened, scans, applied["sync_id"])
            for check in checks:
                log.info("%s.%s: %d before, %d after", check.entity, check.figure, check.before, check.after)
            worse = [check for check in checks if check.worse]
            metrics.send({"worse": len(worse)}, self.source, "verify")
            log_line(context, self.source, "verify", sync_id=applied["sync_id"], checks=len(checks), worse=len(worse))
            if worse:
                reason = _reason(worse, applied["sync_id"])
                with opened.conn.transaction():
                    for scan in scans:
                        if scan.entity in {check.entity for check in worse}:
                            history.mark_hold(opened.conn, scan.scan_id, reason)
                    history.refresh_hold(opened.conn, self.source)
                raise MadeWorse(reason)
        return [vars(check) for check in checks]


def _reason(worse: list[Check], sync_id: int) -> str:
    figures = ", ".join(f"{check.entity}.{check.figure} {check.before} -> {check.after}" for check in worse)
    return (
        f"after the repair {figures}: worse than the scan found it. The writer is held; roll back with the DAG"
        f" warehouse_rollback, sync_id {sync_id}, then clear scan with downstream"
    )
