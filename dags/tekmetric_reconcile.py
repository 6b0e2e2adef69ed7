"""
# Tekmetric: prove the copy

Stops the writer, scans Tekmetric and the copy, compares the drift with the good runs before, repairs what is safe
if it may, and lets the writer run again, or keeps it stopped until a person decides.

**When:** every night at 04:50 UTC, and by hand.

**Writes:** nothing but its evidence (`confidence.forensic_run`) unless it repairs: with `dry_run` off, by a person's
decision, or for scheduled runs if the Airflow Variable `nightly_repair_sources` names `tekmetric`. A repair has a
`sync_id` and can be undone with `warehouse_rollback`. Snapshots and daily metrics follow what it changes.

## Steps
1. `stop_writer`: pool `tekmetric_writer` to 0 slots, wait for the running sync, close the fence.
2. `scan`, one for each entity: customers, vehicles and employees as a whole; of repair orders those that the boards
   show and those that the report shows for the last `days_back` days, each read by itself (head, estimate, profit) and
   compared with its jobs, parts, labor, sublets and fees. An order of that time that neither shows is looked up before
   anything is concluded. The variance checks (margins, part and labor arithmetic, sums, tax, what endpoints say of the
   same thing) are figures of the scan.
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
  from the page that it had reached. If the token has expired, put a new one into the connection `tekmetric` first.
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

SOURCE = "tekmetric"
ENTITIES = ["employees", "customers", "vehicles", "repair_orders"]


@dag(
    dag_id="tekmetric_reconcile",
    doc_md=__doc__,
    # Without a start date the first run is the next one due, not the one missed last.
    schedule=CronTriggerTimetable("50 4 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    deadline=stopped_too_long(SOURCE),
    tags=["tekmetric", "reconcile"],
    params={
        "dry_run": Param(
            True,
            type="boolean",
            title="Dry run",
            description="Find and judge drift, plan the repair, write nothing. Off: repair if the gate allows it.",
        ),
        "days_back": Param(
            30,
            type="integer",
            minimum=0,
            section="Which part",
            title="Days back",
            description="Scan the orders that were posted, or changed while not posted, in the last so many days; 0 ="
            " all of them. About three requests an order.",
        ),
        "shop_id": Param(
            None,
            type=["null", "integer"],
            section="Which part",
            title="Shop",
            description="Tekmetric's id of one shop; empty for all that the connection names.",
            values_display={"null": "all"},
        ),
        "progress_every": Param(
            1,
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
            description="At the resume, skip every change made while the writer stood. Needs dry run off.",
        ),
    },
)
def tekmetric_reconcile():
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


tekmetric_reconcile()
