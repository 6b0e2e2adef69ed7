"""A source whose changes come as events, apart from its lists: deletes are told, and proven at the record's address."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse
from starlette.routing import Route

from include.api.client import ApiClient
from include.api.error_policy import ErrorPolicy
from include.api.errors import ListCapped
from include.api.paginators import LastId
from include.api.request import Request
from include.simulators import serving
from include.sources.base import NOTHING, NeedsPerson, SyncFailed, entity_of
from include.sources.mirror.changes import Deletes, Feed, as_unix_time
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Listed
from include.sources.mirror.lookup import names
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.repair import repair_entities, verify_repair
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.source import Mirror
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence
from include.warehouse.migrations.ddl import create_mirror
from include.warehouse.readers import unix_time
from include.warehouse.table import Column, Table

CUSTOMERS = Table(
    "feed",
    "customers",
    (Column("id"), Column("name"), Column("created", unix_time), Column("updated", unix_time)),
    version="updated",
    required=("updated",),
)
PAGES = LastId("data")
SOURCE = Mirror(
    name="feed",
    base_path="/v1",
    authorize=lambda token: {},
    every=timedelta(minutes=5),
    entities=(
        Listed(
            table=CUSTOMERS,
            listing=Request("/customers", {"limit": 3}),
            paginator=PAGES,
            lookup=Lookup(
                request=lambda id_: Request(f"/customers/{quote(id_, safe='')}", check=names(id_, "id")),
                rows=lambda data: [] if data.get("deleted") else [data],
            ),
            changes=Feed(
                request=lambda since: Request("/events", {"limit": 3, "created[gte]": as_unix_time(since)}),
                paginator=PAGES,
                record=lambda event: None if event["type"] == "customer.deleted" else event["data"]["object"],
                deleted=lambda event: event["data"]["object"] if event["type"] == "customer.deleted" else None,
                keeps=timedelta(days=30),
            ),
            leaves_out=NOTHING,
        ),
    ),
)


class Vendor:
    """Serves lists by the last id, newest first, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.customers: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.deleted: set[str] = set()
        self.asked: list[str] = []
        # What the address of a record that is gone answers.
        self.gone = 200
        self.now = datetime.now(UTC) - timedelta(hours=2)
        routes = [("/v1/customers", self._list), ("/v1/customers/{id}", self._one), ("/v1/events", self._feed)]
        self.app = Starlette(routes=[Route(path, endpoint) for path, endpoint in routes])

    def put(self, id_: str, name: str, *, kind: str = "customer.updated") -> None:
        """Write a customer, and tell it as an event."""
        self.now += timedelta(seconds=60)
        moment = int(self.now.timestamp())
        created = self.customers.get(id_, {}).get("created", moment)
        self.customers[id_] = {"id": id_, "name": name, "created": created, "updated": moment}
        self.tell(kind, dict(self.customers[id_]))

    def delete(self, id_: str) -> None:
        self.deleted.add(id_)
        self.tell("customer.deleted", self.customers.pop(id_))

    def tell(self, kind: str, record: dict[str, Any]) -> None:
        number = f"evt_{len(self.events):04}"
        self.events.append(
            {"id": number, "type": kind, "created": int(self.now.timestamp()), "data": {"object": record}}
        )

    async def _list(self, asked: Asked) -> JSONResponse:
        return self._page(asked, list(self.customers.values()))

    async def _feed(self, asked: Asked) -> JSONResponse:
        since = int(asked.query_params["created[gte]"])
        return self._page(asked, [event for event in reversed(self.events) if event["created"] >= since])

    async def _one(self, asked: Asked) -> JSONResponse:
        self.asked.append(asked.url.path)
        id_ = asked.path_params["id"]
        if id_ in self.deleted:
            return JSONResponse({"id": id_, "deleted": True}, self.gone)
        if id_ not in self.customers:
            return JSONResponse({}, 404)
        return JSONResponse(self.customers[id_])

    def _page(self, asked: Asked, rows: list[dict[str, Any]]) -> JSONResponse:
        self.asked.append(asked.url.path)
        after, limit = asked.query_params.get("starting_after"), int(asked.query_params["limit"])
        first = next((place for place, row in enumerate(rows, 1) if row["id"] == after), 0)
        return JSONResponse({"data": rows[first : first + limit], "has_more": first + limit < len(rows)})


@pytest.fixture
def vendor() -> Vendor:
    vendor = Vendor()
    for number in range(8):
        vendor.put(f"cus_{number}", f"Name {number}", kind="customer.created")
    return vendor


