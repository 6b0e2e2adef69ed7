"""What the watch (the DAG `confidence_watch`) looks for: states that no task of a run can report, because none runs.

`findings` compares what the warehouse has of a source (fence, holds, scans, repairs) with what Airflow is doing. Pure
functions. People are told of a finding once two passes that are GRACE apart have seen it: by then a step that a run was
just taking is over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from include.confidence.outcome import Gap
from include.warehouse.fence import Writer

GRACE = timedelta(minutes=4)
# A run without a running task is stuck if no task has begun, ended or been queued for this long.
STUCK = timedelta(minutes=20)
AT_WORK = ("queued", "running")


class Code(StrEnum):
    """The kinds of findings."""

    UNATTENDED = "writer_unattended"
    PAUSED = "dag_paused"
    STUCK = "run_stuck"
    NOT_CONFIGURED = "source_not_configured"
    POOL_MISSING = "pool_missing"
    POOL_CLOSED = "pool_closed"
    POOL_OPEN = "pool_open"
    POOL_CHANGED = "pool_changed"
    SWITCHED_OFF = "dag_switched_off"
    NOT_DONE = "run_not_done"
    UNJUDGED = "scans_unjudged"
    UNVERIFIED = "repair_unverified"
    UNFINISHED = "log_unfinished"

    @property
    def title(self) -> str:
        """The headline of a message about it."""
        return TITLES[self]


TITLES = {
    Code.UNATTENDED: "the writer is stopped, and nobody is at work on it",
    Code.PAUSED: "the writer is stopped, and its DAG is paused",
    Code.STUCK: "the run that stopped the writer does not move",
    Code.NOT_CONFIGURED: "the source is not configured",
    Code.POOL_MISSING: "the writer's pool is missing",
    Code.POOL_CLOSED: "the writer's pool is closed, although it is not stopped",
    Code.POOL_OPEN: "the writer's pool is open, although it is stopped",
    Code.POOL_CHANGED: "the writer's pool is not as declared",
    Code.SWITCHED_OFF: "a DAG is paused, and so the copy is not kept in step, or not compared",
    Code.NOT_DONE: "a run looks well, but has not done what it was for",
    Code.UNJUDGED: "a run looks well, but its scans were not judged",
    Code.UNVERIFIED: "a repair was never verified",
    Code.UNFINISHED: "a sync, repair or rollback has never ended",
}


@dataclass(frozen=True)
class Run:
    """A run as Airflow shows it.

    - `name`: `dag_id/run_id`
    - `state`: None if Airflow has no such run (any more)
    - `paused`: its DAG is paused
    - `asking`: `decide` waits for an answer
    - `working`: a task is running
    - `moved_at`: when a task last began, ended or was queued
    """

    name: str
    state: str | None
    paused: bool = False
    asking: bool = False
    working: bool = False
    moved_at: datetime | None = None

    @property
    def at_work(self) -> bool:
        """Whether the run has not ended."""
        return self.state in AT_WORK

    def stuck(self, now: datetime, since: datetime) -> bool:
        """Return whether the run is at work, but no task of it has moved for 20 minutes. They count from `since` on."""
        waits = self.at_work and not (self.asking or self.working)
        return waits and now - max(self.moved_at or since, since) > STUCK

    @property
    def ended(self) -> str:
        """How the run has ended, in words."""
        return f"that run has ended ({self.state})" if self.state else "that run is not in Airflow (any more)"


@dataclass(frozen=True)
class Pool:
    """A pool of Airflow. `closer`: the run that has closed it, according to its description."""

    slots: int
    include_deferred: bool
    closer: Run | None = None

    def __str__(self) -> str:
        slots = "unlimited slots" if self.slots < 0 else f"{self.slots} slot{'' if self.slots == 1 else 's'}"
        return f"{slots}, deferred tasks {'counted' if self.include_deferred else 'not counted'}"


@dataclass(frozen=True)
class UnfinishedWork:
    """Work in the warehouse that a run has not finished.

    `subject`: the entities, or kind and sync_id. `told`: people were told that the run failed.
    """

    run: Run
    subject: str
    told: bool = False


@dataclass(frozen=True)
class Facts:
    """What the warehouse and Airflow say of a source now.

    - `stopper`: the run that has stopped the writer; None while the writer runs
    - `stop_known`: people know of this stop: they were told when that run ended, or one of them has ordered it
    - `pool`: the writer's pool, None if it is missing; `declared`: how the pool should be while the writer runs
    - `missing_connections`: those that the source needs and Airflow does not have
    - `paused`: the source's DAGs that are paused; empty if the source was never synced
    - `not_done`: the last run and what it left undone, although it is green
    - `unjudged`: scans without a verdict, among the newest of each entity
    - `unverified`: repairs that neither verify nor a later scan has checked
    - `unfinished`: rows of the sync log that are open
    """

    now: datetime
    writer: Writer
    stopper: Run | None
    stop_known: bool
    pool: Pool | None
    declared: Pool
    missing_connections: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    not_done: tuple[Run, Gap] | None = None
    unjudged: tuple[UnfinishedWork, ...] = ()
    unverified: tuple[UnfinishedWork, ...] = ()
    unfinished: tuple[UnfinishedWork, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: what it is, what it means for the data, and what to do next.

    - `subject`: tells it from other findings with the same code
    - `run`: the run to look at
    - `known`: people know of it already, so the pages show it but no message is sent
    """

    code: Code
    source: str
    subject: str
    run: str | None
    what: str
    consequence: str
    next_step: str
    known: bool = False

    @property
    def key(self) -> str:
        """The finding's name, by which passes recognize it."""
        return f"{self.source}/{self.code}/{self.subject}"


