"""The verbs of a source as the tasks of a run call them: each in a span that says what it did."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from include.confidence import repair_lock
from include.confidence.spans import Attribute, span
from include.confidence.summary import ForensicSummary
from include.sources.base import Check, Context, Synced
from include.warehouse import fence
from include.warehouse.sync_log import Counts


def run_sync(context: Context, params: Mapping[str, Any], *, dry_run: bool) -> Synced:
    """`Source.sync`."""
    with span("sync", **_work(context, params), dry_run=dry_run) as opened:
        synced = context.source.sync(context, params, dry_run=dry_run)
        opened.set_attributes(_written(synced.counts))
        if synced.sync_id is not None:
            opened.set_attribute("sync_id", synced.sync_id)
    return synced


def run_scan(context: Context, entity: str, epoch: int, params: Mapping[str, Any], *, dry_run: bool) -> ForensicSummary:
    """`Source.scan`; `dry_run` tells whether the run means to repair.

    What the same scan found before is void from now on. Raises ScanUnderWay while a repair of the source is at work.
    """
    with (
        span("scan", **_work(context, params), entity=entity, dry_run=dry_run) as opened,
        repair_lock.scanning(context.conn, context.source.name, context.run, entity, epoch),
    ):
        summary = context.source.scan(context, entity, epoch, params)
        opened.set_attributes({"scope": summary.scope, "incomplete": bool(summary.incomplete), **summary.figures})
    return summary


def run_repair(
    context: Context, summaries: Sequence[ForensicSummary], params: Mapping[str, Any]
) -> tuple[int, Mapping[str, Counts]]:
    """`Source.repair`, by scans that were judged just as they are.

    Raises FenceError unless the run has stopped the writer, NotJudged without that judgement, and ScanUnderWay while a
    scan of the source is at work.
    """
    writer = fence.require_stopped(context.conn, context.source.name, context.run)
    entities = [entity.name for entity in context.source.entities]
    with (
        span("repair", **_work(context, params), dry_run=False) as opened,
        repair_lock.repairing(context.conn, writer, entities, summaries),
    ):
        sync_id, counts = context.source.repair(context, summaries, params)
        opened.set_attributes({"sync_id": sync_id, **_written(counts)})
    return sync_id, counts


def run_verify(context: Context, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
    """`Source.verify`, by the scans whose plans were applied. Raises FenceError, or NotJudged where they are gone."""
    writer = fence.require_stopped(context.conn, context.source.name, context.run)
    repair_lock.require_evidence(context.conn, writer, [entity.name for entity in context.source.entities], summaries)
    with span("verify", **_work(context, {}), sync_id=sync_id) as opened:
        checks = context.source.verify(context, summaries, sync_id)
        opened.set_attributes({"checks": len(checks), "worse": sum(check.worse for check in checks)})
    return checks


def _work(context: Context, params: Mapping[str, Any]) -> dict[str, Attribute]:
    """What is worked on; of the params those alone that can't be anything but a number."""
    return {"source": context.source.name, "run": context.run, "limit": params.get("limit")}


def _written(counts: Mapping[str, Counts]) -> Mapping[str, int]:
    """What was done with the rows of all tables together."""
    return asdict(sum(counts.values(), Counts()))
