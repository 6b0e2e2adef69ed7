"""
# Storage: mark new images whose objects are missing

Looks at the images that changed since the last sync, in the application's table `images`, and asks the store for their
objects: the original of each image, the staged one of a `ready` image. If an object is missing at its own address and
in a listing, the image gets status `error` and the message `original missing in storage` or `staged missing in
storage`. An image that a run has marked and whose objects are there again gets its former status back.

**When:** every hour at :20, as a dry run. Scheduled runs write once the Airflow Variable `nightly_repair_sources` names
`storage` and `RECONCILE_ENABLED` is 1 (an Airflow Variable, or the environment of Airflow's workers).

**Writes:** unless it is a dry run: status, error and updated_at of those images, an audit row for each change in
`confidence.change_log`, the watermark, one row in `confidence.sync_log`. Undo a run with `warehouse_rollback` and its
`sync_id`. A dry run keeps a watermark of its own, so that it hides nothing from a run that writes.

**Leaves alone:** images changed within the last 15 minutes, images in processing, images in error that no run has
marked, deleted images, and images that can't be proven.

**The result** is the XCom `result` of `sync`, and one line of JSON in its log.

## If `sync` fails
The watermark stays, and the next run looks at the same images again. Unless the message says otherwise nothing was
written.
- *reconciliation is not enabled*: set `RECONCILE_ENABLED`, or leave `dry_run` on.
- *above its limit*: more are missing than accidents explain, in this run or with those that the last runs have marked.
  Run `storage_reconcile`: its gate asks a person.
- *a sync was refused*: for that reason, and nothing has changed since. It ends when a person has answered the gate of
  `storage_reconcile`, when a scan of all images has passed, or by itself when the missing objects are there again.
- *missing_in_doubt*, *could not be proven*: the bucket does not show what the images name. Check bucket_name and
  endpoint_url of connection `storage`.
- *could not be looked at*: the store gave no answer about these images; all others are in step. The next sync asks
  again, until the nightly scan has proven them, as their objects are listed, or named them.
- *do not show the status that was written*: a trigger or a policy of the application's database. See what forbids it.
- *check connection*: the store, its keys or its rights. Mend what the message names, then clear the task.
- *writer is stopped*: somebody opened the pool by hand. Answer `decide` of the run that the message names.
"""

from airflow.sdk import dag

from include.sources.installed import is_installed
from plugins.operators.sync import SyncOperator
from plugins.params import BATCHES, choice, flag
from plugins.runbook import cron, of_source

DRY_RUN = flag(True, "Dry run", "Only say which objects are missing. Off: mark their images; needs RECONCILE_ENABLED.")
MODE = choice(
    "incremental",
    ["incremental", "full"],
    "Mode",
    "Incremental looks at images changed since the watermark, full at all of them.",
)


@dag(
    **of_source("storage", "sync"),
    schedule=cron("20 * * * *"),
    doc_md=__doc__,
    params={"dry_run": DRY_RUN, "mode": MODE, **BATCHES},
)
def storage_sync():
    SyncOperator(task_id="sync", source="storage")


if is_installed("storage"):
    storage_sync()
