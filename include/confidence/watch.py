"""What no task of a run can tell: that the run has ended, was deleted or does not move, and what it left behind.

`findings` compares what the warehouse says of a source (fence, holds, scans, repairs) with what Airflow is doing.
Pure functions. A finding counts once two passes that are GRACE apart have seen it: what a run is just doing is over by
then.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from include.confidence.outcome import Gap
from include.warehouse.fence import Writer

GRACE = timedelta(minutes=4)
# A run that is at work begins a task, ends one or tries one again at least this often, unless one is running.
STUCK = timedelta(minutes=20)
AT_WORK = ("queued", "running")


class Code(StrEnum):
    """What can be wrong."""

    UNATTENDED = "writer_unattended"
    PAUSED = "dag_paused"
    STUCK = "run_stuck"
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
        return TITLES[self]


TITLES = {
    Code.UNATTENDED: "the writer is stopped, and nobody is at work on it",
    Code.PAUSED: "the writer is stopped, and its DAG is paused",
    Code.STUCK: "the run that stopped the writer does not move",
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
    """A run `dag_id/run_id` as Airflow shows it; its `state` is None if there is no such run (any more).

    `paused`: its DAG is. `asking`: `decide` waits for an answer. `working`: a task is running. `moved_at`: when a task
    last began, ended or was queued.
    """

    name: str
    state: str | None
    paused: bool = False
    asking: bool = False
    working: bool = False
    moved_at: datetime | None = None

    @property
    def at_work(self) -> bool:
        return self.state in AT_WORK

    def stuck(self, now: datetime, since: datetime) -> bool:
        """Whether nothing has moved for long, since then at the earliest."""
        waits = self.at_work and not (self.asking or self.working)
        return waits and now - max(self.moved_at or since, since) > STUCK

    @property
    def ended(self) -> str:
        """What became of it, in words."""
        return f"that run has ended ({self.state})" if self.state else "that run is not in Airflow (any more)"


@dataclass(frozen=True)
class Pool:
    """A pool of Airflow. `closer`: the run that has closed it, by what its description says."""

    slots: int
    include_deferred: bool
    closer: Run | None = None

    def __str__(self) -> str:
        slots = "unlimited slots" if self.slots < 0 else f"{self.slots} slot{'' if self.slots == 1 else 's'}"
        return f"{slots}, deferred tasks {'counted' if self.include_deferred else 'not counted'}"


@dataclass(frozen=True)
class Left:
    """What a run has left in the warehouse unfinished: `subject` names it, the entities or the `sync_id`.

    `told`: people know that the run failed.
    """

    run: Run
    subject: str
    told: bool = False


@dataclass(frozen=True)
class Facts:
    """How a source stands.

    `stopper`: the run that has stopped the writer, None while it runs. `stop_known`: people were told of this stop at
    the end of that run, or one has answered that it stays. `pool` is None if it is missing, `declared` is as it should
    be while nothing is stopped. `paused`: those of the source's DAGs that are, unless it was never synced. `not_done`:
    what the last run left out although it is green. `unjudged`: scans, the newest of each entity; `unverified`: repairs
    that no later scan has seen; `unfinished`: rows of the sync log that are open.
    """

    now: datetime
    writer: Writer
    stopper: Run | None
    stop_known: bool
    pool: Pool | None
    declared: Pool
    paused: tuple[str, ...] = ()
    not_done: tuple[Run, Gap] | None = None
    unjudged: tuple[Left, ...] = ()
    unverified: tuple[Left, ...] = ()
    unfinished: tuple[Left, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: what it is, what it means for the data, and the one next step.

    `subject` tells it from others of its code. `known`: people know it already, so it is shown but not told.
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
        return f"{self.source}/{self.code}/{self.subject}"


def findings(facts: Facts) -> list[Finding]:
    """What is wrong with the source now; nothing while a run does what it has to."""
    found = [*_writer(facts), *_pool(facts), *_switched_off(facts), *_not_done(facts)]
    found += [each for left in facts.unjudged if (each := _unjudged(facts, left))]
    found += [_unverified(facts, left) for left in facts.unverified if not left.run.at_work]
    found += [_unfinished(facts, left) for left in facts.unfinished if not left.run.at_work]
    return found


def _writer(facts: Facts) -> Iterator[Finding]:
    """At most one: what keeps a stopped writer from being let run again."""
    writer, run = facts.writer, facts.stopper
    if not writer.stopped or run is None:
        return
    # Who was told of a run that failed knows; of one that was marked or deleted since, nobody does.
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
            next_step="look at its next task in Airflow, which says what it waits for, as for slots of a pool",
        )


def _way_out(facts: Facts, run: Run) -> str:
    if run.state is None:
        step = f"trigger {_runbook(facts)}: it takes the stopped writer over, scans, and lets it run again or asks"
    elif facts.writer.hold_reason:
        step = "clear decide of that run with downstream and answer it"
    else:
        step = "clear resume_writer of that run with downstream"
    return f"switch {_runbook(facts)} on again, then {step}" if run.paused else step


def _pool(facts: Facts) -> Iterator[Finding]:
    """At most one: in what the pool is not as the fence is."""
    source, writer, pool = facts.writer.source, facts.writer, facts.pool
    name = f"{source}_writer"
    found = Finding(
        Code.POOL_MISSING,
        source,
        str(writer.epoch),
        None,
        f"the pool {name} is missing",
        "no sync can start",
        f"trigger {_runbook(facts)}, which makes it anew, or create it under Admin, Pools ({facts.declared})",
    )
    if pool is None:
        yield found
    elif writer.stopped and pool.slots != 0:
        yield replace(
            found,
            code=Code.POOL_OPEN,
            run=writer.run,
            what=f"the pool {name} is open ({pool}), but the {writer}",
            consequence="syncs start and are refused by the fence; nothing is written",
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
            consequence="a stop may not wait for all tasks; the fence still keeps two writers apart",
            next_step=f"set it to {facts.declared} under Admin, Pools",
        )


def _closing(facts: Facts, run: Run | None) -> bool:
    """Whether a run is on the way from the pool to the fence, or from the fence to the pool."""
    if run is None or not run.at_work:
        return False
    return run.working or not (run.paused or run.stuck(facts.now, facts.writer.since))


def _switched_off(facts: Facts) -> Iterator[Finding]:
    """A runbook that is paused in the middle has been told of already."""
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
    """What a green run left out. A stopped writer, verdicts and looks at repairs have findings of their own."""
    run, gap = facts.not_done or (None, None)
    if gap and gap.step in ("scan", "reconcile") and not facts.writer.stopped:
        yield Finding(
            Code.NOT_DONE,
            facts.writer.source,
            run.name,
            run.name,
            f"the run {run.name} looks well, but {gap.what}",
            gap.consequence,
            f"{gap.next_step}, in that run",
        )


def _unjudged(facts: Facts, left: Left) -> Finding | None:
    """A run that failed says so itself; one that is green over unjudged scans says what is not so."""
    if left.run.state != "success":
        return None
    return Finding(
        Code.UNJUDGED,
        facts.writer.source,
        left.run.name,
        left.run.name,
        f"the run {left.run.name} looks well, but nobody has judged its last scans of {left.subject}",
        "whether the drift is worse than before is not known, whatever the run looks like",
        f"clear scan of that run with downstream, or trigger {_runbook(facts)}",
    )


def _unverified(facts: Facts, left: Left) -> Finding:
    return Finding(
        Code.UNVERIFIED,
        facts.writer.source,
        left.subject,
        left.run.name,
        f"the repair {left.subject} of the run {left.run.name} was applied, and nobody has verified it",
        "whether the copy is right since then is not known",
        f"trigger {_runbook(facts)}, a dry run is enough: its scans look at every row",
        left.told,
    )


def _unfinished(facts: Facts, left: Left) -> Finding:
    dag = left.run.name.partition("/")[0]
    return Finding(
        Code.UNFINISHED,
        facts.writer.source,
        left.subject,
        left.run.name,
        f"{left.subject} of the run {left.run.name} is still open in confidence.sync_log, but {left.run.ended}",
        "confidence.change_log has what it had committed by then; the rest was not done",
        f"trigger {dag}: its next run closes the row and does the rest",
        left.told,
    )


def _runbook(facts: Facts) -> str:
    return f"{facts.writer.source}_reconcile"


def _minutes(time: timedelta) -> int:
    return round(time.total_seconds() / 60)
