"""Validation of Square's copy: every check finds what breaks it and nothing else, and a sound copy passes them all."""

from collections.abc import Iterator

import pytest

from include.api.errors import RefuseData
from include.confidence.integrity import Severity
from include.simulators.square import Fault, Mutation
from include.sources.base import IntegrityFailed, ScanRefused, entity_of
from include.sources.mirror.repair import repair_entities, verify_repair
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from include.sources.mirror.validate import validate
from include.sources.square import SOURCE
from include.sources.square.checks import CHECKS
from include.warehouse import fence

from .square import RUN, Seller, everything, put, rows, selling
from .twisted import twisted

SMALL = {"locations": 3, "categories": 4, "items": 14, "variations": 20, "vendors": 3, "orders": 60, "line_items": 200}
EARLY, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
# Of these only 330 cents come on top of the lines: whatever tells that a charge is apportioned, the lines hold it.
CHARGES = [
    {"calculation_phase": "SUBTOTAL_PHASE", "total_money": {"amount": 200, "currency": "USD"}},
    {"calculation_phase": "TOTAL_PHASE", "total_money": {"amount": 100, "currency": "USD"}},
    {"total_money": {"amount": 20, "currency": "USD"}},
    {"calculation_phase": None, "treatment_type": None, "total_money": {"amount": 10, "currency": "USD"}},
    {"treatment_type": "APPORTIONED_TREATMENT", "total_money": {"amount": 50, "currency": "USD"}},
    {"calculation_phase": "APPORTIONED_AMOUNT_PHASE", "total_money": {"amount": 60, "currency": "USD"}},
    {"calculation_phase": "APPORTIONED_PERCENTAGE_PHASE", "total_money": {"amount": 70, "currency": "USD"}},
]


def usd(amount):
    return {"amount": amount, "currency": "USD"}


def put_order(conn, id_, total, *lines, paid=None, state="COMPLETED", **fields):
    """An order, with its lines' totals and one tender for `paid`, or for all of it."""
    put(conn, "orders", {"id": id_, "location_id": "L1", "state": state, "total_money": usd(total), **fields})
    put(conn, "transactions", {"id": id_, "location_id": "L1"})
    for number, amount in enumerate(lines):
        put(conn, "order_line_items", {"order_id": id_, "uid": f"u{number}", "total_money": usd(amount)})
    amount = total if paid is None else paid
    if amount:
        put(conn, "tenders", {"id": f"T-{id_}", "order_id": id_, "amount_money": usd(amount)})


@pytest.fixture
def sound(conn):
    """A copy with one of everything, and with what looks like a violation and is none."""
    put(conn, "locations", {"id": "L1"})
    put(conn, "vendors", {"id": "S1"})
    put(conn, "catalog_categories", {"id": "C1"})
    filed = {"category_id": "C1", "categories": [{"id": "C1"}], "reporting_category": {"id": "C1"}}
    put(conn, "catalog_items", {"id": "I1", "item_data": filed}, {"id": "I2"})
    put(
        conn,
        "catalog_variations",
        {"id": "V1", "item_variation_data": {"item_id": "I1"}},
        {"id": "V2", "is_deleted": True, "item_variation_data": {"item_id": "long gone"}},
    )
    put(
        conn,
        "catalog_vendor_info",
        {"id": "B1", "variation_id": "V1", "item_variation_vendor_info_data": {"vendor_id": "S1"}},
    )
    for variation in ("V1", "V2"):
        here = {"catalog_object_id": variation, "location_id": "L1"}
        put(conn, "catalog_inventory", here | {"quantity": "3.50", "calculated_at": LATER})
        for state, quantity, at in (("IN_STOCK", "3.5", LATER), ("IN_STOCK", "9", EARLY), ("WASTE", "1", LATER)):
            put(conn, "inventory_counts", here | {"state": state, "quantity": quantity, "calculated_at": at})
    put_order(conn, "O1", 1678, 1000, 248, service_charges=CHARGES, total_tip_money=usd(100))
    put_order(conn, "O2", 1247, 1248, rounding_adjustment={"amount_money": usd(-1)})
    put_order(conn, "O3", 500, 500, paid=200)
    put(conn, "order_returns", {"order_id": "O3", "uid": "r1", "source_order_id": "O1"})
    put_order(conn, "O4", 70, 70, paid=0, state="CANCELED")
    put_order(conn, "O5", 90, 90, paid=60, net_amount_due_money=usd(30))
    put(conn, "order_fulfillments", {"order_id": "O1", "uid": "f1"})
    put(conn, "square_sales", {"order_id": "O1"})
    put(conn, "payments", {"id": "P1", "order_id": "O1", "location_id": "L1", "total_money": usd(1678)}, {"id": "P2"})
    for id_, status, amount in (("R1", "COMPLETED", 1000), ("R2", "PENDING", 678), ("R3", "FAILED", 1)):
        refund = {"id": id_, "payment_id": "P1", "order_id": "O3", "status": status, "amount_money": usd(amount)}
        put(conn, "order_refunds", refund)
    put(conn, "payments", {"id": "P9", "order_id": "nowhere", "location_id": "nowhere"})
    conn.execute("UPDATE square.payments SET deleted_at = now() WHERE id = 'P9'")
    return conn


