"""What is not as it should be on a crew call, and can't be changed: it stays, is named, and no night is confirmed."""

import pytest

from include.sources.flex.accounts import TABLES

from .flex import HAND, LEAD, Agency, Booked, call
from .test_flex_scan import account, changes


def unproven(agency: Agency) -> dict[str, list[str]]:
    """The reasons in confidence.unproven, by table."""
    found: dict[str, list[str]] = {}
    for table, why in agency.conn.execute("SELECT entity, why FROM confidence.unproven ORDER BY entity, why"):
        found.setdefault(table, []).append(why)
    return found


def lose_contact(agency: Agency, who) -> None:
    agency.conn.execute("UPDATE flex.profiles SET flex_resource_id = NULL WHERE id = %s", [who])
    agency.sync()


def point_to(agency: Agency, booked: Booked) -> Booked:
    """The call points to another crew call in Flex."""
    element = agency.control.create_element()
    agency.conn.execute("UPDATE flex.flex_crew_calls SET flex_element_id = %s WHERE id = %s", [element, booked.call])
    return Booked(booked.job, booked.call, element)


class TestWithoutContact:
    """Somebody is desired, and the profile has lost the contact: the line that is there stays."""

    @pytest.fixture
    def booked(self, agency) -> Booked:
        return agency.book()

    @pytest.fixture
    def ann(self, agency, booked):
        """Technician and resource, with somebody else on the crew call."""
        agency.hire(booked)
        ann = agency.hire(booked)
        agency.sync()
        lose_contact(agency, ann[0])
        return ann

    def test_stays_when_the_call_points_elsewhere(self, agency, booked, ann):
        there = point_to(agency, booked)
        for _ in range(2):
            done = agency.sync("full")
            assert any("stays here" in note for note in done.result["diagnostics"])
        assert ([*agency.crew(booked)], len(agency.crew(there))) == ([ann[1]], 1)

    def test_is_named_at_both_crew_calls(self, agency, booked, ann):
        point_to(agency, booked)
        agency.sync()
        for _ in range(2):
            summary = agency.scan()
            assert (changes(summary), summary.metrics["unproven"]) == ((0, 0, 0), 4)
            assert account(summary, "flex_crew_calls")["differing"] == 2
            assert account(summary, "flex_line_items")["surplus"] == 1
            assert account(summary, "flex_crew_assignments")["differing"] == 1
            reasons = unproven(agency)
            assert {*reasons} == {*TABLES}
            assert all("Set the resource" in why for told in reasons.values() for why in told)

    def test_moves_once_the_profile_has_a_contact_again(self, agency, booked, ann):
        there = point_to(agency, booked)
        agency.sync()
        agency.conn.execute("UPDATE flex.profiles SET flex_resource_id = %s WHERE id = %s", [ann[1], ann[0]])
        agency.sync()
        assert (agency.crew(booked), ann[1] in agency.crew(there)) == ({}, True)
        assert agency.scan().metrics["unproven"] == 0

    def test_is_settled_by_the_person_who_deletes_the_line(self, agency, booked, ann):
        there = point_to(agency, booked)
        agency.sync()
        agency.by_hand("delete", booked, ann[1])
        # The first finds that the line is gone, the second drops the row.
        agency.sync("full"), agency.sync("full")
        assert ann[0] not in agency.rows(there)
        assert agency.scan().metrics["unproven"] == 0

    def test_stays_when_the_call_is_made_anew_and_the_row_names_it_again(self, agency, booked, ann):
        (line_id,) = [line.id for resource, line in agency.crew(booked).items() if resource == ann[1]]
        agency.conn.execute("DELETE FROM flex.flex_crew_calls WHERE id = %s", [booked.call])
        anew = Booked(booked.job, call(agency.conn, booked.element, "sound", booked.job), booked.element)
        agency.sync()
        assert agency.rows(anew)[ann[0]] == line_id
        assert agency.scan().metrics["unproven"] == 0

    def test_goes_once_nobody_desires_them(self, agency, booked, ann):
        point_to(agency, booked)
        agency.sync()
        agency.fire(ann[0])
        agency.sync()
        assert agency.crew(booked) == {}


class TestRoleThatIsLeft:
    """A sync wrote it, and nobody desires it any more. No request takes a role away."""

    @pytest.fixture
    def booked(self, agency) -> Booked:
        return agency.book()

    @pytest.fixture
    def lead(self, agency, booked):
        who, resource = agency.hire(booked, "FOH-R")
        agency.sync()
        agency.recast(who, "FOH")
        agency.sync()
        return resource

    def test_is_named_and_not_matched(self, agency, booked, lead):
        summary = agency.scan()
        assert (changes(summary), summary.metrics["matched"], summary.metrics["role_mismatch"]) == ((0, 0, 0), 0, 1)
        assert account(summary, "flex_line_items")["differing"] == 1
        reasons = unproven(agency)
        assert {*reasons} == {"flex_crew_calls", "flex_line_items"}
        assert all(f"business role {LEAD}" in why for told in reasons.values() for why in told)

    @pytest.mark.parametrize("role", [None, HAND], ids=["taken away", "another"])
    def test_is_settled_in_flex(self, agency, booked, lead, role):
        agency.by_hand("role", booked, lead, role=role)
        summary = agency.scan()
        assert (summary.metrics["matched"], summary.metrics["unproven"]) == (1, 0)

    def test_that_a_person_has_given_is_none(self, agency, booked):
        _, resource = agency.hire(booked, "FOH")
        agency.sync()
        agency.by_hand("role", booked, resource, role=LEAD)
        summary = agency.scan()
        assert (summary.metrics["matched"], summary.metrics["unproven"]) == (1, 0)


def test_orphan_that_the_setting_keeps_is_out_of_scope(agency):
    booked = agency.book()
    who, _ = agency.hire(booked)
    agency.sync()
    agency.variables["FLEX_SYNC_PRUNE_ORPHANS"] = "false"
    agency.conn.execute("DELETE FROM flex.flex_crew_assignments")
    agency.fire(who)
    summary = agency.scan()
    assert (changes(summary), summary.metrics["undesired_owned"], summary.metrics["unproven"]) == ((0, 0, 0), 1, 0)
    assert account(summary, "flex_line_items") == {"live": 1, "out_of_scope": 1}
    assert account(summary, "flex_crew_calls") == {"listed": 1, "compared": 1, "live": 1, "equal": 1}
