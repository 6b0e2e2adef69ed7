"""A small firm with its account in Flex, where anything may go wrong: runs that die, answers that are lost, people."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg

from include.api.client import ApiClient
from include.api.errors import ApiError
from include.api.request import Answer, Request
from include.confidence import holds
from include.confidence.repair_lock import NotJudged
from include.confidence.scan_log import PlanGone
from include.simulators.flex import Fault, Line, Mutation, Simulator
from include.simulators.flex.config import ROLES
from include.sources import get_source
from include.sources.base import Api, OutcomeUnknown, SyncFailed
from include.sources.flex.gate import GateLost
from include.warehouse import fence
from include.warehouse.fence import FenceError
from include.warehouse.rollback import RollbackRefused
from tests.contract.account import Run

from .flex import SOUND, owned, person, rows

JOBS, ELEMENTS, PEOPLE, CONTACTS, STRANGERS = 2, 3, 4, 5, 2
PARAMS: Mapping[str, Any] = {"job_id": None, "departments": [], "release_element": None}
# A client waits no longer for an answer; what a slow server carries out after that comes this late at most.
READ_TIMEOUT, LATE = 0.3, 0.6
# What is told where something is left to people.
UNDONE = (SyncFailed, OutcomeUnknown)
# What keeps a verb from its end without anything being wrong with it.
TROUBLE = (ApiError, *UNDONE, FenceError, GateLost, NotJudged, PlanGone, RollbackRefused)

WIPE = """
TRUNCATE flex.jobs, flex.profiles, flex.operation, flex.owned_line, flex.element_gate, flex.job_change,
  flex.element_scan, flex.flex_sync_log, flex.kept_line, confidence.unproven, confidence.sync_state,
  confidence.change_log, confidence.forensic_run CASCADE;
UPDATE confidence.writer SET state = 'running', hold_reason = NULL, run = NULL WHERE source = 'flex'
"""

# Who shall be where, in words of its own.
DESIRED = """
SELECT DISTINCT c.flex_element_id, c.id, a.technician_id, p.flex_resource_id,
  CASE c.department WHEN 'sound' THEN a.sound_role END
FROM flex.flex_crew_calls c
JOIN flex.job_assignments a ON a.job_id = c.job_id
  AND (c.department = 'sound' AND a.sound_role IS NOT NULL OR c.department = 'lights' AND a.lights_role IS NOT NULL)
JOIN flex.profiles p ON p.id = a.technician_id
"""


class Killed(BaseException):
    """The end of a run, in all of its threads."""


class Life:
    """A run's life: after so many things that it did, if any number is named, it is killed as a process would be."""

    def __init__(self, admin: psycopg.Connection, steps: int | None = None):
        self.over = False
        self._admin = admin
        self._left = steps
        self._sessions: list[psycopg.Connection] = []
        self._lock = threading.Lock()

    def lead(self, conn: psycopg.Connection) -> None:
        """The session ends with the run."""
        self._sessions.append(conn)

    def step(self) -> None:
        """Before and after everything that can be seen from outside."""
        with self._lock:
            if not self.over and self._left is not None:
                self._left -= 1
                if self._left == 0:
                    self.over = True
                    for conn in self._sessions:
                        if not conn.closed:
                            self._admin.execute("SELECT pg_terminate_backend(%s, 5000)", [conn.info.backend_pid])
        if self.over:
            raise Killed


class Session(psycopg.Connection):
    """A run's session: it may end before any statement, and before or after any commit."""

    life: Life

    @contextmanager
    def transaction(self, *args: Any, **kwargs: Any) -> Iterator[psycopg.Transaction]:
        with super().transaction(*args, **kwargs) as transaction:
            yield transaction
            self.life.step()
        self.life.step()


class Cursor(psycopg.Cursor):
    def execute(self, *args: Any, **kwargs: Any) -> "Cursor":
        self.connection.life.step()
        return super().execute(*args, **kwargs)