def violations(conn):
    """The failed checks, each with the rows that it names."""
    counted = {name: entity_of(SOURCE, name).forensics for name in {check.entity for check in CHECKS}}
    found = {}
    for check in CHECKS:
        names = [key if len(key) > 1 else key[0] for key in conn.execute(check.query).fetchall()]
        assert counted[check.entity](conn, None)[check.metric] == len(names)
        if names:
            found[check.name] = sorted(names)
    return found


def stray(table, **record):
    return lambda conn: put(conn, table, record)


def order(id_, total, *lines, **fields):
    return lambda conn: put_order(conn, id_, total, *lines, **fields)


def statement(query):
    return lambda conn: conn.execute(query)


def uncounted(conn):
    put(conn, "catalog_inventory", {"catalog_object_id": "VX", "location_id": "L1", "calculated_at": LATER})
    put(
        conn,
        "inventory_counts",
        {"catalog_object_id": "VX", "location_id": "L1", "state": "IN_STOCK", "calculated_at": LATER},
    )


def elsewhere(conn):
    for table, state in (("catalog_inventory", {}), ("inventory_counts", {"state": "IN_STOCK"})):
        place = {"catalog_object_id": "V1", "location_id": "LX", "quantity": "1", "calculated_at": LATER}
        put(conn, table, place | state)


def info(variation, vendor):
    data = {"item_variation_vendor_info_data": {"vendor_id": vendor}}
    return stray("catalog_vendor_info", id="BX", variation_id=variation, **data)


SPOILED = {
    "lines_without_order": (stray("order_line_items", order_id="OX", uid="u1"), [("OX", "u1")]),
    "fulfillments_without_order": (stray("order_fulfillments", order_id="OX", uid="u1"), [("OX", "u1")]),
    "returns_without_order": (stray("order_returns", order_id="OX", uid="u1"), [("OX", "u1")]),
    "returns_of_unknown_order": (
        stray("order_returns", order_id="O4", uid="u1", source_order_id="OX"),
        [("O4", "u1")],
    ),
    "tenders_without_order": (stray("tenders", id="TX", order_id="OX", amount_money=usd(1)), ["TX"]),
    "transactions_without_order": (stray("transactions", id="OX"), ["OX"]),
    "sales_without_order": (stray("square_sales", order_id="OX"), ["OX"]),
    "orders_without_location": (stray("orders", id="OX", location_id="LX"), ["OX"]),
    "payments_without_order": (stray("payments", id="PX", order_id="OX", location_id="L1"), ["PX"]),
    "payments_without_location": (stray("payments", id="PX", order_id="O1", location_id="LX"), ["PX"]),
    "refunds_without_payment": (stray("order_refunds", id="RX", payment_id="PX", order_id="O3"), ["RX"]),
    "refunds_without_order": (stray("order_refunds", id="RX", payment_id="P1", order_id="OX"), ["RX"]),
    "variations_without_item": (statement("UPDATE square.catalog_items SET is_deleted = true WHERE id = 'I1'"), ["V1"]),
    "vendor_infos_without_variation": (info("V2", "S1"), ["BX"]),
    "vendor_infos_without_vendor": (info("V1", "SX"), ["BX"]),
    "items_without_category": (
        statement("""UPDATE square.catalog_items SET categories = '[{"id": "C1"}, {"id": "CX"}]' WHERE id = 'I2'"""),
        ["I2"],
    ),
    "inventory_without_variation": (uncounted, [("VX", "L1")]),
    "inventory_without_location": (elsewhere, [("V1", "LX")]),
    "stock_unlike_counts": (
        statement("UPDATE square.catalog_inventory SET quantity = 9 WHERE variation_id = 'V1'"),
        [("V1", "L1")],
    ),
    "order_totals_unlike_lines": (order("OX", 100, 98, rounding_adjustment={"amount_money": usd(1)}), ["OX"]),
    "tenders_unlike_order_total": (order("OX", 100, 100, paid=99), ["OX"]),
    "refunds_above_payment": (
        statement("UPDATE square.order_refunds SET amount_money = amount_money + 1 WHERE id = 'R2'"),
        ["P1"],
    ),
}


