"""What a person marks, deletes or pauses in Airflow ends in the truth; what no task can tell is told by the watch."""

import pytest

from stack.airflow import until
from tests.running_platform import POOL, RECONCILE, SOURCE, SYNC, Platform


@pytest.fixture
def scanning(platform) -> str:
    """A run that may repair, in the middle of its scans."""
    platform.lose(3)
    # No scan ends by itself: on a busy machine a test is late to see that one runs, or a process to be stopped.
    platform.shop.set(latency_ms=15000)
    run_id = platform.airflow.trigger(RECONCILE, dry_run=False)
    # The order of the scans is not fixed: one of them is at work.
    until(lambda: "running" in scans(platform, run_id), "a scan to run", 90)
    return run_id


def scans(platform: Platform, run_id: str) -> set[str]:
    return {state for task, state in platform.airflow.tasks(RECONCILE, run_id).items() if task.startswith("scan")}


@pytest.fixture
def asking(platform) -> str:
    """A run that asks about a hold."""
    platform.remove_at_source(60)
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)
    platform.service.told.clear()
    return run_id


def ended(platform: Platform, run_id: str) -> str:
    platform.shop.set(latency_ms=0)
    return platform.airflow.wait(RECONCILE, run_id, timeout=180)


def repairs(platform: Platform) -> int:
    ((count,),) = platform.query("SELECT count(*) FROM confidence.sync_log WHERE kind = 'repair' AND state = 'success'")
    return count


@pytest.mark.drill("marked-task")
def test_gate_check_marked_as_done_while_scan_runs_lets_nothing_be_repaired(platform, scanning):
    before = repairs(platform)
    platform.airflow.mark(RECONCILE, scanning, "gate_check", "success")
    assert ended(platform, scanning) == "failed"
    assert platform.steps(scanning)["reconcile"] == "failed"
    assert not platform.in_step()
    assert repairs(platform) == before
    assert platform.writer().runs
    assert platform.service.titles == [f"{SOURCE}: repair failed"]


@pytest.mark.drill("marked-run")
def test_run_marked_as_failed_while_scanning_is_failed_and_the_writer_runs(platform, scanning):
    platform.airflow.mark_run(RECONCILE, scanning, "failed")
    assert platform.airflow.wait(RECONCILE, scanning, timeout=180) == "failed"
    assert platform.steps(scanning)["report"] == "failed"
    assert not platform.in_step()
    assert platform.writer().runs
    assert platform.service.titles == [f"{SOURCE}: scan failed or incomplete"]
    assert platform.watch() == []


@pytest.mark.drill("marked-run")
def test_run_marked_as_done_while_scanning_is_not(platform, scanning):
    platform.airflow.mark_run(RECONCILE, scanning, "success")
    # The API stays slow: a scan's process works on until its next heartbeat, and would be complete by then.
    assert platform.airflow.wait(RECONCILE, scanning, timeout=180) == "failed"
    assert "the warehouse has no whole scan of" in platform.airflow.log(RECONCILE, scanning, "report")
    assert platform.writer().runs
    assert platform.service.titles == [f"{SOURCE}: scan was not done, although no task failed"]


@pytest.mark.drill("marked-run")
def test_run_marked_as_done_while_it_asks_is_failed_over_the_stopped_writer(platform, asking):
    platform.airflow.mark_run(RECONCILE, asking, "success")
    assert ended(platform, asking) == "failed"
    assert platform.writer().stands
    assert platform.service.titles == [f"{SOURCE}: the writer could not be started again"]
    # People know that; once somebody makes it look well they don't.
    assert platform.watch() == ["writer_unattended"]
    assert len(platform.service.told) == 1
    platform.airflow.mark_run(RECONCILE, asking, "success")
    assert platform.watch() == ["writer_unattended"]
    assert "Ask me again</button>" in platform.airflow.page(f"/sync-confidence/sources/{SOURCE}")
    assert platform.service.titles[1:] == [f"{SOURCE}: the writer is stopped, and nobody is at work on it"]
    assert "(or clear decide of that run with downstream), and answer" in platform.service.told[1]["message"]
    platform.airflow.clear(RECONCILE, asking, "decide")
    platform.wait_for_question(asking)
    assert platform.watch() == []
    platform.airflow.answer(RECONCILE, asking, "Repair, then resume")
    assert ended(platform, asking) == "success"
    assert platform.in_step()


