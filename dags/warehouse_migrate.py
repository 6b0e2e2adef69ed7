"""
# Warehouse: bring the tables up to date

Runs all missing migrations on the warehouse (connection `warehouse_owner`, or `warehouse` if there is none), and grants
the roles for tasks and pages what they need. Start-up commands do the same; running it again does nothing.

**If `migrate` fails:** nothing was changed (one transaction). Its message says what is in the way; mend it, then clear
the task.
"""

from typing import Any

from airflow.sdk import dag, task

from include.warehouse.migrate import migrate as migrate_warehouse
from plugins.failures import DEFAULT_ARGS
from plugins.hooks import warehouse
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

    migrate()


warehouse_migrate()
