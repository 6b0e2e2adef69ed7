"""What the pages make of several scans, sources or series: sums, and the order in which they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from include.confidence.policy import SEVERITY, Verdict, worst_verdict
from include.confidence.queries import paging
from include.confidence.queries.scans import Scan
from include.confidence.queries.trends import EntityScope, Series
from include.confidence.summary import Plan
from plugins.pages.access import source_of
from plugins.pages.airflow_state import ENDED, FailedRun
from plugins.pages.status import SourceStatus


@dataclass(frozen=True)
class ScannedRun:
    """A run, summed up from its scans. `decision` is a person's answer to a hold, with name and time."""

    run: str
    scanned_at: datetime
    verdict: Verdict | None
    entities: int
    plan: Plan
    decision: str | None
    decided_by: str | None
    decided_at: datetime | None


def urgency(found: SourceStatus | None) -> int:
    """Return the rank of a source on the overview, the lowest first: held, stopped, then by its last verdict."""
    if found is None:
        return 3
    if found.writer.hold_reason:
        return 0
    if found.writer.stopped or found.findings:
        return 1
    return 5 - max(SEVERITY[found.verdict], 1 if found.verdict is None or found.unproven else 0)


def summed_up(statuses: Sequence[SourceStatus]) -> str:
    """Return a sentence: how many sources are held, stopped, not configured and running, and how far each scan is."""
    held = [each.source for each in statuses if each.writer.hold_reason]
    stopped = [each for each in statuses if each.writer.stopped and not each.writer.hold_reason]
    not_configured = [each.source for each in statuses if not each.configured and not each.writer.stopped]
    running = sum(each.configured and not each.writer.stopped for each in statuses)
    parts = [
        f"{len(held)} held ({', '.join(held)})" if held else "",
        f"{len(stopped)} stopped" if stopped else "",
        f"{len(not_configured)} not configured ({', '.join(not_configured)})" if not_configured else "",
        f"{running} running",
    ]
    scans = [
        f"{each.source}: {len(each.progress.scanned)} of {len(each.entities)} entities scanned"
        for each in statuses
        if is_scanning(each)
    ]
    sources = f"{len(statuses)} source{'' if len(statuses) == 1 else 's'}"
    return "; ".join([f"{sources}: {', '.join(filter(None, parts))}", *scans]) + "."


def is_scanning(standing: SourceStatus) -> bool:
    """Return whether a run is scanning: the writer is stopped but not held, and an entity is not scanned yet."""
    if standing.progress is None or standing.writer.hold_reason or standing.airflow.running is None:
        return False
    return len(standing.progress.scanned) < len(standing.entities)


def chosen(parts: Sequence[EntityScope], scans: Sequence[Scan], entity: str | None, scope: str) -> EntityScope | None:
    """Return the part (entity and scope) whose trends are shown; None if there is none.

    It is the one that was asked for, else the one with the worst verdict if that is no `pass`, else the first with the
    scope `all`, else the first.
    """
    worst = worst_verdict(scan.verdict for scan in scans)
    is_bad = worst not in (None, Verdict.PASS)
    judged_worst = {(scan.entity, scan.scope) for scan in scans if is_bad and scan.verdict == worst}
    candidates = [
        *(part for part in parts if (part.entity, part.scope) == (entity, scope)),
        *(part for part in parts if (part.entity, part.scope) in judged_worst),
        *(part for part in parts if part.scope == "all"),
        *parts,
    ]
    return candidates[0] if candidates else None


def urgent_first(series: Sequence[Series]) -> list[Series]:
    """Return the series sorted by their last verdict, the worst first."""
    return sorted(series, key=lambda line: SEVERITY[line.points[-1].verdict], reverse=True)


def runs_of(scans: paging.Page[Scan]) -> list[ScannedRun]:
    """Return the runs whose scans are all on the page, newest first. The newest scan of each entity counts."""
    runs = [_scanned_run(list(found)) for _, found in groupby(scans.items, key=lambda scan: scan.run)]
    return runs[:-1] if scans.next_cursor and len(runs) > 1 else runs


def last_runs(scans: paging.Page[Scan], failed: Sequence[FailedRun]) -> list[ScannedRun | FailedRun]:
    """Return the runs of these scans, and of the `failed` runs those without a scan, newest first.

    Runs that failed before the oldest scan are left out if there are older scans than those on the page.
    """
    scanned = runs_of(scans)
    known = {run.run for run in scanned}
    since = scanned[-1].scanned_at if scans.next_cursor else datetime.min.replace(tzinfo=UTC)
    others = [run for run in failed if run.run not in known and run.failed_at > since]
    times = {run.run: run.scanned_at for run in scanned} | {run.run: run.failed_at for run in others}
    return sorted([*scanned, *others], key=lambda run: times[run.run], reverse=True)


def _scanned_run(scans: Sequence[Scan]) -> ScannedRun:
    newest = list({(scan.entity, scan.scope): scan for scan in reversed(scans)}.values())
    decided = next((scan for scan in newest if scan.decision), scans[0])
    return ScannedRun(
        run=scans[0].run,
        scanned_at=scans[0].scanned_at,
        verdict=worst_verdict(scan.verdict for scan in newest),
        entities=len(newest),
        plan=Plan(*(sum(getattr(scan.plan, what) for scan in newest) for what in ("insert", "update", "delete"))),
        decision=decided.decision,
        decided_by=decided.decided_by,
        decided_at=decided.decided_at,
    )


def nothing_left(dag_id: str, run: str, state: str | None) -> str:
    """Return why the warehouse has nothing of a run that is in this state, None if Airflow does not know it."""
    if not source_of(dag_id):
        return f"{dag_id} does no work that is recorded there."
    if state is None:
        return f"Airflow has no run {run} of {dag_id}, and the warehouse has no scan and no sync of it."
    if state in ENDED:
        return f"The run {run} has ended ({state}) and left no scan and no sync there: its log in Airflow says why."
    return f"The run {run} has left no scan and no sync there yet. It leaves them as it goes: reload this page."
