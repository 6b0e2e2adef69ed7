"""The source `storage`: which images a run checks, how its figures are judged, and what is written."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from psycopg import Connection

from include.confidence import scan_log
from include.confidence.account import Account
from include.confidence.field_figures import with_fields
from include.confidence.health import Alert, Limits
from include.confidence.policy import Policy, RepairShare, Trend, Unproven, Verdict, judge
from include.confidence.sides import Sides
from include.confidence.summary import ForensicSummary
from include.sources.answer_census import AnswerCensus
from include.sources.base import (
    Check,
    Connections,
    LeftOut,
    ReadAnswer,
    Synced,
    SyncFailed,
    require_all_rows,
    require_lookback,
)
from include.sources.slices import scan_slices
from include.sources.storage import breaker, earlier_scans, images
from include.sources.storage.answers import ANSWERS, count
from include.sources.storage.check import Checked, CheckOptions, StorageContext, check
from include.sources.storage.figures import NOT_PROVEN, UNPROVEN, Findings, find, keep_plan, remember
from include.sources.storage.images import GRACE, IMAGES, Scope
from include.sources.storage.look import progress
from include.sources.storage.metrics import METRICS
from include.sources.storage.repair import apply, logged, plan_of, repair_images, resolve_cut_off_commits, verify_repair
from include.sources.storage.slices import read_slice
from include.sources.storage.undo import ImagesCopy
from include.warehouse import fence, sync_log
from include.warehouse.rollback import Copy
from include.warehouse.sync_log import Counts

# Requests at once if no param says another number.
WORKERS = 5

# A sync tolerates this many unproven images, or a share if that is more: the nightly scan names them.
UNPROVEN_IN_SYNC = 5

LEFT_ALONE = LeftOut(
    missing={
        "older versions of an object": "an image is about the newest one",
        "objects whose key is no UTF-8, or longer than 1,024 bytes": "no url can name them, nor can Postgres keep them",
        "images that the application has deleted": "nobody asks for them; their objects are no orphans",
        "images in error that no check has marked": "the message is the worker's, and stays",
        "images that changed within the last 15 minutes": "their upload may not have ended; the next run looks",
    }
)


SIDES = Sides(
    copy="in the application",
    source="after a repair",
    after_resume="each sync marks changed images whose objects are missing, unless too many are: then it is refused",
    after_repair=(
        "Images without their objects are then marked as broken in the application, and no object comes back by that:"
        " don't repair if the objects are only out of reach, or can be brought back."
    ),
)


@dataclass(frozen=True)
class Images:
    """The only entity."""

    name: str = IMAGES.name
    refers_to: frozenset[str] = frozenset()
    leaves_out: LeftOut = LEFT_ALONE
    gates: tuple[Policy, ...] = (
        Trend("missing_original"),
        Trend("missing_staged"),
        Trend("unknown"),
        *breaker.LIMITS,
        breaker.Restorable(),
    )
    # A mass change needs a person, even in a small table.
    repair_share: RepairShare = field(default_factory=partial(RepairShare, min_rows=breaker.MIN_IMAGES))
    unproven: Unproven = UNPROVEN


@dataclass(frozen=True)
class Storage:
    """The source. `pause` is the time between the first and the second look at a suspect.

    `every`: the time between two syncs. `lookback`: how far behind its watermark a sync reads again. `audit`: the
    number of present objects that a scan of all images looks at in the other way too, other ones in each run.
    """

    name: str = "storage"
    entities: tuple[Images, ...] = (Images(),)
    switch: str | None = "RECONCILE_ENABLED"
    connections: tuple[str, ...] = ("storage", "images_db")
    health: Limits = field(default_factory=Limits)
    metric_texts: Mapping[str, str] = field(default_factory=lambda: METRICS)
    # No record is mirrored, so no field has a path.
    answer_names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    read_answers: tuple[ReadAnswer, ...] = ANSWERS
    sides: Sides = SIDES
    # The folder of an object tells more than the id of its image.
    planned_name: str = "coalesce(p.before ->> 'original_key', p.before ->> 'staged_key')"
    pause: timedelta = timedelta(seconds=5)
    audit: int = 64
    every: timedelta = timedelta(hours=1)
    lookback: timedelta = timedelta(minutes=90)

    def __post_init__(self) -> None:
        require_lookback(self.name, self.lookback, self.every)

    @contextmanager
    def open(self, conn: Connection, run: str, connections: Connections) -> Iterator[StorageContext]:
        with connections.bucket("storage") as bucket, connections.database("images_db") as database:
            require_all_rows(database, "images_db", images.TABLES)
            resolve_cut_off_commits(conn, database, self.name)
            census = AnswerCensus(self.name, ANSWERS)
            bucket.listen(partial(count, census))
            yield StorageContext(self, conn, run, bucket, database, census)

    def sync(self, context: StorageContext, params: Mapping[str, Any], *, dry_run: bool) -> Synced:
        """Check the images that changed since the watermark; mark images whose objects are missing, heal the others.

        Raises SyncFailed without writing if too many are missing or unproven: the scan and its gate decide then. Raises
        SyncFailed after writing if images had no answer; the watermark stops before them until a scan has proven them
        or named them.
        """
        conn, writer = context.conn, fence.read(context.conn, self.name)
        if writer.stopped:
            raise fence.FenceError(f"{writer}; nothing was read or written, the sync catches up after the resume")
        breaker.require_closed(conn, context.bucket, params["concurrency"])
        scope = Scope(since=None if params["mode"] == "full" else self._since(conn, dry_run))
        ticket = f"{context.run}/{scope}"
        options = CheckOptions(scope, "sync", ticket, params["batch_size"], params["concurrency"], heal=True)
        checked = check(context, options)
        try:
            return self._write(context, options, checked, writer.epoch, dry_run=dry_run)
        finally:
            checked.forget(keep=False)

    def _write(
        self, context: StorageContext, options: CheckOptions, checked: Checked, epoch: int, *, dry_run: bool
    ) -> Synced:
        """Write what a sync's check has found; see `sync`."""
        conn = context.conn
        earlier_scans.leave_proven(conn, checked.staged.plan)
        findings = find(context, options, checked)
        summary = findings.summary(context, options, context.run, epoch)
        if _is_harmful(findings, summary) and earlier_scans.leave_judged(conn, checked.staged.plan):
            findings = find(context, options, checked)
            summary = findings.summary(context, options, context.run, epoch)
        _require_harmless(context, options, findings, summary)
        with logged(context, "sync") as done:
            partition = sync_log.DRY if dry_run else ""
            mark = _watermark(findings, checked.started)

            def advance(counts: Counts) -> None:
                # Another sync may have begun meanwhile, and so have emptied the plan.
                checked.staged.claim()
                if not counts.failed:
                    sync_log.advance(conn, done.sync_id, self.name, IMAGES.name, watermark=mark, partition=partition)

            if dry_run:
                with fence.writing(conn, self.name, epoch=epoch):
                    advance(Counts())
            else:
                done.counts = apply(context, options, done.sync_id, summary, epoch=epoch, also=advance)
            looked_at = Counts(read=findings.metrics["checked"])
            done.counts = {**done.counts, IMAGES.name: done.counts.get(IMAGES.name, Counts()) + looked_at}
        with conn.transaction():
            context.census.keep(conn, context.run, whole=False)
        _require_whole(findings, done.sync_id, done.counts[IMAGES.name])
        return Synced(done.sync_id, done.counts, self.result([summary], done.counts, dry_run=dry_run))

    def scan(self, context: StorageContext, entity: str, epoch: int, params: Mapping[str, Any]) -> ForensicSummary:
        scan_id = _scan_id(context, entity, epoch)
        options = _scan_options(params, scan_id)
        checked = check(context, options)
        with context.conn.transaction():
            found = find(context, options, checked).summary(context, options, scan_id, epoch)
            # Other slices count what they read, so this one's census is as little whole as that of a resumed scan.
            partly = {"resumed": checked.resumed or options.slices > 1}
            fields = context.census.keep(context.conn, context.run, whole=options.scope.whole, **partly)
            summary = with_fields(remember(context, options, checked, found), fields)
            scan_log.record(context.conn, summary)
            scan_log.keep_progress(context.conn, scan_id, progress(checked.objects))
            keep_plan(context, checked, summary)
        checked.forget(keep=bool(summary.incomplete))
        return summary

    def read_slice(
        self, context: StorageContext, entity: str, epoch: int, params: Mapping[str, Any], slice_number: int
    ) -> int:
        scan_id = _scan_id(context, entity, epoch)
        return read_slice(context, _scan_options(params, scan_id), scan_id, slice_number)

    def repair(
        self, context: StorageContext, summaries: Sequence[ForensicSummary], params: Mapping[str, Any]
    ) -> tuple[int, Mapping[str, Counts]]:
        (summary,) = summaries
        return repair_images(context, summary, _scan_options(params, summary.scan_id))

    def verify(self, context: StorageContext, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
        return verify_repair(context, summaries[0], sync_id, workers=WORKERS)

    def reset_watermarks(self, context: StorageContext) -> int:
        conn, now = context.conn, images.clock(context.images)
        writer = fence.require_stopped(conn, self.name, context.run)
        with logged(context, "watermark") as done, fence.writing(conn, self.name, epoch=writer.epoch, run=context.run):
            for partition in ("", sync_log.DRY):
                # A watermark that was never set stays unset: the first sync has to read everything.
                if sync_log.state(conn, self.name, IMAGES.name, partition).watermark:
                    moved = {"watermark": now, "read_from": now, "partition": partition}
                    sync_log.advance(conn, done.sync_id, self.name, IMAGES.name, **moved)
        return done.sync_id

    @contextmanager
    def copy(self, conn: Connection, connections: Connections) -> Iterator[Copy]:
        with connections.database("images_db") as database:
            require_all_rows(database, "images_db", images.TABLES)
            resolve_cut_off_commits(conn, database, self.name)
            yield ImagesCopy(conn, database)

    def alerts(self, conn: Connection) -> Sequence[Alert]:
        return ()

    def result(
        self, summaries: Sequence[ForensicSummary], counts: Mapping[str, Counts], *, dry_run: bool
    ) -> Mapping[str, Any]:
        """Return the figures under the keys of the reconciliation that this source replaces, and some more."""
        if not summaries:
            return {}
        (summary,) = summaries
        names = ("checked", "missing_original", "missing_staged", "unknown")
        more = ("foreign_bucket", "ready_without_staged", "orphan_objects", "looked_at", "restorable")
        return {
            **{name: summary.metrics[name] for name in (*names, *more)},
            "unproven": summary.accounts[IMAGES.name].not_proven,
            "updated": counts.get(IMAGES.name, Counts()).updated,
            "healed": counts.get("healed", Counts()).updated,
            "dry_run": dry_run,
            "examples": summary.examples[IMAGES.name],
            "next_cursor": summary.telemetry["next_cursor"],
        }

    def _since(self, conn: Connection, dry_run: bool) -> datetime | None:
        partitions = ("", sync_log.DRY) if dry_run else ("",)
        states = [sync_log.state(conn, self.name, IMAGES.name, partition) for partition in partitions]
        return max(filter(None, (state.since(self.lookback) for state in states)), default=None)


def _scan_id(context: StorageContext, entity: str, epoch: int) -> str:
    return f"{context.run}/{entity}/{epoch}"


def _scan_options(params: Mapping[str, Any], scan_id: str) -> CheckOptions:
    scope = Scope.of(params)
    ticket = f"{scan_id}/{scope}"
    how = {"heal": params["heal"], "slices": scan_slices()}
    return CheckOptions(scope, "scan", ticket, params["batch_size"], params["concurrency"], **how)


def _watermark(findings: Findings, started: datetime) -> datetime:
    """Return the watermark of the sync: before young images, which were not judged, and those without an answer."""
    if findings.oldest is None:
        return started - GRACE
    return min(started - GRACE, findings.oldest - timedelta(microseconds=1))


def _is_harmful(findings: Findings, summary: ForensicSummary) -> bool:
    """Return whether the check proves too little, or the gate of a scan would hold for its figures."""
    return _proves_too_little(findings.account) or judge(summary, [], breaker.LIMITS).verdict is Verdict.HOLD


def _proves_too_little(account: Account) -> bool:
    return account.unproven > max(UNPROVEN_IN_SYNC, UNPROVEN.share * account.rows)


def _require_harmless(
    context: StorageContext, options: CheckOptions, findings: Findings, summary: ForensicSummary
) -> None:
    """Raise SyncFailed if the check is harmful, or its sums do not come out."""
    account = findings.account
    if account.wrong_sum:
        raise SyncFailed(f"{account.wrong_sum}. Nothing was written; the next sync looks again")
    if _proves_too_little(account):
        raise SyncFailed(
            f"{account.unproven} of {account.rows} images could not be proven ({_why(summary)}). Nothing was written,"
            " the watermark stays: check bucket_name and endpoint_url of connection 'storage', and the urls of the"
            f" images. {findings.reasons}".rstrip()
        )
    judgement = judge(summary, [], breaker.LIMITS)
    if judgement.verdict is Verdict.HOLD:
        reason = "; ".join(judgement.reasons)
        refused, looked_at = plan_of(context, options.purpose), summary.metrics["looked_at"]
        breaker.remember_refusal(context.conn, context.run, refused, reason, looked_at=looked_at)
        raise SyncFailed(
            f"{reason}. Nothing was written, the watermark stays: run storage_reconcile, whose gate asks a person"
        )


def _why(summary: ForensicSummary) -> str:
    """Return the numbers of unproven images by reason, for a message."""
    counts = {name: summary.metrics[name] for name in NOT_PROVEN}
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _require_whole(findings: Findings, sync_id: int, counts: Counts) -> None:
    """Raise SyncFailed if some images could not be written or looked at, although all others are in step."""
    if counts.failed:
        raise SyncFailed(
            f"{counts.failed} images do not show the status that was written, as if a trigger or a policy of the"
            " application's database forbade it; those that it refused with an error are named in this task's log. The"
            f" others are written (sync_id {sync_id}), the watermark stays: see what forbids it, or undo the sync with"
            " warehouse_rollback"
        )
    if findings.open:
        raise SyncFailed(
            f"{findings.open} images could not be looked at: {findings.reasons} All others are in step; the next"
            " sync asks for these again, until the nightly scan has proven or named them"
        )
