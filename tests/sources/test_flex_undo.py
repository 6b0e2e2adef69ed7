"""The way back from a sync or a repair of Flex: lines, roles and rows as they were; and what can't be taken back."""

from uuid import uuid4

import psycopg
import pytest

from include.sources.base import IntegrityFailed, SyncFailed
from include.sources.flex import calls, gate
from include.sources.flex.undo import FlexCopy
from include.warehouse import sync_log
from include.warehouse.fence import FenceError
from include.warehouse.rollback import Conflict, RollbackRefused
from include.warehouse.sync_log import Counts

from .flex import EXPERT, HAND, LEAD, LINE, ROWS, Agency, Booked, assign, call, note, owned, rows, without_key


def state(agency: Agency, booked: Booked) -> tuple:
    """Contacts with their roles, and the contact that each row leads to: a line's id is only a name."""
    crew = agency.crew(booked)
    contact_of = {line.id: resource for resource, line in crew.items()}
    leading = {who: contact_of.get(line_id, "gone") for who, line_id in agency.rows(booked).items()}
    assert owned(agency.conn, booked.element) <= contact_of.keys()
    return {resource: line.role_id for resource, line in crew.items()}, leading


@pytest.fixture
def synced(agency: Agency) -> Agency:
    """After its first sync, of nothing."""
    agency.sync()
    return agency


@pytest.fixture
def booked(synced: Agency) -> Booked:
    return synced.book()


def there_and_back(agency: Agency, booked: Booked, sync_id: int, before: tuple) -> Counts:
    """Undo it, as foreseen, then undo that."""
    after = state(agency, booked)
    assert after != before
    written = len(agency.control.journal())
    foreseen = agency.roll_back(sync_id, dry_run=True)
    assert (foreseen.sync_id, state(agency, booked), len(agency.control.journal())) == (None, after, written)
    undone = agency.roll_back(sync_id)
    assert state(agency, booked) == before
    told, done = (each.tables["crew"] for each in (foreseen, undone))
    assert (told.inserted, told.updated, told.deleted) == (done.inserted, done.updated, done.deleted)
    agency.roll_back(undone.sync_id)
    assert state(agency, booked) == after
    return done


