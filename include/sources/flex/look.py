"""Read what is on a crew call, and prove it.

Flex has two lists of its lines: the rows, and the crew call's own record. If one of them is empty, incomplete, late or
another crew call's, the other shows that. A line that we know is gone only if neither list shows it and its own address
answers 404. The record may leave out whose a line is; then the rows are read twice.

A token that has lost the right to see contacts may get the same answers about all of them. So a crew that is gone as a
whole is believed only if Flex shows a line that we know elsewhere. If all lines of people are gone, Flex has to show
one of theirs: the token may see only what it has made itself.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import UUID

from psycopg import Connection

from include.api.client import ApiClient
from include.api.errors import NotFound
from include.sources.flex import calls, desired
from include.sources.flex.desired import Crew
from include.sources.flex.rows import CONTACT, Item, Line, Unreadable

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Looked:
    """What a read of a crew call has shown.

    - `gone`: lines that we knew and that are proven to be gone
    - `back`: lines of ours that were gone before and are there again
    - `agreed`: rows and record show the same lines; otherwise nothing may be written because of this read
    - `agreed_on_contacts`: the record also says of each line whether it is a contact, and whose
    - `exists`: Flex has the crew call
    """

    lines: tuple[Line, ...]
    gone: frozenset[UUID] = frozenset()
    back: frozenset[UUID] = frozenset()
    agreed: bool = False
    agreed_on_contacts: bool = False
    exists: bool = True


def look(
    api: ApiClient,
    conn: Connection,
    element_id: UUID,
    crew: Crew,
    pauses: Sequence[float],
    *,
    with_record: bool = False,
    believes_gone: bool = False,
) -> Looked:
    """Read the rows of a crew call; also its record if `with_record`, or if the rows differ from the lines we know.

    `conn` is the warehouse, `believes_gone` as in `element.sync_element`. If lines are gone, all is read again after
    the last of the `pauses` (seconds): Flex may lag behind at all addresses. Raises Unreadable, and whatever
    `ApiClient.send` raises.
    """
    looked = _look_once(api, element_id, crew, with_record=with_record)
    if looked.gone:
        time.sleep(pauses[-1] if pauses else 0)
        again = _look_once(api, element_id, crew, with_record=with_record)
        if ({*again.lines}, again.gone, again.exists) != ({*looked.lines}, looked.gone, looked.exists):
            raise Unreadable("lines of ours were gone, and another read shows something else")
        if not believes_gone:
            _require_not_hidden(api, conn, element_id, crew, looked)
    return looked


def _require_not_hidden(api: ApiClient, conn: Connection, element_id: UUID, crew: Crew, looked: Looked) -> None:
    """Raise Unreadable if the token may not see the lines that are gone.

    It may have lost the right to all contacts, or only to those that it hasn't made itself.
    """
    contacts = [line.line_id for line in looked.lines if line.kind == CONTACT]
    if not contacts:
        require_any_shown(api, desired.lines_elsewhere(conn, element_id))
    if looked.gone - crew.owned.keys() and crew.owned.keys() >= {*contacts}:
        require_any_shown(api, desired.lines_elsewhere(conn, element_id, of_people=True))


def _look_once(api: ApiClient, element_id: UUID, crew: Crew, *, with_record: bool) -> Looked:
    try:
        lines, exists = tuple(calls.lines(api, element_id, crew.mapped)), True
    except NotFound:
        _require_no_record(api, element_id)
        lines, exists = (), False
    shown = {line.line_id for line in lines}
    absent, back = crew.known - shown, crew.gone.keys() & shown
    # Without rows and record there is nothing to disagree about.
    agreed = not exists
    looked = Looked(lines, frozenset(absent), frozenset(back), agreed, agreed, exists)
    if exists and (with_record or absent or back):
        looked = confirmed(api, element_id, looked)
    for line_id in sorted(absent):
        if calls.exists(api, line_id):
            raise Unreadable(
                f"line {line_id} isn't shown on its crew call, but its own address shows it. If it was moved to another"
                " crew call, move it back or delete it in Flex"
            )
    return looked


def confirmed(api: ApiClient, element_id: UUID, looked: Looked) -> Looked:
    """Read the crew call's record too, and return `looked` as `agreed`. Raises Unreadable if the two disagree."""
    try:
        items = calls.items(api, element_id)
    except NotFound:
        raise Unreadable(f"element {element_id} has rows, but no record") from None
    on_contacts = _agree(looked.lines, items)
    return replace(looked, lines=_with_held(looked.lines, items), agreed=True, agreed_on_contacts=on_contacts)


