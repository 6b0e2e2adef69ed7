"""Tekmetric as a mirror, with shops, manual snapshots, and answers that are kept for a limited time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from include.api.request import Answer, Request
from include.sources.base import ScanRefused, Synced, SyncFailed
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.scope import Scope
from include.sources.mirror.source import Mirror
from include.sources.mirror.sync import sync_entities
from include.sources.tekmetric.shops import configure, shops_of
from include.sources.tekmetric.snapshot import snapshot
from include.warehouse.sync_log import Counts

# JSON as text keeps characters that a row may not have.
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True)
class Tekmetric(Mirror):
    """A mirror that can also sync one order only, take a snapshot of it, and keep the vendor's answers."""

    def sync(self, context: MirrorContext, params: Mapping[str, Any], *, dry_run: bool) -> Synced:
        if params["mode"] == "full":
            params = {**params, "days_back": 0}
        context = replace(context, params=params)
        configure(context)
        if params.get("store_raw"):
            context = replace(context, on_answer=lambda *answer: keep(context, *answer))
        if params["mode"] == "snapshot":
            return snapshot(context)
        if params.get("ro_id"):
            shops = shops_of(context)
            if len(shops) > 1:
                raise ScanRefused(f"ro_id needs shop_id too, one of {', '.join(map(str, shops))}")
            synced = Synced(*sync_entities(context, only="repair_orders"))
            _require_found(synced.counts["repair_orders"], params["ro_id"], *shops)
            return synced
        return super().sync(context, params, dry_run=dry_run)

    def scope(self, entity: str, params: Mapping[str, Any]) -> Scope:
        filters = [f"shop {params['shop_id']}"] if params.get("shop_id") else []
        if entity == "repair_orders" and params["days_back"]:
            filters.append(f"{params['days_back']} days back")
        return replace(super().scope(entity, params), filtered=", ".join(filters))


def _require_found(counts: Counts, ro_id: int, shop_id: int) -> None:
    """Raise SyncFailed unless the sync of one order has found it. It may be deleted."""
    if not (counts.read or counts.deleted):
        raise SyncFailed(
            f"order {ro_id} of shop {shop_id} was not found, so nothing was written. Check ro_id and shop_id. If the"
            " order was deleted, the nightly scan proves that and takes it out of the copy"
        )


def keep(context: MirrorContext, values: tuple, request: Request, answer: Answer) -> None:
    """Store an answer in tm_raw_payloads until it expires. `values`: the ids of shop and order."""
    shop_id, tm_id = values
    context.conn.execute(
        "INSERT INTO tekmetric.tm_raw_payloads (shop_id, endpoint, tm_entity_id, payload, run)"
        " VALUES (%s, %s, %s, %s, %s)",
        [shop_id, str(request), tm_id, _encode(answer.data).decode(), context.run],
    )
