"""What has to change on one crew call in Flex, and in our rows, so that both hold the desired crew.

Several crew calls of ours may point to the same one in Flex: then this is about all of them together. A resource has
one line there, however many technicians and crew calls of ours want it.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from include.sources.flex.rows import CONTACT, Line, duplicates

Class = Literal[
    "matched",
    "missing_in_flex",
    "missing_row",
    "duplicate_in_flex",
    "unknown_in_flex",
    "undesired_owned",
    "role_mismatch",
]


@dataclass(frozen=True, order=True)
class Member:
    """A technician on a crew call of ours: the key of a row."""

    crew_call_id: UUID
    technician_id: UUID


@dataclass(frozen=True)
class Desired:
    """Who shall be on a crew call. `resource_id`: the technician's contact in Flex, None where the profile has none.

    `role_id`: None where no business role is to be written.
    """

    member: Member
    resource_id: UUID | None
    role_id: UUID | None = None


@dataclass(frozen=True)
class Row:
    """A row of ours: which line it says is the technician's, and which contact the technician's profile names."""

    member: Member
    line_id: UUID | None
    resource_id: UUID | None


@dataclass(frozen=True)
class Adopt:
    """Write a row for a line that is there already. For the way back: a row as it was, whatever it named."""

    member: Member
    line_id: UUID | None
    resource_id: UUID | None


@dataclass(frozen=True)
class Remap:
    """Have a row name the line that its technician has now."""

    member: Member
    line_id: UUID
    resource_id: UUID


@dataclass(frozen=True)
class Remove:
    """Delete a line that we own, then the rows of `members`, who aren't desired. `orphan`: no row led to it."""

    line_id: UUID
    resource_id: UUID
    members: tuple[Member, ...]
    orphan: bool


@dataclass(frozen=True)
class Forget:
    """Delete a row only: its line is gone, or somebody else wants it, or it isn't ours to delete."""

    member: Member


@dataclass(frozen=True)
class Add:
    """Add a line, give it the role (None: no role), and have the rows of `members` name it, new or not."""

    resource_id: UUID
    role_id: UUID | None
    members: tuple[Member, ...]


@dataclass(frozen=True)
class SetRole:
    """Write the business role of a line that is there."""

    line_id: UUID
    resource_id: UUID
    role_id: UUID


Action = Adopt | Remap | Remove | Forget | Add | SetRole
ORDER = (Adopt, Remap, Remove, Forget, Add, SetRole)


def key(action: Action) -> str:
    """What an action does, and to what: the same for the same action of another plan, whatever else changed."""
    match action:
        case Adopt() | Remap():
            return f"row {action.member.crew_call_id}/{action.member.technician_id} -> line {action.line_id}"
        case Forget():
            return f"drop row {action.member.crew_call_id}/{action.member.technician_id}"
        case Remove():
            return f"delete line {action.line_id}"
        case Add():
            return f"add resource {action.resource_id}"
        case SetRole():
            return f"line {action.line_id} -> role {action.role_id}"


def stale_key(member: Member) -> str:
    """What dropping a row whose line is gone is called among the planned changes."""
    return f"drop stale row {member.crew_call_id}/{member.technician_id}"


def back_key(line_id: UUID) -> str:
    """What it is called that a line of ours which was taken for gone counts as there again."""
    return f"line {line_id} is there again"


