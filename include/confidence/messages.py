"""The messages to people: turn what has happened into an event, or into none if nobody needs it. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from operator import attrgetter

from include.confidence.failure import Failure
from include.confidence.health import PROOF_AGE, Alert
from include.confidence.holds import Decision
from include.confidence.outcome import Gap
from include.confidence.policy import Verdict
from include.confidence.watch import Finding
from include.warehouse.fence import Writer

# How many lines of a list a message shows; the page behind its link has all.
MAX_LINES = 5
# Errors that nobody is told of: the person who has just started the run reads them in Airflow.
REFUSED = ("ConfRefused",)
# Takes the place of the source in an event about all sources.
WATCH = "confidence_watch"


class Kind(StrEnum):
    """The kinds of events."""

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
    FIELDS = "fields"
    WATCH = "watch"
    WATCH_FAILED = "watch_failed"
    CRASHED = "crashed"

    @property
    def serious(self) -> bool:
        """Whether something failed or stands still."""
        return self not in (Kind.WARN, Kind.HEALTH, Kind.FIELDS)


@dataclass(frozen=True)
class Event:
    """A message to people. Events with the same `key` are sent once."""

    key: str
    kind: Kind
    source: str
    run: str
    title: str
    text: str


@dataclass(frozen=True)
class RunFacts:
    """How a run of the runbook has ended.

    - `failed`: the first step that failed, None if none did; `failures` say why, `next_step` what to do
    - `gap`: work that is not done although no task failed
    - `reasons`: a line for each scan that did not pass
    - `planned`: how many changes were planned; `sync_id`: under which they were applied, None if they were not
    - `decision`: the answer to a hold; `answered` is False if nobody answered in time
    - `rows`: rows in scope, of which the scans have `proven` some
    - `unproven`: a line for each unproven row, oldest first
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
    """Return the event for the end of a run; None if nobody needs to know it, or a person knows it already."""
    if facts.gap:
        return _not_done(facts, facts.gap)
    if facts.failed is None:
        return _warned(facts) if facts.verdict == Verdict.WARN else None
    refused = any(failure.error in REFUSED for failure in facts.failures)
    # resume_writer fails after the answer "keep stopped", and who has answered knows it.
    kept = facts.failed == "resume_writer" and facts.decision == Decision.KEEP and facts.answered
    return None if refused or kept else _failed(facts)


def of_hold(writer: Writer, question: Sequence[str], run: str, link: str) -> Event:
    """Return the event that asks a person to decide about a hold, at `link`. `question`: its lines."""
    next_step = "open the link and answer: keep stopped, resume without repair, or repair, then resume"
    return Event(
        f"{Kind.HOLD}/{run}/{writer.epoch}",
        Kind.HOLD,
        writer.source,
        run,
        f"{writer.source}: the writer is held, please decide",
        "\n".join([*question, f"Next: {next_step}.", f"Run: {run}", link]),
    )


def of_fields(source: str, run: str, changes: Sequence[str], link: str) -> Event | None:
    """Return the event that fields of the source's records have changed; None without changes.

    `changes`: a line for each, without values. `link`: the page of the fields.
    """
    if not changes:
        return None
    return Event(
        f"{Kind.FIELDS}/{run}",
        Kind.FIELDS,
        source,
        run,
        f"{source}: the fields that the vendor sends have changed",
        _text(
            changes,
            "new fields are kept in extra unless a line says otherwise; the column of a renamed field gets no values",
            "declare a column for a new field that you need, and mend the declaration of a renamed one",
            run,
            link,
        ),
    )


def of_lost_report(source: str, run: str, failure: Failure, link: str) -> Event:
    """Return the event that `report` could not find out how a run has ended."""
    consequence = "whether the writer runs is not known; if the run had stopped it, it stays stopped"
    next_step = "make both reachable again, then clear resume_writer with downstream"
    return Event(
        f"{Kind.NO_REPORT}/{run}",
        Kind.NO_REPORT,
        source,
        run,
        f"{source}: the warehouse or Airflow's API could not be reached at the end of a run",
        _text([str(failure)], consequence, next_step, run, link),
    )


def of_sync(source: str, run: str, failure: Failure, link: str) -> Event | None:
    """Return the event that a sync has failed; None if it only refused the conf that a person gave.

    An error of the same class is sent once, until a sync succeeds.
    """
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
    """Return one event for each rule that has alerts. It is sent once, until the rule has none any more."""
    by_rule = groupby(sorted(alerts, key=attrgetter("rule")), key=attrgetter("rule"))
    behind = "the copy is behind its source, or soon will be; syncs go on"
    unknown = "nobody knows what has drifted since these proofs; syncs go on"
    return [
        Event(
            f"{Kind.HEALTH}/{source}/{rule}",
            Kind.HEALTH,
            source,
            run,
            f"{source}: {rule.replace('_', ' ')} above its limit",
            _text(
                [alert.line for alert in broken],
                unknown if rule == PROOF_AGE else behind,
                "as said above",
                run,
                link,
            ),
        )
        for rule, broken in by_rule
    ]


def of_long_stop(writer: Writer, now: datetime, limit: timedelta, run: str, link: str) -> Event | None:
    """Return the event that the writer has been stopped for longer than `limit`; None if it has not.

    It is sent once for each stop.
    """
    duration = now - writer.since
    if not writer.stopped or duration <= limit:
        return None
    lines = [f"{writer}; the limit is {_hours(limit)} hours"]
    if writer.hold_reason:
        page = f"the page of {writer.source} under Drift"
        next_step = f"answer the question on {page}; if nobody is asked, press Ask me again there"
    else:
        next_step = "look at the run that stopped it: let it end, or clear its resume_writer with downstream"
    return Event(
        f"{Kind.STOPPED_LONG}/{writer.source}/{writer.epoch}",
        Kind.STOPPED_LONG,
        writer.source,
        run,
        f"{writer.source}: the writer has been stopped for {_hours(duration)} hours",
        _text(lines, "nothing is synced; the copy falls behind its source", next_step, run, link),
    )


