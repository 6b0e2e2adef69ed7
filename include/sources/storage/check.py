"""The check that scan and sync share: compare images with objects, look twice at every suspect, plan the changes.

An object is missing only if LIST and HEAD agree, at two times. It is present if the first look shows it; a scan of all
images also looks at a sample of these objects in the other way. If one of the two shows it and the other does not, even
when it is asked again, the image is unproven.
"""

import hashlib
import logging
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg import Connection, sql

from include.api.bucket import Bucket, Presence, Way
from include.confidence.spans import span
from include.sources.answer_census import AnswerCensus
from include.sources.storage import breaker, images, look, plan
from include.sources.storage.images import IMAGES, OBJECTS, Scope, Size
from include.sources.storage.others import ANY_ROW, KeysOfOthers
from include.sources.storage.second_look import (
    count_suspects,
    disputed,
    no_suspects,
    settle,
    some_suspects,
    suspects_of,
)
from include.warehouse.ranges import Ranges, read_to_end
from include.warehouse.staging import Stage

if TYPE_CHECKING:
    from include.sources.storage.source import Storage

log = logging.getLogger(__name__)

# How many other images are looked at to see whether the bucket shows anything.
OTHERS = 10
# Suspects that are asked for by HEAD before a second LIST. A HEAD also says which objects can be restored.
ASKED_OF_MANY = 20


@dataclass(frozen=True)
class StorageContext:
    """The opened source: `conn` is the warehouse, `images` the application's database, both in autocommit.

    `run` is `dag_id/run_id`. `census` counts the fields of what the bucket answers.
    """

    source: "Storage"
    conn: Connection
    run: str
    bucket: Bucket
    images: Connection
    census: AnswerCensus


