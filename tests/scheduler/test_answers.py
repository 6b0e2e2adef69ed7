"""Two people who answer at once, somebody who answers too late, and a DAG that somebody deletes."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stack.airflow import until
from stack.guardian import StackError
from tests.running_platform import RECONCILE, SOURCE, SYNC, Platform


def decision(platform: Platform) -> list[tuple]:
    return platform.query(
        "SELECT DISTINCT decision, decided_by FROM confidence.forensic_run WHERE decision IS NOT NULL"
    )


@pytest.mark.long
@pytest.mark.drill("two-answers")
def test_of_two_answers_at_once_one_is_kept_and_done(platform):
    gone = platform.remove_at_source(60)
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)

    def give(option: str) -> str:
        """What Airflow says against the answer; nothing if it takes it."""
        try:
            platform.airflow.answer(RECONCILE, run_id, option)
        except StackError as refusal:
            return str(refusal)
        return ""

    with ThreadPoolExecutor(2) as people:
        repair, resume = people.map(give, ("Repair, then resume", "Resume without repair"))
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    # It refuses the later one, but not if both come in the same moment: then it keeps the one that it wrote last.
    assert "" in (repair, resume)
    assert all(": 409 " in refusal for refusal in (repair, resume) if refusal)
    [(kept, by)] = decision(platform)
    assert by == "admin"
    assert {"repair": repair, "resume": resume}[kept] == ""
    repaired = kept == "repair"
    assert (not set(gone) & platform.live("line_items")) == repaired
    assert platform.writer().runs
    assert platform.service.titles == [f"{SOURCE}: the writer is held, please decide"]


@pytest.mark.long
@pytest.mark.drill("late-answer")
def test_answer_after_the_timeout_is_refused_and_changes_nothing(platform):
    platform.remove_at_source(60)
    platform.airflow.set_variable("decision_timeout_hours", "0.003")
    run_id, state = platform.reconcile()
    assert state == "failed"
    before = decision(platform)
    with pytest.raises(StackError, match="409"):
        platform.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert decision(platform) == before
    assert platform.writer().stands
    assert not platform.in_step()


@pytest.mark.long
@pytest.mark.drill("deleted-dag")
def test_deleted_dag_comes_back_and_its_hold_is_asked_about_again(platform):
    platform.remove_at_source(60)
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)
    platform.service.told.clear()
    # Airflow deletes no DAG of which a task runs; one that waits for an answer does not.
    platform.airflow.call("DELETE", f"/dags/{RECONCILE}")
    # These tests read an unchanged file once an hour only.
    os.utime(Path(platform.stack.env["AIRFLOW__CORE__DAGS_FOLDER"]) / f"{RECONCILE}.py")
    until(lambda: is_known(platform), f"{RECONCILE} to be read again", 120)
    assert platform.watch() == ["writer_unattended"]
    assert platform.writer().stands
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)
    platform.airflow.answer(RECONCILE, run_id, "Repair, then resume")
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    assert platform.in_step()
    _, state = platform.airflow.run(SYNC)
    assert state == "success"


def is_known(platform: Platform) -> bool:
    return RECONCILE in {dag["dag_id"] for dag in platform.airflow.call("GET", "/dags?limit=100")["dags"]}
