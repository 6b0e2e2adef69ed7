"""`resume_writer`: open the fence, then the pool, unless something holds the writer."""

import logging
from typing import Any

from psycopg import Connection

from include.confidence import outcome, run_evidence
from include.sources import get_source
from include.sources.pools import pool_name
from include.warehouse import fence
from plugins import assets, metrics
from plugins.hooks import airflow_api, warehouse
from plugins.hooks import source as source_hook
from plugins.operators.base import SourceOperator
from plugins.results import log_line
from plugins.runs import run_name

log = logging.getLogger(__name__)

ON_CALL = """
Opens the fence and the pool again, unless something holds the writer.

**If it fails:** the writer stays stopped. If it is held, press *Ask me again* on the source's page under *Drift*, and
answer; else mend what the message names and clear this task.
"""


class ResumeWriterOperator(SourceOperator):
    """Let the writer run again. If the writer is held, fail with the reason; the writer stays stopped.

    As the runbook's teardown this also runs after a failed scan or repair. With the param `reset_watermark` on and
    `dry_run` off, the next sync skips changes made while the writer was stopped; but not after a run that has failed or
    looked at a part only, since nothing else would have brought these changes.
    """

    on_call = ON_CALL

    def execute(self, context: Any) -> None:
        run = run_name(context)
        with warehouse.connect(run) as conn:
            writer = fence.read(conn, self.source)
            if writer.stopped and writer.run == run and not writer.hold_reason:
                self._reset_watermark(context, conn)
            resumed = fence.resume(conn, self.source, run)
        with airflow_api.opened() as api:
            api.open_pool(pool_name(self.source))
        log.info("%s", resumed)
        seconds = (resumed.since - writer.since).total_seconds() if writer.stopped else None
        log_line(context, self.source, "resume", epoch=resumed.epoch, stopped_seconds=seconds)
        metrics.send({"stopped_seconds": seconds}, self.source, "writer")

    def _reset_watermark(self, context: Any, conn: Connection) -> None:
        if not context["params"]["reset_watermark"]:
            return
        if context["params"]["dry_run"]:
            log.info("dry run: the watermarks stay where they are; to reset them trigger with dry_run off")
            return
        if doubt := self._not_compared(context, conn):
            log.warning(
                "the watermarks stay where they are, although reset_watermark is on: %s, so a reset would lose changes."
                " The next sync brings them; to skip them, trigger a run that compares the whole source",
                doubt,
            )
            return
        with source_hook.opened(self.source, run_name(context)) as opened:
            sync_id = opened.source.reset_watermarks(opened)
        log.warning("watermarks reset, sync_id %d: changes made while the writer stood are skipped", sync_id)

    def _not_compared(self, context: Any, conn: Connection) -> str:
        """Say why the run has not brought the copy in step with the source; empty if it has."""
        if narrowed := assets.filters(context):
            return f"only a part was looked at ({', '.join(narrowed)})"
        entities = [entity.name for entity in get_source(self.source).entities]
        gap = outcome.gap(run_evidence.read(conn, self.source, run_name(context), entities), dry_run=False)
        # The writer still stands, which is the gap of this task.
        return gap.what if gap and gap.step != self.task_id else ""
