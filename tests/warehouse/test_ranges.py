"""The ranges of a pull: each is read by one task, and what a task stores after it has lost its claim counts nowhere."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from include.warehouse import ranges as module
from include.warehouse.pull import PullError, TooManyRefused
from include.warehouse.ranges import Progress, PullRange, RangeLost, Ranges
from include.warehouse.staging import Stage
from tests.warehouse.shop import PARTS, SOURCE, part

BOUNDS = [["", "f"], ["f", "m"], ["m", None]]


def open_(conn: psycopg.Connection, ticket: str = "ticket") -> Stage:
    return Stage.open(conn, PARTS, SOURCE, "test", ticket)


def joined(conn: psycopg.Connection, ticket: str = "ticket") -> Stage | None:
    return Stage.join(conn, PARTS, SOURCE, "test", ticket)


def cut_off(*_: object) -> None:
    raise psycopg.OperationalError("cut off")


def keys(stage: Stage) -> list[int]:
    return [key for (key,) in stage.conn.execute(sql.SQL("SELECT id FROM {} ORDER BY id").format(stage.sql))]


@pytest.fixture
def stage(conn: psycopg.Connection) -> Stage:
    """A pull that is cut into three ranges."""
    stage = open_(conn)
    Ranges(stage, 0).cut(BOUNDS)
    return stage


@pytest.fixture
def other(connect: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    """The connection of another task."""
    return connect()


@pytest.fixture
def no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range that is claimed is free again at once."""
    monkeypatch.setattr(module, "LEASE", timedelta(0))


class TestClaims:
    def test_are_of_ranges_that_nobody_reads(self, stage, other):
        mine, theirs = Ranges(stage, 0), Ranges(joined(other), 1)
        assert mine.claim(2) == [PullRange(0, ["", "f"], None), PullRange(1, ["f", "m"], None)]
        assert theirs.claim(2) == [PullRange(2, ["m", None], None)]
        assert mine.claim(2) == theirs.claim(2) == []

    def test_of_many_at_once_meet_nowhere(self, conn, connect):
        Ranges(open_(conn), 0).cut([[number, number] for number in range(40)])

        def all_of(slice_number: int) -> list[int]:
            mine, found = Ranges(joined(connect()), slice_number), []
            while claimed := mine.claim(1):
                found += [each.number for each in claimed]
            return found

        with ThreadPoolExecutor(3) as tasks:
            claimed = [number for numbers in tasks.map(all_of, (1, 2, 3)) for number in numbers]
        assert sorted(claimed) == list(range(40))

    def test_of_an_earlier_try_are_taken_over_where_it_stood(self, stage):
        first = Ranges(stage, 1)
        claimed = first.claim(1)[0]
        first.store(claimed, [part(1)], position={"after": "b"})
        again = Ranges(stage, 1)
        assert again.claim(1) == [PullRange(0, ["", "f"], {"after": "b"})]
        with pytest.raises(RangeLost, match=r"^range 0 of the pull of .* was taken over by another task"):
            first.store(claimed, [part(1)], position={"after": "b"})
        assert keys(stage) == [1]

    def test_of_a_silent_task_are_free_after_a_while(self, stage, other, monkeypatch):
        dead, alive = Ranges(stage, 1), Ranges(joined(other), 2)
        claimed = dead.claim(3)
        dead.store(claimed[0], [part(1)], position=None)
        assert alive.claim(3) == []
        monkeypatch.setattr(module, "LEASE", timedelta(0))
        assert [each.number for each in alive.claim(3)] == [1, 2]
        with pytest.raises(RangeLost):
            dead.store(claimed[1], [part(2)], position=None)
        assert keys(stage) == [1]

    def test_are_kept_by_storing(self, stage, other):
        busy = Ranges(stage, 1)
        claimed = busy.claim(1)[0]
        stage.conn.execute("UPDATE staging.pull_range SET updated_at = now() - interval '1 day'")
        busy.store(claimed, [part(1)], position={"after": "b"})
        assert [each.number for each in Ranges(joined(other), 2).claim(3)] == [1, 2]

    @pytest.mark.parametrize("ticket", ["ticket", "another"])
    def test_end_where_the_pull_is_started_again(self, stage, other, ticket, no_lease):
        late = Ranges(joined(other), 1)
        claimed = late.claim(1)[0]
        stage.drop()
        Ranges(open_(stage.conn, ticket), 0).cut(BOUNDS)
        with pytest.raises(RangeLost):
            late.store(claimed, [part(1)], position=None)
        assert late.claim(3) == []
        assert keys(stage) == []


