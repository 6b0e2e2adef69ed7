"""Manual snapshots of an order in any state."""

import logging
from datetime import datetime

from psycopg import Connection

from include.sources.base import Synced, SyncFailed
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.derive import derive
from include.sources.tekmetric.derived import SNAPSHOTS, by_hand
from include.sources.tekmetric.shops import Shop, shops_of
from include.warehouse import compare, fence, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.staging import Stage
from include.warehouse.sync_log import Counts

log = logging.getLogger(__name__)


def snapshot(context: MirrorContext) -> Synced:
    """Store a snapshot of the order `ro_id` on the shop's present day, and update the tables computed from snapshots.

    A deleted order gets no snapshot, which is no failure; its earlier snapshots stay. Raises SyncFailed if the params
    name no order of one shop, or if the copy has no such order.
    """
    conn, name, ro_id = context.conn, context.source.name, context.params.get("ro_id")
    shop, *others = shops_of(context).values()
    if not ro_id or others:
        raise SyncFailed("a snapshot is of one order of one shop: trigger a new run with ro_id and shop_id")
    deleted = _deleted(conn, shop, ro_id)
    if deleted is None:
        raise SyncFailed(f"order {ro_id} of shop {shop.tm_id} is not in the copy: sync it first, by its ro_id")
    if deleted:
        told = f"order {ro_id} of shop {shop.tm_id} is deleted at Tekmetric, so there is nothing to keep"
        log.info(told)
        return Synced(None, {}, {"snapshot": told})
    stage = Stage.open(conn, SNAPSHOTS.table, name, "snapshot", context.run)
    stage.fill(by_hand(shop.tm_id, ro_id, datetime.now(shop.zone).date()))
    compare.plan_writes(stage)
    writer = fence.read(conn, name)
    with fence.writing(conn, name, epoch=writer.epoch):
        stage.claim()
        sync_id = sync_log.begin(conn, name, "sync", context.run, reason="snapshot")
        counts = {SNAPSHOTS.table.name: Counts.of(apply_plan(conn, SNAPSHOTS.table, stage.plan, sync_id))}
        counts = derive(context, sync_id) | counts
    sync_log.finish(conn, sync_id, counts)
    stage.drop()
    return Synced(sync_id, counts)


def _deleted(conn: Connection, shop: Shop, ro_id: int) -> bool | None:
    """Return whether the order is deleted, None if the copy has no such order."""
    query = "SELECT deleted_at IS NOT NULL FROM tekmetric.repair_orders WHERE shop_id = %s AND tm_id = %s"
    found = conn.execute(query, [shop.tm_id, ro_id]).fetchone()
    return found and found[0]
