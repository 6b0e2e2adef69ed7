"""One crew call in Flex brought to the desired crew, from the claim of its gate to the release.

What happened in Flex is noted even if the writer was stopped meanwhile: it is the truth, and the stop came too late.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from psycopg import Connection

from include.api.client import ApiClient
from include.api.errors import ApiError, FixConfiguration, NotFound, NotSent, TryLater
from include.sources.flex import calls, desired, gate
from include.sources.flex.calls import Outcome, Stopped
from include.sources.flex.desired import Call, Crew
from include.sources.flex.gate import Gate, GateClosed, GateLost, Write
from include.sources.flex.plan import Add, Adopt, Finding, Forget, Member, Plan, Remap, Remove, SetRole, plan
from include.sources.flex.roles import Roles
from include.sources.flex.rows import CONTACT, Line, Unreadable
from include.warehouse.fence import FenceError

# How often it is begun anew because people changed the crew meanwhile.
PASSES = 8

Kind = Literal[
    "added",
    "removed",
    "pruned",
    "kept",
    "role_set",
    "adopted",
    "remapped",
    "forgotten",
    "stale",
    "add_failed",
    "remove_failed",
    "role_failed",
    "prune_failed",
]
# What Flex refused of what a crew needs. A line that is left over harms no crew.
FAILED = ("add_failed", "remove_failed", "role_failed")
State = Literal["done", "failed", "refused", "changed", "unreadable", "busy", "uncertain", "stopped"]

PUT = """
WITH before AS (
  SELECT to_jsonb(a) AS row FROM flex.flex_crew_assignments a
  WHERE crew_call_id = %(call)s AND technician_id = %(technician)s
), put AS (
  INSERT INTO flex.flex_crew_assignments AS a (id, crew_call_id, technician_id, flex_line_item_id)
  SELECT gen_random_uuid(), c.id, p.id, %(line)s FROM flex.flex_crew_calls c, flex.profiles p
  WHERE c.id = %(call)s AND p.id = %(technician)s FOR KEY SHARE
  ON CONFLICT (crew_call_id, technician_id) DO UPDATE SET flex_line_item_id = excluded.flex_line_item_id
  RETURNING to_jsonb(a) AS row
)
INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before, after)
SELECT %(sync_id)s, 'flex.flex_crew_assignments',
  jsonb_build_object('crew_call_id', %(call)s::uuid, 'technician_id', %(technician)s::uuid),
  CASE WHEN before.row IS NULL THEN 'insert' ELSE 'update' END, before.row, put.row
FROM put LEFT JOIN before ON true
"""

DROP = """
WITH gone AS (
  DELETE FROM flex.flex_crew_assignments a WHERE crew_call_id = %(call)s AND technician_id = %(technician)s
  RETURNING to_jsonb(a) AS row
)
INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before)
SELECT %(sync_id)s, 'flex.flex_crew_assignments',
  jsonb_build_object('crew_call_id', %(call)s::uuid, 'technician_id', %(technician)s::uuid), 'delete', row
FROM gone
"""

OWN = """
INSERT INTO flex.owned_line (flex_line_item_id, flex_element_id, flex_resource_id, job_id, department, crew_call_id,
  technician_id, made_by)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""

GONE = """
UPDATE flex.owned_line SET gone_at = clock_timestamp() WHERE flex_line_item_id = ANY (%s) AND gone_at IS NULL
"""


@dataclass(frozen=True)
class Worker:
    """What a worker brings: `conn` is its own, in autocommit; `run` is dag_id/run_id.

    `fenced` begins a transaction that may write, or raises FenceError. With `prune` lines of ours that no row leads to
    are deleted too.
    """

    api: ApiClient
    conn: Connection
    roles: Roles
    run: str
    sync_id: int
    fenced: Callable[[Connection], AbstractContextManager]
    prune: bool


# What to do about an element, by the crew that it shall have and the lines that are there.
Planner = Callable[[Crew, Sequence[Line]], Plan]


