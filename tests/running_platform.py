"""One running Airflow for all tests that need a scheduler, and sources that are in step again before each of them."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import psycopg
import pytest

from include.api.client import ApiClient
from include.simulators import storage
from include.simulators.repairshopr import Control, Mutation
from include.sources import get_source
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.sync import sync_entities
from include.warehouse import roles
from stack.airflow import Airflow, until
from stack.control import Stack
from stack.postgres import Postgres
from tests.folders import quick_folder
from tests.images import Images
from tests.notifications import Service

# The source that most tests work with, and its names in Airflow.
SOURCE = "repairshopr"
SYNC, RECONCILE, POOL = f"{SOURCE}_sync", f"{SOURCE}_reconcile", f"{SOURCE}_writer"
WATCH = "confidence_watch"
IMAGES = 300
SETTINGS = {
    # A database of its own: a server that others use too may hold a stack's already.
    "STACK_POSTGRES_URL": "",
    "STACK_REPAIRSHOPR_OPTIONS": "--invoices 120 --customers 40 --no-limit",
    # The simulator's own server, to which faults can be ordered.
    "STACK_STORAGE_OPTIONS": f"--images {IMAGES}",
    # Only the tests start runs, a failed task is tried again soon (a killed server takes seconds to come back), and a
    # lost one is missed soon.
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    # Nobody changes a DAG file, and to read them all again and again takes half a core.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
    # A step follows the one before at once.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
}


@dataclass(frozen=True)
class Writer:
    """The source's writer as people and tasks see it."""

    state: str
    hold_reason: str | None
    slots: int
    epoch: int

    @property
    def runs(self) -> bool:
        return self.state == "running" and self.slots == 1

    @property
    def stands(self) -> bool:
        return self.state == "stopped" and self.slots == 0


