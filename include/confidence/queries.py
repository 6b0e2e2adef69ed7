"""What the warehouse knows of each source, as people and their systems read it. Reads only.

Every list is bounded. Those that grow come a page at a time, newest first, by a cursor that names the last item of
the page before: what is added meanwhile moves nothing. Times that passed are in seconds.
"""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from psycopg import Connection, sql
from psycopg.rows import class_row, dict_row, tuple_row

from include.confidence import findings
from include.confidence.account import Account
from include.confidence.findings import Standing
from include.confidence.policy import SEVERITY, Gate, Verdict
from include.confidence.summary import Plan
from include.confidence.unproven import Unproven, oldest
from include.warehouse.fence import Writer
from include.warehouse.sync_log import Counts

# Items of a page: at most, and unless told otherwise.
MAX_PAGE, PAGE = 200, 50
# Points of a series: at most, and unless told otherwise.
MAX_POINTS, POINTS = 365, 90

Item = TypeVar("Item")


class CursorRefused(ValueError):
    """The cursor is none that a page has given."""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items of a list; `next_cursor` asks for those behind them, None at the end."""

    items: tuple[Item, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Reading:
    """An entity whose scan is under way. `total_pages` is what the source said, `updated_at` its last page."""

    entity: str
    pages: int
    total_pages: int | None
    rows_read: int
    started_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Progress:
    """How far the scans of the run that stopped the writer have come: entities that are done, and those under way."""

    run: str
    scanned: tuple[str, ...]
    reading: tuple[Reading, ...]


@dataclass(frozen=True)
class SyncRow:
    """A row of the sync log: a sync, repair, rollback or watermark; `entities` are its counts by entity.

    `undoes`: the sync_id that a rollback undid, `undone_by` the rollback of this one.
    """

    sync_id: int
    source: str
    kind: str
    run: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    duration_seconds: float | None
    counts: Counts
    entities: Mapping[str, Counts]
    requests: int
    request_errors: int
    undoes: int | None
    undone_by: int | None
    reason: str | None
    error: str | None


@dataclass(frozen=True)
class Scan:
    """One scan of an entity as it was judged. `verdict` is None and `gates` are empty until then.

    `plan`: rows that its repair would change. Of the `rows` on both sides it has `proven` some; both are None where it
    kept no account, which `accounts` are by table. `incomplete` says why it is no evidence. `decision` (keep, resume,
    repair) is a person's about a hold. `examples` are ids, or say what is wrong with each.
    """

    scan_id: str
    source: str
    entity: str
    scope: str
    run: str
    epoch: int
    scanned_at: datetime
    verdict: Verdict | None
    reasons: tuple[str, ...]
    metrics: Mapping[str, int | None]
    telemetry: Mapping[str, int | str | None]
    gates: tuple[Gate, ...]
    plan: Plan
    live_rows: int
    rows: int | None
    proven: int | None
    accounts: Mapping[str, Account]
    incomplete: str
    examples: Mapping[str, list[Any]]
    decision: str | None
    decided_by: str | None
    decided_at: datetime | None


@dataclass(frozen=True)
class Status:
    """How a source stands now.

    `verdict` is the worst of the last run that was judged, `scanned_at` when that scanned, and of the `rows` on both
    sides it has `proven` some. `unproven` rows wait since `unproven_since`. `freshness_seconds` is how far the table
    `stalest` is behind. `findings` are the watch's, which has looked at `watched_at`. None: not known yet, or nothing
    under way.
    """

    writer: Writer
    verdict: Verdict | None
    judged_run: str | None
    scanned_at: datetime | None
    rows: int | None
    proven: int | None
    unproven: int
    unproven_since: datetime | None
    freshness_seconds: float | None
    stalest: str | None
    last_sync: SyncRow | None
    progress: Progress | None
    findings: tuple[Standing, ...]
    watched_at: datetime | None


@dataclass(frozen=True)
class Part:
    """What is scanned under one name and so compared with itself; `scans` counts those that are kept."""

    entity: str
    scope: str
    scans: int
    scanned_at: datetime


@dataclass(frozen=True)
class Point:
    """A figure in one run. `limit` is the strictest of its gates, `verdict` the worst of them, None without a gate.

    `accepted`: a person resumed with this figure, which is the baseline since.
    """

    scanned_at: datetime
    run: str
    value: int | None
    baseline: float | None
    limit: float | None
    verdict: Verdict | None
    accepted: bool


@dataclass(frozen=True)
class Series:
    """A metric, or another figure that is judged, over the runs, oldest first."""

    entity: str
    scope: str
    metric: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Difference:
    """A column that a change has changed."""

    column: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Change:
    """A row that a sync or repair has changed, by key; of most that are inserted no values are kept."""

    change_id: int
    table: str
    key: Mapping[str, Any]
    operation: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Run:
    """What one run (`dag_id/run_id`) left: its scans, and the rows of the sync log, newest first, the first 200 each.

    `planned` adds up the plans of the newest scan of each entity, of whose `rows` it has `proven` some; `applied` what
    its repairs have done. `unproven`: rows that it could not prove and no later run has, oldest first, the first 200.
    """

    run: str
    source: str
    verdict: Verdict | None
    scans: tuple[Scan, ...]
    planned: Plan
    rows: int | None
    proven: int | None
    unproven: tuple[Unproven, ...]
    applied: Counts
    syncs: tuple[SyncRow, ...]


def overview(conn: Connection, sources: Sequence[str]) -> list[Status]:
    """How the sources stand, in their order; one that the warehouse has no writer for is left out."""
    names = {"sources": list(sources)}
    with conn.cursor(row_factory=dict_row) as cursor:
        standing = {row["source"]: row for row in cursor.execute(STANDING, names).fetchall()}
        freshness = {row["source"]: row for row in cursor.execute(FRESHNESS, names).fetchall()}
        synced = {row["source"]: _sync_row(row) for row in cursor.execute(LAST_SYNCS, names).fetchall()}
        progress = {row["source"]: row for row in cursor.execute(PROGRESS, names).fetchall()}
    found = [name for name in sources if name in standing]
    watched = findings.standing(conn, sources)
    return [
        _status(
            standing[name],
            freshness.get(name),
            synced.get(name),
            progress.get(name),
            tuple(finding for finding in watched if finding.source == name),
        )
        for name in found
    ]


def parts(conn: Connection, source: str) -> list[Part]:
    """What the source's scans have looked at, by entity; of the scopes the one scanned last comes first."""
    with conn.cursor(row_factory=class_row(Part)) as cursor:
        return cursor.execute(
            """
            SELECT entity, scope, count(*) AS scans, max(scanned_at) AS scanned_at
            FROM confidence.forensic_run WHERE source = %s
            GROUP BY entity, scope ORDER BY entity, max(scanned_at) DESC LIMIT %s
            """,
            [source, MAX_PAGE],
        ).fetchall()


