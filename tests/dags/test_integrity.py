"""Every DAG as Airflow loads it: its names, its params, its order. Parsing reaches for nothing."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from itertools import groupby, islice, pairwise
from types import SimpleNamespace

import pytest
import sqlalchemy
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.task.trigger_rule import TriggerRule
from croniter import croniter

from include.sources import REGISTRY, get_source, slices
from plugins.assets import FILTERS, confirmed, outlet
from plugins.deadline import stopped_too_long
from plugins.failures import DEFAULT_ARGS, FAILS_AT_ONCE
from plugins.hooks.airflow_api import declared_pools
from stack.settings import REPOSITORY

DAG_IDS = {
    *(f"{source}_{job}" for source in REGISTRY for job in ("sync", "reconcile")),
    "confidence_retention",
    "confidence_watch",
    "warehouse_migrate",
    "warehouse_rebuild",
    "warehouse_rollback",
}
# The whole vocabulary: a DAG is found by its source and by its kind.
TAGS = {*REGISTRY, "sync", "reconcile", "warehouse", "confidence", "retention", "watch"}
# How trigger forms are grouped. What says what is done has no section: Airflow opens it, and all others on a click.
SECTIONS = (None, FILTERS, "How it works", "The writer afterwards")
PARSE_SECONDS = 0.3

# What changes rows by repair: wherever one of these runs, a run without params changes nothing. So does the sync of a
# source whose copy is changed behind a switch only.
REPAIRING = {"ReconcileOperator", "RollbackOperator"}

# The runbook: each task with those that wait for it.
RUNBOOK = {
    "stop_writer": {"scan", "resume_writer"},
    "scan": {"gate_check"},
    "gate_check": {"decide"},
    "decide": {"reconcile"},
    "reconcile": {"verify"},
    "verify": {"resume_writer", "report"},
    "resume_writer": {"report"},
    "report": set(),
}
REBUILD = ["migrate", "bootstrap_sync", "forensic_pass", "resume", "second_forensic_pass"]


def refused(*_: object) -> None:
    raise AssertionError("a DAG file reached for a database or the network while it was parsed")


@pytest.fixture(scope="module")
def bag() -> Iterator[DagBag]:
    """All DAGs, parsed twice: the second time tells what a file costs beyond its imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlalchemy.engine.Engine, "connect", refused)
        patch.setattr(socket.socket, "connect", refused)
        DagBag(REPOSITORY / "dags")
        return DagBag(REPOSITORY / "dags")


def tasks(dag: DAG) -> list:
    return list(dag.topological_sort())


def kind(task: object) -> str:
    """The operator's class name, of a mapped task the one that it maps."""
    return task.operator_class.__name__ if isinstance(task, MappedOperator) else type(task).__name__


def links(task: object) -> set[str]:
    return {link.name for link in task.operator_extra_links}


def test_dag_ids_are_the_contracts(bag):
    assert bag.import_errors == {}
    assert set(bag.dags) == DAG_IDS


def test_files_parse_quickly(bag, record_property):
    seconds = {stat.file: stat.duration.total_seconds() for stat in bag.dagbag_stats}
    record_property("parse_seconds", seconds)
    print("parse seconds beyond shared imports:", seconds)
    assert len(seconds) == len(DAG_IDS)
    assert {file: spent for file, spent in seconds.items() if spent >= PARSE_SECONDS} == {}


