"""A write that was sent to Flex, and what a read after it proves."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from include.sources.flex.calls import Outcome
from include.sources.flex.plan import Add, Remove, SetRole
from include.sources.flex.rows import CONTACT, Line


@dataclass(frozen=True)
class Sent:
    """A write that was sent, and what its answer says. Only a read proves whether it happened."""

    operation_id: int
    action: Add | Remove | SetRole
    outcome: Outcome

    def shown(self, lines: Sequence[Line], before: Collection[UUID]) -> bool:
        """Return whether `lines` show that the write was done. `before`: ids of the lines before the write."""
        match self.action:
            case Add():
                there = _lines_of(self.action.resource_id, lines)
                return there == [self.outcome.line_id or there[0]] and before.isdisjoint(there) if there else False
            case Remove():
                return all(line.line_id != self.action.line_id for line in lines)
            case SetRole():
                return any((line.line_id, line.role_id) == (self.action.line_id, self.action.role_id) for line in lines)

    def judged(self, lines: Sequence[Line] | None, before: Collection[UUID], why: str) -> Outcome:
        """Return the outcome of the write by the `lines` read after it, None if they could not be read.

        `before`: ids of the lines before the write. `why`: the reason if the lines don't show it.
        """
        told, action = self.outcome.kind, self.action
        # A refused add made no line; if the contact has a new line, somebody else has made it.
        if lines is not None and not (told == "refused" and isinstance(action, Add)) and self.shown(lines, before):
            made = _lines_of(action.resource_id, lines)[0] if isinstance(action, Add) else None
            return Outcome("done", made)
        if told == "refused":
            return self.outcome
        reason = "; ".join(part.rstrip(".") for part in (self.outcome.reason, why) if part)
        # It harms nobody if an orphan is deleted later.
        if isinstance(action, Remove) and action.orphan:
            return Outcome("refused", reason=reason)
        # The write is over, and writing it again does no harm.
        if lines is not None and told == "done" and not isinstance(action, Add):
            return Outcome("refused", reason=f"Flex took it for done, but {reason}")
        return Outcome("unknown", self.outcome.line_id, reason)


def _lines_of(resource_id: UUID, lines: Collection[Line]) -> list[UUID]:
    return [line.line_id for line in lines if line.kind == CONTACT and line.resource_id == resource_id]
