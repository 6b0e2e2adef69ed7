"""Errors of Postgres as they are kept and told: without anything of a row."""

import psycopg
import pytest

from include.warehouse.refusals import concerns_one, passes, reason

VALUE = "Ann Lake, ann@example.com"
RAISE = f"DO $$ BEGIN RAISE EXCEPTION '{VALUE} is not known'; END $$"
UNIQUE = f"CREATE TEMP TABLE people (name text UNIQUE); INSERT INTO people VALUES ('{VALUE}'), ('{VALUE}')"


def error_of(conn: psycopg.Connection, statement: str) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(statement)
    return caught.value


@pytest.mark.parametrize(
    ("statement", "kept"),
    [
        (f"SELECT '{VALUE}'::uuid", "InvalidTextRepresentation"),
        (RAISE, "RaiseException"),
        (UNIQUE, "UniqueViolation, constraint people_name_key"),
    ],
)
def test_quotes_nothing_of_a_row(conn, statement, kept):
    error = error_of(conn, statement)
    assert reason(error) == kept
    assert (concerns_one(error), passes(error)) == (True, False)


def test_keeps_the_message_of_what_concerns_all_rows(conn):
    error = error_of(conn, "SELECT FROM nowhere")
    assert reason(error) == 'UndefinedTable: relation "nowhere" does not exist'
    assert not concerns_one(error)


def test_keeps_the_message_of_our_own_errors():
    assert [reason(each) for each in (ValueError("too many"), KeyError())] == ["too many", "KeyError"]


def test_a_lock_that_was_not_to_be_had_passes(conn):
    error = error_of(conn, "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '55P03'; END $$")
    assert (concerns_one(error), passes(error)) == (True, True)
