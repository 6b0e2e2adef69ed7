"""
# Warehouse: rebuild a source's copy

The five steps after a database was deleted or recreated: migrate, bootstrap sync, forensic pass, resume, second
forensic pass. Nothing is dropped; if the copy still exists, every row is read and compared again.

**When:** by hand, with `source`.

## If a step fails
The step's run is linked in its log (*triggered run*). Mend what that run's message names, then clear the step here with
downstream: the steps before it stay done.
- `migrate`: see `warehouse_migrate`.
- `bootstrap_sync`: a full sync; a new attempt goes on where the last one was cut off.
- `forensic_pass`, `second_forensic_pass`: a dry run of the source's reconcile. A hold waits there for your decision.
- `resume`: an incremental sync, which shows that the writer runs again.
"""

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import dag

from include.sources.installed import installed_sources
from plugins.failures import DEFAULT_ARGS
from plugins.params import needed_choice
from plugins.runs import refuse_unknown_conf


def _run(task_id: str, dag_id: str, **conf: object) -> TriggerDagRunOperator:
    return TriggerDagRunOperator(
        task_id=task_id,
        trigger_dag_id=dag_id,
        conf=conf,
        wait_for_completion=True,
        poke_interval=5,
        retries=0,
        pre_execute=refuse_unknown_conf,
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
    params={"source": needed_choice(installed_sources(), "Source", "Whose copy to rebuild from its source.")},
)
def warehouse_rebuild():
    sync, reconcile = "{{ params.source }}_sync", "{{ params.source }}_reconcile"
    (
        _run("migrate", "warehouse_migrate")
        >> _run("bootstrap_sync", sync, mode="full")
        >> _run("forensic_pass", reconcile, dry_run=True)
        >> _run("resume", sync, mode="incremental")
        >> _run("second_forensic_pass", reconcile, dry_run=True)
    )


warehouse_rebuild()
