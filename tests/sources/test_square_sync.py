"""The mirror of a simulated seller: first load, changes of every kind, and what the vendor's lists do not tell."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from include.confidence import unproven
from include.simulators.square import Fault, Mutation
from include.sources.base import SyncFailed, entity_of
from include.sources.mirror import repair as repairing
from include.sources.mirror import second_look
from include.sources.mirror.repair import repair_entities, verify_repair
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from include.sources.square import SOURCE
from include.warehouse import fence, sync_log
from include.warehouse.merge import Merged
from include.warehouse.rollback import roll_back
from include.warehouse.table_rollback import Tables

from .square import RUN, TABLES, Seller, contents, everything, rows, selling
from .twisted import Twisted, twisted

SMALL = {"locations": 3, "categories": 4, "items": 14, "variations": 20, "vendors": 3, "orders": 60, "line_items": 200}
# The seller's kinds of rows and the tables in which they are.
KINDS = {
    "locations": "locations",
    "vendors": "vendors",
    "categories": "catalog_categories",
    "items": "catalog_items",
    "variations": "catalog_variations",
    "orders": "orders",
    "payments": "payments",
    "refunds": "order_refunds",
}


@pytest.fixture
def seller(conn) -> Iterator[Seller]:
    with selling(conn, **SMALL) as seller:
        yield seller


@pytest.fixture
def synced(seller) -> Seller:
    """A seller whose mirror has had its first load, some hours ago."""
    sync_entities(seller.context)
    seller.control.advance(6 * 3600)
    return seller


def changed(before, after):
    """The keys that differ, by table."""
    differing = {
        name: {key for key in before[name].keys() | after[name].keys() if before[name].get(key) != after[name].get(key)}
        for name in TABLES
    }
    return {name: keys for name, keys in differing.items() if keys}


def change(seller, *mutations):
    """Carry out the mutations and sync; return their ids and what became otherwise in the mirror."""
    before = contents(seller.context.conn)
    ids = seller.control.mutate(*mutations)
    sync_entities(seller.context)
    return ids, changed(before, contents(seller.context.conn))


def scanned(seller, name):
    writer = fence.stop(seller.context.conn, SOURCE.name, RUN, timeout=1)
    return scan_entity(seller.context, entity_of(SOURCE, name), writer.epoch, Scope())


def drift(summary):
    """The figures of a scan that are not zero, sizes aside; payments taken offline are in both of their lists."""
    sizes = ("api_rows", "api_unique_ids", "db_tot", "api_duplicate_rows")
    fields = ("fields", "declared_fields")
    return {k: v for k, v in summary.metrics.items() if v and k not in fields and not k.startswith(sizes)}


def test_first_sync_brings_every_record(seller, conn):
    sync_entities(seller.context)
    control = seller.control
    for kind, table in KINDS.items():
        assert sorted(rows(conn, table)) == control.ids(kind)
    counts = {tuple(id_.split(":")) for id_ in control.ids("counts")}
    assert {(o, p, s) for o, p, s, _ in rows(conn, "inventory_counts")} == counts
    assert set(rows(conn, "catalog_inventory")) == {(o, p) for o, p, s in counts if s == "IN_STOCK"}
    orders = [control.row("orders", id_) for id_ in control.ids("orders")]
    for name, table in (
        ("line_items", "order_line_items"),
        ("fulfillments", "order_fulfillments"),
        ("returns", "order_returns"),
    ):
        expected = {(order["id"], row["uid"]) for order in orders for row in order.get(name, ())}
        assert set(rows(conn, table)) == expected != set()
    assert set(rows(conn, "tenders")) == {tender["id"] for order in orders for tender in order.get("tenders", ())}
    assert sorted(rows(conn, "transactions")) == control.ids("orders")
    assert conn.execute("SELECT count(*) FROM confidence.quarantine").fetchone() == (0,)


def test_first_load_ends_although_rows_stay_unproven(seller, conn):
    """Two orders show one tender, and nobody ever knows whose it is: all others are brought, and scans can begin."""
    paid = [row for id_ in seller.control.ids("orders") if (row := seller.control.row("orders", id_)).get("tenders")]
    one, other = paid[:2]

    def lie(request, data):
        if "orders" not in data:
            return data
        taken = {"tenders": one["tenders"]}
        return data | {"orders": [row | taken if row["id"] == other["id"] else row for row in data["orders"]]}

    with twisted(seller.context, lie) as context:
        with pytest.raises(SyncFailed, match="not proven and were not written"):
            sync_entities(context)
        first = {datetime.fromisoformat(row["updated_at"]) for row in (one, other)}
        assert sync_log.oldest_watermark(conn, SOURCE.name, "orders") == min(first)
        assert sorted(rows(conn, "orders")) == sorted({*seller.control.ids("orders")} - {one["id"], other["id"]})
        summary = scanned(replace(seller, context=context), "orders")
    assert (summary.plan.rows, summary.incomplete) == (0, "")
    found = {doubt.key[0] for doubt in unproven.of(conn, SOURCE.name, "orders")}
    assert found == {one["id"], other["id"]}


def test_first_load_does_not_pass_a_record_with_an_unproven_row(synced, conn, monkeypatch):
    """The line is unproven, its order is not: the watermark doesn't pass the order either."""
    lines = {id_: synced.control.row("orders", id_).get("line_items", []) for id_ in synced.control.ids("orders")}
    order, other = [id_ for id_, of_order in lines.items() if len(of_order) > 1][:2]
    synced.control.mutate(Mutation("update", "orders", order, {"line_items": lines[order][1:]}))
    synced.control.advance(3600)
    synced.control.mutate(Mutation("update", "orders", other, {"reference_id": "later"}))
    moments = {id_: datetime.fromisoformat(synced.control.row("orders", id_)["updated_at"]) for id_ in (order, other)}
    assert moments[order] < moments[other]
    conn.execute("UPDATE square.orders SET updated_at = %s WHERE id = %s", [moments[other], other])
    conn.execute("DELETE FROM confidence.sync_state WHERE entity = 'orders'")
    monkeypatch.setattr(second_look, "SECOND_LOOKS", 0)
    with pytest.raises(SyncFailed, match="not proven and were not written"):
        sync_entities(synced.context)
    watermark = sync_log.oldest_watermark(conn, SOURCE.name, "orders")
    assert watermark is None or watermark <= moments[order]