class Client(ApiClient):
    """A run may end before and after any request; `asked` is told of each before it is sent."""

    def __init__(self, life: Life, asked: Callable[[Request], None], *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._life, self._asked = life, asked

    def send(self, request: Request, *, cancel: threading.Event | None = None) -> Answer:
        self._life.step()
        self._asked(request)
        try:
            return super().send(request, cancel=cancel)
        finally:
            self._life.step()


class Reach:
    """What a run works with: the warehouse at `url`, and an account in Flex at another."""

    def __init__(self, url: str, flex_url: str, token: str, *, workers: int = 2, **params: Any):
        self.source = replace(get_source("flex"), workers=workers, pauses=())
        self.params = {**PARAMS, **params}
        self._url, self._flex_url, self._token = url, flex_url, token

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        with self._client(name, self._flex_url + api.base_path, headers=api.authorize(self._token)) as client:
            yield client

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self._url, autocommit=True) as conn:
            yield conn

    def settings(self, name: str) -> Mapping[str, Any]:
        return {"business_roles": {"sound": {tier: str(role) for tier, role in SOUND.ids["sound"].items()}}}

    def variable(self, name: str) -> None:
        return None

    def _client(self, *args: Any, **kwargs: Any) -> ApiClient:
        return ApiClient(*args, timeout=(2, 30), **kwargs)


class Mortal(Reach):
    """The connections end with a life. They are impatient: there is no answer but at once, to so many attempts."""

    def __init__(self, life: Life, asked: Callable[[Request], None], attempts: int, *args: Any, **params: Any):
        super().__init__(*args, **params)
        self._life, self._asked, self._attempts = life, asked, attempts

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection]:
        conn = Session.connect(self._url, autocommit=True, cursor_factory=Cursor)
        conn.life = self._life
        self._life.lead(conn)
        try:
            yield conn
        finally:
            conn.close()

    def _client(self, *args: Any, **kwargs: Any) -> ApiClient:
        limits = {"timeout": (2, READ_TIMEOUT), "attempts": self._attempts, "backoff": (0.01, 0.02)}
        return Client(self._life, self._asked, *args, **limits, **kwargs)


