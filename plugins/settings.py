"""Settings of the installation: an Airflow Variable, else a variable of the workers' environment."""

import math
import os

from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowFailException

from include.sources import get_source


class NotEnabled(AirflowFailException):
    """The setting that allows changes to the source's copy is off."""


class NoDuration(AirflowFailException):
    """An Airflow Variable that should hold a duration holds something else."""


def duration(name: str, default: float, *, most: float) -> float:
    """Return the number that the Airflow Variable holds, from 0 to `most`; `default` if it is not set.

    Raises NoDuration for anything else.
    """
    value = Variable.get(name, default=default)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= most:
        raise NoDuration(
            f"the Airflow Variable {name} has to be a number from 0 to {most:g}, and is {value!r}; nothing was"
            " done. Set it again or delete it under Admin, Variables, then clear this task with downstream"
        )
    return number


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
