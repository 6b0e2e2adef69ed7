"""
# Flex: keep the crew calls equal to our assignments

Brings the crew calls in Flex of every job whose crew changed to the desired crew: who has an explicit role in the crew
call's department (`flex.job_assignments`), whatever the state of the invitation. Adds and removes lines, and writes
business roles, for those who stay too. Here the warehouse is the truth and Flex the copy: a wrong write is seen by a
crew.

**When:** every 5 minutes, for the jobs that `flex.job_change` names: assignments, crew calls, profiles and job types
note themselves there. The first sync of all brings every job that isn't over in step.

**Writes:** lines and business roles in Flex, and here `flex.flex_crew_assignments`, a row of `flex.flex_sync_log` for
each job and department, an audit row for each change in `confidence.change_log`, one row in `confidence.sync_log`.
Every write to Flex is in `flex.operation` before it is sent. Undo a run with `warehouse_rollback` and its `sync_id`:
people who are still assigned come back with their next change, or with the next `flex_reconcile`.

**Never:** a line that we did not make is deleted; people's own contacts are reported. An add is made once. Every write
is proven by a read, whatever its answer was. Flex has two lists of a crew call, its rows and its own record: nothing is
written unless they agree, and a line of ours is gone only if its own address answers 404 too. A person whose contact or
crew call changed is added at the new place before the old line is deleted.

**Orphans**, lines of ours that no row of ours leads to, are deleted last, and a failure there doesn't fail the sync.
`FLEX_SYNC_PRUNE_ORPHANS` (an Airflow Variable, or the environment of Airflow's workers) set to `false` keeps them.

**While it waits** in `scheduled`: the pool `flex_writer` has 0 slots because `flex_reconcile` has stopped the writer;
the pool's description says which run. It continues by itself after the resume.

**Mode `validate`** writes nothing: it checks our tables. A technician twice on a crew call and a missing unique key
fail it, recent failures and stale rows are only reported.

**The result** is the XCom `result` of `sync`, and one line of JSON in its log.

## If `sync` fails
Every crew call that its message does not name is in step. The others are tried again by the next run.
- *answered 4..*, nothing happened: Flex refused a contact, a deletion or a role. See whether the contact's id in the
  profile is right, and whether it still exists in Flex.
- *a fresh read does not show it*: Flex said that a deletion or a role was done, and still shows the old state. Nothing
  was counted as done; the next run tries again.
- *could not be read*: Flex shows something that can't be relied on; the message says what. Nothing was written there,
  and `confidence.unproven` names the crew call. If the next runs say the same, look at the crew call in Flex.
- *stays on element*: a person left this crew call for another one and could not be added there yet. The line stays
  until they are; the message about the other crew call says why.
- *the unique key ... is missing*: nothing was asked of Flex. Run `warehouse_migrate`, which puts the key back.
- *has several lines*: a contact is on the crew call twice. Delete all but one in Flex.
- *is uncertain*: nobody knows whether a write happened. Look at the crew call in Flex, then run this DAG with
  `release_element`: what Flex shows then is taken for what happened. A line whose add was never answered counts as a
  person's: it stays when nobody wants it any more, so delete it in Flex yourself.
- *is busy*: another run is at work there. Nothing to do.
- *check connection*: mend the connection `flex`, then clear the task.
- *was not sent*: the quota of requests is used up. It goes on by itself; if it doesn't, see the connection's extra.
- *writer is stopped*: somebody opened the pool by hand. Answer `decide` of the run that the message names.
"""

from airflow.sdk import dag

from include.sources.installed import is_installed
from plugins.assets import FILTERS
from plugins.operators.sync import SyncOperator
from plugins.params import choice, several, some_uuid
from plugins.runbook import cron, of_source

MODE = (
    "Incremental looks at the jobs whose crew changed, full at all that aren't over; validate writes nothing and"
    " checks our tables."
)
RELEASE = (
    "The id of an uncertain crew call in Flex: take what it shows now for what happened, then bring it in step. Look"
    " at it in Flex first."
)
ASKED_BY = "The id of the profile of the person who asks for it; it is kept in flex.flex_sync_log."


@dag(
    **of_source("flex", "sync"),
    schedule=cron("*/5 * * * *"),
    doc_md=__doc__,
    params={
        "mode": choice("incremental", ["incremental", "full", "validate"], "Mode", MODE),
        "release_element": some_uuid("Release a crew call", RELEASE),
        "triggered_by": some_uuid("Asked for by", ASKED_BY),
        "job_id": some_uuid("Job", "Only this job, changed or not, over or not.", FILTERS),
        "departments": several(
            ["sound", "lights"], "Departments", "Only crew calls of these departments; empty = all.", FILTERS
        ),
    },
)
def flex_sync():
    SyncOperator(task_id="sync", source="flex")


if is_installed("flex"):
    flex_sync()