@dataclass(frozen=True)
class CheckOptions:
    """What to check and how: `batch` images at a time, `workers` requests at once.

    `heal`: give marked images whose objects are back their former status. `purpose` (`sync` or `scan`) keeps their
    staged rows apart. An attempt goes on where the last one was cut off if that had the same `ticket`. `slices`: how
    many tasks read bucket and images together.
    """

    scope: Scope
    purpose: str
    ticket: str
    batch: int
    workers: int
    heal: bool = False
    slices: int = 1

    @property
    def seed(self) -> int:
        """A pseudorandom number, the same for all attempts."""
        return zlib.crc32(self.ticket.encode())

    @property
    def chance(self) -> str:
        """A pseudorandom id, the same for all attempts."""
        return str(UUID(hashlib.md5(self.ticket.encode(), usedforsecurity=False).hexdigest()))


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    - `staged`: the images, with the plan
    - `objects`, `again`, `third`, `fourth`: the first, second, third and fourth looks at objects
    - `listing`: the first look was a LIST
    - `started`: the application's time at the beginning
    - `in_order`: images whose objects the first look found
    - `doubted`: how many of these the sample did not find again
    - `shown`: False if objects are missing, and the bucket doesn't show objects of other images either
    - `why_unanswered`: why no second look had an answer, empty if one had
    - `resumed`: an earlier attempt has looked at a part
    """

    staged: Stage
    objects: Stage
    again: Stage
    third: Stage
    fourth: Stage
    listing: bool
    started: datetime
    in_order: int
    doubted: int
    shown: bool
    why_unanswered: str
    resumed: bool

    @property
    def stages(self) -> Sequence[Stage]:
        return self.staged, self.objects, self.again, self.third, self.fourth

    def forget(self, *, keep: bool) -> None:
        """Drop the stages. `keep`: leave images, and objects if none is unknown, for the next attempt."""
        for stage in self.stages:
            unknown = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE presence = 'unknown')").format(stage.sql)
            whole = stage is self.staged or (stage is self.objects and not stage.conn.execute(unknown).fetchone()[0])
            if not (keep and whole):
                stage.drop()


def check(context: StorageContext, options: CheckOptions) -> Checked:
    """Compare the scope's images with the bucket; leave the plan in staging. Read only.

    Raises FixConfiguration or TryLater if the bucket can't be proven or a LIST fails.
    """
    look.prove(context.bucket)
    staged = _stage(context, IMAGES, options.purpose, options.ticket)
    looks = [
        _stage(context, OBJECTS, options.purpose + suffix, options.ticket)
        for suffix in ("", "_again", "_third", "_fourth")
    ]
    objects = looks[0]
    resumed = any(stage.resumed for stage in (staged, *looks))
    started, size, listing = _begin(context, options, staged)
    others: Iterable[str] = ()
    if listing:
        # Objects first: a row exists before its object, so every object listed here has its row when rows are read.
        # Otherwise a new object would look like an orphan.
        how = {"workers": options.workers, "slices": options.slices}
        look.list_bucket(context.bucket, context.images, objects, expected=size.known, **how)
        _read_images(context, options, staged)
    else:
        _read_images(context, options, staged)
        # If many looks have no answer, these tell whether the store is down.
        others = _others(context, options, started, staged.sql)
        how = {"batch": options.batch, "workers": options.workers, "others": others}
        look.look_at_images(context.bucket, staged, objects, **how)
    work = {"source": context.source.name, "entity": IMAGES.name, "run": context.run, "limit": options.scope.limit}
    with span("compare", **work) as opened:
        whole = options.purpose == "scan" and options.scope.whole
        found = plan.make(staged, objects, started=started, watched_by=context.run if whole else None)
        opened.set_attributes({"marks": found["marks"], "heals": found["heals"]})
    unanswered = _second_look(context, options, staged, looks, listing, size, others)
    doubted, not_audited = _audit(context, options, staged, objects, listing)
    _leave_changed(context, options, staged)
    shown = _shown(context, options, staged, started, found["in_order"])
    why_unanswered = unanswered or not_audited
    return Checked(staged, *looks, listing, started, found["in_order"], doubted, shown, why_unanswered, resumed)


def _stage(context: StorageContext, table: Any, purpose: str, ticket: str) -> Stage:
    return Stage.open(context.conn, table, context.source.name, purpose, ticket)


def _begin(context: StorageContext, options: CheckOptions, staged: Stage) -> tuple[datetime, Size, bool]:
    """Return when the check began, its size, and whether to LIST. All attempts use what the first one chose."""
    if not staged.pull.progress:
        size = images.size(context.images, options.scope)
        started = images.clock(context.images)
        listing = look.listing_is_cheaper(size.to_check, size)
        staged.save_progress(started=started.isoformat(), to_check=size.to_check, known=size.known, listing=listing)
    kept = staged.pull.progress
    return datetime.fromisoformat(kept["started"]), Size(kept["to_check"], kept["known"]), kept["listing"]


def _read_images(context: StorageContext, options: CheckOptions, staged: Stage) -> None:
    many = 1 if options.slices == 1 else options.slices * look.RANGES_EACH
    read_to_end(staged, partial(options.scope.bounds, many), partial(read_claimed, context, options, staged))


def read_claimed(context: StorageContext, options: CheckOptions, staged: Stage, ranges: Ranges) -> Iterator[None]:
    """Claim ranges and stage their images until none is free. Yields after each batch."""
    started = datetime.fromisoformat(staged.pull.progress["started"])
    while claimed := ranges.claim(1):
        [each] = claimed
        after, upto = each.bounds
        batches = images.read(
            context.images,
            options.scope,
            context.bucket,
            started=started,
            batch=options.batch,
            after=each.position or after,
            upto=upto,
            taken=ranges.progress().rows_read,
        )
        for rows, position in batches:
            ranges.store(each, rows, position=position)
            yield


def _second_look(
    context: StorageContext,
    options: CheckOptions,
    staged: Stage,
    looks: Sequence[Stage],
    listing: bool,
    size: Size,
    others: Iterable[str],
) -> str:
    """After a pause look at every suspect in the other way, and settle the plan with the result.

    `others`: keys of objects that should exist, for when the first look has found none. Return why no look had an
    answer, empty if one had.
    """
    conn, (objects, again, third, fourth) = staged.conn, looks
    bucket, how = context.bucket, {"workers": options.workers, "known": look.known(objects) or others}
    count = count_suspects(conn, staged.plan)
    if count and not again.resumed:
        log.info("%d objects will be looked at once more in %.0f s", count, context.source.pause.total_seconds())
        time.sleep(context.source.pause.total_seconds())
    by_pages = many = look.listing_is_cheaper(count, size) and bucket.honours_start_after
    if listing:
        # If there are many suspects, the second look is another LIST; a HEAD of each comes before the write anyway. But
        # if a HEAD finds some of them, the LIST can't be trusted, and all get a HEAD.
        some = some_suspects(conn, staged.plan, ASKED_OF_MANY, options.seed) if many else no_suspects
        look.look_again(bucket, some, third, Way.HEAD, **how)
        many = many and not look.known(third)
    way = Way.LIST if many or not listing else Way.HEAD
    look.look_again(bucket, suspects_of(conn, staged.plan), again, way, by_pages=many, **how)
    # One of LIST and HEAD shows these, and the first look did not. If they came meanwhile, it shows them now.
    doubted = disputed(conn, staged.plan, looks, listed_whole=listing)
    look.look_again(bucket, doubted, fourth, way.other, by_pages=by_pages and way is Way.HEAD, **how)
    # Such a time of change lies in the future, unless the image is young.
    lately = datetime.fromisoformat(staged.pull.progress["started"]) - images.GRACE
    settle(conn, staged.plan, looks, listed_whole=listing, lately=lately)
    if not options.heal:
        plan.leave_heals(conn, staged.plan)
    reason = _unanswered(again)
    return reason if reason and not bucket.finds(how["known"], way) else ""


def _unanswered(looks: Stage) -> str:
    """Return why no look had an answer, empty if one had or there were no looks."""
    query = "SELECT count(*) FILTER (WHERE presence <> 'unknown'), coalesce(min(reason), '') FROM {}"
    answered, reason = looks.conn.execute(sql.SQL(query).format(looks.sql)).fetchone()
    return "" if answered else reason


def _audit(
    context: StorageContext, options: CheckOptions, staged: Stage, objects: Stage, listing: bool
) -> tuple[int, str]:
    """Look at a sample of the objects that were found in the other way too, in a scan of all images.

    Return how many images are unproven by that, and why no look of the sample had an answer (empty if one had). Other
    checks have no sample, since only a scan of all images can confirm the copy.
    """
    size = context.source.audit if options.scope.whole else 0
    keys = plan.sample(staged, size, options.seed) if size else []
    bucket, way, known = context.bucket, Way.HEAD if listing else Way.LIST, look.known(objects)
    looks = list(bucket.look_all(keys, options.workers, way=way, known=known))
    absent = [each.key for each in looks if each.presence is Presence.ABSENT]
    if absent:
        bucket.prove()
        time.sleep(context.source.pause.total_seconds())
        looks = [each for each in looks if each.presence is not Presence.ABSENT]
        looks += bucket.look_all(absent, options.workers, way=way, known=known)
    if looks and all(each.presence is Presence.UNKNOWN for each in looks) and not bucket.finds(known, way):
        return 0, looks[0].reason
    doubtful = [each for each in looks if each.presence in (Presence.ABSENT, Presence.EMPTY) or each.later]
    return plan.doubt(staged, doubtful) if doubtful else 0, ""


def _leave_changed(context: StorageContext, options: CheckOptions, staged: Stage) -> None:
    """Leave out of the plan what has changed since it was read: the looks are not about such an image any more.

    If a user deletes many images while a check runs, their objects are not lost. A young image that an earlier scan has
    noted is not excused by a further change.
    """
    for rows in plan.planned(staged.conn, staged.plan, options.batch, plan.SEEN_OTHERWISE):
        now = images.read_again(context.images, [row["id"] for row in rows], context.bucket)
        changed = {row["id"] for row in rows if not _stays(now.get(row["id"]), row)}
        plan.supersede(staged.conn, staged.plan, changed)


def _stays(now: Mapping[str, Any] | None, row: Mapping[str, Any]) -> bool:
    if now is None or not row["young"]:
        return now is not None and plan.as_planned(now, row)
    return not now["deleted"] and now["status"] != "error"


def _shown(context: StorageContext, options: CheckOptions, staged: Stage, started: datetime, in_order: int) -> bool:
    """Return True if nothing is missing, or if the bucket shows the objects of other images.

    Otherwise the bucket or the connection may be wrong. A check of all images tells by `in_order`, its number of images
    whose objects it has found. Any other check looks at objects of images that it did not check, chosen at random.
    """
    missing = sql.SQL("_operation = 'mark' AND _status IN ('confirmed', 'left')")
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})").format(staged.plan, missing)
    if not staged.conn.execute(query).fetchone()[0]:
        return True
    if options.scope.whole:
        return in_order > 0
    keys = _others(context, options, started, staged.plan, missing)
    return breaker.shows_other_images(list(context.bucket.look_all(keys, options.workers)), in_order)


def _others(
    context: StorageContext,
    options: CheckOptions,
    started: datetime,
    checked: sql.Composable,
    which: sql.Composable = ANY_ROW,
) -> KeysOfOthers:
    """Return the keys of objects that some images need, chosen at random, without the checked and the unproven ones.

    See `KeysOfOthers` for `checked` and `which`.
    """
    return KeysOfOthers(context, checked, started - images.GRACE, options.chance, OTHERS, which)
