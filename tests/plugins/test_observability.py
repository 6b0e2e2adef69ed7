"""What the runbook's tasks tell beside their results: metrics, lines of JSON, and the event of confirmed data."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import DownstreamTasksSkipped, TaskAwaitingInput
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.sdk.observability import stats

from include.api.errors import FixConfiguration
from include.confidence.outcome import Evidence
from include.simulators.repairshopr import Fault, Mutation
from include.warehouse.fence import Writer
from plugins import assets
from plugins.operators.report import STEPS, RunFailed
from plugins.operators.sync import SyncOperator
from tests.plugins.conftest import SOURCE, Run, answer, entities, execute, live_lines, skipped

LINES = f"sync_confidence.{SOURCE}.line_items"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """The metrics that were sent; of a timer only that there was one."""
    found: dict[str, float | None] = {}

    @contextmanager
    def timer(name: str) -> Iterator[None]:
        try:
            yield
        finally:
            found[name] = None

    monkeypatch.setattr(stats, "gauge", found.__setitem__)
    monkeypatch.setattr(stats, "timer", timer)
    return found


def lose(conn, count: int = 2) -> None:
    """Lines that the copy lacks."""
    conn.execute("DELETE FROM repairshopr.line_items WHERE id = ANY (%s)", [sorted(live_lines(conn))[:count]])


def scanned(**conf: Any) -> Run:
    """A run, up to its scans."""
    run = Run(conf=conf or None)
    execute(run, "stop_writer")
    execute(run, "scan")
    return run


def reported(run: Run, **states: str) -> Run:
    """The run, resumed and reported; `states` are those of the steps that did not succeed."""
    execute(run, "resume_writer")
    run.states = dict.fromkeys(STEPS, "success") | states
    execute(run, "report")
    return run


NOTHING_TO_DO = dict.fromkeys(("decide", "reconcile", "verify"), "skipped")


def in_step() -> Run:
    """A run that finds nothing to do."""
    run = scanned()
    skipped(run, "gate_check")
    return reported(run, **NOTHING_TO_DO)


def repaired() -> Run:
    """A run that repairs."""
    run = scanned(dry_run=False)
    skipped(run, "gate_check")
    execute(run, "reconcile")
    execute(run, "verify")
    return reported(run, decide="skipped")


def dry() -> Run:
    """A run that only plans."""
    run = scanned()
    skipped(run, "gate_check")
    skipped(run, "reconcile")
    return reported(run, decide="skipped", verify="skipped")


def events(run: Run) -> list[tuple[Asset, dict[str, Any]]]:
    """The events that Airflow creates after `report`: the asset, and what the event says."""
    added = run.context["outlet_events"][assets.outlet(SOURCE)].asset_alias_events
    return [(event.dest_asset_key.to_asset(), event.extra) for event in added]


class TestMetrics:
    def test_of_a_night_that_repairs(self, airflow, filled, conn, sent):
        lose(conn)
        left = len(live_lines(conn))
        repaired()
        assert sent[f"{LINES}.scan.api_unique_not_in_db"] == sent[f"{LINES}.scan.planned_insert"] == 2
        assert sent[f"{LINES}.scan.live_rows"] == left
        assert sent[f"{LINES}.repair.inserted"] == 2
        assert sent[f"sync_confidence.{SOURCE}.verify.worse"] == 0
        assert sent[f"sync_confidence.{SOURCE}.writer.stopped"] == 0
        assert 0 < sent[f"sync_confidence.{SOURCE}.writer.stopped_seconds"] < 60
        timers = {name for name, value in sent.items() if value is None}
        scans = {f"sync_confidence.{SOURCE}.{entity}.scan.duration" for entity in entities()}
        assert timers == scans | {f"sync_confidence.{SOURCE}.{step}.duration" for step in ("repair", "verify")}

    def test_verdict_is_a_number_for_each_entity(self, airflow, filled, conn, sent, asked):
        in_step()
        assert {sent[f"sync_confidence.{SOURCE}.{entity}.verdict"] for entity in entities()} == {0}
        filled.mutate(*(Mutation("delete", "line_items", id_, silent=True) for id_ in sorted(live_lines(conn))[:30]))
        execute(scanned(), "gate_check")
        assert sent[f"{LINES}.verdict"] == 2

    def test_that_was_not_measured_is_not_sent(self, airflow, filled, sent):
        scanned(page_end=1, compute_db_not_in_api=False)
        assert f"{LINES}.scan.api_unique_not_in_db" in sent
        assert f"{LINES}.scan.db_not_in_api_unique" not in sent

    def test_failed_scan_took_its_time_too(self, airflow, filled, sent):
        filled.fault(Fault("status", resource="customers", status=401, times=None))
        with pytest.raises(FixConfiguration):
            scanned()
        assert set(sent) == {f"sync_confidence.{SOURCE}.customers.scan.duration"}


class TestLines:
    @pytest.fixture
    def told(self, caplog) -> Callable[[], list[dict]]:
        """The lines of JSON so far, in their order."""
        caplog.set_level(logging.INFO)

        def lines() -> list[dict]:
            texts = [record.getMessage() for record in caplog.records]
            return [json.loads(text) for text in texts if text.startswith('{"')]

        return lines

    def test_each_step_has_one(self, airflow, filled, conn, told):
        lose(conn)
        run = repaired()
        lines = [line for line in told() if line["event"] not in ("scan_progress", "health")]
        assert {(line["source"], line["run"]) for line in lines} == {(SOURCE, run.name)}
        scans = ["forensic_summary"] * len(entities())
        assert [line["event"] for line in lines] == ["stop", *scans, "gate", "repair", "verify", "resume", "report"]
        found = {line["event"]: line for line in lines}
        assert (found["gate"]["verdict"], found["gate"]["drift"], found["gate"]["hold"]) == ("pass", 2, None)
        assert found["repair"]["counts"]["line_items"]["inserted"] == 2
        assert (
            found["repair"]["sync_id"]
            == found["verify"]["sync_id"]
            == run.xcoms["reconcile"]["return_value"][0]["sync_id"]
        )
        assert (found["repair"]["dry_run"], found["verify"]["worse"]) == (False, 0)
        assert found["resume"]["stopped_seconds"] > 0

    def test_dry_run_says_what_it_would_do(self, airflow, filled, conn, told):
        lose(conn)
        dry()
        [line] = [line for line in told() if line["event"] == "repair"]
        assert (line["dry_run"], line["sync_id"]) == (True, None)
        assert line["counts"]["line_items"] == {"insert": 2, "update": 0, "delete": 0}

    def test_sync_has_one(self, filled, told):
        run = Run(dag_id=f"{SOURCE}_sync", params={"mode": "full"})
        result = run.execute(SyncOperator(task_id="sync", source=SOURCE))
        [line] = [line for line in told() if line["event"] == "sync"]
        assert line == {"event": "sync", "source": SOURCE, "run": run.name, "dry_run": False, **result}


class TestConfirmed:
    def test_nothing_drifted(self, airflow, filled, conn):
        run = in_step()
        [(asset, extra)] = events(run)
        assert asset == assets.confirmed(SOURCE)
        assert (extra["source"], extra["run"], extra["verdict"], extra["sync_id"]) == (SOURCE, run.name, "pass", None)
        assert set(extra["entities"]) == set(entities())
        lines = extra["entities"]["line_items"]
        assert (lines["scope"], lines["live_rows"], lines["api_unique_not_in_db"]) == ("all", len(live_lines(conn)), 0)
        assert len(json.dumps(extra)) < 8192

    def test_repaired_and_verified(self, airflow, filled, conn):
        lose(conn)
        run = repaired()
        [(_, extra)] = events(run)
        assert extra["sync_id"] == run.xcoms["reconcile"]["return_value"][0]["sync_id"]
        assert extra["entities"]["line_items"]["planned_insert"] == 2

    def test_not_by_a_dry_run_over_drift(self, airflow, filled, conn, caplog):
        lose(conn)
        caplog.set_level(logging.INFO)
        assert events(dry()) == []
        assert f"no event of {SOURCE}_confirmed: 2 planned changes were not applied" in caplog.text

    def test_not_by_the_repair_of_an_attempt_before(self, airflow, filled, conn):
        """Its result stays where the step is skipped the next time."""
        lose(conn)
        run = repaired()
        run.context["outlet_events"] = OutletEventAccessors()
        lose(conn)
        execute(run, "stop_writer")
        execute(run, "scan")
        skipped(run, "gate_check")
        with pytest.raises(RunFailed, match="2 planned changes were to be applied"):
            reported(run, decide="skipped", reconcile="skipped", verify="skipped")
        assert events(run) == []

    def test_not_by_a_part(self, airflow, filled, caplog):
        caplog.set_level(logging.INFO)
        run = scanned(page_end=1, compute_db_not_in_api=False)
        skipped(run, "gate_check")
        assert events(reported(run, **NOTHING_TO_DO)) == []
        assert "only a part was looked at (compute_db_not_in_api, page_end)" in caplog.text

    def test_not_by_a_run_that_failed(self, airflow, filled):
        run = scanned()
        skipped(run, "gate_check")
        execute(run, "resume_writer")
        run.states = dict.fromkeys(STEPS, "success") | {"verify": "failed"}
        with pytest.raises(RunFailed):
            execute(run, "report")
        assert events(run) == []

    @pytest.mark.parametrize(("option", "confirmed"), [("Resume without repair", 0), ("Repair, then resume", 1)])
    def test_after_a_hold_by_its_repair_only(self, airflow, filled, conn, asked, option, confirmed):
        filled.mutate(*(Mutation("delete", "line_items", id_, silent=True) for id_ in sorted(live_lines(conn))[:30]))
        run = scanned()
        execute(run, "gate_check")
        with pytest.raises(TaskAwaitingInput):
            execute(run, "decide")
        if confirmed:
            answer(run, option)
            execute(run, "reconcile")
            execute(run, "verify")
            reported(run)
        else:
            with pytest.raises(DownstreamTasksSkipped):
                answer(run, option)
            reported(run, reconcile="skipped", verify="skipped")
        assert len(events(run)) == confirmed


@pytest.mark.parametrize(("name", "reason"), [("progress_every", ""), ("limit", "only a part was looked at (limit)")])
def test_only_params_that_narrow_raise_a_doubt(name, reason):
    run = Run(params={name: 1}, conf={name: 2})
    writer = Writer(SOURCE, "running", 1, run.name, datetime.now(UTC), None)
    assert assets.doubt(run.context, Evidence(run.name, writer, (), ())) == reason
