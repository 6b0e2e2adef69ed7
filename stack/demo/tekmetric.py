"""Tekmetric's scenario: two shops, listed in brief. A sync asks for what changed, and days add up to the cent."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

from psycopg import sql

from include.simulators.tekmetric import Control, Mutation, Sums
from stack.control import Stack
from stack.demo.steps import Demo, expect, some
from stack.settings import SHOPS

PEOPLE = ("employees", "customers", "vehicles")
ENTITIES = (*PEOPLE, "repair_orders")
ITEMS = {"job_parts": "parts", "job_labor": "labor", "job_sublets": "sublets"}
PARTS = ("jobs", *ITEMS, "job_fees")
# What names a row, of items the job that they are in; an order is known by what it earns, too.
KEYS = {
    **dict.fromkeys(PEOPLE, ("shop_id", "tm_id")),
    "repair_orders": ("shop_id", "tm_id", "authorized_revenue", "authorized_cost", "authorized_profit"),
    "jobs": ("shop_id", "tm_id"),
    **dict.fromkeys(ITEMS, ("shop_id", "tm_job_id")),
    "job_fees": ("shop_id", "tm_repair_order_id", "tm_job_id"),
}
# A shop's day, and what it is called on the screen.
DAY = {
    "ro_count": "orders",
    "authorized_revenue": "revenue",
    "authorized_cost": "cost",
    "authorized_profit": "profit",
    "authorized_gp_percent": "GP %",
    "labor_revenue": "labor",
    "labor_profit": "its profit",
    "labor_hours": "hours",
}
SHOWN_DAYS = 8
WORK_IN_PROGRESS = 2
# Head, estimate, profit, and whom or what the order names: eight at most. Which other orders have changed within the
# lookback, and are looked at once more, depends on the time of day.
REQUESTS_AN_ORDER = 10
# Small enough to pass the gate: a metric may rise by 25 rows, a repair may always change 20.
LOST, EDITED = 3, 4
WRITTEN = ("inserted", "updated", "deleted")
DRIFT = ("api_unique_not_in_db", "db_not_in_api_unique", "rows_differing")

Order = Mapping[str, Any]
Days = Mapping[tuple[int, date], tuple]


@dataclass(frozen=True)
class Garage(Demo):
    """The stack with the shops; the copy is the warehouse."""

    shops: Control

    def at_source(self) -> Mapping[str, Counter[tuple]]:
        """By table, the keys of what the shops have."""
        orders = {(order["shop_id"], order["id"]): order for order in self.shops.rows("orders")}
        jobs = [(*key, job) for key, order in orders.items() for job in order["jobs"]]
        people = {kind: Counter((row["shopId"], row["id"]) for row in self.shops.rows(kind)) for kind in PEOPLE}
        sums = {key: self.shops.profit(key[1]) for key in orders}
        return {
            **people,
            "repair_orders": Counter((*key, each.retail, each.cost, each.profit) for key, each in sums.items()),
            "jobs": Counter((shop, job["id"]) for shop, _, job in jobs),
            **{
                table: Counter((shop, job["id"]) for shop, _, job in jobs for _ in job[n]) for table, n in ITEMS.items()
            },
            "job_fees": Counter((shop, order, job["id"]) for shop, order, job in jobs for _ in job["fees"])
            + Counter((*key, 0) for key, order in orders.items() for _ in order["fees"]),
        }

    def in_copy(self) -> Mapping[str, Counter[tuple]]:
        """By table, the keys of the rows that are no tombstones."""
        return {table: Counter(self._live(table, key)) for table, key in KEYS.items()}

    def days_at_source(self) -> Days:
        """What each day of a shop comes to: an order counts when it was posted, before that when it was completed."""
        days: dict[tuple[int, date], list[Sums]] = {}
        for order in self.shops.rows("orders"):
            if day := day_of(order):
                days.setdefault((order["shop_id"], day), []).append(self.shops.profit(order["id"]))
        return {key: _figures(orders) for key, orders in days.items()}

    def days_in_copy(self) -> Days:
        rows = self._live("daily_shop_metrics", ("shop_id", "metric_date", *DAY))
        return {(shop, day): tuple(figures) for shop, day, *figures in rows}

    def orders_written_since(self, sync_id: int) -> set[int]:
        """The orders that later syncs have changed."""
        query = (
            "SELECT DISTINCT (key ->> 'tm_id')::bigint FROM confidence.change_log"
            " WHERE sync_id > %s AND table_name = 'tekmetric.repair_orders'"
        )
        return {id_ for (id_,) in self.warehouse.execute(query, [sync_id])}

    def empty(self) -> None:
        """Forget the copy: a simulator that was started again has invented other shops since."""
        with self.warehouse.transaction():
            self.warehouse.execute("TRUNCATE tekmetric.shops CASCADE")
            self.warehouse.execute("DELETE FROM confidence.sync_state WHERE source = %s", [self.source])

    def _live(self, table: str, columns: Sequence[str]) -> list[tuple]:
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        query = sql.SQL("SELECT {} FROM {} WHERE deleted_at IS NULL")
        return self.warehouse.execute(query.format(names, sql.Identifier("tekmetric", table))).fetchall()


def play(demo: Demo, stack: Stack) -> None:
    """Play the scenario, step by step. Raises Unexpected at the first outcome that is not as it should be."""
    garage = Garage(**vars(demo), shops=Control(stack.simulator_urls[demo.source]))
    load(garage)
    sync_changes(garage)
    figures = scan(garage)
    repair(garage, figures)
    show_days(garage)


def load(demo: Garage) -> None:
    """End what is running, empty the copy, fill it, and compare it with the source."""
    demo.screen.rule("Tekmetric 1  Backfill: history from the report, each order by itself")
    demo.shops.clear()
    demo.end_questions()
    if demo.writer()[0] == "stopped":
        demo.say("An earlier run left the writer stopped: looking again, and repairing.")
        demo.repair_whatever_is_found(days_back=0)
    demo.end_syncs()
    demo.empty()
    _sync(demo, mode="backfill", days_back=0)
    source, copy = demo.at_source(), demo.in_copy()
    demo.show(("table", "at the source", "in the copy"), [(t, source[t].total(), copy[t].total()) for t in KEYS])
    _expect_in_step(demo)


def sync_changes(demo: Garage) -> None:
    """A busy moment: the next sync brings it and asks for what changed only; days follow."""
    demo.screen.rule("Tekmetric 2  A busy moment, and an incremental sync")
    last, before = demo.last_sync_id(), demo.days_in_copy()
    happened = change(demo.shops)
    demo.show(("at the shops", "order"), happened.items())
    requests = _sync(demo, mode="incremental")
    after = demo.days_in_copy()
    days = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    rows = [
        (f"{shop} {day}", *before.get((shop, day), (0, 0))[:2], *after.get((shop, day), (0, 0))[:2])
        for shop, day in days
    ]
    demo.show(("shop and day", "orders before", "revenue before", "orders now", "revenue now"), rows)
    demo.show(("asked for", "times"), requests.items())
    others = sum(number for name, number in requests.items() if "board" not in name)
    demo.say(f"Besides the boards: {others} requests for {len(happened)} orders.")
    expect("the orders changed by the sync", demo.orders_written_since(last), {*happened.values()})
    expect("whether that is ten an order at most", others <= REQUESTS_AN_ORDER * len(happened), True)
    _expect_in_step(demo)


def scan(demo: Garage) -> Mapping[str, int]:
    """Drift on both sides that no sync can see; a forensic run finds it, to the row, and writes nothing.

    Returns what it had to find.
    """
    demo.screen.rule("Tekmetric 3  Drift: what no sync can see, and a forensic run")
    broken, figures = drift_silently(demo)
    demo.show(("where", "what", "rows", "of orders"), broken)
    last = demo.last_sync_id()
    _scan(demo, figures)
    demo.show(("found in orders", "rows"), [(name, number) for name, number in figures.items() if number])
    expect("orders changed by a dry run", demo.orders_written_since(last), set())
    return figures


def repair(demo: Garage, figures: Mapping[str, int]) -> None:
    """The same run with dry_run off repairs it; a dry run after that finds nothing."""
    demo.screen.rule("Tekmetric 4  Repair, and a clean second run")
    run_id = demo.run(demo.reconcile, dry_run=False, days_back=0)
    repaired = demo.airflow.xcom(demo.reconcile, run_id, "reconcile")
    counts = {table: tuple(n[name] for name in WRITTEN) for table, n in repaired["counts"].items()}
    rows = [(table, *numbers) for table, numbers in counts.items() if any(numbers)]
    demo.show((f"repaired as sync_id {repaired['sync_id']}", *WRITTEN), rows)
    expect("the repair of orders", counts["repair_orders"], (LOST, 1, 1))
    _scan(demo, dict.fromkeys(figures, 0))
    demo.expect_writer_runs()


def show_days(demo: Garage) -> None:
    """The metrics of the last days, checked against what the shops' own orders come to."""
    demo.screen.rule("Tekmetric 5  The shops' days, to the cent")
    _expect_in_step(demo)
    days = demo.days_in_copy()
    newest = sorted(days, key=lambda key: (key[1], key[0]), reverse=True)[:SHOWN_DAYS]
    demo.show(("shop and day", *DAY.values()), [(f"{shop} {day}", *days[shop, day]) for shop, day in newest])
    demo.say(f"All {len(days)} days are what the orders at the source come to.")


