"""The scan: every crew call of the scope read once and compared with the desired crew; nothing is written to Flex."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args
from uuid import UUID

from psycopg import Connection
from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb

from include.api.errors import NotFound
from include.confidence import history
from include.confidence.summary import ForensicSummary, Plan
from include.sources.flex import calls, desired
from include.sources.flex.crews import Context, Scope, each
from include.sources.flex.desired import Crew
from include.sources.flex.element import wanted
from include.sources.flex.plan import Action, Add, Adopt, Class, Finding, Member, Remap, Remove, SetRole, key
from include.sources.flex.rows import Line, Unreadable
from include.sources.flex.sync import ENTITY, SOURCE

log = logging.getLogger(__name__)

EXAMPLES = 5
PROGRESS_EVERY = 50

CLASSES: tuple[str, ...] = get_args(Class)
# What a crew call may be like as a whole, counted in crew calls, and rows of ours whose line is gone.
WHOLE = ("unreadable", "refused", "uncertain", "stale_rows")
SIZES = ("crew_calls", "lines", "desired", "rows")

# Nobody knows what such an element is like until the writer has claimed or released it: what a gate stands for is sent,
# unproven or unknown.
UNCERTAIN = "SELECT flex_element_id FROM flex.element_gate WHERE operation_id IS NOT NULL"

KEEP = """
INSERT INTO flex.element_scan (scan_id, flex_element_id, figures, examples, planned) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""

FIGURES = """
SELECT f.key, sum(f.value::bigint)::bigint FROM flex.element_scan, jsonb_each_text(figures) f
WHERE scan_id = %s GROUP BY 1
"""

SAMPLES = """
SELECT e.key, (array_agg(i.id ORDER BY i.id))[1:%s]
FROM flex.element_scan, jsonb_each(examples) e, jsonb_array_elements_text(e.value) i (id)
WHERE scan_id = %s GROUP BY 1
"""

PLANNED = """
SELECT count(*) FILTER (WHERE p.value = 'insert'), count(*) FILTER (WHERE p.value = 'update'),
  count(*) FILTER (WHERE p.value = 'delete')
FROM flex.element_scan, jsonb_each_text(planned) p WHERE scan_id = %s
"""


@dataclass(frozen=True)
class Seen:
    """One crew call as the scan saw it.

    `planned`: what a repair would do (`plan.key`), each with the kind of change that it is.
    """

    element_id: UUID
    figures: Mapping[str, int]
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    planned: Mapping[str, str] = field(default_factory=dict)


def scan(context: Context, epoch: int, scope: Scope) -> ForensicSummary:
    """Compare the scope's crew calls with what is desired, and keep evidence and plan. Reads only.

    What the attempt before has seen is not read again. Raises what `ApiClient.send` does: a crew call that was not
    read is unknown, and a scan without it no evidence.
    """
    conn = context.conn
    scan_id = f"{context.run}/{ENTITY}/{epoch}"
    underway = f"{_evidence(scan_id, scope)} underway"
    elements = scope.elements(conn)
    with conn.cursor(row_factory=scalar_row) as cursor:
        seen = set(cursor.execute("SELECT flex_element_id FROM flex.element_scan WHERE scan_id = %s", [underway]))
        uncertain = set(cursor.execute(UNCERTAIN).fetchall())

    def one(conn: Connection, element_id: UUID) -> None:
        found = look(replace(context, conn=conn), element_id)
        if element_id in uncertain:
            examples = {**found.examples, "uncertain": [str(element_id)]}
            found = replace(found, figures={**found.figures, "uncertain": 1}, examples=examples, planned={})
        values = (Jsonb(found.figures), Jsonb(found.examples), Jsonb(found.planned))
        conn.execute(KEEP, [underway, element_id, *values])

    missing = [element_id for element_id in elements if element_id not in seen]
    for number, _ in enumerate(each(context, missing, one), len(seen) + 1):
        if number % PROGRESS_EVERY == 0 or number == len(elements):
            _tell(context, number, len(elements))
    summary = _summary(context, scan_id, underway, epoch, scope)
    with conn.transaction():
        # The plan of an earlier scan is replaced by this one.
        conn.execute("DELETE FROM flex.element_scan WHERE scan_id <> %s", [underway])
        conn.execute("UPDATE flex.element_scan SET scan_id = %s", [_evidence(scan_id, scope)])
        history.record(conn, summary)
    return summary


