"""The question about a hold on our pages: its text, the form that answers it through Airflow's API, its answer."""

from collections.abc import Iterable
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markupsafe import Markup
from psycopg import Connection
from sqlalchemy.orm import Session

from include.confidence import question, question_text, questions
from include.confidence.holds import Decision
from include.confidence.queries.runs import Run
from include.confidence.queries.scans import Scan
from include.confidence.summary import Plan
from include.warehouse import fence
from plugins.pages.airflow_state import Answer, is_about_to_ask, question_of

# Escapes HTML, lets no link run a script, and loads nothing.
MARKDOWN = MarkdownIt("commonmark", {"html": False}).disable("image")


@dataclass(frozen=True)
class Choice:
    """An option of the question, and what it would do. `preselected`: taken if nobody answers; `repairs`: the plans."""

    option: str
    consequence: Markup
    preselected: bool
    repairs: bool


@dataclass(frozen=True)
class Form:
    """The question of a run, with all that its form needs.

    - `attempt`: the id of the attempt that asks
    - `text`, `note`: what comes before the choices, and after them; `earlier`: of the text, how the question before was
      answered
    - `plans`: by entity, the plan that a repair would apply; the form offers to leave some out if there are several
    - `answer`: None while it waits for one; `taken`: the run has acted on it
    - `before`: the answers that the run has acted on before
    """

    run: str
    attempt: str
    text: Markup
    choices: tuple[Choice, ...]
    note: Markup
    earlier: Markup
    plans: dict[str, Plan]
    answer: Answer | None
    taken: bool
    before: tuple[questions.Given, ...]

    @property
    def rows(self) -> dict[str, int]:
        """By entity, how many rows a repair would write."""
        return {entity: plan.rows for entity, plan in self.plans.items()}


def of_run(conn: Connection, session: Session, run: str, scans: Iterable[Scan]) -> Form | None:
    """Return the question of the run `dag_id/run_id`, None if it asks nothing. `scans` include the run's."""
    found = question_of(session, run)
    if found is None:
        return None
    kept = questions.of_run(conn, run)
    # Airflow may still have the text of an earlier attempt. Old questions have no text in the warehouse.
    parts = question_text.parts((kept and kept.text) or found.text)
    planned = {scan.entity: scan.plan for scan in scans if scan.run == run and kept and scan.entity in kept.planned}
    taken, given = _is_taken(kept, found.answer), questions.answers(conn, run)
    return Form(
        run=run,
        attempt=found.attempt,
        text=Markup(MARKDOWN.render(parts.before)),
        choices=tuple(
            Choice(
                option,
                Markup(MARKDOWN.renderInline(_sentence(parts.answers.get(option, "")))),
                option == found.default,
                question.OPTIONS.get(option) is Decision.REPAIR,
            )
            for option in found.options
        ),
        note=Markup(MARKDOWN.render(parts.after)),
        earlier=Markup(MARKDOWN.render(parts.earlier)),
        plans=dict(sorted(planned.items())),
        answer=found.answer,
        taken=taken,
        before=tuple(given[:-1] if taken else given),
    )


@dataclass(frozen=True)
class Past:
    """A question of a run as the warehouse has it, with all answers to it, the first one first."""

    text: Markup
    given: tuple[questions.Given, ...]


def past(conn: Connection, run: str) -> Past | None:
    """Return the question of a run that Airflow does not ask any more; None if it has asked nothing.

    The text is empty if another run has asked about the same holds since.
    """
    kept, given = questions.of_run(conn, run), questions.answers(conn, run)
    if not given and not (kept and kept.text):
        return None
    return Past(Markup(MARKDOWN.render(kept.text if kept else "")), tuple(given))


def comes(conn: Connection, session: Session, run: Run) -> bool:
    """Return whether the run is about to ask: it holds the writer, and its task `decide` has not begun to wait.

    Airflow keeps the answer to an earlier question until then. The run has acted on that already.
    """
    writer = fence.read(conn, run.source)
    if writer.run != run.run or not writer.hold_reason or not is_about_to_ask(session, run.run):
        return False
    found = question_of(session, run.run)
    return found is None or _is_taken(questions.of_run(conn, run.run), found.answer)


def _is_taken(kept: questions.Asked | None, answer: Answer | None) -> bool:
    """Return whether the warehouse has this answer: what it has of an earlier one is older."""
    return bool(answer and kept and kept.decided_at and kept.decided_at > answer.at)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