class TestStore:
    def test_moves_rows_and_position_together(self, stage, monkeypatch):
        mine = Ranges(stage, 0)
        claimed = mine.claim(3)
        mine.store(claimed[0], [part(1), part(2)], position=None)
        with monkeypatch.context() as patch:
            patch.setattr(Stage, "_copy", cut_off)
            with pytest.raises(psycopg.OperationalError):
                mine.store(claimed[1], [part(3)], position=None)
        assert mine.progress() == Progress(complete=False, pages=1, rows_read=2, rows_refused=0)
        for each in claimed[1:]:
            mine.store(each, [], position=None)
        assert mine.progress() == Progress(complete=True, pages=3, rows_read=2, rows_refused=0)
        assert keys(stage) == [1, 2]

    def test_ends_a_range_for_good(self, stage, no_lease):
        mine = Ranges(stage, 0)
        claimed = mine.claim(1)[0]
        mine.store(claimed, [part(1)], position=None)
        with pytest.raises(RangeLost):
            mine.store(claimed, [part(1)], position=None)
        assert [each.number for each in mine.claim(3)] == [1, 2]


class TestPull:
    def test_is_read_to_its_end_beside_the_task_that_has_joined(self, stage, other, monkeypatch):
        """What that task has claimed stays its own, and the pull ends when it has read it."""
        monkeypatch.setattr(module, "OTHERS_READ", timedelta(0))
        theirs, left = Ranges(joined(other), 1), []
        left += theirs.claim(1)

        def read(mine):
            for claimed in mine.claim(3):
                mine.store(claimed, [part(claimed.number)], position=None)
                yield
            while left:
                theirs.store(left.pop(), [part(9)], position=None)

        module.read_to_end(stage, lambda: BOUNDS, read)
        assert keys(stage) == [1, 2, 9]

    def test_counts_what_all_have_read(self, stage, other):
        for ranges in (Ranges(stage, 0), Ranges(joined(other), 1)):
            for claimed in ranges.claim(2):
                ranges.store(claimed, [part(claimed.number)], position=None)
        stage.count_ranges(**vars(ranges.progress()))
        assert (stage.pull.complete, stage.pull.pages, stage.pull.rows_read) == (True, 3, 3)

    def test_that_refused_too_many_rows_fails(self, stage):
        with pytest.raises(TooManyRefused):
            stage.count_ranges(complete=False, pages=1, rows_read=100, rows_refused=50)

    def test_without_ranges_is_not_complete(self, conn):
        assert not Ranges(open_(conn), 0).progress().complete

    def test_is_cut_by_its_own_attempt_only(self, stage, other):
        open_(other)
        with pytest.raises(PullError, match="taken over by a later attempt"):
            Ranges(stage, 0).cut(BOUNDS)

    def test_that_is_joined_can_be_ended_by_its_own_attempt_only(self, stage, other):
        helper = joined(other)
        for forbidden in (helper.finish, lambda: helper.append([part(1)], next_position=None, page_info={})):
            with pytest.raises(PullError, match="taken over by a later attempt"):
                forbidden()
        helper.drop()
        assert joined(other) is not None

    def test_of_another_ticket_is_not_joined(self, stage, other):
        assert joined(other, "another") is None

    def test_is_dropped_with_its_ranges(self, stage):
        stage.drop()
        assert stage.conn.execute("SELECT FROM staging.pull_range").fetchall() == []
