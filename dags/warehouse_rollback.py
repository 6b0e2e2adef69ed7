"""
# Warehouse: undo a sync, a repair or a rollback

Restores every row that one `sync_id` changed from `confidence.change_log`, and the watermarks as they were before it.
The rollback is a `sync_id` of its own, so it can be undone as well.

**When:** by hand. Find the `sync_id` in `confidence.sync_log`, in the task's XCom, or in the message that sent you
here.

**Refuses** if later syncs changed the same rows, and names them: roll those back first, newest first, or set
`force` to overwrite what they wrote. All or nothing, in one transaction; where the copy is at a vendor's, one write
after the other, each of them proven.

Start with `dry_run`: it counts what would be restored, and the conflicts. The tab *Sync confidence* of the run shows
the counts, and rolls back from there.

**Who:** the roles `op` and `admin`, or those in `DECIDER_ROLES` of the workers' environment, if Airflow's simple auth
manager is in use. If anybody else triggers a run, it fails before it reads anything.

**If `rollback` fails:** nothing was changed, unless its message names what was. If the writer's session is in the way,
wait for the running sync and clear the task.
"""

from airflow.sdk import Param, dag

from plugins.failures import DEFAULT_ARGS
from plugins.operators.rollback import RollbackOperator
from plugins.params import flag


@dag(
    dag_id="warehouse_rollback",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    tags=["warehouse"],
    params={
        "sync_id": Param(
            type="integer",
            minimum=1,
            title="sync_id",
            description="The sync, repair or rollback to undo.",
        ),
        "reason": Param(
            "",
            type="string",
            title="Reason",
            description="Kept in confidence.sync_log for those who look at it later.",
        ),
        "dry_run": flag(True, "Dry run", "Count what would be restored; write nothing."),
        "force": flag(
            False, "Overwrite later changes", "Restore also rows that later syncs, or people, have changed since."
        ),
    },
)
def warehouse_rollback():
    RollbackOperator(task_id="rollback", retries=0)


warehouse_rollback()