def change(shops: Control) -> Mapping[str, int]:
    """Let the shops have a busy moment; returns to which order each thing happened."""
    posted = [order for order in shops.rows("orders") if order["posted"]]
    moved, shortened = posted[0], next(order for order in posted[1:] if len(order["jobs"]) > 1)
    day = day_of(moved) + timedelta(days=1)
    noon = datetime.combine(day, time(12), _zone(moved)).isoformat()
    shop = moved["shop_id"]
    (customer,) = shops.mutate(Mutation("create", "customers", fields={"shopId": shop}))
    (vehicle,) = shops.mutate(Mutation("create", "vehicles", fields={"shopId": shop, "customerId": customer}))
    named = {"shop_id": shop, "customer_id": customer, "vehicle_id": vehicle, "status": WORK_IN_PROGRESS}
    new, *_ = shops.mutate(
        Mutation("create", "orders", fields=named),
        Mutation("post", "orders", moved["id"], {"posted": noon}),
        Mutation("delete", "jobs", shortened["jobs"][-1]["id"]),
    )
    shops.mutate(Mutation("post", "orders", new))
    return {
        "a new customer brings a new car, and their order is posted": new,
        f"an order is posted again, on {day}": moved["id"],
        "an order loses a job": shortened["id"],
    }


def drift_silently(demo: Garage) -> tuple[list[tuple], Mapping[str, int]]:
    """Break some orders at the source and in the copy, others each time.

    Returns what was broken (where, what, how many, of which orders), and the metrics that a scan should find.
    """
    copy = demo.warehouse
    found = copy.execute(
        "SELECT tm_id FROM tekmetric.repair_orders o WHERE deleted_at IS NULL AND authorized_job_count > 0"
        " AND posted_date < current_date - 20 AND tm_id IN (SELECT tm_repair_order_id FROM tekmetric.job_parts"
        " WHERE deleted_at IS NULL) ORDER BY random() LIMIT %s",
        [LOST + EDITED + 2],
    )
    orders = [id_ for (id_,) in found]
    lost, edited, (cheaper, gone) = orders[:LOST], orders[LOST:-2], orders[-2:]
    figures = {
        **{"api_unique_not_in_db": LOST, "db_not_in_api_unique": 1, "rows_differing": 1},
        **{f"{table}_missing": _rows_in(demo, table, lost) for table in PARTS},
        **{f"{table}_surplus": _rows_in(demo, table, [gone]) for table in PARTS},
        **{f"{table}_differing": EDITED if table == "job_parts" else 0 for table in PARTS},
    }
    copy.execute("DELETE FROM tekmetric.repair_orders WHERE tm_id = ANY (%s)", [lost])
    copy.execute(
        "UPDATE tekmetric.job_parts SET cost = cost + 100 WHERE (shop_id, tm_job_id, line) IN (SELECT DISTINCT ON"
        " (tm_repair_order_id) shop_id, tm_job_id, line FROM tekmetric.job_parts WHERE tm_repair_order_id = ANY (%s)"
        " AND deleted_at IS NULL)",
        [edited],
    )
    discount = demo.shops.order(cheaper)["discount"] + 500
    demo.shops.mutate(
        Mutation("update", "orders", cheaper, {"discount": discount}, silent=True),
        Mutation("delete", "orders", gone, {"hidden": True}, silent=True),
    )
    broken = [
        ("the copy", "orders deleted with all in them", LOST, some(lost)),
        ("the copy", "parts edited by hand", EDITED, some(edited)),
        ("the source", "a discount given, the time of change kept", 1, cheaper),
        ("the source", "an order gone without a trace", 1, gone),
    ]
    return broken, figures


