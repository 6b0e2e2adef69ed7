"""The asset of a source: data that a run of its runbook has just confirmed, for others to schedule on."""

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Asset, AssetAlias

from include.confidence.summary import ForensicSummary
from include.warehouse.sync_log import Counts

# The part of a trigger form whose params narrow what a run looks at.
FILTERS = "Which part"
# Figures by which a scan counts what it could not tell, whatever the source.
UNKNOWN = ("unconfirmed", "unknown", "unreadable", "uncertain")


def confirmed(source: str) -> Asset:
    """The asset that gets an event from each run that has confirmed the source's copy."""
    return Asset(name=f"{source}_confirmed", uri=f"sync-confidence://{source}")


def outlet(source: str) -> AssetAlias:
    """What `report` declares: of an alias there is an event only where the task adds one, of an asset always."""
    return AssetAlias(name=f"{source}_reconcile")


def doubt(
    context: Mapping[str, Any],
    gate: Mapping[str, Any],
    scans: Sequence[ForensicSummary],
    applied: Mapping[str, Counts] | None,
) -> str | None:
    """Why a run that has succeeded did not confirm the copy, in a few words; None where it did.

    `gate` is what `gate_check` returned, `applied` the counts of a repair that was verified, None without one.
    """
    if not gate:
        return "nothing was judged"
    filters = _filters(context)
    if filters:
        return f"only a part was looked at ({', '.join(filters)})"
    unknown = {name: sum(scan.figures.get(name, 0) for scan in scans) for name in UNKNOWN}
    if any(unknown.values()):
        return f"not all could be told ({', '.join(f'{count} {name}' for name, count in unknown.items() if count)})"
    if applied is None:
        if gate.get("hold"):
            return "resumed without repair"
        return f"{gate['drift']} planned changes were not applied" if gate.get("drift") else None
    left = sum(count.superseded + count.failed for count in applied.values())
    return f"{left} planned changes were left alone" if left else None


def emit(
    context: Mapping[str, Any],
    source: str,
    run: str,
    verdict: str,
    sync_id: int | None,
    scans: Sequence[ForensicSummary],
) -> None:
    """Have Airflow create the asset's event when the task succeeds; the figures are the event's `extra`."""
    figures = {scan.entity: {"scope": scan.scope, **scan.figures} for scan in scans}
    extra = {"source": source, "run": run, "verdict": verdict, "sync_id": sync_id, "entities": figures}
    context["outlet_events"][outlet(source)].add(confirmed(source), extra=extra)


def _filters(context: Mapping[str, Any]) -> list[str]:
    """Params by which the run looks at something else than a scheduled one."""
    declared, given = context["dag"].params, context["params"]
    filters = [name for name in declared if declared.get_param(name).schema.get("section") == FILTERS]
    return sorted(name for name in filters if given[name] != declared[name])
