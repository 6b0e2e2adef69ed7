"""`resume_writer`: open the fence, then the pool, unless something holds the writer."""

import logging
from typing import Any

from include.warehouse import fence
from plugins import metrics
from plugins.hooks import airflow_api, warehouse
from plugins.hooks import source as source_hook
from plugins.operators.base import SourceOperator
from plugins.results import log_line
from plugins.runs import run_name

log = logging.getLogger(__name__)

ON_CALL = """
Opens the fence and the pool again, unless something holds the writer.

**If it fails:** the writer stays stopped. If it is held, clear `decide` with downstream and answer it; else mend what
the message names and clear this task.
"""


class ResumeWriterOperator(SourceOperator):
    """Let the writer run again. If the writer is held, fail with the reason; the writer stays stopped.

    As the runbook's teardown this also runs after a failed scan or repair. With the param `reset_watermark` on and
    `dry_run` off, the next sync skips changes made while the writer was stopped.
    """

    on_call = ON_CALL

    def execute(self, context: Any) -> None:
        run = run_name(context)
        with warehouse.connect(run) as conn:
            writer = fence.read(conn, self.source)
            if writer.stopped and writer.run == run and not writer.hold_reason:
                self._reset_watermark(context)
            resumed = fence.resume(conn, self.source, run)
        with airflow_api.opened() as api:
            api.open_pool(f"{self.source}_writer")
        log.info("%s", resumed)
        seconds = (resumed.since - writer.since).total_seconds() if writer.stopped else None
        log_line(context, self.source, "resume", epoch=resumed.epoch, stopped_seconds=seconds)
        metrics.send({"stopped_seconds": seconds}, self.source, "writer")

    def _reset_watermark(self, context: Any) -> None:
        if not context["params"]["reset_watermark"]:
            return
        if context["params"]["dry_run"]:
            log.info("dry run: the watermarks stay where they are; to reset them trigger with dry_run off")
            return
        with source_hook.opened(self.source, run_name(context)) as opened:
            sync_id = opened.source.reset_watermarks(opened)
        log.warning("watermarks reset, sync_id %d: changes made while the writer stood are skipped", sync_id)
