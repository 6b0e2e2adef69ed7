"""`decide`: ask a person what to do about a hold. Nothing is written while the task waits."""

import logging
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from include.confidence import holds, messages
from include.confidence.holds import NOBODY, Decision, Hold
from include.warehouse import fence
from plugins import notify
from plugins.hooks import warehouse
from plugins.operators.base import RunPage
from plugins.runs import run_name

log = logging.getLogger(__name__)

OPTIONS = {
    "Keep stopped": Decision.KEEP,
    "Resume without repair": Decision.RESUME,
    "Repair, then resume": Decision.REPAIR,
}
# Without an answer for so long the writer stays stopped and the run fails, before the next night's run.
TIMEOUT_HOURS = 20.0

ON_CALL = """
Asks a person what to do about a hold; skipped where there is none. Nothing is written while it waits.

**If it fails, or nobody answered:** the writer stays stopped. Clear `decide` with downstream to be asked again.
"""


class DecideOperator(HITLOperator):
    """Ask what to do about the source's hold. The task is skipped if nothing holds the writer.

    The Airflow Variable `decision_timeout_hours` replaces the 20 hours after which "keep stopped" is assumed. The
    answer is stored in confidence.forensic_run with name and time. It applies only to the holds that the question
    named: if the holds have changed by then, nothing is decided and the task fails.
    """

    operator_extra_links = (*HITLOperator.operator_extra_links, RunPage())
    template_fields = ()

    def __init__(self, *, source: str, **kwargs: Any):
        super().__init__(
            subject=f"The writer of {source} is held",
            options=list(OPTIONS),
            defaults="Keep stopped",
            doc_md=ON_CALL,
            **kwargs,
        )
        self.source = source

    def execute(self, context: Any) -> Any:
        run = run_name(context)
        with warehouse.connect(run) as conn, conn.transaction():
            writer = fence.require_stopped(conn, self.source, run)
            found = holds.open_holds(conn, self.source)
            holds.note_asked(conn, found)
        if not found:
            raise AirflowSkipException("nothing holds the writer")
        self.subject = f"{self.source}: the writer is held ({context['run_id']}, attempt {context['ti'].try_number})"
        self.body = _body(writer, found)
        hours = float(Variable.get("decision_timeout_hours", default=TIMEOUT_HOURS))
        self.response_timeout = timedelta(hours=hours)
        event = messages.of_hold(writer, found, run, hours, notify.question_link(run))
        # Called after Airflow has stored the question, before the task waits.
        self.notifiers = [lambda _: notify.tell(run, self.source, [event])]
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        answer = super().execute_complete(context, event)
        decision = OPTIONS[answer["chosen_options"][0]]
        who = (answer["responded_by_user"] or {}).get("name") or NOBODY
        run = run_name(context)
        with warehouse.connect(run) as conn, conn.transaction():
            fence.require_stopped(conn, self.source, run)
            holds.require_asked(conn, self.source)
            holds.decide(conn, self.source, decision, who)
            holds.refresh_hold(conn, self.source)
        log.info("decided by %s: %s", who, decision)
        result = {"decision": str(decision), "by": who}
        if decision is Decision.REPAIR:
            return result
        context["ti"].xcom_push(key="return_value", value=result)
        raise DownstreamTasksSkipped(tasks=["reconcile", "verify"])


def _body(writer: fence.Writer, found: list[Hold]) -> str:
    reasons = "\n".join(
        f"- **{hold.entity}** ({hold.scope}, scanned {hold.scanned_at:%Y-%m-%d %H:%M %Z}): {'; '.join(hold.reasons)}"
        for hold in found
    )
    return (
        f"The writer of `{writer.source}` is stopped since {writer.since:%Y-%m-%d %H:%M %Z} and stays so until you"
        f" answer.\n\n{reasons}\n\n"
        "- **Keep stopped**: nothing is written; this run fails, and the next night looks again.\n"
        "- **Resume without repair**: this run's figures become the new baseline; the writer runs again.\n"
        "- **Repair, then resume**: the planned changes are applied under a sync_id that can be rolled back,"
        " also when the run is a dry run.\n"
    )
