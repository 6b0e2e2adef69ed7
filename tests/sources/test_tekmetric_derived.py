"""Snapshots and the figures of days, against a shop's days worked out by hand."""

from contextlib import ExitStack, contextmanager
from decimal import Decimal

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from include.sources.tekmetric.derived import SNAPSHOTS, by_hand
from tests.conftest import copy_of
from tests.repair_shops import bury, computed, derive, march, order, put, rows, write

SHOP, DESERT = 6212, 7301
ADVISOR, TECH, CHEAP, UNKNOWN, GONE = 21, 31, 32, 33, 34
STATE = {"status": "COMPLETE", "ro_number": 1}


def technician(tm_id, rate, **more):
    return {"shop_id": SHOP, "id": tm_id, "employeeRole": {"code": 3}, "hourlyRate": rate} | more


def profit(revenue, cost, margin, labor=(0, 0, 0)):
    """What the vendor says of the authorized jobs: retail, cost, margin; and of their labor retail, cost, hours."""
    return {
        "authorized_revenue": revenue,
        "authorized_cost": cost,
        "authorized_profit": revenue - cost,
        "margin": margin,
        "authorized_labor_revenue": labor[0],
        "authorized_labor_cost": labor[1],
        "authorized_labor_profit": labor[0] - labor[1],
        "authorized_labor_hours": labor[2],
    }


def staff(conn):
    """Two shops; the first one's technicians with a rate earn 3000 cents an hour on average, (3200 + 2800) / 2."""
    put(conn, "shops", {"tm_id": SHOP, "name": "Main"}, {"tm_id": DESERT, "timezone": "America/Phoenix"})
    put(
        conn,
        "employees",
        {"shop_id": SHOP, "id": ADVISOR, "firstName": "Ada", "lastName": "Writer", "employeeRole": {"code": 2}},
        technician(TECH, "3200.0"),
        technician(CHEAP, 2800),
        technician(UNKNOWN, None),
        # Of the average are neither those who left nor those who do other work.
        technician(GONE, 9000, disabled=True),
        technician(22, 9900, employeeRole={"code": 1}),
    )
    put(conn, "employees", {"shop_id": DESERT, "id": 41, "employeeRole": {"code": 3}})
    put(conn, "customers", {"shop_id": SHOP, "id": 51, "firstName": "Grace", "lastName": "Driver"})
    put(
        conn, "vehicles", {"shop_id": SHOP, "id": 61, "year": 2019, "make": "Ford", "model": {"id": 7, "name": "F-150"}}
    )


def brakes(conn, **head):
    """The order that has everything, 1001.

    Job 1 (authorized, discount 1000; its own fee of 500 counts for nothing in our calculation):
      rotors    2    x 8995 = 17990, cost 2 x 4310 = 8620
      fluid     0.5  x  799 = 399.5, cut to 399; cost 0.5 x 301 = 150.5, cut to 150
      clips     4 pieces, shown as 5000 with a total of 5000: the line's values; cost 2600, the line's
      labor     2.25 h x 16500 = 37125; the line names a rate of 3200: cost 7200, assigned
      labor     0.7  h x 14950 = 10465; the technician's rate is not known: the shop's 3000, cost 2100, shop_avg
    Job 2 (authorized):
      sublet    12000, cost 8000
      labor     1.15 h x 17525 = 20153.75, cut to 20153; the employee's rate is 2800: cost 3220, assigned
    Job 3 nobody decided on yet, job 4 was declined.

    parts    17990 + 399 + 5000    = 23389   cost  8620 + 150 + 2600  = 11370   profit 12019
    labor    37125 + 10465 + 20153 = 67743   cost  7200 + 2100 + 3220 = 12520   2.25 + 0.7 + 1.15 = 4.1 h
    sublets                          12000   cost                        8000
    less the discount of job 1       -1000
    sold                            102132
    fees     5 % are 5106.6, capped at 2500; oil disposal 395: 2895
    less the order's discount         -500
    TRUE_GP  102132 + 2895 - 500  = 104527   cost 11370 + 12520 + 8000 = 31890  profit 72637, 69.49 %

    The vendor counts the job's fee (104527 + 500 + 1 for its rounding = 105028), and no labor cost where it knows no
    rate (31890 - 2100 = 29790): profit 75238, 71.64 %. We are 2.15 points below.
    """
    jobs = [
        {
            "id": 1,
            "authorized": True,
            "discount": "1000.0",
            "parts": [
                {"id": 11, "quantity": 2, "retail": "8995.0", "cost": 4310, "total": Decimal("17990.0000001")},
                {"id": 12, "quantity": "0.5", "retail": 799, "cost": Decimal("300.9999999"), "total": "399.5"},
                {"name": None, "brand": "Acme", "quantity": 4, "retail": 5000, "cost": "2600", "total": 5000},
            ],
            "labor": [
                {"id": 13, "hours": "2.25", "rate": 16500, "technician": {"id": TECH, "hourlyRate": "3200.0"}},
                {"id": 14, "hours": Decimal("0.7"), "rate": 14950, "technician": {"id": UNKNOWN, "hourlyRate": None}},
            ],
            "fees": [{"name": "Hazardous waste", "amount": 500, "total": 500}],
        },
        {
            "id": 2,
            "authorized": True,
            "labor": [{"name": "Align", "hours": "1.15", "rate": "17525.0", "technician": {"id": CHEAP}}],
            "sublets": [{"name": "Towing", "retail": 12000, "cost": 8000}],
        },
        {"id": 3, "authorized": None, "parts": [{"id": 31, "quantity": 1, "retail": 10000, "cost": 1, "total": 10000}]},
        {"id": 4, "authorized": False, "declined": True, "labor": [{"id": 41, "hours": 9, "rate": 10000}]},
    ]
    fees = [
        {"name": "Shop supplies", "percentage": Decimal(5), "cap": 2500, "amount": None},
        {"name": "Oil disposal", "percentage": None, "cap": None, "amount": "395.0"},
    ]
    vendor = profit(105028, 29790, Decimal("0.7164"), (67744, 10420, "4.10"))
    known = {"tm_customer_id": 51, "tm_vehicle_id": 61, "tm_service_advisor_id": ADVISOR, "ro_number": 4417}
    sums = {"authorized_tax": 8000, "potential_total": 125000, "potential_job_count": 4, "authorized_job_count": 2}
    # 23:30 on the second in New York is the third in UTC.
    posted = {"posted_at": "2026-03-03T04:30:00Z", "posted_date": march(2)}
    order(conn, SHOP, 1001, jobs=jobs, fees=fees, order_discount=500, **vendor | known | sums | posted | head)


