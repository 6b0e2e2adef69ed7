"""What a run is called and what it was asked to do."""

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowFailException


class ConfRefused(AirflowFailException):
    """The run's conf has keys that the DAG does not know."""


def run_name(context: Mapping[str, Any]) -> str:
    """Return `dag_id/run_id`, the name of the run in the warehouse."""
    return f"{context['dag'].dag_id}/{context['run_id']}"


def refuse_unknown_conf(context: Mapping[str, Any]) -> None:
    """Raise ConfRefused if the run's conf has a key that is no param of the DAG.

    Airflow accepts any key, so a misspelt one would silently do nothing.
    """
    # The run's own params are no help here: Airflow merges the conf into them.
    known = set(context["dag"].params)
    unknown = sorted(set(context["dag_run"].conf or {}) - known)
    if unknown:
        raise ConfRefused(
            f"unknown in the run's conf: {', '.join(unknown)}. Known params: {', '.join(sorted(known))}."
            " Trigger a new run with the right names"
        )


def is_dry(context: Mapping[str, Any], source: str) -> bool:
    """Return whether the run must not change the copy of the source.

    The DAG's param `dry_run` decides; a DAG without it writes. Scheduled runs write even on a dry run if the Airflow
    Variable `nightly_repair_sources` (names, separated by commas; none by default) names the source.
    """
    repairing = {name.strip() for name in Variable.get("nightly_repair_sources", default="").split(",")}
    scheduled = context["dag_run"].run_type == "scheduled"
    return context["params"].get("dry_run", False) and not (scheduled and source in repairing)
