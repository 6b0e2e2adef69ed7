"""What a census finds changed, by what was known before. The warehouse keeps it."""

from dataclasses import replace

import psycopg
import pytest

from include.confidence.census import MAX_PATHS, Census
from include.confidence.field_changes import (
    MIN_OBJECTS,
    FieldChange,
    Kind,
    State,
    find_changes,
    limit_fields,
    merge_renames,
    sentence,
)
from include.confidence.field_counts import Questions
from include.confidence.field_store import known_fields, lock_census, save_census, save_changes
from include.confidence.queries.field_census import list_field_changes, read_fields

SOURCE, ENTITY, RUN = "shop", "tools", "shop_reconcile/1"


def counted(*records, codes=(), times=MIN_OBJECTS):
    census = Census(Questions(codes=codes))
    census.count([dict(record) for record in records for _ in range(times)])
    return census.counted()


def look(conn, found, *, whole=True, declared=()):
    """Keep a census as a scan or a sync does; what it has told."""
    known = known_fields(conn, SOURCE, ENTITY)
    found = limit_fields(known, found)
    states = {path: State.DECLARED if path in declared else State.KEPT for path in (*known, *found.fields)}
    news = find_changes(known, found, states, whole=whole)
    vanished = [each.path for each in news if each.kind is Kind.VANISHED]
    save_census(conn, SOURCE, ENTITY, known, found, states, whole=whole, vanished=vanished)
    save_changes(conn, SOURCE, ENTITY, RUN, news)
    return [(str(each.kind), each.path) for each in news]


def test_what_syncs_have_seen_before_the_first_whole_scan_is_no_news(conn):
    assert look(conn, counted({"a": 1}), whole=False) == []
    assert look(conn, counted({"a": 1, "b": 1}), whole=False) == []
    assert look(conn, counted({"a": 1, "c": 1})) == []
    assert known_fields(conn, SOURCE, ENTITY)["b"].share is None
    assert look(conn, counted({"a": 1, "d": 1}), whole=False) == [("new", "d")]


def test_one_census_of_a_source_is_stored_after_the_other(warehouse):
    with psycopg.connect(warehouse) as conn, psycopg.connect(warehouse, options="-c lock_timeout=50ms") as other:
        look(conn, counted({"a": 1}))
        conn.commit()
        lock_census(conn, SOURCE)
        lock_census(other, "another")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            lock_census(other, SOURCE)


def test_of_a_new_object_or_list_only_itself_is_told(conn):
    look(conn, counted({"a": 1}))
    assert look(conn, counted({"a": 1, "in": {"b": {"c": 1}}, "tags": [{"t": 1}]})) == [("new", "in"), ("new", "tags")]
    assert look(conn, counted({"a": 1, "in": {"b": {"c": 1, "d": 1}}}))[:1] == [("new", "in.b.d")]


@pytest.mark.parametrize("objects", [MIN_OBJECTS - 1, MIN_OBJECTS])
def test_few_records_tell_nothing_of_what_is_gone(conn, objects):
    look(conn, counted({"a": 1, "b": 1}))
    told = look(conn, counted({"a": 1}, times=objects))
    assert told == ([("vanished", "b")] if objects == MIN_OBJECTS else [])


@pytest.mark.parametrize(("objects", "told"), [(49, []), (50, [("vanished", "b")])])
def test_less_than_half_of_the_records_tell_nothing_of_what_is_gone(conn, objects, told):
    look(conn, counted({"a": 1, "b": 1}, times=100))
    assert look(conn, counted({"a": 1}, times=objects)) == told


def test_a_field_in_an_object_vanishes_only_where_the_object_is_there(conn):
    look(conn, counted({"a": 1, "in": {"b": 1, "c": 1}}))
    assert look(conn, counted({"a": 1, "in": None})) == []
    assert look(conn, counted({"a": 1, "in": {"b": 1}})) == [("vanished", "in.c")]


def test_null_is_no_type_and_no_loss(conn):
    look(conn, counted({"a": None, "b": 1}))
    assert look(conn, counted({"a": 1, "b": None})) == []
    assert look(conn, counted({"a": "x", "b": 1})) == [("retyped", "a")]


def test_a_type_that_one_odd_value_has_announced_is_told_when_it_is_usual(conn):
    look(conn, counted({"a": 1}))
    assert look(conn, counted({"a": "x"}, times=1), whole=False) == [("retyped", "a")]
    assert look(conn, counted({"a": 1})) == []
    assert look(conn, counted({"a": "x"})) == [("retyped", "a")]
    assert known_fields(conn, SOURCE, ENTITY)["a"].types == ("text", "number")
    assert look(conn, counted({"a": "x"})) == []


