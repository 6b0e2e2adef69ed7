"""What people do in Flex to lines that we made: such a line, and what lies under it, is not deleted with ours."""

from uuid import UUID, uuid4

import pytest

from include.simulators.flex import Fault, Mutation
from include.sources.flex import calls

from .flex import Agency, assign, note, own, owned, person, rows
from .test_flex_element import Stage, stage

__all__ = ["stage"]


def unassign(stage: Stage, who: UUID) -> None:
    stage.conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = %s", [who])


def there(stage: Stage) -> dict[UUID, UUID | None]:
    """The lines on the crew call, with their contacts or gear."""
    return {line.id: line.resource_id for line in stage.flex.control.lines(stage.element)}


@pytest.mark.parametrize("records", ["ids", "whole"])
@pytest.mark.parametrize("wanted", [True, False])
def test_line_that_has_another_contact_now_is_a_persons(stage, records, wanted):
    """A person put somebody else in the place of ours. Ours is added again if still desired; the other stays."""
    stage.flex.control.set(records=records)
    who, resource = stage.hire()
    stage.sync()
    line_id, somebody = stage.crew()[resource].id, uuid4()
    stage.flex.control.mutate(Mutation("exchange", stage.element, somebody, line_id))
    if not wanted:
        unassign(stage, who)
    report = stage.sync()
    assert report.state == "done"
    assert there(stage)[line_id] == somebody
    assert {*stage.crew()} == ({somebody, resource} if wanted else {somebody})
    named = {*rows(stage.conn, stage.element).values()}
    assert named == ({stage.crew()[resource].id} if wanted else set())
    writes = len(stage.flex.control.journal())
    assert (stage.sync().state, len(stage.flex.control.journal())) == ("done", writes)


@pytest.mark.parametrize("records", ["ids", "whole"])
@pytest.mark.parametrize("kind", ["add", "gear"])
def test_line_with_others_under_it_is_not_deleted(stage, records, kind):
    """Flex deletes what lies under a line with it."""
    stage.flex.control.set(records=records)
    who, resource = stage.hire()
    stage.sync()
    line_id = stage.crew()[resource].id
    [[under]] = stage.flex.control.mutate(Mutation(kind, stage.element, line=line_id))
    assert stage.sync().state == "done"
    unassign(stage, who)
    report = stage.sync()
    assert report.state == "refused"
    assert f"line {line_id} has other lines under it" in report.problems[0]
    assert {line_id, under} <= {*there(stage)}
    assert line_id in owned(stage.conn, stage.element)
    stage.flex.control.mutate(Mutation("delete", stage.element, line=under))
    assert (stage.sync().count("removed"), owned(stage.conn, stage.element)) == (1, set())


@pytest.mark.parametrize("records", ["ids", "whole"])
def test_orphan_with_others_under_it_stays_and_holds_up_nobody(stage, records):
    """It harms nobody; a crew call that nobody could write would harm the crew."""
    stage.flex.control.set(records=records)
    who, resource = stage.hire()
    stage.sync()
    line_id = stage.crew()[resource].id
    [[under]] = stage.flex.control.mutate(Mutation("gear", stage.element, line=line_id))
    stage.conn.execute("DELETE FROM flex.flex_crew_assignments")
    unassign(stage, who)
    _, other = stage.hire()
    report = stage.sync()
    assert (report.state, report.count("added"), report.count("prune_failed")) == ("done", 1, 1)
    assert f"line {line_id} has other lines under it" in report.orphans_left[0]
    assert {*stage.crew()} == {resource, other}
    assert line_id in owned(stage.conn, stage.element)
    stage.flex.control.mutate(Mutation("delete", stage.element, line=under))
    assert stage.sync().count("pruned") == 1
    assert {*stage.crew()} == {other}


def test_line_whose_lower_lines_only_the_record_shows_is_not_deleted(stage, monkeypatch):
    """The rows are asked for contacts, so they need not show gear."""
    who, resource = stage.hire()
    stage.sync()
    line_id = stage.crew()[resource].id
    [[under]] = stage.flex.control.mutate(Mutation("gear", stage.element, line=line_id))
    unassign(stage, who)
    from include.sources.flex import rows as read

    shown = read._flat
    monkeypatch.setattr(
        read, "_flat", lambda found: ({**row, "children": []} for row in shown(found) if row["id"] != str(under))
    )
    assert stage.sync().state == "refused"
    assert under in there(stage)


