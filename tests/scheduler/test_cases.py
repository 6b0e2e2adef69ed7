"""Every row of the case table: what happened, what was repaired, what the writer does afterwards, how the run ends."""

import json
from urllib.parse import unquote

import pytest
import requests

from include.simulators.repairshopr import Fault
from tests.house import RECONCILE, SOURCE, SYNC, House

TRIGGER = """
CREATE FUNCTION repairshopr.sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
CREATE TRIGGER sabotage BEFORE INSERT ON repairshopr.line_items FOR EACH ROW EXECUTE FUNCTION repairshopr.sabotage();
"""


@pytest.fixture
def sabotage(house):
    """Something in the warehouse that spoils inserts of line items."""

    def spoil(body):
        house.execute(TRIGGER.format(body=body))

    yield spoil
    house.execute("DROP FUNCTION IF EXISTS repairshopr.sabotage CASCADE")


def report(house: House, run_id: str) -> str:
    return house.airflow.log(RECONCILE, run_id, "report")


def confirmed(house: House, run_id: str) -> list[dict]:
    """What the events of the source's asset say that came from the run."""
    found = house.airflow.call("GET", "/assets/events", params={"source_dag_id": RECONCILE, "source_run_id": run_id})
    assert {(event["name"], event["source_task_id"]) for event in found["asset_events"]} <= {
        (f"{SOURCE}_confirmed", "report")
    }
    return [event["extra"] for event in found["asset_events"]]


def test_nothing_drifted_costs_no_avoidable_task(house):
    run_id, state = house.reconcile(dry_run=False)
    assert state == "success"
    assert house.steps(run_id) == {
        "stop_writer": "success",
        "scan": "success",
        "gate_check": "success",
        "decide": "skipped",
        "reconcile": "skipped",
        "verify": "skipped",
        "resume_writer": "success",
        "report": "success",
    }
    assert house.writer().runs
    assert house.service.told == []
    summary = house.airflow.xcom(RECONCILE, run_id, "scan", "forensic_summary", map_index=2)
    assert summary["entity"] == "line_items"
    assert summary["metrics"]["api_unique_not_in_db"] == 0
    assert len(json.dumps(summary)) < 5000
    [told] = confirmed(house, run_id)
    assert (told["source"], told["run"], told["verdict"]) == (SOURCE, f"{RECONCILE}/{run_id}", "pass")
    assert told["entities"]["line_items"]["api_unique_not_in_db"] == 0


def test_drift_on_a_dry_run_is_planned_and_not_applied(house):
    lost = house.lose(3)
    run_id, state = house.reconcile()
    assert state == "success"
    assert not set(lost) & house.live("line_items")
    assert house.steps(run_id)["reconcile"] == "success"
    assert house.steps(run_id)["verify"] == "skipped"
    assert "would get 3 inserts" in house.airflow.log(RECONCILE, run_id, "reconcile")
    assert house.writer().runs
    assert confirmed(house, run_id) == []


def test_drift_is_repaired_under_a_sync_id_and_verified(house):
    house.lose(3)
    house.remove_at_source(2)
    assert not house.in_step()
    run_id, state = house.reconcile(dry_run=False)
    assert state == "success"
    assert house.in_step()
    assert house.writer().runs
    sync_id = house.airflow.xcom(RECONCILE, run_id, "reconcile")["sync_id"]
    assert house.query(
        "SELECT kind, rows_inserted, rows_deleted FROM confidence.sync_log WHERE sync_id = %s", sync_id
    ) == [("repair", 3, 2)]
    assert house.steps(run_id)["verify"] == "success"
    [told] = confirmed(house, run_id)
    assert told["sync_id"] == sync_id
    assert house.service.told == []


