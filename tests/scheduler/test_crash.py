"""Whatever dies in the middle: rerunning loses nothing and doubles nothing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from stack.airflow import until
from stack.prepare import metadata_url
from tests.running_platform import RECONCILE, SYNC, Platform

SMALL_PAGES = {"line_items": 20}
SCANNED = ("api_rows_scanned", "api_unique_ids", "api_duplicate_rows", "api_unique_not_in_db", "confirmed_missing")


@pytest.fixture
def slow_scan(platform):
    """A reconcile run that is in the middle of its scans, with three lines lost; the figures it has to come to."""
    platform.reconcile()
    platform.lose(3)
    run_id, _ = platform.reconcile()
    expected = line_figures(platform, run_id)
    assert expected["confirmed_missing"] == 3
    platform.shop.set(latency_ms=700, page_sizes=SMALL_PAGES)
    run_id = platform.airflow.trigger(RECONCILE, progress_every=1)
    until(lambda: pages_staged(platform) >= 1, "the first page of line items", 60)
    return run_id, expected


def line_figures(platform: Platform, run_id: str) -> dict[str, int]:
    metrics = platform.airflow.xcom(RECONCILE, run_id, "scan", "forensic_summary", map_index=2)["metrics"]
    return {name: metrics[name] for name in SCANNED}


def pages_staged(platform: Platform) -> int:
    rows = platform.query("SELECT pages FROM staging.pull WHERE entity = 'line_items' AND purpose = 'scan'")
    return rows[0][0] if rows else 0


def finish(platform: Platform, run_id: str, expected: dict[str, int]) -> None:
    platform.shop.set(latency_ms=0)
    assert platform.airflow.wait(RECONCILE, run_id, timeout=180) == "success"
    assert line_figures(platform, run_id) == expected
    assert platform.writer().runs


@pytest.mark.drill("killed-scan")
def test_killed_scans_go_on_where_they_were(platform, slow_scan):
    run_id, expected = slow_scan
    platform.kill_tasks(f"{RECONCILE}/{run_id}")
    finish(platform, run_id, expected)
    assert "going on from page" in platform.airflow.last_log(RECONCILE, run_id, "scan", map_index=2)


@pytest.mark.drill("killed-worker")
def test_killed_worker_is_missed_and_its_task_tried_again(platform, slow_scan):
    run_id, expected = slow_scan
    platform.kill_tasks(f"{RECONCILE}/{run_id}", watched=False)
    finish(platform, run_id, expected)


@pytest.mark.drill("killed-postgres")
def test_killed_warehouse_comes_back_with_nothing_lost_or_doubled(platform, slow_scan):
    run_id, expected = slow_scan
    platform.kill_warehouse()
    finish(platform, run_id, expected)


@pytest.mark.drill("killed-scheduler")
def test_killed_scheduler_ends_the_stack_and_the_run_goes_on_after_the_restart(platform, slow_scan, restart):
    goes_on(platform, slow_scan, restart, lambda: platform.kill_part("preloaded scheduler"))


@pytest.mark.long
@pytest.mark.drill("killed-part")
@pytest.mark.parametrize("part", ["triggerer", "dag-processor", "api-server"])
def test_killed_part_ends_the_stack_and_the_run_goes_on_after_the_restart(platform, slow_scan, restart, part):
    goes_on(platform, slow_scan, restart, lambda: platform.kill_part(part))


FULL = """
CREATE FUNCTION public.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF clock_timestamp() < '{until}' THEN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END IF; RETURN NULL;
END $$;
CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON task_instance EXECUTE FUNCTION public.full_disk();
CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON job EXECUTE FUNCTION public.full_disk();
"""


@pytest.mark.long
@pytest.mark.drill("disk-full-metadata")
def test_full_disk_under_airflows_database_ends_the_stack_and_the_run_goes_on(platform, slow_scan, restart):
    def fill() -> None:
        ends = datetime.now(UTC) + timedelta(seconds=20)
        with psycopg.connect(metadata_url(platform.stack.env), autocommit=True) as conn:
            conn.execute(FULL.format(until=ends.isoformat()))
        until(lambda: datetime.now(UTC) > ends, "somebody to make room", 30)

    goes_on(platform, slow_scan, restart, fill)
    with psycopg.connect(metadata_url(platform.stack.env), autocommit=True) as conn:
        conn.execute("DROP FUNCTION public.full_disk CASCADE")


def goes_on(platform: Platform, slow_scan: tuple, restart: Callable[[], None], harm: Callable[[], None]) -> None:
    run_id, expected = slow_scan
    # The shop's server is a new one, too: the same rows, but its own page size, until it is told.
    platform.airflow.pause(RECONCILE)
    harm()
    restart()
    platform.shop.set(page_sizes=SMALL_PAGES)
    platform.airflow.pause(RECONCILE, paused=False)
    finish(platform, run_id, expected)


@pytest.mark.drill("killed-postgres", "killed-repair")
def test_warehouse_killed_inside_the_repair_leaves_all_or_nothing(platform):
    platform.lose(3)
    blocker = psycopg.connect(platform.stack.warehouse_url)
    blocker.execute("LOCK confidence.change_log IN EXCLUSIVE MODE")
    run_id = platform.airflow.trigger(RECONCILE, dry_run=False)
    until(
        lambda: bool(platform.query("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation'")),
        "the repair to wait inside its transaction",
        90,
    )
    platform.kill_warehouse()
    blocker.close()
    assert platform.airflow.wait(RECONCILE, run_id, timeout=180) == "success"
    assert platform.in_step()
    assert platform.query(
        "SELECT count(*) FROM confidence.change_log WHERE table_name = 'repairshopr.line_items'"
        " AND sync_id = (SELECT max(sync_id) FROM confidence.sync_log)"
    ) == [(3,)]
    assert platform.writer().runs


@pytest.mark.drill("killed-postgres", "killed-sync")
def test_warehouse_killed_inside_a_sync_loses_no_change(platform):
    platform.shop.set(latency_ms=300)
    platform.execute("TRUNCATE confidence.sync_state, repairshopr.payments, repairshopr.line_items")
    sync_run = platform.airflow.trigger(SYNC)
    until(lambda: bool(platform.live("line_items")), "the sync to have written lines", 90)
    platform.kill_warehouse()
    platform.shop.set(latency_ms=0)
    assert platform.airflow.wait(SYNC, sync_run, timeout=180) == "success"
    assert platform.in_step()
    assert platform.in_step("payments")
