"""The writes to one crew call in Flex: journaled before they are sent, proven by a read, then stored in our tables."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from include.api.errors import FixConfiguration
from include.sources.flex import assignments, calls, desired, gate
from include.sources.flex.calls import Outcome, Stopped
from include.sources.flex.desired import Call, Crew
from include.sources.flex.gate import Gate, Write
from include.sources.flex.look import Looked
from include.sources.flex.plan import Add, Member, Plan, Remove, SetRole, key
from include.sources.flex.proof import Proof, prove
from include.sources.flex.report import FAILED, Event, Kind
from include.sources.flex.rows import Line
from include.sources.flex.sent import Sent
from include.sources.flex.worker import Worker
from include.warehouse import refusals

KINDS: dict[type | str, dict[str, Kind]] = {
    Add: {"done": "added", "refused": "add_failed"},
    Remove: {"done": "removed", "refused": "remove_failed"},
    "prune": {"done": "pruned", "refused": "prune_failed"},
    SetRole: {"done": "role_set", "refused": "role_failed"},
}


class Changed(Exception):
    """The desired crew has changed since it was read."""


class Lost(Exception):
    """The answer to a write does not say whether it happened. `key`: the name of the action (`plan.key`)."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class InDoubt(Exception):
    """Nobody knows whether a write happened. The gate is uncertain already."""


@dataclass
class Work:
    """The work on a crew call: what it rests on, and what has come of it.

    - `crew`, `looked`, `plan`: the desired crew, the lines in Flex and the plan, as they were last read and made
    - `shown`: the lines as the newest read shows them
    - `events`: of all passes. The rest is of the present one:
    - `problems`, `waiting`, `orphans_left`: lines for the report
    - `named`: rows that were written, with the line that each names
    - `row_error`: why the rows of proven writes could not be stored
    """

    crew: Crew | None = None
    looked: Looked = field(default_factory=lambda: Looked(()))
    plan: Plan = field(default_factory=lambda: Plan((), (), (), ()))
    shown: Sequence[Line] = ()
    events: list[Event] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    orphans_left: list[str] = field(default_factory=list)
    named: dict[Member, UUID] = field(default_factory=dict)
    row_error: psycopg.Error | None = None

    def begin_pass(self) -> None:
        """Forget what came of the pass before."""
        self.problems, self.waiting, self.orphans_left, self.named, self.row_error = [], [], [], {}, None


