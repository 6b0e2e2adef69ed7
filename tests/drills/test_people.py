"""What people do with a message alone, and what two of them do at once."""

import re
from contextlib import suppress
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped, TaskAwaitingInput
from psycopg import Connection

from include.confidence.holds import HoldChanged
from include.confidence.repair_lock import NotJudged
from include.simulators.repairshopr import Mutation
from include.warehouse import fence
from plugins.operators.report import STEPS, RunFailed
from plugins.operators.rollback import RollbackOperator
from tests.plugins.conftest import SOURCE, Run, answer, execute, live_lines, skipped

COPY = "SELECT to_jsonb(t) FROM repairshopr.line_items t ORDER BY id"


def copy(conn: Connection) -> list[tuple]:
    return conn.execute(COPY).fetchall()


def roll_back(sync_id: int, *, dry_run: bool, run_id: str) -> Any:
    params = {"sync_id": sync_id, "reason": "it was wrong", "force": False, "dry_run": dry_run}
    return Run(run_id, dag_id="warehouse_rollback", params=params).execute(RollbackOperator(task_id="rollback"))


@pytest.mark.drill("undone-by-message", "worse-repair")
def test_wrong_repair_is_undone_with_the_message_alone(airflow, synced, conn, service):
    lost, surplus = sorted(live_lines(conn))[:2]
    conn.execute("DELETE FROM repairshopr.line_items WHERE id = %s", [lost])
    synced.mutate(Mutation("delete", "line_items", surplus, silent=True))
    before = copy(conn)
    run = Run(conf={"dry_run": False})
    for task in ("stop_writer", "scan"):
        execute(run, task)
    skipped(run, "gate_check")
    execute(run, "reconcile")
    conn.execute("UPDATE repairshopr.line_items SET price = price + 1 WHERE id = %s", [lost])
    with pytest.raises(AirflowFailException):
        execute(run, "verify")
    with pytest.raises(fence.FenceError):
        execute(run, "resume_writer")
    run.states = dict.fromkeys(STEPS, "success") | {"verify": "failed", "resume_writer": "failed"}
    for _ in range(2):
        with pytest.raises(RunFailed):
            execute(run, "report")

    # From here on nothing but the message is known.
    [message] = service.told
    assert message["title"] == f"{SOURCE}: the repair made the copy worse"
    told = re.search(r"applied under sync_id (\d+), which can be rolled back", message["message"])
    assert told
    sync_id = int(told[1])
    # Somebody's hand has changed a row since: the preview names it, and only then it is overwritten.
    preview = roll_back(sync_id, dry_run=True, run_id="preview")
    assert preview["conflicts"]
    conn.execute("UPDATE repairshopr.line_items SET price = price - 1 WHERE id = %s", [lost])
    assert roll_back(sync_id, dry_run=True, run_id="preview 2")["conflicts"] == []
    undone = roll_back(sync_id, dry_run=False, run_id="undo")
    assert copy(conn) == before
    roll_back(undone["sync_id"], dry_run=False, run_id="it was right")
    assert (lost in live_lines(conn), surplus in live_lines(conn)) == (True, False)
    assert len(service.told) == 1


@pytest.fixture
def held(airflow, synced, conn, asked) -> Run:
    """A run that asks, since its plan would delete too much."""
    gone = sorted(live_lines(conn))[:30]
    synced.mutate(*(Mutation("delete", "line_items", id_, silent=True) for id_ in gone))
    run = Run(conf={"dry_run": False})
    for task in ("stop_writer", "scan", "gate_check"):
        execute(run, task)
    with pytest.raises(TaskAwaitingInput):
        execute(run, "decide")
    return run


@pytest.mark.drill("two-answers")
@pytest.mark.parametrize(("first", "second"), [("resume", "repair"), ("repair", "resume")])
def test_of_two_answers_the_first_is_kept_and_nothing_else_is_done(held, conn, first, second):
    """Airflow may let both through if they come in the same moment (tests/scheduler/test_answers.py)."""
    options = {"resume": "Resume without repair", "repair": "Repair, then resume"}
    before = copy(conn)
    for who, given in (("Ada", first), ("admin", second)):
        with suppress(DownstreamTasksSkipped, HoldChanged):
            answer(held, options[given], who)
    kept = "SELECT DISTINCT decision, decided_by FROM confidence.forensic_run WHERE decision IS NOT NULL"
    assert conn.execute(kept).fetchall() == [(first, "Ada")]
    if first == "resume":
        with pytest.raises(NotJudged):
            execute(held, "reconcile")
        assert copy(conn) == before
    execute(held, "resume_writer")
