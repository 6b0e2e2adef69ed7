"""Health: the figures that the warehouse keeps of a source's syncs, and what of them is an alert."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.confidence import scan_log
from include.confidence.health import Figures, Limits, TableHealth, assess, assess_proofs, read
from include.confidence.stop_budget import Proof
from include.warehouse import sync_log
from include.warehouse.sync_log import Counts
from tests.confidence.builders import summary

SOURCE = "repairshopr"
HALF_HOUR = timedelta(minutes=30)
MINUTE = timedelta(minutes=1)
ORDERS = TableHealth("orders", timedelta(hours=1), rows_changed=3, discrepancies=None, verdict=None)
# Each figure stands at its limit.
FIGURES = Figures("shop", 300.0, 100.0, requests=400, request_errors=20, schedule=HALF_HOUR, tables=(ORDERS,))


def rules(figures: Figures, **limits: Any) -> list[str]:
    return [alert.rule for alert in assess(figures, Limits(**limits))]


def test_at_their_limits_all_is_well():
    assert rules(FIGURES) == []


def test_table_that_is_read_rarely_may_be_older():
    a_day = {"rarely": {"orders": timedelta(days=1)}}
    assert rules(replace(FIGURES, tables=(replace(ORDERS, freshness=timedelta(days=2)),)), **a_day) == []
    [alert] = assess(replace(FIGURES, tables=(replace(ORDERS, freshness=timedelta(days=2.1)),)), Limits(**a_day))
    assert "above its limit 2 days" in alert.line


@pytest.mark.parametrize(
    ("above", "rule", "subject", "line"),
    [
        ({"seconds": 300.1}, "duration", "shop", "of shop took 300 s, above its limit 300 s .*100 s.*sync_log"),
        ({"request_errors": 21}, "error_rate", "shop", r"^21 of 400 requests to shop failed .*\(5\.2%\).*limit 5\.0%"),
        (
            {"tables": (replace(ORDERS, freshness=timedelta(minutes=60, seconds=1)), ORDERS)},
            "freshness",
            "shop.orders",
            "^shop.orders is 1:00:01 behind its source, above its limit 1:00:00 .*every 0:30:00",
        ),
    ],
)
def test_above_its_limit_each_figure_is_an_alert(above, rule, subject, line):
    [alert] = assess(replace(FIGURES, **above), Limits())
    assert (alert.rule, alert.subject) == (rule, subject)
    assert alert.figure > alert.limit
    assert "\n" not in alert.line
    with pytest.raises(AssertionError, match=line):
        raise AssertionError(alert.line)
    assert json.loads(json.dumps(alert.to_json()))["line"] == alert.line


@pytest.mark.parametrize(
    "unknown",
    [
        {"seconds": None, "median_seconds": None},
        {"median_seconds": None, "seconds": 1e6},
        {"requests": 0, "request_errors": 0},
        {"schedule": None, "tables": (replace(ORDERS, freshness=timedelta(days=9)),)},
    ],
)
def test_what_has_nothing_to_be_compared_with_is_no_alert(unknown):
    assert rules(replace(FIGURES, **unknown)) == []


def test_small_figures_are_no_alert():
    assert rules(replace(FIGURES, seconds=60.0, median_seconds=1.0)) == []
    assert rules(replace(FIGURES, seconds=60.1, median_seconds=1.0)) == ["duration"]
    assert rules(replace(FIGURES, requests=4, request_errors=4)) == []
    assert rules(replace(FIGURES, requests=5, request_errors=5)) == ["error_rate"]


def test_source_sets_limits_of_its_own():
    assert rules(FIGURES, duration=2.0, error_rate=0.01, freshness=1.5) == ["duration", "error_rate", "freshness"]


def test_proof_that_is_too_old_is_an_alert():
    now = datetime(2026, 3, 9, 3, tzinfo=UTC)
    found = [
        Proof("orders", now - timedelta(days=7)),
        Proof("lines", now - timedelta(days=8)),
        Proof("never", None),
    ]
    [alert] = assess_proofs("shop", found, Limits(), now)
    assert (alert.rule, alert.subject, alert.figure, alert.limit) == (
        "proof_age",
        "shop.lines",
        8 * 86400.0,
        7 * 86400.0,
    )
    assert alert.line.startswith("the newest proof of shop.lines is 8 days, 0:00:00 old, above its limit 7 days")
    assert "Trigger shop_reconcile" in alert.line
    assert assess_proofs("shop", found, Limits(proof=timedelta(days=9)), now) == []


def test_line_is_json_with_times_in_seconds():
    told = json.loads(FIGURES.line())
    assert (told["event"], told["source"], told["schedule"], told["error_rate"]) == ("health", "shop", 1800.0, 0.05)
    assert told["tables"][0]["freshness"] == 3600.0
    assert "\n" not in FIGURES.line()


def a_sync(conn, *, ago=timedelta(0), seconds=10, run="manual__1", entities=None, error=None, requests=(0, 0)) -> int:
    """A sync that began so long ago."""
    sync_id = sync_log.begin(conn, SOURCE, "sync", f"{SOURCE}_sync/{run}")
    sent, failed = requests
    sync_log.finish(conn, sync_id, entities or {}, error, requests=sent, request_errors=failed)
    conn.execute(
        "UPDATE confidence.sync_log SET started_at = now() - %(ago)s,"
        " finished_at = now() - %(ago)s + make_interval(secs => %(seconds)s) WHERE sync_id = %(sync_id)s",
        {"ago": ago, "seconds": seconds, "sync_id": sync_id},
    )
    return sync_id


def advance(conn, sync_id, entity, ago, partition=""):
    watermark = datetime.now(UTC) - ago
    sync_log.advance(conn, sync_id, SOURCE, entity, watermark=watermark, partition=partition)


def behind(figures: Figures) -> dict[str, int]:
    """Minutes that each table is behind."""
    return {table.table: round(table.freshness / MINUTE) for table in figures.tables}


def test_before_the_first_sync_there_is_nothing(conn):
    assert read(conn, SOURCE) is None


def test_duration_is_compared_with_the_twenty_successful_syncs_before(conn):
    for seconds in (9000, *range(100, 120)):
        a_sync(conn, seconds=seconds)
    advance(conn, a_sync(conn, seconds=500), "customers", MINUTE)
    a_sync(conn, seconds=7000, error="the vendor is down")
    figures = read(conn, SOURCE)
    assert (figures.seconds, figures.median_seconds) == (500.0, 109.5)


def test_requests_are_those_of_the_last_day(conn):
    a_sync(conn, ago=timedelta(hours=25), requests=(1000, 1000))
    a_sync(conn, ago=timedelta(hours=23), requests=(60, 3), error="the vendor is down")
    advance(conn, a_sync(conn, requests=(40, 1)), "customers", MINUTE)
    figures = read(conn, SOURCE)
    assert (figures.requests, figures.request_errors, figures.error_rate) == (100, 4, 0.04)


def test_schedule_is_the_gap_between_scheduled_runs(conn):
    advance(conn, a_sync(conn), "customers", MINUTE)
    assert read(conn, SOURCE).schedule is None
    for number in range(6):
        due = number * HALF_HOUR
        a_sync(conn, ago=due + 2 * MINUTE, run=f"scheduled__{number}", error="the vendor is down")
        # A second attempt, and runs by hand.
        a_sync(conn, ago=due, run=f"scheduled__{number}")
        a_sync(conn, ago=number * 7 * MINUTE, run=f"manual__{number}")
    assert read(conn, SOURCE).schedule == HALF_HOUR


def test_freshness_is_of_each_table_and_its_oldest_partition(conn):
    sync_id = a_sync(conn)
    advance(conn, sync_id, "customers", 3 * MINUTE)
    for partition, minutes in (("east", 5), ("west", 7)):
        advance(conn, sync_id, "invoices", minutes * MINUTE, partition)
    assert behind(read(conn, SOURCE)) == {"customers": 3, "invoices": 7}


@pytest.mark.parametrize(("error", "expected"), [(None, 4), ("a record was left", 90)])
def test_table_of_a_quiet_source_is_as_fresh_as_its_last_sync(conn, error, expected):
    """If it told of no later change; where something was left, the watermark may stand still for that."""
    watermark = datetime.now(UTC) - 90 * MINUTE
    for ago, ended in ((34 * MINUTE, None), (4 * MINUTE, error)):
        sync_id = a_sync(conn, ago=ago, error=ended)
        sync_log.advance(conn, sync_id, SOURCE, "customers", watermark=watermark)
    assert behind(read(conn, SOURCE)) == {"customers": expected}


def test_table_is_as_fresh_as_the_last_sync_that_left_out_nothing(conn):
    """Whatever the watermark: it may be the time of the source's last change, years ago in a first sync."""
    long_ago = datetime.now(UTC) - timedelta(days=641)

    def synced(ago: timedelta, *, in_step: bool, partition: str = "", watermark: datetime = long_ago) -> None:
        sync_id = a_sync(conn, ago=ago, error=None if in_step else "a record was left")
        moved = {"watermark": watermark, "partition": partition, "in_step": in_step}
        sync_log.advance(conn, sync_id, SOURCE, "customers", **moved)

    synced(34 * MINUTE, in_step=True)
    assert behind(read(conn, SOURCE)) == {"customers": 34}
    synced(4 * MINUTE, in_step=False, watermark=datetime.now(UTC))
    assert behind(read(conn, SOURCE)) == {"customers": 34}
    synced(2 * MINUTE, in_step=True)
    assert behind(read(conn, SOURCE)) == {"customers": 2}


