"""The check that scan and sync share: images against objects, every suspect looked at twice, and a plan to mend it."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg import Connection, sql

from include.api.bucket import Bucket
from include.confidence.spans import span
from include.confidence.summary import ForensicSummary, Plan
from include.sources.storage import images, look
from include.sources.storage.images import IMAGES, OBJECTS, Scope, Size
from include.warehouse.staging import Stage
from include.warehouse.table import identifiers

if TYPE_CHECKING:
    from include.sources.storage.source import Storage

log = logging.getLogger(__name__)

EXAMPLES = 10
# Suspects that are looked at in one go; the task that is cut off goes on behind them.
SUSPECTS = 5000


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


@dataclass(frozen=True)
class Findings:
    """A check's figures and examples, the shares of what it found in its plan; `incomplete` says why it proves nothing.

    `started`: the application's time when it began.
    """

    metrics: Mapping[str, int | None]
    telemetry: Mapping[str, int | str | None]
    plan: Plan
    examples: Mapping[str, list]
    incomplete: str
    started: datetime

    def summary(self, context: Context, order: Order, scan_id: str, epoch: int) -> ForensicSummary:
        return ForensicSummary(
            source=context.source.name,
            entity=IMAGES.name,
            scope=str(order.scope),
            scan_id=scan_id,
            run=context.run,
            epoch=epoch,
            metrics=self.metrics,
            telemetry=self.telemetry,
            plan=self.plan,
            live_rows=self.metrics["checked"],
            examples=self.examples,
            incomplete=self.incomplete,
        )


def check(context: Context, order: Order) -> Findings:
    """Compare the scope's images with the bucket; the plan stays in staging. Reads only.

    Raises FixConfiguration or TryLater where the bucket can't be proven or a LIST fails.
    """
    look.prove(context.bucket)
    staged = _stage(context, IMAGES, order.purpose, order.ticket)
    objects = _stage(context, OBJECTS, order.purpose, order.ticket)
    again = _stage(context, OBJECTS, f"{order.purpose}_again", order.ticket)
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
        opened.set_attributes(_plan(staged, objects))
    _second_look(context, order, staged, again, size)
    findings = _findings(context, order, staged, objects, again, started, listing)
    _drop(findings, staged, objects, again)
    return findings


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


def _plan(staged: Stage, objects: Stage) -> Mapping[str, int]:
    """Plan to mark what was not found, and to heal what is marked by our hand and was found; how many of each."""
    conn = staged.conn
    columns = [*IMAGES.names, "original_missing", "staged_missing", "new_status", "new_error"]
    parts = {
        "images": staged.sql,
        "objects": objects.sql,
        "plan": staged.plan,
        "columns": identifiers(columns),
        "data": identifiers(IMAGES.names, "i"),
        **look.MESSAGES,
    }
    with conn.transaction():
        for stage in (staged, objects):
            conn.execute(sql.SQL("ANALYZE {}").format(stage.sql))
        conn.execute(sql.SQL("TRUNCATE {}").format(staged.plan))
        marks = conn.execute(sql.SQL(PLAN_MARKS).format(**parts)).rowcount
        heals = conn.execute(sql.SQL(PLAN_HEALS).format(**parts)).rowcount
    return {"marks": marks, "heals": heals}


def _second_look(context: Context, order: Order, staged: Stage, again: Stage, size: Size) -> None:
    """After a pause look at every suspect once more, and settle the plan by what is found."""
    conn, plan = staged.conn, staged.plan
    (count,) = conn.execute(
        sql.SQL("SELECT count(*) FROM ({}) s").format(_suspects(plan)), {"after": "", "limit": None}
    ).fetchone()
    by_listing = look.listing_is_cheaper(count, size) and context.bucket.honours_start_after
    if count and not again.resumed:
        log.info("%d objects will be looked at once more in %.0f s", count, context.source.pause.total_seconds())
        time.sleep(context.source.pause.total_seconds())
    look.look_again(
        context.bucket,
        suspects_of(conn, plan),
        again,
        by_listing=by_listing,
        workers=order.workers,
    )
    settle(conn, plan, again)
    if not order.heal:
        conn.execute(
            sql.SQL("UPDATE {} SET _status = 'healable' WHERE _operation = 'heal' AND _status = 'confirmed'").format(
                plan
            )
        )


def suspects_of(conn: Connection, plan: sql.Identifier, status: str = "candidate") -> Any:
    """The keys to look at for the plan's rows of that status, as `look_again` asks for them."""

    def following(after: str) -> list[str]:
        found = conn.execute(_suspects(plan, status), {"after": after, "limit": SUSPECTS})
        return [key for (key,) in found]

    return following


