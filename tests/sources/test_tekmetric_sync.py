"""The mirror of simulated shops: first load, orders that fail, an expired token, watermarks, and what runs ask for."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from include.api.errors import FixConfiguration
from include.simulators.tekmetric import Fault, Mutation, Shop
from include.sources.base import IntegrityFailed, NeedsPerson, ScanRefused, SyncFailed
from include.sources.mirror.sync import sync_entities
from include.sources.tekmetric import SOURCE
from include.warehouse import retention

from .tekmetric import (
    EAST,
    ITEMS,
    PARAMS,
    SMALL,
    WEST,
    Shops,
    contents,
    elsewhere,
    everything,
    instant,
    job,
    of_order,
    order,
    rows,
    settle,
    trading,
    with_job,
    written,
)


class TestFirstSync:
    def test_brings_every_order_to_the_cent(self, shops, conn):
        """From cents as floats and texts, hours as texts, margins that are "NaN"."""
        with_job(shops)
        shops.control.mutate(Mutation("create", fields={"status": 1, "jobs": [job(authorized=None)]}))
        shops.sync("backfill")
        orders, control = rows(conn, "repair_orders"), shops.control
        assert sorted(id_ for _, id_ in orders) == control.ids()
        for (shop, id_), row in orders.items():
            truth, agreed, whole = control.order(id_), control.profit(id_), control.potential(id_)
            assert shop == truth["shop_id"]
            assert {
                "ro_number": row["ro_number"],
                "status_id": row["status_id"],
                "tm_customer_id": row["tm_customer_id"],
                "tm_vehicle_id": row["tm_vehicle_id"],
                "created": row["created_date"],
                "updated": row["updated_date"],
                "completed": row["completed_at"],
                "posted": row["posted_at"],
                "revenue": row["authorized_revenue"],
                "cost": row["authorized_cost"],
                "profit": row["authorized_profit"],
                "gp": row["authorized_gp_percent"],
                "labor": (row["authorized_labor_revenue"], row["authorized_labor_cost"]),
                "hours": row["authorized_labor_hours"],
                "potential": (row["potential_total"], row["potential_tax"], row["potential_job_count"]),
                "fees": row["fees_total"],
                "authorized": (row["authorized_job_count"], row["authorized_parts_total"]),
            } == {
                "ro_number": truth["number"],
                "status_id": truth["status"],
                "tm_customer_id": truth["customer_id"],
                "tm_vehicle_id": truth["vehicle_id"],
                "created": instant(truth["created"]),
                "updated": instant(truth["updated"]),
                "completed": instant(truth["completed"]),
                "posted": instant(truth["posted"]),
                "revenue": agreed.retail,
                "cost": agreed.cost,
                "profit": agreed.profit,
                "gp": None if agreed.margin is None else agreed.margin * 100,
                "labor": (agreed.labor, agreed.labor_cost),
                "hours": agreed.hours,
                "potential": (whole.total, whole.tax, len(truth["jobs"])),
                "fees": whole.fees + whole.order_fees,
                "authorized": (sum(job["authorized"] is True for job in truth["jobs"]), agreed.parts),
            }, id_

    def test_brings_jobs_and_all_that_is_in_them(self, shops, conn):
        created = with_job(shops)
        shops.sync("backfill")
        for id_ in shops.control.ids():
            truth = shops.control.order(id_)
            assert len(of_order(conn, "jobs", id_)) == len(truth["jobs"])
            for table, name in zip(ITEMS, ("parts", "labor", "sublets", "fees"), strict=True):
                found = sorted((row["tm_job_id"], row["tm_id"] or 0) for row in of_order(conn, table, id_))
                expected = [(job["id"], item.get("id") or 0) for job in truth["jobs"] for item in job[name]]
                assert found == sorted(expected + [(0, 0)] * (len(truth["fees"]) if name == "fees" else 0)), table
        strut = next(row for row in of_order(conn, "job_parts", created) if row["name"] == "Strut")
        assert (strut["quantity"], strut["retail"], strut["cost"]) == (Decimal("2.5"), 15_450, 8_275)
        work = next(row for row in of_order(conn, "job_labor", created) if row["name"] == "Work")
        assert (work["hours"], work["rate"]) == (Decimal("1.25"), 16_500)

    def test_job_that_nobody_has_decided_on_counts_as_not_authorized(self, shops, conn):
        (id_,) = shops.control.mutate(Mutation("create", fields={"status": 1, "jobs": [job(authorized=None)]}))
        shops.sync("backfill")
        assert [row["authorized"] for row in of_order(conn, "jobs", id_)] == [False]
        row = order(conn, id_)
        assert (row["authorized_revenue"], row["authorized_gp_percent"], row["authorized_job_count"]) == (0, None, 0)
        assert row["potential_total"] > 0

    def test_brings_people_and_shops(self, shops, conn):
        shops.sync("backfill")
        for kind in ("employees", "customers", "vehicles"):
            assert sorted(id_ for _, id_ in rows(conn, kind)) == shops.control.ids(kind)
        paid = [row for row in rows(conn, "employees").values() if row["role_name"] == "TECHNICIAN"]
        assert [row["hourly_rate"] for row in paid] == [
            shops.control.row("employees", row["tm_id"])["hourlyRate"] for row in paid
        ]
        assert conn.execute("SELECT tm_id, name, timezone FROM tekmetric.shops ORDER BY 1").fetchall() == [
            (EAST, "JJ AUTO", "America/New_York"),
            (WEST, "Desert Auto", "America/Phoenix"),
        ]
        assert conn.execute("SELECT count(*) FROM confidence.quarantine").fetchone() == (0,)

    @pytest.mark.parametrize("mode", ["incremental", "backfill"])
    def test_once_more_changes_nothing(self, loaded, conn, mode):
        """Items without ids are not inserted once more, and those of one name don't replace each other."""
        with_job(loaded)
        loaded.sync()
        before = contents(conn, live=False)
        entries = conn.execute("SELECT count(*) FROM confidence.change_log").fetchone()
        assert written(loaded.sync(mode)) == 0
        assert contents(conn, live=False) == before
        assert conn.execute("SELECT count(*) FROM confidence.change_log").fetchone() == entries


