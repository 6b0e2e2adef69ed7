"""How a run of the runbook has really ended: by what the warehouse has of it, whatever its tasks look like.

A person can mark any task as done. What a task was to leave in the warehouse can't be marked. Pure functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from include.confidence.policy import Verdict, worst_verdict
from include.warehouse.fence import Writer
from include.warehouse.sync_log import Counts

# The figure by which a source's verify tells what of the plan the copy does not show.
OPEN_CHANGES = "planned_changes_open"


@dataclass(frozen=True)
class LatestScan:
    """The newest scan of an entity by the run.

    `complete`: it is evidence, and was not begun again since. `planned` counts the changes of its plan. Of the `rows`
    on either side it has `proven` some; both are None where it kept no account.
    """

    entity: str
    scope: str
    epoch: int
    scanned_at: datetime
    complete: bool
    verdict: Verdict | None
    planned: int
    rows: int | None
    proven: int | None


@dataclass(frozen=True)
class Repair:
    """A repair of the run, with its counts by table; `checks`: what verify found, as it left it."""

    sync_id: int
    state: str
    started_at: datetime
    counts: Mapping[str, Counts]
    verified_at: datetime | None
    checks: tuple[Mapping[str, str | int], ...]
    undone: bool

    @property
    def left(self) -> int:
        """Planned rows that it did not change."""
        return sum(count.superseded + count.failed for count in self.counts.values())


@dataclass(frozen=True)
class Evidence:
    """What the warehouse has of a run: its scans, its repairs (newest first), and the writer now.

    `entities` are all that the source has. `decision` is what was decided about its holds since the scans, and
    `decided_by` whom. `unproven` counts the source's rows that no scan could prove.
    """

    run: str
    writer: Writer
    entities: tuple[str, ...]
    scans: tuple[LatestScan, ...]
    repairs: tuple[Repair, ...] = ()
    decision: str | None = None
    decided_by: str | None = None
    unproven: int = 0

    @property
    def verdict(self) -> Verdict | None:
        """The worst, None where nothing was judged."""
        return worst_verdict(scan.verdict for scan in self.scans)

    @property
    def planned(self) -> int:
        return sum(scan.planned for scan in self.scans)

    @property
    def rows(self) -> int:
        return sum(scan.rows or 0 for scan in self.scans)

    @property
    def proven(self) -> int:
        return sum(scan.proven or 0 for scan in self.scans)

    @property
    def repair(self) -> Repair | None:
        """The last repair by these scans; what was repaired before them they have seen themselves."""
        begun = min((scan.scanned_at for scan in self.scans), default=None)
        found = [repair for repair in self.repairs if begun is None or repair.started_at > begun]
        return found[0] if found else None


@dataclass(frozen=True)
class Gap:
    """What a run has not done, although its tasks look as if it had; `step` is the task that was to do it."""

    step: str
    what: str
    consequence: str
    next_step: str


def gap(evidence: Evidence, *, dry_run: bool) -> Gap | None:
    """The first step whose work is not in the warehouse; None where all of it is."""
    found = (
        _unscanned(evidence),
        _unjudged(evidence),
        _unrepaired(evidence, dry_run),
        _unverified(evidence),
        _stopped(evidence),
    )
    return next((each for each in found if each), None)


def not_confirmed(evidence: Evidence) -> str:
    """Why a run without a gap did not prove its copy, in a few words; empty where it did."""
    later = [scan.entity for scan in evidence.scans if scan.epoch != evidence.writer.epoch]
    if later:
        return "the writer was stopped again since the scans"
    uncounted = [scan.entity for scan in evidence.scans if scan.rows is None]
    if uncounted:
        return f"no account of all rows was kept ({', '.join(uncounted)})"
    doubtful = sum(scan.rows - scan.proven for scan in evidence.scans)
    if doubtful or evidence.unproven:
        return f"{max(doubtful, evidence.unproven)} rows could not be proven"
    return _not_repaired(evidence)


def _not_repaired(evidence: Evidence) -> str:
    repair = evidence.repair
    if evidence.decision == "resume":
        return "resumed without repair"
    if not repair or repair.undone:
        return f"{evidence.planned} planned changes were not applied" if evidence.planned else ""
    if repair.left:
        return f"{repair.left} planned changes were left alone"
    found = {check["entity"]: check["after"] for check in repair.checks if check["figure"] == OPEN_CHANGES}
    unseen = [scan.entity for scan in evidence.scans if scan.planned and scan.entity not in found]
    if unseen:
        return f"the repair was not verified ({', '.join(unseen)})"
    return f"{sum(found.values())} planned changes are still open" if any(found.values()) else ""


def _unscanned(evidence: Evidence) -> Gap | None:
    done = {scan.entity for scan in evidence.scans if scan.complete}
    missing = [entity for entity in evidence.entities if entity not in done]
    if not missing:
        return None
    return Gap(
        "scan",
        f"the warehouse has no whole scan of {_names(missing)} by this run, although scan does not look failed",
        "nothing is known of these rows, so nothing may be repaired",
        "clear scan (all of its map indexes) with downstream",
    )


def _unjudged(evidence: Evidence) -> Gap | None:
    missing = [scan.entity for scan in evidence.scans if scan.verdict is None]
    if not missing:
        return None
    return Gap(
        "gate_check",
        f"the warehouse has no verdict on {_names(missing)}, although gate_check does not look failed",
        "nobody knows whether the drift is worse than before; nothing was repaired by these scans",
        "clear scan (all of its map indexes) with downstream",
    )


def _unrepaired(evidence: Evidence, dry_run: bool) -> Gap | None:
    repair = evidence.repair
    passed = not dry_run and evidence.verdict != Verdict.HOLD
    called_for = evidence.decision == "repair" if evidence.decision else passed
    if repair and repair.state != "success":
        ended = "has not ended" if repair.state == "running" else "failed"
        what = f"the repair (sync_id {repair.sync_id}) {ended}, although reconcile does not look failed"
    elif not repair and called_for and evidence.planned:
        what = f"{evidence.planned} planned changes were to be applied, but the warehouse has no repair of this run"
    else:
        return None
    return Gap(
        "reconcile",
        what,
        "what of the plan is in the copy is not known; confidence.change_log has what was committed",
        "clear scan (all of its map indexes) with downstream",
    )


def _unverified(evidence: Evidence) -> Gap | None:
    repair = evidence.repair
    if not repair or repair.undone or repair.verified_at:
        return None
    return Gap(
        "verify",
        f"the repair (sync_id {repair.sync_id}) was applied and never verified, although verify does not look failed",
        "whether the copy is right now is not known",
        "clear scan (all of its map indexes) with downstream: a new scan looks at every row",
    )


def _stopped(evidence: Evidence) -> Gap | None:
    writer = evidence.writer
    if not writer.stopped or writer.run != evidence.run:
        return None
    held = writer.hold_reason is not None
    return Gap(
        "resume_writer",
        f"the {writer}, although resume_writer does not look failed",
        "nothing is synced, and the copy falls behind its source",
        "clear decide with downstream and answer it" if held else "clear resume_writer with downstream",
    )


def _names(entities: Sequence[str]) -> str:
    return ", ".join(entities)
