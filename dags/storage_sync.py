"""
# Storage: mark new images whose objects are missing

Looks at the images that changed since the last sync, in the application's table `images`, and asks the store for their
objects: the original of each image, the staged one of a `ready` image. Proven to be missing, the image gets status
`error` and the message `original missing in storage` or `staged missing in storage`.

**When:** every hour at :20, as a dry run. Scheduled runs write once the Airflow Variable `nightly_repair_sources` names
`storage` and `RECONCILE_ENABLED` is 1 (an Airflow Variable, or the environment of Airflow's workers).

**Writes:** unless it is a dry run: status, error and updated_at of those images, an audit row a change in
`confidence.change_log`, the watermark, one row in `confidence.sync_log`. Undo a run with `warehouse_rollback` and its
`sync_id`. A dry run keeps a watermark of its own, so that it hides nothing from a run that writes.

**Leaves alone:** images changed within the last 15 minutes, images in processing, images in error, deleted images.

**The result** is the XCom `result` of `sync`, and one line of JSON in its log.

## If `sync` fails
Nothing was written, and the watermark stays: the next run looks at the same images again.
- *reconciliation is not enabled*: set `RECONCILE_ENABLED`, or leave `dry_run` on.
- *above its limit*: too many are missing for accidents. Run `storage_reconcile`: its gate asks a person.
- *could not be looked at*, *check connection*: the store, its keys or its rights. Mend what the message names, then
  clear the task.
- *writer is stopped*: somebody opened the pool by hand. Answer `decide` of the run that the message names.
"""

from airflow.sdk import CronTriggerTimetable, Param, dag

from plugins.deadline import stopped_too_long
from plugins.operators.sync import SyncOperator
from plugins.runs import DEFAULT_ARGS

SOURCE = "storage"


@dag(
    dag_id="storage_sync",
    doc_md=__doc__,
    # Without a start date the first run is the next one due, not the one missed last.
    schedule=CronTriggerTimetable("20 * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    deadline=stopped_too_long(SOURCE),
    tags=["storage", "sync"],
    params={
        "dry_run": Param(
            True,
            type="boolean",
            title="Dry run",
            description="Only say which objects are missing. Off: mark their images; needs RECONCILE_ENABLED.",
        ),
        "mode": Param(
            "incremental",
            enum=["incremental", "full"],
            title="Mode",
            description="Incremental looks at images changed since the watermark, full at all of them.",
        ),
        "batch_size": Param(
            1000,
            type="integer",
            minimum=1,
            maximum=10000,
            section="How it works",
            title="Batch size",
            description="Images that are read, and later written, with one statement.",
        ),
        "concurrency": Param(
            5,
            type="integer",
            minimum=1,
            maximum=64,
            section="How it works",
            title="Requests at once",
            description="To the store. Fewer if it answers 503 SlowDown.",
        ),
    },
)
def storage_sync():
    SyncOperator(task_id="sync", source=SOURCE)


storage_sync()
