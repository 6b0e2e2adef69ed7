"""Children that no list shows: scans and the first sync ask for each parent, other syncs for changed parents only."""

from collections.abc import Iterator
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
from include.api.paginators import NextLink
from include.api.request import Request
from include.confidence import judgements
from include.confidence.policy.judge import judge
from include.confidence.summary import ForensicSummary, Plan
from include.simulators import serving
from include.sources import verbs
from include.sources.base import NOTHING, SyncFailed
from include.sources.mirror.changes import Since
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Child, Entity, Listed
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import names
from include.sources.mirror.lookup_request import Lookup
from include.sources.mirror.partitions import all_listings
from include.sources.mirror.read import read_lists
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.source import Mirror
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence
from include.warehouse.migrations.ddl import create_mirror
from include.warehouse.readers import boolean, instant
from include.warehouse.table import Column, Table

ORDERS = Table(
    "erp",
    "orders",
    (Column("id"), Column("void", boolean), Column("updated", instant)),
    version="updated",
    tombstone="void",
)
PAYMENTS = Table(
    "erp", "payments", (Column("id"), Column("order_id", field="orderId"), Column("paid", instant)), version="paid"
)
LONG_AGO = "2026-01-01T08:00:00+00:00"
PAGES = NextLink("value", key="@odata.nextLink", total="@odata.count")
SOURCE = Mirror(
    name="erp",
    base_path="/v1",
    authorize=lambda token: {},
    every=timedelta(minutes=5),
    entities=(
        Listed(
            table=ORDERS,
            listing=Request("/orders"),
            paginator=PAGES,
            lookup=Lookup(
                lambda id_: Request(f"/orders/{quote(id_, safe='')}", check=names(id_, "id")), lambda data: [data]
            ),
            changes=Since("since"),
            leaves_out=NOTHING,
        ),
        Child(
            table=PAYMENTS,
            parent="orders",
            listing=None,
            paginator=PAGES,
            lookup=Lookup(
                by=("order_id",),
                request=lambda id_: Request(f"/orders/{quote(id_, safe='')}/payments"),
                rows=lambda data: data["value"],
                paginator=PAGES,
                own=False,
                complete=True,
            ),
            leaves_out=NOTHING,
        ),
    ),
)
PAID = SOURCE.entities[1]


class Vendor:
    """Serves orders, and the payments of one order at a time. Keeps what it was asked for."""

    def __init__(self) -> None:
        self.orders: dict[str, str] = {}
        self.payments: dict[str, dict[str, str]] = {}
        self.failing: set[str] = set()
        # Orders that are flagged as deleted, and orders whose payments have no address.
        self.void: set[str] = set()
        self.hidden: set[str] = set()
        # Orders that the list alone shows.
        self.gone: set[str] = set()
        self.asked: list[str] = []
        routes = [("/v1/orders", self._list), ("/v1/orders/{id}", self._one), ("/v1/orders/{id}/payments", self._paid)]
        self.app = Starlette(routes=[Route(path, endpoint) for path, endpoint in routes])

    def pay(self, order: str, *payments: str) -> None:
        self.orders[order] = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
        self.payments.setdefault(order, {}).update(dict.fromkeys(payments, LONG_AGO))

    async def _list(self, asked: Asked) -> JSONResponse:
        since = asked.query_params.get("since", "")
        return self._page([self._order(id_) for id_, updated in self.orders.items() if updated >= since])

    async def _one(self, asked: Asked) -> JSONResponse:
        id_ = asked.path_params["id"]
        return JSONResponse(self._order(id_)) if id_ in self.orders.keys() - self.gone else JSONResponse({}, 404)

    async def _paid(self, asked: Asked) -> JSONResponse:
        id_ = asked.path_params["id"]
        self.asked.append(id_)
        if id_ in self.failing:
            return JSONResponse({"error": {"code": "Busy", "message": "Try again"}})
        if id_ not in self.orders or id_ in self.hidden | self.gone:
            return JSONResponse({}, 404)
        return self._page([{"id": key, "orderId": id_, "paid": paid} for key, paid in self.payments[id_].items()])

    def _order(self, id_: str) -> dict[str, Any]:
        return {"id": id_, "void": id_ in self.void, "updated": self.orders[id_]}

    def _page(self, rows: list[dict[str, Any]]) -> JSONResponse:
        return JSONResponse({"value": rows, "@odata.count": len(rows)})


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def context(vendor: Vendor, conn: psycopg.Connection, warehouse: str) -> Iterator[MirrorContext]:
    engine = create_engine(make_url(warehouse).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)) as op:
        op.execute("CREATE SCHEMA erp")
        create_mirror("erp", "orders", {"id": "text"}, {"void": "boolean", "updated": "timestamptz", "extra": "jsonb"})
        create_mirror("erp", "payments", {"id": "text"}, {"order_id": "text", "paid": "timestamptz", "extra": "jsonb"})
        connection.execute(text("INSERT INTO confidence.writer (source) VALUES ('erp')"))
    engine.dispose()
    with serving.in_thread(vendor.app) as url, ApiClient("erp", url + "/v1", attempts=1) as client:
        yield MirrorContext(SOURCE, client, conn, "erp_reconcile/test")


