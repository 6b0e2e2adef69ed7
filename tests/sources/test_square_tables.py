"""Square's shapes: how each record becomes a row, what is asked for, and what is computed from the rows."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from psycopg import sql

from include.api.errors import RefuseData
from include.sources.base import entity_of
from include.sources.square import SOURCE, tables
from include.warehouse.table import RowRefused

from .square import MIRRORED, TABLES, filled, put

START, END = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 13, tzinfo=UTC)


def usd(amount):
    return {"amount": amount, "currency": "USD"}


def item(id_="I1", **data):
    outside = {name: data.pop(name) for name in list(data) if name.startswith(("is_del", "present", "absent"))}
    return {"type": "ITEM", "id": id_, "version": 1, "is_deleted": False, **outside, "item_data": {"name": id_} | data}


def variation(id_="V1", of="I1", **data):
    outside = {name: data.pop(name) for name in list(data) if name.startswith(("is_del", "present", "absent"))}
    own = {"item_id": of, "name": id_, "price_money": usd(499)} | data
    return {"type": "ITEM_VARIATION", "id": id_, "version": 1, **outside, "item_variation_data": own}


INFO = {
    "id": "B1",
    "type": "ITEM_VARIATION_VENDOR_INFO",
    "version": 3,
    "item_variation_vendor_info_data": {"vendor_id": "S1", "ordinal": 0, "sku": "S-1", "price_money": usd(200)},
}
LINE = {
    "uid": "u1",
    "name": "Sparkler",
    "quantity": "2.5",
    "catalog_object_id": "V1",
    "catalog_version": 1767225600123,
    "base_price_money": usd(499),
    "total_money": usd(1248),
}
ORDER = {
    "id": "O1",
    "location_id": "L1",
    "state": "COMPLETED",
    "version": 4,
    "created_at": "2026-03-02T18:00:00.000Z",
    "updated_at": "2026-03-02T18:04:10.512Z",
    "metadata": {"till": "2"},
    "line_items": [LINE],
    "fulfillments": [{"uid": "f1", "type": "PICKUP", "state": "PROPOSED", "pickup_details": {"note": "back door"}}],
    "returns": [{"uid": "r1", "source_order_id": "O0", "return_amounts": {"total_money": usd(5)}}],
    "tenders": [{"id": "T1", "type": "CARD", "amount_money": usd(1248), "tip_money": usd(0), "payment_id": "T1"}],
    "total_money": usd(1248),
    "rounding_adjustment": {"amount_money": usd(-1)},
}


def read(table, record):
    """The row as a dict, without what is null or only there because the table requires it."""
    declared = MIRRORED[table]
    row = dict(zip(declared.names, declared.row(filled(declared, record)), strict=True))
    added = declared.required if record else ()
    return {name: row[name] for name in row if row[name] is not None and (name in record or name not in added)}


def inside(entity, table, record):
    """The rows of a part inside a record."""
    (part,) = (part for part in entity_of(SOURCE, entity).parts if part.table.name == table)
    return [read(table, row) for row in part.rows(record)]


@pytest.mark.parametrize("name", TABLES)
def test_declaration_and_migration_agree(conn, name):
    table = TABLES[name]
    found = conn.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'square'"
        " AND table_name = %s",
        [name],
    ).fetchall()
    assert {column for column, _ in found} == {*table.names, "row_hash", "deleted_at", "sync_id"}
    assert len(set(table.names)) == len(table.names)
    key = conn.execute(
        "SELECT array_agg(attname::text ORDER BY array_position(indkey::int2[], attnum)) FROM pg_index JOIN"
        " pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) WHERE indisprimary AND indrelid = %s::regclass",
        [table.full_name],
    ).fetchone()[0]
    assert tuple(key) == table.key


def test_twenty_tables_and_one_of_ours(conn):
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'square'"
    assert {name for (name,) in conn.execute(query)} == {*TABLES, "operating_seasons"}
    assert len(TABLES) == 19


class TestRows:
    def test_location(self):
        record = {"id": "L1", "name": "Main", "status": "INACTIVE", "coordinates": {"latitude": Decimal("45.52")}}
        assert read("locations", record) == record | {"coordinates": '{"latitude":45.52}'}

    def test_vendor(self):
        record = {"id": "S1", "version": 2, "status": "INACTIVE", "contacts": [{"name": "Ada"}]}
        assert read("vendors", record) == record | {"contacts": '[{"name":"Ada"}]'}

    def test_category(self):
        record = {"id": "C1", "version": 1, "category_data": {"name": "Tea", "parent_category": {"id": "C0"}}}
        assert read("catalog_categories", record) == {
            "id": "C1",
            "version": 1,
            "name": "Tea",
            "parent_category_id": "C0",
        }

    def test_item_archived_and_not_deleted(self):
        row = read("catalog_items", item(is_archived=True, reporting_category={"id": "C1"}, tax_ids=["X"]))
        assert (row["is_archived"], row["is_deleted"], row["reporting_category_id"]) == (True, False, "C1")
        assert row["tax_ids"] == '["X"]'

    def test_custom_attributes_stand_beside_the_data(self):
        values = {"shelf": {"string_value": "S1"}}
        record = item(modifier_list_info=[{"modifier_list_id": "M1"}]) | {"custom_attribute_values": values}
        row = read("catalog_items", record)
        assert row["custom_attribute_values"] == '{"shelf":{"string_value":"S1"}}'
        assert (row["modifier_list_info"], row.get("extra")) == ('[{"modifier_list_id":"M1"}]', None)

    def test_variation(self):
        row = read("catalog_variations", variation(default_unit_cost=usd(10), location_overrides=[]))
        assert (row["item_id"], row["price_money"], row["price_currency"]) == ("I1", 499, "USD")
        assert (row["default_unit_cost"], row["location_overrides"]) == (10, "[]")

    def test_tombstone_without_data_has_nothing_else(self):
        tombstone = {"id": "V1", "version": 9, "is_deleted": True, "updated_at": "2026-01-01T00:00:00Z"}
        row = read("catalog_variations", tombstone)
        assert row == tombstone | {"updated_at": datetime(2026, 1, 1, tzinfo=UTC)}
        assert inside("catalog_variations", "catalog_vendor_info", tombstone) == []

    def test_tombstone_with_data_keeps_it_but_no_vendor_infos(self):
        tombstone = variation(is_deleted=True, item_variation_vendor_infos=[INFO])
        assert read("catalog_variations", tombstone)["price_money"] == 499
        assert inside("catalog_variations", "catalog_vendor_info", tombstone) == []

    def test_vendor_info(self):
        (row,) = inside("catalog_variations", "catalog_vendor_info", variation(item_variation_vendor_infos=[INFO]))
        assert row == {
            "id": "B1",
            "variation_id": "V1",
            "vendor_id": "S1",
            "ordinal": 0,
            "sku": "S-1",
            "price_money": 200,
            "price_currency": "USD",
            "version": 3,
        }

    @pytest.mark.parametrize(
        "override",
        [
            "everywhere",
            {"sold_out": True},
            {"location_id": "L1", "sold_out": "perhaps"},
            {"location_id": "L1", "sold_out_valid_until": "tomorrow"},
            {"location_id": "L1", "price_money": 5},
            {"location_id": "L1", "price_money": {"amount": Decimal("4.99")}},
            {"location_id": "L1", "inventory_alert_threshold": "few"},
            # Python reads these, and Postgres does not.
            {"location_id": "L1", "sold_out_valid_until": "2026-01-01T10Z"},
            {"location_id": "L1", "sold_out_valid_until": "2026-01-01T10:00:00,5Z"},
            {"location_id": "L1", "sold_out_valid_until": "2026-W01-1T00:00:00Z"},
            {"location_id": "L1", "sold_out_valid_until": "2026-01-01T00:00:00+16:00"},
            {"location_id": "L1", "inventory_alert_threshold": "\uff11\uff12"},
            {"location_id": "L1", "price_money": {"amount": "\uff11\uff12"}},
        ],
    )
    def test_override_that_nothing_can_be_computed_from_is_refused(self, override):
        with pytest.raises(RowRefused, match=r"^location_overrides "):
            read("catalog_variations", variation(location_overrides=[override]))

    def test_counts_keep_every_state_and_every_decimal(self):
        count = {"catalog_object_id": "V1", "location_id": "L1", "quantity": "12.50001", "state": "WASTE"}
        count |= {"calculated_at": "2026-01-01T00:00:00Z"}
        assert read("catalog_inventory", count)["quantity"] == Decimal("12.50001")
        assert read("catalog_inventory", count)["variation_id"] == "V1"
        assert tables.INVENTORY_COUNTS.key_of(count) == ("V1", "L1", "WASTE", datetime(2026, 1, 1, tzinfo=UTC))

    def test_order(self):
        row = read("orders", ORDER)
        assert (row["total_money"], row["currency"], row["rounding_adjustment_money"]) == (1248, "USD", -1)
        assert (row["order_metadata"], row["version"]) == ('{"till":"2"}', 4)

    def test_inside_an_order(self):
        (line,) = inside("orders", "order_line_items", ORDER)
        assert (line["order_id"], line["uid"], line["quantity"], line["total_money"]) == (
            "O1",
            "u1",
            Decimal("2.5"),
            1248,
        )
        (fulfillment,) = inside("orders", "order_fulfillments", ORDER)
        assert (fulfillment["order_id"], fulfillment["details"]) == ("O1", '{"note":"back door"}')
        (back,) = inside("orders", "order_returns", ORDER)
        assert (back["order_id"], back["uid"], back["source_order_id"]) == ("O1", "r1", "O0")
        (tender,) = inside("orders", "tenders", ORDER)
        assert (tender["id"], tender["order_id"], tender["amount_money"], tender["currency"]) == (
            "T1",
            "O1",
            1248,
            "USD",
        )
        (transaction,) = inside("orders", "transactions", ORDER)
        assert transaction == {
            "id": "O1",
            "location_id": "L1",
            "created_at": datetime(2026, 3, 2, 18, tzinfo=UTC),
        }

    def test_details_of_two_names_are_both_kept(self):
        both = [{**ORDER["fulfillments"][0], "details": "at the counter"}]
        (row,) = inside("orders", "order_fulfillments", ORDER | {"fulfillments": both})
        assert (row["details"], row["extra"]) == ('"at the counter"', '{"pickup_details":{"note":"back door"}}')

    def test_lines_know_their_place_in_the_order(self):
        lines = [{**LINE, "uid": uid} for uid in ("u7", "u2", "u5")]
        found = inside("orders", "order_line_items", ORDER | {"line_items": lines})
        assert [(line["uid"], line["position"]) for line in found] == [("u7", 1), ("u2", 2), ("u5", 3)]

    def test_line_ids_are_unique_only_inside_their_order(self):
        keys = {tables.ORDER_LINE_ITEMS.key_of({**LINE, "order_id": order}) for order in ("O1", "O2")}
        assert len(keys) == 2

    def test_lists_that_the_vendor_leaves_out_are_empty(self):
        for name in ("order_line_items", "order_fulfillments", "order_returns", "tenders"):
            assert inside("orders", name, {"id": "O1"}) == []

    @pytest.mark.parametrize(
        "rest",
        [
            {"total_money": usd(0)},
            {"total_money": None},
            {"total_money": usd(300), "service_charges": [{"total_money": usd(200)}], "total_tip_money": usd(100)},
            {"total_money": usd(-1), "rounding_adjustment": {"amount_money": usd(-1)}},
            {"total_money": usd(500), "returns": [{"uid": "r1"}]},
        ],
    )
    def test_order_may_have_no_lines(self, rest):
        assert inside("orders", "order_line_items", {"id": "O1", "state": "COMPLETED", **rest}) == []

    @pytest.mark.parametrize("lines", [{}, {"line_items": []}, {"line_items": None}])
    def test_order_without_the_lines_that_its_total_has_is_no_whole_order(self, lines):
        """Custom amounts are lines too."""
        order = {"id": "O1", "total_money": usd(300), "total_tip_money": usd(100), **lines}
        with pytest.raises(RefuseData, match="no line items, though its total says"):
            inside("orders", "order_line_items", order)

    @pytest.mark.parametrize("name", MIRRORED)
    def test_what_every_record_has_is_required(self, name):
        table = MIRRORED[name]
        record = {c.field or c.name: "2026-01-01T00:00:00Z" for c in table.columns if c.name in table.key}
        table.row(filled(table, record))
        for missing in table.required:
            with pytest.raises(RowRefused, match=f"^{missing} is missing"):
                table.row(filled(table, record) | {missing: None})

    def test_list_of_another_shape_is_refused(self):
        with pytest.raises(RefuseData, match="'line_items' of order_id O1 is no list of objects"):
            inside("orders", "order_line_items", ORDER | {"line_items": {"u1": LINE}})

    @pytest.mark.parametrize("name", ["line_items", "fulfillments", "returns", "tenders"])
    @pytest.mark.parametrize("value", [{}, "", 0, False, "u1", [7]])
    def test_what_is_no_list_is_not_an_empty_one(self, name, value):
        table = {"line_items": "order_line_items", "tenders": "tenders"}.get(name, f"order_{name}")
        with pytest.raises(RefuseData, match=f"'{name}' of order_id O1 is no list of objects"):
            inside("orders", table, {"id": "O1", name: value})

    def test_payment_and_refund(self):
        payment = {"id": "P1", "order_id": "O1", "amount_money": usd(10), "processing_fee": [{"type": "INITIAL"}]}
        assert read("payments", payment) == {
            "id": "P1",
            "order_id": "O1",
            "amount_money": 10,
            "currency": "USD",
            "processing_fee": '[{"type":"INITIAL"}]',
        }
        refund = {"id": "R1", "payment_id": "P1", "amount_money": usd(3), "status": "PENDING", "unlinked": False}
        assert read("order_refunds", refund)["amount_money"] == 3

    @pytest.mark.parametrize("name", MIRRORED)
    @pytest.mark.parametrize("value", [None, "", " ", 7])
    def test_what_names_nothing_is_refused(self, name, value):
        table = MIRRORED[name]
        first, *others = (column for column in table.columns if column.name in table.key)
        rest = {column.name: "2026-01-01T00:00:00Z" for column in others}
        with pytest.raises(RowRefused, match=f"^{first.name} is no usable id$"):
            table.row({first.field or first.name: value, **rest})


class TestRequests:
    def test_changed_orders(self):
        entity = entity_of(SOURCE, "orders")
        request = entity.changes.request(entity.partitions.request(entity.listing, ("L1", "L2")), START, END)
        assert request.body == {
            "limit": 1000,
            "location_ids": ["L1", "L2"],
            "query": {
                "filter": {
                    "state_filter": {"states": ["OPEN", "COMPLETED", "CANCELED", "DRAFT"]},
                    "date_time_filter": {
                        "updated_at": {"start_at": "2026-03-01T12:00:00.000Z", "end_at": "2026-03-01T13:00:00.000Z"}
                    },
                },
                "sort": {"sort_field": "UPDATED_AT", "sort_order": "ASC"},
            },
        }
        assert entity.partitions.size == 10

    def test_late_orders_reach_back_from_where_the_window_begins(self):
        entity = entity_of(SOURCE, "orders")
        query = entity.changes.late(entity.listing, START, END).body["query"]
        assert query["filter"]["date_time_filter"] == {
            "created_at": {"start_at": "2026-02-25T12:00:00.000Z", "end_at": "2026-03-01T13:00:00.000Z"}
        }
        assert query["sort"]["sort_field"] == "CREATED_AT"

    @pytest.mark.parametrize("name", ["payments", "order_refunds"])
    def test_money_that_moved(self, name):
        entity = entity_of(SOURCE, name)
        assert entity.listing.params["begin_time"] < "2010"
        changed = entity.changes.request(entity.listing, START, END).params
        assert (changed["sort_field"], changed["sort_order"]) == ("UPDATED_AT", "ASC")
        assert changed["updated_at_begin_time"] == "2026-03-01T12:00:00.000Z"
        assert changed["begin_time"] < "2010"
        late = entity.changes.late(entity.listing, START, END).params
        assert (late["begin_time"], late["end_time"]) == ("2026-02-25T12:00:00.000Z", "2026-03-01T13:00:00.000Z")

    def test_times_are_told_in_utc(self):
        entity = entity_of(SOURCE, "catalog_items")
        elsewhere = START.astimezone(ZoneInfo("America/Denver"))
        assert entity.changes.request(entity.listing, elsewhere).body["begin_time"] == "2026-03-01T12:00:00.000000Z"


def computed(conn, name):
    """What the query of a computed table selects, as dicts."""
    (derived,) = (derived for derived in SOURCE.derived if derived.table.name == name)
    cursor = conn.execute(sql.SQL(derived.query))
    return [dict(zip(derived.table.names, row, strict=True)) for row in cursor]


class TestAvailability:
    @pytest.mark.parametrize(
        ("presence", "where"),
        [
            ({}, {"L1", "L2", "L3"}),
            ({"present_at_all_locations": True, "absent_at_location_ids": ["L2"]}, {"L1", "L3"}),
            ({"present_at_all_locations": False, "present_at_location_ids": ["L2"]}, {"L2"}),
            ({"present_at_all_locations": False}, set()),
            ({"is_deleted": True}, set()),
        ],
    )
    def test_presence(self, conn, presence, where):
        put(conn, "locations", {"id": "L1"}, {"id": "L2", "status": "INACTIVE"}, {"id": "L3"}, {"id": "L9"})
        conn.execute("UPDATE square.locations SET deleted_at = now() WHERE id = 'L9'")
        put(conn, "catalog_items", item(is_archived=True, **presence))
        assert {row["location_id"] for row in computed(conn, "catalog_location_availability")} == where

    @pytest.mark.parametrize(
        ("override", "sold_out"),
        [
            ({"sold_out": True}, True),
            ({"sold_out": False}, False),
            ({}, False),
            ({"sold_out": True, "sold_out_valid_until": "2020-01-01T00:00:00Z"}, False),
            ({"sold_out": True, "sold_out_valid_until": "2999-01-01T00:00:00Z"}, True),
            ({"sold_out": True, "sold_out_valid_until": "2020-01-01T00:00:00.123456789+15:59"}, False),
            ({"sold_out": True, "sold_out_valid_until": ""}, True),
        ],
    )
    def test_sold_out_in_one_variation_there(self, conn, override, sold_out):
        put(conn, "locations", {"id": "L1"}, {"id": "L2"})
        put(conn, "catalog_items", item())
        overrides = [{"location_id": "L1", **override}]
        put(conn, "catalog_variations", variation("V1"), variation("V2", location_overrides=overrides))
        rows = computed(conn, "catalog_location_availability")
        assert {row["location_id"]: row["sold_out"] for row in rows} == {"L1": sold_out, "L2": False}

    def test_deleted_variation_makes_nothing_sold_out(self, conn):
        put(conn, "locations", {"id": "L1"})
        put(conn, "catalog_items", item())
        overrides = [{"location_id": "L1", "sold_out": True}]
        put(conn, "catalog_variations", variation(is_deleted=True, location_overrides=overrides))
        assert [row["sold_out"] for row in computed(conn, "catalog_location_availability")] == [False]


class TestSales:
    def order(self, conn, **fields):
        record = ORDER | fields
        put(conn, "orders", record)
        for part in entity_of(SOURCE, "orders").parts:
            put(conn, part.table.name, *part.rows(record))

    def test_sale(self, conn):
        self.order(conn, returns=[], line_items=[LINE, LINE | {"uid": "u2"}])
        assert computed(conn, "square_sales") == [
            {
                "order_id": "O1",
                "location_id": "L1",
                "created_at": datetime(2026, 3, 2, 18, tzinfo=UTC),
                "amount": 1248,
                "currency": "USD",
                "status": "COMPLETED",
                "payment_id": "T1",
                "item_count": 2,
            }
        ]

    @pytest.mark.parametrize("state", ["OPEN", "DRAFT", "CANCELED"])
    def test_only_what_was_completed(self, conn, state):
        self.order(conn, state=state)
        assert computed(conn, "square_sales") == []

    def test_return_is_no_sale_but_an_exchange_is(self, conn):
        self.order(conn, line_items=[])
        self.order(conn, id="O2", tenders=[])
        assert [(row["order_id"], row["payment_id"]) for row in computed(conn, "square_sales")] == [("O2", None)]


class TestItemLibrary:
    def test_row_of_a_variation(self, conn):
        put(
            conn,
            "locations",
            {"id": "L1", "name": "Main"},
            {"id": "L2", "name": "Pop-up"},
            {"id": "L3", "name": "Main"},
        )
        put(conn, "vendors", {"id": "S1", "name": "Maple"})
        categories = [{"id": id_, "category_data": {"name": name}} for id_, name in (("C1", "Tea"), ("C2", "Gifts"))]
        put(conn, "catalog_categories", *categories)
        data = {"categories": [{"id": "C1"}, {"id": "C2"}, {"id": "C9"}], "reporting_category": {"id": "C1"}}
        put(conn, "catalog_items", item(absent_at_location_ids=["L3"], product_type="REGULAR", is_taxable=True, **data))
        override = {"location_id": "L2", "price_money": usd(599), "inventory_alert_type": "LOW_QUANTITY"}
        record = variation(
            sku="A-1",
            upc="012345678905",
            location_overrides=[override | {"inventory_alert_threshold": 5}],
            item_variation_vendor_infos=[INFO],
        )
        put(conn, "catalog_variations", record, variation("V2", is_deleted=True), variation("V3", of="I9"))
        put(conn, "catalog_vendor_info", *entity_of(SOURCE, "catalog_variations").parts[0].rows(record))
        count = {"catalog_object_id": "V1", "location_id": "L1", "quantity": "12.5", "calculated_at": "2026-01-01"}
        put(conn, "catalog_inventory", count)
        (row,) = computed(conn, "square_item_library_export")
        told = {name: value for name, value in row.items() if value is not None}
        places = told.pop("locations")
        assert told == {
            "token": "V1",
            "item_id": "I1",
            "item_name": "I1",
            "variation_name": "V1",
            "sku": "A-1",
            "gtin": "012345678905",
            "categories": "Gifts, Tea",
            "reporting_category": "Tea",
            "item_type": "REGULAR",
            "price": 499,
            "currency": "USD",
            "default_vendor_name": "Maple",
            "default_vendor_code": "S-1",
            "archived": False,
            "stock_alert_enabled": False,
            "taxable": True,
        }
        plain = {"price": 499, "current_quantity": None, "stock_alert_enabled": False, "stock_alert_count": None}
        assert places == {
            "Main L1": plain | {"location_id": "L1", "enabled": True, "current_quantity": 12.5},
            "Pop-up": {
                "location_id": "L2",
                "enabled": True,
                "price": 599,
                "current_quantity": None,
                "stock_alert_enabled": True,
                "stock_alert_count": 5,
            },
            "Main L3": plain | {"location_id": "L3", "enabled": False},
        }

    def test_category_of_old_items(self, conn):
        put(conn, "catalog_categories", {"id": "C1", "category_data": {"name": "Tea"}})
        put(conn, "catalog_items", item(category_id="C1"))
        put(conn, "catalog_variations", variation(pricing_type="VARIABLE_PRICING", price_money=None))
        (row,) = computed(conn, "square_item_library_export")
        assert (row["categories"], row["price"], row["locations"]) == ("Tea", None, {})


def test_overlap_is_longer_than_the_time_between_two_syncs():
    assert SOURCE.lookback > timedelta(minutes=30)
