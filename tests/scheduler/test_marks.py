"""What a person marks, deletes or pauses in Airflow ends in the truth; what no task can tell is told by the watch."""

import pytest

from stack.airflow import until
from tests.house import POOL, RECONCILE, SOURCE, SYNC, House


@pytest.fixture
def scanning(house) -> str:
    """A run that may repair, in the middle of its scans."""
    house.lose(3)
    house.shop.set(latency_ms=700)
    run_id = house.airflow.trigger(RECONCILE, dry_run=False)
    # The order of the scans is not fixed: one of them is at work.
    until(lambda: "running" in scans(house, run_id), "a scan to run", 90)
    return run_id


def scans(house: House, run_id: str) -> set[str]:
    return {state for task, state in house.airflow.tasks(RECONCILE, run_id).items() if task.startswith("scan")}


@pytest.fixture
def asking(house) -> str:
    """A run that asks about a hold."""
    house.remove_at_source(60)
    run_id = house.airflow.trigger(RECONCILE)
    house.wait_for_question(run_id)
    house.service.told.clear()
    return run_id


def ended(house: House, run_id: str) -> str:
    house.shop.set(latency_ms=0)
    return house.airflow.wait(RECONCILE, run_id, timeout=180)


def repairs(house: House) -> int:
    ((count,),) = house.query("SELECT count(*) FROM confidence.sync_log WHERE kind = 'repair' AND state = 'success'")
    return count


def test_gate_check_marked_as_done_while_scan_runs_lets_nothing_be_repaired(house, scanning):
    before = repairs(house)
    house.airflow.mark(RECONCILE, scanning, "gate_check", "success")
    assert ended(house, scanning) == "failed"
    assert house.steps(scanning)["reconcile"] == "failed"
    assert not house.in_step()
    assert repairs(house) == before
    assert house.writer().runs
    assert house.service.titles == [f"{SOURCE}: repair failed"]


def test_run_marked_as_failed_while_scanning_is_failed_and_the_writer_runs(house, scanning):
    house.airflow.mark_run(RECONCILE, scanning, "failed")
    assert ended(house, scanning) == "failed"
    assert house.steps(scanning)["report"] == "failed"
    assert not house.in_step()
    assert house.writer().runs
    assert house.service.titles == [f"{SOURCE}: scan failed or incomplete"]
    assert house.watch() == []


def test_run_marked_as_done_while_scanning_is_not(house, scanning):
    house.airflow.mark_run(RECONCILE, scanning, "success")
    assert ended(house, scanning) == "failed"
    assert "the warehouse has no whole scan of" in house.airflow.log(RECONCILE, scanning, "report")
    assert house.writer().runs
    assert house.service.titles == [f"{SOURCE}: scan is not done, whatever its task looks like"]


def test_run_marked_as_done_while_it_asks_is_failed_over_the_stopped_writer(house, asking):
    house.airflow.mark_run(RECONCILE, asking, "success")
    assert ended(house, asking) == "failed"
    assert house.writer().stands
    assert house.service.titles == [f"{SOURCE}: the writer could not be let run again"]
    # People know that; once somebody makes it look well they don't.
    assert house.watch() == ["writer_unattended"]
    assert len(house.service.told) == 1
    house.airflow.mark_run(RECONCILE, asking, "success")
    assert house.watch() == ["writer_unattended"]
    assert house.service.titles[1:] == [f"{SOURCE}: the writer is stopped, and nobody is at work on it"]
    assert "Next: clear decide of that run with downstream" in house.service.told[1]["message"]
    house.airflow.clear(RECONCILE, asking, "decide")
    house.wait_for_question(asking)
    assert house.watch() == []
    house.airflow.answer(RECONCILE, asking, "Repair, then resume")
    assert ended(house, asking) == "success"
    assert house.in_step()


def test_resume_writer_of_a_held_run_marked_as_done_is_not(house):
    house.remove_at_source(60)
    house.airflow.set_variable("decision_timeout_hours", "0.003")
    run_id, state = house.reconcile()
    assert state == "failed"
    # What failed behind it is cleared with that.
    house.airflow.mark(RECONCILE, run_id, "resume_writer", "success")
    until(lambda: house.attempt(run_id, "report") == (2, "failed"), "the second report", 90)
    assert ended(house, run_id) == "failed"
    assert house.writer().stands
    assert "although resume_writer does not look failed" in house.airflow.last_log(RECONCILE, run_id, "report")
    assert house.service.titles[-1] == f"{SOURCE}: resume_writer is not done, whatever its task looks like"


def test_held_run_that_is_deleted_is_missed(house):
    house.remove_at_source(60)
    house.airflow.set_variable("decision_timeout_hours", "0.003")
    run_id, state = house.reconcile()
    assert state == "failed"
    house.airflow.delete_variable("decision_timeout_hours")
    # That it stays stopped is known, as long as there is a run that says so.
    house.service.told.clear()
    assert house.watch() == ["writer_unattended"]
    assert house.service.told == []
    house.airflow.call("DELETE", f"/dags/{RECONCILE}/dagRuns/{run_id}")
    assert house.watch() == ["writer_unattended"]
    [message] = house.service.told
    assert "that run is not in Airflow" in message["message"]
    assert f"Next: trigger {RECONCILE}" in message["message"]
    run_id = house.airflow.trigger(RECONCILE)
    house.wait_for_question(run_id)
    house.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert ended(house, run_id) == "success"
    assert house.watch() == []


def test_dag_that_is_paused_in_the_middle_is_missed(house, asking):
    house.airflow.pause(RECONCILE)
    try:
        assert house.watch() == ["dag_paused"]
        assert house.service.titles == [f"{SOURCE}: the writer is stopped, and its DAG is paused"]
    finally:
        house.airflow.pause(RECONCILE, paused=False)
    assert house.watch() == []
    house.airflow.answer(RECONCILE, asking, "Resume without repair")
    assert ended(house, asking) == "success"


def test_pool_that_is_deleted_is_missed_and_made_anew_by_the_next_run(house):
    house.airflow.call("DELETE", f"/pools/{POOL}")
    try:
        sync_run = house.airflow.trigger(SYNC)
        assert house.watch() == ["pool_missing"]
        assert house.service.titles == [f"{SOURCE}: the writer's pool is missing"]
        _, state = house.reconcile()
        assert state == "success"
        assert house.writer().runs
        assert house.watch() == []
        assert house.airflow.wait(SYNC, sync_run) == "success"
    finally:
        if POOL not in {pool["name"] for pool in house.airflow.call("GET", "/pools")["pools"]}:
            body = {"name": POOL, "slots": 1, "include_deferred": True, "description": ""}
            house.airflow.call("POST", "/pools", json=body)
