"""The counting of fields: shapes, paths, bounds, and what is never kept."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.confidence.census import ALL_OF, EVERY, MAX_DEPTH, MAX_KEYS, MAX_PATHS, MAX_SHAPES, Census
from include.confidence.field_counts import Questions
from include.warehouse.field_path import join
from include.warehouse.readers import integer, text


def counted(*pages, questions=None, elsewhere=()):
    census = Census(questions)
    for page in pages:
        census.count(page, elsewhere)
    return census.counted()


def types(found):
    return {path: set(field.types) for path, field in found.fields.items()}


def shares(found):
    return {path: (field.seen, field.objects) for path, field in found.fields.items()}


class TestPaths:
    def test_fields_have_the_types_of_json(self):
        record = {"a": 1, "b": Decimal("1.5"), "c": "x", "d": True, "e": None, "f": [], "g": {}}
        kinds = {"a": "number", "b": "number", "c": "text", "d": "flag", "e": "null", "f": "list", "g": "object"}
        assert types(counted([record])) == {name: {kind} for name, kind in kinds.items()}

    def test_nested_objects_have_dots_and_lists_brackets(self):
        record = {"price": {"amount": 1}, "tags": ["a", None], "lines": [{"tax": {"rate": 1}}, {"name": "x"}]}
        found = types(counted([record]))
        assert found["price.amount"] == {"number"}
        assert found["tags[]"] == {"text", "null"}
        assert found["lines[].tax.rate"] == {"number"}

    def test_a_key_with_signs_of_a_path_is_quoted(self):
        assert set(counted([{"a.b": 1, "c[]": 2, "d e": 3, "Größe": 4}]).fields) == {'"a.b"', '"c[]"', "d e", "Größe"}
        assert join("x", "a.b") == 'x."a.b"'
        assert counted([{"": {"": 1}}]).fields.keys() == {'""', '"".""'}

    def test_a_share_is_of_the_objects_at_the_place(self):
        found = shares(counted([{"lines": [{"a": 1}, {"a": 1, "b": 1}]}, {"lines": []}, {"lines": [{"b": None}]}]))
        assert found["lines"] == (3, 3)
        assert found["lines[].a"] == (2, 3)
        assert found["lines[].b"] == (2, 3)

    def test_a_list_that_is_empty_first_is_looked_into_later(self):
        found = counted([{"lines": []}, {"lines": [{"a": 1}]}])
        assert found.fields["lines[].a"].seen == 1

    def test_objects_deeper_than_the_limit_are_not_looked_into(self):
        record = {"v": 1}
        for _ in range(MAX_DEPTH + 2):
            record = {"in": record}
        assert max(path.count(".") for path in counted([record]).fields) == MAX_DEPTH - 1

    def test_what_a_column_keeps_whole_is_not_looked_into(self):
        found = counted(
            [{"properties": {"Ann's phone": "1"}, "list": [{"a": 1}]}],
            questions=Questions(opaque={"properties", "list"}),
        )
        assert set(found.fields) == {"properties", "list"}

    def test_nested_rows_are_counted_elsewhere(self):
        record = {"id": 1, "lines": [{"a": {"b": 1}}], "tags": [{"t": 1}]}
        found = counted([record], elsewhere=[[], [{"a": {"b": 1}, "order_id": 1}]])
        assert set(found.fields) == {"id", "lines", "lines[]", "tags", "tags[]", "tags[].t"}


class TestBounds:
    def test_an_object_with_many_keys_is_a_map(self):
        found = counted([{"by_id": {f"k{n}": {"x": 1}}} for n in range(MAX_KEYS + 5)])
        assert set(found.fields) == {"by_id"}
        assert found.maps == {"by_id"}
        assert found.places["by_id"] == MAX_KEYS + 5

    @pytest.mark.parametrize(
        "key",
        [
            "ann@example.org",
            "+49 89 123456",
            "12345",
            "0f8fad5b-d9cb-469f-a165-70867728950e",
            "X7QGVNXSZOJ64",
            "x" * 65,
        ],
    )
    def test_a_key_that_is_data_is_never_kept(self, key):
        census = Census()
        census.count([{"meta": {"name": 1}}, {"meta": {key: {"in": 1}, "name": 1}}, {"meta": {"name": 2}}])
        assert set(census.counted().fields) == {"meta"}
        assert key not in json.dumps(census.to_json())

    def test_an_object_in_which_a_column_reads_is_no_map(self):
        fields = {"name": 1, "customfield_10016": 2, **{f"f{n}": n for n in range(MAX_KEYS)}}
        found = counted([{"fields": fields}], questions=Questions(readers={"fields.name": str}))
        assert set(found.fields) == {"fields", *(f"fields.{name}" for name in fields)}
        assert not found.maps

    @pytest.mark.parametrize(
        "key", ["item_variation_data", "TOTAL_AMOUNT_2024", "address1", "taxRate", "PRICELEVELNAME"]
    )
    def test_the_name_of_a_field_is_no_data(self, key):
        assert f"in.{key}" in counted([{"in": {key: 1}}]).fields

    def test_paths_are_bounded_and_it_is_said(self):
        found = counted([{f"f{n}": n for n in range(MAX_PATHS + 100)}], [{"late": 1}])
        assert len(found.fields) == MAX_PATHS
        assert found.cut

    def test_a_key_that_postgres_cannot_store_is_left_out(self):
        found = counted([{"a\0b": 1, "c": 2}])
        assert (set(found.fields), found.cut) == ({"c"}, True)

    def test_of_a_long_list_each_eighth_is_counted_after_the_first(self):
        pages = [[{"number": number}] * 37 for number in range(ALL_OF // 37 + 100)]
        rows = sum(map(len, pages))
        assert counted(*pages).records in (ALL_OF + (rows - ALL_OF) // EVERY, ALL_OF + (rows - ALL_OF) // EVERY + 1)

    def test_an_attempt_that_goes_on_counts_each_eighth_too(self):
        first = Census()
        first.count([{"a": 1}] * ALL_OF)
        second = Census().restore(json.loads(json.dumps(first.to_json())))
        second.count([{"a": 1}] * EVERY * 10)
        assert second.counted().records == ALL_OF + 10

    def test_each_record_of_a_long_list_has_its_turn_some_night(self):
        rows = [{f"f{number}": 1} for number in range(ALL_OF + EVERY * 2)]
        seen = set()
        for _ in range(EVERY * 20):
            census = Census()
            census.count([{}] * ALL_OF)
            census.count(rows[ALL_OF:])
            seen |= set(census.counted().fields)
        assert len(seen) == EVERY * 2

    def test_200_fields_are_no_map(self):
        found = counted([{f"f{n}": n for n in range(200)}] * 3)
        assert (len(found.fields), found.cut, found.maps) == (200, False, frozenset())

    def test_more_shapes_than_are_remembered_are_counted_all_the_same(self):
        records = [
            {"in": [{"id": 1, **{f"f{bit}": 1 for bit in range(11) if number >> bit & 1}}]}
            for number in range(MAX_SHAPES * 2)
        ]
        found = shares(counted(*([each] for each in records[: ALL_OF - 1]), [{"in": [r["in"][0] for r in records]}]))
        assert found["in[].id"] == (MAX_SHAPES * 2 + ALL_OF - 1, MAX_SHAPES * 2 + ALL_OF - 1)


class TestQuestions:
    def test_a_type_that_the_column_cannot_read_is_told(self):
        questions = Questions(readers={"total": integer, "name": text, "in.total": integer})
        found = counted(
            [{"total": 1, "name": "x", "in": {"total": {}}}, {"total": "n/a", "name": {}}], questions=questions
        )
        assert {p: set(f.unreadable) for p, f in found.fields.items() if f.unreadable} == {
            "total": {"text"},
            "name": {"object"},
            "in.total": {"object"},
        }

    def test_only_declared_enumerations_keep_values(self):
        questions = Questions(codes=["status", "in.kind"])
        census = Census(questions)
        census.count([{"status": "NEW", "in": {"kind": "a-b"}, "zip": "81541"}, {"status": "PAID IN FULL", "in": None}])
        found = census.counted().fields
        assert found["status"].codes == {"NEW", "PAID IN FULL"}
        assert found["in.kind"].codes == {"a-b"}
        assert "81541" not in json.dumps(census.to_json())

    @pytest.mark.parametrize("value", ["ann@example.org", "Ann Müller", "x" * 41, "a\nb", "Call 'Ann'", "+49 89 1"])
    def test_a_value_that_is_no_code_ends_the_enumeration(self, value):
        census = Census(Questions(codes=["status"]))
        census.count([{"status": "NEW"}, {"status": value}, {"status": "OLD"}])
        assert census.counted().fields["status"].codes == frozenset()
        assert json.dumps(value) not in json.dumps(census.to_json())

    def test_so_do_too_many_values(self):
        census = Census(Questions(codes=["status"]))
        census.count([{"status": f"S{n}"} for n in range(41)])
        assert census.counted().fields["status"].codes == frozenset()


KEYS = st.sampled_from(["a", "b", "c.d", "e[]", "long name"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just("SECRET-7"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
RECORDS = st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=12)


@given(RECORDS, st.integers(0, 12))
def test_an_attempt_that_goes_on_counts_as_one_that_was_never_cut(records, cut):
    whole, first = Census(), Census()
    whole.count(records)
    first.count(records[:cut])
    second = Census().restore(json.loads(json.dumps(first.to_json())))
    second.count(records[cut:])
    assert second.counted() == whole.counted()


@given(RECORDS)
def test_no_value_is_kept_and_no_share_is_above_one(records):
    census = Census()
    census.count(records)
    assert "SECRET-7" not in json.dumps(census.to_json())
    found = census.counted()
    assert all(0 < field.seen <= field.objects for field in found.fields.values() if not field.path.endswith("[]"))
    top = {join("", key): sum(key in record for record in records) for record in records for key in record}
    assert {p: f.seen for p, f in found.fields.items() if p in top} == top


@given(RECORDS)
def test_the_order_of_records_does_not_matter(records):
    forwards, backwards = counted(records), counted(records[::-1])
    assert (forwards.fields, forwards.places) == (backwards.fields, backwards.places)


def test_figures_are_due_with_something_new_or_many_more_records():
    census = Census()
    assert not census.is_due
    census.count([{"a": 1}] * 100)
    assert census.is_due
    census.to_json()
    census.count([{"a": 1}] * 25)
    assert not census.is_due
    census.count([{"a": 1}])
    assert census.is_due
    for new in ({"b": 1}, {"a": "x"}, {"a": [1]}, {"a": ["x"]}):
        census.to_json()
        census.count([new])
        assert census.is_due, new
