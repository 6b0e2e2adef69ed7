"""Flex shows what isn't so, or says that it did what it didn't: nothing is taken for gone, or for done, on its word."""

import json
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.api.request import Answer, Request
from include.simulators.flex import Fault, Mutation
from include.sources.flex import calls, element
from include.sources.flex.calls import Outcome
from include.sources.flex.rows import Line

from .flex import (
    EXPERT,
    HAND,
    LEAD,
    Falsely,
    as_gear,
    assign,
    call,
    exchanged,
    of_somebody_else,
    own,
    owned,
    person,
    rows,
    tell_once,
    without_role,
)
from .test_flex_element import ADD, LINE, ROWS, Stage, stage

__all__ = ["stage"]

# What a list shows though it isn't so, as a fault for it; `line` is one that is there, `other` another crew call.
FALSE: dict[str, Callable[[UUID, UUID], Fault]] = {
    "nothing": lambda line, other: Fault(kind="empty"),
    "one less": lambda line, other: Fault(kind="short", line=line),
    "late by one": lambda line, other: Fault(kind="lag", changes=2),
    "late by all": lambda line, other: Fault(kind="lag", changes=20),
    "another crew call's": lambda line, other: Fault(kind="swapped", element=other),
    "an error": lambda line, other: Fault(kind="envelope"),
}
# What the record of a crew call, or of a line, may answer instead of itself.
NO_RECORD = {
    "404": Fault(kind="status", status=404),
    "404, a page": Fault(kind="status", status=404, html=True),
    "405": Fault(kind="status", status=405),
    "410": Fault(kind="status", status=410),
    "500": Fault(kind="status", status=500),
    "an error": Fault(kind="envelope"),
}


def standing(stage: Stage) -> tuple:
    """All that is there, in Flex and here."""
    here = rows(stage.conn, stage.element), owned(stage.conn, stage.element), stage.operations()
    return stage.flex.control.lines(stage.element), here, len(stage.flex.control.journal())


def record(thing: UUID) -> str:
    return f"line-item/{thing}"


@pytest.fixture
def crew(stage: Stage) -> Stage:
    """Two people in step, of whom the second came last and got a role last."""
    stage.hire("FOH-R")
    stage.sync()
    stage.hire("FOH-R")
    stage.sync()
    return stage


@pytest.fixture
def other(stage: Stage) -> UUID:
    """A crew call of strangers."""
    element_id = stage.flex.control.create_element()
    stage.flex.control.mutate(*[Mutation("add", element_id) for _ in range(2)])
    return element_id


def last_line(stage: Stage) -> UUID:
    return [line.id for line in stage.flex.control.lines(stage.element) if line.kind == "contact"][-1]


class TestHeaders:
    """Nobody has seen how Flex shows a header that is empty, or one that is not opened."""

    def by_hand_under_a_header(self, stage: Stage) -> UUID:
        [header] = [line.id for line in stage.flex.control.lines(stage.element) if line.kind == "header"]
        _, resource = stage.hire()
        stage.flex.control.mutate(Mutation("add", stage.element, resource, line=header))
        return resource

    @pytest.mark.parametrize("headers", ["leaf", "open"])
    def test_that_are_opened_show_who_is_there_already(self, stage, headers):
        stage.flex.control.set(headers=headers)
        resource = self.by_hand_under_a_header(stage)
        report = stage.sync()
        assert (report.state, {*stage.crew()}) == ("done", {resource})

    def test_that_are_not_opened_add_nobody(self, stage):
        stage.flex.control.set(headers="closed")
        resource = self.by_hand_under_a_header(stage)
        report = stage.sync()
        assert (report.state, {*stage.crew()}) == ("unreadable", {resource})
        assert "isn't shown, though it is no leaf" in report.problems[0]

    @pytest.mark.parametrize(("headers", "state"), [("leaf", "done"), ("open", "done"), ("closed", "unreadable")])
    def test_that_are_empty_are_read_if_they_say_so(self, stage, headers, state):
        stage.flex.control.set(headers=headers)
        [gear] = [line.id for line in stage.flex.control.lines(stage.element) if line.kind == "inventory"]
        stage.flex.control.mutate(Mutation("delete", stage.element, line=gear))
        stage.hire()
        assert stage.sync().state == state


