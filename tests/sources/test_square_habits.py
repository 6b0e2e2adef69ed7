"""Habits of Square that its description leaves open, and that the simulator guesses otherwise."""
from contextlib import suppress
from dataclasses import replace

import pytest

from include.api.errors import NotFound, FixConfiguration
from include.simulators.square import Fault, Mutation
from include.sources.base import SyncFailed
from include.sources.mirror.sync import sync_entities
from include.sources.square import SOURCE

from .square import contents, rows, selling
from .test_square_evidence import *
from .test_square_evidence import NOTHING, plan, scanned, doubts, CATEGORIES
from .twisted import always, once, twisted


def test_tombstone_batch_omits(seller, conn):
    seller.control.set(deleted_object="not_found")
    gone = seller.control.ids("categories")[0]
    seller.control.mutate(Mutation("delete", "categories", gone))

    def omit(request, data):
        return {**data, "objects": [o for o in data.get("objects", []) if not o.get("is_deleted")]}

    with twisted(seller.context, always(omit, "/v2/catalog/batch-retrieve")) as context:
        try:
            sync_entities(context)
        except SyncFailed as e:
            print(e)
            raise
        s = scanned(replace(seller, context=context), CATEGORIES)
        assert (plan(s), s.metrics["unproven"]) == (NOTHING, 0)
    assert rows(conn, CATEGORIES)[gone]["is_deleted"]


def test_half_history(seller, conn):
    def half(request, data):
        if "catalog_object_ids" in request.body or "counts" not in data:
            return data
        return {"counts": data["counts"][: len(data["counts"]) // 2]}

    with twisted(seller.context, always(half, "/v2/inventory/counts/batch-retrieve")) as context:
        s = scanned(replace(seller, context=context), "inventory_counts")
    print(s.accounts, s.incomplete, s.metrics)
    assert s.incomplete or s.metrics["unproven"]


def test_expired_cursor_is_empty(seller, conn):
    """Once."""
    def small(request, data):
        return data
    left = [1]

    def lie(request, data):
        if request.path == "/v2/payments" and request.params.get("cursor") and left:
            left.pop()
            return {}
        return data
    before = len(rows(conn, "payments"))
    conn.execute("DELETE FROM square.payments")
    with twisted(seller.context, lie) as context:
        sync_entities(context, full=True)
    assert not left
    assert len(rows(conn, "payments")) == before