@dataclass(frozen=True)
class Event:
    """Something that happened to a resource, for these rows; `kept`, if it was there, failed, if Flex refused."""

    kind: Kind
    resource_id: UUID | None
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Report:
    """What became of an element, and all that happened. `problems` and `diagnostics` are one line each.

    `crew` and `lines` are what was read last; None and 0 where nothing was. Of the states `failed` means that Flex
    refused something, `refused` that the crew can't be written as it is, `changed` that people kept changing it;
    `unreadable`, `busy` and `uncertain` tell why nothing more was written. `stopped`:
    nothing more may be written anywhere, since `stop` was raised.
    """

    element_id: UUID
    state: State
    events: tuple[Event, ...] = ()
    findings: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = ()
    diagnostics: tuple[str, ...] = ()
    crew: Crew | None = None
    lines: int = 0
    stop: Exception | None = None
    seconds: float = 0.0

    def count(self, *kinds: Kind) -> int:
        """How many events of these kinds there were."""
        return sum(event.kind in kinds for event in self.events)


class _Changed(Exception):
    """Who is desired isn't any more who was read."""


class _InDoubt(Exception):
    """Nobody knows what became of a write; the gate says so already."""


@dataclass(frozen=True)
class _Added:
    """A line that an answer named, and no read has shown yet."""

    operation_id: int
    line_id: UUID
    action: Add


def wanted(crew: Crew, lines: Sequence[Line]) -> Plan:
    """Bring the element to the desired crew. Of a role that Flex doesn't tell, the one that we wrote counts."""
    told = [line if line.role_told else replace(line, role_id=crew.written.get(line.line_id)) for line in lines]
    return plan(crew.desired, crew.rows, crew.owned, told)


def sync(worker: Worker, element_id: UUID, planner: Planner = wanted) -> Report:
    """Bring one element to the desired crew, or do what else is planned for it."""
    began = time.monotonic()
    try:
        with gate.claimed(worker.conn, element_id, worker.run, worker.sync_id) as held:
            report = _Element(worker, held, planner).sync()
    except GateClosed as closed:
        report = Report(element_id, closed.state, problems=(str(closed),))
    return replace(report, seconds=time.monotonic() - began)


