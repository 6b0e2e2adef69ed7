"""Read how the sources are now, for the overview."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row, scalar_row

from include.confidence import findings
from include.confidence.account import Account
from include.confidence.findings import OpenFinding
from include.confidence.policy import Verdict, worst_verdict
from include.confidence.queries.nights import Night, read_nights
from include.confidence.queries.syncs import SYNC_COLUMNS, SyncRow, sync_row_of
from include.confidence.watch import Code
from include.warehouse.fence import Writer

# How many of the last nights a source is shown with.
NIGHTS = 30


@dataclass(frozen=True)
class Reading:
    """An entity that is being scanned. `total_pages`: what the source says. `updated_at`: when the last page came."""

    entity: str
    pages: int
    total_pages: int | None
    rows_read: int
    started_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Progress:
    """The scans of the run that stopped the writer: entities that are scanned, and those that are being read."""

    run: str
    scanned: tuple[str, ...]
    reading: tuple[Reading, ...]


@dataclass(frozen=True)
class Status:
    """How a source is now; None means that it is not known yet.

    - `judged_run`: the last run that was judged; `verdict`: its worst verdict; `scanned_at`: when it scanned
    - `rows`: rows in scope of that run; `proven`: how many of them it has proven
    - `parts`: by entity, the scope of that run where it has not looked at the whole entity
    - `unproven`: how many rows are unproven; `unproven_since`: when the oldest of them was first seen
    - `freshness_seconds`: how far the table `stalest` is behind its source; no other table is further behind
    - `progress`: of the scans; None while the writer runs
    - `findings`: of the watch, which looked last at `watched_at`
    - `nights`: the last 30 days, oldest first
    """

    writer: Writer
    verdict: Verdict | None
    judged_run: str | None
    scanned_at: datetime | None
    decision: str | None
    decided_by: str | None
    rows: int | None
    proven: int | None
    parts: Mapping[str, str]
    unproven: int
    unproven_since: datetime | None
    freshness_seconds: float | None
    stalest: str | None
    last_sync: SyncRow | None
    progress: Progress | None
    findings: tuple[OpenFinding, ...]
    watched_at: datetime | None
    nights: tuple[Night, ...]

    @property
    def configured(self) -> bool:
        """Whether Airflow has all connections of the source, as far as the watch has seen."""
        return all(finding.code != Code.NOT_CONFIGURED for finding in self.findings)


def read_statuses(conn: Connection, sources: Sequence[str]) -> list[Status]:
    """Return how the sources are now, in their order. A source without a row of the fence is left out."""
    params = {"sources": list(sources)}
    with conn.cursor(row_factory=dict_row) as cursor:
        standing = {row["source"]: row for row in cursor.execute(STANDING, params).fetchall()}
        freshness = {row["source"]: row for row in cursor.execute(FRESHNESS, params).fetchall()}
        synced = {row["source"]: sync_row_of(row) for row in cursor.execute(LAST_SYNCS, params).fetchall()}
        progress = {row["source"]: row for row in cursor.execute(PROGRESS, params).fetchall()}
    nights = read_nights(conn, sources, datetime.now(UTC).date() - timedelta(days=NIGHTS - 1))
    found = [name for name in sources if name in standing]
    watched = findings.open_findings(conn, sources)
    return [
        _status(
            standing[name],
            freshness.get(name),
            synced.get(name),
            progress.get(name),
            tuple(finding for finding in watched if finding.source == name),
            nights[name],
        )
        for name in found
    ]


def with_data(conn: Connection, sources: Sequence[str]) -> tuple[str, ...]:
    """Return those of the sources that were ever synced or scanned, as the warehouse has it."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        return tuple(cursor.execute(WITH_DATA, [list(sources)]).fetchall())


