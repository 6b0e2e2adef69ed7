"""The figures of a check: metrics, the account of all images and objects, and images that are not proven."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import Connection, sql

from include.confidence import planned_changes, scan_log, unproven
from include.confidence.account import Account
from include.confidence.policy import Unproven
from include.confidence.summary import ForensicSummary, Plan
from include.sources.storage import breaker, plan
from include.sources.storage.check import Checked, CheckOptions, StorageContext
from include.sources.storage.images import IMAGES, Scope
from include.sources.storage.plan import KNOWN_STATUSES
from include.sources.storage.second_look import BATCH
from include.warehouse.staging import Stage

EXAMPLES = 10
UNPROVEN = Unproven()
TABLES = (IMAGES.name,)


@dataclass(frozen=True)
class Findings:
    """A check's figures and examples. `incomplete`: why the check proves nothing, empty if it does.

    `open`: the number of images that had no answer and that no scan has named as unproven yet. `oldest`: the earliest
    time at which one of them was changed. `reasons`: why they had no answer.
    """

    metrics: Mapping[str, int | None]
    telemetry: Mapping[str, int | str | None]
    plan: Plan
    examples: Mapping[str, list]
    account: Account
    incomplete: str
    open: int
    oldest: datetime | None
    reasons: str

    def summary(self, context: StorageContext, options: CheckOptions, scan_id: str, epoch: int) -> ForensicSummary:
        return ForensicSummary(
            source=context.source.name,
            entity=IMAGES.name,
            scope=str(options.scope),
            scan_id=scan_id,
            run=context.run,
            epoch=epoch,
            metrics=self.metrics,
            telemetry=self.telemetry,
            plan=self.plan,
            live_rows=self.metrics["looked_at"],
            examples=self.examples,
            accounts={IMAGES.name: self.account},
            incomplete=self.incomplete,
        )


def find(context: StorageContext, options: CheckOptions, checked: Checked) -> Findings:
    """Return the figures of a check."""
    conn = context.conn
    counted = _counted(conn, checked)
    account = _account(checked, counted)
    missing = counted["marks"] + counted["in_processing"]
    looked_at = account.equal + missing
    lately = breaker.lately(conn, context.run, whole=options.scope.whole)
    unanswered, open_, oldest, reasons = conn.execute(sql.SQL(OPEN).format(plan=checked.staged.plan)).fetchone()
    metrics = {name: counted[name] for name in METRICS} | {
        "looked_at": looked_at,
        "looked_at_lately": looked_at + (lately.marked if options.scope.whole else lately.looked_at),
        "missing_lately": missing + lately.marked if missing else 0,
        "marked_lately": lately.marked,
        "missing_in_doubt": 0 if checked.shown else missing,
        "orphan_objects": _orphans(context, checked) if checked.listing and options.scope.whole else None,
    }
    return Findings(
        metrics=metrics,
        telemetry={
            "objects_listed": checked.objects.pull.rows_read if checked.listing else None,
            "requests": context.bucket.requests,
            "started": checked.started.isoformat(),
            "rows_to_heal": counted["heals"],
            "next_cursor": _next_cursor(options.scope, checked.staged),
        },
        plan=Plan(insert=0, update=counted["marks"] + counted["heals"], delete=0),
        examples=_examples(conn, checked.staged.plan),
        account=account,
        incomplete=_incomplete(checked, account, unanswered, reasons),
        open=open_,
        oldest=oldest,
        reasons=reasons,
    )


def remember(
    context: StorageContext, options: CheckOptions, checked: Checked, summary: ForensicSummary
) -> ForensicSummary:
    """Store which images are not proven; return the summary with their figures.

    Call it in the transaction that records the scan.
    """
    conn, source = context.conn, context.source.name
    read = sql.SQL("SELECT jsonb_build_array(id) AS key FROM {}").format(checked.staged.sql)
    unproven.remember_query(
        conn,
        source,
        IMAGES.name,
        context.run,
        plan.doubts(checked.staged.plan),
        proven=None if options.scope.whole else read,
    )
    return replace(
        summary,
        metrics=summary.metrics | unproven.metrics(conn, source, TABLES),
        examples=summary.examples | unproven.examples(conn, source, TABLES),
    )


def keep_plan(context: StorageContext, checked: Checked, summary: ForensicSummary) -> None:
    """Keep the plan of a scan row by row, and what its images have in common."""
    conn, staged = context.conn, checked.staged
    planned_changes.keep(conn, summary, IMAGES.name, ("status", "error"), plan.changes(staged.plan))
    scan_log.keep_patterns(conn, summary.scan_id, plan.find_patterns(staged))


def _counted(conn: Connection, checked: Checked) -> dict[str, Any]:
    parts = {
        "images": checked.staged.sql,
        "objects": checked.objects.sql,
        "plan": checked.staged.plan,
        "statuses": KNOWN_STATUSES,
    }
    counted: dict[str, Any] = {}
    for query in (OF_IMAGES, OF_OBJECTS, OF_PLAN):
        with conn.cursor() as cursor:
            cursor.execute(sql.SQL(query).format(**parts))
            names = [column.name for column in cursor.description]
            counted |= dict(zip(names, cursor.fetchone(), strict=True))
    return counted


def _account(checked: Checked, counted: Mapping[str, int]) -> Account:
    """Return the account of images and objects.

    The totals are counted while reading; where each row ended up is counted in the warehouse. So the sums can fail.
    """
    objects = checked.objects.pull
    return Account(
        listed=objects.rows_read - counted["objects_unknown"],
        refused=objects.rows_refused,
        compared=counted["objects_compared"],
        live=checked.staged.pull.rows_read,
        equal=checked.in_order - checked.doubted + counted["noise"],
        differing=counted["differing"],
        young=counted["rows_young"],
        unproven=counted["unproven_images"],
        out_of_scope=counted["out_of_scope"],
    )


def _incomplete(checked: Checked, account: Account, unanswered: int, reasons: str) -> str:
    """Return why the check proves nothing, empty if it does.

    Images without an answer make it incomplete once, so that the next attempt asks again.
    """
    if checked.why_unanswered:
        return f"{account.unproven} images could not be looked at: {checked.why_unanswered.rstrip('.')}"
    if unanswered:
        return f"{unanswered} images could not be looked at: {reasons.rstrip('.')}"
    return UNPROVEN.no_evidence({IMAGES.name: account})


def _examples(conn: Connection, planned: sql.Identifier) -> dict[str, list]:
    limit = sql.Literal(EXAMPLES)
    missing = conn.execute(sql.SQL(EXAMPLE_ROWS).format(plan=planned, limit=limit)).fetchall()
    restorable = conn.execute(sql.SQL(RESTORABLE).format(plan=planned, limit=limit)).fetchall()
    return {
        "images": [{"image_id": id_, "status": was, "error": error} for id_, was, error in missing],
        "restorable_examples": [id_ for (id_,) in restorable],
    }


def _orphans(context: StorageContext, checked: Checked) -> int:
    """Return the number of objects that no row names, neither of images nor of original_images."""
    query = sql.SQL(ORPHANS).format(images=checked.staged.sql, objects=checked.objects.sql)
    with context.conn.transaction(), context.conn.cursor(name="orphans") as cursor:
        cursor.execute(query)
        orphans = 0
        while keys := [key for (key,) in cursor.fetchmany(BATCH)]:
            (others,) = context.images.execute(
                "SELECT count(DISTINCT s3_key) FROM original_images WHERE s3_key = ANY (%s)", [keys]
            ).fetchone()
            orphans += len(keys) - others
    return orphans


def _next_cursor(scope: Scope, staged: Stage) -> str | None:
    if not scope.limit or staged.pull.rows_read < scope.limit:
        return None
    query = sql.SQL("SELECT id::text FROM {} ORDER BY id DESC LIMIT 1").format(staged.sql)
    return staged.conn.execute(query).fetchone()[0]


# Reasons why images are not proven. One image may count in several.
NOT_PROVEN = (
    *("unknown", "foreign_bucket", "unreadable_url", "without_original"),
    *("empty_object", "other_reading", "unknown_status", "uncertain_age"),
)
METRICS = (
    *("checked", "missing_original", "missing_staged", "restorable", *NOT_PROVEN, "ready_without_staged"),
    *("healable", "in_processing", "feed_noise", "rows_young", "rows_in_error"),
)

OF_IMAGES = """
SELECT count(*) FILTER (WHERE NOT deleted) AS checked,
  count(*) FILTER (WHERE NOT deleted AND CASE WHEN young
      THEN NOT EXISTS (SELECT FROM {plan} p WHERE p.id = i.id AND p._status NOT IN ('young', 'superseded'))
    ELSE EXISTS (SELECT FROM {plan} p WHERE p.id = i.id AND p._operation = 'mark' AND p._status = 'superseded')
    END) AS rows_young,
  count(*) FILTER (WHERE NOT deleted AND NOT young AND status = 'error') AS rows_in_error,
  count(*) FILTER (WHERE NOT deleted AND NOT young AND status = 'ready' AND NOT has_staged) AS ready_without_staged,
  count(*) FILTER (WHERE deleted OR NOT young AND status = 'error' AND NOT EXISTS
    (SELECT FROM {plan} p WHERE p.id = i.id AND p._operation = 'heal' AND p._status IN ('confirmed', 'healable'))
    OR EXISTS (SELECT FROM {plan} p WHERE p.id = i.id AND p._status = 'judged')) AS out_of_scope
