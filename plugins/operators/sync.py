"""`sync`: the writer. What changed at the source since the watermark, into the warehouse."""

import logging
from typing import Any

from airflow.sdk import BaseOperator

from plugins.hooks import source as source_hook
from plugins.runs import is_dry, push_result, refuse_unknown_conf, require_enabled, run_name

log = logging.getLogger(__name__)


class SyncOperator(BaseOperator):
    """Sync every entity of the source; the param `mode` is `incremental` or `full`.

    Runs in the source's writer pool, which a reconcile run closes. Returns {"sync_id", "counts" per entity}; a result
    under the names of the source's users, where it has one, is the XCom `result`.
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
            synced = opened.source.sync(opened, context["params"], dry_run=dry_run)
        refused = sum(count.failed for count in synced.counts.values())
        if refused:
            log.warning("%d rows could not be stored: see their reasons in confidence.quarantine", refused)
        push_result(context, self.source, synced.result)
        return {"sync_id": synced.sync_id, "counts": {entity: vars(count) for entity, count in synced.counts.items()}}
