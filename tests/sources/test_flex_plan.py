"""What is planned for a crew call makes Flex and our rows hold the desired crew, and touches nothing of strangers."""

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sources.flex.plan import (
    ORDER,
    Add,
    Adopt,
    Desired,
    Forget,
    Member,
    Plan,
    Remap,
    Remove,
    Row,
    SetRole,
    plan,
)
from include.sources.flex.rows import Line


def ids(first: int) -> tuple[UUID, ...]:
    return tuple(UUID(int=first + number) for number in range(6))


CALLS, TECHS, RESOURCES, ROLES, LINES = ids(100)[:2], ids(200), ids(300), ids(400)[:3], ids(500)
CALL, ALIAS = CALLS
ANN, BOB = (Member(CALL, tech) for tech in TECHS[:2])
R1, R2, R3 = RESOURCES[:3]
L1, L2, L3 = LINES[:3]
LEAD, HAND = ROLES[:2]


def contact(line_id: UUID, resource_id: UUID, role_id: UUID | None = None) -> Line:
    return Line(line_id, "contact", resource_id, role_id)


def kinds(made: Plan) -> list[str]:
    return sorted(finding.kind for finding in made.findings)


class TestPlan:
    def test_of_a_crew_in_step_is_empty(self):
        made = plan([Desired(ANN, R1, LEAD)], [Row(ANN, L1, R1)], {L1}, [contact(L1, R1, LEAD)])
        assert (kinds(made), made.actions, made.refusals, made.diagnostics) == (["matched"], (), (), ())

    def test_of_nothing_is_empty(self):
        assert plan([], [], [], []) == Plan((), (), (), ())

    def test_adds_who_is_missing_with_the_role(self):
        made = plan([Desired(ANN, R1, LEAD), Desired(BOB, R2)], [], [], [])
        assert made.actions == (Add(R1, LEAD, (ANN,)), Add(R2, None, (BOB,)))
        assert kinds(made) == ["missing_in_flex", "missing_in_flex"]

    def test_adds_again_who_was_deleted_by_hand(self):
        made = plan([Desired(ANN, R1)], [Row(ANN, L1, R1)], {L1}, [])
        assert (kinds(made), made.actions) == (["missing_in_flex"], (Add(R1, None, (ANN,)),))

    def test_adopts_a_line_without_a_row(self):
        made = plan([Desired(ANN, R1)], [], [], [contact(L1, R1)])
        assert (kinds(made), made.actions) == (["missing_row"], (Adopt(ANN, L1, R1),))

    @pytest.mark.parametrize("stale", [L2, None])
    def test_maps_a_row_anew_whose_resource_has_another_line(self, stale):
        made = plan([Desired(ANN, R1, LEAD)], [Row(ANN, stale, R1)], {L2}, [contact(L1, R1)])
        assert (kinds(made), made.actions) == (["missing_row"], (Remap(ANN, L1, R1), SetRole(L1, R1, LEAD)))

    @pytest.mark.parametrize("shown", [HAND, None])
    def test_writes_the_role_of_kept_crew_that_differs_or_is_not_shown(self, shown):
        made = plan([Desired(ANN, R1, LEAD)], [Row(ANN, L1, R1)], {L1}, [contact(L1, R1, shown)])
        assert (kinds(made), made.actions) == (["role_mismatch"], (SetRole(L1, R1, LEAD),))

    def test_names_a_role_that_we_wrote_and_nobody_desires_any_more(self):
        """No request takes a role away."""
        made = plan([Desired(ANN, R1)], [Row(ANN, L1, R1)], {L1}, [contact(L1, R1, HAND)], written={L1: HAND})
        assert (kinds(made), made.actions, [*made.stuck]) == (["role_mismatch"], (), [L1])
        assert made.diagnostics == (made.stuck[L1],)
        assert f"line {L1} still shows the business role {HAND}" in made.stuck[L1]

    @pytest.mark.parametrize(
        ("shown", "written", "has_roles"),
        [(None, HAND, True), (LEAD, HAND, True), (HAND, None, True), (HAND, HAND, False)],
        ids=["taken away", "a person's since", "a person's", "the department has none"],
    )
    def test_leaves_a_role_that_is_not_ours(self, shown, written, has_roles):
        written = {L1: written} if written else {}
        desired = [Desired(ANN, R1, has_roles=has_roles)]
        made = plan(desired, [Row(ANN, L1, R1)], {L1}, [contact(L1, R1, shown)], written=written)
        assert (kinds(made), made.actions, made.stuck) == (["matched"], (), {})

    def test_leaves_a_role_that_another_technician_of_the_resource_desires(self):
        rows = [Row(ANN, L1, R1), Row(BOB, L1, R1)]
        made = plan([Desired(ANN, R1), Desired(BOB, R1, HAND)], rows, {L1}, [contact(L1, R1, HAND)], written={L1: HAND})
        assert (kinds(made), made.stuck) == (["matched"], {})

    def test_leaves_the_role_where_none_is_desired(self):
        made = plan([Desired(ANN, R1)], [Row(ANN, L1, R1)], {L1}, [contact(L1, R1, HAND)])
        assert (kinds(made), made.actions) == (["matched"], ())

    def test_removes_an_undesired_line_of_ours_with_its_rows(self):
        made = plan([], [Row(ANN, L1, R1)], {L1}, [contact(L1, R1)])
        assert (kinds(made), made.actions) == (["undesired_owned"], (Remove(L1, R1, (ANN,), orphan=False),))

    def test_removes_a_line_of_ours_whose_row_is_gone(self):
        made = plan([], [], {L1}, [contact(L1, R1)])
        assert (kinds(made), made.actions) == (["undesired_owned"], (Remove(L1, R1, (), orphan=True),))

    def test_removes_the_line_of_ours_that_an_outdated_row_leads_to_by_its_resource(self):
        made = plan([], [Row(ANN, L2, R1), Row(BOB, None, R1)], {L1}, [contact(L1, R1)])
        assert made.actions == (Remove(L1, R1, (ANN, BOB), orphan=False),)

    def test_keeps_contacts_of_strangers(self):
        made = plan([Desired(ANN, R1)], [Row(ANN, L1, R1)], {L1}, [contact(L1, R1), contact(L2, R2, HAND)])
        assert (kinds(made), made.actions) == (["matched", "unknown_in_flex"], ())

    @pytest.mark.parametrize("lines", [[], [contact(L1, R1)]], ids=["gone", "somebody else's"])
    def test_forgets_the_row_of_a_line_that_is_gone_or_not_ours(self, lines):
        assert plan([], [Row(ANN, L1, R1)], [], lines).actions == (Forget(ANN),)

    def test_forgets_the_row_of_a_line_that_another_technician_wants(self):
        rows = [Row(ANN, L1, R1), Row(BOB, L1, R1)]
        assert plan([Desired(ANN, R1)], rows, {L1}, [contact(L1, R1)]).actions == (Forget(BOB),)

    def test_replaces_the_line_of_a_technician_whose_resource_changed(self):
        made = plan([Desired(ANN, R2, LEAD)], [Row(ANN, L1, R2)], {L1}, [contact(L1, R1)])
        assert made.actions == (Remove(L1, R1, (), orphan=False), Add(R2, LEAD, (ANN,)))
        assert kinds(made) == ["missing_in_flex", "undesired_owned"]

    def test_gives_two_technicians_of_one_resource_one_line(self):
        there = Member(ALIAS, ANN.technician_id)
        desired = [Desired(ANN, R1, LEAD), Desired(BOB, R1, LEAD), Desired(there, R1), Desired(ANN, R1, LEAD)]
        assert plan(desired, [], [], []).actions == (Add(R1, LEAD, (ANN, BOB, there)),)
        adopting = plan(desired, [Row(BOB, L1, R1)], [], [contact(L1, R1, LEAD)])
        assert adopting.actions == (Adopt(ANN, L1, R1), Adopt(there, L1, R1))

    def test_leaves_who_has_no_resource_and_no_line_alone(self):
        for rows in ([], [Row(ANN, None, None)]):
            made = plan([Desired(ANN, None, LEAD)], rows, {L2}, [])
            assert (made.findings, made.actions, made.refusals) == ((), (), ())
            assert made.diagnostics == (
                f"technician {ANN.technician_id} is desired, but the profile names no resource in Flex",
            )

    def test_keeps_the_line_of_who_has_no_resource(self):
        rows = [Row(ANN, L1, None), Row(BOB, L1, None)]
        made = plan([Desired(ANN, None, LEAD), Desired(BOB, None)], rows, {L1}, [contact(L1, R1)])
        assert (kinds(made), made.actions, len(made.diagnostics)) == (["matched"], (), 2)

    def test_keeps_the_line_of_who_has_no_resource_when_another_technician_wants_it(self):
        rows = [Row(ANN, L1, None), Row(BOB, L1, R1)]
        made = plan([Desired(ANN, None), Desired(BOB, R1)], rows, {L1}, [contact(L1, R1)])
        assert (kinds(made), made.actions) == (["matched"], ())

    @pytest.mark.parametrize("row", [[], [Row(ANN, None, None)]], ids=["no row", "a row without line"])
    def test_keeps_the_line_of_who_has_no_resource_and_whose_row_is_lost(self, row):
        made = plan([Desired(ANN, None)], row, {L1}, [contact(L1, R1)], staying={L1: (ANN,)})
        naming = Remap(ANN, L1, R1) if row else Adopt(ANN, L1, R1)
        assert (kinds(made), made.actions, made.stuck) == (["missing_row"], (naming,), {})

    def test_keeps_the_line_of_who_has_no_resource_and_is_desired_elsewhere(self):
        made = plan([], [Row(BOB, L1, None)], {L1}, [contact(L1, R1)], staying={L1: (ANN,)})
        assert (kinds(made), made.actions, [*made.stuck]) == (["undesired_owned"], (Forget(BOB),), [L1])
        assert str(ANN.technician_id) in made.diagnostics[0]

    def test_leaves_the_line_of_who_has_no_resource_to_the_person_who_has_taken_it(self):
        made = plan([Desired(ANN, None)], [], [], [contact(L1, R1)], staying={L1: (ANN,)})
        assert (kinds(made), made.actions, made.stuck) == (["unknown_in_flex"], (), {})

    def test_reports_the_lost_line_of_who_has_no_resource(self):
        made = plan([Desired(ANN, None)], [Row(ANN, L1, None)], {L1}, [])
        assert (kinds(made), made.actions, len(made.diagnostics)) == (["missing_in_flex"], (), 1)

    def test_is_in_order(self):
        desired = [Desired(Member(CALL, TECHS[i]), RESOURCES[i], LEAD) for i in range(3)]
        rows = [Row(BOB, L3, R2), Row(Member(CALL, TECHS[4]), L3, RESOURCES[4]), Row(Member(CALL, TECHS[5]), None, R1)]
        lines = [contact(L1, R1), contact(L2, R2), contact(L3, RESOURCES[4])]
        made = plan(desired, rows, {L3}, lines)
        assert [type(action) for action in made.actions] == [Adopt, Remap, Remove, Forget, Add, SetRole, SetRole]

    def test_takes_no_gear_for_crew(self):
        lines = [Line(L1, "other", R1), Line(L2, "other", None), Line(L3, "other", R1)]
        made = plan([Desired(ANN, R1)], [], {L1}, lines)
        assert (kinds(made), made.actions) == (["missing_in_flex"], (Add(R1, None, (ANN,)),))