def series(conn: Connection, source: str, entity: str, scope: str = "all", limit: int = POINTS) -> list[Series]:
    """Every figure of an entity, metrics and what else is judged, over its last scans of that scope, at most 365."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            """
            SELECT scanned_at, run, metrics, gates, decision FROM confidence.forensic_run
            WHERE source = %s AND entity = %s AND scope = %s ORDER BY scanned_at DESC LIMIT %s
            """,
            [source, entity, scope, _bounded(limit, MAX_POINTS)],
        ).fetchall()
    rows.reverse()
    judged = [(row, _gates(row)) for row in rows]
    metrics = dict.fromkeys(
        metric for row, gates in judged for metric in (*row["metrics"], *(gate.metric for gate in gates))
    )
    return [
        Series(entity, scope, metric, tuple(_point(row, gates, metric) for row, gates in judged)) for metric in metrics
    ]


def scans(
    conn: Connection,
    source: str,
    *,
    verdict: str | None = None,
    entity: str | None = None,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int = PAGE,
) -> Page[Scan]:
    """The source's scans, newest first; `since` when at the earliest. Raises CursorRefused."""
    wanted = [("source = %s", source)]
    wanted += [("verdict = %s", verdict)] if verdict else []
    wanted += [("entity = %s", entity)] if entity else []
    wanted += [("scanned_at >= %s", since)] if since else []
    if cursor:
        time, scan_id = _decoded(cursor, str, str)
        wanted.append(("(scanned_at, scan_id) < (%s, %s)", _time(time), scan_id))
    rows = _rows(conn, SCANS, wanted, "scanned_at DESC, scan_id DESC", limit)
    return _page([_scan(row) for row in rows], limit, lambda scan: [scan.scanned_at.isoformat(), scan.scan_id])


