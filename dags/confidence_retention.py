"""
# Retention: drop what is old

Drops the rows of the warehouse that are older than the table `confidence.retention` says: logs, scans, plans and other
records of what happened. Rows of the copies are never dropped.

**When:** every day at 12:40 UTC, away from the nightly runbooks. It may run beside them: it drops a few thousand rows
per transaction, skips rows that others have locked, and waits 5 seconds at most for a table.

**How long:** see `SELECT * FROM confidence.retention`. Change `days` by UPDATE. What a rollback, a stopped writer, an
open question, a baseline or an unfinished repair needs is kept however old it is.

## If `expire` fails
The message names the rows of `confidence.retention` that could not be applied, such as one of a table that is gone.
All other rows were. Correct or delete what it names. If it names a lock or a time limit, the next run goes on.
"""

from airflow.sdk import dag

from plugins.failures import DEFAULT_ARGS
from plugins.operators.expire import ExpireOperator
from plugins.runbook import cron


@dag(
    dag_id="confidence_retention",
    doc_md=__doc__,
    schedule=cron("40 12 * * *"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    tags=["confidence", "retention"],
)
def confidence_retention():
    ExpireOperator(task_id="expire")


confidence_retention()
