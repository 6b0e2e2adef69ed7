"""The check that scan and sync share: images against objects, every suspect looked at twice, and a plan to mend it.

Nothing is missing by one witness: LIST and HEAD have to agree, at two times. Present is what either shows; of a scan of
all images a sample is looked at in the other way too.
"""

import hashlib
import logging
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg import Connection, sql

from include.api.bucket import Bucket, Presence, Way
from include.confidence.spans import span
from include.sources.storage import breaker, images, look, plan
from include.sources.storage.images import IMAGES, OBJECTS, Scope, Size
from include.warehouse.staging import Stage

if TYPE_CHECKING:
    from include.sources.storage.source import Storage

log = logging.getLogger(__name__)

# Other images by which a bucket that misses something is proven.
OTHERS = 10


@dataclass(frozen=True)
class Context:
    """The bucket, the application's database and the warehouse, both in autocommit, for a run (`dag_id/run_id`)."""

    source: "Storage"
    conn: Connection
    run: str
    bucket: Bucket
    images: Connection


@dataclass(frozen=True)
class Order:
    """What to check and how: `batch` images at a time, `workers` requests at once, errors healed or not.

    `purpose` keeps the staged rows of sync and scan apart; `ticket` tells an attempt whether it may go on where the
    one before was cut off.
    """

    scope: Scope
    purpose: str
    ticket: str
    batch: int
    workers: int
    heal: bool = False

    @property
    def seed(self) -> int:
        """A number by chance, the same for all attempts."""
        return zlib.crc32(self.ticket.encode())

    @property
    def chance(self) -> str:
        """An id by chance, the same for all attempts."""
        return str(UUID(hashlib.md5(self.ticket.encode(), usedforsecurity=False).hexdigest()))


@dataclass(frozen=True)
class Checked:
    """What was looked at, in staging, and what came of it beside the plan.

    `started`: the application's time at the beginning. `in_order`: images of which the first look found everything;
    `doubted` of them another look did not bear out. `shown`: whether a bucket that misses something shows what other
    images need. `unanswered`: why nothing of what was to be looked at a second time gave an answer, if so.
    """

    staged: Stage
    objects: Stage
    again: Stage
    third: Stage
    listing: bool
    started: datetime
    in_order: int
    doubted: int
    shown: bool
    unanswered: str

    @property
    def stages(self) -> Sequence[Stage]:
        return self.staged, self.objects, self.again, self.third

    def forget(self, *, keep: bool) -> None:
        """Drop what is staged; `keep` what the next attempt need not read again, all but unknown objects."""
        for stage in self.stages:
            unknown = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE presence = 'unknown')").format(stage.sql)
            whole = stage is self.staged or (stage is self.objects and not stage.conn.execute(unknown).fetchone()[0])
            if not (keep and whole):
                stage.drop()


def check(context: Context, order: Order) -> Checked:
    """Compare the scope's images with the bucket; the plan stays in staging. Reads only.

    Raises FixConfiguration or TryLater where the bucket can't be proven or a LIST fails.
    """
    look.prove(context.bucket)
    staged = _stage(context, IMAGES, order.purpose, order.ticket)
    objects, again, third = (
        _stage(context, OBJECTS, order.purpose + suffix, order.ticket) for suffix in ("", "_again", "_third")
    )
    started, size, listing = _begin(context, order, staged)
    if listing:
        # Objects first: an object is there after its row, so an orphan is not one whose row came too late to be read.
        look.list_bucket(context.bucket, context.images, objects, expected=size.known, workers=order.workers)
        _read_images(context, order, staged, started)
    else:
        _read_images(context, order, staged, started)
        look.look_at_images(context.bucket, staged, objects, batch=order.batch, workers=order.workers)
    work = {"source": context.source.name, "entity": IMAGES.name, "run": context.run, "limit": order.scope.limit}
    with span("compare", **work) as opened:
        found = plan.make(staged, objects)
        opened.set_attributes({"marks": found["marks"], "heals": found["heals"]})
    looks = (objects, again, third)
    unanswered = _second_look(context, order, staged, looks, listing, size)
    doubted, not_audited = _audit(context, order, staged, objects, listing)
    shown = _shown(context, order, staged, started, found["in_order"])
    return Checked(staged, *looks, listing, started, found["in_order"], doubted, shown, unanswered or not_audited)


def _stage(context: Context, table: Any, purpose: str, ticket: str) -> Stage:
    return Stage.open(context.conn, table, context.source.name, purpose, ticket)