def day_of(order: Order) -> date | None:
    """The shop's day on which an order counts, None before it is completed."""
    moment = order["posted"] or order["completed"]
    return moment and datetime.fromisoformat(moment).astimezone(_zone(order)).date()


def _zone(order: Order) -> ZoneInfo:
    return next(ZoneInfo(shop["timezone"]) for shop in SHOPS if shop["tm_id"] == order["shop_id"])


def _figures(orders: Sequence[Sums]) -> tuple:
    """Those of DAY, of what was agreed to in each order."""
    revenue, profit = sum(sums.retail for sums in orders), sum(sums.profit for sums in orders)
    percent = (Decimal(profit * 100) / revenue).quantize(Decimal("0.01"), ROUND_HALF_UP) if revenue else None
    labor, labor_cost = sum(sums.labor for sums in orders), sum(sums.labor_cost for sums in orders)
    hours = sum(sums.hours for sums in orders)
    return len(orders), revenue, revenue - profit, profit, percent, labor, labor - labor_cost, hours


def _rows_in(demo: Garage, table: str, orders: Sequence[int]) -> int:
    query = sql.SQL("SELECT count(*) FROM {} WHERE deleted_at IS NULL AND tm_repair_order_id = ANY (%s)")
    return demo.warehouse.execute(query.format(sql.Identifier("tekmetric", table)), [orders]).fetchone()[0]


def _sync(demo: Garage, **conf: Any) -> Mapping[str, int]:
    """Sync, and return how often what was asked for, as the simulator counts."""
    demo.shops.reset_counters()
    demo.run(demo.sync, **conf)
    demo.end_syncs()
    return {name: sum(answers.values()) for name, answers in demo.shops.counters().requests.items()}


def _scan(demo: Garage, figures: Mapping[str, int]) -> None:
    """A dry run over all orders, which has to find just that, and nothing else."""
    found = demo.summaries(demo.run(demo.reconcile, dry_run=True, days_back=0))
    expect(
        "the verdicts", {entity: verdict for entity, (_, verdict, _) in found.items()}, dict.fromkeys(ENTITIES, "pass")
    )
    for entity in ENTITIES:
        expected = figures if entity == "repair_orders" else dict.fromkeys(DRIFT, 0)
        expect(f"the metrics of {entity}", found[entity][0]["metrics"], expected)


def _expect_in_step(demo: Garage) -> None:
    source, copy = demo.at_source(), demo.in_copy()
    expect("tables whose rows differ", [table for table in KEYS if source[table] != copy[table]], [])
    expect("the shops' days", demo.days_in_copy(), demo.days_at_source())