def oil(conn, **head):
    """Completed only, 1003: 4.73 x 899 = 4252.27 and 4.73 x 412 = 1948.76, cut to 4252 and 1948.

    Profit 2304, 54.19 %; the vendor rounds the cost up: 2303, 54.16 %.
    """
    part = {"id": 51, "quantity": "4.73", "retail": 899, "cost": 412, "total": Decimal("4252.27")}
    sums = {"authorized_tax": 350, "potential_total": 9000, "potential_job_count": 1, "authorized_job_count": 1}
    job = {"id": 5, "authorized": True, "parts": [part]}
    done = profit(4252, 1949, "0.5416") | STATE | {"completed_date": march(2)}
    order(conn, SHOP, 1003, jobs=[job], **done | sums | head)


def refused(conn, **head):
    """Posted without any job authorized, 1004: no sale, not even a fee, and the vendor's margin is "NaN"."""
    job = {"id": 6, "authorized": None, "labor": [{"id": 61, "hours": 1, "rate": 15000}]}
    sums = {"authorized_tax": 0, "potential_total": 20000, "potential_job_count": 1, "authorized_job_count": 0}
    fee = {"name": "Oil disposal", "amount": 395}
    nothing = profit(0, 0, "NaN") | {"posted_date": march(2), "order_discount": 100}
    order(conn, SHOP, 1004, jobs=[job], fees=[fee], **nothing | sums | head)


def overnight(conn, **head):
    """Completed on the second, posted on the third, 1002: 1 h x 15000 at 3200, 78.67 %."""
    job = {"id": 7, "authorized": True, "labor": [{"id": 71, "hours": 1, "rate": 15000, "technician": {"id": TECH}}]}
    sums = {"authorized_tax": 1200, "potential_total": 16200, "potential_job_count": 1, "authorized_job_count": 1}
    days = {"completed_date": march(2), "posted_date": march(3)}
    order(conn, SHOP, 1002, jobs=[job], **profit(15000, 3200, "0.7867", (15000, 3200, 1)) | sums | days | head)


def work(conn):
    """The second of March, with an order that counts on the third, a deleted one, and one in work."""
    brakes(conn)
    overnight(conn)
    oil(conn)
    refused(conn)
    order(conn, SHOP, 1005, jobs=[{"id": 8, "authorized": True}], posted_date=march(2), **profit(99999, 1, "0.99"))
    bury(conn, "repair_orders", tm_id=1005)
    order(conn, SHOP, 1006, jobs=[{"id": 9, "authorized": True}], **profit(88888, 1, "0.99"))
    derive(conn)


@pytest.fixture(scope="module")
def warehouses(postgres, migrated):
    """One with the staff, and one with the day's work too. A test's changes are rolled back."""
    with ExitStack() as closing:
        opened = []
        for fill in ([staff], [staff, work]):
            url = closing.enter_context(contextmanager(copy_of)(postgres, migrated))
            conn = closing.enter_context(psycopg.connect(url, autocommit=True))
            for write_ in fill:
                write_(conn)
            opened.append(conn)
        yield opened