def test_closed_location_has_its_orders_and_payments(seller, conn):
    sync_entities(seller.context)
    (closed,) = (id_ for id_, row in rows(conn, "locations").items() if row["status"] == "INACTIVE")
    for table in ("orders", "payments"):
        assert closed in {row["location_id"] for row in rows(conn, table).values()}


def test_sync_twice_changes_nothing(synced, conn):
    before = contents(conn, live=False)
    entries = conn.execute("SELECT count(*) FROM confidence.change_log").fetchone()
    sync_entities(synced.context)
    assert contents(conn, live=False) == before
    assert conn.execute("SELECT count(*) FROM confidence.change_log").fetchone() == entries


def test_increments_equal_one_first_load(synced, conn, migrated, postgres):
    control = synced.control
    items, orders = control.ids("items"), control.ids("orders")
    paid = [control.row("payments", id_) for id_ in control.ids("payments")]
    refundable = next(p["id"] for p in paid if p["status"] == "COMPLETED" and "refund_ids" not in p)
    control.mutate(
        Mutation("update", "items", items[0], {"name": "Renamed", "is_archived": True}),
        Mutation("delete", "items", items[1]),
        Mutation("delete", "items", items[2], cascade=False),
        Mutation("create", "orders"),
        Mutation("refund", "payments", refundable),
        Mutation("update", "vendors", control.ids("vendors")[0], {"status": "INACTIVE"}),
        Mutation("update", "counts", control.ids("counts")[0], {"quantity": "7.25"}),
    )
    sync_entities(synced.context)
    control.mutate(Mutation("update", "orders", orders[0], {"ticket_name": "Later"}), Mutation("create", "locations"))
    sync_entities(synced.context)
    grown = contents(conn)
    conn.execute("UPDATE confidence.sync_state SET watermark = NULL")
    for table in TABLES.values():
        conn.execute(f"TRUNCATE {table.full_name}")
    sync_entities(synced.context)
    loaded = contents(conn)
    # The history also keeps what the vendor doesn't show any more.
    assert grown.pop("inventory_counts").items() > loaded.pop("inventory_counts").items()
    assert grown == loaded


