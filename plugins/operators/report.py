"""`report`: the last task. It sets the run's true state and says what to do next."""

import logging
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, NoReturn

from include.confidence import field_store, holds, messages, outcome, run_evidence, unproven
from include.confidence.failure import Failure
from include.confidence.messages import RunFacts
from include.confidence.outcome import Evidence, Gap
from include.confidence.unproven import Unproven
from include.sources import get_source
from include.sources.pools import pool_name
from plugins import assets, metrics, notify
from plugins.configured import skip_unless_configured
from plugins.hooks import airflow_api, warehouse
from plugins.operators.base import SourceOperator
from plugins.operators.scan import summaries
from plugins.results import log_line, push_result
from plugins.runs import is_dry, run_name

log = logging.getLogger(__name__)

# In the order in which they run. The first that failed is the cause of the other failures.
STEPS = ("stop_writer", "scan", "gate_check", "decide", "reconcile", "verify", "resume_writer")
NEXT = {
    "stop_writer": "read its log, then clear stop_writer with downstream",
    "scan": "nothing was written. Read the failed scan's log, then clear scan with downstream",
    "gate_check": "read its log, then clear scan with downstream",
    "decide": outcome.ASK_AGAIN,
    "reconcile": "read its log, which says what was applied if anything was; then clear scan with downstream",
    "verify": "read its log: it names the sync_id to roll back",
    "resume_writer": f"read its log; if the writer is held, {outcome.ASK_AGAIN}",
}
DONE = ("success", "skipped")
# The longest line of the log's last words.
WIDTH = 100


class RunFailed(SystemExit):
    """A step of the run has failed. People have been told.

    An exit: for any other exception Airflow logs a traceback, below which nobody would find what to do. No second try
    follows (plugins/failures.py).
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.code = 1


ON_CALL = """
Sums the run up in one line of JSON, tells people what they have to know, and fails if any step failed, or if the
warehouse does not have what the steps were to leave there.

**If it fails:** the end of its log names the step that failed first and what to do; that step's log has more.
"""


class ReportOperator(SourceOperator):
    """Sum the run up in one JSON line, tell people what they have to know, and fail if anything failed.

    The states of the tasks are not enough, since people can mark them: scans, verdicts, repairs, verification and the
    writer are read from the warehouse. A run that confirms the copy emits its asset.

    If `stop_writer` was cut off before it closed the fence, the pool is closed although the writer runs. The pool is
    opened again here, so that no sync waits unnoticed.
    """

    on_call = ON_CALL

    def __init__(self, *, source: str, **kwargs: Any):
        super().__init__(source=source, outlets=[assets.outlet(source)], **kwargs)

    def execute(self, context: Any) -> dict[str, Any]:
        skip_unless_configured(context, self.source)
        run, source = run_name(context), get_source(self.source)
        states = _states(context)
        with warehouse.connect(run) as conn:
            evidence = run_evidence.read(conn, self.source, run, [entity.name for entity in source.entities])
            worse = run_evidence.judged_worse(conn, self.source, run)
            doubts = unproven.oldest(conn, self.source)
            changes = field_store.found_by(conn, self.source, run)
        if not evidence.writer.stopped:
            self._open_pool(run)
        dry_run = is_dry(context, self.source)
        summary = log_line(context, self.source, "report", steps=states, **_figures(evidence, worse, doubts))
        metrics.send({"stopped": int(evidence.writer.stopped)}, self.source, "writer")
        metrics.send({"rows": evidence.rows, "proven": evidence.proven}, self.source)
        counts = evidence.repair.counts if evidence.repair else {}
        result = source.result(summaries(context), counts, dry_run=dry_run and not counts)
        push_result(context, self.source, result)
        failed = next((step for step in STEPS if states.get(step) not in DONE), None)
        gap = None if failed else outcome.gap(evidence, dry_run=dry_run)
        event = messages.of_run(self._facts(context, evidence, worse, doubts, failed, gap))
        of_fields = messages.of_fields(self.source, run, changes, notify.fields_link(self.source))
        notify.tell(run, self.source, [*filter(None, (event, of_fields))])
        if failed:
            _fail(f"{failed} {states.get(failed)}; {evidence.writer}", NEXT[failed])
        if gap:
            _fail(f"{gap.what}: {gap.consequence}; {evidence.writer}", gap.next_step)
        self._confirm(context, evidence)
        return summary

    def _confirm(self, context: Any, evidence: Evidence) -> None:
        """Emit the source's asset if the run has confirmed the copy, else log why it has not."""
        doubt = assets.doubt(context, evidence)
        if doubt:
            log.info("no event of %s: %s", assets.confirmed(self.source).name, doubt)
        else:
            assets.emit(context, self.source, evidence, summaries(context))

    def tell_failure(self, context: Any, failure: Failure) -> None:
        """Tell people that this task has failed, so nobody knows the run's state.

        If it failed because a step failed (RunFailed), people know already.
        """
        if isinstance(context.get("exception"), RunFailed):
            return
        run = run_name(context)
        notify.tell(run, self.source, [messages.of_lost_report(self.source, run, failure, notify.run_link(run))])

    def _facts(
        self,
        context: Any,
        evidence: Evidence,
        worse: list[str],
        doubts: Sequence[Unproven],
        failed: str | None,
        gap: Gap | None,
    ) -> RunFacts:
        return RunFacts(
            source=self.source,
            run=evidence.run,
            link=notify.run_link(evidence.run),
            writer=evidence.writer,
            failed=failed,
            failures=_failures(context, failed),
            next_step=NEXT.get(failed, ""),
            gap=gap,
            verdict=evidence.verdict,
            reasons=tuple(worse),
            planned=evidence.planned,
            sync_id=evidence.repair and evidence.repair.sync_id,
            decision=evidence.decision,
            answered=evidence.decided_by != holds.NOBODY,
            rows=evidence.rows,
            proven=evidence.proven,
            unproven=tuple(map(str, doubts)),
        )

    def _open_pool(self, run: str) -> None:
        name = pool_name(self.source)
        with airflow_api.opened() as api:
            pool = api.pool(name)
            if pool is None or (pool.slots == 0 and run in pool.description):
                api.open_pool(name)
                log.warning("pool %s was missing, or closed by this run over a running writer; it is open again", name)


