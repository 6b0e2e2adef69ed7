"""
# Storage: prove the images

Stops the writer, compares the application's table `images` with the objects of the bucket, judges what is missing by
the good runs before, marks images whose objects are missing if it may, and lets the writer run again, or keeps it
stopped until a person decides.

**When:** every night at 03:40 UTC, and by hand: after a recovery or a migration of the bucket, and after an outage.

**Writes:** nothing but its evidence (`confidence.forensic_run`) unless it repairs: with `dry_run` off, by a person's
decision, or for scheduled runs if the Airflow Variable `nightly_repair_sources` names `storage`. A repair sets status,
error and updated_at of an image, needs `RECONCILE_ENABLED`, has a `sync_id` and can be undone with
`warehouse_rollback`.

**Missing** is an image whose original, or (status `ready`) whose staged object, is proven to be absent: not listed, or
404 by a bucket that is proven to be there, and the same at a second look after a pause. Before the write each is asked
for a third time. No right, a timeout, a wrong endpoint say nothing about an object: then nothing is written and the run
fails.

**Leaves alone:** images changed within the last 15 minutes, images in processing (counted as missing), images in error,
deleted images, and images whose url names another bucket.

**The result** is the XCom `result` of `report`, and one line of JSON in its log.

## Steps
1. `stop_writer`: pool `storage_writer` to 0 slots, wait for the running sync, close the fence.
2. `scan`: the images against the objects; lists the whole bucket, or asks for single objects where that is cheaper.
3. `gate_check`: worse than the baseline once is `warn`, twice in a row `hold`. Slow growth that goes on is `warn`, and
   `hold` after a week. More than 5 % of the checked images missing is `hold` at once.
4. `decide`: only on `hold`. Waits for your answer under *Required actions*, 20 hours at most.
5. `reconcile`: marks each image that is still as the scan saw it. On a dry run it only tells the plan.
6. `verify`: do the images show it, and are the objects of a sample still missing? If not, the writer is held and the
   `sync_id` to roll back is named.
7. `resume_writer`: fence and pool open again. `report`: the run's summary and its true state.

## If a task fails
Its message names the next step. In general:
- `stop_writer`: *reconciliation is not enabled*: set `RECONCILE_ENABLED` to 1 or leave `dry_run` on, and trigger anew.
  Else clear `stop_writer` with downstream.
- `scan`: nothing was written, the writer goes on. Clear `scan` with downstream; an attempt that is retried goes on
  where the one before was cut off.
- `gate_check`, `reconcile`: clear `scan` with downstream for fresh evidence.
- `decide`: clear it with downstream to be asked again.
- `verify`: the writer is held. Roll back the `sync_id`, then clear `scan` with downstream.
- `resume_writer`: the writer stays stopped. If it is held, answer `decide`; else clear `resume_writer`.

"Only failed" leaves out `stop_writer`: the cleared step then refuses and says so. Clear with downstream instead.

## What the figures say
- Many `missing_original`: bucket misconfigured, wrong endpoint, or data loss. Check the connection `storage` and look
  into the bucket.
- Many `missing_staged`: worker failures or incomplete processing. Process the images again, look into the worker's log.
- `foreign_bucket`: urls that name another bucket than the connection does, as after a migration. They are not checked.
- `ready_without_staged`: ready images without a staged url. `orphan_objects`: objects that no image names.
- Slow, or *503 SlowDown*: lower `concurrency`.
"""

from airflow.sdk import CronTriggerTimetable, Param, dag
from airflow.task.trigger_rule import TriggerRule

from plugins.deadline import stopped_too_long
from plugins.operators.decide import DecideOperator
from plugins.operators.gate_check import GateCheckOperator
from plugins.operators.reconcile import ReconcileOperator
from plugins.operators.report import ReportOperator
from plugins.operators.resume_writer import ResumeWriterOperator
from plugins.operators.scan import ScanOperator
from plugins.operators.stop_writer import StopWriterOperator
from plugins.operators.verify import VerifyOperator
from plugins.runs import DEFAULT_ARGS

SOURCE = "storage"


@dag(
    dag_id="storage_reconcile",
    doc_md=__doc__,
    # Without a start date the first run is the next one due, not the one missed last.
    schedule=CronTriggerTimetable("40 3 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    deadline=stopped_too_long(SOURCE),
    tags=["storage", "reconcile"],
    params={
        "dry_run": Param(
            True,
            type="boolean",
            title="Dry run",
            description="Find and judge what is missing, write nothing. Off: mark it if the gate allows; needs"
            " RECONCILE_ENABLED.",
        ),
        "heal": Param(
            False,
            type="boolean",
            title="Heal",
            description="Give images that a run has marked their former status, where their objects are back.",
        ),
        "project_id": Param(
            None,
            type=["null", "string"],
            format="uuid",
            section="Which part",
            title="Project",
            description="Only this project's images.",
        ),
        "status": Param(
            None,
            type=["null", "string"],
            enum=[None, "queued", "processing", "ready", "error"],
            values_display={"null": "any"},
            section="Which part",
            title="Status",
            description="Only images in this status.",
        ),
        "limit": Param(
            0,
            type="integer",
            minimum=0,
            section="Which part",
            title="Limit",
            description="At most so many images; 0 = all. The result's next_cursor tells where to go on.",
        ),
        "cursor": Param(
            None,
            type=["null", "string"],
            format="uuid",
            section="Which part",
            title="Cursor",
            description="Only images whose id comes after this one.",
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
        "reset_watermark": Param(
            False,
            type="boolean",
            section="The writer afterwards",
            title="Reset the watermarks",
            description="At the resume, skip every change made while the writer stood. Needs dry run off.",
        ),
    },
)
def storage_reconcile():
    stop_writer = StopWriterOperator(task_id="stop_writer", source=SOURCE).as_setup()
    scan = ScanOperator(task_id="scan", source=SOURCE, entity="images")
    gate_check = GateCheckOperator(task_id="gate_check", source=SOURCE)
    decide = DecideOperator(task_id="decide", source=SOURCE)
    reconcile = ReconcileOperator(task_id="reconcile", source=SOURCE, trigger_rule=TriggerRule.NONE_FAILED)
    verify = VerifyOperator(task_id="verify", source=SOURCE)
    resume_writer = ResumeWriterOperator(task_id="resume_writer", source=SOURCE).as_teardown(
        setups=stop_writer, on_failure_fail_dagrun=True
    )
    # A teardown too: a person who marks the whole run leaves it, and it ends the run in the truth.
    report = ReportOperator(task_id="report", source=SOURCE).as_teardown(on_failure_fail_dagrun=True)

    stop_writer >> scan >> gate_check >> decide >> reconcile >> verify >> resume_writer
    [verify, resume_writer] >> report


storage_reconcile()
