"""`watch`: compare the warehouse (fence, holds, scans, repairs) with Airflow, and tell people what is wrong."""

import logging
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from airflow.sdk import BaseOperator
from psycopg import Connection

from include.api.errors import ApiError
from include.confidence import findings, holds, messages, outbox, outcome, run_evidence, unfinished_work
from include.confidence.failure import Failure
from include.confidence.messages import WATCH, Kind
from include.confidence.outcome import Gap
from include.confidence.watch import Facts, Finding, Pool, Run, UnfinishedWork
from include.confidence.watch import findings as found_in
from include.sources import get_source
from include.sources.installed import installed_sources
from include.sources.pools import declared_pools, pool_name
from include.warehouse import fence, sync_log
from include.warehouse.fence import FenceError, Writer
from plugins import notify
from plugins.configured import missing_connections
from plugins.hooks import airflow_api, warehouse
from plugins.hooks.airflow_api import AirflowApi
from plugins.runs import refuse_unknown_conf, run_name

# Older runs are not looked at.
RECENT = timedelta(days=7)

log = logging.getLogger(__name__)

ON_CALL = """
Looks at every source that `SYNC_CONFIDENCE_SOURCES` names, and tells people what does not move or was left undone.
Changes nothing.

**If it fails:** nothing depends on it, and the next run looks again. Mend what the message names.
"""


class WatchFailed(Exception):
    """Some sources could not be looked at. The message says which, and why."""


class WatchOperator(BaseOperator):
    """Compare each source's state in the warehouse with Airflow, and tell people what is wrong.

    Returns {source: codes of the findings}. People are told a finding once two passes, minutes apart, have seen it, and
    again only after it was gone.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{"doc_md": ON_CALL, **kwargs})

    def execute(self, context: Any) -> dict[str, list[str]]:
        refuse_unknown_conf(context)
        run, result, problems = run_name(context), {}, []
        with airflow_api.opened() as api, warehouse.connect(run) as conn:
            look_up = cache(api.run)
            for source in installed_sources():
                try:
                    found = found_in(facts(conn, api, look_up, source))
                except (ApiError, FenceError) as error:
                    problems.append(f"{source}: {error}")
                    continue
                result[source] = [str(finding.code) for finding in found]
                _tell(run, source, found, findings.keep(conn, source, found))
        if problems:
            raise WatchFailed(f"not looked at: {'; '.join(problems)}")
        notify.tell(run, WATCH, ended=[Kind.WATCH_FAILED])
        return result

    def tell_failure(self, context: Any, failure: Failure) -> None:
        """Send the failure of the watch, unless the run before failed too and has sent it."""
        if _failed_before(context):
            return
        run = run_name(context)
        notify.tell(run, WATCH, [messages.of_lost_watch(run, failure, notify.run_link(run))])


def facts(conn: Connection, api: AirflowApi, look_up: Any, source: str) -> Facts:
    """Return the source's state now, in the warehouse and in Airflow. `look_up` returns a run by its name."""
    pool = api.pool(pool_name(source))
    writer = fence.read(conn, source)
    unjudged, unverified = unfinished_work.unjudged(conn, source), unfinished_work.unverified(conn, source)
    unfinished = unfinished_work.unfinished(conn, source)
    runs = {run for run, _ in [*unjudged, *unverified, *unfinished]}
    known = outbox.told_runs(conn, source, runs)

    def left(rows: list[tuple[str, str]]) -> tuple[UnfinishedWork, ...]:
        return tuple(UnfinishedWork(look_up(run), subject, run in known) for run, subject in rows)

    return Facts(
        now=datetime.now(UTC),
        writer=writer,
        stopper=look_up(writer.run or "") if writer.stopped else None,
        stop_known=holds.stays_stopped(conn, source)
        or bool(outbox.told_runs(conn, source, [writer.run or ""], writer.since)),
        pool=pool and Pool(pool.slots, pool.include_deferred, look_up(pool.closer) if pool.closer else None),
        declared=_declared(source),
        missing_connections=missing_connections(source),
        paused=_paused(conn, api, source),
        not_done=_not_done(conn, look_up, writer),
        unjudged=left(unjudged),
        unverified=left(unverified),
        unfinished=left(unfinished),
    )


def _paused(conn: Connection, api: AirflowApi, source: str) -> tuple[str, ...]:
    """Return the source's DAGs that are paused; none if the source was never synced, since it is not in use then."""
    if not sync_log.ever_synced(conn, source):
        return ()
    return tuple(dag for dag in (f"{source}_sync", f"{source}_reconcile") if api.is_paused(dag))


def _not_done(conn: Connection, look_up: Any, writer: Writer) -> tuple[Run, Gap] | None:
    """Return the last successful run of the runbook with what it left out, None if it left out nothing.

    Runs that stopped the writer more than a week ago are not looked at.
    """
    if writer.run is None or datetime.now(UTC) - writer.since > RECENT:
        return None
    run = look_up(writer.run)
    if run.state != "success":
        return None
    entities = [entity.name for entity in get_source(writer.source).entities]
    # The warehouse does not know whether it was a dry run, so a missing repair does not count here.
    gap = outcome.gap(run_evidence.read(conn, writer.source, writer.run, entities), dry_run=True)
    return gap and (run, gap)


def _declared(source: str) -> Pool:
    """Return the pool of the source's writer as it should be."""
    pool = declared_pools()[pool_name(source)]
    return Pool(pool["slots"], pool["include_deferred"])


def _tell(run: str, source: str, found: list[Finding], settled: list[Finding]) -> None:
    """Log every finding; tell people the settled ones that they don't know yet."""
    for finding in found:
        log.warning("%s: %s; %s. Next: %s", source, finding.what, finding.consequence, finding.next_step)
    events = [
        messages.of_finding(finding, finding.run or run, notify.run_link(finding.run or run))
        for finding in settled
        if not finding.known
    ]
    notify.tell(run, source, events, ended=[Kind.WATCH])


def _failed_before(context: Any) -> bool:
    """Return whether the last run's task has failed too; False if it can't be asked, outside the task's process."""
    if not context.get("exception"):
        return False
    before = context["ti"].get_previous_ti()
    return before is not None and before.state == "failed"
