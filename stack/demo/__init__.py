"""The demo: nights of the runbook on invented data, shown on screen, each step checked; a scenario for each source.

Every figure is read from the running system: the simulators, the databases, Airflow's API. The first one that is not
as it should be ends the demo with `Unexpected`.
"""

import os
import signal
import time
from contextlib import closing

import psycopg
import requests
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from stack.airflow import Airflow
from stack.control import Stack
from stack.demo import flex, repairshopr, square, storage, tekmetric
from stack.demo.steps import Demo
from stack.guardian import StackError
from stack.settings import SIMULATORS

# By source, in the order in which they are played. The first one explains the runbook.
SCENARIOS = {
    "repairshopr": repairshopr.play,
    "square": square.play,
    "storage": storage.play,
    "tekmetric": tekmetric.play,
    "flex": flex.play,
}

# Of the lines in a file or a pipe, which has no width of its own.
PLAIN_WIDTH = 110


def run(stack: Stack, *, once: bool) -> int:
    """Play the demo on the stack, started if it doesn't run; return the exit code.

    Afterwards a stack that was started here stays up until Ctrl-C, or ends at once with `once`. One that ran before
    goes on. Raises StackError, Unexpected among them, after ending what was started.
    """
    refuse_what_is_real("the demo")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen.width = PLAIN_WIDTH
    ran_before, played = stack.runs, False
    try:
        if not ran_before:
            _start(stack, screen)
        os.environ |= {name: stack.env[name] for name in ("NO_PROXY", "no_proxy")}
        _print_address(stack, screen)
        play(stack, screen)
        played = True
        _print_address(stack, screen)
        if ran_before:
            screen.print("The stack ran before and goes on: `make down` ends it.")
        elif not once:
            screen.print("Ctrl-C ends everything.")
            _wait_for_the_end(stack)
    except KeyboardInterrupt:
        screen.print("Ending.")
        return 0 if played else 130
    except (requests.RequestException, psycopg.OperationalError, BotoCoreError, ClientError) as error:
        raise StackError(
            f"a part of the stack doesn't answer ({type(error).__name__}): see {stack.home.logs}"
        ) from error
    finally:
        if not ran_before:
            stack.stop()
    return 0


def play(stack: Stack, screen: Console) -> None:
    """Play all scenarios. Raises Unexpected at the first outcome that is not as it should be."""
    started = time.monotonic()
    airflow = Airflow(stack.api_url, "admin", stack.password("admin"))
    with closing(psycopg.connect(stack.warehouse_url, autocommit=True)) as warehouse:
        for source, scenario in SCENARIOS.items():
            if source in stack.sources:
                scenario(Demo(source, airflow, warehouse, screen), stack)
    screen.rule(f"Everything was as it should be, in {time.monotonic() - started:.0f} s")


def refuse_what_is_real(who: str) -> None:
    """Raise StackError if a setting names what may be real: `who` damages what it works on."""
    connections = [
        "warehouse",
        "notifications",
        *(name for simulator in SIMULATORS.values() for name in simulator.connections),
    ]
    variables = [f"AIRFLOW_CONN_{name.upper()}" for name in connections]
    named = [name for name in variables if name in os.environ]
    if named:
        raise StackError(f"{who} damages what it works on, and {' and '.join(named)} may be real: unset it first")


def _start(stack: Stack, screen: Console) -> None:
    with screen.status("starting Postgres, the simulators and Airflow"):
        for line in stack.start(owned=True):
            screen.print(f"[dim]{line}[/]")


def _wait_for_the_end(stack: Stack) -> None:
    while stack.runs:
        time.sleep(1)
    raise StackError(f"the stack ended by itself: see {stack.home.logs}")


def _print_address(stack: Stack, screen: Console) -> None:
    screen.print(f"Airflow: {stack.api_url}  user admin, password {stack.password('admin')}", markup=False)