class TestCatalog:
    def test_renamed_item_reaches_its_row_and_the_sheet(self, synced, conn):
        (item, *_), table = synced.control.ids("items"), "square_item_library_export"
        sold_as = {row["token"] for row in rows(conn, table).values() if row["item_id"] == item}
        _, became = change(synced, Mutation("update", "items", item, {"name": "Renamed"}))
        assert became == {"catalog_items": {item}, table: sold_as}
        assert rows(conn, "catalog_items")[item]["name"] == "Renamed"

    def test_archived_is_not_deleted(self, synced, conn):
        item = synced.control.ids("items")[0]
        change(synced, Mutation("update", "items", item, {"is_archived": True}))
        row = rows(conn, "catalog_items")[item]
        assert (row["is_archived"], row["is_deleted"]) == (True, False)
        assert item in {row["item_id"] for row in rows(conn, "catalog_location_availability").values()}

    @pytest.mark.parametrize("kind", ["categories", "items", "variations"])
    def test_tombstone_is_the_vendors_word(self, synced, conn, kind):
        id_ = synced.control.ids(kind)[0]
        change(synced, Mutation("delete", kind, id_))
        assert rows(conn, KINDS[kind])[id_]["is_deleted"] is True

    @pytest.mark.parametrize("cascade", [True, False])
    def test_variations_fall_with_their_item(self, synced, conn, cascade):
        item = synced.control.ids("items")[0]
        mine = {id_ for id_, row in rows(conn, "catalog_variations").items() if row["item_id"] == item}
        infos = {id_ for id_, row in rows(conn, "catalog_vendor_info").items() if row["variation_id"] in mine}
        places = {key for key in rows(conn, "catalog_location_availability") if key[0] == item}
        _, became = change(synced, Mutation("delete", "items", item, cascade=cascade))
        assert infos
        assert set(became.pop("catalog_vendor_info")) == infos
        assert became == {
            "catalog_items": {item},
            "catalog_variations": mine,
            "catalog_location_availability": places,
            "square_item_library_export": mine,
        }
        # Those that have a tombstone of their own show it, the others are gone.
        assert mine & set(rows(conn, "catalog_variations")) == (mine if cascade else set())

    def test_fallen_variation_that_is_still_listed_stays_fallen(self, synced, conn):
        """Whatever the list shows, and without an entry at each sync. A scan asks the source about the item first."""
        item = synced.control.ids("items")[0]
        mine = {id_ for id_, row in rows(conn, "catalog_variations").items() if row["item_id"] == item}
        # As by a sync that ended before it came to the variations.
        cut_off = sync_log.begin(conn, "square", "sync", "square_sync/cut off")
        query = "UPDATE square.catalog_items SET (is_deleted, version, sync_id) = (true, version + 1, %s) WHERE id = %s"
        conn.execute(query, [cut_off, item])
        sync_log.finish(conn, cut_off, {}, error=RuntimeError("cut off"))
        first, _ = sync_entities(synced.context)
        assert not mine & set(rows(conn, "catalog_variations"))
        query = "SELECT count(*) FROM confidence.change_log WHERE sync_id = %s AND table_name ~ 'variations'"
        assert conn.execute(query, [first]).fetchone() == (len(mine),)
        again, _ = sync_entities(synced.context)
        synced.control.mutate(*(Mutation("update", "variations", id_, {"name": "Still here"}) for id_ in mine))
        later, _ = sync_entities(synced.context)
        assert [conn.execute(query, [id_]).fetchone()[0] for id_ in (again, later)] == [0, 0]
        assert drift(scanned(synced, "catalog_variations"))["confirmed_missing"] == len(mine)

    def test_changed_and_fallen_at_once_is_one_change_and_is_rolled_back(self, synced, conn):
        item = synced.control.ids("items")[0]
        mine = [id_ for id_, row in rows(conn, "catalog_variations").items() if row["item_id"] == item]
        before = everything(conn)
        synced.control.mutate(
            *(Mutation("update", "variations", id_, {"name": "Changed"}) for id_ in mine),
            Mutation("delete", "items", item, cascade=False),
            Mutation("create", "orders"),
        )
        sync_id, _ = sync_entities(synced.context)
        twice = "SELECT key FROM confidence.change_log WHERE sync_id = %s GROUP BY table_name, key HAVING count(*) > 1"
        assert conn.execute(twice, [sync_id]).fetchall() == []
        assert everything(conn) != before
        roll_back(conn, Tables(conn), sync_id, run="t/1", reason="test", dry_run=False)
        assert everything(conn) == before

    def test_newest_version_is_kept_with_the_watermark(self, synced, conn):
        newest = conn.execute("SELECT max(version) FROM square.catalog_variations").fetchone()[0]
        for table in ("catalog_variations", "catalog_vendor_info"):
            assert sync_log.state(conn, "square", table).version == newest > 0

    def test_watermark_is_the_vendors_latest_time(self, synced, conn):
        synced.control.mutate(Mutation("update", "items", synced.control.ids("items")[0], {"name": "Renamed"}))
        sync_entities(synced.context)
        query = "SELECT watermark FROM confidence.sync_state WHERE entity = 'catalog_items'"
        assert (
            conn.execute(query).fetchone()[0].isoformat(timespec="milliseconds").replace("+00:00", "Z")
            == (synced.control.row("items", synced.control.ids("items")[0])["updated_at"])
        )

    def test_older_version_never_overwrites(self, synced, conn):
        """A lagging list shows what it showed before."""
        item = synced.control.ids("items")[0]
        conn.execute("UPDATE square.catalog_items SET (name, version) = ('Newer', version + 1) WHERE id = %s", [item])
        sync_entities(synced.context, full=True)
        assert rows(conn, "catalog_items")[item]["name"] == "Newer"