class TestRecordWithItsOwnWords:
    """The record names the type of contacts otherwise than the rows."""

    @pytest.fixture(params=["Contact", "contact-line-item"])
    def named(self, stage, request, monkeypatch) -> Stage:
        truly = calls.rows.items

        def items(answer: dict, element_id: UUID) -> dict:
            told = json.dumps(answer).replace('"contact"', json.dumps(request.param))
            return truly(json.loads(told), element_id)

        monkeypatch.setattr(calls.rows, "items", items)
        return stage

    @pytest.mark.parametrize("records", ["whole", "types"])
    def test_shows_who_is_missing_in_the_rows(self, named, records):
        named.flex.control.set(records=records)
        _, resource = named.hire()
        named.flex.control.mutate(Mutation("add", named.element, resource))
        named.fault(Fault(kind="short"), ROWS, "GET", times=None)
        report = named.sync()
        assert (report.state, {*named.crew()}) == ("unreadable", {resource})

    def test_contradicts_rows_that_take_a_contact_for_gear(self, named, monkeypatch):
        _, resource = named.hire()
        named.flex.control.mutate(Mutation("add", named.element, resource))
        tell_once(monkeypatch, as_gear)
        report = named.sync()
        assert (report.state, {*named.crew()}) == ("unreadable", {resource})

    def test_is_believed_where_the_rows_show_the_same(self, named):
        _, resource = named.hire()
        assert named.sync().state == "done"
        named.in_step(resource)


class TestRows:
    @pytest.mark.parametrize("times", [1, 3, None])
    @pytest.mark.parametrize("name", FALSE)
    def test_that_hide_a_line_change_nothing(self, crew, other, name, times):
        before = standing(crew)
        crew.fault(FALSE[name](last_line(crew), other), ROWS, "GET", times=times)
        report = crew.sync()
        assert (report.state, report.events, len(report.problems)) == ("unreadable", (), 1)
        assert (standing(crew), crew.gate()) == (before, "idle")

    @pytest.mark.parametrize("name", FALSE)
    def test_that_hide_a_line_once_are_asked_for_again(self, crew, other, name):
        before = standing(crew)
        crew.fault(FALSE[name](last_line(crew), other), ROWS, "GET")
        report = crew.sync(pauses=(0,))
        assert (report.state, standing(crew)) == ("done", before)

    @pytest.mark.parametrize("name", FALSE)
    def test_that_hide_who_is_there_already_add_nobody(self, stage, other, name):
        """A person added them by hand; we know of no line."""
        stage.flex.control.mutate(Mutation("add", stage.element))
        _, resource = stage.hire()
        stage.flex.control.mutate(Mutation("add", stage.element, resource))
        before = standing(stage)
        stage.fault(FALSE[name](last_line(stage), other), ROWS, "GET", times=None, **lag_of_one(name))
        assert (stage.sync().state, standing(stage)) == ("unreadable", before)
        stage.flex.control.clear()
        assert (stage.sync().count("adopted"), stage.adds()) == (1, {})

    def test_of_another_crew_call_give_nobody_a_line_there(self, stage, other):
        """The contact is on both, as far as we want; on this one they aren't yet."""
        _, resource = stage.hire()
        stage.flex.control.mutate(Mutation("add", other, resource))
        stage.fault(Fault(kind="swapped", element=other), ROWS, "GET")
        assert (stage.sync().state, rows(stage.conn, stage.element), stage.adds()) == ("unreadable", {}, {})
        stage.sync()
        stage.in_step(resource)

    def test_and_record_that_agree_are_not_believed_against_a_lines_own_address(self, crew):
        before = standing(crew)
        line_id = last_line(crew)
        for path in (ROWS, record(crew.element)):
            crew.fault(Fault(kind="short", line=line_id), path, "GET", times=None)
        report = crew.sync()
        assert (report.state, standing(crew)) == ("unreadable", before)
        assert f"line {line_id} isn't shown" in report.problems[0]

    def test_late_between_two_writes_double_nobody(self, stage, monkeypatch):
        """The crew changes while somebody is added, so all is read anew, and late."""
        (_, first), (bob, _) = stage.hire(), stage.hire()
        add = calls.add

        def meanwhile(*arguments):
            stage.conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = %s", [bob])
            return add(*arguments)

        monkeypatch.setattr(calls, "add", meanwhile)
        stage.fault(Fault(kind="lag", times=None), ROWS, "GET", nth=3)
        assert stage.sync().state == "unreadable"
        assert {*stage.adds().values()} == {1}
        monkeypatch.undo()
        stage.flex.control.clear()
        stage.sync()
        stage.in_step(first)


