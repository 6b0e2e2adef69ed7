"""The shops. The connection's extra names them, since the vendor has no list of them."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from psycopg import Connection

from include.api.errors import FixConfiguration
from include.api.request import Request
from include.sources.base import ScanRefused
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.listing import Partitions
from include.sources.tekmetric import tables, values
from include.warehouse import compare, fence, sync_log
from include.warehouse.merge import apply_plan
from include.warehouse.staging import Stage
from include.warehouse.sync_log import Counts

log = logging.getLogger(__name__)

EXAMPLE = '{"shops": [{"tm_id": 6212, "name": "...", "timezone": "America/New_York"}]}'


@dataclass(frozen=True)
class Shop:
    """A shop: the vendor's id, its name, and the time zone of its days."""

    tm_id: Annotated[int, msgspec.Meta(gt=0)]
    name: str
    timezone: str

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


SHOPS = Annotated[list[Shop], msgspec.Meta(min_length=1)]


def shops_of(context: MirrorContext) -> Mapping[int, Shop]:
    """Return the connection's shops by id; if the run names one of them, only that.

    Raises FixConfiguration if the connection names none that is usable, ScanRefused if the run names another shop.
    """
    try:
        shops = msgspec.convert(context.settings.get("shops"), SHOPS)
        known = {shop.tm_id: shop for shop in shops if values.zone(shop.timezone)}
    except ValueError as error:
        raise FixConfiguration(
            f"connection 'tekmetric' names no usable shops ({error}): its extra has to be like {EXAMPLE}"
        ) from None
    wanted = context.params.get("shop_id")
    if wanted and wanted not in known:
        raise ScanRefused(f"shop {wanted} is not among those of the connection ({', '.join(map(str, known))})")
    return {wanted: known[wanted]} if wanted else known


def partitions(request: Callable[[Request, str], Request]) -> Partitions:
    """Return the partitions of an entity: one for each shop. `request(listing, shop_id)` returns a shop's list."""
    return Partitions(
        values=lambda context: [str(tm_id) for tm_id in sorted(shops_of(context))],
        request=lambda listing, shop_ids: request(listing, shop_ids[0]),
        column="shop_id",
        adds=True,
    )


def configure(context: MirrorContext) -> None:
    """Bring the table of shops in step with the connection, under a sync_id of its own.

    The rows of a shop that the connection no longer names are kept, but its watermarks are deleted.
    """
    conn, source = context.conn, context.source.name
    shops = shops_of(replace(context, params={}))
    stage = Stage.open(conn, tables.SHOPS, source, "configure", context.run)
    stage.append([asdict(shop) for shop in shops.values()], next_position=None, page_info={})
    compare.plan_writes(stage)
    left_out = _left_out(conn, source, shops)
    if compare.plan_counts(stage) or left_out:
        writer = fence.read(conn, source)
        with fence.writing(conn, source, epoch=writer.epoch):
            stage.claim()
            sync_id = sync_log.begin(conn, source, "sync", context.run, reason="shops of the connection")
            counts = {tables.SHOPS.name: Counts.of(apply_plan(conn, tables.SHOPS, stage.plan, sync_id))}
            sync_log.forget(conn, sync_id, source, left_out)
        sync_log.finish(conn, sync_id, counts)
        log.info("shops: %s", counts)
    stage.drop()


def _left_out(conn: Connection, source: str, shops: Collection[int]) -> list[tuple[str, str]]:
    """Return (entity, partition) of each sync_state of a shop that the connection no longer names."""
    query = (
        "SELECT entity, partition FROM confidence.sync_state"
        " WHERE source = %s AND partition <> '' AND NOT partition = ANY (%s) ORDER BY 1, 2"
    )
    return conn.execute(query, [source, [str(tm_id) for tm_id in shops]]).fetchall()
