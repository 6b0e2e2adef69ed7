"""Repair: what the scan has planned, where it is still called for; and whether Flex is better for it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Event
from uuid import UUID

from psycopg import Connection

from include.api.errors import TryLater
from include.confidence import history
from include.confidence.summary import ForensicSummary
from include.sources.base import Check, OutcomeUnknown, SyncFailed
from include.sources.flex import element, record
from include.sources.flex.crews import Context, each
from include.sources.flex.desired import Crew
from include.sources.flex.element import FAILED, Report, Worker, wanted
from include.sources.flex.plan import Plan, key
from include.sources.flex.rows import Line
from include.sources.flex.scan import Seen, evidence, look
from include.sources.flex.sync import ENTITY, SOURCE, carried_out, finish, require_not_stopped
from include.warehouse import fence, sync_log
from include.warehouse.sync_log import Counts

# Once its writer is gone, what a gate still stands for has an outcome that nobody knows.
OUTSTANDING = """
SELECT g.flex_element_id FROM flex.element_gate g JOIN flex.operation USING (operation_id) WHERE sync_id = %s
"""


def repair(context: Context, summary: ForensicSummary) -> tuple[int, Mapping[str, Counts]]:
    """Carry out the plan, crew call by crew call; return the sync_id and what was done.

    Each is read anew, and of what it needs now only what was planned is done; the rest is superseded. Raises
    OutcomeUnknown once nobody knows what became of a write: nothing further is begun, and the writer is held; TryLater
    where crew calls could not be read; SyncFailed where Flex refused something. What was done by then stays done.
    """
    conn = context.conn
    writer = fence.require_stopped(conn, SOURCE, context.run)
    history.require_latest(conn, summary)
    planned = evidence(conn, summary)
    sync_id = sync_log.begin(conn, SOURCE, "repair", context.run)
    fenced = partial(fence.writing, source=SOURCE, epoch=writer.epoch, run=context.run)
    reports: list[Report] = []
    doubtful = Event()

    def work(worker: Worker, element_id: UUID) -> Report | None:
        if doubtful.is_set():
            return None
        report = element.sync(worker, element_id, partial(_only, planned[element_id]))
        if report.state == "uncertain":
            doubtful.set()
        return report

    try:
        try:
            for report in carried_out(context, planned, sync_id, fenced, work):
                reports.append(report)
        finally:
            # Whatever else went wrong: people have to know first that nobody knows.
            _require_known(context, summary, sync_id, reports)
        require_not_stopped(reports)
        _require_done(reports)
    except BaseException as error:
        finish(context, sync_id, reports, str(error) or type(error).__name__, _superseded(planned, reports))
        raise
    superseded = _superseded(planned, reports)
    finish(context, sync_id, reports, superseded=superseded)
    return sync_id, {ENTITY: record.counts(reports, superseded)}


def verify(context: Context, summary: ForensicSummary) -> list[Check]:
    """Read the crew calls that were repaired once more: what of the plan is open, and what came up beside it."""
    planned = evidence(context.conn, summary)

    def one(conn: Connection, element_id: UUID) -> Seen:
        return look(replace(context, conn=conn), element_id)

    seen = list(each(context, planned, one))
    open_ = sum(len(planned[found.element_id] & found.planned.keys()) for found in seen)
    unreadable = sum(found.figures.get("unreadable", 0) for found in seen)
    duplicates = sum(found.figures.get("duplicate_in_flex", 0) for found in seen)
    return [
        Check(ENTITY, "planned_changes_open", sum(map(len, planned.values())), open_),
        # Where either was found nothing is planned.
        Check(ENTITY, "duplicate_in_flex", 0, duplicates),
        Check(ENTITY, "unreadable", 0, unreadable),
    ]


def _only(planned: Collection[str], crew: Crew, lines: Sequence[Line]) -> Plan:
    """Of what the crew call needs now only what the gate has judged."""
    plan = wanted(crew, lines)
    return replace(plan, actions=tuple(action for action in plan.actions if key(action) in planned))


def _require_known(context: Context, summary: ForensicSummary, sync_id: int, reports: Collection[Report]) -> None:
    """Raises OutcomeUnknown, with the writer held, where a gate doesn't open any more."""
    conn = context.conn
    uncertain = {report.element_id for report in reports if report.state == "uncertain"}
    uncertain |= {element_id for (element_id,) in conn.execute(OUTSTANDING, [sync_id])}
    if not uncertain:
        return
    reason = (
        f"repair (sync_id {sync_id}) doesn't know what became of a write on element"
        f" {', '.join(sorted(map(str, uncertain)))}, which is left alone from now on. Look at the crew call in Flex,"
        " answer decide with 'Resume without repair', then run flex_sync with release_element"
    )
    with conn.transaction():
        history.mark_hold(conn, summary.scan_id, reason)
        history.refresh_hold(conn, SOURCE)
    raise OutcomeUnknown(reason)


def _require_done(reports: Collection[Report]) -> None:
    problems = "; ".join([problem for report in reports for problem in report.problems][:5])
    if any(report.state in ("unreadable", "stopped") for report in reports):
        raise TryLater(f"not all crew calls could be read again, the others are repaired: {problems}")
    if problems:
        raise SyncFailed(f"not everything is repaired: {problems}. Clear scan with downstream once that is mended")


def _superseded(planned: Mapping[UUID, Collection[str]], reports: Collection[Report]) -> int:
    """Planned changes that were not called for any more when they should have been made."""
    done = record.counts(reports)
    refused = sum(report.count(*FAILED, "prune_failed") for report in reports)
    made = done.inserted + done.updated + done.deleted + refused
    ended = {report.element_id for report in reports if report.state in ("done", "failed")}
    return max(0, sum(len(planned[element_id]) for element_id in ended) - made)
