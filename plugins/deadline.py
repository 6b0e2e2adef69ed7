"""The alert that a writer has been stopped for too long, whichever run has stopped it and however that has ended."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback

from include.confidence import messages
from include.warehouse import fence
from plugins import notify
from plugins.hooks import warehouse

# From the time at which a run is due to the stop of its writer: a running sync is given as long to end.
MARGIN = timedelta(minutes=15)


def stopped_too_long(source: str) -> DeadlineAlert:
    """The alert for a DAG of the source. How long is too long is read with the DAG file, so from the environment.

    On `<source>_reconcile` it looks after the stop of that run, also when the run has failed meanwhile; on
    `<source>_sync` after any other, since a run of that DAG waits for as long as the writer stands.
    """
    hours = _limit_hours()
    return DeadlineAlert(
        # Of a run with a deadline from its queueing Airflow 3.3.2 can clear no task: it answers 500. A run without a
        # logical date, as by the REST API, has none of its own; the waiting sync's is then the one that tells.
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=timedelta(hours=hours) + MARGIN,
        callback=SyncCallback(tell_long_stop, kwargs={"source": source, "hours": hours}),
    )


def tell_long_stop(source: str, hours: float, context: Mapping[str, Any]) -> None:
    """Tell that the writer has been stopped for longer than so many hours, if it has."""
    run = "{dag_id}/{dag_run_id}".format(**context["dag_run"])
    with warehouse.connect(run) as conn:
        writer = fence.read(conn, source)
    link = notify.run_link(writer.run or run)
    event = messages.of_long_stop(writer, datetime.now(UTC), timedelta(hours=hours), run, link)
    if event:
        notify.tell(run, source, [event])


def _limit_hours() -> float:
    hours = os.environ.get("WRITER_STOPPED_LIMIT_HOURS") or "4"
    try:
        return float(hours)
    except ValueError:
        raise ValueError(f"WRITER_STOPPED_LIMIT_HOURS is {hours!r}: set it to a number of hours, as 4") from None
