"""Paths of fields: what `join` writes, `split` reads."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.warehouse.field_path import join, places_of, split

NAMES = st.text(min_size=1) | st.sampled_from(["@odata.etag", 'a"b.c', "back\\slash", "lines[]", "."])


@given(st.lists(NAMES, min_size=1))
def test_a_path_is_split_into_the_names_it_was_joined_from(names):
    assert split(reduce(join, names, "")) == names


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("price.amount", ["price", "amount"]),
        ('"@odata.etag"', ["@odata.etag"]),
        ('price."@odata.type".name', ["price", "@odata.type", "name"]),
        ("", [""]),
    ],
)
def test_names_with_dots_are_quoted(path, names):
    assert split(path) == names


@pytest.mark.parametrize(
    ("path", "places"), [("a", []), ("a.b.c", ["a", "a.b"]), ('"@a.b".c.d', ['"@a.b"', '"@a.b".c'])]
)
def test_a_field_lies_in_the_objects_on_the_way_to_it(path, places):
    assert places_of(path) == places
