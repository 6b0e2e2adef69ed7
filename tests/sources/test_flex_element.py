"""One crew call in Flex and our rows, brought to the desired crew; and nothing at all where there is any doubt."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID, uuid4

import psycopg
import pytest

from include.api.client import ApiClient
from include.simulators.flex import SPOILS, Fault, Line, Mutation, Simulator
from include.sources.flex import calls, element, proof
from include.sources.flex.report import Report
from include.sources.flex.worker import Worker
from include.warehouse import fence, sync_log

from .flex import HAND, LEAD, SOUND, assign, call, own, owned, person, rows

RUN = "flex_sync/test"
ADD, ROWS, LINE = "line-item/*/add-resource/*", "line-item/*/row-data", "line-item/*"
# Whoever has asked for it doesn't know whether it was done; it was, or not.
LOST = {
    "dropped, done": Fault(kind="drop", committed=True),
    "dropped, not done": Fault(kind="drop"),
    "timed out, done": Fault(kind="hang", committed=True),
    "cut": Fault(kind="cut"),
    "a page": Fault(kind="status", status=200, html=True, committed=True),
    "500, done": Fault(kind="status", status=500, committed=True),
    "202": Fault(kind="status", status=202, committed=True),
}


@contextmanager
def working(url: str, flex_url: str, token: str) -> Iterator[Worker]:
    """A worker with a session and a client of its own."""
    headers = {"X-Auth-Token": token}
    with (
        psycopg.connect(url, autocommit=True) as conn,
        ApiClient(
            "flex", f"{flex_url}/f5/api", headers=headers, timeout=(2, 1), attempts=2, backoff=(0.01, 0.02)
        ) as api,
    ):
        sync_id = sync_log.begin(conn, "flex", "sync", RUN)
        fenced = partial(fence.writing, source="flex", epoch=fence.read(conn, "flex").epoch)
        yield Worker(api, conn, SOUND, RUN, sync_id, fenced, prune=True)


@dataclass(frozen=True)
class Stage:
    """An empty crew call in Flex with one of ours that points to it."""

    flex: Simulator
    worker: Worker
    element: UUID
    call: UUID

    @property
    def conn(self) -> psycopg.Connection:
        return self.worker.conn

    def sync(self, **fields) -> Report:
        return element.sync_element(replace(self.worker, **fields), self.element)

    def hire(self, code: str = "FOH-T") -> tuple[UUID, UUID]:
        """Somebody new who is assigned: technician and resource."""
        who = person(self.conn, resource := uuid4())
        assign(self.conn, self.call, who, code)
        return who, resource

    def crew(self) -> dict[UUID, Line]:
        """What truly is there, by resource: each once."""
        contacts = [line for line in self.flex.control.lines(self.element) if line.kind == "contact"]
        assert len({line.resource_id for line in contacts}) == len(contacts)
        return {line.resource_id: line for line in contacts}

    def adds(self) -> dict[UUID, int]:
        return self.flex.control.counters().adds.get(self.element, {})

    def fault(self, fault: Fault, path: str, method: str = "*", **fields) -> None:
        self.flex.control.fault(replace(fault, path=path, method=method, **fields))

    def gate(self) -> str:
        query = "SELECT state FROM flex.element_gate WHERE flex_element_id = %s"
        return self.conn.execute(query, [self.element]).fetchone()[0]

    def operations(self) -> list[tuple[str, str]]:
        query = "SELECT kind, state FROM flex.operation WHERE flex_element_id = %s ORDER BY operation_id"
        return self.conn.execute(query, [self.element]).fetchall()

    def audit(self) -> list[tuple]:
        query = (
            "SELECT operation, after ->> 'flex_line_item_id' FROM confidence.change_log"
            " WHERE table_name = 'flex.flex_crew_assignments' AND key ->> 'crew_call_id' = %s ORDER BY change_id"
        )
        return self.conn.execute(query, [str(self.call)]).fetchall()

    def in_step(self, *resources: UUID) -> None:
        """Flex, rows and journal hold these, and a further sync finds nothing to do."""
        assert {*self.crew()} == {*resources}
        line_ids = {line.id for line in self.crew().values()}
        assert {*rows(self.conn, self.element).values()} == line_ids == owned(self.conn, self.element)
        writes = len(self.flex.control.journal())
        report = self.sync()
        assert (report.state, report.problems) == ("done", ())
        assert {event.kind for event in report.events} <= {"kept"}
        assert len(self.flex.control.journal()) == writes
        assert self.gate() == "idle"


@pytest.fixture
def stage(url: str, account: Simulator) -> Iterator[Stage]:
    account.control.clear()
    account.control.set(per_hour=None, per_day=None, records="whole", headers="leaf")
    account.control.reset_counters()
    with working(url, account.url, account.token) as worker:
        element_id = account.control.create_element()
        yield Stage(account, worker, element_id, call(worker.conn, element_id))


class TestSync:
    def test_adds_with_role_row_journal_and_audit(self, stage):
        (ann, lead), (bob, hand) = stage.hire("FOH-R"), stage.hire("MON-T")
        report = stage.sync()
        assert (report.state, report.problems, report.diagnostics) == ("done", (), ())
        crew = stage.crew()
        assert {each: line.role_id for each, line in crew.items()} == {lead: LEAD, hand: HAND}
        assert rows(stage.conn, stage.element) == {(stage.call, ann): crew[lead].id, (stage.call, bob): crew[hand].id}
        assert [report.count(kind) for kind in ("added", "role_set", "kept", "removed", "add_failed")] == [
            2,
            2,
            0,
            0,
            0,
        ]
        assert stage.operations() == [("add", "done")] * 2 + [("role", "done")] * 2
        assert sorted(stage.audit()) == sorted(("insert", str(line.id)) for line in crew.values())
        stage.in_step(lead, hand)

    def test_asks_once_and_once_more_for_all_adds_together(self, stage):
        for _ in range(3):
            stage.hire()
        stage.sync()
        asked = stage.flex.control.counters()
        # Both lists, before and after.
        assert asked.total("GET") == 4
        assert asked.total() == 4 + 3 + 3
        stage.flex.control.reset_counters()
        stage.sync()
        assert stage.flex.control.counters().total() == 1

    def test_removes_who_is_not_desired_any_more(self, stage):
        (ann, first), (_, second) = stage.hire(), stage.hire()
        stage.sync()
        stage.conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = %s", [ann])
        report = stage.sync()
        assert [report.count(kind) for kind in ("removed", "kept", "added")] == [1, 1, 0]
        assert first not in stage.crew()
        stage.in_step(second)

    def test_writes_a_role_that_changed(self, stage):
        ann, resource = stage.hire("FOH-T")
        stage.sync()
        stage.conn.execute("UPDATE flex.job_assignments SET sound_role = 'FOH-R' WHERE technician_id = %s", [ann])
        report = stage.sync()
        assert [report.count(kind) for kind in ("role_set", "kept", "added")] == [1, 1, 0]
        assert stage.crew()[resource].role_id == LEAD
        stage.in_step(resource)

    def test_brings_back_in_the_same_run_who_was_deleted_by_hand(self, stage):
        ann, resource = stage.hire()
        stage.sync()
        old = stage.crew()[resource].id
        stage.flex.control.mutate(Mutation("delete", stage.element, resource=resource))
        report = stage.sync()
        assert [report.count(kind) for kind in ("stale", "added", "kept")] == [1, 1, 0]
        assert rows(stage.conn, stage.element)[stage.call, ann] == stage.crew()[resource].id != old
        assert [operation for operation, _ in stage.audit()] == ["insert", "delete", "insert"]
        stage.in_step(resource)

    def test_keeps_strangers(self, stage):
        _, resource = stage.hire()
        stranger = uuid4()
        stage.flex.control.mutate(Mutation("add", stage.element, stranger))
        stage.sync()
        stage.conn.execute("DELETE FROM flex.job_assignments")
        report = stage.sync()
        assert {*stage.crew()} == {stranger}
        assert [finding.resource_id for finding in report.findings if finding.kind == "unknown_in_flex"] == [stranger]
        assert resource not in stage.crew()

    def test_adopts_a_line_that_a_person_made_and_never_deletes_it(self, stage):
        ann, resource = stage.hire()
        [[line_id]] = stage.flex.control.mutate(Mutation("add", stage.element, resource, role=HAND))
        report = stage.sync()
        assert (report.count("adopted"), report.count("added"), stage.adds()) == (1, 0, {})
        assert rows(stage.conn, stage.element) == {(stage.call, ann): line_id}
        stage.conn.execute("DELETE FROM flex.job_assignments")
        assert stage.sync().count("forgotten") == 1
        assert {*stage.crew()} == {resource}

    def test_gives_a_resource_of_two_calls_one_line_and_two_rows(self, stage):
        ann, resource = stage.hire()
        alias = call(stage.conn, stage.element, "lights")
        assign(stage.conn, alias, ann)
        stage.sync()
        assert {*rows(stage.conn, stage.element)} == {(stage.call, ann), (alias, ann)}
        stage.in_step(resource)

    @pytest.mark.parametrize("prune", [True, False])
    def test_prunes_lines_of_ours_that_no_row_leads_to(self, stage, prune):
        stage.hire()
        stage.sync()
        stage.conn.execute("DELETE FROM flex.jobs")
        report = stage.sync(prune=prune)
        assert report.state == "done"
        assert (report.count("pruned"), len(stage.crew())) == ((1, 0) if prune else (0, 1))

    def test_that_fails_to_prune_does_not_fail(self, stage):
        [[line_id]] = stage.flex.control.mutate(Mutation("add", stage.element, resource := uuid4()))
        own(stage.conn, stage.element, line_id, resource)
        stage.fault(Fault(kind="status", status=409), LINE, "DELETE")
        report = stage.sync()
        assert (report.state, report.count("prune_failed"), report.count("pruned")) == ("done", 1, 0)
        assert any("409" in each for each in report.diagnostics)
        assert owned(stage.conn, stage.element) == {line_id}


class TestRoleThatFlexDoesNotTell:
    def test_is_written_and_not_taken_for_done(self, stage):
        _, resource = stage.hire("FOH-R")
        stage.flex.control.mutate(Mutation("add", stage.element, resource))
        stage.fault(Fault(kind="without_roles", times=None), ROWS, "GET")
        report = stage.sync()
        assert (report.state, report.count("role_set"), report.count("role_failed")) == ("failed", 0, 1)
        assert (stage.operations(), stage.gate()) == ([("role", "refused")], "idle")
        stage.flex.control.clear()
        stage.sync()
        assert stage.crew()[resource].role_id == LEAD

    def test_of_a_person_is_of_no_matter(self, stage):
        stage.flex.control.mutate(Mutation("add", stage.element))
        stage.fault(Fault(kind="without_roles", times=None), ROWS, "GET")
        assert stage.sync().state == "done"


class TestRefused:
    def test_add_is_counted_and_made_by_the_next(self, stage):
        (_, first), (_, second) = stage.hire(), stage.hire()
        stage.fault(Fault(kind="status", status=422), ADD)
        report = stage.sync()
        assert (report.state, report.count("add_failed"), report.count("added")) == ("failed", 1, 1)
        assert len(report.problems) == 1
        assert stage.gate() == "idle"
        stage.sync()
        stage.in_step(first, second)

    def test_remove_keeps_the_row(self, stage):
        ann, _ = stage.hire()
        stage.sync()
        stage.conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = %s", [ann])
        stage.fault(Fault(kind="status", status=409), LINE, "DELETE")
        report = stage.sync()
        assert (report.state, report.count("remove_failed"), report.count("removed")) == ("failed", 1, 0)
        assert [*rows(stage.conn, stage.element)] == [(stage.call, ann)]
        assert stage.sync().count("removed") == 1
        stage.in_step()

    def test_role_fails_and_is_written_by_the_next(self, stage):
        _, resource = stage.hire("FOH-R")
        stage.fault(Fault(kind="status", status=400), ROWS, "POST")
        report = stage.sync()
        assert (report.state, report.count("added"), report.count("role_set")) == ("failed", 1, 0)
        assert stage.sync().count("role_set") == 1
        stage.in_step(resource)

    @pytest.mark.parametrize("status", [401, 403])
    def test_right_stops_the_run_but_what_was_done_is_noted(self, stage, status):
        stage.hire(), stage.hire()
        stage.fault(Fault(kind="status", status=status), ADD, nth=2)
        report = stage.sync()
        assert (report.state, type(report.stop), report.count("added")) == ("stopped", calls.Stopped, 1)
        assert stage.operations() == [("add", "done"), ("add", "refused")]
        assert len(rows(stage.conn, stage.element)) == len(stage.crew()) == 1
        assert stage.gate() == "idle"

    def test_is_a_crew_that_contradicts_itself(self, stage):
        ann, _ = stage.hire("FOH-R")
        assign(stage.conn, stage.call, ann, "FOH-T")
        stage.hire()
        report = stage.sync()
        assert (report.state, stage.adds(), stage.gate()) == ("refused", {}, "idle")
        assert "2 business roles" in report.problems[0]


class TestLost:
    """The answer doesn't say what became of it: a read does, or nobody knows."""

    @pytest.mark.drill("answer-lost")
    @pytest.mark.parametrize("name", LOST)
    def test_add_is_never_repeated(self, stage, name):
        (_, first), (_, second) = stage.hire(), stage.hire()
        stage.fault(LOST[name], ADD, "POST")
        report = stage.sync()
        stage.flex.control.clear()
        if "not done" not in name:
            assert (report.state, report.count("added")) == ("done", 2)
            stage.in_step(first, second)
            assert {*stage.adds().values()} == {1}
            return
        assert (report.state, report.count("added"), stage.gate()) == ("uncertain", 0, "uncertain")
        assert stage.operations() == [("add", "unknown")]
        assert stage.sync().state == "uncertain"
        assert [*stage.adds().values()] == [1]

    def test_each_of_many_is_proven_in_one_sync(self, stage):
        """As many as there are people; nobody has changed the crew."""
        hired = [stage.hire("FOH-R") for _ in range(element.PASSES + 1)]
        for path, method in ((ADD, "POST"), (ROWS, "POST"), (LINE, "DELETE")):
            stage.fault(replace(LOST["a page"], times=None), path, method)
        report = stage.sync()
        assert (report.state, report.count("added"), report.count("role_set")) == ("done", len(hired), len(hired))
        stage.in_step(*(resource for _, resource in hired))
        stage.conn.execute("DELETE FROM flex.job_assignments")
        report = stage.sync()
        assert (report.state, report.count("removed"), stage.crew()) == ("done", len(hired), {})

    @pytest.mark.parametrize("name", LOST)
    def test_role_is_proven_or_leaves_the_element_alone(self, stage, name):
        _, resource = stage.hire("FOH-R")
        stage.fault(LOST[name], ROWS, "POST")
        report = stage.sync()
        done = "not done" not in name
        assert (report.state, report.count("added")) == ("done" if done else "uncertain", 1)
        assert (report.count("role_set"), stage.gate()) == (int(done), "idle" if done else "uncertain")
        assert rows(stage.conn, stage.element) != {}
        if done:
            stage.in_step(resource)

    @pytest.mark.parametrize("name", ["dropped, done", "dropped, not done", "500, done"])
    def test_remove_is_proven_or_leaves_the_element_alone(self, stage, name):
        stage.hire()
        stage.sync()
        stage.conn.execute("DELETE FROM flex.job_assignments")
        stage.fault(LOST[name], LINE, "DELETE")
        report = stage.sync()
        done = "not done" not in name
        assert (report.state, report.count("removed")) == (("done", 1) if done else ("uncertain", 0))
        assert len(rows(stage.conn, stage.element)) == len(stage.crew()) == int(not done)

    @pytest.mark.parametrize("fault", [Fault(kind="status"), Fault(kind="object"), Fault(kind="empty")])
    def test_add_that_no_read_proves_is_unknown(self, stage, fault):
        stage.hire()
        stage.fault(fault, ROWS, "GET", nth=2, times=None)
        report = stage.sync()
        assert (report.state, report.count("added"), stage.gate()) == ("uncertain", 0, "uncertain")
        assert (owned(stage.conn, stage.element), rows(stage.conn, stage.element)) == (set(), {})

    def test_add_that_a_read_does_not_show_alone_is_unknown(self, stage):
        (_, first), _ = stage.hire(), stage.hire()
        stage.flex.control.before(ROWS, 2, Mutation("add", stage.element, first), method="GET")
        report = stage.sync()
        assert (report.state, report.count("added"), stage.gate()) == ("uncertain", 1, "uncertain")
        assert sorted(stage.operations()) == [("add", "done"), ("add", "unknown"), ("role", "done"), ("role", "done")]
        assert len(rows(stage.conn, stage.element)) == 1

    def test_what_is_shown_late_is_asked_for_again(self, stage):
        _, resource = stage.hire("FOH-R")
        stage.fault(Fault(kind="lag", changes=2, times=2), ROWS, "GET", nth=2)
        report = stage.sync(pauses=(0, 0))
        assert (report.state, report.count("added"), report.count("role_set")) == ("done", 1, 1)
        stage.in_step(resource)


