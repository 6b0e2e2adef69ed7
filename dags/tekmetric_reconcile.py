"""
# Tekmetric: prove the copy

Stops the writer, compares Tekmetric with the copy, and judges the drift by earlier good runs. Repairs what is safe if
the run may write. Lets the writer run again, or keeps it stopped until a person decides.

**When:** every night at 04:50 UTC, and by hand.

**Writes:** nothing but its evidence (`confidence.forensic_run`) unless it repairs: with `dry_run` off, by a person's
decision, or for scheduled runs if the Airflow Variable `nightly_repair_sources` names `tekmetric`. A repair has a
`sync_id` and can be undone with `warehouse_rollback`. Snapshots and daily metrics follow what it changes.

## Steps
1. `stop_writer`: pool `tekmetric_writer` to 0 slots, wait for the running sync, close the fence.
2. `scan`, one for each entity: customers, vehicles and employees as a whole; the repair orders on the
   boards, and those of the last `days_back` days in the report. Each is read by itself (head, estimate, profit) and
   compared with its jobs, parts, labor, sublets and fees. Orders of these days that nobody has posted are read too. An
   order that the report leaves out is looked up before anything is concluded. The variance checks (margins, part and
   labor arithmetic, sums, tax, endpoints that contradict each other) are figures of the scan.
3. `gate_check`: worse than the baseline once is `warn`, twice in a row `hold`. Slow growth that goes on is `warn`, and
   `hold` after a week. A repair of too large a share of the table is `hold` at once.
4. `decide`: only on `hold`. Waits for your answer under *Required actions*, 20 hours at most.
5. `reconcile`: applies the plan where each row is still as the scan saw it. On a dry run it only logs the plan.
6. `verify`: is the copy better now? If not, the writer is held and the `sync_id` to roll back is named.
7. `resume_writer`: fence and pool open again. `report`: the run's summary and its true state.

## If a task fails
Its message names the next step. In general:
- `stop_writer`: the writer goes on as before. Clear `stop_writer` with downstream.
- `scan`: nothing was written, the writer goes on. Clear `scan` with downstream; a retry goes on from the page that the
  last attempt had reached. If the token has expired, put a new one into the connection `tekmetric` first.
- `gate_check`, `reconcile`: clear `scan` with downstream for fresh evidence.
- `decide`: clear it with downstream to be asked again.
- `verify`: the writer is held. Roll back the `sync_id`, then clear `scan` with downstream.
- `resume_writer`: the writer stays stopped. If it is held, answer `decide`; else clear `resume_writer`.

"Only failed" leaves out `stop_writer`: the cleared step then refuses and says so. Clear with downstream instead.
"""

from airflow.sdk import dag

from include.sources.installed import is_installed
from plugins.assets import FILTERS
from plugins.params import DRY_RUN, RESET_WATERMARK, number, progress_every, some_number
from plugins.runbook import cron, of_source, runbook

ENTITIES = ["employees", "customers", "vehicles", "repair_orders"]
DAYS_BACK = number(
    30,
    "Days back",
    "Scan the orders that were posted, or changed while not posted, in the last so many days; 0 = all of them. About"
    " three requests an order.",
    FILTERS,
)
SHOP = some_number("Shop", "Tekmetric's id of one shop; empty for all that the connection names.", FILTERS, empty="all")


@dag(
    **of_source("tekmetric", "reconcile"),
    schedule=cron("50 4 * * *"),
    doc_md=__doc__,
    params={**DRY_RUN, "days_back": DAYS_BACK, "shop_id": SHOP, **progress_every(1), **RESET_WATERMARK},
)
def tekmetric_reconcile():
    runbook("tekmetric", ENTITIES)


if is_installed("tekmetric"):
    tekmetric_reconcile()
