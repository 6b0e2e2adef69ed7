"""An element in doubt, released: what Flex shows by then is what happened, and the next sync does the rest."""

from uuid import uuid4

import pytest

from include.api.errors import TryLater
from include.simulators.flex import Fault, Mutation
from include.sources.flex import element, gate
from include.sources.flex.release import release
from include.sources.flex.rows import Unreadable

from .flex import owned
from .test_flex_element import ADD, LINE, LOST, ROWS, Stage, stage

__all__ = ["stage"]


def lost(stage: Stage, name: str, path: str, method: str) -> None:
    stage.fault(LOST[name], path, method)
    assert stage.sync().state == "uncertain"
    stage.flex.control.clear()


@pytest.mark.parametrize("name", LOST)
def test_an_add_is_adopted_if_it_is_there_and_made_if_not(stage, name):
    _, resource = stage.hire()
    lost(stage, name, ADD, "POST")
    there = bool(stage.crew())
    assert release(stage.worker, stage.element) == 1
    assert (stage.gate(), stage.operations()) == ("idle", [("add", "done" if there else "refused")])
    assert owned(stage.conn, stage.element) == {line.id for line in stage.crew().values()}
    stage.sync()
    assert stage.adds() == {resource: 1 if there else 2}
    stage.in_step(resource)


def test_an_add_that_could_not_be_proven_is_ours_as_before(stage):
    _, resource = stage.hire()
    stage.fault(Fault(kind="object"), ROWS, "GET", nth=2)
    stage.sync()
    release(stage.worker, stage.element)
    stage.sync()
    stage.in_step(resource)


def test_an_add_is_ours_though_its_job_is_gone_by_then(stage):
    stage.hire()
    lost(stage, "dropped, done", ADD, "POST")
    stage.conn.execute("DELETE FROM flex.jobs")
    release(stage.worker, stage.element)
    assert owned(stage.conn, stage.element) == {line.id for line in stage.crew().values()}
    stage.sync()
    assert stage.crew() == {}
    stage.in_step()


@pytest.mark.parametrize("name", ["dropped, done", "dropped, not done"])
def test_a_removed_line_is_gone_with_the_next_sync(stage, name):
    stage.hire()
    stage.sync()
    stage.conn.execute("DELETE FROM flex.job_assignments")
    lost(stage, name, LINE, "DELETE")
    release(stage.worker, stage.element)
    assert stage.operations()[-1] == ("remove", "refused" if stage.crew() else "done")
    stage.sync()
    stage.in_step()


@pytest.mark.parametrize("name", ["dropped, done", "dropped, not done"])
def test_a_role_is_written_by_the_next_sync(stage, name):
    _, resource = stage.hire("FOH-R")
    lost(stage, name, ROWS, "POST")
    release(stage.worker, stage.element)
    assert stage.operations()[-1] == ("role", "done" if "not" not in name else "refused")
    stage.sync()
    stage.in_step(resource)


def test_nothing_is_released_while_flex_shows_two_lines_or_nothing(stage):
    _, resource = stage.hire()
    lost(stage, "dropped, done", ADD, "POST")
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


def test_what_a_crash_left_is_released_before_any_sync_comes_by(stage, monkeypatch):
    _, resource = stage.hire()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(element.calls, "add", killed)
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
