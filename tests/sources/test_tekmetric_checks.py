"""Tekmetric's invariants: a true copy keeps them all, and each names the rows that break it and no others."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from include.confidence.integrity import Severity
from include.simulators import tekmetric as simulator
from include.simulators.tekmetric import Mutation
from include.sources.base import entity_of
from include.sources.mirror.derive import Derived
from include.sources.tekmetric import SOURCE
from include.sources.tekmetric.checks import CHECKS
from include.sources.tekmetric.derived import DAILY, SNAPSHOTS
from include.sources.tekmetric.tables import JOB_FEES, JOBS
from include.warehouse.sql_fragments import identifiers
from include.warehouse.table import Table
from stack.postgres import Server
from tests.conftest import copy_of

from .tekmetric import WEST, trading

# One of everything, at prices that cents matter little to.
PARTS = (
    {"name": "Strut", "quantity": 4, "retail": 15450, "cost": 8275, "per_line": True},
    {"name": "Mount", "quantity": 1, "retail": 4425, "cost": 1999},
    {"name": "Oil", "quantity": 4.73, "retail": 899, "cost": 412},
)
SUBLETS = ({"name": "Machining", "retail": 22000, "cost": 15000},)
FEES = (
    {"name": "Disposal", "amount": 395, "taxable": True},
    {"name": "Disposal", "amount": 395, "taxable": True},
    {"name": "Hazardous waste", "percentage": 2.5, "cap": 900},
)
ORDER_FEES = ({"name": "Shop supplies", "percentage": 6, "cap": 2500, "taxable": True},)


@pytest.fixture(scope="module")
def account(postgres: Server, migrated: str) -> Iterator[psycopg.Connection]:
    """Orders by chance and, with the highest ids, one given away, one that was posted, one that nobody agreed to."""
    with (
        contextmanager(copy_of)(postgres, migrated) as url,
        psycopg.connect(url, autocommit=True) as conn,
        trading(conn, orders=40, customers=12) as shops,
    ):
        technician = technician_of(shops.control)
        shops.control.mutate(
            order(status=5, discount=10_000_000, fees=(), jobs=[job(technician, authorized=True)]),
            order(status=5, jobs=[job(technician, authorized=True), job(technician)]),
            order(status=1, jobs=[job(technician), job(technician)]),
        )
        shops.sync("backfill")
        yield conn


def technician_of(control: simulator.Control) -> int:
    return next(id_ for id_ in control.ids("employees", WEST) if control.row("employees", id_)["canPerformWork"])


def order(**fields: Any) -> Mutation:
    return Mutation("create", "orders", fields={"shop_id": WEST, "fees": ORDER_FEES, "discount": 500} | fields)


def job(technician: int, **fields: Any) -> dict[str, Any]:
    labor = ({"name": "Work", "hours": 2.25, "rate": 17525, "technician_id": technician},)
    items = {"parts": PARTS, "labor": labor, "sublets": SUBLETS, "fees": FEES}
    return {"name": "Suspension", "discount": 1225, **items, **fields}


@pytest.fixture
def copy(account: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The copy, which is as before afterwards."""
    with account.transaction(force_rollback=True):
        yield account


# As text, since making it takes as long as a query of so few orders.
QUERIES = {check.name: check.query.as_string() for check in CHECKS}


def violations(conn: psycopg.Connection, but: Collection[str] = ()) -> dict[str, list[tuple]]:
    """The broken checks, each with the keys of the rows that it names."""
    found = {name: sorted(conn.execute(query).fetchall()) for name, query in QUERIES.items() if name not in but}
    return {name: keys for name, keys in found.items() if keys}


def spoil(conn: psycopg.Connection, table: str, change: str, where: str = "true") -> dict[str, Any]:
    """Change the last row of which `where` is true, and return it."""
    own = {"repair_orders": "tm_id", "jobs": "tm_id", "vehicles": "tm_id", "daily_shop_metrics": "metric_date"}
    last = own.get(table, "tm_repair_order_id")
    query = (
        f"UPDATE tekmetric.{table} SET {change} WHERE ctid = (SELECT ctid FROM tekmetric.{table}"
        f" WHERE deleted_at IS NULL AND ({where}) ORDER BY {last} DESC LIMIT 1) RETURNING *"
    )
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query).fetchone()


