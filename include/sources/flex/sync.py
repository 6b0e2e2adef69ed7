"""Sync: bring the crew calls of jobs whose crew changed, or of all jobs, to the desired crew."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from threading import Event
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.rows import scalar_row, tuple_row

from include.api.errors import FixConfiguration, NotFound, NotSent, TryLater
from include.sources.base import OutcomeUnknown, Synced, SyncFailed
from include.sources.flex import element, record, row_errors
from include.sources.flex.accounts import CALLS
from include.sources.flex.checks import require_unique_key
from include.sources.flex.crews import FlexContext, Scope, each, in_turn
from include.sources.flex.gate import GateClosed
from include.sources.flex.release import release
from include.sources.flex.report import Report
from include.sources.flex.rows import Unreadable
from include.sources.flex.worker import Worker
from include.warehouse import fence, refusals, sync_log

log = logging.getLogger(__name__)

SOURCE, ENTITY = "flex", "crew"
# The most problems that a message names.
EXAMPLES = 5
# A right may be missing at one crew call only, if it is locked. At so many in a row it is missing everywhere.
FORBIDDEN_IN_A_ROW = 3

# Jobs without a crew call in Flex and without a line of ours there: there is nothing to sync.
UNMAPPED = """
SELECT id FROM unnest(%s::uuid[]) AS job (id)
WHERE NOT EXISTS (SELECT FROM flex.flex_crew_calls WHERE job_id = job.id)
  AND NOT EXISTS (SELECT FROM flex.owned_line WHERE job_id = job.id AND gone_at IS NULL)
"""

# Jobs whose elements are all among these.
SETTLED = """
SELECT id FROM unnest(%(jobs)s::uuid[]) AS job (id)
WHERE NOT EXISTS (SELECT FROM flex.flex_crew_calls c
    WHERE c.job_id = job.id AND c.flex_element_id <> ALL (%(elements)s::uuid[]))
  AND NOT EXISTS (SELECT FROM flex.owned_line o
    WHERE o.job_id = job.id AND o.gone_at IS NULL AND o.flex_element_id <> ALL (%(elements)s::uuid[]))
"""


# Elements that no sync has brought in step since the last rollback, which may have undone that.
NEVER_DONE = """
SELECT DISTINCT flex_element_id FROM (
  SELECT flex_element_id, job_id, department FROM flex.flex_crew_calls
  UNION ALL SELECT flex_element_id, job_id, department FROM flex.owned_line WHERE gone_at IS NULL
) e WHERE NOT EXISTS (
  SELECT FROM flex.flex_sync_log l
  WHERE l.job_id = e.job_id AND l.department = e.department AND l.summary ->> 'state' = 'done'
    AND (l.summary ->> 'sync_id')::bigint > coalesce((
      SELECT max(sync_id) FROM confidence.sync_log WHERE source = %s AND kind = 'rollback'), 0))