class TestTakesBack:
    def test_adds(self, synced, booked):
        before = state(synced, booked)
        synced.hire(booked), synced.hire(booked, "FOH-R")
        done = there_and_back(synced, booked, synced.sync().sync_id, before)
        assert (done.inserted, done.updated, done.deleted) == (0, 0, 2)

    def test_removes_with_another_id_that_the_row_names(self, synced, booked):
        ann, resource = synced.hire(booked, "FOH-E")
        synced.sync()
        before, old = state(synced, booked), synced.rows(booked)[ann]
        synced.fire(ann)
        sync_id = synced.sync().sync_id
        done = there_and_back(synced, booked, sync_id, before)
        assert (done.inserted, done.updated, done.deleted) == (1, 0, 0)
        synced.roll_back(synced.synced()["sync_id"])
        new = synced.rows(booked)[ann]
        assert new == synced.crew(booked)[resource].id != old
        assert synced.crew(booked)[resource].role_id == EXPERT
        assert owned(synced.conn, booked.element) == {new}

    def test_role_changes(self, synced, booked):
        ann, resource = synced.hire(booked, "FOH-E")
        synced.sync()
        before = state(synced, booked)
        synced.recast(ann, "FOH-R")
        done = there_and_back(synced, booked, synced.sync().sync_id, before)
        assert (done.inserted, done.updated, done.deleted) == (0, 1, 0)
        assert before[0][resource] == EXPERT

    def test_no_role_of_a_line_that_is_somebody_elses_now(self, synced, booked):
        """A person has put another contact there, with a role of their choice."""
        who, resource = synced.hire(booked)
        synced.sync()
        synced.recast(who, "FOH-R")
        sync_id = synced.sync().sync_id
        line, somebody = synced.crew(booked)[resource].id, uuid4()
        synced.by_hand("exchange", booked, somebody, line=line)
        synced.by_hand("role", booked, line=line, role=EXPERT)
        assert synced.roll_back(sync_id).tables["crew"].updated == 0
        assert synced.crew(booked)[somebody].role_id == EXPERT

    def test_stale_rows(self, synced, booked):
        """The row names the line again that was gone before the sync; the line that the sync made is gone."""
        ann, resource = synced.hire(booked)
        synced.sync()
        old = synced.rows(booked)[ann]
        synced.by_hand("delete", booked, resource)
        sync_id = synced.sync("full").sync_id
        synced.roll_back(sync_id)
        assert (synced.crew(booked), synced.rows(booked)) == ({}, {ann: old})
        synced.sync("full")
        assert synced.rows(booked) == {ann: synced.crew(booked)[resource].id}

    def test_stale_row_of_somebody_fired(self, synced, booked):
        ann, resource = synced.hire(booked)
        synced.sync()
        old = synced.rows(booked)[ann]
        synced.by_hand("delete", booked, resource)
        synced.fire(ann)
        synced.roll_back(synced.sync().sync_id)
        assert (synced.crew(booked), synced.rows(booked)) == ({}, {ann: old})

    def test_adopted_rows_and_never_the_line(self, synced, booked):
        _, resource = synced.hire(booked)
        synced.by_hand("add", booked, resource, role=HAND)
        before = state(synced, booked)
        done = there_and_back(synced, booked, synced.sync().sync_id, before)
        assert (done.inserted, done.updated, done.deleted) == (0, 0, 1)
        assert {*synced.crew(booked)} == {resource}

    def test_row_that_named_no_line(self, synced, booked):
        ann, resource = synced.hire(booked)
        synced.by_hand("add", booked, resource, role=HAND)
        note(synced.conn, booked.call, ann, None)
        sync_id = synced.sync().sync_id
        assert synced.rows(booked)[ann]
        synced.roll_back(sync_id)
        assert synced.rows(booked) == {ann: None}

    def test_one_line_of_two_calls(self, synced, booked):
        ann, _ = synced.hire(booked)
        other = call(synced.conn, booked.element, "lights")
        assign(synced.conn, other, ann)
        before = state(synced, booked)
        done = there_and_back(synced, booked, synced.sync().sync_id, before)
        assert done.deleted == 1

    def test_all_of_a_sync_at_several_crew_calls(self, synced):
        calls = [synced.book() for _ in range(3)]
        people = [synced.hire(booked) for booked in calls]
        synced.sync()
        before = [state(synced, booked) for booked in calls]
        synced.fire(people[0][0])
        synced.recast(people[1][0], "FOH-R")
        synced.hire(calls[2])
        sync_id = synced.sync().sync_id
        synced.workers = 3
        done = synced.roll_back(sync_id).tables["crew"]
        assert [state(synced, booked) for booked in calls] == before
        assert (done.inserted, done.updated, done.deleted) == (1, 1, 1)

    def test_repair(self, synced, booked):
        (ann, _), _ = synced.hire(booked, "FOH-E"), synced.hire(booked)
        synced.sync()
        synced.fire(ann)
        synced.hire(booked)
        synced.settle()
        before = state(synced, booked)
        sync_id, _ = synced.repair(synced.scan())
        synced.resume()
        there_and_back(synced, booked, sync_id, before)

    def test_pruned_line(self, synced, booked):
        stranger = uuid4()
        ann, resource = synced.hire(booked)
        synced.sync()
        synced.conn.execute("DELETE FROM flex.flex_crew_assignments")
        synced.fire(ann)
        done = synced.sync()
        assert (done.result["orphans_pruned"], synced.crew(booked)) == (1, {})
        synced.by_hand("add", booked, stranger)
        synced.roll_back(done.sync_id)
        assert {*synced.crew(booked)} == {resource, stranger}
        assert owned(synced.conn, booked.element) == {synced.crew(booked)[resource].id}

    def test_only_what_is_left_of_it(self, synced, booked):
        """A line that people deleted meanwhile is gone already; one that they added themselves is there already."""
        (ann, first), (bob, second) = synced.hire(booked), synced.hire(booked)
        synced.sync()
        synced.fire(ann)
        _, third = synced.hire(booked)
        sync_id = synced.sync().sync_id
        synced.by_hand("delete", booked, third)
        synced.by_hand("add", booked, first)
        synced.roll_back(sync_id)
        crew = synced.crew(booked)
        assert {*crew} == {first, second}
        assert synced.rows(booked) == {ann: crew[first].id, bob: crew[second].id}

    def test_what_it_comes_to_where_people_changed_their_minds_meanwhile(self, synced, booked, monkeypatch):
        ann, _ = synced.hire(booked)
        bob, lead = synced.hire(booked, "FOH-E")
        synced.sync()
        before = state(synced, booked)
        synced.recast(bob, "FOH-T")
        cy, _ = synced.hire(booked)
        set_role, roles = calls.set_role, []

        def between(*arguments):
            roles.append(arguments)
            if len(roles) == 1:
                synced.fire(cy)
                synced.recast(bob, "FOH-R")
            return set_role(*arguments)

        monkeypatch.setattr(calls, "set_role", between)
        sync_id = synced.sync().sync_id
        assert synced.crew(booked)[lead].role_id == LEAD
        assert cy not in synced.rows(booked)
        monkeypatch.undo()
        there_and_back(synced, booked, sync_id, before)
        assert ann in synced.rows(booked)

    def test_watermark(self, agency):
        booked = agency.book()
        agency.hire(booked)
        agency.roll_back(agency.sync().sync_id)
        assert (agency.watermark(), agency.crew(booked)) == (None, {})
        # So the next one is a first one.
        agency.sync()
        assert len(agency.crew(booked)) == 1


