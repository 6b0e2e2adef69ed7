"""A scan of Flex: each class counted once, from a real difference; the plan; a resumed scan; and its repair."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from include.api.errors import TryLater
from include.confidence import history
from include.confidence.summary import ForensicSummary
from include.sources.base import OutcomeUnknown, SyncFailed
from include.sources.flex import scan as scans

from .flex import ADD, EXPERT, HAND, LINE, ROWS, Agency, Booked, assign, note, own

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
    own(crew.agency.conn, crew.booked.element, crew.agency.by_hand("add", crew.booked))


def other_role(crew: Crew) -> None:
    crew.agency.by_hand("role", crew.booked, crew.of_bob, role=HAND)


def unreadable(crew: Crew) -> None:
    crew.agency.fault("no_type", ROWS)


def element_gone(crew: Crew) -> None:
    crew.agency.fault("status", ROWS, status=404)


def two_roles(crew: Crew) -> None:
    assign(crew.agency.conn, crew.booked.call, crew.bob, "FOH-R")


def in_doubt(crew: Crew) -> None:
    """A write that nobody knows the outcome of; it was to remove Bob."""
    fired(crew)
    crew.agency.fault("drop", LINE, "DELETE")
    with pytest.raises(SyncFailed):
        crew.agency.sync()


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
}


def figures(summary: ForensicSummary) -> dict[str, int]:
    return {name: figure for name, figure in summary.metrics.items() if figure and name not in SIZES}


def changes(summary: ForensicSummary) -> tuple[int, int, int]:
    return summary.plan.insert, summary.plan.update, summary.plan.delete


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
        assert {name.removesuffix("_ids") for name in summary.examples} == expected.keys() - {"matched", "stale_rows"}
        element_id = str(crew.booked.element)
        assert all(example.startswith(element_id) for ids in summary.examples.values() for example in ids)
        assert len(crew.agency.control.journal()) == writes

    @pytest.mark.parametrize("drift", DRIFT, ids=lambda drift: drift.__name__)
    def test_of_each_kind_are_mended_by_the_repair_of_what_was_planned(self, crew, drift):
        drift(crew)
        summary = crew.agency.scan()
        sync_id, counts = crew.agency.repair(summary)
        assert (counts.inserted, counts.updated, counts.deleted) == DRIFT[drift][1]
        assert (counts.superseded, counts.failed) == (0, 0)
        open_ = crew.agency.verify(summary, sync_id)
        assert open_ == {
            "planned_changes_open": (sum(changes(summary)), 0),
            "duplicate_in_flex": (0, 0),
            "unreadable": (0, 0),
        }
        assert changes(crew.agency.scan()) == (0, 0, 0)

    def test_refused_crew_call_is_left_alone_with_its_stale_rows(self, crew):
        twice(crew)
        crew.agency.by_hand("delete", crew.booked, crew.of_ann)
        summary = crew.agency.scan()
        assert figures(summary) == {
            **{"missing_in_flex": 1, "duplicate_in_flex": 1, "refused": 1},
            "stale_rows": 1,
        }
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

    def test_prune_off_leaves_orphans_out_of_the_plan_only(self, crew):
        fired(crew)
        orphan(crew)
        crew.agency.variables["FLEX_SYNC_PRUNE_ORPHANS"] = "false"
        summary = crew.agency.scan()
        assert (summary.metrics["undesired_owned"], changes(summary)) == (2, (0, 0, 1))
        crew.agency.repair(summary)
        assert len(crew.agency.crew(crew.booked)) == 2

    def test_five_examples_of_many(self, agency):
        booked = agency.book()
        for _ in range(7):
            agency.hire(booked)
        assert len(agency.scan().examples["missing_in_flex_ids"]) == 5


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
    def test_after_a_kill_at_any_crew_call_reads_each_once(self, agency, monkeypatch):
        elements = [agency.book() for _ in range(4)]
        for booked in elements:
            agency.hire(booked)
        whole = agency.scan()
        look = scans.look
        for kill in range(1, len(elements) + 1):
            # A new epoch: nothing is left of the scan before.
            agency.resume()
            looked: list[UUID] = []

            def killed(context, element_id, looked=looked, kill=kill):
                looked.append(element_id)
                if len(looked) == kill:
                    raise KeyboardInterrupt
                return look(context, element_id)

            monkeypatch.setattr(scans, "look", killed)
            with pytest.raises(KeyboardInterrupt):
                agency.scan()
            assert len(looked) == kill
            agency.control.reset_counters()
            resumed = agency.scan()
            assert agency.control.counters().total("GET") == len(elements) - kill + 1
            assert (resumed.metrics, resumed.plan, resumed.examples) == (whole.metrics, whole.plan, whole.examples)
        agency.repair(resumed)
        assert [len(agency.crew(booked)) for booked in elements] == [1] * 4

    def test_unread_crew_call_is_no_evidence(self, agency):
        for _ in range(2):
            agency.book()
        agency.fault("status", ROWS, status=500, nth=2)
        with pytest.raises(TryLater):
            agency.scan()
        assert agency.conn.execute("SELECT count(*) FROM confidence.forensic_run").fetchone() == (0,)
        assert agency.scan().metrics["crew_calls"] == 2


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

    def test_that_flex_refuses_fails_and_the_rest_is_done(self, agency):
        booked = [agency.book(), agency.book()]
        for each in booked:
            agency.hire(each)
        summary = agency.scan()
        agency.fault("status", ADD, status=422)
        with pytest.raises(SyncFailed, match=r"not everything is repaired: .*422"):
            agency.repair(summary)
        assert sorted(len(agency.crew(each)) for each in booked) == [0, 1]
        entry = agency.synced()
        assert (entry["kind"], entry["state"], entry["rows_inserted"], entry["rows_failed"]) == (
            "repair",
            "failed",
            1,
            1,
        )
        assert entry["rows_superseded"] == 0

    def test_that_cannot_read_says_so_and_the_rest_is_done(self, agency):
        booked = [agency.book(), agency.book()]
        for each in booked:
            agency.hire(each)
        summary = agency.scan()
        agency.fault("status", ROWS, "GET", status=500)
        with pytest.raises(TryLater, match="the others are repaired"):
            agency.repair(summary)
        assert sorted(len(agency.crew(each)) for each in booked) == [0, 1]

    def test_of_unknown_outcome_begins_nothing_more_and_holds_the_writer(self, agency):
        booked = [agency.book() for _ in range(3)]
        for each in booked:
            agency.hire(each)
        summary = agency.scan()
        agency.fault("drop", ADD, nth=2, committed=True)
        with pytest.raises(OutcomeUnknown, match="release_element") as unknown:
            agency.repair(summary)
        assert agency.control.counters().total("add-resource") == 2
        [hold] = history.open_holds(agency.conn, "flex")
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
        agency.fault("object", ROWS)
        assert agency.verify(summary, 0)["unreadable"] == (0, 1)
        agency.by_hand("delete", crew.booked, line=agency.control.lines(crew.booked.element)[-1].id)
        assert agency.verify(summary, 0)["planned_changes_open"] == (1, 1)

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