class TestCounts:
    def test_change_is_added_to_the_history_and_replaces_the_stock(self, synced, conn):
        count = next(id_ for id_ in synced.control.ids("counts") if id_.endswith("IN_STOCK"))
        variation, place, state = count.split(":")
        before = rows(conn, "inventory_counts")
        change(synced, Mutation("update", "counts", count, {"quantity": "3.14159"}))
        after = rows(conn, "inventory_counts")
        assert after.items() > before.items()
        assert [key[:3] for key in after.keys() - before.keys()] == [(variation, place, state)]
        quantity = "SELECT quantity::text FROM square.catalog_inventory WHERE (variation_id, location_id) = (%s, %s)"
        assert conn.execute(quantity, [variation, place]).fetchone() == ("3.14159",)

    def test_history_is_corrected_where_a_reading_was_wrong(self, synced, conn):
        count = synced.control.ids("counts")[0]
        synced.control.mutate(Mutation("update", "counts", count, {"quantity": "99"}, silent=True))
        sync_entities(synced.context, full=True)
        kept = [row for key, row in rows(conn, "inventory_counts").items() if ":".join(key[:3]) == count]
        assert [row["quantity"] for row in kept] == [99]
        assert drift(scanned(synced, "inventory_counts")) == {}


class TestOrders:
    def test_new_sale_reaches_all_its_tables(self, synced, conn):
        (order,), became = change(synced, Mutation("create", "orders"))
        lines = {key for key in rows(conn, "order_line_items") if key[0] == order}
        tenders = {id_ for id_, row in rows(conn, "tenders").items() if row["order_id"] == order}
        payments = {id_ for id_, row in rows(conn, "payments").items() if row["order_id"] == order}
        assert became == {
            "orders": {order},
            "order_line_items": lines,
            "tenders": tenders,
            "transactions": {order},
            "payments": payments,
            "square_sales": {order},
        }
        assert lines
        assert tenders == payments != set()

    def test_line_that_vanished_is_gone(self, synced, conn):
        order = next(o for o in synced.control.ids("orders") if len(synced.control.row("orders", o)["line_items"]) > 1)
        first, *others = synced.control.row("orders", order)["line_items"]
        change(synced, Mutation("update", "orders", order, {"line_items": others}))
        assert {key for key in rows(conn, "order_line_items") if key[0] == order} == {(order, o["uid"]) for o in others}
        assert (order, first["uid"]) in rows(conn, "order_line_items", live=False)

    def test_line_that_vanished_while_the_list_was_read_is_gone(self, synced, conn):
        """The order is the first of two pages: with the line, and later without it."""
        order = next(o for o in synced.control.ids("orders") if len(synced.control.row("orders", o)["line_items"]) > 1)
        others = synced.control.row("orders", order)["line_items"][1:]
        shown = [synced.context.client.get(f"/v2/orders/{order}").data["order"]]
        synced.control.mutate(Mutation("update", "orders", order, {"line_items": others}))
        shown.append(synced.context.client.get(f"/v2/orders/{order}").data["order"])
        with twisted(synced.context, lambda request, data: data) as context:
            exchange = context.client._exchange

            def two_pages(request):
                if request.path != "/v2/orders/search":
                    return exchange(request)
                page = int(request.body.get("cursor", 0))
                first = {name: value for name, value in request.body.items() if name != "cursor"}
                told = {"orders": [shown[page]]} if page else {"orders": [shown[page]], "cursor": "1"}
                return replace(exchange(replace(request, body=first)), data=told)

            context.client._exchange = two_pages
            sync_entities(context)
        assert {key for key in rows(conn, "order_line_items") if key[0] == order} == {(order, o["uid"]) for o in others}

    @pytest.mark.parametrize("silent", [False, True])
    def test_lines_in_another_order_have_other_places(self, synced, conn, silent):
        """Also if the order has no newer version: then a scan sees it, and a repair would bring it."""
        order = next(o for o in synced.control.ids("orders") if len(synced.control.row("orders", o)["line_items"]) > 1)
        first, *others = synced.control.row("orders", order)["line_items"]
        lines = [*others, first]
        change = Mutation("update", "orders", order, {"line_items": lines}, silent=silent)
        synced.control.mutate(change)
        if silent:
            assert drift(scanned(synced, "orders"))["order_line_items_differing"] == len(lines)
        else:
            sync_entities(synced.context)
            found = {key[1]: row["position"] for key, row in rows(conn, "order_line_items").items() if key[0] == order}
            assert found == {line["uid"]: place for place, line in enumerate(lines, start=1)}

    def test_sale_of_a_till_that_was_offline(self, synced, conn):
        control = synced.control
        control.advance(5 * 86_400)
        sync_entities(synced.context)
        created = (
            conn.execute("SELECT %s::timestamptz - interval '70 hours'", [control.now()]).fetchone()[0].isoformat()
        )
        old = {"created_at": created, "updated_at": created, "closed_at": created}
        (order,) = control.mutate(Mutation("create", "orders", fields=old))
        sync_entities(synced.context)
        assert order in rows(conn, "orders")

    def test_refund_changes_order_and_payment_and_is_no_sale(self, synced, conn):
        payment = next(
            p for p, row in rows(conn, "payments").items() if row["status"] == "COMPLETED" and not row["refund_ids"]
        )
        (refund,), became = change(synced, Mutation("refund", "payments", payment))
        order = rows(conn, "payments")[payment]["order_id"]
        back = rows(conn, "order_refunds")[refund]["order_id"]
        assert became["order_refunds"] == {refund}
        assert became["payments"] == {payment}
        assert became["orders"] == {order, back}
        assert [row["source_order_id"] for key, row in rows(conn, "order_returns").items() if key[0] == back] == [order]
        assert back not in rows(conn, "square_sales")

    def test_fee_that_moves_nothing_else_is_read_while_the_payment_is_young(self, synced, conn):
        (order,) = synced.control.mutate(Mutation("create", "orders"))
        sync_entities(synced.context)
        payment = next(id_ for id_, row in rows(conn, "payments").items() if row["order_id"] == order)
        synced.control.advance(3 * 3600)
        fee = [{"type": "INITIAL", "amount_money": {"amount": 31, "currency": "USD"}}]
        change(synced, Mutation("update", "payments", payment, {"processing_fee": fee}, silent=True))
        assert rows(conn, "payments")[payment]["processing_fee"] == fee

    def test_older_reading_of_an_order_without_a_version(self, synced, conn):
        order = synced.control.ids("orders")[0]
        conn.execute(
            "UPDATE square.orders SET (version, ticket_name, updated_at) = (NULL, 'Newer', updated_at + '1 s')"
            " WHERE id = %s",
            [order],
        )
        sync_entities(synced.context, full=True)
        assert rows(conn, "orders")[order]["ticket_name"] == "Newer"


