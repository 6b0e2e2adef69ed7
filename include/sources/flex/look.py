"""What is on a crew call, as far as it is proven.

Flex has two lists of it: its rows, and its own record. One that is empty, short, late or another crew call's is found
out by the other. A line of which we know is gone only if neither shows it and its own address answers 404.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import UUID

from include.api.client import ApiClient
from include.api.errors import NotFound
from include.sources.flex import calls
from include.sources.flex.desired import Crew
from include.sources.flex.rows import CONTACT, Line, Unreadable

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Looked:
    """The lines on a crew call. `gone` are lines of which we knew that are proven to be gone; `back` are lines of ours
    that were taken for gone before, and are there.

    `sure`: both lists say so. Otherwise it is good only for finding that nothing has to be done. `there`: whether there
    is such a crew call at all.
    """

    lines: tuple[Line, ...]
    gone: frozenset[UUID] = frozenset()
    back: frozenset[UUID] = frozenset()
    sure: bool = False
    there: bool = True


def look(api: ApiClient, element_id: UUID, crew: Crew, *, sure: bool = False) -> Looked:
    """Read a crew call: its rows, and its record too if `sure`, or if the rows differ from what we know of.

    Raises Unreadable, and whatever `ApiClient.send` does.
    """
    try:
        lines, there = tuple(calls.lines(api, element_id, crew.mapped)), True
    except NotFound:
        _require_no_record(api, element_id)
        lines, there = (), False
    shown = {line.line_id for line in lines}
    absent, back = crew.known - shown, crew.gone & shown
    looked = Looked(lines, frozenset(absent), frozenset(back), sure=not there, there=there)
    if there and (sure or absent or back):
        looked = confirmed(api, element_id, looked)
    for line_id in sorted(absent):
        if calls.exists(api, line_id):
            raise Unreadable(f"line {line_id} isn't shown on its crew call, but its own address shows it")
    return looked


def confirmed(api: ApiClient, element_id: UUID, looked: Looked) -> Looked:
    """The same, if the crew call's own record shows the same lines. Raises as `look` does."""
    try:
        items = calls.items(api, element_id)
    except NotFound:
        raise Unreadable(f"element {element_id} has rows, but no record") from None
    _agree(looked.lines, items)
    return replace(looked, sure=True)


def require_there(looked: Looked, element_id: UUID, crew: Crew) -> None:
    """Raises Unreadable where a call of ours names a crew call that Flex doesn't have: that has to be mended first."""
    if crew.calls and not looked.there:
        raise Unreadable(f"Flex has no element {element_id}, though a crew call names it (both answer 404)")


def both(api: ApiClient, element_id: UUID, mapped: Collection[UUID], *, owed: bool = False) -> tuple[Line, ...]:
    """The lines that both lists show; `mapped` and `owed` as in `calls.lines`. Raises Unreadable where they differ."""
    lines = calls.lines(api, element_id, mapped, owed=owed)
    _agree(lines, calls.items(api, element_id, owed=owed))
    return tuple(lines)


def patient(pauses: Sequence[float], work: Callable[[], Result]) -> Result:
    """Return what `work` does, trying again after each pause while it raises Unreadable."""
    for pause in pauses:
        try:
            return work()
        except Unreadable as doubt:
            log.info("%s; asked again in %.1f s", doubt, pause)
        time.sleep(pause)
    return work()


def _require_no_record(api: ApiClient, element_id: UUID) -> None:
    try:
        calls.items(api, element_id)
    except NotFound:
        return
    raise Unreadable(f"element {element_id} has a record, but no rows")


def _agree(lines: Collection[Line], items: Mapping[UUID, str | None]) -> None:
    """Of what is no contact one list may leave out what the other shows; that harms nobody."""
    shown = {line.line_id for line in lines}
    only_items = [line_id for line_id, kind in items.items() if line_id not in shown and kind in (None, CONTACT)]
    only_rows = [line.line_id for line in lines if line.kind == CONTACT and line.line_id not in items]
    if only_items or only_rows:
        named = ", ".join(str(line_id) for line_id in [*only_rows, *only_items][:3])
        raise Unreadable(
            f"{len(only_rows)} contacts are among the crew call's rows only, {len(only_items)} lines in its own record"
            f" only (such as {named})"
        )