def _begin(context: Context, order: Order, staged: Stage) -> tuple[datetime, Size, bool]:
    """When the check began, how much there is to look at, whether by LIST; all attempts keep what the first chose."""
    if not staged.pull.progress:
        size = images.size(context.images, order.scope)
        started = images.clock(context.images)
        listing = look.listing_is_cheaper(size.to_check, size)
        staged.save_progress(started=started.isoformat(), to_check=size.to_check, known=size.known, listing=listing)
    kept = staged.pull.progress
    return datetime.fromisoformat(kept["started"]), Size(kept["to_check"], kept["known"]), kept["listing"]


def _read_images(context: Context, order: Order, staged: Stage, started: datetime) -> None:
    if staged.pull.complete:
        return
    batches = images.read(
        context.images,
        order.scope,
        context.bucket.name,
        started=started,
        batch=order.batch,
        after=staged.pull.position,
        taken=staged.pull.rows_read,
    )
    for rows, position in batches:
        staged.append(rows, next_position=position, page_info={})


def _second_look(
    context: Context, order: Order, staged: Stage, looks: Sequence[Stage], listing: bool, size: Size
) -> str:
    """After a pause look at every suspect in the other way, and settle the plan by what is found.

    Many are looked at by another LIST, since a HEAD each is asked for before the write anyway. Returns why none of them
    could be looked at, if so.
    """
    conn, (objects, again, third) = staged.conn, looks
    bucket, workers = context.bucket, order.workers
    count = plan.count_suspects(conn, staged.plan)
    by_pages = look.listing_is_cheaper(count, size) and bucket.honours_start_after
    way = Way.LIST if by_pages else Way.HEAD if listing else Way.LIST
    if count and not again.resumed:
        log.info("%d objects will be looked at once more in %.0f s", count, context.source.pause.total_seconds())
        time.sleep(context.source.pause.total_seconds())
    known = look.known(objects)
    suspects = plan.suspects_of(conn, staged.plan)
    look.look_again(bucket, suspects, again, way, by_pages=by_pages, workers=workers, known=known)
    if not listing:
        # What came meanwhile is there by HEAD as well; else the two disagree.
        look.look_again(bucket, plan.disputed(conn, staged.plan, looks), third, Way.HEAD, workers=workers, known=known)
    plan.settle(conn, staged.plan, looks, listed_whole=listing)
    if not order.heal:
        conn.execute(
            sql.SQL("UPDATE {} SET _status = 'healable' WHERE _operation = 'heal' AND _status = 'confirmed'").format(
                staged.plan
            )
        )
    answered, reason = conn.execute(
        sql.SQL("SELECT count(*) FILTER (WHERE presence <> 'unknown'), min(reason) FROM {}").format(again.sql)
    ).fetchone()
    return "" if answered or reason is None or bucket.finds(known, way) else reason


def _audit(context: Context, order: Order, staged: Stage, objects: Stage, listing: bool) -> tuple[int, str]:
    """Look at a sample of what was found in the other way too.

    How many images are doubted by it, and why none of the sample gave an answer, if so. Only a scan of all images can
    confirm them, so only that is audited.
    """
    size = context.source.audit if order.scope.whole else 0
    keys = plan.sample(staged, size, order.seed) if size else []
    bucket, way, known = context.bucket, Way.HEAD if listing else Way.LIST, look.known(objects)
    looks = list(bucket.look_all(keys, order.workers, way=way, known=known))
    absent = [each.key for each in looks if each.presence is Presence.ABSENT]
    if absent:
        bucket.prove()
        time.sleep(context.source.pause.total_seconds())
        looks = [each for each in looks if each.presence is not Presence.ABSENT]
        looks += bucket.look_all(absent, order.workers, way=way, known=known)
    if looks and all(each.presence is Presence.UNKNOWN for each in looks) and not bucket.finds(known, way):
        return 0, looks[0].reason
    doubtful = [each for each in looks if each.presence in (Presence.ABSENT, Presence.EMPTY) or each.later]
    return plan.doubt(staged, doubtful) if doubtful else 0, ""


def _shown(context: Context, order: Order, staged: Stage, started: datetime, in_order: int) -> bool:
    """Whether a bucket that misses something shows what other images need; True where nothing is missing."""
    missing = plan.missing(staged.conn, staged.plan)
    if not missing or order.scope.whole:
        return not missing or in_order > 0
    keys = images.others(
        context.images,
        context.bucket.name,
        before=started - images.GRACE,
        without=[*missing, *plan.remembered(staged.conn)],
        start=order.chance,
        limit=OTHERS,
    )
    return breaker.shows_others(list(context.bucket.look_all(keys, order.workers)), in_order)
