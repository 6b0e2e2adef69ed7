"""Whatever goes wrong, and in whatever order: once it is over, Flex holds who is desired, and nobody was harmed."""

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from include.simulators.flex import SPOILS, Config, Fault, Simulator, running
from tests.conftest import copy_of

from .flex_world import CONTACTS, ELEMENTS, JOBS, PEOPLE, STRANGERS, World

PATHS = {
    "POST": ["*add-resource*", "*row-data", "*"],
    "DELETE": ["*"],
    "GET": ["*"],
    "*": ["*"],
}
STATUSES = [200, 202, 302, 400, 401, 403, 404, 408, 409, 422, 429, 500, 503]

jobs, elements = st.integers(0, JOBS - 1), st.integers(0, ELEMENTS - 1)
people, contacts = st.integers(0, PEOPLE - 1), st.integers(0, CONTACTS - 1)
departments = st.sampled_from(["sound", "lights"])
codes = st.sampled_from(["FOH-R", "MON-E", "FOH-T", "FOH"])
nths, few = st.integers(0, 9), st.integers(1, 4)


def step(name: str, *arguments: st.SearchStrategy) -> st.SearchStrategy[tuple]:
    return st.tuples(st.just(name), *arguments)


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    method = draw(st.sampled_from(list(PATHS)))
    where = {"method": method, "path": draw(st.sampled_from(PATHS[method])), "nth": draw(few)}
    kind = draw(st.sampled_from(["status", "status", "drop", "drop", "hang", "slow", "cut", "broken_json", *SPOILS]))
    status = draw(st.sampled_from(STATUSES)) if kind == "status" else 500
    return Fault(
        kind=kind,
        committed=draw(st.booleans()),
        status=status,
        html=status == 200 or draw(st.booleans()),
        location="/elsewhere" if status == 302 else None,
        # In time, or when nobody waits any more.
        seconds=draw(st.sampled_from([0.02, 0.5])),
        **where,
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
troubles = st.lists(faults(), max_size=2)
deaths = st.none() | st.integers(1, 150)
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
# Somebody is to be somewhere, or nothing happens.
begun = st.lists(step("assign", jobs, people, departments, codes), min_size=2, max_size=5)
rounds = st.tuples(st.lists(application | by_people, max_size=3), runs).map(lambda round_: [*round_[0], round_[1]])
scripts = st.lists(rounds, min_size=2, max_size=6).map(lambda found: [each for round_ in found for each in round_])


@pytest.fixture(scope="module")
def url(postgres, migrated) -> Iterator[str]:
    yield from copy_of(postgres, migrated)


@pytest.fixture(scope="module")
def flex() -> Iterator[Simulator]:
    with running(Config(elements=0, per_hour=None, per_day=None)) as simulator:
        yield simulator


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(begun=begun, script=scripts, by_repair=st.booleans())
def test_a_calm_run_ends_with_flex_as_desired(url, flex, begun, script, by_repair):
    with psycopg.connect(url, autocommit=True) as conn, psycopg.connect(url, autocommit=True) as admin:
        world = World(url, flex, conn, admin)
        world.book(0, "sound", 0), world.book(0, "lights", 1), world.book(1, "sound", 0)
        for name, *arguments in [*begun, *script]:
            getattr(world, name)(*arguments)
            world.assert_safe()
        world.calm(by_repair)
        world.at_rest()
        world.assert_safe()
        world.assert_in_step()