class TestRefused:
    REST = (Desired(BOB, R2),)

    def refused(self, made: Plan, reason: str) -> None:
        assert made.actions == ()
        (refusal,) = made.refusals
        assert reason in refusal
        assert "\n" not in refusal
        # Still told, for who only looks.
        assert "missing_in_flex" in kinds(made)

    @pytest.mark.parametrize("owned", [{L1, L2}, {L2}, set()])
    @pytest.mark.parametrize("desired", [[Desired(ANN, R1, LEAD)], []])
    def test_is_a_resource_with_two_lines(self, owned, desired):
        rows = [Row(ANN, L1, R1)]
        made = plan([*desired, *self.REST], rows, owned, [contact(L1, R1), contact(L2, R1)])
        self.refused(made, f"resource {R1} has 2 lines")
        (finding,) = [each for each in made.findings if each.kind != "missing_in_flex"]
        assert (finding.kind, finding.line_ids) == ("duplicate_in_flex", (L1, L2))

    @pytest.mark.parametrize("member", [ANN, Member(ALIAS, ANN.technician_id), Member(CALL, TECHS[3])])
    def test_are_two_roles_of_one_resource(self, member):
        made = plan([Desired(ANN, R1, LEAD), Desired(member, R1, HAND), *self.REST], [], [], [])
        self.refused(made, f"resource {R1} is desired with 2 business roles")

    def test_is_an_undesired_row_with_neither_line_nor_resource(self):
        self.refused(plan(self.REST, [Row(ANN, None, None)], [], []), "missing identity")


