"""Where to click when a writer stands or the watch has found something: one sentence and one link for each state."""

from dataclasses import dataclass

from include.confidence.findings import OpenFinding
from include.confidence.watch import Code
from plugins.pages.render import run_ui
from plugins.pages.status import SourceStatus

POOLS, CONNECTIONS = "/pools", "/connections"


@dataclass(frozen=True)
class WayOut:
    """What stands in the way, and the click that leads on.

    `path`: a path of Airflow's UI. It is empty if `asks`: then the click is the form on the source's page that asks
    again about a hold.
    """

    sentence: str
    words: str
    path: str = ""
    asks: bool = False


def of_writer(status: SourceStatus) -> WayOut | None:
    """Return how the stopped writer runs again; None if it runs, or if a question about it waits for an answer."""
    writer, airflow, runbook = status.writer, status.airflow, f"{status.source}_reconcile"
    if not writer.stopped or airflow.decision:
        return None
    if airflow.reconcile and airflow.reconcile.paused:
        return WayOut(
            f"The DAG {runbook} is paused, so no run of it goes on.", f"Switch {runbook} on", f"/dags/{runbook}"
        )
    if airflow.running or airflow.stopper in ("queued", "running"):
        at_the_end = "asks if that still holds the writer" if writer.hold_reason else "lets the writer run again"
        run = f"{runbook}/{airflow.running}" if airflow.running else writer.run
        return WayOut(f"A run is at work: it {at_the_end}.", "See the run", run_ui(run))
    if airflow.stopper is None:
        return WayOut(
            f"The run that stopped the writer is not in Airflow any more. A new run of {runbook} takes it over.",
            f"Trigger {runbook}",
            f"/dags/{runbook}",
        )
    if writer.hold_reason:
        return WayOut("Nobody is asked now.", "Ask me again", asks=True)
    return WayOut(
        f"The run that stopped the writer has ended ({airflow.stopper}), and no task will let it run again.",
        "Clear resume_writer",
        f"{run_ui(writer.run)}/tasks/resume_writer",
    )


def of_finding(finding: OpenFinding) -> WayOut | None:
    """Return the click that the finding's next step begins with; None if `of_writer` has it."""
    runbook = f"{finding.source}_reconcile"
    match finding.code:
        case Code.UNATTENDED:
            return None
        case Code.PAUSED:
            words, path = f"Switch {runbook} on", f"/dags/{runbook}"
        case Code.SWITCHED_OFF:
            words, path = f"Switch {finding.subject} on", f"/dags/{finding.subject}"
        case Code.NOT_CONFIGURED:
            words, path = "Open the connections", CONNECTIONS
        case Code.POOL_CLOSED | Code.POOL_OPEN | Code.POOL_CHANGED:
            words, path = "Open the pools", POOLS
        case Code.POOL_MISSING | Code.UNVERIFIED:
            words, path = f"Trigger {runbook}", f"/dags/{runbook}"
        case Code.UNFINISHED:
            dag = (finding.run or runbook).partition("/")[0]
            words, path = f"Trigger {dag}", f"/dags/{dag}"
        case _:
            words, path = "See the run", run_ui(finding.run)
    return WayOut(finding.what, words, path)