def _status(
    row: Mapping[str, Any],
    freshness: Mapping[str, Any] | None,
    last_sync: SyncRow | None,
    progress: Mapping[str, Any] | None,
    found: tuple[OpenFinding, ...],
    nights: tuple[Night, ...],
) -> Status:
    accounts = [Account(**account) for tables in row["accounts"] or [] for account in (tables or {}).values()]
    return Status(
        writer=Writer(*(row[name] for name in ("source", "state", "epoch", "run", "since", "hold_reason"))),
        verdict=worst_verdict(map(Verdict, row["verdicts"] or [])),
        judged_run=row["judged_run"],
        scanned_at=row["scanned_at"],
        decision=row["decision"],
        decided_by=row["decided_by"],
        rows=sum(account.rows for account in accounts) if accounts else None,
        proven=sum(account.proven for account in accounts) if accounts else None,
        parts=row["parts"] or {},
        unproven=row["unproven"],
        unproven_since=row["unproven_since"],
        freshness_seconds=freshness and freshness["seconds"],
        stalest=freshness and freshness["entity"],
        last_sync=last_sync,
        progress=progress and _progress(progress),
        findings=found,
        watched_at=row["watched_at"],
        nights=nights,
    )


def _progress(row: Mapping[str, Any]) -> Progress:
    times = ("started_at", "updated_at")
    reading = [each | {name: datetime.fromisoformat(each[name]) for name in times} for each in row["reading"]]
    return Progress(row["run"], tuple(row["scanned"]), tuple(Reading(**each) for each in reading))


# The verdicts are those of the last judged run, on its newest scan of each entity and scope.
STANDING = """
SELECT w.source, w.state, w.epoch, w.run, w.since, w.hold_reason, last.run AS judged_run, judged.verdicts,
  judged.scanned_at, judged.accounts, judged.parts, judged.decision, judged.decided_by,
  doubtful.unproven, doubtful.unproven_since,
  (SELECT looked_at FROM confidence.watch WHERE watch.source = w.source) AS watched_at
FROM confidence.writer w
LEFT JOIN LATERAL (
  SELECT f.run FROM confidence.forensic_run f WHERE f.source = w.source AND f.verdict IS NOT NULL
  ORDER BY f.scanned_at DESC, f.scan_id DESC LIMIT 1
) AS last ON true
LEFT JOIN LATERAL (
  SELECT array_agg(newest.verdict) AS verdicts, max(newest.scanned_at) AS scanned_at,
    jsonb_agg(newest.summary -> 'accounts') AS accounts,
    jsonb_object_agg(newest.entity, newest.scope) FILTER (WHERE newest.scope <> 'all') AS parts,
    (array_agg(newest.decision ORDER BY newest.decided_at DESC NULLS LAST))[1] AS decision,
    (array_agg(newest.decided_by ORDER BY newest.decided_at DESC NULLS LAST))[1] AS decided_by
  FROM (
    SELECT DISTINCT ON (f.entity, f.scope) f.* FROM confidence.forensic_run f
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


WITH_DATA = """
SELECT source FROM unnest(%s::text[]) WITH ORDINALITY AS named (source, place)
WHERE EXISTS (SELECT FROM confidence.sync_log l WHERE l.source = named.source)
  OR EXISTS (SELECT FROM confidence.forensic_run f WHERE f.source = named.source)
ORDER BY place
"""


FRESHNESS = """
SELECT DISTINCT ON (source) source, entity, extract(epoch FROM freshness)::double precision AS seconds
FROM confidence.health WHERE source = ANY (%(sources)s) ORDER BY source, freshness DESC
"""


LAST_SYNCS = sql.SQL("""
SELECT {columns} FROM confidence.writer w CROSS JOIN LATERAL (
  SELECT * FROM confidence.sync_log WHERE source = w.source AND kind = 'sync' ORDER BY sync_id DESC LIMIT 1
) AS l WHERE w.source = ANY (%(sources)s)
""").format(columns=SYNC_COLUMNS)


# A pull belongs to the scan under way if its ticket names the run and the epoch. An earlier scan that failed leaves its
# pull behind.
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
