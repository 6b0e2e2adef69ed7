"""Flex on the liar's stage: the lies are told about the copy, which is Flex's, and about what is written there."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy, deepcopy
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

import psycopg
from starlette.types import ASGIApp

from include.api.client import ApiClient
from include.simulators import flex as simulator
from include.simulators.flex.account import Account as Simulated
from include.simulators.flex.app import create
from include.simulators.flex.changes import Mutation
from include.simulators.flex.config import ROLES
from include.simulators.serving import Simulator
from include.sources.base import Api, SyncFailed
from tests.contract import flex as contract
from tests.contract.account import Run
from tests.liar.lies import KINDS, OF_WRITES, WRITES, Lie
from tests.liar.stage import Key, NotMirrored, Rows, patient
from tests.liar.wire import Asked
from tests.sources.flex import assign, person

CONFIG = simulator.Config(elements=0, per_hour=None, per_day=None)
CODES = ("FOH-R", "FOH-E", "MON-T")
TIERS = dict(zip(("R", "E", "T"), ROLES, strict=True))
DESIRED = """
SELECT DISTINCT c.flex_element_id, p.flex_resource_id, a.sound_role, c.id, p.id FROM flex.flex_crew_calls c
JOIN flex.job_assignments a ON a.job_id = c.job_id JOIN flex.profiles p ON p.id = a.technician_id
WHERE a.sound_role <> ''
"""
OWNED = "SELECT flex_line_item_id FROM flex.owned_line WHERE gone_at IS NULL"
UNCERTAIN = "SELECT flex_element_id FROM flex.element_gate WHERE state <> 'idle'"
ROWS = "SELECT crew_call_id, technician_id, flex_line_item_id FROM flex.flex_crew_assignments"
ID = re.compile(r"[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}")


class Account(NotMirrored, contract.Account):
    """Three crew calls with four people each, in a warehouse that is filled already or is to be filled."""

    copy_is_theirs = True

    def __init__(self, running: Simulator, warehouse: str):
        if running.control.elements():
            # As it was made for this very warehouse; the ids are the same in all of them.
            self.__dict__ |= {**vars(FIRST[warehouse]), "control": running.control, "_running": running}
        else:
            super().__init__(running, warehouse)
            FIRST[warehouse] = copy(self)

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        with patient(name, self._running.url + api.base_path, api.authorize(self._running.token)) as client:
            yield client

    def change(self, random: Random, about: Collection[str]) -> list[list[Mutation]]:
        """Change assignments as the application does, and lines in Flex as people do; return the steps in Flex."""
        with self.database("warehouse") as conn:
            for _ in range(random.choice([1, 2, 3])):
                self._change_ours(conn, random)
        steps = [[self._by_hand(random)] for _ in range(random.choice([0, 1, 2]))]
        for step in steps:
            self.control.mutate(*step)
        return steps

    def _change_ours(self, conn: psycopg.Connection, random: Random) -> None:
        number = random.randrange(len(contract.JOBS))
        who = contract.who(random.randrange(len(contract.CODES)))
        match random.choice(["new", "new", "role", "gone"]):
            case "new":
                resource = contract.resource(random.randrange(100, 10_000))
                assign(conn, self._calls[number], person(conn, resource), random.choice(CODES))
            case "role":
                query = "UPDATE flex.job_assignments SET sound_role = %s WHERE job_id = %s AND technician_id = %s"
                conn.execute(query, [random.choice(CODES), contract.JOBS[number], who])
            case "gone":
                conn.execute(contract.UNASSIGN, [contract.JOBS[number], who])

    def _by_hand(self, random: Random) -> Mutation:
        element = random.choice(self._elements)
        there = [line.resource_id for line in self.control.lines(element) if line.kind == "contact"]
        match random.choice(["delete", "role", "add", "gear"]):
            case "delete" if there:
                return Mutation("delete", element, random.choice(there))
            case "role" if there:
                return Mutation("role", element, random.choice(there), role=random.choice(ROLES))
            case "gear":
                return Mutation("gear", element, contract.resource(random.randrange(20_000, 30_000)))
        return Mutation("add", element, contract.resource(random.randrange(10_000, 20_000)))

    def hide(self, random: Random, about: Collection[str]) -> list[list[Mutation]]:
        """The lines of some contacts, as if they lay in a list that isn't shown."""
        element = random.choice(self._elements)
        there = [line.resource_id for line in self.control.lines(element) if line.kind == "contact"]
        some = random.sample(there, random.randint(min(1, len(there)), len(there)))
        return [[Mutation("delete", element, resource_id) for resource_id in some]]

    def spoil(self, random: Random, about: Collection[str], most: int) -> list[str]:
        with self.database("warehouse") as conn:
            return [self._spoil(conn, random) for _ in range(random.choice([0, 1, 2]))]

    def _spoil(self, conn: psycopg.Connection, random: Random) -> str:
        call_id, technician_id, line_id = random.choice(sorted(conn.execute(ROWS).fetchall()) or [(None, None, None)])
        match random.choice(["row", "disowned", "missed"]):
            case "row":
                conn.execute(contract.FORGET, [call_id, technician_id])
                return f"the row of {technician_id} is lost"
            case "disowned":
                conn.execute("UPDATE flex.owned_line SET gone_at = now() WHERE flex_line_item_id = %s", [line_id])
                return f"line {line_id} counts as gone"
        conn.execute("DELETE FROM flex.job_change")
        return "no change is known"

    def truth(self) -> Rows:
        lines = {element: self._contacts(element) for element in self._elements}
        there = {line.id for found in lines.values() for line in found}
        with self.database("warehouse") as conn:
            desired = conn.execute(DESIRED).fetchall()
            owned = {line_id for (line_id,) in conn.execute("SELECT flex_line_item_id FROM flex.owned_line")}
        wanted = {(element, resource): TIERS[code[-1]] for element, resource, code, _, _ in desired}
        # What people have put there themselves stays.
        strangers = {
            (element, line.resource_id): None
            for element, found in lines.items()
            for line in found
            if line.id not in owned and (element, line.resource_id) not in wanted
        }
        mine = {
            line.id
            for element, found in lines.items()
            for line in found
            if line.id in owned and (element, line.resource_id) in wanted
        }
        self._known = owned & there
        return {
            "lines": {(*key, 0): role for key, role in (wanted | strangers).items()},
            "rows": {(call, who): str(resource) for _, resource, _, call, who in desired},
            "owned": dict.fromkeys(((line_id,) for line_id in mine), True),
        }

    def live(self) -> Rows:
        found: dict[Key, Any] = {}
        turns: Counter[tuple] = Counter()
        for element in self._elements:
            for line in self._contacts(element):
                place = element, line.resource_id
                found[*place, turns[place]] = line.role_id
                turns[place] += 1
        with self.database("warehouse") as conn:
            owned = {line_id for (line_id,) in conn.execute(OWNED)}
        rows = {key: row for key, row in self.copy()["rows"].items() if row != "gone"}
        kept = {(line_id,): True for line_id in owned & getattr(self, "_known", owned)}
        return {"lines": found, "rows": rows, "owned": kept}

    def _contacts(self, element: UUID) -> list[simulator.Line]:
        return [line for line in self.control.lines(element) if line.kind == "contact"]

    def release(self, run: Run) -> None:
        """Release each uncertain crew call as a person would, after deleting the lines that are there twice."""
        with self.database("warehouse") as conn:
            uncertain = [element for (element,) in conn.execute(UNCERTAIN)]
        for element in uncertain:
            self._undouble(element)
            self.params = {**self.params, "release_element": str(element)}
            with suppress(SyncFailed):
                run.sync()
        self.params = {**self.params, "release_element": None}

    def _undouble(self, element: UUID) -> None:
        there = set()
        for line in self._contacts(element):
            if line.resource_id in there:
                self.control.mutate(Mutation("delete", element, line=line.id))
            there.add(line.resource_id)


