"""Sync against a simulated account: first load, changes, what goes wrong, and the way back."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from include.api import responses
from include.simulators.repairshopr import Fault, Mutation
from include.sources.base import NeedsPerson, SyncFailed
from include.sources.mirror.repair import reset_watermarks
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence, sync_log
from include.warehouse.rollback import RollbackRefused, roll_back
from include.warehouse.table_rollback import Tables

from .twisted import always, twisted

TABLES = ("customers", "invoices", "line_items", "payments", "products", "tickets", "estimates")


def contents(conn: psycopg.Connection) -> dict[str, list]:
    """Every row of the mirror, every column, and the watermarks."""
    rows = {
        table: conn.execute(f"SELECT to_jsonb(t) FROM repairshopr.{table} t ORDER BY id").fetchall() for table in TABLES
    }
    rows["sync_state"] = conn.execute(
        "SELECT entity, partition, watermark, version FROM confidence.sync_state ORDER BY 1, 2"
    ).fetchall()
    return rows


def live_ids(conn: psycopg.Connection, table: str) -> list[int]:
    query = f"SELECT id FROM repairshopr.{table} WHERE deleted_at IS NULL ORDER BY id"
    return [row[0] for row in conn.execute(query)]


def audit(conn: psycopg.Connection) -> int:
    return conn.execute("SELECT count(*) FROM confidence.change_log").fetchone()[0]


def test_first_sync_brings_every_row(shop, conn):
    sync_id, counts = sync_entities(shop.context)
    for table in set(TABLES) - {"line_items"}:
        assert live_ids(conn, table) == shop.control.ids(table)
        assert counts[table].inserted == len(shop.control.ids(table))
    on_invoices = [i for i in shop.control.ids("line_items") if shop.control.row("line_items", i)["invoice_id"]]
    assert live_ids(conn, "line_items") == on_invoices
    assert conn.execute(
        "SELECT state, rows_inserted FROM confidence.sync_log WHERE sync_id = %s", [sync_id]
    ).fetchone() == (
        "success",
        sum(c.inserted for c in counts.values()),
    )


def test_money_and_times_arrive_exactly(shop, conn):
    sync_entities(shop.context)
    line = shop.control.row("line_items", live_ids(conn, "line_items")[0])
    price, created = conn.execute(
        "SELECT price, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
        " FROM repairshopr.line_items WHERE id = %s",
        [line["id"]],
    ).fetchone()
    assert str(price) == line["price"]
    assert created == line["created_at"]


def test_sync_twice_changes_nothing(shop, conn):
    sync_entities(shop.context)
    before, entries = contents(conn), audit(conn)
    _, counts = sync_entities(shop.context)
    after = contents(conn)
    assert {t: after[t] for t in TABLES} == {t: before[t] for t in TABLES}
    assert audit(conn) == entries
    assert sum(c.inserted + c.updated + c.deleted for c in counts.values()) == 0


def test_changes_arrive_and_vanished_lines_are_tombstoned(shop, conn):
    sync_entities(shop.context)
    line = live_ids(conn, "line_items")[0]
    invoice = shop.control.row("line_items", line)["invoice_id"]
    customer = shop.control.ids("customers")[3]
    (new_line,) = shop.control.mutate(
        Mutation("insert", "line_items", row={"invoice_id": invoice, "name": "Cable", "price": "9.95"})
    )
    shop.control.mutate(
        Mutation("delete", "line_items", line), Mutation("update", "customers", customer, {"city": "Elsewhere"})
    )
    _, counts = sync_entities(shop.context)
    assert line not in live_ids(conn, "line_items")
    assert new_line in live_ids(conn, "line_items")
    assert conn.execute("SELECT invoice_id FROM repairshopr.line_items WHERE id = %s", [line]).fetchone() == (invoice,)
    assert conn.execute("SELECT city FROM repairshopr.customers WHERE id = %s", [customer]).fetchone() == ("Elsewhere",)
    assert (counts["line_items"].inserted, counts["line_items"].deleted) == (1, 1)
    assert counts["customers"].updated == 1


def test_incremental_sync_asks_for_little(shop, conn):
    sync_entities(shop.context)
    shop.control.reset_counters()
    sync_entities(shop.context)
    assert shop.control.counters().total() <= 14


def test_watermark_is_the_time_of_the_newest_row_if_the_source_tells_none(shop, conn, monkeypatch):
    monkeypatch.setattr(responses, "http_date", lambda text: None)
    sync_entities(shop.context)
    [newest] = conn.execute("SELECT max(updated_at) FROM repairshopr.invoices").fetchone()
    assert sync_log.oldest_watermark(conn, "repairshopr", "invoices") == newest


def test_empty_list_of_one_page_is_whole(shop, conn):
    empty = always(lambda request, data: {"estimates": [], "meta": {"page": 1, "total_pages": 1}}, "/estimates")
    with twisted(shop.context, empty) as context:
        sync_entities(context)
    assert live_ids(conn, "estimates") == []
    assert sync_log.oldest_watermark(conn, "repairshopr", "estimates") is not None


def test_rollback_gives_back_every_row_and_the_watermarks(shop, conn):
    sync_entities(shop.context)
    before = contents(conn)
    invoice = shop.control.ids("invoices")[0]
    lines = [i for i in live_ids(conn, "line_items") if shop.control.row("line_items", i)["invoice_id"] == invoice]
    shop.control.mutate(
        Mutation("update", "invoices", invoice, {"note": "changed"}),
        Mutation("delete", "line_items", lines[0]),
        Mutation("insert", "customers", row={"firstname": "New"}),
    )
    second, _ = sync_entities(shop.context)
    changed = contents(conn)
    assert changed != before

    preview = roll_back(conn, Tables(conn), second, run="t/1", reason="test", dry_run=True)
    assert preview.sync_id is None
    assert contents(conn) == changed

    undone = roll_back(conn, Tables(conn), second, run="t/1", reason="test", dry_run=False)
    assert contents(conn) == before

    roll_back(conn, Tables(conn), undone.sync_id, run="t/2", reason="undo the undo", dry_run=False)
    assert contents(conn) == changed


def test_rollback_of_the_first_load_empties_the_tables(shop, conn):
    empty = contents(conn)
    first, _ = sync_entities(shop.context)
    roll_back(conn, Tables(conn), first, run="t/1", reason="test", dry_run=False)
    assert contents(conn) == empty


def test_rollback_refuses_by_name_what_came_later(shop, conn):
    sync_entities(shop.context)
    customer = shop.control.ids("customers")[0]
    syncs = []
    for city in ("One", "Two"):
        shop.control.mutate(Mutation("update", "customers", customer, {"city": city}))
        syncs.append(sync_entities(shop.context)[0])
    with pytest.raises(RollbackRefused, match=f"repairshopr.customers by sync_id {syncs[1]}.*such as {customer}"):
        roll_back(conn, Tables(conn), syncs[0], run="t/1", reason="test", dry_run=False)
    roll_back(conn, Tables(conn), syncs[0], run="t/1", reason="test", dry_run=False, force=True)
    assert conn.execute("SELECT city FROM repairshopr.customers WHERE id = %s", [customer]).fetchone()[0] not in (
        "One",
        "Two",
    )


@pytest.mark.drill("right-lost")
@pytest.mark.parametrize(("status", "error"), [(403, NeedsPerson), (503, SyncFailed)])
def test_refused_right_for_the_children_alone_needs_a_person_and_keeps_the_parents(shop, conn, status, error):
    sync_entities(shop.context)
    invoice = shop.control.ids("invoices")[0]
    shop.control.mutate(Mutation("update", "invoices", invoice, {"note": "changed"}))
    shop.control.fault(Fault("status", resource="line_items", status=status, times=None))
    with pytest.raises(SyncFailed, match=f"line_items of {invoice}") as caught:
        sync_entities(shop.context)
    assert type(caught.value) is error
    assert conn.execute("SELECT note FROM repairshopr.invoices WHERE id = %s", [invoice]).fetchone() == ("changed",)


@pytest.mark.drill("right-lost")
@pytest.mark.parametrize("resource", ["payments", "invoices", None])
@pytest.mark.parametrize("status", [401, 403])
def test_refused_list_needs_a_person(shop, conn, status, resource):
    """So the task is not tried again, as a scan's is not."""
    sync_entities(shop.context)
    shop.control.fault(Fault("status", resource=resource, status=status, times=None))
    shop.control.reset_counters()
    with pytest.raises(NeedsPerson, match=f"answered {status}: .*Check the .*token of connection 'repairshopr'"):
        sync_entities(shop.context)
    assert shop.control.counters().total(f"GET {resource or 'payments'}") == 1