def lag_of_one(name: str) -> dict[str, int]:
    return {"changes": 1} if name == "late by one" else {}


@pytest.mark.parametrize("records", ["ids", "types", "whole"])
class TestWhoseALineIs:
    """Only the rows have to tell it; the record tells it sometimes, or only what kind of line it is."""

    @pytest.mark.parametrize("falsely", [of_somebody_else, exchanged, as_gear, without_role])
    def test_told_falsely_once_changes_nothing(self, crew, monkeypatch, records, falsely):
        before = standing(crew)
        crew.flex.control.set(records=records)
        self.unreadable(crew, monkeypatch, falsely)
        assert standing(crew) == before
        tell_once(monkeypatch, falsely)
        assert (crew.sync(pauses=(0,)).state, standing(crew)) == ("done", before)

    def test_told_as_gear_adds_nobody_beside_a_line_that_a_person_made(self, stage, monkeypatch, records):
        _, resource = stage.hire()
        stage.flex.control.mutate(Mutation("add", stage.element, resource, role=HAND))
        stage.flex.control.set(records=records)
        self.unreadable(stage, monkeypatch, as_gear)
        assert (stage.sync().count("adopted"), stage.adds()) == (1, {})

    def test_told_falsely_gives_nobody_a_strangers_line(self, stage, monkeypatch, records):
        [[line_id]] = stage.flex.control.mutate(Mutation("add", stage.element, role=EXPERT))
        _, resource = stage.hire("FOH-R")
        stage.flex.control.set(records=records)

        def falsely(lines: list[Line]) -> list[Line]:
            return [replace(line, resource_id=resource) if line.line_id == line_id else line for line in lines]

        self.unreadable(stage, monkeypatch, falsely)
        assert (rows(stage.conn, stage.element), stage.adds()) == ({}, {})
        assert stage.sync().count("added") == 1
        assert {line.role_id for line in stage.crew().values() if line.id == line_id} == {EXPERT}

    def test_told_falsely_of_a_line_that_is_back_gives_it_to_nobody(self, crew, monkeypatch, records):
        crew.conn.execute("DELETE FROM flex.jobs; UPDATE flex.owned_line SET gone_at = now()")
        crew.flex.control.set(records=records)
        self.unreadable(crew, monkeypatch, of_somebody_else)
        assert (owned(crew.conn, crew.element), len(crew.crew())) == (set(), 2)
        assert crew.sync().count("back") == 2

    def test_is_asked_once_more_only_where_the_record_does_not_tell(self, crew, records):
        """Or where a role is to be written, which no record tells."""
        crew.hire()
        crew.flex.control.set(records=records)
        crew.flex.control.reset_counters()
        assert crew.sync().count("added") == 1
        assert crew.flex.control.counters().total("GET") == (4 if records == "whole" else 5)
        crew.conn.execute("UPDATE flex.job_assignments SET sound_role = 'FOH-E'")
        crew.flex.control.reset_counters()
        assert crew.sync().count("role_set") == 3
        assert crew.flex.control.counters().total("GET") == 5

    def test_asked_for_in_vain_is_asked_again(self, crew, records):
        crew.hire("FOH-R")
        crew.conn.execute("UPDATE flex.job_assignments SET sound_role = 'FOH-E'")
        crew.flex.control.set(records=records)
        crew.fault(Fault(kind="status", status=404), ROWS, "GET", nth=2)
        report = crew.sync()
        assert (report.state, report.events) == ("unreadable", ())
        assert "has none when it is asked again" in report.problems[0]
        crew.fault(Fault(kind="status", status=404), ROWS, "GET", nth=2)
        assert crew.sync(pauses=(0,)).state == "done"

    def unreadable(self, stage: Stage, monkeypatch: pytest.MonkeyPatch, falsely: Falsely) -> None:
        with monkeypatch.context() as patch:
            tell_once(patch, falsely)
            report = stage.sync()
        assert (report.state, report.events, stage.gate()) == ("unreadable", (), "idle")