class World:
    """Two jobs, three crew calls in Flex, four people with five contacts, and two contacts that are no business of
    ours. Whatever happens there is a method; `asked` are the requests of the newest run.
    """

    def __init__(self, url: str, flex: Simulator, conn: psycopg.Connection, admin: psycopg.Connection, **patience: int):
        self.url, self.flex, self.conn, self._admin = url, flex, conn, admin
        self._patience = {"workers": 2, "attempts": 2} | patience
        self.asked: list[Request] = []
        flex.control.clear()
        flex.control.reset_counters()
        conn.execute(WIPE)
        # A run takes them up in this order.
        self.elements = sorted(flex.control.create_elements([None] * ELEMENTS))
        self.jobs = [uuid4() for _ in range(JOBS)]
        self.contacts = [uuid4() for _ in range(CONTACTS + STRANGERS)]
        self.people = [person(conn, contact) for contact in self.contacts[:PEOPLE]]
        self._runs = 0
        self._slow, self._late = False, 0.0

    # The application.

    def book(self, job: int, department: str, element: int) -> None:
        """A crew call for a job, or another one in Flex than before; the job comes with it."""
        self.conn.execute("INSERT INTO flex.jobs (id) VALUES (%s) ON CONFLICT DO NOTHING", [self.jobs[job]])
        self.conn.execute(
            "INSERT INTO flex.flex_crew_calls (job_id, department, flex_element_id) VALUES (%s, %s, %s)"
            " ON CONFLICT (job_id, department) DO UPDATE SET flex_element_id = excluded.flex_element_id",
            [self.jobs[job], department, self.elements[element]],
        )

    def cancel(self, job: int) -> None:
        self.conn.execute("DELETE FROM flex.jobs WHERE id = %s", [self.jobs[job]])

    def assign(self, job: int, who: int, department: str, code: str) -> None:
        codes = [code if department == each else None for each in ("sound", "lights")]
        self.conn.execute(
            "INSERT INTO flex.job_assignments (job_id, technician_id, sound_role, lights_role)"
            " SELECT id, %s, %s, %s FROM flex.jobs WHERE id = %s",
            [self.people[who], *codes, self.jobs[job]],
        )

    def unassign(self, job: int, who: int) -> None:
        self.conn.execute(
            "DELETE FROM flex.job_assignments WHERE job_id = %s AND technician_id = %s",
            [self.jobs[job], self.people[who]],
        )

    def promote(self, who: int, code: str) -> None:
        self.conn.execute(
            "UPDATE flex.job_assignments SET sound_role = %s WHERE technician_id = %s AND sound_role IS NOT NULL",
            [code, self.people[who]],
        )

    def contact(self, who: int, contact: int | None) -> None:
        """Another contact for a person, who may have it together with another; or none."""
        contact_id = None if contact is None else self.contacts[contact]
        self.conn.execute(
            "UPDATE flex.profiles SET flex_resource_id = %s WHERE id = %s", [contact_id, self.people[who]]
        )

    # People in Flex.

    def by_hand(self, element: int, contact: int) -> None:
        """A line for any contact, be it there already or a stranger's."""
        self.flex.control.mutate(Mutation("add", self.elements[element], self.contacts[contact]))

    def strike(self, element: int, nth: int) -> None:
        lines = self._lines(self.elements[element])
        if lines:
            self._delete(self.elements[element], lines[nth % len(lines)])

    def dub(self, element: int, nth: int, role: int) -> None:
        lines = self._lines(self.elements[element])
        if lines:
            line = lines[nth % len(lines)]
            self.flex.control.mutate(Mutation("role", self.elements[element], line=line.id, role=ROLES[role]))

    # Runs, with whatever befalls them.

    def sync(self, mode: str, faults: Sequence[Fault], dies: int | None, meanwhile: Sequence[tuple]) -> None:
        self.fault(*faults)
        self._suffer(self.run("flex_sync", dies, meanwhile), lambda run: run.sync(mode))

    def syncs(self, faults: Sequence[Fault], dies: int | None, meanwhile: Sequence[tuple]) -> None:
        """Two whole ones at the same time."""
        self.fault(*faults)
        self.flex.control.set(latency_ms=5)
        runs = [self.run("flex_sync", dies, meanwhile), self.run("flex_sync")]
        with ThreadPoolExecutor(len(runs)) as threads:
            ends = [threads.submit(self._suffer, run, lambda run: run.sync("full")) for run in runs]
        self.flex.control.set(latency_ms=0)
        for end in ends:
            end.result()

    def reconcile(self, faults: Sequence[Fault], dies: int | None, meanwhile: Sequence[tuple]) -> None:
        """The runbook with a repair; then a person lets the writer run again."""

        def steps(run: Run) -> None:
            scans = run.scan()
            self.fault(*faults)
            try:
                run.verify(scans, run.repair(scans)[0])
            except OutcomeUnknown:
                assert fence.read(self.conn, "flex").hold_reason

        self._suffer(self.run("flex_reconcile", dies, meanwhile), steps)
        self.resume()

    def back(self, faults: Sequence[Fault], dies: int | None) -> None:
        """The newest sync taken back, or as much of it as works."""
        found = self.conn.execute(
            "SELECT sync_id FROM confidence.sync_log WHERE source = 'flex' ORDER BY sync_id DESC LIMIT 1"
        ).fetchone()
        if found:
            self.fault(*faults)
            self._suffer(self.run("flex_rollback", dies), lambda run: run.roll_back(found[0]))

    def release(self, element: int) -> None:
        """A person who has looked at Flex, which takes longer than what may come late."""
        time.sleep(max(0.0, self._late - time.monotonic()))
        self.flex.control.clear()
        element_id = self.elements[element]
        if self.gate(element) == "uncertain":
            with suppress(*UNDONE), self.patient("flex_sync", release_element=str(element_id)) as run:
                run.sync()

    def resume(self) -> None:
        """Let the writer run, whatever held it."""
        writer = fence.read(self.conn, "flex")
        if writer.stopped:
            with self.conn.transaction():
                holds.decide(self.conn, "flex", "resume", "somebody")
            fence.resume(self.conn, "flex", writer.run)

    # The end.

    def calm(self, by_repair: bool) -> None:
        """Nothing goes wrong any more; people do what they are told to, then everything is in step."""
        for _ in range(4):
            for element in range(ELEMENTS):
                self._mend(self.elements[element])
                self.release(element)
            if by_repair and self._repaired():
                return
            with suppress(*UNDONE), self.patient("flex_sync") as run:
                run.sync("full")
                if not by_repair:
                    return
        raise AssertionError("it doesn't come to rest")

    def at_rest(self) -> None:
        """A whole sync finds nothing to do in Flex."""
        writes = len(self.flex.control.journal())
        with self.patient("flex_sync") as run:
            run.sync("full")
        assert len(self.flex.control.journal()) == writes

    def gate(self, element: int) -> str | None:
        query = "SELECT state FROM flex.element_gate WHERE flex_element_id = %s"
        found = self.conn.execute(query, [self.elements[element]]).fetchone()
        return found and found[0]

    def assert_safe(self) -> None:
        """What holds at any moment: no contact is there twice by us, and nobody else's line was deleted."""
        made = self._made()
        for element_id in self.elements:
            ours = [line.resource_id for line in self._lines(element_id) if line.id in made]
            assert len(set(ours)) == len(ours)
        deleted = {write.line_id for write in self._journal() if write.op == "delete"}
        assert deleted <= made, "somebody else's line was deleted"
        asked, answered = self.flex.control.counters().adds, Counter(self._written("add"))
        noted = self._operations("add")
        for element_id in self.elements:
            for contact, number in asked.get(element_id, {}).items():
                assert answered[element_id, contact] <= number <= noted[element_id, contact]

    def assert_in_step(self) -> None:
        """Flex and our rows hold who is desired, each once, and strangers; every write is accounted for."""
        made = self._made()
        desired = self.conn.execute(DESIRED).fetchall()
        for number, element_id in enumerate(self.elements):
            assert self.gate(number) in (None, "idle")
            there = {line.resource_id: line for line in self._lines(element_id)}
            assert len(there) == len(self._lines(element_id))
            wanted = [each for each in desired if each[0] == element_id]
            assert {contact for _, _, _, contact, _ in wanted if contact} <= there.keys()
            named = rows(self.conn, element_id)
            # Who is desired and has no contact any more keeps the line that was theirs.
            homeless = {(call, who) for _, call, who, contact, _ in wanted if contact is None}
            kept = {key: named[key] for key in homeless & named.keys()}
            crew = {(call, who): there[contact].id for _, call, who, contact, _ in wanted if contact}
            assert named == crew | kept
            for _, _, _, contact, code in wanted:
                role_id = SOUND.role("sound", code).role_id if code else None
                assert not (contact and role_id) or there[contact].role_id == role_id
            # Nor does anybody lose a line who has no contact and is desired on another crew call now.
            ours = owned(self.conn, element_id)
            assert ours - self._staying(desired) <= {line.id for line in there.values()} & made & {*named.values()}
            unclaimed = {line.resource_id for line in there.values() if line.id in made - ours}
            assert unclaimed <= self.unclaimed(element_id)
        states = "SELECT DISTINCT state FROM flex.operation WHERE state NOT IN ('done', 'refused')"
        assert self.conn.execute(states).fetchall() == []
        unowned = (
            "SELECT flex_line_item_id FROM flex.operation o WHERE kind = 'add' AND state = 'done'"
            " AND NOT EXISTS (SELECT FROM flex.owned_line l WHERE l.flex_line_item_id = o.flex_line_item_id)"
        )
        assert self.conn.execute(unowned).fetchall() == []
        locks = (
            "SELECT FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert self.conn.execute(locks).fetchall() == []

    def _mend(self, element_id: UUID) -> None:
        """What messages ask for: one line for a contact, one role."""
        seen = set()
        for line in self._lines(element_id):
            if line.resource_id in seen:
                self._delete(element_id, line)
            seen.add(line.resource_id)
        self.conn.execute(
            "UPDATE flex.job_assignments SET sound_role = 'FOH-E' WHERE sound_role IS NOT NULL AND technician_id IN ("
            " SELECT p.id FROM flex.profiles p WHERE (p.flex_resource_id) IN ("
            f"   SELECT flex_resource_id FROM ({DESIRED}) AS d (element, call, who, flex_resource_id, code)"
            "    WHERE code IS NOT NULL GROUP BY element, flex_resource_id HAVING count(DISTINCT code) > 1))"
        )

    def _repaired(self) -> bool:
        with self.patient("flex_reconcile") as run:
            scans = run.scan()
            if any(scan.incomplete for scan in scans):
                # What stayed open is settled by a sync.
                self.resume()
                return False
            with suppress(*UNDONE):
                run.repair(scans)
                checks = run.verify(scans, 0)
                assert [check for check in checks if check.worse] == []
                (open_,) = [check.after for check in checks if check.figure == "planned_changes_open"]
                metrics = scans[0].metrics
                assert open_ == 0
                self.resume()
                return not (metrics["uncertain"] or metrics["refused"] or metrics["unreadable"])
        self.resume()
        return False

    @contextmanager
    def patient(self, dag: str, **params: Any) -> Iterator[Run]:
        """A run that nothing befalls."""
        reach = Reach(self.url, self.flex.url, self.flex.token, workers=self._patience["workers"], **params)
        with reach.database("warehouse") as conn:
            yield Run(reach, conn, self._name(dag))

    @contextmanager
    def run(self, dag: str, dies: int | None = None, meanwhile: Sequence[tuple] = ()) -> Iterator[Run]:
        """A run that dies after so many things that it did; just before the nth request what is named happens."""
        self.asked = asked = []
        life, lock = Life(self._admin, dies), threading.Lock()

        def tell(request: Request) -> None:
            with lock:
                asked.append(request)
                now = len(asked)
            for number, (step, *arguments) in meanwhile:
                if number == now:
                    getattr(self, step)(*arguments)

        account = self.url, self.flex.url, self.flex.token
        reach = Mortal(life, tell, self._patience["attempts"], *account, workers=self._patience["workers"])
        with reach.database("warehouse") as conn:
            try:
                yield Run(reach, conn, self._name(dag))
            except psycopg.OperationalError:
                # Nothing else may cost a run its session.
                if not life.over:
                    raise
                raise Killed from None

    def _name(self, dag: str) -> str:
        self._runs += 1
        return f"{dag}/{self._runs}"

    def _suffer(self, opened: AbstractContextManager[Run], work: Callable[[Run], Any]) -> None:
        with suppress(*TROUBLE, Killed), opened as run:
            work(run)
        self.flex.control.clear()
        if self._slow:
            self._late = time.monotonic() + LATE

    def fault(self, *faults: Fault) -> None:
        self.flex.control.fault(*faults)
        self._slow = any(fault.kind == "slow" for fault in faults)

    def _delete(self, element_id: UUID, line: Line) -> None:
        self.flex.control.mutate(Mutation("delete", element_id, line=line.id))

    def _lines(self, element_id: UUID) -> list[Line]:
        return [line for line in self.flex.control.lines(element_id) if line.kind == "contact"]

    def _journal(self) -> list[Any]:
        return [write for write in self.flex.control.journal() if write.element_id in self.elements]

    def _written(self, op: str) -> Iterator[tuple[UUID, UUID]]:
        return ((write.element_id, write.resource_id) for write in self._journal() if write.op == op)

    def _made(self) -> set[UUID]:
        return {write.line_id for write in self._journal() if write.op == "add"}

    def unclaimed(self, element_id: UUID) -> set[UUID]:
        """The contacts that were added by us, as far as anybody can tell, or by people: no answer named the line."""
        query = (
            "SELECT flex_resource_id FROM flex.operation WHERE flex_element_id = %s AND kind = 'add'"
            " AND state = 'refused' AND flex_line_item_id IS NULL"
        )
        return {contact for (contact,) in self.conn.execute(query, [element_id])}

    def _staying(self, desired: Sequence[tuple]) -> set[UUID]:
        """The lines that were made for people who are desired and have no contact, or that their rows name."""
        query = (
            "SELECT flex_line_item_id FROM flex.owned_line WHERE technician_id = ANY (%(who)s)"
            " UNION SELECT flex_line_item_id FROM flex.flex_crew_assignments WHERE technician_id = ANY (%(who)s)"
        )
        homeless = [who for _, _, who, contact, _ in desired if contact is None]
        return {line_id for (line_id,) in self.conn.execute(query, {"who": homeless})}

    def _operations(self, kind: str) -> Counter:
        query = "SELECT flex_element_id, flex_resource_id, count(*) FROM flex.operation WHERE kind = %s GROUP BY 1, 2"
        return Counter({(each[0], each[1]): each[2] for each in self.conn.execute(query, [kind])})