@dataclass(frozen=True)
class Finding:
    """How a contact stands: its lines in Flex, and the rows that it is about.

    Each line of Flex and each desired resource is in one finding; the class is the first that fits of
    duplicate_in_flex, missing_in_flex, missing_row (a row that names another line counts), role_mismatch, matched; of
    what isn't desired, undesired_owned or unknown_in_flex.
    """

    kind: Class
    resource_id: UUID | None
    line_ids: tuple[UUID, ...] = ()
    members: tuple[Member, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What was found, and what to do about it in this order: nothing, if anything is refused.

    `refusals` and `diagnostics` are one line each, with ids and no names.
    """

    findings: tuple[Finding, ...]
    actions: tuple[Action, ...]
    refusals: tuple[str, ...]
    diagnostics: tuple[str, ...]


def plan(desired: Iterable[Desired], rows: Iterable[Row], owned: Collection[UUID], lines: Collection[Line]) -> Plan:
    """Compare the desired crew of one crew call in Flex with its lines there, our rows and the lines that we made.

    `owned` are the ids of the lines that may be deleted; all others are kept, whoever they are for. `lines` is a
    whole read of the crew call.
    """
    crew = _Crew(desired, rows, owned, lines)
    refusals = tuple(crew.refusals())
    found = [*crew.wanted(), *crew.kept(), *crew.others()]
    actions = [action for each in found for action in each.actions]
    actions += crew.forgotten(actions)
    return Plan(
        findings=tuple(each.finding for each in found),
        actions=() if refusals else tuple(sorted(actions, key=lambda action: ORDER.index(type(action)))),
        refusals=refusals,
        diagnostics=tuple(crew.diagnostics()),
    )


@dataclass(frozen=True)
class _Found:
    finding: Finding
    actions: list[Action] = field(default_factory=list)


@dataclass(frozen=True)
class _Wish:
    """All that is desired of one resource."""

    members: list[Member] = field(default_factory=list)
    roles: set[UUID] = field(default_factory=set)


class _Crew:
    """The crew calls of ours that point to one in Flex, and that one."""

    def __init__(
        self, desired: Iterable[Desired], rows: Iterable[Row], owned: Collection[UUID], lines: Collection[Line]
    ) -> None:
        self._owned = owned
        self._rows = {row.member: row for row in rows}
        self._contacts = {line.line_id: line for line in lines if line.kind == CONTACT}
        self._line_of = {line.resource_id: line for line in self._contacts.values()}
        self._twice = duplicates(self._contacts.values())
        self._desired: dict[Member, Desired] = {}
        self._wishes: dict[UUID, _Wish] = {}
        for each in desired:
            self._desired[each.member] = each
            if each.resource_id:
                wish = self._wishes.setdefault(each.resource_id, _Wish())
                wish.members.extend({each.member} - {*wish.members})
                wish.roles.update({each.role_id} - {None})
        self._homeless = [member for member, each in self._desired.items() if each.resource_id is None]

    def refusals(self) -> Iterator[str]:
        """Why nothing may be written."""
        for resource_id, lines in self._twice.items():
            yield f"resource {resource_id} has {len(lines)} lines in Flex. Delete all but one there"
        for resource_id, wish in self._wishes.items():
            if len(wish.roles) > 1:
                yield f"resource {resource_id} is desired with {len(wish.roles)} business roles. Assign only one"
        for row in self._rows.values():
            if row.member not in self._desired and row.line_id is None and row.resource_id is None:
                yield (
                    f"missing identity: the row of technician {row.member.technician_id} on crew call"
                    f" {row.member.crew_call_id} names no line, and the profile no resource. Set one of them"
                )

    def diagnostics(self) -> Iterator[str]:
        """Who can't be brought to Flex."""
        for member in self._homeless:
            yield f"technician {member.technician_id} is desired, but the profile names no resource in Flex"

    def wanted(self) -> Iterator[_Found]:
        """The resources that are desired, but for those that are there twice."""
        for resource_id, wish in self._wishes.items():
            line = self._line_of.get(resource_id)
            # Of two neither is written: that is refused, and no mismatch by chance.
            role_id = next(iter(wish.roles)) if len(wish.roles) == 1 else None
            if line is None:
                members = tuple(wish.members)
                finding = Finding("missing_in_flex", resource_id, (), members)
                yield _Found(finding, [Add(resource_id, role_id, members)])
            elif resource_id not in self._twice:
                yield self._present(line, wish, role_id)

    def kept(self) -> Iterator[_Found]:
        """The lines of those who are desired and have a row, but no resource: they stay as they are."""
        for line_id, members in self._without_resource().items():
            line = self._contacts.get(line_id)
            if line is None:
                yield _Found(Finding("missing_in_flex", None, (), members))
            elif line.resource_id not in self._wishes and line.resource_id not in self._twice:
                yield _Found(Finding("matched", line.resource_id, (line_id,), members))

    def others(self) -> Iterator[_Found]:
        """The lines that nobody wants, and those of resources that are there twice."""
        for resource_id, lines in self._twice.items():
            members = tuple(self._wishes.get(resource_id, _Wish()).members)
            yield _Found(Finding("duplicate_in_flex", resource_id, tuple(line.line_id for line in lines), members))
        known = {*self._wishes, *self._twice}
        kept = self._without_resource()
        for line in self._contacts.values():
            if line.resource_id not in known and line.line_id not in kept:
                yield self._undesired(line)

    def forgotten(self, actions: Iterable[Action]) -> list[Forget]:
        """The rows of those who aren't desired, but for those that go with a line."""
        removed = {member for action in actions if isinstance(action, Remove) for member in action.members}
        return [Forget(member) for member in self._rows if member not in self._desired and member not in removed]

    def _present(self, line: Line, wish: _Wish, role_id: UUID | None) -> _Found:
        kind: Class = "matched"
        actions: list[Action] = []
        if role_id and role_id != line.role_id:
            kind = "role_mismatch"
            actions.append(SetRole(line.line_id, line.resource_id, role_id))
        for member in wish.members:
            row = self._rows.get(member)
            if row is None or row.line_id != line.line_id:
                kind = "missing_row"
                naming = Adopt if row is None else Remap
                actions.append(naming(member, line.line_id, line.resource_id))
        return _Found(Finding(kind, line.resource_id, (line.line_id,), tuple(wish.members)), actions)

    def _undesired(self, line: Line) -> _Found:
        leading = [row.member for row in self._rows.values() if self._line(row) == line]
        members = tuple(member for member in leading if member not in self._desired)
        if line.line_id not in self._owned:
            return _Found(Finding("unknown_in_flex", line.resource_id, (line.line_id,), members))
        remove = Remove(line.line_id, line.resource_id, members, orphan=not leading)
        return _Found(Finding("undesired_owned", line.resource_id, (line.line_id,), members), [remove])

    def _line(self, row: Row) -> Line | None:
        """The line that a row leads to, by its resource if the line that it names is gone."""
        return self._contacts.get(row.line_id) or self._line_of.get(row.resource_id)

    def _without_resource(self) -> dict[UUID, tuple[Member, ...]]:
        """Lines named by rows of those who are desired without a resource."""
        named: dict[UUID, tuple[Member, ...]] = {}
        for member in self._homeless:
            row = self._rows.get(member)
            if row and row.line_id:
                named[row.line_id] = (*named.get(row.line_id, ()), member)
        return named