def test_partition_that_was_left_out_is_behind(conn):
    now, first = datetime.now(UTC), a_sync(conn, ago=50 * MINUTE)
    for partition in ("east", "west"):
        sync_log.advance(conn, first, SOURCE, "orders", watermark=now, partition=partition, in_step=True)
    again = a_sync(conn, ago=5 * MINUTE)
    sync_log.advance(conn, again, SOURCE, "orders", watermark=now, partition="east", in_step=True)
    sync_log.advance(conn, again, SOURCE, "orders", watermark=now, partition="west")
    assert behind(read(conn, SOURCE)) == {"orders": 50}


def test_partition_that_is_synced_no_more_does_not_count(conn):
    before = a_sync(conn)
    advance(conn, before, "invoices", 90 * MINUTE, "closed")
    advance(conn, a_sync(conn), "invoices", 5 * MINUTE, "open")
    assert behind(read(conn, SOURCE)) == {"invoices": 5}


def test_computed_table_is_as_old_as_the_sync_that_computed_it(conn):
    counts = {"customers": Counts(), "payments": Counts(inserted=2), "no_table": Counts(updated=1)}
    sync_id = a_sync(conn, ago=4 * MINUTE, entities=counts)
    advance(conn, sync_id, "customers", 3 * MINUTE)
    figures = read(conn, SOURCE)
    assert behind(figures) == {"customers": 3, "payments": 4}
    assert {table.table: table.rows_changed for table in figures.tables} == {"customers": 0, "payments": 2}


