"""The account of a scan, crew call by crew call: our assignments are the source, Flex is the copy.

Three tables: the crew calls in Flex, the lines of contacts on them, and our rows that assign a line to a technician.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from include.confidence.account import Account
from include.confidence.unproven import Doubt
from include.sources.flex.desired import Crew
from include.sources.flex.plan import Member, Plan
from include.sources.flex.rows import CONTACT, Line

CALLS, LINES, ROWS = "flex_crew_calls", "flex_line_items", "flex_crew_assignments"
TABLES = (CALLS, LINES, ROWS)

# In which column of the account the lines of a finding count. Contacts that people added are not compared.
COUNTED_AS = {
    "matched": "equal",
    "missing_row": "differing",
    "role_mismatch": "differing",
    "duplicate_in_flex": "differing",
    "undesired_owned": "surplus",
    "unknown_in_flex": "out_of_scope",
}
# The findings of a crew call that is in step.
IN_STEP = frozenset({"matched", "unknown_in_flex"})
ROLE_NOT_TOLD = "Flex doesn't tell the business role of this contact"


@dataclass(frozen=True)
class ElementAccounts:
    """The accounts of one crew call, by table, and the rows that could not be proven."""

    by_table: Mapping[str, Account]
    doubts: Mapping[str, Sequence[Doubt]]


def proven(
    element_id: UUID,
    crew: Crew,
    lines: Sequence[Line],
    plan: Plan,
    *,
    stuck: Mapping[UUID, str],
    spared: Collection[UUID] = (),
    planned: bool,
) -> ElementAccounts:
    """Return the accounts of a crew call whose lines are all known.

    A contact with a role to be written is unproven if Flex does not show its role. What differs and can't be changed is
    counted as differing or surplus, and is named as well: nothing is planned for it, so the run may not count as
    confirmed. This holds for a crew call that can't be written as it is, and for the lines `stuck`, with the reason.

    - `spared`: orphans that stay because of the setting, which puts them out of scope
    - `planned`: a repair would change something
    """
    contacts = {line.line_id: line for line in lines if line.kind == CONTACT}
    of_lines, without_role = _line_account(crew, contacts, plan, spared)
    of_rows = _row_account(crew, contacts)
    strayed = _strayed(crew, contacts)
    found = {finding.kind for finding in plan.findings if not {*finding.line_ids} & {*spared}}
    in_step = not plan.refusals and found <= IN_STEP and of_rows.equal == of_rows.live + of_rows.missing
    call = Counter(listed=1, live=1)
    call["refused" if plan.refusals else "compared"] += 1
    call["equal" if in_step else "differing"] += 1
    reasons = plan.refusals or ([] if planned else sorted({*stuck.values(), *strayed.values()}))
    return ElementAccounts(
        {CALLS: Account(**call), LINES: of_lines, ROWS: of_rows},
        {
            CALLS: [Doubt([str(element_id)], "; ".join(reasons), looked=True)] if reasons else [],
            LINES: [
                *_doubts(element_id, without_role, ROLE_NOT_TOLD),
                *(doubt for line_id in sorted(stuck) for doubt in _doubts(element_id, [line_id], stuck[line_id])),
            ],
            ROWS: [_doubt_of_row(member, strayed[member]) for member in sorted(strayed)],
        },
    )


def _line_account(
    crew: Crew, contacts: Mapping[UUID, Line], plan: Plan, spared: Collection[UUID]
) -> tuple[Account, list[UUID]]:
    """Return the account of the contacts' lines, and the lines whose role Flex does not show although it matters."""
    figures = _listed_lines(crew, contacts) + Counter(live=len(contacts))
    without_role: list[UUID] = []
    for finding in plan.findings:
        unsure = [each for each in finding.line_ids if finding.kind == "role_mismatch" and not contacts[each].role_told]
        without_role += unsure
        if {*finding.line_ids} & {*spared}:
            figures["out_of_scope"] += len(finding.line_ids)
        elif finding.line_ids:
            figures["unproven" if unsure else COUNTED_AS[finding.kind]] += len(finding.line_ids)
        elif finding.resource_id:
            figures["missing"] += 1
    return Account(**figures), without_role


