"""`stop_writer`: set the pool to 0 slots, wait for the running sync, close the fence. Then nothing else writes."""

import logging
import time
from typing import Any

from include.sources.pools import pool_name
from include.warehouse import fence
from plugins.configured import require_configured
from plugins.hooks import airflow_api, warehouse
from plugins.hooks.airflow_api import AirflowApi, Pool, closed_by
from plugins.operators.base import SourceOperator
from plugins.results import log_line
from plugins.runs import is_dry, refuse_unknown_conf, run_name
from plugins.settings import duration, require_enabled

log = logging.getLogger(__name__)

DRAIN_TIMEOUT = 900.0
MOST_SECONDS = 24.0 * 60 * 60

ON_CALL = """
Closes the writer's pool, waits for the running sync, then closes the fence.

**If it fails:** the writer goes on as before. If a sync is still at work, let it end; then clear `stop_writer` with
downstream.
"""


class StopWriterOperator(SourceOperator):
    """Stop the source's writer and wait until its tasks have ended.

    Returns {"epoch": the number of the stop}. If this run has stopped the writer already, the epoch stays the same. If
    a sync does not end in time, or anything else goes wrong, the pool is opened again. The Airflow Variable
    `drain_timeout_seconds` replaces the 15 minutes that a running sync has to end.
    """

    on_call = ON_CALL

    def execute(self, context: Any) -> dict[str, int]:
        refuse_unknown_conf(context)
        require_configured(context, self.source)
        if not is_dry(context, self.source):
            require_enabled(self.source)
        run = run_name(context)
        timeout = duration("drain_timeout_seconds", DRAIN_TIMEOUT, most=MOST_SECONDS)
        deadline, name = time.monotonic() + timeout, pool_name(self.source)
        with airflow_api.opened() as api, warehouse.connect(run) as conn:
            before = fence.read(conn, self.source)
            _refuse_if_at_work(api, before, run)
            try:
                api.set_pool(name, 0, closed_by(run, before.epoch + (not _is_stopped_by(before, run))))
                self._drain(api, deadline, timeout)
                writer = fence.stop(conn, self.source, run, max(1, deadline - time.monotonic()))
            except BaseException:
                if not before.stopped:
                    api.open_pool(name)
                raise
        log.info("%s, epoch %d", writer, writer.epoch)
        log_line(context, self.source, "stop", epoch=writer.epoch)
        return {"epoch": writer.epoch}

    def _drain(self, api: AirflowApi, deadline: float, timeout: float) -> None:
        """Wait for the tasks at work. One that starts later finds the writer stopped, and waits until it runs again."""
        name = pool_name(self.source)
        while (pool := api.pool(name)) and pool.at_work:
            if time.monotonic() > deadline:
                raise fence.DrainTimeout(_drain_message(self.source, pool, timeout))
            log.info("waiting for %d task(s) in pool %s to end", pool.at_work, name)
            time.sleep(2)


def _is_stopped_by(writer: fence.Writer, run: str) -> bool:
    return writer.stopped and writer.run == run


def _refuse_if_at_work(api: AirflowApi, writer: fence.Writer, run: str) -> None:
    """Raise FenceError if another run of the runbook has stopped the writer and is still at work."""
    if writer.stopped and writer.run != run and api.run_state(writer.run) in ("running", "queued"):
        raise fence.FenceError(
            f"{writer}, and that run is still at work (or waits in decide): let it end or answer it,"
            " then clear stop_writer with downstream"
        )


def _drain_message(source: str, pool: Pool, timeout: float) -> str:
    return (
        f"{pool.at_work} task(s) of {source}'s writer were still at work after {timeout:.0f} s; the writer goes on,"
        " nothing was scanned. Look at the running sync, then clear stop_writer with downstream"
    )
