"""What only a scheduler shows: who waits for whom, and what a person's clears and marks do to the order."""

import time

import psutil
import psycopg
import pytest

from include.simulators.repairshopr import Fault
from stack.airflow import until
from tests.house import POOL, RECONCILE, SYNC, House

TASKS = ("stop_writer", "scan", "gate_check", "decide", "reconcile", "verify", "resume_writer", "report")


def test_queued_sync_waits_while_the_writer_stands_and_runs_after_the_resume(house):
    house.remove_at_source(60)
    run_id = house.airflow.trigger(RECONCILE)
    house.wait_for_question(run_id)
    sync_run = house.airflow.trigger(SYNC)
    house.airflow.wait_for(SYNC, sync_run, "sync", "scheduled")
    why = house.airflow.call("GET", f"/dags/{SYNC}/dagRuns/{sync_run}/taskInstances/sync/dependencies")
    assert POOL in str(why)
    house.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert house.airflow.wait(RECONCILE, run_id) == "success"
    assert house.airflow.wait(SYNC, sync_run) == "success"


def test_open_sync_transaction_delays_the_stop(house):
    """The sync waits for a lock inside its writing transaction; the stop waits for the sync."""
    with house.warehouse() as conn, conn.transaction():
        conn.execute("LOCK repairshopr.estimates IN EXCLUSIVE MODE")
        house.execute("DELETE FROM confidence.sync_state WHERE entity = 'estimates'")
        sync_run = house.airflow.trigger(SYNC)
        until(lambda: blocked(house), "the sync to wait for the lock", 60)
        run_id = house.airflow.trigger(RECONCILE)
        house.airflow.wait_for(RECONCILE, run_id, "stop_writer", "running")
        time.sleep(5)
        assert house.airflow.tasks(RECONCILE, run_id)["stop_writer"] == "running"
        assert house.writer().slots == 0
    assert house.airflow.wait(SYNC, sync_run) == "success"
    assert house.airflow.wait(RECONCILE, run_id) == "success"


def blocked(house: House) -> bool:
    return bool(
        house.query("SELECT 1 FROM pg_locks WHERE relation = 'repairshopr.estimates'::regclass AND NOT granted")
    )


def test_zombie_sync_can_not_commit_after_the_stop(house):
    """Marked failed it no longer counts in the pool, while its process reads on and then wants to write."""
    house.lose(5, "payments")
    before = synced_by(house, "line_items"), synced_by(house, "payments")
    house.shop.fault(Fault("timeout", resource="payments", seconds=4))
    sync_run = house.airflow.trigger(SYNC, mode="full")
    until(lambda: synced_by(house, "line_items") != before[0], "the sync to come to the payments", 60)
    process = house.session_of(f"{SYNC}/{sync_run}")
    house.airflow.mark(SYNC, sync_run, "sync", "failed")
    _, state = house.reconcile()
    assert state == "success"
    until(lambda: gone(process), "the zombie to end", 60)
    assert not house.in_step("payments")
    assert synced_by(house, "payments") == before[1]


def synced_by(house: House, entity: str) -> int:
    """The sync_id that moved the entity's state last."""
    ((sync_id,),) = house.query("SELECT sync_id FROM confidence.sync_state WHERE entity = %s", entity)
    return sync_id


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_two_reconcile_runs_never_overlap(house):
    house.remove_at_source(60)
    first = house.airflow.trigger(RECONCILE)
    house.wait_for_question(first)
    second = house.airflow.trigger(RECONCILE)
    time.sleep(5)
    assert house.airflow.state(RECONCILE, second) == "queued"
    house.airflow.answer(RECONCILE, first, "Repair, then resume")
    assert house.airflow.wait(RECONCILE, first) == "success"
    assert house.airflow.wait(RECONCILE, second) == "success"


def test_cleared_old_run_does_not_take_the_writer_from_the_run_at_work(house):
    old, state = house.reconcile()
    assert state == "success"
    house.remove_at_source(60)
    run_id = house.airflow.trigger(RECONCILE)
    house.wait_for_question(run_id)
    house.airflow.clear(RECONCILE, old, "stop_writer")
    time.sleep(8)
    writer = house.query("SELECT run, state FROM confidence.writer WHERE source = 'repairshopr'")
    assert writer == [(f"{RECONCILE}/{run_id}", "stopped")]
    house.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert house.airflow.wait(RECONCILE, run_id) == "success"
    assert house.airflow.wait(RECONCILE, old) in ("success", "failed")
    assert house.writer().runs


