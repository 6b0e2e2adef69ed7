"""The steps of a run as its tasks call them: the methods of `Source`, each in a span and behind its guards."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from include.confidence import proofs, repair_lock, scan_log
from include.confidence.spans import Attribute, span
from include.confidence.summary import ForensicSummary
from include.sources.base import Check, Context, SlicedSource, Synced
from include.warehouse import fence
from include.warehouse.sync_log import Counts


def run_sync(context: Context, params: Mapping[str, Any], *, dry_run: bool) -> Synced:
    """Call `Source.sync` in a span with the counts."""
    with span("sync", **_work(context, params), dry_run=dry_run) as opened:
        synced = context.source.sync(context, params, dry_run=dry_run)
        opened.set_attributes(_written(synced.counts))
        if synced.sync_id is not None:
            opened.set_attribute("sync_id", synced.sync_id)
    return synced


def run_scan(context: Context, entity: str, epoch: int, params: Mapping[str, Any], *, dry_run: bool) -> ForensicSummary:
    """Call `Source.scan` in a span with the figures. `dry_run` is only told in the span.

    The evidence of an earlier attempt at the same scan is void from now on. Raises ScanUnderWay while a repair of the
    source is at work, and what `Source.scan` raises.
    """
    with (
        span("scan", **_work(context, params), entity=entity, dry_run=dry_run) as opened,
        repair_lock.scanning(context.conn, context.source.name, context.run, entity, epoch),
    ):
        begun = time.monotonic()
        proofs.forget_put_off(context.conn, context.source.name, context.run, entity)
        summary = context.source.scan(context, entity, epoch, params)
        scan_log.keep_seconds(context.conn, summary.scan_id, time.monotonic() - begun)
        opened.set_attributes({"scope": summary.scope, "incomplete": bool(summary.incomplete), **summary.figures})
    return summary


def run_slice(context: Context, entity: str, epoch: int, params: Mapping[str, Any], slice_number: int) -> int:
    """Call `SlicedSource.read_slice` in a span with the number of pages, and return that."""
    source: SlicedSource = context.source
    with span("scan_slice", **_work(context, params), entity=entity, slice=slice_number) as opened:
        pages = source.read_slice(context, entity, epoch, params, slice_number)
        opened.set_attribute("pages", pages)
    return pages


def run_repair(
    context: Context, summaries: Sequence[ForensicSummary], params: Mapping[str, Any]
) -> tuple[int, Mapping[str, Counts]]:
    """Call `Source.repair` in a span with the counts, if exactly these scans were judged; without those left out.

    What the run has put off is not repaired, and needs no scan.

    Raises FenceError unless the run has stopped the writer, NotJudged if the scans were not judged, ScanUnderWay while
    a scan of the source is at work, and what `Source.repair` raises.
    """
    writer = fence.require_stopped(context.conn, context.source.name, context.run)
    entities, summaries = _not_put_off(context, summaries)
    with (
        span("repair", **_work(context, params), dry_run=False) as opened,
        repair_lock.repairing(context.conn, writer, entities, summaries) as chosen,
    ):
        sync_id, counts = context.source.repair(context, chosen, params)
        opened.set_attributes({"sync_id": sync_id, **_written(counts)})
    return sync_id, counts


def run_verify(context: Context, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
    """Call `Source.verify` in a span. `summaries` are the scans whose plans were applied.

    Raises FenceError unless the run has stopped the writer, NotJudged if the scans are gone, and what `Source.verify`
    raises.
    """
    writer = fence.require_stopped(context.conn, context.source.name, context.run)
    entities, summaries = _not_put_off(context, summaries)
    applied = repair_lock.require_evidence(context.conn, writer, entities, summaries)
    with span("verify", **_work(context, {}), sync_id=sync_id) as opened:
        checks = context.source.verify(context, applied, sync_id)
        opened.set_attributes({"checks": len(checks), "worse": sum(check.worse for check in checks)})
    return checks


def _not_put_off(context: Context, summaries: Sequence[ForensicSummary]) -> tuple[list[str], list[ForensicSummary]]:
    """Return the entities that the run has not put off, and their summaries."""
    put_off = proofs.put_off_by(context.conn, context.source.name, context.run)
    entities = [entity.name for entity in context.source.entities if entity.name not in put_off]
    return entities, [summary for summary in summaries if summary.entity not in put_off]


def _work(context: Context, params: Mapping[str, Any]) -> dict[str, Attribute]:
    """Return the span's attributes that say what is worked on. Of the params only numbers: others may hold names."""
    return {"source": context.source.name, "run": context.run, "limit": params.get("limit")}


def _written(counts: Mapping[str, Counts]) -> Mapping[str, int]:
    """Return the counts of all tables together."""
    return asdict(sum(counts.values(), Counts()))
