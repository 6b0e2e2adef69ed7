"""
# RepairShopr: prove the copy

Stops the writer, compares RepairShopr with the copy, and judges the drift by earlier good runs. Repairs what is safe if
the run may write. Lets the writer run again, or keeps it stopped until a person decides.

**When:** every night at 03:00 UTC, and by hand.

**Writes:** nothing but its evidence (`confidence.forensic_run`) unless it repairs: with `dry_run` off, by a person's
decision, or for scheduled runs if the Airflow Variable `nightly_repair_sources` names `repairshopr`. A repair has a
`sync_id` and can be undone with `warehouse_rollback`.

## Steps
1. `stop_writer`: pool `repairshopr_writer` to 0 slots, wait for the running sync, close the fence.
2. `scan`, one for each entity: every page of the list against the copy. A row that is missing on either side is looked
   up once more by a narrow request before it counts.
3. `gate_check`: worse than the baseline once is `warn`, twice in a row `hold`. Slow growth that goes on is `warn`, and
   `hold` after a week. A repair of too large a share of the table is `hold` at once.
4. `decide`: only on `hold`. Waits for your answer under *Required actions*, 20 hours at most.
5. `reconcile`: applies the plan where each row is still as the scan saw it. On a dry run it only logs the plan.
6. `verify`: is the copy better now? If not, the writer is held and the `sync_id` to roll back is named.
7. `resume_writer`: fence and pool open again. `report`: the run's summary and its true state.

## If a task fails
Its message names the next step. In general:
- `stop_writer`: the writer goes on as before. Clear `stop_writer` with downstream.
- `scan`: nothing was written, the writer goes on. Clear `scan` with downstream; a retry goes on from
  the page that the last attempt had reached.
- `gate_check`, `reconcile`: clear `scan` with downstream for fresh evidence.
- `decide`: clear it with downstream to be asked again.
- `verify`: the writer is held. Roll back the `sync_id`, then clear `scan` with downstream.
- `resume_writer`: the writer stays stopped. If it is held, answer `decide`; else clear `resume_writer`.

"Only failed" leaves out `stop_writer`: the cleared step then refuses and says so. Clear with downstream instead.
"""

from airflow.sdk import dag

from include.sources.installed import is_installed
from plugins.assets import FILTERS
from plugins.params import DRY_RUN, PAGES, RESET_WATERMARK, flag, progress_every
from plugins.runbook import cron, of_source, runbook

ENTITIES = ["customers", "invoices", "line_items", "payments", "products", "tickets", "estimates"]
COMPARE_BOTH_WAYS = flag(
    True,
    "Look for rows that RepairShopr does not have",
    "Rows of the copy that the scan never saw. Only a whole scan can tell: untick it for pages.",
    FILTERS,
)


@dag(
    **of_source("repairshopr", "reconcile"),
    schedule=cron("0 3 * * *"),
    doc_md=__doc__,
    params={
        **DRY_RUN,
        **PAGES,
        "compute_db_not_in_api": COMPARE_BOTH_WAYS,
        **progress_every(250),
        **RESET_WATERMARK,
    },
)
def repairshopr_reconcile():
    runbook("repairshopr", ENTITIES)


if is_installed("repairshopr"):
    repairshopr_reconcile()
