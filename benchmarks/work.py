"""Our own jobs: scan, load, comparison. See `benchmarks.job` for how they are run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

import psycopg
from psycopg import sql

from benchmarks.night import stopped
from include.api.client import ApiClient
from include.api.limits import NoLimit
from include.sources import get_source
from include.sources.base import entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from include.warehouse import compare, fence
from include.warehouse.rate_limit import SharedLimit
from include.warehouse.staging import Stage

Start = Callable[[], None]

SOURCE = get_source("repairshopr")
LINES = entity_of(SOURCE, "line_items")
TICKET = "comparison"
WORKERS = 4


def scan(start: Start, *, url: str, token: str, warehouse: str, run: str) -> dict[str, float | None]:
    """Scan the line items as `run`; returns the metrics, the requests, and for how long the writer stood."""
    with context_of(url, token, warehouse, run, limited=False) as context:
        with stopped(start, context.conn, SOURCE.name, run) as stop:
            metrics = scan_entity(context, LINES, stop.epoch, Scope()).metrics
        return {**metrics, "requests": context.client.requests_sent, "stands": stop.seconds}


def scan_at_limit(start: Start, *, url: str, token: str, warehouse: str, entity: str) -> None:
    """Scan an entity at the vendor's limit."""
    run = "bench/limit"
    with context_of(url, token, warehouse, run, limited=True) as context:
        writer = fence.stop(context.conn, SOURCE.name, run, timeout=10)
        start()
        scan_entity(context, entity_of(SOURCE, entity), writer.epoch, Scope())


def load(start: Start, *, url: str, token: str, warehouse: str) -> int:
    """Bring all line items into an empty warehouse by a full sync; returns the rows inserted."""
    with context_of(url, token, warehouse, "bench/load", limited=False) as context:
        start()
        _, counts = sync_entities(context, full=True, only=LINES.name)
        return counts[LINES.name].inserted


def differences(start: Start, *, warehouse: str) -> dict[str, int]:
    """Compare the staged rows with the copy; returns the rows planned by operation, and the repeats dropped."""
    with psycopg.connect(warehouse, autocommit=True) as conn:
        stage = open_stage(conn)
        start()
        with conn.transaction():
            conn.execute(sql.SQL("ANALYZE {}").format(stage.sql))
            repeats = compare.drop_repeats(stage)
            compare.plan_writes(stage)
            compare.plan_deletes(stage, status="confirmed")
        counts = {operation: count for (operation, _), count in compare.plan_counts(stage).items()}
        return counts | {"repeats": asdict(repeats)["identical"]}


def open_stage(conn: psycopg.Connection) -> Stage:
    """The staged line items of the comparison."""
    return Stage.open(conn, LINES.table, SOURCE.name, "scan", TICKET)


@contextmanager
def context_of(url: str, token: str, warehouse: str, run: str, limited: bool) -> Iterator[MirrorContext]:
    """The context of a run. `limited`: at the vendor's limit."""
    with ExitStack() as stack:
        conn, limit_conn = (stack.enter_context(psycopg.connect(warehouse, autocommit=True)) for _ in range(2))
        limiter = SharedLimit(limit_conn, SOURCE.name, SOURCE.per_minute) if limited else NoLimit()
        headers = SOURCE.authorize(token)
        client = ApiClient(SOURCE.name, url + SOURCE.base_path, headers=headers, limiter=limiter, connections=WORKERS)
        yield MirrorContext(SOURCE, stack.enter_context(client), conn, run, WORKERS)
