"""Flex's scenario: our assignments are the truth, and people work in the copy, too. No add is made twice."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from include.simulators.flex import Control, Fault, Line, Mutation
from stack.control import Stack
from stack.demo.steps import Demo, expect
from stack.settings import BUSINESS_ROLES

ENTITY = "crew"
DEPARTMENTS = ("sound", "lights")
# What the end of a role's code says.
TIERS = {"R": "responsible", "E": "specialist", "T": "technician"}
# Whom the demo books: so many of the people that are there.
BOOKED = {"sound": ("FOH-R", "PA-E", "PA-T"), "lights": ("LX-R", "DIM-T")}
LATE = "STAGE-T"

# The crew calls of the jobs that aren't over, and who belongs there; gear goes out without crew.
DESIRED = """
SELECT c.flex_element_id, c.department, p.flex_resource_id,
  CASE c.department WHEN 'sound' THEN a.sound_role ELSE a.lights_role END AS code
FROM flex.flex_crew_calls c JOIN flex.jobs j ON j.id = c.job_id AND j.end_time > now()
LEFT JOIN flex.job_assignments a ON a.job_id = j.id AND j.job_type <> 'dryhire'
LEFT JOIN flex.profiles p ON p.id = a.technician_id
"""
ROWS = """
SELECT c.flex_element_id, p.flex_resource_id, a.flex_line_item_id
FROM flex.flex_crew_assignments a
JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id JOIN flex.jobs j ON j.id = c.job_id AND j.end_time > now()
JOIN flex.profiles p ON p.id = a.technician_id
"""
CALLS = """
SELECT j.title, string_agg(c.department, ', ' ORDER BY c.department DESC), c.flex_element_id
FROM flex.flex_crew_calls c JOIN flex.jobs j ON j.id = c.job_id AND j.end_time > now()
GROUP BY j.id, c.flex_element_id ORDER BY j.start_time, 2 DESC
"""

Crew = Mapping[UUID, UUID | None]


@dataclass(frozen=True)
class Office(Demo):
    """The stack with the account in Flex; the warehouse has the jobs."""

    flex: Control

    def desired(self) -> Mapping[UUID, Crew]:
        """By crew call in Flex, the business role of each contact that our assignments put there."""
        crews: dict[UUID, dict[UUID, UUID | None]] = {}
        for element, department, contact, code in self.warehouse.execute(DESIRED):
            crew = crews.setdefault(element, {})
            if contact and code:
                crew[contact] = role(department, code)
        return crews

    def shown(self) -> Mapping[UUID, Sequence[Line]]:
        """By crew call in Flex, the lines of all contacts that Flex shows there."""
        return {
            element: [line for line in self.flex.lines(element) if line.kind == "contact"] for element in self.desired()
        }

    def ours(self) -> Mapping[UUID, Sequence[Line]]:
        """The same as `shown`, without the lines of strangers."""
        people = self._people()
        return {
            element: [line for line in lines if line.resource_id in people] for element, lines in self.shown().items()
        }

    def strangers(self) -> set[UUID]:
        """The ids of the lines of contacts that are none of our technicians."""
        people = self._people()
        return {line.id for lines in self.shown().values() for line in lines if line.resource_id not in people}

    def rows(self) -> Counter[tuple]:
        """The crew call, contact and line of each row of ours."""
        return Counter(self.warehouse.execute(ROWS).fetchall())

    def writes(self, elements: Sequence[UUID]) -> Mapping[str, int]:
        """What was ever sent to crew calls, by kind and outcome."""
        query = "SELECT kind || ' ' || state, count(*) FROM flex.operation WHERE flex_element_id = ANY (%s) GROUP BY 1"
        return dict(self.warehouse.execute(query, [list(elements)]).fetchall())

    def gate(self, element: UUID) -> str:
        query = "SELECT state FROM flex.element_gate WHERE flex_element_id = %s"
        return self.warehouse.execute(query, [element]).fetchone()[0]

    def expect_in_step(self) -> None:
        """On every crew call each of our people who belongs there is once, with the right role, and nobody else is."""
        desired, ours = self.desired(), self.ours()
        differing = [
            element
            for element, lines in ours.items()
            if Counter((line.resource_id, line.role_id) for line in lines) != Counter(desired[element].items())
        ]
        expect("crew calls whose crew differs", differing, [])
        lines = Counter((element, line.resource_id, line.id) for element, found in ours.items() for line in found)
        expect(
            "rows that name no such line, and lines without a row",
            (self.rows() - lines, lines - self.rows()),
            ({},) * 2,
        )

    def _people(self) -> set[UUID]:
        found = self.warehouse.execute("SELECT flex_resource_id FROM flex.profiles WHERE flex_resource_id IS NOT NULL")
        return {contact for (contact,) in found}


@dataclass(frozen=True)
class Job:
    """A job that was booked: its crew calls in Flex by department, and the contacts of its crew."""

    id: UUID
    elements: Mapping[str, UUID]
    crew: Sequence[UUID]


def play(demo: Demo, stack: Stack) -> None:
    """Play the scenario, step by step. Raises Unexpected at the first outcome that is not as it should be."""
    office = Office(**vars(demo), flex=Control(stack.simulator_urls[demo.source]))
    office.flex.clear()
    try:
        job = sync_all(office)
        figures = scan(office)
        repair(office, figures)
        contact = lose_answer(office, job)
        release(office, job, contact)
    finally:
        office.flex.clear()


def sync_all(demo: Office) -> Job:
    """Start with nothing running, book a job, and bring every crew to Flex."""
    demo.screen.rule("Flex 1  Our assignments are the truth: every crew is brought to Flex")
    _begin(demo)
    strangers = demo.strangers()
    job = book(demo)
    demo.flex.reset_counters()
    run_id = demo.run(demo.sync, mode="full")
    result = demo.airflow.xcom(demo.sync, run_id, "sync", "result")
    _show_crews(demo)
    names = ("elements", "added", "removed", "kept", "rolesSet", "failedAdds")
    demo.show(("crew calls", *names[1:]), [[result[name] for name in names]])
    requests = demo.flex.counters().requests
    demo.show(("asked of Flex", "times"), [(name, sum(answers.values())) for name, answers in requests.items()])
    sent = {"add done": len(job.crew), "role done": len(BOOKED["sound"])}
    expect("what was sent for the new job", demo.writes([*job.elements.values()]), sent)
    expect("the contacts that people had added", demo.strangers(), strangers)
    demo.expect_in_step()
    return job


def scan(demo: Office) -> Mapping[str, int]:
    """People work in Flex by hand; a forensic run finds it, to the line, and writes nothing.

    Returns what it had to find.
    """
    demo.screen.rule("Flex 2  By hand in Flex: a line deleted, a stranger added, another role")
    happened, figures = work_by_hand(demo)
    demo.show(("by hand in Flex", "contact"), happened.items())
    shown, sent = demo.shown(), demo.writes([*demo.desired()])
    run_id = demo.run(demo.reconcile, dry_run=True)
    summary, verdict, _ = demo.summaries(run_id)[ENTITY]
    demo.show(("found", "number"), [(name, summary["metrics"][name]) for name in figures])
    expect("the verdict", verdict, "pass")
    expect("the metrics", summary["metrics"], figures)
    expect("whether Flex is as it was", demo.shown() == shown, True)
    expect("what a dry run sent", demo.writes([*demo.desired()]), sent)
    demo.expect_skipped(run_id, "decide", "verify")
    return figures


def repair(demo: Office, figures: Mapping[str, int]) -> None:
    """The same run with dry_run off: who was deleted is back, the role is as assigned, the stranger stays."""
    demo.screen.rule("Flex 3  Repair: who is missing is back, the stranger stays")
    strangers = demo.strangers()
    run_id = demo.run(demo.reconcile, dry_run=False)
    repaired = demo.airflow.xcom(demo.reconcile, run_id, "reconcile")
    checks = demo.airflow.xcom(demo.reconcile, run_id, "verify")
    counts = repaired["counts"][ENTITY]
    written = ("inserted", "updated", "deleted")
    demo.show((f"repaired as sync_id {repaired['sync_id']}", *written), [("crew", *(counts[n] for n in written))])
    demo.show(("verify", "before", "after"), [(c["figure"], c["before"], c["after"]) for c in checks])
    expect("the repair", [counts[name] for name in written], [1, 1, 0])
    expect("what verify found", {check["after"] for check in checks}, {0})
    expect("the strangers", (demo.strangers(), len(strangers)), (strangers, figures["unknown_in_flex"]))
    demo.expect_in_step()
    demo.expect_writer_runs()
    demo.say(f"All {len(strangers)} contacts that aren't ours are where they were.")


def lose_answer(demo: Office, job: Job) -> UUID:
    """Somebody is assigned, and the answer to the add is lost: it is not sent again. Returns the contact."""
    demo.screen.rule("Flex 4  The answer to an add is lost: it may have happened, so it is never repeated")
    element = job.elements["sound"]
    demo.flex.reset_counters()
    # The add is carried out, and its answer is lost. From the third read on the rows can not be read either.
    demo.flex.fault(
        Fault("drop", path=f"line-item/{element}/add-resource/*", method="POST", committed=True),
        Fault("object", path=f"line-item/{element}/row-data", method="GET", nth=3, times=None),
    )
    contact = assign_late(demo, job)
    demo.fail_run(demo.sync, "sync", f"element {element} is uncertain")
    _show_doubt(demo, element, contact)
    expect("the crew call's gate", demo.gate(element), "uncertain")
    expect("adds whose outcome is unknown", demo.writes([element]).get("add unknown"), 1)
    expect("lines in Flex and rows of ours", _counted(demo, element, contact), (1, 0))
    expect("how often it was asked for", demo.flex.counters().adds[element][contact], 1)
    return contact


def release(demo: Office, job: Job, contact: UUID) -> None:
    """A person has looked at the crew call and releases it: what Flex shows is taken for what happened."""
    demo.screen.rule("Flex 5  A person releases the crew call: what Flex shows is what happened")
    element = job.elements["sound"]
    demo.flex.clear()
    demo.run(demo.sync, release_element=str(element))
    _show_doubt(demo, element, contact)
    expect("the crew call's gate", demo.gate(element), "idle")
    expect("adds whose outcome is unknown", demo.writes([element]).get("add unknown", 0), 0)
    expect("lines in Flex and rows of ours", _counted(demo, element, contact), (1, 1))
    expect("how often it was asked for", demo.flex.counters().adds[element][contact], 1)
    demo.expect_in_step()
    demo.say("Everybody is on every crew call once.")


def book(demo: Office) -> Job:
    """The office books a job: its crew calls in Flex, still without crew, and people for both departments."""
    elements = dict(zip(DEPARTMENTS, demo.flex.create_elements([None] * len(DEPARTMENTS)), strict=True))
    job_id = uuid4()
    crew = []
    with demo.warehouse.transaction():
        demo.warehouse.execute(
            "INSERT INTO flex.jobs (id, title, job_type, start_time, end_time)"
            " VALUES (%s, 'Booked for the demo', 'single', now() + interval '1 day', now() + interval '2 days')",
            [job_id],
        )
        for department, element in elements.items():
            demo.warehouse.execute(
                "INSERT INTO flex.flex_crew_calls (job_id, department, flex_element_id) VALUES (%s, %s, %s)",
                [job_id, department, element],
            )
            crew += [_assign(demo, job_id, department, code) for code in BOOKED[department]]
    return Job(job_id, elements, crew)


def assign_late(demo: Office, job: Job) -> UUID:
    """One more for the sound; returns the contact."""
    with demo.warehouse.transaction():
        return _assign(demo, job.id, "sound", LATE)


def work_by_hand(demo: Office) -> tuple[Mapping[str, UUID], Mapping[str, int]]:
    """Change crew calls in Flex as people would do by hand. Other crew calls are chosen each time.

    Returns the contact of each change, and the metrics that a scan should find.
    """
    desired, ours = demo.desired(), demo.ours()
    # One sample of people, so that nobody is hit twice, on another crew call either.
    with_role = {line.resource_id: (element, line) for element, lines in ours.items() for line in lines if line.role_id}
    (first, deleted), (second, moved) = _some(2, [*with_role.values()])
    other = next(UUID(id_) for id_ in BUSINESS_ROLES["sound"].values() if UUID(id_) != moved.role_id)
    stranger = uuid4()
    demo.flex.mutate(
        Mutation("delete", first, line=deleted.id),
        Mutation("add", first, stranger),
        Mutation("role", second, line=moved.id, role=other),
    )
    happened = {
        "a line is deleted": deleted.resource_id,
        "a stranger is added": stranger,
        "somebody gets another role": moved.resource_id,
    }
    figures = {
        "matched": sum(map(len, desired.values())) - 2,
        "missing_in_flex": 1,
        "role_mismatch": 1,
        "unknown_in_flex": len(demo.strangers()),
        "stale_rows": 1,
        **dict.fromkeys(
            ("missing_row", "duplicate_in_flex", "undesired_owned", "unreadable", "refused", "uncertain"), 0
        ),
    }
    return happened, figures


def role(department: str, code: str) -> UUID | None:
    """The business role that a code means; None where the account has none for the department."""
    known = BUSINESS_ROLES.get(department, {}).get(TIERS[code[-1]])
    return known and UUID(known)


def _begin(demo: Office) -> None:
    """Put right what an earlier demo left: a writer that is stopped, crew calls that nobody has released."""
    demo.end_questions()
    if demo.writer()[0] == "stopped":
        demo.say("An earlier run left the writer stopped: looking again, and repairing.")
        demo.repair_whatever_is_found()
    uncertain = demo.warehouse.execute("SELECT flex_element_id FROM flex.element_gate WHERE state = 'uncertain'")
    for (element,) in uncertain.fetchall():
        demo.run(demo.sync, release_element=str(element))
    demo.end_syncs()


def _assign(demo: Office, job_id: UUID, department: str, code: str) -> UUID:
    """Assign somebody of the department who isn't on the job yet; returns the contact."""
    found = demo.warehouse.execute(
        "SELECT id, flex_resource_id FROM flex.profiles WHERE department = %s AND flex_resource_id IS NOT NULL"
        " AND id NOT IN (SELECT technician_id FROM flex.job_assignments WHERE job_id = %s) ORDER BY random() LIMIT 1",
        [department, job_id],
    ).fetchone()
    expect(f"whether there is somebody for {department}", found is not None, True)
    technician_id, contact = found
    roles = {name: code if name == department else None for name in DEPARTMENTS}
    demo.warehouse.execute(
        "INSERT INTO flex.job_assignments (job_id, technician_id, sound_role, lights_role, status)"
        " VALUES (%s, %s, %s, %s, 'invited')",
        [job_id, technician_id, roles["sound"], roles["lights"]],
    )
    return contact


