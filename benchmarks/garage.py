"""Our own jobs on a simulated repair shop: sync, and a day's metrics. See `benchmarks.job` for how jobs are run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.night import stopped
from include.api.client import ApiClient
from include.sources import get_source
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.derive import derive
from include.warehouse import sync_log

SOURCE = get_source("tekmetric")
RUN = "bench/garage"
ORDERS = "repair_orders"
PARAMS = {"shop_id": None, "board": "ALL", "limit": 0, "ro_id": None, "store_raw": False}
# Of all shops and days.
HISTORY = {"shop_id": None, "days_back": 0, "progress_every": 1}
# Every order is completed and posted today.
TODAY = "posted_date = current_date, completed_date = current_date"
CHANGE = "authorized_revenue = authorized_revenue + 100"


def sync(start: Callable[[], None], *, mode: str, days_back: int, **where: Any) -> dict[str, int]:
    """Sync, and return the orders read whole and the requests sent. `where`: the arguments of `_context`."""
    with _context(**where) as context:
        start()
        synced = SOURCE.sync(context, {**PARAMS, "mode": mode, "days_back": days_back}, dry_run=False)
        return {"orders": synced.counts[ORDERS].read, "requests": context.client.requests_sent}


def scan(start: Callable[[], None], **where: Any) -> dict[str, float]:
    """Scan all days, and return the orders compared, the changes planned, the requests, and the writer's stop in
    seconds. `where`: the arguments of `_context`."""
    with _context(**where) as context:
        with stopped(start, context.conn, SOURCE.name, RUN) as stop:
            found = [SOURCE.scan(context, entity.name, stop.epoch, HISTORY) for entity in SOURCE.entities]
        return {
            "orders": next(each.accounts[ORDERS].compared for each in found if each.entity == ORDERS),
            "planned": sum(sum(vars(each.plan).values()) for each in found),
            "requests": context.client.requests_sent,
            "stands": stop.seconds,
        }


def rebuild(start: Callable[[], None], *, warehouse: str, changed: int) -> dict[str, int]:
    """Put all orders on one day and let that many change; then bring snapshots and metrics in line.

    Returns the orders of the day, and the snapshots that were written.
    """
    with psycopg.connect(warehouse, autocommit=True) as conn:
        context = MirrorContext(SOURCE, None, conn, RUN)
        derive(context, _write(conn, TODAY))
        conn.execute("ANALYZE")
        sync_id = _write(conn, CHANGE, changed)
        start()
        with conn.transaction():
            counts = derive(context, sync_id)
        orders = "SELECT sum(ro_count)::bigint FROM tekmetric.daily_shop_metrics WHERE deleted_at IS NULL"
        return {"orders": conn.execute(orders).fetchone()[0], "snapshots": counts["ro_snapshots"].updated}


@contextmanager
def _context(
    url: str, token: str, warehouse: str, shops: Sequence[Mapping[str, Any]], workers: int
) -> Iterator[MirrorContext]:
    """Open the source. `workers`: how many requests are sent at once."""
    headers = SOURCE.authorize(token)
    with (
        psycopg.connect(warehouse, autocommit=True) as conn,
        ApiClient(SOURCE.name, url + SOURCE.base_path, headers=headers, connections=workers) as client,
    ):
        yield MirrorContext(SOURCE, client, conn, RUN, workers, settings={"shops": shops})


def _write(conn: psycopg.Connection, assignments: str, number: int | None = None) -> int:
    """Write so many orders, or all, as a sync would; returns its id."""
    sync_id = sync_log.begin(conn, SOURCE.name, "sync", RUN)
    conn.execute(
        sql.SQL(
            "UPDATE tekmetric.repair_orders SET sync_id = {}, {} WHERE (shop_id, tm_id) IN"
            " (SELECT shop_id, tm_id FROM tekmetric.repair_orders ORDER BY tm_id LIMIT {})"
        ).format(sync_id, sql.SQL(assignments), number)
    )
    sync_log.finish(conn, sync_id, {})
    return sync_id