def refuse(path: str, status: int) -> Callable[[Shops, int], None]:
    return lambda shops, id_: shops.control.fault(Fault("status", path=path.format(id_), status=status, times=None))


def spoil(view: str, **fields: Any) -> Callable[[Shops, int], None]:
    return lambda shops, id_: shops.control.spoil(view, id_, **fields)


BROKEN = {
    "estimate answers 503": refuse("repair-order/{}/estimate", 503),
    "head of a live order answers 404": refuse("shop/*/repair-order/{}", 404),
    "estimate answers 404": refuse("repair-order/{}/estimate", 404),
    "jobs are null though they come to something": spoil("estimate", jobs=None),
    "an amount is none": spoil("estimate", jobs=[{"id": 1, "authorized": True, "total": "much"}]),
}


class TestFailedOrder:
    @pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN)
    def test_holds_back_the_watermark_of_its_shop_and_nothing_else(self, loaded, conn, breaks):
        control = loaded.control
        failing, other = control.ids(shop=EAST)[:2]
        west = control.ids(shop=WEST)[0]
        before = order(conn, failing), of_order(conn, "jobs", failing)
        control.mutate(*(Mutation("update", fields={"paid": 4711}, id=id_) for id_ in (failing, other, west)))
        broken = instant(control.order(failing)["updated"])
        control.advance(600)
        breaks(loaded, failing)
        told = "1 of its records are not proven and were not written"
        with pytest.raises(SyncFailed, match=f"{told}: {EAST}/{failing} "):
            loaded.sync()
        assert (order(conn, other)["amount_paid"], order(conn, west)["amount_paid"]) == (4711, 4711)
        assert (order(conn, failing), of_order(conn, "jobs", failing)) == before
        assert loaded.watermark(EAST) == broken
        assert loaded.watermark(WEST) == instant(control.now())
        control.clear()
        control.spoil("head", failing)
        control.advance(600)
        loaded.sync()
        assert order(conn, failing)["amount_paid"] == 4711
        assert loaded.watermark(EAST) == instant(control.now())

    def test_in_history_is_read_by_the_next_run_however_few_days_it_looks_back(self, conn):
        with trading(conn, now=None, board_limit=0, column_limit=0) as shops:
            control = shops.control
            posted = {
                instant(row["posted"]): id_ for id_ in control.ids(shop=EAST) if (row := control.order(id_))["posted"]
            }
            oldest, failing = min(posted), posted[min(posted)]
            refuse("repair-order/{}/estimate", 503)(shops, failing)
            with pytest.raises(SyncFailed, match=str(failing)):
                shops.sync("backfill")
            assert shops.watermark(EAST) == oldest
            assert shops.watermark(WEST) > oldest
            control.clear()
            shops.sync(days_back=1)
            assert sorted(id_ for _, id_ in rows(conn, "repair_orders")) == sorted(
                id_ for id_ in control.ids() if control.order(id_)["posted"]
            )
            assert shops.watermark(EAST) > oldest

    def test_message_is_one_line_without_what_was_answered(self, loaded):
        failing = loaded.control.ids()[0]
        loaded.control.touch([failing])
        loaded.control.spoil("estimate", failing, jobs="Jane Doe")
        with pytest.raises(SyncFailed) as failed:
            loaded.sync()
        assert "\n" not in str(failed.value)
        assert "Jane" not in str(failed.value)

    def test_brief_without_a_usable_id_is_refused_and_the_others_are_read(self, loaded, conn):
        strange, other = loaded.control.ids()[:2]
        loaded.control.mutate(*(Mutation("update", fields={"paid": 4711}, id=id_) for id_ in (strange, other)))
        loaded.control.spoil("board", strange, id="?")
        loaded.sync()
        assert order(conn, other)["amount_paid"] == 4711
        refused = conn.execute("SELECT DISTINCT entity, reason FROM confidence.quarantine").fetchall()
        assert refused == [("repair_orders", "tm_id is text, and declared as a number")]


