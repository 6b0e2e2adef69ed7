"""`decide`: ask a person what to do about a hold. Nothing is written while the task waits."""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param, ParamsDict
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped
from psycopg import Connection

from include.confidence import holds, messages, question, question_text, questions
from include.confidence.holds import NOBODY, Decision
from include.confidence.queries.runs import read_run
from include.confidence.question import OPTIONS
from include.sources import get_source
from include.warehouse import fence
from plugins import notify
from plugins.deciders import deciders, require_decider, require_deciders
from plugins.hooks import warehouse
from plugins.operators.base import RunPage
from plugins.params import several, some_text
from plugins.runs import run_name
from plugins.settings import duration

log = logging.getLogger(__name__)

# Without an answer for so long the writer stays stopped and the run fails, before the next night's run.
TIMEOUT_HOURS = 20.0
MOST_HOURS = 24.0 * 365

ON_CALL = """
Asks a person what to do about a hold; skipped where there is none. Nothing is written while it waits.

**If it fails, or nobody answered:** the writer stays stopped. To be asked again, press *Ask me again* on the source's
page under *Drift*, or clear `decide` with downstream.
"""

REFUSED = (
    "Nothing was decided, the writer stays stopped. Press Ask me again on the source's page"
    " under Drift, or clear decide with downstream"
)


class AnswerRefused(Exception):
    """The answer has something that the question doesn't have. The message says what to do."""


class DecideOperator(HITLOperator):
    """Ask what to do about the source's hold. The task is skipped if nothing holds the writer.

    A person may leave entities out of a repair, and give a reason. Airflow takes the answer from deciders alone, if it
    is known who they are; an answer of anybody else decides nothing, and the task fails.

    The Airflow Variable `decision_timeout_hours` replaces the 20 hours after which "keep stopped" is assumed. The
    answer is stored in confidence.forensic_run with name, time and reason. It applies only to holds that the question
    named: if the holds have changed by then, nothing is decided and the task fails.
    """

    operator_extra_links = (*HITLOperator.operator_extra_links, RunPage())
    template_fields = ()

    def __init__(self, *, source: str, **kwargs: Any):
        super().__init__(
            subject=f"The writer of {source} is held",
            options=list(OPTIONS),
            defaults="Keep stopped",
            # Not those of the DAG, which Airflow gives here.
            **{**kwargs, "params": _fields([entity.name for entity in get_source(source).entities])},
            doc_md=ON_CALL,
        )
        self.source = source

    def execute(self, context: Any) -> Any:
        run = run_name(context)
        timeout = timedelta(hours=duration("decision_timeout_hours", TIMEOUT_HOURS, most=MOST_HOURS))
        with warehouse.connect(run) as conn, conn.transaction():
            writer = fence.require_stopped(conn, self.source, run)
            found = holds.open_holds(conn, self.source)
            holds.note_asked(conn, found)
            source = get_source(self.source)
            asked = question.read(
                conn,
                writer,
                found,
                texts=source.metric_texts,
                sides=source.sides,
                plan_link=partial(notify.plan_link, self.source),
                until=datetime.now(UTC) + timeout,
            )
            self.body = question_text.markdown(asked)
            questions.keep(conn, self.source, run, [hold.scan_id for hold in found], self.body, asked.planned)
        if not found:
            raise AirflowSkipException("nothing holds the writer")
        self.subject = f"{self.source}: the writer is held ({context['run_id']}, attempt {context['ti'].try_number})"
        self.params = ParamsDict(_fields(asked.planned))
        self.response_timeout = timeout
        require_deciders()
        self.assigned_users = [{"id": name, "name": name} for name in deciders() or ()]
        event = messages.of_hold(writer, question_text.plain(asked), run, notify.question_link(run))
        # Called after Airflow has stored the question, before the task waits.
        self.notifiers = [lambda _: notify.tell(run, self.source, [event])]
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Store the decision and return it with who made it. Skip reconcile and verify unless it is to repair.

        A repair that leaves out all entities with planned changes counts as "Resume without repair".
        """
        user = event.get("responded_by_user")
        if user:
            require_decider(user["name"], "answer a hold", REFUSED)
        form = event.get("params_input") or {}
        left_out, reason = _left_out(self.source, form), str(form.get("reason") or "")
        answer = super().execute_complete(context, event | {"params_input": {}})
        decision = OPTIONS[answer["chosen_options"][0]]
        who = user["name"] if user else NOBODY
        run = run_name(context)
        with warehouse.connect(run) as conn, conn.transaction():
            if decision is Decision.REPAIR and left_out and not _planned(conn, run) - set(left_out):
                decision = Decision.RESUME
            fence.require_stopped(conn, self.source, run)
            holds.require_asked(conn, self.source)
            holds.decide(conn, self.source, decision, who, reason=reason, left_out=left_out)
            holds.refresh_hold(conn, self.source)
        log.info("decided by %s: %s", who, decision)
        result = {"decision": str(decision), "by": who}
        if decision is Decision.REPAIR:
            return result | ({"left_out": left_out} if left_out else {})
        context["ti"].xcom_push(key="return_value", value=result)
        raise DownstreamTasksSkipped(tasks=["reconcile", "verify"])


def _planned(conn: Connection, run: str) -> set[str]:
    """Return the entities for which the run has planned changes."""
    found = read_run(conn, run)
    if found is None:
        return set()
    return {scan.entity for scan in found.scans if scan.entity not in found.put_off and scan.plan.rows}


def _fields(entities: Sequence[str]) -> dict[str, Param]:
    """Return the fields of the form besides the options: the reason, and which of these entities to leave out."""
    left_out = several(
        entities,
        "Leave these out",
        "With “Repair, then resume”: entities that stay as with “Resume without repair”. The writer runs again for them"
        " too.",
    )
    reason = some_text("Reason", "Kept with your name and the time, for those who look at it later.")
    fields = {"leave_out": left_out, "reason": reason} if len(entities) > 1 else {"reason": reason}
    for field in fields.values():
        # HITLOperator drops the others.
        field.source = "task"
    return fields


def _left_out(source: str, given: Mapping[str, Any]) -> list[str]:
    """Return the entities that the answer leaves out of a repair. Raises AnswerRefused for unknown names."""
    known = [entity.name for entity in get_source(source).entities]
    left_out = given.get("leave_out") or []
    unknown = [name for name in left_out if name not in known] if isinstance(left_out, list) else [left_out]
    wrong = [*sorted(set(given) - {"leave_out", "reason"}), *unknown]
    if wrong:
        named = ", ".join(map(str, wrong))
        raise AnswerRefused(
            f"the answer names {named[:200]}, which the question doesn't have (leave_out takes {', '.join(known)})."
            f" {REFUSED}"
        )
    return list(dict.fromkeys(left_out))