def live(conn: psycopg.Connection) -> set[str]:
    return {id_ for (id_,) in conn.execute("SELECT id FROM erp.payments WHERE deleted_at IS NULL")}


def states(conn: psycopg.Connection) -> list[tuple[str, bool]]:
    query = "SELECT partition, watermark IS NOT NULL FROM confidence.sync_state WHERE entity = 'payments'"
    return conn.execute(query).fetchall()


def scan(context: MirrorContext, entity: Entity = PAID) -> ForensicSummary:
    writer = fence.stop(context.conn, "erp", context.run, timeout=5)
    scope = Scope.of({"progress_every": 250})
    return scan_entity(context, entity, writer.epoch, scope)


def test_later_syncs_ask_for_changed_parents_alone(context, vendor, conn):
    for order in ("o1", "o2", "o3"):
        vendor.pay(order, f"{order}-a")
    sync_entities(context)
    assert (live(conn), states(conn)) == ({"o1-a", "o2-a", "o3-a"}, [("", True)])
    conn.execute("UPDATE confidence.sync_state SET watermark = now() + interval '1 hour' WHERE source = 'erp'")
    vendor.asked.clear()
    vendor.pay("o2", "o2-b")
    vendor.orders["o2"] = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    sync_entities(context)
    assert (live(conn), set(vendor.asked)) == ({"o1-a", "o2-a", "o2-b", "o3-a"}, {"o2"})


def test_scans_ask_for_each_parent(context, vendor, conn):
    for order in ("o1", "o2"):
        vendor.pay(order, f"{order}-a", f"{order}-b")
    sync_entities(context)
    del vendor.payments["o1"]["o1-b"]
    vendor.payments["o2"] |= {"o2-c": LONG_AGO, "o2-young": datetime.now(UTC).isoformat()}
    assert scan(context).plan == Plan(insert=1, update=0, delete=1)


def test_lists_that_are_all_empty_prove_nothing(context, vendor, conn):
    for number in range(5):
        vendor.pay(f"o{number}", f"o{number}-a")
    sync_entities(context)
    for payments in vendor.payments.values():
        payments.clear()
    summary = scan(context)
    assert (summary.plan, summary.metrics["unproven"]) == (Plan(insert=0, update=0, delete=0), 5)


def test_source_without_a_parent_has_no_children(context, vendor, conn):
    sync_entities(context)
    assert states(conn) == [("", True)]
    assert scan(context).plan == Plan(insert=0, update=0, delete=0)
    fence.resume(conn, "erp", context.run)
    vendor.pay("o1", "o1-a")
    sync_entities(context)
    assert live(conn) == {"o1-a"}


def test_a_first_sync_that_misses_a_parent_is_repeated(context, vendor, conn):
    for order in ("o1", "o2"):
        vendor.pay(order, f"{order}-a")
    vendor.failing = {"o2"}
    with pytest.raises(SyncFailed, match=r"all of o2 \(.*it carries 'error', so it is no answer"):
        sync_entities(context)
    assert (live(conn), states(conn)) == ({"o1-a"}, [("", False)])
    vendor.failing = set()
    conn.execute("UPDATE confidence.sync_state SET watermark = now() + interval '1 hour' WHERE entity = 'orders'")
    sync_entities(context)
    assert (live(conn), states(conn)) == ({"o1-a", "o2-a"}, [("", True)])


def test_a_full_sync_that_misses_a_parent_keeps_the_watermark(context, vendor, conn):
    for order in ("o1", "o2"):
        vendor.pay(order, f"{order}-a")
    sync_entities(context)
    vendor.failing = {"o2"}
    with pytest.raises(SyncFailed, match=r"all of o2 \("):
        sync_entities(context, full=True)
    assert states(conn) == [("", True)]


