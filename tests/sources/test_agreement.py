"""When two readings of a row agree."""

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
    ],
)
def test_readings_agree_where_the_second_has_all_of_the_first(listed, looked_up, agree):
    assert reading(**listed).agrees(reading(**looked_up)) == agree
