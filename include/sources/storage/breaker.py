"""The breaker: it keeps unattended runs from marking a mass loss as missing, even in small portions over many runs.

The table `storage.breaker` remembers what each run looked at and marked. A scan of all images adds up the marks of the
last days. A sync, or a scan of a part, adds up only those since a scan of all images last passed. A person's decision
starts the count again.

A refused sync stays refused until a person decides, a scan of all images passes, or the missing objects are back. An
object counts as missing only if the bucket shows objects of other images (see `shows_other_images`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from psycopg import Connection, sql
from psycopg.rows import class_row

from include.api.bucket import Bucket, Look, Presence
from include.api.errors import TryLater
from include.confidence.policy import Gate, Limit, PastRun, Policy, Verdict
from include.confidence.summary import ForensicSummary
from include.sources.base import SyncFailed
from include.sources.storage import look

SHARE, MIN_IMAGES = 0.05, 5
CAUSE = (
    "bucket misconfigured, wrong endpoint, or data loss. Check endpoint_url and bucket_name of connection 'storage'"
    " and look into the bucket before anything is repaired"
)
REMOVED = (
    "the originals of {there} other images are there, so bucket and endpoint are right: find out who or what has"
    " removed these before anything is repaired"
)
WORKER = "worker failures, or data loss. Look into the worker's log and the bucket before anything is repaired"
LATELY = "look into the bucket before anything is repaired"


@dataclass(frozen=True)
class MissingLately(Limit):
    """The limit of images that are missing now, plus those that unattended runs have marked lately.

    The reason of a hold has both numbers.
    """

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        [gate] = super().gates(summary, history)
        marked = summary.metrics.get("marked_lately")
        # A scan of an earlier version did not count it.
        if gate.verdict is not Verdict.HOLD or marked is None:
            return [gate]
        now = gate.value - marked
        # More than the limit at once is no small portion, whatever was marked before.
        portions = ". That is data loss in small portions" if now <= gate.limit else ""
        said = f"Missing now: {now}, marked by unattended runs lately: {marked}{portions}"
        return [replace(gate, reason=f"{gate.reason}. {said}")]


@dataclass(frozen=True)
class Absent(Limit):
    """The limit of images whose object of one kind is missing.

    If others of that kind are there, bucket and endpoint are right, and `message` does not apply. `others` says what
    does.
    """

    others: str = field(kw_only=True)

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        [gate] = super().gates(summary, history)
        if gate.verdict is not Verdict.HOLD:
            return [gate]
        there, reason = summary.metrics[self.of] - gate.value, gate.reason
        if there > 0:
            reason = reason.removesuffix(self.message) + self.others.format(there=f"{there:,}")
        left = summary.metrics.get("in_processing")
        return [replace(gate, reason=f"{reason}. Left alone, as they are in processing: {left}" if left else reason)]


LIMITS: tuple[Policy, ...] = (
    Absent("missing_original", of="looked_at", share=SHARE, min_rows=MIN_IMAGES, message=CAUSE, others=REMOVED),
    Limit("missing_staged", of="looked_at", share=SHARE, min_rows=MIN_IMAGES, message=WORKER),
    MissingLately("missing_lately", of="looked_at_lately", share=SHARE, min_rows=MIN_IMAGES, message=LATELY),
    # Missing from a bucket that does not show the objects of other images either.
    Limit("missing_in_doubt", of="looked_at", share=0, message=CAUSE),
)

# How many missing objects a refusal stores. The next sync looks for them again.
REMEMBERED = 40


@dataclass(frozen=True)
class Restorable:
    """The policy that warns of objects that are only marked as deleted: restoring them is better than a repair."""

    metric: str = "restorable"

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        value = summary.metrics[self.metric]
        if not value:
            return [Gate(self.metric, None, 0, value, Verdict.PASS)]
        reason = (
            f"{value} images lack objects that are only marked as deleted ({self.metric}): remove the delete markers in"
            " the bucket, and these objects are there again"
        )
        return [Gate(self.metric, None, 0, value, Verdict.WARN, reason)]


@dataclass(frozen=True)
class Lately:
    """How many images earlier unattended runs have looked at and marked."""

    looked_at: int
    marked: int


@dataclass(frozen=True)
class Refusal:
    """A refused sync: when, why, and keys of some of the missing objects."""

    at: datetime
    refused: str
    keys: Sequence[str]


def lately(conn: Connection, run: str, *, whole: bool) -> Lately:
    """Return what earlier unattended runs add to the check of this run. `whole`: it is of all images."""
    looked_at, marked = conn.execute(LATELY_QUERY, {"run": run, "whole": whole}).fetchone()
    return Lately(looked_at, marked)


def remember(conn: Connection, run: str, sync_id: int, *, looked_at: int, marked: int, whole: bool) -> None:
    """Store how many images a run has looked at and marked. `whole`: it checked all images.

    Call it in the transaction that writes the marks.
    """
    conn.execute(
        "INSERT INTO storage.breaker (run, sync_id, looked_at, marked, whole) VALUES (%s, %s, %s, %s, %s)",
        [run, sync_id, looked_at, marked, whole],
    )


def remember_refusal(conn: Connection, run: str, plan: sql.Identifier, reason: str, *, looked_at: int) -> None:
    """Store that a sync was refused, with some of the missing keys, so that the next sync looks at them first."""
    keys = [key for (key,) in conn.execute(sql.SQL(MISSED).format(plan=plan, limit=REMEMBERED))]
    conn.execute(
        "INSERT INTO storage.breaker (run, looked_at, refused, keys) VALUES (%s, %s, %s, %s)",
        [run, looked_at, reason, keys],
    )


def require_closed(conn: Connection, bucket: Bucket, workers: int) -> None:
    """Raise SyncFailed if an earlier sync was refused and its missing objects are still missing.

    If they are there again, the refusal ends.
    """
    with conn.cursor(row_factory=class_row(Refusal)) as cursor:
        refusal = cursor.execute(OPEN_REFUSAL).fetchone()
    if refusal is None:
        return
    look.prove(bucket)
    looks = list(bucket.look_all(refusal.keys, workers))
    there = sum(each.presence is Presence.PRESENT for each in looks)
    if not there or len(looks) - there > max(1, SHARE * len(looks)):
        raise SyncFailed(
            f"a sync was refused at {refusal.at:%Y-%m-%d %H:%M %Z} ({refusal.refused}), and the bucket shows only"
            f" {there} of {len(looks)} objects that were missing then. Nothing was written, the watermark stays: run"
            " storage_reconcile, whose gate asks a person"
        )
    conn.execute("UPDATE storage.breaker SET ended_at = clock_timestamp() WHERE refused IS NOT NULL")


def shows_other_images(looks: Sequence[Look], there_before: int) -> bool:
    """Return whether the bucket shows at least half of the objects that other images need.

    `looks` are looks at those objects. If there are none, it is enough that the check found `there_before` > 0 images
    in order. Raises TryLater if the looks without an answer could change the result.
    """
    unanswered = [each for each in looks if each.later]
    there = sum(each.presence in (Presence.PRESENT, Presence.EMPTY) for each in looks)
    absent = sum(each.presence is Presence.ABSENT for each in looks)
    may_show, may_hide = there + len(unanswered) >= absent, there < absent + len(unanswered)
    if unanswered and may_show and may_hide:
        raise TryLater(f"{unanswered[0].reason} So the bucket could not be proven by objects of other images.")
    return there >= absent if there + absent else there_before > 0


# Marks that a rollback undid, or that a person decided on, don't count.
LATELY_QUERY = """
WITH decided AS (
  SELECT max(decided_at) AS at FROM confidence.forensic_run
  WHERE source = 'storage' AND decision IN ('resume', 'repair')
), passed AS (
  SELECT at, run FROM (
    SELECT scanned_at AS at, run FROM confidence.forensic_run
    WHERE source = 'storage' AND scope = 'all' AND verdict IN ('pass', 'warn')
    UNION ALL
    SELECT at, run FROM storage.breaker WHERE whole AND refused IS NULL
  ) all_images WHERE run <> %(run)s ORDER BY at DESC LIMIT 1
)
SELECT coalesce(sum(b.looked_at), 0)::int, coalesce(sum(b.marked), 0)::int
FROM storage.breaker b
JOIN confidence.sync_log l ON l.sync_id = b.sync_id AND l.state = 'success'
CROSS JOIN decided
WHERE b.at > now() - interval '7 days' AND b.at > coalesce(decided.at, '-infinity')
  AND (%(whole)s OR NOT EXISTS (SELECT FROM passed WHERE b.at <= passed.at OR b.run = passed.run))
  AND NOT EXISTS (SELECT FROM confidence.sync_log u WHERE u.undoes = b.sync_id AND u.state = 'success')
  AND NOT EXISTS (SELECT FROM confidence.forensic_run f WHERE f.run = b.run AND f.decision = 'repair')
"""

# A refusal from the time ahead, when the clock was wrong, could be ended by no decision; the next sync judges anew.
OPEN_REFUSAL = """
SELECT b.at, b.refused, b.keys FROM storage.breaker b
WHERE b.refused IS NOT NULL AND b.ended_at IS NULL AND b.at <= clock_timestamp() AND NOT EXISTS (
  SELECT FROM confidence.forensic_run f
  WHERE f.source = 'storage' AND (f.decision IN ('resume', 'repair') AND f.decided_at > b.at
    OR f.scope = 'all' AND f.verdict IN ('pass', 'warn') AND f.scanned_at > b.at))
ORDER BY b.at DESC LIMIT 1
"""

MISSED = """
SELECT CASE original_state WHEN 'absent' THEN original_key ELSE staged_key END AS key FROM {plan}
WHERE _status IN ('confirmed', 'left') AND _operation = 'mark' ORDER BY id LIMIT {limit}
"""
