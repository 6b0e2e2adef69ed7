"""The source `storage`: which images a run checks, how its figures are judged, and what it does about them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from psycopg import Connection

from include.confidence import history
from include.confidence.health import Alert, Limits
from include.confidence.policy import Limit, Policy, RepairShare, Trend, Verdict, judge
from include.confidence.summary import ForensicSummary
from include.sources.base import Check, Connections, Synced, SyncFailed
from include.sources.storage import images
from include.sources.storage.check import Context, Order, check
from include.sources.storage.images import GRACE, IMAGES, Scope
from include.sources.storage.repair import apply, logged, repair, resolve, verify
from include.sources.storage.undo import ImagesCopy
from include.warehouse import fence, sync_log
from include.warehouse.rollback import Copy
from include.warehouse.sync_log import Counts

SHARE = 0.05
# Requests at once where no param asks for another number.
WORKERS = 5
CAUSE = (
    "bucket misconfigured, wrong endpoint, or data loss. Check endpoint_url and bucket_name of connection 'storage'"
    " and look into the bucket before anything is repaired"
)
WORKER = "worker failures, or data loss. Look into the worker's log and the bucket before anything is repaired"

# A dry sync has a watermark of its own, so that it hides nothing from the one that writes.
DRY = "dry run"


def _limits(floor: int) -> tuple[Policy, ...]:
    return (
        Limit("missing_original", of="checked", share=SHARE, floor=floor, message=CAUSE),
        Limit("missing_staged", of="checked", share=SHARE, floor=floor, message=WORKER),
    )


# A sync sees few rows, so a few missing objects may be a large share of them.
SYNC_LIMITS = _limits(floor=5)


@dataclass(frozen=True)
class Images:
    """The one thing that a scan looks at."""

    name: str = IMAGES.name
    gates: tuple[Policy, ...] = (
        Trend("missing_original"),
        Trend("missing_staged"),
        Trend("unknown"),
        *_limits(floor=0),
    )
    repair_share: RepairShare = field(default_factory=RepairShare)


@dataclass(frozen=True)
class Storage:
    """`pause`: between the first look at a suspect and the second. `overlap`: as with any sync."""

    name: str = "storage"
    entities: tuple[Images, ...] = (Images(),)
    switch: str | None = "RECONCILE_ENABLED"
    health: Limits = field(default_factory=Limits)
    pause: timedelta = timedelta(seconds=5)
    overlap: timedelta = timedelta(minutes=90)

    @contextmanager
    def open(self, conn: Connection, run: str, connections: Connections) -> Iterator[Context]:
        with connections.bucket("storage") as bucket, connections.database("images_db") as database:
            resolve(conn, database, self.name)
            yield Context(self, conn, run, bucket, database)

    def sync(self, context: Context, params: Mapping[str, Any], *, dry_run: bool) -> Synced:
        """Check the images that changed since the watermark, and mark those whose objects are missing.

        More missing than accidents explain are left to the scan and its gate: SyncFailed.
        """
        conn, writer = context.conn, fence.read(context.conn, self.name)
        if writer.stopped:
            raise fence.FenceError(f"{writer}; nothing was read or written, the sync catches up after the resume")
        scope = Scope(since=None if params["mode"] == "full" else self._since(conn, dry_run))
        order = Order(scope, "sync", f"{context.run}/{scope}", params["batch_size"], params["concurrency"])
        findings = check(context, order)
        summary = findings.summary(context, order, context.run, writer.epoch)
        _require_harmless(summary)
        with logged(context, "sync") as done:
            # Younger images were not judged yet.
            state = {"watermark": findings.started - GRACE, "partition": DRY if dry_run else ""}
            advance = partial(sync_log.advance, conn, done.sync_id, self.name, IMAGES.name, **state)
            if dry_run:
                with fence.writing(conn, self.name, epoch=writer.epoch):
                    advance()
            else:
                done.counts = apply(context, order, done.sync_id, epoch=writer.epoch, also=advance)
            looked_at = Counts(read=findings.metrics["checked"])
            done.counts = {**done.counts, IMAGES.name: done.counts.get(IMAGES.name, Counts()) + looked_at}
        return Synced(done.sync_id, done.counts, self.result([summary], done.counts, dry_run=dry_run))

    def scan(self, context: Context, entity: str, epoch: int, params: Mapping[str, Any]) -> ForensicSummary:
        scan_id = f"{context.run}/{entity}/{epoch}"
        order = _order(params, scan_id)
        summary = check(context, order).summary(context, order, scan_id, epoch)
        with context.conn.transaction():
            history.record(context.conn, summary)
        return summary

    def repair(
        self, context: Context, summaries: Sequence[ForensicSummary], params: Mapping[str, Any]
    ) -> tuple[int, Mapping[str, Counts]]:
        (summary,) = summaries
        return repair(context, summary, _order(params, summary.scan_id))

    def verify(self, context: Context, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
        return verify(context, summaries[0], sync_id, workers=WORKERS)

    def reset_watermarks(self, context: Context) -> int:
        conn, now = context.conn, images.clock(context.images)
        writer = fence.require_stopped(conn, self.name, context.run)
        with logged(context, "watermark") as done, fence.writing(conn, self.name, epoch=writer.epoch, run=context.run):
            for partition in ("", DRY):
                # One that was never set stays so, or the first sync would skip what it has to read.
                if sync_log.state(conn, self.name, IMAGES.name, partition).watermark:
                    sync_log.advance(conn, done.sync_id, self.name, IMAGES.name, watermark=now, partition=partition)
        return done.sync_id

    @contextmanager
    def copy(self, conn: Connection, connections: Connections) -> Iterator[Copy]:
        with connections.database("images_db") as database:
            resolve(conn, database, self.name)
            yield ImagesCopy(conn, database)

    def alerts(self, conn: Connection) -> Sequence[Alert]:
        return ()

    def result(
        self, summaries: Sequence[ForensicSummary], counts: Mapping[str, Counts], *, dry_run: bool
    ) -> Mapping[str, Any]:
        """The keys that the images' own reconciliation had, and those that it lacked."""
        if not summaries:
            return {}
        (summary,) = summaries
        names = ("checked", "missing_original", "missing_staged", "unknown")
        more = ("foreign_bucket", "ready_without_staged", "orphan_objects")
        return {
            **{name: summary.metrics[name] for name in (*names, *more)},
            "updated": counts.get(IMAGES.name, Counts()).updated,
            "healed": counts.get("healed", Counts()).updated,
            "dry_run": dry_run,
            "examples": summary.examples[IMAGES.name],
            "next_cursor": summary.telemetry["next_cursor"],
        }

    def _since(self, conn: Connection, dry_run: bool) -> datetime | None:
        partitions = ("", DRY) if dry_run else ("",)
        marks = [sync_log.state(conn, self.name, IMAGES.name, partition).watermark for partition in partitions]
        return max((mark - self.overlap for mark in marks if mark), default=None)


def _order(params: Mapping[str, Any], scan_id: str) -> Order:
    scope = Scope.of(params)
    ticket = f"{scan_id}/{scope}"
    return Order(scope, "scan", ticket, params["batch_size"], params["concurrency"], heal=params["heal"])


def _require_harmless(summary: ForensicSummary) -> None:
    """What the gate would hold, and what can't be told, is nothing for an unattended write."""
    if summary.incomplete:
        raise SyncFailed(f"{summary.incomplete}. Nothing was written; the next sync looks again")
    judgement = judge(summary, [], SYNC_LIMITS)
    if judgement.verdict is Verdict.HOLD:
        raise SyncFailed(
            f"{'; '.join(judgement.reasons)}. Nothing was written, the watermark stays: run storage_reconcile, whose"
            " gate asks a person"
        )
