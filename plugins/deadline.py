"""The alert that a writer has been stopped for too long, even if the run that stopped it has ended."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback

from include.confidence import messages
from include.warehouse import fence
from plugins import notify
from plugins.hooks import warehouse

# The most time between the logical date of a run and the stop of its writer: a running sync has this long to end.
MARGIN = timedelta(minutes=15)


def stopped_too_long(source: str) -> DeadlineAlert:
    """Return the alert for a DAG of the source. The limit is WRITER_STOPPED_LIMIT_HOURS of the environment, or 4.

    On `<source>_reconcile` the alert covers the stop of that run, even if the run has failed since. On `<source>_sync`
    it covers every other stop, since a sync waits while the writer is stopped.
    """
    hours = _limit_hours()
    return DeadlineAlert(
        # With a deadline that counts from queueing, Airflow 3.3.2 answers 500 to clearing a task. A run without logical
        # date, such as one of the REST API, has no deadline; then the one of the waiting sync tells.
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=timedelta(hours=hours) + MARGIN,
        callback=SyncCallback(tell_long_stop, kwargs={"source": source, "hours": hours}),
        # Airflow shows it beside "Must complete within ..." on the page of a run, which may wait longer for an answer.
        name="after that a message says so if the writer still stands; the run goes on",
    )


def tell_long_stop(source: str, hours: float, context: Mapping[str, Any]) -> None:
    """Tell people if the writer has been stopped for longer than `hours`. Airflow calls this at the deadline."""
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
