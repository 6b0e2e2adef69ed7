"""Jobs with their crew in a warehouse, an account of Flex for them, and what a run does, for the tests of Flex."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from include.api.client import ApiClient
from include.confidence.summary import ForensicSummary
from include.simulators.flex import Control, Fault, Line, Mutation, Simulator
from include.simulators.flex.config import ROLES
from include.sources.base import Api, Synced
from include.sources.flex import SOURCE, calls
from include.sources.flex.crews import FlexContext
from include.sources.flex.roles import Roles, roles_of
from include.sources.flex.rows import Line as Seen
from include.sources.flex.source import Flex
from include.warehouse import fence, sync_log
from include.warehouse.rollback import Undone, roll_back
from include.warehouse.sync_log import Counts

LEAD, EXPERT, HAND = ROLES
# Where Flex adds, shows and writes, and deletes.
ADD, ROWS, LINE = "line-item/*/add-resource/*", "line-item/*/row-data", "line-item/*"
PARAMS: Mapping[str, Any] = {"job_id": None, "departments": [], "release_element": None}
SOUND: Roles = roles_of(
    {"business_roles": {"sound": {"responsible": str(LEAD), "specialist": str(EXPERT), "technician": str(HAND)}}}
)


def put(conn: psycopg.Connection, table: str, **values) -> UUID:
    """A row with a new id, which is returned."""
    row = {"id": uuid4()} | values
    query = sql.SQL("INSERT INTO flex.{} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(map(sql.Literal, row.values())),
    )
    conn.execute(query)
    return row["id"]


def person(conn: psycopg.Connection, resource_id: UUID | None) -> UUID:
    return put(conn, "profiles", flex_resource_id=resource_id)


def call(conn: psycopg.Connection, element_id: UUID, department: str = "sound", job: UUID | None = None, **of) -> UUID:
    """A crew call, of a job of its own unless one is named."""
    job_id = job or put(conn, "jobs", **of)
    return put(conn, "flex_crew_calls", job_id=job_id, department=department, flex_element_id=element_id)


def assign(conn: psycopg.Connection, call_id: UUID, technician_id: UUID, code: str = "FOH-T", **values) -> UUID:
    """An assignment to the call's job, in the call's department."""
    job_id, department = conn.execute(
        "SELECT job_id, department FROM flex.flex_crew_calls WHERE id = %s", [call_id]
    ).fetchone()
    roles = {f"{department}_role": code}
    return put(conn, "job_assignments", job_id=job_id, technician_id=technician_id, **roles | values)


def note(conn: psycopg.Connection, call_id: UUID, technician_id: UUID, line_id: UUID | None) -> None:
    """A row that names a line."""
    values = {"crew_call_id": call_id, "technician_id": technician_id, "flex_line_item_id": line_id}
    put(conn, "flex_crew_assignments", **values)


def own(conn: psycopg.Connection, element_id: UUID, line_id: UUID, resource_id: UUID | None = None) -> None:
    """A line that we made, for a job that nobody knows any more."""
    conn.execute(
        "INSERT INTO flex.owned_line VALUES (%s, %s, %s, gen_random_uuid(), 'sound', gen_random_uuid(),"
        " gen_random_uuid())",
        [line_id, element_id, resource_id],
    )


def rows(conn: psycopg.Connection, element_id: UUID) -> dict[tuple[UUID, UUID], UUID | None]:
    """The lines that our rows name, by crew call and technician."""
    query = (
        "SELECT crew_call_id, technician_id, flex_line_item_id FROM flex.flex_crew_assignments a"
        " JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id WHERE c.flex_element_id = %s"
    )
    return {(call_id, who): line_id for call_id, who, line_id in conn.execute(query, [element_id])}


def owned(conn: psycopg.Connection, element_id: UUID) -> set[UUID]:
    """The lines that we made and that are there."""
    query = "SELECT flex_line_item_id FROM flex.owned_line WHERE flex_element_id = %s AND gone_at IS NULL"
    return {line_id for (line_id,) in conn.execute(query, [element_id])}


# The lines of a crew call as rows may show them falsely.
Falsely = Callable[[list[Seen]], list[Seen]]


def of_somebody_else(lines: list[Seen]) -> list[Seen]:
    """The first contact is somebody whom nobody knows."""
    first = next(line for line in lines if line.kind == "contact")
    return [replace(line, resource_id=uuid4()) if line is first else line for line in lines]


def exchanged(lines: list[Seen]) -> list[Seen]:
    """The first two contacts, each on the other's line."""
    one, other = [line for line in lines if line.kind == "contact"][:2]
    whose = {one: other.resource_id, other: one.resource_id}
    return [replace(line, resource_id=whose.get(line, line.resource_id)) for line in lines]


