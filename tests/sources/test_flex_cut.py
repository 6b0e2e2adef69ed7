"""A repair and a sync that are cut off at every question they ask, and processes that are killed or come together.

Whatever the cut, people know of it: nothing is lost, nothing is made twice, and it ends as it would have without.
"""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import psycopg
import pytest

from include.api.errors import TryLater
from include.api.request import Request
from include.simulators.flex import Config, Fault, Simulator, running
from include.sources.base import OutcomeUnknown
from include.warehouse import fence
from tests.conftest import copy_of
from tests.contract.account import Run

from .flex_world import UNDONE, Reach, World

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def url(postgres, migrated) -> Iterator[str]:
    yield from copy_of(postgres, migrated)


@pytest.fixture(scope="module")
def flex() -> Iterator[Simulator]:
    with running(Config(elements=0, per_hour=None, per_day=None, records="ids")) as simulator:
        yield simulator


@contextmanager
def drifted(url: str, flex: Simulator) -> Iterator[World]:
    """Two crew calls in step until somebody came, somebody left and somebody got another role."""
    with psycopg.connect(url, autocommit=True) as conn, psycopg.connect(url, autocommit=True) as admin:
        world = World(url, flex, conn, admin, workers=1, attempts=1)
        world.book(0, "sound", 0), world.book(1, "sound", 1)
        world.assign(0, 0, "sound", "FOH-R"), world.assign(0, 1, "sound", "FOH-T"), world.assign(1, 0, "sound", "FOH-T")
        with world.patient("flex_sync") as run:
            run.sync("full")
        world.by_hand(0, 5)
        world.promote(0, "FOH-E"), world.unassign(0, 1)
        world.assign(0, 2, "sound", "FOH-T"), world.assign(1, 2, "sound", "FOH")
        yield world


def element_of(world: World, request: Request) -> int | None:
    """Which crew call a request is for; None for a line."""
    return next((n for n, each in enumerate(world.elements) if str(each) in request.path), None)


def unknown(world: World) -> int:
    return world.conn.execute("SELECT count(*) FROM flex.operation WHERE state = 'unknown'").fetchone()[0]


def ends_equal(world: World, *, by_repair: bool) -> None:
    world.resume()
    world.calm(by_repair)
    world.at_rest()
    world.assert_safe()
    world.assert_in_step()


class TestCutOff:
    @pytest.mark.drill("killed-repair-flex")
    @pytest.mark.parametrize("committed", [True, False], ids=["answer lost", "request lost"])
    def test_repair_at_any_question(self, url, flex, committed):
        number, seen = 0, set()
        while None not in seen:
            number += 1
            with drifted(url, flex) as world:
                seen.add(self.repaired(world, number, committed))
                ends_equal(world, by_repair=True)
        assert seen == {"POST", "DELETE", "GET", "proof", None}

    def repaired(self, world: World, number: int, committed: bool) -> str | None:
        """At what kind of question it was cut off; None if it wasn't."""
        with world.run("flex_reconcile") as run:
            scans = run.scan()
        cut = [(number, ("fault", Fault(kind="drop", committed=committed)))]
        cause: Exception | None = None
        with world.run("flex_reconcile", meanwhile=cut) as run:
            run = Run(run.account, run.conn, scans[0].run)
            try:
                run.repair(scans)
            except (*UNDONE, TryLater) as error:
                cause = error
        asked = world.asked
        world.assert_safe()
        if len(asked) < number:
            assert cause is None
            return None
        request = asked[number - 1]
        if request.method == "GET" and not request.owed:
            assert isinstance(cause, TryLater)
            assert (unknown(world), fence.read(world.conn, "flex").hold_reason) == (0, None)
            # What could not be read was not written to; all else was repaired.
            mine = element_of(world, request)
            assert [each for each in asked[number:] if element_of(world, each) == mine] == []
            assert {element_of(world, each) for each in asked if each.method == "GET"} == {0, 1}
            return "GET"
        if request.method != "GET" and committed:
            # A read has shown it, and the rest was done.
            assert (cause, unknown(world), world.gate(0), world.gate(1)) == (None, 0, "idle", "idle")
            return request.method
        assert isinstance(cause, OutcomeUnknown)
        proof = asked[number:]
        assert [each for each in proof if not each.owed] == [], (
            "something was asked after nobody knew what had happened"
        )
        assert len(proof) == (0 if request.method == "GET" else 2)
        assert unknown(world) >= 1
        assert [world.gate(0), world.gate(1)].count("uncertain") == 1
        assert str(cause) in fence.read(world.conn, "flex").hold_reason
        logged = "SELECT count(*) FROM flex.flex_sync_log l JOIN confidence.sync_log s ON s.sync_id ="
        logged += " (l.summary ->> 'sync_id')::bigint WHERE s.kind = 'repair'"
        begun = {element_of(world, each) for each in asked} - {None}
        assert world.conn.execute(logged).fetchone()[0] == len(begun)
        return "proof" if request.method == "GET" else request.method

    @pytest.mark.drill("killed-repair-flex")
    def test_sync_at_any_question(self, url, flex):
        number, whole = 0, False
        while not whole:
            number += 1
            with drifted(url, flex) as world:
                whole = self.synced(world, number)
                ends_equal(world, by_repair=False)
        # Both lists of two crew calls before and after, their rows once more, a deletion, two adds and three roles.
        assert number - 1 == 4 + 2 + 4 + 1 + 2 + 3

    def synced(self, world: World, number: int) -> bool:
        """Whether it was not cut off."""
        cut = [(number, ("fault", Fault(kind="drop", committed=True)))]
        failed = False
        with world.run("flex_sync", meanwhile=cut) as run:
            try:
                run.sync("full")
            except UNDONE:
                failed = True
        asked = world.asked
        world.assert_safe()
        if len(asked) < number:
            assert not failed
            return True
        request = asked[number - 1]
        assert failed == (request.method == "GET")
        lost = request.method == "GET" and request.owed
        assert (unknown(world) > 0) == lost
        assert [world.gate(0), world.gate(1)].count("uncertain") == int(lost)
        begun = [element_of(world, each) for each in asked if each.method == "GET"]
        assert {*begun} == {0, 1}, "one crew call holds up another"
        return False


