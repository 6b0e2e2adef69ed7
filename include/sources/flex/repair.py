"""Repair: what the scan has planned, where it is still called for; and whether Flex is better for it."""

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
from include.sources.flex.crews import Context, each
from include.sources.flex.desired import Crew
from include.sources.flex.element import Report, Worker, wanted
from include.sources.flex.plan import Action, Add, Plan, SetRole, key
from include.sources.flex.rows import Line
from include.sources.flex.scan import Seen, evidence, evidence_id, look
from include.sources.flex.sync import ENTITY, SOURCE, carried_out, finish, require_not_stopped
from include.warehouse import fence, sync_log
from include.warehouse.sync_log import Counts

# Once its writer is gone, what a gate still stands for has an outcome that nobody knows.
OUTSTANDING = """
SELECT g.flex_element_id FROM flex.element_gate g JOIN flex.operation USING (operation_id) WHERE sync_id = %s
"""

# Each write was proven by a read, or the repair has failed and says which was not.
NOT_PROVEN = """
SELECT count(*) FROM flex.operation WHERE sync_id = %s AND state IN ('sent', 'answered', 'unknown')
"""

SUPERSEDE = "UPDATE flex.element_scan SET superseded = %s WHERE scan_id = %s AND flex_element_id = %s"
SUPERSEDED = """
SELECT flex_element_id, array(SELECT jsonb_array_elements_text(superseded)) FROM flex.element_scan WHERE scan_id = %s
"""


def repair_elements(context: Context, summary: ForensicSummary) -> tuple[int, Mapping[str, Counts]]:
    """Carry out the plan, crew call by crew call; return the sync_id and what was done.

    Each is read anew, and of what it needs now only what was planned is done; the rest is superseded. Raises
    OutcomeUnknown once nobody knows what became of a write: nothing further is begun, and the writer is held; TryLater
    where crew calls could not be read; SyncFailed where Flex refused something. What was done by then stays done.
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
                _supersede(conn, summary, report, planned[report.element_id])
        finally:
            # Whatever else went wrong: people have to know first that nobody knows.
            _require_known(context, summary, sync_id, reports)
        require_not_stopped(reports)
        _require_done(reports)
    except BaseException as error:
        finish(context, sync_id, reports, str(error) or type(error).__name__, superseded(reports))
        raise
    finish(context, sync_id, reports, superseded=superseded(reports))
    return sync_id, {ENTITY: record.counts(reports, superseded(reports))}


def verify_repair(context: Context, summary: ForensicSummary, sync_id: int) -> list[Check]:
    """Read the crew calls that were repaired once more: what of the plan is open, and what came up beside it.

    Only what was superseded may still be open.
    """
    conn = context.conn
    planned = evidence(conn, summary)
    superseded = dict(conn.execute(SUPERSEDED, [evidence_id(summary.scan_id, summary.scope)]).fetchall())

    def one(conn: Connection, element_id: UUID) -> Seen:
        return look(replace(context, conn=conn), element_id)

    seen = list(each(context, planned, one))
    open_ = [(found.element_id, change) for found in seen for change in planned[found.element_id] & {*found.planned}]
    excused = sum(change in superseded[element_id] for element_id, change in open_)
    unreadable = sum(found.figures.get("unreadable", 0) for found in seen)
    duplicates = sum(found.figures.get("duplicate_in_flex", 0) for found in seen)
    return [
        Check(ENTITY, "planned_changes_open", excused, len(open_)),
        # Where either was found nothing is planned.
        Check(ENTITY, "duplicate_in_flex", 0, duplicates),
        Check(ENTITY, "unreadable", 0, unreadable),
        Check(ENTITY, "writes_not_proven", 0, conn.execute(NOT_PROVEN, [sync_id]).fetchone()[0]),
    ]


def _only(planned: Set[str], crew: Crew, lines: Sequence[Line]) -> Plan:
    """Of what the crew call needs now only what the gate has judged. An add was judged with the role of its line."""
    plan = wanted(crew, lines)

    def judged(action: Action) -> bool:
        if isinstance(action, SetRole) and action.line_id in crew.owned:
            return not planned.isdisjoint({key(action), key(Add(action.resource_id, action.role_id, ()))})
        return key(action) in planned

    return replace(plan, actions=tuple(filter(judged, plan.actions)))


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
        holds.mark_hold(conn, summary.scan_id, reason)
        holds.refresh_hold(conn, SOURCE)
    raise OutcomeUnknown(reason)


def _require_done(reports: Collection[Report]) -> None:
    # A line that nobody wants any more and that stays is a change that was not made.
    problems = "; ".join([problem for report in reports for problem in (*report.problems, *report.orphans_left)][:5])
    if any(report.state in ("unreadable", "stopped") for report in reports):
        raise TryLater(f"not all crew calls could be read again, the others are repaired: {problems}")
    if problems:
        raise SyncFailed(f"not everything is repaired: {problems}. Clear scan with downstream once that is mended")


def _supersede(conn: Connection, summary: ForensicSummary, report: Report, planned: Collection[str]) -> None:
    """Keep the planned changes that were not called for any more when the crew call had its turn."""
    values = [Jsonb(_superseded(report, planned)), evidence_id(summary.scan_id, summary.scope), report.element_id]
    conn.execute(SUPERSEDE, values)


def _superseded(report: Report, planned: Collection[str]) -> list[str]:
    read = report.state in ("done", "failed", "waiting", "uncertain")
    return sorted(set(planned) - report.called_for) if read else []