def look(context: Context, element_id: UUID) -> Seen:
    """Read one crew call and compare it. Raises what `ApiClient.send` does, but for NotFound."""
    crew = desired.crew(context.conn, element_id, context.roles)
    sizes = {"crew_calls": 1, "desired": len(crew.desired), "rows": len(crew.rows)}
    try:
        lines = calls.lines(context.api, element_id, crew.mapped)
    except (Unreadable, NotFound) as error:
        log.warning("element %s is unreadable: %s", element_id, error)
        return Seen(element_id, {**sizes, "unreadable": 1}, {"unreadable": [str(element_id)]})
    fresh, stale = _without_stale(crew, lines)
    plan = wanted(fresh, lines)
    for refusal in plan.refusals:
        log.warning("element %s: %s", element_id, refusal)
    figures = Counter({**sizes, "lines": len(lines), "stale_rows": len(stale), "refused": int(bool(plan.refusals))})
    figures.update(finding.kind for finding in plan.findings)
    examples: dict[str, list[str]] = {"refused": [str(element_id)]} if plan.refusals else {}
    for finding in plan.findings:
        if finding.kind != "matched":
            examples.setdefault(finding.kind, []).append(f"{element_id}/{_subject(finding)}")
    actions = [action for action in plan.actions if context.prune or not (isinstance(action, Remove) and action.orphan)]
    planned = {key(action): _kind(action) for action in actions}
    # Such a row goes with the repair, even if there is nothing else to do; what is refused is left alone.
    if not plan.refusals:
        planned |= {stale_key(member): "delete" for member in stale if member not in _added(actions)}
    return Seen(element_id, figures, {kind: ids[:EXAMPLES] for kind, ids in examples.items()}, planned)


def stale_key(member: Member) -> str:
    """What dropping a row whose line is gone is called among the planned changes."""
    return f"drop stale row {member.crew_call_id}/{member.technician_id}"


def evidence(conn: Connection, summary: ForensicSummary) -> dict[UUID, frozenset[str]]:
    """What the scan has planned, by element; those with nothing to do are left out."""
    query = "SELECT flex_element_id, planned FROM flex.element_scan WHERE scan_id = %s AND planned <> '{}'"
    found = conn.execute(query, [_evidence(summary.scan_id, summary.scope)]).fetchall()
    return {element_id: frozenset(planned) for element_id, planned in found}


def _evidence(scan_id: str, scope: Scope | str) -> str:
    return f"{scan_id}/{scope}"


def _without_stale(crew: Crew, lines: Iterable[Line]) -> tuple[Crew, list[Member]]:
    """The crew once the rows whose line is gone are dropped, as a sync does first, and whose rows those are."""
    present = {line.line_id for line in lines}
    stale = [row.member for row in crew.rows if row.line_id and row.line_id not in present]
    rows = tuple(row for row in crew.rows if row.member not in stale)
    return replace(crew, rows=rows, owned=crew.owned & present), stale


def _added(actions: Iterable[Action]) -> set[Member]:
    return {member for action in actions if isinstance(action, Add) for member in action.members}


def _kind(action: Action) -> str:
    match action:
        case Add() | Adopt():
            return "insert"
        case SetRole() | Remap():
            return "update"
        case _:
            return "delete"


def _subject(finding: Finding) -> str:
    """The contact; where the profile names none, the technician."""
    return str(finding.resource_id or finding.members[0].technician_id)


def _summary(context: Context, scan_id: str, underway: str, epoch: int, scope: Scope) -> ForensicSummary:
    conn = context.conn
    figures: dict[str, int] = dict(conn.execute(FIGURES, [underway]).fetchall())
    examples: dict[str, list[str]] = dict(conn.execute(SAMPLES, [EXAMPLES, underway]).fetchall())
    return ForensicSummary(
        source=SOURCE,
        entity=ENTITY,
        scope=str(scope),
        scan_id=scan_id,
        run=context.run,
        epoch=epoch,
        metrics={name: figures.get(name, 0) for name in (*SIZES, *CLASSES, *WHOLE)},
        telemetry={"requests": context.api.requests_sent},
        plan=Plan(*conn.execute(PLANNED, [underway]).fetchone()),
        live_rows=figures.get("rows", 0),
        examples={f"{kind}_ids": ids for kind, ids in examples.items()},
    )


def _tell(context: Context, done: int, of: int) -> None:
    progress = {"event": "scan_progress", "source": SOURCE, "entity": ENTITY, "crew_calls": done, "of": of}
    log.info(json.dumps({**progress, "requests": context.api.requests_sent}, sort_keys=True))