def test_sound_copy_breaks_nothing(sound):
    assert violations(sound) == {}


@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_each_check_names_the_rows_that_break_it_and_no_other_does(sound, name):
    spoil, broken = SPOILED[name]
    spoil(sound)
    assert violations(sound) == {name: broken}


@pytest.mark.parametrize("column", ["category_id", "reporting_category_id"])
def test_item_names_its_category_in_three_ways(sound, column):
    sound.execute(f"UPDATE square.catalog_items SET {column} = 'CX' WHERE id = 'I2'")
    assert violations(sound) == {"items_without_category": ["I2"]}


def test_errors_are_gates_of_their_entity_and_warnings_are_not():
    for check in CHECKS:
        gated = check.metric in {gate.metric for gate in entity_of(SOURCE, check.entity).gates}
        assert gated == (check.severity is Severity.ERROR)


@pytest.fixture
def synced(conn) -> Iterator[Seller]:
    """A seller whose mirror has had its first load, some hours ago."""
    with selling(conn, **SMALL) as seller:
        sync_entities(seller.context)
        seller.control.advance(6 * 3600)
        yield seller


def failed(conn):
    """What the last validation kept of the checks that failed: name -> severity, expected, actual, examples."""
    query = (
        "SELECT name, severity, expected, actual, examples FROM confidence.integrity_check"
        " WHERE run = %s AND source = 'square' AND (expected <> actual OR examples <> '[]')"
        " AND checked_at = (SELECT max(checked_at) FROM confidence.integrity_check)"
    )
    return {name: tuple(found) for name, *found in conn.execute(query, [RUN])}


