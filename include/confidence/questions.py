"""The questions about holds as they were put to people, with their answers: `confidence.question` and `.answer`.

Airflow keeps a question too, but shows its first text if the task is cleared and asks again. Every function works in
the transaction of the connection that it is given and never commits.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection
from psycopg.rows import class_row


@dataclass(frozen=True)
class Asked:
    """A question of a run, and its newest answer.

    - `text`: Markdown; empty if it is not known
    - `planned`: the entities with planned changes, each of which a person may leave out of a repair
    - `decision`: keep, resume or repair; None before the first answer
    - `left_out`: the entities that the answer leaves out
    """

    run: str
    asked_at: datetime
    text: str
    planned: tuple[str, ...]
    decision: str | None
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None
    left_out: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("planned", "left_out"):
            object.__setattr__(self, name, tuple(getattr(self, name)))


@dataclass(frozen=True)
class Given:
    """An answer to a question: a decision of `holds.Decision`, and the entities that it leaves out of a repair."""

    decision: str
    decided_by: str
    decided_at: datetime
    reason: str | None
    left_out: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "left_out", tuple(self.left_out))


def keep(
    conn: Connection, source: str, run: str, scan_ids: Sequence[str], text: str, planned: Collection[str] = ()
) -> None:
    """Keep the question of a run about the holds of these scans. Call `holds.note_asked` first.

    If people were asked about these holds before, it replaces that question's text.
    """
    values = {"source": source, "run": run, "scans": list(scan_ids), "text": text, "planned": list(planned)}
    conn.execute(KEEP, values)


def note_answer(
    conn: Connection,
    source: str,
    scan_ids: Sequence[str],
    decision: str,
    who: str,
    *,
    reason: str | None,
    left_out: Collection[str],
) -> None:
    """Keep the answer to the questions about the holds of these scans. It is the newest one of several."""
    values = {"decision": decision, "who": who, "reason": reason, "left_out": list(left_out)}
    conn.execute(ANSWER, values | {"source": source, "scans": list(scan_ids)})


def of_run(conn: Connection, run: str) -> Asked | None:
    """Return the newest question of the run `dag_id/run_id`; None if it has asked nothing."""
    with conn.cursor(row_factory=class_row(Asked)) as cursor:
        return cursor.execute(f"{ASKED} WHERE run = %s ORDER BY asked_at DESC LIMIT 1", [run]).fetchone()


def answers(conn: Connection, run: str) -> list[Given]:
    """Return all answers to the questions of the run `dag_id/run_id`, the first one first.

    One answer may be to several questions.
    """
    with conn.cursor(row_factory=class_row(Given)) as cursor:
        return cursor.execute(ANSWERS, [run]).fetchall()


def answered_before(conn: Connection, source: str, run: str) -> Asked | None:
    """Return the question that was answered last; None if another run than that one and this was judged since."""
    with conn.cursor(row_factory=class_row(Asked)) as cursor:
        return cursor.execute(ASKED + ANSWERED_BEFORE, {"source": source, "run": run}).fetchone()


KEEP = """
INSERT INTO confidence.question (source, asked_at, run, text, planned)
SELECT %(source)s, max(asked_at), %(run)s, %(text)s, %(planned)s
FROM confidence.forensic_run WHERE scan_id = ANY (%(scans)s) HAVING max(asked_at) IS NOT NULL
ON CONFLICT (source, asked_at) DO UPDATE SET run = excluded.run, text = excluded.text, planned = excluded.planned
"""

ANSWER = """
WITH answered AS (
  UPDATE confidence.question SET decision = %(decision)s, decided_by = %(who)s, decided_at = statement_timestamp(),
    reason = %(reason)s, left_out = %(left_out)s
  WHERE source = %(source)s
    AND asked_at IN (SELECT asked_at FROM confidence.forensic_run WHERE scan_id = ANY (%(scans)s))
  RETURNING source, asked_at, decided_at, run, decision, decided_by, reason, left_out
)
INSERT INTO confidence.answer (source, asked_at, decided_at, run, decision, decided_by, reason, left_out)
SELECT * FROM answered
"""

ANSWERS = """
SELECT DISTINCT decision, decided_by, decided_at, reason, left_out FROM confidence.answer
WHERE run = %s ORDER BY decided_at
"""

ASKED = """
SELECT run, asked_at, text, planned, decision, decided_by, decided_at, reason, left_out FROM confidence.question q
"""

ANSWERED_BEFORE = """
WHERE source = %(source)s AND decided_at IS NOT NULL AND NOT EXISTS (
  SELECT FROM confidence.forensic_run f
  WHERE f.source = q.source AND f.verdict IS NOT NULL AND f.run NOT IN (q.run, %(run)s) AND f.scanned_at > q.decided_at
)
ORDER BY decided_at DESC LIMIT 1
"""
