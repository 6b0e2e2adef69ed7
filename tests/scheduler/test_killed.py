"""Each step of the runbook is killed just when it writes, with each kind of source: the run ends as if it had not been.

Postgres does what the step asked for at that moment, or not: whether the killed process was told, nobody knows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest

from include.simulators import flex
from stack.airflow import until
from tests.running_platform import RECONCILE, SOURCE, Platform
from tests.sources.flex import assign, call, person, rows

# What each step writes: table, event, and when it is this step that does.
WRITES = {
    "stop_writer": ("confidence.writer", "UPDATE", "NEW.state = 'stopped' AND OLD.state = 'running'"),
    "scan": ("confidence.forensic_run", "INSERT", "true"),
    "gate_check": ("confidence.forensic_run", "UPDATE", "NEW.verdict IS DISTINCT FROM OLD.verdict"),
    "reconcile": ("confidence.change_log", "INSERT", "true"),
    "verify": ("confidence.sync_log", "UPDATE", "NEW.verified_at IS DISTINCT FROM OLD.verified_at"),
    "resume_writer": ("confidence.writer", "UPDATE", "NEW.state = 'running' AND OLD.state = 'stopped'"),
}
DECIDES = ("confidence.forensic_run", "UPDATE", "NEW.decision IS DISTINCT FROM OLD.decision")
LOCK = 4711
PAUSE = """
CREATE FUNCTION public.pause_here() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared({lock}); RETURN NEW; END $$;
CREATE TRIGGER pause_here BEFORE {event} ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION public.pause_here();
"""
WAITING = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND wait_event = 'advisory'"
REPAIRED = (
    "SELECT count(*) FROM confidence.change_log JOIN confidence.sync_log USING (sync_id)"
    " WHERE kind = 'repair' AND run = %s"
)


@dataclass(frozen=True)
class Drift:
    """What a repair has to do, and whether it is done."""

    changes: int
    mended: Callable[[], bool]


def drift(platform: Platform, source: str) -> Drift:
    """Three differences between source and copy."""
    if source == "storage":
        platform.airflow.set_variable("RECONCILE_ENABLED", "1")
        lost = platform.images.lose(3)
        return Drift(3, lambda: platform.images.marked() == lost)
    if source == "flex":
        return lost_rows(platform)
    platform.lose(3)
    return Drift(3, platform.in_step)


def lost_rows(platform: Platform) -> Drift:
    """A crew call of three people, whose lines are ours and whose rows are gone."""
    [element] = flex.Control(platform.stack.simulator_urls["flex"]).create_elements([None])
    with platform.warehouse() as conn:
        call_id = call(conn, element)
        for _ in range(3):
            assign(conn, call_id, person(conn, uuid4()))
    _, state = platform.airflow.run("flex_sync")
    assert state == "success"
    with platform.warehouse() as conn:
        before = rows(conn, element)
    platform.execute("DELETE FROM flex.flex_crew_assignments WHERE crew_call_id = %s", call_id)
    # Nor does a sync come by.
    platform.execute("DELETE FROM flex.job_change")

    def mended() -> bool:
        with platform.warehouse() as conn:
            return rows(conn, element) == before

    assert len(before) == 3
    return Drift(3, mended)


def begin(platform: Platform, dag: str) -> str:
    """Trigger a run that repairs; its name."""
    return f"{dag}/{platform.airflow.trigger(dag, dry_run=False)}"


@contextmanager
def paused_at(platform: Platform, run: Callable[[], str], table: str, event: str, when: str) -> Iterator[str]:
    """Start a run, and give its name once one of its tasks is about to write that; it goes on at the end."""
    platform.execute(PAUSE.format(lock=LOCK, table=table, event=event, when=when))
    try:
        with platform.warehouse() as conn:
            conn.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            name = run()
            until(lambda: bool(platform.query(WAITING, name[:63])), "the step to write", 120)
            yield name
    finally:
        # The lock is gone with its session, and so nobody waits for it any more.
        platform.execute("DROP FUNCTION public.pause_here CASCADE")


@pytest.mark.long
@pytest.mark.drill("killed-step", "killed-stop", "killed-scan", "killed-repair", "killed-repair-flex")
@pytest.mark.parametrize("source", [SOURCE, "storage", "flex"])
@pytest.mark.parametrize("step", WRITES)
def test_step_is_killed_when_it_writes(platform, step, source):
    dag = f"{source}_reconcile"
    found = drift(platform, source)
    with paused_at(platform, lambda: begin(platform, dag), *WRITES[step]) as name:
        platform.kill_tasks(name)
    run_id = name.partition("/")[2]
    assert platform.airflow.wait(dag, run_id, timeout=240) == "success"
    assert found.mended()
    assert platform.query(REPAIRED, name) == [(found.changes,)]
    assert platform.writer(source).runs
    assert platform.service.titles == []


@pytest.mark.long
@pytest.mark.drill("killed-step")
def test_decide_is_killed_when_it_keeps_the_answer(platform):
    platform.remove_at_source(60)
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)

    def answer() -> str:
        platform.airflow.answer(RECONCILE, run_id, "Repair, then resume")
        return f"{RECONCILE}/{run_id}"

    with paused_at(platform, answer, *DECIDES) as name:
        platform.kill_tasks(name)
    # Postgres has not kept it: the transaction was open. So the same run asks again, and nobody is told a second time.
    until(lambda: platform.attempt(run_id, "decide")[0] == 2, "the next try", 90)
    platform.wait_for_question(run_id)
    platform.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    assert platform.in_step()
    assert platform.writer().runs
    assert platform.service.titles == [f"{SOURCE}: the writer is held, please decide"]


@pytest.mark.long
@pytest.mark.drill("killed-step")
def test_report_is_killed_while_it_reads(platform):
    platform.lose(3)
    reading = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND wait_event = 'relation'"
    with platform.warehouse() as psql, psql.transaction():
        with paused_at(platform, lambda: begin(platform, RECONCILE), *WRITES["resume_writer"]) as name:
            psql.execute("LOCK TABLE confidence.forensic_run IN ACCESS EXCLUSIVE MODE")
        until(lambda: bool(platform.query(reading, name[:63])), "the report to read", 60)
        platform.kill_tasks(name)
    assert platform.airflow.wait(RECONCILE, name.partition("/")[2]) == "success"
    assert platform.in_step()
    assert platform.writer().runs
    assert platform.service.titles == []