"""

# Elements that are not in step are synced again by the next sync, even if nobody changes them.
AGAIN = """
INSERT INTO flex.job_change (job_id)
SELECT DISTINCT job_id FROM (
  SELECT flex_element_id, job_id FROM flex.flex_crew_calls
  UNION ALL SELECT flex_element_id, job_id FROM flex.owned_line WHERE gone_at IS NULL
) e WHERE flex_element_id = ANY (%s) AND NOT EXISTS (SELECT FROM flex.job_change c WHERE c.job_id = e.job_id)
"""

# The states in which nobody knows what is on a crew call.
UNPROVEN = ("unreadable", "uncertain")

# 0 nights: only a scan counts nights, and there are many syncs between two scans.
REMEMBER = """
INSERT INTO confidence.unproven (source, entity, key, why, nights, last_look, run)
VALUES (%(source)s, %(table)s, jsonb_build_array(%(element)s::text), %(why)s, 0, clock_timestamp(), %(run)s)
ON CONFLICT (source, entity, key) DO UPDATE SET why = excluded.why, last_look = excluded.last_look
"""

# Crew calls that have not come in step for an hour, and were tried within the last one: each try takes up to nine
# requests of a quota that all share. Not if the crew has changed since, nor if Flex did not answer.
RESTING = """
SELECT flex_element_id, newest ->> 'state', newest -> 'errors' ->> 0
FROM (
  SELECT (summary ->> 'element')::uuid AS flex_element_id, max(created_at) AS tried,
    (array_agg(summary ORDER BY created_at DESC))[1] AS newest, bool_or(summary ->> 'state' = 'done') AS was_in_step
  FROM flex.flex_sync_log WHERE created_at BETWEEN clock_timestamp() - interval '1 hour' AND clock_timestamp()
  GROUP BY 1
) tries
WHERE NOT was_in_step AND newest ->> 'answered' = 'true'
  AND newest ->> 'state' IN ('unreadable', 'failed', 'waiting')
  AND (SELECT min(w.changed_at) < tried - interval '1 hour' AND max(w.changed_at) < tried
    FROM flex.job_change w JOIN (
      SELECT flex_element_id, job_id FROM flex.flex_crew_calls
      UNION ALL SELECT flex_element_id, job_id FROM flex.owned_line WHERE gone_at IS NULL
    ) e USING (job_id) WHERE e.flex_element_id = tries.flex_element_id)
"""

# What a scan could not prove by both lists is not proven by the rows alone, with which a sync of a crew call in step is
# content: it would be forgotten each day, and never wait for more than one night.
FORGET = """
DELETE FROM confidence.unproven WHERE source = %(source)s AND (nights = 0 OR %(agreed)s) AND key ->> 0 IN (
  SELECT %(element)s::text UNION SELECT id::text FROM flex.flex_crew_calls WHERE flex_element_id = %(element)s)
