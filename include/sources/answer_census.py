"""The census of the fields of answers whose records no table has, such as those of a copy at the vendor's.

It counts what a run reads, records that are read twice included. It keeps nothing for a later attempt.
"""

import threading
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from psycopg import Connection

from include.confidence.census import Census
from include.confidence.field_changes import State
from include.confidence.field_counts import TYPES, Questions, Record
from include.confidence.field_figures import Declaration, FieldFigures, figures, keep_counts, total
from include.confidence.field_store import lock_census
from include.sources.base import ReadAnswer
from include.warehouse.field_path import lies_in


class AnswerCensus:
    """Counts the records of a source's answers; any number of threads may share it."""

    def __init__(self, source: str, answers: Sequence[ReadAnswer]):
        self._source = source
        self._answers = {answer.counted_as: answer for answer in answers if answer.counted_as}
        self._censuses = {name: Census(_questions(answer)) for name, answer in self._answers.items()}
        self._lock = threading.Lock()

    def count(self, name: str, records: Sequence[Record], nested: Collection[Sequence[Record]] = ()) -> None:
        """Count records of the answer `name` (`ReadAnswer.counted_as`). `nested`: those that others among them hold."""
        with self._lock:
            self._censuses[name].count(records, nested)

    def keep(self, conn: Connection, run: str, *, whole: bool, resumed: bool = False) -> FieldFigures:
        """Store what was counted and what has changed; return the figures. Call it in a transaction.

        `whole`: it is a scan of everything; the figures of any other run are None. If it is `resumed`, an earlier
        attempt has read a part, so this one can't tell what has vanished.
        """
        lock_census(conn, self._source)
        found = []
        for name, census in self._censuses.items():
            declared = _declaration(self._answers[name])
            before = keep_counts(conn, self._source, run, declared, census.counted(), whole=whole and not resumed)
            found += [figures(conn, self._source, declared, before, None)] if whole else []
        return total(found) if whole else FieldFigures()


def _declaration(answer: ReadAnswer) -> Declaration:
    return Declaration(
        answer.counted_as, len(answer.read), partial(state_of, answer), lambda path: _reason(answer, path)
    )


def state_of(answer: ReadAnswer, path: str) -> State:
    """Return what becomes of a field of the answer: declared if it is read, or something in it; else ignored."""
    path = path.removesuffix("[]")
    read = any(lies_in(path, field) or lies_in(field, path) for field in answer.read)
    return State.DECLARED if read else State.IGNORED


def _reason(answer: ReadAnswer, path: str) -> str:
    """Return what a field is read for, or why it is ignored."""
    said = answer.read if state_of(answer, path) is State.DECLARED else answer.ignored
    fallback = "" if said is answer.read else answer.rest
    return next((why for field, why in said.items() if lies_in(path, field)), fallback)


def _questions(answer: ReadAnswer) -> Questions:
    readers = {field: partial(_require_type, kind) for field, kind in answer.types.items()}
    return Questions(readers=readers, codes=answer.enumerations)


def _require_type(kind: str, value: Any) -> Any:
    """Return the value. Raises ValueError if it has another type, by its name in the census; null passes."""
    if value is not None and TYPES.get(type(value)) != kind:
        raise ValueError(f"is no {kind}")
    return value