def test_whose_a_line_is_told_falsely_each_time_is_contradicted_by_the_record(crew, monkeypatch):
    before = standing(crew)
    crew.flex.control.set(records="whole")
    read = calls.rows.read
    monkeypatch.setattr(calls.rows, "read", lambda *arguments: exchanged(read(*arguments)))
    report = crew.sync(pauses=(0,))
    assert (report.state, standing(crew)) == ("unreadable", before)
    assert "has another resource by the record" in report.problems[0]


class TestRecord:
    """The crew call's own, without which nothing is written."""

    @pytest.mark.parametrize("name", [*FALSE, *NO_RECORD])
    def test_that_does_not_agree_adds_nobody(self, crew, other, name):
        _, resource = crew.hire()
        before = standing(crew)
        fault = NO_RECORD.get(name) or FALSE[name](last_line(crew), other)
        crew.fault(fault, record(crew.element), "GET", times=None)
        report = crew.sync()
        assert (report.state, report.events, standing(crew)) == ("unreadable", (), before)
        crew.flex.control.clear()
        assert crew.sync().count("added") == 1
        assert resource in crew.crew()

    @pytest.mark.parametrize("status", [401, 403])
    def test_without_the_right_stops_everything(self, crew, status):
        crew.hire()
        before = standing(crew)
        crew.fault(Fault(kind="status", status=status), record(crew.element), "GET")
        assert (crew.sync().state, standing(crew)) == ("stopped", before)