def latest(conn: Connection, source: str) -> list[Scan]:
    """The last scan of each entity and scope: what drifted, with examples. The first 200."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return [_scan(row) for row in cursor.execute(LATEST, {"source": source, "limit": MAX_PAGE}).fetchall()]


def sync_rows(
    conn: Connection,
    source: str,
    *,
    kind: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int = PAGE,
) -> Page[SyncRow]:
    """The source's sync log, newest first; `since` when it began at the earliest. Raises CursorRefused."""
    wanted = [("source = %s", source)]
    wanted += [("kind = %s", kind)] if kind else []
    wanted += [("state = %s", state)] if state else []
    wanted += [("started_at >= %s", since)] if since else []
    wanted += [("sync_id < %s", *_decoded(cursor, int))] if cursor else []
    rows = _rows(conn, SYNC_ROWS, wanted, "sync_id DESC", limit)
    return _page([_sync_row(row) for row in rows], limit, lambda row: [row.sync_id])


def sync_row(conn: Connection, source: str, sync_id: int) -> SyncRow | None:
    """One row of the source's sync log."""
    rows = _rows(conn, SYNC_ROWS, [("source = %s", source), ("sync_id = %s", sync_id)], "sync_id", 1)
    return _sync_row(rows[0]) if rows else None


def changes(conn: Connection, sync_id: int, *, cursor: str | None = None, limit: int = PAGE) -> Page[Change]:
    """The rows that a sync or repair has changed, newest first. Raises CursorRefused."""
    wanted = [("sync_id = %s", sync_id)]
    wanted += [("change_id < %s", *_decoded(cursor, int))] if cursor else []
    rows = _rows(conn, CHANGES, wanted, "change_id DESC", limit)
    return _page([_change(row) for row in rows], limit, lambda change: [change.change_id])


def unproven(conn: Connection, source: str, limit: int = MAX_PAGE) -> list[Unproven]:
    """The source's rows that no scan could prove, those that wait longest first."""
    return oldest(conn, source, _bounded(limit, MAX_PAGE))


