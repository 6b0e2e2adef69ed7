"""What the figures of a scan mean, in a sentence each: for pages, questions and docs/glossary.md."""

from collections.abc import Mapping

from include.confidence import field_figures

# Figures that every scan has, or every gate.
EVERY_SCAN: Mapping[str, str] = {
    "live_rows": "Live rows of the copy that were compared with the source; shares are of these.",
    "planned_insert": "Rows that a repair would insert.",
    "planned_update": "Rows that a repair would update.",
    "planned_delete": "Rows that a repair would delete.",
    "unproven": "Rows of the entity's tables that no scan could prove so far.",
    "unproven_overdue": "Rows of the entity's tables that more than one run could not prove.",
    "plan.delete": "Rows that the plan deletes, held against the share of the table that a repair may delete.",
    "plan.update": "Rows that the plan updates, held against the share of the table that a repair may update.",
    "plan.lasting": "Changes in the smallest plan of the last seven scans.",
    **field_figures.METRICS,
}
GROWTH = "growth."


def explain(metric: str, texts: Mapping[str, str]) -> str:
    """Return what a metric means, in a sentence; empty if nothing is known. `texts`: those of the source."""
    if metric.startswith(GROWTH):
        return (
            f"Rows by which the level of {metric.removeprefix(GROWTH)} has risen above its lowest level of six weeks."
        )
    return texts.get(metric) or EVERY_SCAN.get(metric, "")
