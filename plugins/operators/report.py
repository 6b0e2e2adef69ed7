"""`report`: the leaf that makes the run's state true, and the last line that a person reads."""

import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from include.confidence import history, told
from include.confidence.told import Failure, RunFacts
from include.sources import get_source
from include.warehouse import fence
from include.warehouse.sync_log import Counts
from plugins import assets, metrics, notify
from plugins.hooks import airflow_api, warehouse
from plugins.operators.base import SourceOperator
from plugins.operators.decide import NOBODY
from plugins.operators.scan import summaries
from plugins.runs import is_dry, log_line, push_result, run_name

log = logging.getLogger(__name__)

# The first of these that failed is the cause; the others follow from it.
STEPS = ("stop_writer", "scan", "gate_check", "decide", "reconcile", "verify", "resume_writer")
NEXT = {
    "stop_writer": "read its log, then clear stop_writer with downstream",
    "scan": "nothing was written. Read the failed scan's log, then clear scan with downstream",
    "gate_check": "read its log, then clear scan with downstream",
    "decide": "clear decide with downstream to be asked again",
    "reconcile": "read its log, which says what was applied if anything was; then clear scan with downstream",
    "verify": "read its log: it names the sync_id to roll back",
    "resume_writer": "read its log; while the writer is held, clear decide with downstream and answer it",
}
DONE = ("success", "skipped")


class RunFailed(AirflowFailException):
    """A step of the run has failed. People have been told."""


ON_CALL = """
Sums the run up in one line of JSON, tells people what they have to know, and fails if any step failed.

**If it fails:** its message names the step that failed first and what to do; that step's log has more.
"""


class ReportOperator(SourceOperator):
    """Sum the run up in one JSON line, tell people what they have to know, and fail if anything failed.

    A run that confirms the copy emits its asset.

    A stop that was cut off before it reached the fence leaves the pool closed over a running writer; the pool is
    opened again here, so that no writer is stopped in silence.
    """

    on_call = ON_CALL

    def __init__(self, *, source: str, **kwargs: Any):
        super().__init__(source=source, outlets=[assets.outlet(source)], **kwargs)

    def execute(self, context: Any) -> dict[str, Any]:
        run = run_name(context)
        states = _states(context)
        with warehouse.connect(run) as conn:
            writer = fence.read(conn, self.source)
            worse = history.judged_worse(conn, self.source, run)
        if not writer.stopped:
            self._open_pool(run)
        gate = context["ti"].xcom_pull(task_ids="gate_check") or {}
        summary = log_line(
            context,
            self.source,
            "report",
            steps=states,
            verdict=gate.get("verdict"),
            reasons=gate.get("reasons", []),
            drift=gate.get("drift"),
            repair=context["ti"].xcom_pull(task_ids="reconcile"),
            writer=str(writer),
        )
        metrics.send({"stopped": int(writer.stopped)}, self.source, "writer")
        applied = summary["repair"] or {}
        counts = {entity: Counts(**found) for entity, found in applied.get("counts", {}).items()}
        dry_run = is_dry(context, self.source) and not applied
        push_result(context, self.source, get_source(self.source).result(summaries(context), counts, dry_run=dry_run))
        failed = next((step for step in STEPS if states.get(step) not in DONE), None)
        event = told.of_run(self._facts(context, summary, writer, worse, failed))
        notify.tell(run, self.source, [event] if event else [])
        if failed:
            raise RunFailed(f"{failed} {states.get(failed)}; {writer}. Next: {NEXT[failed]}")
        # A repair of an attempt before leaves its result behind, but no state.
        verified = states.get("verify") == "success"
        self._confirm(context, gate, counts if verified else None, applied.get("sync_id") if verified else None)
        return summary

    def _confirm(
        self, context: Any, gate: dict[str, Any], applied: Mapping[str, Counts] | None, sync_id: int | None
    ) -> None:
        """Emit the source's asset if the run has confirmed the copy, else say why it has not."""
        scans = summaries(context)
        doubt = assets.doubt(context, gate, scans, applied)
        if doubt:
            log.info("no event of %s: %s", assets.confirmed(self.source).name, doubt)
        else:
            assets.emit(context, self.source, run_name(context), gate["verdict"], sync_id, scans)

    def tell_failure(self, context: Any, failure: Failure) -> None:
        """Tell that how the run has ended could not be found out, unless the report is what failed it."""
        if isinstance(context.get("exception"), RunFailed):
            return
        run = run_name(context)
        notify.tell(run, self.source, [told.of_lost_report(self.source, run, failure, notify.run_link(run))])

    def _facts(
        self, context: Any, summary: dict[str, Any], writer: fence.Writer, worse: list[str], failed: str | None
    ) -> RunFacts:
        decided = context["ti"].xcom_pull(task_ids="decide") or {}
        return RunFacts(
            source=self.source,
            run=summary["run"],
            link=notify.run_link(summary["run"]),
            writer=writer,
            failed=failed,
            failures=_failures(context, failed),
            next_step=NEXT.get(failed, ""),
            verdict=summary["verdict"],
            reasons=tuple(worse),
            planned=summary["drift"] or 0,
            sync_id=(summary["repair"] or {}).get("sync_id"),
            decision=decided.get("decision"),
            answered=decided.get("by") != NOBODY,
        )

    def _open_pool(self, run: str) -> None:
        name = f"{self.source}_writer"
        with airflow_api.opened() as api:
            pool = api.pool(name)
            if pool.slots == 0 and run in pool.description:
                api.open_pool(name)
                log.warning("pool %s was still closed by this run over a running writer; it is open again", name)


def _failures(context: Any, step: str | None) -> tuple[Failure, ...]:
    """Why the step failed; of a mapped one each part that did."""
    found = (context["ti"].xcom_pull(task_ids=step, key="failure") if step else None) or []
    return tuple(Failure(**data) for data in (found if isinstance(found, list) else [found]))


def _states(context: Any) -> dict[str, str]:
    """The state of each step; of a mapped one the worst."""
    run_id, dag_id = context["run_id"], context["dag"].dag_id
    found = context["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id])[run_id]
    states: dict[str, str] = {}
    for task, state in found.items():
        step = next((step for step in STEPS if task == step or task.startswith(f"{step}_")), None)
        if step and states.get(step, "success") in DONE:
            states[step] = str(state)
    return states