def _show_crews(demo: Office) -> None:
    desired, shown, ours = demo.desired(), demo.shown(), demo.ours()
    rows = [
        (title, departments, len(desired[element]), len(ours[element]), len(shown[element]) - len(ours[element]))
        for title, departments, element in demo.warehouse.execute(CALLS)
    ]
    demo.show(("job", "crew call", "assigned", "in Flex", "and strangers"), rows)


def _show_doubt(demo: Office, element: UUID, contact: UUID) -> None:
    lines, rows = _counted(demo, element, contact)
    sent = ", ".join(f"{number} {what}" for what, number in sorted(demo.writes([element]).items()))
    columns = ("gate", "lines of the contact in Flex", "rows of ours", "ever sent to the crew call")
    demo.show(columns, [(demo.gate(element), lines, rows, sent)])


def _counted(demo: Office, element: UUID, contact: UUID) -> tuple[int, int]:
    """How many lines a contact has on a crew call in Flex, and how many rows of ours there are for it."""
    lines = [line for line in demo.flex.lines(element) if line.resource_id == contact]
    return len(lines), sum(
        number for (where, who, _), number in demo.rows().items() if (where, who) == (element, contact)
    )


def _some(number: int, of: Sequence[tuple[UUID, Line]]) -> list[tuple[UUID, Line]]:
    expect("lines with a role to choose from", len(of) >= number, True)
    return random.sample(of, number)
