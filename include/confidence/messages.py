"""What people are told: from the facts of a run the one event that it is, or none. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Self

from include.confidence.health import Alert
from include.confidence.holds import Decision, Hold
from include.confidence.outcome import Gap
from include.confidence.policy import Verdict
from include.confidence.watch import Finding
from include.warehouse.fence import Writer

# Lines of one message; who wants all of them follows the link.
MAX_LINES = 5
# What a person reads at once who has just started the run.
REFUSED = ("ConfRefused",)
OUR_CODE = ("include.", "plugins.")
# What stands for a source where an event is about all of them.
WATCH = "confidence_watch"


class Kind(StrEnum):
    """What kinds of events there are."""

    WARN = "warn"
    HOLD = "hold"
    UNANSWERED = "unanswered"
    DRAIN = "drain"
    SCAN = "scan"
    REPAIR = "repair"
    REPAIR_UNKNOWN = "repair_unknown"
    WORSE = "worse"
    NOT_RESUMED = "not_resumed"
    FAILED = "failed"
    NOT_DONE = "not_done"
    NO_REPORT = "no_report"
    SYNC = "sync"
    HEALTH = "health"
    STOPPED_LONG = "stopped_long"
    WATCH = "watch"
    WATCH_FAILED = "watch_failed"

    @property
    def serious(self) -> bool:
        """Whether something failed or stands still."""
        return self not in (Kind.WARN, Kind.HEALTH)


@dataclass(frozen=True)
class Event:
    """Something that people are told once: whoever comes upon it again finds its `key` taken."""

    key: str
    kind: Kind
    source: str
    run: str
    title: str
    text: str


@dataclass(frozen=True)
class Failure:
    """Why a task failed: the error's class and, where it is one of our own, its message.

    Another's message may quote rows of the warehouse. `subject` is the part of the task's work, where it has parts.
    """

    error: str = "its process was lost"
    message: str = ""
    subject: str = ""

    @classmethod
    def of(cls, error: object, subject: str = "") -> Self:
        """`error` is the exception, or None where no process lived to tell."""
        if not isinstance(error, BaseException):
            return cls(subject=subject)
        own = type(error).__module__.startswith(OUR_CODE)
        return cls(type(error).__name__, str(error) if own else "", subject)

    def __str__(self) -> str:
        text = self.message or f"{self.error} (more in the task's log)"
        return f"{self.subject}: {text}" if self.subject else text


@dataclass(frozen=True)
class RunFacts:
    """How a run of the runbook has ended.

    `failed` is the first step that failed, None where none did, with why and what to do next. `gap`: what no task
    failed at, and is not done all the same. `reasons`: a line for each scan above its limits. `planned` changes;
    `sync_id` under which they were applied. `decision`: how a hold was answered; `answered` is False where nobody did,
    and the default was taken. Of the `rows` on both sides the scans have `proven` some; `unproven`: a line for each of
    the others, oldest first.
    """

    source: str
    run: str
    link: str
    writer: Writer
    failed: str | None = None
    failures: tuple[Failure, ...] = ()
    next_step: str = ""
    gap: Gap | None = None
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    planned: int = 0
    sync_id: int | None = None
    decision: str | None = None
    answered: bool = True
    rows: int = 0
    proven: int = 0
    unproven: tuple[str, ...] = ()


def of_run(facts: RunFacts) -> Event | None:
    """The event that the end of a run is; None where nobody needs to know, or knows already."""
    if facts.gap:
        return _not_done(facts, facts.gap)
    if facts.failed is None:
        return _warned(facts) if facts.verdict == Verdict.WARN else None
    refused = any(failure.error in REFUSED for failure in facts.failures)
    kept = facts.failed == "resume_writer" and facts.decision == Decision.KEEP and facts.answered
    return None if refused or kept else _failed(facts)


def of_hold(writer: Writer, holds: Sequence[Hold], run: str, hours: float, link: str) -> Event:
    """The writer is held and a person is asked at `link`, for so many `hours`."""
    lines = [f"{hold.entity} ({hold.scope}): {'; '.join(hold.reasons)}" for hold in holds]
    consequence = (
        f"nothing was repaired and nothing is written; unanswered for {hours:g} hours, it stays so and the run fails"
    )
    next_step = "answer under the link: keep stopped, resume without repair, or repair, then resume"
    return Event(
        f"{Kind.HOLD}/{run}/{writer.epoch}",
        Kind.HOLD,
        writer.source,
        run,
        f"{writer.source}: the writer is held, please decide",
        _text(lines, consequence, next_step, run, link),
    )


def of_lost_report(source: str, run: str, failure: Failure, link: str) -> Event:
    """How a run has ended could not be found out."""
    consequence = "whether the writer runs is not known; if the run had stopped it, it stays stopped"
    next_step = "bring back what can't be reached, then clear resume_writer with downstream"
    return Event(
        f"{Kind.NO_REPORT}/{run}",
        Kind.NO_REPORT,
        source,
        run,
        f"{source}: warehouse or Airflow API not to be reached at the end of a run",
        _text([str(failure)], consequence, next_step, run, link),
    )


def of_sync(source: str, run: str, failure: Failure, link: str) -> Event | None:
    """A sync has failed; the same error is told once until a sync succeeds. None where a person's conf was refused."""
    if failure.error in REFUSED:
        return None
    consequence = "what could not be synced keeps its watermark, and the copy falls behind its source"
    next_step = "do what the message says; the DAG's documentation explains it. The next sync tries again by itself"
    return Event(
        f"{Kind.SYNC}/{source}/{failure.error}",
        Kind.SYNC,
        source,
        run,
        f"{source}: sync failed",
        _text([str(failure)], consequence, next_step, run, link),
    )


