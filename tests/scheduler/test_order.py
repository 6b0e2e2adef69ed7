"""What only a scheduler shows: who waits for whom, and what a person's clears and marks do to the order."""

import time

import psutil
import psycopg
import pytest

from include.simulators.repairshopr import Fault
from stack.airflow import until
from tests.running_platform import POOL, RECONCILE, SYNC, Platform

TASKS = ("stop_writer", "scan", "gate_check", "decide", "reconcile", "verify", "resume_writer", "report")


@pytest.mark.drill("held")
def test_queued_sync_waits_while_the_writer_stands_and_runs_after_the_resume(platform):
    platform.remove_at_source(60)
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)
    sync_run = platform.airflow.trigger(SYNC)
    platform.airflow.wait_for(SYNC, sync_run, "sync", "scheduled")
    why = platform.airflow.call("GET", f"/dags/{SYNC}/dagRuns/{sync_run}/taskInstances/sync/dependencies")
    assert POOL in str(why)
    platform.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    assert platform.airflow.wait(SYNC, sync_run) == "success"


@pytest.mark.drill("locked-table")
def test_open_sync_transaction_delays_the_stop(platform):
    """The sync waits for a lock inside its writing transaction; the stop waits for the sync."""
    # Without anything to write it would need no lock.
    platform.lose(1, "estimates")
    with platform.warehouse() as conn, conn.transaction():
        conn.execute("LOCK repairshopr.estimates IN EXCLUSIVE MODE")
        platform.execute("DELETE FROM confidence.sync_state WHERE entity = 'estimates'")
        sync_run = platform.airflow.trigger(SYNC)
        until(lambda: blocked(platform), "the sync to wait for the lock", 60)
        run_id = platform.airflow.trigger(RECONCILE)
        platform.airflow.wait_for(RECONCILE, run_id, "stop_writer", "running")
        time.sleep(5)
        assert platform.airflow.tasks(RECONCILE, run_id)["stop_writer"] == "running"
        assert platform.writer().slots == 0
    assert platform.airflow.wait(SYNC, sync_run) == "success"
    assert platform.airflow.wait(RECONCILE, run_id) == "success"


def blocked(platform: Platform) -> bool:
    return bool(
        platform.query("SELECT 1 FROM pg_locks WHERE relation = 'repairshopr.estimates'::regclass AND NOT granted")
    )


@pytest.mark.drill("marked-task")
def test_zombie_sync_can_not_commit_after_the_stop(platform):
    """Marked failed it no longer counts in the pool, while its process reads on and then wants to write."""
    platform.lose(5, "payments")
    before = synced_by(platform, "line_items"), synced_by(platform, "payments")
    platform.shop.fault(Fault("timeout", resource="payments", seconds=4))
    sync_run = platform.airflow.trigger(SYNC, mode="full")
    until(lambda: synced_by(platform, "line_items") != before[0], "the sync to come to the payments", 60)
    process = platform.session_of(f"{SYNC}/{sync_run}")
    platform.airflow.mark(SYNC, sync_run, "sync", "failed")
    _, state = platform.reconcile()
    assert state == "success"
    until(lambda: gone(process), "the zombie to end", 60)
    assert not platform.in_step("payments")
    assert synced_by(platform, "payments") == before[1]


def synced_by(platform: Platform, entity: str) -> int:
    """The sync_id that moved the entity's state last."""
    ((sync_id,),) = platform.query("SELECT sync_id FROM confidence.sync_state WHERE entity = %s", entity)
    return sync_id


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.drill("cleared-old-run")
def test_two_reconcile_runs_never_overlap(platform):
    platform.remove_at_source(60)
    first = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(first)
    second = platform.airflow.trigger(RECONCILE)
    time.sleep(5)
    assert platform.airflow.state(RECONCILE, second) == "queued"
    platform.airflow.answer(RECONCILE, first, "Repair, then resume")
    assert platform.airflow.wait(RECONCILE, first) == "success"
    assert platform.airflow.wait(RECONCILE, second) == "success"


@pytest.mark.drill("cleared-old-run")
def test_cleared_old_run_does_not_take_the_writer_from_the_run_at_work(platform):
    old, state = platform.reconcile()
    assert state == "success"
    platform.remove_at_source(60)
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)
    platform.airflow.clear(RECONCILE, old, "stop_writer")
    time.sleep(8)
    writer = platform.query("SELECT run, state FROM confidence.writer WHERE source = 'repairshopr'")
    assert writer == [(f"{RECONCILE}/{run_id}", "stopped")]
    platform.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    assert platform.airflow.wait(RECONCILE, old) in ("success", "failed")
    assert platform.writer().runs


