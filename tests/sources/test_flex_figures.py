"""The figures of Flex's syncs against their targets and limits, and what is worth an alert."""

from datetime import timedelta
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from include.sources.flex import figures

from .flex import ADD, Agency, note, put

KEY = "flex_crew_assignments_crew_call_technician_key"


def logged(agency: Agency, number: int = 1, *, ago: timedelta = timedelta(0), **of) -> None:
    """Syncs of crew calls that took a second, so long ago."""
    for _ in range(number):
        values = {"job_id": uuid4(), "department": "sound", "duration_ms": 1000} | of
        row_id = put(agency.conn, "flex_sync_log", **values)
        agency.conn.execute("UPDATE flex.flex_sync_log SET created_at = now() - %s WHERE id = %s", [ago, row_id])


def health(agency: Agency) -> dict[str, tuple]:
    rows = agency.conn.execute(
        "SELECT period, syncs, failures, success_on_target, mean_on_target FROM flex.sync_health"
    ).fetchall()
    return {period: tuple(rest) for period, *rest in rows}


def rules(agency: Agency) -> dict[str, float]:
    """The alerts, as the source tells them, with their figures."""
    alerts = agency.source.alerts(agency.conn)
    assert all(alert.line and alert.subject == "flex" and alert.figure > alert.limit for alert in alerts)
    return {alert.rule: alert.figure for alert in alerts}


class TestHealth:
    def test_of_nothing(self, agency):
        assert health(agency) == {"hour": (0, 0, None, None), "day": (0, 0, None, None)}
        assert rules(agency) == {}

    def test_counts_failures_of_each_kind_once(self, agency):
        logged(agency)
        logged(agency, failed_count=2, summary=Jsonb({"state": "failed"}))
        logged(agency, summary=Jsonb({"state": "uncertain"}))
        # As the sync before us has written it.
        logged(agency, failed_count=None, summary=None)
        logged(agency, summary=Jsonb({"state": "done"}), ago=timedelta(hours=2))
        logged(agency, failed_count=1, ago=timedelta(days=2))
        assert health(agency) == {"hour": (4, 2, False, True), "day": (5, 2, False, True)}

    @pytest.mark.parametrize(("good", "on_target"), [(99, False), (100, True)])
    def test_target_is_more_than_99_percent(self, agency, good, on_target):
        logged(agency, good)
        logged(agency, failed_count=1)
        assert health(agency)["hour"][2] is on_target

    @pytest.mark.parametrize(("milliseconds", "on_target"), [(8_999, True), (9_000, False)])
    def test_target_is_less_than_five_seconds_on_average(self, agency, milliseconds, on_target):
        logged(agency)
        logged(agency, duration_ms=milliseconds)
        assert health(agency)["hour"][3] is on_target

    def test_is_that_of_real_syncs(self, agency):
        booked = agency.book()
        agency.hire(booked)
        agency.sync()
        assert health(agency)["hour"] == (1, 0, True, True)
        agency.hire(booked)
        agency.fault("status", ADD, status=422)
        with pytest.raises(Exception, match="422"):
            agency.sync()
        assert health(agency)["hour"][:2] == (2, 1)
        assert rules(agency) == {"failure_rate": 0.5}


class TestAlerts:
    @pytest.mark.parametrize(("good", "rule"), [(19, {}), (18, {"failure_rate": pytest.approx(1 / 19)})])
    def test_above_five_percent_of_an_hour(self, agency, good, rule):
        logged(agency, good)
        logged(agency, failed_count=1)
        logged(agency, 5, failed_count=1, ago=timedelta(minutes=61))
        assert rules(agency) == rule

    @pytest.mark.parametrize(("milliseconds", "rule"), [(10_000, {}), (10_001, {"slow_sync": 10.001})])
    def test_above_ten_seconds(self, agency, milliseconds, rule):
        logged(agency, 3)
        logged(agency, duration_ms=milliseconds)
        assert rules(agency) == rule

    def test_duplicates(self, agency):
        booked = agency.book()
        who, _ = agency.hire(booked)
        with agency.conn.transaction(force_rollback=True):
            agency.conn.execute(f"ALTER TABLE flex.flex_crew_assignments DROP CONSTRAINT {KEY}")
            for _ in range(3):
                note(agency.conn, booked.call, who, uuid4())
            assert rules(agency) == {"unique_key": 1}

    def test_line_says_what_to_do(self, agency):
        logged(agency, failed_count=1, duration_ms=12_345)
        rate, slow = figures.alerts(agency.conn)
        assert "1 of 1 syncs of crew calls failed within an hour (100.0%)" in rate.line
        assert "flex.flex_sync_log names the errors" in rate.line
        assert "took 12.3 s, above the limit 10 s" in slow.line