@pytest.mark.drill("marked-task")
def test_resume_writer_of_a_held_run_marked_as_done_is_not(platform):
    platform.remove_at_source(60)
    platform.airflow.set_variable("decision_timeout_hours", "0.003")
    run_id, state = platform.reconcile()
    assert state == "failed"
    # What failed behind it is cleared with that.
    platform.airflow.mark(RECONCILE, run_id, "resume_writer", "success")
    until(lambda: platform.attempt(run_id, "report") == (2, "failed"), "the second report", 180)
    assert ended(platform, run_id) == "failed"
    assert platform.writer().stands
    assert "although resume_writer does not look failed" in platform.airflow.last_log(RECONCILE, run_id, "report")
    assert platform.service.titles[-1] == f"{SOURCE}: resume_writer was not done, although no task failed"


@pytest.mark.drill("deleted-run")
def test_held_run_that_is_deleted_is_missed(platform):
    platform.remove_at_source(60)
    platform.airflow.set_variable("decision_timeout_hours", "0.003")
    run_id, state = platform.reconcile()
    assert state == "failed"
    platform.airflow.delete_variable("decision_timeout_hours")
    # That it stays stopped is known, as long as there is a run that says so.
    platform.service.told.clear()
    assert platform.watch() == ["writer_unattended"]
    assert platform.service.told == []
    platform.airflow.call("DELETE", f"/dags/{RECONCILE}/dagRuns/{run_id}")
    assert platform.watch() == ["writer_unattended"]
    [message] = platform.service.told
    assert "that run is not in Airflow" in message["message"]
    assert f"Next: trigger {RECONCILE}" in message["message"]
    # No link leads to the run that is gone.
    assert platform.clicks() == {f"Trigger {RECONCILE}": f"/dags/{RECONCILE}"}
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)
    platform.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert ended(platform, run_id) == "success"
    assert platform.watch() == []


@pytest.mark.drill("paused")
def test_dag_that_is_paused_in_the_middle_is_missed(platform, asking):
    platform.airflow.pause(RECONCILE)
    try:
        assert platform.watch() == ["dag_paused"]
        assert platform.service.titles == [f"{SOURCE}: the writer is stopped, and its DAG is paused"]
        assert platform.clicks()[f"Switch {RECONCILE} on"] == f"/dags/{RECONCILE}"
    finally:
        platform.airflow.pause(RECONCILE, paused=False)
    assert platform.watch() == []
    platform.airflow.answer(RECONCILE, asking, "Resume without repair")
    assert ended(platform, asking) == "success"


@pytest.mark.drill("deleted-pool")
def test_pool_that_is_deleted_is_missed_and_made_anew_by_the_next_run(platform):
    platform.airflow.call("DELETE", f"/pools/{POOL}")
    try:
        sync_run = platform.airflow.trigger(SYNC)
        assert platform.watch() == ["pool_missing"]
        assert platform.service.titles == [f"{SOURCE}: the writer's pool is missing"]
        assert platform.clicks() == {f"Trigger {RECONCILE}": f"/dags/{RECONCILE}"}
        _, state = platform.reconcile()
        assert state == "success"
        assert platform.writer().runs
        assert platform.watch() == []
        assert platform.airflow.wait(SYNC, sync_run) == "success"
    finally:
        if POOL not in {pool["name"] for pool in platform.airflow.call("GET", "/pools")["pools"]}:
            body = {"name": POOL, "slots": 1, "include_deferred": True, "description": ""}
            platform.airflow.call("POST", "/pools", json=body)