# The account that filled each warehouse.
FIRST: dict[str, Account] = {}


class Vendor:
    """The harness's knowledge of Flex."""

    source = "flex"
    first_page = 1
    past: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._current: Simulated | None = None
        self._settled: Any = None

    @contextmanager
    def account(self, running: Simulator, warehouse: str) -> Iterator[Account]:
        yield Account(running, warehouse)

    def fill(self, account: Account) -> None:
        pass

    def settled(self) -> None:
        """What the first sync has written to Flex is where each run begins."""
        self._settled = deepcopy(self._current.store)

    def application(self, *, other: bool = False) -> ASGIApp:
        account = Simulated(CONFIG)
        if self._settled:
            account.store = deepcopy(self._settled)
        if other:
            self._let_others_in(account)
        else:
            self._current = account
        return create(account)

    def _let_others_in(self, account: Simulated) -> None:
        """The same crew calls with somebody else's people."""
        for element_id in account.store.elements:
            for line in [line for line in account.store.lines(element_id) if line.kind == "contact"]:
                stranger = account.store.new_id()
                account.store.put(element_id, replace(line, resource_id=stranger))

    def control(self, url: str) -> Any:
        return simulator.Control(url)

    def prepare(self, control: Any) -> None:
        pass

    def present(self, control: Any, world: str) -> None:
        return None

    def family(self, asked: Asked) -> str:
        return f"{asked.method} {ID.sub('id', asked.path.removeprefix('/f5/api/'))}"

    def kinds(self, family: str) -> Mapping[str, Lie]:
        return KINDS if family.startswith("GET") else {**WRITES, **{name: KINDS[name] for name in OF_WRITES}}

    def entities(self, family: str) -> Collection[str]:
        return ("crew",)

    def records(self, family: str) -> str:
        return family

    def group(self, family: str) -> str:
        return "crew"