@pytest.mark.drill("edited-pool")
def test_pool_opened_by_hand_does_not_let_the_sync_write(platform):
    platform.remove_at_source(60)
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)
    platform.airflow.set_slots(POOL, 1)
    sync_run = platform.airflow.trigger(SYNC)
    platform.airflow.wait_for(SYNC, sync_run, "sync", "up_for_reschedule")
    assert f"stopped by {RECONCILE}/{run_id}" in platform.airflow.log(SYNC, sync_run, "sync")
    assert not platform.in_step()
    platform.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    assert platform.airflow.wait(SYNC, sync_run) == "success"


@pytest.fixture(scope="module")
def repaired_run(running_platform):
    """A run that found and repaired drift, to be cleared in all ways."""
    running_platform.reset()
    running_platform.lose(3)
    run_id, state = running_platform.reconcile(dry_run=False)
    assert state == "success"
    return run_id


@pytest.mark.drill("cleared-task")
@pytest.mark.parametrize("downstream", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_clear_of_each_task_leaves_order_or_a_refusal(running_platform, repaired_run, task, downstream):
    """The stop comes before every step and the resume after it; old scans behind a new stop are no evidence."""
    platform = running_platform
    platform.airflow.clear(RECONCILE, repaired_run, task, downstream=downstream)
    state = platform.airflow.wait(RECONCILE, repaired_run)
    steps = platform.steps(repaired_run)
    assert platform.writer().runs
    assert platform.in_step()
    refused = "reconcile" if (task, downstream) == ("decide", True) else task
    if refused not in ("gate_check", "reconcile"):
        assert state == "success", steps
        return
    # Without downstream the run's leaves, and so its state, stay what they were; the task itself is red.
    assert (state, steps[refused]) == ("failed" if downstream else "success", "failed")
    refusal = platform.airflow.last_log(RECONCILE, repaired_run, refused)
    assert "Clear scan (all of its map indexes) with downstream" in refusal
    platform.airflow.clear(RECONCILE, repaired_run, "scan")
    assert platform.airflow.wait(RECONCILE, repaired_run) == "success"


@pytest.mark.drill("cleared-only-failed")
def test_only_failed_after_a_failed_scan_is_refused_until_cleared_with_downstream(platform):
    platform.shop.fault(Fault("status", resource="tickets", status=401, times=None))
    run_id, state = platform.reconcile()
    assert state == "failed"
    platform.shop.clear()
    platform.airflow.clear(RECONCILE, run_id, only_failed=True)
    assert platform.airflow.wait(RECONCILE, run_id) == "failed"
    assert platform.writer().runs
    assert "clear stop_writer with downstream" in platform.airflow.last_log(RECONCILE, run_id, "scan", map_index=5)
    platform.airflow.clear(RECONCILE, run_id, "scan")
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    assert platform.writer().runs


@pytest.mark.drill("cleared-only-failed")
def test_only_failed_after_a_kept_hold_leaves_the_writer_visibly_stopped(platform):
    platform.remove_at_source(60)
    platform.airflow.set_variable("decision_timeout_hours", "0.003")
    run_id, state = platform.reconcile()
    assert state == "failed"
    platform.airflow.clear(RECONCILE, run_id, only_failed=True)
    assert platform.airflow.wait(RECONCILE, run_id) == "failed"
    assert platform.writer().stands
    assert "held" in platform.airflow.last_log(RECONCILE, run_id, "resume_writer")


@pytest.mark.drill("cleared-task")
def test_one_cleared_scan_behind_a_new_stop_is_refused_by_the_gate(platform):
    run_id, _ = platform.reconcile()
    platform.airflow.clear_mapped(RECONCILE, run_id, "scan", 2)
    assert platform.airflow.wait(RECONCILE, run_id) == "failed"
    assert platform.writer().runs
    assert "scans from before this stop" in platform.airflow.last_log(RECONCILE, run_id, "gate_check")


@pytest.mark.drill("killed-stop")
def test_stop_that_is_killed_leaves_no_writer_stopped_in_silence(platform):
    """The stop's process dies between the pool and the fence, in all its tries."""
    with psycopg.connect(platform.stack.warehouse_url) as conn:
        conn.execute("SELECT FROM confidence.writer WHERE source = 'repairshopr' FOR SHARE")
        run_id = platform.airflow.trigger(RECONCILE)
        for attempt in range(1, 4):
            running = (attempt, "running")
            until(lambda running=running: platform.attempt(run_id, "stop_writer") == running, f"attempt {attempt}", 60)
            until(lambda: platform.writer().slots == 0, "the pool to close", 60)
            platform.kill(platform.session_of(f"{RECONCILE}/{run_id}"))
        assert platform.airflow.wait(RECONCILE, run_id) == "failed"
    assert platform.writer().runs