@pytest.fixture
def shops(warehouses):
    with warehouses[0].transaction(force_rollback=True):
        yield warehouses[0]


@pytest.fixture
def day(warehouses):
    with warehouses[1].transaction(force_rollback=True):
        yield warehouses[1]


class TestSnapshots:
    def test_who_gets_one(self, day):
        assert sorted(key[1:] for key in rows(day, "ro_snapshots")) == [
            (1001, march(2), "posted"),
            (1002, march(2), "completed"),
            (1002, march(3), "posted"),
            (1003, march(2), "completed"),
            (1004, march(2), "posted"),
        ]

    def test_the_order_that_has_everything(self, day):
        snapshot = rows(day, "ro_snapshots")[SHOP, 1001, march(2), "posted"]
        labor = {line.pop("line"): line for line in snapshot.pop("labor")}
        assert snapshot.pop("variance_reason") == (
            "margin 69.49 % against the vendor's 71.64 %: revenue 104527 against 105028, cost 31890 against 29790"
            " cents; 1 of 3 labor lines without a technician's rate"
        )
        assert snapshot == {
            "shop_id": SHOP,
            "tm_repair_order_id": 1001,
            "snapshot_date": march(2),
            "snapshot_trigger": "posted",
            "ro_status": "POSTED",
            "ro_number": 4417,
            "customer_name": "Grace Driver",
            "vehicle_description": "2019 Ford F-150",
            "advisor_name": "Ada Writer",
            "authorized_revenue": 105028,
            "authorized_cost": 29790,
            "authorized_profit": 75238,
            "authorized_gp_percent": Decimal("71.64"),
            "authorized_job_count": 2,
            "parts_revenue": 23389,
            "parts_cost": 11370,
            "parts_profit": 12019,
            "labor_revenue": 67744,
            "labor_cost": 10420,
            "labor_profit": 57324,
            "labor_hours": Decimal("4.1"),
            "sublet_revenue": 12000,
            "sublet_cost": 8000,
            "fees_total": 2895,
            "discount_total": 1500,
            "tax_total": 8000,
            "true_revenue": 104527,
            "true_cost": 31890,
            "true_profit": 72637,
            "true_gp_percent": Decimal("69.49"),
            "potential_revenue": 125000,
            "potential_job_count": 4,
            "tm_reported_gp_percent": Decimal("71.64"),
            "variance_percent": Decimal("-2.15"),
            "calculation_method": "TRUE_GP",
        }
        of_job = {"tm_job_id": 1}
        assert labor == {
            "13": of_job
            | {"tm_technician_id": TECH, "hours": 2.25, "revenue": 37125, "hourly_cost": 3200, "cost": 7200}
            | {"rate_source": "assigned"},
            "14": of_job
            | {"tm_technician_id": UNKNOWN, "hours": 0.7, "revenue": 10465, "hourly_cost": 3000, "cost": 2100}
            | {"rate_source": "shop_avg"},
            "Align#1": {"tm_job_id": 2, "tm_technician_id": CHEAP, "hours": 1.15, "revenue": 20153}
            | {"hourly_cost": 2800, "cost": 3220, "rate_source": "assigned"},
        }

    def test_half_a_point_is_no_variance(self, day):
        snapshot = rows(day, "ro_snapshots")[SHOP, 1003, march(2), "completed"]
        assert (snapshot["parts_revenue"], snapshot["parts_cost"], snapshot["true_profit"]) == (4252, 1948, 2304)
        assert (snapshot["true_gp_percent"], snapshot["tm_reported_gp_percent"]) == (Decimal("54.19"), Decimal("54.16"))
        assert (snapshot["variance_percent"], snapshot["variance_reason"]) == (Decimal("0.03"), None)

    def test_nothing_sold(self, day):
        snapshot = rows(day, "ro_snapshots")[SHOP, 1004, march(2), "posted"]
        assert [snapshot[f"true_{name}"] for name in ("revenue", "cost", "profit", "gp_percent")] == [0, 0, 0, 0]
        assert (snapshot["fees_total"], snapshot["discount_total"], snapshot["labor"]) == (0, 0, [])
        assert snapshot["authorized_revenue"] == 0
        assert snapshot["authorized_gp_percent"] is snapshot["variance_percent"] is snapshot["variance_reason"] is None

    def test_what_the_vendor_does_not_tell_stays_unknown(self, day):
        """Its figures are missing, not 0; ours are reckoned all the same."""
        overnight(day, **dict.fromkeys(profit(0, 0, None)))
        derive(day)
        snapshot = rows(day, "ro_snapshots")[SHOP, 1002, march(3), "posted"]
        assert [value for name, value in snapshot.items() if name.startswith("authorized_")] == [None] * 4 + [1]
        assert (snapshot["labor_revenue"], snapshot["true_revenue"], snapshot["true_cost"]) == (None, 15000, 3200)
        assert rows(day, "daily_shop_metrics")[SHOP, march(3)]["authorized_revenue"] == 0

    def test_own_margin_of_nothing_differs_from_a_vendors_that_sold(self, day):
        refused(day, **profit(1000, 500, "0.5"))
        derive(day)
        assert rows(day, "ro_snapshots")[SHOP, 1004, march(2), "posted"]["variance_percent"] == -50

    def test_company_without_a_persons_name(self, day):
        put(day, "customers", {"shop_id": SHOP, "id": 51, "companyName": "Fleet Inc."})
        bury(day, "customers", tm_id=51)
        derive(day)
        assert rows(day, "ro_snapshots")[SHOP, 1001, march(2), "posted"]["customer_name"] == "Fleet Inc."

    @pytest.mark.parametrize(
        ("fee", "total"),
        [
            ({"percentage": Decimal("7.5")}, 750),
            ({"percentage": Decimal("3.333")}, 333),
            ({"percentage": Decimal("7.5"), "cap": 700}, 700),
            ({"percentage": Decimal("7.5"), "cap": 0}, 750),
            ({"percentage": Decimal("7.5"), "amount": 99}, 750),
            ({"percentage": Decimal(0), "amount": 99, "cap": 10}, 99),
            ({"amount": 99}, 99),
            ({}, 0),
        ],
    )
    def test_fees_are_a_share_up_to_their_cap_or_an_amount(self, shops, fee, total):
        job = {"id": 1, "authorized": True, "sublets": [{"id": 2, "retail": 10000, "cost": 0}]}
        order(shops, SHOP, 1, jobs=[job], fees=[fee], posted_date=march(2))
        derive(shops)
        assert rows(shops, "ro_snapshots")[SHOP, 1, march(2), "posted"]["fees_total"] == total

    def test_removed_job_and_item_count_no_more(self, day):
        bury(day, "jobs", tm_id=2)
        bury(day, "job_parts", tm_job_id=1, tm_id=11)
        derive(day)
        snapshot = rows(day, "ro_snapshots")[SHOP, 1001, march(2), "posted"]
        assert (snapshot["parts_revenue"], snapshot["sublet_revenue"], len(snapshot["labor"])) == (5399, 0, 2)
        bury(day, "jobs", tm_id=1)
        derive(day)
        snapshot = rows(day, "ro_snapshots")[SHOP, 1001, march(2), "posted"]
        assert (snapshot["true_revenue"], snapshot["discount_total"], snapshot["labor"]) == (0, 0, [])


