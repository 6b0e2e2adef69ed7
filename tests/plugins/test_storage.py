"""The runbook's tasks with a source whose copy is another database, and is written behind a switch only."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, TaskAwaitingInput

from include.api.errors import FixConfiguration
from include.confidence.summary import UnusableSummary
from include.simulators.storage import Fault
from include.sources.slices import SETTING
from include.sources.storage import slices
from include.warehouse import fence, sync_log
from include.warehouse.rollback import RollbackRefused
from plugins.operators.report import STEPS, RunFailed
from plugins.operators.rollback import RollbackOperator
from plugins.operators.scan import ScanOperator
from plugins.operators.sync import SyncOperator
from plugins.settings import NotEnabled
from tests.conftest import as_role
from tests.images import ORIGINAL, STAGED
from tests.plugins.conftest import Run, answer, execute, skipped

SOURCE = "storage"
POOL = f"{SOURCE}_writer"
SYNC = {"dry_run": True, "mode": "incremental", "batch_size": 50, "concurrency": 4}
# The keys of the images' own reconciliation, and those that it lacked.
RESULT = {
    *("checked", "missing_original", "missing_staged", "updated", "dry_run", "examples"),
    *("next_cursor", "unknown", "foreign_bucket", "ready_without_staged", "orphan_objects", "healed"),
    *("looked_at", "restorable", "unproven"),
}
NOT_ENABLED = r"^reconciliation is not enabled: .*RECONCILE_ENABLED"


@pytest.fixture
def conn(images, postgres) -> Iterator[psycopg.Connection]:
    """The warehouse of the test's images, and these, in the hand of one who may do anything."""
    url = as_role(None, images.url, postgres)
    with psycopg.connect(url, autocommit=True, options="-csearch_path=app") as connection:
        yield connection


@pytest.fixture
def enabled(monkeypatch) -> None:
    """The switch, on."""
    monkeypatch.setenv("AIRFLOW_VAR_RECONCILE_ENABLED", "1")


def a_run(run_id: str = "manual__1", *, run_type: str = "manual", **conf: Any) -> Run:
    return Run(run_id, source=SOURCE, conf=conf or None, run_type=run_type)


def judged(run: Run) -> Run:
    """The run up to its gate."""
    for task in ("stop_writer", "scan"):
        execute(run, task)
    assert skipped(run, "gate_check") == ["decide"]
    return run


def report(run: Run, **states: str) -> Any:
    run.states = dict.fromkeys(STEPS, "success") | states
    return execute(run, "report")


def result(run: Run, task: str = "report") -> dict[str, Any]:
    return run.xcoms[task]["result"][-1]


class TestSwitch:
    @pytest.mark.parametrize(
        ("conf", "run_type", "nightly"),
        [({"dry_run": False}, "manual", ""), ({"dry_run": False}, "scheduled", ""), ({}, "scheduled", "storage")],
    )
    def test_run_that_would_write_without_it_fails_at_the_start(
        self, airflow, images, conn, monkeypatch, conf, run_type, nightly
    ):
        monkeypatch.setenv("AIRFLOW_VAR_NIGHTLY_REPAIR_SOURCES", nightly)
        run = a_run(run_type=run_type, **conf)
        with pytest.raises(NotEnabled, match=NOT_ENABLED):
            execute(run, "stop_writer")
        assert airflow.calls == []
        writer = fence.read(conn, SOURCE)
        assert (writer.state, writer.epoch) == ("running", 0)

    def test_allows_the_run_to_write(self, airflow, images, enabled):
        assert execute(a_run(dry_run=False), "stop_writer") == {"epoch": 1}

    @pytest.mark.parametrize(("run_type", "nightly"), [("manual", "storage"), ("scheduled", "repairshopr")])
    def test_dry_run_needs_none(self, airflow, images, monkeypatch, run_type, nightly):
        monkeypatch.setenv("AIRFLOW_VAR_NIGHTLY_REPAIR_SOURCES", nightly)
        assert execute(a_run(run_type=run_type), "stop_writer") == {"epoch": 1}

    def test_taken_away_on_the_way_nothing_is_written(self, airflow, images, enabled, monkeypatch):
        images.lose(2)
        before = images.rows()
        run = judged(a_run(dry_run=False))
        monkeypatch.setenv("AIRFLOW_VAR_RECONCILE_ENABLED", "0")
        with pytest.raises(NotEnabled, match=NOT_ENABLED):
            execute(run, "reconcile")
        assert images.rows() == before


