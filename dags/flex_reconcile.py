"""
# Flex: prove the crew calls

Stops the writer, compares every crew call of the jobs that aren't over with our assignments, and judges the differences
by earlier good runs. Repairs what is safe if the run may write. Lets the writer run again, or keeps it stopped until a
person decides.

**When:** every night at 02:50 UTC, and by hand.

**Writes:** nothing but its evidence (`confidence.forensic_run`, `flex.element_scan`) unless it repairs: with `dry_run`
off, by a person's decision, or for scheduled runs if the Airflow Variable `nightly_repair_sources` names `flex`. A
repair writes to Flex as `flex_sync` does, crew call by crew call; it has a `sync_id` and can be undone with
`warehouse_rollback`.

## Steps
1. `stop_writer`: pool `flex_writer` to 0 slots, wait for the running sync, close the fence.
2. `scan`: both lists of each crew call, its rows and its own record. What it finds is counted by class, below. What
   could not be proven is in `confidence.unproven`; too much of it fails the scan.
3. `gate_check`: worse than the baseline once is `warn`, twice in a row `hold`. Slow growth that goes on is `warn`, and
   `hold` after a week. A repair of too large a share of our rows is `hold` at once.
4. `decide`: only on `hold`. Waits for your answer under *Required actions*, 20 hours at most.
5. `reconcile`: reads again each crew call that differs, and does what was planned if it is still needed. On a
   dry run it only logs the plan.
6. `verify`: reads these crew calls once more. Only planned changes that were no longer needed may still be
   open. If others are, or Flex is worse now, the writer is held and the `sync_id` to roll back is named.
7. `resume_writer`: fence and pool open again. `report`: the run's summary and its true state.

## The classes
- `matched`: a line in Flex, a row of ours, the role as it has to be.
- `missing_in_flex`: desired, but no line there. Added.
- `missing_row`: the line is there, but no row of ours names it. The row is written, nothing is added.
- `duplicate_in_flex`: several lines for one contact. The crew call is left alone: delete all but one in Flex.
- `unknown_in_flex`: a contact that is none of ours, as people add by hand. Kept.
- `undesired_owned`: a line that we made for somebody who isn't desired any more. Deleted.
- `role_mismatch`: another business role than the assignment's. Written.
- `unreadable`: crew calls that show something that can't be relied on, or whose two lists disagree. Left alone.
- `refused`: crew calls that can't be written as they are (a contact with two roles, a duplicate). `uncertain`: those
  where nobody knows what became of a write. `stale_rows`: rows of ours whose line is gone.

## If a task fails
Its message names the next step. In general:
- `stop_writer`: the writer goes on as before. Clear `stop_writer` with downstream.
- `scan`: nothing was written, the writer goes on. Clear `scan` with downstream; a retry goes on after
  the crew call that the last attempt had reached.
- `gate_check`: clear `scan` with downstream for fresh evidence.
- `decide`: clear it with downstream to be asked again.
- `reconcile`: what it did stays done and stands in `flex.flex_sync_log`; clear `scan` with downstream for the rest. If
  nobody knows what became of a write, the writer is held: look at the crew call in Flex, clear `decide` with downstream
  and answer "Resume without repair", then run `flex_sync` with `release_element`.
- `verify`: the writer is held. Roll back the `sync_id`, then clear `scan` with downstream.
- `resume_writer`: the writer stays stopped. If it is held, answer `decide`; else clear `resume_writer`.

"Only failed" leaves out `stop_writer`: the cleared step then refuses and says so. Clear with downstream instead.
"""

from airflow.sdk import dag

from include.sources.installed import is_installed
from plugins.assets import FILTERS
from plugins.params import AFTERWARDS, flag, several, some_uuid
from plugins.runbook import cron, of_source, runbook


@dag(
    **of_source("flex", "reconcile"),
    schedule=cron("50 2 * * *"),
    doc_md=__doc__,
    params={
        "dry_run": flag(
            True, "Dry run", "Find and judge what differs, write nothing. Off: write it to Flex if the gate allows."
        ),
        "job_id": some_uuid("Job", "Only this job, over or not.", FILTERS),
        "departments": several(
            ["sound", "lights"], "Departments", "Only crew calls of these departments; empty = all.", FILTERS
        ),
        "reset_watermark": flag(
            False,
            "Skip the changes that wait",
            "At the resume, forget the changes that flex_sync has not brought to Flex yet; the nightly scan finds them"
            " all the same. Needs dry run off.",
            AFTERWARDS,
        ),
    },
)
def flex_reconcile():
    runbook("flex", ["crew"])


if is_installed("flex"):
    flex_reconcile()
