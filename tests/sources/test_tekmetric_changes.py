"""What becomes of orders and of what is in them: on the boards, deleted, posted anew, and who they name."""

from datetime import UTC, date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from include.simulators.tekmetric import Fault, Mutation
from include.sources.base import SyncFailed
from include.sources.tekmetric import SOURCE

from .tekmetric import (
    EAST,
    ITEMS,
    WEST,
    Shops,
    contents,
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


class TestBoards:
    def test_order_on_two_boards_is_read_once(self, loaded, conn):
        control = loaded.control
        settle(loaded)
        id_ = with_job(loaded)
        control.mutate(Mutation("complete", "orders", id_))
        boards = {
            board: [row["id"] for row in listed(loaded, EAST, board)] for board in ("ACTIVE", "POSTED", "COMPLETE")
        }
        assert [board for board, ids in boards.items() if id_ in ids] == ["ACTIVE", "COMPLETE"]
        control.reset_counters()
        assert loaded.sync().counts["repair_orders"].read == 1
        assert loaded.asked("estimate") == 1
        assert order(conn, id_)["status"] == "COMPLETE"

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_that_move_while_they_are_read_lose_nothing(self, conn, wrapped):
        with trading(conn, board_size=2, wrapped_boards=wrapped) as shops:
            control = shops.control
            last, first = control.ids(shop=EAST)[0], control.ids(shop=EAST)[-1]
            # From a page that is still to come to one that was read, and from one that was read to another board.
            control.before("*job-board*", 1, Mutation("update", "orders", last), board="POSTED", page=1)
            control.before("*job-board*", 1, Mutation("post", "orders", first), board="ACTIVE", page=1)
            shops.sync("backfill")
            shops.sync()
            assert sorted(id_ for _, id_ in rows(conn, "repair_orders")) == control.ids()
            for id_ in (last, first):
                assert order(conn, id_)["updated_date"] == instant(control.order(id_)["updated"])

    def test_order_that_they_don_t_show_is_not_deleted(self, loaded, conn):
        loaded.control.set(board_limit=1)
        before = contents(conn)
        assert written(loaded.sync()) == 0
        assert contents(conn) == before

    def test_row_without_dates_is_read(self, conn):
        with trading(conn, now=None) as shops:
            shops.sync("backfill")
            id_ = shops.control.ids()[0]
            shops.control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
            shops.control.spoil("board", id_, updatedDate="?", postedDate=None, completedDate=None)
            shops.sync(days_back=1)
            assert order(conn, id_)["amount_paid"] == 4711

    @pytest.mark.parametrize("synced", [True, False])
    def test_order_that_is_saved_for_later_leaves_them_and_is_kept(self, loaded, conn, synced):
        """No sync brings it, so it is not young either."""
        id_ = with_job(loaded)
        loaded.sync()
        loaded.control.advance(60)
        loaded.control.mutate(Mutation("update", "orders", id_, {"status": 4}))
        if synced:
            loaded.sync()
        assert order(conn, id_)["status"] == "WORKINPROGRESS"
        loaded.mend(loaded.scan())
        assert (order(conn, id_)["status"], order(conn, id_)["status_id"]) == ("SAVED", 4)


def listed(shops: Shops, shop: int, board: str) -> list[dict[str, Any]]:
    with SOURCE.open(shops.conn, shops.run, shops) as context:
        return context.client.get(f"/shop/{shop}/job-board-group-by", board=board, view="list", groupBy="NONE").data


class TestDeleted:
    @pytest.mark.parametrize("hidden", [False, True], ids=["status 7", "404 on all three"])
    @pytest.mark.parametrize("by", ["scan", "ro_id"])
    def test_order_is_tombstoned_with_its_jobs_and_items(self, loaded, conn, hidden, by):
        id_ = with_job(loaded)
        loaded.sync()
        assert [len(of_order(conn, table, id_)) for table in ("jobs", *ITEMS)] == [1, 2, 2, 1, 2]
        loaded.control.mutate(Mutation("delete", "orders", id_, {"hidden": hidden}))
        loaded.sync()
        assert order(conn, id_)
        if by == "scan":
            summary = loaded.scan()
            assert vars(summary.plan) == {"insert": 0, "update": 0, "delete": 9}
            loaded.mend(summary)
        elif hidden:
            # No list was looked at: that alone proves nothing.
            with pytest.raises(SyncFailed, match=f"order {id_} of shop {EAST} was not found, so nothing was written"):
                loaded.sync(ro_id=id_, shop_id=EAST)
            assert order(conn, id_)
            loaded.mend(loaded.scan())
        else:
            assert loaded.sync(ro_id=id_, shop_id=EAST).counts["repair_orders"].deleted == 1
        assert order(conn, id_) is None
        assert [of_order(conn, table, id_) for table in ("jobs", *ITEMS)] == [[]] * 5
        tombstones = conn.execute("SELECT count(*) FROM tekmetric.jobs WHERE deleted_at IS NOT NULL").fetchone()
        assert tombstones == (1,)

    def test_order_that_comes_back_does_so_with_its_jobs_and_items(self, loaded, conn):
        id_ = with_job(loaded)
        loaded.sync()
        before = contents(conn)
        loaded.control.mutate(Mutation("delete", "orders", id_))
        loaded.mend(loaded.scan())
        assert order(conn, id_) is None
        loaded.control.mutate(Mutation("create", fields=loaded.control.order(id_) | {"status": 2}, silent=True))
        loaded.sync()
        after = contents(conn)
        assert after.keys() == before.keys()
        for table in ("jobs", *ITEMS):
            assert after[table] == before[table]
        assert order(conn, id_)

    def test_order_that_a_board_shows_as_its_tombstone_has_it_is_read(self, loaded, conn):
        """It is there, and has not changed since it was taken for gone."""
        id_ = with_job(loaded)
        for _ in range(3):
            settle(loaded)
        before = order(conn, id_)
        conn.execute("UPDATE tekmetric.repair_orders SET deleted_at = now() WHERE tm_id = %s", [id_])
        loaded.sync()
        assert order(conn, id_) == before

    def test_person_is_tombstoned_by_the_scan_and_orders_may_go_on_naming_it(self, loaded, conn):
        id_ = with_job(loaded)
        loaded.sync()
        customer = order(conn, id_)["tm_customer_id"]
        loaded.control.mutate(Mutation("delete", "customers", customer), Mutation("update", "orders", id_))
        loaded.mend(loaded.scan("customers"))
        loaded.sync()
        assert (EAST, customer) not in rows(conn, "customers")
        assert order(conn, id_)["tm_customer_id"] == customer


EVENINGS = [
    (EAST, "2026-10-21T01:30:00Z", date(2026, 10, 20)),
    (EAST, "2026-10-21T03:59:59Z", date(2026, 10, 20)),
    (EAST, "2026-10-21T04:00:00Z", date(2026, 10, 21)),
    # The clocks go back on November 1: that day has 25 hours, and midnight is an hour later from then on.
    (EAST, "2026-11-01T03:59:59Z", date(2026, 10, 31)),
    (EAST, "2026-11-01T04:00:00Z", date(2026, 11, 1)),
    (EAST, "2026-11-02T04:59:59Z", date(2026, 11, 1)),
    (EAST, "2026-11-02T05:00:00Z", date(2026, 11, 2)),
    (EAST, "2026-03-08T04:59:59Z", date(2026, 3, 7)),
    (EAST, "2026-03-09T03:59:59Z", date(2026, 3, 8)),
    # There they never do.
    (WEST, "2026-10-21T06:59:59Z", date(2026, 10, 20)),
    (WEST, "2026-11-02T06:59:59Z", date(2026, 11, 1)),
    (WEST, "2026-11-02T07:00:00Z", date(2026, 11, 2)),
]


class TestDates:
    """The vendor's instants are in UTC, its days are the shop's."""

    def test_posted_in_the_evening_is_that_shop_s_day(self, shops, conn):
        expected = {}
        for shop, posted, day in EVENINGS:
            fields = {"shop_id": shop, "posted": posted, "completed": posted, "status": 5}
            expected[shop, with_job(shops, **fields)] = (day, day, instant(posted))
        shops.sync("backfill")
        found = rows(conn, "repair_orders")
        assert {
            key: (found[key]["posted_date"], found[key]["completed_date"], found[key]["posted_at"]) for key in expected
        } == expected

    def test_all_of_the_account_s_are(self, shops, conn):
        shops.sync("backfill")
        zones = {EAST: ZoneInfo("America/New_York"), WEST: ZoneInfo("America/Phoenix")}
        found = rows(conn, "repair_orders")
        by_utc = 0
        for (shop, _), row in found.items():
            expected = row["posted_at"] and row["posted_at"].astimezone(zones[shop]).date()
            assert row["posted_date"] == expected
            by_utc += expected is not None and expected != row["posted_at"].astimezone(UTC).date()
        assert by_utc > 0

    def test_un_posted_order_has_no_posted_date_any_more(self, loaded, conn):
        id_ = with_job(loaded)
        loaded.control.mutate(Mutation("post", "orders", id_))
        loaded.sync()
        assert (order(conn, id_)["status"], order(conn, id_)["posted_date"] is None) == ("POSTED", False)
        loaded.control.mutate(Mutation("unpost", "orders", id_))
        loaded.sync()
        row = order(conn, id_)
        assert (row["status"], row["posted_date"], row["posted_at"]) == ("COMPLETE", None, None)
        assert row["completed_date"] is not None
        loaded.control.mutate(Mutation("reopen", "orders", id_))
        loaded.sync()
        assert (order(conn, id_)["status"], order(conn, id_)["completed_date"]) == ("WORKINPROGRESS", None)

    def test_re_posted_order_moves_to_its_new_day(self, loaded, conn):
        id_ = with_job(loaded)
        for posted, day in (("2026-11-03T20:00:00Z", date(2026, 11, 3)), ("2026-11-04T20:00:00Z", date(2026, 11, 4))):
            loaded.control.mutate(Mutation("post", "orders", id_, {"posted": posted}))
            loaded.sync()
            assert order(conn, id_)["posted_date"] == day

    def test_share_of_nothing_takes_the_place_of_an_old_one(self, loaded, conn):
        """Once no job is authorized any more the vendor's margin is "NaN"."""
        id_ = with_job(loaded)
        loaded.sync()
        assert order(conn, id_)["authorized_gp_percent"] > 0
        (job_id,) = [row["tm_id"] for row in of_order(conn, "jobs", id_)]
        loaded.control.mutate(Mutation("decline", "jobs", job_id))
        loaded.sync()
        row = order(conn, id_)
        assert (row["authorized_revenue"], row["authorized_profit"], row["authorized_gp_percent"]) == (0, 0, None)


class TestChildren:
    def test_that_the_estimate_has_no_more_are_gone(self, loaded, conn):
        id_ = with_job(loaded)
        loaded.control.mutate(Mutation("create", "jobs", fields={"order_id": id_, **job(parts=[])}))
        loaded.sync()
        first, second = sorted(row["tm_id"] for row in of_order(conn, "jobs", id_))
        part = job()["parts"][1]
        loaded.control.mutate(
            Mutation("delete", "jobs", second),
            Mutation("update", "jobs", first, {"parts": [part], "labor": [], "sublets": [], "fees": job()["fees"][:1]}),
        )
        loaded.sync()
        assert [row["tm_id"] for row in of_order(conn, "jobs", id_)] == [first]
        assert [(row["name"], row["tm_id"]) for row in of_order(conn, "job_parts", id_)] == [("Washer", None)]
        assert [len(of_order(conn, table, id_)) for table in ("job_labor", "job_sublets", "job_fees")] == [0, 0, 1]

    def test_without_ids_are_not_inserted_anew_at_each_change(self, loaded, conn):
        id_ = with_job(loaded)
        loaded.sync()
        first = {table: of_order(conn, table, id_) for table in ITEMS}
        loaded.control.touch([id_])
        assert loaded.sync().counts["repair_orders"].updated == 1
        assert {table: of_order(conn, table, id_) for table in ITEMS} == first
        assert [row["line"] for row in first["job_fees"]] == ["Oil disposal#1", "Oil disposal#2"]
        count = conn.execute("SELECT count(*) FROM tekmetric.job_parts WHERE deleted_at IS NOT NULL").fetchone()
        assert count == (0,)

    def test_fees_of_the_order_itself_stand_beside_those_of_its_jobs(self, loaded, conn):
        fees = [{"name": "Shop supplies", "percentage": "6", "cap": 2500}, {"name": "Shop supplies", "amount": 100}]
        id_ = with_job(loaded)
        loaded.control.mutate(Mutation("update", "orders", id_, {"fees": fees}))
        loaded.sync()
        own = [row for row in of_order(conn, "job_fees", id_) if row["tm_job_id"] == 0]
        assert [(row["line"], row["percentage"], row["cap"], row["amount"]) for row in own] == [
            ("Shop supplies#1", 6, 2500, None),
            ("Shop supplies#2", None, None, 100),
        ]
        assert len(of_order(conn, "job_fees", id_)) == 4

    def test_that_move_to_another_job_are_not_there_twice(self, loaded, conn):
        id_ = with_job(loaded)
        loaded.control.mutate(Mutation("create", "jobs", fields={"order_id": id_, **job(parts=[], labor=[])}))
        loaded.sync()
        first, second = sorted(row["tm_id"] for row in of_order(conn, "jobs", id_))
        parts = loaded.control.row("jobs", first)["parts"]
        loaded.control.mutate(
            Mutation("update", "jobs", first, {"parts": []}), Mutation("update", "jobs", second, {"parts": parts})
        )
        loaded.sync()
        assert {row["tm_job_id"] for row in of_order(conn, "job_parts", id_)} == {second}

    def test_are_written_with_their_order_or_not_at_all(self, loaded, conn):
        id_ = with_job(loaded)
        loaded.control.spoil("head", id_, createdDate="some day")
        with pytest.raises(SyncFailed, match=f"{EAST}/{id_} .*createdDate is no ISO 8601 time"):
            loaded.sync()
        assert order(conn, id_) is None
        assert of_order(conn, "jobs", id_) == []


class TestPeople:
    def test_that_are_renamed_arrive_once_a_day(self, loaded, conn):
        control = loaded.control
        customer, vehicle, employee = (control.ids(kind)[0] for kind in ("customers", "vehicles", "employees"))
        control.mutate(
            Mutation("update", "customers", customer, {"lastName": "Renamed"}),
            Mutation("update", "vehicles", vehicle, {"color": "Green"}),
            Mutation("update", "employees", employee, {"lastName": "Renamed"}),
        )
        assert written(loaded.sync()) == 0
        assert loaded.asked("customer") == 0
        conn.execute("UPDATE confidence.sync_state SET in_step_at = in_step_at - interval '25 hours'")
        loaded.sync()
        assert rows(conn, "customers")[EAST, customer]["last_name"] == "Renamed"
        assert rows(conn, "vehicles")[EAST, vehicle]["color"] == "Green"
        assert rows(conn, "employees")[EAST, employee]["last_name"] == "Renamed"
        control.reset_counters()
        loaded.sync()
        assert loaded.asked("customer") == 0

    def test_that_an_order_names_and_the_copy_lacks_are_asked_for_once_each(self, loaded, conn):
        control = loaded.control
        settle(loaded)
        (customer,) = control.mutate(Mutation("create", "customers"))
        (vehicle,) = control.mutate(Mutation("create", "vehicles", fields={"customerId": customer}))
        named = {"customer_id": customer, "vehicle_id": vehicle}
        orders = control.mutate(*(Mutation("create", fields=named) for _ in range(5)))
        control.reset_counters()
        loaded.sync()
        assert (EAST, customer) in rows(conn, "customers")
        assert (EAST, vehicle) in rows(conn, "vehicles")
        assert (loaded.asked("customer/"), loaded.asked("vehicle/")) == (1, 1)
        assert loaded.asked() - loaded.asked("job-board") <= 4 * len(orders)
        control.touch(orders)
        control.reset_counters()
        loaded.sync()
        assert loaded.asked() - loaded.asked("job-board") == 3 * len(orders)

    def test_that_are_gone_do_not_keep_an_order_from_being_read(self, loaded, conn):
        control = loaded.control
        (customer,) = control.mutate(Mutation("create", "customers"))
        control.mutate(Mutation("delete", "customers", customer))
        (id_,) = control.mutate(Mutation("create", fields={"customer_id": customer}))
        loaded.sync()
        assert order(conn, id_)["tm_customer_id"] == customer
        assert (EAST, customer) not in rows(conn, "customers")

    def test_that_cannot_be_read_are_named_and_their_order_is_read(self, loaded, conn):
        control = loaded.control
        (customer,) = control.mutate(Mutation("create", "customers"))
        (id_,) = control.mutate(Mutation("create", fields={"customer_id": customer}))
        control.fault(Fault("status", path=f"shop/*/customer/{customer}", status=503, times=None))
        with pytest.raises(SyncFailed, match=f"customers {EAST}/{customer}"):
            loaded.sync()
        assert order(conn, id_)