def _suspects(plan: sql.Identifier, status: str = "candidate") -> sql.Composed:
    return sql.SQL(KEYS).format(plan=plan, status=sql.Literal(status))


def settle(conn: Connection, plan: sql.Identifier, again: Stage, status: str = "candidate") -> None:
    """Decide the plan's rows of that status by the objects that were found, or stayed unknown, the second time."""
    conn.execute(sql.SQL("ANALYZE {}").format(again.sql))
    conn.execute(sql.SQL(SETTLE).format(plan=plan, again=again.sql, status=sql.Literal(status), **look.MESSAGES))


def _findings(
    context: Context, order: Order, staged: Stage, objects: Stage, again: Stage, started: datetime, listing: bool
) -> Findings:
    conn = context.conn
    parts = {"images": staged.sql, "objects": objects.sql, "again": again.sql, "plan": staged.plan}
    with conn.cursor() as cursor:
        cursor.execute(sql.SQL(FIGURES).format(**parts))
        names = [column.name for column in cursor.description]
        figures = dict(zip(names, cursor.fetchone(), strict=True))
    marks, heals = figures.pop("marks"), figures.pop("heals")
    examples = conn.execute(sql.SQL(EXAMPLE_ROWS).format(limit=sql.Literal(EXAMPLES), **parts)).fetchall()
    return Findings(
        metrics=figures
        | {"orphan_objects": _orphans(context, staged, objects) if listing and order.scope.whole else None},
        telemetry={
            "objects_listed": objects.pull.rows_read if listing else None,
            "requests": context.bucket.requests,
            "rows_to_heal": heals,
            "next_cursor": _next_cursor(order.scope, staged),
        },
        plan=Plan(insert=0, update=marks + heals, delete=0),
        examples={"images": [{"image_id": id_, "status": was, "error": error} for id_, was, error in examples]},
        incomplete=_incomplete(conn, parts, figures["unknown"]),
        started=started,
    )


def _incomplete(conn: Connection, parts: Mapping[str, sql.Composable], unknown: int) -> str:
    if not unknown:
        return ""
    reasons = conn.execute(sql.SQL(REASONS).format(**parts)).fetchall()
    return f"{unknown} images could not be looked at: {' '.join(reason for (reason,) in reasons).rstrip('.')}"


def _orphans(context: Context, staged: Stage, objects: Stage) -> int:
    """Objects that no row names; an original that is shared has a row of its own."""
    with context.conn.transaction(), context.conn.cursor(name="orphans") as cursor:
        cursor.itersize = SUSPECTS
        cursor.execute(sql.SQL(ORPHANS).format(images=staged.sql, objects=objects.sql))
        orphans = 0
        while keys := [key for (key,) in cursor.fetchmany(SUSPECTS)]:
            (shared,) = context.images.execute(
                "SELECT count(DISTINCT s3_key) FROM original_images WHERE s3_key = ANY (%s)", [keys]
            ).fetchone()
            orphans += len(keys) - shared
    return orphans


def _next_cursor(scope: Scope, staged: Stage) -> str | None:
    if not scope.limit or staged.pull.rows_read < scope.limit:
        return None
    query = sql.SQL("SELECT id::text FROM {} ORDER BY id DESC LIMIT 1").format(staged.sql)
    return staged.conn.execute(query).fetchone()[0]


