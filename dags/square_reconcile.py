"""
# Square: prove the copy

Stops the writer, scans Square and the copy, compares the drift with the good runs before, repairs what is safe
if it may, and lets the writer run again, or keeps it stopped until a person decides.

**When:** every night at 04:20 UTC, and by hand.

**Writes:** nothing but its evidence (`confidence.forensic_run`) unless it repairs: with `dry_run` off, by a person's
decision, or for scheduled runs if the Airflow Variable `nightly_repair_sources` names `square`. A repair has a
`sync_id` and can be undone with `warehouse_rollback`.

## Steps
1. `stop_writer`: pool `square_writer` to 0 slots, wait for the running sync, close the fence.
2. `scan`, one for each entity: every page of the list against the copy, an order with its lines, fulfillments, returns
   and tenders. What one look can't prove is looked up once more, up to 100 orders or 1,000 objects in a request; a row
   counts as gone when its own address at Square says so. If Square refuses one location, the rows of the others are
   compared, and those of that one are unproven.
3. `gate_check`: worse than the baseline once is `warn`, twice in a row `hold`. Slow growth that goes on is `warn`, and
   `hold` after a week. A repair of too large a share of the table is `hold` at once.
4. `decide`: only on `hold`. Waits for your answer under *Required actions*, 20 hours at most.
5. `reconcile`: applies the plan where each row is still as the scan saw it. On a dry run it only tells the plan.
6. `verify`: is the copy better now? If not, the writer is held and the `sync_id` to roll back is named.
7. `resume_writer`: fence and pool open again. `report`: the run's summary and its true state.

## If a task fails
Its message names the next step. In general:
- `stop_writer`: the writer goes on as before. Clear `stop_writer` with downstream.
- `scan`: nothing was written, the writer goes on. Clear `scan` with downstream; an attempt that is retried goes on
  from the page that it had reached.
- `gate_check`, `reconcile`: clear `scan` with downstream for fresh evidence.
- `decide`: clear it with downstream to be asked again.
- `verify`: the writer is held. Roll back the `sync_id`, then clear `scan` with downstream.
- `resume_writer`: the writer stays stopped. If it is held, answer `decide`; else clear `resume_writer`.

"Only failed" leaves out `stop_writer`: the cleared step then refuses and says so. Clear with downstream instead.
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

SOURCE = "square"
ENTITIES = [
    "locations",
    "vendors",
    "catalog_categories",
    "catalog_items",
    "catalog_variations",
    "catalog_inventory",
    "inventory_counts",
    "orders",
    "payments",
    "order_refunds",
]


@dag(
    dag_id="square_reconcile",
    doc_md=__doc__,
    # Without a start date the first run is the next one due, not the one missed last.
    schedule=CronTriggerTimetable("20 4 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    deadline=stopped_too_long(SOURCE),
    tags=["square", "reconcile"],
    params={
        "dry_run": Param(
            True,
            type="boolean",
            title="Dry run",
            description="Find and judge drift, plan the repair, write nothing. Off: repair if the gate allows it.",
        ),
        "progress_every": Param(
            250,
            type="integer",
            minimum=0,
            section="How it works",
            title="Pages between progress lines",
            description="A line of progress goes to the log every so many pages; 0 = after the last page only.",
        ),
        "reset_watermark": Param(
            False,
            type="boolean",
            section="The writer afterwards",
            title="Reset the watermarks",
            description="At the resume, skip every change made while the writer stood, but those of locations, which"
            " tell no time of change. Needs dry run off.",
        ),
    },
)
def square_reconcile():
    stop_writer = StopWriterOperator(task_id="stop_writer", source=SOURCE).as_setup()
    scan = ScanOperator.partial(
        task_id="scan", source=SOURCE, map_index_template="{{ task.entity }}", doc_md=ScanOperator.on_call
    ).expand(entity=ENTITIES)
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


square_reconcile()