class TestTokenExpired:
    def test_in_the_middle_aborts_and_counts_nothing_as_not_found(self, loaded, conn):
        control = loaded.control
        control.touch(control.ids()[:5])
        before = everything(conn)
        for number in (1, 4, 12, 20):
            control.fault(Fault("status", status=401, nth=number, times=None))
            with pytest.raises(SyncFailed, match=r"credentials\. Check the token of connection 'tekmetric'"):
                loaded.sync()
            assert everything(conn) == before
            control.clear()
        assert loaded.sync().counts["repair_orders"].updated == 5

    def test_in_the_middle_of_a_scan_is_no_evidence(self, loaded, conn):
        before = everything(conn)
        control = loaded.control
        for number in (1, 12, 30):
            control.fault(Fault("status", status=401, nth=number, times=None))
            with pytest.raises(FixConfiguration, match="credentials"):
                loaded.scan()
            assert everything(conn) == before
            control.clear()
        assert not any(vars(loaded.scan().plan).values())

    def test_keeps_what_a_backfill_has_read(self, shops, conn):
        """Also if it is tried once more before there is a new token."""
        shops.sync(ro_id=shops.control.ids()[0], shop_id=shops.control.order(shops.control.ids()[0])["shop_id"])
        with suppress(SyncFailed):
            shops.control.fault(Fault("status", path="*/profit/labor", status=401, nth=11, times=None))
            shops.sync("backfill")
        for _ in range(2):
            shops.control.fault(Fault("status", path="*", status=401, times=None))
            with pytest.raises(SyncFailed, match="credentials"):
                shops.sync("backfill")
        shops.control.clear()
        shops.control.reset_counters()
        shops.sync("backfill")
        assert sorted(id_ for _, id_ in rows(conn, "repair_orders")) == shops.control.ids()
        assert 0 < shops.asked("estimate") < SMALL["orders"]


def test_shop_that_is_refused_does_not_make_the_others_be_read_twice(shops, conn):
    # So that nothing is in the lookback.
    shops.control.advance(3_600)
    shops.control.fault(Fault("status", path=f"shop/{WEST}/job-board*", status=403, times=None))
    with pytest.raises(NeedsPerson, match="lack the right"):
        shops.sync("backfill")
    assert shops.asked("estimate") == len(shops.control.ids(shop=EAST))
    shops.control.clear()
    shops.sync()
    assert shops.asked("estimate") == len(shops.control.ids())


