"""The part about people's pages: how the sources stand, asked of a warehouse with years of nights."""

from collections.abc import Callable, Iterator

import psycopg

from benchmarks.figures import Aim, Figure, Ratio, Section
from benchmarks.measure import BenchError, Measured, run
from benchmarks.world import warehouse
from include.confidence.queries.overview import read_statuses
from include.confidence.queries.paging import MAX_PAGE
from include.confidence.queries.scans import list_scans
from stack.postgres import Postgres

Start = Callable[[], None]

ENTITIES = 7
# Syncs to each reconcile run.
SYNCS = 10
OVERVIEW_SECONDS = 0.3

NIGHTS = """
INSERT INTO confidence.forensic_run (scan_id, source, entity, scope, run, epoch, scanned_at, summary, metrics, verdict,
  gates)
SELECT format('%%s/%%s/%%s', w.source, night, entity), w.source, 'entity_' || entity, 'all',
  format('%%s_reconcile/%%s', w.source, night), night, now() - night * interval '1 day' + entity * interval '1 minute',
  jsonb_build_object('plan', '{"insert": 1, "update": 2, "delete": 0}'::jsonb, 'telemetry', '{}'::jsonb,
    'live_rows', 1000, 'examples', jsonb_build_object('missing_examples', figures.ids)),
  figures.metrics, CASE night %% 20 WHEN 0 THEN 'warn' ELSE 'pass' END, figures.gates
FROM confidence.writer w CROSS JOIN generate_series(1, %(nights)s) AS night CROSS JOIN generate_series(1, 7) AS entity
CROSS JOIN (
  SELECT jsonb_agg(1000000 + id) AS ids, jsonb_object_agg('metric_' || id, id) FILTER (WHERE id <= 14) AS metrics,
    jsonb_agg(jsonb_build_object('metric', 'metric_' || id, 'baseline', id, 'limit', id + 25, 'value', id,
      'verdict', 'pass', 'reason', NULL)) FILTER (WHERE id <= 6) AS gates
  FROM generate_series(1, 25) AS id
) AS figures
"""
LOG = """
INSERT INTO confidence.sync_log (source, kind, run, state, started_at, finished_at, rows_read, entities)
SELECT w.source, 'sync', format('%%s_sync/scheduled__%%s', w.source, sync), 'success',
  now() - (%(syncs)s - sync) * interval '15 minutes', now() - (%(syncs)s - sync) * interval '15 minutes', 100,
  (SELECT jsonb_object_agg('entity_' || entity, '{"read": 9, "inserted": 1, "updated": 1, "deleted": 0}'::jsonb)
   FROM generate_series(1, 7) AS entity)
FROM generate_series(1, %(syncs)s) AS sync CROSS JOIN confidence.writer w
"""
STATES = """
INSERT INTO confidence.sync_state (source, entity, watermark, sync_id)
SELECT l.source, 'entity_' || entity, now() - entity * interval '1 minute', max(l.sync_id)
FROM confidence.sync_log l CROSS JOIN generate_series(1, 7) AS entity GROUP BY l.source, entity
"""
# The last verdicts as they are asked for without an index of the runs: the newest of each part among all scans.
PLAIN = """
SELECT source, max(verdict) FILTER (WHERE run = last_run)
FROM (
  SELECT DISTINCT ON (source, entity, scope) source, verdict, run,
    first_value(run) OVER (PARTITION BY source ORDER BY scanned_at DESC) AS last_run
  FROM confidence.forensic_run WHERE verdict IS NOT NULL ORDER BY source, entity, scope, scanned_at DESC
) AS newest GROUP BY source
"""


def standing(postgres: Postgres, runs: int, *, peers: bool = True) -> Section:
    """The overview of five sources, with `peers` beside a plain aggregate over all of their scans."""
    with warehouse(postgres, "pages") as url:
        sources = _fill(url, runs)
        ours = run(postgres, "overview", "benchmarks.pages:overview", warehouse=url)
        plain = _aggregate(postgres, url) if peers else None
        page = run(postgres, "page of scans from the middle", "benchmarks.pages:deep_page", warehouse=url)
    for took in filter(None, (ours, plain)):
        if took.result != sources:
            raise BenchError(f"overview: {took.result} sources were answered for, not {sources}")
    figures = [
        _figure("overview (ours)", ours, "all that the page asks the warehouse for"),
        *_peer(plain, ours),
        _figure("50 scans from the middle", page, "by cursor"),
    ]
    note = f"{sources} sources, {runs:,} recorded runs of {ENTITIES} scans each, {runs * SYNCS:,} syncs."
    return Section("Overview", note, figures)


def _figure(what: str, took: Measured, remark: str) -> Figure:
    aim = Aim(f"< {OVERVIEW_SECONDS} s", took.wall, at_most=OVERVIEW_SECONDS)
    return Figure(what, took, aim=aim, remark=remark)


def _aggregate(postgres: Postgres, url: str) -> Measured:
    return run(postgres, "last verdicts, plain aggregate", "benchmarks.pages:aggregate", warehouse=url)


def _peer(plain: Measured | None, ours: Measured) -> Iterator[Figure]:
    if plain:
        ratio = Ratio("{:.1f} x our time", (plain.wall / ours.wall,))
        yield Figure("last verdicts, plain aggregate", plain, ratio=ratio, remark="the verdicts alone", peer=True)


def _fill(url: str, runs: int) -> int:
    """Spread the runs over the sources; returns how many these are."""
    with psycopg.connect(url, autocommit=True) as conn:
        sources = len(_sources(conn))
        nights = runs // sources
        conn.execute(NIGHTS, {"nights": nights})
        conn.execute(LOG, {"syncs": nights * SYNCS})
        conn.execute(STATES)
        conn.execute("VACUUM ANALYZE confidence.forensic_run, confidence.sync_log, confidence.sync_state")
    return sources


def _sources(conn: psycopg.Connection) -> list[str]:
    return [source for (source,) in conn.execute("SELECT source FROM confidence.writer ORDER BY source").fetchall()]


def overview(start: Start, *, warehouse: str) -> int:
    """How all sources stand, asked on a new connection; returns how many have a verdict."""
    with psycopg.connect(warehouse, autocommit=True) as conn:
        sources = _sources(conn)
    start()
    with psycopg.connect(warehouse, autocommit=True) as conn:
        return sum(status.verdict is not None for status in read_statuses(conn, sources))


def aggregate(start: Start, *, warehouse: str) -> int:
    """The last verdicts by a plain aggregate; returns how many there are."""
    start()
    with psycopg.connect(warehouse, autocommit=True) as conn:
        return sum(verdict is not None for _, verdict in conn.execute(PLAIN).fetchall())


def deep_page(start: Start, *, warehouse: str) -> int:
    """A page of one source's scans from their middle; returns its items."""
    with psycopg.connect(warehouse, autocommit=True) as conn:
        source, asked = _sources(conn)[0], {}
        query = "SELECT count(*) / 2 FROM confidence.forensic_run WHERE source = %s"
        half = conn.execute(query, [source]).fetchone()[0]
        for _ in range(half // MAX_PAGE):
            asked = {"cursor": list_scans(conn, source, limit=MAX_PAGE, **asked).next_cursor}
        start()
        return len(list_scans(conn, source, **asked).items)