class TestNight:
    def test_dry_run_tells_the_plan_and_writes_nothing(self, airflow, images, caplog):
        lost = images.lose(2, staged=1)
        before = images.rows()
        run = judged(a_run())
        with caplog.at_level(logging.INFO):
            assert skipped(run, "reconcile") == ["verify"]
            execute(run, "resume_writer")
            report(run)
        assert "images would get 0 inserts, 3 updates, 0 deletes" in caplog.text
        assert images.rows() == before
        found = result(run)
        assert found.keys() == RESULT
        assert (found["missing_original"], found["missing_staged"], found["updated"]) == (2, 1, 0)
        assert found["dry_run"] is True
        assert found["examples"] == [
            {"image_id": id_, "status": "ready", "error": error} for id_, error in sorted(lost.items())
        ]
        lines = [json.loads(r.message) for r in caplog.records if r.message.startswith('{"')]
        told = {"event": "result", "source": SOURCE, "run": run.name}
        assert [line for line in lines if line["event"] == "result"] == [told | found]

    def test_repair_marks_the_images_and_a_second_one_nothing(self, airflow, images, enabled, conn):
        lost = images.lose(2, staged=1)
        before = images.rows()
        run = judged(a_run(dry_run=False))
        done = execute(run, "reconcile")
        assert done["counts"]["images"]["updated"] == 3
        assert [check for check in execute(run, "verify") if check["after"] > check["before"]] == []
        execute(run, "resume_writer")
        report(run, decide="skipped")
        assert images.marked() == lost
        assert {id_: row for id_, row in images.rows().items() if row != before[id_]}.keys() == lost.keys()
        assert (result(run)["updated"], result(run)["dry_run"]) == (3, False)
        assert not fence.read(conn, SOURCE).stopped
        assert airflow.pools[POOL]["slots"] == 1

        again = a_run("manual__2", dry_run=False)
        for task in ("stop_writer", "scan"):
            execute(again, task)
        assert skipped(again, "gate_check") == ["decide", "reconcile", "verify"]
        execute(again, "resume_writer")
        report(again)
        assert (result(again)["updated"], result(again)["missing_original"]) == (0, 0)

    def test_scheduled_run_repairs_where_the_setting_and_the_switch_say_so(self, airflow, images, enabled, monkeypatch):
        monkeypatch.setenv("AIRFLOW_VAR_NIGHTLY_REPAIR_SOURCES", "storage")
        lost = images.lose(2)
        run = judged(a_run("scheduled__1", run_type="scheduled"))
        execute(run, "reconcile")
        assert images.marked() == lost

    def test_object_that_is_back_after_the_repair_holds_the_writer(self, airflow, images, enabled, conn):
        there = images.control.keys()
        images.lose(2)
        run = judged(a_run(dry_run=False))
        sync_id = execute(run, "reconcile")["sync_id"]
        images.control.put(there)
        with pytest.raises(AirflowFailException, match=rf"worse than the scan found it.*sync_id {sync_id}"):
            execute(run, "verify")
        assert f"sync_id {sync_id}" in fence.read(conn, SOURCE).hold_reason

    @pytest.mark.parametrize(("dry_run", "moved"), [(True, []), (False, [""])])
    def test_resume_resets_the_watermarks_on_order_only(self, airflow, images, enabled, conn, dry_run, moved):
        """Of those that are there: a check that was never made keeps all that it has to read."""
        long_ago = datetime(2025, 1, 1, tzinfo=UTC)
        sync_id = sync_log.begin(conn, SOURCE, "sync", "storage_sync/1")
        sync_log.advance(conn, sync_id, SOURCE, "images", watermark=long_ago)
        run = a_run(reset_watermark=True, dry_run=dry_run)
        execute(run, "stop_writer")
        execute(run, "scan")
        skipped(run, "gate_check")
        execute(run, "resume_writer")
        watermarks = {p: sync_log.state(conn, SOURCE, "images", p).watermark for p in ("", "dry run")}
        assert [p for p, watermark in watermarks.items() if watermark not in (None, long_ago)] == moved