@pytest.mark.parametrize("op", ["exchange", "add", "gear"])
def test_line_that_a_person_takes_over_while_somebody_is_added_is_not_deleted(stage, monkeypatch, op):
    """It was ours when the crew call was read, and goes only once its technician has the line of a new contact."""
    who, resource = stage.hire()
    stage.sync()
    line_id, new, add = stage.crew()[resource].id, uuid4(), calls.add
    stage.conn.execute("UPDATE flex.profiles SET flex_resource_id = %s WHERE id = %s", [new, who])

    def meanwhile(*arguments):
        stage.flex.control.mutate(Mutation(op, stage.element, uuid4(), line_id))
        return add(*arguments)

    monkeypatch.setattr(calls, "add", meanwhile)
    report = stage.sync()
    assert (report.state, len(report.orphans_left)) == ("done", 0 if op == "exchange" else 1)
    assert line_id in there(stage)
    assert stage.adds()[new] == 1


class TestOwnedWithoutContact:
    """The application's row names a line of somebody whose profile has no contact: it counts as ours, not as whose."""

    @pytest.fixture
    def known(self, stage: Stage) -> tuple[UUID, UUID]:
        """The technician, who is desired, and the line."""
        who = person(stage.conn, None)
        assign(stage.conn, stage.call, who)
        [[line_id]] = stage.flex.control.mutate(Mutation("add", stage.element))
        note(stage.conn, stage.call, who, line_id)
        own(stage.conn, stage.element, line_id)
        return who, line_id

    def contact(self, stage: Stage) -> UUID | None:
        query = "SELECT flex_resource_id FROM flex.owned_line WHERE flex_element_id = %s"
        return stage.conn.execute(query, [stage.element]).fetchone()[0]

    @pytest.mark.parametrize("records", ["ids", "whole"])
    def test_goes_with_its_technician(self, stage, known, records):
        stage.flex.control.set(records=records)
        who, line_id = known
        assert (stage.sync().state, self.contact(stage)) == ("done", there(stage)[line_id])
        unassign(stage, who)
        assert (stage.sync().count("removed"), stage.crew()) == (1, {})

    def test_stays_if_a_person_has_put_another_contact_there_since(self, stage, known):
        who, line_id = known
        stage.sync()
        stage.flex.control.mutate(Mutation("exchange", stage.element, somebody := uuid4(), line_id))
        unassign(stage, who)
        for _ in range(2):
            assert stage.sync().state == "done"
            assert there(stage)[line_id] == somebody

    def test_stays_if_nobody_has_seen_whose_it_was(self, stage, known):
        """A person may have put somebody else there by now."""
        who, line_id = known
        unassign(stage, who)
        for _ in range(2):
            assert stage.sync().state == "done"
            assert (line_id in there(stage), self.contact(stage)) == (True, None)

    def test_goes_if_the_profile_has_its_contact_by_now(self, stage, known):
        who, line_id = known
        stage.conn.execute("UPDATE flex.profiles SET flex_resource_id = %s WHERE id = %s", [there(stage)[line_id], who])
        unassign(stage, who)
        assert (stage.sync().count("removed"), stage.crew()) == (1, {})

    @pytest.mark.parametrize("list_", ["row-data", ""])
    def test_is_learned_only_where_both_lists_agree(self, stage, known, list_):
        path = f"line-item/{stage.element}/{list_}".rstrip("/")
        stage.flex.control.fault(Fault(kind="empty", path=path, method="GET", times=None))
        assert (stage.sync().state, self.contact(stage)) == ("unreadable", None)


def test_contact_of_a_line_is_learned_by_the_nightly_scan(agency: Agency):
    booked = agency.book()
    assign(agency.conn, booked.call, who := person(agency.conn, None))
    line_id = agency.by_hand("add", booked, resource := uuid4())
    note(agency.conn, booked.call, who, line_id)
    own(agency.conn, booked.element, line_id)
    assert agency.scan().metrics["matched"] == 1
    query = "SELECT flex_line_item_id, flex_resource_id FROM flex.owned_line"
    assert agency.conn.execute(query).fetchall() == [(line_id, resource)]
