"""The two DAGs of every source: the sync, which is the writer, and the runbook that proves its copy every night."""

from collections.abc import Sequence
from typing import Any, Literal

from airflow.sdk import CronTriggerTimetable
from airflow.task.trigger_rule import TriggerRule

from plugins.deadline import stopped_too_long
from plugins.failures import DEFAULT_ARGS
from plugins.operators.decide import DecideOperator
from plugins.operators.gate_check import GateCheckOperator
from plugins.operators.reconcile import ReconcileOperator
from plugins.operators.report import ReportOperator
from plugins.operators.resume_writer import ResumeWriterOperator
from plugins.operators.scan import ScanOperator
from plugins.operators.stop_writer import StopWriterOperator
from plugins.operators.verify import VerifyOperator


def cron(expression: str) -> CronTriggerTimetable:
    """Return a timetable in UTC. A new DAG begins with the next run that is due; no missed run is made up."""
    return CronTriggerTimetable(expression, timezone="UTC")


def of_source(source: str, job: Literal["sync", "reconcile"]) -> dict[str, Any]:
    """Return the arguments of `@dag` that are the same for every source's sync and runbook."""
    return {
        "dag_id": f"{source}_{job}",
        "catchup": False,
        "max_active_runs": 1,
        "is_paused_upon_creation": False,
        "default_args": DEFAULT_ARGS,
        "deadline": stopped_too_long(source),
        "tags": [source, job],
    }


def runbook(source: str, entities: Sequence[str], slices: int = 1) -> None:
    """Create the tasks of the runbook. `scan` is mapped over the entities if there are several.

    `slices`: so many tasks read the scan of each entity together; only a `SlicedSource` may have more than one.
    """
    stop_writer = StopWriterOperator(task_id="stop_writer", source=source).as_setup()
    scan = _scan(source, entities, slices)
    # A scan that was put off is skipped; what the others have found is judged all the same.
    gate_check = GateCheckOperator(
        task_id="gate_check", source=source, trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
    )
    decide = DecideOperator(task_id="decide", source=source)
    reconcile = ReconcileOperator(task_id="reconcile", source=source, trigger_rule=TriggerRule.NONE_FAILED)
    verify = VerifyOperator(task_id="verify", source=source)
    resume_writer = ResumeWriterOperator(task_id="resume_writer", source=source).as_teardown(
        setups=stop_writer, on_failure_fail_dagrun=True
    )
    # A teardown too: it still runs if a person marks the whole run, and sets the run's true state.
    report = ReportOperator(task_id="report", source=source).as_teardown(on_failure_fail_dagrun=True)

    stop_writer >> scan >> gate_check >> decide >> reconcile >> verify >> resume_writer
    [verify, resume_writer] >> report


def _scan(source: str, entities: Sequence[str], slices: int) -> Any:
    if len(entities) == slices == 1:
        return ScanOperator(task_id="scan", source=source, entity=entities[0])
    name, mapped = "{{ task.entity }}", {"entity": list(entities)}
    if slices > 1:
        name, mapped = f"{name}, slice {{{{ task.slice_number }}}}", mapped | {"slice_number": list(range(slices))}
    return ScanOperator.partial(
        task_id="scan", source=source, map_index_template=name, doc_md=ScanOperator.on_call
    ).expand(**mapped)