def findings(facts: Facts) -> list[Finding]:
    """Return what is wrong with the source now; [] if nothing is."""
    found = [*_writer(facts), *_not_configured(facts), *_pool(facts), *_switched_off(facts), *_not_done(facts)]
    found += [each for work in facts.unjudged if (each := _unjudged(facts, work))]
    found += [_unverified(facts, work) for work in facts.unverified if not work.run.at_work]
    found += [_unfinished(facts, work) for work in facts.unfinished if not work.run.at_work]
    return found


def _writer(facts: Facts) -> Iterator[Finding]:
    """Yield at most one finding: why nobody will let the stopped writer run again."""
    writer, run = facts.writer, facts.stopper
    if not writer.stopped or run is None:
        return
    # People were told if the run failed. If it was marked or deleted afterwards, they don't know about that.
    known = facts.stop_known and run.state == "failed"
    found = Finding(
        Code.UNATTENDED,
        writer.source,
        f"{run.name}/{writer.epoch}",
        run.name,
        f"the {writer}, and nobody is at work on it: {run.ended}",
        "nothing is synced, and nobody is asked",
        _way_out(facts, run),
        known,
    )
    if run.paused and (run.at_work or known):
        yield replace(
            found,
            code=Code.PAUSED,
            what=f"the {writer}, and the DAG {_runbook(facts)} is paused: no run of it goes on",
            consequence="nothing is synced until it goes on",
            next_step=f"switch {_runbook(facts)} on again",
            known=False,
        )
    elif not run.at_work:
        yield found
    elif run.stuck(facts.now, writer.since):
        yield replace(
            found,
            code=Code.STUCK,
            what=f"the {writer}, and no task of that run has begun or ended for {_minutes(STUCK)} minutes",
            consequence="nothing is synced until it goes on",
            next_step="look at its next task in Airflow, which says what it waits for, such as slots of a pool",
        )


def _way_out(facts: Facts, run: Run) -> str:
    """Say what to do so that the stopped writer runs again."""
    if run.state is None:
        step = f"trigger {_runbook(facts)}: it takes the stopped writer over, scans, and lets it run again or asks"
    elif facts.writer.hold_reason:
        step = (
            f"press Ask me again on the page of {facts.writer.source} under Drift (or clear decide of that run with"
            " downstream), and answer"
        )
    else:
        step = "clear resume_writer of that run with downstream"
    return f"switch {_runbook(facts)} on again, then {step}" if run.paused else step


def _pool(facts: Facts) -> Iterator[Finding]:
    """Yield at most one finding: how the writer's pool differs from what the fence calls for."""
    source, writer, pool = facts.writer.source, facts.writer, facts.pool
    name = f"{source}_writer"
    found = Finding(
        Code.POOL_MISSING,
        source,
        str(writer.epoch),
        None,
        f"the pool {name} is missing",
        "no sync can start",
        f"trigger {_runbook(facts)}, which creates it again, or create it under Admin, Pools ({facts.declared})",
    )
    if pool is None:
        yield found
    elif writer.stopped and pool.slots != 0:
        yield replace(
            found,
            code=Code.POOL_OPEN,
            run=writer.run,
            what=f"the pool {name} is open ({pool}), but the {writer}",
            consequence="syncs start, write nothing and wait",
            next_step="set it to 0 slots under Admin, Pools; the end of that run opens it again",
        )
    elif not writer.stopped and pool.slots == 0 and not _closing(facts, pool.closer):
        yield replace(
            found,
            code=Code.POOL_CLOSED,
            run=pool.closer and pool.closer.name,
            what=f"the pool {name} has 0 slots, but the {writer} and no run is about to stop it",
            next_step=f"set it to {facts.declared} under Admin, Pools",
        )
    elif not writer.stopped and pool.slots != 0 and replace(pool, closer=None) != facts.declared:
        yield replace(
            found,
            code=Code.POOL_CHANGED,
            subject=f"{writer.epoch}/{pool}",
            what=f"the pool {name} has {pool} instead of {facts.declared}",
            consequence="a stop may not wait for all tasks; if two syncs run at once, one fails and loses nothing",
            next_step=f"set it to {facts.declared} under Admin, Pools",
        )


