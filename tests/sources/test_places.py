"""Places that a token may not see any more, and tokens of another account: nothing of the copy is taken for gone."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from include.api.errors import ApiError, NotFound, TryLater
from include.api.request import Request
from include.confidence import unproven
from include.confidence.summary import ForensicSummary
from include.simulators.square import Mutation
from include.sources.base import NeedsPerson, entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from include.sources.square import SOURCE
from include.warehouse import fence

from .square import RUN, Seller, contents, rows, selling
from .twisted import Twist, Twisted, twisted

SMALL = {"locations": 3, "categories": 6, "items": 6, "variations": 8, "vendors": 2, "orders": 30, "line_items": 80}
PLACED = ("orders", "payments", "catalog_inventory")


@pytest.fixture
def seller(conn: psycopg.Connection) -> Iterator[Seller]:
    """A seller whose mirror has had its first load, some hours ago."""
    with selling(conn, **SMALL) as seller:
        sync_entities(seller.context)
        seller.control.advance(6 * 3600)
        yield seller


@pytest.fixture
def place(seller: Seller, conn: psycopg.Connection) -> str:
    return sorted(rows(conn, "locations"))[0]


def scanned(context: MirrorContext, name: str) -> ForensicSummary:
    writer = fence.stop(context.conn, SOURCE.name, RUN, timeout=1)
    return scan_entity(context, entity_of(SOURCE, name), writer.epoch, Scope())


def keys_at(conn: psycopg.Connection, place: str, *names: str) -> set[tuple]:
    """The keys of the copy's rows of a place."""
    found = {key for name in names for key, row in rows(conn, name).items() if row["location_id"] == place}
    return {key if isinstance(key, tuple) else (key,) for key in found}


def without(conn: psycopg.Connection, place: str, *names: str) -> Twist:
    """Answers without what the copy has of a place in these tables: lists leave it out, addresses say 404."""
    hidden = keys_at(conn, place, *names)

    def is_seen(row: dict[str, Any]) -> bool:
        return ((row["catalog_object_id"], row["location_id"]) if "quantity" in row else (row["id"],)) not in hidden

    def twist(request: Request, data: Any) -> Any:
        if (request.path.rpartition("/")[2],) in hidden:
            raise NotFound(f"{request}: answered 404")
        return {name: list(filter(is_seen, each)) if isinstance(each, list) else each for name, each in data.items()}

    return twist


@pytest.mark.parametrize("name", PLACED)
def test_place_without_rights_loses_nothing(seller, conn, place, name):
    """The location itself is shown, but nothing of it is."""
    mine = keys_at(conn, place, name)
    with twisted(seller.context, without(conn, place, *PLACED)) as context:
        summary = scanned(context, name)
    assert summary.plan.delete == 0
    doubts = {tuple(doubt.key): doubt.why for doubt in unproven.of(conn, "square", name)}
    assert doubts.keys() == mine
    assert all(f"nor is anything else that the copy has of {place}" in why for why in doubts.values())
    seller_sees = scanned(seller.context, name)
    assert (seller_sees.plan.delete, seller_sees.metrics["unproven"]) == (0, 0)


def test_place_that_the_copy_lacks_hides_as_much(seller, conn, place):
    conn.execute("DELETE FROM square.locations WHERE id = %s", [place])
    with twisted(seller.context, without(conn, place, *PLACED)) as context:
        summary = scanned(context, "payments")
    assert (summary.plan.delete, summary.metrics["unproven"]) == (0, len(keys_at(conn, place, "payments")))


@pytest.mark.parametrize("name", PLACED)
def test_all_of_one_kind_may_be_gone_from_a_place(seller, conn, place, name):
    """Something else of the place is shown at its own address."""
    mine = keys_at(conn, place, name)
    with twisted(seller.context, without(conn, place, name)) as context:
        summary = scanned(context, name)
    assert summary.metrics["unproven"] == 0
    assert summary.accounts[name].surplus == len(mine)


