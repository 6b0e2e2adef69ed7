"""Records of a sync: a row of flex_sync_log for each job and department, the counts, and the result."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from include.sources.flex.desired import CALLS, Call
from include.sources.flex.plan import Member
from include.sources.flex.report import FAILED, Event, Report
from include.warehouse.sync_log import Counts

LOG = """
INSERT INTO flex.flex_sync_log
  (job_id, department, added_count, removed_count, kept_count, failed_count, duration_ms, triggered_by, summary)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

# Job and department of an element without a crew call here, by a line that we made there.
MADE_FOR = """
SELECT DISTINCT ON (flex_element_id) job_id, department FROM flex.owned_line WHERE flex_element_id = %s
ORDER BY flex_element_id, made_at
"""


def log(conn: Connection, report: Report, sync_id: int, run: str, triggered_by: UUID | None) -> None:
    """Write a row of flex_sync_log for each of our crew calls that point to the element.

    `triggered_by`: the profile of the person who asked for the sync, None if unknown.
    """
    # If the gate was closed, the crew was not read.
    found = () if report.crew else conn.execute(CALLS, {"element": report.element_id})
    crew_calls = dict(report.crew.calls) if report.crew else {call_id: Call(*rest) for call_id, *rest in found}
    if not crew_calls:
        found = conn.execute(MADE_FOR, [report.element_id]).fetchone()
        crew_calls = {None: Call(*found)} if found else {}
    orphans = [event for event in report.events if not event.members]
    for number, (call_id, call) in enumerate(crew_calls.items()):
        events = [event for event in report.events if any(each.crew_call_id == call_id for each in event.members)]
        # Orphans belong to no call, so only the first row has them.
        summary = _summary(report, call_id, [*events, *(orphans if number == 0 else ())])
        summary |= {"sync_id": sync_id, "run": run}
        counted = [summary[name] for name in ("added", "removed", "kept", "failed")]
        duration = round(report.seconds * 1000)
        conn.execute(LOG, [call.job_id, call.department, *counted, duration, triggered_by, Jsonb(summary)])


def counts(reports: Iterable[Report], superseded: int = 0) -> Counts:
    """Return the counts of all reports. An add with its role and rows counts once."""
    return sum((_counts(report) for report in reports), Counts(superseded=superseded))


def result(reports: Collection[Report], without: Collection[UUID] = ()) -> Mapping[str, Any]:
    """Return the figures of all reports under the names that people know.

    `without`: jobs that have no crew call in Flex.
    """
    events = [event for report in reports for event in report.events]
    notes = {note for report in reports for note in report.diagnostics}
    problems = [problem for report in reports for problem in report.problems]
    return {
        "ok": not problems,
        "elements": len(reports),
        **_counted(events),
        "orphans_pruned": _count(events, "pruned"),
        "orphans_failed": _count(events, "prune_failed"),
        "diagnostics": sorted(notes)[:20],
        "errors": problems[:20],
        "no_crew_call_mapping": sorted(map(str, without))[:20],
    }


def _counts(report: Report) -> Counts:
    added = {event.resource_id for event in report.events if event.kind == "added"}
    back = set(_members(report, "added"))
    return Counts(
        read=report.lines,
        inserted=report.count("added", "adopted"),
        updated=report.count("remapped", "back") + len(_of(report, "role_set", added)),
        deleted=report.count("removed", "pruned", "forgotten")
        + sum(member not in back for member in _members(report, "stale")),
        unchanged=report.count("kept"),
        failed=report.count(*FAILED),
    )


def _of(report: Report, kind: str, others: Collection[UUID | None]) -> list[Event]:
    return [event for event in report.events if event.kind == kind and event.resource_id not in others]


def _members(report: Report, kind: str) -> Iterator[Member]:
    return (member for event in report.events if event.kind == kind for member in event.members)


def _summary(report: Report, call_id: UUID | None, events: Collection[Event]) -> dict[str, Any]:
    """Return the column `summary` of flex_sync_log for one of our crew calls, to which the events belong."""
    crew = report.crew
    of_call = [each for each in (crew.desired if crew else ()) if each.member.crew_call_id == call_id]
    rows = [row for row in (crew.rows if crew else ()) if row.member.crew_call_id == call_id]
    return {
        "element": str(report.element_id),
        "state": report.state,
        "answered": report.answered,
        **_counted(events),
        "failed": _count(events, *FAILED),
        "stale": _count(events, "stale"),
        "adopted": _count(events, "adopted", "remapped"),
        "desired_count": len(of_call),
        "current_count": len(rows),
        "scanned_items": report.lines,
        "planned_delete_count": sum(finding.kind == "undesired_owned" for finding in report.findings),
        "orphans": {"pruned": _count(events, "pruned"), "failed": _count(events, "prune_failed")},
        "unknown_in_flex": sum(finding.kind == "unknown_in_flex" for finding in report.findings),
        "business_role_diagnostics": list(report.diagnostics),
        "errors": list(report.problems),
    }


def _counted(events: Collection[Event]) -> dict[str, int]:
    return {
        "added": _count(events, "added"),
        "removed": _count(events, "removed", "pruned"),
        "kept": _count(events, "kept"),
        "rolesSet": _count(events, "role_set"),
        "failedAdds": _count(events, "add_failed"),
    }


def _count(events: Collection[Event], *kinds: str) -> int:
    return sum(event.kind in kinds for event in events)
