"""What is on a crew call, as far as it is proven.

Flex has two lists of it: its rows, and its own record. One that is empty, short, late or another crew call's is found
out by the other. A line of which we know is gone only if neither shows it and its own address answers 404. Whose line
it is only the rows have to tell: where the record doesn't, they are read once more.
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
from include.sources.flex.rows import CONTACT, Item, Line, Unreadable

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Looked:
    """The lines on a crew call. `gone` are lines of which we knew that are proven to be gone; `back` are lines of ours
    that were taken for gone before, and are there.

    `sure`: both lists say so. Otherwise it is good only for finding that nothing has to be done. `told`: both also say
    what each line is, and whose. `there`: whether there is such a crew call at all.
    """

    lines: tuple[Line, ...]
    gone: frozenset[UUID] = frozenset()
    back: frozenset[UUID] = frozenset()
    sure: bool = False
    told: bool = False
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
    looked = Looked(lines, frozenset(absent), frozenset(back), sure=not there, told=not there, there=there)
    if there and (sure or absent or back):
        looked = confirmed(api, element_id, looked)
    for line_id in sorted(absent):
        if calls.exists(api, line_id):
            raise Unreadable(f"line {line_id} isn't shown on its crew call, but its own address shows it")
    return looked


def confirmed(api: ApiClient, element_id: UUID, looked: Looked) -> Looked:
    """The same, if the crew call's own record shows the same lines, as far as it tells. Raises as `look` does."""
    try:
        items = calls.items(api, element_id)
    except NotFound:
        raise Unreadable(f"element {element_id} has rows, but no record") from None
    return replace(looked, sure=True, told=_agree(looked.lines, items))


def require_same(api: ApiClient, element_id: UUID, crew: Crew, looked: Looked) -> None:
    """Raises Unreadable unless another read of the rows shows the same lines, people and roles."""
    try:
        again = calls.lines(api, element_id, crew.mapped)
    except NotFound:
        raise Unreadable(f"element {element_id} had rows, and has none when it is asked again") from None
    if {*again} != {*looked.lines}:
        raise Unreadable("two reads one after the other show different lines, people or roles")


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


def _agree(lines: Collection[Line], items: Mapping[UUID, Item]) -> bool:
    """Whether the record tells of each line what the rows tell. Raises Unreadable where it tells something else.

    Of what is no contact one list may leave out what the other shows; that harms nobody.
    """
    shown = {line.line_id for line in lines}
    only_items = [line_id for line_id, item in items.items() if line_id not in shown and item.kind in (None, CONTACT)]
    only_rows = [line.line_id for line in lines if line.kind == CONTACT and line.line_id not in items]
    if only_items or only_rows:
        named = ", ".join(str(line_id) for line_id in [*only_rows, *only_items][:3])
        raise Unreadable(
            f"its rows and its own record disagree: {len(only_rows)} contacts are only in its rows, {len(only_items)}"
            f" lines only in its record (such as {named})"
        )
    # Each line is looked at, since any may be contradicted.
    told = [_is_told(line, items.get(line.line_id, Item())) for line in lines]
    return all(told)


def _is_told(line: Line, item: Item) -> bool:
    """Whether the record tells what a line is and, of a contact, whose. Raises Unreadable if the rows differ."""
    if line.kind != CONTACT:
        if item.kind == CONTACT:
            raise Unreadable(f"line {line.line_id} is a contact by the record, and none by the rows")
        return item.kind is not None
    if item.resource_id not in (None, line.resource_id):
        raise Unreadable(f"line {line.line_id} has another resource by the record than by the rows")
    return item == Item(CONTACT, line.resource_id)