@pytest.mark.drill("right-lost")
def test_one_failing_entity_holds_up_no_other(shop, conn):
    shop.control.fault(Fault("status", resource="payments", status=500, times=None))
    with pytest.raises(SyncFailed, match=r"repairshopr was not synced completely.*payments.*clear this task"):
        sync_entities(shop.context)
    assert live_ids(conn, "payments") == []
    assert live_ids(conn, "tickets") == shop.control.ids("tickets")
    state, error, *traffic = conn.execute(
        "SELECT state, error, requests, request_errors FROM confidence.sync_log"
    ).fetchone()
    # Three attempts at the one list.
    assert (state, traffic) == ("failed", [shop.context.client.requests_sent, 3])
    assert error.startswith("repairshopr was not synced completely. payments: ")
    shop.control.clear()
    sync_entities(shop.context)
    assert live_ids(conn, "payments") == shop.control.ids("payments")


def test_stopped_writer_refuses_the_sync(shop, conn):
    fence.stop(conn, "repairshopr", "repairshopr_reconcile/x", timeout=1)
    with pytest.raises(fence.FenceError, match="stopped by repairshopr_reconcile/x"):
        sync_entities(shop.context)


@pytest.mark.drill("killed-sync")
@pytest.mark.parametrize("page", range(1, 6))
def test_first_load_cut_off_at_any_page_goes_on_there(shop, conn, page):
    shop.control.fault(Fault("status", resource="invoices", page=page, status=401))
    with pytest.raises(SyncFailed):
        sync_entities(shop.context)
    shop.control.reset_counters()
    sync_entities(shop.context)
    assert live_ids(conn, "invoices") == shop.control.ids("invoices")