class TestPartitions:
    def test_new_location_is_read_from_its_beginning(self, synced, conn):
        (place,) = synced.control.mutate(Mutation("create", "locations"))
        old = {"location_id": place, "created_at": "2024-05-01T12:00:00.000Z"}
        (order,) = synced.control.mutate(Mutation("create", "orders", fields=old))
        row = synced.control.row("orders", order)
        synced.control.mutate(
            Mutation("update", "orders", order, {"updated_at": row["created_at"]}, silent=True),
        )
        synced.control.advance(30 * 86_400)
        synced.control.reset_counters()
        sync_entities(synced.context)
        assert order in rows(conn, "orders")
        # Its whole list, and the two windows of the others.
        assert synced.control.counters().requests["POST orders/search"] == {"200": 3}
        query = "SELECT count(DISTINCT watermark), count(*) FROM confidence.sync_state WHERE entity = %s"
        for entity in ("orders", "payments"):
            assert conn.execute(query, [entity]).fetchone() == (1, 4)

    def test_new_location_has_no_later_watermark_than_its_answers(self, synced, conn, monkeypatch):
        (place,) = synced.control.mutate(Mutation("create", "locations"))
        cached = datetime.fromisoformat(synced.control.now()) - timedelta(days=1)
        exchange = Twisted._exchange

        def out_of_a_cache(client, request):
            answer = exchange(client, request)
            return replace(answer, date=cached) if request.params.get("location_id") == place else answer

        monkeypatch.setattr(Twisted, "_exchange", out_of_a_cache)
        query = "SELECT partition = %s, max(watermark) FROM confidence.sync_state WHERE entity = 'payments' GROUP BY 1"
        before = dict(conn.execute(query, [place]))
        with twisted(synced.context, lambda request, data: data) as context:
            sync_entities(context)
        assert dict(conn.execute(query, [place])) == {**before, True: cached}

    def test_more_locations_than_fit_into_a_request(self, conn):
        with selling(conn, **SMALL | {"locations": 12}) as seller:
            sync_entities(seller.context)
            assert sorted(rows(conn, "orders")) == seller.control.ids("orders")
            assert seller.control.counters().requests["POST orders/search"] == {"200": 2}

    def test_failed_location_keeps_its_watermark_and_what_came_is_not_lost(self, synced, conn):
        synced.control.fault(Fault("status", endpoint="orders/search", nth=2, times=None, status=401))
        (order,) = synced.control.mutate(Mutation("create", "orders"))
        with pytest.raises(SyncFailed, match=r"orders: .*401"):
            sync_entities(synced.context)
        assert order not in rows(conn, "orders")
        synced.control.clear()
        synced.control.advance(86_400)
        sync_entities(synced.context)
        assert order in rows(conn, "orders")