def of_alerts(source: str, run: str, alerts: Sequence[Alert], link: str) -> list[Event]:
    """One event for each rule that is broken, by however many tables; told once until none breaks it."""
    by_rule = groupby(sorted(alerts, key=attrgetter("rule")), key=attrgetter("rule"))
    consequence = "the copy is behind its source, or soon will be; syncs go on"
    return [
        Event(
            f"{Kind.HEALTH}/{source}/{rule}",
            Kind.HEALTH,
            source,
            run,
            f"{source}: {rule.replace('_', ' ')} above its limit",
            _text([alert.line for alert in broken], consequence, "as said above", run, link),
        )
        for rule, broken in by_rule
    ]


def of_long_stop(writer: Writer, now: datetime, limit: timedelta, run: str, link: str) -> Event | None:
    """The writer has been stopped for longer than `limit`; None where it has not. Told once for each stop."""
    stopped = now - writer.since
    if not writer.stopped or stopped <= limit:
        return None
    lines = [f"{writer}; the limit is {_hours(limit)} hours"]
    if writer.hold_reason:
        next_step = "answer decide of the run that stopped it; if it has ended, clear its decide with downstream"
    else:
        next_step = "look at the run that stopped it: let it end, or clear its resume_writer with downstream"
    return Event(
        f"{Kind.STOPPED_LONG}/{writer.source}/{writer.epoch}",
        Kind.STOPPED_LONG,
        writer.source,
        run,
        f"{writer.source}: the writer has been stopped for {_hours(stopped)} hours",
        _text(lines, "nothing is synced; the copy falls behind its source", next_step, run, link),
    )


def of_finding(finding: Finding, run: str, link: str) -> Event:
    """What the watch has found; told once until it is gone. `run` is the one to look at."""
    return Event(
        f"{Kind.WATCH}/{finding.key}",
        Kind.WATCH,
        finding.source,
        run,
        f"{finding.source}: {finding.code.title}",
        _text([finding.what], finding.consequence, finding.next_step, run, link),
    )


def of_lost_watch(run: str, failure: Failure, link: str) -> Event:
    """The watch itself has failed; told once until it has looked at all sources again."""
    consequence = "syncs and nightly runs go on, but a writer that stands still may go unnoticed"
    next_step = "do what the message says; the watch tries again by itself"
    return Event(
        f"{Kind.WATCH_FAILED}",
        Kind.WATCH_FAILED,
        WATCH,
        run,
        "the watch over all sources has failed",
        _text([str(failure)], consequence, next_step, run, link),
    )


