"""Scans of simulated shops: what no sync sees is found, and nothing is concluded from what is merely not shown."""

from typing import Any

import pytest
from psycopg import sql

from include.api.errors import ApiError
from include.confidence.policy import RepairShare, judge
from include.confidence.summary import ForensicSummary
from include.simulators.tekmetric import Fault, Mutation
from include.sources.base import ScanRefused, SyncFailed
from include.sources.tekmetric import tables

from .tekmetric import (
    EAST,
    WEST,
    contents,
    everything,
    job,
    of_order,
    order,
    rows,
    settle,
    trading,
    with_job,
    written,
)

SAME = {"insert": 0, "update": 0, "delete": 0}


def drift(summary: ForensicSummary) -> dict[str, Any]:
    """The figures of drift above 0, without the sizes of what was scanned."""
    looked_at = ("api_rows_scanned", "api_unique_ids", "db_total_rows", "fields", "declared_fields")
    return {name: count for name, count in summary.metrics.items() if count and name not in looked_at}


def test_silent_changes_of_every_kind_are_found_and_mended(loaded, conn):
    """Without a new updatedDate no sync sees them. What is in a record is compared as a set."""
    control = loaded.control
    changed, job_gone, job_new, part_gone, part_new, fee_changed, gone = (with_job(loaded) for _ in range(7))
    loaded.sync()
    settle(loaded)
    jobs = {row["tm_repair_order_id"]: row["tm_id"] for row in rows(conn, "jobs").values()}
    fee = job()["fees"][0]
    new_job, new_parts = job(name="New"), control.row("jobs", jobs[part_new])["parts"] + job()["parts"][:1]
    customer, vehicle, employee = (control.ids(kind)[-1] for kind in ("customers", "vehicles", "employees"))
    control.mutate(
        Mutation("update", "orders", changed, {"paid": 4711}, silent=True),
        Mutation("delete", "jobs", jobs[job_gone], silent=True),
        Mutation("create", "jobs", fields={"order_id": job_new, **new_job}, silent=True),
        Mutation("update", "jobs", jobs[part_gone], {"parts": []}, silent=True),
        Mutation("update", "jobs", jobs[part_new], {"parts": new_parts}, silent=True),
        Mutation("update", "jobs", jobs[fee_changed], {"fees": [fee, {**fee, "amount": 400}]}, silent=True),
        Mutation("delete", "orders", gone, silent=True),
        Mutation("update", "customers", customer, {"lastName": "Renamed"}, silent=True),
        Mutation("update", "vehicles", vehicle, {"color": "Green"}, silent=True),
        Mutation("update", "employees", employee, {"lastName": "Renamed"}, silent=True),
    )
    assert written(loaded.sync()) == 0
    before = everything(conn)
    scans = {name: loaded.scan(name) for name in ("employees", "customers", "vehicles", "repair_orders")}
    assert everything(conn) == before
    assert [vars(scans[name].plan) for name in ("employees", "customers", "vehicles")] == [{**SAME, "update": 1}] * 3
    found = drift(scans["repair_orders"])
    assert (found["rows_differing"], found["confirmed_deleted"], found.get("confirmed_missing", 0)) == (6, 1, 0)
    # The jobs lost, and those with items that came or went, come to something else.
    assert (found["jobs_missing"], found["jobs_surplus"], found["jobs_differing"]) == (1, 2, 3)
    assert (found["job_parts_missing"], found["job_parts_surplus"]) == (3, 6)
    assert (found["job_labor_missing"], found["job_labor_surplus"]) == (2, 4)
    assert (found["job_sublets_missing"], found["job_sublets_surplus"]) == (1, 2)
    assert (found["job_fees_missing"], found["job_fees_surplus"], found["job_fees_differing"]) == (2, 4, 1)
    loaded.mend(*scans.values())
    assert order(conn, changed)["amount_paid"] == 4711
    assert [len(of_order(conn, "jobs", id_)) for id_ in (job_gone, job_new, gone)] == [0, 2, 0]
    assert [vars(loaded.scan(name).plan) for name in scans] == [SAME] * 4


