"""`scan`: compare one entity of the source with its copy; push the XCom `forensic_summary`."""

import logging
from collections.abc import Mapping
from typing import Any

from include.api.limits import OutOfTime
from include.confidence.summary import ForensicSummary
from include.sources import verbs
from include.warehouse import fence
from plugins import metrics, stop_budget
from plugins.hooks import source as source_hook
from plugins.operators.base import SourceOperator
from plugins.runs import is_dry, run_name

log = logging.getLogger(__name__)

XCOM_KEY = "forensic_summary"


class ScanIncomplete(Exception):
    """Too much is unknown, so the scan is no evidence. The message says what."""


ON_CALL = """
Compares the source with the copy and leaves evidence and plan in the warehouse. Writes nothing else.

**If it fails:** nothing was repaired and the writer goes on as before. Mend what the message names, then clear `scan`
with downstream; an attempt that is retried goes on where the one before was cut off.

**If the scan has several slices:** slice 0 compares, and reads whatever no other slice does. The others only help it to
read. If one has failed, clear `scan` with downstream, all of its map indexes.

**If it is skipped:** its log says why. The entity may be put off to a later night, since the writer may stand for
`stop_budget_minutes` only. To scan everything now, trigger the DAG by hand.
"""


class ScanOperator(SourceOperator):
    """Scan `entity` while the writer is stopped. Read only.

    Pushes the summary (counts, ids of examples, a few KB) under the XCom key `forensic_summary` and logs it as one line
    of JSON. A retry goes on from the page that the last attempt had reached.

    With a `slice_number` above 0 it helps the task without one, which scans, and pushes nothing.

    If the Airflow Variable `stop_budget_minutes` limits how long the writer may stand, the entity may be left to a
    later night: the task is skipped, and the warehouse keeps why.
    """

    on_call = ON_CALL

    def __init__(self, *, source: str, entity: str, slice_number: int = 0, **kwargs: Any):
        super().__init__(source=source, **kwargs)
        self.entity = entity
        self.slice_number = slice_number

    def execute(self, context: Any) -> None:
        if self.slice_number:
            self._read_slice(context)
        else:
            self._judge(context)

    def _judge(self, context: Any) -> None:
        seconds = stop_budget.time_for(context, self.source, self.entity)
        try:
            summary = self._scan(context, seconds)
        except OutOfTime:
            why = "its scan did not come to its end in the time for which the writer may stand"
            stop_budget.put_off(context, self.source, self.entity, why)
        log.info(summary.line())
        metrics.send(summary.figures, self.source, self.entity, "scan")
        context["ti"].xcom_push(key=XCOM_KEY, value=summary.to_json())
        if summary.incomplete:
            raise ScanIncomplete(
                f"{summary.incomplete}. Nothing was written. Mend what that names, then clear scan with downstream"
            )

    def _scan(self, context: Any, seconds: float | None) -> ForensicSummary:
        """Scan the entity. Raises OutOfTime if that takes longer than `seconds`."""
        params, dry_run = context["params"], is_dry(context, self.source)
        with (
            metrics.timed(self.source, self.entity, "scan"),
            source_hook.opened(self.source, run_name(context), seconds=seconds) as opened,
        ):
            writer = fence.require_stopped(opened.conn, self.source, opened.run)
            return verbs.run_scan(opened, self.entity, writer.epoch, params, dry_run=dry_run)

    def _read_slice(self, context: Any) -> None:
        """Read for the scan of the entity what nobody reads yet."""
        with source_hook.opened(self.source, run_name(context)) as opened:
            writer = fence.require_stopped(opened.conn, self.source, opened.run)
            pages = verbs.run_slice(opened, self.entity, writer.epoch, context["params"], self.slice_number)
        log.info("slice %d: %d pages read. Slice 0 judges the scan; this one has no summary", self.slice_number, pages)


def summaries(context: Mapping[str, Any]) -> list[ForensicSummary]:
    """Return the summaries of the run's scans, in the source's order of entities; none of those that were put off."""
    found = context["ti"].xcom_pull(task_ids="scan", key=XCOM_KEY) or []
    return [ForensicSummary.from_json(data) for data in (found if isinstance(found, list) else [found])]
