"""How a run of the runbook has really ended, by what it left in the warehouse and not by the states of its tasks.

A person can mark any task as done in Airflow, but nobody can mark what the task should have left in the warehouse. Pure
functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from include.confidence.policy import Verdict, worst_verdict
from include.warehouse.fence import Writer
from include.warehouse.sync_log import Counts

# How a person comes to the question about a hold that nobody is asked about now.
ASK_AGAIN = "press Ask me again on the source's page under Drift (or clear decide with downstream), and answer"
# The figure in which a source's verify counts planned changes that the copy still lacks after the repair.
OPEN_CHANGES = "planned_changes_open"


@dataclass(frozen=True)
class LatestScan:
    """The newest scan of an entity in a run.

    - `complete`: it is evidence, and no newer attempt has begun
    - `verdict`: None if it was not judged
    - `planned`: how many changes its plan has
    - `rows`: rows in scope; `proven`: how many of them it has proven. Both are None if it kept no account
    - `left_out`: a person has decided that its plan is not applied
    - `due`: rows of the copy that lack what is kept only since they were written, such as `extra`
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
    left_out: bool = False
    due: int = 0


@dataclass(frozen=True)
class Repair:
    """A repair of a run.

    - `state`: `running`, `success` or `failed`, as the sync log has it
    - `counts`: by table
    - `verified_at`: when verify has checked it, None if it has not; `checks`: what verify found
    - `undone`: it was rolled back
    """

    sync_id: int
    state: str
    started_at: datetime
    counts: Mapping[str, Counts]
    verified_at: datetime | None
    checks: tuple[Mapping[str, str | int], ...]
    undone: bool

    @property
    def left(self) -> int:
        """How many planned changes it did not make."""
        return sum(count.superseded + count.failed for count in self.counts.values())

    @property
    def written(self) -> int:
        """How many rows it inserted, updated or deleted."""
        return sum(count.inserted + count.updated + count.deleted for count in self.counts.values())

    @property
    def still_open(self) -> Mapping[str, int]:
        """By entity, the planned changes that verify found to be open after it; empty before."""
        return {check["entity"]: check["after"] for check in self.checks if check["figure"] == OPEN_CHANGES}

    @property
    def worse(self) -> list[str]:
        """The figures that verify found to be worse than before it."""
        margins = [(check, check["before"] + check.get("margin", 0)) for check in self.checks]
        return [f"{check['entity']}.{check['figure']}" for check, most in margins if check["after"] > most]


