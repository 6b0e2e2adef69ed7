"""An element in doubt, released: what Flex shows by then is what happened, and the next sync does the rest."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from include.api.errors import TryLater
from include.simulators.flex import Fault, Line, Mutation
from include.sources.flex import calls, gate
from include.sources.flex.release import release
from include.sources.flex.rows import Unreadable

from .flex import Falsely, as_gear, call, of_somebody_else, owned, rows, tell_once, without_role
from .test_flex_element import ADD, LINE, LOST, ROWS, Stage, stage

__all__ = ["stage"]


# What nobody knows the end of: it was done or not, and no read has shown which.
DOUBTFUL = {"done": LOST["dropped, done"], "not done": LOST["dropped, not done"]}


def lost(stage: Stage, name: str, path: str, method: str) -> None:
    """Something is sent whose answer is lost; and what is there since can't be read either."""
    stage.flex.control.reset_counters()
    stage.fault(DOUBTFUL[name], path, method)
    stage.fault(Fault(kind="object", times=None), ROWS, "GET", nth=2)
    assert stage.sync().state == "uncertain"
    stage.flex.control.clear()


def contacts(stage: Stage, element_id: UUID) -> list[Line]:
    return [line for line in stage.flex.control.lines(element_id) if line.kind == "contact"]


@pytest.mark.drill("answer-lost")
@pytest.mark.parametrize("name", DOUBTFUL)
def test_an_add_whose_answer_was_lost_is_made_if_nobody_is_there(stage, name):
    _, resource = stage.hire()
    lost(stage, name, ADD, "POST")
    assert release(stage.worker, stage.element) == 1
    assert (stage.gate(), stage.operations()) == ("idle", [("add", "refused")])
    stage.sync()
    assert {*stage.crew()} == {resource}
    assert {*rows(stage.conn, stage.element).values()} == {line.id for line in stage.crew().values()}


def test_a_line_that_a_person_may_have_made_is_never_ours(stage):
    """The add was not made; a person saw that somebody was missing, and added them."""
    ann, resource = stage.hire()
    lost(stage, "not done", ADD, "POST")
    [[line_id]] = stage.flex.control.mutate(Mutation("add", stage.element, resource))
    release(stage.worker, stage.element)
    stage.sync()
    assert rows(stage.conn, stage.element) == {(stage.call, ann): line_id}
    assert owned(stage.conn, stage.element) == set()
    stage.conn.execute("DELETE FROM flex.job_assignments")
    stage.sync()
    assert {*stage.crew()} == {resource}
    query = "SELECT reason FROM flex.operation WHERE flex_element_id = %s AND kind = 'add'"
    assert "counts as a person's" in stage.conn.execute(query, [stage.element]).fetchone()[0]


def test_an_add_whose_answer_named_the_line_is_ours(stage):
    _, resource = stage.hire()
    stage.fault(Fault(kind="object", times=None), ROWS, "GET", nth=2)
    assert stage.sync().state == "uncertain"
    stage.flex.control.clear()
    release(stage.worker, stage.element)
    stage.sync()
    stage.in_step(resource)


def test_an_add_is_ours_though_its_job_is_gone_by_then(stage):
    stage.hire()
    stage.fault(Fault(kind="object", times=None), ROWS, "GET", nth=2)
    stage.sync()
    stage.flex.control.clear()
    stage.conn.execute("DELETE FROM flex.jobs")
    release(stage.worker, stage.element)
    assert owned(stage.conn, stage.element) == {line.id for line in stage.crew().values()}
    stage.sync()
    assert stage.crew() == {}
    stage.in_step()


def test_an_add_that_did_nothing_is_made(stage):
    _, resource = stage.hire()
    stage.fault(Fault(kind="ignored"), ADD)
    assert stage.sync().state == "uncertain"
    release(stage.worker, stage.element)
    assert (stage.operations(), owned(stage.conn, stage.element)) == ([("add", "refused"), ("role", "refused")], set())
    stage.sync()
    stage.in_step(resource)


