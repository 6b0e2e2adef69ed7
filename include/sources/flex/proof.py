"""Prove the writes that were sent to a crew call by reading it again."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from include.api.client import ApiClient
from include.api.errors import ApiError
from include.sources.flex.calls import Outcome
from include.sources.flex.look import both, retry_unreadable
from include.sources.flex.rows import Line, Unreadable
from include.sources.flex.sent import Sent


@dataclass(frozen=True)
class Proof:
    """Each write with its proven outcome.

    `lines`: those that were read, None if they could not be read. `read_error`: why not, None if they were.
    """

    outcomes: Sequence[tuple[Sent, Outcome]]
    lines: Sequence[Line] | None
    read_error: Exception | None = None

    @property
    def unknown(self) -> dict[int, Outcome]:
        """The outcomes that are still unknown, by operation id."""
        return {write.operation_id: outcome for write, outcome in self.outcomes if outcome.kind == "unknown"}


def prove(
    api: ApiClient,
    element_id: UUID,
    sent: Sequence[Sent],
    *,
    before: Sequence[Line],
    mapped: Collection[UUID],
    pauses: Sequence[float],
) -> Proof:
    """Read the lines again and judge each write by them.

    - `before`: the lines before the writes
    - `mapped`: as in `calls.lines`
    - `pauses`: while Flex does not show all writes, it is asked again after each of these seconds
    """
    ids_before = {line.line_id for line in before}
    lines: Sequence[Line] | None = before
    why, read_error = "a fresh read does not show it", None
    if any(write.outcome.sent for write in sent):
        try:
            lines = _lines_after(api, element_id, sent, ids_before, mapped, pauses)
        except (Unreadable, ApiError) as error:
            lines, why, read_error = None, f"what was written could not be read: {error}", error
    return Proof([(write, write.judged(lines, ids_before, why)) for write in sent], lines, read_error)


def _lines_after(
    api: ApiClient,
    element_id: UUID,
    sent: Sequence[Sent],
    before: Collection[UUID],
    mapped: Collection[UUID],
    pauses: Sequence[float],
) -> Sequence[Line]:
    """Return the lines after the writes, those of the last read if no read shows all writes."""
    known = {*mapped, *(write.outcome.line_id for write in sent if write.outcome.line_id)}
    last: list[Sequence[Line]] = []

    def read() -> Sequence[Line]:
        last[:] = [both(api, element_id, known, owed=True)]
        if not all(write.outcome.kind == "refused" or write.shown(last[0], before) for write in sent):
            raise Unreadable("not all that was written is shown yet")
        return last[0]

    try:
        return retry_unreadable(pauses, read)
    except Unreadable:
        if last:
            return last[0]
        raise