def _drop(findings: Findings, staged: Stage, objects: Stage, again: Stage) -> None:
    """Forget what is staged; after a check that was incomplete only where something stayed unknown."""
    for stage in (staged, objects, again):
        unknown = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE presence = 'unknown')").format(stage.sql)
        if (
            stage is again
            or not findings.incomplete
            or (stage is objects and stage.conn.execute(unknown).fetchone()[0])
        ):
            stage.drop()


# Suspects in processing are looked at too, but never written: a worker is at them.
PLAN_MARKS = """
INSERT INTO {plan} ({columns}, _operation, _status)
SELECT {data}, i.original_gone, i.staged_gone, 'error',
  CASE WHEN i.original_gone THEN {original_missing} ELSE {staged_missing} END, 'mark', 'candidate'
FROM (
  SELECT i.*,
    i.original_key IS NOT NULL AND o.key IS NULL
      AND NOT EXISTS (SELECT FROM {objects} x WHERE x.key = ANY (i.original_others)) AS original_gone,
    i.status = 'ready' AND i.staged_key IS NOT NULL AND s.key IS NULL
      AND NOT EXISTS (SELECT FROM {objects} x WHERE x.key = ANY (i.staged_others)) AS staged_gone
  FROM {images} i
  LEFT JOIN {objects} o ON o.key = i.original_key
  LEFT JOIN {objects} s ON s.key = i.staged_key
  WHERE NOT i.deleted AND NOT i.young AND i.status <> 'error'
) i
WHERE i.original_gone OR i.staged_gone
"""

# Marked by our hand: the image is as the last entry of the audit has left it.
PLAN_HEALS = """
INSERT INTO {plan} ({columns}, _operation, _status)
SELECT {data}, false, false, c.before ->> 'status', c.before ->> 'error', 'heal', 'candidate'
FROM {images} i CROSS JOIN LATERAL (
  SELECT before, after FROM confidence.change_log
  WHERE table_name = 'images' AND key ->> 'id' = i.id::text ORDER BY change_id DESC LIMIT 1
) c
WHERE NOT i.deleted AND NOT i.young AND i.status = 'error' AND i.error IN ({original_missing}, {staged_missing})
  AND c.after ->> 'status' = i.status AND c.after ->> 'error' = i.error
  AND (c.after ->> 'updated_at')::timestamptz = i.updated_at
  AND (i.original_key IS NULL OR EXISTS
    (SELECT FROM {objects} x WHERE x.key = i.original_key OR x.key = ANY (i.original_others)))
  AND (i.staged_key IS NULL OR c.before ->> 'status' <> 'ready' OR EXISTS
    (SELECT FROM {objects} x WHERE x.key = i.staged_key OR x.key = ANY (i.staged_others)))
"""

KEYS = """
SELECT DISTINCT key FROM (
  SELECT unnest(original_key || original_others) AS key FROM {plan}
  WHERE _status = {status} AND (_operation = 'heal' OR original_missing)
  UNION ALL
  SELECT unnest(staged_key || staged_others) FROM {plan}
  WHERE _status = {status} AND (staged_missing OR _operation = 'heal' AND new_status = 'ready')
) k
WHERE key > %(after)s COLLATE "C" ORDER BY key LIMIT %(limit)s
"""