FROM {images} i
"""

OF_OBJECTS = """
SELECT count(*) FILTER (WHERE presence = 'unknown') AS objects_unknown,
  count(*) FILTER (WHERE presence IN ('present', 'empty', 'absent')) AS objects_compared
FROM {objects}
"""

OF_PLAN = """
SELECT count(*) FILTER (WHERE missing AND original_state = 'absent') AS missing_original,
  count(*) FILTER (WHERE missing AND staged_state = 'absent') AS missing_staged,
  count(*) FILTER (WHERE missing AND restorable) AS restorable,
  count(*) FILTER (WHERE unproven AND looks) AS unknown,
  count(*) FILTER (WHERE mark AND 'foreign' IN (original_state, staged_state)) AS foreign_bucket,
  count(*) FILTER (WHERE mark AND 'unreadable' IN (original_state, staged_state)) AS unreadable_url,
  count(*) FILTER (WHERE mark AND original_state = 'none') AS without_original,
  count(*) FILTER (WHERE mark AND 'empty' IN (original_state, staged_state)) AS empty_object,
  count(*) FILTER (WHERE mark AND 'elsewhere' IN (original_state, staged_state)) AS other_reading,
  count(*) FILTER (WHERE mark AND status NOT IN ({statuses})) AS unknown_status,
  count(*) FILTER (WHERE unproven AND (original_state IN ('young', 'ahead') OR staged_state IN ('young', 'ahead')))
    AS uncertain_age,
  count(*) FILTER (WHERE _operation = 'heal' AND _status IN ('confirmed', 'healable')) AS healable,
  count(*) FILTER (WHERE _status = 'left') AS in_processing,
  count(*) FILTER (WHERE _status = 'noise') AS feed_noise,
  count(*) FILTER (WHERE mark AND _status = 'noise') AS noise,
  count(*) FILTER (WHERE _status IN ('confirmed', 'left', 'healable')) AS differing,
  count(*) FILTER (WHERE unproven) AS unproven_images,
  count(*) FILTER (WHERE mark AND _status = 'confirmed') AS marks,
  count(*) FILTER (WHERE NOT mark AND _status = 'confirmed') AS heals