def test_order_that_neither_boards_nor_report_show_is_looked_up(loaded, conn):
    control = loaded.control
    id_ = with_job(loaded)
    loaded.sync()
    control.mutate(Mutation("update", "orders", id_, {"status": 4}, silent=True))
    control.set(board_limit=0)
    control.reset_counters()
    summary = loaded.scan()
    assert drift(summary) == {"rows_differing": 1}
    assert summary.incomplete == ""
    # Once more for the one that differs.
    assert loaded.asked("estimate") == len(control.ids()) + 1
    loaded.mend(summary)
    assert order(conn, id_)["status"] == "SAVED"


def test_order_that_lives_but_answers_404_is_not_concluded_to_be_gone(loaded, conn):
    id_ = with_job(loaded)
    loaded.sync()
    loaded.control.set(board_limit=0)
    loaded.control.fault(Fault("status", path=f"shop/*/repair-order/{id_}", status=404, times=None))
    for board_limit in (0, 27):
        loaded.control.set(board_limit=board_limit)
        summary = loaded.scan()
        # With what is in it.
        assert (summary.metrics["unproven"], vars(summary.plan), summary.incomplete) == (9, SAME, "")
        assert doubts(conn)["repair_orders", EAST, id_].endswith("so that proves nothing")
    loaded.mend(summary)
    assert order(conn, id_)
    loaded.control.clear()
    assert drift(loaded.scan()) == {}
    assert doubts(conn) == {}


def doubts(conn) -> dict[tuple, str]:
    """Why rows are not proven, by table and key."""
    found = conn.execute("SELECT entity, key, why FROM confidence.unproven").fetchall()
    return {(entity, *key): why for entity, key, why in found}


@pytest.mark.parametrize(("path", "status"), [("*", 503), ("*job-board*", 403), ("*report", 503)])
def test_outage_of_lists_is_no_evidence(loaded, conn, path, status):
    loaded.control.mutate(Mutation("update", "orders", loaded.control.ids()[0], {"paid": 4711}, silent=True))
    before = everything(conn)
    loaded.control.fault(Fault("status", path=path, status=status, times=None))
    with pytest.raises(ApiError):
        loaded.scan()
    assert everything(conn) == before
    loaded.control.clear()
    assert drift(loaded.scan()) == {"rows_differing": 1}


@pytest.mark.parametrize(("path", "status"), [("*/estimate", 403), ("*/labor", 503), ("shop/*/repair-order/*", 404)])
def test_outage_of_records_is_no_evidence_and_each_is_named(loaded, conn, path, status):
    loaded.control.mutate(Mutation("update", "orders", loaded.control.ids()[0], {"paid": 4711}, silent=True))
    before = everything(conn)
    loaded.control.fault(Fault("status", path=path, status=status, times=None))
    summary = loaded.scan()
    assert "none of the" in summary.incomplete or "could not be proven" in summary.incomplete
    assert vars(summary.plan) == SAME
    unproven = {key[2] for key in doubts(conn) if key[0] == "repair_orders" and len(key) > 2}
    assert unproven == set(loaded.control.ids())
    assert everything(conn) == before
    loaded.control.clear()
    assert drift(loaded.scan()) == {"rows_differing": 1}
    assert doubts(conn) == {}


def test_one_order_that_cannot_be_read_leaves_the_others_and_the_other_shop(loaded, conn):
    control = loaded.control
    broken, differing = control.ids(shop=EAST)[:2]
    (west,) = control.ids(shop=WEST)[:1]
    control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}, silent=True) for id_ in (differing, west)))
    control.fault(Fault("status", path=f"repair-order/{broken}/estimate", status=500, times=None))
    summary = loaded.scan()
    assert (summary.metrics["rows_differing"], summary.incomplete) == (2, "")
    assert {key[1:] for key in doubts(conn) if key[0] == "repair_orders"} == {(EAST, broken)}
    loaded.mend(summary)
    assert [order(conn, id_)["amount_paid"] for id_ in (differing, west)] == [4711] * 2