"""


@dataclass(frozen=True)
class Changes:
    """The waiting changes of the application (change_id and job). `until` is the time at which they were read."""

    jobs: Mapping[int, UUID]
    until: datetime


def sync_elements(context: FlexContext, params: Mapping[str, Any]) -> Synced:
    """Bring every crew call of the scope in step. If one fails, the others are still synced, and the sync fails.

    A waiting change is deleted once all crew calls of its job are in step. Raises SyncFailed, naming what is not in
    step, or OutcomeUnknown if nobody knows whether a write happened.
    """
    conn = context.conn
    writer = fence.read(conn, SOURCE)
    if writer.stopped:
        raise fence.FenceError(f"{writer}; nothing was read or written, the sync catches up after the resume")
    require_unique_key(conn)
    scope, changes = Scope.of(params), waiting(conn)
    reopened = UUID(params["release_element"]) if params.get("release_element") else None
    elements = [reopened] if reopened else _elements(conn, scope, changes, params["mode"])
    resting = {} if reopened or scope.job_id or params["mode"] == "full" else _resting(conn, elements)
    without = _unmapped(conn, {*changes.jobs.values(), *([scope.job_id] if scope.job_id else ())})
    everything = scope == Scope() and not reopened
    sync_id = sync_log.begin(conn, SOURCE, "sync", context.run)
    fenced = partial(fence.writing, source=SOURCE, epoch=writer.epoch)
    reports: list[Report] = []
    try:
        if reopened:
            _release(context, sync_id, fenced, reopened)
        awake = [element_id for element_id in elements if element_id not in resting]
        asked_by = UUID(params["triggered_by"]) if params.get("triggered_by") else None
        work = partial(element.sync_element, believes_gone=params["mode"] == "full")
        for report in carried_out(context, awake, sync_id, fenced, work, asked_by):
            reports.append(report)
        with fenced(conn):
            _remember(conn, reports, context.run, released=bool(reopened))
            reports += resting.values()
            _settle(conn, sync_id, changes, reports, everything=everything)
        require_not_stopped(reports)
        if problems := [problem for report in reports for problem in report.problems]:
            # With an unknown outcome a second try is useless before a person has looked.
            unknown = any(report.state == "uncertain" for report in reports)
            raise (OutcomeUnknown if unknown else SyncFailed)(_failures(reports, problems, len(elements)))
    except BaseException as error:
        finish(context, sync_id, reports, error=error)
        raise
    finish(context, sync_id, reports)
    return Synced(sync_id, {ENTITY: record.counts(reports)}, record.result(reports, without))


def carried_out(
    context: FlexContext,
    elements: Collection[UUID],
    sync_id: int,
    fenced: Any,
    work: Any = element.sync_element,
    triggered_by: UUID | None = None,
) -> Iterator[Report]:
    """Work on the elements; yield each report after it is written to flex_sync_log.

    `work(worker, element_id)` returns the report, None to leave the element out. Once a report says stop, no other
    element is begun; if it is for want of a right, only after FORBIDDEN_IN_A_ROW.
    """
    stopped = Event()
    forbidden: list[UUID] = []

    def ends_all(report: Report) -> bool:
        if not (isinstance(report.stop, FixConfiguration) and report.stop.status == 403):
            forbidden.clear()
            return report.stop is not None
        forbidden.append(report.element_id)
        return len(forbidden) >= FORBIDDEN_IN_A_ROW

    def one(conn: Connection, element_id: UUID) -> Report | None:
        report = None if stopped.is_set() else work(worker_of(context, conn, sync_id, fenced), element_id)
        if report:
            report = _logged(conn, report, sync_id, context.run, triggered_by)
        if report and ends_all(report):
            stopped.set()
        return report

    for turn in in_turn(context.conn, elements):
        for report in filter(None, each(context, turn, one)):
            for problem in report.problems:
                log.error("%s", problem)
            for note in report.diagnostics:
                log.info("element %s: %s", report.element_id, note)
            yield report


def _logged(conn: Connection, report: Report, sync_id: int, run: str, triggered_by: UUID | None) -> Report:
    """Write the report to flex_sync_log. If the warehouse refuses that, it is a problem of this crew call alone."""
    try:
        with conn.transaction():
            record.log(conn, report, sync_id, run, triggered_by)
    except psycopg.Error as error:
        if not refusals.concerns_one(error):
            raise
        state = "failed" if report.state == "done" else report.state
        return replace(report, state=state, problems=(*report.problems, row_errors.told(report.element_id, error)))
    return report


def require_not_stopped(reports: Collection[Report]) -> None:
    """Raise the error that stopped the work. NotSent is left out: it passes without a person."""
    for report in reports:
        if report.stop and not isinstance(report.stop, NotSent):
            raise report.stop


def worker_of(context: FlexContext, conn: Connection, sync_id: int, fenced: Any) -> Worker:
    return Worker(context.api, conn, context.roles, context.run, sync_id, fenced, context.prune, context.source.pauses)


def finish(
    context: FlexContext,
    sync_id: int,
    reports: Collection[Report],
    error: BaseException | None = None,
    superseded: int = 0,
) -> None:
    """Close the row of the sync log with the counts, or with an error."""
    counted = {ENTITY: record.counts(reports, superseded)}
    traffic = {"requests": context.api.requests_sent, "request_errors": context.api.requests_failed}
    sync_log.finish(context.conn, sync_id, counted, error, **traffic)


def waiting(conn: Connection) -> Changes:
    """Return the jobs that the application has noted in flex.job_change. Later notes wait for the next sync."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        (until,) = cursor.execute("SELECT clock_timestamp()").fetchone()
        return Changes(dict(cursor.execute("SELECT change_id, job_id FROM flex.job_change").fetchall()), until)


def _elements(conn: Connection, scope: Scope, changes: Changes, mode: str) -> Sequence[UUID]:
    """Return the elements to sync: those of the changed jobs. A full sync takes all in scope.

    Before the first watermark those that were never in step are added: the first sync brings everything in step, over
    several runs if need be.
    """
    elements = scope.elements(conn, set(changes.jobs.values()))
    if scope.job_id or (mode != "full" and sync_log.state(conn, SOURCE, ENTITY).watermark):
        return elements
    everything = scope.elements(conn)
    if mode != "full":
        with conn.cursor(row_factory=scalar_row) as cursor:
            missing = set(cursor.execute(NEVER_DONE, [SOURCE]))
        everything = [each for each in everything if each in missing]
    return [*everything, *(each for each in elements if each not in {*everything})]