def test_worse_once_warns_and_twice_holds_until_decided(house):
    house.reconcile()
    house.lose(40)
    run_id, state = house.reconcile()
    assert state == "success"
    assert house.airflow.xcom(RECONCILE, run_id, "gate_check")["verdict"] == "warn"
    assert house.writer().runs

    house.airflow.set_variable("decision_timeout_hours", "0.004")
    run_id, state = house.reconcile()
    assert state == "failed"
    assert house.airflow.xcom(RECONCILE, run_id, "gate_check")["verdict"] == "hold"
    writer = house.writer()
    assert writer.stands
    assert "api_unique_not_in_db" in writer.hold_reason
    assert "Next: " in report(house, run_id)
    assert house.service.titles == [
        "repairshopr: more drift than in the runs before",
        "repairshopr: the writer is held, please decide",
        "repairshopr: nobody has decided about the hold",
    ]


def test_failed_scan_is_no_evidence_and_the_writer_goes_on(house):
    house.shop.fault(Fault("status", resource="tickets", status=401, times=None))
    lost = house.lose(3)
    run_id, state = house.reconcile(dry_run=False)
    assert state == "failed"
    assert not set(lost) & house.live("line_items")
    assert house.writer().runs
    assert "clear scan with downstream" in report(house, run_id)
    assert confirmed(house, run_id) == []
    [message] = house.service.told
    assert message["title"] == "repairshopr: scan failed or incomplete"
    # Why it failed has come from the scan's own process.
    assert message["message"].startswith("tickets: ")


def test_failed_scan_leaves_a_held_writer_held(house):
    hold(house)
    house.shop.fault(Fault("status", resource="tickets", status=401, times=None))
    _, state = house.reconcile()
    assert state == "failed"
    assert house.writer().stands
    assert house.writer().hold_reason


def hold(house: House) -> str:
    """A hold that nobody answers: a repair of too large a share. Returns its run."""
    house.remove_at_source(60)
    house.airflow.set_variable("decision_timeout_hours", "0.003")
    run_id, state = house.reconcile()
    assert state == "failed"
    house.airflow.delete_variable("decision_timeout_hours")
    return run_id


def test_failed_repair_is_rolled_back_and_the_writer_goes_on(house, sabotage):
    lost = house.lose(3)
    house.lose(1, "tickets")
    sabotage("RAISE EXCEPTION 'disk full';")
    run_id, state = house.reconcile(dry_run=False)
    assert state == "failed"
    assert not set(lost) & house.live("line_items")
    assert not house.in_step("tickets")
    assert house.query(
        "SELECT count(*) FROM confidence.change_log c JOIN confidence.sync_log USING (sync_id) WHERE kind = 'repair'"
    ) == [(0,)]
    assert house.writer().runs
    assert "which says what was applied" in report(house, run_id)
    assert house.service.titles == ["repairshopr: repair failed"]


def test_drain_that_takes_too_long_leaves_everything_as_it_was(house):
    house.airflow.set_variable("drain_timeout_seconds", "4")
    house.shop.fault(Fault("timeout", resource="customers", seconds=25))
    sync_run = house.airflow.trigger(SYNC)
    house.airflow.wait_for(SYNC, sync_run, "sync", "running")
    run_id, state = house.reconcile()
    assert state == "failed"
    assert house.writer().runs
    assert house.steps(run_id)["scan"] == "upstream_failed"
    assert "still at work after 4 s" in house.airflow.log(RECONCILE, run_id, "stop_writer")
    assert house.airflow.wait(SYNC, sync_run) == "success"
    assert house.service.titles == ["repairshopr: the writer did not come to rest in time"]


def test_warehouse_out_of_reach_at_the_end_leaves_the_writer_stopped(house):
    run_id = house.airflow.trigger(RECONCILE)
    # Each step tries three times, so only the last ones are to meet with it.
    house.airflow.wait_for(RECONCILE, run_id, "gate_check", "scheduled", "queued", "running", "success")
    name = house.stack.warehouse_url.rsplit("/", 1)[1].split("?")[0]
    with house.maintenance() as conn:
        conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            assert house.airflow.wait(RECONCILE, run_id, timeout=200) == "failed"
        finally:
            conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert house.writer().stands
    assert house.service.titles == ["repairshopr: warehouse or Airflow API not to be reached at the end of a run"]
    house.airflow.clear(RECONCILE, run_id, "resume_writer")
    assert house.airflow.wait(RECONCILE, run_id) == "failed"
    assert house.writer().runs