class TestWatermark:
    def test_is_read(self, conn):
        """A run looks back to the watermark of each shop, however few days it is asked for."""
        with trading(conn, now=None, board_limit=1) as shops:
            control = shops.control
            shops.sync("backfill")
            old = max(
                (row["posted"], id_)
                for id_ in control.ids(shop=EAST)
                if (row := control.order(id_))["posted"] and row["posted"] < days_ago(10)
            )[1]
            control.mutate(Mutation("update", id=old, fields={"paid": 4711}, silent=True))
            shops.sync(days_back=1)
            assert order(conn, old)["amount_paid"] != 4711
            conn.execute(
                "UPDATE confidence.sync_state SET watermark = %s WHERE entity = 'repair_orders' AND partition = %s",
                [control.order(old)["posted"], str(EAST)],
            )
            control.reset_counters()
            shops.sync(days_back=1)
            assert order(conn, old)["amount_paid"] == 4711
            assert shops.asked("report") == 1

    def test_change_at_its_very_moment_or_a_little_before_is_not_lost(self, loaded, conn):
        control = loaded.control
        first, second, third = control.ids()[:3]
        seen = loaded.watermark(EAST)
        for id_, moment in ((first, seen), (second, seen), (third, seen - timedelta(minutes=5))):
            updated = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
            control.mutate(Mutation("update", id=id_, fields={"paid": 4711, "updated": updated}))
        loaded.sync()
        assert [order(conn, id_)["amount_paid"] for id_ in (first, second, third)] == [4711] * 3

    def test_is_the_vendors_clock_when_the_run_began(self, loaded):
        began = instant(loaded.control.now())
        loaded.control.before("*estimate", 1, Mutation("update", "orders", loaded.control.ids(shop=WEST)[-1]))
        loaded.control.touch(loaded.control.ids()[:1])
        loaded.sync()
        assert began <= loaded.watermark(EAST) <= began + timedelta(seconds=1)

    def test_new_shop_is_read_at_once(self, shops, conn):
        shops.sync("backfill", shop_id=EAST)
        assert {shop for shop, _ in rows(conn, "customers")} == {EAST}
        shops.sync()
        for kind in ("employees", "customers", "vehicles"):
            assert sorted(id_ for _, id_ in rows(conn, kind)) == shops.control.ids(kind)


def days_ago(days: int) -> str:
    return f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"


class TestBackfill:
    def test_cut_off_at_any_request_ends_as_an_undisturbed_one(self, conn):
        """Of history by the report, page by page."""

        def backfill() -> None:
            with SOURCE.open(conn, shops.run, shops) as context:
                sync_entities(replace(context, params=PARAMS), full=True, only="repair_orders")

        lone = {"shops": (Shop(EAST, "JJ AUTO", "America/New_York"),), "orders": 2, "customers": 1, "employees": 1}
        with trading(conn, **lone, list_size=1, board_limit=1) as shops:
            shops.sync("backfill", limit=1)
            shops.control.reset_counters()
            backfill()
            asked, expected = shops.asked(), contents(conn)
            assert (shops.asked("report") > 1, len(expected["repair_orders"])) == (True, 2)
            cut = 0
            for number in range(1, asked + 1):
                conn.execute("DELETE FROM tekmetric.repair_orders")
                conn.execute("DELETE FROM confidence.sync_state WHERE entity = 'repair_orders'")
                shops.control.fault(Fault("status", status=401, nth=number))
                # A page of the report that is refused is asked for once more, from the report's start.
                with suppress(SyncFailed):
                    backfill()
                    cut -= 1
                cut += 1
                shops.control.clear()
                backfill()
                assert contents(conn) == expected, f"request {number} of {asked}"
            assert cut > asked / 2

    def test_reads_history_that_no_board_shows(self, conn):
        with trading(conn, board_limit=0, column_limit=0, list_size=3) as shops:
            shops.sync("backfill")
            control = shops.control
            posted = [id_ for id_ in control.ids() if control.order(id_)["posted"]]
            assert sorted(id_ for _, id_ in rows(conn, "repair_orders")) == posted