def of_finding(finding: Finding, run: str, link: str) -> Event:
    """Return the event for a finding of the watch, with the run to look at.

    It is sent once, until the finding is gone.
    """
    return Event(
        f"{Kind.WATCH}/{finding.key}",
        Kind.WATCH,
        finding.source,
        run,
        f"{finding.source}: {finding.code.title}",
        _text([finding.what], finding.consequence, finding.next_step, run, link),
    )


def of_lost_watch(run: str, failure: Failure, link: str) -> Event:
    """Return the event that the watch itself has failed. It is sent once, until the watch succeeds again."""
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


def of_crash(what: str, link: str) -> Event:
    """Return the event for a crash of the whole stack. `what` says which process ended, when and how."""
    consequence = (
        "until this start nothing was synced, scanned or watched; running tasks are tried again or have failed"
    )
    next_step = "look at the log that the reason names, and whether the last runs have ended well"
    return Event(
        f"{Kind.CRASHED}/{what}",
        Kind.CRASHED,
        WATCH,
        WATCH,
        "Airflow is running again after a crash",
        _text([f"the stack ended without being told to: {what}"], consequence, next_step, WATCH, link),
    )


def _warned(facts: RunFacts) -> Event:
    """Return the event for a run with the verdict `warn`."""
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
    """Return the event for a run that left work undone although no task failed."""
    return Event(
        f"{Kind.NOT_DONE}/{facts.run}/{gap.step}",
        Kind.NOT_DONE,
        facts.source,
        facts.run,
        f"{facts.source}: {gap.step} was not done, although no task failed",
        _text([gap.what], f"{gap.consequence}; {_standing(facts.writer)}", gap.next_step, facts.run, facts.link),
    )


def _failed(facts: RunFacts) -> Event:
    """Return the event for a run with a failed step."""
    kind, headline, consequence = _classified(facts)
    # These kinds can come several times in one run: then the step, or the sync_id, tells the events apart.
    part = {Kind.FAILED: f"/{facts.failed}", Kind.WORSE: f"/{facts.sync_id}"}.get(kind, "")
    lines = _merged_lines(facts.failures) or [f"{facts.failed} did not run to its end"]
    standing = f"{consequence}; {_standing(facts.writer)}"
    return Event(
        f"{kind}/{facts.run}{part}",
        kind,
        facts.source,
        facts.run,
        f"{facts.source}: {headline}",
        _text(lines, standing, facts.next_step, facts.run, facts.link),
    )


def _merged_lines(failures: Sequence[Failure]) -> list[str]:
    """Return a line for each failure; failures that differ only in their subject share one line with all subjects."""
    subjects: dict[Failure, list[str]] = {}
    for failure in failures:
        subjects.setdefault(replace(failure, subject=""), []).append(failure.subject)
    return [str(replace(failure, subject=", ".join(filter(None, names)))) for failure, names in subjects.items()]


def _classified(facts: RunFacts) -> tuple[Kind, str, str]:
    """Return kind, headline and consequence of a failed run; the consequence leaves out the writer's state."""
    held = facts.writer.stopped and facts.writer.hold_reason is not None
    errors = {failure.error for failure in facts.failures}
    match facts.failed:
        case "stop_writer" if "DrainTimeout" in errors:
            return Kind.DRAIN, "the writer did not stop in time", "nothing was scanned or written"
        case "scan":
            return Kind.SCAN, "scan failed or incomplete", "no evidence, so nothing was judged or written"
        case "reconcile" if held and "FenceError" not in errors:
            consequence = "the repair stopped where a write may or may not have happened"
            return Kind.REPAIR_UNKNOWN, "the outcome of the repair is unknown", consequence
        case "reconcile":
            return Kind.REPAIR, "repair failed", "nothing was applied, or only what its log names"
        case "verify" if held:
            consequence = f"the repair was applied under sync_id {facts.sync_id}, which can be rolled back"
            return Kind.WORSE, "the repair made the copy worse", consequence
        case "resume_writer" if facts.decision == Decision.KEEP:
            return Kind.UNANSWERED, "nobody has decided about the hold", "nothing was repaired"
        case "resume_writer":
            return Kind.NOT_RESUMED, "the writer could not be started again", "the steps before were done"
    return Kind.FAILED, f"{facts.failed} failed", "the run did not get to its end"


def _text(
    lines: Sequence[str], consequence: str, next_step: str, run: str, link: str, *, also: Sequence[str] = ()
) -> str:
    """Return the text of a message: what happened, what that means, what to do next, and where to look."""
    shown = [*_shortened(lines), *also]
    return "\n".join([*shown, f"Consequence: {consequence}.", f"Next: {next_step}.", f"Run: {run}", link])


def _shortened(lines: Sequence[str]) -> list[str]:
    return [*lines[:MAX_LINES], *([f"and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else [])]


def _proven(facts: RunFacts) -> list[str]:
    """Return a line that says how many rows are proven, and which are not; [] if no scan has counted them."""
    if not facts.rows:
        return []
    shown = _shortened(facts.unproven)
    return [f"{facts.proven} of {facts.rows} rows proven" + (f"; not proven: {'; '.join(shown)}" if shown else "")]


def _standing(writer: Writer) -> str:
    if not writer.stopped:
        return "the writer runs"
    return "the writer stays stopped" + (" until a decision" if writer.hold_reason else "")


def _hours(time: timedelta) -> str:
    return f"{time.total_seconds() / 3600:.3g}"
