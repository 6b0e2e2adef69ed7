"""`sync`: the writer. What changed at the source since the watermark, into the warehouse."""

import logging
from typing import Any

from airflow.sdk import BaseOperator

from include.sources.sync import sync
from plugins.hooks import source as source_hook
from plugins.runs import refuse_unknown_conf, run_name

log = logging.getLogger(__name__)


class SyncOperator(BaseOperator):
    """Sync every entity of the source; the param `mode` is `incremental` or `full`.

    Runs in the source's writer pool, which a reconcile run closes. Returns {"sync_id", "counts" per entity}.
    """

    def __init__(self, *, source: str, **kwargs: Any):
        super().__init__(pool=f"{source}_writer", **kwargs)
        self.source = source

    def execute(self, context: Any) -> dict[str, Any]:
        refuse_unknown_conf(context)
        with source_hook.opened(self.source, run_name(context)) as opened:
            sync_id, counts = sync(opened, full=context["params"]["mode"] == "full")
        refused = sum(count.failed for count in counts.values())
        if refused:
            log.warning("%d rows could not be stored: see their reasons in confidence.quarantine", refused)
        return {"sync_id": sync_id, "counts": {entity: vars(count) for entity, count in counts.items()}}