def key_of(derived: Derived, row: dict[str, Any]) -> tuple:
    return tuple(row[name] for name in derived.table.key)


def named(check: str, table: str, row: dict[str, Any]) -> tuple:
    """The key by which a check names a row, or the order or job that the row is a part of."""
    order_id = row["tm_id"] if table == "repair_orders" else row.get("tm_repair_order_id")
    if check == "missing_data_in_jobs":
        job_id = row["tm_id"] if table == "jobs" else row["tm_job_id"]
        return (table, row["shop_id"], order_id, job_id, row.get("line", ""))
    if check.startswith("job_"):
        return (row["shop_id"], row["tm_id"] if table == "jobs" else row["tm_job_id"])
    if check in OF_ITEMS:
        return (row["shop_id"], row["tm_job_id"], row["line"])
    return (row["shop_id"], row["tm_id"] if table in ("repair_orders", "vehicles") else order_id)


OF_ITEMS = ("parts_math_errors", "labor_math_errors", "labor_without_technician")
# Items of jobs that somebody agreed to, and of others.
AGREED = "(shop_id, tm_job_id) IN (SELECT shop_id, tm_id FROM tekmetric.jobs WHERE authorized)"
OPEN = "(shop_id, tm_job_id) NOT IN (SELECT shop_id, tm_id FROM tekmetric.jobs WHERE authorized)"
# Where a dollar is less than half a point; where most of one is more.
LARGE, SMALL = "authorized_revenue > 100000", "authorized_revenue BETWEEN 5000 AND 15000"
# Without fees of the order's own that add to its tax.
PLAIN = "tm_id NOT IN (SELECT tm_repair_order_id FROM tekmetric.job_fees WHERE tm_job_id = 0 AND taxable)"


def earned(**by: int) -> str:
    """Other revenue or cost, and a profit and a margin that go with it."""
    revenue, cost = (f"(authorized_{name} + {by.get(name, 0)})" for name in ("revenue", "cost"))
    return (
        f"authorized_revenue = {revenue}, authorized_cost = {cost}, authorized_profit = {revenue} - {cost},"
        f" authorized_gp_percent = round(({revenue} - {cost}) * 100.0 / {revenue}, 2)"
    )


def more(column: str, by: float = 101) -> str:
    return f"{column} = {column} + {by}"


