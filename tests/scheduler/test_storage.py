"""The runbook with a source whose copy is another database: what its users see, and what they undo."""

import json

import pytest

from tests.house import House
from tests.images import ORIGINAL, STAGED

SYNC, RECONCILE = "storage_sync", "storage_reconcile"
STEPS = ("stop_writer", "scan", "gate_check", "decide", "reconcile", "verify", "resume_writer", "report")


@pytest.fixture
def enabled(house: House) -> None:
    """The switch, on, as people set it in the UI."""
    house.airflow.set_variable("RECONCILE_ENABLED", "1")


def writer_runs(house: House) -> bool:
    return house.writer("storage").runs


def result(house: House, dag: str, run_id: str, task: str) -> dict:
    """The run's result, which is one line of the task's log too."""
    found = house.airflow.xcom(dag, run_id, task, "result")
    lines = [line for line in house.airflow.log(dag, run_id, task).splitlines() if '"event": "result"' in line]
    told = {"event": "result", "source": "storage", "run": f"{dag}/{run_id}"}
    assert [json.loads(line) for line in lines] == [told | found]
    return found


def test_without_the_switch_nothing_that_writes_begins(house):
    house.images.lose(3)
    before, epoch = house.images.rows(), house.writer("storage").epoch
    reconcile = house.airflow.trigger(RECONCILE, dry_run=False)
    sync = house.airflow.trigger(SYNC, dry_run=False)
    assert house.airflow.wait(RECONCILE, reconcile) == "failed"
    assert house.airflow.wait(SYNC, sync) == "failed"
    steps = house.steps(reconcile, RECONCILE)
    assert (steps["stop_writer"], steps["scan"]) == ("failed", "upstream_failed")
    for dag, run_id, task in ((RECONCILE, reconcile, "stop_writer"), (SYNC, sync, "sync")):
        assert "reconciliation is not enabled" in house.airflow.log(dag, run_id, task)
    assert writer_runs(house)
    assert house.writer("storage").epoch == epoch
    assert house.images.rows() == before


def test_missing_images_are_marked_once_and_given_back_by_a_rollback(house, enabled):
    lost = house.images.lose(2, staged=1)
    before = house.images.rows()
    run_id, state = house.airflow.run(RECONCILE, dry_run=False)
    assert state == "success"
    assert house.steps(run_id, RECONCILE) == dict.fromkeys(STEPS, "success") | {"decide": "skipped"}
    assert house.images.marked() == lost
    assert set(lost.values()) == {ORIGINAL, STAGED}
    found = result(house, RECONCILE, run_id, "report")
    assert (found["missing_original"], found["missing_staged"], found["updated"]) == (2, 1, 3)
    assert [example["image_id"] for example in found["examples"]] == sorted(lost)
    assert writer_runs(house)
    sync_id = house.airflow.xcom(RECONCILE, run_id, "reconcile")["sync_id"]

    again, state = house.airflow.run(RECONCILE, dry_run=False)
    assert state == "success"
    assert result(house, RECONCILE, again, "report")["updated"] == 0

    _, state = house.airflow.run("warehouse_rollback", sync_id=sync_id, reason="a test", dry_run=False)
    assert state == "success"
    assert house.images.rows() == before


def test_revoked_rights_fail_the_scan_at_once_and_write_nothing(house, enabled):
    house.images.lose(3)
    before = house.images.rows()
    house.images.control.rights(list=False, read=False)
    run_id, state = house.airflow.run(RECONCILE, dry_run=False)
    assert state == "failed"
    assert "connection 'storage'" in house.airflow.log(RECONCILE, run_id, "scan")
    tried = house.airflow.call("GET", f"/dags/{RECONCILE}/dagRuns/{run_id}/taskInstances/scan")["try_number"]
    assert tried == 1
    assert "scan failed" in house.airflow.log(RECONCILE, run_id, "report")
    assert house.images.rows() == before
    assert writer_runs(house)


def test_too_much_missing_is_held_at_once_and_asked_with_its_likely_cause(house, enabled):
    house.images.lose(30)
    before = house.images.rows()
    run_id = house.airflow.trigger(RECONCILE, dry_run=False)
    house.wait_for_question(run_id, RECONCILE)
    assert house.writer("storage").stands
    assert house.writer().runs
    question = house.airflow.call("GET", f"/dags/{RECONCILE}/dagRuns/{run_id}/taskInstances/decide/-1/hitlDetails")
    assert "missing_original is 30 of" in question["body"]
    assert "Check endpoint_url and bucket_name of connection 'storage'" in question["body"]
    house.airflow.answer(RECONCILE, run_id, "Resume without repair")
    assert house.airflow.wait(RECONCILE, run_id) == "success"
    assert result(house, RECONCILE, run_id, "report")["updated"] == 0
    assert house.images.rows() == before
    assert writer_runs(house)


def test_sync_tells_and_with_the_switch_marks(house, enabled):
    lost = house.images.lose(1, staged=1)
    before = house.images.rows()
    run_id, state = house.airflow.run(SYNC)
    assert state == "success"
    found = result(house, SYNC, run_id, "sync")
    assert (found["missing_original"], found["missing_staged"], found["updated"], found["dry_run"]) == (1, 1, 0, True)
    assert house.images.rows() == before

    run_id, state = house.airflow.run(SYNC, dry_run=False)
    assert state == "success"
    found = result(house, SYNC, run_id, "sync")
    assert (found["updated"], found["dry_run"]) == (2, False)
    assert house.images.marked() == lost