def _warned(facts: RunFacts) -> Event:
    changes = f"{facts.planned} planned changes"
    if facts.sync_id is not None:
        repaired = f"{changes} were applied under sync_id {facts.sync_id} and verified"
    else:
        repaired = f"{changes} were not applied (dry run)" if facts.planned else "there was nothing to repair"
    consequence = f"{repaired}; {_standing(facts.writer)}"
    next_step = "look for what changed at the source or in the sync since the last good run"
    return Event(
        f"{Kind.WARN}/{facts.run}",
        Kind.WARN,
        facts.source,
        facts.run,
        f"{facts.source}: more drift than in the runs before",
        _text(facts.reasons, consequence, next_step, facts.run, facts.link, also=_proven(facts)),
    )


def _not_done(facts: RunFacts, gap: Gap) -> Event:
    return Event(
        f"{Kind.NOT_DONE}/{facts.run}/{gap.step}",
        Kind.NOT_DONE,
        facts.source,
        facts.run,
        f"{facts.source}: {gap.step} is not done, whatever its task looks like",
        _text([gap.what], f"{gap.consequence}; {_standing(facts.writer)}", gap.next_step, facts.run, facts.link),
    )


def _failed(facts: RunFacts) -> Event:
    kind, headline, consequence = _classified(facts)
    # Of one run's failures of a kind these may differ.
    part = {Kind.FAILED: f"/{facts.failed}", Kind.WORSE: f"/{facts.sync_id}"}.get(kind, "")
    lines = [str(failure) for failure in facts.failures] or [f"{facts.failed} did not run to its end"]
    standing = f"{consequence}; {_standing(facts.writer)}"
    return Event(
        f"{kind}/{facts.run}{part}",
        kind,
        facts.source,
        facts.run,
        f"{facts.source}: {headline}",
        _text(lines, standing, facts.next_step, facts.run, facts.link),
    )


def _classified(facts: RunFacts) -> tuple[Kind, str, str]:
    """What a failed run is: its kind, headline and consequence, the writer's state apart."""
    held = facts.writer.stopped and facts.writer.hold_reason is not None
    errors = {failure.error for failure in facts.failures}
    match facts.failed:
        case "stop_writer" if "DrainTimeout" in errors:
            return Kind.DRAIN, "the writer did not come to rest in time", "nothing was scanned or written"
        case "scan":
            return Kind.SCAN, "scan failed or incomplete", "no evidence, so nothing was judged or written"
        case "reconcile" if held and "FenceError" not in errors:
            consequence = "the repair stopped where a write may or may not have happened"
            return Kind.REPAIR_UNKNOWN, "the outcome of the repair is unknown", consequence
        case "reconcile":
            return Kind.REPAIR, "repair failed", "nothing was applied, or only what its log names"
        case "verify" if held:
            consequence = f"the repair was applied under sync_id {facts.sync_id}, which can be rolled back"
            return Kind.WORSE, "the repair made it worse", consequence
        case "resume_writer" if facts.decision == Decision.KEEP:
            return Kind.UNANSWERED, "nobody has decided about the hold", "nothing was repaired"
        case "resume_writer":
            return Kind.NOT_RESUMED, "the writer could not be let run again", "the steps before were done"
    return Kind.FAILED, f"{facts.failed} failed", "the run did not get to its end"


def _text(
    lines: Sequence[str], consequence: str, next_step: str, run: str, link: str, *, also: Sequence[str] = ()
) -> str:
    shown = [*_shortened(lines), *also]
    return "\n".join([*shown, f"Consequence: {consequence}.", f"Next: {next_step}.", f"Run: {run}", link])


def _shortened(lines: Sequence[str]) -> list[str]:
    return [*lines[:MAX_LINES], *([f"and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else [])]


def _proven(facts: RunFacts) -> list[str]:
    """How many rows were proven, and which were not; nothing where no scan has counted them."""
    if not facts.rows:
        return []
    doubts = _shortened(facts.unproven)
    return [f"{facts.proven} of {facts.rows} rows proven" + (f"; not proven: {'; '.join(doubts)}" if doubts else "")]


def _standing(writer: Writer) -> str:
    if not writer.stopped:
        return "the writer runs"
    return "the writer stays stopped" + (" until a decision" if writer.hold_reason else "")


def _hours(time: timedelta) -> str:
    return f"{time.total_seconds() / 3600:.3g}"
