"""`sync`: the writer's task. It brings what changed at the source since the watermark into the copy."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowRescheduleException
from psycopg import Connection

from include.confidence import messages, proofs
from include.confidence.failure import Failure
from include.confidence.health import Alert, Figures, assess, assess_proofs, read
from include.confidence.messages import Kind
from include.sources import get_source, verbs
from include.sources.pools import pool_name
from include.warehouse import fence
from plugins import metrics, notify
from plugins.configured import require_configured
from plugins.hooks import source as source_hook
from plugins.operators.base import SourceOperator
from plugins.results import log_line, push_result
from plugins.runs import is_dry, refuse_unknown_conf, run_name
from plugins.settings import require_enabled

log = logging.getLogger(__name__)

ON_CALL = """
The writer: brings what changed since the last sync.

**If it fails:** its message names what was left and why; all else is in step, and the next run tries the rest again.
The DAG's documentation goes through the messages.
"""


class SyncOperator(SourceOperator):
    """Sync every entity of the source; the param `mode` is `incremental`, `full`, or another that the source has.

    Runs in the source's writer pool, which a run of the runbook closes. If it was queued before that and starts after,
    it gives its worker back, and waits for the pool. Returns {"sync_id", "counts" by entity}. A source with figures for
    its users pushes them as the XCom `result`.

    Even if the sync fails, the source's health is logged as one line of JSON and sent as metrics, and its alerts are
    the XCom `health`. People are told of alerts, and of a sync whose last try has failed.
    """

    on_call = ON_CALL

    def __init__(self, *, source: str, **kwargs: Any):
        super().__init__(source=source, pool=pool_name(source), **kwargs)

    def execute(self, context: Any) -> dict[str, Any]:
        refuse_unknown_conf(context)
        require_configured(context, self.source)
        dry_run = is_dry(context, self.source)
        if not dry_run:
            require_enabled(self.source)
        run, alerts = run_name(context), []
        with source_hook.opened(self.source, run) as opened:
            _require_running(fence.read(opened.conn, self.source))
            try:
                synced = verbs.run_sync(opened, context["params"], dry_run=dry_run)
            except fence.FenceError:
                # The writer was stopped just now.
                _require_running(fence.read(opened.conn, self.source))
                raise
            finally:
                # If the connection is lost, a second error here would only hide the first.
                if not opened.conn.closed:
                    alerts = tell_health(context, self.source, opened.conn)
        refused = sum(count.failed for count in synced.counts.values())
        if refused:
            log.warning("%d rows could not be stored: see their reasons in confidence.quarantine", refused)
        push_result(context, self.source, synced.result)
        events = messages.of_alerts(self.source, run, alerts, notify.run_link(run))
        notify.tell(run, self.source, events, ended=[Kind.SYNC, Kind.HEALTH])
        counts = {entity: vars(count) for entity, count in synced.counts.items()}
        result = {"sync_id": synced.sync_id, "counts": counts}
        log_line(context, self.source, "sync", dry_run=dry_run, **result)
        return result

    def tell_failure(self, context: Any, failure: Failure) -> None:
        """Send the failure of the last try, and the alerts about the source."""
        run = run_name(context)
        link = notify.run_link(run)
        alerts = [Alert(**found) for found in context["ti"].xcom_pull(task_ids=self.task_id, key="health") or []]
        failed = messages.of_sync(self.source, run, failure, link)
        events = [*filter(None, [failed]), *messages.of_alerts(self.source, run, alerts, link)]
        notify.tell(run, self.source, events)


def _require_running(writer: fence.Writer) -> None:
    """Raise AirflowRescheduleException if the writer is stopped. The task then waits for its pool, without a worker."""
    if writer.stopped:
        log.info("%s: nothing was read or written, the sync waits until the writer runs again", writer)
        delay = timedelta(seconds=conf.getint("core", "default_task_retry_delay"))
        raise AirflowRescheduleException(datetime.now(UTC) + delay)


def tell_health(context: Any, source: str, conn: Connection) -> list[Alert]:
    """Log the source's health and send it as metrics. Log the alerts, push them as the XCom `health`, return them."""
    figures = read(conn, source)
    if figures is None:
        return []
    log.info(figures.line())
    _send(figures)
    declared = get_source(source)
    found = proofs.read_proofs(conn, source, [entity.name for entity in declared.entities])
    old = assess_proofs(source, found, declared.health, datetime.now(UTC))
    alerts = [*assess(figures, declared.health), *old, *declared.alerts(conn)]
    for alert in alerts:
        log.warning(alert.line)
    if alerts:
        context["ti"].xcom_push(key="health", value=[alert.to_json() for alert in alerts])
    return alerts


def _send(figures: Figures) -> None:
    metrics.send({"sync_seconds": figures.seconds, "error_rate": figures.error_rate}, figures.source)
    for table in figures.tables:
        freshness = table.freshness.total_seconds()
        told = {"freshness_seconds": freshness, "discrepancies": table.discrepancies}
        metrics.send(told, figures.source, table.table)