class TestScan:
    @pytest.mark.parametrize("entity", [entity.name for entity in SOURCE.entities])
    def test_nothing_drifts_by_itself(self, synced, entity):
        synced.control.mutate(
            Mutation("delete", "items", synced.control.ids("items")[0], cascade=False), Mutation("create", "orders")
        )
        sync_entities(synced.context)
        assert drift(scanned(synced, entity)) == {}

    def test_silent_changes_are_found_and_repaired(self, synced, conn):
        control = synced.control
        variation = control.ids("variations")[0]
        # One that is not paid, whose total can go down with its lines: else the repair would copy wrong sums.
        orders = (control.row("orders", id_) for id_ in control.ids("orders"))
        order = next(row for row in orders if row["state"] == "OPEN" and row.get("line_items"))
        first, *lines = order["line_items"]
        total = {"amount": order["total_money"]["amount"] - first["total_money"]["amount"], "currency": "USD"}
        control.mutate(
            Mutation("update", "variations", variation, {"sku": "SILENT"}, silent=True),
            Mutation("update", "orders", order["id"], {"line_items": lines, "total_money": total}, silent=True),
            Mutation("delete", "variations", control.ids("variations")[1], silent=True),
        )
        sync_entities(synced.context)
        assert rows(conn, "catalog_variations")[variation]["sku"] != "SILENT"
        summaries = [scanned(synced, name) for name in ("catalog_variations", "orders")]
        assert [summary.metrics["confirmed_deleted"] for summary in summaries] == [1, 0]
        assert summaries[1].metrics["order_line_items_surplus"] == 1
        sync_id, _ = repair_entities(synced.context, summaries)
        assert not [check for check in verify_repair(synced.context, summaries, sync_id) if check.worse]
        assert rows(conn, "catalog_variations")[variation]["sku"] == "SILENT"
        assert rows(conn, "square_item_library_export")[variation]["sku"] == "SILENT"
        assert [drift(scanned(synced, name)) for name in ("catalog_variations", "orders")] == [{}, {}]