@pytest.mark.parametrize(
    ("quantity", "retail", "total", "factor"),
    [
        ("2", 8995, 17990, "2"),
        ("4", 5000, 5000, "1"),
        ("4", 5000, 5050, "1"),
        ("4", 5000, 5051, "4"),
        ("4", 5000, 20100, "4"),
        ("4", 5000, 999, "4"),
        ("4", 5000, 0, "4"),
        ("4", 5000, None, "4"),
        ("4", None, 5000, "4"),
        ("1.005", 5000, 5000, "1.005"),
        ("0.5", 5000, 5000, "0.5"),
        ("1", 5000, 5000, "1"),
        ("0", 5000, 5000, "1"),
        ("-2", 5000, 5000, "1"),
        (None, 5000, 5000, "1"),
    ],
)
def test_values_of_a_piece_or_of_the_line(shops, quantity, retail, total, factor):
    """Both readings fit within 1 % at a quantity of 1.005: then the piece's is taken."""
    query = "SELECT tekmetric.part_factor(%s::numeric, %s::bigint, %s::bigint)"
    assert shops.execute(query, [quantity, retail, total]).fetchone()[0] == Decimal(factor)


class TestDays:
    def test_to_the_cent(self, day):
        """1001 and 1004 were posted, 1003 is completed; 1002 counts tomorrow.

        vendor   105028 + 4252 + 0 = 109280   cost 29790 + 1949 = 31739   profit 77541, 70.96 %
        ours     104527 + 4252 + 0 = 108779   cost 31890 + 1948 = 33838   profit 74941, 68.89 %
        parts    23389 + 4252 = 27641         cost 11370 + 1948 = 13318   profit 14323
        labor    67744 - 10420 = 57324 in 4.1 h: 16522.9 and 13981.4 an hour, cut
        tax      8000 + 350   potential 125000 + 9000 + 20000 = 154000, of which 109280 are 70.96 %
        a third of 109280 is 36426.67, of 77541 is 25847
        """
        assert rows(day, "daily_shop_metrics")[SHOP, march(2)] == {
            "shop_id": SHOP,
            "metric_date": march(2),
            "ro_count": 3,
            "ro_posted_count": 2,
            "ro_completed_count": 1,
            "authorized_revenue": 109280,
            "authorized_cost": 31739,
            "authorized_profit": 77541,
            "authorized_gp_percent": Decimal("70.96"),
            "authorized_job_count": 3,
            "parts_revenue": 27641,
            "parts_cost": 13318,
            "parts_profit": 14323,
            "labor_revenue": 67744,
            "labor_cost": 10420,
            "labor_profit": 57324,
            "labor_hours": Decimal("4.1"),
            "sublet_revenue": 12000,
            "sublet_cost": 8000,
            "fees_total": 2895,
            "discount_total": 1500,
            "tax_total": 8350,
            "true_revenue": 108779,
            "true_cost": 33838,
            "true_profit": 74941,
            "true_gp_percent": Decimal("68.89"),
            "potential_revenue": 154000,
            "potential_job_count": 6,
            "avg_ro_value": 36426,
            "avg_ro_profit": 25847,
            "avg_labor_rate": 16522,
            "gp_per_labor_hour": 13981,
            "authorization_rate": Decimal("70.96"),
            "source_snapshot_count": 3,
            "calculation_method": "FROM_RO_SNAPSHOTS",
        }

    def test_completed_on_one_day_and_posted_on_the_next_counts_on_the_next(self, day):
        tomorrow = rows(day, "daily_shop_metrics")[SHOP, march(3)]
        assert (tomorrow["ro_count"], tomorrow["ro_posted_count"], tomorrow["ro_completed_count"]) == (1, 1, 0)
        assert (tomorrow["authorized_revenue"], tomorrow["authorized_gp_percent"]) == (15000, Decimal("78.67"))
        assert sum(row["authorized_revenue"] for row in rows(day, "daily_shop_metrics").values()) == 109280 + 15000

    def test_nothing_sold_all_day(self, shops):
        refused(shops, potential_total=0)
        derive(shops)
        found = rows(shops, "daily_shop_metrics")[SHOP, march(2)]
        unknown = ("authorized_gp_percent", "true_gp_percent", "avg_labor_rate", "gp_per_labor_hour")
        assert {found[name] for name in (*unknown, "authorization_rate")} == {None}
        assert (found["ro_count"], found["authorized_revenue"], found["avg_ro_value"]) == (1, 0, 0)

    def test_loss_is_cut_towards_nothing(self, shops):
        """-1001 in two orders is -500.5 each, -500; and in an hour and a half -667.33, -667."""
        order(shops, SHOP, 1, posted_date=march(2), **profit(1000, 2001, "-1.001", (1000, 2001, "1.5")))
        order(shops, SHOP, 2, posted_date=march(2), **profit(0, 0, "NaN"))
        derive(shops)
        found = rows(shops, "daily_shop_metrics")[SHOP, march(2)]
        assert (found["avg_ro_profit"], found["gp_per_labor_hour"]) == (-500, -667)
        assert found["authorized_gp_percent"] == Decimal("-100.10")

    def test_technicians_to_the_cent(self, day):
        """Of 37125 - 7200 = 29925 are 80.61 %; 10465 - 2100 = 8365, 79.93 %; 20153 - 3220 = 16933, 84.02 %.

        20153 in 1.15 h are 17524.3 an hour, 16933 are 14724.3.
        """
        found = {key[1]: list(row.values())[3:] for key, row in rows(day, "tech_daily_metrics").items()}
        tomorrow = found.pop(TECH)
        assert tomorrow[0] in (Decimal(1), Decimal("2.25"))
        assert found == {
            UNKNOWN: [Decimal("0.7"), 14950, 3000, 10465, 2100, 8365, Decimal("79.93"), 11950, 1, 1, {"shop_avg": 1}],
            CHEAP: [Decimal("1.15"), 17524, 2800, 20153, 3220, 16933, Decimal("84.02"), 14724, 1, 1, {"assigned": 1}],
        }
        days = rows(day, "tech_daily_metrics")
        assert list(days[SHOP, TECH, march(2)].values())[3:] == [
            *(Decimal("2.25"), 16500, 3200, 37125, 7200, 29925, Decimal("80.61"), 13300, 1, 1, {"assigned": 1})
        ]
        assert list(days[SHOP, TECH, march(3)].values())[3:] == [
            *(Decimal(1), 15000, 3200, 15000, 3200, 11800, Decimal("78.67"), 11800, 1, 1, {"assigned": 1})
        ]

    def test_technician_with_several_lines_jobs_and_orders(self, day):
        lines = [{"id": 72 + n, "hours": 1, "rate": 100, "technician": {"id": CHEAP}} for n in range(2)]
        jobs = [{"id": 70 + n, "authorized": True, "labor": lines if n else []} for n in range(3)]
        jobs[2]["labor"] = [{"id": 99, "hours": 0, "rate": 100, "technician": {"id": CHEAP}}]
        order(day, SHOP, 1010, jobs=jobs, posted_date=march(2))
        derive(day)
        found = rows(day, "tech_daily_metrics")[SHOP, CHEAP, march(2)]
        assert (found["hours_billed"], found["jobs_worked"], found["ros_worked"]) == (Decimal("3.15"), 3, 2)
        assert found["rate_sources"] == {"assigned": 4}

    def test_deleted_order_counts_nowhere(self, day):
        bury(day, "repair_orders", tm_id=1001)
        derive(day)
        assert rows(day, "daily_shop_metrics")[SHOP, march(2)]["ro_count"] == 2
        assert {key[1:] for key in rows(day, "tech_daily_metrics")} == {(TECH, march(3))}

    def test_shops_are_apart(self, day):
        order(day, DESERT, 1001, posted_date=march(2), **profit(700, 0, 1))
        derive(day)
        days = rows(day, "daily_shop_metrics")
        assert days[DESERT, march(2)]["authorized_revenue"] == 700
        assert days[SHOP, march(2)]["authorized_revenue"] == 109280


