"""`scan`: one entity of the source against its copy; leaves `forensic_summary` in XCom."""

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator

from include.confidence.summary import ForensicSummary
from include.warehouse import fence
from plugins.hooks import source as source_hook
from plugins.runs import run_name

XCOM_KEY = "forensic_summary"


class ScanIncomplete(Exception):
    """Something stayed unknown, so the scan is no evidence; its summary says what."""


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
        with source_hook.opened(self.source, run_name(context)) as opened:
            writer = fence.require_stopped(opened.conn, self.source, opened.run)
            summary = opened.source.scan(opened, self.entity, writer.epoch, context["params"])
        context["ti"].xcom_push(key=XCOM_KEY, value=summary.to_json())
        if summary.incomplete:
            raise ScanIncomplete(f"{summary.incomplete}. Nothing was written; then clear scan with downstream")


def summaries(context: Mapping[str, Any]) -> list[ForensicSummary]:
    """The summaries that the run's scans left, in the source's order of entities."""
    found = context["ti"].xcom_pull(task_ids="scan", key=XCOM_KEY) or []
    return [ForensicSummary.from_json(data) for data in (found if isinstance(found, list) else [found])]
