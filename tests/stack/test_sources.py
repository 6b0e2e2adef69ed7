"""An installation with some of the sources, as it runs: one not configured, one added later, one removed."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.sources.installed import SETTING
from stack.airflow import ENDED, Airflow, until
from stack.control import Stack
from stack.guardian import StackError
from stack.settings import REPOSITORY
from tests.folders import quick_folder

OF_ALL = {"confidence_retention", "confidence_watch", "warehouse_migrate", "warehouse_rebuild", "warehouse_rollback"}
RUNBOOK = {"stop_writer", "scan", "gate_check", "decide", "reconcile", "verify", "resume_writer", "report"}
SETTINGS = {
    "STACK_POSTGRES_URL": "",
    "STACK_REPAIRSHOPR_OPTIONS": "--invoices 30 --customers 10 --no-limit",
    "STACK_TEKMETRIC_OPTIONS": "--orders 10",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",
    "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "1",
    "AIRFLOW__SCHEDULER__PARSING_CLEANUP_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
}


class Installation:
    """A running stack as a person sees it."""

    def __init__(self, stack: Stack):
        self.stack = stack
        self.airflow = Airflow(stack.api_url, "admin", stack.password("admin"))

    @property
    def dags(self) -> set[str]:
        return {dag["dag_id"] for dag in self.airflow.call("GET", "/dags?limit=100")["dags"]} - OF_ALL

    @property
    def pools(self) -> set[str]:
        return {pool["name"] for pool in self.airflow.call("GET", "/pools?limit=100")["pools"]} - {"default_pool"}

    def scheduled(self, dag: str) -> tuple[str, set[tuple[str, str]]]:
        """Wait for a scheduled run; its state, and its tasks with theirs."""
        until(
            lambda: any(self.airflow.state(dag, run) in ENDED for run in self.airflow.runs(dag)), f"a run of {dag}", 150
        )
        run = self.airflow.runs(dag)[-1]
        return self.airflow.state(dag, run), set(self.airflow.tasks(dag, run).items())

    def watched(self) -> None:
        run, state = self.airflow.run("confidence_watch")
        assert state == "success", self.airflow.log("confidence_watch", run, "watch")

    def readiness(self) -> list[tuple[str, str]]:
        """Why it is not ready: code and source."""
        url = f"{self.stack.api_url}/sync-confidence/readiness"
        answer = self.airflow._session.get(url, timeout=60)
        found = [(reason["code"], reason["source"]) for reason in answer.json()["reasons"]]
        assert answer.status_code == (503 if found else 200)
        return found

    def query(self, query: str) -> Any:
        with closing(psycopg.connect(self.stack.warehouse_url)) as conn:
            return conn.execute(query).fetchall()


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    """The DAG files, those of one source with a run each minute."""
    folder = tmp_path / "dags"
    shutil.copytree(REPOSITORY / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file, cron in (("square_sync.py", "*/30 * * * *"), ("square_reconcile.py", "20 4 * * *")):
        text = (folder / file).read_text()
        assert f'cron("{cron}")' in text
        (folder / file).write_text(text.replace(f'cron("{cron}")', 'cron("* * * * *")'))
    return folder


def test_sources_come_and_go(dags: Path):
    with quick_folder("sources") as home:

        @contextmanager
        def running(*sources: str) -> Iterator[Installation]:
            settings = SETTINGS | {
                SETTING: ",".join(sources),
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
                # Set to nothing: no simulator stands for it, and it is not configured.
                "AIRFLOW_CONN_SQUARE": "",
            }
            with Stack(home / "stack", settings=settings) as stack:
                yield Installation(stack)

        with running("repairshopr", "square") as two:
            assert two.dags == {
                f"{source}_{job}" for source in ("repairshopr", "square") for job in ("sync", "reconcile")
            }
            assert two.pools == {"repairshopr_writer", "square_writer"}
            assert set(two.stack.simulator_urls) == {"repairshopr"}
            assert two.airflow.run("repairshopr_sync")[1] == "success"
            assert two.scheduled("square_sync") == ("success", {("sync", "skipped")})
            state, tasks = two.scheduled("square_reconcile")
            assert state == "success"
            assert {(task.partition("[")[0], state) for task, state in tasks} == {(task, "skipped") for task in RUNBOOK}
            assert two.query("SELECT state, epoch FROM confidence.writer WHERE source = 'square'") == [("running", 0)]
            two.watched()
            assert two.readiness() == [("source_not_configured", "square")]
            assert "2 sources: 1 not configured (square), 1 running." in two.airflow.page("/sync-confidence/")
            customers = two.query("SELECT count(*) FROM repairshopr.customers")

        with running("repairshopr") as one:
            until(lambda: one.dags == {"repairshopr_sync", "repairshopr_reconcile"}, "the DAGs of square to go", 120)
            one.watched()
            assert one.readiness() == []
            # It was never synced, so there is nothing to keep.
            assert "square" not in one.airflow.page("/sync-confidence/")

        with running("tekmetric") as other:
            until(lambda: other.dags == {"tekmetric_sync", "tekmetric_reconcile"}, "the other DAGs to go", 120)
            assert "tekmetric_writer" in other.pools
            assert other.airflow.run("warehouse_migrate")[1] == "success"
            assert other.airflow.run("tekmetric_sync", mode="full")[1] == "success"
            other.watched()
            assert other.readiness() == []
            assert other.query("SELECT count(*) FROM repairshopr.customers") == customers
            assert "Data of repairshopr is kept" in other.airflow.page("/sync-confidence/")
            with pytest.raises(StackError, match=r"404 .*repairshopr is not set up here"):
                other.airflow.page("/sync-confidence/sync-status/repairshopr")