class Platform:
    """The running stack: Airflow, the warehouse, the shop and the images, and the service that people are told by."""

    def __init__(self, stack: Stack, server: Postgres, service: Service):
        self.stack = stack
        self.service = service
        self._server = server
        self.connect()
        self._lines = [self.shop.row("line_items", i) for i in self.shop.ids("line_items")]

    def connect(self) -> None:
        """Find everything anew, after a restart too."""
        self.airflow = Airflow(self.stack.api_url, "admin", self.stack.password("admin"))
        self.shop = Control(self.stack.simulator_urls[SOURCE])
        store = storage.Control(self.stack.simulator_urls["storage"])
        self.images = Images(self.stack.env["AIRFLOW_CONN_IMAGES_DB"], store, IMAGES)

    @contextmanager
    def warehouse(self) -> Iterator[psycopg.Connection]:
        """The warehouse, in the hand of the server's superuser."""
        with psycopg.connect(self._server.url("warehouse"), autocommit=True) as conn:
            yield conn

    @contextmanager
    def maintenance(self) -> Iterator[psycopg.Connection]:
        """The server, not the warehouse."""
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as conn:
            yield conn

    def query(self, query: str, *values: object) -> list[tuple]:
        with self.warehouse() as conn:
            return conn.execute(query, values).fetchall()

    def execute(self, statement: str, *values: object) -> None:
        with self.warehouse() as conn:
            conn.execute(statement, values)

    def writer(self, source: str = SOURCE) -> Writer:
        query = "SELECT state, hold_reason, epoch FROM confidence.writer WHERE source = %s"
        ((state, hold, epoch),) = self.query(query, source)
        return Writer(state, hold, self.airflow.slots(f"{source}_writer"), epoch)

    def live(self, table: str) -> set[int]:
        """The ids alive in the copy."""
        return {row[0] for row in self.query(f"SELECT id FROM repairshopr.{table} WHERE deleted_at IS NULL")}

    def in_step(self, table: str = "line_items") -> bool:
        """Whether the copy has just the rows that the shop has."""
        if table != "line_items":
            return self.live(table) == set(self.shop.ids(table))
        return self.live(table) == {i for i in self.shop.ids(table) if self.shop.row(table, i)["invoice_id"]}

    def lose(self, count: int, table: str = "line_items") -> list[int]:
        """Delete rows from the copy by hand."""
        rows = self.query(
            f"DELETE FROM repairshopr.{table} WHERE id IN"
            f" (SELECT id FROM repairshopr.{table} WHERE deleted_at IS NULL ORDER BY id LIMIT %s) RETURNING id",
            count,
        )
        return [row[0] for row in rows]

    def remove_at_source(self, count: int) -> list[int]:
        """Delete lines at the shop so that no sync notices."""
        ids = sorted(self.live("line_items"))[-count:]
        self.shop.mutate(*[Mutation("delete", "line_items", i, silent=True) for i in ids])
        return ids

    def reconcile(self, **conf: object) -> tuple[str, str]:
        return self.airflow.run(RECONCILE, **conf)

    def watch(self, passes: int = 2) -> list[str]:
        """Let the watch look, so often and each time long after the one before; what it finds of the source then."""
        for _ in range(passes):
            self.execute("UPDATE confidence.finding SET first_seen = first_seen - interval '1 hour'")
            run_id, state = self.airflow.run(WATCH)
            assert state == "success"
        return self.airflow.xcom(WATCH, run_id, "watch")[SOURCE]

    def clicks(self) -> dict[str, str]:
        """What the source's page offers to click so that its writer runs again, each with its address in Airflow."""
        page = self.airflow.page(f"/sync-confidence/sources/{SOURCE}")
        return {words: href for href, words in re.findall(r'<a class="action" href="([^"]*)"[^>]*>([^<]*)', page)}

    def steps(self, run_id: str, dag: str = RECONCILE) -> dict[str, str]:
        """The states of a reconcile run's tasks, the scans as one."""
        states = dict(self.airflow.tasks(dag, run_id))
        scans = {states.pop(name) for name in list(states) if name.startswith("scan[")}
        return states | ({"scan": scans.pop() if len(scans) == 1 else "mixed"} if scans else {})

    def wait_for_question(self, run_id: str, dag: str = RECONCILE) -> None:
        """Wait until `decide` waits, and the scheduler has noticed."""
        wait_for_question(self.stack, self.airflow, dag, run_id)

    def sessions_of(self, run: str) -> set[int]:
        """The process ids of the tasks that work for the run (`dag_id/run_id`) on the warehouse."""
        found: set[int] = set()

        def look() -> bool:
            query = "SELECT client_port FROM pg_stat_activity WHERE application_name = %s"
            ports = {row[0] for row in self.query(query, run[:63])}
            # Another process may have the same port towards another server.
            ends = {(port, self._server.port) for port in ports}
            connections = [each for each in psutil.net_connections("tcp") if each.pid and each.laddr and each.raddr]
            found.update(each.pid for each in connections if (each.laddr.port, each.raddr.port) in ends)
            return bool(found)

        until(look, f"a session of {run}", 60)
        return found

    def session_of(self, run: str) -> int:
        """The process id of the one task that works for the run."""
        (pid,) = self.sessions_of(run)
        return pid

    def attempt(self, run_id: str, task: str) -> tuple[int, str]:
        """Number and state of a task's present attempt."""
        found = self.airflow.call("GET", f"/dags/{RECONCILE}/dagRuns/{run_id}/taskInstances/{task}")
        return found["try_number"], found["state"]

    def kill_tasks(self, run: str, *, watched: bool = True) -> None:
        """End the tasks that work for the run as a crash would, unless `watched` with the processes that watch them.

        One of several may have come to its end by itself meanwhile.
        """
        killed = 0
        for pid in self.sessions_of(run):
            with suppress(psutil.NoSuchProcess):
                task = psutil.Process(pid)
                if not watched:
                    psutil.Process(task.ppid()).kill()
                task.kill()
                killed += 1
        assert killed

    def kill(self, pid: int) -> None:
        """End a process as a crash would."""
        os.kill(pid, signal.SIGKILL)

    def kill_warehouse(self) -> None:
        """End the warehouse's server as a crash would, and start it again."""
        self._server.kill()
        self._server.start()

    def kill_part(self, title: str) -> None:
        """Kill the stack's process of that title as a crash would."""

        def is_part(process: psutil.Process) -> bool:
            # Some end at this moment.
            with suppress(psutil.Error):
                return title in " ".join(process.cmdline())
            return False

        next(filter(is_part, psutil.Process(os.getpid()).children(recursive=True))).kill()

    def reset(self) -> None:
        """Bring sources, copies and writers in step, and forget the history."""
        self.shop.clear()
        # Tests delete lines at the shop; all are back for the next one.
        self.shop.load("line_items", self._lines)
        self.shop.set(latency_ms=0, page_sizes={})
        for name in ("decision_timeout_hours", "drain_timeout_seconds", "nightly_repair_sources", "RECONCILE_ENABLED"):
            self.airflow.delete_variable(name)
        for source in self.stack.sources:
            for dag in (f"{source}_sync", f"{source}_reconcile"):
                self._end_runs(dag)
        self.images.restore()
        shop = get_source(SOURCE)
        tables = ", ".join(f"{SOURCE}.{entity.name}" for entity in shop.entities)
        with self.warehouse() as conn:
            conn.execute("UPDATE confidence.writer SET state = 'running', hold_reason = NULL, run = NULL")
            conn.execute(
                f"TRUNCATE {tables}, confidence.sync_state, confidence.forensic_run, confidence.change_log,"
                " confidence.notification, confidence.finding, confidence.unproven"
            )
        headers, url = shop.authorize("demo-token"), self.stack.simulator_urls[SOURCE] + shop.base_path
        # As the tasks do, which are to own the staging tables.
        with (
            psycopg.connect(self._server.url("warehouse", roles.TASKS), autocommit=True) as conn,
            ApiClient(SOURCE, url, headers=headers) as client,
        ):
            sync_entities(MirrorContext(shop, client, conn, "tests/reset"))
        for source in self.stack.sources:
            self.airflow.set_slots(f"{source}_writer", 1)
        self.service.told.clear()

    def _end_runs(self, dag: str) -> None:
        """Mark as failed what is at work, and wait: teardowns are left to run, and write and tell what they have to."""
        for run in self.airflow.call("GET", f"/dags/{dag}/dagRuns?state=running&state=queued")["dag_runs"]:
            self.airflow.mark_run(dag, run["dag_run_id"], "failed")
            self.airflow.wait(dag, run["dag_run_id"])