def test_children_that_were_read_before_their_parents_lose_no_change_between(shop, conn):
    """The first load of the invoices failed for hours, that of their lines did not."""
    shop.control.fault(Fault("status", resource="invoices", status=403, times=None))
    with pytest.raises(SyncFailed):
        sync_entities(shop.context)
    shop.control.clear()
    invoice = shop.control.ids("invoices")[3]
    [line] = shop.control.mutate(Mutation("insert", "line_items", row={"invoice_id": invoice}))
    at = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    for name, changed in (("invoices", invoice), ("line_items", line)):
        rows = [row | ({"updated_at": at} if row["id"] == changed else {}) for row in shop.control.rows(name)]
        shop.control.load(name, rows)
    conn.execute("UPDATE confidence.sync_state SET watermark = now() - interval '5 hours' WHERE entity = 'line_items'")
    shop.control.reset_counters()
    sync_entities(shop.context)
    assert line in live_ids(conn, "line_items")
    # The lines of the other invoices have been read with the list of all.
    assert shop.control.counters().total("GET line_items") == 1


def test_first_load_of_children_that_takes_several_syncs_loses_no_change(shop, conn):
    """Its first page is three hours old, and the line on it has changed two hours ago."""
    shop.control.fault(Fault("status", resource="line_items", page=2, status=403, times=None))
    with pytest.raises(SyncFailed):
        sync_entities(shop.context)
    conn.execute("UPDATE staging.pull SET source_time = now() - interval '3 hours' WHERE entity = 'line_items'")
    conn.execute("UPDATE confidence.sync_state SET watermark = now() - interval '3 hours' WHERE entity = 'invoices'")
    line = min((row for row in shop.control.rows("line_items") if row["invoice_id"]), key=lambda row: row["id"])
    at = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    for name, id_, news in (("invoices", line["invoice_id"], {}), ("line_items", line["id"], {"name": "changed"})):
        news = {**news, "updated_at": at}
        rows = [row | (news if row["id"] == id_ else {}) for row in shop.control.rows(name)]
        shop.control.load(name, rows)
    for _ in range(2):
        with pytest.raises(SyncFailed):
            sync_entities(shop.context)
    shop.control.clear()
    for _ in range(2):
        sync_entities(shop.context)
    query = "SELECT name FROM repairshopr.line_items WHERE id = %s"
    assert conn.execute(query, [line["id"]]).fetchone() == ("changed",)


def test_reset_watermarks_spares_what_was_never_synced(shop, conn):
    shop.control.fault(Fault("status", resource="payments", status=401, times=None))
    with pytest.raises(SyncFailed):
        sync_entities(shop.context)
    shop.control.clear()
    fence.stop(conn, "repairshopr", shop.context.run, timeout=1)
    reset_watermarks(shop.context)
    fence.resume(conn, "repairshopr", shop.context.run)
    sync_entities(shop.context)
    assert live_ids(conn, "payments") == shop.control.ids("payments")