def as_gear(lines: list[Seen]) -> list[Seen]:
    """The first contact is gear."""
    first = next(line for line in lines if line.kind == "contact")
    return [replace(line, kind="other") if line is first else line for line in lines]


def without_role(lines: list[Seen]) -> list[Seen]:
    return [replace(line, role_id=None) for line in lines]


def tell_once(patch: pytest.MonkeyPatch, falsely: Falsely) -> None:
    """Have the next rows with contacts on them told falsely, and all others as they are."""
    truly, told = calls.rows.read, []

    def read(answer: Any, mapped: Collection[UUID]) -> list[Seen]:
        lines = truly(answer, mapped)
        if told or all(line.kind != "contact" for line in lines):
            return lines
        told.append(lines)
        return falsely(lines)

    patch.setattr(calls.rows, "read", read)


KEY = "flex_crew_assignments_crew_call_technician_key"


@contextmanager
def without_key(agency: "Agency") -> Iterator[None]:
    """As if somebody had dropped the key that keeps a technician from being on a crew call twice."""
    agency.conn.execute(f"ALTER TABLE flex.flex_crew_assignments DROP CONSTRAINT {KEY}")
    try:
        yield
    finally:
        agency.conn.execute(
            f"ALTER TABLE flex.flex_crew_assignments ADD CONSTRAINT {KEY} UNIQUE (crew_call_id, technician_id)"
        )


@dataclass(frozen=True)
class Booked:
    """A job with its crew call, ours and Flex's."""

    job: UUID
    call: UUID
    element: UUID


