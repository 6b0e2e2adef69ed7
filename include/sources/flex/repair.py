"""Repair what a scan has planned, as far as it is still needed; verify that Flex is better for it."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from threading import Event
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from include.api.errors import TryLater
from include.confidence import holds, scan_log
from include.confidence.summary import ForensicSummary
from include.sources.base import Check, OutcomeUnknown, SyncFailed
from include.sources.flex import element, record
from include.sources.flex.checks import require_unique_key
from include.sources.flex.compare import Compared, compare_element
from include.sources.flex.crews import FlexContext, each
from include.sources.flex.desired import Crew
from include.sources.flex.plan import Action, Add, Plan, SetRole, key
from include.sources.flex.planner import wanted
from include.sources.flex.report import Report
from include.sources.flex.rows import Line
from include.sources.flex.scan import evidence, evidence_id
from include.sources.flex.sync import ENTITY, SOURCE, carried_out, finish, require_not_stopped
from include.sources.flex.worker import Worker
from include.warehouse import fence, sync_log
from include.warehouse.sync_log import Counts

# Gates that still wait for an outcome of the repair. Nobody is at work any more, so these outcomes stay unknown.
OUTSTANDING = """
SELECT g.flex_element_id FROM flex.element_gate g JOIN flex.operation USING (operation_id) WHERE sync_id = %s
"""

# Writes that no read has proven. There are none unless the repair has failed.
NOT_PROVEN = """
SELECT count(*) FROM flex.operation WHERE sync_id = %s AND state IN ('sent', 'answered', 'unknown')
"""

SUPERSEDE = "UPDATE flex.element_scan SET superseded = %s WHERE scan_id = %s AND flex_element_id = %s"
SUPERSEDED = """
SELECT flex_element_id, array(SELECT jsonb_array_elements_text(superseded)) FROM flex.element_scan WHERE scan_id = %s
"""


def repair_elements(context: FlexContext, summary: ForensicSummary) -> tuple[int, Mapping[str, Counts]]:
    """Carry out the plan, crew call by crew call; return the sync_id and the counts.

    Each crew call is read again. A planned change that it still needs is made; any other is superseded.

    Raises OutcomeUnknown if nobody knows whether a write happened: no further crew call is begun, and the writer is
    held. Raises TryLater if crew calls could not be read, SyncFailed if Flex refused something. What was done by then
    stays done.
    """
    conn = context.conn
    writer = fence.require_stopped(conn, SOURCE, context.run)
    scan_log.require_latest(conn, summary)
    require_unique_key(conn)
    planned = evidence(conn, summary)
    sync_id = sync_log.begin(conn, SOURCE, "repair", context.run)
    fenced = partial(fence.writing, source=SOURCE, epoch=writer.epoch, run=context.run)
    reports: list[Report] = []
    doubtful = Event()

    def superseded(reports: Collection[Report]) -> int:
        """Return how many planned changes were not needed any more."""
        return sum(len(_superseded(report, planned[report.element_id])) for report in reports)

    def work(worker: Worker, element_id: UUID) -> Report | None:
        if doubtful.is_set():
            return None
        report = element.sync_element(worker, element_id, partial(_only, planned[element_id]))
        if report.state == "uncertain":
            doubtful.set()
        return report

    try:
        try:
            for report in carried_out(context, planned, sync_id, fenced, work):
                reports.append(report)
                _store_superseded(conn, summary, report, planned[report.element_id])
        finally:
            # An unknown outcome matters more than any other error, so it is raised first.
            _require_known(context, summary, sync_id, reports)
        require_not_stopped(reports)
        _require_done(reports)
    except BaseException as error:
        finish(context, sync_id, reports, error, superseded(reports))
        raise
    finish(context, sync_id, reports, superseded=superseded(reports))
    return sync_id, {ENTITY: record.counts(reports, superseded(reports))}


def verify_repair(context: FlexContext, summary: ForensicSummary, sync_id: int) -> list[Check]:
    """Read the repaired crew calls again; return checks of the planned changes still open and of new problems.

    The repair left superseded changes out on purpose, so these may be open without making the copy worse.
    """
    conn = context.conn
    planned = evidence(conn, summary)
    superseded = dict(conn.execute(SUPERSEDED, [evidence_id(summary.scan_id, summary.scope)]).fetchall())

    def compare_again(conn: Connection, element_id: UUID) -> Compared:
        return compare_element(replace(context, conn=conn), element_id)

    seen = list(each(context, planned, compare_again))
    open_ = [(found.element_id, change) for found in seen for change in planned[found.element_id] & {*found.planned}]
    open_superseded = sum(change in superseded[element_id] for element_id, change in open_)
    unreadable = sum(found.figures.get("unreadable", 0) for found in seen)
    duplicates = sum(found.figures.get("duplicate_in_flex", 0) for found in seen)
    return [
        Check(ENTITY, "planned_changes_open", open_superseded, len(open_)),
        # The scan plans nothing for such crew calls, so there were none before.
        Check(ENTITY, "duplicate_in_flex", 0, duplicates),
        Check(ENTITY, "unreadable", 0, unreadable),
        Check(ENTITY, "writes_not_proven", 0, conn.execute(NOT_PROVEN, [sync_id]).fetchone()[0]),
    ]


def _only(planned: Set[str], crew: Crew, lines: Sequence[Line]) -> Plan:
    """Return the plan for what the crew call needs now, reduced to changes that the scan has planned.

    The role of a line that the repair adds was planned with the add.
    """
    plan = wanted(crew, lines)

    def is_planned(action: Action) -> bool:
        if isinstance(action, SetRole) and action.line_id in crew.owned:
            return not planned.isdisjoint({key(action), key(Add(action.resource_id, action.role_id, ()))})
        return key(action) in planned

    return replace(plan, actions=tuple(filter(is_planned, plan.actions)))


def _require_known(context: FlexContext, summary: ForensicSummary, sync_id: int, reports: Collection[Report]) -> None:
    """Hold the writer and raise OutcomeUnknown if a gate is uncertain after the repair."""
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
        holds.mark_hold(conn, summary.scan_id, reason)
        holds.refresh_hold(conn, SOURCE)
    raise OutcomeUnknown(reason)


def _require_done(reports: Collection[Report]) -> None:
    """Raise TryLater if a crew call could not be read, SyncFailed if anything was not repaired."""
    # An orphan that could not be deleted is a planned change that was not made.
    problems = "; ".join([problem for report in reports for problem in (*report.problems, *report.orphans_left)][:5])
    if any(report.state in ("unreadable", "stopped") for report in reports):
        raise TryLater(f"not all crew calls could be read again, the others are repaired: {problems}")
    if problems:
        raise SyncFailed(f"not everything is repaired: {problems}. Clear scan with downstream once that is mended")


def _store_superseded(conn: Connection, summary: ForensicSummary, report: Report, planned: Collection[str]) -> None:
    """Store the planned changes that the crew call did not need any more."""
    values = [Jsonb(_superseded(report, planned)), evidence_id(summary.scan_id, summary.scope), report.element_id]
    conn.execute(SUPERSEDE, values)


def _superseded(report: Report, planned: Collection[str]) -> list[str]:
    read = report.state in ("done", "failed", "waiting", "uncertain")
    return sorted(set(planned) - report.called_for) if read else []