class TestRates:
    def sources(self, conn, shop_id, tm_id, day):
        (snapshot,) = (row for key, row in rows(conn, "ro_snapshots").items() if key[:3] == (shop_id, tm_id, day))
        return [(line["hourly_cost"], line["rate_source"], line["cost"]) for line in snapshot["labor"]]

    def labor(self, conn, shop_id, *technicians, hours=2, tm_id=1, **head):
        lines = [{"id": n, "hours": hours, "rate": 12000, "technician": t} for n, t in enumerate(technicians, 1)]
        order(conn, shop_id, tm_id, jobs=[{"id": 1, "authorized": True, "labor": lines}], **head)

    def test_from_the_line_the_employee_the_shop_or_by_default(self, shops):
        """1.5 h x 2801 = 4201.5, cut."""
        known = ({"id": TECH, "hourlyRate": 2801}, {"id": GONE}, {"id": TECH, "hourlyRate": 0}, {"id": 777}, None)
        self.labor(shops, SHOP, *known, hours="1.5", posted_date=march(2))
        self.labor(shops, DESERT, {"id": 41}, None, hours="0.5", posted_date=march(2))
        derive(shops)
        assert self.sources(shops, SHOP, 1, march(2)) == [
            (2801, "assigned", 4201),
            (9000, "assigned", 13500),
            (3200, "assigned", 4800),
            (3000, "shop_avg", 4500),
            (3000, "shop_avg", 4500),
        ]
        assert self.sources(shops, DESERT, 1, march(2)) == [(2500, "default", 1250), (2500, "default", 1250)]
        assert {key[1] for key in rows(shops, "tech_daily_metrics") if key[0] == DESERT} == {41}

    def test_average_is_cut_to_whole_cents(self, shops):
        put(shops, "employees", technician(35, 3001))  # (3200 + 2800 + 3001) / 3 = 3000.33
        put(shops, "employees", technician(36, 9000))
        bury(shops, "employees", tm_id=36)
        self.labor(shops, SHOP, None, posted_date=march(2))
        derive(shops)
        assert self.sources(shops, SHOP, 1, march(2)) == [(3000, "shop_avg", 6000)]

    def test_a_rise_leaves_past_days_alone(self, shops):
        self.labor(shops, SHOP, {"id": TECH}, {"id": TECH}, None, posted_date=march(2))
        derive(shops)
        put(shops, "employees", technician(TECH, 5000))
        self.labor(shops, SHOP, {"id": TECH, "hourlyRate": 5000}, {"id": TECH}, None, hours=3, posted_date=march(2))
        derive(shops)
        assert self.sources(shops, SHOP, 1, march(2)) == [
            (3200, "assigned", 9600),
            (3200, "assigned", 9600),
            (3000, "shop_avg", 9000),
        ]

    def test_also_where_an_order_is_posted_anew_but_not_where_it_is_snapped_the_first_time(self, shops):
        self.labor(shops, SHOP, {"id": TECH}, posted_date=march(2))
        derive(shops)
        put(shops, "employees", technician(TECH, 5000))
        self.labor(shops, SHOP, {"id": TECH}, posted_date=march(4), completed_date=march(3))
        derive(shops)
        assert self.sources(shops, SHOP, 1, march(4)) == [(3200, "assigned", 6400)]
        assert self.sources(shops, SHOP, 1, march(3)) == [(5000, "assigned", 10000)]

    def test_what_was_un_posted_is_posted_with_the_rates_of_its_new_day(self, shops):
        self.labor(shops, SHOP, {"id": TECH}, posted_date=march(2))
        derive(shops)
        self.labor(shops, SHOP, {"id": TECH})
        derive(shops)
        put(shops, "employees", technician(TECH, 5000))
        self.labor(shops, SHOP, {"id": TECH}, posted_date=march(9))
        derive(shops)
        assert self.sources(shops, SHOP, 1, march(9)) == [(5000, "assigned", 10000)]

    def test_a_guess_gives_way_to_a_rate_and_one_technician_to_another(self, shops):
        self.labor(shops, SHOP, {"id": UNKNOWN}, {"id": TECH}, posted_date=march(2))
        derive(shops)
        put(shops, "employees", technician(UNKNOWN, 2600))
        self.labor(shops, SHOP, {"id": UNKNOWN}, {"id": CHEAP}, posted_date=march(2))
        derive(shops)
        assert self.sources(shops, SHOP, 1, march(2)) == [(2600, "assigned", 5200), (2800, "assigned", 5600)]

    def test_snapshots_that_are_removed_are_made_with_the_rates_of_today(self, shops):
        self.labor(shops, SHOP, {"id": TECH}, posted_date=march(2))
        derive(shops)
        put(shops, "employees", technician(TECH, 5000))
        shops.execute("DELETE FROM tekmetric.ro_snapshots")
        derive(shops)
        assert self.sources(shops, SHOP, 1, march(2)) == [(5000, "assigned", 10000)]


