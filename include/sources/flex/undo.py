"""Rollback: bring Flex and our rows to the state before a sync, by the journal and the audit.

A deleted line comes back as another line of the same contact: Flex gives it a new id, and our rows name that. A change
that can't be undone (a business role where there was none), or that a person has made another one of since, is a
conflict.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import class_row

from include.api.errors import ApiError
from include.sources.base import SyncFailed
from include.sources.flex import calls, desired, element, record
from include.sources.flex.checks import require_unique_key
from include.sources.flex.crews import FlexContext
from include.sources.flex.desired import Crew
from include.sources.flex.plan import ORDER, Action, Add, Adopt, Forget, Member, Plan, Remove, SetRole, spare_held
from include.sources.flex.report import Report
from include.sources.flex.rows import CONTACT, Line, Unreadable
from include.sources.flex.sync import ENTITY, SOURCE, carried_out, require_not_stopped
from include.sources.flex.worker import Worker
from include.warehouse import fence, sync_log
from include.warehouse.rollback import EXAMPLES, Conflict
from include.warehouse.sync_log import Counts

log = logging.getLogger(__name__)

OPERATIONS = """
SELECT o.flex_element_id AS element_id, o.kind, o.flex_line_item_id AS line_id, o.flex_resource_id AS resource_id,
  o.role_before::uuid AS role_before, l.crew_call_id AS call_id, l.technician_id