class TestParams:
    def test_shop_id_reads_that_shop_and_leaves_the_other_where_it_was(self, loaded, conn):
        control = loaded.control
        east, west = (control.ids(shop=shop)[0] for shop in (EAST, WEST))
        control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}) for id_ in (east, west)))
        before = loaded.watermark(EAST)
        loaded.sync(shop_id=WEST)
        assert (order(conn, east)["amount_paid"] == 4711, order(conn, west)["amount_paid"]) == (False, 4711)
        assert loaded.watermark(EAST) == before < loaded.watermark(WEST)
        loaded.sync()
        assert order(conn, east)["amount_paid"] == 4711

    def test_days_back_is_how_far_a_first_sync_looks(self, conn):
        with trading(conn, now=None) as shops:
            shops.sync("backfill", days_back=3)
            few = {id_ for _, id_ in rows(conn, "repair_orders")}
            assert few == {id_ for id_ in shops.control.ids() if recent(shops.control.order(id_), 3)}
            shops.sync("backfill", days_back=0)
            assert sorted(id_ for _, id_ in rows(conn, "repair_orders")) == shops.control.ids()

    @pytest.mark.parametrize(("board", "statuses"), [("ACTIVE", {1, 2, 3}), ("POSTED", {5, 6})])
    def test_board_reads_one_alone_and_moves_no_watermark(self, loaded, conn, board, statuses):
        control = loaded.control
        before = loaded.watermark(EAST), loaded.watermark(WEST)
        control.touch(control.ids())
        loaded.sync(board=board)
        read = {
            id_
            for (_, id_), row in rows(conn, "repair_orders").items()
            if row["updated_date"] == instant(control.order(id_)["updated"])
        }
        assert read == {id_ for id_ in control.ids() if control.order(id_)["status"] in statuses}
        assert (loaded.watermark(EAST), loaded.watermark(WEST)) == before

    def test_limit_leaves_the_rest_to_the_next_run(self, loaded, conn):
        control = loaded.control
        touched = control.ids()
        control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}) for id_ in touched))
        control.advance(600)
        assert loaded.sync(limit=5).counts["repair_orders"].read == 5
        left = [id_ for id_ in touched if order(conn, id_)["amount_paid"] != 4711]
        assert len(left) == len(touched) - 5
        shops_left = {control.order(id_)["shop_id"] for id_ in left}
        for shop in shops_left:
            assert loaded.watermark(shop) <= min(instant(control.order(id_)["updated"]) for id_ in left)
        # With those that changed in the lookback.
        assert loaded.sync().counts["repair_orders"].read == len(touched)
        assert {row["amount_paid"] for row in rows(conn, "repair_orders").values()} == {4711}

    def test_limit_is_for_orders_alone(self, shops, conn):
        shops.sync("backfill", limit=1)
        assert [len(rows(conn, name)) for name in ("repair_orders", "employees")] == [1, 2 * SMALL["employees"]]

    def test_mode_validate_compares_and_writes_nothing(self, loaded, conn):
        before = everything(conn)
        found = loaded.sync("validate").result
        assert (found["checks"] > 8, found["warnings"]) == (True, [])
        spoilt = loaded.control.ids()[-1]
        loaded.control.mutate(Mutation("update", "orders", spoilt, {"paid": 4711}, silent=True))
        with pytest.raises(IntegrityFailed, match=f"/{spoilt}: amount_paid"):
            loaded.sync("validate")
        assert everything(conn) == before

    def test_store_raw_keeps_what_was_answered_for_a_week(self, loaded, conn):
        control = loaded.control
        settle(loaded)
        id_ = with_job(loaded)
        loaded.sync()
        assert conn.execute("SELECT count(*) FROM tekmetric.tm_raw_payloads").fetchone() == (0,)
        control.touch([id_])
        loaded.sync(store_raw=True)
        kept = conn.execute(
            "SELECT endpoint, shop_id, tm_entity_id, payload ->> 'id', expires_at - fetched_at"
            " FROM tekmetric.tm_raw_payloads ORDER BY endpoint"
        ).fetchall()
        week = timedelta(days=7)
        assert kept == [
            (f"GET /repair-order/{id_}/estimate", EAST, id_, str(id_), week),
            (f"GET /repair-order/{id_}/profit/labor", EAST, id_, None, week),
            (f"GET /shop/{EAST}/repair-order/{id_}", EAST, id_, str(id_), week),
        ]
        conn.execute("UPDATE tekmetric.tm_raw_payloads SET fetched_at = now() - interval '8 days'")
        assert retention.expire(conn)["tekmetric.tm_raw_payloads"] == 0
        conn.execute("UPDATE tekmetric.tm_raw_payloads SET expires_at = now()")
        assert retention.expire(conn)["tekmetric.tm_raw_payloads"] == 3

    def test_store_raw_takes_any_text(self, loaded, conn):
        settle(loaded)
        id_ = with_job(loaded)
        # In a field that no row has, so that only the answer has it.
        loaded.control.spoil("head", id_, balanceDue="a\0b")
        loaded.sync(store_raw=True)
        assert conn.execute("SELECT count(*) FROM tekmetric.tm_raw_payloads").fetchone() == (3,)

    def test_ro_id_reads_one_order_and_moves_no_watermark(self, loaded, conn):
        control = loaded.control
        one, other = control.ids(shop=WEST)[:2]
        control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}, silent=True) for id_ in (one, other)))
        before = [row for row in everything(conn)["sync_state"] if row[0]["entity"] == "repair_orders"]
        moved = loaded.watermark(EAST), loaded.watermark(WEST)
        control.reset_counters()
        loaded.sync(ro_id=one, shop_id=WEST)
        assert (order(conn, one)["amount_paid"], order(conn, other)["amount_paid"] == 4711) == (4711, False)
        assert (loaded.watermark(EAST), loaded.watermark(WEST)) == moved
        assert len(before) == 2
        # It shows other content than the copy without a newer version, so it is looked at twice.
        assert loaded.asked() <= 6

    def test_mode_snapshot_keeps_an_order_as_it_stands(self, loaded, conn):
        id_ = with_job(loaded)
        with pytest.raises(SyncFailed, match=f"order {id_} of shop {EAST} is not in the copy: sync it first"):
            loaded.sync("snapshot", ro_id=id_, shop_id=EAST)
        loaded.sync()
        assert loaded.sync("snapshot", ro_id=id_, shop_id=EAST).counts["ro_snapshots"].inserted == 1
        (kept,) = [key for key in rows(conn, "ro_snapshots") if key[1] == id_]
        assert kept[3] == "manual"
        query = "SELECT DISTINCT sync_type FROM tekmetric.sync_log WHERE shop_id IS NULL"
        assert {kind for (kind,) in conn.execute(query)} >= {"full_backfill", "incremental", "snapshot_rebuild"}

    def test_mode_snapshot_of_a_deleted_order_keeps_nothing_and_is_no_error(self, loaded, conn):
        """What was kept before stays, and breaks no check."""
        id_ = with_job(loaded)
        loaded.sync()
        loaded.sync("snapshot", ro_id=id_, shop_id=EAST)
        before = rows(conn, "ro_snapshots")
        loaded.control.mutate(Mutation("delete", "orders", id_))
        loaded.sync(ro_id=id_, shop_id=EAST)
        assert order(conn, id_) is None
        synced = loaded.sync("snapshot", ro_id=id_, shop_id=EAST)
        assert (synced.sync_id, synced.counts) == (None, {})
        told = f"order {id_} of shop {EAST} is deleted at Tekmetric, so there is nothing to keep"
        assert synced.result == {"snapshot": told}
        assert rows(conn, "ro_snapshots") == before
        assert loaded.sync("validate").result["warnings"] == []

    def test_ro_id_of_several_shops_wants_to_know_which(self, loaded):
        with pytest.raises(ScanRefused, match=f"shop_id.*{EAST}, {WEST}") as refused:
            loaded.sync(ro_id=loaded.control.ids()[0])
        assert "\n" not in str(refused.value)

    def test_ro_id_of_an_order_that_is_nowhere_writes_nothing_and_says_so(self, loaded, conn):
        before = contents(conn)
        with pytest.raises(SyncFailed, match=f"order 123 of shop {EAST} was not found.*Check ro_id and shop_id"):
            loaded.sync(ro_id=123, shop_id=EAST)
        assert contents(conn) == before


