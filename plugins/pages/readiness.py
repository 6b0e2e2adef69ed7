"""Readiness, as load balancers ask for it: whether the copies can be relied on now, and if not, why."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from psycopg import Connection

from include.confidence.queries.overview import Status, read_statuses
from include.confidence.watch import Code
from plugins.pages.status import health_figures
from plugins.pages.warehouse import WarehouseUnavailable, opened

# A writer that is not held is stopped for less than so many hours.
STOPPED_HOURS = "4"
STOPPED_STEP = "Answer the task decide of that run; if it asks nothing, read its failed task"


@dataclass(frozen=True)
class Reason:
    """Why the copies are not ready: a `code` for machines, the source (None: all), and a line that says what to do."""

    code: str
    source: str | None
    line: str


@dataclass(frozen=True)
class Readiness:
    """The answer. It is `ready` if there are no reasons against it."""

    ready: bool
    reasons: tuple[Reason, ...]


def readiness(sources: Sequence[str], named: str | None = None) -> Readiness:
    """Return whether the source `named` is ready, or all `sources` if none is named.

    A source that was never synced is not ready if it is named, and otherwise ignored as not in use. The environment's
    WRITER_STOPPED_LIMIT_HOURS replaces the 4 hours that a writer may be stopped.
    """
    try:
        with opened() as conn:
            reasons = tuple(_reasons(conn, [named] if named else sources, named))
    except WarehouseUnavailable as error:
        reasons = (Reason("warehouse_unavailable", None, str(error)),)
    return Readiness(not reasons, reasons)


def _reasons(conn: Connection, sources: Sequence[str], named: str | None) -> Iterator[Reason]:
    found = {status.writer.source: status for status in read_statuses(conn, sources)}
    for source in sources:
        if source not in found:
            line = f"the warehouse has no row for {source}: run the DAG warehouse_migrate"
            yield Reason("source_unknown", source, line)
            continue
        yield from _stopped(found[source])
        yield from _found_wrong(found[source])
        if found[source].last_sync is not None:
            yield from _stale(conn, source)
        elif named:
            yield Reason("sync_unknown", source, f"{source} was never synced: run the DAG {source}_sync")


def _stopped(status: Status) -> Iterator[Reason]:
    writer = status.writer
    limit = timedelta(hours=float(os.environ.get("WRITER_STOPPED_LIMIT_HOURS") or STOPPED_HOURS))
    if writer.stopped and datetime.now(UTC) - writer.since > limit:
        yield Reason("writer_stopped", writer.source, f"{writer}. {STOPPED_STEP}")


def _found_wrong(status: Status) -> Iterator[Reason]:
    """Yield what the watch has found that makes a copy unreliable."""
    for finding in status.findings:
        if finding.code == Code.NOT_CONFIGURED or (finding.code == Code.UNVERIFIED and finding.settled):
            yield Reason(finding.code, status.writer.source, f"{finding.what}. {finding.next_step}")


def _stale(conn: Connection, source: str) -> Iterator[Reason]:
    figures = health_figures(conn, source)
    for alert in figures.alerts if figures else ():
        if alert.rule == "freshness":
            yield Reason("sync_stale", source, alert.line)
