"""What came of a run, and what every error, line and figure of it must not be."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from tests.fuzz.mutations import CANARY

SLOW_SECONDS = 30.0


@dataclass
class Outcome:
    """How a run has ended. `answers`: how many were changed, `kinds`: how. `faults`: what is broken, a line each."""

    seed: int
    answers: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    ended: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def message(self, source: str, *, pages: bool = False) -> str:
        """What a person needs to see it again."""
        return "\n".join(
            [
                f"seed {self.seed} of {source}: {'; '.join(self.ended)}",
                *(f"  {fault}" for fault in self.faults[:20]),
                f"To play it again: make fuzz SOURCE={source} SEED={self.seed}" + " PAGES=1" * pages,
            ]
        )


@contextmanager
def watched(outcome: Outcome, verb: str, conn: psycopg.Connection) -> Iterator[None]:
    """Take whatever error the block raises, and note what is wrong with it, with the log lines and the time."""
    began = time.monotonic()
    with _logged() as lines:
        try:
            yield
            outcome.ended.append(f"{verb}: well")
        except Exception as error:  # noqa: BLE001 - which one is what is looked at
            _judge(outcome, verb, error)
    if (seconds := time.monotonic() - began) > SLOW_SECONDS:
        outcome.faults.append(f"slow: {verb} took {seconds:.0f} s")
    outcome.faults += [f"told: {verb} logged {line[:300]}" for line in lines if CANARY in line][:3]
    if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        outcome.faults.append(f"open: {verb} left a transaction")
        conn.rollback()


def _judge(outcome: Outcome, verb: str, error: Exception) -> None:
    text, kind = str(error), type(error)
    outcome.ended.append(f"{verb}: {kind.__name__}: {text[:300]}")
    if not kind.__module__.startswith("include."):
        name = f"{kind.__module__}.{kind.__name__}"
        outcome.faults.append(f"unforeseen: {verb}: {name}: {text[:300]} at {_place(error)}")
    if CANARY in text:
        outcome.faults.append(f"told: {verb}: {text[:300]}")
    if "\n" in text or not text:
        outcome.faults.append(f"lines: {verb}: {text[:300]!r}")


def _place(error: BaseException) -> str:
    """The innermost line of ours in the error's traceback."""
    frame, place = error.__traceback__, ""
    while frame:
        name = frame.tb_frame.f_code.co_filename
        if "/include/" in name:
            place = f"{name.rpartition('/include/')[2]}:{frame.tb_lineno}"
        frame = frame.tb_next
    return place


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Every log line of this process in the block, as people read it."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, root = Kept(logging.INFO), logging.getLogger()
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
