"""Every row of the case table: what happened, what was repaired, what the writer does afterwards, how the run ends."""

import json
from urllib.parse import unquote, urlsplit

import pytest

from include.simulators.repairshopr import Fault
from tests.running_platform import RECONCILE, SOURCE, SYNC, Platform

TRIGGER = """
CREATE FUNCTION repairshopr.sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
CREATE TRIGGER sabotage BEFORE INSERT ON repairshopr.line_items FOR EACH ROW EXECUTE FUNCTION repairshopr.sabotage();
"""


@pytest.fixture
def sabotage(platform):
    """Something in the warehouse that spoils inserts of line items."""

    def spoil(body):
        platform.execute(TRIGGER.format(body=body))

    yield spoil
    platform.execute("DROP FUNCTION IF EXISTS repairshopr.sabotage CASCADE")


def report(platform: Platform, run_id: str) -> str:
    return platform.airflow.log(RECONCILE, run_id, "report")


def confirmed(platform: Platform, run_id: str) -> list[dict]:
    """What the events of the source's asset say that came from the run."""
    found = platform.airflow.call("GET", "/assets/events", params={"source_dag_id": RECONCILE, "source_run_id": run_id})
    assert {(event["name"], event["source_task_id"]) for event in found["asset_events"]} <= {
        (f"{SOURCE}_confirmed", "report")
    }
    return [event["extra"] for event in found["asset_events"]]


def test_nothing_drifted_costs_no_avoidable_task(platform):
    run_id, state = platform.reconcile(dry_run=False)
    assert state == "success"
    assert platform.steps(run_id) == {
        "stop_writer": "success",
        "scan": "success",
        "gate_check": "success",
        "decide": "skipped",
        "reconcile": "skipped",
        "verify": "skipped",
        "resume_writer": "success",
        "report": "success",
    }
    assert platform.writer().runs
    assert platform.service.told == []
    summary = platform.airflow.xcom(RECONCILE, run_id, "scan", "forensic_summary", map_index=2)
    assert summary["entity"] == "line_items"
    assert summary["metrics"]["api_unique_not_in_db"] == 0
    assert len(json.dumps(summary)) < 5000
    [told] = confirmed(platform, run_id)
    assert (told["source"], told["run"], told["verdict"]) == (SOURCE, f"{RECONCILE}/{run_id}", "pass")
    assert told["entities"]["line_items"]["api_unique_not_in_db"] == 0


def test_drift_on_a_dry_run_is_planned_and_not_applied(platform):
    lost = platform.lose(3)
    run_id, state = platform.reconcile()
    assert state == "success"
    assert not set(lost) & platform.live("line_items")
    assert platform.steps(run_id)["reconcile"] == "success"
    assert platform.steps(run_id)["verify"] == "skipped"
    assert "would get 3 inserts" in platform.airflow.log(RECONCILE, run_id, "reconcile")
    assert platform.writer().runs
    assert confirmed(platform, run_id) == []


def test_drift_is_repaired_under_a_sync_id_and_verified(platform):
    platform.lose(3)
    platform.remove_at_source(2)
    assert not platform.in_step()
    run_id, state = platform.reconcile(dry_run=False)
    assert state == "success"
    assert platform.in_step()
    assert platform.writer().runs
    sync_id = platform.airflow.xcom(RECONCILE, run_id, "reconcile")["sync_id"]
    assert platform.query(
        "SELECT kind, rows_inserted, rows_deleted FROM confidence.sync_log WHERE sync_id = %s", sync_id
    ) == [("repair", 3, 2)]
    assert platform.steps(run_id)["verify"] == "success"
    [told] = confirmed(platform, run_id)
    assert told["sync_id"] == sync_id
    assert platform.service.told == []


def test_worse_once_warns_and_twice_holds_until_decided(platform):
    platform.reconcile()
    platform.lose(40)
    run_id, state = platform.reconcile()
    assert state == "success"
    assert platform.airflow.xcom(RECONCILE, run_id, "gate_check")["verdict"] == "warn"
    assert platform.writer().runs

    platform.airflow.set_variable("decision_timeout_hours", "0.004")
    run_id, state = platform.reconcile()
    assert state == "failed"
    assert platform.airflow.xcom(RECONCILE, run_id, "gate_check")["verdict"] == "hold"
    writer = platform.writer()
    assert writer.stands
    assert "api_unique_not_in_db" in writer.hold_reason
    assert "Next: " in report(platform, run_id)
    assert "exc_type" not in report(platform, run_id)
    assert platform.service.titles == [
        "repairshopr: more drift than in the runs before",
        "repairshopr: the writer is held, please decide",
        "repairshopr: nobody has decided about the hold",
    ]