class TestByHand:
    def snap(self, conn, tm_id, day):
        """Take a snapshot by hand, as a person would with the query."""
        query = by_hand(SHOP, tm_id, day)
        names = sql.SQL(", ").join(map(sql.Identifier, SNAPSHOTS.table.names))
        conn.execute(
            sql.SQL("INSERT INTO tekmetric.ro_snapshots ({}, sync_id) SELECT q.*, 5 FROM ({}) q").format(names, query)
        )

    def test_in_whatever_state_the_order_is(self, day):
        self.snap(day, 1001, march(1))
        brakes(day, posted_date=None)
        self.snap(day, 1001, march(5))
        snapshots = rows(day, "ro_snapshots")
        for when in (march(1), march(5)):
            assert snapshots[SHOP, 1001, when, "manual"]["true_profit"] == 72637

    def test_none_of_a_deleted_order(self, day):
        self.snap(day, 1005, march(5))
        assert (SHOP, 1005, march(5), "manual") not in rows(day, "ro_snapshots")

    def test_is_left_alone(self, day):
        self.snap(day, 1001, march(5))
        before = rows(day, "ro_snapshots")[SHOP, 1001, march(5), "manual"]
        brakes(day, posted_date=None, authorized_revenue=1, sync_id=9)
        derive(day, 9)
        derive(day)
        assert rows(day, "ro_snapshots")[SHOP, 1001, march(5), "manual"] == before

    def test_counts_only_where_there_is_no_other_and_the_last_of_them(self, day):
        self.snap(day, 1006, march(5))
        self.snap(day, 1006, march(6))
        self.snap(day, 1001, march(6))
        derive(day, 5)
        days = rows(day, "daily_shop_metrics")
        assert (SHOP, march(5)) not in days
        assert (days[SHOP, march(6)]["ro_count"], days[SHOP, march(6)]["authorized_revenue"]) == (1, 88888)
        assert (days[SHOP, march(6)]["ro_posted_count"], days[SHOP, march(6)]["ro_completed_count"]) == (0, 0)
        order(day, SHOP, 1006, completed_date=march(4), sync_id=6, **profit(88888, 1, "0.99"))
        derive(day, 6)
        assert {when for _, when in rows(day, "daily_shop_metrics")} == {march(2), march(3), march(4)}

    def test_of_a_deleted_order_counts_no_more(self, day):
        self.snap(day, 1006, march(5))
        derive(day, 5)
        bury(day, "repair_orders", tm_id=1006, sync_id=6)
        derive(day, 6)
        assert (SHOP, march(5)) not in rows(day, "daily_shop_metrics")
        assert (SHOP, 1006, march(5), "manual") in rows(day, "ro_snapshots")