class TestVerify:
    """A repair is verified in the tables of rows inside a record too."""

    @pytest.fixture
    def found(self, synced, conn):
        """A scan that has found lines which the copy lacks, has otherwise, and has beside those of their order."""
        conn.execute("UPDATE square.order_line_items SET name = 'by hand' WHERE position = 1")
        conn.execute("DELETE FROM square.order_line_items WHERE position = 2")
        conn.execute("UPDATE square.order_line_items SET uid = 'surplus' WHERE position = 3")
        summary = scanned(synced, "orders")
        assert min(summary.metrics[f"order_line_items_{what}"] for what in ("missing", "differing", "surplus")) > 0
        return summary

    def open_changes(self, synced, summary, sync_id):
        (check,) = [c for c in verify_repair(synced.context, [summary], sync_id) if c.figure == "planned_changes_open"]
        return check.after

    def test_sees_lines_that_a_repair_left_out(self, synced, found, monkeypatch):
        apply = repairing.apply_plan

        def without_lines(conn, table, *how):
            return Merged() if table.name == "order_line_items" else apply(conn, table, *how)

        monkeypatch.setattr(repairing, "apply_plan", without_lines)
        sync_id, _ = repair_entities(synced.context, [found])
        assert self.open_changes(synced, found, sync_id) == found.plan.rows

    def test_sees_a_line_that_was_written_otherwise(self, synced, conn, found):
        sync_id, _ = repair_entities(synced.context, [found])
        checks = verify_repair(synced.context, [found], sync_id)
        assert [check for check in checks if check.worse] == []
        conn.execute("UPDATE square.order_line_items SET name = 'by mistake' WHERE position = 2")
        assert self.open_changes(synced, found, sync_id) > 0
        (unlike,) = [c for c in verify_repair(synced.context, [found], sync_id) if c.figure.startswith("repaired")]
        assert unlike.worse
