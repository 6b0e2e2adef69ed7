"""The sources in Airflow's own database: next runs, the running runbook, the question that waits for an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from airflow.configuration import conf
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import Session

DECIDE = "decide"


@dataclass(frozen=True)
class Schedule:
    """When a DAG runs next, None if no run is due. A `paused` DAG does not run until it is switched on again."""

    next_run: datetime | None
    paused: bool


@dataclass(frozen=True)
class Decision:
    """The question that waits for a person. `link` is the page in Airflow's UI where it is answered."""

    run_id: str
    subject: str
    asked_at: datetime
    link: str


@dataclass(frozen=True)
class Orchestration:
    """A source in Airflow. A schedule is None if Airflow does not know the DAG.

    `running`: the id of the newest reconcile run that is running or waits for an answer.
    """

    reconcile: Schedule | None
    sync: Schedule | None
    running: str | None
    decision: Decision | None


def orchestration(session: Session, sources: Sequence[str]) -> Mapping[str, Orchestration]:
    """Return each source's state in Airflow's database, by name."""
    runbooks = {f"{source}_reconcile": source for source in sources}
    schedules = _schedules(session, [*runbooks, *(f"{source}_sync" for source in sources)])
    running, decisions = _running(session, list(runbooks)), _decisions(session, list(runbooks))
    return {
        source: Orchestration(
            schedules.get(runbook), schedules.get(f"{source}_sync"), running.get(runbook), decisions.get(runbook)
        )
        for runbook, source in runbooks.items()
    }


def run_link(dag_id: str, run_id: str) -> str:
    """Return the address of the run in Airflow's UI."""
    return f"{_ui()}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def _ui() -> str:
    return conf.get("api", "base_url", fallback="").rstrip("/")


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
        dag_id: Decision(run_id, subject, asked_at, f"{run_link(dag_id, run_id)}/tasks/{DECIDE}/required_actions")
        for dag_id, run_id, subject, asked_at in session.execute(query)
    }