FROM (
  SELECT *, _operation = 'mark' AS mark, _operation = 'mark' AND _status IN ('confirmed', 'left') AS missing,
    _operation = 'mark' AND _status = 'unproven' AS unproven,
    'unknown' IN (original_state, staged_state) OR 'disputed' IN (original_state, staged_state) AS looks
  FROM {plan} WHERE _status <> 'young'
) p
"""

# Images without an answer. Scans and syncs ask for them again until a scan has named them in confidence.unproven;
# `earlier_scans.leave_proven` leaves those out of a sync that a scan has proven.
OPEN = """
SELECT count(*) FILTER (WHERE unknown = 'later'), count(*), min(updated_at),
  coalesce((SELECT string_agg(reason, ' ') FROM (
    SELECT CASE unknown WHEN 'disputed' THEN 'LIST and HEAD disagree.' ELSE reason END AS reason FROM {plan}
    WHERE unknown IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 3
  ) reasons), '')
FROM {plan} p
WHERE _operation = 'mark' AND _status = 'unproven' AND unknown IS NOT NULL AND NOT EXISTS
  (SELECT FROM confidence.unproven u
   WHERE u.source = 'storage' AND u.entity = 'images' AND u.key = jsonb_build_array(p.id))
"""

EXAMPLE_ROWS = """
SELECT id::text, status, new_error FROM {plan}
WHERE _operation = 'mark' AND _status IN ('confirmed', 'left') ORDER BY id LIMIT {limit}
"""

RESTORABLE = """
SELECT id::text FROM {plan}
WHERE _operation = 'mark' AND _status IN ('confirmed', 'left') AND restorable ORDER BY id LIMIT {limit}
"""

ORPHANS = """
SELECT o.key FROM {objects} o
WHERE NOT EXISTS (SELECT FROM {images} i WHERE i.original_key = o.key)
  AND NOT EXISTS (SELECT FROM {images} i WHERE i.staged_key = o.key)
  AND NOT EXISTS (
    SELECT FROM (SELECT unnest(original_others || staged_others) AS key FROM {images}) others WHERE others.key = o.key)
"""
