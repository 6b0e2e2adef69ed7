"""The desired crew of a crew call in Flex, and when it counts as another one."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest

from include.sources.flex.desired import Call, crew, fingerprint
from include.sources.flex.plan import Desired, Member, Row

from .flex import HAND, LEAD, SOUND, assign, call, note, own, person, put


@pytest.fixture
def conn(url) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def element() -> UUID:
    return uuid4()


def test_of_nothing_is_nobody(conn, element):
    found = crew(conn, element, SOUND)
    assert (found.calls, found.desired, found.rows, found.owned, found.diagnostics) == ({}, (), (), {}, ())


def test_is_who_has_a_role_in_the_department(conn, element):
    job = put(conn, "jobs")
    sound = call(conn, element, job=job)
    lights = call(conn, uuid4(), "lights", job=job)
    resources = [uuid4() for _ in range(3)]
    ann, bob, eve = (person(conn, each) for each in resources)
    assign(conn, sound, ann, "FOH-R", status="declined")
    assign(conn, lights, bob, "LX-R")
    assign(conn, sound, eve, "")
    homeless = person(conn, None)
    assign(conn, sound, homeless, "MON-T")
    expected = {Desired(Member(sound, ann), resources[0], LEAD), Desired(Member(sound, homeless), None, HAND)}
    found = crew(conn, element, SOUND)
    assert {*found.desired} == expected
    assert found.calls == {sound: Call(job, "sound")}


def test_is_the_union_of_the_calls_that_point_to_the_element(conn, element):
    resource = uuid4()
    ann = person(conn, resource)
    first, second = call(conn, element), call(conn, element, "lights")
    for each in (first, second):
        assign(conn, each, ann, "X-T")
    # Once more, for another day.
    assign(conn, first, ann, "X-T", single_day=True)
    found = crew(conn, element, SOUND)
    assert {*found.desired} == {
        Desired(Member(first, ann), resource, HAND),
        Desired(Member(second, ann), resource, None),
    }
    assert len(found.desired) == 2
    assert len(found.diagnostics) == 1
    assert "lights" in found.diagnostics[0]


@pytest.mark.parametrize("job_type", ["dryhire", "Dry Hire", "dry-hire", "DRY_HIRE"])
def test_is_nobody_for_a_dry_hire(conn, element, job_type):
    assign(conn, call(conn, element, job_type=job_type), person(conn, uuid4()))
    assert crew(conn, element, SOUND).desired == ()


@pytest.mark.parametrize("role", ["", " ", "\t", "\n", "\u00a0", " \u200b ", "\ufeff"], ids=ascii)
def test_is_nobody_with_a_blank_role(conn, element, role):
    assign(conn, call(conn, element), person(conn, uuid4()), role)
    assert crew(conn, element, SOUND).desired == ()


def test_comes_with_our_rows_and_the_lines_that_we_made(conn, element):
    resource, noted, made, gone = (uuid4() for _ in range(4))
    ann = person(conn, resource)
    here = call(conn, element)
    note(conn, here, ann, noted)
    own(conn, element, made, resource)
    own(conn, element, gone)
    own(conn, uuid4(), uuid4())
    conn.execute("UPDATE flex.owned_line SET gone_at = now() WHERE flex_line_item_id = %s", [gone])
    found = crew(conn, element, SOUND)
    assert found.rows == (Row(Member(here, ann), noted, resource),)
    assert (found.owned, found.gone) == ({made: resource}, {gone: None})
    assert (found.mapped, found.known) == ({made, noted, gone}, {made, noted})


@pytest.mark.parametrize("whose", ["ours", "a person's"])
def test_comes_with_rows_that_name_a_line_elsewhere(conn, element, whose):
    ann, line_id, before = person(conn, uuid4()), uuid4(), uuid4()
    here = call(conn, element)
    note(conn, here, ann, line_id)
    if whose == "ours":
        own(conn, before, line_id)
    else:
        conn.execute("INSERT INTO flex.kept_line VALUES (%s, %s)", [line_id, before])
    found = crew(conn, element, SOUND)
    assert (found.elsewhere, found.known) == ({line_id}, frozenset())


def test_comes_with_the_lines_of_people_who_have_to_be_elsewhere_first(conn, element):
    ann, line_id = person(conn, uuid4()), uuid4()
    there = call(conn, uuid4())
    assign(conn, there, ann)
    query = "UPDATE flex.owned_line SET crew_call_id = %s, technician_id = %s WHERE flex_line_item_id = %s"
    own(conn, element, line_id)
    assert crew(conn, element, SOUND).leaving == frozenset()
    conn.execute(query, [there, ann, line_id])
    assert crew(conn, element, SOUND).leaving == {line_id}
    note(conn, there, ann, line_id)
    assert crew(conn, element, SOUND).leaving == {line_id}
    conn.execute("UPDATE flex.flex_crew_assignments SET flex_line_item_id = gen_random_uuid()")
    assert crew(conn, element, SOUND).leaving == frozenset()
    conn.execute("UPDATE flex.flex_crew_assignments SET flex_line_item_id = %s", [line_id])
    conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = %s", [ann])
    assert crew(conn, element, SOUND).leaving == frozenset()


def test_comes_with_the_lines_of_people_without_a_contact_that_have_to_stay(conn, element):
    ann, line_id = person(conn, None), uuid4()
    there, here = call(conn, uuid4()), call(conn, element)
    own(conn, element, line_id)
    query = "UPDATE flex.owned_line SET crew_call_id = %s, technician_id = %s WHERE flex_line_item_id = %s"
    for each in (there, here):
        conn.execute("DELETE FROM flex.job_assignments")
        assign(conn, each, ann)
        conn.execute(query, [each, ann, line_id])
        found = crew(conn, element, SOUND)
        assert (found.staying, found.leaving) == ({line_id: (Member(each, ann),)}, frozenset())
    conn.execute("DELETE FROM flex.job_assignments WHERE technician_id = %s", [ann])
    assert crew(conn, element, SOUND).staying == {}


class TestToken:
    @pytest.fixture
    def here(self, conn, element) -> UUID:
        here = call(conn, element, job_type="single")
        assign(conn, here, person(conn, uuid4()), "FOH-R")
        return here

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE flex.job_assignments SET sound_role = 'FOH-T'",
            "UPDATE flex.job_assignments SET sound_role = NULL",
            "DELETE FROM flex.job_assignments",
            "UPDATE flex.profiles SET flex_resource_id = gen_random_uuid()",
            "UPDATE flex.profiles SET flex_resource_id = NULL",
            "UPDATE flex.jobs SET job_type = 'dryhire'",
            "DELETE FROM flex.jobs",
            "UPDATE flex.flex_crew_calls SET flex_element_id = gen_random_uuid()",
        ],
    )
    def test_changes_with(self, conn, element, here, change):
        before = crew(conn, element, SOUND).fingerprint
        assert fingerprint(conn, element) == before
        conn.execute(change)
        assert fingerprint(conn, element) != before

    def test_changes_with_a_call_that_comes_to_point_there(self, conn, element, here):
        before = fingerprint(conn, element)
        call(conn, element)
        assert fingerprint(conn, element) != before

    def test_stays_with_what_is_ours_or_of_no_matter(self, conn, element, here):
        before = fingerprint(conn, element)
        note(conn, here, person(conn, uuid4()), uuid4())
        own(conn, element, uuid4())
        conn.execute("UPDATE flex.job_assignments SET status = 'declined', lights_role = 'LX-T'")
        assert fingerprint(conn, element) == before