def unproven_by_table(conn: Connection, sources: Sequence[str]) -> list[tuple[str, str, int, datetime]]:
    """Of each source and table how many rows no scan could prove, and since when the oldest waits."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(
            "SELECT source, entity, count(*), min(first_seen) FROM confidence.unproven WHERE source = ANY (%s)"
            " GROUP BY source, entity ORDER BY source, entity",
            [list(sources)],
        ).fetchall()


def run(conn: Connection, name: str) -> Run | None:
    """What the run `dag_id/run_id` left in the warehouse; None where that is nothing."""
    found = [_scan(row) for row in _rows(conn, SCANS, [("run = %s", name)], "scanned_at DESC, scan_id", MAX_PAGE)]
    syncs = [_sync_row(row) for row in _rows(conn, SYNC_ROWS, [("run = %s", name)], "sync_id DESC", MAX_PAGE)]
    if not (found or syncs):
        return None
    newest = list({(scan.entity, scan.scope): scan for scan in reversed(found)}.values())
    counted = [scan for scan in newest if scan.rows is not None]
    source = (found or syncs)[0].source
    return Run(
        run=name,
        source=source,
        verdict=worst(scan.verdict for scan in newest),
        scans=tuple(found),
        planned=Plan(*(sum(getattr(scan.plan, what) for scan in newest) for what in ("insert", "update", "delete"))),
        rows=sum(scan.rows for scan in counted) if counted else None,
        proven=sum(scan.proven for scan in counted) if counted else None,
        unproven=tuple(oldest(conn, source, MAX_PAGE, run=name)),
        applied=sum((row.counts for row in syncs if row.kind == "repair"), Counts()),
        syncs=tuple(syncs),
    )


def worst(verdicts: Any) -> Verdict | None:
    """The most serious of the verdicts, None where nothing was judged."""
    judged = [verdict for verdict in verdicts if verdict is not None]
    return max(judged, key=SEVERITY.__getitem__, default=None)


# Of the last judged run the verdict on each entity as it was scanned last.
STANDING = """
SELECT w.source, w.state, w.epoch, w.run, w.since, w.hold_reason, last.run AS judged_run, judged.verdicts,
  judged.scanned_at, judged.accounts, doubtful.unproven, doubtful.unproven_since,
  (SELECT looked_at FROM confidence.watch WHERE watch.source = w.source) AS watched_at
FROM confidence.writer w
LEFT JOIN LATERAL (
  SELECT f.run FROM confidence.forensic_run f WHERE f.source = w.source AND f.verdict IS NOT NULL
  ORDER BY f.scanned_at DESC, f.scan_id DESC LIMIT 1
) AS last ON true
LEFT JOIN LATERAL (
  SELECT array_agg(newest.verdict) AS verdicts, max(newest.scanned_at) AS scanned_at,
    jsonb_agg(newest.summary -> 'accounts') AS accounts
  FROM (
    SELECT DISTINCT ON (f.entity, f.scope) f.verdict, f.scanned_at, f.summary FROM confidence.forensic_run f
    WHERE f.run = last.run AND f.source = w.source AND f.verdict IS NOT NULL
    ORDER BY f.entity, f.scope, f.scanned_at DESC
  ) AS newest
) AS judged ON true
CROSS JOIN LATERAL (
  SELECT count(*) AS unproven, min(u.first_seen) AS unproven_since FROM confidence.unproven u
  WHERE u.source = w.source
) AS doubtful
WHERE w.source = ANY (%(sources)s)
"""

FRESHNESS = """
SELECT DISTINCT ON (source) source, entity, extract(epoch FROM freshness)::double precision AS seconds
FROM confidence.health WHERE source = ANY (%(sources)s) ORDER BY source, freshness DESC
"""

SYNC_COLUMNS = sql.SQL("""
  l.*, (SELECT max(later.sync_id) FROM confidence.sync_log later
        WHERE later.undoes = l.sync_id AND later.state = 'success') AS undone_by
""")

LAST_SYNCS = sql.SQL("""
SELECT {columns} FROM confidence.writer w CROSS JOIN LATERAL (
  SELECT * FROM confidence.sync_log WHERE source = w.source AND kind = 'sync' ORDER BY sync_id DESC LIMIT 1
) AS l WHERE w.source = ANY (%(sources)s)
""").format(columns=SYNC_COLUMNS)

# A pull is part of the scan under way only by its ticket, which names run and epoch: one that failed leaves its own.
PROGRESS = """
SELECT w.source, w.run,
  ARRAY(
    SELECT DISTINCT f.entity FROM confidence.forensic_run f
    WHERE f.run = w.run AND f.source = w.source AND f.epoch = w.epoch ORDER BY f.entity
  ) AS scanned,
  coalesce((
    SELECT jsonb_agg(jsonb_build_object('entity', p.entity, 'pages', p.pages, 'total_pages', p.total_pages,
      'rows_read', p.rows_read, 'started_at', p.started_at, 'updated_at', p.updated_at) ORDER BY p.entity)
    FROM staging.pull p
    WHERE p.source = w.source AND p.purpose = 'scan'
      AND starts_with(p.ticket, w.run || '/' || p.entity || '/' || w.epoch || '/')
  ), '[]') AS reading
