"""
# Tekmetric: keep the copy in step

Reads what changed in each shop since the last sync into the warehouse schema `tekmetric`: repair orders with jobs,
parts, labor, sublets and fees, and the customers, vehicles and employees in them. Then brings snapshots and daily
metrics in line: `ro_snapshots`, `daily_shop_metrics`, `tech_daily_metrics`, of the days that a change touches.

**When:** every 10 minutes. The boards show which orders are new or changed; each of those is read by itself (head,
estimate, profit), the others aren't. A customer, vehicle or employee that an order names and the copy lacks is read at
once, and the lists of all of them once a day. What to read follows from the watermarks in `confidence.sync_state`, one
for each shop (`tekmetric.sync_cursors` shows them): a missed or late run loses nothing.

**Writes:** the tables, an audit row for each change in `confidence.change_log`, the watermarks, one row in
`confidence.sync_log`. Undo a run with `warehouse_rollback` and its `sync_id`. `confidence_retention` drops answers
that were kept with `store_raw` after 7 days, and the log with its audit after 30: what is older can't be rolled back.

**While it waits** in `scheduled`: the pool `tekmetric_writer` has 0 slots because `tekmetric_reconcile` has stopped the
writer; the pool's description says which run. It continues by itself after the resume.

**By hand:** `mode` *backfill* reads history from the report, as far as `days_back` (0: all of it), about three requests
an order; a run that was cut off goes on where it was. *snapshot* takes a snapshot of the order `ro_id` as it stands.
With `ro_id`, `board` or `limit` a run sees a part only, and moves no watermark past what it has not seen.

## If `sync` fails
What its message does not name is synced.
- *are not proven and were not written*: the orders that it names keep the watermark of their shop before them, and are
  read again by the next run. If one never can be read, or its answers always contradict each other, look at it in
  Tekmetric; `store_raw` with its `ro_id` keeps what is answered.
- *perhaps others of ...*: a board had no room for all that changed. What was found behind it is written, and the next
  run goes on by itself. If you miss a new order, run `mode` *backfill* with `days_back` 1.
- *does not accept the credentials*: the token has expired. Log in to Tekmetric, put the new token into the connection
  `tekmetric` (password), then clear the task.
- *names no usable shops*: mend the connection's extra as the message shows, then clear the task.
- *run again later*: Tekmetric could not be reached. The next run tries again; act only if this goes on.
- *writer is stopped*: somebody opened the pool by hand. Answer `decide` of the run that the message names.
- *rows could not be stored*: see the reasons in `confidence.quarantine`.
- *checks failed* (mode `validate`): the message names checks and rows; all are in `confidence.integrity_check`.
"""

from airflow.sdk import dag

from include.sources.installed import is_installed
from plugins.assets import FILTERS
from plugins.operators.sync import SyncOperator
from plugins.params import HOW, choice, flag, number, some_number
from plugins.runbook import cron, of_source

MODES = ["incremental", "backfill", "full", "validate", "snapshot"]
MODE = (
    "Incremental reads what the boards show as changed; backfill history by the report, as far as days_back; full all"
    " of it; validate writes nothing and checks the copy; snapshot keeps the order ro_id as it stands."
)
SHOP = "Tekmetric's id of one shop; empty for all that the connection names."
DAYS = "How far back orders are looked for by the shop's calendar; 0 = as far as there are any."
BOARD = "One board alone, or all: active, posted and complete."
LIMIT = "For a trial: read so many orders at most and leave the others to the next run; 0 = no limit."
ORDER = "Tekmetric's id of one order, to read it alone; with several shops also say which one."
RAW = "Keep what Tekmetric answers about each order in tm_raw_payloads, for 7 days."


@dag(
    **of_source("tekmetric", "sync"),
    schedule=cron("*/10 * * * *"),
    doc_md=__doc__,
    params={
        "mode": choice("incremental", MODES, "Mode", MODE),
        "shop_id": some_number("Shop", SHOP, FILTERS, empty="all"),
        "days_back": number(3, "Days back", DAYS, FILTERS),
        "board": choice("ALL", ["ALL", "ACTIVE", "POSTED"], "Board", BOARD, FILTERS),
        "limit": number(0, "Orders at most", LIMIT, FILTERS),
        "ro_id": some_number("One repair order", ORDER, FILTERS, empty="none"),
        "store_raw": flag(False, "Keep the answers", RAW, HOW),
    },
)
def tekmetric_sync():
    SyncOperator(task_id="sync", source="tekmetric")


if is_installed("tekmetric"):
    tekmetric_sync()