def sync_whole(url: str, flex_url: str, token: str, start: Any, ends: Any) -> None:
    reach = Reach(url, flex_url, token, workers=1)
    with reach.database("warehouse") as conn:
        start.wait(60)
        try:
            Run(reach, conn, "flex_sync/process").sync("full")
        except UNDONE:
            ends.put("not all")
        else:
            ends.put("all")


@contextmanager
def processes(world: World, number: int, ends: Any) -> Iterator[list[BaseProcess]]:
    """So many processes that begin a whole sync at the same moment."""
    arguments = world.url, world.flex.url, world.flex.token, SPAWN.Barrier(number), ends
    started = [SPAWN.Process(target=sync_whole, args=arguments) for _ in range(number)]
    try:
        for process in started:
            process.start()
        yield started
    finally:
        for process in started:
            process.kill()
            process.join(10)


def until_no_lock(world: World) -> None:
    """The server notices soon that a session's process is gone."""
    query = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"
    deadline = time.monotonic() + 20
    while world.conn.execute(query).fetchone() is not None:
        assert time.monotonic() < deadline, "the lock outlived its process"
        time.sleep(0.02)


# What it waits for when it is killed.
KILLED_AT = {
    "an add that is made": Fault(kind="hang", path="*add-resource*", committed=True),
    "an add that is not made": Fault(kind="hang", path="*add-resource*", nth=2),
    "the proof": Fault(kind="hang", path="*row-data", method="GET", nth=3),
}


@pytest.mark.drill("killed-repair-flex")
@pytest.mark.parametrize("name", KILLED_AT)
def test_process_that_is_killed(url, flex, name):
    with drifted(url, flex) as world:
        flex.control.reset_counters()
        world.fault(KILLED_AT[name])
        with processes(world, 1, SPAWN.Queue()) as [process]:
            deadline = time.monotonic() + 60
            while not flex.control.counters().faults:
                assert process.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.kill()
            process.join(10)
        flex.control.clear()
        until_no_lock(world)
        world.assert_safe()
        with world.patient("flex_sync") as run, pytest.raises(UNDONE, match="uncertain"):
            run.sync("full")
        assert unknown(world) >= 1
        ends_equal(world, by_repair=False)
        world.assert_safe()


@pytest.mark.drill("two-deployments")
def test_two_processes_that_sync_the_same_job_at_the_same_moment(url, flex):
    with drifted(url, flex) as world:
        flex.control.reset_counters()
        flex.control.set(latency_ms=30)
        ends = SPAWN.Queue()
        with processes(world, 2, ends):
            told = [ends.get(timeout=60) for _ in range(2)]
        flex.control.set(latency_ms=0)
        assert set(told) <= {"all", "not all"}
        asked = flex.control.counters()
        assert sorted(number for of in asked.adds.values() for number in of.values()) == [1, 1]
        assert set(asked.max_concurrent_by_element.values()) == {1}
        ends_equal(world, by_repair=False)
