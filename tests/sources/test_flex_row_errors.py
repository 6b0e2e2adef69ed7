"""A row that the warehouse refuses: its crew call has a problem, the others go on, and nothing is half written."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from include.sources.base import SyncFailed
from include.sources.flex import assignments
from include.warehouse.refusals import concerns_one

from .flex import HAND, Agency, Booked, owned

TRIGGERS = {
    "a trigger": "CREATE TRIGGER refuse BEFORE INSERT OR DELETE ON flex.flex_crew_assignments",
    "a trigger at the commit": "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR DELETE ON flex.flex_crew_assignments"
    " DEFERRABLE INITIALLY DEFERRED",
}
REFUSE = """
CREATE FUNCTION flex.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF {who} IN (NEW.technician_id, OLD.technician_id) THEN RAISE EXCEPTION 'Ann Lake is not known'; END IF;
  RETURN coalesce(NEW, OLD);
END $$;
{trigger} FOR EACH ROW EXECUTE FUNCTION flex.refuse();
"""
UNDO = "DROP TRIGGER IF EXISTS refuse ON flex.flex_crew_assignments; DROP FUNCTION flex.refuse"


@contextmanager
def refused(agency: Agency, who: UUID, by: str = "a trigger") -> Iterator[None]:
    trigger = sql.SQL(TRIGGERS[by])
    agency.conn.execute(sql.SQL(REFUSE).format(who=sql.Literal(who), trigger=trigger))
    try:
        yield
    finally:
        agency.conn.execute(UNDO)


@pytest.fixture
def booked(agency: Agency) -> list[Booked]:
    """Three crew calls, in the order in which a sync comes to them."""
    return sorted((agency.book() for _ in range(3)), key=lambda each: each.element)


@pytest.fixture
def ann(agency: Agency, booked: list[Booked]) -> tuple[UUID, UUID]:
    """Technician and resource, on the first crew call; the others have somebody too."""
    ann = agency.hire(booked[0])
    for each in booked[1:]:
        agency.hire(each)
    return ann


@pytest.mark.parametrize("by", TRIGGERS)
@pytest.mark.parametrize("there", [True, False], ids=["there already", "added"])
def test_is_the_problem_of_its_crew_call_alone(agency, booked, ann, there, by):
    who, resource = ann
    if there:
        agency.by_hand("add", booked[0], resource, role=HAND)
    with refused(agency, who, by):
        for _ in range(2):
            with pytest.raises(SyncFailed, match=r"1 of .* crew calls are not in step") as failed:
                agency.sync()
            told = str(failed.value)
            assert f"element {booked[0].element}: the warehouse refused a statement (RaiseException, " in told
            assert "Ann Lake" not in told
        assert [len(agency.crew(each)) for each in booked] == [1, 1, 1]
        assert [len(agency.rows(each)) for each in booked] == [0, 1, 1]
        assert {*agency.gates().values()} == {"idle"}
        assert agency.waiting() == {booked[0].job}
        # What was made in Flex is known all the same.
        assert len(owned(agency.conn, booked[0].element)) == (not there)
    agency.sync()
    assert agency.rows(booked[0]) == {who: agency.crew(booked[0])[resource].id}
    assert agency.waiting() == set()


@pytest.mark.parametrize("by", TRIGGERS)
def test_that_can_not_be_deleted_is_the_problem_of_its_crew_call_alone(agency, booked, ann, by):
    agency.sync()
    with refused(agency, ann[0], by):
        agency.fire(ann[0])
        _, new = agency.hire(booked[1])
        with pytest.raises(SyncFailed, match="refused a statement"):
            agency.sync()
        assert (agency.crew(booked[0]), new in agency.crew(booked[1])) == ({}, True)
    agency.sync()
    assert agency.rows(booked[0]) == {}


def test_that_a_check_refuses_is_named_by_the_check(agency, booked, ann):
    check = sql.SQL("ALTER TABLE flex.flex_crew_assignments ADD CONSTRAINT known CHECK (technician_id <> {})")
    agency.conn.execute(check.format(sql.Literal(ann[0])))
    try:
        with pytest.raises(SyncFailed, match=r"\(CheckViolation, SQLSTATE 23514, constraint known\)"):
            agency.sync()
    finally:
        agency.conn.execute("ALTER TABLE flex.flex_crew_assignments DROP CONSTRAINT known")
    assert len(agency.rows(booked[2])) == 1


def test_ends_a_repair_after_the_others(agency, booked, ann):
    summary = agency.scan()
    with refused(agency, ann[0]):
        with pytest.raises(SyncFailed, match=r"not everything is repaired: .* refused a statement"):
            agency.repair(summary)
        assert [len(agency.rows(each)) for each in booked] == [0, 1, 1]


def test_of_the_log_is_the_problem_of_its_crew_call_alone(agency, booked, ann):
    check = sql.SQL("ALTER TABLE flex.flex_sync_log ADD CONSTRAINT known CHECK (job_id <> {})")
    agency.conn.execute(check.format(sql.Literal(booked[0].job)))
    try:
        with pytest.raises(SyncFailed, match=r"1 of 3 .* constraint known"):
            agency.sync()
    finally:
        agency.conn.execute("ALTER TABLE flex.flex_sync_log DROP CONSTRAINT known")
    assert [len(agency.rows(each)) for each in booked] == [1, 1, 1]


@pytest.mark.parametrize("error", [psycopg.errors.AdminShutdown, psycopg.OperationalError, psycopg.errors.DiskFull])
def test_is_none_where_the_connection_is_lost(agency, booked, ann, monkeypatch, error):
    def put(*_):
        raise error

    monkeypatch.setattr(assignments, "put", put)
    with pytest.raises(error):
        agency.sync()
    assert sum(len(agency.crew(each)) for each in booked) == 1


@pytest.mark.parametrize(
    ("error", "one"),
    [
        (psycopg.errors.RaiseException, True),
        (psycopg.errors.NotNullViolation, True),
        (psycopg.errors.DeadlockDetected, True),
        (psycopg.errors.InsufficientPrivilege, True),
        (psycopg.errors.UndefinedTable, False),
        (psycopg.errors.QueryCanceled, False),
        (psycopg.errors.ConnectionFailure, False),
        (psycopg.InterfaceError, False),
    ],
)
def test_concerns_one_or_all(error, one):
    assert concerns_one(error()) == one