FROM flex.operation o LEFT JOIN flex.owned_line l USING (flex_line_item_id)
WHERE o.sync_id = %s AND o.state = 'done' ORDER BY o.operation_id
"""

# Each row as the sync found it, and the line that it named at the end.
BEFORE = """
SELECT DISTINCT ON (key) (key ->> 'crew_call_id')::uuid, (key ->> 'technician_id')::uuid, before IS NULL,
  (before ->> 'flex_line_item_id')::uuid, last_value((after ->> 'flex_line_item_id')::uuid) OVER (
    PARTITION BY key ORDER BY change_id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
FROM confidence.change_log WHERE sync_id = %s AND table_name = 'flex.flex_crew_assignments' ORDER BY key, change_id
"""

ELEMENT_OF = "SELECT id, flex_element_id FROM flex.flex_crew_calls WHERE id = ANY (%s)"

# Later successful syncs, and which sync each of them undoes.
SINCE = """
SELECT sync_id, undoes FROM confidence.sync_log
WHERE source = 'flex' AND sync_id > %s AND state = 'success' ORDER BY sync_id DESC
"""

# Later writes to the same contacts, including those that may have happened.
LATER = """
SELECT DISTINCT o.flex_resource_id, later.sync_id FROM flex.operation o
JOIN flex.operation later ON later.flex_element_id = o.flex_element_id AND later.sync_id > o.sync_id
  AND later.flex_resource_id IS NOT DISTINCT FROM o.flex_resource_id AND later.state IN ('sent', 'done', 'unknown')
WHERE o.sync_id = %s AND o.state = 'done' ORDER BY 2, 1
"""

# Rows that were changed again, and rows of others that a later sync has led to a line that would be deleted.
LATER_ROWS = """
SELECT c.key ->> 'technician_id', later.sync_id FROM confidence.change_log c
JOIN confidence.change_log later ON later.table_name = c.table_name AND later.key = c.key AND later.sync_id > c.sync_id
WHERE c.sync_id = %(sync_id)s AND c.table_name = 'flex.flex_crew_assignments'
UNION
SELECT later.key ->> 'technician_id', later.sync_id FROM flex.operation o
JOIN flex.flex_crew_assignments a USING (flex_line_item_id)
JOIN confidence.change_log later ON later.table_name = 'flex.flex_crew_assignments' AND later.sync_id > o.sync_id
  AND later.key = jsonb_build_object('crew_call_id', a.crew_call_id, 'technician_id', a.technician_id)
WHERE o.sync_id = %(sync_id)s AND o.kind = 'add' AND o.state = 'done'
ORDER BY 2, 1
"""

UNSET = """
SELECT o.flex_resource_id FROM flex.operation o
WHERE o.sync_id = %(sync_id)s AND o.kind = 'role' AND o.state = 'done' AND o.role_before IS NULL
  AND NOT EXISTS (SELECT FROM flex.operation a WHERE a.sync_id = o.sync_id AND a.kind = 'add' AND a.state = 'done'
    AND a.flex_line_item_id = o.flex_line_item_id)
"""

# Removed lines whose crew call no longer exists here.
HOMELESS = """
SELECT o.flex_resource_id FROM flex.operation o JOIN flex.owned_line l USING (flex_line_item_id)
WHERE o.sync_id = %s AND o.kind = 'remove' AND o.state = 'done' AND l.made_by IS DISTINCT FROM o.sync_id
  AND NOT EXISTS (SELECT FROM flex.flex_crew_calls WHERE flex_element_id = o.flex_element_id
    AND id = coalesce(o.crew_call_id, l.crew_call_id))
"""

OPEN = """
SELECT flex_element_id FROM flex.element_gate WHERE state <> 'idle' AND (flex_element_id = ANY (%s)
  OR flex_element_id IN (SELECT flex_element_id FROM flex.operation WHERE sync_id = %s))
"""

# Undoing a reset of watermarks: the changes that it skipped wait again. Undoing that skips them again.
WAIT_AGAIN = """
WITH back AS (
  INSERT INTO flex.job_change (change_id, job_id, changed_at) OVERRIDING SYSTEM VALUE
  SELECT (before ->> 'change_id')::bigint, (before ->> 'job_id')::uuid, (before ->> 'changed_at')::timestamptz
  FROM confidence.change_log WHERE sync_id = %(sync_id)s AND table_name = 'flex.job_change' AND operation = 'delete'
  ON CONFLICT DO NOTHING RETURNING *
)
INSERT INTO confidence.change_log (sync_id, table_name, key, operation)
SELECT %(logged_as)s, 'flex.job_change', jsonb_build_object('change_id', change_id), 'insert' FROM back
"""

SKIP = sql.SQL("""
WITH gone AS (DELETE FROM flex.job_change WHERE {which} RETURNING *)
INSERT INTO confidence.change_log (sync_id, table_name, key, operation, before)
SELECT %(logged_as)s, 'flex.job_change', jsonb_build_object('change_id', change_id), 'delete', to_jsonb(gone) FROM gone
""")
SKIP_ALL = SKIP.format(which=sql.SQL("true"))
SKIP_AGAIN = SKIP.format(
    which=sql.SQL(
        "change_id IN (SELECT (key ->> 'change_id')::bigint FROM confidence.change_log"
        " WHERE sync_id = %(sync_id)s AND table_name = 'flex.job_change' AND operation = 'insert')"
    )
)


@dataclass(frozen=True)
class Operation:
    """A write that was done. Call and technician are those for whom we made the line, None if we did not."""

    element_id: UUID
    kind: Literal["add", "remove", "role"]
    line_id: UUID
    resource_id: UUID
    role_before: UUID | None
    call_id: UUID | None
    technician_id: UUID | None


@dataclass(frozen=True)
class RowBefore:
    """A row as the sync found it. `absent`: there was no row. `line_id`: the line that it named, None if none.

    `left`: the line that it named after the sync.
    """

    member: Member
    absent: bool
    line_id: UUID | None
    left: UUID | None


@dataclass(frozen=True)
class Done:
    """What a sync did to one element. `overwrites`: lines with the roles that people have set, and that may be lost."""

    operations: tuple[Operation, ...]
    rows: tuple[RowBefore, ...]
    overwrites: frozenset[tuple[UUID, UUID | None]] = frozenset()

    def net(self) -> tuple[Operation, ...]:
        """Return the net effect of the operations.

        Lines that the sync both added and removed are left out. If a line got several roles, only the first
        operation counts, since it knows the role before the sync. A removed line keeps that role, to be added again
        with it.
        """
        made, removed = self._lines("add"), self._lines("remove")
        roles: dict[UUID, UUID | None] = {}
        found = []
        for each in self.operations:
            if each.line_id in made and (each.kind == "role" or each.line_id in removed):
                continue
            if each.kind == "role":
                if each.line_id not in roles and each.line_id not in removed:
                    found.append(each)
                roles.setdefault(each.line_id, each.role_before)
            elif each.kind == "remove":
                found.append(replace(each, role_before=roles.get(each.line_id, each.role_before)))
            else:
                found.append(each)
        return tuple(found)

    def undoing(self, crew: Crew, lines: Sequence[Line]) -> Plan:
        """Return the plan that undoes it, from what the warehouse knows and Flex shows now."""
        there = {line.line_id: line for line in lines if line.kind == CONTACT}
        # Finds a line again that was removed and added since, under another id.
        still_ours = crew.ours(there.values())
        ours = {line.resource_id: line.line_id for line in there.values() if line.line_id in still_ours}
        named = {row.member: row.line_id for row in crew.rows}
        net = self.net()
        # A line with another contact is a person's.
        now = {each: each.line_id if _shows(there, each) else ours.get(each.resource_id) for each in net}
        made = {now[each] for each in net if each.kind == "add"}
        others = {line.resource_id: line.line_id for line in there.values() if line.line_id not in made}
        back: dict[UUID, UUID] = {}
        actions: list[Action] = []
        theirs = _roles_of_people(net, there, crew.roles) - self.overwrites
        refusals = tuple(
            f"a person has set another business role on line {line_id}. Look at it in Flex, then run the rollback again"
            for line_id, _ in theirs
        )
        for each in net:
            line_id = now[each]
            match each.kind:
                case "add" if line_id in still_ours:
                    # If the rollback is forced, rows of others that a later sync has led there go with the line.
                    going = named.keys() - {row.member for row in self.rows if not row.absent}
                    members = tuple(sorted(member for member in going if named[member] == line_id))
                    actions.append(Remove(line_id, each.resource_id, members, orphan=False))
                case "remove" if each.resource_id in others:
                    back[each.line_id] = others[each.resource_id]
                case "remove":
                    actions += self._made_again(each, crew)
                case "role" if line_id and each.role_before:
                    actions.append(SetRole(line_id, each.resource_id, each.role_before))
        with_line = {member for action in actions if isinstance(action, Add | Remove) for member in action.members}
        rows = [replace(row, line_id=back.get(row.line_id, row.line_id)) for row in self.rows]
        actions += [action for row in rows if row.member not in with_line for action in _put_back(row, crew)]
        in_order = tuple(sorted(actions, key=lambda action: ORDER.index(type(action))))
        return spare_held(Plan((), () if refusals else in_order, refusals, ()), lines)

    def foreseen(self) -> Counts:
        """Return the counts that `undoing` will have, as far as they can be known without asking Flex."""
        net = self.net()
        with_line = {each.line_id for each in net if each.kind != "role"}
        changed = [row for row in self.rows if not row.absent or row.left]
        rows = [row for row in changed if with_line.isdisjoint({row.line_id, row.left})]
        return Counts(
            inserted=sum(each.kind == "remove" for each in net) + sum(not row.absent for row in rows),
            updated=sum(each.kind == "role" and each.role_before is not None for each in net),
            deleted=sum(each.kind == "add" for each in net) + sum(row.absent for row in rows),
        )

    def _lines(self, kind: str) -> set[UUID]:
        return {each.line_id for each in self.operations if each.kind == kind}

    def _made_again(self, operation: Operation, crew: Crew) -> Iterator[Add]:
        led = tuple(row.member for row in self.rows if row.line_id == operation.line_id)
        made_for = (Member(operation.call_id, operation.technician_id),) if operation.call_id else ()
        members = tuple(member for member in led or made_for if member.crew_call_id in crew.calls)
        if members:
            yield Add(operation.resource_id, operation.role_before, members)


@dataclass(frozen=True)
class FlexCopy:
    """Flex and our rows for a rollback. If a later step fails, earlier writes stay: Flex has no transactions.

    `theirs`: lines with the roles that people have set since, as `conflicts` has found them.
    """

    context: FlexContext
    theirs: dict[tuple[UUID, UUID | None], UUID] = field(default_factory=dict)

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()

    def conflicts(self, sync_id: int) -> list[Conflict]:
        """Return what stands against the rollback.

        Conflicts are lines written again since, also by people, writes without an undo, and crew calls that are busy,
        uncertain or can't be read.
        """
        conn = self.context.conn
        void = _void(conn, sync_id)
        later = [*conn.execute(LATER, [sync_id]), *conn.execute(LATER_ROWS, {"sync_id": sync_id})]
        later = [(who, by) for who, by in later if by not in void]
        found = []
        if later:
            syncs = sorted({sync for _, sync in later})
            what = f"contacts or rows by sync_id {', '.join(map(str, syncs))}"
            found.append(_conflict(what, [who for who, _ in later], syncs))
        unread = self._look_for_roles_of_people(sync_id)
        if self.theirs:
            found.append(_conflict("business roles that people have set since", self.theirs.values()))
        if unread:
            found.append(_conflict("crew calls that can't be read now, whose roles people may have set since", unread))
        unset = [who for (who,) in conn.execute(UNSET, {"sync_id": sync_id})]
        if unset:
            found.append(_conflict("business roles that can't be taken away in Flex", unset))
        homeless = [who for (who,) in conn.execute(HOMELESS, [sync_id])]
        if homeless:
            found.append(_conflict("removed contacts whose crew call is gone here", homeless))
        closed = [who for (who,) in conn.execute(OPEN, [list(done(conn, sync_id)), sync_id])]
        if closed:
            found.append(_conflict("crew calls that are busy or uncertain", closed))
        return found

    def _look_for_roles_of_people(self, sync_id: int) -> list[UUID]:
        """Keep the lines in `theirs` whose role a person has changed since; return crew calls that can't be read."""
        conn, unread = self.context.conn, []
        require_unique_key(conn)
        self.theirs.clear()
        for element_id, each in done(conn, sync_id).items():
            net = [operation for operation in each.net() if operation.kind == "role" and operation.role_before]
            if not net:
                continue
            try:
                lines = {line.line_id: line for line in calls.lines(self.context.api, element_id, ())}
            except (Unreadable, ApiError) as error:
                log.info("whether people have set roles on element %s can't be told: %s", element_id, error)
                unread.append(element_id)
                continue
            written = desired.written_roles(conn, element_id)
            self.theirs.update((found, lines[found[0]].resource_id) for found in _roles_of_people(net, lines, written))
        return unread

    def restore(self, sync_id: int, rollback_id: int, *, dry_run: bool) -> Mapping[str, Counts]:
        """Undo what the sync did; return the counts. The caller keeps all other writers out. Raises SyncFailed."""
        conn = self.context.conn
        conn.execute(WAIT_AGAIN, {"sync_id": sync_id, "logged_as": rollback_id})
        conn.execute(SKIP_AGAIN, {"sync_id": sync_id, "logged_as": rollback_id})
        by_element = done(conn, sync_id)
        require_unique_key(conn)
        if dry_run:
            return {ENTITY: sum((each.foreseen() for each in by_element.values()), Counts())}

        def work(worker: Worker, element_id: UUID) -> Report:
            asked_for = replace(by_element[element_id], overwrites=frozenset(self.theirs))
            return element.sync_element(worker, element_id, asked_for.undoing)

        (run,) = conn.execute("SELECT run FROM confidence.sync_log WHERE sync_id = %s", [rollback_id]).fetchone()
        context = replace(self.context, run=run)
        # The caller holds the fence, so a plain transaction is enough.
        reports = list(carried_out(context, by_element, rollback_id, Connection.transaction, work))
        require_not_stopped(reports)
        if problems := [problem for report in reports for problem in report.problems]:
            raise SyncFailed(
                f"not all of sync_id {sync_id} was taken back, what was stands under sync_id {rollback_id}:"
                f" {'; '.join(problems[:EXAMPLES])}"
            )
        return {ENTITY: record.counts(reports)}


def done(conn: Connection, sync_id: int) -> dict[UUID, Done]:
    """Return what the sync did, by element. Rows whose crew call is gone here are left out."""
    with conn.cursor(row_factory=class_row(Operation)) as cursor:
        operations = cursor.execute(OPERATIONS, [sync_id]).fetchall()
    rows = [RowBefore(Member(*found[:2]), *found[2:]) for found in conn.execute(BEFORE, [sync_id])]
    elements = dict(conn.execute(ELEMENT_OF, [list({row.member.crew_call_id for row in rows})]).fetchall())
    named = {each.element_id for each in operations} | set(elements.values())
    return {
        element_id: Done(
            tuple(each for each in operations if each.element_id == element_id),
            tuple(row for row in rows if elements.get(row.member.crew_call_id) == element_id),
        )
        for element_id in named
    }


def skip_changes(context: FlexContext) -> int:
    """Delete the changes that no sync has brought to Flex yet; return the sync_id of this. A rollback restores them.

    The nightly scan still finds the differences that they stand for.
    """
    conn = context.conn
    writer = fence.require_stopped(conn, SOURCE, context.run)
    sync_id = sync_log.begin(conn, SOURCE, "watermark", context.run, reason="reset_watermark")
    with fence.writing(conn, SOURCE, epoch=writer.epoch, run=context.run):
        (now,) = conn.execute("SELECT clock_timestamp()").fetchone()
        conn.execute(SKIP_ALL, {"logged_as": sync_id})
        # A watermark that was never set stays unset: the first sync has to bring everything in step.
        if sync_log.state(conn, SOURCE, ENTITY).watermark:
            sync_log.advance(conn, sync_id, SOURCE, ENTITY, watermark=now)
    sync_log.finish(conn, sync_id, {})
    return sync_id


def _shows(lines: Mapping[UUID, Line], operation: Operation) -> bool:
    """Return whether the operation's line is there, with the operation's contact."""
    line = lines.get(operation.line_id)
    return line is not None and line.resource_id == operation.resource_id


def _roles_of_people(
    net: Iterable[Operation], lines: Mapping[UUID, Line], written: Mapping[UUID, UUID]
) -> set[tuple[UUID, UUID | None]]:
    """Return the lines that show neither the role before the operation nor the one that we wrote last, with theirs."""
    return {
        (each.line_id, lines[each.line_id].role_id)
        for each in net
        if each.kind == "role" and each.role_before and _shows(lines, each)
        if lines[each.line_id].role_id not in (each.role_before, written.get(each.line_id))
    }


def _put_back(row: RowBefore, crew: Crew) -> Iterator[Action]:
    """Yield the action that makes our row what it was before; none if it is so already."""
    present = {found.member: found.line_id for found in crew.rows}
    if row.absent and row.member in present:
        yield Forget(row.member)
    elif not row.absent and (row.member not in present or present[row.member] != row.line_id):
        yield Adopt(row.member, row.line_id, None)


def _void(conn: Connection, sync_id: int) -> set[int]:
    """Return the later syncs that were undone, with the rollbacks that undid them: each pair changed nothing."""
    void: set[int] = set()
    for later, undoes in conn.execute(SINCE, [sync_id]):
        if later not in void and undoes and undoes > sync_id:
            void |= {later, undoes}
    return void


def _conflict(what: str, who: Collection[Any], later: Sequence[int] = ()) -> Conflict:
    return Conflict.of(what, list(dict.fromkeys(str(each) for each in who)), later)
