"""
# RepairShopr: keep the copy in step

Reads what changed at RepairShopr since the last sync into the warehouse schema `repairshopr`: customers, invoices
with their line items, payments, products, tickets, estimates.

**When:** every 15 minutes. What to read follows from each entity's watermark in `confidence.sync_state`, not from the
schedule: a missed or late run loses nothing.

**Writes:** the seven tables, an audit row for each change in `confidence.change_log`, the watermarks, one row in
`confidence.sync_log`. Undo a run with `warehouse_rollback` and its `sync_id`.

**While it waits** in `scheduled`: the pool `repairshopr_writer` has 0 slots because `repairshopr_reconcile` has
stopped the writer; the pool's description says which run. It continues by itself after the resume.

## If `sync` fails
The entities that its message does not name are synced; those that it names keep their watermark and are read again.
- *check connection*: mend the connection `repairshopr`, then clear the task.
- *run again later*: RepairShopr could not be reached. The next run tries again; act only if this goes on.
- *writer is stopped*: somebody opened the pool by hand. Answer `decide` of the run that the message names.
- *rows could not be stored*: see the reasons in `confidence.quarantine`.
"""

from airflow.sdk import dag

from include.sources.installed import is_installed
from plugins.operators.sync import SyncOperator
from plugins.params import choice
from plugins.runbook import cron, of_source

MODE = choice(
    "incremental",
    ["incremental", "full"],
    "Mode",
    "Incremental reads what changed since the watermark, full reads every list from its start.",
)


@dag(**of_source("repairshopr", "sync"), schedule=cron("*/15 * * * *"), doc_md=__doc__, params={"mode": MODE})
def repairshopr_sync():
    SyncOperator(task_id="sync", source="repairshopr")


if is_installed("repairshopr"):
    repairshopr_sync()
