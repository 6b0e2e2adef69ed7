"""The drills: what on-call may meet, in the words of the runbook docs/drills.md, which is made from here.

A test that plays a drill has the mark `@pytest.mark.drill("<name>")`, with several names if it plays several.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Drill:
    """One thing that on-call may meet. `seen`, `click` and `holds` are Markdown, of whole sentences.

    - `name`: the name in the tests' marks
    - `seen`: what a person sees, with the message's own words
    - `click`: what to do, step by step; also where it is nothing
    - `holds`: what must be true afterwards
    """

    name: str
    title: str
    seen: str
    click: str
    holds: str


@dataclass(frozen=True)
class NotDrilled:
    """Something that no test here can play: `why`, and what stands in for it."""

    what: str
    why: str


KILLED = (
    Drill(
        "killed-stop",
        "`stop_writer` is killed",
        seen="`stop_writer` is `up_for_retry`, or failed after its third try. The pool `<source>_writer` may be at 0"
        " slots for a moment.",
        click="Nothing: a retry goes on with the same stop. If all tries failed, clear `stop_writer` with downstream.",
        holds="The writer does not stand in silence: if the fence was not closed, `report` opens the pool again.",
    ),
    Drill(
        "killed-scan",
        "A scan is killed",
        seen="`scan` is `up_for_retry`. The new try's log begins with *going on from page*.",
        click="Nothing. If all three tries failed, clear `scan` with downstream.",
        holds="The figures are those of a scan that nobody interrupted: no row is counted twice and none left out."
        " Nothing was written to the copy. The writer runs again at the end.",
    ),
    Drill(
        "killed-step",
        "`gate_check`, `decide`, `verify`, `resume_writer` or `report` is killed",
        seen="The step is `up_for_retry`, then goes on.",
        click="Nothing. If all tries failed, do what the end of the log of `report` says.",
        holds="The verdict is given once, the repair is applied once, and the writer runs once the run has ended.",
    ),
    Drill(
        "killed-repair",
        "The repair is killed (mirrors, storage)",
        seen="`reconcile` is `up_for_retry`. A retry may wait up to a minute for the lock of the session that was"
        " lost.",
        click="Nothing. If all tries failed: *repair failed* says that nothing was applied; clear `scan` with"
        " downstream. Storage: if the log says *compare its entries in confidence.change_log with the images*, do"
        " that first.",
        holds="All of the plan is in the copy, or nothing of it. Each change is in `confidence.change_log` once.",
    ),
    Drill(
        "killed-repair-flex",
        "A sync or repair of Flex is killed",
        seen="`sync` or `reconcile` is tried again. If a request was on its way: *the outcome of the repair is"
        " unknown*, the writer is held, and the job's crew call is left alone.",
        click="Nothing, if the retry succeeds. Else look at the crew call in Flex, then trigger `flex_sync` with its"
        " id as `release_element`: what Flex shows then is taken for what happened. Then clear `scan` with"
        " downstream.",
        holds="No technician is on a crew call twice, and none is taken off twice. A line is ours only if it is"
        " proven.",
    ),
    Drill(
        "killed-sync",
        "A sync is killed",
        seen="`sync` is `up_for_retry`. A first load goes on from the page that it had reached.",
        click="Nothing: the retry, or the next run, brings the rest.",
        holds="Rows and watermark moved together: no change is lost, and none is applied twice.",
    ),
    Drill(
        "killed-rollback",
        "`warehouse_rollback` is killed",
        seen="The task `rollback` failed. The row of the rollback in `confidence.sync_log` is `failed` or open.",
        click="Trigger it again with the same `sync_id`, first as a dry run: it says what is still to be undone.",
        holds="The copy is as before the rollback, or as after it.",
    ),
    Drill(
        "killed-worker",
        "A worker, or its machine, is lost",
        seen="Its tasks stay `running` without a new line in their logs, for up to 5 minutes. Tasks that it had taken"
        " but not begun stay `queued`, for up to 12 minutes.",
        click="Nothing. Start a new worker if none is left.",
        holds="The tasks run again on another worker, nothing is lost or doubled, and nobody is told of the lost try.",
    ),
    Drill(
        "frozen-worker",
        "A worker freezes, or is cut off, and comes back",
        seen="Its task was tried again elsewhere. The log of the earlier try ends with *was stopped or rolled back"
        " since this task began*.",
        click="Nothing. If a repair fails with *is still at work*: restart the frozen worker, then clear `scan` with"
        " downstream.",
        holds="What comes back late writes nothing: one writer at a time. Nobody is told of it.",
    ),
    Drill(
        "killed-scheduler",
        "The scheduler is killed",
        seen="Airflow's UI shows no heartbeat of the scheduler; nothing new begins. The embedded stack ends as a"
        " whole.",
        click="Compose restarts it by itself. Of the embedded stack: `make up`.",
        holds="The run goes on where it was, with the figures that it would have had.",
    ),
    Drill(
        "killed-part",
        "Triggerer, DAG processor or API server is killed",
        seen="Triggerer, DAG processor: nothing for now, as no task here defers and all DAGs are known. API server:"
        " the UI is gone, tasks can't report and are tried again. The embedded stack ends as a whole.",
        click="Compose restarts it by itself. Of the embedded stack: `make up`.",
        holds="The run goes on where it was, with the figures that it would have had. No question is asked twice.",
    ),
    Drill(
        "killed-redis",
        "Redis is gone",
        seen="Running tasks go on. New ones stay `queued`.",
        click="Bring Redis back. Nothing else.",
        holds="No task is lost.",
    ),
    Drill(
        "killed-backend",
        "One session of Postgres is killed (`kill -9` of a backend)",
        seen="Postgres restarts all of its sessions; tasks fail with *server closed the connection unexpectedly* and"
        " are tried again. Never use `kill -9` on Postgres: `SELECT pg_terminate_backend(pid)` ends one session"
        " alone.",
        click="Nothing: staged rows are gone, so a scan begins again.",
        holds="The copy has all of a sync or repair, or nothing. The next try ends as if nothing had happened.",
    ),
    Drill(
        "killed-postgres",
        "Postgres is killed",
        seen="Tasks fail with *connection refused* and are tried again. Messages may be sent twice"
        " meanwhile, since the record of sent messages is in the warehouse.",
        click="Bring Postgres back. If the tries were used up by then, clear the step that `report` names.",
        holds="Rows and watermarks agree, nothing is lost or doubled, and the writer runs at the end.",
    ),
)

DATABASE = (
    Drill(
        "disk-full-staging",
        "The warehouse's disk is full while rows are fetched",
        seen="*sync failed* or *scan failed or incomplete*, with *its disk is full: make room, then clear the task*.",
        click="Make room ([how long things are kept](operating.md#how-long-things-are-kept)), then clear `sync`, or"
        " `scan` with downstream.",
        holds="The copy and its watermarks are as before. The next try brings everything.",
    ),
    Drill(
        "disk-full-merge",
        "The warehouse's disk is full while a sync or repair is applied",
        seen="*sync failed* or *repair failed*, with *its disk is full: make room, then clear the task*.",
        click="Make room. A sync goes on by itself. After a repair clear `scan` with downstream.",
        holds="Nothing of it was applied, and no request was sent to Flex that nobody has written down.",
    ),
    Drill(
        "disk-full-metadata",
        "The disk of Airflow's own database is full",
        seen="Airflow's UI fails or shows no new states. The scheduler ends; the embedded stack ends as a whole.",
        click="Make room, then start what has ended (`docker compose up --detach`, or `make up`).",
        holds="The run goes on. If it can't, `confidence_watch` tells that its writer stands.",
    ),
    Drill(
        "connections-used-up",
        "Postgres takes no more connections",
        seen="Tasks fail with *too many connections for role*. The message says *the connection to the database was"
        " refused or lost*.",
        click="`SELECT application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2` shows who has them. End"
        " what is idle, or raise the limit. Then clear the step that `report` names; a sync goes on by itself.",
        holds="A stop that could not be made leaves the pool open and the writer running. Nothing was written.",
    ),
    Drill(
        "locked-table",
        "Somebody's `psql` holds a lock",
        seen="A sync or repair stands still, for 15 minutes at most. Then *a row or table stayed locked for too"
        " long*. Of `stop_writer`: *the writer did not stop in time*, with the session's name.",
        click="Find the session: `SELECT pid, usename, query, pg_blocking_pids(pid) FROM pg_stat_activity`. Let its"
        " owner commit, or end it with `SELECT pg_terminate_backend(<pid>)`. Then clear the task.",
        holds="Nothing was written while it was locked. A row that somebody was changing is left alone and counted as"
        " superseded.",
    ),
    Drill(
        "long-transaction",
        "Somebody's `psql` has had a transaction open for hours",
        seen="Nothing. Reading in an open transaction hinders no sync, scan, repair or rollback; it only keeps old"
        " rows from being cleaned up.",
        click="Nothing tonight. Ask its owner to end it; `xact_start` in `pg_stat_activity` says since when.",
        holds="All steps end as usual, and the open transaction still sees the copy as it was.",
    ),
    Drill(
        "read-only",
        "The warehouse has failed over to a standby that takes no writes",
        seen="*sync failed* or *scan failed or incomplete*, with *it takes no writes, as a standby does: point the"
        " connection to the primary, then clear the task*.",
        click="Point the connection `warehouse` to the primary, or promote the standby. Then clear the step that"
        " `report` names.",
        holds="Nothing was written anywhere, also not to Flex or to the images. The next sync brings everything.",
    ),
    Drill(
        "warehouse-gone-at-end",
        "Warehouse or Airflow's API is out of reach when a run ends",
        seen="*the warehouse or Airflow's API could not be reached at the end of a run*. The writer stays stopped.",
        click="Bring back what can't be reached, then clear `resume_writer` with downstream.",
        holds="The writer does not run before somebody knows that it may. It runs after the clear.",
    ),
    Drill(
        "vendor-unreachable",
        "The vendor is out of reach: network cut, no answer, answers cut short",
        seen="*sync failed* with the request that got no answer. At night *scan failed or incomplete*.",
        click="Nothing: the next sync tries again by itself. A failed scan: clear `scan` with downstream once the"
        " vendor is back, or wait for the next night.",
        holds="No answer is taken for *not there*: nothing is deleted, watermarks stay, and the next sync catches up.",
    ),
    Drill(
        "answer-lost",
        "The vendor got our request, and its answer was lost (Flex)",
        seen="*the outcome of the repair is unknown*: the writer is held. Or *sync failed*, with the crew call that"
        " is uncertain.",
        click="Nothing, for a sync: the next one looks at Flex and settles it if it can. Else look at the crew call"
        " in Flex, then trigger `flex_sync` with its id as `release_element`.",
        holds="The request is never sent again blindly: nobody is on a crew call twice.",
    ),
    Drill(
        "bucket-unreachable",
        "The bucket is out of reach",
        seen="*scan failed or incomplete* with *Check endpoint_url of* connection 'storage'.",
        click="Bring the store back, or mend the connection `storage`. Then clear `scan` with downstream.",
        holds="No image is marked as missing. A single object that gives no answer is named as unproven.",
    ),
    Drill(
        "dns-gone",
        "Names can't be resolved",
        seen="As if the host were gone: *sync failed* (vendor), *Check endpoint_url* (bucket), *the connection to the"
        " database was refused or lost* (warehouse).",
        click="Bring DNS back. A sync goes on by itself; else clear the step that `report` names.",
        holds="Nothing was written, and no absence was concluded.",
    ),
    Drill(
        "tls-expired",
        "A TLS certificate has expired",
        seen="The task fails at once, without a retry: *no trusted TLS connection*, *Check host and certificate of"
        " connection*.",
        click="Have the certificate renewed (vendor or store), or mend the clock of this machine if that is what is"
        " wrong. Then clear the task. Don't switch the check off.",
        holds="No token was sent to a server that is not proven to be the vendor's. Nothing was written.",
    ),
    Drill(
        "html-proxy",
        "A proxy answers with a page of its own",
        seen="*sync failed* or *scan failed or incomplete*: the answer is no JSON. A 404 with a page counts as no"
        " answer, not as *gone*.",
        click="Let the network's people mend the proxy. Then clear the task.",
        holds="Nothing is deleted by the word of a proxy.",
    ),
    Drill(
        "messages-down",
        "The service that sends the messages is down",
        seen="Tasks go on; the log of each has one warning.",
        click="Bring the service back. For a day each later task sends what waits.",
        holds="Each event is told once, late.",
    ),
)

VENDOR = (
    Drill(
        "token-revoked",
        "The token, or the bucket's keys, were revoked",
        seen="The task fails at once, without a retry: the vendor answered 401; *Check* the named connection. It is"
        " told once, not with each sync.",
        click="Put the new token into the connection (Admin, Connections). The next sync goes on by itself. After a"
        " failed scan clear `scan` with downstream.",
        holds="Nothing was written. After the new token the copy catches up from its old watermark.",
    ),
    Drill(
        "right-lost",
        "The token has lost the right to one list",
        seen="*sync failed*, with the one entity that was refused. All others are synced.",
        click="Have the right granted again, then clear the task. At night: clear `scan` with downstream.",
        holds="The refused list keeps its watermark and its rows: a refusal is no empty list.",
    ),
    Drill(
        "quota-used-up",
        "The quota of requests is used up",
        seen="*sync failed*, with the quota's figures and the connection's name. The task does not wait for hours"
        " with the writer's slot.",
        click="Nothing: the next sync goes on. If it happens daily, raise `requests_per_hour` or `requests_per_day`"
        " in the connection's extra, if the vendor allows more.",
        holds="No request goes over the quota. What was left waiting longest has its turn first.",
    ),
    Drill(
        "maintenance",
        "The vendor is in maintenance for six hours",
        seen="*sync failed*, once, although 24 syncs fail; then error rate and freshness *above its limit*, once"
        " each. At night *scan failed or incomplete*.",
        click="Nothing. Once the vendor is back, clear `scan` of the failed night with downstream, or wait for the"
        " next.",
        holds="The first sync afterwards brings everything of the six hours. The writer was never left stopped.",
    ),
    Drill(
        "restored-backup",
        "The vendor has restored yesterday's backup: everything is older than our copy",
        seen="Syncs bring little or nothing. For a day the nights fail: the source shows older versions than before, as"
        " a replica does that lags behind (*rows could not be proven*). Then the writer is held: the repair would"
        " update or delete so many rows, *above its limit*.",
        click="Ask the vendor first. If the old state is what now counts: *Repair, then resume*. If they restore the"
        " newer state later: *Keep stopped* until then. If repaired by mistake: roll back the `sync_id`.",
        holds="No row of our copy is overwritten by an older one before a person has said so.",
    ),
    Drill(
        "empty-answers",
        "The vendor, or the bucket, shows nothing at all",
        seen="*scan failed or incomplete*, or the writer is held at once.",
        click="Don't repair. Find out whether the account, the filter or the bucket's name has changed.",
        holds="Nothing is deleted or marked because a list was empty.",
    ),
)

TIME = (
    Drill(
        "clock-off",
        "This machine's clock, or the vendor's, is wrong",
        seen="Ten minutes: nothing. The bucket refuses at a quarter of an hour or more: *the clock* is named in the"
        " message.",
        click="Mend the clock (`chronyc tracking`). Nothing in the copy has to be mended.",
        holds="No change is lost: watermarks come from the source's own times, with an overlap, and never lie ahead.",
    ),
    Drill(
        "daylight-saving",
        "Clocks go forward or back",
        seen="Nothing. All schedules are in UTC: no run is left out or doubled, but by local time they move an hour.",
        click="Nothing.",
        holds="An order counts on the day of its shop, by the shop's own zone, also in the hour that is there twice.",
    ),
    Drill(
        "leap-day",
        "29 February",
        seen="Nothing.",
        click="Nothing.",
        holds="Days, months and retention count it as one day.",
    ),
    Drill(
        "two-deployments",
        "Two deployments work on one warehouse",
        seen="Steps fail with *has been stopped by* a run that this Airflow does not know. Syncs wait.",
        click="Stop one deployment: `docker compose stop scheduler worker` there. In the other clear `stop_writer` of"
        " the run with downstream.",
        holds="One of them writes at a time, and a drift is repaired once. A rule remains: one deployment a warehouse.",
    ),
    Drill(
        "upgrade-in-between",
        "Code and schema are upgraded between a failure and the rerun",
        seen="The cleared step begins again, or refuses: *this code reads*, *clear scan with downstream*.",
        click="Clear `scan` with downstream. Nothing from before the upgrade is used.",
        holds="The next scan is clean; older syncs can still be rolled back.",
    ),
    Drill(
        "downgrade-refused",
        "Older code is started on a newer warehouse",
        seen="Start-up ends: *the warehouse is at revision ..., which this version does not know*. Nothing was"
        " changed.",
        click="Start the newer version again. To go back, restore the backup that was made before the upgrade.",
        holds="The warehouse is as it was.",
    ),
    Drill(
        "warehouse-restored",
        "Our own warehouse was restored from a backup",
        seen="Syncs go on from the backup's watermark. The next runbook finds what no sync brings, and may hold.",
        click="Trigger `<source>_reconcile`. With Flex first pause `flex_sync`"
        " ([operating.md](operating.md#backup-and-restore)).",
        holds="Copies come in step again. Syncs from before the backup can still be rolled back.",
    ),
)

CLICKS = (
    Drill(
        "marked-task",
        "A task is marked as success or failed by hand",
        seen="The next step refuses (*was not judged: gate_check did not get to its end*), or `report` fails the run:"
        " *`<step>` was not done, although no task failed*.",
        click="Clear the step that the message names, with downstream.",
        holds="Nothing is repaired without a verdict on exactly its scans. The run is red, and it is told once.",
    ),
    Drill(
        "marked-run",
        "A whole run is marked as success or failed by hand",
        seen="Marked failed: the writer runs again, the run is red. Marked success in the middle: `report` fails it"
        " all the same, and a held writer stays stopped.",
        click="Clear the step that the message names, with downstream. If the writer is held: *Ask me again* on the"
        " page of the source.",
        holds="A green run has done all its steps. A writer that stands is told: *the writer is stopped, and nobody"
        " is at work on it*.",
    ),
    Drill(
        "cleared-task",
        "A task is cleared, with downstream or without",
        seen="`stop_writer` and `resume_writer` run again by themselves. `gate_check` or `reconcile` may refuse:"
        " *Clear scan (all of its map indexes) with downstream*.",
        click="Do what it says.",
        holds="Stop, step, resume in this order. A plan is applied once, and only where its rows are as scanned.",
    ),
    Drill(
        "cleared-only-failed",
        "A run is cleared with *Only failed*",
        seen="The step refuses at once: *not stopped by this run*, *clear stop_writer with downstream*.",
        click="Clear `scan` with downstream, without *Only failed*. After a kept hold: clear `decide` with downstream.",
        holds="No scan or repair runs beside the writer.",
    ),
    Drill(
        "cleared-old-run",
        "A step of an older run is cleared while another run is at work",
        seen="The older run waits, or refuses: *that run is still at work*.",
        click="Let the run at work end, or answer its question. Then clear the older run again, if it is still of use.",
        holds="The writer stays with the run at work. Two runs never overlap.",
    ),
    Drill(
        "paused",
        "A DAG is paused in the middle of a run",
        seen="Within ten minutes: *the writer is stopped, and its DAG is paused*.",
        click="Switch the DAG on again: the page of the source has the link.",
        holds="The run goes on. After that the finding is gone.",
    ),
    Drill(
        "deleted-run",
        "A run is deleted",
        seen="Within ten minutes, if its writer stands: *the writer is stopped, and nobody is at work on it*, *that"
        " run is not in Airflow*.",
        click="Trigger `<source>_reconcile`: it takes the stop over, with its hold, and asks again.",
        holds="The hold outlives its run. The writer runs once it is answered.",
    ),
    Drill(
        "deleted-dag",
        "A DAG is deleted in the UI",
        seen="It is back within minutes, without its runs. If its writer stood: as for a deleted run.",
        click="Trigger `<source>_reconcile`.",
        holds="Copies, holds, verdicts and the log are in the warehouse, and all there.",
    ),
    Drill(
        "edited-pool",
        "The writer's pool is edited",
        seen="Within ten minutes: *the writer's pool is open, although it is stopped*, *is closed, although it is not"
        " stopped*, or *is not as declared*.",
        click="Set the slots back to what the message says, or let the next run of the runbook do it.",
        holds="An open pool lets no sync write while the writer is stopped: the sync waits.",
    ),
    Drill(
        "deleted-pool",
        "The writer's pool is deleted",
        seen="Syncs stay `scheduled`. Within ten minutes: *the writer's pool is missing*.",
        click="Trigger `<source>_reconcile`, which creates it again; so does a restart.",
        holds="The waiting sync runs.",
    ),
    Drill(
        "held",
        "A run is held and asks",
        seen="*the writer is held, please decide*, with figures and a link.",
        click="Open the link, look at the plan row by row, answer.",
        holds="Nothing was written before the answer. The answer is kept with who and when. It is told once.",
    ),
    Drill(
        "two-answers",
        "Two people answer a hold at once",
        seen="Airflow refuses the later answer (409). If both come in the same second it may take both, and keeps one.",
        click="Look at *decided by* and the decision on the page of the run: that is the one that counts. If it is"
        " the wrong one: a repair can be rolled back by its `sync_id`; after *Keep stopped* clear `decide` with"
        " downstream.",
        holds="One decision with one name, and nothing was done but what it says.",
    ),
    Drill(
        "late-answer",
        "Somebody answers after the timeout, or nobody answers",
        seen="*nobody has decided about the hold*. Airflow refuses the late answer.",
        click="Clear `decide` with downstream, or click *Ask me again* on the page of the source; then answer.",
        holds="The writer stays stopped until an answer that was asked for. The late one changed nothing.",
    ),
    Drill(
        "answer-without-right",
        "Somebody answers, or rolls back, without the role for it",
        seen="Airflow refuses the answer, or `decide` fails: *Nothing was decided, the writer stays stopped*.",
        click="Clear `decide` with downstream and let somebody with the role answer.",
        holds="Nothing was decided or changed.",
    ),
    Drill(
        "misspelt-param",
        "A param is misspelt, or can't be used",
        seen="The first task fails and names it: *unknown in the run's conf*. Nobody is told.",
        click="Trigger a new run with the right name.",
        holds="Nothing was stopped, scanned or written.",
    ),
)

REPAIR = (
    Drill(
        "worse-repair",
        "A repair made it worse",
        seen="*the repair made the copy worse*: the writer is held, and the `sync_id` is in the message.",
        click="Roll back that `sync_id` ([how](operating.md#how-to-undo)), mend the cause, then clear `scan` with"
        " downstream.",
        holds="The writer stands until somebody has looked. The rollback gives back each row as it was.",
    ),
    Drill(
        "undone-by-message",
        "A wrong repair is undone with only the message at hand",
        seen="The message: *the repair was applied under sync_id ..., which can be rolled back*.",
        click="Trigger `warehouse_rollback` with this `sync_id`: first as it is (a dry run, which counts), then with"
        " `dry_run` off. It needs nothing else from the run, nor from Airflow's log.",
        holds="Every row and every watermark is as before the repair. The rollback has a `sync_id` of its own and can"
        " be undone too.",
    ),
    Drill(
        "later-sync-in-the-way",
        "A later sync has changed the same rows",
        seen="`warehouse_rollback` refuses and names the later syncs, with examples.",
        click="Roll those back first, newest first. Or set `force`, which overwrites what they wrote.",
        holds="A refused rollback has changed nothing.",
    ),
    Drill(
        "failed-repair",
        "A repair fails half-way",
        seen="*repair failed*.",
        click="Read the log of `reconcile`, mend what it names, clear `scan` with downstream.",
        holds="Nothing of it was applied (Flex: what the log names). The writer runs.",
    ),
)

CHAPTERS: Mapping[str, Sequence[Drill]] = {
    "Something is killed": KILLED,
    "Database and network": DATABASE,
    "The vendor": VENDOR,
    "Time, deployments and upgrades": TIME,
    "What people click": CLICKS,
    "A wrong repair": REPAIR,
}

NOT_DRILLED = (
    NotDrilled(
        "Full disks of every kind",
        "one test fills a real disk of a megabyte. In the others, and under Airflow's own database, a trigger"
        " refuses as Postgres does then (error 53100).",
    ),
    NotDrilled(
        "Postgres killed in each step with each kind of source",
        "it is killed in a sync, a scan and a repair of a mirror, and one of its sessions in a scan and a repair. In"
        " the other steps, and for Flex and storage, the step itself is killed just when it writes.",
    ),
    NotDrilled(
        "Square and Tekmetric under a scheduler",
        "they share the code of RepairShopr, which is played there. Below the scheduler every source is played.",
    ),
    NotDrilled(
        "Containers",
        "the parts are killed in the embedded stack, which ends as a whole; what Compose restarts by itself was read"
        " in `docker-compose.yaml`, not played.",
    ),
    NotDrilled(
        "A network that loses packets in one direction only",
        "it needs a firewall's rights. In its place, answers are lost or cut short, and servers stay silent.",
    ),
    NotDrilled(
        "A real failover to a standby",
        "a second server and a proxy before both would be needed. In its place, sessions refuse writes, and a server"
        " is killed and comes back.",
    ),
    NotDrilled(
        "A machine whose clock is wrong",
        "Postgres, Airflow and the vendor's simulator share the clock of this machine. Our code's own clock is moved"
        " instead; Postgres' is not.",
    ),
    NotDrilled(
        "Six hours of maintenance, in hours",
        "as many syncs as come in six hours fail one after the other.",
    ),
    NotDrilled(
        "The limits of a real vendor",
        "no account of a vendor is at hand: simulators refuse as their documents say.",
    ),
)


def all_drills() -> Iterator[Drill]:
    """Yield the drills of all chapters, in their order."""
    for drills in CHAPTERS.values():
        yield from drills