class TestGone:
    @pytest.mark.parametrize("answer", ["404", "page", "405", "410", "null", "empty"])
    def test_line_is_only_if_its_own_address_says_so(self, crew, answer):
        """Whatever Flex answers for a line that isn't there: nobody is on a crew call twice."""
        crew.flex.control.set(gone=answer)
        try:
            (line,) = [line for line in crew.crew().values() if line.id == last_line(crew)]
            crew.flex.control.mutate(Mutation("delete", crew.element, line=line.id))
            before = standing(crew)
            report = crew.sync()
            if answer == "404":
                assert (report.state, report.count("stale"), report.count("added")) == ("done", 1, 1)
                assert line.id not in owned(crew.conn, crew.element)
                crew.in_step(*crew.crew())
            else:
                assert (report.state, standing(crew)) == ("unreadable", before)
        finally:
            crew.flex.control.set(gone="404")

    @pytest.mark.parametrize("name", NO_RECORD)
    def test_line_is_not_if_its_own_address_says_nothing(self, crew, name):
        line_id = last_line(crew)
        crew.flex.control.mutate(Mutation("delete", crew.element, line=line_id))
        before = standing(crew)
        crew.fault(NO_RECORD[name], record(line_id), "GET", times=None)
        if name == "404":
            assert crew.sync().count("added") == 1
        else:
            assert (crew.sync().state, standing(crew)) == ("unreadable", before)

    @pytest.mark.parametrize("pauses", [(), (0,)])
    def test_line_is_not_if_all_addresses_lag_behind_once(self, crew, pauses):
        before = standing(crew)
        line_id = last_line(crew)
        for path in (ROWS, record(crew.element)):
            crew.fault(Fault(kind="short", line=line_id), path, "GET")
        crew.fault(Fault(kind="status", status=404), record(line_id), "GET")
        report = crew.sync(pauses=pauses)
        assert report.state == ("done" if pauses else "unreadable")
        assert standing(crew) == before

    def test_line_that_comes_back_is_ours_again(self, crew):
        crew.conn.execute("DELETE FROM flex.job_assignments")
        line_id = last_line(crew)
        crew.flex.control.mutate(Mutation("delete", crew.element, line=line_id))
        crew.sync()
        assert line_id not in owned(crew.conn, crew.element)
        crew.flex.control.mutate(Mutation("restore", crew.element, line=line_id))
        report = crew.sync()
        assert (report.state, report.count("back"), report.count("pruned")) == ("done", 1, 1)
        assert crew.crew() == {}

    def test_line_that_comes_back_for_somebody_desired_is_theirs_again(self, crew, monkeypatch):
        """All witnesses have lied; nobody was added meanwhile."""
        line_id = last_line(crew)
        crew.conn.execute("UPDATE flex.owned_line SET gone_at = now() WHERE flex_line_item_id = %s", [line_id])
        crew.conn.execute("DELETE FROM flex.flex_crew_assignments WHERE flex_line_item_id = %s", [line_id])
        report = crew.sync()
        assert (report.count("back"), report.count("adopted"), report.count("added")) == (1, 1, 0)
        assert line_id in owned(crew.conn, crew.element)
        crew.in_step(*crew.crew())

    def test_crew_call_with_all_its_lines_is_only_if_all_addresses_say_so(self, crew):
        """No call of ours names it any more, and it answers 404."""
        crew.conn.execute("DELETE FROM flex.jobs")
        before = standing(crew)
        crew.fault(Fault(kind="status", status=404), ROWS, "GET", times=None)
        assert (crew.sync().state, standing(crew)) == ("unreadable", before)
        crew.fault(Fault(kind="status", status=404), record(crew.element), "GET", times=None)
        assert (crew.sync().state, standing(crew)) == ("unreadable", before)
        for line in crew.crew().values():
            crew.fault(Fault(kind="status", status=404), record(line.id), "GET", times=None)
        assert crew.sync().state == "done"
        assert owned(crew.conn, crew.element) == set()

    def test_row_that_names_a_line_of_before_its_call_came_here_is_not_stale(self, stage):
        """Of a person's line, which stays where it is, and of one of ours."""
        first, second = stage.hire(), stage.hire()
        stage.flex.control.mutate(Mutation("add", stage.element, first[1], role=HAND))
        stage.sync()
        old, new = stage.element, stage.flex.control.create_element()
        stage.conn.execute("UPDATE flex.flex_crew_calls SET flex_element_id = %s WHERE id = %s", [new, stage.call])
        report = element.sync_element(stage.worker, new)
        assert (report.state, report.count("added"), report.count("stale")) == ("done", 2, 0)
        assert element.sync_element(stage.worker, old).count("pruned") == 1
        assert {*stage.crew()} == {first[1]}
        assert second[1] in {line.resource_id for line in stage.flex.control.lines(new)}