# What is computed from the orders differs from them as soon as they are spoilt.
COMPUTED = ("snapshots_unlike_order", "orders_without_snapshot", "days_unlike_snapshots")
# Table, change, where; the checks that it breaks.
SPOILED = [
    ("job_parts", more("total", 11), "quantity = 1 AND total > 0", "parts_math_errors"),
    ("job_parts", more("total", -11), "quantity > 1 AND quantity <> trunc(quantity)", "parts_math_errors"),
    ("job_labor", more("total", 11), "true", "labor_math_errors"),
    ("job_parts", f"{more('retail')}, {more('total')}", f"quantity = 1 AND total > 0 AND {OPEN}", "job_sum_mismatches"),
    ("job_parts", more("cost"), f"quantity = 1 AND {OPEN}", "job_sum_mismatches"),
    ("job_labor", "rate = rate + 100, total = hours * (rate + 100)", f"{OPEN} AND hours > 2", "job_sum_mismatches"),
    ("job_labor", "hours = hours + 0.02, total = (hours + 0.02) * rate", f"{OPEN} AND hours > 2", "job_sum_mismatches"),
    ("job_sublets", more("retail"), OPEN, "job_sum_mismatches"),
    ("job_sublets", more("cost"), OPEN, "job_sum_mismatches"),
    ("job_fees", more("total"), f"tm_job_id <> 0 AND {OPEN}", "job_sum_mismatches"),
    ("jobs", more("subtotal"), "subtotal IS NOT NULL", "job_sum_mismatches"),
    ("jobs", more("labor_hours", 0.02), "true", "job_sum_mismatches"),
    (
        "jobs",
        more("tax"),
        f"tax > 0 AND NOT authorized AND tm_repair_order_{PLAIN.removeprefix('tm_')}",
        "job_tax_mismatches tax_mismatches",
    ),
    ("jobs", more("total"), "NOT authorized", "job_tax_mismatches"),
    *(
        ("repair_orders", more(f"potential_{name}"), f"potential_{name} IS NOT NULL", "sum_mismatches")
        for name in ("total", "subtotal", "discount", "parts_total", "labor_total", "sublet_total", "job_count")
    ),
    *(
        ("repair_orders", more(f"authorized_{name}"), "true", "sum_mismatches")
        for name in ("total", "discount", "parts_total", "labor_total", "sublet_total", "fees_total", "job_count")
    ),
    ("repair_orders", more("order_discount"), "true", "sum_mismatches"),
    ("repair_orders", f"{more('potential_fees_total')}, {more('potential_discount')}", "true", "sum_mismatches"),
    (
        "repair_orders",
        ", ".join(more(f"potential_{name}", -101) for name in ("tax", "total")),
        PLAIN,
        "tax_mismatches",
    ),
    (
        "repair_orders",
        ", ".join(more(f"potential_{name}") for name in ("tax", "total")),
        PLAIN,
        "tax_mismatches",
    ),
    (
        "repair_orders",
        ", ".join(more(f"potential_{name}", 350) for name in ("tax", "total")),
        "true",
        "tax_mismatches",
    ),
    ("repair_orders", more("authorized_subtotal"), "authorized_job_count > 0", "sum_mismatches"),
    ("repair_orders", more("authorized_tax"), "authorized_job_count > 0", "tax_mismatches"),
    ("repair_orders", more("amount_paid", -105), f"authorized_job_count > 0 AND {PLAIN}", "balance_mismatches"),
    ("repair_orders", more("balance_due", 350), "authorized_job_count > 0", "balance_mismatches"),
    ("repair_orders", more("authorized_profit"), LARGE, "profit_mismatches"),
    ("repair_orders", more("authorized_labor_profit"), LARGE, "profit_mismatches"),
    ("repair_orders", more("authorized_gp_percent", 0.52), LARGE, "profit_mismatches"),
    ("repair_orders", "authorized_gp_percent = NULL", LARGE, "profit_mismatches"),
    ("repair_orders", "authorized_gp_percent = 12", "authorized_revenue = 0", "profit_mismatches"),
    ("repair_orders", earned(cost=90), SMALL, "gp_mismatches"),
    ("repair_orders", earned(revenue=350), LARGE, "cross_endpoint_disagreements balance_mismatches"),
    ("repair_orders", earned(cost=105), LARGE, "cross_endpoint_disagreements"),
    (
        "repair_orders",
        earned(revenue=9000),
        LARGE,
        "cross_endpoint_disagreements gp_mismatches balance_mismatches",
    ),
    ("repair_orders", earned(cost=9000), LARGE, "cross_endpoint_disagreements gp_mismatches"),
    (
        "repair_orders",
        ", ".join(more(f"authorized_labor_{name}", 105) for name in ("revenue", "profit")),
        LARGE,
        "cross_endpoint_disagreements",
    ),
    (
        "repair_orders",
        f"{more('authorized_labor_cost', 105)}, {more('authorized_labor_profit', -105)}",
        LARGE,
        "cross_endpoint_disagreements",
    ),
    ("repair_orders", more("authorized_labor_hours", 0.02), LARGE, "cross_endpoint_disagreements"),
    ("repair_orders", "ro_number = NULL", "true", "missing_data"),
    ("repair_orders", "posted_at = NULL, posted_date = NULL", "status = 'ACCRECV'", "missing_data"),
    ("jobs", "labor_hours = NULL", "true", "missing_data_in_jobs"),
    ("job_parts", "quantity = NULL", "quantity = 1", "missing_data_in_jobs"),
    (
        "job_labor",
        "hours = NULL",
        OPEN,
        "missing_data_in_jobs labor_math_errors job_sum_mismatches",
    ),
    ("job_sublets", "cost = NULL", OPEN, "missing_data_in_jobs job_sum_mismatches"),
    ("repair_orders", "posted_date = posted_date + 1", "posted_date IS NOT NULL", "days_unlike_instants"),
    ("repair_orders", "completed_date = NULL", "completed_date IS NOT NULL", "days_unlike_instants"),
    ("job_labor", "tm_technician_id = 1", OPEN, "labor_without_technician"),
    ("repair_orders", "tm_customer_id = 1", "true", "orders_without_customer"),
    ("repair_orders", "tm_vehicle_id = 1", "true", "orders_without_vehicle"),
    ("repair_orders", "tm_service_advisor_id = 1", "true", "orders_without_advisor"),
    ("vehicles", "tm_customer_id = 1", "true", "vehicles_without_customer"),
]