@pytest.mark.parametrize("known", [True, False])
def test_a_line_that_was_made_on_another_crew_call_stays_there(stage, known):
    _, resource = stage.hire()
    other = stage.flex.control.create_element()
    if known:
        call(stage.conn, other)
    stage.fault(Fault(kind="misplaced", element=other), ADD)
    assert stage.sync().state == "uncertain"
    [stray] = contacts(stage, other)
    if not known:
        with pytest.raises(Unreadable, match=f"{stray.id}.* Find it in Flex and delete it there"):
            release(stage.worker, stage.element)
        stage.flex.control.mutate(Mutation("delete", other, line=stray.id))
    release(stage.worker, stage.element)
    [reason] = stage.conn.execute(
        "SELECT reason FROM flex.operation WHERE flex_element_id = %s AND kind = 'add'", [stage.element]
    ).fetchone()
    assert (f"is on element {other} and stays there" in reason) == known
    stage.sync()
    stage.in_step(resource)
    assert contacts(stage, other) == [stray] * known


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_removed_line_is_gone_with_the_next_sync(stage, name):
    stage.hire()
    stage.sync()
    stage.conn.execute("DELETE FROM flex.job_assignments")
    lost(stage, name, LINE, "DELETE")
    release(stage.worker, stage.element)
    assert stage.operations()[-1] == ("remove", "refused" if stage.crew() else "done")
    stage.sync()
    stage.in_step()


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_role_is_written_by_the_next_sync(stage, name):
    _, resource = stage.hire("FOH-R")
    lost(stage, name, ROWS, "POST")
    release(stage.worker, stage.element)
    assert stage.operations()[-1] == ("role", "refused" if "not" in name else "done")
    stage.sync()
    stage.in_step(resource)


@pytest.mark.parametrize("kind", ["empty", "short", "lag", "envelope"])
@pytest.mark.parametrize("path", ["line-item/{}/row-data", "line-item/{}"])
def test_nothing_is_released_by_what_one_list_alone_shows(stage, kind, path):
    stage.hire("FOH-R")
    stage.sync()
    stage.hire("FOH-R")
    lost(stage, "done", ADD, "POST")
    before = rows(stage.conn, stage.element), owned(stage.conn, stage.element), stage.operations()
    stage.fault(Fault(kind=kind, times=None), path.format(stage.element), "GET")
    with pytest.raises(Unreadable):
        release(stage.worker, stage.element)
    assert (rows(stage.conn, stage.element), owned(stage.conn, stage.element), stage.operations()) == before
    assert stage.gate() == "uncertain"


@pytest.mark.parametrize("records", ["ids", "whole"])
@pytest.mark.parametrize("falsely", [of_somebody_else, as_gear, without_role])
def test_nothing_is_released_by_what_is_told_falsely_once(stage, monkeypatch, falsely: Falsely, records):
    """Our own line would count as a person's ever after."""
    _, resource = stage.hire("FOH-R")
    stage.fault(Fault(kind="object", times=None), ROWS, "GET", nth=2)
    assert stage.sync().state == "uncertain"
    stage.flex.control.clear()
    stage.flex.control.set(records=records)
    with monkeypatch.context() as patch:
        tell_once(patch, falsely)
        with pytest.raises(Unreadable):
            release(stage.worker, stage.element)
    assert (stage.gate(), stage.operations()) == ("uncertain", [("add", "unknown"), ("role", "unknown")])
    tell_once(monkeypatch, falsely)
    assert release(replace(stage.worker, pauses=(0,)), stage.element) == 2
    assert stage.operations() == [("add", "done"), ("role", "done")]
    stage.sync()
    stage.in_step(resource)


def test_nothing_is_released_while_flex_shows_two_lines_or_nothing(stage):
    _, resource = stage.hire()
    lost(stage, "done", ADD, "POST")
    [[second]] = stage.flex.control.mutate(Mutation("add", stage.element, resource))
    with pytest.raises(Unreadable, match="2 lines"):
        release(stage.worker, stage.element)
    stage.flex.control.mutate(Mutation("delete", stage.element, line=second))
    stage.fault(Fault(kind="status", times=None), ROWS, "GET")
    with pytest.raises(TryLater):
        release(stage.worker, stage.element)
    assert (stage.gate(), stage.operations()) == ("uncertain", [("add", "unknown")])
    stage.flex.control.clear()
    assert release(stage.worker, stage.element) == 1


@pytest.mark.drill("killed-repair-flex")
def test_what_a_crash_left_is_released_before_any_sync_comes_by(stage, monkeypatch):
    _, resource = stage.hire()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(calls, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        stage.sync()
    monkeypatch.undo()
    assert release(stage.worker, stage.element) == 1
    assert (stage.gate(), stage.operations()) == ("idle", [("add", "refused")])
    stage.sync()
    stage.in_step(resource)


def test_what_is_not_in_doubt_is_not_released(stage):
    stage.sync()
    for element_id in (stage.element, uuid4()):
        with pytest.raises(ValueError, match="nothing to release"):
            release(stage.worker, element_id)
    with gate.claimed(stage.conn, stage.element, "another", stage.worker.sync_id):
        pass