class TestWriteThatDidNothing:
    def test_add_leaves_the_element_alone(self, stage):
        stage.hire("FOH-R")
        stage.fault(Fault(kind="ignored"), ADD)
        report = stage.sync()
        assert (report.state, report.count("added"), stage.gate()) == ("uncertain", 0, "uncertain")
        assert (rows(stage.conn, stage.element), owned(stage.conn, stage.element)) == ({}, set())

    def test_role_is_not_done_and_written_by_the_next(self, stage):
        _, resource = stage.hire("FOH-R")
        stage.fault(Fault(kind="ignored"), ROWS, "POST")
        report = stage.sync()
        assert (report.state, report.count("role_set"), report.count("role_failed")) == ("failed", 0, 1)
        assert "a fresh read does not show it" in report.problems[0]
        assert (stage.operations()[-1], stage.gate()) == (("role", "refused"), "idle")
        stage.sync()
        stage.in_step(resource)
        assert stage.crew()[resource].role_id == LEAD

    def test_remove_keeps_row_and_line_and_is_made_by_the_next(self, stage):
        stage.hire()
        stage.sync()
        stage.conn.execute("DELETE FROM flex.job_assignments")
        stage.fault(Fault(kind="ignored"), LINE, "DELETE")
        report = stage.sync()
        assert (report.state, report.count("removed"), report.count("remove_failed")) == ("failed", 0, 1)
        assert len(rows(stage.conn, stage.element)) == len(owned(stage.conn, stage.element)) == 1
        assert stage.sync().count("removed") == 1
        stage.in_step()

    def test_remove_that_is_shown_by_one_list_only_is_unknown(self, stage):
        stage.hire()
        stage.sync()
        stage.conn.execute("DELETE FROM flex.job_assignments")
        stage.fault(Fault(kind="ignored"), LINE, "DELETE")
        stage.fault(Fault(kind="empty", times=None), ROWS, "GET", nth=2)
        report = stage.sync()
        assert (report.state, report.count("removed"), stage.gate()) == ("uncertain", 0, "uncertain")
        assert len(owned(stage.conn, stage.element)) == 1

    def test_prune_is_told_and_holds_up_nothing(self, stage):
        [[line_id]] = stage.flex.control.mutate(Mutation("add", stage.element, resource := uuid4()))
        own(stage.conn, stage.element, line_id, resource)
        stage.fault(Fault(kind="ignored"), LINE, "DELETE")
        report = stage.sync()
        assert (report.state, report.count("pruned"), report.count("prune_failed")) == ("done", 0, 1)
        assert owned(stage.conn, stage.element) == {line_id}


class TestWriteThatWasRefusedAndDone:
    def test_add_is_a_persons_line_and_nobody_is_added_beside_it(self, stage):
        """Somebody may have added the contact at that moment, and that may be why it was refused."""
        ann, resource = stage.hire()
        stage.fault(Fault(kind="status", status=409, committed=True), ADD)
        report = stage.sync()
        assert (report.state, report.count("added"), report.count("add_failed")) == ("failed", 0, 1)
        assert stage.sync().count("adopted") == 1
        assert (stage.adds(), {*stage.crew()}) == ({resource: 1}, {resource})
        assert owned(stage.conn, stage.element) == set()
        stage.conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = %s", [ann])
        stage.sync()
        assert {*stage.crew()} == {resource}

    def test_role_is_done(self, stage):
        _, resource = stage.hire("FOH-R")
        stage.fault(Fault(kind="status", status=400, committed=True), ROWS, "POST")
        report = stage.sync()
        assert (report.state, report.count("role_set"), report.count("role_failed")) == ("done", 1, 0)
        stage.in_step(resource)

    def test_remove_is_done(self, stage):
        stage.hire()
        stage.sync()
        stage.conn.execute("DELETE FROM flex.job_assignments")
        stage.fault(Fault(kind="status", status=409, committed=True), LINE, "DELETE")
        report = stage.sync()
        assert (report.state, report.count("removed"), report.count("remove_failed")) == ("done", 1, 0)
        stage.in_step()