@pytest.mark.parametrize("dag_id", sorted(DAG_IDS))
class TestEveryDag:
    def test_tags_are_of_the_vocabulary(self, bag, dag_id):
        tags = set(bag.dags[dag_id].tags)
        assert tags <= TAGS
        expected = {"warehouse"} if dag_id.startswith("warehouse_") else set(dag_id.rsplit("_", 1))
        assert tags == expected

    def test_every_task_is_retried_as_declared(self, bag, dag_id):
        dag = bag.dags[dag_id]
        assert dag.default_args == DEFAULT_ARGS
        for task in tasks(dag):
            # A task may refuse to be retried; the doubling is kept as True or as its factor.
            assert task.retries in (0, DEFAULT_ARGS["retries"])
            assert task.retry_exponential_backoff in (True, 2)
            for name in set(DEFAULT_ARGS) - {"retries", "retry_exponential_backoff"}:
                assert getattr(task, name) == DEFAULT_ARGS[name]

    def test_runs_never_overlap_nor_catch_up(self, bag, dag_id):
        dag = bag.dags[dag_id]
        assert (dag.max_active_runs, dag.catchup, dag.is_paused_upon_creation) == (1, False, False)

    def test_every_param_is_titled_and_described(self, bag, dag_id):
        params = bag.dags[dag_id].params
        for name in params:
            param = params.get_param(name)
            assert param.schema.get("title"), name
            assert (param.description or "").endswith("."), name
            assert "type" in param.schema or "enum" in param.schema, name

    def test_form_is_grouped(self, bag, dag_id):
        """The groups are in order, each of them once: the form would show it twice else."""
        params = bag.dags[dag_id].params
        groups = [name for name, _ in groupby(params.get_param(each).schema.get("section") for each in params)]
        assert groups == [section for section in SECTIONS if section in groups]
        assert not groups or groups[0] is None

    def test_every_task_says_what_to_do_if_it_fails(self, bag, dag_id):
        ours = [task for task in tasks(bag.dags[dag_id]) if not dag_id.startswith("warehouse_")]
        assert [task.task_id for task in ours if "**If it fails" not in (task.doc_md or "")] == []
        of_a_source = [task for task in ours if not dag_id.startswith("confidence_")]
        assert [task.task_id for task in of_a_source if "Sync confidence" not in links(task)] == []

    def test_doc_names_every_task(self, bag, dag_id):
        dag = bag.dags[dag_id]
        assert dag.doc_md.lstrip().startswith("# ")
        assert [task.task_id for task in tasks(dag) if f"`{task.task_id}`" not in dag.doc_md] == []

    def test_what_can_repair_is_dry_by_default(self, bag, dag_id):
        dag = bag.dags[dag_id]
        repairs = {kind(task) for task in tasks(dag)} & REPAIRING
        source, _, job = dag_id.rpartition("_")
        if job == "sync" and get_source(source).switch:
            repairs = {"SyncOperator"}
        # A rebuild writes by the runs that it triggers.
        assert ("dry_run" in dag.params) == bool(repairs or dag_id == "warehouse_rebuild")
        if repairs:
            assert dag.params["dry_run"] is True
            assert dag.params.get_param("dry_run").schema["type"] == "boolean"

    def test_pools_are_declared(self, bag, dag_id):
        assert {task.pool for task in tasks(bag.dags[dag_id])} <= {"default_pool", *declared_pools()}


def test_declared_pools_are_the_writers_and_each_has_one_slot():
    assert set(declared_pools()) == {f"{source}_writer" for source in REGISTRY}
    for pool in declared_pools().values():
        assert (pool["slots"], pool["include_deferred"]) == (1, True)
        assert pool["description"]