def test_what_is_kept_of_a_pull_does_not_grow_with_the_parents(context, vendor):
    orders = [f"o{number}" for number in range(9)]
    for order in orders:
        vendor.pay(order, f"{order}-a", f"{order}-b")
    vendor.payments["o3"] |= {f"o3-{number}": "no time" for number in range(2)}
    extract, kept = Extract.open(context, PAID, "scan", "a ticket"), []
    read_lists(context, extract, all_listings(context, PAID, orders), on_page=lambda each: kept.append(len(each.lists)))
    assert kept == [1, 2, 2, 2, 3, 3, 3, 3, 3]
    assert extract.row_counts(*{state["partition"] for state in extract.lists.values()}) == [(20, 2)]
    assert extract.row_counts("o3") == [(4, 2)]


def test_what_names_a_pull_does_not_grow_with_the_parents(context, vendor, conn):
    """Messages quote it, and so does each row that is refused."""
    for number in range(60):
        vendor.pay(f"order-{number}", f"payment-{number}")
    sync_entities(context)
    vendor.payments["order-7"]["late"] = "no time"
    scan(context)
    (longest,) = conn.execute("SELECT max(length(pull)) FROM confidence.quarantine").fetchone()
    assert longest < 200


class TestListThatIsNotAtItsAddress:
    """The address of an order's payments answers 404, so the order's own address is asked."""

    @pytest.fixture
    def vendor(self):
        vendor = Vendor()
        for order in ("o1", "o2"):
            vendor.pay(order, f"{order}-a")
        return vendor

    @pytest.mark.parametrize("known", [False, True], ids=["not_in_the_copy_yet", "in_the_copy"])
    def test_has_gone_with_its_order(self, context, vendor, conn, known):
        sync_entities(context)
        del vendor.orders["o2"]
        if known:
            conn.execute("UPDATE erp.orders SET deleted_at = now() WHERE id = 'o2'")
        summary = scan(context)
        assert (summary.plan, summary.metrics["unproven"]) == (Plan(insert=0, update=0, delete=1), 0)

    def test_is_repaired_and_verified(self, context, vendor, conn):
        sync_entities(context)
        del vendor.orders["o2"]
        summaries = [scan(context, entity) for entity in SOURCE.entities]
        for summary in summaries:
            judgements.save_judgement(conn, summary, judge(summary, [], []))
        sync_id, _ = verbs.run_repair(context, summaries, {})
        assert not any(check.worse for check in verbs.run_verify(context, summaries, sync_id))
        assert live(conn) == {"o1-a"}

    def test_stops_no_first_sync_if_its_order_has_gone(self, context, vendor, conn):
        sync_entities(context, only="orders")
        del vendor.orders["o2"]
        sync_entities(context, only="payments")
        assert (live(conn), states(conn)) == ({"o1-a"}, [("", True)])

    def test_has_gone_with_an_order_that_is_flagged_as_deleted(self, context, vendor, conn):
        """The lists show such an order for ever."""
        sync_entities(context)
        vendor.pay("o2")
        vendor.void = vendor.hidden = {"o2"}
        sync_entities(context)
        assert scan(context).plan == Plan(insert=0, update=0, delete=1)

    def test_proves_nothing_of_an_order_that_is_there(self, context, vendor, conn):
        sync_entities(context)
        vendor.hidden = {"o2"}
        assert scan(context).plan == Plan(insert=0, update=0, delete=0)
        unproven = conn.execute("SELECT key FROM confidence.unproven WHERE entity = 'payments'").fetchall()
        assert (["o2-a"],) in unproven

    def test_is_unknown_if_the_list_of_orders_shows_its_order(self, context, vendor, conn):
        """One of the two addresses is wrong, so the next sync reads the payments again."""
        sync_entities(context)
        vendor.pay("o2", "o2-b")
        vendor.gone = {"o2"}
        with pytest.raises(SyncFailed, match="payments of o2"):
            sync_entities(context)
        vendor.gone = set()
        sync_entities(context)
        assert live(conn) == {"o1-a", "o2-a", "o2-b"}

    def test_proves_nothing_if_the_source_shows_nothing_that_the_copy_has(self, context, vendor, conn):
        """The token is another account's."""
        sync_entities(context)
        vendor.orders.clear()
        assert scan(context).plan == Plan(insert=0, update=0, delete=0)
