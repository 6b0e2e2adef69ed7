"""Plant eight causes on a running stack, so that a person can try to answer its questions: `python -m tests.holds`.

It starts the stack in STACK_HOME if it doesn't run, syncs all sources, lets a night pass without drift, plants the
causes, runs the runbooks, and ends when each source asks. The stack stays up. The messages as they were sent are in the
stack's folder. `python -m tests.holds --answers` prints the causes, and what to answer.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from contextlib import closing

import psycopg

from include.sources import get_source
from stack.airflow import ENDED, Airflow, until
from stack.control import Stack
from stack.demo import refuse_what_is_real
from stack.guardian import StackError
from stack.settings import API_PORT, Home
from tests.holds.causes import CAUSES
from tests.notifications import Service

PATIENCE = 600.0
CONNECTION = "notifications"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.holds", description=__doc__.splitlines()[0])
    parser.add_argument("--answers", action="store_true", help="print the causes, and what to answer")
    if parser.parse_args().answers:
        for cause in CAUSES:
            print(f"{cause.source}: {cause.what}\n  {cause.answer}")
        return 0
    stack = Stack(Home.default().folder, api_port=API_PORT)
    try:
        refuse_what_is_real("this trial")
        if not stack.is_ready:
            for line in stack.start(owned=False):
                print(line, flush=True)
        if missing := {cause.source for cause in CAUSES} - set(stack.simulator_urls):
            raise StackError(f"no simulator runs for {', '.join(sorted(missing))}: unset SYNC_CONFIDENCE_SOURCES")
        # What runs on this machine is asked directly.
        os.environ |= {name: stack.env[name] for name in ("NO_PROXY", "no_proxy")}
        airflow = Airflow(stack.api_url, "admin", stack.password("admin"))
        with Service() as service:
            _connect(airflow, service)
            try:
                _hold(stack, airflow)
            finally:
                airflow.call("DELETE", f"/connections/{CONNECTION}")
            messages = [message for message in service.told if "please decide" in message["title"]]
    except StackError as error:
        print(f"holds: {error}", file=sys.stderr)
        return 1
    told = stack.home.folder / "questions.txt"
    told.write_text("\n\n\n".join(f"{message['title']}\n\n{message['message']}" for message in messages) + "\n")
    print(f"{len(messages)} messages: {told}")
    print(f"Airflow: {stack.api_url}  user oncall, password {stack.password('oncall')}")
    return 0


def _connect(airflow: Airflow, service: Service) -> None:
    """Let Airflow send its messages to the service."""
    for known in airflow.call("GET", "/connections?limit=100")["connections"]:
        if known["connection_id"] == CONNECTION:
            raise StackError(
                f"the stack has a connection {CONNECTION!r}, whose people would be told: use another stack"
            )
    airflow.call(
        "POST",
        "/connections",
        json={"connection_id": CONNECTION, "conn_type": "apprise", "extra": service.extra},
    )


def _hold(stack: Stack, airflow: Airflow) -> None:
    """Plant all causes after a good night, and let each source ask."""
    sources = list(dict.fromkeys(cause.source for cause in CAUSES))
    for switch in filter(None, (get_source(source).switch for source in sources)):
        airflow.set_variable(switch, "1")
    print("first sync, and a night without drift", flush=True)
    _all(airflow, {source: airflow.trigger(f"{source}_sync", mode="full") for source in sources}, "sync")
    _night(airflow, sources, dry_run=True)
    print("causes are planted", flush=True)
    with closing(psycopg.connect(stack.warehouse_url, autocommit=True)) as warehouse:
        for cause in CAUSES:
            cause.plant(stack, warehouse)
    nights = {source: max(cause.nights for cause in CAUSES if cause.source == source) for source in sources}
    for night in range(1, max(nights.values())):
        _night(airflow, [source for source in sources if nights[source] > night], dry_run=True)
    for source in sources:
        run_id = airflow.trigger(f"{source}_reconcile", dry_run=False)
        until(lambda: _asks_or_ended(airflow, f"{source}_reconcile", run_id), f"{source} to ask", PATIENCE)  # noqa: B023
        if airflow.state(f"{source}_reconcile", run_id) in ENDED:
            raise StackError(f"{source}_reconcile {run_id} ended without a question; see its log")
        print(f"{source} asks", flush=True)


def _night(airflow: Airflow, sources: list[str], *, dry_run: bool) -> None:
    _all(airflow, {source: airflow.trigger(f"{source}_reconcile", dry_run=dry_run) for source in sources}, "reconcile")


def _all(airflow: Airflow, runs: Mapping[str, str], what: str) -> None:
    """Wait for all runs. Raises StackError for one that fails."""
    failed = [
        run_id for source, run_id in runs.items() if airflow.wait(f"{source}_{what}", run_id, PATIENCE) != "success"
    ]
    if failed:
        raise StackError(f"{', '.join(failed)} of {what} failed; see their logs")


def _asks_or_ended(airflow: Airflow, dag_id: str, run_id: str) -> bool:
    return airflow.tasks(dag_id, run_id).get("decide") == "awaiting_input" or airflow.state(dag_id, run_id) in ENDED


if __name__ == "__main__":
    sys.exit(main())
