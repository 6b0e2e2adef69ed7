"""Compare one crew call in Flex with its desired crew, as the scan and the verification of a repair need it."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from include.api.errors import ApiError, FixConfiguration, NotSent
from include.sources.flex import assignments, desired
from include.sources.flex.accounts import IN_STEP, ElementAccounts, proven
from include.sources.flex.accounts import unproven as unproven_of
from include.sources.flex.crews import FlexContext
from include.sources.flex.desired import Crew
from include.sources.flex.look import Looked, look, require_same, require_there, retry_unreadable
from include.sources.flex.plan import (
    Action,
    Add,
    Adopt,
    Finding,
    Member,
    Plan,
    Remap,
    Remove,
    SetRole,
    back_key,
    held_orphans,
    key,
    orphans,
    stale_key,
    why_held,
)
from include.sources.flex.planner import wanted
from include.sources.flex.rows import Unreadable

log = logging.getLogger(__name__)

# At most so many ids are kept as examples of each kind.
EXAMPLES = 5
IN_DOUBT = "nobody knows what became of a write to its crew call"


@dataclass(frozen=True)
class Compared:
    """One crew call, compared with its desired crew.

    `planned`: the changes that a repair would make (`plan.key`), each with its kind: insert, update or delete.
    """

    element_id: UUID
    figures: Mapping[str, int]
    accounts: ElementAccounts
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    planned: Mapping[str, str] = field(default_factory=dict)


def compare_element(context: FlexContext, element_id: UUID, *, uncertain: bool = False, last: bool = False) -> Compared:
    """Read one crew call and compare it with the desired crew.

    - `uncertain`: nobody knows whether a write to it happened, so it is unproven and nothing is planned for it
    - `last`: an error that concerns this crew call alone makes it unreadable, and is not raised

    Raises what `ApiClient.send` raises.
    """
    crew = desired.crew(context.conn, element_id, context.roles)
    sizes = {"crew_calls": 1, "desired": len(crew.desired), "rows": len(crew.rows), "uncertain": int(uncertain)}
    doubted = {"uncertain": [str(element_id)]} if uncertain else {}
    try:
        looked = retry_unreadable(context.source.pauses, lambda: _read(context, element_id, crew))
        require_there(looked, element_id, crew)
    except (Unreadable, ApiError) as error:
        if isinstance(error, ApiError) and (concerns_all(error) or not last):
            raise
        log.warning("element %s is unreadable: %s", element_id, error)
        examples = {**doubted, "unreadable": [str(element_id)]}
        return Compared(element_id, {**sizes, "unreadable": 1}, unproven_of(element_id, crew, str(error)), examples)
    if not uncertain:
        assignments.learn_contacts(context.conn, crew.learnable(looked.lines))
    current, stale = _without_stale(crew, looked)
    plan = wanted(current, looked.lines)
    for refusal in plan.refusals:
        log.warning("element %s: %s", element_id, refusal)
    figures = Counter(
        {**sizes, "lines": len(looked.lines), "stale_rows": len(stale), "refused": min(1, len(plan.refusals))}
    )
    figures.update(finding.kind for finding in plan.findings)
    examples = doubted | _examples(element_id, plan)
    if uncertain:
        return Compared(element_id, figures, unproven_of(element_id, crew, IN_DOUBT), examples)
    held_back = held_orphans(plan, looked.lines) if context.prune else frozenset()
    planned = _planned(context, plan, stale, looked, held_back)
    stuck = plan.stuck | {line_id: why_held(line_id) for line_id in held_back}
    spared = frozenset() if context.prune else orphans(plan)
    accounts = proven(element_id, crew, looked.lines, plan, stuck=stuck, spared=spared, planned=bool(planned))
    return Compared(element_id, figures, accounts, examples, planned)


def concerns_all(error: ApiError) -> bool:
    """Return whether the error would hit every other crew call too."""
    return isinstance(error, NotSent) or (isinstance(error, FixConfiguration) and error.concerns_all)


def _read(context: FlexContext, element_id: UUID, crew: Crew) -> Looked:
    """Read both lists. If something differs that the record doesn't show, read the rows twice."""
    looked = look(context.api, context.conn, element_id, crew, context.source.pauses, with_record=True)
    found = {finding.kind for finding in wanted(crew, looked.lines).findings}
    # The record does not show roles.
    settled = found <= IN_STEP and not crew.learnable(looked.lines)
    if "role_mismatch" in found or not (looked.agreed_on_contacts or settled):
        require_same(context.api, element_id, crew, looked)
    return looked


def _without_stale(crew: Crew, looked: Looked) -> tuple[Crew, list[Member]]:
    """Return the crew without rows whose line is gone, and the members of those rows. A sync corrects this first."""
    gone = (looked.gone | crew.gone.keys() | crew.gone_elsewhere) - looked.back
    stale = [row.member for row in crew.rows if row.line_id in gone]
    rows = tuple(row for row in crew.rows if row.member not in stale)
    owned = {line_id: contact for line_id, contact in crew.owned.items() if line_id not in gone}
    back = {line_id: crew.gone[line_id] for line_id in looked.back}
    return replace(crew, rows=rows, owned=owned | back), stale


def _planned(
    context: FlexContext, plan: Plan, stale: Sequence[Member], looked: Looked, kept: Collection[UUID]
) -> dict[str, str]:
    """Return the changes that a repair would make, none if the crew call is refused. `kept`: orphans that stay."""
    if plan.refusals:
        return {}
    actions = [
        action
        for action in plan.actions
        if not (isinstance(action, Remove) and action.orphan) or (context.prune and action.line_id not in kept)
    ]
    planned = {key(action): _kind(action) for action in actions}
    # The repair drops such a row even if there is nothing else to do.
    planned |= {stale_key(member): "delete" for member in stale if member not in _added(actions)}
    return planned | {back_key(line_id): "update" for line_id in looked.back}


def _added(actions: Iterable[Action]) -> set[Member]:
    return {member for action in actions if isinstance(action, Add) for member in action.members}


def _examples(element_id: UUID, plan: Plan) -> dict[str, list[str]]:
    """Return a few ids of each kind of finding that is not in step, and the element's own if it is refused."""
    found: dict[str, list[str]] = {"refused": [str(element_id)]} if plan.refusals else {}
    for finding in plan.findings:
        if finding.kind != "matched":
            found.setdefault(finding.kind, []).append(f"{element_id}/{_subject(finding)}")
    return {kind: ids[:EXAMPLES] for kind, ids in found.items()}


def _kind(action: Action) -> str:
    match action:
        case Add() | Adopt():
            return "insert"
        case SetRole() | Remap():
            return "update"
        case _:
            return "delete"


def _subject(finding: Finding) -> str:
    """Return the id of the contact, or of the technician if the profile names no contact."""
    return str(finding.resource_id or finding.members[0].technician_id)
