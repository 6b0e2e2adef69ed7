"""Metrics through Airflow: StatsD or OpenTelemetry as Airflow is configured, else nothing.

Source and entity are part of a metric's name, since plain StatsD has no tags.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from airflow.sdk.observability import stats

from include.confidence.spans import PREFIX


def send(figures: Mapping[str, float | None], *names: str) -> None:
    """Send each figure that is not None as the gauge `sync_confidence.<names>.<figure>`."""
    for figure, value in figures.items():
        if value is not None:
            stats.gauge(_name(*names, figure), value)


def timed(*names: str) -> AbstractContextManager[Any]:
    """Return a context that sends its duration as the timer `sync_confidence.<names>.duration`, also on failure."""
    return stats.timer(_name(*names, "duration"))


def _name(*names: str) -> str:
    return ".".join([PREFIX, *names])