def wait_for_question(stack: Stack, airflow: Airflow, dag: str, run_id: str) -> None:
    """Wait until `decide` waits, and the scheduler has noticed: it fails a task that goes on before that."""
    airflow.wait_for(dag, run_id, "decide", "awaiting_input", timeout=90)
    decide = airflow.call("GET", f"/dags/{dag}/dagRuns/{run_id}/taskInstances/decide")
    # Of what it does then it tells nothing if the row is locked at that moment.
    noticed = re.compile(
        rf"Received executor event with state success for task instance TaskInstanceKey\(dag_id='{dag}',"
        rf" task_id='decide', run_id='{re.escape(run_id)}', try_number={decide['try_number']},"
    )
    log = stack.home.logs / "scheduler.log"
    until(lambda: noticed.search(log.read_text()) is not None, f"the scheduler to notice {noticed.pattern}", 60)


@contextmanager
def started(**settings: str) -> Iterator[Platform]:
    """The stack with settings on top of `SETTINGS`, and the warehouse on a server of its own that can be killed."""
    with (
        quick_folder("platform") as folder,
        Service() as service,
        Postgres(folder / "warehouse", settings={"fsync": "off"}) as server,
    ):
        server.create_database("warehouse")
        connections = {
            "AIRFLOW_CONN_WAREHOUSE": server.url("warehouse", roles.TASKS),
            "AIRFLOW_CONN_WAREHOUSE_OWNER": server.url("warehouse", roles.OWNER),
            "AIRFLOW_CONN_WAREHOUSE_READ": server.url("warehouse", roles.READ),
            "AIRFLOW_CONN_NOTIFICATIONS": service.connection,
        }
        with Stack(folder / "stack", settings=SETTINGS | connections | settings) as stack:
            yield Platform(stack, server, service)


@pytest.fixture(scope="session")
def running_platform() -> Iterator[Platform]:
    """One platform for all tests that need nothing else."""
    with started() as platform:
        yield platform


@pytest.fixture
def platform(running_platform: Platform) -> Platform:
    running_platform.reset()
    return running_platform


@pytest.fixture
def restart(running_platform: Platform) -> Callable[[], None]:
    """Start the stack again after something in it was killed, which ends all of it."""

    def again() -> None:
        until(lambda: not running_platform.stack.runs, "the stack to end", 120)
        list(running_platform.stack.start(owned=True))
        running_platform.connect()

    return again
