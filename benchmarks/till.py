"""Our own jobs on a simulated seller: sync and nightly scan. See `benchmarks.job` for how jobs are run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from benchmarks.night import stopped
from include.api.client import ApiClient
from include.sources import get_source
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities

SOURCE = get_source("square")
RUN = "bench/till"
WORKERS = 4


def sync(start: Callable[[], None], *, url: str, token: str, warehouse: str, full: bool) -> dict[str, int]:
    """Sync everything, or what changed; returns the rows read and written, and the requests sent."""
    with _context(url, token, warehouse) as context:
        start()
        _, counts = sync_entities(context, full=full)
        written = sum(n.inserted + n.updated + n.deleted for n in counts.values())
        read = sum(n.read for n in counts.values())
        return {"read": read, "written": written, "requests": context.client.requests_sent}


def scan(start: Callable[[], None], *, url: str, token: str, warehouse: str) -> dict[str, float]:
    """Scan every entity; returns the records scanned, changes planned, requests, and for how long the writer stood."""
    with _context(url, token, warehouse) as context:
        with stopped(start, context.conn, SOURCE.name, RUN) as stop:
            found = [scan_entity(context, entity, stop.epoch, Scope()) for entity in SOURCE.entities]
        return {
            "read": sum(summary.metrics["api_rows_scanned"] for summary in found),
            "planned": sum(sum(vars(summary.plan).values()) for summary in found),
            "requests": context.client.requests_sent,
            "stands": stop.seconds,
        }


@contextmanager
def _context(url: str, token: str, warehouse: str) -> Iterator[MirrorContext]:
    headers = SOURCE.authorize(token)
    with (
        psycopg.connect(warehouse, autocommit=True) as conn,
        ApiClient(SOURCE.name, url + SOURCE.base_path, headers=headers, connections=WORKERS) as client,
    ):
        yield MirrorContext(SOURCE, client, conn, RUN, WORKERS)