@pytest.mark.drill("token-revoked", "right-lost")
def test_failed_scan_is_no_evidence_and_the_writer_goes_on(platform):
    platform.shop.fault(Fault("status", resource="tickets", status=401, times=None))
    lost = platform.lose(3)
    run_id, state = platform.reconcile(dry_run=False)
    assert state == "failed"
    assert not set(lost) & platform.live("line_items")
    assert platform.writer().runs
    assert "clear scan with downstream" in report(platform, run_id)
    assert confirmed(platform, run_id) == []
    [message] = platform.service.told
    assert message["title"] == "repairshopr: scan failed or incomplete"
    # Why it failed has come from the scan's own process.
    assert message["message"].startswith("tickets: ")


@pytest.mark.drill("right-lost")
def test_failed_scan_leaves_a_held_writer_held(platform):
    hold(platform)
    platform.shop.fault(Fault("status", resource="tickets", status=401, times=None))
    _, state = platform.reconcile()
    assert state == "failed"
    assert platform.writer().stands
    assert platform.writer().hold_reason


def hold(platform: Platform) -> str:
    """A hold that nobody answers: a repair of too large a share. Returns its run."""
    platform.remove_at_source(60)
    platform.airflow.set_variable("decision_timeout_hours", "0.003")
    run_id, state = platform.reconcile()
    assert state == "failed"
    platform.airflow.delete_variable("decision_timeout_hours")
    return run_id


@pytest.mark.drill("failed-repair")
def test_failed_repair_is_rolled_back_and_the_writer_goes_on(platform, sabotage):
    lost = platform.lose(3)
    platform.lose(1, "tickets")
    sabotage("RAISE EXCEPTION 'disk full';")
    run_id, state = platform.reconcile(dry_run=False)
    assert state == "failed"
    assert not set(lost) & platform.live("line_items")
    assert not platform.in_step("tickets")
    assert platform.query(
        "SELECT count(*) FROM confidence.change_log c JOIN confidence.sync_log USING (sync_id) WHERE kind = 'repair'"
    ) == [(0,)]
    assert platform.writer().runs
    assert "which says what was applied" in report(platform, run_id)
    assert platform.service.titles == ["repairshopr: repair failed"]


@pytest.mark.drill("vendor-unreachable")
def test_drain_that_takes_too_long_leaves_everything_as_it_was(platform):
    platform.airflow.set_variable("drain_timeout_seconds", "4")
    platform.shop.fault(Fault("timeout", resource="customers", seconds=25))
    sync_run = platform.airflow.trigger(SYNC)
    platform.airflow.wait_for(SYNC, sync_run, "sync", "running")
    run_id, state = platform.reconcile()
    assert state == "failed"
    assert platform.writer().runs
    assert platform.steps(run_id)["scan"] == "upstream_failed"
    assert "still at work after 4 s" in platform.airflow.log(RECONCILE, run_id, "stop_writer")
    assert platform.airflow.wait(SYNC, sync_run) == "success"
    assert platform.service.titles == ["repairshopr: the writer did not stop in time"]


@pytest.mark.drill("warehouse-gone-at-end")
def test_warehouse_out_of_reach_at_the_end_leaves_the_writer_stopped(platform):
    # Nothing but scans may be done by then: else the run is well once the writer has been let run again.
    platform.shop.set(latency_ms=15000)
    run_id = platform.airflow.trigger(RECONCILE)
    platform.airflow.wait_for(RECONCILE, run_id, "stop_writer", "success")
    name = platform.stack.warehouse_url.rsplit("/", 1)[1].split("?")[0]
    with platform.maintenance() as conn:
        conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        platform.shop.set(latency_ms=0)
        try:
            assert platform.airflow.wait(RECONCILE, run_id, timeout=200) == "failed"
        finally:
            conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert platform.writer().stands
    assert platform.service.titles == [
        "repairshopr: the warehouse or Airflow's API could not be reached at the end of a run"
    ]
    platform.airflow.clear(RECONCILE, run_id, "resume_writer")
    assert platform.airflow.wait(RECONCILE, run_id) == "failed"
    assert platform.writer().runs