class TestConflicts:
    def test_with_a_later_sync_are_named(self, synced, booked):
        ann, resource = synced.hire(booked, "FOH-E")
        first = synced.sync().sync_id
        synced.recast(ann, "FOH-R")
        later = synced.sync().sync_id
        before = state(synced, booked)
        with pytest.raises(RollbackRefused, match=rf"contacts or rows by sync_id {later} \(such as {resource}\)"):
            synced.roll_back(first)
        (conflict,) = synced.roll_back(first, dry_run=True).conflicts
        assert conflict == Conflict(1, f"contacts or rows by sync_id {later}", (str(resource),), (later,))
        assert state(synced, booked) == before

    def test_with_a_later_sync_of_rows_alone_are_named(self, synced, booked):
        ann, resource = synced.hire(booked)
        synced.by_hand("add", booked, resource, role=HAND)
        first = synced.sync().sync_id
        synced.fire(ann)
        later = synced.sync().sync_id
        with pytest.raises(RollbackRefused, match=rf"by sync_id {later} \(such as {ann}\)"):
            synced.roll_back(first)

    def test_with_a_later_row_of_another_that_names_the_line_are_named(self, synced, booked):
        """The line serves the same person in another department since."""
        ann, _ = synced.hire(booked)
        first = synced.sync().sync_id
        assign(synced.conn, call(synced.conn, booked.element, "lights"), ann)
        later = synced.sync().sync_id
        before = state(synced, booked)
        with pytest.raises(RollbackRefused, match=rf"by sync_id {later} \(such as {ann}\)"):
            synced.roll_back(first)
        assert state(synced, booked) == before
        undone = synced.roll_back(first, force=True)
        assert (synced.crew(booked), rows(synced.conn, booked.element)) == ({}, {})
        synced.roll_back(undone.sync_id)
        assert (state(synced, booked), len(rows(synced.conn, booked.element))) == (before, 2)
        # Newest first, without force.
        synced.roll_back(later)
        synced.roll_back(first)
        assert (synced.crew(booked), rows(synced.conn, booked.element)) == ({}, {})

    def test_are_overwritten_by_force(self, synced, booked):
        ann, _ = synced.hire(booked, "FOH-E")
        first = synced.sync().sync_id
        synced.recast(ann, "FOH-R")
        synced.sync()
        undone = synced.roll_back(first, force=True)
        assert len(undone.conflicts) == 1
        assert (synced.crew(booked), synced.rows(booked)) == ({}, {})

    def test_are_none_with_other_people_of_the_same_crew_call(self, synced, booked):
        _, first = synced.hire(booked)
        sync_id = synced.sync().sync_id
        _, second = synced.hire(booked)
        synced.sync()
        assert synced.roll_back(sync_id).conflicts == ()
        assert ({*synced.crew(booked)}, first in synced.crew(booked)) == ({second}, False)

    def test_go_with_the_later_sync_newest_first(self, synced, booked):
        """The line that the first one made has another id by then."""
        start = state(synced, booked)
        ann, _ = synced.hire(booked, "FOH-E")
        first = synced.sync().sync_id
        synced.recast(ann, "FOH-R")
        second = synced.sync().sync_id
        synced.fire(ann)
        third = synced.sync().sync_id
        for sync_id in (third, second, first):
            assert synced.roll_back(sync_id).conflicts == ()
        assert state(synced, booked) == start

    def test_come_back_with_the_later_sync(self, synced, booked):
        ann, _ = synced.hire(booked, "FOH-E")
        first = synced.sync().sync_id
        synced.recast(ann, "FOH-R")
        second = synced.sync().sync_id
        synced.roll_back(synced.roll_back(second).sync_id)
        with pytest.raises(RollbackRefused, match=rf"by sync_id {second} \("):
            synced.roll_back(first)
        synced.roll_back(second)
        synced.roll_back(first)
        assert synced.crew(booked) == {}

    @pytest.mark.parametrize("later", [False, True], ids=["", "after a later sync"])
    def test_with_a_role_that_a_person_has_set_since(self, synced, booked, later):
        who, resource = synced.hire(booked)
        synced.sync()
        synced.recast(who, "FOH-E")
        sync_id = synced.sync().sync_id
        if later:
            synced.hire(booked)
            synced.sync()
        synced.by_hand("role", booked, resource, role=LEAD)
        with pytest.raises(RollbackRefused, match=rf"1 business roles that people have set since .*{resource}"):
            synced.roll_back(sync_id)
        assert len(synced.roll_back(sync_id, dry_run=True).conflicts) == 1
        assert synced.crew(booked)[resource].role_id == LEAD
        synced.roll_back(sync_id, force=True)
        assert synced.crew(booked)[resource].role_id == HAND

    def test_with_a_role_of_which_flex_tells_nothing_now(self, synced, booked):
        who, _ = synced.hire(booked)
        synced.sync()
        synced.recast(who, "FOH-E")
        sync_id = synced.sync().sync_id
        synced.fault("object", ROWS, "GET", times=None)
        [conflict] = synced.roll_back(sync_id, dry_run=True).conflicts
        assert (conflict.what, conflict.examples) == (
            "crew calls that can't be read now, whose roles people may have set since",
            (str(booked.element),),
        )

    def test_with_a_role_that_a_person_sets_meanwhile_end_it(self, synced, booked, monkeypatch):
        who, resource = synced.hire(booked)
        synced.sync()
        synced.recast(who, "FOH-E")
        sync_id = synced.sync().sync_id
        conflicts = FlexCopy.conflicts

        def before(copy: FlexCopy, sync_id: int) -> list[Conflict]:
            found = conflicts(copy, sync_id)
            synced.by_hand("role", booked, resource, role=LEAD)
            return found

        monkeypatch.setattr(FlexCopy, "conflicts", before)
        with pytest.raises(SyncFailed, match="a person has set another business role on line"):
            synced.roll_back(sync_id)
        assert synced.crew(booked)[resource].role_id == LEAD

    def test_are_none_with_a_role_that_a_person_has_set_back(self, synced, booked):
        who, resource = synced.hire(booked)
        synced.sync()
        synced.recast(who, "FOH-E")
        sync_id = synced.sync().sync_id
        synced.by_hand("role", booked, resource, role=HAND)
        assert synced.roll_back(sync_id).conflicts == ()
        assert synced.crew(booked)[resource].role_id == HAND

    def test_with_a_role_that_was_none(self, synced, booked):
        _, resource = synced.hire(booked)
        synced.by_hand("add", booked, resource)
        sync_id = synced.sync().sync_id
        assert synced.crew(booked)[resource].role_id == HAND
        with pytest.raises(RollbackRefused, match=rf"1 business roles .* \(such as {resource}\)"):
            synced.roll_back(sync_id)
        synced.roll_back(sync_id, force=True)
        # As far as it goes.
        assert (synced.crew(booked)[resource].role_id, synced.rows(booked)) == (HAND, {})

    def test_with_a_crew_call_that_is_gone(self, synced, booked):
        _, resource = synced.hire(booked)
        synced.sync()
        synced.conn.execute("DELETE FROM flex.jobs")
        sync_id = synced.sync().sync_id
        with pytest.raises(RollbackRefused, match=rf"whose crew call is gone here \(such as {resource}\)"):
            synced.roll_back(sync_id)

    def test_with_a_crew_call_that_is_busy(self, synced, booked):
        synced.hire(booked)
        sync_id = synced.sync().sync_id
        with (
            psycopg.connect(synced.url, autocommit=True) as other,
            gate.claimed(other, booked.element, "another/run", sync_id),
            pytest.raises(RollbackRefused, match=rf"busy or uncertain \(such as {booked.element}\)"),
        ):
            synced.roll_back(sync_id)
        synced.roll_back(sync_id)
        assert synced.crew(booked) == {}

    @pytest.mark.parametrize("force", [True, False])
    def test_with_a_crew_call_in_doubt(self, synced, booked, force):
        """Though nothing else was done there: the write that nobody knows of is one to take back, or isn't."""
        synced.hire(booked)
        # The answer names the line, and no read shows it.
        synced.fault("object", ROWS, "GET", nth=2, times=None)
        with pytest.raises(SyncFailed):
            synced.sync()
        synced.control.clear()
        sync_id = synced.synced()["sync_id"]
        if force:
            synced.roll_back(sync_id, force=True)
            assert len(synced.crew(booked)) == 1
            return
        with pytest.raises(RollbackRefused, match=rf"busy or uncertain \(such as {booked.element}\)"):
            synced.roll_back(sync_id)
        # What the release finds to have happened is taken back with its sync.
        later = synced.sync(release_element=str(booked.element)).sync_id
        synced.roll_back(later, force=True)
        synced.roll_back(sync_id)
        assert (synced.crew(booked), synced.rows(booked)) == ({}, {})

    def test_while_a_runbook_is_at_work(self, synced, booked):
        synced.hire(booked)
        sync_id = synced.sync().sync_id
        synced.scan()
        with pytest.raises(FenceError, match="at work"):
            synced.roll_back(sync_id)


