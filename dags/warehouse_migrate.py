"""
# Warehouse: bring the tables up to date

Runs all missing migrations on the warehouse (connection `warehouse_owner`, or `warehouse` if there is none), grants the
roles for tasks and pages what they need, and creates the pools of the installed sources that Airflow does not have
(connection `airflow_api`). Start-up commands do the same; running it again does nothing.

**If `migrate` fails:** nothing was changed (one transaction). Its message says what is in the way; mend it, then clear
the task.

**If `create_pools` fails:** syncs whose pool is missing wait. Mend the connection `airflow_api`, then clear the task.
"""

from typing import Any

from airflow.sdk import dag, task

from include.warehouse.migrate import migrate as migrate_warehouse
from plugins.failures import DEFAULT_ARGS
from plugins.hooks import airflow_api, warehouse
from plugins.runs import refuse_unknown_conf


@dag(
    dag_id="warehouse_migrate",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    tags=["warehouse"],
)
def warehouse_migrate():
    @task
    def migrate(**context: Any) -> str:
        """Return the revision that the warehouse has afterwards."""
        refuse_unknown_conf(context)
        return migrate_warehouse(warehouse.owner_url())

    @task
    def create_pools() -> list[str]:
        """Return the names of the pools that were created. An existing one, such as a stopped writer's, is kept."""
        with airflow_api.opened() as api:
            return api.create_missing_pools()

    migrate() >> create_pools()


warehouse_migrate()