def _resting(conn: Connection, elements: Collection[UUID]) -> dict[UUID, Report]:
    """Return those of the elements that are not asked for this time, each with the report that says so."""
    return {
        element_id: Report(
            element_id,
            state,
            problems=(
                f"element {element_id} was not read this time, as it has been out of step for over an hour:"
                f" {why.rstrip('.')}. It is read once an hour; to read it at once, run flex_sync with its job_id",
            ),
        )
        for element_id, state, why in conn.execute(RESTING).fetchall()
        if element_id in elements
    }


def _unmapped(conn: Connection, jobs: Collection[UUID]) -> list[UUID]:
    """Return the jobs that have no crew call in Flex, and so nothing to sync."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(UNMAPPED, [list(jobs)]).fetchall()


def _release(context: FlexContext, sync_id: int, fenced: Any, element_id: UUID) -> None:
    """Release the element. Raises SyncFailed if what Flex shows now does not settle its writes."""
    worker = worker_of(context, context.conn, sync_id, fenced)
    try:
        settled = release(worker, element_id)
    except (Unreadable, ValueError, GateClosed, NotFound, TryLater) as error:
        raise SyncFailed(f"element {element_id} was not released: {error}") from None
    log.info("element %s was released: %d writes settled by what Flex shows", element_id, settled)


def _settle(conn: Connection, sync_id: int, changes: Changes, reports: Collection[Report], *, everything: bool) -> None:
    """Delete the changes that are in Flex now. If that is all of them, advance the watermark to when they were read.

    The first watermark is set by a sync of everything, since older crew calls have no change that waits.
    """
    done = [report.element_id for report in reports if report.state == "done"]
    left = [report.element_id for report in reports if report.state != "done"]
    jobs = list(set(changes.jobs.values()))
    with conn.cursor(row_factory=scalar_row) as cursor:
        settled = set(cursor.execute(SETTLED, {"jobs": jobs, "elements": done}).fetchall())
    seen = [change_id for change_id, job_id in changes.jobs.items() if job_id in settled]
    conn.execute("DELETE FROM flex.job_change WHERE change_id = ANY (%s)", [seen])
    conn.execute(AGAIN, [left])
    in_step = len(seen) == len(changes.jobs) and not left
    if in_step and (everything or sync_log.state(conn, SOURCE, ENTITY).watermark):
        seconds = sum(report.seconds for report in reports)
        moved = {"watermark": changes.until, "counts": record.counts(reports), "duration_seconds": seconds}
        sync_log.advance(conn, sync_id, SOURCE, ENTITY, **moved)


def _remember(conn: Connection, reports: Collection[Report], run: str, *, released: bool) -> None:
    """Store unproven crew calls in confidence.unproven; delete those that are proven now.

    `released`: both lists were read just before, for the release.
    """
    for report in reports:
        named = {"source": SOURCE, "table": CALLS, "element": report.element_id, "run": run}
        if report.state in UNPROVEN:
            conn.execute(REMEMBER, {**named, "why": "; ".join(report.problems)})
        elif report.state == "done":
            conn.execute(FORGET, named | {"agreed": report.agreed or released})


def _failures(reports: Collection[Report], problems: Sequence[str], elements: int) -> str:
    failed = elements - sum(report.state == "done" for report in reports)
    more = f"; and {len(problems) - EXAMPLES} more" if len(problems) > EXAMPLES else ""
    return (
        f"{failed} of {elements} crew calls are not in step: {'; '.join(problems[:EXAMPLES])}{more}."
        " The next sync tries them again; those that were not read this time are tried once an hour. What is refused"
        " or uncertain has to be mended first"
    )