def recent(order: dict[str, Any], days: int) -> bool:
    """Whether an order has changed since the day so many days ago, in its shop."""
    zone = ZoneInfo({EAST: "America/New_York", WEST: "America/Phoenix"}[order["shop_id"]])
    first = datetime.now(zone).date() - timedelta(days=days)
    return instant(order["updated"]).astimezone(zone).date() >= first


class TestConnection:
    def test_that_names_no_usable_shops_is_told_in_one_line(self, shops, conn):
        with pytest.raises(FixConfiguration, match="connection 'tekmetric' names no usable shops") as refused:
            elsewhere(shops, {}).sync()
        assert "\n" not in str(refused.value)
        assert conn.execute("SELECT count(*) FROM tekmetric.shops").fetchone() == (0,)

    @pytest.mark.parametrize("verb", ["sync", "scan"])
    def test_that_does_not_name_the_shop_is_told_in_one_line(self, loaded, verb):
        with pytest.raises(ScanRefused, match=r"shop 5 is not among those of the connection \(6212, 7301\)"):
            getattr(loaded, verb)(shop_id=5)

    def test_that_names_a_shop_anew_changes_it_under_a_sync_id_of_its_own(self, loaded, conn):
        named = [asdict(Shop(EAST, "Renamed", "America/Chicago")), asdict(Shop(WEST, "Desert Auto", "America/Phoenix"))]
        other = elsewhere(loaded, {"shops": named})
        other.sync()
        query = "SELECT name, timezone FROM tekmetric.shops ORDER BY tm_id"
        assert conn.execute(query).fetchone() == ("Renamed", "America/Chicago")
        (sync_id,) = conn.execute("SELECT sync_id FROM tekmetric.shops ORDER BY tm_id").fetchone()
        other.roll_back(sync_id)
        assert conn.execute(query).fetchone() == ("JJ AUTO", "America/New_York")

    def test_that_leaves_a_shop_out_keeps_what_was_read_of_it(self, loaded, conn):
        fewer = elsewhere(loaded, {"shops": [asdict(Shop(EAST, "JJ AUTO", "America/New_York"))]})
        before = contents(conn)
        fewer.sync("backfill")
        assert contents(conn) == before
        # And it is no shop any more that the others wait for.
        id_ = loaded.control.ids(shop=EAST)[0]
        loaded.control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
        loaded.control.advance(3 * 3600)
        fewer.sync()
        conn.execute("UPDATE tekmetric.repair_orders SET notes = 'spoiled' WHERE tm_id = %s", [id_])
        assert fewer.scan().metrics["rows_differing"] == 1

    def test_of_a_shop_that_was_left_out_for_long_catches_up_with_it(self, conn):
        begin = datetime.now(UTC) - timedelta(days=50)
        with trading(conn, now=begin.isoformat()) as shops:
            control = shops.control
            shops.sync("backfill")
            elsewhere(shops, {"shops": [asdict(Shop(WEST, "WEST", "America/New_York"))]}).sync(days_back=3)
            control.advance(10 * 24 * 3600)
            posted = next(id_ for id_ in control.ids(shop=EAST) if control.order(id_)["status"] == 5)
            control.mutate(Mutation("update", "orders", posted, {"paid": 4711}))
            new = with_job(shops)
            control.mutate(Mutation("post", "orders", new))
            control.advance(40 * 24 * 3600)
            shops.sync(days_back=3)
            assert (order(conn, posted)["amount_paid"], order(conn, new)["status"]) == (4711, "POSTED")

    def test_of_a_shop_that_was_left_out_does_not_make_every_sync_read_people(self, loaded, conn):
        fewer = elsewhere(loaded, {"shops": [asdict(Shop(EAST, "JJ AUTO", "America/New_York"))]})
        conn.execute("UPDATE confidence.sync_state SET in_step_at = in_step_at - interval '25 hours'")
        fewer.sync()
        loaded.control.reset_counters()
        fewer.sync()
        assert loaded.asked("customer") == 0
