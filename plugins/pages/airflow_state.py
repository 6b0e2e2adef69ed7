"""What Airflow's own database says: next runs, the running runbook, the question that waits, a rollback."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from include.confidence.failure import Failure
from include.warehouse.rollback import Undone

JUDGE, DECIDE = "gate_check", "decide"
ROLLBACK = "warehouse_rollback"
# The states of a run that is over.
ENDED = ("success", "failed")
# The states of a task that has not begun to wait for its answer.
BEFORE_ASKING = (None, TaskInstanceState.SCHEDULED, TaskInstanceState.QUEUED, TaskInstanceState.RUNNING)


@dataclass(frozen=True)
class Schedule:
    """When a DAG runs next, None if no run is due. A `paused` DAG does not run until it is switched on again."""

    next_run: datetime | None
    paused: bool


@dataclass(frozen=True)
class Decision:
    """The question that waits for a person. `link` is the page of the run with the form that answers it."""

    run_id: str
    subject: str
    asked_at: datetime
    link: str


@dataclass(frozen=True)
class Answer:
    """The answer to a question; `by` is None if nobody answered in time. `left_out`: entities to leave unrepaired."""

    option: str
    by: str | None
    at: datetime
    reason: str
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """The question of a run as Airflow has it.

    - `attempt`: the id of the attempt that asks; the next one has another
    - `text`: Markdown; of an earlier attempt, if that has asked before
    - `default`: the option that is taken if nobody answers
    - `answer`: None while it waits for one
    """

    attempt: str
    text: str
    options: tuple[str, ...]
    default: str | None
    answer: Answer | None


@dataclass(frozen=True)
class Orchestration:
    """A source in Airflow. A schedule is None if Airflow does not know the DAG.

    - `running`: the id of the newest reconcile run that is running or waits for an answer
    - `stopper`: the state of the run that has stopped the writer; None if the writer runs, or if that run is gone
    """

    reconcile: Schedule | None
    sync: Schedule | None
    running: str | None
    decision: Decision | None
    stopper: str | None = None


@dataclass(frozen=True)
class RollbackRun:
    """A run of warehouse_rollback.

    - `state`: queued, running, success or failed; `paused`: the DAG is, so that a queued run does not start
    - `sync_id`: the sync to undo; `reason` and `dry_run` as they were asked for; `by`: who triggered the run
    - `undone`: what it has done, or as a dry run would do; None before the end, and where its task has left nothing
    - `failure`: why its task failed; None unless it has, and where nobody could record why
    """

    run_id: str
    state: str
    paused: bool
    sync_id: int
    reason: str
    dry_run: bool
    by: str | None
    triggered_at: datetime | None
    ended_at: datetime | None
    undone: Undone | None
    failure: str | None


@dataclass(frozen=True)
class FailedRun:
    """A run (`dag_id/run_id`) that has failed, and when."""

    run: str
    failed_at: datetime


def orchestration(session: Session, sources: Sequence[str], stoppers: Mapping[str, str]) -> Mapping[str, Orchestration]:
    """Return each source's state in Airflow's database, by name.

    `stoppers`: by source, the run (`dag_id/run_id`) that has stopped its writer.
    """
    runbooks = {f"{source}_reconcile": source for source in sources}
    schedules = _schedules(session, [*runbooks, *(f"{source}_sync" for source in sources)])
    running, decisions = _running(session, list(runbooks)), _decisions(session, list(runbooks))
    states = _states(session, stoppers.values())
    return {
        source: Orchestration(
            schedules.get(runbook),
            schedules.get(f"{source}_sync"),
            running.get(runbook),
            decisions.get(runbook),
            states.get(stoppers.get(source, "")),
        )
        for runbook, source in runbooks.items()
    }


def rollback_run(session: Session, run_id: str) -> RollbackRun | None:
    """Return the run of warehouse_rollback; None if Airflow does not know it, or if it names no sync_id."""
    run = session.scalar(select(DagRun).where(DagRun.dag_id == ROLLBACK, DagRun.run_id == run_id))
    asked = (run and run.conf) or {}
    if not isinstance(asked.get("sync_id"), int):
        return None
    found = session.scalars(XComModel.get_many(run_id=run_id, dag_ids=ROLLBACK, task_ids="rollback"))
    left = {xcom.key: XComModel.deserialize_value(xcom) for xcom in found}
    undone, failure = left.get("return_value"), left.get("failure")
    return RollbackRun(
        run_id=run_id,
        state=str(run.state),
        paused=bool(session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == ROLLBACK))),
        sync_id=asked["sync_id"],
        reason=asked.get("reason") or "",
        # What the DAG takes for a run that says nothing of it.
        dry_run=asked.get("dry_run", True),
        by=run.triggering_user_name,
        triggered_at=run.queued_at,
        ended_at=run.end_date,
        undone=_undone(undone) if run.state == DagRunState.SUCCESS else None,
        failure=_failure(failure) if run.state == DagRunState.FAILED else None,
    )


def question_of(session: Session, run: str) -> Question | None:
    """Return the question of the run `dag_id/run_id`; None if it has asked nothing, or was marked by hand."""
    dag_id, _, run_id = run.partition("/")
    found = session.execute(
        select(TaskInstance.state, HITLDetail)
        .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
        .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == DECIDE)
    ).first()
    if found is None:
        return None
    state, asked = found
    if asked.responded_at is None and state != TaskInstanceState.AWAITING_INPUT:
        return None
    return Question(
        attempt=str(asked.ti_id),
        text=asked.body or "",
        options=tuple(asked.options),
        default=asked.defaults[0] if asked.defaults else None,
        answer=_answer(asked) if asked.responded_at else None,
    )


def _answer(asked: HITLDetail) -> Answer:
    # What a client has sent; Airflow does not check it.
    given = asked.params_input or {}
    left_out = given.get("leave_out")
    return Answer(
        option=", ".join(asked.chosen_options or ()),
        by=asked.responded_by_user["name"] if asked.responded_by else None,
        at=asked.responded_at,
        reason=str(given.get("reason") or ""),
        left_out=tuple(map(str, left_out)) if isinstance(left_out, list) else (),
    )


def failed_runs(session: Session, dag_id: str, limit: int) -> list[FailedRun]:
    """Return the newest runs of a DAG that have failed, newest first."""
    query = (
        select(DagRun.run_id, DagRun.end_date)
        .where(DagRun.dag_id == dag_id, DagRun.state == DagRunState.FAILED, DagRun.end_date.is_not(None))
        .order_by(DagRun.end_date.desc())
        .limit(limit)
    )
    return [FailedRun(f"{dag_id}/{run_id}", at) for run_id, at in session.execute(query)]


def failed_since(session: Session, sources: Sequence[str], since: datetime) -> dict[str, dict[str, datetime]]:
    """Return the runs (`dag_id/run_id`) of each source's runbook that began at `since` or later and have failed.

    A run has the time when it began; they come oldest first. Runs that were deleted in Airflow are not known.
    """
    dags = [f"{source}_reconcile" for source in sources]
    query = (
        select(DagRun.dag_id, DagRun.run_id, DagRun.start_date)
        .where(DagRun.dag_id.in_(dags), DagRun.state == DagRunState.FAILED, DagRun.start_date >= since)
        .order_by(DagRun.start_date)
    )
    found: dict[str, dict[str, datetime]] = {source: {} for source in sources}
    for dag_id, run_id, at in session.execute(query):
        found[dag_id.removesuffix("_reconcile")][f"{dag_id}/{run_id}"] = at
    return found


def run_state(session: Session, name: str) -> str | None:
    """Return the state of the run `dag_id/run_id`, None if there is none."""
    return _states(session, [name]).get(name)


def is_about_to_ask(session: Session, run: str) -> bool:
    """Return whether the run `dag_id/run_id` goes on to its task `decide`, which has not begun to wait for an answer.

    It has judged its scans then. A paused DAG does not go on.
    """
    dag_id, _, run_id = run.partition("/")
    query = (
        select(TaskInstance.task_id, TaskInstance.state)
        .join(DagRun, (DagRun.dag_id == TaskInstance.dag_id) & (DagRun.run_id == TaskInstance.run_id))
        .join(DagModel, DagModel.dag_id == TaskInstance.dag_id)
        .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id.in_((JUDGE, DECIDE)))
        .where(DagRun.state.in_((DagRunState.QUEUED, DagRunState.RUNNING)), DagModel.is_paused.is_(False))
    )
    states = dict(session.execute(query).all())
    judged = states.get(JUDGE) == TaskInstanceState.SUCCESS
    return judged and DECIDE in states and states[DECIDE] in BEFORE_ASKING


def _undone(value: Any) -> Undone | None:
    try:
        return Undone.from_json(value)
    except (AttributeError, KeyError, TypeError):
        # Left by an earlier version, or kept elsewhere by another XCom backend.
        return None


def _failure(value: Any) -> str | None:
    try:
        return str(Failure(**value))
    except TypeError:
        return None


def _question_link(dag_id: str, run_id: str) -> str:
    ui = conf.get("api", "base_url", fallback="").rstrip("/")
    return f"{ui}/sync-confidence/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}#question"


def _schedules(session: Session, dags: Sequence[str]) -> dict[str, Schedule]:
    query = select(DagModel.dag_id, DagModel.next_dagrun_create_after, DagModel.is_paused).where(
        DagModel.dag_id.in_(dags), DagModel.is_stale.is_(False)
    )
    return {dag_id: Schedule(due, paused) for dag_id, due, paused in session.execute(query)}


def _running(session: Session, dags: Sequence[str]) -> dict[str, str]:
    """Return the id of the running run of each DAG; of several runs the one that started last."""
    query = (
        select(DagRun.dag_id, DagRun.run_id)
        .where(DagRun.dag_id.in_(dags), DagRun.state == DagRunState.RUNNING)
        .order_by(DagRun.start_date)
    )
    return dict(session.execute(query).all())


def _states(session: Session, runs: Collection[str]) -> dict[str, str]:
    """Return the states of those runs (`dag_id/run_id`) that there are."""
    named = [tuple(run.split("/", 1)) for run in runs if "/" in run]
    query = select(DagRun.dag_id, DagRun.run_id, DagRun.state).where(tuple_(DagRun.dag_id, DagRun.run_id).in_(named))
    return {f"{dag_id}/{run_id}": str(state) for dag_id, run_id, state in session.execute(query)} if named else {}


def _decisions(session: Session, dags: Sequence[str]) -> dict[str, Decision]:
    query = (
        select(TaskInstance.dag_id, TaskInstance.run_id, HITLDetail.subject, HITLDetail.created_at)
        .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
        .where(
            TaskInstance.dag_id.in_(dags),
            TaskInstance.task_id == DECIDE,
            TaskInstance.state == TaskInstanceState.AWAITING_INPUT,
        )
        .order_by(HITLDetail.created_at)
    )
    return {
        dag_id: Decision(run_id, subject, asked_at, _question_link(dag_id, run_id))
        for dag_id, run_id, subject, asked_at in session.execute(query)
    }