class Writes:
    """Writes to one crew call whose gate is claimed, and to our rows. `work` is shared with who plans them."""

    def __init__(self, worker: Worker, held: Gate, work: Work) -> None:
        self._worker, self._gate, self._work = worker, held, work
        self._api, self._conn, self._id = worker.api, worker.conn, held.element_id
        self._sent: list[Sent] = []

    def add(self, action: Add) -> Iterator[SetRole]:
        """Add a line. Yield the role to be written after that, if the answer names the line."""
        member = action.members[0]
        outcome = self._send(
            action,
            Write("add", None, action.resource_id, member, call=self._call_of(member)),
            lambda: self._unknown_unless_new(calls.add(self._api, self._id, action.resource_id)),
        )
        if outcome.kind == "done" and action.role_id:
            yield SetRole(outcome.line_id, action.resource_id, action.role_id)

    def _unknown_unless_new(self, outcome: Outcome) -> Outcome:
        """Return the outcome of an add, `unknown` if its answer names the crew call, or a line of before."""
        known = self._work.crew.mapped | {line.line_id for line in self._work.looked.lines} | {self._id}
        if outcome.line_id in known | {each.outcome.line_id for each in self._sent} - {None}:
            return Outcome("unknown", reason="the answer to an add names no new line")
        return outcome

    def remove(self, action: Remove) -> None:
        """Delete a line in Flex."""
        member = next(iter(action.members), None)
        role_id, call = self._role_of(action.line_id), self._call_of(member)
        self._send(
            action,
            Write("remove", action.line_id, action.resource_id, member, role_id, call=call),
            lambda: calls.remove(self._api, action.line_id),
        )

    def set_role(self, action: SetRole) -> None:
        """Write the business role of a line."""
        member = next(iter(self._members_of(action)), None)
        before, call = self._role_of(action.line_id), self._call_of(member)
        self._send(
            action,
            Write(
                "role",
                action.line_id,
                action.resource_id,
                member,
                role_before=before,
                role_after=action.role_id,
                call=call,
            ),
            lambda: calls.set_role(self._api, self._id, action.line_id, action.role_id),
        )

    def _members_of(self, action: Add | Remove | SetRole) -> tuple[Member, ...]:
        if not isinstance(action, SetRole):
            return action.members
        return tuple(each.member for each in self._work.crew.desired if each.resource_id == action.resource_id)

    def _role_of(self, line_id: UUID) -> UUID | None:
        return next((line.role_id for line in self._work.looked.lines if line.line_id == line_id), None)

    def _call_of(self, member: Member | None) -> Call | None:
        return self._work.crew.calls.get(member.crew_call_id) if member else None

    def _send(self, action: Add | Remove | SetRole, write: Write, call: Callable[[], Outcome]) -> Outcome:
        """Journal a write, then send it. Raises Lost if it may have happened: nothing more is sent then."""
        with self.writing():
            operation_id = gate.journal_write(self._conn, self._gate, write)
        try:
            outcome = call()
        except Stopped as stopped:
            self._answered(operation_id, action, Outcome("refused", reason=str(stopped)))
            raise
        self._answered(operation_id, action, outcome)
        # The work goes on after a lost answer about an orphan.
        if outcome.kind == "unknown" and not (isinstance(action, Remove) and action.orphan):
            raise Lost(key(action))
        return outcome

    def _answered(self, operation_id: int, action: Add | Remove | SetRole, outcome: Outcome) -> None:
        gate.journal_answer(self._conn, operation_id, outcome)
        self._sent.append(Sent(operation_id, action, outcome))

    @contextmanager
    def proving(self) -> Iterator[None]:
        """Prove what was sent in the block by a read, even if the block fails. Raises InDoubt.

        Raises psycopg.Error if rows can't be stored. What was proven to be done in Flex is stored all the same.
        """
        try:
            yield
        except BaseException:
            self._prove()
            raise
        self._prove()
        if self._work.row_error:
            raise self._work.row_error

    def _prove(self) -> None:
        """Prove the writes that were sent and store their outcomes. Raises InDoubt if an outcome is unknown.

        Raises FixConfiguration if the lines can't be read because of the configuration; the outcomes are stored first.
        """
        sent, self._sent = self._sent, []
        if not sent:
            return
        pauses = self._worker.pauses
        proof = prove(
            self._api, self._id, sent, before=self._work.looked.lines, mapped=self._work.crew.mapped, pauses=pauses
        )
        unknown = proof.unknown
        reasons = "; ".join(sorted({outcome.reason for outcome in unknown.values()}))
        try:
            self._store(proof, reasons, with_rows=True)
        except psycopg.Error as error:
            if not refusals.concerns_one(error):
                raise
            self._work.row_error = error
            # Otherwise nobody would know any more what was done in Flex. The next sync writes the rows.
            self._store(proof, reasons, with_rows=False)
        for write, outcome in proof.outcomes:
            self._add_event(write, outcome)
        self._work.shown = self._work.shown if proof.lines is None else proof.lines
        if isinstance(proof.read_error, FixConfiguration):
            raise proof.read_error
        if unknown:
            raise InDoubt(f"{reasons} ({len(unknown)} of {len(sent)} writes)")

    def _store(self, proof: Proof, reasons: str, *, with_rows: bool) -> None:
        """Store the outcomes in one transaction, with our rows or without."""
        with self._conn.transaction():
            for write, outcome in proof.outcomes:
                if outcome.kind != "unknown":
                    gate.settle(self._conn, write.operation_id, outcome)
                if outcome.kind == "done":
                    self._store_done(write, outcome)
                if outcome.kind == "done" and with_rows:
                    self._store_rows(write, outcome)
            if proof.unknown:
                gate.mark_uncertain(self._conn, self._id, list(proof.unknown), reasons)
            else:
                gate.set_open_operation(self._conn, self._gate, None)

    def _store_done(self, each: Sent, outcome: Outcome) -> None:
        """Store which line a write has made or deleted in Flex."""
        match each.action:
            case Add() as action:
                member = action.members[0]
                call, sync_id = self._work.crew.calls[member.crew_call_id], self._worker.sync_id
                assignments.record_own_line(
                    self._conn, outcome.line_id, self._id, action.resource_id, call, member, sync_id
                )
            case Remove() as action:
                assignments.mark_gone(self._conn, [action.line_id])

    def _store_rows(self, each: Sent, outcome: Outcome) -> None:
        """Change our rows as a write has changed Flex."""
        match each.action:
            case Add() as action:
                self.put(outcome.line_id, action.members)
            case Remove() as action:
                self.drop(action.members)

    def _add_event(self, each: Sent, outcome: Outcome) -> None:
        """Add the event of a write to the report. A write of unknown outcome has none: the gate is uncertain then."""
        kinds: dict[str, Kind] = KINDS["prune" if getattr(each.action, "orphan", False) else type(each.action)]
        if outcome.kind in kinds:
            kind = kinds[outcome.kind]
            self._work.events.append(Event(kind, each.action.resource_id, self._members_of(each.action)))
            if outcome.kind == "refused":
                (self._work.problems if kind in FAILED else self._work.orphans_left).append(outcome.reason)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Open a transaction that may write. Raises FenceError, GateLost, or Changed if the crew is not as read."""
        with self._worker.fenced(self._conn):
            gate.require_claim(self._conn, self._gate)
            if desired.fingerprint(self._conn, self._id) != self._work.crew.fingerprint:
                raise Changed
            yield

    def put(self, line_id: UUID | None, members: Iterable[Member]) -> None:
        """Write the rows of these members, naming the line."""
        for member in members:
            assignments.put(self._conn, member, line_id, self._worker.sync_id)
            self._work.named[member] = line_id

    def drop(self, members: Iterable[Member]) -> None:
        for member in members:
            assignments.drop(self._conn, member, self._worker.sync_id)
