"""
# Watch: notice what does not move

Reports what no task can report, because its run has ended, was deleted or does not move. It compares the
warehouse (fence, holds, scans, repairs) with Airflow for each source that `SYNC_CONFIDENCE_SOURCES` names, and changes
nothing.

**When:** every 5 minutes. People are told of a finding once two passes, at least 4 minutes apart, have seen it; so
the work of a run that is under way is no finding. Each finding is sent once until it is gone. The pages under *Sync
confidence* show it too.

## What `watch` finds
- The writer is stopped, and the run that stopped it has ended, was deleted, or was marked by hand.
- The writer is stopped, and its DAG is paused, or the run does not move.
- A connection of the source is missing, so the source is not configured.
- The writer's pool is missing, is closed over a writer that runs, is open over one that is stopped, or has other slots
  than one.
- The sync or the runbook of a source that has been synced is paused.
- A run looks well, but has not scanned everything, or its repair failed, or nobody has judged its scans.
- A repair was applied, and nobody has verified it.
- A row of the sync log is open, but its run has ended.

Each message names one next step. Nothing is told while a question waits in `decide`, or if people know already: from
the message of a failed run, or by their own answer.

## If `watch` fails
The message names what it could not look at: a connection, or a source whose row is missing in the warehouse. People are
told once until a later run succeeds. If the scheduler itself is down, nothing watches: let your monitoring look at the
metric `sync_confidence_watch_timestamp_seconds`.
"""

from airflow.sdk import dag

from plugins.failures import DEFAULT_ARGS
from plugins.operators.watch import WatchOperator
from plugins.runbook import cron


@dag(
    dag_id="confidence_watch",
    doc_md=__doc__,
    schedule=cron("*/5 * * * *"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    tags=["confidence", "watch"],
)
def confidence_watch():
    WatchOperator(task_id="watch")


confidence_watch()