def test_one_shop_that_cannot_be_read_leaves_the_other(loaded, conn):
    control = loaded.control
    (west,) = control.ids(shop=WEST)[:1]
    control.mutate(Mutation("update", "orders", west, {"paid": 4711}, silent=True))
    control.fault(Fault("status", path=f"shop/{EAST}/job-board*", status=403, times=None))
    summary = loaded.scan()
    assert summary.examples["update_examples"] == [[WEST, west]]
    unproven = {key[2] for key in doubts(conn) if key[0] == "repair_orders" and len(key) > 2}
    assert unproven == set(control.ids(shop=EAST))


def test_order_without_any_date_is_compared(loaded, conn):
    """However few days a scan looks back."""
    control = loaded.control
    id_ = with_job(loaded)
    loaded.sync()
    conn.execute(
        "UPDATE tekmetric.repair_orders SET notes = 'spoiled', posted_date = NULL, posted_at = NULL,"
        " updated_date = NULL, created_date = NULL WHERE tm_id = %s",
        [id_],
    )
    control.set(board_limit=0, column_limit=0)
    summary = loaded.scan(days_back=1)
    assert summary.examples["update_examples"] == [[EAST, id_]]
    account = summary.accounts["repair_orders"]
    assert (account.differing, account.live) == (1, 1 + account.out_of_scope)
    loaded.mend(summary)
    assert order(conn, id_)["notes"] is None


def test_what_has_changed_since_the_sync_is_the_next_one_s(loaded):
    settle(loaded)
    with_job(loaded)
    loaded.control.touch(loaded.control.ids()[:2])
    summary = loaded.scan()
    assert (summary.metrics["rows_young"], vars(summary.plan)) == (3, SAME)
    loaded.resume()
    assert loaded.sync().counts["repair_orders"].read == 3


def test_what_one_shop_waits_for_is_drift_in_the_other(loaded, conn):
    """An order that can't be read holds back the watermark of its own shop alone."""
    control = loaded.control
    failing, later = control.ids(shop=EAST)[:2]
    control.touch([failing])
    control.touch([later, *control.ids(shop=WEST)])
    control.fault(Fault("status", path=f"repair-order/{failing}/*", status=503, times=None))
    control.advance(600)
    with pytest.raises(SyncFailed):
        loaded.sync()
    control.clear()
    conn.execute("UPDATE tekmetric.repair_orders SET notes = 'spoiled'")
    summary = loaded.scan()
    assert (summary.metrics["rows_young"], summary.metrics["rows_differing"]) == (1, len(control.ids()) - 1)


def test_days_back_says_how_far_orders_are_compared(conn):
    with trading(conn, now=None) as shops:
        control = shops.control
        shops.sync("backfill")
        posted = sorted((row["posted"], id_) for id_ in control.ids() if (row := control.order(id_))["posted"])
        (_, old), (_, young) = posted[0], posted[-1]
        control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}, silent=True) for id_ in (old, young)))
        control.mutate(*(Mutation("delete", "orders", id_, silent=True) for _, id_ in (posted[1], posted[-2])))
        control.reset_counters()
        summary = shops.scan(days_back=20)
        asked = shops.asked("estimate")
        assert summary.scope == "20 days back"
        assert vars(summary.plan)["update"] == 1
        assert drift(summary)["confirmed_deleted"] == 1
        control.reset_counters()
        summary = shops.scan()
        assert shops.asked("estimate") > asked
        assert summary.scope == "all"
        assert (summary.metrics["rows_differing"], summary.metrics["confirmed_deleted"]) == (2, 2)


