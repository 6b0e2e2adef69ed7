"""The asset of a source. It gets an event when a run of the runbook has confirmed the copy."""

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Asset, AssetAlias

from include.confidence import outcome
from include.confidence.outcome import Evidence
from include.confidence.summary import ForensicSummary

# The part of a trigger form whose params narrow what a run looks at.
FILTERS = "Which part"


def confirmed(source: str) -> Asset:
    """Return the asset `<source>_confirmed`."""
    return Asset(name=f"{source}_confirmed", uri=f"sync-confidence://{source}")


def outlet(source: str) -> AssetAlias:
    """Return the alias that `report` declares as its outlet.

    With an asset as outlet each success would be an event; with an alias the task decides.
    """
    return AssetAlias(name=f"{source}_reconcile")


def doubt(context: Mapping[str, Any], evidence: Evidence) -> str:
    """Return why a successful run has not confirmed the copy, in a few words; empty if it has."""
    narrowed = filters(context)
    if narrowed:
        return f"only a part was looked at ({', '.join(narrowed)})"
    return outcome.not_confirmed(evidence)


def emit(context: Mapping[str, Any], source: str, evidence: Evidence, scans: Sequence[ForensicSummary]) -> None:
    """Add an event of the asset, which Airflow creates when the task succeeds. Its `extra` has the figures."""
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


def filters(context: Mapping[str, Any]) -> list[str]:
    """Return the filters whose values differ from the defaults, which scheduled runs have."""
    declared, given = context["dag"].params, context["params"]
    names = [name for name in declared if declared.get_param(name).schema.get("section") == FILTERS]
    return sorted(name for name in names if (given[name] or None) != (declared[name] or None))
