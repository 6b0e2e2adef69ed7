"""What scans could not prove is remembered until a scan proves it."""

import pytest
from psycopg import sql

from include.confidence import unproven
from include.confidence.unproven import Doubt


def remember(conn, night, *doubts, entity="orders", **more):
    unproven.remember(conn, "shop", entity, f"shop_reconcile/{night}", doubts, **more)


def nights(conn, entity="orders"):
    return {tuple(row.key): row.nights for row in unproven.of(conn, "shop", entity)}


def test_a_row_keeps_its_age_until_a_scan_proves_it(conn):
    remember(conn, 1, Doubt([1], "timed out"), Doubt([2], "refused"))
    first = {tuple(row.key): row.first_seen for row in unproven.of(conn, "shop", "orders")}
    remember(conn, 2, Doubt([2], "refused still"), Doubt([3], "new"))
    rows = {tuple(row.key): row for row in unproven.of(conn, "shop", "orders")}
    assert {key: (row.nights, row.why) for key, row in rows.items()} == {(2,): (2, "refused still"), (3,): (1, "new")}
    assert rows[2,].first_seen == first[2,]
    remember(conn, 3)
    assert nights(conn) == {}


def test_scans_of_one_run_are_one_night(conn):
    for _ in range(3):
        remember(conn, 1, Doubt([1], "timed out"))
    assert nights(conn) == {(1,): 1}


def test_a_look_is_remembered_and_none_does_not_undo_it(conn):
    remember(conn, 1, Doubt([1], "over the budget"))
    assert unproven.of(conn, "shop", "orders")[0].last_look is None
    remember(conn, 2, Doubt([1], "timed out", looked=True))
    looked = unproven.of(conn, "shop", "orders")[0].last_look
    remember(conn, 3, Doubt([1], "over the budget"))
    assert unproven.of(conn, "shop", "orders")[0].last_look == looked is not None


def test_other_tables_and_sources_are_left_alone(conn):
    remember(conn, 1, Doubt([1], "a"))
    remember(conn, 1, Doubt([1, "b"], "b"), entity="lines")
    unproven.remember(conn, "other", "orders", "other/1", [Doubt([9], "c")])
    remember(conn, 2, entity="lines")
    assert nights(conn) == {(1,): 1}
    assert unproven.metrics(conn, "other", ["orders"])["unproven"] == 1


def test_a_scan_of_a_part_forgets_only_what_it_has_proven(conn):
    remember(conn, 1, Doubt([1], "a"), Doubt([2], "a"))
    nothing = sql.SQL("SELECT NULL::jsonb AS key, '' AS why, false AS looked WHERE false")
    unproven.remember_query(
        conn, "shop", "orders", "shop_reconcile/2", nothing, proven=sql.SQL("SELECT '[2]'::jsonb AS key")
    )
    assert nights(conn) == {(1,): 1}


@pytest.mark.parametrize("night", [1, 2, 3])
def test_metrics_tell_what_is_older_than_a_night_and_examples_the_oldest_first(conn, night):
    for past in range(night):
        remember(
            conn, past, Doubt([1], "old"), Doubt(["b", 2], "old"), *([Doubt([0], "new")] if past == night - 1 else [])
        )
    assert unproven.metrics(conn, "shop", ["orders"]) == {"unproven": 3, "unproven_overdue": 0 if night == 1 else 2}
    found = unproven.examples(conn, "shop", ["orders", "lines"])["unproven_examples"]
    assert sorted(map(str, found)) == ["0", "1", "['b', 2]"]
    assert night == 1 or found[-1] == 0