FROM confidence.writer w WHERE w.source = ANY (%(sources)s) AND w.state = 'stopped'
"""

# From one entity and scope to the next along the index, instead of through all of the runs.
LATEST = """
WITH RECURSIVE part AS (
  (SELECT entity, scope FROM confidence.forensic_run WHERE source = %(source)s ORDER BY entity, scope LIMIT 1)
  UNION ALL
  SELECT next.entity, next.scope FROM part CROSS JOIN LATERAL (
    SELECT f.entity, f.scope FROM confidence.forensic_run f
    WHERE f.source = %(source)s AND (f.entity, f.scope) > (part.entity, part.scope)
    ORDER BY f.entity, f.scope LIMIT 1
  ) AS next
)
SELECT last.* FROM (SELECT * FROM part LIMIT %(limit)s) AS part CROSS JOIN LATERAL (
  SELECT * FROM confidence.forensic_run f
  WHERE f.source = %(source)s AND f.entity = part.entity AND f.scope = part.scope ORDER BY f.scanned_at DESC LIMIT 1
) AS last ORDER BY last.entity, last.scope
"""

SCANS = sql.SQL("SELECT * FROM confidence.forensic_run")
SYNC_ROWS = sql.SQL("SELECT {} FROM confidence.sync_log l").format(SYNC_COLUMNS)
CHANGES = sql.SQL("SELECT change_id, table_name, key, operation, before, after FROM confidence.change_log")


def _rows(
    conn: Connection, query: sql.Composable, wanted: Sequence[tuple], order: str, limit: int
) -> list[dict[str, Any]]:
    """One row more than the page has, which tells whether another page follows."""
    conditions = sql.SQL(" AND ").join(sql.SQL(condition) for condition, *_ in wanted)
    composed = sql.SQL("{} WHERE {} ORDER BY {} LIMIT %s").format(query, conditions, sql.SQL(order))
    values = [value for _, *given in wanted for value in given]
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(composed, [*values, _bounded(limit, MAX_PAGE) + 1]).fetchall()


def _page(items: list[Item], limit: int, place: Callable[[Item], list[Any]]) -> Page[Item]:
    limit = _bounded(limit, MAX_PAGE)
    shown = items[:limit]
    return Page(tuple(shown), _encoded(place(shown[-1])) if len(items) > limit else None)


def _bounded(limit: int, most: int) -> int:
    return max(1, min(limit, most))


def _encoded(place: list[Any]) -> str:
    return urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _decoded(cursor: str, *types: type) -> list[Any]:
    try:
        place = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise _refused(cursor) from None
    if not isinstance(place, list) or [type(value) for value in place] != list(types):
        raise _refused(cursor)
    # Neither a NUL nor half a surrogate pair can be asked for.
    if not all(value.isprintable() for value in place if isinstance(value, str)):
        raise _refused(cursor)
    return place


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise _refused(text) from None


def _refused(cursor: str) -> CursorRefused:
    return CursorRefused(f"cursor {cursor[:80]!r} is none of this list: take next_cursor of the page before as it is")


def _status(
    row: Mapping[str, Any],
    freshness: Mapping[str, Any] | None,
    synced: SyncRow | None,
    scanning: Any,
    watched: tuple[Standing, ...],
) -> Status:
    accounts = [Account(**account) for tables in row["accounts"] or [] for account in (tables or {}).values()]
    return Status(
        writer=Writer(*(row[name] for name in ("source", "state", "epoch", "run", "since", "hold_reason"))),
        verdict=worst(map(Verdict, row["verdicts"] or [])),
        judged_run=row["judged_run"],
        scanned_at=row["scanned_at"],
        rows=sum(account.rows for account in accounts) if accounts else None,
        proven=sum(account.proven for account in accounts) if accounts else None,
        unproven=row["unproven"],
        unproven_since=row["unproven_since"],
        freshness_seconds=freshness and freshness["seconds"],
        stalest=freshness and freshness["entity"],
        last_sync=synced,
        progress=scanning and _progress(scanning),
        findings=watched,
        watched_at=row["watched_at"],
    )


def _progress(row: Mapping[str, Any]) -> Progress:
    times = ("started_at", "updated_at")
    reading = [each | {name: datetime.fromisoformat(each[name]) for name in times} for each in row["reading"]]
    return Progress(row["run"], tuple(row["scanned"]), tuple(Reading(**each) for each in reading))


def _scan(row: Mapping[str, Any]) -> Scan:
    summary = row["summary"]
    accounts = {table: Account(**account) for table, account in summary.get("accounts", {}).items()}
    same = ("scan_id", "source", "entity", "scope", "run", "epoch", "scanned_at", "metrics")
    return Scan(
        **{name: row[name] for name in (*same, "decision", "decided_by", "decided_at")},
        verdict=_verdict(row["verdict"]),
        reasons=tuple(row["reasons"]),
        telemetry=summary["telemetry"],
        gates=_gates(row),
        plan=Plan(**summary["plan"]),
        live_rows=summary["live_rows"],
        rows=sum(account.rows for account in accounts.values()) if accounts else None,
        proven=sum(account.proven for account in accounts.values()) if accounts else None,
        accounts=accounts,
        incomplete=summary.get("incomplete", ""),
        examples=summary["examples"],
    )


def _gates(row: Mapping[str, Any]) -> tuple[Gate, ...]:
    return tuple(Gate(**gate | {"verdict": _verdict(gate["verdict"])}) for gate in row["gates"])


def _verdict(text: str | None) -> Verdict | None:
    return None if text is None else Verdict(text)


def _point(row: Mapping[str, Any], judged: Sequence[Gate], metric: str) -> Point:
    gates = [gate for gate in judged if gate.metric == metric]
    # What a repair would change is judged, but no metric.
    figures = {gate.metric: gate.value for gate in gates} | row["metrics"]
    return Point(
        scanned_at=row["scanned_at"],
        run=row["run"],
        value=figures.get(metric),
        baseline=next((gate.baseline for gate in gates if gate.baseline is not None), None),
        limit=min((gate.limit for gate in gates if gate.limit is not None), default=None),
        verdict=worst(gate.verdict for gate in gates),
        accepted=row["decision"] == "resume",
    )


def _sync_row(row: Mapping[str, Any]) -> SyncRow:
    same = ("sync_id", "source", "kind", "run", "state", "started_at", "finished_at", "requests", "request_errors")
    counted = ("read", "inserted", "updated", "deleted", "unchanged", "superseded", "failed")
    seconds = row["duration_seconds"]
    return SyncRow(
        **{name: row[name] for name in (*same, "undoes", "undone_by", "reason", "error")},
        duration_seconds=None if seconds is None else float(seconds),
        counts=Counts(**{name: row[f"rows_{name}"] for name in counted}),
        entities={entity: Counts(**counts) for entity, counts in row["entities"].items()},
    )


def _change(row: Mapping[str, Any]) -> Change:
    before, after = row["before"] or {}, row["after"] or {}
    columns = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return Change(
        change_id=row["change_id"],
        table=row["table_name"],
        key=row["key"],
        operation=row["operation"],
        differences=tuple(Difference(name, before.get(name), after.get(name)) for name in columns),
    )
