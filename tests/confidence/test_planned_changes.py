"""Which planned changes are kept, and what of them."""

import pytest
from psycopg import sql

from include.confidence import planned_changes
from include.confidence.queries.planned import PlanFilter, list_planned, name_planned
from include.sources import REGISTRY, get_source
from tests.confidence.builders import summary

ROWS = """
SELECT place, jsonb_build_object('id', id) AS key, operation, status, NULL AS why, false AS looked,
  jsonb_build_object('id', id, 'name', 'old', 'price', 1) AS before,
  jsonb_build_object('id', id, 'name', 'new', 'price', 1, 'share', 1 / share) AS after
FROM (VALUES {rows}) plan (place, id, operation, status, share)
"""


def keep(conn, *rows: tuple) -> list:
    """Keep a plan of these rows (place, id, operation, status, a number that is 0 where no JSON may be made)."""
    values = sql.SQL(", ").join(sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, row))) for row in rows)
    planned_changes.keep(
        conn, summary(evidence="e"), "line_items", ("id", "name", "price"), sql.SQL(ROWS).format(rows=values)
    )
    return list(list_planned(conn, "e", PlanFilter()).items)


def test_proven_ones_come_first_by_operation_and_key(conn):
    found = keep(
        conn,
        (1, 10, "update", "confirmed", 1),
        (2, 9, "update", "confirmed", 1),
        (3, 8, "delete", "unproven", 1),
        (4, 7, "delete", "confirmed", 1),
    )
    assert [(change.key["id"], change.operation, change.status) for change in found] == [
        (7, "delete", "confirmed"),
        (9, "update", "confirmed"),
        (10, "update", "confirmed"),
        (8, "delete", "unproven"),
    ]


def test_an_update_names_the_compared_columns_that_differ(conn):
    update, insert = sorted(
        keep(conn, (1, 1, "update", "confirmed", 1), (2, 2, "insert", "confirmed", 1)), key=lambda each: each.key["id"]
    )
    assert update.differs == ("name",)
    assert update.before == {"id": 1, "name": "old", "price": 1}
    assert insert.differs == ()


class TestMost:
    @pytest.fixture(autouse=True)
    def two(self, monkeypatch):
        monkeypatch.setattr(planned_changes, "MOST", 2)

    def test_of_a_larger_plan_the_proven_ones_are_kept(self, conn):
        found = keep(
            conn,
            (1, 1, "delete", "unproven", 1),
            (2, 2, "update", "confirmed", 1),
            (3, 3, "update", "confirmed", 1),
        )
        assert [change.key["id"] for change in found] == [2, 3]

    def test_no_json_is_made_of_what_is_not_kept(self, conn):
        found = keep(
            conn,
            (1, 1, "update", "confirmed", 1),
            (2, 2, "update", "confirmed", 1),
            (3, 3, "update", "confirmed", 0),
            (4, 4, "delete", "unproven", 0),
        )
        assert [change.key["id"] for change in found] == [1, 2]

    def test_changes_at_the_same_place_count_each(self, conn):
        assert len(keep(conn, *((1, number, "insert", "confirmed", 1) for number in range(5)))) == 2


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({}, [1, 2, 3]),
        ({"table": "line_items"}, [1, 2, 3]),
        ({"table": "invoices"}, []),
        ({"operation": "update"}, [1, 3]),
        ({"status": "unproven"}, [3]),
        ({"operation": "update", "status": "confirmed"}, [1]),
        ({"column": "name"}, [1, 3]),
        ({"column": "price"}, []),
        ({"column": "name", "value": "old"}, [1, 2, 3]),
        ({"column": "name", "value": "new"}, [1, 2, 3]),
        ({"column": "price", "value": "new"}, []),
        ({"key": "2"}, [2]),
    ],
)
def test_a_filter_chooses_by_each_of_its_fields(conn, chosen, ids):
    keep(
        conn,
        (1, 1, "update", "confirmed", 1),
        (2, 2, "insert", "confirmed", 1),
        (3, 3, "update", "unproven", 1),
    )
    found = list_planned(conn, "e", PlanFilter(**chosen)).items
    assert sorted(change.key["id"] for change in found) == ids


def test_rows_have_the_names_that_people_call_them_by(conn):
    first, second = keep(conn, (1, 1, "update", "confirmed", 1), (2, 2, "update", "confirmed", 1))
    assert name_planned(conn, "", [first]) == {}
    assert name_planned(conn, "p.key ->> 'id'", []) == {}
    assert name_planned(conn, "p.key ->> 'id'", [second]) == {second.change_id: "2"}
    # What has no name is left out.
    named = name_planned(conn, "CASE WHEN p.key ->> 'id' = '1' THEN p.after ->> 'name' ELSE '' END", [first, second])
    assert named == {first.change_id: "new"}


@pytest.mark.parametrize("source", REGISTRY)
def test_each_source_can_be_asked_for_the_names(conn, source):
    found = keep(conn, (1, 1, "update", "confirmed", 1))
    assert name_planned(conn, get_source(source).planned_name, found) == {}