@pytest.fixture
def context(vendor: Vendor, conn: psycopg.Connection, warehouse: str) -> Iterator[MirrorContext]:
    """The source, synced once."""
    engine = create_engine(make_url(warehouse).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)) as op:
        op.execute("CREATE SCHEMA feed")
        columns = {"name": "text", "created": "timestamptz", "updated": "timestamptz", "extra": "jsonb"}
        create_mirror("feed", "customers", {"id": "text"}, columns)
        connection.execute(text("INSERT INTO confidence.writer (source) VALUES ('feed')"))
    engine.dispose()
    with serving.in_thread(vendor.app) as url, ApiClient("feed", url + "/v1", attempts=1) as client:
        context = MirrorContext(SOURCE, client, conn, "feed_reconcile/test")
        sync_entities(context)
        # The server's clock is ours: what changed before that would be behind the lookback.
        conn.execute("UPDATE confidence.sync_state SET watermark = now() - interval '1 hour' WHERE source = 'feed'")
        vendor.asked.clear()
        yield context


def live(conn: psycopg.Connection) -> dict[str, str]:
    return dict(conn.execute("SELECT id, name FROM feed.customers WHERE deleted_at IS NULL").fetchall())


def true(vendor: Vendor) -> dict[str, str]:
    return {id_: row["name"] for id_, row in vendor.customers.items()}


def recent(vendor: Vendor) -> None:
    vendor.now = datetime.now(UTC) - timedelta(minutes=30)


def test_first_sync_reads_the_list(context, vendor, conn):
    assert len(live(conn)) == 8
    assert live(conn) == true(vendor)


def test_changes_come_by_the_feed_alone(context, vendor, conn):
    recent(vendor)
    vendor.put("cus_1", "First")
    vendor.put("cus_new", "New", kind="customer.created")
    vendor.put("cus_1", "Second")
    sync_entities(context)
    assert live(conn)["cus_1"] == "Second"
    assert live(conn) == true(vendor)
    assert set(vendor.asked) == {"/v1/events"}


def test_delete_that_the_feed_tells_is_proven_at_the_records_address(context, vendor, conn):
    recent(vendor)
    vendor.put("cus_2", "Changed before its end")
    vendor.delete("cus_2")
    sync_entities(context)
    assert live(conn) == true(vendor)
    assert "/v1/customers/cus_2" in vendor.asked


def test_without_a_version_the_order_of_the_events_tells_the_newest(context, vendor, conn):
    (entity,) = SOURCE.entities
    changes = replace(entity.changes, newest_first=True)
    unversioned = replace(entity, table=replace(entity.table, version=None, required=()), changes=changes)
    source = replace(SOURCE, entities=(unversioned,))
    recent(vendor)
    vendor.put("cus_new", "First", kind="customer.created")
    vendor.put("cus_new", "Second")
    vendor.put("cus_1", "First")
    vendor.put("cus_1", "Second")
    sync_entities(replace(context, source=source))
    assert live(conn) == true(vendor)
    assert live(conn)["cus_new"] == "Second"


def test_status_proves_an_absence_if_the_policy_says_so(context, vendor, conn, monkeypatch):
    recent(vendor)
    vendor.gone = 410
    vendor.delete("cus_2")
    with pytest.raises(NeedsPerson, match="answered 410"):
        sync_entities(context)
    assert "cus_2" in live(conn)
    monkeypatch.setattr(context.client, "_error_policy", ErrorPolicy(absent=frozenset({410})))
    sync_entities(context)
    assert live(conn) == true(vendor)


@pytest.mark.parametrize("lives", [False, True])
def test_deletes_may_be_told_in_a_list_beside_the_feed(context, vendor, conn, lives):
    entity = entity_of(SOURCE, "customers")
    changes = replace(entity.changes, deleted=lambda event: None)
    beside = Deletes(entity.changes.request, PAGES, entity.changes.deleted)
    split = replace(context, source=replace(SOURCE, entities=(replace(entity, changes=changes, deletes=beside),)))
    recent(vendor)
    vendor.put("cus_1", "First")
    gone = vendor.customers["cus_3"]
    vendor.delete("cus_3")
    if lives:
        vendor.deleted.clear()
        vendor.customers["cus_3"] = gone
    sync_entities(split)
    assert live(conn) == true(vendor)
    assert vendor.asked == ["/v1/events", "/v1/events", "/v1/customers/cus_3"]


@pytest.mark.parametrize("told", ["before it came back", "falsely"])
def test_record_that_lives_comes_whatever_deletes_are_told(context, vendor, conn, told):
    """The events of a delete and of a return are read together, in any order."""
    recent(vendor)
    if told == "falsely":
        vendor.put("cus_2", "new", kind="customer.created")
        vendor.put("cus_9", "new", kind="customer.created")
        vendor.tell("customer.deleted", vendor.customers["cus_9"])
    else:
        vendor.delete("cus_2")
        sync_entities(context)
        assert "cus_2" not in live(conn)
        vendor.deleted.clear()
        vendor.put("cus_2", "again", kind="customer.created")
    conn.execute("UPDATE confidence.sync_state SET watermark = now() - interval '1 hour' WHERE source = 'feed'")
    sync_entities(context)
    assert live(conn) == true(vendor)