def test_failed_table_falls_behind(conn):
    first = a_sync(conn, ago=50 * MINUTE, entities={"customers": Counts(inserted=1, updated=2, deleted=3, read=9)})
    advance(conn, first, "customers", 50 * MINUTE)
    second = a_sync(conn, entities={"invoices": Counts(read=1)}, error="customers: the vendor is down")
    advance(conn, second, "invoices", MINUTE)
    figures = read(conn, SOURCE)
    assert behind(figures) == {"customers": 50, "invoices": 1}
    assert [table.rows_changed for table in figures.tables] == [6, 0]


def test_discrepancies_are_those_of_the_last_whole_scan(conn):
    advance(conn, a_sync(conn), "line_items", MINUTE)
    assert read(conn, SOURCE).tables[0].discrepancies is None
    for scan_id, plan, scope in (("first", (9, 9, 9), "all"), ("last", (1, 2, 3), "all"), ("part", (4, 4, 4), "p. 1")):
        scan_log.record(conn, summary(scan_id=scan_id, plan=plan, scope=scope))
    [table] = read(conn, SOURCE).tables
    assert (table.discrepancies, table.verdict) == (6, None)


def test_view_has_only_sources_that_were_synced(conn):
    advance(conn, a_sync(conn), "customers", MINUTE)
    assert conn.execute("SELECT source, entity FROM confidence.health").fetchall() == [(SOURCE, "customers")]