class TestFails:
    def test_where_an_outcome_is_unknown_and_leaves_the_crew_call_alone(self, synced, booked):
        other = synced.book()
        synced.hire(booked), synced.hire(other)
        sync_id = synced.sync().sync_id
        synced.fault("drop", LINE, "DELETE")
        with pytest.raises(SyncFailed, match=f"not all of sync_id {sync_id} was taken back"):
            synced.roll_back(sync_id)
        assert sorted(synced.gates().values()) == ["idle", "uncertain"]
        assert sorted(len(synced.rows(each)) for each in (booked, other)) == [0, 1]
        entry = synced.synced()
        assert (entry["kind"], entry["state"]) == ("rollback", "failed")
        [doubtful] = [element_id for element_id, state in synced.gates().items() if state == "uncertain"]
        synced.sync(release_element=str(doubtful))
        assert {*synced.gates().values()} == {"idle"}

    def test_where_flex_refuses_and_is_finished_by_force(self, synced, booked):
        synced.hire(booked), synced.hire(booked)
        sync_id = synced.sync().sync_id
        synced.fault("status", LINE, "DELETE", status=409)
        with pytest.raises(SyncFailed, match="409"):
            synced.roll_back(sync_id)
        assert len(synced.crew(booked)) == len(synced.rows(booked)) == 1
        with pytest.raises(RollbackRefused):
            synced.roll_back(sync_id)
        synced.roll_back(sync_id, force=True)
        assert (synced.crew(booked), synced.rows(booked)) == ({}, {})

    def test_where_flex_took_for_done_what_it_did_not_do(self, synced, booked):
        synced.hire(booked)
        sync_id = synced.sync().sync_id
        before = state(synced, booked)
        synced.fault("ignored", LINE, "DELETE")
        with pytest.raises(SyncFailed, match="a fresh read does not show it"):
            synced.roll_back(sync_id)
        assert (state(synced, booked), synced.synced()["rows_deleted"]) == (before, 0)

    def test_before_the_first_request_where_the_unique_key_is_missing(self, synced, booked):
        synced.hire(booked)
        sync_id = synced.sync().sync_id
        synced.control.reset_counters()
        with without_key(synced), pytest.raises(IntegrityFailed, match="warehouse_migrate"):
            synced.roll_back(sync_id)
        assert synced.control.counters().total() == 0

    def test_where_flex_shows_nothing(self, synced, booked):
        synced.hire(booked)
        sync_id = synced.sync().sync_id
        before = state(synced, booked)
        synced.fault("object", ROWS)
        with pytest.raises(SyncFailed, match="could not be read"):
            synced.roll_back(sync_id)
        assert state(synced, booked) == before