def test_what_is_gone_with_its_place_is_gone(seller, conn, place):
    conn.execute("UPDATE square.locations SET deleted_at = now() WHERE id = %s", [place])
    gone = without(conn, place, *PLACED)

    def twist(request, data):
        if request.path.startswith("/v2/locations"):
            return {"locations": [row for row in data["locations"] if row["id"] != place]}
        return gone(request, data)

    with twisted(seller.context, twist) as context:
        summary = scanned(context, "payments")
    assert (summary.plan.delete, summary.metrics["unproven"]) == (summary.accounts["payments"].surplus, 0)
    assert summary.plan.delete > 0


OWN = re.compile(r"\b(LOC|CAT|TAX|DSC|UNT|ITM|VAR|VIN|VEN|ORD|PAY|REF|CUS)([0-9A-F]{4}\d{7})\b")
THEIRS = re.compile(r"\b([A-Z]{3})Z([0-9A-F]{4}\d{7})\b")


class OtherAccount(Twisted):
    """The same account under other ids. Whatever it doesn't know is not found."""

    def _exchange(self, request: Request) -> Any:
        asked = json.dumps([request.path, request.body, dict(request.params)])
        path, body, params = json.loads(THEIRS.sub(r"\1\2", OWN.sub("unknown", asked)))
        answer = super()._exchange(replace(request, path=path, body=body, params=params, check=None))
        if isinstance(answer, ApiError):
            return answer
        return replace(answer, data=json.loads(OWN.sub(r"\1Z\2", json.dumps(answer.data, default=str))))


@pytest.fixture
def elsewhere(seller: Seller) -> Iterator[MirrorContext]:
    """What the connection leads to once it has the token of another seller."""
    client = seller.context.client
    headers = SOURCE.authorize(seller.simulator.token)
    with OtherAccount(client.name, seller.simulator.url, headers=headers, timeout=(2, 2), attempts=1) as other:
        yield replace(seller.context, client=other)


@pytest.mark.parametrize("full", [False, True])
def test_sync_of_another_account_writes_nothing(seller, conn, elsewhere, full):
    before = contents(conn)
    with pytest.raises(NeedsPerson, match=r"locations is new to the copy.*token of connection 'square'"):
        sync_entities(elsewhere, full=full)
    assert contents(conn) == before
    sync_entities(seller.context, full=full)
    assert contents(conn) == before


def test_another_account_is_told_by_any_list(seller, conn, elsewhere):
    """Those of locations have failed."""
    seller.control.mutate(Mutation("update", "items", seller.control.ids("items")[0], {"name": "Renamed"}))
    before = contents(conn)
    with pytest.raises(NeedsPerson, match="catalog_items is new to the copy"):
        sync_entities(elsewhere, only="catalog_items")
    assert contents(conn) == before


def test_new_rows_alone_are_no_sign_of_another_account(seller, conn):
    """The list shows nothing that the copy has, but the copy's rows are there."""
    seller.control.advance(10 * 24 * 3600)
    sync_entities(seller.context)
    before = rows(conn, "orders").keys()
    seller.control.mutate(Mutation("create", "orders"))
    sync_entities(seller.context)
    assert len(rows(conn, "orders").keys() - before) == 1


def test_outage_is_no_sign_of_another_account(seller, conn):
    """The list shows nothing that the copy has, and no record answers."""
    seller.control.advance(10 * 24 * 3600)
    sync_entities(seller.context)
    before = rows(conn, "orders").keys()
    seller.control.mutate(Mutation("create", "orders"))

    def down(request: Request, data: Any) -> Any:
        if request.path.endswith("/batch-retrieve") or (request.path.count("/") > 2 and "search" not in request.path):
            raise TryLater(f"{request}: answered 503")
        return data

    with twisted(seller.context, down) as context:
        sync_entities(context, only="orders")
    assert len(rows(conn, "orders").keys() - before) == 1
