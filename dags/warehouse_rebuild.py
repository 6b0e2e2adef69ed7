"""
# Warehouse: rebuild a source's copy

The five steps after a database was deleted or recreated: migrate, bootstrap sync, forensic pass, resume, second
forensic pass. Nothing is dropped; if the copy still exists, every row is read and compared again.

**When:** by hand, with `source`. A dry run takes the forensic pass alone: it counts what a sync of everything would
bring, and writes no row of the copy.

## If a step fails
The step's run is linked in its log (*triggered run*). Mend what that run's message names, then clear the step here with
downstream: the steps before it stay done.
- `migrate`: see `warehouse_migrate`.
- `bootstrap_sync`: a full sync; a new attempt goes on where the last one was cut off.
- `forensic_pass`, `second_forensic_pass`: a dry run of the source's reconcile. A hold waits there for your decision.
- `resume`: an incremental sync, which shows that the writer runs again.
"""

from collections.abc import Mapping
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import dag
from airflow.sdk.exceptions import AirflowSkipException
from airflow.task.trigger_rule import TriggerRule

from include.sources.installed import installed_sources
from plugins.failures import DEFAULT_ARGS
from plugins.params import flag, needed_choice
from plugins.runs import refuse_unknown_conf


def _unless_dry(context: Mapping[str, Any]) -> None:
    refuse_unknown_conf(context)
    if context["params"]["dry_run"]:
        raise AirflowSkipException("left out by a dry run")


def _run(task_id: str, dag_id: str, *, dry_too: bool = False, **conf: object) -> TriggerDagRunOperator:
    """Return the task that runs a DAG. `dry_too`: also in a dry run, which leaves out the tasks before it."""
    return TriggerDagRunOperator(
        task_id=task_id,
        trigger_dag_id=dag_id,
        conf=conf,
        wait_for_completion=True,
        poke_interval=5,
        retries=0,
        trigger_rule=TriggerRule.NONE_FAILED if dry_too else TriggerRule.ALL_SUCCESS,
        pre_execute=refuse_unknown_conf if dry_too else _unless_dry,
    )


@dag(
    dag_id="warehouse_rebuild",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    tags=["warehouse"],
    params={
        "source": needed_choice(installed_sources(), "Source", "Whose copy to rebuild from its source."),
        "dry_run": flag(False, "Dry run", "Take the forensic pass alone: count what a rebuild would bring."),
    },
)
def warehouse_rebuild():
    sync, reconcile = "{{ params.source }}_sync", "{{ params.source }}_reconcile"
    (
        _run("migrate", "warehouse_migrate")
        >> _run("bootstrap_sync", sync, mode="full")
        >> _run("forensic_pass", reconcile, dry_too=True, dry_run=True)
        >> _run("resume", sync, mode="incremental")
        >> _run("second_forensic_pass", reconcile, dry_run=True)
    )


warehouse_rebuild()