def test_true_copy_breaks_nothing(account):
    assert violations(account) == {}


@pytest.mark.parametrize(("table", "change", "where", "checks"), SPOILED, ids=lambda value: value[:40])
def test_each_check_names_the_rows_that_break_it_and_no_other_does(copy, table, change, where, checks):
    row = spoil(copy, table, change, where)
    assert violations(copy, but=COMPUTED) == {name: [named(name, table, row)] for name in checks.split()}


@pytest.mark.parametrize(
    ("table", "change", "where"),
    [
        ("job_parts", more("total", 10), "quantity = 1 AND total > 0"),
        ("job_parts", "total = NULL", "quantity = 1"),
        ("job_labor", more("total", 9), "true"),
        ("jobs", more("parts_cost", 99), "true"),
        ("repair_orders", more("potential_total", 99), "true"),
        ("repair_orders", more("potential_tax", -200) + ", " + more("potential_total", -200), f"NOT {PLAIN}"),
        ("repair_orders", more("authorized_tax", 99), "authorized_job_count > 0"),
        ("repair_orders", more("amount_paid", 95), "authorized_job_count > 0"),
        ("repair_orders", more("authorized_profit", 99), LARGE),
        ("repair_orders", more("authorized_gp_percent", 0.48), LARGE),
        ("repair_orders", earned(cost=90), LARGE),
        ("repair_orders", more("authorized_labor_hours", 0.01), "true"),
        ("repair_orders", more("balance_due", 5000), "authorized_job_count = 0"),
        # Nobody knows what this work has cost.
        ("job_labor", "tm_technician_id = NULL, tech_hourly_cost = NULL", AGREED),
        (
            "repair_orders",
            "potential_tax = 1, posted_date = NULL, updated_date = '2100-01-01'",
            "posted_at IS NOT NULL",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_cents_guesses_and_what_changed_since_are_no_violations(copy, table, change, where):
    assert spoil(copy, table, change, where)
    assert violations(copy, but=COMPUTED) == {}


def test_lost_line_shows_in_its_job_and_in_what_the_order_earns(copy):
    """Neither the job's own sum nor the vendor's profit is reckoned from our lines."""
    line = spoil(copy, "job_parts", "deleted_at = now()", f"{AGREED} AND retail > 4000")
    order_id = (line["shop_id"], line["tm_repair_order_id"])
    assert violations(copy) == {
        "job_sum_mismatches": [(line["shop_id"], line["tm_job_id"])],
        "cross_endpoint_disagreements": [order_id],
        "gp_mismatches": [order_id],
    }


def test_whole_line_taken_for_one_piece_shows(copy):
    line = spoil(copy, "job_parts", "total = retail * quantity", "name = 'Strut' AND quantity = 4")
    assert violations(copy)["job_sum_mismatches"] == [(line["shop_id"], line["tm_job_id"])]


# Of an item in no job, beside its key.
STRAYS = {
    "parts_without_job": ("job_parts", {"quantity": 1, "retail": 0, "cost": 0}),
    "labor_without_job": ("job_labor", {"hours": 0, "rate": 0}),
    "sublets_without_job": ("job_sublets", {"retail": 0, "cost": 0}),
    "fees_without_job": ("job_fees", {}),
}


def put(conn: psycopg.Connection, table: str, **values: Any) -> None:
    query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier("tekmetric", table),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(map(sql.Literal, values.values())),
    )
    conn.execute(query)


@pytest.mark.parametrize("check", STRAYS)
@pytest.mark.parametrize("job", ["of no order", "of another order"])
def test_items_are_in_a_job_of_their_own_order(copy, check, job):
    table, values = STRAYS[check]
    query = "SELECT min(tm_repair_order_id), max(tm_id) FROM tekmetric.jobs WHERE shop_id = %s"
    order_id, other = copy.execute(query, [WEST]).fetchone()
    job_id = other if job == "of another order" else 1
    put(
        copy,
        table,
        shop_id=WEST,
        tm_repair_order_id=order_id,
        tm_job_id=job_id,
        line="stray",
        sync_id=0,
        **values,
    )
    key = (WEST, order_id, job_id, "stray") if table == "job_fees" else (WEST, job_id, "stray")
    assert violations(copy) == {check: [key]}


def keys_of(conn: psycopg.Connection, table: Table, order: dict[str, Any]) -> list[tuple]:
    """The keys of the order's rows in a table, in order."""
    query = sql.SQL("SELECT {0} FROM {1} WHERE (shop_id, tm_repair_order_id) = (%s, %s) ORDER BY {0}")
    key = [order["shop_id"], order["tm_id"]]
    return conn.execute(query.format(identifiers(table.key), table.sql), key).fetchall()


def test_what_an_order_consists_of_is_gone_with_it(copy):
    order = spoil(copy, "repair_orders", "deleted_at = now()", "posted_date IS NOT NULL")
    assert violations(copy) == {
        "jobs_without_order": keys_of(copy, JOBS, order),
        "fees_without_order": keys_of(copy, JOB_FEES, order),
        "snapshots_without_order": keys_of(copy, SNAPSHOTS.table, order),
        "days_unlike_snapshots": [(order["shop_id"], order["posted_date"])],
    }


def test_job_is_gone_with_all_that_is_in_it(copy):
    job = spoil(copy, "jobs", "deleted_at = now()", "NOT authorized")
    found = violations(copy)
    for check, (table, _) in STRAYS.items():
        assert {key[-2] for key in found[check]} == {job["tm_id"]}, table


# No sum counts it, since its order was posted later on.
UNCOUNTED = (
    "snapshot_trigger = 'completed' AND (shop_id, tm_repair_order_id)"
    " IN (SELECT shop_id, tm_id FROM tekmetric.repair_orders WHERE posted_date IS NOT NULL)"
)


def test_snapshot_that_tells_what_the_order_no_longer_earns_is_named(copy):
    row = spoil(copy, "ro_snapshots", more("authorized_cost", 1), UNCOUNTED)
    assert violations(copy) == {"snapshots_unlike_order": [key_of(SNAPSHOTS, row)]}


def test_snapshot_of_another_day_is_named_and_that_of_the_order_is_missing(copy):
    row = spoil(copy, "ro_snapshots", "snapshot_date = snapshot_date + 1", UNCOUNTED)
    key = key_of(SNAPSHOTS, row)
    shop_id, order_id, day, trigger = key
    assert violations(copy) == {
        "snapshots_unlike_order": [key],
        "orders_without_snapshot": [(shop_id, order_id, day - timedelta(days=1), trigger)],
    }


def test_snapshot_that_is_gone_is_missing(copy):
    row = spoil(copy, "ro_snapshots", "deleted_at = now(), authorized_cost = 1", UNCOUNTED)
    assert violations(copy) == {"orders_without_snapshot": [key_of(SNAPSHOTS, row)]}


def test_snapshot_by_hand_may_be_of_any_day_and_tell_anything(copy):
    row = spoil(copy, "ro_snapshots", "ro_status = ro_status", UNCOUNTED)
    by_hand = {name: row[name] for name in SNAPSHOTS.table.names if name != "labor"}
    changed = {"snapshot_date": date(2020, 2, 2), "snapshot_trigger": "manual", "authorized_revenue": 1}
    put(copy, "ro_snapshots", **by_hand | changed, sync_id=0)
    assert violations(copy) == {}


@pytest.mark.parametrize(
    "change",
    [
        *(more(name, 1) for name in ("ro_count", "authorized_revenue", "authorized_profit", "true_profit")),
        "deleted_at = now()",
        "metric_date = '2020-02-02'",
    ],
)
def test_day_is_the_sum_of_its_snapshots(copy, change):
    days = set(copy.execute("SELECT shop_id, metric_date FROM tekmetric.daily_shop_metrics").fetchall())
    row = spoil(copy, "daily_shop_metrics", change)
    key = key_of(DAILY, row)
    missing = days - set(copy.execute("SELECT shop_id, metric_date FROM tekmetric.daily_shop_metrics").fetchall())
    assert violations(copy) == {"days_unlike_snapshots": sorted({key} | missing)}


# What no row that is gone may be judged by.
NONSENSE = {
    "repair_orders": "ro_number = NULL, posted_date = NULL, tm_customer_id = 1, potential_total = 1",
    "jobs": "total = 1, tax = 1, discount = 99999, parts_cost = NULL",
    "job_parts": "quantity = NULL, retail = 1, cost = 99999",
    "job_labor": "hours = 99, rate = NULL, tm_technician_id = 1",
    "job_sublets": "retail = NULL, cost = 99999",
    "job_fees": "total = 99999, taxable = true",
    "ro_snapshots": "authorized_cost = 1",
    "daily_shop_metrics": "ro_count = 99",
}


def test_copy_in_step_with_a_changed_account_breaks_nothing(conn):
    with trading(conn, orders=24, customers=8) as shops:
        control = shops.control
        technician = technician_of(control)
        whole = {"status": 5, "jobs": [job(technician, authorized=True), job(technician, authorized=True)]}
        emptied, posted = control.mutate(order(**whole), order(**whole))
        shops.sync("backfill")
        first, second, third = [id_ for id_ in control.ids() if control.order(id_)["status"] == 5][:3]
        jobs = [job["id"] for job in control.order(emptied)["jobs"]]
        control.mutate(
            Mutation("unpost", "orders", first),
            Mutation("reopen", "orders", second),
            Mutation("post", "orders", posted, {"posted": "2026-11-01T05:30:00Z"}),
            Mutation("decline", "jobs", control.order(posted)["jobs"][0]["id"]),
            Mutation("delete", "jobs", jobs[0]),
            Mutation("update", "jobs", jobs[1], dict.fromkeys(("parts", "labor", "sublets", "fees"), ())),
            Mutation("update", "orders", emptied, {"fees": ()}),
            Mutation("delete", "orders", third),
        )
        shops.sync("incremental")
        shops.sync("incremental", ro_id=third, shop_id=control.order(third)["shop_id"])
        assert violations(conn) == {}
        for table, change in NONSENSE.items():
            assert conn.execute(f"UPDATE tekmetric.{table} SET {change} WHERE deleted_at IS NOT NULL").rowcount
        assert violations(conn) == {}


def test_scans_count_what_breaks_a_check(copy):
    spoil(copy, "vehicles", "tm_customer_id = 1")
    spoil(copy, "repair_orders", "ro_number = NULL")
    counted = {
        name: count
        for entity in ("vehicles", "repair_orders")
        for name, count in entity_of(SOURCE, entity).forensics(copy, None).items()
        if count
    }
    assert counted == {"vehicles_without_customer_violations": 1, "missing_data_violations": 1}


def test_errors_are_gates_of_their_entity_and_warnings_are_not():
    for check in CHECKS:
        gated = check.metric in {gate.metric for gate in entity_of(SOURCE, check.entity).gates}
        assert gated == (check.severity is Severity.ERROR)


def test_every_check_is_spoilt_once():
    spoilt = {name for *_, names in SPOILED for name in names.split()}
    of_orders = {"snapshots_without_order", "jobs_without_order", "fees_without_order"}
    assert {check.name for check in CHECKS} == spoilt | of_orders | set(STRAYS) | set(COMPUTED)
