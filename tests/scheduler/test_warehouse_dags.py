"""The DAGs that work on the warehouse as a whole: migrate, rebuild, rollback."""

import pytest

from include.simulators.repairshopr import Mutation
from include.sources import REGISTRY
from tests.running_platform import POOL, SYNC, Platform

ROLLBACK = "warehouse_rollback"


def cities(platform: Platform) -> list[tuple]:
    return platform.query("SELECT id, city, deleted_at, sync_id FROM repairshopr.customers ORDER BY id")


def test_migrate_says_the_revision_and_creates_missing_pools(platform):
    platform.airflow.set_slots(POOL, 0)
    platform.airflow.call("DELETE", "/pools/square_writer")
    run_id, state = platform.airflow.run("warehouse_migrate")
    assert state == "success"
    ((revision,),) = platform.query("SELECT version_num FROM confidence.alembic_version")
    assert platform.airflow.xcom("warehouse_migrate", run_id, "migrate") == revision
    assert platform.airflow.xcom("warehouse_migrate", run_id, "create_pools") == ["square_writer"]
    assert (platform.airflow.slots(POOL), platform.airflow.slots("square_writer")) == (0, 1)


def test_rebuild_goes_its_five_steps_on_an_empty_warehouse(platform):
    platform.execute(f"DROP SCHEMA {', '.join(REGISTRY)}, confidence, staging CASCADE")
    run_id, state = platform.airflow.run("warehouse_rebuild", timeout=300, source="repairshopr")
    assert state == "success"
    assert list(platform.airflow.tasks("warehouse_rebuild", run_id).values()) == ["success"] * 5
    assert platform.in_step()
    assert platform.in_step("customers")
    assert platform.query("SELECT count(DISTINCT run), max(verdict) FROM confidence.forensic_run") == [(2, "pass")]
    assert platform.writer().runs


def test_dry_rebuild_only_looks(platform):
    copy = cities(platform)
    run_id, state = platform.airflow.run("warehouse_rebuild", timeout=300, source="repairshopr", dry_run=True)
    assert state == "success"
    states = platform.airflow.tasks("warehouse_rebuild", run_id)
    assert {task for task, state in states.items() if state == "success"} == {"forensic_pass"}
    assert {state for task, state in states.items() if task != "forensic_pass"} == {"skipped"}
    assert cities(platform) == copy


@pytest.mark.drill("undone-by-message")
def test_rollback_previews_undoes_and_can_be_undone(platform):
    before = cities(platform)
    customer = platform.shop.ids("customers")[0]
    platform.shop.mutate(Mutation("update", "customers", customer, {"city": "Elsewhere"}))
    sync_run, _ = platform.airflow.run(SYNC)
    after = cities(platform)
    assert after != before
    sync_id = platform.airflow.xcom(SYNC, sync_run, "sync")["sync_id"]

    _, state = platform.airflow.run(ROLLBACK, sync_id=sync_id, reason="preview")
    assert state == "success"
    assert cities(platform) == after

    run_id, state = platform.airflow.run(ROLLBACK, sync_id=sync_id, reason="wrong city", dry_run=False)
    assert state == "success"
    assert cities(platform) == before
    undo = platform.airflow.xcom(ROLLBACK, run_id, "rollback")["sync_id"]
    assert platform.query("SELECT kind, undoes, reason FROM confidence.sync_log WHERE sync_id = %s", undo) == [
        ("rollback", sync_id, "wrong city")
    ]

    _, state = platform.airflow.run(ROLLBACK, sync_id=undo, reason="it was right", dry_run=False)
    assert state == "success"
    assert cities(platform) == after


@pytest.mark.drill("later-sync-in-the-way")
def test_rollback_of_what_came_before_a_later_sync_is_refused_by_name(platform):
    customer = platform.shop.ids("customers")[0]
    syncs = []
    for city in ("One", "Two"):
        platform.shop.mutate(Mutation("update", "customers", customer, {"city": city}))
        run_id, _ = platform.airflow.run(SYNC)
        syncs.append(platform.airflow.xcom(SYNC, run_id, "sync")["sync_id"])
    run_id, state = platform.airflow.run(ROLLBACK, sync_id=syncs[0], reason="test", dry_run=False)
    assert state == "failed"
    assert f"by sync_id {syncs[1]} (such as {customer})" in platform.airflow.log(ROLLBACK, run_id, "rollback")
