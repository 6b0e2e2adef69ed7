"""Tekmetric as a mirror: its shops, the answers that are kept for a while, and snapshots by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from include.api.client import Answer, Request
from include.sources.base import ScanRefused, Synced
from include.sources.mirror.entity import Context
from include.sources.mirror.scan import Scope
from include.sources.mirror.source import Mirror
from include.sources.mirror.sync import sync_entities
from include.sources.tekmetric.shops import configure, shops_of
from include.sources.tekmetric.snapshot import snapshot
from include.warehouse import sync_log

# As it came, with characters that a row may not have.
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True)
class Tekmetric(Mirror):
    """A mirror whose run may ask for one order alone, or to keep what the vendor answered.

    `log_days`: for how long the log of syncs and the audit are kept.
    """

    log_days: int = 30

    def sync(self, context: Context, params: Mapping[str, Any], *, dry_run: bool) -> Synced:
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
                raise ScanRefused(f"ro_id wants shop_id beside it, which is one of {', '.join(map(str, shops))}")
            return Synced(*sync_entities(context, only="repair_orders"))
        return super().sync(context, params, dry_run=dry_run)

    def scope(self, entity: str, params: Mapping[str, Any]) -> Scope:
        filters = [f"shop {params['shop_id']}"] if params.get("shop_id") else []
        if entity == "repair_orders" and params["days_back"]:
            filters.append(f"{params['days_back']} days back")
        return replace(super().scope(entity, params), filtered=", ".join(filters))

    def clean_up(self, context: Context) -> Mapping[str, int]:
        """Drop the answers that have expired, and the log that is old enough. Returns how many rows, of each."""
        answers = context.conn.execute("DELETE FROM tekmetric.tm_raw_payloads WHERE expires_at <= now()").rowcount
        return {"raw_payloads": answers, "syncs": sync_log.expire(context.conn, self.name, self.log_days)}


def keep(context: Context, values: tuple, request: Request, answer: Answer) -> None:
    """Keep an answer until it expires, to look things up in."""
    shop_id, tm_id = values
    context.conn.execute(
        "INSERT INTO tekmetric.tm_raw_payloads (shop_id, endpoint, tm_entity_id, payload, run)"
        " VALUES (%s, %s, %s, %s, %s)",
        [shop_id, str(request), tm_id, _encode(answer.data).decode(), context.run],
    )
