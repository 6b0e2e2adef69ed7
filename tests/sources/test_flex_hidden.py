"""Contacts that Flex hides from a token which has lost a right: each address answers as if people had deleted them."""

import pytest

from include.sources.base import SyncFailed

from .flex import Agency, Booked

HIDDEN = "Flex shows none of our lines here, and none of {} asked for on other crew calls either"


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
