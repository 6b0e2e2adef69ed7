"""Plan what has to change on one crew call in Flex, and in our rows, so that both hold the desired crew.

Several crew calls of ours may point to the same one in Flex; they are planned together. A resource has one line there,
however many technicians and crew calls of ours want it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
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
    """A technician who should be on a crew call.

    `resource_id`: the technician's contact in Flex, None if the profile has none. `role_id`: the business role, None if
    none is to be written. `has_roles`: the connection names business roles for the department.
    """

    member: Member
    resource_id: UUID | None
    role_id: UUID | None = None
    has_roles: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Row:
    """A row of ours: the line that it names for the technician, and the contact in the technician's profile."""

    member: Member
    line_id: UUID | None
    resource_id: UUID | None


@dataclass(frozen=True)
class Adopt:
    """Write a row for a line that is there already. In a rollback: write a row as it was."""

    member: Member
    line_id: UUID | None
    resource_id: UUID | None


@dataclass(frozen=True)
class Remap:
    """Change a row so that it names the present line of its technician."""

    member: Member
    line_id: UUID
    resource_id: UUID


@dataclass(frozen=True)
class Remove:
    """Delete a line that we own, then the rows of `members`, who are not desired. `orphan`: no row leads to it."""

    line_id: UUID
    resource_id: UUID
    members: tuple[Member, ...]
    orphan: bool


@dataclass(frozen=True)
class Forget:
    """Delete a row only: its line is gone, or somebody else needs the line, or the line is not ours."""

    member: Member


@dataclass(frozen=True)
class Add:
    """Add a line, set its role (None: no role), and write the rows of `members` so that they name it."""

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
    """Return the name of an action. The same action in another plan has the same name."""
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
    """Return the name of the planned change that drops a row whose line is gone."""
    return f"drop stale row {member.crew_call_id}/{member.technician_id}"


def back_key(line_id: UUID) -> str:
    """Return the name of the planned change that counts a line of ours as there again."""
    return f"line {line_id} is there again"


