"""Metrics, by Airflow's own facility: StatsD or OpenTelemetry, as Airflow is set; nothing where it is not.

The names say what they are of: plain StatsD has no tags.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from airflow.sdk.observability import stats

from include.confidence.spans import PREFIX


def send(figures: Mapping[str, float | None], *names: str) -> None:
    """Send those figures that are known as gauges `sync_confidence.<names>.<figure>`."""
    for figure, value in figures.items():
        if value is not None:
            stats.gauge(_name(*names, figure), value)


def timed(*names: str) -> AbstractContextManager[Any]:
    """Send how long the block took, whatever became of it, as the timer `sync_confidence.<names>.duration`."""
    return stats.timer(_name(*names, "duration"))


def _name(*names: str) -> str:
    return ".".join([PREFIX, *names])
