"""Settings of the installation: an Airflow Variable, else a variable of the workers' environment."""

import os

from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowFailException

from include.sources import get_source


class NotEnabled(AirflowFailException):
    """The setting that allows changes to the source's copy is off."""


def variable(name: str) -> str | None:
    """Return the Airflow Variable of that name, else the environment's; None if nobody has set either."""
    return Variable.get(name, default=os.environ.get(name))


def require_enabled(source: str) -> None:
    """Raise NotEnabled unless the source's switch is 1. A source without a switch needs none."""
    switch = get_source(source).switch
    if switch and variable(switch) != "1":
        raise NotEnabled(
            f"reconciliation is not enabled: to apply changes to {source}, set the Airflow Variable {switch}, or"
            f" {switch} in the environment of Airflow's workers, to 1; then trigger a new run. Or leave dry_run on"
        )