class TestChanges:
    """What a sync has touched is made anew, and nothing else."""

    def test_again_writes_nothing(self, day):
        for counts in (derive(day), derive(day, 0)):
            assert {merged.inserted + merged.updated + merged.deleted for merged in counts.values()} == {0}

    def days(self, conn):
        return {
            when.day: (row["ro_posted_count"], row["ro_completed_count"], row["authorized_revenue"])
            for (_, when), row in rows(conn, "daily_shop_metrics").items()
        }

    def test_posted_at_last(self, day):
        """The day of its completion loses it."""
        oil(day, posted_date=march(4), sync_id=7)
        derive(day, 7)
        assert self.days(day) == {2: (2, 0, 105028), 3: (1, 0, 15000), 4: (1, 0, 4252)}

    def test_posted_on_another_day(self, day):
        overnight(day, posted_date=march(5), sync_id=7)
        derive(day, 7)
        assert self.days(day) == {2: (2, 1, 109280), 5: (1, 0, 15000)}
        assert (SHOP, TECH, march(5)) in rows(day, "tech_daily_metrics")
        assert (SHOP, TECH, march(3)) not in rows(day, "tech_daily_metrics")

    def test_un_posted(self, day):
        """It counts where it was completed."""
        overnight(day, posted_date=None, posted_at=None, sync_id=7)
        derive(day, 7)
        assert self.days(day) == {2: (2, 2, 124280)}
        assert (SHOP, 1002, march(3), "posted") not in rows(day, "ro_snapshots")

    def test_opened_again(self, day):
        overnight(day, posted_date=None, completed_date=None, sync_id=7)
        derive(day, 7)
        assert self.days(day) == {2: (2, 1, 109280)}

    def test_deleted(self, day):
        bury(day, "repair_orders", tm_id=1002, sync_id=7)
        derive(day, 7)
        assert self.days(day) == {2: (2, 1, 109280)}

    def test_brought_back(self, day):
        order(day, SHOP, 1005, posted_date=march(2), sync_id=7, **profit(10, 1, "0.9"))
        derive(day, 7)
        assert self.days(day)[2] == (3, 1, 109290)

    @pytest.mark.parametrize("table", ["jobs", "job_parts", "job_labor", "job_sublets"])
    def test_changed_item_changes_its_order(self, day, table):
        key = "tm_id" if table == "jobs" else "tm_job_id"
        bury(day, table, sync_id=7, **{key: 2 if table == "job_sublets" else 1})
        counts = derive(day, 7)
        assert {name: merged.updated for name, merged in counts.items()}["ro_snapshots"] == 1
        assert computed(day) == rebuilt(day)

    def test_changed_fee_of_the_order(self, day):
        bury(day, "job_fees", sync_id=7, tm_repair_order_id=1001, tm_job_id=0)
        derive(day, 7)
        assert rows(day, "daily_shop_metrics")[SHOP, march(2)]["fees_total"] == 0

    def test_what_an_earlier_sync_changed_is_done(self, day):
        overnight(day, posted_date=march(5), sync_id=6)
        assert {merged.inserted + merged.updated + merged.deleted for merged in derive(day, 7).values()} == {0}

    def test_written_rows_name_the_sync(self, day):
        overnight(day, posted_date=march(5), sync_id=7)
        derive(day, 7)
        found = day.execute("SELECT snapshot_date, deleted_at IS NULL FROM tekmetric.ro_snapshots WHERE sync_id = 7")
        assert sorted(found) == [(march(3), False), (march(5), True)]