class TestScan:
    def test_leaves_one_summary_for_the_gate(self, airflow, images):
        run = a_run()
        execute(run, "stop_writer")
        execute(run, "scan")
        [summary] = run.xcoms["scan"]["forensic_summary"]
        assert (summary["entity"], summary["metrics"]["missing_original"], summary["incomplete"]) == ("images", 0, "")
        assert len(json.dumps(summary)) < 4096

    def test_that_may_look_at_nothing_fails_and_leaves_no_evidence(self, airflow, images, conn):
        images.lose(1)
        before = images.rows()
        images.control.fault(Fault("status", operation="head", status=403, times=None))
        run = a_run()
        execute(run, "stop_writer")
        with pytest.raises(FixConfiguration, match=r"answered 403: .*Check the rights of the keys"):
            execute(run, "scan")
        with pytest.raises(UnusableSummary, match=r"missing: images.*Clear scan"):
            execute(run, "gate_check")
        execute(run, "resume_writer")
        with pytest.raises(RunFailed, match=r"^scan failed; writer .* is running\. Next: nothing was"):
            report(run, scan="failed", gate_check="upstream_failed")
        assert images.rows() == before
        assert conn.execute("SELECT FROM confidence.forensic_run").fetchall() == []

    def test_is_evidence_once_it_is_tried_again_with_success(self, airflow, images):
        images.lose(1)
        images.control.fault(Fault("status", operation="head", status=403, times=None))
        run = a_run()
        execute(run, "stop_writer")
        with pytest.raises(FixConfiguration):
            execute(run, "scan")
        images.control.clear()
        execute(run, "scan")
        [summary] = run.xcoms["scan"]["forensic_summary"]
        assert summary["incomplete"] == ""
        assert skipped(run, "gate_check")[0] == "decide"

    def test_that_failed_before_it_saw_anything_leaves_no_result(self, airflow, images):
        run = a_run()
        with pytest.raises(RunFailed, match="stop_writer failed"):
            report(run, stop_writer="failed")
        assert "result" not in run.xcoms.get("report", {})


class TestSlices:
    """One scan by two tasks: slice 0 judges, the other one helps."""

    @pytest.fixture
    def night(self, airflow, images, monkeypatch) -> Run:
        monkeypatch.setenv(SETTING, "2")
        monkeypatch.setattr(slices, "PATIENCE", timedelta(0))
        images.lose(2)
        run = a_run()
        execute(run, "stop_writer")
        return run

    @staticmethod
    def scan(run: Run, slice_number: int) -> None:
        run.execute(ScanOperator(task_id="scan", source=SOURCE, entity="images", slice_number=slice_number))

    def test_only_the_one_that_judges_leaves_a_summary(self, night, caplog):
        with caplog.at_level(logging.INFO):
            self.scan(night, 1)
        assert "slice 1: 0 pages read. Slice 0 judges the scan; this one has no summary" in caplog.text
        assert "scan" not in night.xcoms
        self.scan(night, 0)
        [summary] = night.xcoms["scan"]["forensic_summary"]
        assert (summary["metrics"]["missing_original"], summary["incomplete"]) == (2, "")

    def test_the_other_after_it_or_cleared_alone_changes_nothing(self, night, conn):
        self.scan(night, 0)
        kept = conn.execute("SELECT to_jsonb(f) FROM confidence.forensic_run f").fetchall()
        self.scan(night, 1)
        assert conn.execute("SELECT to_jsonb(f) FROM confidence.forensic_run f").fetchall() == kept
        assert skipped(night, "gate_check") == ["decide"]

    def test_judge_that_a_person_has_marked_is_no_evidence(self, night, conn):
        self.scan(night, 1)
        with pytest.raises(UnusableSummary, match=r"missing: images.*Clear scan"):
            execute(night, "gate_check")
        execute(night, "resume_writer")
        with pytest.raises(RunFailed, match=r"^gate_check failed"):
            report(night, gate_check="failed")
        assert conn.execute("SELECT FROM confidence.forensic_run").fetchall() == []

    def test_none_reads_once_the_writer_runs(self, night, images):
        execute(night, "resume_writer")
        images.control.reset_counters()
        with pytest.raises(fence.FenceError, match="clear stop_writer with downstream"):
            self.scan(night, 1)
        assert images.control.counters().total("list") == 0