@dataclass(frozen=True)
class Finding:
    """The state of a contact on a crew call, with its lines in Flex and the members that want it.

    Each line of Flex and each desired resource is in exactly one finding. The class of a desired contact is the first
    of these that applies: duplicate_in_flex, missing_in_flex, missing_row (also if a row names another line),
    role_mismatch, matched. Any other contact is undesired_owned or unknown_in_flex.
    """

    kind: Class
    resource_id: UUID | None
    line_ids: tuple[UUID, ...] = ()
    members: tuple[Member, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What was found, and what to do about it, in this order. If anything is refused, there are no actions.

    `refusals` and `diagnostics` are one line each, with ids and no names. `stuck`: lines that are not as they should be
    and for which nothing can be done, each with the reason and what a person has to do.
    """

    findings: tuple[Finding, ...]
    actions: tuple[Action, ...]
    refusals: tuple[str, ...]
    diagnostics: tuple[str, ...]
    stuck: Mapping[UUID, str] = field(default_factory=dict)


def plan(
    desired: Iterable[Desired],
    rows: Iterable[Row],
    owned: Collection[UUID],
    lines: Collection[Line],
    *,
    staying: Mapping[UUID, Collection[Member]] | None = None,
    written: Mapping[UUID, UUID] | None = None,
) -> Plan:
    """Compare the desired crew of one crew call in Flex with its lines there, our rows and the lines that we made.

    - `owned`: ids of lines that may be deleted; all others are kept
    - `lines`: all lines of the crew call
    - `staying`, `written`: as `staying` and `roles` in `desired.Crew`
    """
    crew = _Crew(desired, rows, owned, lines, staying or {}, written or {})
    refusals = tuple(crew.refusals())
    found = [*crew.wanted(), *crew.kept(), *crew.others()]
    actions = [action for each in found for action in each.actions]
    actions += crew.forgotten(actions)
    stuck = {line_id: each.stuck for each in found if each.stuck for line_id in each.finding.line_ids}
    return Plan(
        findings=tuple(each.finding for each in found),
        actions=() if refusals else tuple(sorted(actions, key=lambda action: ORDER.index(type(action)))),
        refusals=refusals,
        diagnostics=(*crew.diagnostics(), *stuck.values()),
        stuck=stuck,
    )


def held(lines: Iterable[Line]) -> frozenset[UUID]:
    """Return the lines that others lie under."""
    return frozenset(line.line_id for line in lines if line.holds)


def orphans(plan: Plan) -> frozenset[UUID]:
    """Return the lines of the plan's orphans."""
    return frozenset(action.line_id for action in plan.actions if isinstance(action, Remove) and action.orphan)


def held_orphans(plan: Plan, lines: Iterable[Line]) -> frozenset[UUID]:
    """Return the lines of the plan's orphans that stay, because others lie under them."""
    return orphans(plan) & held(lines)


def why_held(line_id: UUID) -> str:
    """Say why a line that others lie under is not deleted."""
    return f"line {line_id} has other lines under it, which Flex would delete with it. Move them away in Flex"


def spare_held(plan: Plan, lines: Collection[Line]) -> Plan:
    """Return the plan; refused, if Flex would delete other lines together with one of ours that they lie under.

    An orphan is not refused: it harms nobody if it stays, so the worker leaves it and does the rest.
    """
    spared = held(lines)
    refusals = tuple(
        why_held(action.line_id)
        for action in plan.actions
        if isinstance(action, Remove) and not action.orphan and action.line_id in spared
    )
    return replace(plan, actions=(), refusals=(*plan.refusals, *refusals)) if refusals else plan


@dataclass(frozen=True)
class _Found:
    finding: Finding
    actions: list[Action] = field(default_factory=list)
    stuck: str | None = None


@dataclass(frozen=True)
class _Wish:
    """The members that want one resource, and their roles for it. `in_role`: those whose department has roles."""

    members: list[Member] = field(default_factory=list)
    roles: set[UUID] = field(default_factory=set)
    in_role: set[Member] = field(default_factory=set)


class _Crew:
    """One crew call in Flex with all of ours that point to it. The methods yield the parts of the plan.

    `_wishes`: by contact, who wants it. `_duplicates`: by contact, its lines if they are several. `_without_contact`:
    desired members whose technician has no contact in Flex.
    """

    def __init__(
        self,
        desired: Iterable[Desired],
        rows: Iterable[Row],
        owned: Collection[UUID],
        lines: Collection[Line],
        staying: Mapping[UUID, Collection[Member]],
        written: Mapping[UUID, UUID],
    ) -> None:
        self._owned, self._written = owned, written
        # A line that shows another contact than ours is a person's, so nobody needs it to stay.
        self._staying = {line_id: members for line_id, members in staying.items() if line_id in owned}
        self._rows = {row.member: row for row in rows}
        self._contacts = {line.line_id: line for line in lines if line.kind == CONTACT}
        self._line_of = {line.resource_id: line for line in self._contacts.values()}
        self._duplicates = duplicates(self._contacts.values())
        self._desired: dict[Member, Desired] = {}
        self._wishes: dict[UUID, _Wish] = {}
        for each in desired:
            self._desired[each.member] = each
            if each.resource_id:
                wish = self._wishes.setdefault(each.resource_id, _Wish())
                wish.members.extend({each.member} - {*wish.members})
                wish.roles.update({each.role_id} - {None})
                wish.in_role.update({each.member} if each.has_roles else ())
        self._without_contact = [member for member, each in self._desired.items() if each.resource_id is None]

    def refusals(self) -> Iterator[str]:
        """Yield each reason why nothing may be written."""
        for resource_id, lines in self._duplicates.items():
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
        """Yield a line for each desired technician without a contact in Flex."""
        for member in self._without_contact:
            yield f"technician {member.technician_id} is desired, but the profile names no resource in Flex"

    def wanted(self) -> Iterator[_Found]:
        """Yield the desired resources, except those with several lines."""
        for resource_id, wish in self._wishes.items():
            line = self._line_of.get(resource_id)
            # With two roles none is written, since that is refused.
            role_id = next(iter(wish.roles)) if len(wish.roles) == 1 else None
            if line is None:
                members = tuple(wish.members)
                finding = Finding("missing_in_flex", resource_id, (), members)
                yield _Found(finding, [Add(resource_id, role_id, members)])
            elif resource_id not in self._duplicates:
                yield self._present(line, wish, role_id)

    def kept(self) -> Iterator[_Found]:
        """Yield the lines of desired technicians without a resource: they stay as they are, and rows name them."""
        for line_id, members in self._without_resource().items():
            line = self._contacts.get(line_id)
            if line is None:
                yield _Found(Finding("missing_in_flex", None, (), members))
            elif line.resource_id not in self._wishes and line.resource_id not in self._duplicates:
                naming = self._naming(line, members)
                kind: Class = "missing_row" if naming else "matched"
                yield _Found(Finding(kind, line.resource_id, (line_id,), members), naming)

    def others(self) -> Iterator[_Found]:
        """Yield the lines that nobody wants, and the resources with several lines."""
        for resource_id, lines in self._duplicates.items():
            members = tuple(self._wishes.get(resource_id, _Wish()).members)
            yield _Found(Finding("duplicate_in_flex", resource_id, tuple(line.line_id for line in lines), members))
        known = {*self._wishes, *self._duplicates}
        kept = self._without_resource()
        for line in self._contacts.values():
            if line.resource_id not in known and line.line_id not in kept:
                yield self._stranded(line) if line.line_id in self._staying else self._undesired(line)

    def forgotten(self, actions: Iterable[Action]) -> list[Forget]:
        """Return a Forget for each row whose member is not desired, except rows that go with a removed line."""
        removed = {member for action in actions if isinstance(action, Remove) for member in action.members}
        return [Forget(member) for member in self._rows if member not in self._desired and member not in removed]

    def _present(self, line: Line, wish: _Wish, role_id: UUID | None) -> _Found:
        kind: Class = "matched"
        actions: list[Action] = []
        stuck = self._why_role_is_left(line) if wish.in_role and not wish.roles else None
        if role_id and role_id != line.role_id:
            actions.append(SetRole(line.line_id, line.resource_id, role_id))
        if actions or stuck:
            kind = "role_mismatch"
        if naming := self._naming(line, wish.members):
            kind = "missing_row"
        return _Found(Finding(kind, line.resource_id, (line.line_id,), tuple(wish.members)), actions + naming, stuck)

    def _naming(self, line: Line, members: Iterable[Member]) -> list[Action]:
        """Return the changes after which the rows of these members name the line."""
        naming: list[Action] = []
        for member in members:
            row = self._rows.get(member)
            if row is None or row.line_id != line.line_id:
                change = Adopt if row is None else Remap
                naming.append(change(member, line.line_id, line.resource_id))
        return naming

    def _why_role_is_left(self, line: Line) -> str | None:
        """Say that a line still has the role that we wrote, though none is desired. None if a person has set it."""
        if line.role_id is None or self._written.get(line.line_id) != line.role_id:
            return None
        return (
            f"line {line.line_id} still shows the business role {line.role_id}, which a sync wrote and nobody desires"
            " any more. No request takes a role away: take it away in Flex, or assign a role again"
        )

    def _stranded(self, line: Line) -> _Found:
        """Return the line of technicians who are desired elsewhere, and for whom no line can be made there."""
        technicians = ", ".join(sorted({str(member.technician_id) for member in self._staying[line.line_id]}))
        why = (
            f"line {line.line_id} stays here: technician {technicians} is desired on another crew call now, where"
            " nothing can be added, as the profile names no resource in Flex. Set the resource, or take the technician"
            " off the job"
        )
        return _Found(Finding("undesired_owned", line.resource_id, (line.line_id,)), stuck=why)

    def _undesired(self, line: Line) -> _Found:
        leading = [row.member for row in self._rows.values() if self._line(row) == line]
        members = tuple(member for member in leading if member not in self._desired)
        if line.line_id not in self._owned:
            return _Found(Finding("unknown_in_flex", line.resource_id, (line.line_id,), members))
        remove = Remove(line.line_id, line.resource_id, members, orphan=not leading)
        return _Found(Finding("undesired_owned", line.resource_id, (line.line_id,), members), [remove])

    def _line(self, row: Row) -> Line | None:
        """Return the line that a row names; if that is gone, the line of its resource; None if there is neither."""
        return self._contacts.get(row.line_id) or self._line_of.get(row.resource_id)

    def _without_resource(self) -> dict[UUID, tuple[Member, ...]]:
        """Return the lines of desired members without a resource, with these members."""
        named: dict[UUID, tuple[Member, ...]] = {}
        for member in self._without_contact:
            row = self._rows.get(member)
            line_id = row.line_id if row and row.line_id else self._line_made_for(member)
            if line_id:
                named[line_id] = (*named.get(line_id, ()), member)
        return named

    def _line_made_for(self, member: Member) -> UUID | None:
        """Return the line that stays for a member whose row is lost, None if there is none."""
        made = (line_id for line_id, members in self._staying.items() if member in members)
        return min((line_id for line_id in made if line_id in self._contacts), default=None)
