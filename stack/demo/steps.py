"""What all scenarios share: Airflow as a person uses it, the warehouse, the screen, and how an outcome is judged."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from include.sources.pools import pool_name
from stack.airflow import ENDED, Airflow, until
from stack.guardian import StackError

ROLLBACK = "warehouse_rollback"
REPAIR, KEEP = "Repair, then resume", "Keep stopped"

# For one run or one task's start, on a slow machine.
PATIENCE_SECONDS = 300.0
# An answer that comes sooner can reach the scheduler before it has noticed the question.
BEFORE_ANSWER_SECONDS = 12.0
# Of many, so many are named.
NAMED = 4


class Unexpected(StackError):
    """A step's outcome differs from what it should be."""


@dataclass(frozen=True)
class Demo:
    """What a scenario about one source reads and moves: a person's Airflow, the warehouse (autocommit), the screen."""

    source: str
    airflow: Airflow
    warehouse: psycopg.Connection
    screen: Console

    @property
    def sync(self) -> str:
        return f"{self.source}_sync"

    @property
    def reconcile(self) -> str:
        return f"{self.source}_reconcile"

    @property
    def pool(self) -> str:
        return pool_name(self.source)

    def writer(self) -> tuple[str, str | None]:
        """The fence: state and hold reason."""
        query = "SELECT state, hold_reason FROM confidence.writer WHERE source = %s"
        return self.warehouse.execute(query, [self.source]).fetchone()

    def last_sync_id(self) -> int:
        return self.warehouse.execute("SELECT coalesce(max(sync_id), 0) FROM confidence.sync_log").fetchone()[0]

    def expect_writer_runs(self) -> None:
        found = (*self.writer(), self.airflow.slots(self.pool))
        expect("writer, slots of its pool", found, ("running", None, 1))

    def summaries(self, run_id: str) -> dict[str, tuple[Mapping[str, Any], str, list[str]]]:
        """What a reconcile run found, by entity: forensic summary, verdict, reasons."""
        rows = self.warehouse.execute(
            "SELECT entity, summary, verdict, reasons FROM confidence.forensic_run WHERE source = %s AND run = %s",
            [self.source, f"{self.reconcile}/{run_id}"],
        ).fetchall()
        return {entity: (summary, verdict, reasons) for entity, summary, verdict, reasons in rows}

    def link(self, dag_id: str, run_id: str) -> str:
        return f"{self.airflow.url}/dags/{dag_id}/runs/{run_id}"

    def question_link(self, dag_id: str, run_id: str) -> str:
        return f"{self.airflow.url}/sync-confidence/dags/{dag_id}/runs/{run_id}#question"

    def say(self, text: str) -> None:
        self.screen.print(text)

    def show_link(self, link: str) -> None:
        # On one line however long, so that a terminal can open it.
        self.screen.print(link, style="dim", soft_wrap=True)

    def show(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        table = Table()
        rows = list(rows)
        for place, column in enumerate(columns):
            numeric = all(isinstance(row[place], int) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric or place == 0)
        for row in rows:
            table.add_row(*map(str, row))
        self.screen.print(table)

    def start_run(self, dag_id: str, **conf: Any) -> str:
        """Trigger a run as a person does, and tell where to see it; returns its id."""
        run_id = self.airflow.trigger(dag_id, **conf)
        self.say(" ".join([f"[bold]{dag_id}[/]", *(f"{name}={value}" for name, value in conf.items())]))
        self.show_link(self.link(dag_id, run_id))
        return run_id

    def end_run(self, dag_id: str, run_id: str, expected: str = "success") -> None:
        with self.screen.status(f"{dag_id} is at work"):
            state = self.airflow.wait(dag_id, run_id, PATIENCE_SECONDS)
        expect(f"the state of {self.link(dag_id, run_id)}", state, expected)

    def run(self, dag_id: str, **conf: Any) -> str:
        run_id = self.start_run(dag_id, **conf)
        self.end_run(dag_id, run_id)
        return run_id

    def fail_run(self, dag_id: str, task: str, message: str, **conf: Any) -> None:
        """Trigger a run that has to fail at a task with a message in which the given one occurs, and show it."""
        run_id = self.start_run(dag_id, **conf)
        self.end_run(dag_id, run_id, expected="failed")
        told = self._failure(dag_id, run_id, task)
        self.say(f"[bold]{task}[/] failed:")
        self.screen.print(told, markup=False)
        expect(f"whether {task} says that {message}", message in told, True)

    def expect_skipped(self, run_id: str, *tasks: str) -> None:
        states = self.airflow.tasks(self.reconcile, run_id)
        self.say(f"skipped, as nothing called for them: {', '.join(tasks)}")
        expect("task states", states, states | dict.fromkeys(tasks, "skipped"))

    def wait_for_question(self, run_id: str) -> bool:
        """Wait until a reconcile run asks (True) or ends without a question (False)."""

        def asks() -> bool:
            return self.airflow.tasks(self.reconcile, run_id).get("decide") == "awaiting_input"

        with self.screen.status(f"{self.reconcile} is at work"):
            until(
                lambda: asks() or self.airflow.state(self.reconcile, run_id) in ENDED,
                f"{self.link(self.reconcile, run_id)} to ask or to end",
                PATIENCE_SECONDS,
            )
        return asks()

    def let_it_stand(self) -> None:
        with self.screen.status("the question stands"):
            time.sleep(BEFORE_ANSWER_SECONDS)

    def answer(self, run_id: str, option: str) -> None:
        self.airflow.answer(self.reconcile, run_id, option)
        self.say(f'answered: [bold]"{option}"[/]')

    def repair_whatever_is_found(self, **conf: Any) -> None:
        """Bring the copy in line with its source, whatever an earlier demo has left."""
        run_id = self.start_run(self.reconcile, dry_run=False, **conf)
        if self.wait_for_question(run_id):
            self.let_it_stand()
            self.answer(run_id, REPAIR)
        self.end_run(self.reconcile, run_id)

    def end_questions(self) -> None:
        """Show the runs at work, and wait for the runbook's to end. A question is answered with "Keep stopped"."""
        for dag_id in (self.sync, self.reconcile):
            for run_id in self._at_work(dag_id):
                self.say("at work already, by schedule or since an earlier demo:")
                self.show_link(self.link(dag_id, run_id))
        for run_id in self._at_work(self.reconcile):
            if self.wait_for_question(run_id):
                self.say("It waits for a decision about what an earlier demo broke.")
                self.let_it_stand()
                self.answer(run_id, KEEP)
                self.end_run(self.reconcile, run_id, expected="failed")

    def end_syncs(self) -> None:
        for run_id in self._at_work(self.sync):
            self.end_run(self.sync, run_id)

    def _at_work(self, dag_id: str) -> list[str]:
        path = f"/dags/{dag_id}/dagRuns?state=running&state=queued&order_by=run_after"
        return [found["dag_run_id"] for found in self.airflow.call("GET", path)["dag_runs"]]

    def _failure(self, dag_id: str, run_id: str, task: str) -> str:
        """The message with which the task's first attempt failed; empty if it didn't."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task}/logs/1"
        lines = self.airflow.call("GET", path, params={"full_content": True})["content"]
        errors = [error for line in lines for error in line.get("error_detail") or []]
        return errors[0]["exc_value"] if errors else ""


def expect(what: str, found: Any, expected: Any) -> None:
    """Raise Unexpected, naming only what differs, unless both are equal."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        names = [name for name in expected if found.get(name) != expected[name]]
        found, expected = {n: found.get(n) for n in names}, {n: expected[n] for n in names}
    if found != expected:
        raise Unexpected(f"the demo ended early: {what} should be {expected}, found {found}")


def some(ids: Iterable[object]) -> str:
    """The first few by name."""
    names = [str(id_) for id_ in ids]
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