@dataclass
class Agency:
    """Jobs in a warehouse, a simulated account of Flex, and the source's verbs, each in a context of its own.

    `limiter` is that of the API, `variables` are the installation's settings.
    """

    simulator: Simulator
    url: str
    conn: psycopg.Connection
    name: str = "flex_reconcile/test"
    workers: int = 1
    limiter: Any = None
    variables: dict[str, str] = field(default_factory=dict)
    pauses: tuple[float, ...] = ()

    @property
    def control(self) -> Control:
        return self.simulator.control

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        url, headers = self.simulator.url + api.base_path, api.authorize(self.simulator.token)
        patience = {"timeout": (5, 30), "attempts": 1}
        with ApiClient(name, url, headers=headers, limiter=self.limiter, **patience) as client:
            yield client

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            yield conn

    def settings(self, name: str) -> Mapping[str, Any]:
        tiers = ("responsible", "specialist", "technician")
        return {"business_roles": {"sound": dict(zip(tiers, map(str, ROLES), strict=True))}}

    def variable(self, name: str) -> str | None:
        return self.variables.get(name)

    @property
    def source(self) -> Flex:
        return replace(SOURCE, workers=self.workers, pauses=self.pauses)

    def context(self) -> AbstractContextManager[FlexContext]:
        return self.source.open(self.conn, self.name, self)

    def sync(self, mode: str = "incremental", **params: Any) -> Synced:
        with self.context() as context:
            return self.source.sync(context, {**PARAMS, "mode": mode, **params}, dry_run=False)

    def scan(self, **params: Any) -> ForensicSummary:
        """Stop the writer, if it isn't, and scan."""
        epoch = fence.stop(self.conn, "flex", self.name, timeout=1).epoch
        with self.context() as context:
            return self.source.scan(context, "crew", epoch, {**PARAMS, **params})

    def repair(self, summary: ForensicSummary) -> tuple[int, Counts]:
        with self.context() as context:
            sync_id, counts = self.source.repair(context, [summary], PARAMS)
            return sync_id, counts["crew"]

    def verify(self, summary: ForensicSummary, sync_id: int) -> dict[str, tuple[int, int]]:
        with self.context() as context:
            checks = self.source.verify(context, [summary], sync_id)
        return {check.figure: (check.before, check.after) for check in checks}

    def resume(self) -> None:
        fence.resume(self.conn, "flex", self.name)

    def reset_watermarks(self) -> int:
        with self.context() as context:
            return self.source.reset_watermarks(context)

    def roll_back(self, sync_id: int, *, dry_run: bool = False, force: bool = False) -> Undone:
        with self.source.copy(self.conn, self) as copy:
            run = "warehouse_rollback/test"
            return roll_back(self.conn, copy, sync_id, run=run, reason="test", force=force, dry_run=dry_run, timeout=1)

    def book(self, department: str = "sound", *, job: UUID | None = None, element: UUID | None = None, **of) -> Booked:
        """A crew call in a job and in Flex, each new unless it is named."""
        element_id = element or self.control.create_element()
        call_id = call(self.conn, element_id, department, job, **of)
        (job_id,) = self.conn.execute("SELECT job_id FROM flex.flex_crew_calls WHERE id = %s", [call_id]).fetchone()
        return Booked(job_id, call_id, element_id)

    def hire(self, booked: Booked, code: str = "FOH-T") -> tuple[UUID, UUID]:
        """Somebody new who is assigned to the call: technician and resource."""
        who = person(self.conn, resource := uuid4())
        assign(self.conn, booked.call, who, code)
        return who, resource

    def fire(self, who: UUID) -> None:
        self.conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = %s", [who])

    def recast(self, who: UUID, code: str) -> None:
        self.conn.execute("UPDATE flex.job_assignments SET sound_role = %s WHERE technician_id = %s", [code, who])

    def crew(self, booked: Booked) -> dict[UUID, Line]:
        """What truly is on the crew call, by resource: each once."""
        contacts = [line for line in self.control.lines(booked.element) if line.kind == "contact"]
        assert len({line.resource_id for line in contacts}) == len(contacts)
        return {line.resource_id: line for line in contacts}

    def rows(self, booked: Booked) -> dict[UUID, UUID | None]:
        """The line that each technician's row names."""
        found = rows(self.conn, booked.element)
        return {who: line_id for (call_id, who), line_id in found.items() if call_id == booked.call}

    def waiting(self) -> set[UUID]:
        """The jobs whose changes wait."""
        return {job_id for (job_id,) in self.conn.execute("SELECT job_id FROM flex.job_change")}

    def settle(self) -> None:
        """As if a sync had missed what changed."""
        self.conn.execute("DELETE FROM flex.job_change")

    def watermark(self) -> datetime | None:
        return sync_log.state(self.conn, "flex", "crew").watermark

    def log(self) -> list[dict[str, Any]]:
        """The rows of flex_sync_log, in their order."""
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute("SELECT * FROM flex.flex_sync_log ORDER BY created_at").fetchall()

    def synced(self) -> dict[str, Any]:
        """The newest row of the sync log."""
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute("SELECT * FROM confidence.sync_log ORDER BY sync_id DESC LIMIT 1").fetchone()

    def gates(self) -> dict[UUID, str]:
        return dict(self.conn.execute("SELECT flex_element_id, state FROM flex.element_gate").fetchall())

    def touched(self) -> set[UUID]:
        """The elements that were ever worked at."""
        return {*self.gates()}

    def fault(self, kind: str, path: str, method: str = "*", **fields: Any) -> None:
        self.control.fault(Fault(kind, path=path, method=method, **fields))

    def by_hand(self, op: str, booked: Booked, resource: UUID | None = None, **of: Any) -> UUID:
        """A change that a person makes in Flex; the line that it is about."""
        [[line_id]] = self.control.mutate(Mutation(op, booked.element, resource, **of))
        return line_id

    def clean(self) -> None:
        """Nobody has any job, nothing was ever done, and Flex behaves."""
        self.control.clear()
        self.control.set(per_hour=None, per_day=None, latency_ms=0, records="whole", headers="leaf")
        self.control.reset_counters()
        self.conn.execute(CLEAN)


# Of so few rows this takes a fraction of what TRUNCATE does.
CLEAN = """
DELETE FROM flex.jobs; DELETE FROM flex.profiles; DELETE FROM flex.flex_sync_log; DELETE FROM flex.owned_line;
WITH gates AS (DELETE FROM flex.element_gate) DELETE FROM flex.operation;
DELETE FROM flex.element_scan; DELETE FROM flex.job_change; DELETE FROM flex.kept_line;
DELETE FROM confidence.unproven;
DELETE FROM confidence.change_log; DELETE FROM confidence.sync_state; DELETE FROM confidence.forensic_run;
DELETE FROM confidence.sync_log;
UPDATE confidence.writer SET state = 'running', epoch = 0, run = NULL, hold_reason = NULL WHERE source = 'flex'
"""