@pytest.mark.drill("worse-repair")
def test_repair_that_made_it_worse_holds_the_writer_and_names_the_sync_id(platform, sabotage):
    platform.lose(3)
    sabotage("NEW.name := 'mangled'; RETURN NEW;")
    run_id, state = platform.reconcile(dry_run=False)
    assert state == "failed"
    sync_id = platform.airflow.xcom(RECONCILE, run_id, "reconcile")["sync_id"]
    writer = platform.writer()
    assert writer.stands
    assert f"sync_id {sync_id}" in writer.hold_reason
    assert f"sync_id {sync_id}" in platform.airflow.log(RECONCILE, run_id, "verify")
    [message] = platform.service.told
    assert message["title"] == "repairshopr: the repair made the copy worse"
    assert f"sync_id {sync_id}" in message["message"]


def test_hold_ends_when_a_later_run_has_recovered(platform):
    hold(platform)
    platform.execute(
        "UPDATE repairshopr.line_items SET deleted_at = now() WHERE id <> ALL (%s)", platform.shop.ids("line_items")
    )
    _, state = platform.reconcile()
    assert state == "success"
    assert platform.writer().runs


@pytest.mark.drill("held")
@pytest.mark.parametrize(
    ("option", "state", "runs", "repaired"),
    [
        ("Keep stopped", "failed", False, False),
        ("Resume without repair", "success", True, False),
        ("Repair, then resume", "success", True, True),
    ],
)
def test_each_answer_to_a_hold(platform, option, state, runs, repaired):
    gone = platform.remove_at_source(60)
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)
    assert platform.writer().stands
    [message] = platform.service.told
    link = urlsplit(message["message"].split("\n")[-1])
    assert unquote(link.path).endswith(f"/sync-confidence/dags/{RECONCILE}/runs/{run_id}")
    assert "data-answer" in platform.airflow.page(link.path)
    platform.airflow.answer(RECONCILE, run_id, option)
    assert platform.airflow.wait(RECONCILE, run_id) == state
    assert platform.writer().runs == runs
    assert (not set(gone) & platform.live("line_items")) == repaired
    ((decided_by, decision),) = platform.query(
        "SELECT DISTINCT decided_by, decision FROM confidence.forensic_run WHERE decision IS NOT NULL"
    )
    assert (decided_by, decision) == ("admin", option.split()[0].rstrip(",").lower())
    assert platform.service.titles == ["repairshopr: the writer is held, please decide"]


@pytest.mark.drill("late-answer")
def test_kept_stopped_is_asked_anew_when_decide_is_cleared(platform):
    run_id = hold(platform)
    platform.airflow.clear(RECONCILE, run_id, "decide")
    platform.wait_for_question(run_id)
    platform.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    assert platform.in_step()
    assert platform.writer().runs


@pytest.mark.drill("misspelt-param")
def test_misspelt_param_is_refused_by_name(platform):
    run_id, state = platform.reconcile(dryrun=False)
    assert state == "failed"
    assert "dryrun" in platform.airflow.log(RECONCILE, run_id, "stop_writer")
    assert platform.writer().runs


@pytest.mark.drill("misspelt-param")
def test_page_range_with_the_other_side_is_refused(platform):
    run_id, state = platform.reconcile(page_start=2)
    assert state == "failed"
    assert "untick it" in platform.airflow.log(RECONCILE, run_id, "scan", map_index=0)
    assert platform.writer().runs
    run_id, state = platform.reconcile(page_start=2, compute_db_not_in_api=False)
    assert state == "success"


def test_reset_watermark_skips_what_changed_meanwhile(platform):
    before = platform.query("SELECT min(watermark) FROM confidence.sync_state")
    _, state = platform.reconcile(reset_watermark=True)
    assert state == "success"
    assert platform.query("SELECT min(watermark) FROM confidence.sync_state") == before
    _, state = platform.reconcile(reset_watermark=True, dry_run=False)
    assert state == "success"
    assert platform.query("SELECT min(watermark) FROM confidence.sync_state") > before