SETTLE = """
UPDATE {plan} p SET
  (original_missing, staged_missing, new_error, _status) = (
    SELECT l.original_gone, l.staged_gone,
      CASE WHEN p._operation = 'heal' THEN p.new_error
        WHEN l.original_gone THEN {original_missing} ELSE {staged_missing} END,
      CASE WHEN l.unknown THEN 'unknown'
        WHEN p._operation = 'heal' THEN CASE WHEN l.original_there AND l.staged_there THEN 'confirmed' ELSE 'noise' END
        WHEN NOT (l.original_gone OR l.staged_gone) THEN 'noise'
        WHEN p.status = 'processing' THEN 'left'
        ELSE 'confirmed' END)
FROM (
  SELECT q.id,
    q.original_missing AND o.present IS NULL AS original_gone,
    q.staged_missing AND s.present IS NULL AS staged_gone,
    q.original_key IS NULL OR coalesce(o.present, false) AS original_there,
    q.staged_key IS NULL OR q.new_status <> 'ready' OR coalesce(s.present, false) AS staged_there,
    coalesce(o.unknown, false) OR coalesce(s.unknown, false) AS unknown
  FROM {plan} q
  CROSS JOIN LATERAL (
    SELECT bool_or(presence = 'present') AS present, bool_or(presence = 'unknown') AS unknown FROM {again}
    WHERE key = q.original_key OR key = ANY (q.original_others)) o
  CROSS JOIN LATERAL (
    SELECT bool_or(presence = 'present') AS present, bool_or(presence = 'unknown') AS unknown FROM {again}
    WHERE key = q.staged_key OR key = ANY (q.staged_others)) s
  WHERE q._status = {status}
) l
WHERE l.id = p.id
"""

FIGURES = """
WITH checked AS (
  SELECT * FROM {images} WHERE NOT deleted
), judged AS (
  SELECT * FROM checked WHERE NOT young AND status <> 'error'
), unknown AS (
  SELECT key FROM {objects} WHERE presence = 'unknown'
), unseen AS (
  SELECT id FROM checked WHERE EXISTS (SELECT FROM unknown WHERE key IN (original_key, staged_key)
    OR key = ANY (original_others) OR key = ANY (staged_others))
  UNION
  SELECT id FROM {plan} WHERE _status = 'unknown'
)
SELECT
  (SELECT count(*) FROM checked) AS checked,
  (SELECT count(*) FROM {plan} WHERE _status IN ('confirmed', 'left') AND original_missing) AS missing_original,
  (SELECT count(*) FROM {plan} WHERE _status IN ('confirmed', 'left') AND staged_missing) AS missing_staged,
  (SELECT count(*) FROM unseen) AS unknown,
  (SELECT count(*) FROM judged WHERE original_place = 'foreign' OR status = 'ready' AND staged_place = 'foreign')
    AS foreign_bucket,
  (SELECT count(*) FROM judged WHERE original_place = 'unreadable' OR status = 'ready' AND staged_place = 'unreadable')
    AS unreadable_url,
  (SELECT count(*) FROM judged WHERE status = 'ready' AND NOT has_staged) AS ready_without_staged,
  (SELECT count(*) FROM {plan} WHERE _operation = 'heal' AND _status IN ('confirmed', 'healable')) AS healable,
  (SELECT count(*) FROM {plan} WHERE _status = 'left') AS in_processing,
  (SELECT count(*) FROM {plan} WHERE _status = 'noise') AS feed_noise,
  (SELECT count(*) FROM checked WHERE young) AS rows_young,
  (SELECT count(*) FROM checked WHERE NOT young AND status = 'error') AS rows_in_error,
  (SELECT count(*) FROM {plan} WHERE _status = 'confirmed' AND _operation = 'mark') AS marks,
  (SELECT count(*) FROM {plan} WHERE _status = 'confirmed' AND _operation = 'heal') AS heals
"""

EXAMPLE_ROWS = """
SELECT id::text, status, new_error FROM {plan}
WHERE _operation = 'mark' AND _status IN ('confirmed', 'left') ORDER BY id LIMIT {limit}
"""

REASONS = """
SELECT reason FROM (SELECT * FROM {objects} UNION ALL SELECT * FROM {again}) looks
WHERE presence = 'unknown' GROUP BY reason ORDER BY count(*) DESC, reason LIMIT 3
"""

ORPHANS = """
SELECT o.key FROM {objects} o
WHERE NOT EXISTS (SELECT FROM {images} i WHERE i.original_key = o.key)
  AND NOT EXISTS (SELECT FROM {images} i WHERE i.staged_key = o.key)
  AND NOT EXISTS (
    SELECT FROM (SELECT unnest(original_others || staged_others) AS key FROM {images}) others WHERE others.key = o.key)
"""