@dataclass(frozen=True)
class Evidence:
    """What the warehouse has of a run.

    - `writer`: as it is now
    - `entities`: all that the source has
    - `scans`: the newest of each entity; `repairs`: newest first
    - `decision`: made about the source's holds since the scans, by `decided_by`, with the `reason` if one was given;
      None if none was
    - `unproven`: how many rows of the source are unproven
    - `put_off`: {entity: why} of those that the run has left to a later night; none of them is among the `scans`
    """

    run: str
    writer: Writer
    entities: tuple[str, ...]
    scans: tuple[LatestScan, ...]
    repairs: tuple[Repair, ...] = ()
    decision: str | None = None
    decided_by: str | None = None
    unproven: int = 0
    put_off: Mapping[str, str] = field(default_factory=dict)
    decided_at: datetime | None = None
    reason: str | None = None

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict on the scans; None if none was judged."""
        return worst_verdict(scan.verdict for scan in self.scans)

    @property
    def planned(self) -> int:
        """How many changes the scans have planned."""
        return sum(scan.planned for scan in self.scans)

    @property
    def rows(self) -> int:
        """How many rows the scans had in scope."""
        return sum(scan.rows or 0 for scan in self.scans)

    @property
    def proven(self) -> int:
        """How many of the `rows` the scans have proven."""
        return sum(scan.proven or 0 for scan in self.scans)

    @property
    def repair(self) -> Repair | None:
        """The newest repair that began after the first of the scans; None if there is none.

        An earlier repair is left out: the scans have looked at what it wrote.
        """
        scanned_at = min((scan.scanned_at for scan in self.scans), default=None)
        found = [repair for repair in self.repairs if scanned_at is None or repair.started_at > scanned_at]
        return found[0] if found else None

    @property
    def pending(self) -> bool:
        """Whether its plans still wait for a decision or for the repair."""
        holds_writer = self.writer.stopped and self.writer.run == self.run
        return holds_writer and self.repair is None and self.decision in (None, "repair")

    @property
    def left_open(self) -> dict[str, int]:
        """By entity, how many planned changes nobody has made, and neither will; empty while it is pending."""
        if self.pending:
            return {}
        repair = self.repair if self.repair and not self.repair.undone else None
        still_open = repair.still_open if repair else {}
        left = {
            scan.entity: scan.planned if scan.left_out or not repair else still_open.get(scan.entity, 0)
            for scan in self.scans
        }
        return {entity: count for entity, count in left.items() if count}


@dataclass(frozen=True)
class Gap:
    """Work that a run has not done although none of its tasks failed. `step` is the task that should have done it."""

    step: str
    what: str
    consequence: str
    next_step: str


def gap(evidence: Evidence, *, dry_run: bool) -> Gap | None:
    """Return the first step whose work is not in the warehouse; None if all work is there."""
    found = (
        _unscanned(evidence),
        _unjudged(evidence),
        _unrepaired(evidence, dry_run),
        _unverified(evidence),
        _stopped(evidence),
    )
    return next((each for each in found if each), None)


def not_confirmed(evidence: Evidence) -> str:
    """Say in a few words why a run without a gap is not confirmed; empty if it is."""
    if evidence.put_off:
        return f"put off to a later night: {_names(list(evidence.put_off))}"
    outdated = [scan.entity for scan in evidence.scans if scan.epoch != evidence.writer.epoch]
    if outdated:
        return "the writer was stopped again since the scans"
    uncounted = [scan.entity for scan in evidence.scans if scan.rows is None]
    if uncounted:
        return f"no account of all rows was kept ({', '.join(uncounted)})"
    unproven = sum(scan.rows - scan.proven for scan in evidence.scans)
    if unproven or evidence.unproven:
        return f"{max(unproven, evidence.unproven)} rows could not be proven"
    due = sum(scan.due for scan in evidence.scans)
    if due:
        return f"{due} rows lack what is kept only since an upgrade: run the source's sync with mode full once"
    return _not_repaired(evidence)


def _not_repaired(evidence: Evidence) -> str:
    """Say which planned changes the copy still lacks, or may lack; empty if none."""
    repair = evidence.repair
    if evidence.decision == "resume":
        return "resumed without repair"
    if not repair or repair.undone:
        return f"{evidence.planned} planned changes were not applied" if evidence.planned else ""
    left_out = [scan.entity for scan in evidence.scans if scan.planned and scan.left_out]
    if left_out:
        return f"a person has left out the plan of {', '.join(left_out)}"
    if repair.left:
        return f"{repair.left} planned changes were left alone"
    still_open = repair.still_open
    unverified = [scan.entity for scan in evidence.scans if scan.planned and scan.entity not in still_open]
    if unverified:
        return f"the repair was not verified ({', '.join(unverified)})"
    return f"{sum(still_open.values())} planned changes are still open" if any(still_open.values()) else ""


def _unscanned(evidence: Evidence) -> Gap | None:
    """Return the gap if an entity has no complete scan, and was not put off while others were scanned."""
    done = {scan.entity for scan in evidence.scans if scan.complete}
    put_off = evidence.put_off if done else {}
    missing = [entity for entity in evidence.entities if entity not in done and entity not in put_off]
    if not missing:
        return None
    return Gap(
        "scan",
        f"the warehouse has no whole scan of {_names(missing)} by this run, although scan does not look failed",
        "nothing is known of these rows, so nothing may be repaired",
        "clear scan (all of its map indexes) with downstream",
    )


def _unjudged(evidence: Evidence) -> Gap | None:
    """Return the gap if a scan was not judged."""
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
    """Return the gap if a repair failed or has not ended, or if there is none although it was called for."""
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
        "nobody knows how much of the plan is in the copy; confidence.change_log has what was committed",
        "clear scan (all of its map indexes) with downstream",
    )


def _unverified(evidence: Evidence) -> Gap | None:
    """Return the gap if the repair was neither verified nor rolled back."""
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
    """Return the gap if the run has left the writer stopped."""
    writer = evidence.writer
    if not writer.stopped or writer.run != evidence.run:
        return None
    held = writer.hold_reason is not None
    return Gap(
        "resume_writer",
        f"the {writer}, although resume_writer does not look failed",
        "nothing is synced, and the copy falls behind its source",
        ASK_AGAIN if held else "clear resume_writer with downstream",
    )


def _names(entities: Sequence[str]) -> str:
    return ", ".join(entities)
