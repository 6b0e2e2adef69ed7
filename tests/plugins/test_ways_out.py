"""Each state in which a writer stands has one sentence and one click; so has what the watch finds."""

from dataclasses import replace

import pytest

from include.confidence.watch import Code
from plugins.pages.airflow_state import Decision, Orchestration, Schedule
from plugins.pages.ways_out import of_finding, of_writer
from tests.plugins.test_pages_html import AT, DETAIL, FOUND, HELD, RUN, SOURCE

RUNBOOK = f"{SOURCE}_reconcile"
STOPPED = replace(HELD.writer, hold_reason=None)
ENDED = Orchestration(Schedule(AT, False), Schedule(AT, False), None, None, stopper="failed")
IN_AIRFLOW = f"/dags/{RUN.replace('/', '/runs/').replace('+', '%2B').replace(':', '%3A')}"


def standing(writer, **airflow):
    return replace(DETAIL, writer=writer, airflow=replace(ENDED, **airflow))


def test_a_writer_that_runs_needs_no_click():
    assert of_writer(DETAIL) is None


def test_a_question_that_waits_is_the_click():
    assert of_writer(standing(HELD.writer, decision=Decision("r", "held", AT, "http://x"))) is None


@pytest.mark.parametrize("writer", [HELD.writer, STOPPED])
def test_a_paused_dag_is_switched_on_first(writer):
    way = of_writer(standing(writer, reconcile=Schedule(None, True), running="r"))
    assert (way.words, way.path) == (f"Switch {RUNBOOK} on", f"/dags/{RUNBOOK}")


@pytest.mark.parametrize("writer", [HELD.writer, STOPPED])
def test_a_run_at_work_is_shown(writer):
    way = of_writer(standing(writer, running="r"))
    assert (way.words, way.path) == ("See the run", f"/dags/{RUNBOOK}/runs/r")


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_run_that_was_cleared_is_at_work(state):
    way = of_writer(standing(HELD.writer, stopper=state))
    assert (way.words, way.path, way.asks) == ("See the run", IN_AIRFLOW, False)


@pytest.mark.parametrize("writer", [HELD.writer, STOPPED])
def test_a_deleted_run_is_replaced_and_not_linked_to(writer):
    way = of_writer(standing(writer, stopper=None))
    assert (way.words, way.path, way.asks) == (f"Trigger {RUNBOOK}", f"/dags/{RUNBOOK}", False)


def test_a_hold_that_nobody_is_asked_about_is_asked_about_again():
    way = of_writer(standing(HELD.writer))
    assert (way.words, way.path, way.asks) == ("Ask me again", "", True)


def test_between_two_tasks_the_step_that_lets_it_run_again_is_cleared():
    way = of_writer(standing(STOPPED))
    assert (way.words, way.path) == ("Clear resume_writer", f"{IN_AIRFLOW}/tasks/resume_writer")
    assert "failed" in way.sentence


@pytest.mark.parametrize(
    ("code", "path"),
    [
        (Code.PAUSED, f"/dags/{RUNBOOK}"),
        (Code.SWITCHED_OFF, f"/dags/{SOURCE}_sync"),
        (Code.POOL_OPEN, "/pools"),
        (Code.POOL_CLOSED, "/pools"),
        (Code.POOL_CHANGED, "/pools"),
        (Code.POOL_MISSING, f"/dags/{RUNBOOK}"),
        (Code.UNVERIFIED, f"/dags/{RUNBOOK}"),
        (Code.UNFINISHED, f"/dags/{RUNBOOK}"),
        (Code.STUCK, IN_AIRFLOW),
        (Code.NOT_DONE, IN_AIRFLOW),
        (Code.UNJUDGED, IN_AIRFLOW),
    ],
)
def test_a_finding_has_the_click_of_its_next_step(code, path):
    assert of_finding(replace(FOUND, code=code, subject=f"{SOURCE}_sync")).path == path


def test_only_a_writer_that_nobody_attends_is_left_to_its_own_click():
    assert [code for code in Code if of_finding(replace(FOUND, code=code)) is None] == [Code.UNATTENDED]