class TestAnswerToAnAdd:
    @pytest.mark.parametrize("of", ["a stranger", "one of ours"])
    def test_that_names_a_line_of_before_is_no_new_line(self, crew, monkeypatch, of):
        """And so the line is neither ours nor anybody's."""
        stranger = crew.flex.control.mutate(Mutation("add", crew.element))[0][0]
        line_id = stranger if of == "a stranger" else next(iter(owned(crew.conn, crew.element)))
        before = owned(crew.conn, crew.element)
        crew.hire()
        monkeypatch.setattr(calls, "add", lambda *_: Outcome("done", line_id))
        assert (crew.sync().state, owned(crew.conn, crew.element)) == ("uncertain", before)

    def test_that_names_the_crew_call_is_proven_by_the_new_line(self, stage, monkeypatch):
        _, resource = stage.hire("FOH-R")
        add = calls.add

        def of_the_crew_call(api, element_id, resource_id):
            add(api, element_id, resource_id)
            return Outcome("done", element_id)

        monkeypatch.setattr(calls, "add", of_the_crew_call)
        assert stage.sync().state == "done"
        stage.sync()
        stage.in_step(resource)

    def test_that_names_the_same_line_for_two_is_a_line_of_the_first_at_most(self, stage, monkeypatch):
        stage.hire(), stage.hire()
        add, made = calls.add, []

        def again(*arguments):
            made.append(add(*arguments))
            return made[0]

        monkeypatch.setattr(calls, "add", again)
        assert stage.sync().state == "done"
        assert len(owned(stage.conn, stage.element)) == len(stage.crew()) == 2


class TestMoves:
    def ops(self, stage: Stage) -> list[tuple[str, UUID]]:
        here = [write for write in stage.flex.control.journal() if write.op in ("add", "delete")]
        return [(write.op, write.resource_id) for write in here if write.element_id == stage.element]

    def new_contact(self, stage: Stage, who: UUID) -> UUID:
        stage.conn.execute("UPDATE flex.profiles SET flex_resource_id = %s WHERE id = %s", [contact := uuid4(), who])
        return contact

    def test_to_another_contact_adds_before_it_deletes(self, stage):
        ann, old = stage.hire("FOH-R")
        stage.sync()
        new = self.new_contact(stage, ann)
        report = stage.sync()
        assert (report.state, report.count("added"), report.count("removed")) == ("done", 1, 1)
        assert self.ops(stage) == [("add", old), ("add", new), ("delete", old)]
        stage.in_step(new)

    @pytest.mark.parametrize("fault", [Fault(kind="status", status=422), Fault(kind="drop"), Fault(kind="ignored")])
    def test_to_another_contact_that_is_not_added_deletes_nothing(self, stage, fault):
        ann, old = stage.hire()
        stage.sync()
        new = self.new_contact(stage, ann)
        stage.fault(fault, ADD)
        assert stage.sync().state in ("failed", "uncertain")
        assert {*stage.crew()} == {old}
        assert {*rows(stage.conn, stage.element)} == {(stage.call, ann)}
        if fault.kind == "status":
            stage.sync()
            stage.in_step(new)

    def test_to_a_contact_that_is_there_already_deletes_the_old_line(self, stage):
        ann, _ = stage.hire()
        stage.sync()
        new = self.new_contact(stage, ann)
        stage.flex.control.mutate(Mutation("add", stage.element, new, role=HAND))
        report = stage.sync()
        assert (report.state, report.count("remapped"), report.count("removed")) == ("done", 1, 1)
        assert {*stage.crew()} == {new}

    def test_to_another_crew_call_wait_until_the_person_is_there(self, stage):
        _, resource = stage.hire()
        stage.sync()
        new = stage.flex.control.create_element()
        stage.conn.execute("UPDATE flex.flex_crew_calls SET flex_element_id = %s WHERE id = %s", [new, stage.call])
        report = element.sync_element(stage.worker, stage.element)
        assert (report.state, {*stage.crew()}) == ("waiting", {resource})
        assert "stays on element" in report.problems[0]
        assert element.sync_element(stage.worker, new).state == "done"
        assert element.sync_element(stage.worker, stage.element).state == "done"
        assert stage.crew() == {}