class TestUnknown:
    def test_is_what_a_crash_left(self, stage, monkeypatch):
        stage.hire()

        def killed(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(calls, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.sync()
        monkeypatch.undo()
        assert (stage.gate(), stage.operations()) == ("busy", [("add", "sent")])
        assert stage.sync().state == "uncertain"
        assert (stage.operations(), stage.adds()) == ([("add", "unknown")], {})

    def test_is_an_add_that_a_crash_left_unproven_though_the_next_was_refused(self, stage, monkeypatch):
        stage.hire(), stage.hire()
        stage.fault(Fault(kind="status", status=422), ADD, nth=2)

        def killed(*arguments, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr(proof, "both", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.sync()
        assert stage.gate() == "busy"
        assert stage.sync().state == "uncertain"
        assert stage.operations() == [("add", "unknown"), ("add", "unknown"), ("role", "unknown")]


class TestNothingIsWritten:
    @pytest.fixture
    def changed(self, stage) -> Callable[[], tuple]:
        """Somebody to add, somebody to remove, a role to write; what is there, in Flex and here."""
        leaving, _ = stage.hire()
        staying, _ = stage.hire()
        stage.sync()
        stage.conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = %s", [leaving])
        stage.conn.execute("UPDATE flex.job_assignments SET sound_role = 'X-R' WHERE technician_id = %s", [staying])
        stage.hire()

        def all_there() -> tuple:
            here = rows(stage.conn, stage.element), owned(stage.conn, stage.element), stage.operations()
            return stage.flex.control.lines(stage.element), here, len(stage.flex.control.journal())

        return all_there

    @pytest.mark.parametrize("spoil", SPOILS)
    def test_after_an_ambiguous_read(self, stage, changed, spoil):
        before = changed()
        stage.fault(Fault(kind=spoil), ROWS, "GET")
        report = stage.sync()
        assert report.state == ("refused" if spoil == "resource_twice" else "unreadable")
        assert (report.events, changed(), stage.gate()) == ((), before, "idle")

    @pytest.mark.parametrize("kind", ["status", "drop", "hang", "cut", "broken_json"])
    def test_after_a_failed_read(self, stage, changed, kind):
        before = changed()
        stage.fault(Fault(kind=kind, times=None), ROWS, "GET")
        report = stage.sync()
        assert (report.state, report.events, len(report.problems)) == ("unreadable", (), 1)
        assert (changed(), stage.gate()) == (before, "idle")

    def test_to_an_element_that_is_not_there(self, stage):
        lost = uuid4()
        assign(stage.conn, call(stage.conn, lost), person(stage.conn, uuid4()))
        assert element.sync_element(stage.worker, lost).state == "unreadable"

    def test_after_a_failed_read_of_the_desired(self, stage, changed, monkeypatch):
        before = changed()
        monkeypatch.setattr(element.desired, "ROWS", "SELECT 1 / 0")
        report = stage.sync()
        assert (report.state, report.events, len(report.problems)) == ("failed", (), 1)
        assert "DivisionByZero" in report.problems[0]
        assert (changed(), stage.gate()) == (before, "idle")
        monkeypatch.setattr(element.desired, "ROWS", "SELECT FROM flex.nowhere")
        with pytest.raises(psycopg.errors.UndefinedTable):
            stage.sync()
        assert (changed(), stage.gate()) == (before, "idle")

    def test_when_the_writer_is_stopped(self, stage, changed):
        before = changed()
        stage.conn.execute("UPDATE confidence.writer SET epoch = epoch + 1 WHERE source = 'flex'")
        assert isinstance(stage.sync().stop, fence.FenceError)
        assert (changed(), stage.gate()) == (before, "idle")

    @pytest.mark.parametrize("remote", [True, False])
    def test_when_the_gate_was_taken_meanwhile(self, stage, monkeypatch, remote):
        _, resource = stage.hire()
        if not remote:
            stage.flex.control.mutate(Mutation("add", stage.element, resource))
        read = calls.lines

        def taken(*arguments, **options):
            query = "UPDATE flex.element_gate SET acquired_at = clock_timestamp() WHERE flex_element_id = %s"
            stage.conn.execute(query, [stage.element])
            return read(*arguments, **options)

        monkeypatch.setattr(calls, "lines", taken)
        assert isinstance(stage.sync().stop, element.gate.GateLost)
        assert (rows(stage.conn, stage.element), stage.adds(), stage.gate()) == ({}, {}, "busy")

    def test_when_another_is_at_work(self, stage, changed, url, account):
        before = changed()
        with (
            working(url, account.url, account.token) as other,
            element.gate.claimed(other.conn, stage.element, RUN, other.sync_id),
        ):
            assert stage.sync().state == "busy"
            assert changed() == before
        assert stage.sync().state == "done"


class TestChanged:
    def test_crew_is_read_again_before_anything_is_written(self, stage, monkeypatch):
        ann, _ = stage.hire()
        read = calls.lines

        def slow(*arguments, **options):
            """Somebody takes the assignment back while Flex is read."""
            found = read(*arguments, **options)
            stage.conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = %s", [ann])
            return found

        monkeypatch.setattr(calls, "lines", slow)
        report = stage.sync()
        assert (report.state, stage.adds(), stage.crew()) == ("done", {}, {})

    def test_crew_between_two_writes_is_read_again(self, stage, monkeypatch):
        (ann, _), (bob, _) = stage.hire(), stage.hire()
        add = calls.add

        def first(*arguments, **options):
            stage.conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = ANY (%s)", [[ann, bob]])
            return add(*arguments)

        monkeypatch.setattr(calls, "add", first)
        report = stage.sync()
        # What was added by then is proven, noted, and taken back.
        assert [report.count(kind) for kind in ("added", "removed", "kept")] == [1, 1, 0]
        assert report.state == "done"
        stage.in_step()

    def test_without_end_is_given_up(self, stage, monkeypatch):
        stage.hire()
        tokens = (str(number) for number in range(1000))
        monkeypatch.setattr(element.desired, "fingerprint", lambda *_: next(tokens))
        report = stage.sync()
        assert (report.state, stage.adds(), stage.gate()) == ("changed", {}, "idle")

    def test_job_that_goes_while_it_is_added_leaves_a_line_of_ours(self, stage, monkeypatch):
        stage.hire()
        add = calls.add

        def meanwhile(*arguments, **options):
            stage.conn.execute("DELETE FROM flex.jobs")
            return add(*arguments)

        monkeypatch.setattr(calls, "add", meanwhile)
        stage.sync()
        stage.sync()
        assert (stage.crew(), owned(stage.conn, stage.element)) == ({}, set())


def run_at(barrier, results, url: str, flex_url: str, token: str, element_id: UUID) -> None:
    with working(url, flex_url, token) as worker:
        barrier.wait(20)
        results.put(element.sync_element(worker, element_id).state)


@pytest.mark.drill("two-deployments")
def test_two_processes_at_once_make_one_line(stage, url, account):
    resources = [stage.hire()[1] for _ in range(2)]
    account.control.set(latency_ms=30)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (barrier, results, url, account.url, account.token, stage.element)
    processes = [context.Process(target=run_at, args=arguments) for _ in range(2)]
    try:
        for process in processes:
            process.start()
        states = sorted(results.get(timeout=30) for _ in processes)
    finally:
        for process in processes:
            process.join(10)
            process.kill()
        account.control.set(latency_ms=0)
    assert states == ["busy", "done"]
    assert stage.adds() == dict.fromkeys(resources, 1)
    assert account.control.counters().max_concurrent_by_element[stage.element] == 1
    stage.in_step(*resources)
