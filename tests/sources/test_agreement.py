"""When two readings of a row agree."""

from datetime import datetime

import pytest

from include.sources.mirror.agreement import Reading


def reading(**values):
    return Reading(values, (1,), None)


@pytest.mark.parametrize(
    ("listed", "looked_up", "agree"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": 1}, True),
        ({"a": 1}, {}, False),
        # An object of a column is one value; in extra the record's own address may show more of it.
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, False),
        ({"extra": {"a": {"b": 1}}}, {"extra": {"a": {"b": 1, "c": 2}, "d": 3}}, True),
        ({"extra": {"a": {"b": 1}}}, {"extra": {"a": {"b": 2}}}, False),
        ({"extra": {"a": [{"b": 1}]}}, {"extra": {"a": [{"b": 1, "c": 2}]}}, False),
        ({"extra": {"a": 1}}, {"extra": None}, False),
        ({"extra": None}, {"extra": {"a": 1}}, True),
        ({"extra": {"a": None}}, {"extra": {}}, True),
        # Addresses may write nothing in different ways.
        ({"a": None}, {"a": ""}, True),
        ({"a": ""}, {"a": 0}, False),
        ({"a": None}, {"a": False}, False),
        ({"extra": {"a": []}}, {"extra": {"a": None}}, True),
    ],
)
def test_readings_agree_where_the_second_has_all_of_the_first(listed, looked_up, agree):
    assert (not reading(**listed).differing(reading(**looked_up))) == agree


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("11.482", "11.000", True),
        ("11.482913", "11.482", True),
        ("11.482913", "11.000", True),
        ("11.482", "12.000", False),
        ("11.482", "11.483", False),
        ("11.482913", "11.482914", False),
        ("11.000", "11.000", True),
    ],
)
def test_time_may_come_with_fewer_digits(one, other, same):
    one, other = (datetime.fromisoformat(f"2026-02-03T15:20:{each}+00:00") for each in (one, other))
    readings = [Reading({"at": each}, (each,), each) for each in (one, other)]
    assert (not readings[0].differing(readings[1])) is (not readings[1].differing(readings[0])) is same
    assert (not readings[0].newer(readings[1]) and not readings[1].newer(readings[0])) is same


def test_names_the_fields_that_differ():
    listed = reading(a=1, b=2, extra={"c": 3, "d": 4})
    assert listed.differing(reading(a=1, b=3, extra={"c": 4, "d": 4})) == {"b", "extra.c"}
