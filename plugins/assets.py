"""The asset of a source: data that a run of its runbook has just confirmed, for others to schedule on."""

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Asset, AssetAlias

from include.confidence import outcome
from include.confidence.outcome import Evidence
from include.confidence.summary import ForensicSummary

# The part of a trigger form whose params narrow what a run looks at.
FILTERS = "Which part"


def confirmed(source: str) -> Asset:
    """The asset that gets an event from each run that has confirmed the source's copy."""
    return Asset(name=f"{source}_confirmed", uri=f"sync-confidence://{source}")


def outlet(source: str) -> AssetAlias:
    """What `report` declares: of an alias there is an event only where the task adds one, of an asset always."""
    return AssetAlias(name=f"{source}_reconcile")


def doubt(context: Mapping[str, Any], evidence: Evidence) -> str:
    """Why a run that has succeeded did not confirm the copy, in a few words; empty where it did."""
    filters = _filters(context)
    if filters:
        return f"only a part was looked at ({', '.join(filters)})"
    return outcome.not_confirmed(evidence)


def emit(context: Mapping[str, Any], source: str, evidence: Evidence, scans: Sequence[ForensicSummary]) -> None:
    """Have Airflow create the asset's event when the task succeeds; the figures are the event's `extra`."""
    figures = {scan.entity: {"scope": scan.scope, **scan.figures} for scan in scans}
    extra = {
        "source": source,
        "run": evidence.run,
        "verdict": evidence.verdict,
        "sync_id": evidence.repair and evidence.repair.sync_id,
        "rows": evidence.rows,
        "proven": evidence.proven,
        "entities": figures,
    }
    context["outlet_events"][outlet(source)].add(confirmed(source), extra=extra)


def _filters(context: Mapping[str, Any]) -> list[str]:
    """Params by which the run looks at something else than a scheduled one."""
    declared, given = context["dag"].params, context["params"]
    filters = [name for name in declared if declared.get_param(name).schema.get("section") == FILTERS]
    return sorted(name for name in filters if given[name] != declared[name])
