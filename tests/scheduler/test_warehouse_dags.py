"""The DAGs that work on the warehouse as a whole: migrate, rebuild, rollback."""

from include.simulators.repairshopr import Mutation
from include.sources import REGISTRY
from tests.house import SYNC, House

ROLLBACK = "warehouse_rollback"


def cities(house: House) -> list[tuple]:
    return house.query("SELECT id, city, deleted_at, sync_id FROM repairshopr.customers ORDER BY id")


def test_migrate_says_the_revision(house):
    run_id, state = house.airflow.run("warehouse_migrate")
    assert state == "success"
    ((revision,),) = house.query("SELECT version_num FROM confidence.alembic_version")
    assert house.airflow.xcom("warehouse_migrate", run_id, "migrate") == revision


def test_rebuild_goes_its_five_steps_on_an_empty_warehouse(house):
    house.execute(f"DROP SCHEMA {', '.join(REGISTRY)}, confidence, staging CASCADE")
    run_id, state = house.airflow.run("warehouse_rebuild", timeout=300, source="repairshopr")
    assert state == "success"
    assert list(house.airflow.tasks("warehouse_rebuild", run_id).values()) == ["success"] * 5
    assert house.in_step()
    assert house.in_step("customers")
    assert house.query("SELECT count(DISTINCT run), max(verdict) FROM confidence.forensic_run") == [(2, "pass")]
    assert house.writer().runs


def test_rollback_previews_undoes_and_can_be_undone(house):
    before = cities(house)
    customer = house.shop.ids("customers")[0]
    house.shop.mutate(Mutation("update", "customers", customer, {"city": "Elsewhere"}))
    sync_run, _ = house.airflow.run(SYNC)
    after = cities(house)
    assert after != before
    sync_id = house.airflow.xcom(SYNC, sync_run, "sync")["sync_id"]

    _, state = house.airflow.run(ROLLBACK, sync_id=sync_id, reason="preview")
    assert state == "success"
    assert cities(house) == after

    run_id, state = house.airflow.run(ROLLBACK, sync_id=sync_id, reason="wrong city", dry_run=False)
    assert state == "success"
    assert cities(house) == before
    undo = house.airflow.xcom(ROLLBACK, run_id, "rollback")["sync_id"]
    assert house.query("SELECT kind, undoes, reason FROM confidence.sync_log WHERE sync_id = %s", undo) == [
        ("rollback", sync_id, "wrong city")
    ]

    _, state = house.airflow.run(ROLLBACK, sync_id=undo, reason="it was right", dry_run=False)
    assert state == "success"
    assert cities(house) == after


def test_rollback_of_what_came_before_a_later_sync_is_refused_by_name(house):
    customer = house.shop.ids("customers")[0]
    syncs = []
    for city in ("One", "Two"):
        house.shop.mutate(Mutation("update", "customers", customer, {"city": city}))
        run_id, _ = house.airflow.run(SYNC)
        syncs.append(house.airflow.xcom(SYNC, run_id, "sync")["sync_id"])
    run_id, state = house.airflow.run(ROLLBACK, sync_id=syncs[0], reason="test", dry_run=False)
    assert state == "failed"
    assert f"by sync_id {syncs[1]} (such as {customer})" in house.airflow.log(ROLLBACK, run_id, "rollback")