@dataclass
class Crew:
    """One crew call in Flex, and what we know of it."""

    desired: list[Desired]
    profiles: dict[UUID, UUID | None]
    """The resources of technicians."""
    rows: dict[Member, UUID | None]
    owned: set[UUID]
    lines: dict[UUID, Line]
    new: count = field(default_factory=lambda: count(900))

    def plan(self) -> Plan:
        rows = [Row(member, line_id, self.profiles[member.technician_id]) for member, line_id in self.rows.items()]
        return plan(self.desired, rows, self.owned, list(self.lines.values()))

    def apply(self, made: Plan) -> None:
        """Carry out a plan as Flex would: an add makes another line, whatever is there."""
        for action in made.actions:
            match action:
                case Adopt(member, line_id, _):
                    assert member not in self.rows
                    self.rows[member] = line_id
                case Remap(member, line_id, _):
                    assert member in self.rows
                    self.rows[member] = line_id
                case Remove(line_id, _, members, orphan):
                    assert line_id in self.owned
                    assert not (orphan and line_id in self.rows.values())
                    del self.lines[line_id]
                    self._forget(members)
                case Forget(member):
                    self._forget([member])
                case Add(resource_id, role_id, members):
                    line_id = UUID(int=next(self.new))
                    self.lines[line_id] = contact(line_id, resource_id, role_id)
                    self.owned.add(line_id)
                    self.rows |= dict.fromkeys(members, line_id)
                case SetRole(line_id, resource_id, role_id):
                    assert self.lines[line_id].resource_id == resource_id
                    self.lines[line_id] = contact(line_id, resource_id, role_id)

    def _forget(self, members: Collection[Member]) -> None:
        for member in members:
            del self.rows[member]