def test_repair_that_made_it_worse_holds_the_writer_and_names_the_sync_id(house, sabotage):
    house.lose(3)
    sabotage("NEW.name := 'mangled'; RETURN NEW;")
    run_id, state = house.reconcile(dry_run=False)
    assert state == "failed"
    sync_id = house.airflow.xcom(RECONCILE, run_id, "reconcile")["sync_id"]
    writer = house.writer()
    assert writer.stands
    assert f"sync_id {sync_id}" in writer.hold_reason
    assert f"sync_id {sync_id}" in house.airflow.log(RECONCILE, run_id, "verify")
    [message] = house.service.told
    assert message["title"] == "repairshopr: the repair made it worse"
    assert f"sync_id {sync_id}" in message["message"]


def test_hold_ends_when_a_later_run_has_recovered(house):
    hold(house)
    house.execute(
        "UPDATE repairshopr.line_items SET deleted_at = now() WHERE id <> ALL (%s)", house.shop.ids("line_items")
    )
    _, state = house.reconcile()
    assert state == "success"
    assert house.writer().runs


@pytest.mark.parametrize(
    ("option", "state", "runs", "repaired"),
    [
        ("Keep stopped", "failed", False, False),
        ("Resume without repair", "success", True, False),
        ("Repair, then resume", "success", True, True),
    ],
)
def test_each_answer_to_a_hold(house, option, state, runs, repaired):
    gone = house.remove_at_source(60)
    run_id = house.airflow.trigger(RECONCILE)
    house.wait_for_question(run_id)
    assert house.writer().stands
    [message] = house.service.told
    assert requests.get(message["message"].split("\n")[-1], timeout=60).ok
    assert f"/runs/{run_id}/tasks/decide/required_actions" in unquote(message["message"])
    house.airflow.answer(RECONCILE, run_id, option)
    assert house.airflow.wait(RECONCILE, run_id) == state
    assert house.writer().runs == runs
    assert (not set(gone) & house.live("line_items")) == repaired
    ((decided_by, decision),) = house.query(
        "SELECT DISTINCT decided_by, decision FROM confidence.forensic_run WHERE decision IS NOT NULL"
    )
    assert (decided_by, decision) == ("admin", option.split()[0].rstrip(",").lower())
    assert house.service.titles == ["repairshopr: the writer is held, please decide"]


def test_kept_stopped_is_asked_anew_when_decide_is_cleared(house):
    run_id = hold(house)
    house.airflow.clear(RECONCILE, run_id, "decide")
    house.wait_for_question(run_id)
    house.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert house.airflow.wait(RECONCILE, run_id) == "success"
    assert house.in_step()
    assert house.writer().runs


def test_misspelt_param_is_refused_by_name(house):
    run_id, state = house.reconcile(dryrun=False)
    assert state == "failed"
    assert "dryrun" in house.airflow.log(RECONCILE, run_id, "stop_writer")
    assert house.writer().runs


def test_page_range_with_the_other_side_is_refused(house):
    run_id, state = house.reconcile(page_start=2)
    assert state == "failed"
    assert "untick it" in house.airflow.log(RECONCILE, run_id, "scan", map_index=0)
    assert house.writer().runs
    run_id, state = house.reconcile(page_start=2, compute_db_not_in_api=False)
    assert state == "success"


def test_reset_watermark_skips_what_changed_meanwhile(house):
    before = house.query("SELECT min(watermark) FROM confidence.sync_state")
    _, state = house.reconcile(reset_watermark=True)
    assert state == "success"
    assert house.query("SELECT min(watermark) FROM confidence.sync_state") == before
    _, state = house.reconcile(reset_watermark=True, dry_run=False)
    assert state == "success"
    assert house.query("SELECT min(watermark) FROM confidence.sync_state") > before
