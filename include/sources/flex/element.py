"""Bring one crew call in Flex to the desired crew, from the claim of its gate to the release.

What happened in Flex is stored even if the writer was stopped meanwhile: the stop came too late to prevent it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

import psycopg

from include.api.errors import FixConfiguration, NotFound, NotSent, TryLater
from include.sources.flex import assignments, calls, desired, gate, row_errors
from include.sources.flex.calls import Outcome, Stopped
from include.sources.flex.desired import Call, Crew
from include.sources.flex.gate import Gate, GateClosed, GateLost, Write
from include.sources.flex.look import (
    Looked,
    confirmed,
    look,
    require_any_shown,
    require_same,
    require_there,
    retry_unreadable,
)
from include.sources.flex.plan import (
    Add,
    Adopt,
    Forget,
    Member,
    Plan,
    Remap,
    Remove,
    SetRole,
    back_key,
    held,
    key,
    stale_key,
    why_held,
)
from include.sources.flex.planner import Planner, wanted
from include.sources.flex.proof import Proof, prove
from include.sources.flex.report import FAILED, Event, Kind, Report, State
from include.sources.flex.rows import Line, Unreadable
from include.sources.flex.sent import Sent
from include.sources.flex.worker import Worker
from include.warehouse.fence import FenceError

# How often the work is begun again because people have changed the crew meanwhile.
PASSES = 8


class _Changed(Exception):
    """The desired crew has changed since it was read."""


class _Lost(Exception):
    """The answer to a write does not say whether it happened. `key`: the name of the action (`plan.key`)."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class _InDoubt(Exception):
    """Nobody knows whether a write happened. The gate is uncertain already."""


def sync_element(worker: Worker, element_id: UUID, planner: Planner = wanted, *, believes_gone: bool = False) -> Report:
    """Bring one element to the desired crew, or do what another `planner` plans. Errors become states of the report.

    `believes_gone`: a person says that our lines may be gone from all crew calls.
    """
    began = time.monotonic()
    try:
        with gate.claimed(worker.conn, element_id, worker.run, worker.sync_id) as held:
            report = _Element(worker, held, planner, believes_gone=believes_gone).run()
    except GateClosed as closed:
        report = Report(element_id, closed.state, problems=(str(closed),))
    return replace(report, seconds=time.monotonic() - began)


