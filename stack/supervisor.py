"""Starts the stack in its order, tells when it is ready, and watches it until its end."""

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg

from include.confidence import messages, outbox
from include.sources.installed import left_out_sources
from include.sources.pools import declared_pools
from stack.guardian import Family, StackError, guarded
from stack.ports import LOOPBACK
from stack.postgres import Server
from stack.prepare import (
    AIRFLOW_MIGRATION,
    WAREHOUSE_MIGRATION,
    create_missing_pools,
    metadata_url,
    metadata_version,
)
from stack.readiness import ReadinessCheck
from stack.settings import (
    Home,
    Ports,
    Secrets,
    api_url,
    environment,
    simulated,
    simulator_command,
    simulator_environment,
    write_private,
)

# The parts of Airflow, and the module that runs each.
AIRFLOW = {
    "api-server": "stack.command",
    "scheduler": "stack.preloaded",
    "dag-processor": "stack.preloaded",
    "triggerer": "stack.local_logs",
}
READY_SECONDS = 300.0


def run(home: Home, api_port: int, owner: int | None = None) -> int:
    """Run the stack of `home` until somebody asks for its end (code 0) or a part of it fails (code 1).

    `api_port`: where Airflow's UI and API listen, or the next free port; 0 = any. `owner`: see `guarded`.
    """
    home.logs.mkdir(parents=True, exist_ok=True)
    with home.lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"stack: {home.folder} is in use by a running stack: `python -m stack down` ends it")
            return 1
        # Worker and guardian share the lock: it is free when both are gone.
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        home.state.unlink(missing_ok=True)
        postgres = home.postgres(os.environ)
        try:
            work = partial(_supervise, home=home, postgres=postgres, api_port=api_port)
            code = guarded(work, home.logs, postgres, owner)
            if not code:
                home.ended.unlink(missing_ok=True)
            return code
        finally:
            home.state.unlink(missing_ok=True)


def _supervise(family: Family, home: Home, postgres: Server, api_port: int) -> None:
    simulators = simulated(os.environ)
    crash = home.ended.read_text() if home.ended.exists() else None
    if crash:
        _tell(f"the last time it ended without being told to: {crash}")
    postgres.start()
    if postgres.pid:
        family.adopt("postgres", postgres.pid)
    ports = Ports.choose(api_port)
    if api_port and ports.api != api_port:
        _tell(f"port {api_port} is busy: Airflow listens on {ports.api}")
    process_environment = environment(home, ports, postgres, os.environ)
    for name in simulators:
        command = simulator_command(name, home, ports, postgres, os.environ)
        family.start(name, command, simulator_environment(name, postgres, process_environment))
    _prepare(family, home, process_environment)
    if crash:
        _note(messages.of_crash(crash, api_url(ports)), process_environment["AIRFLOW_CONN_WAREHOUSE"])
    since = datetime.now(UTC)
    for name, module in AIRFLOW.items():
        family.start(name, [sys.executable, "-m", module, name], process_environment)
    _wait_until_ready(family, home, ports, process_environment, since)
    write_private(home.state, json.dumps(asdict(ports)))
    _tell(f"ready: {api_url(ports)}")
    _watch(family, home)


def _note(event: messages.Event, warehouse: str) -> None:
    """Leave the event to the next task that tells people something; the watch is one every few minutes."""
    with psycopg.connect(warehouse, connect_timeout=10) as conn:
        outbox.note(conn, event)


def _watch(family: Family, home: Home) -> None:
    """Wait until the end. The note for the next start says that the stack was killed, unless a part died.

    An end that somebody asked for removes the note.
    """
    write_private(home.ended, f"after {_now()} it was killed as a whole, or the machine was lost")
    while True:
        try:
            family.wait()
        except StackError as error:
            write_private(home.ended, f"at {_now()}, since {error}")
            raise


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _prepare(family: Family, home: Home, process_environment: Mapping[str, str]) -> None:
    """Migrate both databases and create missing pools; Airflow's migration only when something changed."""
    url = metadata_url(process_environment)
    migrated = home.airflow / "migrated"
    if not migrated.exists() or migrated.read_text() != metadata_version(url):
        _tell("bringing Airflow's metadata up to date")
        family.run("airflow-migrate", AIRFLOW_MIGRATION, process_environment)
        migrated.write_text(metadata_version(url))
    family.run("warehouse-migrate", WAREHOUSE_MIGRATION, process_environment)
    create_missing_pools(url, declared_pools())


def _wait_until_ready(
    family: Family, home: Home, ports: Ports, process_environment: Mapping[str, str], since: datetime
) -> None:
    _tell("waiting for Airflow")
    for name in simulated(os.environ):
        _wait(family, lambda name=name: None if _listens(ports.simulators[name]) else f"simulator {name}")
    airflow = ReadinessCheck(api_url(ports), Secrets.of(home).passwords["admin"])
    dags = Path(process_environment["AIRFLOW__CORE__DAGS_FOLDER"])
    without = {f"{source}_{job}.py" for source in left_out_sources() for job in ("sync", "reconcile")}
    _wait(family, lambda: airflow.missing(dags, since, without))


def _wait(family: Family, missing: Callable[[], str | None]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while what := missing():
        if time.monotonic() > deadline:
            raise StackError(f"not ready after {READY_SECONDS:.0f} s, still waiting for {what}: see the logs")
        family.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def _tell(line: str) -> None:
    print(f"stack: {line}", flush=True)
