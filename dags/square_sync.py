"""
# Square: keep the copy in step

Reads what changed at Square since the last sync into the warehouse schema `square`: locations, vendors, the catalog
(categories, items, variations with their vendor infos), inventory, orders with lines, fulfillments, returns and
tenders, payments, refunds. Then brings the computed tables in line: catalog_location_availability, square_sales,
square_item_library_export.

**When:** every 30 minutes. What to read follows from the watermarks in `confidence.sync_state` (for orders and payments
one for each location), not from the schedule: a missed or late run loses nothing. Orders and payments of the last 96
hours are read again by their creation, since offline sales may come that late.

**Writes:** the tables, an audit row for each change in `confidence.change_log`, the watermarks, one row in
`confidence.sync_log`. Never `operating_seasons`; of `inventory_counts` it deletes nothing. Undo a run with
`warehouse_rollback` and its `sync_id`.

**While it waits** in `scheduled`: the pool `square_writer` has 0 slots because `square_reconcile` has stopped the
writer; the pool's description says which run. It continues by itself after the resume.

**Mode `validate`** writes to no table but `confidence.integrity_check`, and reads nothing into the copy. It checks the
copy in itself (rows name rows that are there, the money adds up, no payment gave back more than it took, the stock is
that of the counts), counts every table against Square's lists, key by key, and compares 20 rows of each list field by
field with what Square answers for just these. What could not be read, proven or stored fails it too. What changed
since the last sync does not count. It costs the requests of a nightly scan, one for each 1,000 orders and 100
payments, and some 200 more.

## If `sync` fails
What its message does not name is synced; what it names keeps its watermark and is read again.
- *check connection*: mend the connection `square`, then clear the task.
- *all of <location>*: Square refuses this location, the others are synced. Look at the rights of the connection's token
  there; its watermark stays, so nothing is lost.
- *run again later*: Square could not be reached. The next run tries again; act only if this goes on.
- *writer is stopped*: somebody opened the pool by hand. Answer `decide` of the run that the message names.
- *rows could not be stored*: see the reasons in `confidence.quarantine`.
- *checks failed* (mode `validate`): the message names checks and rows; all are in `confidence.integrity_check`. A sale
  that came while a sync was reading can look like it: sync once more and validate again. What stays is for
  `square_reconcile`.
"""

from airflow.sdk import dag

from include.sources.installed import is_installed
from plugins.operators.sync import SyncOperator
from plugins.params import choice
from plugins.runbook import cron, of_source

MODE = choice(
    "incremental",
    ["incremental", "foundation", "full", "validate"],
    "Mode",
    "Incremental reads what changed since the watermarks; foundation, also called full, reads every list from its"
    " start; validate writes nothing and checks the copy.",
)


@dag(**of_source("square", "sync"), schedule=cron("*/30 * * * *"), doc_md=__doc__, params={"mode": MODE})
def square_sync():
    SyncOperator(task_id="sync", source="square")


if is_installed("square"):
    square_sync()