class _Element:
    """The work on one element whose gate is claimed."""

    def __init__(self, worker: Worker, held: Gate, planner: Planner, *, believes_gone: bool) -> None:
        self._worker, self._gate, self._planner = worker, held, planner
        self._believes_gone = believes_gone
        self._api, self._conn, self._id = worker.api, worker.conn, held.element_id
        self._events: list[Event] = []
        self._problems: list[str] = []
        self._orphans_left: list[str] = []
        self._waiting: list[str] = []
        self._called_for: set[str] = set()
        self._sent: list[Sent] = []
        # Rows that were written in this pass, with the line that each names.
        self._named: dict[Member, UUID] = {}
        self._crew: Crew | None = None
        self._looked = Looked(())
        # The lines as the newest read shows them.
        self._shown: Sequence[Line] = ()
        self._plan = Plan((), (), (), ())
        # Why the rows of proven writes could not be stored.
        self._row_error: psycopg.Error | None = None

    def run(self) -> Report:
        """Read, plan and write, again if the crew changes meanwhile; return the report."""
        try:
            return self._report(self._passes())
        except (FixConfiguration, FenceError, GateLost, NotSent) as error:
            return replace(self._report("stopped", f"element {self._id}: {error}"), stop=error)
        except _InDoubt as doubt:
            reason = str(doubt).rstrip(".")
            return self._report("uncertain", f"element {self._id} is uncertain: {reason}. {gate.RELEASE}")
        except (Unreadable, NotFound, TryLater) as error:
            report = self._report("unreadable", f"element {self._id} could not be read: {error}")
            return replace(report, answered=not isinstance(error, TryLater))
        except psycopg.Error as error:
            if not row_errors.concerns_one(error):
                raise
            return self._report("failed", row_errors.told(self._id, error))

    def _passes(self) -> State:
        """Read, plan and write; return the state to report.

        Begin again if the desired crew has changed meanwhile, or once a write is proven whose answer was lost.
        """
        changes, lost = 0, set[str]()
        while changes < PASSES:
            self._problems, self._orphans_left, self._waiting, self._named = [], [], [], {}
            self._row_error = None
            try:
                self._read()
                if self._plan.refusals:
                    self._problems += self._plan.refusals
                    return "refused"
                self._carry_out()
            except _Lost as proven:
                # If the same write is lost twice, something has taken it back.
                changes += proven.key in lost
                lost.add(proven.key)
                continue
            except _Changed:
                changes += 1
                continue
            self._add_kept_events()
            state: State = "failed" if self._problems else "waiting" if self._waiting else "done"
            self._problems += self._waiting
            return state
        self._problems.append(f"element {self._id} changed {PASSES} times while it was synced. Run the sync again")
        return "changed"

    def _report(self, state: State, *problems: str) -> Report:
        diagnostics = (*(self._crew.diagnostics if self._crew else ()), *self._plan.diagnostics, *self._orphans_left)
        return Report(
            self._id,
            state,
            events=tuple(self._events),
            findings=self._plan.findings,
            problems=(*self._problems, *problems),
            diagnostics=diagnostics,
            crew=self._crew,
            lines=len(self._looked.lines),
            called_for=frozenset(self._called_for),
            orphans_left=tuple(self._orphans_left),
            agreed=self._looked.agreed,
        )

    def _read(self) -> None:
        """Read the crew and both lists of Flex, store lines that are gone or back, and plan."""
        self._crew = desired.crew(self._conn, self._id, self._worker.roles)
        self._looked = retry_unreadable(self._worker.pauses, self._look)
        self._shown = self._looked.lines
        if self._store_gone_and_back() or self._learn_contacts():
            self._crew = desired.crew(self._conn, self._id, self._worker.roles)
        if self._planner is wanted and self._crew.over and not self._looked.exists:
            # Else a change of a person would be tried for ever on all the old crew calls that Flex has deleted.
            require_any_shown(self._api, desired.others(self._conn, self._id))
            self._plan = Plan((), (), (), (f"Flex has no element {self._id} any more, and its jobs are over",))
            return
        require_there(self._looked, self._id, self._crew)
        self._plan = self._planner(self._crew, self._looked.lines)
        self._called_for |= {key(action) for action in self._plan.actions}

    def _look(self) -> Looked:
        """Return the lines in Flex. If there is anything to do, read them again until the plan rests on two reads.

        Raises Unreadable if the reads disagree.
        """
        believes_gone = self._believes_gone
        looked = look(self._api, self._conn, self._id, self._crew, self._worker.pauses, believes_gone=believes_gone)
        actions = self._planner(self._crew, looked.lines).actions
        # A line that is back counts as ours, so there may be more to do. Both lists have to tell whose a line is.
        if not actions and not looked.back and not self._crew.learnable(looked.lines):
            return looked
        if not looked.agreed:
            looked = confirmed(self._api, self._id, looked)
        # The record does not show roles, so these take another read of the rows.
        if not looked.agreed_on_contacts or any(isinstance(action, SetRole) for action in actions):
            require_same(self._api, self._id, self._crew, looked)
        return looked

    def _store_gone_and_back(self) -> bool:
        """Store which lines are gone or back, and drop our rows that name gone lines. Return whether it did any."""
        gone, back = self._looked.gone, self._looked.back
        lost = (gone | self._crew.gone.keys() | self._crew.gone_elsewhere) - back
        stale = [row for row in self._crew.rows if row.line_id in lost]
        if not (gone or back or stale):
            return False
        with self._writing():
            self._drop(row.member for row in stale)
            assignments.mark_gone(self._conn, gone)
            assignments.mark_back(self._conn, back)
        self._called_for |= {*(stale_key(row.member) for row in stale), *map(back_key, back)}
        self._events += [Event("stale", row.resource_id, (row.member,)) for row in stale]
        self._events += [Event("back", line.resource_id, ()) for line in self._looked.lines if line.line_id in back]
        return True

    def _learn_contacts(self) -> bool:
        """Store whose lines of ours are, if nobody knew it. Return whether it did any."""
        contacts = self._crew.learnable(self._looked.lines)
        if contacts:
            with self._writing():
                assignments.learn_contacts(self._conn, contacts)
        return bool(contacts)

    def _carry_out(self) -> None:
        """Carry out the plan. If a technician gets another line, the old one is deleted after the new one is proven."""
        actions = self._plan.actions
        self._change_rows([each for each in actions if isinstance(each, Adopt | Remap | Forget)])
        removals = [each for each in actions if isinstance(each, Remove)]
        last = [each for each in removals if each.orphan or each.line_id in self._crew.leaving or self._moving(each)]
        with self._proving():
            for action in removals:
                if action not in last:
                    self._remove(action)
            added = [role for each in actions if isinstance(each, Add) for role in self._add(each)]
            for action in [*added, *(each for each in actions if isinstance(each, SetRole))]:
                self._set_role(action)
        self._require_unchanged(last)
        with self._proving():
            for action in last:
                self._remove_last(action)

    def _remove_last(self, action: Remove) -> None:
        """Delete an orphan, or a line that others replace. It stays if somebody needs it, or if lines lie under it."""
        if self._must_stay(action):
            self._waiting.append(
                f"line {action.line_id} stays on element {self._id} until its technician has the new line"
            )
        elif not action.orphan:
            self._remove(action)
        elif self._worker.prune and action.line_id in held(self._looked.lines):
            self._orphans_left.append(why_held(action.line_id))
            self._events.append(Event("prune_failed", action.resource_id, action.members))
        elif self._worker.prune:
            self._remove(action)

    def _require_unchanged(self, removals: Sequence[Remove]) -> None:
        """Raise _Changed if the read that proved the writes before shows one of the lines with another contact.

        A person has put it there, and so the line is theirs. The same if lines lie under it now, or if it is gone.
        """
        before, now = map(_contacts_by_line, (self._looked.lines, self._shown))
        if any(before[removal.line_id] != now.get(removal.line_id) for removal in removals):
            raise _Changed

    def _moving(self, removal: Remove) -> list[Member]:
        """Return the desired members whose row names this line, and who are to get another one."""
        wanted = {each.member for each in self._crew.desired}
        return [
            row.member
            for row in self._crew.rows
            if row.line_id == removal.line_id and row.member in wanted and row.member not in removal.members
        ]

    def _must_stay(self, removal: Remove) -> bool:
        """Return whether the line has to stay, because its person has no proven line elsewhere yet."""
        return removal.line_id in self._crew.leaving or any(
            self._named.get(member) in (None, removal.line_id) for member in self._moving(removal)
        )

    def _add_kept_events(self) -> None:
        """Add an event `kept` for each contact that was there already."""
        new = {event.resource_id for event in self._events if event.kind == "added"}
        for finding in self._plan.findings:
            if finding.kind in ("matched", "role_mismatch", "missing_row") and finding.resource_id not in new:
                self._events.append(Event("kept", finding.resource_id, finding.members))

    def _change_rows(self, actions: Sequence[Adopt | Remap | Forget]) -> None:
        """Carry out the actions that only change our rows."""
        if not actions:
            return
        there = {line.line_id for line in self._looked.lines}
        with self._writing():
            self._drop(action.member for action in actions if isinstance(action, Forget))
            for action in actions:
                if not isinstance(action, Forget):
                    self._put(action.line_id, [action.member])
                    if action.line_id in there and action.line_id not in self._crew.owned:
                        assignments.record_foreign_line(self._conn, action.line_id, self._id)
        for action in actions:
            match action:
                case Adopt():
                    self._events.append(Event("adopted", action.resource_id, (action.member,)))
                case Remap():
                    self._events.append(Event("remapped", action.resource_id, (action.member,)))
                case Forget():
                    self._events.append(Event("forgotten", None, (action.member,)))

    def _add(self, action: Add) -> Iterator[SetRole]:
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
        known = self._crew.mapped | {line.line_id for line in self._looked.lines} | {self._id}
        if outcome.line_id in known | {each.outcome.line_id for each in self._sent} - {None}:
            return Outcome("unknown", reason="the answer to an add names no new line")
        return outcome

    def _remove(self, action: Remove) -> None:
        """Delete a line in Flex."""
        member = next(iter(action.members), None)
        role_id, call = self._role_of(action.line_id), self._call_of(member)
        self._send(
            action,
            Write("remove", action.line_id, action.resource_id, member, role_id, call=call),
            lambda: calls.remove(self._api, action.line_id),
        )

    def _set_role(self, action: SetRole) -> None:
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
        return tuple(each.member for each in self._crew.desired if each.resource_id == action.resource_id)

    def _role_of(self, line_id: UUID) -> UUID | None:
        return next((line.role_id for line in self._looked.lines if line.line_id == line_id), None)

    def _call_of(self, member: Member | None) -> Call | None:
        return self._crew.calls.get(member.crew_call_id) if member else None

    def _send(self, action: Add | Remove | SetRole, write: Write, call: Callable[[], Outcome]) -> Outcome:
        """Journal a write, then send it. Raises _Lost if it may have happened: nothing more is sent then."""
        with self._writing():
            operation_id = gate.journal_write(self._conn, self._gate, write)
        try:
            outcome = call()
        except Stopped as stopped:
            self._answered(operation_id, action, Outcome("refused", reason=str(stopped)))
            raise
        self._answered(operation_id, action, outcome)
        # The work goes on after a lost answer about an orphan.
        if outcome.kind == "unknown" and not (isinstance(action, Remove) and action.orphan):
            raise _Lost(key(action))
        return outcome

    def _answered(self, operation_id: int, action: Add | Remove | SetRole, outcome: Outcome) -> None:
        gate.journal_answer(self._conn, operation_id, outcome)
        self._sent.append(Sent(operation_id, action, outcome))

    @contextmanager
    def _proving(self) -> Iterator[None]:
        """Prove what was sent in the block by a read, even if the block fails. Raises _InDoubt.

        Raises psycopg.Error if rows can't be stored. What was proven to be done in Flex is stored all the same.
        """
        try:
            yield
        except BaseException:
            self._prove()
            raise
        self._prove()
        if self._row_error:
            raise self._row_error

    def _prove(self) -> None:
        """Prove the writes that were sent and store their outcomes. Raises _InDoubt if an outcome is unknown.

        Raises FixConfiguration if the lines can't be read because of the configuration; the outcomes are stored first.
        """
        sent, self._sent = self._sent, []
        if not sent:
            return
        pauses = self._worker.pauses
        proof = prove(self._api, self._id, sent, before=self._looked.lines, mapped=self._crew.mapped, pauses=pauses)
        unknown = proof.unknown
        reasons = "; ".join(sorted({outcome.reason for outcome in unknown.values()}))
        try:
            self._store(proof, reasons, with_rows=True)
        except psycopg.Error as error:
            if not row_errors.concerns_one(error):
                raise
            self._row_error = error
            # Otherwise nobody would know any more what was done in Flex. The next sync writes the rows.
            self._store(proof, reasons, with_rows=False)
        for write, outcome in proof.outcomes:
            self._add_event(write, outcome)
        self._shown = self._shown if proof.lines is None else proof.lines
        if isinstance(proof.read_error, FixConfiguration):
            raise proof.read_error
        if unknown:
            raise _InDoubt(f"{reasons} ({len(unknown)} of {len(sent)} writes)")

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
                call, sync_id = self._crew.calls[member.crew_call_id], self._worker.sync_id
                assignments.record_own_line(
                    self._conn, outcome.line_id, self._id, action.resource_id, call, member, sync_id
                )
            case Remove() as action:
                assignments.mark_gone(self._conn, [action.line_id])

    def _store_rows(self, each: Sent, outcome: Outcome) -> None:
        """Change our rows as a write has changed Flex."""
        match each.action:
            case Add() as action:
                self._put(outcome.line_id, action.members)
            case Remove() as action:
                self._drop(action.members)

    def _add_event(self, each: Sent, outcome: Outcome) -> None:
        """Add the event of a write to the report. A write of unknown outcome has none: the gate is uncertain then."""
        kinds: dict[str, Kind] = _KINDS["prune" if getattr(each.action, "orphan", False) else type(each.action)]
        if outcome.kind in kinds:
            kind = kinds[outcome.kind]
            self._events.append(Event(kind, each.action.resource_id, self._members_of(each.action)))
            if outcome.kind == "refused":
                (self._problems if kind in FAILED else self._orphans_left).append(outcome.reason)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Open a transaction that may write. Raises FenceError, GateLost, or _Changed if the crew is not as read."""
        with self._worker.fenced(self._conn):
            gate.require_claim(self._conn, self._gate)
            if desired.token(self._conn, self._id) != self._crew.token:
                raise _Changed
            yield

    def _put(self, line_id: UUID | None, members: Iterable[Member]) -> None:
        """Write the rows of these members, naming the line."""
        for member in members:
            assignments.put(self._conn, member, line_id, self._worker.sync_id)
            self._named[member] = line_id

    def _drop(self, members: Iterable[Member]) -> None:
        for member in members:
            assignments.drop(self._conn, member, self._worker.sync_id)


def _contacts_by_line(lines: Sequence[Line]) -> dict[UUID, tuple[UUID | None, bool]]:
    """Return of each line its contact, and whether other lines lie under it."""
    return {line.line_id: (line.resource_id, line.holds) for line in lines}


_KINDS: dict[type | str, dict[str, Kind]] = {
    Add: {"done": "added", "refused": "add_failed"},
    Remove: {"done": "removed", "refused": "remove_failed"},
    "prune": {"done": "pruned", "refused": "prune_failed"},
    SetRole: {"done": "role_set", "refused": "role_failed"},
}
