"""
# Square: prove the copy

Stops the writer, compares Square with the copy, and judges the drift by earlier good runs. Repairs what is safe if the
run may write. Lets the writer run again, or keeps it stopped until a person decides.

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
from plugins.params import AFTERWARDS, DRY_RUN, flag, progress_every
from plugins.runbook import cron, of_source, runbook

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
RESET_WATERMARK = flag(
    False,
    "Reset the watermarks",
    "At the resume, skip every change made while the writer stood, but those of locations, which tell no time of"
    " change. Needs dry run off.",
    AFTERWARDS,
)


@dag(
    **of_source("square", "reconcile"),
    schedule=cron("20 4 * * *"),
    doc_md=__doc__,
    params={**DRY_RUN, **progress_every(250), "reset_watermark": RESET_WATERMARK},
)
def square_reconcile():
    runbook("square", ENTITIES)


if is_installed("square"):
    square_reconcile()
