"""`scan`: one entity of the source against its copy; leaves `forensic_summary` in XCom."""

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator

from include.confidence.summary import ForensicSummary
from include.sources.base import Context
from include.sources.scan import ScanRefused, Scope, scan
from include.warehouse import fence, sync_log
from plugins.hooks import source as source_hook
from plugins.runs import run_name

XCOM_KEY = "forensic_summary"


class ScanOperator(BaseOperator):
    """Scan `entity` while the writer stands; read only.

    Pushes the summary (counts, ids of examples, a few KB) under the XCom key `forensic_summary`. A retry goes on from
    the page that the attempt before had reached.
    """

    def __init__(self, *, source: str, entity: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.source = source
        self.entity = entity

    def execute(self, context: Any) -> None:
        scope = scope_of(context["params"])
        with source_hook.opened(self.source, run_name(context)) as opened:
            writer = fence.require_stopped(opened.conn, self.source, opened.run)
            _require_synced(opened, self.entity)
            summary = scan(opened, opened.source.entity(self.entity), writer.epoch, scope)
        context["ti"].xcom_push(key=XCOM_KEY, value=summary.to_json())


def _require_synced(context: Context, entity: str) -> None:
    """Figures of a copy that was never filled would be the baseline of all later runs."""
    if sync_log.state(context.conn, context.source.name, entity).watermark is None:
        raise ScanRefused(
            f"{context.source.name}.{entity} was never synced, there is nothing to compare yet:"
            f" run the DAG {context.source.name}_sync, then clear scan with downstream"
        )


def scope_of(params: Mapping[str, Any]) -> Scope:
    """The scope that the run's params ask for."""
    return Scope(
        page_start=params["page_start"],
        page_end=params["page_end"],
        progress_every=params["progress_every"],
        not_in_api=params["compute_db_not_in_api"],
    )


def summaries(context: Mapping[str, Any]) -> list[ForensicSummary]:
    """The summaries that the run's scans left, in the source's order of entities."""
    found = context["ti"].xcom_pull(task_ids="scan", key=XCOM_KEY)
    return [ForensicSummary.from_json(data) for data in (found if isinstance(found, list) else [found])]
