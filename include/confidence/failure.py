"""Why a task failed, in words that quote no rows of the warehouse."""

from dataclasses import dataclass
from typing import Self

from psycopg import OperationalError, errors

# The modules whose errors have messages without rows of the warehouse.
OUR_CODE = ("include.", "plugins.")
# What Postgres refuses a task for, and what to do about it. Its own messages may quote rows.
REFUSALS = {
    errors.DiskFull: "its disk is full: make room, then clear the task",
    errors.IdleInTransactionSessionTimeout: "the task did nothing in an open transaction for too long: clear the task",
    errors.InsufficientPrivilege: "the user of the connection lacks a right: grant it, then clear the task",
    errors.LockNotAvailable: (
        "a row or table stayed locked for too long: find the session by pg_blocking_pids() in pg_stat_activity, end it,"
        " then clear the task"
    ),
    errors.ReadOnlySqlTransaction: (
        "it takes no writes, as a standby does: point the connection to the primary, then clear the task"
    ),
}
LOST = (
    "the connection to the database was refused or lost: the task's log says why (no network, too many connections, a"
    " restart). Mend that, then clear the task"
)


@dataclass(frozen=True)
class Failure:
    """Why a task failed: the error's class and, if it is one of this project's, its message.

    Other errors' messages may quote rows of the warehouse; a few of Postgres' have a message here.
    `subject`: the entity, if the task works on one of several.
    """

    error: str = "its process was lost"
    message: str = ""
    subject: str = ""

    @classmethod
    def of(cls, error: object, subject: str = "") -> Self:
        """Return the failure for an exception; for anything else, that the task's process was lost."""
        if not isinstance(error, BaseException):
            return cls(subject=subject)
        if type(error).__module__.startswith(OUR_CODE):
            return cls(type(error).__name__, str(error), subject)
        if type(error) is OperationalError:
            # psycopg has no closer class for it.
            return cls(type(error).__name__, LOST, subject)
        refusal = REFUSALS.get(type(error))
        return cls(type(error).__name__, f"the database refused: {refusal}" if refusal else "", subject)

    def __str__(self) -> str:
        text = self.message or f"{self.error} (more in the task's log)"
        return f"{self.subject}: {text}" if self.subject else text