def require_same(api: ApiClient, element_id: UUID, crew: Crew, looked: Looked) -> None:
    """Raise Unreadable unless another read of the rows shows the same lines, contacts and roles."""
    try:
        again = calls.lines(api, element_id, crew.mapped)
    except NotFound:
        raise Unreadable(f"element {element_id} had rows, and has none when it is asked again") from None
    if {*again} != {*looked.lines}:
        raise Unreadable("two reads one after the other show different lines, people or roles")


def require_there(looked: Looked, element_id: UUID, crew: Crew) -> None:
    """Raise Unreadable if a call of ours names a crew call that Flex doesn't have: the call has to be corrected."""
    if crew.calls and not looked.exists:
        raise Unreadable(
            f"Flex has no element {element_id}, though a crew call names it (both answer 404). Correct its"
            " flex_element_id, or make the crew call in Flex"
        )


def require_any_shown(api: ApiClient, others: Sequence[UUID]) -> None:
    """Raise Unreadable if we know of lines on other crew calls, and Flex shows none of them."""
    if others and not any(calls.exists(api, line_id) for line_id in others):
        raise Unreadable(
            f"Flex shows none of the lines that we know here, and none of {len(others)} asked for on other crew calls"
            " either, as if the token had lost the right to see contacts, or those that people made. If it has its"
            " rights, and Flex has really lost all of them, trigger flex_sync with mode full"
        )


def both(api: ApiClient, element_id: UUID, mapped: Collection[UUID], *, owed: bool = False) -> tuple[Line, ...]:
    """Return the lines if both lists show the same, else raise Unreadable. `mapped` and `owed` as in `calls.lines`."""
    lines = calls.lines(api, element_id, mapped, owed=owed)
    items = calls.items(api, element_id, owed=owed)
    _agree(lines, items)
    return _with_held(lines, items)


def retry_unreadable(pauses: Sequence[float], work: Callable[[], Result]) -> Result:
    """Return the result of `work`. While it raises Unreadable, try again after each pause (seconds)."""
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


def _with_held(lines: Collection[Line], items: Mapping[UUID, Item]) -> tuple[Line, ...]:
    """Return the lines, with `holds` by the record too: the rows need not show all that lies under a line."""
    held = {line_id for line_id, item in items.items() if item.holds}
    return tuple(replace(line, holds=line.holds or line.line_id in held) for line in lines)


def _agree(lines: Collection[Line], items: Mapping[UUID, Item]) -> bool:
    """Return whether the record says of each line what the rows say. Raises Unreadable if it contradicts them.

    Lines that are no contacts may be missing in one of the lists; that does no harm. The record may have a word of its
    own for contacts: a line with an unknown type is what the rows say, if they show it.
    """
    shown = {line.line_id for line in lines}
    only_items = [line_id for line_id, item in items.items() if line_id not in shown and item.may_be_contact]
    only_rows = [line.line_id for line in lines if line.kind == CONTACT and line.line_id not in items]
    if only_items or only_rows:
        named = ", ".join(str(line_id) for line_id in [*only_rows, *only_items][:3])
        raise Unreadable(
            f"its rows and its own record disagree: {len(only_rows)} contacts are only in its rows, {len(only_items)}"
            f" lines only in its record (such as {named})"
        )
    # A list, so that every line is checked for contradictions.
    complete = [_is_complete(line, items.get(line.line_id, Item())) for line in lines]
    return all(complete)


def _is_complete(line: Line, item: Item) -> bool:
    """Return whether the record says what a line is and, of a contact, whose. Raises Unreadable if the rows differ."""
    if line.kind != CONTACT:
        if item.kind is not None and item.may_be_contact:
            raise Unreadable(f"line {line.line_id} may be a contact by the record, and is none by the rows")
        return item.kind is not None
    if item.resource_id not in (None, line.resource_id):
        raise Unreadable(f"line {line.line_id} has another resource by the record than by the rows")
    return item == Item(CONTACT, line.resource_id)
