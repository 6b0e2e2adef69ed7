"""`reconcile`: apply the plans of the scans to each row that is still as the scan saw it."""

import logging
from typing import Any

from airflow.sdk.exceptions import DownstreamTasksSkipped

from include.confidence import run_evidence
from include.confidence.holds import Decision
from include.confidence.summary import ForensicSummary
from include.sources import verbs
from include.warehouse import fence
from plugins import metrics
from plugins.configured import skip_unless_configured
from plugins.hooks import source as source_hook
from plugins.operators.base import SourceOperator
from plugins.operators.scan import summaries
from plugins.results import log_line
from plugins.runs import is_dry, run_name
from plugins.settings import require_enabled

log = logging.getLogger(__name__)

ON_CALL = """
Repairs what the scans have planned, where it is still as they saw it; on a dry run it only logs the plan.

**If it fails:** its log says what was applied, if anything was. "Nothing was written" means that these scans were not
judged, as after a task was marked by hand. Clear `scan` with downstream. If the writer is held, do what the message
says first, then clear `decide` with downstream and answer it.
"""


class ReconcileOperator(SourceOperator):
    """Repair the copy under one sync_id; on a dry run only log the plan.

    Fails unless the gate has judged exactly these scans, or a person has decided to repair them. Returns {"sync_id",
    "counts" by entity}. A person's decision to repair overrides `dry_run`, but not the source's switch.
    """

    on_call = ON_CALL

    def execute(self, context: Any) -> dict[str, Any]:
        # Its trigger rule lets it run after a skipped stop.
        skip_unless_configured(context, self.source)
        scans = summaries(context)
        with source_hook.opened(self.source, run_name(context)) as opened:
            writer = fence.require_stopped(opened.conn, self.source, opened.run)
            if writer.hold_reason:
                raise fence.FenceError(f"{writer}; nothing was applied. Clear decide with downstream and answer it")
            entities = [entity.name for entity in opened.source.entities]
            evidence = run_evidence.read(opened.conn, self.source, opened.run, entities)
            scans = [scan for scan in scans if scan.entity not in evidence.put_off]
            if is_dry(context, self.source) and evidence.decision != Decision.REPAIR:
                _tell_plan(scans)
                planned = {scan.entity: vars(scan.plan) for scan in scans}
                log_line(context, self.source, "repair", dry_run=True, sync_id=None, counts=planned)
                raise DownstreamTasksSkipped(tasks=["verify"])
            require_enabled(self.source)
            with metrics.timed(self.source, "repair"):
                sync_id, counts = verbs.run_repair(opened, scans, context["params"])
        result = {"sync_id": sync_id, "counts": {entity: vars(count) for entity, count in counts.items()}}
        log_line(context, self.source, "repair", dry_run=False, **result)
        for entity, count in result["counts"].items():
            metrics.send(count, self.source, entity, "repair")
        return result


def _tell_plan(scans: list[ForensicSummary]) -> None:
    for scan in scans:
        plan = scan.plan
        if plan.rows:
            log.info(
                "dry run, nothing was written: %s would get %d inserts, %d updates, %d deletes (%s)",
                *(scan.entity, plan.insert, plan.update, plan.delete, dict(scan.examples)),
            )
    log.info("to apply this, trigger the DAG with dry_run off")