def _not_configured(facts: Facts) -> Iterator[Finding]:
    """Yield at most one finding: which connections of the source are missing."""
    source, missing = facts.writer.source, facts.missing_connections
    if missing:
        yield Finding(
            Code.NOT_CONFIGURED,
            source,
            ",".join(missing),
            None,
            not_configured(source, missing),
            "nothing is synced, and no night compares the copy with its source",
            how_to_configure(source, missing),
        )


def not_configured(source: str, missing: Sequence[str]) -> str:
    """Say that the source lacks these connections."""
    return f"{source} is not configured: Airflow has no connection {' and no connection '.join(missing)}"


def how_to_configure(source: str, missing: Sequence[str]) -> str:
    """Say what to do about missing connections."""
    variables = " and ".join(f"AIRFLOW_CONN_{name.upper()}" for name in missing)
    return (
        f"add it under Admin, Connections, or set {variables} in the environment of Airflow's workers;"
        f" or take {source} out of SYNC_CONFIDENCE_SOURCES"
    )


def _closing(facts: Facts, run: Run | None) -> bool:
    """Return whether the run is between the two steps of a stop or a resume: one for the pool, one for the fence."""
    if run is None or not run.at_work:
        return False
    return run.working or not (run.paused or run.stuck(facts.now, facts.writer.since))


def _switched_off(facts: Facts) -> Iterator[Finding]:
    """Yield a finding for each paused DAG, except a runbook that has stopped the writer: `_writer` has that one."""
    runbook = _runbook(facts)
    for dag in facts.paused:
        if dag == runbook and facts.writer.stopped:
            continue
        yield Finding(
            Code.SWITCHED_OFF,
            facts.writer.source,
            dag,
            None,
            f"the DAG {dag} is paused",
            "no night compares the copy with its source" if dag == runbook else "the copy falls behind its source",
            f"switch {dag} on again",
        )


def _not_done(facts: Facts) -> Iterator[Finding]:
    """Yield a finding for scans or a repair that a green run left undone. The other gaps have findings of their own."""
    run, gap = facts.not_done or (None, None)
    if gap and gap.step in ("scan", "reconcile") and not facts.writer.stopped:
        yield Finding(
            Code.NOT_DONE,
            facts.writer.source,
            subject=run.name,
            run=run.name,
            what=f"the run {run.name} looks well, but {gap.what}",
            consequence=gap.consequence,
            next_step=f"{gap.next_step}, in that run",
        )


def _unjudged(facts: Facts, work: UnfinishedWork) -> Finding | None:
    """Return a finding for unjudged scans of a green run; None for any other run, which shows itself that it failed."""
    if work.run.state != "success":
        return None
    return Finding(
        Code.UNJUDGED,
        facts.writer.source,
        work.run.name,
        work.run.name,
        f"the run {work.run.name} looks well, but nobody has judged its last scans of {work.subject}",
        "nobody knows whether the drift is worse than before",
        f"clear scan of that run with downstream, or trigger {_runbook(facts)}",
    )


def _unverified(facts: Facts, work: UnfinishedWork) -> Finding:
    """Return the finding for a repair that nobody has verified."""
    return Finding(
        Code.UNVERIFIED,
        facts.writer.source,
        work.subject,
        work.run.name,
        f"the repair {work.subject} of the run {work.run.name} was applied, and nobody has verified it",
        "nobody knows whether the copy is right since then",
        f"trigger {_runbook(facts)}, a dry run is enough: its scans look at every row",
        work.told,
    )


def _unfinished(facts: Facts, work: UnfinishedWork) -> Finding:
    """Return the finding for an open row of the sync log."""
    dag = work.run.name.partition("/")[0]
    return Finding(
        Code.UNFINISHED,
        facts.writer.source,
        work.subject,
        work.run.name,
        f"{work.subject} of the run {work.run.name} is still open in confidence.sync_log, but {work.run.ended}",
        "confidence.change_log has what it had committed by then; the rest was not done",
        f"trigger {dag}: its next run closes the row and does the rest",
        work.told,
    )


def _runbook(facts: Facts) -> str:
    return f"{facts.writer.source}_reconcile"


def _minutes(time: timedelta) -> int:
    return round(time.total_seconds() / 60)