class TestSkipped:
    def changes(self, agency: Agency) -> list[tuple]:
        return agency.conn.execute("SELECT * FROM flex.job_change ORDER BY change_id").fetchall()

    def test_changes_are_forgotten_and_wait_again_and_are_forgotten_again(self, synced, booked):
        synced.hire(booked)
        before, mark = self.changes(synced), synced.watermark()
        assert len(before) == 2
        synced.scan()
        sync_id = synced.reset_watermarks()
        synced.resume()
        assert (self.changes(synced), synced.watermark() > mark) == ([], True)
        synced.sync()
        assert synced.crew(booked) == {}
        later = synced.watermark()
        undone = synced.roll_back(sync_id)
        assert (self.changes(synced), synced.watermark()) == (before, mark)
        kept = synced.book()
        synced.roll_back(undone.sync_id)
        # Only those that had waited again.
        assert [job for _, job, _ in self.changes(synced)] == [kept.job]
        assert later >= synced.watermark() > mark

    def test_dry_run_changes_nothing(self, synced, booked):
        synced.scan()
        sync_id = synced.reset_watermarks()
        synced.resume()
        synced.roll_back(sync_id, dry_run=True)
        assert self.changes(synced) == []

    def test_watermark_that_was_never_set_stays_so(self, agency):
        agency.book()
        agency.scan()
        agency.reset_watermarks()
        agency.resume()
        assert (agency.waiting(), agency.watermark()) == (set(), None)
        agency.sync()
        assert len(agency.touched()) == 1

    def test_needs_a_stopped_writer(self, synced, booked):
        with pytest.raises(FenceError, match="running"):
            synced.reset_watermarks()
        assert synced.waiting() == {booked.job}
        assert sync_log.state(synced.conn, "flex", "crew").watermark