def test_record_that_came_and_went_is_none(context, vendor, conn):
    recent(vendor)
    vendor.put("cus_10", "new", kind="customer.created")
    vendor.delete("cus_10")
    sync_entities(context)
    assert live(conn) == true(vendor)
    assert conn.execute("SELECT FROM feed.customers WHERE id = 'cus_10'").rowcount == 0


def test_delete_that_is_told_of_a_living_record_deletes_nothing(context, vendor, conn):
    recent(vendor)
    vendor.put("cus_3", "Alive")
    vendor.tell("customer.deleted", {"id": "cus_3"})
    sync_entities(context)
    assert live(conn) == true(vendor)


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"type": "customer.deleted", "data": {"object": {}}}, "is deleted, but not which"),
        ({"type": "customer.updated", "data": None}, "does not have the shape that is read"),
        ({"type": "customer.updated", "data": {"object": "cus_1"}}, "no JSON object"),
        ({"data": {"object": {}}}, "does not have the shape that is read"),
    ],
)
def test_event_of_another_shape_is_named_and_nothing_is_skipped(context, vendor, conn, event, why):
    recent(vendor)
    before = conn.execute("SELECT watermark FROM confidence.sync_state WHERE source = 'feed'").fetchall()
    vendor.put("cus_1", "First")
    vendor.events.append({"id": "evt_odd", "created": int(vendor.now.timestamp()), **event})
    with pytest.raises(SyncFailed, match=f"customers: .*{why}"):
        sync_entities(context)
    assert conn.execute("SELECT watermark FROM confidence.sync_state WHERE source = 'feed'").fetchall() == before
    vendor.events.pop()
    sync_entities(context)
    assert live(conn) == true(vendor)


def test_sync_that_is_further_behind_than_the_feed_reads_the_list(context, vendor, conn):
    vendor.put("cus_4", "Its event is gone")
    vendor.events.clear()
    conn.execute("UPDATE confidence.sync_state SET watermark = now() - interval '31 days' WHERE source = 'feed'")
    sync_entities(context)
    assert live(conn)["cus_4"] == "Its event is gone"
    assert set(vendor.asked) == {"/v1/customers"}


def test_sync_whose_feed_reaches_its_cap_reads_the_list(context, vendor, conn):
    """The feed shows the newest events only, so the oldest change would be lost for good."""
    recent(vendor)
    for number in range(7):
        vendor.put(f"cus_{number}", f"Changed {number}")
    entity = entity_of(SOURCE, "customers")
    capped = replace(entity, changes=replace(entity.changes, paginator=replace(PAGES, cap=5)))
    vendor.asked.clear()
    sync_entities(replace(context, source=replace(SOURCE, entities=(capped,))))
    assert live(conn) == true(vendor)
    assert vendor.asked == ["/v1/events"] * 2 + ["/v1/customers"] * 3


def test_sync_whose_list_reaches_its_cap_fails(context, vendor, conn):
    entity = entity_of(SOURCE, "customers")
    capped = replace(context, source=replace(SOURCE, entities=(replace(entity, paginator=replace(PAGES, cap=8)),)))
    with pytest.raises(SyncFailed, match="the API ends this list after 8 rows, and it has come to as many"):
        sync_entities(capped, full=True)
    writer = fence.stop(conn, "feed", context.run, timeout=1)
    with pytest.raises(ListCapped, match="What it leaves out is unknown"):
        scan_entity(capped, capped.source.entities[0], writer.epoch, Scope())


def test_scan_compares_with_the_list(context, vendor, conn):
    conn.execute("UPDATE feed.customers SET name = 'spoilt' WHERE id = 'cus_5'")
    conn.execute("DELETE FROM feed.customers WHERE id = 'cus_6'")
    vendor.delete("cus_7")
    writer = fence.stop(conn, "feed", context.run, timeout=1)
    summary = scan_entity(context, entity_of(SOURCE, "customers"), writer.epoch, Scope())
    assert (summary.plan.insert, summary.plan.update, summary.plan.delete) == (1, 1, 1)
    assert summary.proven == summary.rows


def test_record_without_a_version_that_changes_after_the_scan_holds_no_writer(context, vendor, conn):
    (entity,) = SOURCE.entities
    unversioned = replace(entity, table=replace(entity.table, version=None, required=()))
    context = replace(context, source=replace(SOURCE, entities=(unversioned,)))
    conn.execute("UPDATE feed.customers SET name = 'spoilt' WHERE id = 'cus_1'")
    writer = fence.stop(conn, "feed", context.run, timeout=5)
    summary = scan_entity(context, unversioned, writer.epoch, Scope.of({"progress_every": 250}))
    assert summary.plan.update == 1
    sync_id, _ = repair_entities(context, [summary])
    vendor.put("cus_1", "Changed since")
    assert not [check for check in verify_repair(context, [summary], sync_id) if check.worse]
    assert conn.execute("SELECT key FROM confidence.unproven WHERE source = 'feed'").fetchall() == [(["cus_1"],)]
