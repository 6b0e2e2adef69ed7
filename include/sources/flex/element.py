"""Bring one crew call in Flex to the desired crew, from the claim of its gate to the release.

What happened in Flex is stored even if the writer was stopped meanwhile: the stop came too late to prevent it.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import psycopg

from include.api.errors import FixConfiguration, NotFound, NotSent, TryLater
from include.sources.flex import assignments, desired, gate, row_errors
from include.sources.flex.gate import Gate, GateClosed, GateLost
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
from include.sources.flex.report import Event, Report, State
from include.sources.flex.rows import Line, Unreadable
from include.sources.flex.worker import Worker
from include.sources.flex.writes import Changed, InDoubt, Lost, Work, Writes
from include.warehouse import refusals
from include.warehouse.fence import FenceError

# How often the work is begun again because people have changed the crew meanwhile.
PASSES = 8


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
        self._work = Work()
        self._writes = Writes(worker, held, self._work)
        self._called_for: set[str] = set()

    def run(self) -> Report:
        """Read, plan and write, again if the crew changes meanwhile; return the report."""
        try:
            return self._report(self._passes())
        except (FixConfiguration, FenceError, GateLost, NotSent) as error:
            return replace(self._report("stopped", f"element {self._id}: {error}"), stop=error)
        except InDoubt as doubt:
            reason = str(doubt).rstrip(".")
            return self._report("uncertain", f"element {self._id} is uncertain: {reason}. {gate.RELEASE}")
        except (Unreadable, NotFound, TryLater) as error:
            report = self._report("unreadable", f"element {self._id} could not be read: {error}")
            return replace(report, answered=not isinstance(error, TryLater))
        except psycopg.Error as error:
            if not refusals.concerns_one(error):
                raise
            return self._report("failed", row_errors.told(self._id, error))

    def _passes(self) -> State:
        """Read, plan and write; return the state to report.

        Begin again if the desired crew has changed meanwhile, or once a write is proven whose answer was lost.
        """
        changes, lost = 0, set[str]()
        while changes < PASSES:
            self._work.begin_pass()
            try:
                self._read()
                if self._work.plan.refusals:
                    self._work.problems += self._work.plan.refusals
                    return "refused"
                self._carry_out()
            except Lost as proven:
                # If the same write is lost twice, something has taken it back.
                changes += proven.key in lost
                lost.add(proven.key)
                continue
            except Changed:
                changes += 1
                continue
            self._add_kept_events()
            state: State = "failed" if self._work.problems else "waiting" if self._work.waiting else "done"
            self._work.problems += self._work.waiting
            return state
        self._work.problems.append(f"element {self._id} changed {PASSES} times while it was synced. Run the sync again")
        return "changed"

    def _report(self, state: State, *problems: str) -> Report:
        diagnostics = (
            *(self._work.crew.diagnostics if self._work.crew else ()),
            *self._work.plan.diagnostics,
            *self._work.orphans_left,
        )
        return Report(
            self._id,
            state,
            events=tuple(self._work.events),
            findings=self._work.plan.findings,
            problems=(*self._work.problems, *problems),
            diagnostics=diagnostics,
            crew=self._work.crew,
            lines=len(self._work.looked.lines),
            called_for=frozenset(self._called_for),
            orphans_left=tuple(self._work.orphans_left),
            agreed=self._work.looked.agreed,
        )

    def _read(self) -> None:
        """Read the crew and both lists of Flex, store lines that are gone or back, and plan."""
        self._work.crew = desired.crew(self._conn, self._id, self._worker.roles)
        self._work.looked = retry_unreadable(self._worker.pauses, self._look)
        self._work.shown = self._work.looked.lines
        if self._store_gone_and_back() or self._learn_contacts():
            self._work.crew = desired.crew(self._conn, self._id, self._worker.roles)
        if self._planner is wanted and self._work.crew.over and not self._work.looked.exists:
            # Else a change of a person would be tried for ever on all the old crew calls that Flex has deleted.
            require_any_shown(self._api, desired.lines_elsewhere(self._conn, self._id))
            self._work.plan = Plan((), (), (), (f"Flex has no element {self._id} any more, and its jobs are over",))
            return
        require_there(self._work.looked, self._id, self._work.crew)
        self._work.plan = self._planner(self._work.crew, self._work.looked.lines)
        self._called_for |= {key(action) for action in self._work.plan.actions}

    def _look(self) -> Looked:
        """Return the lines in Flex. If there is anything to do, read them again until the plan rests on two reads.

        Raises Unreadable if the reads disagree.
        """
        believes_gone = self._believes_gone
        looked = look(
            self._api, self._conn, self._id, self._work.crew, self._worker.pauses, believes_gone=believes_gone
        )
        actions = self._planner(self._work.crew, looked.lines).actions
        # A line that is back counts as ours, so there may be more to do. Both lists have to tell whose a line is.
        if not actions and not looked.back and not self._work.crew.learnable(looked.lines):
            return looked
        if not looked.agreed:
            looked = confirmed(self._api, self._id, looked)
        # The record does not show roles, so these take another read of the rows.
        if not looked.agreed_on_contacts or any(isinstance(action, SetRole) for action in actions):
            require_same(self._api, self._id, self._work.crew, looked)
        return looked

    def _store_gone_and_back(self) -> bool:
        """Store which lines are gone or back, and drop our rows that name gone lines. Return whether it did any."""
        gone, back = self._work.looked.gone, self._work.looked.back
        lost = (gone | self._work.crew.gone.keys() | self._work.crew.gone_elsewhere) - back
        stale = [row for row in self._work.crew.rows if row.line_id in lost]
        if not (gone or back or stale):
            return False
        with self._writes.writing():
            self._writes.drop(row.member for row in stale)
            assignments.mark_gone(self._conn, gone)
            assignments.mark_back(self._conn, back)
        self._called_for |= {*(stale_key(row.member) for row in stale), *map(back_key, back)}
        self._work.events += [Event("stale", row.resource_id, (row.member,)) for row in stale]
        self._work.events += [
            Event("back", line.resource_id, ()) for line in self._work.looked.lines if line.line_id in back
        ]
        return True

    def _learn_contacts(self) -> bool:
        """Store whose lines of ours are, if nobody knew it. Return whether it did any."""
        contacts = self._work.crew.learnable(self._work.looked.lines)
        if contacts:
            with self._writes.writing():
                assignments.learn_contacts(self._conn, contacts)
        return bool(contacts)

    def _carry_out(self) -> None:
        """Carry out the plan. If a technician gets another line, the old one is deleted after the new one is proven."""
        actions = self._work.plan.actions
        self._change_rows([each for each in actions if isinstance(each, Adopt | Remap | Forget)])
        removals = [each for each in actions if isinstance(each, Remove)]
        last = [
            each for each in removals if each.orphan or each.line_id in self._work.crew.leaving or self._moving(each)
        ]
        with self._writes.proving():
            for action in removals:
                if action not in last:
                    self._writes.remove(action)
            added = [role for each in actions if isinstance(each, Add) for role in self._writes.add(each)]
            for action in [*added, *(each for each in actions if isinstance(each, SetRole))]:
                self._writes.set_role(action)
        self._require_unchanged(last)
        with self._writes.proving():
            for action in last:
                self._remove_last(action)

    def _remove_last(self, action: Remove) -> None:
        """Delete an orphan, or a line that others replace. It stays if somebody needs it, or if lines lie under it."""
        if self._must_stay(action):
            self._work.waiting.append(
                f"line {action.line_id} stays on element {self._id} until its technician has the new line"
            )
        elif not action.orphan:
            self._writes.remove(action)
        elif self._worker.prune and action.line_id in held(self._work.looked.lines):
            self._work.orphans_left.append(why_held(action.line_id))
            self._work.events.append(Event("prune_failed", action.resource_id, action.members))
        elif self._worker.prune:
            self._writes.remove(action)

    def _require_unchanged(self, removals: Sequence[Remove]) -> None:
        """Raise Changed if the read that proved the writes before shows one of the lines with another contact.

        A person has put it there, and so the line is theirs. The same if lines lie under it now, or if it is gone.
        """
        before, now = map(_contacts_by_line, (self._work.looked.lines, self._work.shown))
        if any(before[removal.line_id] != now.get(removal.line_id) for removal in removals):
            raise Changed

    def _moving(self, removal: Remove) -> list[Member]:
        """Return the desired members whose row names this line, and who are to get another one."""
        wanted = {each.member for each in self._work.crew.desired}
        return [
            row.member
            for row in self._work.crew.rows
            if row.line_id == removal.line_id and row.member in wanted and row.member not in removal.members
        ]

    def _must_stay(self, removal: Remove) -> bool:
        """Return whether the line has to stay, because its person has no proven line elsewhere yet."""
        return removal.line_id in self._work.crew.leaving or any(
            self._work.named.get(member) in (None, removal.line_id) for member in self._moving(removal)
        )

    def _add_kept_events(self) -> None:
        """Add an event `kept` for each contact that was there already."""
        new = {event.resource_id for event in self._work.events if event.kind == "added"}
        for finding in self._work.plan.findings:
            if finding.kind in ("matched", "role_mismatch", "missing_row") and finding.resource_id not in new:
                self._work.events.append(Event("kept", finding.resource_id, finding.members))

    def _change_rows(self, actions: Sequence[Adopt | Remap | Forget]) -> None:
        """Carry out the actions that only change our rows."""
        if not actions:
            return
        there = {line.line_id for line in self._work.looked.lines}
        with self._writes.writing():
            self._writes.drop(action.member for action in actions if isinstance(action, Forget))
            for action in actions:
                if not isinstance(action, Forget):
                    self._writes.put(action.line_id, [action.member])
                    if action.line_id in there and action.line_id not in self._work.crew.owned:
                        assignments.record_foreign_line(self._conn, action.line_id, self._id)
        for action in actions:
            match action:
                case Adopt():
                    self._work.events.append(Event("adopted", action.resource_id, (action.member,)))
                case Remap():
                    self._work.events.append(Event("remapped", action.resource_id, (action.member,)))
                case Forget():
                    self._work.events.append(Event("forgotten", None, (action.member,)))


def _contacts_by_line(lines: Sequence[Line]) -> dict[UUID, tuple[UUID | None, bool]]:
    """Return of each line its contact, and whether other lines lie under it."""
    return {line.line_id: (line.resource_id, line.holds) for line in lines}