def test_pool_opened_by_hand_does_not_let_the_sync_write(house):
    house.remove_at_source(60)
    run_id = house.airflow.trigger(RECONCILE)
    house.wait_for_question(run_id)
    house.airflow.set_slots(POOL, 1)
    sync_run, state = house.airflow.run(SYNC)
    assert state == "failed"
    assert f"stopped by {RECONCILE}/{run_id}" in house.airflow.log(SYNC, sync_run, "sync")
    house.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert house.airflow.wait(RECONCILE, run_id) == "success"


@pytest.fixture(scope="module")
def repaired_run(running_house):
    """A run that found and repaired drift, to be cleared in all ways."""
    running_house.reset()
    running_house.lose(3)
    run_id, state = running_house.reconcile(dry_run=False)
    assert state == "success"
    return run_id


@pytest.mark.parametrize("downstream", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_clear_of_each_task_leaves_order_or_a_refusal(running_house, repaired_run, task, downstream):
    """The stop comes before every step and the resume after it; old scans behind a new stop are no evidence."""
    house = running_house
    house.airflow.clear(RECONCILE, repaired_run, task, downstream=downstream)
    state = house.airflow.wait(RECONCILE, repaired_run)
    steps = house.steps(repaired_run)
    assert house.writer().runs
    assert house.in_step()
    refused = "reconcile" if (task, downstream) == ("decide", True) else task
    if refused not in ("gate_check", "reconcile"):
        assert state == "success", steps
        return
    # Without downstream the run's leaves, and so its state, stay what they were; the task itself is red.
    assert (state, steps[refused]) == ("failed" if downstream else "success", "failed")
    refusal = house.airflow.last_log(RECONCILE, repaired_run, refused)
    assert "Clear scan (all of its map indexes) with downstream" in refusal
    house.airflow.clear(RECONCILE, repaired_run, "scan")
    assert house.airflow.wait(RECONCILE, repaired_run) == "success"


def test_only_failed_after_a_failed_scan_is_refused_until_cleared_with_downstream(house):
    house.shop.fault(Fault("status", resource="tickets", status=401, times=None))
    run_id, state = house.reconcile()
    assert state == "failed"
    house.shop.clear()
    house.airflow.clear(RECONCILE, run_id, only_failed=True)
    assert house.airflow.wait(RECONCILE, run_id) == "failed"
    assert house.writer().runs
    assert "clear stop_writer with downstream" in house.airflow.last_log(RECONCILE, run_id, "scan", map_index=5)
    house.airflow.clear(RECONCILE, run_id, "scan")
    assert house.airflow.wait(RECONCILE, run_id) == "success"
    assert house.writer().runs


def test_only_failed_after_a_kept_hold_leaves_the_writer_visibly_stopped(house):
    house.remove_at_source(60)
    house.airflow.set_variable("decision_timeout_hours", "0.003")
    run_id, state = house.reconcile()
    assert state == "failed"
    house.airflow.clear(RECONCILE, run_id, only_failed=True)
    assert house.airflow.wait(RECONCILE, run_id) == "failed"
    assert house.writer().stands
    assert "held" in house.airflow.last_log(RECONCILE, run_id, "resume_writer")


def test_one_cleared_scan_behind_a_new_stop_is_refused_by_the_gate(house):
    run_id, _ = house.reconcile()
    house.airflow.clear_mapped(RECONCILE, run_id, "scan", 2)
    assert house.airflow.wait(RECONCILE, run_id) == "failed"
    assert house.writer().runs
    assert "scans from before this stop" in house.airflow.last_log(RECONCILE, run_id, "gate_check")


def test_stop_that_is_killed_leaves_no_writer_stopped_in_silence(house):
    """The stop's process dies between the pool and the fence, in all its tries."""
    with psycopg.connect(house.stack.warehouse_url) as conn:
        conn.execute("SELECT FROM confidence.writer WHERE source = 'repairshopr' FOR SHARE")
        run_id = house.airflow.trigger(RECONCILE)
        for attempt in range(1, 4):
            running = (attempt, "running")
            until(lambda running=running: house.attempt(run_id, "stop_writer") == running, f"attempt {attempt}", 60)
            until(lambda: house.writer().slots == 0, "the pool to close", 60)
            house.kill(house.session_of(f"{RECONCILE}/{run_id}"))
        assert house.airflow.wait(RECONCILE, run_id) == "failed"
    assert house.writer().runs