class TestPrune:
    @pytest.mark.parametrize(
        "fault", [Fault(kind="status", status=500), Fault(kind="drop"), Fault(kind="status", status=409)]
    )
    def test_of_one_bad_line_does_not_hold_up_the_others(self, stage, fault):
        people = [uuid4() for _ in range(3)]
        made = [line for (line,) in stage.flex.control.mutate(*[Mutation("add", stage.element, who) for who in people])]
        for line_id, resource in zip(made, people, strict=True):
            own(stage.conn, stage.element, line_id, resource)
        bad = sorted(made)[0]
        stage.fault(fault, f"line-item/{bad}", "DELETE", times=None)
        report = stage.sync()
        assert (report.state, report.count("pruned"), report.count("prune_failed")) == ("done", 2, 1)
        assert owned(stage.conn, stage.element) == {line.id for line in stage.crew().values()} == {bad}
        assert stage.gate() == "idle"
        assert len(report.orphans_left) == 1

    def test_whose_answer_is_lost_and_that_was_done_is_done(self, stage):
        [[line_id]] = stage.flex.control.mutate(Mutation("add", stage.element, resource := uuid4()))
        own(stage.conn, stage.element, line_id, resource)
        stage.fault(Fault(kind="drop", committed=True), LINE, "DELETE")
        assert stage.sync().count("pruned") == 1
        assert owned(stage.conn, stage.element) == set()

    def test_that_no_read_proves_is_looked_at_by_the_next(self, stage):
        [[line_id]] = stage.flex.control.mutate(Mutation("add", stage.element, resource := uuid4()))
        own(stage.conn, stage.element, line_id, resource)
        stage.fault(Fault(kind="object", times=None), ROWS, "GET", nth=2)
        report = stage.sync()
        assert (report.state, report.count("prune_failed"), stage.gate()) == ("done", 1, "idle")
        stage.flex.control.clear()
        stage.sync()
        assert owned(stage.conn, stage.element) == set()
        stage.in_step()


KEYS = st.sampled_from(
    [
        "id",
        "lineItemId",
        "type",
        "resource",
        "resourceId",
        "children",
        "lineItems",
        "data",
        "leaf",
        "business-role",
        "addedResourceLineIds",
        "exceptionMessage",
        "errors",
    ]
)
KNOWN = [UUID(int=number) for number in range(1, 6)]
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from(["contact", "inventory", *map(str, KNOWN)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
)
CONTACTS = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from([*map(str, KNOWN)]), "type": st.just("contact")},
        optional={"resourceId": st.sampled_from([*map(str, KNOWN)]), "children": ANYTHING, "business-role": ANYTHING},
    ),
    max_size=4,
)
ANSWERS = ANYTHING | CONTACTS | st.fixed_dictionaries({"id": st.just("?"), "children": CONTACTS})


class Anything:
    """An API that answers anything; `?` as an id is the one that was asked for."""

    name = "flex"

    def __init__(self, draw: Callable[[], object]) -> None:
        self._draw = draw
        self.writes = 0

    def send(self, request: Request) -> Answer:
        self.writes += request.method != "GET"
        answer = self._draw()
        if isinstance(answer, dict) and answer.get("id") == "?":
            answer = answer | {"id": request.path.rstrip("/").split("/")[1]}
        return Answer(answer)


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_answered_a_crew_call_has_an_end_that_is_known(stage, data):
    who = person(stage.conn, resource := uuid4())
    here = stage.flex.control.create_element()
    call_id = call(stage.conn, here)
    assign(stage.conn, call_id, who, "FOH-R")
    own(stage.conn, here, KNOWN[0] if not owned_anywhere(stage) else uuid4(), resource)
    api = Anything(lambda: data.draw(ANSWERS))
    report = element.sync_element(replace(stage.worker, api=api), here)
    assert report.state in ("done", "failed", "refused", "unreadable", "uncertain")
    if report.state in ("unreadable", "refused"):
        assert api.writes == 0
    assert all("\n" not in problem for problem in report.problems)


def owned_anywhere(stage: Stage) -> bool:
    query = "SELECT count(*) FROM flex.owned_line WHERE flex_line_item_id = %s"
    return stage.conn.execute(query, [KNOWN[0]]).fetchone() != (0,)
