"""What the planned changes of a scan of Flex have in common: a planted cause is found, drift by chance has none."""

import random

from tests.sources.flex import Agency, Booked


def crews(agency: Agency, of: int = 12) -> dict[Booked, list]:
    """Three crew calls with so many people each, in step; the resources of each."""
    booked = [agency.book(start_time=f"2027-0{month}-01 18:00+00") for month in (3, 4, 5)]
    found = {each: [agency.hire(each)[1] for _ in range(of)] for each in booked}
    agency.sync()
    return found


def told(agency: Agency) -> list[tuple]:
    """What stands out in the plan of a scan, as the warehouse keeps it."""
    evidence = agency.scan().evidence
    query = "SELECT f ->> 'kind', f ->> 'column', f ->> 'value', (f ->> 'planned')::int, (f ->> 'present')::int,"
    query += " (f ->> 'rows')::int FROM confidence.forensic_run, jsonb_array_elements(patterns) f"
    return agency.conn.execute(f"{query} WHERE summary ->> 'evidence' = %s", [evidence]).fetchall()


def test_whole_crew_that_was_taken_off_in_flex(agency):
    """Of the facts about the same rows one is told."""
    found = crews(agency)
    first, second, _ = found
    for resource in found[first]:
        agency.by_hand("delete", first, resource)
    agency.by_hand("delete", second, found[second][0])
    assert told(agency) == [("value", "flex_element_id", str(first.element), 12, 12, 36)]


def test_whole_crews_that_were_taken_off_in_flex(agency):
    """Their lines are all there were on two of three crew calls; one line of the third is beside them."""
    found = crews(agency)
    first, second, third = found
    for booked in (first, second):
        for resource in found[booked]:
            agency.by_hand("delete", booked, resource)
    agency.by_hand("delete", third, found[third][0])
    assert ("parents", "flex_element_id", "2", 24, 0, 0) in told(agency)


def test_people_who_are_wanted_no_more(agency):
    """Lines to delete are compared with our rows."""
    found = crews(agency)
    first = next(iter(found))
    agency.conn.execute("DELETE FROM flex.job_assignments WHERE job_id = %s", [first.job])
    assert told(agency) == [("value", "flex_element_id", str(first.element), 12, 12, 36)]


def test_people_taken_off_by_chance_have_nothing_in_common(agency):
    for seed in range(3):
        found = crews(agency)
        chosen = random.Random(seed).sample([(each, who) for each, crew in found.items() for who in crew], 12)
        for booked, resource in chosen:
            agency.by_hand("delete", booked, resource)
        assert told(agency) == []
        agency.resume()
        agency.clean()


def test_few_changes_have_nothing_in_common(agency):
    found = crews(agency)
    first = next(iter(found))
    for resource in found[first][:9]:
        agency.by_hand("delete", first, resource)
    assert told(agency) == []