@st.composite
def crews(draw: st.DrawFn) -> Crew:
    """Any state in which nothing is to be refused."""
    profiles = {tech: draw(st.none() | st.sampled_from(RESOURCES[:4])) for tech in TECHS}
    roles = {resource: draw(st.none() | st.sampled_from(ROLES)) for resource in RESOURCES}
    members = st.builds(Member, st.sampled_from(CALLS), st.sampled_from(TECHS))
    desired = [
        Desired(member, profiles[member.technician_id], roles.get(profiles[member.technician_id]))
        for member in draw(st.lists(members, max_size=6))
    ]
    # Lines of ours that are gone by now are named as well.
    rows = draw(st.dictionaries(members, st.none() | st.sampled_from(LINES), max_size=6))
    wanted = {each.member for each in desired}
    for member in [each for each, line_id in rows.items() if line_id is None and each not in wanted]:
        if profiles[member.technician_id] is None:
            del rows[member]
    resources = draw(st.lists(st.sampled_from(RESOURCES), unique=True))
    lines = {
        line_id: contact(line_id, resource, draw(st.none() | st.sampled_from(ROLES)))
        for line_id, resource in zip(LINES, resources, strict=False)
    }
    return Crew(desired, profiles, rows, draw(st.sets(st.sampled_from(LINES))), lines)


@settings(deadline=None, max_examples=250)
@given(crews())
def test_carried_out_gives_the_desired_crew_and_the_strangers_and_nothing_is_left_to_do(crew):
    before, owned, rows = dict(crew.lines), set(crew.owned), dict(crew.rows)
    first = crew.plan()
    assert first.refusals == ()
    assert [ORDER.index(type(action)) for action in first.actions] == sorted(
        ORDER.index(type(action)) for action in first.actions
    )
    crew.apply(first)

    wanted = {each.resource_id for each in crew.desired} - {None}
    homeless = {each.member for each in crew.desired if each.resource_id is None}
    kept = {rows.get(member) for member in homeless} & {*before}
    strangers = {*before} - owned
    shown = [line.resource_id for line in crew.lines.values()]
    assert len(shown) == len(set(shown))
    # Whoever is desired is there; nothing else is, but what isn't ours or must stay.
    assert wanted <= {*shown}
    assert strangers | kept <= {*crew.lines}
    assert {i for i, line in crew.lines.items() if line.resource_id not in wanted} == {
        i for i, line in before.items() if line.resource_id not in wanted and i in strangers | kept
    }
    # Nobody who was there already was added once more, or got another role for no reason.
    added = [action.resource_id for action in first.actions if isinstance(action, Add)]
    assert {*added}.isdisjoint(line.resource_id for line in before.values())
    for line_id, line in before.items():
        if line.resource_id not in wanted and line_id in crew.lines:
            assert crew.lines[line_id] == line
    of = {line.resource_id: line for line in crew.lines.values()}
    for each in crew.desired:
        if each.resource_id:
            assert crew.rows[each.member] == of[each.resource_id].line_id
            assert each.role_id in (None, of[each.resource_id].role_id)
    assert {*crew.rows} == {each.member for each in crew.desired if each.resource_id} | (homeless & {*rows})

    assert crew.plan().actions == ()


@settings(deadline=None, max_examples=100)
@given(crews())
def test_puts_each_line_and_each_desired_resource_into_one_class(crew):
    made = crew.plan()
    line_ids = [line_id for finding in made.findings for line_id in finding.line_ids]
    assert sorted(line_ids) == sorted(crew.lines)
    resources = [finding.resource_id for finding in made.findings if finding.resource_id]
    assert len(resources) == len(set(resources))
    assert {each.resource_id for each in crew.desired} - {None} <= {*resources}


@settings(deadline=None, max_examples=100)
@given(crews(), st.integers(0, 6))
def test_that_was_cut_short_is_completed_by_the_next(crew, done):
    whole = crew.plan()
    crew.apply(Plan((), whole.actions[:done], (), ()))
    crew.apply(crew.plan())
    assert crew.plan().actions == ()
    shown = [line.resource_id for line in crew.lines.values()]
    assert len(shown) == len(set(shown))
