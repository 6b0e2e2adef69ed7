"""The part about people's pages: how the sources stand, asked of a warehouse with years of nights; a long plan."""

from collections.abc import Callable, Iterator

import psycopg

from benchmarks.figures import Aim, Figure, Ratio, Section
from benchmarks.measure import BenchError, Measured, run
from benchmarks.world import warehouse
from include.confidence.queries.overview import read_statuses
from include.confidence.queries.paging import MAX_PAGE, PAGE
from include.confidence.queries.planned import PlanFilter, count_planned, list_planned
from include.confidence.queries.scans import list_scans
from stack.postgres import Postgres

Start = Callable[[], None]

ENTITIES = 7
# Syncs to each reconcile run.
SYNCS = 10
PAGE_SECONDS = 0.3
# Of a plan: what is asked for. Of 100,000 changes 1,000 have this parent.
PLAN_FILTERS = {
    "first page": {},
    "from the middle": {},
    "by key": {"key": "70000"},
    "by a column that differs": {"column": "price"},
    "by parent": {"column": "invoice_id", "value": "7"},
    "by a value that no row has": {"column": "name", "value": "none"},
}

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
PLAN = """
INSERT INTO confidence.planned_change (evidence, source, table_name, key, key_values, operation, status, looked, before,
  after, differs)
SELECT 'plan', 'repairshopr', 'line_items', jsonb_build_object('id', id), ARRAY[id::text],
  (ARRAY['insert', 'update', 'delete'])[1 + id %% 3], 'confirmed', true, row, row || '{"price": "9.99"}',
  CASE id %% 3 WHEN 1 THEN ARRAY['price'] ELSE ARRAY[]::text[] END
FROM generate_series(1, %(changes)s) AS id CROSS JOIN LATERAL (
  SELECT jsonb_build_object('id', id, 'invoice_id', id %% 100, 'price', '12.50', 'name', 'part ' || id, 'sync_id', 4)
    || (SELECT jsonb_object_agg('column_' || place, 'value ' || id) FROM generate_series(1, 15) AS place) AS row
) AS made
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


def planned(postgres: Postgres, changes: int) -> Section:
    """A plan of so many changes, page by page, and by each kind of filter."""
    with warehouse(postgres, "plan") as url:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(PLAN, {"changes": changes})
            conn.execute("VACUUM ANALYZE confidence.planned_change")
        took = {
            what: run(
                postgres, f"plan, {what}", "benchmarks.pages:plan_page", warehouse=url, chosen=what, changes=changes
            )
            for what in PLAN_FILTERS
        }
    note = f"{changes:,} planned changes of one table with 20 columns, {PAGE} a page."
    remarks = {"first page": "all that the page asks the warehouse for, and so below", "from the middle": "by cursor"}
    return Section("Plan", note, [_figure(what, took[what], remarks.get(what, "")) for what in took])


def _figure(what: str, took: Measured, remark: str) -> Figure:
    aim = Aim(f"< {PAGE_SECONDS} s", took.wall, at_most=PAGE_SECONDS)
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


def plan_page(start: Start, *, warehouse: str, chosen: str, changes: int) -> int:
    """A page of the plan, asked on a new connection; returns its items."""
    cursor = None
    with psycopg.connect(warehouse, autocommit=True) as conn:
        for _ in range(changes // 2 // MAX_PAGE if chosen == "from the middle" else 0):
            cursor = list_planned(conn, "plan", PlanFilter(), cursor=cursor, limit=MAX_PAGE).next_cursor
    start()
    with psycopg.connect(warehouse, autocommit=True) as conn:
        count_planned(conn, "plan")
        return len(list_planned(conn, "plan", PlanFilter(**PLAN_FILTERS[chosen]), cursor=cursor).items)