class _Element:
    def __init__(self, worker: Worker, held: Gate, planner: Planner) -> None:
        self._worker, self._gate, self._planner = worker, held, planner
        self._api, self._conn, self._id = worker.api, worker.conn, held.element_id
        self._events: list[Event] = []
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._unproven: list[_Added] = []
        self._crew: Crew | None = None
        self._lines: Sequence[Line] = ()
        self._plan = Plan((), (), (), ())

    def sync(self) -> Report:
        """Read, plan and write until nobody interferes."""
        try:
            return self._report(self._passes())
        except (FixConfiguration, FenceError, GateLost, NotSent) as error:
            return replace(self._report("stopped", f"element {self._id}: {error}"), stop=error)
        except _InDoubt as doubt:
            told = str(doubt).rstrip(".")
            return self._report("uncertain", f"element {self._id} is uncertain: {told}. {gate.RELEASE}")
        except (Unreadable, NotFound, TryLater) as error:
            return self._report("unreadable", f"element {self._id} could not be read: {error}")

    def _passes(self) -> State:
        for _ in range(PASSES):
            self._problems, self._notes = [], []
            try:
                self._read()
                if self._plan.refusals:
                    self._problems += self._plan.refusals
                    return "refused"
                self._carry_out()
            except _Changed:
                continue
            self._keep()
            return "failed" if self._problems else "done"
        self._problems.append(f"element {self._id} changed {PASSES} times while it was synced. Run the sync again")
        return "changed"

    def _report(self, state: State, *problems: str) -> Report:
        diagnostics = (*(self._crew.diagnostics if self._crew else ()), *self._plan.diagnostics, *self._notes)
        told = (*self._problems, *problems)
        return Report(
            self._id,
            state,
            tuple(self._events),
            self._plan.findings,
            told,
            diagnostics,
            self._crew,
            len(self._lines),
        )

    def _read(self) -> None:
        self._crew = desired.crew(self._conn, self._id, self._worker.roles)
        self._lines = self._shown()
        if self._clear_stale():
            self._crew = desired.crew(self._conn, self._id, self._worker.roles)
        self._plan = self._planner(self._crew, self._lines)

    def _shown(self) -> Sequence[Line]:
        try:
            return calls.lines(self._api, self._id, self._crew.mapped)
        except NotFound:
            # Deleted in Flex, with all its lines. A call of ours that still names it has to be mended first.
            if self._crew.calls:
                raise
            return ()

    def _clear_stale(self) -> bool:
        """Drop the rows whose line is gone, and say so of our lines. Whether there were any."""
        present = {line.line_id for line in self._lines}
        stale = [row for row in self._crew.rows if row.line_id and row.line_id not in present]
        gone = self._crew.owned - present
        if not stale and not gone:
            return False
        with self._writing():
            self._drop(row.member for row in stale)
            self._conn.execute(GONE, [list(gone)])
        self._events += [Event("stale", row.resource_id, (row.member,)) for row in stale]
        return True

    def _carry_out(self) -> None:
        actions = self._plan.actions
        self._note([each for each in actions if isinstance(each, Adopt | Remap | Forget)])
        added: list[SetRole] = []
        try:
            for action in actions:
                match action:
                    case Remove(orphan=False):
                        self._remove(action, "removed", "remove_failed")
                    case Add():
                        self._add(action)
        finally:
            # Whatever else went wrong: what was added has to be proven, or doubted.
            added = self._prove()
        for action in [*added, *(each for each in actions if isinstance(each, SetRole))]:
            self._set_role(action)
        if self._worker.prune:
            for action in actions:
                if isinstance(action, Remove) and action.orphan:
                    self._remove(action, "pruned", "prune_failed")

    def _keep(self) -> None:
        """Note who was there already."""
        new = {event.resource_id for event in self._events if event.kind == "added"}
        for finding in self._plan.findings:
            if finding.kind in ("matched", "role_mismatch", "missing_row") and finding.resource_id not in new:
                self._events.append(Event("kept", finding.resource_id, finding.members))

    def _note(self, actions: Sequence[Adopt | Remap | Forget]) -> None:
        """Change rows of ours only."""
        if not actions:
            return
        with self._writing():
            self._drop(action.member for action in actions if isinstance(action, Forget))
            for action in actions:
                if not isinstance(action, Forget):
                    self._put(action.line_id, [action.member])
        for action in actions:
            match action:
                case Adopt():
                    self._events.append(Event("adopted", action.resource_id, (action.member,)))
                case Remap():
                    self._events.append(Event("remapped", action.resource_id, (action.member,)))
                case Forget():
                    self._events.append(Event("forgotten", None, (action.member,)))

    def _add(self, action: Add) -> None:
        member = action.members[0]
        call = self._crew.calls[member.crew_call_id]
        operation_id, outcome = self._send(
            Write("add", None, action.resource_id, member, call=call),
            lambda: calls.add(self._api, self._id, action.resource_id),
        )
        if outcome.kind == "refused":
            return self._refused(operation_id, outcome, Event("add_failed", action.resource_id, action.members))
        who = [call.job_id, call.department, member.crew_call_id, member.technician_id, self._worker.sync_id]
        # The line is ours from now on; the gate stands for it until a read has shown it.
        with self._conn.transaction():
            gate.settle(self._conn, operation_id, outcome)
            self._conn.execute(OWN, [outcome.line_id, self._id, action.resource_id, *who])
        self._unproven.append(_Added(operation_id, outcome.line_id, action))

    def _prove(self) -> list[SetRole]:
        """Read once what was added and note those with exactly their one line; return the roles to be written."""
        added, self._unproven = self._unproven, []
        if not added:
            return []
        try:
            mapped = self._crew.mapped | {each.line_id for each in added}
            lines = calls.lines(self._api, self._id, mapped, owed=True)
        except (Unreadable, ApiError) as error:
            self._doubt([each.operation_id for each in added], f"what was added could not be read: {error}")
            if isinstance(error, FixConfiguration):
                raise
            raise _InDoubt(f"what was added could not be read: {error}") from None
        proven = [each for each in added if _lines_of(each.action.resource_id, lines) == [each.line_id]]
        wrong = [each.operation_id for each in added if each not in proven]
        reason = "a fresh read doesn't show exactly the one line that was added"
        with self._conn.transaction():
            for each in proven:
                self._put(each.line_id, each.action.members)
            if wrong:
                gate.doubt(self._conn, self._id, wrong, reason)
            else:
                gate.stand(self._conn, self._gate, None)
        self._events += [Event("added", each.action.resource_id, each.action.members) for each in proven]
        if wrong:
            raise _InDoubt(f"{reason}, for {len(wrong)} of {len(added)}")
        return [
            SetRole(each.line_id, each.action.resource_id, each.action.role_id)
            for each in proven
            if each.action.role_id
        ]

    def _remove(self, action: Remove, done: Kind, failed: Kind) -> None:
        member = next(iter(action.members), None)
        operation_id, outcome = self._send(
            Write(
                "remove",
                action.line_id,
                action.resource_id,
                member,
                self._role_of(action.line_id),
                call=self._call_of(member),
            ),
            lambda: calls.remove(self._api, action.line_id),
        )
        if outcome.kind == "refused":
            return self._refused(operation_id, outcome, Event(failed, action.resource_id, action.members))
        with self._settling(operation_id, outcome):
            self._conn.execute(GONE, [[action.line_id]])
            self._drop(action.members)
        self._events.append(Event(done, action.resource_id, action.members))

    def _set_role(self, action: SetRole) -> None:
        before = self._role_of(action.line_id)
        members = tuple(each.member for each in self._crew.desired if each.resource_id == action.resource_id)
        member = next(iter(members), None)
        operation_id, outcome = self._send(
            Write("role", action.line_id, action.resource_id, member, before, action.role_id, self._call_of(member)),
            lambda: calls.set_role(self._api, self._id, action.line_id, action.role_id),
        )
        if outcome.kind == "refused":
            return self._refused(operation_id, outcome, Event("role_failed", action.resource_id, members))
        with self._settling(operation_id, outcome):
            self._events.append(Event("role_set", action.resource_id, members))

    def _role_of(self, line_id: UUID) -> UUID | None:
        return next((line.role_id for line in self._lines if line.line_id == line_id), None)

    def _call_of(self, member: Member | None) -> Call | None:
        return self._crew.calls.get(member.crew_call_id) if member else None

    def _send(self, write: Write, call: Callable[[], Outcome]) -> tuple[int, Outcome]:
        """Journal a write, then make it; the outcome is done or refused, and not settled yet."""
        with self._writing():
            operation_id = gate.sent(self._conn, self._gate, write)
        try:
            outcome = call()
        except Stopped as stopped:
            with self._settling(operation_id, Outcome("refused", reason=str(stopped))):
                pass
            raise
        if outcome.kind == "unknown":
            operations = [*(each.operation_id for each in self._unproven), operation_id]
            self._unproven = []
            self._doubt(operations, outcome.reason)
            raise _InDoubt(outcome.reason)
        return operation_id, outcome

    def _refused(self, operation_id: int, outcome: Outcome, event: Event) -> None:
        with self._settling(operation_id, outcome):
            self._events.append(event)
        (self._problems if event.kind in FAILED else self._notes).append(outcome.reason)

    def _doubt(self, operations: Sequence[int], reason: str) -> None:
        with self._conn.transaction():
            gate.doubt(self._conn, self._id, operations, reason)

    @contextmanager
    def _settling(self, operation_id: int, outcome: Outcome) -> Iterator[None]:
        """The transaction that settles an operation; the gate stands for what isn't proven yet."""
        with self._conn.transaction():
            gate.settle(self._conn, operation_id, outcome)
            gate.stand(self._conn, self._gate, self._unproven[-1].operation_id if self._unproven else None)
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction while nobody stopped us, the gate is ours and the crew is as read. Raises _Changed."""
        with self._worker.fenced(self._conn):
            gate.require(self._conn, self._gate)
            if desired.token(self._conn, self._id) != self._crew.token:
                raise _Changed
            yield

    def _put(self, line_id: UUID, members: Iterable[Member]) -> None:
        """Have rows name a line. Where call or person are gone there is none: the line stays ours without."""
        for member in members:
            self._conn.execute(PUT, self._named(member) | {"line": line_id})

    def _drop(self, members: Iterable[Member]) -> None:
        for member in members:
            self._conn.execute(DROP, self._named(member))

    def _named(self, member: Member) -> dict[str, UUID | int]:
        return {"call": member.crew_call_id, "technician": member.technician_id, "sync_id": self._worker.sync_id}


def _lines_of(resource_id: UUID, lines: Collection[Line]) -> list[UUID]:
    return [line.line_id for line in lines if line.kind == CONTACT and line.resource_id == resource_id]