@pytest.mark.parametrize("source", REGISTRY)
class TestSource:
    def test_writes_in_its_pool_only(self, bag, source):
        pools = {kind(task): task.pool for task in tasks(bag.dags[f"{source}_sync"])}
        assert pools.pop("SyncOperator") == f"{source}_writer"
        assert set(pools.values()) <= {"default_pool"}
        assert {task.pool for task in tasks(bag.dags[f"{source}_reconcile"])} == {"default_pool"}

    def test_sync_has_the_modes_of_a_rebuild(self, bag, source):
        assert {"full", "incremental"} <= set(bag.dags[f"{source}_sync"].params.get_param("mode").schema["enum"])

    def test_sync_is_one_task(self, bag, source):
        assert [task.task_id for task in tasks(bag.dags[f"{source}_sync"])] == ["sync"]

    def test_runbook_has_exactly_its_tasks_in_order(self, bag, source):
        dag = bag.dags[f"{source}_reconcile"]
        assert [task.task_id for task in tasks(dag)] == list(RUNBOOK)
        assert {task.task_id: task.downstream_task_ids for task in tasks(dag)} == RUNBOOK

    def test_runbook_stops_as_setup_and_resumes_as_teardown(self, bag, source):
        dag = bag.dags[f"{source}_reconcile"]
        assert [task.task_id for task in tasks(dag) if task.is_setup] == ["stop_writer"]
        assert [task.task_id for task in tasks(dag) if task.is_teardown] == ["resume_writer", "report"]
        assert dag.get_task("resume_writer").on_failure_fail_dagrun

    def test_runbook_goes_on_past_what_was_skipped_and_reports_always(self, bag, source):
        """As a teardown without a setup `report` waits for what is before it, whatever became of that."""
        dag = bag.dags[f"{source}_reconcile"]
        assert dag.get_task("gate_check").trigger_rule == TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
        assert dag.get_task("reconcile").trigger_rule == TriggerRule.NONE_FAILED
        assert dag.get_task("report").trigger_rule == TriggerRule.ALL_DONE_SETUP_SUCCESS
        assert [task.task_id for task in dag.get_task("report").upstream_list if task.is_setup] == []
        assert dag.get_task("report").on_failure_fail_dagrun
        ruled = {"gate_check", "reconcile", "resume_writer", "report"}
        others = [task for task in tasks(dag) if task.task_id not in ruled]
        assert {task.trigger_rule for task in others} == {TriggerRule.ALL_SUCCESS}

    def test_runbook_scans_every_entity_of_the_source(self, bag, source):
        scan = bag.dags[f"{source}_reconcile"].get_task("scan")
        entities = [entity.name for entity in get_source(source).entities]
        if not isinstance(scan, MappedOperator):
            assert [scan.entity] == entities
        else:
            assert scan.expand_input.value == {"entity": entities}
            assert scan.map_index_template == "{{ task.entity }}"

    def test_runbook_emits_the_sources_asset_where_it_says_so_only(self, bag, source):
        found = {task.task_id: task.outlets for task in tasks(bag.dags[f"{source}_reconcile"]) if task.outlets}
        assert found == {"report": [outlet(source)]}
        assert confirmed(source).name == f"{source}_confirmed"
        assert confirmed(source).uri == f"sync-confidence://{source}/"

    def test_writer_that_stands_too_long_is_an_alert_of_both(self, bag, source):
        alerts = [bag.dags[f"{source}_{job}"].deadline for job in ("sync", "reconcile")]
        assert alerts == [[stopped_too_long(source)]] * 2
        # A run may wait longer for an answer. Airflow shows the name beside "Must complete within".
        assert all("the run goes on" in alert.name for [alert] in alerts)

    def test_runbook_keeps_the_watermarks_by_default(self, bag, source):
        assert bag.dags[f"{source}_reconcile"].params["reset_watermark"] is False


class TestSlices:
    """The scan of a source that can be read in slices, as the environment's setting splits it."""

    @pytest.fixture
    def load(self, monkeypatch) -> Callable[[str], DagBag]:
        def load(given: str) -> DagBag:
            monkeypatch.setenv(slices.SETTING, given)
            return DagBag(REPOSITORY / "dags" / "storage_reconcile.py")

        return load

    def test_are_mapped_tasks(self, load):
        dag = load("3").dags["storage_reconcile"]
        scan = dag.get_task("scan")
        assert scan.expand_input.value == {"entity": ["images"], "slice_number": [0, 1, 2]}
        assert scan.map_index_template == "{{ task.entity }}, slice {{ task.slice_number }}"
        assert {task.task_id: task.downstream_task_ids for task in tasks(dag)} == RUNBOOK

    def test_one_is_the_task_that_it_always_was(self, load):
        assert not isinstance(load("1").dags["storage_reconcile"].get_task("scan"), MappedOperator)

    def test_are_of_sources_that_can_be_read_in_slices(self, monkeypatch):
        monkeypatch.setenv(slices.SETTING, "2")
        found = DagBag(REPOSITORY / "dags").dags
        scans = {source: found[f"{source}_reconcile"].get_task("scan") for source in REGISTRY}
        mapped = {source: scan.expand_input.value for source, scan in scans.items() if isinstance(scan, MappedOperator)}
        sliced = {source for source, axes in mapped.items() if "slice_number" in axes}
        assert sliced == {source for source in REGISTRY if hasattr(get_source(source), "read_slice")} == {"storage"}

    def test_that_are_no_number_are_an_import_error(self, load):
        [error] = load("many").import_errors.values()
        assert "SYNC_CONFIDENCE_SCAN_SLICES='many' in the environment is no number of slices" in error