def test_two_types_that_a_field_always_has_are_no_change(conn):
    both = [{"a": 1}, {"a": "x"}, {"a": None}]
    look(conn, counted(*both))
    assert look(conn, counted(*reversed(both))) == []


def test_what_becomes_of_a_vanished_field_is_kept_up_to_date(conn):
    look(conn, counted({"a": 1, "b": 1}), declared="b")
    look(conn, counted({"a": 1}), declared="b")
    assert known_fields(conn, SOURCE, ENTITY)["b"].state is State.DECLARED
    look(conn, counted({"a": 1}))
    assert known_fields(conn, SOURCE, ENTITY)["b"].state is State.KEPT


def test_what_has_vanished_is_told_once_even_if_a_sync_has_seen_less(conn):
    look(conn, counted({"a": 1, "b": 1}))
    assert look(conn, counted({"a": 1})) == [("vanished", "b")]
    assert look(conn, counted({"a": 1}), whole=False) == []
    assert look(conn, counted({"a": 1})) == []
    assert look(conn, counted({"a": 1, "b": 1}), whole=False) == [("back", "b")]
    assert known_fields(conn, SOURCE, ENTITY)["b"].vanished_at is None


def test_first_words_of_an_enumeration_have_to_be_repeated(conn):
    look(conn, counted({"s": "NEW"}, {"s": "OLD"}, codes=["s"]))
    assert known_fields(conn, SOURCE, ENTITY)["s"].codes == ("NEW", "OLD")
    assert look(conn, counted({"s": "LOST"}, codes=["s"], times=1), whole=False) == [("new_code", "s")]
    assert look(conn, counted({"s": "LOST"}, codes=["s"])) == []


def test_words_that_each_stand_in_few_records_are_not_kept(conn):
    look(conn, counted(*({"s": f"Name {number}"} for number in range(8)), codes=["s"], times=3))
    assert known_fields(conn, SOURCE, ENTITY)["s"].codes == ()
    assert look(conn, counted({"s": "Other"}, codes=["s"], times=1), whole=False) == []


def test_an_enumeration_that_grows_too_long_takes_no_more_words(conn):
    look(conn, counted(*({"s": f"S{number}"} for number in range(40)), codes=["s"], times=4))
    assert look(conn, counted({"s": "S40"}, codes=["s"])) == []
    assert len(known_fields(conn, SOURCE, ENTITY)["s"].codes) == 40


def test_paths_of_a_table_are_bounded_over_the_nights(conn):
    for night in range(3):
        look(conn, counted({f"n{night}f{number}": 1 for number in range(300)}, times=1))
    known = known_fields(conn, SOURCE, ENTITY)
    assert len(known) == MAX_PATHS
    assert known[""].cut


def test_a_map_takes_its_keys_with_it(conn):
    look(conn, counted({"by": {"a": 1, "b": {"c": 1}}, "by_name": 1}))
    assert look(conn, counted({"by": {"ann@example.org": 1}, "by_name": 1})) == []
    assert set(known_fields(conn, SOURCE, ENTITY)) == {"", "by", "by_name"}


def test_a_renaming_takes_the_place_of_both(conn):
    found = [
        FieldChange(Kind.NEW, "title", State.KEPT, "text"),
        FieldChange(Kind.NEW, "other", State.KEPT, "text"),
        FieldChange(Kind.VANISHED, "subject", State.DECLARED),
    ]
    told = merge_renames(found, {"subject": "title"})
    assert [str(each) for each in told] == [
        "subject looks renamed: subject -> title; its column gets no values",
        "other is new (text); it is kept in extra",
    ]


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_its_sentence(kind):
    assert sentence(kind, "a.b", State.DECLARED, "x").startswith("a.b ")


def test_pages_read_what_was_kept(conn):
    look(conn, counted({"a": 1, "in": {"b": 1}}), declared=["a"])
    look(conn, counted({"a": 1, "in": {"b": 1}, "c": "x"}), declared=["a"])
    look(conn, counted({"a": 1, "c": "x"}), declared=["a"])
    (tools,) = read_fields(conn, SOURCE)
    assert (tools.records, tools.declared, tools.kept, tools.vanished, tools.new) == (20, 1, 3, 1, 1)
    assert [(field.path, field.is_new, field.vanished_at is None) for field in tools.fields] == [
        ("a", False, True),
        ("c", True, True),
        ("in", False, False),
        ("in.b", False, True),
    ]
    page = list_field_changes(conn, SOURCE, limit=1)
    assert [each.text for each in page.items] == ["in is in no record any more"]
    (older,) = list_field_changes(conn, SOURCE, cursor=page.next_cursor).items
    assert replace(older, change_id=0, found_at=None, text="").path == "c"
    assert read_fields(conn, SOURCE, "others") == []
    assert list_field_changes(conn, SOURCE, entity="others").items == ()
