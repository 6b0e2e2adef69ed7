"""What Flex's scenario changes and breaks, and how it counts."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from rich.console import Console

from include.api.client import ApiClient
from include.confidence.summary import ForensicSummary
from include.simulators import flex as simulator
from include.simulators.flex import Fault, Mutation, application
from include.sources import get_source
from include.sources.base import Api, OutcomeUnknown
from include.warehouse import fence
from stack.demo import flex as scenario
from stack.demo.steps import Unexpected, expect
from stack.settings import BUSINESS_ROLES

SOURCE = get_source("flex")
PARAMS = {"job_id": None, "departments": [], "release_element": None}


@dataclass(frozen=True)
class Night:
    """A run without Airflow on the invented jobs; it opens the connections that the source asks for."""

    account: simulator.Simulator
    warehouse: psycopg.Connection
    url: str

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        with ApiClient(name, self.account.url + api.base_path, headers=api.authorize(self.account.token)) as client:
            yield client

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            yield conn

    def settings(self, name: str) -> Mapping[str, Any]:
        return {"business_roles": BUSINESS_ROLES}

    def variable(self, name: str) -> str | None:
        return None

    def sync(self, mode: str = "incremental", release_element: UUID | None = None) -> Mapping[str, Any]:
        params = {**PARAMS, "mode": mode, "release_element": release_element and str(release_element)}
        with SOURCE.open(self.warehouse, "a sync", self) as context:
            return SOURCE.sync(context, params, dry_run=False).result

    def scan(self) -> ForensicSummary:
        epoch = fence.stop(self.warehouse, SOURCE.name, "a run", timeout=1).epoch
        with SOURCE.open(self.warehouse, "a run", self) as context:
            return SOURCE.scan(context, scenario.ENTITY, epoch, PARAMS)


@pytest.fixture
def night(warehouse: str) -> Iterator[Night]:
    """The stack's jobs, a stranger on each of their crew calls, and everybody brought to Flex."""
    named = application.set_up(f"{warehouse}{'&' if '?' in warehouse else '?'}options=-csearch_path%3Dflex")
    with (
        simulator.running(simulator.Config(elements=0)) as account,
        psycopg.connect(warehouse, autocommit=True) as conn,
    ):
        account.control.create_elements(named)
        account.control.mutate(*[Mutation("add", element) for element in named])
        night = Night(account, conn, warehouse)
        night.sync()
        yield night


@pytest.fixture
def demo(night: Night) -> scenario.Office:
    """The scenario's demo, without its Airflow."""
    return scenario.Office(SOURCE.name, None, night.warehouse, Console(file=io.StringIO()), night.account.control)


def test_the_first_sync_brings_every_crew_and_the_act_counts_it(night: Night, demo: scenario.Office):
    desired = demo.desired()
    assert sorted(desired) == sorted(night.account.control.elements())
    assert {len(crew) for crew in desired.values()} == {0, 5, 6, 12}
    assert sum(map(len, desired.values())) == sum(demo.rows().values()) > 40
    assert len(demo.strangers()) == len(desired)
    demo.expect_in_step()


def test_a_crew_that_differs_is_noticed(night: Night, demo: scenario.Office):
    element, crew = next((element, crew) for element, crew in demo.desired().items() if crew)
    contact = next(iter(crew))
    for broken in (
        Mutation("add", element, contact),
        Mutation("delete", element, contact),
        Mutation("role", element, contact, role=UUID(int=1)),
    ):
        demo.flex.mutate(broken)
        with pytest.raises(Unexpected, match=f"crew calls whose crew differs should be .*{element}"):
            demo.expect_in_step()
    night.warehouse.execute("DELETE FROM flex.job_assignments")
    night.sync()
    demo.expect_in_step()


def test_a_row_that_names_another_line_is_noticed(demo: scenario.Office):
    demo.warehouse.execute("UPDATE flex.flex_crew_assignments SET flex_line_item_id = gen_random_uuid()")
    with pytest.raises(Unexpected, match="rows that name no such line"):
        demo.expect_in_step()


def test_a_booked_job_is_brought_with_just_what_the_demo_says(night: Night, demo: scenario.Office):
    for _ in range(2):
        job = scenario.book(demo)
        assert len(set(job.crew)) == len(job.crew) == 5
        assert night.sync()["added"] == len(job.crew)
        expect("sent", demo.writes([*job.elements.values()]), {"add done": 5, "role done": 3})
        demo.expect_in_step()


def test_a_scan_finds_just_what_the_demo_says_was_done_by_hand(night: Night, demo: scenario.Office):
    happened, figures = scenario.work_by_hand(demo)
    assert len({*happened.values()}) == 3
    summary = night.scan()
    expect("metrics", summary.metrics, figures)
    assert (summary.plan.insert, summary.plan.update, summary.plan.delete) == (1, 1, 0)


def test_a_lost_answer_is_doubted_and_released(night: Night, demo: scenario.Office):
    job = scenario.book(demo)
    night.sync()
    element = job.elements["sound"]
    demo.flex.fault(
        Fault("drop", path=f"line-item/{element}/add-resource/*", method="POST", committed=True),
        Fault("object", path=f"line-item/{element}/row-data", method="GET", nth=3, times=None),
    )
    contact = scenario.assign_late(demo, job)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match=f"element {element} is uncertain: .*release_element"):
            night.sync()
    assert demo.gate(element) == "uncertain"
    assert demo.writes([element])["add unknown"] == 1
    assert demo.flex.counters().adds[element][contact] == 1
    demo.flex.clear()
    night.sync(release_element=element)
    assert demo.gate(element) == "idle"
    assert demo.flex.counters().adds[element][contact] == 1
    demo.expect_in_step()


def test_after_a_restart_of_the_simulator_every_crew_is_brought_again(night: Night):
    with simulator.running(simulator.Config(elements=0, seed=2)) as account:
        account.control.create_elements(night.account.control.elements())
        restarted = Night(account, night.warehouse, night.url)
        demo = scenario.Office(SOURCE.name, None, night.warehouse, Console(file=io.StringIO()), account.control)
        rows = demo.rows()
        assert restarted.sync(mode="full")["added"] == sum(rows.values())
        demo.expect_in_step()
        assert not rows & demo.rows()