class TestHold:
    @pytest.fixture
    def held(self, airflow, images, asked) -> Run:
        """A dry run that misses too much, up to the question."""
        images.lose(10)
        run = a_run()
        execute(run, "stop_writer")
        execute(run, "scan")
        assert execute(run, "gate_check")["verdict"] == "hold"
        with pytest.raises(TaskAwaitingInput):
            execute(run, "decide")
        return run

    def test_asks_with_what_it_most_likely_means(self, held, asked):
        [question] = asked
        sentence = "images whose original object is proven to be absent"
        assert f"**10** {sentence} (`missing_original`; up to 5 " in question["body"]
        assert ". The originals of 85 other images are there, so bucket and endpoint are right:" in question["body"]
        assert "endpoint_url" not in question["body"]

    def test_repair_that_a_person_decided_needs_the_switch(self, held, images):
        before = images.rows()
        assert answer(held, "Repair, then resume")["decision"] == "repair"
        with pytest.raises(NotEnabled, match=NOT_ENABLED):
            execute(held, "reconcile")
        assert images.rows() == before
        execute(held, "resume_writer")
        with pytest.raises(RunFailed, match=r"^reconcile failed"):
            report(held, reconcile="failed", verify="upstream_failed")
        assert (result(held)["updated"], result(held)["missing_original"]) == (0, 10)

    def test_repair_that_a_person_decided_is_applied_although_the_run_is_dry(self, held, images, enabled):
        answer(held, "Repair, then resume")
        assert execute(held, "reconcile")["counts"]["images"]["updated"] == 10
        execute(held, "verify")
        execute(held, "resume_writer")
        report(held)
        assert (result(held)["updated"], result(held)["dry_run"]) == (10, False)
        assert set(images.marked().values()) == {ORIGINAL}


class TestSync:
    def sync(self, **conf: Any) -> Run:
        run = Run(source=SOURCE, dag_id="storage_sync", params=SYNC, conf=conf or None)
        run.execute(SyncOperator(task_id="sync", source=SOURCE))
        return run

    def test_without_the_switch_fails_at_the_start(self, images, conn):
        images.lose(2)
        before = images.rows()
        with pytest.raises(NotEnabled, match=NOT_ENABLED):
            self.sync(dry_run=False)
        assert images.rows() == before
        assert conn.execute("SELECT count(*) FROM confidence.sync_log").fetchone() == (0,)

    def test_dry_one_needs_none_and_only_tells(self, images):
        images.lose(2)
        before = images.rows()
        found = result(self.sync(), "sync")
        assert found.keys() == RESULT
        assert (found["missing_original"], found["updated"], found["dry_run"]) == (2, 0, True)
        assert images.rows() == before

    def test_marks_what_is_missing_and_then_nothing(self, images, enabled):
        lost = images.lose(1, staged=1)
        self.sync()
        run = self.sync(dry_run=False)
        assert (result(run, "sync")["updated"], result(run, "sync")["dry_run"]) == (2, False)
        assert run.xcoms["sync"]["return_value"][0]["counts"]["images"]["updated"] == 2
        assert images.marked() == lost
        assert set(lost.values()) == {ORIGINAL, STAGED}
        assert result(self.sync(dry_run=False, mode="full"), "sync")["updated"] == 0

    def test_waits_while_the_writer_is_stopped(self, airflow, images):
        execute(a_run(), "stop_writer")
        with pytest.raises(AirflowRescheduleException):
            self.sync()


class TestRollback:
    def roll_back(self, sync_id: int, **params: Any) -> Any:
        known = {"sync_id": sync_id, "reason": "a test", "dry_run": True, "force": False}
        run = Run(dag_id="warehouse_rollback", params=known | params)
        return run.execute(RollbackOperator(task_id="rollback"))

    @pytest.fixture
    def repaired(self, airflow, images, enabled) -> tuple[int, dict]:
        """The sync_id of a repair, and the images as they were before it."""
        images.lose(2, staged=1)
        before = images.rows()
        run = judged(a_run(dry_run=False))
        sync_id = execute(run, "reconcile")["sync_id"]
        execute(run, "resume_writer")
        return sync_id, before

    def test_dry_run_counts_and_the_real_one_gives_the_very_rows_back(self, repaired, images):
        sync_id, before = repaired
        after = images.rows()
        assert after != before
        told = self.roll_back(sync_id)
        assert (told["sync_id"], told["tables"]["images"]["updated"]) == (None, 3)
        assert images.rows() == after
        done = self.roll_back(sync_id, dry_run=False)
        assert done["tables"] == told["tables"]
        assert images.rows() == before
        self.roll_back(done["sync_id"], dry_run=False)
        assert images.rows() == after

    def test_image_that_the_application_changed_since_is_named(self, repaired, images):
        sync_id, before = repaired
        id_ = min(images.marked())
        images.change("UPDATE images SET status = 'queued', error = NULL, updated_at = now() WHERE id = %s", id_)
        with pytest.raises(RollbackRefused, match=rf"1 of images by the application \(such as {id_}\)"):
            self.roll_back(sync_id, dry_run=False)
        assert len(images.marked()) == 2
        self.roll_back(sync_id, dry_run=False, force=True)
        assert images.rows() == before