class TestValidate:
    def test_copy_in_step_passes_every_check_and_nothing_is_written(self, synced, conn):
        before = everything(conn)
        findings = validate(synced.context)
        names = {finding.name for finding in findings}
        mirrored = {table.name for entity in SOURCE.entities for table in entity.tables}
        assert names == (
            {check.name for check in CHECKS}
            | {f"{name}_{what}" for name in mirrored for what in ("count", "unproven")}
            | {f"{entity.name}_sample" for entity in SOURCE.entities}
        )
        assert [str(finding) for finding in findings if finding.failed] == []
        counts = {finding.name: finding.actual for finding in findings}
        assert counts["orders_count"] == 60
        assert counts["order_line_items_count"] == len(rows(conn, "order_line_items"))
        assert everything(conn) == before
        assert failed(conn) == {}
        kept = "SELECT count(*) FROM confidence.integrity_check"
        assert conn.execute(kept).fetchone() == (len(findings),)
        staged = "SELECT count(*) FROM staging.pull"
        assert conn.execute(staged).fetchone() == (0,)

    def test_what_the_next_sync_brings_is_no_failure(self, synced):
        control = synced.control
        control.mutate(
            Mutation("create", "orders"),
            Mutation("update", "items", control.ids("items")[0], {"name": "Renamed"}),
            *(Mutation("update", "orders", id_, {"ticket_name": "Later"}) for id_ in control.ids("orders")),
        )
        assert [str(finding) for finding in validate(synced.context) if finding.failed] == []

    def test_passes_after_changes_of_every_kind(self, synced):
        control = synced.control
        items = control.ids("items")
        paid = [control.row("payments", id_) for id_ in control.ids("payments")]
        refundable = next(p["id"] for p in paid if p["status"] == "COMPLETED" and "refund_ids" not in p)
        control.mutate(
            Mutation("delete", "items", items[1]),
            Mutation("delete", "items", items[2], cascade=False),
            Mutation("create", "orders"),
            Mutation("refund", "payments", refundable, {"amount": 5}),
            Mutation("update", "counts", control.ids("counts")[0], {"quantity": "7.25"}),
        )
        sync_entities(synced.context)
        assert [str(finding) for finding in validate(synced.context) if finding.failed] == []

    def test_missing_and_surplus_rows_are_named_though_the_counts_agree(self, synced, conn):
        gone = synced.control.ids("payments")[0]
        conn.execute("DELETE FROM square.payments WHERE id = %s", [gone])
        # Of a location that nobody knows.
        put(conn, "payments", {"id": "invented", "created_at": EARLY, "updated_at": EARLY})
        with pytest.raises(IntegrityFailed, match=rf"payments_count: expected .*missing {gone}, surplus invented"):
            validate(synced.context)
        total = len(synced.control.ids("payments"))
        assert failed(conn)["payments_count"] == ("error", total, total, [f"missing {gone}", "surplus invented"])

    def test_record_that_can_not_be_stored_is_no_copy_in_step(self, synced, conn):
        """Neither the list nor the copy counts it."""
        refused = synced.control.ids("payments")[0]
        conn.execute("DELETE FROM square.payments WHERE id = %s", [refused])

        def without_status(request, data):
            records = data.get("payments") or [data.get("payment") or {}]
            for record in records:
                if record.get("id") == refused:
                    del record["status"]
            return data

        with twisted(synced.context, without_status) as context, pytest.raises(IntegrityFailed):
            validate(context)
        why = f"{refused}: it is there, but can't be stored: status is missing, which every record has"
        assert failed(conn) == {"payments_unproven": ("error", 0, 1, [why])}

    def test_location_that_is_refused_is_neither_surplus_nor_in_step(self, synced, conn):
        place = synced.control.ids("locations")[0]
        conn.execute("DELETE FROM square.payments WHERE location_id = %s", [place])
        left = len(rows(conn, "payments"))

        def refuse(request, data):
            if request.params.get("location_id") == place or place in (request.body or {}).get("location_ids", ()):
                raise RefuseData("forbidden")
            return data

        with twisted(synced.context, refuse) as context, pytest.raises(IntegrityFailed):
            validate(context)
        found = failed(conn)
        severity, expected, actual, [why] = found["payments_unproven"]
        assert (severity, expected, actual) == ("error", 0, 1)
        assert why.startswith(f"the list of {place}: forbidden")
        orders = [id_ for id_, row in rows(conn, "orders").items() if row["location_id"] == place]
        assert found["orders_unproven"][2] == len(orders) + 1
        assert not {"payments_count", "orders_count"} & found.keys()
        assert len(rows(conn, "payments")) == left

    def test_missing_line_is_counted_and_breaks_the_total(self, synced, conn):
        order = next(o for o in synced.control.ids("orders") if synced.control.row("orders", o).get("line_items"))
        conn.execute("DELETE FROM square.order_line_items WHERE order_id = %s AND uid = 'line-1'", [order])
        with pytest.raises(IntegrityFailed):
            validate(synced.context)
        found = failed(conn)
        assert found["order_line_items_count"][3] == [f"missing {order}/line-1"]
        assert found["order_totals_unlike_lines"] == ("error", 0, 1, [order])

    @pytest.mark.parametrize(
        ("table", "column", "value"),
        [
            ("locations", "name", "'Spoiled'"),
            ("vendors", "contacts", "'[]'"),
            ("catalog_items", "name", "'Spoiled'"),
            ("catalog_inventory", "is_estimated", "NOT coalesce(is_estimated, false)"),
            ("payments", "receipt_number", "'Spoiled'"),
            ("order_refunds", "reason", "'Spoiled'"),
        ],
    )
    def test_spoiled_field_is_found_by_the_sample(self, synced, conn, table, column, value):
        conn.execute(f"UPDATE square.{table} SET {column} = {value}")
        with pytest.raises(IntegrityFailed, match=rf"{table}_sample: expected 0"):
            validate(synced.context)
        (name, (severity, _, actual, examples)) = failed(conn).popitem()
        assert (name, severity) == (f"{table}_sample", "error")
        assert actual == min(20, len(rows(conn, table)))
        assert {example.partition(": ")[2] for example in examples} == {column}

    def test_spoiled_part_is_found_with_its_table(self, synced, conn):
        conn.execute("UPDATE square.order_line_items SET note = 'Spoiled'")
        with pytest.raises(IntegrityFailed, match=r"order_line_items \w+/line-1: note"):
            validate(synced.context)
        assert set(failed(conn)) == {"orders_sample"}

    def test_history_told_otherwise_is_a_warning(self, synced, conn):
        conn.execute("UPDATE square.inventory_counts SET is_estimated = NOT coalesce(is_estimated, false)")
        validate(synced.context)
        assert failed(conn)["inventory_counts_sample"][:3] == ("warning", 0, 20)

    def test_unreachable_source_is_no_finding(self, synced, conn):
        synced.control.fault(Fault("status", endpoint="payments/{id}", times=None, status=503))
        with pytest.raises(Exception, match="503"):
            validate(synced.context)
        assert failed(conn) == {}
        synced.control.clear()
        validate(synced.context)

    def test_refuses_a_copy_that_was_never_filled(self, conn):
        with selling(conn, **SMALL) as seller, pytest.raises(ScanRefused, match=r"never synced.*orders"):
            validate(seller.context)

    def test_is_a_mode_of_the_sync(self, synced, conn):
        done = SOURCE.sync(synced.context, {"mode": "validate"}, dry_run=False)
        kept = conn.execute("SELECT count(*) FROM confidence.integrity_check").fetchone()[0]
        assert (done.sync_id, done.counts, done.result) == (None, {}, {"checks": kept, "warnings": []})