def _row_account(crew: Crew, contacts: Mapping[UUID, Line]) -> Account:
    """Return the account of our rows: a row is equal if its line in Flex is the desired contact's."""
    figures = _listed_rows(crew) + Counter(live=len(crew.rows))
    wanted = {each.member: each.resource_id for each in crew.desired}
    for row in crew.rows:
        if row.member not in wanted:
            figures["surplus"] += 1
        else:
            figures["equal" if _leads(row.line_id, wanted[row.member], contacts) else "differing"] += 1
    figures["missing"] += len(_without_row(crew))
    return Account(**figures)


def _strayed(crew: Crew, contacts: Mapping[UUID, Line]) -> dict[Member, str]:
    """Return the rows of desired technicians without a contact whose line is not here, each with what to do.

    Nothing can be planned for them: no line can be added without a contact.
    """
    without = {each.member for each in crew.desired if each.resource_id is None}
    return {
        row.member: f"the row of technician {row.member.technician_id} names line {row.line_id}, which is not on this"
        " crew call, and nothing can be added here, as the profile names no resource in Flex. Set the resource, or"
        " take the technician off the job"
        for row in crew.rows
        if row.member in without and not _leads(row.line_id, None, contacts)
    }


def unproven(element_id: UUID, crew: Crew, why: str) -> ElementAccounts:
    """Return the accounts of a crew call whose lines are not known: every line and row that we know of is unproven."""
    there = {**{row.line_id: row.resource_id for row in crew.rows}, **crew.owned}
    known = sorted(crew.known)
    lost = sorted({each.resource_id for each in crew.desired} - {None} - {there[line_id] for line_id in known})
    rows, without = [row.member for row in crew.rows], _without_row(crew)

    def unknown(listed: Counter[str], live: Collection, missing: Collection) -> Account:
        figures = Counter(live=len(live), unproven=len(live), missing=len(missing), missing_unproven=len(missing))
        return Account(**(listed + figures))

    return ElementAccounts(
        {
            CALLS: Account(listed=1, compared=1, live=1, unproven=1),
            LINES: unknown(_listed_lines(crew, known), known, lost),
            ROWS: unknown(_listed_rows(crew), rows, without),
        },
        {
            CALLS: [Doubt([str(element_id)], why, looked=True)],
            LINES: _doubts(element_id, [*known, *lost], why),
            ROWS: [_doubt_of_row(each, why) for each in sorted([*rows, *without])],
        },
    )


def _listed_lines(crew: Crew, there: Collection[UUID]) -> Counter[str]:
    """Count the contacts that we want on the crew call, each once. A technician without contact and line is refused."""
    kept = {row.member for row in crew.rows if row.line_id in there}
    seen: set = set()
    figures = Counter(listed=len(crew.desired))
    for each in crew.desired:
        who = each.resource_id or each.member
        if each.resource_id is None and each.member not in kept:
            figures += Counter(refused=1, missing=1)
        else:
            figures["repeats" if who in seen else "compared"] += 1
            seen.add(who)
    return figures


def _listed_rows(crew: Crew) -> Counter[str]:
    """Count the rows that there should be: one for each member. One without contact and row is refused."""
    named = {row.member for row in crew.rows}
    seen: set = set()
    figures = Counter(listed=len(crew.desired))
    for each in crew.desired:
        if each.resource_id is None and each.member not in named:
            figures += Counter(refused=1, missing=1)
        else:
            figures["repeats" if each.member in seen else "compared"] += 1
            seen.add(each.member)
    return figures


def _without_row(crew: Crew) -> set:
    return {each.member for each in crew.desired if each.resource_id} - {row.member for row in crew.rows}


def _leads(line_id: UUID | None, resource_id: UUID | None, contacts: Mapping[UUID, Line]) -> bool:
    """Return whether a row names the line of its technician, or no line if the technician has no contact."""
    if line_id not in contacts:
        return line_id is None and resource_id is None
    return resource_id in (None, contacts[line_id].resource_id)


def _doubt_of_row(member: Member, why: str) -> Doubt:
    return Doubt([str(member.crew_call_id), str(member.technician_id)], why, looked=True)


def _doubts(element_id: UUID, things: Iterable[UUID], why: str) -> list[Doubt]:
    return [Doubt([str(element_id), str(each)], why, looked=True) for each in things]
