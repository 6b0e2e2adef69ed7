"""The runbook with a source whose copy is another database: what its users see, and what they undo."""

import json

import pytest

from tests.images import ORIGINAL, STAGED
from tests.running_platform import Platform

SYNC, RECONCILE = "storage_sync", "storage_reconcile"
STEPS = ("stop_writer", "scan", "gate_check", "decide", "reconcile", "verify", "resume_writer", "report")


@pytest.fixture
def enabled(platform: Platform) -> None:
    """The switch, on, as people set it in the UI."""
    platform.airflow.set_variable("RECONCILE_ENABLED", "1")


def writer_runs(platform: Platform) -> bool:
    return platform.writer("storage").runs


def result(platform: Platform, dag: str, run_id: str, task: str) -> dict:
    """The run's result, which is one line of the task's log too."""
    found = platform.airflow.xcom(dag, run_id, task, "result")
    lines = [line for line in platform.airflow.log(dag, run_id, task).splitlines() if '"event": "result"' in line]
    told = {"event": "result", "source": "storage", "run": f"{dag}/{run_id}"}
    assert [json.loads(line) for line in lines] == [told | found]
    return found


def test_without_the_switch_nothing_that_writes_begins(platform):
    platform.images.lose(3)
    before, epoch = platform.images.rows(), platform.writer("storage").epoch
    reconcile = platform.airflow.trigger(RECONCILE, dry_run=False)
    sync = platform.airflow.trigger(SYNC, dry_run=False)
    assert platform.airflow.wait(RECONCILE, reconcile) == "failed"
    assert platform.airflow.wait(SYNC, sync) == "failed"
    steps = platform.steps(reconcile, RECONCILE)
    assert (steps["stop_writer"], steps["scan"]) == ("failed", "upstream_failed")
    for dag, run_id, task in ((RECONCILE, reconcile, "stop_writer"), (SYNC, sync, "sync")):
        assert "reconciliation is not enabled" in platform.airflow.log(dag, run_id, task)
    assert writer_runs(platform)
    assert platform.writer("storage").epoch == epoch
    assert platform.images.rows() == before


def test_missing_images_are_marked_once_and_given_back_by_a_rollback(platform, enabled):
    lost = platform.images.lose(2, staged=1)
    before = platform.images.rows()
    run_id, state = platform.airflow.run(RECONCILE, dry_run=False)
    assert state == "success"
    assert platform.steps(run_id, RECONCILE) == dict.fromkeys(STEPS, "success") | {"decide": "skipped"}
    assert platform.images.marked() == lost
    assert set(lost.values()) == {ORIGINAL, STAGED}
    found = result(platform, RECONCILE, run_id, "report")
    assert (found["missing_original"], found["missing_staged"], found["updated"]) == (2, 1, 3)
    assert [example["image_id"] for example in found["examples"]] == sorted(lost)
    assert writer_runs(platform)
    sync_id = platform.airflow.xcom(RECONCILE, run_id, "reconcile")["sync_id"]

    again, state = platform.airflow.run(RECONCILE, dry_run=False)
    assert state == "success"
    assert result(platform, RECONCILE, again, "report")["updated"] == 0

    _, state = platform.airflow.run("warehouse_rollback", sync_id=sync_id, reason="a test", dry_run=False)
    assert state == "success"
    assert platform.images.rows() == before


@pytest.mark.drill("token-revoked")
def test_revoked_rights_fail_the_scan_at_once_and_write_nothing(platform, enabled):
    platform.images.lose(3)
    before = platform.images.rows()
    platform.images.control.rights(list=False, read=False)
    run_id, state = platform.airflow.run(RECONCILE, dry_run=False)
    assert state == "failed"
    assert "connection 'storage'" in platform.airflow.log(RECONCILE, run_id, "scan")
    tried = platform.airflow.call("GET", f"/dags/{RECONCILE}/dagRuns/{run_id}/taskInstances/scan")["try_number"]
    assert tried == 1
    assert "scan failed" in platform.airflow.log(RECONCILE, run_id, "report")
    assert platform.images.rows() == before
    assert writer_runs(platform)


@pytest.mark.drill("empty-answers", "held")
def test_too_much_missing_is_held_at_once_and_asked_with_its_likely_cause(platform, enabled):
    platform.images.lose(30)
    before = platform.images.rows()
    run_id = platform.airflow.trigger(RECONCILE, dry_run=False)
    platform.wait_for_question(run_id, RECONCILE)
    assert platform.writer("storage").stands
    assert platform.writer().runs
    question = platform.airflow.call("GET", f"/dags/{RECONCILE}/dagRuns/{run_id}/taskInstances/decide/-1/hitlDetails")
    assert "**30** images whose original object is proven to be absent" in question["body"]
    assert "(`missing_original`" in question["body"]
    assert "other images are there, so bucket and endpoint are right" in question["body"]
    platform.airflow.answer(RECONCILE, run_id, "Resume without repair")
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    assert result(platform, RECONCILE, run_id, "report")["updated"] == 0
    assert platform.images.rows() == before
    assert writer_runs(platform)


def test_sync_tells_and_with_the_switch_marks(platform, enabled):
    lost = platform.images.lose(1, staged=1)
    before = platform.images.rows()
    run_id, state = platform.airflow.run(SYNC)
    assert state == "success"
    found = result(platform, SYNC, run_id, "sync")
    assert (found["missing_original"], found["missing_staged"], found["updated"], found["dry_run"]) == (1, 1, 0, True)
    assert platform.images.rows() == before

    run_id, state = platform.airflow.run(SYNC, dry_run=False)
    assert state == "success"
    found = result(platform, SYNC, run_id, "sync")
    assert (found["updated"], found["dry_run"]) == (2, False)
    assert platform.images.marked() == lost