def test_scan_counts_violations(synced, conn):
    put(conn, "tenders", {"id": "TX", "order_id": "OX", "amount_money": usd(1)})
    writer = fence.stop(conn, SOURCE.name, RUN, timeout=1)
    summary = scan_entity(synced.context, entity_of(SOURCE, "orders"), writer.epoch, Scope())
    found = {name: n for name, n in summary.metrics.items() if name.endswith("_violations") and n}
    assert found == {"tenders_without_order_violations": 1}


@pytest.mark.parametrize(("orders", "worse"), [(5, []), (40, ["payments_without_order_violations"])])
def test_verify_bears_what_the_source_breaks_itself_up_to_the_gates_margin(synced, conn, orders, worse):
    """An order that the source has lost leaves its payment behind, there and in a true copy."""
    writer = fence.stop(conn, SOURCE.name, RUN, timeout=1)
    paid = sorted({row["order_id"] for row in rows(conn, "payments").values()})[:orders]
    synced.control.mutate(*(Mutation("delete", "orders", id_, silent=True) for id_ in paid))
    summaries = [
        scan_entity(synced.context, entity_of(SOURCE, name), writer.epoch, Scope()) for name in ("orders", "payments")
    ]
    sync_id, _ = repair_entities(synced.context, summaries)
    checks = verify_repair(synced.context, summaries, sync_id)
    after = {check.figure: check.after for check in checks}
    assert after["payments_without_order_violations"] >= orders
    assert [check.figure for check in checks if check.worse and check.entity == "payments"] == worse


def test_every_check_is_spoiled_once():
    assert {check.name for check in CHECKS} == set(SPOILED)