def test_of_one_shop_leaves_the_other_alone(loaded, conn):
    control = loaded.control
    east, west = (control.ids(shop=shop)[0] for shop in (EAST, WEST))
    control.mutate(*(Mutation("delete", "orders", id_, silent=True) for id_ in (east, west)))
    summary = loaded.scan(shop_id=WEST)
    assert (summary.scope, summary.metrics["confirmed_deleted"]) == (f"shop {WEST}", 1)
    assert summary.examples["delete_examples"] == [[WEST, west]]
    loaded.mend(summary)
    assert (order(conn, east) is None, order(conn, west)) == (False, None)


def test_mass_delete_in_one_shop_is_held_however_much_the_other_has(loaded, conn):
    """The other shop has orders enough to hide it."""
    columns = sql.SQL(", ").join(map(sql.Identifier, tables.REPAIR_ORDERS.names))
    numbered = sql.SQL(", ").join(
        sql.SQL("7000000 + n") if name == "tm_id" else sql.Identifier(name) for name in tables.REPAIR_ORDERS.names
    )
    conn.execute(
        sql.SQL(
            "INSERT INTO {0} ({1}, sync_id) SELECT {2}, 1"
            " FROM (SELECT * FROM {0} WHERE shop_id = {3} LIMIT 1) t, generate_series(1, 3000) n"
        ).format(tables.REPAIR_ORDERS.sql, columns, numbered, sql.Literal(WEST))
    )
    gone = loaded.control.ids(shop=EAST)[1:]
    loaded.control.mutate(*(Mutation("delete", "orders", id_, silent=True) for id_ in gone))
    summary = loaded.scan(shop_id=EAST)
    assert summary.metrics["db_total_rows"] > 3000
    assert summary.metrics["confirmed_deleted"] == len(gone)
    judged = judge(summary, [], [RepairShare()])
    assert (judged.verdict, "plan.delete" in judged.worse) == ("hold", True)


@pytest.mark.parametrize("shop_id", [None, EAST])
def test_shares_are_of_the_rows_that_were_looked_at(loaded, shop_id):
    accounts = (summary := loaded.scan(shop_id=shop_id)).accounts.values()
    ends = ("equal", "differing", "surplus")
    assert summary.live_rows == sum(getattr(account, end) for account in accounts for end in ends) > 0
    assert bool(shop_id) == (summary.live_rows < sum(account.live for account in accounts))


def test_before_the_first_sync_is_refused(shops):
    with pytest.raises(ScanRefused, match=r"tekmetric\.repair_orders was never synced"):
        shops.scan()


def test_rollback_of_a_sync_is_exact(loaded, conn):
    """With a job that came, one that went, items without ids, and an order that was un-posted."""
    control = loaded.control
    id_ = with_job(loaded)
    posted = next(each for each in control.ids() if control.order(each)["posted"])
    loaded.sync()
    before = everything(conn)
    (job_id,) = [row["tm_id"] for row in of_order(conn, "jobs", id_)]
    control.mutate(
        Mutation("delete", "jobs", job_id),
        Mutation("create", "jobs", fields={"order_id": id_, **job()}),
        Mutation("unpost", "orders", posted),
    )
    with_job(loaded)
    control.advance(600)
    synced = loaded.sync()
    after = everything(conn)
    undone = loaded.roll_back(synced.sync_id)
    assert everything(conn) == before
    loaded.roll_back(undone.sync_id)
    assert everything(conn) == after


def test_rollback_of_a_repair_is_exact(loaded, conn):
    id_ = with_job(loaded)
    loaded.sync()
    loaded.control.mutate(Mutation("delete", "orders", id_, silent=True))
    before, whole = everything(conn), contents(conn)
    counts = loaded.mend(loaded.scan())
    assert counts["jobs"].deleted == 1
    (sync_id,) = conn.execute("SELECT max(sync_id) FROM confidence.sync_log WHERE kind = 'repair'").fetchone()
    loaded.roll_back(sync_id)
    assert (everything(conn), contents(conn)) == (before, whole)