def rebuilt(conn):
    """What is computed from nothing."""
    with conn.transaction(force_rollback=True):
        for name in ("ro_snapshots", "daily_shop_metrics", "tech_daily_metrics"):
            conn.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier("tekmetric", name)))
        derive(conn)
        return computed(conn)


days = st.none() | st.integers(1, 4).map(march)
changes = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["write", "write", "write", "delete"]), days, days), max_size=4
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(syncs=st.lists(changes, min_size=1, max_size=4))
def test_step_by_step_is_the_same_as_all_at_once(shops, syncs):
    """Whatever happens to orders, a sync's own days and snapshots leave nothing behind."""
    with shops.transaction(force_rollback=True):
        for sync_id, steps in enumerate(syncs, 1):
            for tm_id, what, completed, posted in steps:
                if what == "delete":
                    bury(shops, "repair_orders", sync_id, tm_id=tm_id)
                else:
                    line = {"id": 1, "hours": tm_id, "rate": 100, "technician": {"id": TECH}}
                    head = profit(tm_id * 100, sync_id, "0.5") | {"completed_date": completed, "posted_date": posted}
                    job = {"id": tm_id, "authorized": True, "labor": [line | {"id": tm_id}]}
                    order(shops, SHOP, tm_id, jobs=[job], sync_id=sync_id, **head)
            derive(shops, sync_id)
        assert computed(shops) == rebuilt(shops)


def test_manual_rows_need_no_labor(day):
    """A person's own row may lack it."""
    row = {"shop_id": SHOP, "tm_repair_order_id": 1006, "snapshot_date": march(8), "snapshot_trigger": "manual"}
    write(day, "ro_snapshots", row | {"ro_status": "COMPLETE", "calculation_method": "by hand"}, sync_id=7)
    derive(day, 7)
    assert rows(day, "daily_shop_metrics")[SHOP, march(8)]["authorized_revenue"] == 0
