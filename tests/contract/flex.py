"""Flex's side of the contract: three crew calls in a simulated account, and the jobs in the warehouse for them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

import psycopg

from include.api.client import ApiClient
from include.api.request import Request
from include.confidence.summary import Plan
from include.simulators import flex as simulator
from include.simulators.flex import Fault, Mutation
from include.simulators.flex.config import ROLES
from include.sources import get_source
from include.sources.base import Api
from tests.contract.account import Asking, CountedAnswer, Questions
from tests.sources.flex import HAND, assign, call, person, put

# Whatever has an id here has it from this one.
SEED = UUID("5a1c7f0e-0000-4000-8000-000000000000")
CODES = ("FOH-R", "FOH-E", "MON-T", "STAGE-T")
JOBS = [uuid5(SEED, f"job {number}") for number in range(3)]


ANSWER = CountedAnswer("row-data", "leaf", "no", ("managedResourceLineItemType", "header", "divider"))

UNASSIGN = "DELETE FROM flex.job_assignments WHERE job_id = %s AND technician_id = %s"
FORGET = "DELETE FROM flex.flex_crew_assignments WHERE crew_call_id = %s AND technician_id = %s"


def who(number: int) -> UUID:
    return uuid5(SEED, f"technician {number}")


def resource(number: int) -> UUID:
    return uuid5(SEED, f"resource {number}")


class Account:
    """Three jobs with a crew call each, and the same four people on them; the account's clock stands still."""

    source = replace(get_source("flex"), workers=1, pauses=())
    computed = ()
    atomic = False
    params: Mapping[str, Any] = {"job_id": None, "departments": [], "release_element": None}
    part: Mapping[str, Any] = {"job_id": str(JOBS[0])}

    def __init__(self, running: simulator.Simulator, warehouse: str):
        self.questions = Questions()
        self.control = running.control
        self._running = running
        self._warehouse = warehouse
        self._elements = running.control.create_elements([None] * len(JOBS))
        with self.database("warehouse") as conn:
            for number in range(len(CODES)):
                put(conn, "profiles", id=who(number), flex_resource_id=resource(number))
            self._calls = [self._book(conn, *booked) for booked in zip(JOBS, self._elements, strict=True)]

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        url, headers = self._running.url + api.base_path, api.authorize(self._running.token)
        with Asking(self._asked, name, url, headers=headers, timeout=(2, 10), attempts=1) as client:
            yield client

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self._warehouse, autocommit=True) as conn:
            yield conn

    def settings(self, name: str) -> Mapping[str, Any]:
        tiers = ("responsible", "specialist", "technician")
        return {"business_roles": {"sound": dict(zip(tiers, map(str, ROLES), strict=True))}}

    def variable(self, name: str) -> str | None:
        return None

    def copy(self) -> Mapping[str, Mapping]:
        """Contacts and roles in Flex, and the contact that each of our rows leads to: a line's id is only a name."""
        lines = {element_id: self.control.lines(element_id) for element_id in self._elements}
        contact_of = {line.id: line.resource_id for found in lines.values() for line in found}
        with self.database("warehouse") as conn:
            rows = conn.execute(
                "SELECT crew_call_id, technician_id, flex_line_item_id FROM flex.flex_crew_assignments"
            ).fetchall()
        return {
            "lines": {
                element_id: sorted(
                    (str(line.resource_id), str(line.role_id)) for line in found if line.kind == "contact"
                )
                for element_id, found in lines.items()
            },
            "rows": {
                (call_id, technician_id): str(contact_of.get(line_id, "gone"))
                for call_id, technician_id, line_id in rows
            },
        }

    def change(self) -> None:
        """Somebody new, somebody with another role, somebody less."""
        with self.database("warehouse") as conn:
            assign(conn, self._calls[0], person(conn, resource(100)))
            conn.execute(
                "UPDATE flex.job_assignments SET sound_role = 'FOH-T' WHERE job_id = %s AND technician_id = %s",
                [JOBS[1], who(1)],
            )
            conn.execute(UNASSIGN, [JOBS[2], who(2)])

    def drift(self) -> Mapping[str, Plan]:
        """A line that is deleted by hand, a role, a row of ours; a line of ours that nobody wants; and a stranger."""
        first, second, _ = self._elements
        self.control.mutate(
            Mutation("delete", first, resource(0)),
            Mutation("role", first, resource(1), role=HAND),
            Mutation("add", second, resource(999)),
        )
        with self.database("warehouse") as conn:
            conn.execute(FORGET, [self._calls[1], who(1)])
            conn.execute(UNASSIGN, [JOBS[2], who(3)])
            # As if a sync had missed it.
            conn.execute("DELETE FROM flex.job_change")
        return {"crew": Plan(insert=2, update=1, delete=1)}

    def fail(self) -> None:
        self.control.fault(Fault("drop"))

    @contextmanager
    def down(self) -> Iterator[None]:
        self.control.fault(Fault("status", status=503, times=None))
        yield
        self.control.clear()

    def _asked(self, request: Request) -> None:
        self.questions.ask()

    def _book(self, conn: psycopg.Connection, job_id: UUID, element_id: UUID) -> UUID:
        """A job with its crew call and people."""
        put(conn, "jobs", id=job_id)
        call_id = call(conn, element_id, job=job_id)
        for number, code in enumerate(CODES):
            assign(conn, call_id, who(number), code)
        return call_id


@contextmanager
def opened(warehouse: str) -> Iterator[Account]:
    """An account with three crew calls; the simulator is gone afterwards."""
    with simulator.running(simulator.Config(elements=0, per_hour=None, per_day=None)) as running:
        yield Account(running, warehouse)
