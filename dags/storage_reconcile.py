"""
# Storage: prove the images

Stops the writer, compares the application's table `images` with the objects of the bucket, and judges what is missing
by earlier good runs. Marks images whose objects are missing if the run may write. Lets the writer run again, or keeps
it stopped until a person decides.

**When:** every night at 03:40 UTC, and by hand: after a recovery or a migration of the bucket, and after an outage.

**Writes:** nothing but its evidence (`confidence.forensic_run`) unless it repairs: with `dry_run` off, by a person's
decision, or for scheduled runs if the Airflow Variable `nightly_repair_sources` names `storage`. A repair sets status,
error and updated_at of an image, needs `RECONCILE_ENABLED`, has a `sync_id` and can be undone with
`warehouse_rollback`.

**Missing:** an object counts as missing if a complete listing lacks it and its own address answers 404, in a bucket
that is proven to be there, with a pause in between. Before the write both are asked once more. Each image needs its
original, and in status `ready` its staged object. An image that a run has marked gets its former status back if its
objects are there again (`heal`).

**Not proven:** an image may be right or wrong if its url names another bucket, is missing or can't be read; if its
object is empty, found only under another reading of its url, or gives no answer; or if LIST and HEAD disagree. It is
left alone and named in `confidence.unproven`; the others are repaired. An image without an answer first fails `scan`
once, so that it is asked again. If more than 10 % of the images (of a small table more than half) are not proven, the
scan is no evidence and fails.

**Leaves alone:** images changed within the last 15 minutes or during the scan, images in processing (counted as
missing), images in error that no run has marked, deleted images, and all that is not proven.

**The result** is the XCom `result` of `report`, and one line of JSON in its log.

## Steps
1. `stop_writer`: pool `storage_writer` to 0 slots, wait for the running sync, close the fence.
2. `scan`: the images against the objects; lists the whole bucket, or asks for single objects where that is cheaper.
   If it lists, it also asks for a sample of 64 objects by HEAD, a new sample each night. With
   `SYNC_CONFIDENCE_SCAN_SLICES` in the environment so many tasks list together; slice 0 judges.
3. `gate_check`: worse than the baseline once is `warn`, twice in a row `hold`. Slow growth that goes on is `warn`, and
   `hold` after a week. `hold` at once if more than 5 images, and more than 5 % of those looked at, lack an object, in
   this run or together with those that unattended runs have marked in the last 7 days; or if any image does, and the
   bucket does not show the objects of other images either.
4. `decide`: only on `hold`. Waits for your answer under *Required actions*, 20 hours at most.
5. `reconcile`: marks each image that is still as the scan saw it. On a dry run it only logs the plan.
6. `verify`: reads the images again from the application's database. Do they show the new status, and are the objects of
   a sample still missing? If not, the writer is held and the `sync_id` to roll back is named.
7. `resume_writer`: fence and pool open again. `report`: the run's summary and its true state.

## If a task fails
Its message names the next step. In general:
- `stop_writer`: *reconciliation is not enabled*: set `RECONCILE_ENABLED` to 1 or leave `dry_run` on, and trigger again.
  Else clear `stop_writer` with downstream.
- `scan`: nothing was written, the writer goes on. Clear `scan` with downstream; a retry goes on where
  the last attempt was cut off.
- `gate_check`, `reconcile`: clear `scan` with downstream for fresh evidence.
- `decide`: clear it with downstream to be asked again.
- `verify`: the writer is held. Roll back the `sync_id`, then clear `scan` with downstream.
- `resume_writer`: the writer stays stopped. If it is held, answer `decide`; else clear `resume_writer`.

"Only failed" leaves out `stop_writer`: the cleared step then refuses and says so. Clear with downstream instead.

## What the figures say
- Many `missing_original`: bucket misconfigured, wrong endpoint, or data loss. Check the connection `storage` and look
  into the bucket.
- Many `missing_staged`: worker failures or incomplete processing. Process the images again, look into the worker's log.
- `restorable`: missing images whose objects are only marked as deleted. Remove the delete markers in the bucket instead
  of repairing.
- `foreign_bucket`: urls that name another bucket than the connection does, as after a migration. `unreadable_url`,
  `without_original`, `empty_object`, `other_reading`, `unknown`, `unknown_status`: why else images are not proven.
  Which ones, and since when: `SELECT * FROM confidence.unproven WHERE source = 'storage'`.
- `missing_lately`: with what unattended runs have marked lately (`marked_lately`). If those are many, a loss that comes
  in small portions: look into the bucket.
- `ready_without_staged`: ready images without a staged url. `orphan_objects`: objects that no image names.
- Slow, or *503 SlowDown*: lower `concurrency`.
"""

from airflow.sdk import dag

from include.sources.installed import is_installed
from include.sources.slices import scan_slices
from plugins.assets import FILTERS
from plugins.params import BATCHES, RESET_WATERMARK, flag, number, some_choice, some_uuid
from plugins.runbook import cron, of_source, runbook

DRY_RUN = flag(
    True,
    "Dry run",
    "Find and judge what is missing, write nothing. Off: mark it if the gate allows; needs RECONCILE_ENABLED.",
)
HEAL = flag(
    True,
    "Heal",
    "Give images that a run has marked their former status, where their objects are back. Off: only count them.",
    FILTERS,
)
STATUSES = ["queued", "processing", "ready", "error"]
LIMIT = "At most so many images; 0 = all. The result's next_cursor tells where to go on."


@dag(
    **of_source("storage", "reconcile"),
    schedule=cron("40 3 * * *"),
    doc_md=__doc__,
    params={
        "dry_run": DRY_RUN,
        "heal": HEAL,
        "project_id": some_uuid("Project", "Only this project's images.", FILTERS),
        "status": some_choice(STATUSES, "Status", "Only images in this status.", FILTERS),
        "limit": number(0, "Limit", LIMIT, FILTERS),
        "cursor": some_uuid("Cursor", "Only images whose id comes after this one.", FILTERS),
        **BATCHES,
        **RESET_WATERMARK,
    },
)
def storage_reconcile():
    runbook("storage", ["images"], slices=scan_slices())


if is_installed("storage"):
    storage_reconcile()
