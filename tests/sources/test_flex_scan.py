"""A scan of Flex: each class counted once, from a real difference; accounts; plan; a resumed scan; and its repair."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import pytest

from include.api.errors import FixConfiguration, TryLater
from include.confidence import holds
from include.confidence.field_figures import METRICS
from include.confidence.queries.planned import PlanFilter, list_planned, name_planned
from include.confidence.summary import ForensicSummary
from include.sources.base import IntegrityFailed, OutcomeUnknown, SyncFailed
from include.sources.flex import calls
from include.sources.flex import scan as scans
from include.sources.flex.crews import Scope

from .flex import (
    ADD,
    EXPERT,
    HAND,
    LINE,
    ROWS,
    Agency,
    Booked,
    as_gear,
    assign,
    exchanged,
    note,
    of_somebody_else,
    own,
    person,
    tell_once,
    without_key,
)

# What a crew call may answer instead of itself, night after night.
FAILS = {
    "500": {"kind": "status", "status": 500},
    "403": {"kind": "status", "status": 403},
    "nothing": {"kind": "drop"},
    "half a document": {"kind": "broken_json"},
}
# What isn't counted in crew calls, lines, wishes and rows.
SIZES = ("crew_calls", "lines", "desired", "rows")


@dataclass(frozen=True)
class Crew:
    """Two people on a crew call, in step: Ann, technician, and Bob, specialist."""

    agency: Agency
    booked: Booked
    ann: UUID
    bob: UUID
    of_ann: UUID
    of_bob: UUID

    @property
    def line_of_bob(self) -> UUID:
        return self.agency.crew(self.booked)[self.of_bob].id


@pytest.fixture
def crew(agency: Agency) -> Crew:
    booked = agency.book()
    (ann, of_ann), (bob, of_bob) = agency.hire(booked), agency.hire(booked, "FOH-E")
    agency.sync()
    return Crew(agency, booked, ann, bob, of_ann, of_bob)


def deleted_by_hand(crew: Crew) -> None:
    crew.agency.by_hand("delete", crew.booked, crew.of_bob)


def row_gone(crew: Crew) -> None:
    crew.agency.conn.execute("DELETE FROM flex.flex_crew_assignments WHERE technician_id = %s", [crew.bob])


def row_of_another_line(crew: Crew) -> None:
    """Deleted and added again by hand."""
    crew.agency.by_hand("delete", crew.booked, crew.of_bob)
    crew.agency.by_hand("add", crew.booked, crew.of_bob, role=EXPERT)


def twice(crew: Crew) -> None:
    crew.agency.by_hand("add", crew.booked, crew.of_bob)


def stranger(crew: Crew) -> None:
    crew.agency.by_hand("add", crew.booked)


def fired(crew: Crew) -> None:
    crew.agency.fire(crew.bob)


def orphan(crew: Crew) -> None:
    line_id = crew.agency.by_hand("add", crew.booked, resource := uuid4())
    own(crew.agency.conn, crew.booked.element, line_id, resource)


def other_role(crew: Crew) -> None:
    crew.agency.by_hand("role", crew.booked, crew.of_bob, role=HAND)


def unreadable(crew: Crew) -> None:
    crew.agency.fault("no_type", ROWS, times=None)


def element_gone(crew: Crew) -> None:
    for path in (ROWS, f"line-item/{crew.booked.element}"):
        crew.agency.fault("status", path, "GET", status=404, times=None)


def two_roles(crew: Crew) -> None:
    assign(crew.agency.conn, crew.booked.call, crew.bob, "FOH-R")


def in_doubt(crew: Crew) -> None:
    """A write that nobody knows the outcome of; it was to remove Bob."""
    fired(crew)
    crew.agency.fault("drop", LINE, "DELETE")
    with pytest.raises(SyncFailed):
        crew.agency.sync()


def taken_for_gone(crew: Crew) -> None:
    """A line of ours was taken for gone, and its row dropped; it is there."""
    crew.agency.conn.execute(
        "UPDATE flex.owned_line SET gone_at = now() WHERE flex_line_item_id = %s", [crew.line_of_bob]
    )
    row_gone(crew)


def role_not_told(crew: Crew) -> None:
    crew.agency.fault("without_roles", ROWS, "GET", times=None)


def left_by_a_crash(crew: Crew) -> None:
    conn = crew.agency.conn
    conn.execute(
        "WITH sent AS (INSERT INTO flex.operation (sync_id, flex_element_id, kind, flex_line_item_id)"
        " VALUES ((SELECT max(sync_id) FROM confidence.sync_log), %(element)s, 'remove', %(line)s)"
        " RETURNING operation_id)"
        " UPDATE flex.element_gate g SET state = 'busy', owner = 'gone', acquired_at = now(),"
        " operation_id = sent.operation_id FROM sent WHERE flex_element_id = %(element)s",
        {"element": crew.booked.element, "line": crew.line_of_bob},
    )


# What is different, the figures beside `matched`, and what a repair has to insert, update and delete.
DRIFT: dict[Callable[[Crew], None], tuple[dict[str, int], tuple[int, int, int]]] = {
    deleted_by_hand: ({"matched": 1, "missing_in_flex": 1, "stale_rows": 1}, (1, 0, 0)),
    row_gone: ({"matched": 1, "missing_row": 1}, (1, 0, 0)),
    row_of_another_line: ({"matched": 1, "missing_row": 1, "stale_rows": 1}, (1, 0, 1)),
    twice: ({"matched": 1, "duplicate_in_flex": 1, "refused": 1}, (0, 0, 0)),
    stranger: ({"matched": 2, "unknown_in_flex": 1}, (0, 0, 0)),
    fired: ({"matched": 1, "undesired_owned": 1}, (0, 0, 1)),
    orphan: ({"matched": 2, "undesired_owned": 1}, (0, 0, 1)),
    other_role: ({"matched": 1, "role_mismatch": 1}, (0, 1, 0)),
    unreadable: ({"unreadable": 1}, (0, 0, 0)),
    element_gone: ({"unreadable": 1}, (0, 0, 0)),
    two_roles: ({"matched": 2, "refused": 1}, (0, 0, 0)),
    in_doubt: ({"matched": 1, "undesired_owned": 1, "uncertain": 1}, (0, 0, 0)),
    left_by_a_crash: ({"matched": 2, "uncertain": 1}, (0, 0, 0)),
    taken_for_gone: ({"matched": 1, "missing_row": 1}, (1, 1, 0)),
}
# Of these nobody knows what is on the crew call.
DOUBTED = (unreadable, element_gone, in_doubt, left_by_a_crash)
# What is known of these has no planned change.
NAMED = (*DOUBTED, twice, two_roles)


def figures(summary: ForensicSummary) -> dict[str, int]:
    beside = (*SIZES, *METRICS, "unproven", "unproven_overdue")
    return {name: figure for name, figure in summary.metrics.items() if figure and name not in beside}


def account(summary: ForensicSummary, table: str) -> dict[str, int]:
    return {name: figure for name, figure in vars(summary.accounts[table]).items() if figure}


def changes(summary: ForensicSummary) -> tuple[int, int, int]:
    return summary.plan.insert, summary.plan.update, summary.plan.delete


@pytest.mark.parametrize(
    "drift", [deleted_by_hand, row_gone, row_of_another_line, fired], ids=lambda each: each.__name__
)
def test_planned_changes_have_the_names_of_the_person_and_the_job(crew, drift):
    conn = crew.agency.conn
    conn.execute("UPDATE flex.profiles SET first_name = 'Bob', last_name = 'Stone' WHERE id = %s", [crew.bob])
    conn.execute("UPDATE flex.profiles SET first_name = 'Ann', last_name = 'Lake' WHERE id = %s", [crew.ann])
    conn.execute("UPDATE flex.jobs SET title = 'Summer tour'")
    drift(crew)
    summary = crew.agency.scan()
    found = list_planned(conn, summary.evidence, PlanFilter()).items
    names = name_planned(conn, crew.agency.source.planned_name, found)
    (department,) = conn.execute("SELECT department FROM flex.flex_crew_calls").fetchone()
    assert names == {change.change_id: f"Bob Stone, Summer tour, {department}" for change in found}
    assert names
    # The plan itself keeps no names.
    assert "Bob" not in str(found)


class TestClasses:
    def test_of_a_crew_in_step(self, crew):
        summary = crew.agency.scan()
        assert (figures(summary), changes(summary), summary.examples) == ({"matched": 2}, (0, 0, 0), {})
        assert {name: summary.metrics[name] for name in SIZES} == {"crew_calls": 1, "lines": 4, "desired": 2, "rows": 2}
        assert summary.live_rows == 2
        assert {gate.metric for gate in crew.agency.source.entities[0].gates} <= summary.metrics.keys()

    @pytest.mark.parametrize("drift", DRIFT, ids=lambda drift: drift.__name__)
    def test_of_each_kind(self, crew, drift):
        drift(crew)
        writes = len(crew.agency.control.journal())
        summary = crew.agency.scan()
        expected, plan = DRIFT[drift]
        assert (figures(summary), changes(summary)) == (expected, plan)
        named = {name: ids for name, ids in summary.examples.items() if name != "unproven_examples"}
        assert {name.removesuffix("_ids") for name in named} == expected.keys() - {"matched", "stale_rows"}
        element_id = str(crew.booked.element)
        assert all(example.startswith(element_id) for ids in named.values() for example in ids)
        assert len(crew.agency.control.journal()) == writes
        assert [each.wrong_sum for each in summary.accounts.values()] == [""] * 3
        assert (summary.metrics["unproven"] > 0) == (drift in NAMED)
        assert ("proven" in summary.incomplete) == (drift in DOUBTED)

    @pytest.mark.parametrize("drift", DRIFT, ids=lambda drift: drift.__name__)
    def test_of_each_kind_are_mended_by_the_repair_of_what_was_planned(self, crew, drift):
        drift(crew)
        summary = crew.agency.scan()
        sync_id, counts = crew.agency.repair(summary)
        assert (counts.inserted, counts.updated, counts.deleted) == DRIFT[drift][1]
        assert (counts.superseded, counts.failed) == (0, 0)
        assert {*crew.agency.verify(summary, sync_id).values()} == {(0, 0)}
        again = crew.agency.scan()
        assert changes(again) == (0, 0, 0)
        if drift not in (*DOUBTED, twice, two_roles):
            crew_now = 2 - (drift is fired)
            assert [each.equal for each in again.accounts.values()] == [1, crew_now, crew_now]
            assert [each.not_proven for each in again.accounts.values()] == [0, 0, 0]

    def test_refused_crew_call_is_left_alone_with_its_stale_rows(self, crew):
        twice(crew)
        crew.agency.by_hand("delete", crew.booked, crew.of_ann)
        summary = crew.agency.scan()
        assert figures(summary) == {"missing_in_flex": 1, "duplicate_in_flex": 1, "refused": 1, "stale_rows": 1}
        assert changes(summary) == (0, 0, 0)
        before = crew.agency.rows(crew.booked)
        crew.agency.repair(summary)
        assert crew.agency.rows(crew.booked) == before

    def test_row_of_somebody_who_is_not_desired_goes_with_its_line(self, crew):
        deleted_by_hand(crew)
        fired(crew)
        summary = crew.agency.scan()
        assert (figures(summary), changes(summary)) == ({"matched": 1, "stale_rows": 1}, (0, 0, 1))
        _, counts = crew.agency.repair(summary)
        assert (counts.deleted, [*crew.agency.rows(crew.booked)]) == (1, [crew.ann])

    def test_person_without_a_resource_is_kept(self, crew):
        crew.agency.conn.execute("UPDATE flex.profiles SET flex_resource_id = NULL WHERE id = %s", [crew.bob])
        summary = crew.agency.scan()
        assert (figures(summary), changes(summary)) == ({"matched": 2}, (0, 0, 0))
        crew.agency.by_hand("delete", crew.booked, crew.of_bob)
        again = crew.agency.scan()
        assert again.metrics["stale_rows"] == 1
        assert again.plan.delete == 1

    def test_line_that_is_back_with_another_contact_is_a_persons(self, crew):
        """A person has restored it, with somebody else on it."""
        taken_for_gone(crew)
        crew.agency.by_hand("exchange", crew.booked, uuid4(), line=crew.line_of_bob)
        summary = crew.agency.scan()
        assert figures(summary) == {"matched": 1, "missing_in_flex": 1, "unknown_in_flex": 1}
        assert summary.plan.delete == 0

    def test_prune_off_leaves_orphans_out_of_the_plan_only(self, crew):
        fired(crew)
        orphan(crew)
        crew.agency.variables["FLEX_SYNC_PRUNE_ORPHANS"] = "false"
        summary = crew.agency.scan()
        assert (summary.metrics["undesired_owned"], changes(summary)) == (2, (0, 0, 1))
        crew.agency.repair(summary)
        assert len(crew.agency.crew(crew.booked)) == 2

    def test_orphan_with_others_under_it_is_named_and_not_planned(self, crew):
        """No repair deletes it, so none fails because it stays; and no night is confirmed while it does."""
        fired(crew)
        line_id = crew.agency.by_hand("add", crew.booked, resource := uuid4())
        own(crew.agency.conn, crew.booked.element, line_id, resource)
        crew.agency.by_hand("gear", crew.booked, line=line_id)
        summary = crew.agency.scan()
        assert (summary.metrics["undesired_owned"], changes(summary)) == (2, (0, 0, 1))
        assert account(summary, "flex_line_items")["surplus"] == 2
        [(key, why)] = crew.agency.conn.execute("SELECT key, why FROM confidence.unproven").fetchall()
        assert (key, why.startswith(f"line {line_id} has other lines under it")) == (
            [str(crew.booked.element), str(line_id)],
            True,
        )
        crew.agency.repair(summary)
        assert len(crew.agency.crew(crew.booked)) == 2

    def test_five_examples_of_many(self, agency):
        booked = agency.book()
        for _ in range(7):
            agency.hire(booked)
        assert len(agency.scan().examples["missing_in_flex_ids"]) == 5


class TestAccount:
    """Where each row has ended up; both sums come out."""

    def test_of_a_crew_in_step(self, crew):
        summary = crew.agency.scan()
        assert account(summary, "flex_crew_calls") == {"listed": 1, "compared": 1, "live": 1, "equal": 1}
        assert account(summary, "flex_line_items") == {"listed": 2, "compared": 2, "live": 2, "equal": 2}
        assert account(summary, "flex_crew_assignments") == {"listed": 2, "compared": 2, "live": 2, "equal": 2}
        assert (summary.rows, summary.proven, summary.incomplete) == (5, 5, "")

    @pytest.mark.parametrize(
        ("drift", "lines", "rows"),
        [
            (deleted_by_hand, {"live": 1, "equal": 1, "missing": 1}, {"live": 2, "equal": 1, "differing": 1}),
            (row_gone, {"live": 2, "equal": 1, "differing": 1}, {"live": 1, "equal": 1, "missing": 1}),
            (twice, {"live": 3, "equal": 1, "differing": 2}, {"live": 2, "equal": 2}),
            (stranger, {"live": 3, "equal": 2, "out_of_scope": 1}, {"live": 2, "equal": 2}),
            (fired, {"live": 2, "equal": 1, "surplus": 1}, {"live": 2, "equal": 1, "surplus": 1}),
            (orphan, {"live": 3, "equal": 2, "surplus": 1}, {"live": 2, "equal": 2}),
            (other_role, {"live": 2, "equal": 1, "differing": 1}, {"live": 2, "equal": 2}),
            (unreadable, {"live": 2, "unproven": 2}, {"live": 2, "unproven": 2}),
            (role_not_told, {"live": 2, "unproven": 2}, {"live": 2, "equal": 2}),
        ],
    )
    def test_of_each_kind(self, crew, drift, lines, rows):
        drift(crew)
        summary = crew.agency.scan()
        source = ("listed", "compared")
        for table, expected in (("flex_line_items", lines), ("flex_crew_assignments", rows)):
            found = account(summary, table)
            listed = 1 if drift is fired else 2
            assert [found.pop(name) for name in source] == [listed, listed]
            assert found == expected

    def test_of_several_wishes_for_one_contact_and_of_somebody_without_one(self, crew):
        agency = crew.agency
        other = agency.book("lights", job=crew.booked.job, element=crew.booked.element)
        assign(agency.conn, other.call, crew.bob)
        assign(agency.conn, crew.booked.call, person(agency.conn, None))
        summary = agency.scan()
        assert account(summary, "flex_line_items") == {
            **{"listed": 4, "repeats": 1, "refused": 1, "compared": 2},
            **{"live": 2, "equal": 1, "differing": 1, "missing": 1},
        }
        assert account(summary, "flex_crew_assignments") == {
            **{"listed": 4, "refused": 1, "compared": 3, "live": 2, "equal": 2},
            "missing": 2,
        }

    def test_of_what_a_scan_does_not_look_at(self, crew):
        agency = crew.agency
        other = agency.book()
        agency.hire(other)
        agency.sync()
        summary = agency.scan(job_id=str(other.job))
        assert account(summary, "flex_crew_calls") == {"listed": 1, "compared": 1, "live": 2, "equal": 1} | {
            "out_of_scope": 1
        }
        assert account(summary, "flex_line_items")["out_of_scope"] == 2
        assert (summary.rows, summary.live_rows) == (3, 1)

    def test_that_lacks_a_crew_call_is_no_evidence(self, crew, monkeypatch):
        crew.agency.book()
        monkeypatch.setattr(
            scans,
            "KEEP",
            scans.KEEP.replace("VALUES", "SELECT").replace("%s)", "%s LIMIT 0").replace("SELECT (", "SELECT "),
        )
        summary = crew.agency.scan()
        assert "the source listed 2 rows" in summary.incomplete

    def test_of_unproven_rows_is_remembered_until_they_are_proven(self, crew):
        agency = crew.agency
        agency.book(), agency.book()
        path = f"line-item/{crew.booked.element}/row-data"
        agency.fault("empty", path, times=None)
        for night, overdue in (("flex_reconcile/1", 0), ("flex_reconcile/2", 5)):
            agency.name = night
            summary = agency.scan()
            assert (summary.metrics["unproven"], summary.metrics["unproven_overdue"]) == (5, overdue)
            assert len(summary.examples["unproven_examples"]) == 5
        (why,) = agency.conn.execute("SELECT why FROM confidence.unproven WHERE entity = 'flex_crew_calls'").fetchone()
        assert "only in its record" in why
        # A scan of other crew calls proves nothing of this one.
        assert agency.scan(departments=["lights"]).metrics["unproven"] == 5
        agency.control.clear()
        assert agency.scan().metrics["unproven"] == 0
        agency.name = "flex_reconcile/test"

    def test_of_a_crew_call_that_cannot_be_written_names_it_until_it_is_mended(self, crew):
        """So that no run counts as confirmed: it differs, and nothing is planned for it."""
        agency = crew.agency
        second = agency.by_hand("add", crew.booked, crew.of_bob)
        summary = agency.scan()
        assert (changes(summary), summary.incomplete, summary.metrics["unproven"]) == ((0, 0, 0), "", 1)
        assert account(summary, "flex_crew_calls") == {"listed": 1, "refused": 1, "live": 1, "differing": 1}
        (key, why) = agency.conn.execute("SELECT key, why FROM confidence.unproven").fetchone()
        assert key == [str(crew.booked.element)]
        assert why == f"resource {crew.of_bob} has 2 lines in Flex. Delete all but one there"
        agency.by_hand("delete", crew.booked, line=second)
        assert agency.scan().metrics["unproven"] == 0

    def test_of_too_many_unproven_rows_is_no_evidence_and_is_kept_all_the_same(self, crew):
        unreadable(crew)
        summary = crew.agency.scan()
        assert "could not be proven" in summary.incomplete
        query = "SELECT summary ->> 'incomplete' FROM confidence.forensic_run"
        assert crew.agency.conn.execute(query).fetchall() == [(summary.incomplete,)]

    @pytest.mark.parametrize("kind", ["empty", "short", "lag", "swapped"])
    def test_one_list_that_hides_a_line_makes_nothing_of_it_missing(self, crew, kind):
        agency = crew.agency
        other = agency.book()
        path = f"line-item/{crew.booked.element}/row-data"
        agency.fault(kind, path, "GET", times=None, element=other.element, changes=3)
        summary = agency.scan()
        assert (changes(summary), summary.metrics["unreadable"], summary.metrics["missing_in_flex"]) == (
            (0, 0, 0),
            1,
            0,
        )

    @pytest.mark.parametrize("path", ["line-item/{}/row-data", "line-item/{}"])
    def test_one_list_that_shows_a_line_which_is_gone_confirms_nothing(self, crew, path):
        deleted_by_hand(crew)
        crew.agency.fault("lag", path.format(crew.booked.element), "GET", times=None)
        summary = crew.agency.scan()
        assert (summary.metrics["matched"], summary.metrics["unreadable"]) == (0, 1)

    def test_role_that_a_second_read_shows_otherwise_is_no_mismatch(self, crew):
        crew.agency.fault("lag", ROWS, "GET")
        summary = crew.agency.scan()
        assert (changes(summary), summary.metrics["role_mismatch"]) == ((0, 0, 0), 0)
        crew.agency.fault("lag", ROWS, "GET")
        crew.agency.pauses = (0,)
        assert figures(crew.agency.scan()) == {"matched": 2}

    @pytest.mark.parametrize("records", ["ids", "whole"])
    @pytest.mark.parametrize("falsely", [of_somebody_else, exchanged, as_gear])
    def test_contact_that_is_told_falsely_once_is_neither_missing_nor_unknown(
        self, crew, monkeypatch, falsely, records
    ):
        crew.agency.control.set(records=records)
        with monkeypatch.context() as patch:
            tell_once(patch, falsely)
            assert figures(crew.agency.scan()) == {"unreadable": 1}
        tell_once(monkeypatch, falsely)
        crew.agency.pauses = (0,)
        assert figures(crew.agency.scan()) == {"matched": 2}

    def test_what_is_asked_for_again_and_shown_then_is_proven(self, crew):
        crew.agency.fault("empty", ROWS, "GET")
        crew.agency.pauses = (0,)
        assert figures(crew.agency.scan()) == {"matched": 2}

    def test_lines_on_a_crew_call_that_nobody_names_are_looked_for_a_few_times_more(self, crew):
        agency = crew.agency
        line_id = crew.line_of_bob
        agency.conn.execute("DELETE FROM flex.jobs; UPDATE flex.owned_line SET gone_at = now()")
        summary = agency.scan()
        assert (summary.metrics["undesired_owned"], changes(summary)) == (2, (0, 2, 2))
        agency.conn.execute("UPDATE flex.owned_line SET gone_at = now() - interval '8 days'")
        assert agency.scan().metrics["crew_calls"] == 0
        assert line_id in {line.id for line in agency.control.lines(crew.booked.element)}


class TestScope:
    @pytest.fixture
    def three(self, agency) -> tuple[Booked, Booked, Booked]:
        sound = agency.book()
        lights = agency.book("lights", job=sound.job)
        other = agency.book()
        for booked in (sound, lights, other):
            agency.hire(booked)
        return sound, lights, other

    def test_of_all(self, agency, three):
        agency.book(end_time="2026-01-01")
        summary = agency.scan()
        assert (summary.scope, summary.metrics["crew_calls"], changes(summary)) == ("all", 3, (3, 0, 0))

    def test_of_a_job(self, agency, three):
        sound, _, _ = three
        summary = agency.scan(job_id=str(sound.job))
        assert (summary.scope, summary.metrics["crew_calls"]) == (f"job {sound.job}", 2)

    def test_of_departments(self, agency, three):
        sound, lights, _ = three
        both = agency.scan(departments=["sound", "lights", "sound"])
        assert (both.scope, both.metrics["crew_calls"]) == ("lights, sound", 3)
        one = agency.scan(job_id=str(sound.job), departments=["lights"])
        assert (one.scope, one.metrics["crew_calls"]) == (f"job {sound.job}, lights", 1)
        agency.repair(one)
        assert (len(agency.crew(lights)), agency.crew(sound)) == (1, {})


class TestResumed:
    @pytest.mark.drill("killed-scan")
    def test_after_a_kill_at_any_crew_call_reads_each_once(self, agency, monkeypatch):
        elements = [agency.book() for _ in range(4)]
        for booked in elements:
            agency.hire(booked)
        whole = agency.scan()
        compare = scans.compare_element
        for kill in range(1, len(elements) + 1):
            # A new epoch: nothing is left of the scan before.
            agency.resume()
            looked: list[UUID] = []

            def killed(context, element_id, looked=looked, kill=kill, **options):
                looked.append(element_id)
                if len(looked) == kill:
                    raise KeyboardInterrupt
                return compare(context, element_id, **options)

            monkeypatch.setattr(scans, "compare_element", killed)
            with pytest.raises(KeyboardInterrupt):
                agency.scan()
            assert len(looked) == kill
            agency.control.reset_counters()
            resumed = agency.scan()
            assert agency.control.counters().total("GET") == 2 * (len(elements) - kill + 1)
            assert (resumed.metrics, resumed.plan, resumed.examples) == (whole.metrics, whole.plan, whole.examples)
        agency.repair(resumed)
        assert [len(agency.crew(booked)) for booked in elements] == [1] * 4

    @pytest.mark.parametrize(
        "leave",
        [
            "UPDATE flex.jobs SET end_time = now() - interval '1 second' WHERE id = %s",
            "DELETE FROM flex.jobs WHERE id = %s",
        ],
        ids=["over", "cancelled"],
    )
    def test_after_the_job_of_a_crew_call_that_was_read_is_gone(self, agency, monkeypatch, leave):
        """A job ends in the night in which its crew call is looked at."""
        jobs = {booked.element: booked.job for booked in (agency.book(), agency.book())}
        compare, looked = scans.compare_element, []

        def killed(context, element_id, **options):
            if looked:
                raise KeyboardInterrupt
            looked.append(element_id)
            return compare(context, element_id, **options)

        monkeypatch.setattr(scans, "compare_element", killed)
        with pytest.raises(KeyboardInterrupt):
            agency.scan()
        monkeypatch.undo()
        agency.conn.execute(leave, [jobs[looked[0]]])
        summary = agency.scan()
        assert (summary.incomplete, summary.metrics["crew_calls"]) == ("", 2)


class TestProgress:
    @pytest.mark.parametrize(("number", "told"), [(0, [0]), (3, [2, 3]), (4, [2, 4])])
    def test_is_kept_with_the_run(self, agency, monkeypatch, number, told):
        monkeypatch.setattr(scans, "PROGRESS_EVERY", 2)
        for _ in range(number):
            agency.book()
        summary = agency.scan()
        (lines,) = agency.conn.execute("SELECT progress FROM confidence.forensic_run").fetchone()
        assert [(line["event"], line["crew_calls"], line["of"]) for line in lines] == [
            ("scan_progress", done, number) for done in told
        ]
        assert lines[-1]["requests"] == summary.telemetry["requests"]


class TestWithoutAnAnswer:
    """One crew call that fails is unproven, and the others are looked at; what concerns all is no evidence."""

    @pytest.fixture
    def many(self, agency) -> list[Booked]:
        """Twelve crew calls in step, in the order in which a scan comes to them."""
        booked = {each.element: each for each in (agency.book() for _ in range(12))}
        for each in booked.values():
            agency.hire(each)
        agency.sync()
        return [booked[element_id] for element_id in Scope().elements(agency.conn)]

    def no_evidence(self, agency: Agency) -> None:
        with pytest.raises(TryLater):
            agency.scan()
        assert agency.conn.execute("SELECT count(*) FROM confidence.forensic_run").fetchone() == (0,)

    @pytest.mark.parametrize("path", ["line-item/{}/row-data", "line-item/{}"])
    @pytest.mark.parametrize("name", FAILS)
    def test_a_crew_call_is_unproven_with_its_reason(self, agency, many, name, path):
        agency.by_hand("delete", many[5], next(iter(agency.crew(many[5]))))
        agency.fault(path=path.format(many[3].element), method="GET", times=None, **FAILS[name])
        summary = agency.scan()
        assert (summary.incomplete, figures(summary)["unreadable"], changes(summary)[0]) == ("", 1, 1)
        assert account(summary, "flex_crew_calls") == {
            **{"listed": 12, "compared": 12, "live": 12, "equal": 10, "differing": 1, "unproven": 1}
        }
        query = "SELECT key ->> 0, why <> '' FROM confidence.unproven WHERE entity = 'flex_crew_calls'"
        assert agency.conn.execute(query).fetchall() == [(str(many[3].element), True)]

    def test_a_crew_call_that_answers_at_the_end_is_proven(self, agency, many):
        agency.fault("status", ROWS, "GET", status=500, nth=2)
        assert figures(agency.scan()) == {"matched": 12}

    def test_a_crew_call_whose_second_look_has_no_rows_is_asked_again(self, agency, many):
        agency.pauses = (0,)
        (resource,) = agency.crew(many[0])
        agency.by_hand("role", many[0], resource, role=EXPERT)
        agency.fault("status", f"line-item/{many[0].element}/row-data", "GET", status=404, nth=2)
        assert figures(agency.scan()) == {"matched": 11, "role_mismatch": 1}

    def test_any_crew_call_there_is_no_evidence(self, agency):
        agency.book(), agency.book()
        agency.fault("status", ROWS, status=500, times=None)
        self.no_evidence(agency)
        agency.control.clear()
        assert agency.scan().metrics["crew_calls"] == 2

    @pytest.mark.parametrize("before", [0, 4])
    def test_an_outage_ends_it_soon_and_the_next_attempt_goes_on(self, agency, many, before):
        agency.control.reset_counters()
        agency.fault("status", ROWS, "GET", status=500, nth=before + 1, times=None)
        self.no_evidence(agency)
        asked = 2 * before + scans.FAILED_IN_A_ROW + bool(before)
        assert agency.control.counters().total("GET") == asked
        agency.control.clear()
        agency.control.reset_counters()
        assert figures(agency.scan()) == {"matched": 12}
        assert agency.control.counters().total("GET") == 2 * (12 - before)

    def test_many_crew_calls_side_by_side_are_no_outage(self, agency, many):
        for booked in many[4:]:
            agency.fault("status", f"line-item/{booked.element}/row-data", "GET", status=403, times=None)
        assert figures(agency.scan()) == {"matched": 4, "unreadable": 8}

    @pytest.mark.parametrize("nth", [3, 13])
    def test_without_a_right_to_anything_it_ends_at_once(self, agency, many, nth):
        """Also while it asks again what was put off."""
        agency.control.reset_counters()
        agency.fault("status", f"line-item/{many[0].element}/row-data", "GET", status=500)
        agency.fault("status", ROWS, "GET", status=401, nth=nth)
        with pytest.raises(FixConfiguration):
            agency.scan()
        assert agency.conn.execute("SELECT count(*) FROM confidence.forensic_run").fetchone() == (0,)


class TestRepair:
    def test_does_what_was_planned_and_is_still_called_for(self, crew):
        agency = crew.agency
        fired(crew)
        _, later = agency.hire(crew.booked)
        summary = agency.scan()
        assert changes(summary) == (1, 0, 1)
        # He is back, and somebody else has come.
        assign(agency.conn, crew.booked.call, crew.bob, "FOH-E")
        agency.hire(crew.booked)
        _, counts = agency.repair(summary)
        assert (counts.inserted, counts.deleted, counts.superseded) == (1, 0, 1)
        assert {*agency.crew(crew.booked)} == {crew.of_ann, crew.of_bob, later}

    def test_gives_an_added_line_its_role_though_no_answer_names_the_line(self, agency, monkeypatch):
        booked, add = agency.book(), calls.add
        _, resource = agency.hire(booked)
        summary = agency.scan()
        monkeypatch.setattr(calls, "add", lambda *asked: replace(add(*asked), kind="unknown", line_id=None))
        agency.repair(summary)
        assert agency.crew(booked)[resource].role_id is not None
        assert changes(agency.scan()) == (0, 0, 0)

    @pytest.mark.parametrize("status", [410, 422, 423])
    def test_that_flex_refuses_fails_and_the_rest_is_done(self, agency, status):
        """A crew call may be locked, or deleted meanwhile: nobody is in doubt, and the writer goes on."""
        booked = [agency.book(), agency.book()]
        for each in booked:
            agency.hire(each)
        summary = agency.scan()
        agency.fault("status", ADD, status=status)
        with pytest.raises(SyncFailed, match=rf"not everything is repaired: .*{status}"):
            agency.repair(summary)
        assert ({*agency.gates().values()}, holds.open_holds(agency.conn, "flex")) == ({"idle"}, [])
        assert sorted(len(agency.crew(each)) for each in booked) == [0, 1]
        entry = agency.synced()
        assert (entry["kind"], entry["state"], entry["rows_inserted"], entry["rows_failed"]) == (
            "repair",
            "failed",
            1,
            1,
        )
        assert entry["rows_superseded"] == 0

    def test_of_a_crew_call_that_is_locked_fails_and_the_rest_is_done(self, agency):
        booked = [agency.book() for _ in range(4)]
        for each in booked:
            agency.hire(each)
        summary = agency.scan()
        agency.fault("status", f"line-item/{booked[0].element}/add-resource/*", status=403, times=None)
        with pytest.raises(FixConfiguration, match=f"{booked[0].element}.* answered 403"):
            agency.repair(summary)
        assert [len(agency.crew(each)) for each in booked] == [0, 1, 1, 1]

    def test_that_cannot_read_says_so_and_the_rest_is_done(self, agency):
        booked = [agency.book(), agency.book()]
        for each in booked:
            agency.hire(each)
        summary = agency.scan()
        agency.fault("status", ROWS, "GET", status=500)
        with pytest.raises(TryLater, match="the others are repaired"):
            agency.repair(summary)
        assert sorted(len(agency.crew(each)) for each in booked) == [0, 1]

    @pytest.mark.drill("answer-lost")
    def test_of_unknown_outcome_begins_nothing_more_and_holds_the_writer(self, agency):
        booked = [agency.book() for _ in range(3)]
        for each in booked:
            agency.hire(each)
        summary = agency.scan()
        agency.fault("drop", ADD, nth=2)
        with pytest.raises(OutcomeUnknown, match="release_element") as unknown:
            agency.repair(summary)
        assert agency.control.counters().total("add-resource") == 2
        [hold] = holds.open_holds(agency.conn, "flex")
        assert hold.reasons == (str(unknown.value),)
        entry = agency.synced()
        assert (entry["state"], entry["rows_inserted"], entry["rows_superseded"]) == ("failed", 1, 0)
        # The third was never begun, and nothing is told of it.
        assert [row["summary"]["state"] for row in agency.log()] == ["done", "uncertain"]
        assert sorted(agency.gates().values()) == ["idle", "uncertain"]

    def test_verify_tells_what_is_open_and_what_came_up(self, crew):
        agency = crew.agency
        fired(crew)
        summary = agency.scan()
        agency.by_hand("add", crew.booked, crew.of_ann)
        assert agency.verify(summary, 0)["duplicate_in_flex"] == (0, 1)
        agency.fault("object", ROWS, times=None)
        assert agency.verify(summary, 0)["unreadable"] == (0, 1)
        agency.control.clear()
        agency.by_hand("delete", crew.booked, line=agency.control.lines(crew.booked.element)[-1].id)
        # As if a repair had done nothing.
        assert agency.verify(summary, 0)["planned_changes_open"] == (0, 1)

    def test_verify_excuses_what_was_superseded_and_nothing_else(self, crew):
        agency = crew.agency
        fired(crew)
        agency.by_hand("role", crew.booked, crew.of_ann, role=EXPERT)
        summary = agency.scan()
        assert changes(summary) == (0, 1, 1)
        assign(agency.conn, crew.booked.call, crew.bob, "FOH-E")
        sync_id, counts = agency.repair(summary)
        assert (counts.updated, counts.deleted, counts.superseded) == (1, 0, 1)
        assert agency.verify(summary, sync_id)["planned_changes_open"] == (0, 0)
        fired(crew)
        assert agency.verify(summary, sync_id)["planned_changes_open"] == (1, 1)
        agency.by_hand("role", crew.booked, crew.of_ann, role=EXPERT)
        assert agency.verify(summary, sync_id)["planned_changes_open"] == (1, 2)

    def test_verify_tells_what_no_read_has_proven(self, crew):
        agency = crew.agency
        fired(crew)
        summary = agency.scan()
        sync_id, _ = agency.repair(summary)
        agency.conn.execute(
            "UPDATE flex.operation SET state = 'answered', settled_at = NULL WHERE sync_id = %s", [sync_id]
        )
        assert agency.verify(summary, sync_id)["writes_not_proven"] == (0, 1)

    @pytest.mark.parametrize(("fault", "path", "method"), [("ignored", LINE, "DELETE"), ("ignored", ROWS, "POST")])
    def test_that_flex_took_for_done_and_did_not_do_fails(self, crew, fault, path, method):
        agency = crew.agency
        (fired if method == "DELETE" else other_role)(crew)
        summary = agency.scan()
        agency.fault(fault, path, method)
        with pytest.raises(SyncFailed, match="a fresh read does not show it"):
            agency.repair(summary)
        assert (agency.synced()["rows_deleted"], agency.synced()["rows_updated"]) == (0, 0)

    def test_that_leaves_an_orphan_fails_once_all_else_is_done(self, crew):
        agency = crew.agency
        line_id = agency.by_hand("add", crew.booked, resource := uuid4())
        own(agency.conn, crew.booked.element, line_id, resource)
        fired(crew)
        summary = agency.scan()
        assert changes(summary) == (0, 0, 2)
        agency.fault("status", f"line-item/{line_id}", "DELETE", status=409)
        with pytest.raises(SyncFailed, match=r"not everything is repaired: .*409"):
            agency.repair(summary)
        assert {*agency.crew(crew.booked)} - {crew.of_ann} == {agency.crew(crew.booked).popitem()[0]}

    def test_begins_nothing_without_the_unique_key(self, crew):
        agency = crew.agency
        fired(crew)
        summary = agency.scan()
        agency.control.reset_counters()
        with without_key(agency), pytest.raises(IntegrityFailed, match="warehouse_migrate"):
            agency.repair(summary)
        assert agency.control.counters().total() == 0

    def test_verify_does_not_excuse_a_duplicate_by_another(self, crew):
        """That which was there before is on a crew call where nothing was repaired."""
        agency = crew.agency
        other = agency.book()
        resource = uuid4()
        agency.by_hand("add", other, resource), agency.by_hand("add", other, resource)
        fired(crew)
        summary = agency.scan()
        assert summary.metrics["duplicate_in_flex"] == 1
        agency.by_hand("add", crew.booked, crew.of_ann)
        assert agency.verify(summary, 0)["duplicate_in_flex"] == (0, 1)

    def test_row_without_a_line_is_given_one(self, crew):
        row_gone(crew)
        note(crew.agency.conn, crew.booked.call, crew.bob, None)
        summary = crew.agency.scan()
        assert (figures(summary), changes(summary)) == ({"matched": 1, "missing_row": 1}, (0, 1, 0))
        _, counts = crew.agency.repair(summary)
        assert (counts.updated, crew.agency.rows(crew.booked)[crew.bob]) == (1, crew.line_of_bob)