@pytest.mark.drill("daylight-saving")
def test_no_schedule_is_left_out_or_doubled_when_clocks_change(bag):
    zones = {str(dag.timetable.timezone) for dag in bag.dags.values() if dag.schedule is not None}
    assert zones == {"UTC"}


@pytest.mark.parametrize("source", [source for source in REGISTRY if hasattr(get_source(source), "every")])
def test_sync_runs_as_often_as_its_source_declares(bag, source):
    """By that its overlap is measured, which has to be longer."""
    times = croniter(bag.dags[f"{source}_sync"].timetable.expression, datetime(2026, 1, 1, tzinfo=UTC))
    fires = list(islice(times.all_next(datetime), 300))
    assert {later - earlier for earlier, later in pairwise(fires)} == {get_source(source).every}


@pytest.mark.parametrize(
    ("dag_id", "task_id", "operator", "times"),
    [
        ("confidence_watch", "watch", "WatchOperator", "*/5 * * * *"),
        ("confidence_retention", "expire", "ExpireOperator", "40 12 * * *"),
    ],
)
def test_dag_of_all_sources_is_one_light_task_that_names_no_source(bag, dag_id, task_id, operator, times):
    dag = bag.dags[dag_id]
    assert [(task.task_id, kind(task), task.pool) for task in tasks(dag)] == [(task_id, operator, "default_pool")]
    assert dag.timetable.expression == times
    text = (REPOSITORY / "dags" / f"{dag_id}.py").read_text()
    assert [source for source in REGISTRY if source in text] == []


def test_rebuild_takes_the_five_steps_and_repairs_nothing(bag):
    dag = bag.dags["warehouse_rebuild"]
    assert [task.task_id for task in tasks(dag)] == REBUILD
    assert all(dag.get_task(before).downstream_task_ids == {after} for before, after in pairwise(REBUILD))
    targets = [task.trigger_dag_id.replace("{{ params.source }}", REGISTRY[0]) for task in tasks(dag)]
    sync, reconcile = f"{REGISTRY[0]}_sync", f"{REGISTRY[0]}_reconcile"
    assert targets == ["warehouse_migrate", sync, reconcile, sync, reconcile]
    assert [task.conf for task in tasks(dag)] == [
        {},
        {"mode": "full"},
        {"dry_run": True},
        {"mode": "incremental"},
        {"dry_run": True},
    ]
    assert dag.params.get_param("source").schema["enum"] == list(REGISTRY)


@pytest.mark.parametrize("dry_run", [True, False])
def test_dry_rebuild_takes_the_first_forensic_pass_alone(bag, dry_run):
    dag = bag.dags["warehouse_rebuild"]
    assert dag.params["dry_run"] is False
    context = {"dag": dag, "dag_run": SimpleNamespace(conf={"dry_run": dry_run}), "params": {"dry_run": dry_run}}
    left_out = []
    for task in tasks(dag):
        try:
            task._pre_execute_hook(context)
        except AirflowSkipException:
            left_out.append(task.task_id)
    assert left_out == ([name for name in REBUILD if name != "forensic_pass"] if dry_run else [])
    # It runs after tasks that were left out, and not after one that has failed.
    assert [task.task_id for task in tasks(dag) if task.trigger_rule == "none_failed"] == ["forensic_pass"]


@pytest.mark.parametrize("path", FAILS_AT_ONCE)
def test_errors_that_fail_at_once_exist(path):
    """They are named by strings, which no import checks."""
    module, _, name = path.rpartition(".")
    assert issubclass(getattr(import_module(module), name), BaseException)
