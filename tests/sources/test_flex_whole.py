"""Whatever goes wrong, and in whatever order: once it is over, Flex holds who is desired, and nobody was harmed."""

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from include.simulators.flex import SPOILS, Config, Fault, Simulator, running
from tests.conftest import copy_of

from .flex_world import CONTACTS, ELEMENTS, JOBS, PEOPLE, STRANGERS, World

ADDS, ROLES, ANY = "*add-resource*", "*row-data", "*"
REFUSED = [400, 401, 403, 404, 409, 422, 429]
LOST = [200, 202, 302, 408, 500, 503]

jobs, elements = st.integers(0, JOBS - 1), st.integers(0, ELEMENTS - 1)
people, contacts = st.integers(0, PEOPLE - 1), st.integers(0, CONTACTS - 1)
departments = st.sampled_from(["sound", "lights"])
codes = st.sampled_from(["FOH-R", "MON-E", "FOH-T", "FOH"])
nths, few = st.integers(0, 9), st.integers(1, 3)


def step(name: str, *arguments: st.SearchStrategy) -> st.SearchStrategy[tuple]:
    return st.tuples(st.just(name), *arguments)


writes = st.sampled_from([(ADDS, "POST"), (ADDS, "POST"), (ROLES, "POST"), (ANY, "DELETE")])
# In time, or when nobody waits any more.
seconds = st.sampled_from([0.5, 0.02])


@st.composite
def lost(draw: st.DrawFn, writes: st.SearchStrategy[tuple] = writes) -> Fault:
    """Nobody knows whether the write was made."""
    path, method = draw(writes)
    kind = draw(st.sampled_from(["drop", "status", "hang", "slow", "cut", "broken_json"]))
    status = draw(st.sampled_from(LOST))
    away = "/elsewhere" if status == 302 else None
    how = {"status": status, "html": status == 200, "location": away, "seconds": draw(seconds)}
    return Fault(
        kind=kind, committed=draw(st.sampled_from([True, True, False])), path=path, method=method, nth=draw(few), **how
    )


@st.composite
def refused(draw: st.DrawFn) -> Fault:
    path, method = draw(writes)
    return Fault(kind="status", status=draw(st.sampled_from(REFUSED)), path=path, method=method, nth=draw(few))


@st.composite
def unread(draw: st.DrawFn) -> Fault:
    """A read fails, once or as often as it is tried, or shows what can't be."""
    kind = draw(st.sampled_from(["drop", "status", "hang", "slow", "cut", "broken_json", *SPOILS]))
    status, times = draw(st.sampled_from([*REFUSED, *LOST])), draw(st.sampled_from([1, None]))
    return Fault(
        kind=kind, status=status, html=status == 200, seconds=draw(seconds), method="GET", nth=draw(few), times=times
    )


application = st.one_of(
    step("book", jobs, departments, elements),
    step("cancel", jobs),
    step("assign", jobs, people, departments, codes),
    step("assign", jobs, people, departments, codes),
    step("unassign", jobs, people),
    step("promote", people, codes),
    step("contact", people, st.none() | contacts),
)
by_people = st.one_of(
    step("by_hand", elements, st.integers(0, CONTACTS + STRANGERS - 1)),
    step("strike", elements, nths),
    step("dub", elements, nths, st.integers(0, 2)),
)
troubles = st.lists(st.one_of(lost(), lost(), refused(), unread()), max_size=3)
deaths = st.none() | st.integers(1, 250)
meanwhile = st.lists(st.tuples(st.integers(1, 8), application | by_people), max_size=2)
runs = st.one_of(
    step("sync", st.sampled_from(["full", "incremental"]), troubles, deaths, meanwhile),
    step("sync", st.sampled_from(["full", "incremental"]), troubles, deaths, meanwhile),
    step("syncs", troubles, deaths, meanwhile),
    step("reconcile", troubles, deaths, meanwhile),
    step("back", troubles, deaths),
    step("release", elements),
    step("release", elements),
)
# Two jobs, of which three crew calls lead to two in Flex; nobody is there yet.
BEGUN = (
    *[("book", 0, "sound", 0), ("book", 0, "lights", 1), ("book", 1, "sound", 0)],
    *[("assign", 0, who, "sound", code) for who, code in enumerate(["FOH-R", "MON-E", "FOH-T"])],
    *[("assign", 0, 3, "lights", "FOH-T"), ("assign", 1, 2, "sound", "FOH-T"), ("assign", 1, 3, "sound", "FOH")],
)
# The first sync is already in doubt about somebody.
beginnings = step("sync", st.just("full"), st.tuples(lost(st.just((ADDS, "POST")))), st.none(), meanwhile)
rounds = st.tuples(st.lists(application | by_people, min_size=1, max_size=3), runs).map(
    lambda round_: [*round_[0], round_[1]]
)
scripts = st.lists(rounds, min_size=2, max_size=4).map(lambda found: [each for round_ in found for each in round_])


@pytest.fixture(scope="module")
def url(postgres, migrated) -> Iterator[str]:
    yield from copy_of(postgres, migrated)


@pytest.fixture(scope="module")
def flex() -> Iterator[Simulator]:
    with running(Config(elements=0, per_hour=None, per_day=None)) as simulator:
        yield simulator


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(beginning=beginnings, script=scripts, by_repair=st.booleans())
def test_a_calm_run_ends_with_flex_as_desired(url, flex, beginning, script, by_repair):
    with psycopg.connect(url, autocommit=True) as conn, psycopg.connect(url, autocommit=True) as admin:
        world = World(url, flex, conn, admin)
        for name, *arguments in [*BEGUN, beginning, *script]:
            getattr(world, name)(*arguments)
            world.assert_safe()
        world.calm(by_repair)
        world.at_rest()
        world.assert_safe()
        world.assert_in_step()


@pytest.mark.parametrize("dies", [20, 30, 40, 50])
def test_what_a_crash_left_on_a_call_whose_job_is_gone_is_found(url, flex, dies):
    with psycopg.connect(url, autocommit=True) as conn, psycopg.connect(url, autocommit=True) as admin:
        world = World(url, flex, conn, admin, workers=1)
        world.book(0, "sound", 0), world.assign(0, 0, "sound", "FOH-T")
        world.sync("full", [], dies, [])
        world.cancel(0)
        world.calm(by_repair=False)
        world.at_rest()
        world.assert_in_step()
        left = {line.resource_id for line in flex.control.lines(world.elements[0])[2:]}
        assert left <= world.unclaimed(world.elements[0])
