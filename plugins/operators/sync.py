"""`sync`: the writer. What changed at the source since the watermark, into the warehouse."""

import logging
from typing import Any

from airflow.sdk import BaseOperator
from psycopg import Connection

from include.confidence.health import Figures, assess, read
from include.sources import get_source, verbs
from plugins import metrics
from plugins.hooks import source as source_hook
from plugins.runs import is_dry, push_result, refuse_unknown_conf, require_enabled, run_name, tell

log = logging.getLogger(__name__)


class SyncOperator(BaseOperator):
    """Sync every entity of the source; the param `mode` is `incremental` or `full`.

    Runs in the source's writer pool, which a reconcile run closes. Returns {"sync_id", "counts" per entity}; a result
    under the names of the source's users, where it has one, is the XCom `result`. Whatever became of the sync, how the
    source stands then is a line of JSON in the log and metrics, and the XCom `health` what of that is an alert.
    """

    def __init__(self, *, source: str, **kwargs: Any):
        super().__init__(pool=f"{source}_writer", **kwargs)
        self.source = source

    def execute(self, context: Any) -> dict[str, Any]:
        refuse_unknown_conf(context)
        dry_run = is_dry(context, self.source)
        if not dry_run:
            require_enabled(self.source)
        with source_hook.opened(self.source, run_name(context)) as opened:
            try:
                synced = verbs.sync(opened, context["params"], dry_run=dry_run)
            finally:
                # A lost connection is the failure to tell, and would only hide behind a second one.
                if not opened.conn.closed:
                    tell_health(context, self.source, opened.conn)
        refused = sum(count.failed for count in synced.counts.values())
        if refused:
            log.warning("%d rows could not be stored: see their reasons in confidence.quarantine", refused)
        push_result(context, self.source, synced.result)
        counts = {entity: vars(count) for entity, count in synced.counts.items()}
        result = {"sync_id": synced.sync_id, "counts": counts}
        tell(context, self.source, "sync", dry_run=dry_run, **result)
        return result


def tell_health(context: Any, source: str, conn: Connection) -> None:
    """Log the source's figures and send them as metrics; log alerts and leave them as the XCom `health`."""
    figures = read(conn, source)
    if figures is None:
        return
    log.info(figures.line())
    _send(figures)
    declared = get_source(source)
    alerts = [*assess(figures, declared.health), *declared.alerts(conn)]
    for alert in alerts:
        log.warning(alert.line)
    if alerts:
        context["ti"].xcom_push(key="health", value=[alert.to_json() for alert in alerts])


def _send(figures: Figures) -> None:
    metrics.send({"sync_seconds": figures.seconds, "error_rate": figures.error_rate}, figures.source)
    for table in figures.tables:
        freshness = table.freshness.total_seconds()
        told = {"freshness_seconds": freshness, "discrepancies": table.discrepancies}
        metrics.send(told, figures.source, table.table)
