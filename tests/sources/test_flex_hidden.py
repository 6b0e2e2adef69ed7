"""Contacts that Flex hides from a token which has lost a right: each address answers as if people had deleted them."""

import pytest

from include.sources.base import SyncFailed

from .flex import Agency, Booked

HIDDEN = "Flex shows none of the lines that we know here, and none of {} asked for on other crew calls either"


@pytest.fixture
def booked(agency: Agency) -> list[Booked]:
    """Three crew calls in step, with two people each."""
    calls = [agency.book() for _ in range(3)]
    for each in calls:
        agency.hire(each), agency.hire(each)
    agency.sync()
    return calls


def hide(agency: Agency, *calls: Booked) -> None:
    """Flex shows no contact of these crew calls any more."""
    for each in calls:
        for line in agency.crew(each).values():
            agency.fault("status", f"line-item/{line.id}", "GET", status=404, times=None)
        for path in ("row-data", ""):
            agency.fault("empty", f"line-item/{each.element}/{path}".rstrip("/"), "GET", times=None)


def test_of_all_crew_calls_make_nobody_missing(agency, booked):
    people = [{*agency.crew(each)} for each in booked]
    hide(agency, *booked)
    _, new = agency.hire(booked[0])
    with pytest.raises(SyncFailed, match=HIDDEN.format(4)):
        agency.sync()
    summary = agency.scan()
    assert (summary.plan.insert, summary.metrics["stale_rows"], summary.metrics["unreadable"]) == (0, 0, 3)
    assert [{*agency.crew(each)} for each in booked] == people
    agency.control.clear()
    agency.resume()
    agency.sync()
    assert {*agency.crew(booked[0])} == people[0] | {new}


class TestOfPeople:
    """Lines that people made, and that the first sync has found: the token may see only what it has made itself."""

    @pytest.fixture
    def adopted(self, agency: Agency) -> list[Booked]:
        calls = [agency.book() for _ in range(3)]
        for each in calls:
            _, resource = agency.hire(each)
            agency.by_hand("add", each, resource)
        agency.sync()
        return calls

    def hide_people(self, agency: Agency, *calls: Booked) -> None:
        kept = {line_id for (line_id,) in agency.conn.execute("SELECT flex_line_item_id FROM flex.kept_line")}
        for each in calls:
            for line in agency.crew(each).values():
                if line.id in kept:
                    agency.fault("status", f"line-item/{line.id}", "GET", status=404, times=None)
                    for path in (f"line-item/{each.element}/row-data", f"line-item/{each.element}"):
                        agency.fault("short", path, "GET", line=line.id, times=None)

    @pytest.mark.parametrize("with_ours", [False, True], ids=["alone", "beside ours"])
    def test_make_nobody_missing(self, agency, adopted, with_ours):
        if with_ours:
            for each in adopted:
                agency.hire(each)
            agency.sync()
        people = [{*agency.crew(each)} for each in adopted]
        self.hide_people(agency, *adopted)
        summary = agency.scan()
        assert (summary.plan.insert, summary.metrics["unreadable"]) == (0, 3)
        agency.resume()
        agency.hire(adopted[0])
        with pytest.raises(SyncFailed, match=HIDDEN.format(2)):
            agency.sync()
        assert [{*agency.crew(each)} for each in adopted] == people

    def test_are_missing_if_others_are_shown(self, agency, adopted):
        agency.hire(adopted[0])
        agency.sync()
        for each in adopted[:2]:
            for resource in agency.crew(each):
                agency.by_hand("delete", each, resource)
        agency.sync("full")
        assert [len(agency.crew(each)) for each in adopted] == [2, 1, 1]

    def test_are_missing_if_the_others_are_of_jobs_that_are_over(self, agency, adopted):
        """Nobody looks whether these are there still."""
        agency.hire(adopted[0])
        agency.sync()
        for each in adopted[1:]:
            agency.conn.execute("UPDATE flex.jobs SET end_time = '2026-01-01' WHERE id = %s", [each.job])
            for resource in agency.crew(each):
                agency.by_hand("delete", each, resource)
        [theirs] = agency.conn.execute(
            "SELECT flex_line_item_id FROM flex.kept_line WHERE flex_element_id = %s", [adopted[0].element]
        ).fetchone()
        agency.by_hand("delete", adopted[0], line=theirs)
        assert agency.scan().metrics["unreadable"] == 0


def test_of_a_crew_call_that_nobody_names_any_more_stay_ours(agency, booked):
    hide(agency, *booked)
    agency.conn.execute("DELETE FROM flex.jobs WHERE id = %s", [booked[0].job])
    with pytest.raises(SyncFailed, match=HIDDEN.format(4)):
        agency.sync()
    agency.control.clear()
    agency.sync()
    assert agency.crew(booked[0]) == {}


def test_crew_that_people_have_taken_off_is_missing_if_others_are_shown(agency, booked):
    for each in booked[:2]:
        for resource in agency.crew(each):
            agency.by_hand("delete", each, resource)
    agency.sync("full")
    assert [len(agency.crew(each)) for each in booked] == [2, 2, 2]


@pytest.mark.parametrize("newest_first", [False, True])
def test_crew_is_missing_although_people_have_taken_one_off_another_crew_call_too(agency, booked, newest_first):
    """Another line of that crew call is shown, so nothing is hidden."""
    for each in booked[:2]:
        for resource in agency.crew(each):
            agency.by_hand("delete", each, resource)
    query = "SELECT flex_line_item_id FROM flex.owned_line WHERE flex_element_id = %s ORDER BY made_at"
    lines = [line for (line,) in agency.conn.execute(query, [booked[2].element]).fetchall()]
    taken_off = lines[-1] if newest_first else lines[0]
    people = {line.id: resource for resource, line in agency.crew(booked[2]).items()}
    agency.by_hand("delete", booked[2], people[taken_off])
    assert agency.scan().metrics["unreadable"] == 0


def test_crews_that_people_have_taken_off_everywhere_are_missing_if_anybody_is_shown(agency, booked):
    for each in booked:
        for resource in agency.crew(each):
            agency.by_hand("delete", each, resource)
        agency.by_hand("add", each)
    agency.sync("full")
    assert [len(agency.crew(each)) for each in booked] == [3, 3, 3]


def test_only_crew_call_of_all_is_believed(agency):
    booked = agency.book()
    _, resource = agency.hire(booked)
    agency.sync()
    agency.by_hand("delete", booked, resource)
    agency.sync("full")
    assert {*agency.crew(booked)} == {resource}


def test_crews_that_flex_has_lost_everywhere_are_brought_again_by_a_full_sync(agency, booked):
    for each in booked:
        for resource in agency.crew(each):
            agency.by_hand("delete", each, resource)
    agency.hire(booked[0])
    with pytest.raises(SyncFailed, match="trigger flex_sync with mode full"):
        agency.sync()
    agency.sync("full")
    assert [len(agency.crew(each)) for each in booked] == [3, 2, 2]