def _fail(what: str, next_step: str) -> NoReturn:
    """Log what is wrong and what to do, at the end of this task's log, and fail it. Raises RunFailed."""
    for sentence in (f"{what}.", f"Next: {next_step}."):
        for line in wrap(sentence, WIDTH):
            log.error("%s", line)
    raise RunFailed(f"{what}. Next: {next_step}")


def _figures(evidence: Evidence, worse: list[str], doubts: Sequence[Unproven]) -> dict[str, Any]:
    """Return the run's figures in the warehouse, as the line of the report has them."""
    repair = evidence.repair
    return {
        "verdict": evidence.verdict,
        "reasons": worse,
        "drift": evidence.planned,
        "decision": evidence.decision,
        "repair": repair and {"sync_id": repair.sync_id, "state": repair.state, "verified": bool(repair.verified_at)},
        "rows": evidence.rows,
        "proven": evidence.proven,
        "entities": {scan.entity: {"rows": scan.rows, "proven": scan.proven} for scan in evidence.scans},
        "put_off": dict(evidence.put_off),
        "unproven": [str(doubt) for doubt in doubts],
        "writer": str(evidence.writer),
    }


def _failures(context: Any, step: str | None) -> tuple[Failure, ...]:
    """Return why the step failed: one failure for each mapped task that failed."""
    found = (context["ti"].xcom_pull(task_ids=step, key="failure") if step else None) or []
    return tuple(Failure(**data) for data in (found if isinstance(found, list) else [found]))


def _states(context: Any) -> dict[str, str]:
    """Return the state of each step. If it is mapped, a failed or unfinished task decides."""
    run_id, dag_id = context["run_id"], context["dag"].dag_id
    found = context["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id])[run_id]
    states: dict[str, str] = {}
    for task, state in found.items():
        step = next((step for step in STEPS if task == step or task.startswith(f"{step}_")), None)
        if step and states.get(step, "success") in DONE:
            states[step] = str(state)
    return states
