"""The shared rate limit and quota: their only state is in the warehouse, so they hold over threads and machines."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from include.warehouse import rate_limit
from include.warehouse.rate_limit import Both, Quota, RequestCount, SharedLimit


def next_at(conn: psycopg.Connection, api: str = "shop") -> float:
    query = "SELECT extract(epoch FROM next_at)::float8 FROM confidence.rate_limit WHERE api = %s"
    return conn.execute(query, [api]).fetchone()[0]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were asked for; nobody really waits."""
    asked: list[float] = []
    monkeypatch.setattr(rate_limit.time, "sleep", asked.append)
    return asked


def test_moments_of_parallel_users_are_evenly_spaced(conn, connect, waits):
    """Two sessions with two threads each; the interval is so long that no request falls behind it."""
    limits = [SharedLimit(connect(), "shop", per_minute=60) for _ in range(2)]
    interval = 60 / (60 * SharedLimit.UTILISATION)
    limits[0].acquire()
    first = next_at(conn)
    with ThreadPoolExecutor(4) as executor:
        for done in [executor.submit(limits[number % 2].acquire) for number in range(20)]:
            done.result()
    assert next_at(conn) - first == pytest.approx(20 * interval, abs=1e-4)
    assert len(waits) == 20
    gaps = sorted(waits)
    assert gaps[-1] == pytest.approx(20 * interval, abs=interval)


def test_nobody_comes_before_its_moment(connect):
    """For real, with the clock: the n-th request is never earlier than n intervals after the start."""
    limits = [SharedLimit(connect(), "shop", per_minute=6000) for _ in range(2)]
    interval = 60 / (6000 * SharedLimit.UTILISATION)

    def moments(limit: SharedLimit) -> list[float]:
        found = []
        for _ in range(15):
            limit.acquire()
            found.append(time.monotonic())
        return found

    start = time.monotonic()
    with ThreadPoolExecutor(2) as executor:
        came = sorted(moment for found in executor.map(moments, limits) for moment in found)
    # The two clocks may drift by a little while this runs.
    assert [n for n, moment in enumerate(came) if moment < start + n * interval - 0.002] == []


def test_unused_time_is_not_saved_up(conn, connect, waits):
    limit = SharedLimit(connect(), "shop", per_minute=60)
    conn.execute("INSERT INTO confidence.rate_limit VALUES ('shop', now() - interval '1 hour')")
    limit.acquire()
    assert waits == []
    limit.acquire()
    assert waits == [pytest.approx(60 / (60 * SharedLimit.UTILISATION), abs=0.5)]


def test_pause_holds_for_everybody(connect, waits):
    SharedLimit(connect(), "shop", per_minute=60_000).pause(30)
    SharedLimit(connect(), "shop", per_minute=60_000).acquire()
    assert waits == [pytest.approx(30, abs=2)]


def test_shorter_pause_does_not_end_a_longer_one(connect, waits):
    limit = SharedLimit(connect(), "shop", per_minute=60_000)
    limit.pause(30)
    limit.pause(1)
    limit.acquire()
    assert waits == [pytest.approx(30, abs=2)]


def test_apis_do_not_hold_each_other_up(connect, waits):
    SharedLimit(connect(), "shop", per_minute=60).pause(30)
    SharedLimit(connect(), "other", per_minute=60).acquire()
    assert waits == []


def test_stays_below_the_vendors_limit(conn, connect, waits):
    """What fits into any minute is less than the limit, but not by much."""
    limit = SharedLimit(connect(), "shop", per_minute=180)
    limit.acquire()
    before = next_at(conn)
    limit.acquire()
    a_minute = 60 / (next_at(conn) - before)
    assert 0.95 * 180 <= a_minute < 180


def spent(conn: psycopg.Connection, api: str = "shop") -> int:
    query = "SELECT coalesce(sum(requests), 0) FROM confidence.request_count WHERE api = %s"
    return conn.execute(query, [api]).fetchone()[0]


def later(conn: psycopg.Connection, time: str) -> None:
    """Let so much time pass, exactly: what was counted lies further back."""
    conn.execute("UPDATE confidence.request_count SET minute = minute - %s::interval", [time])


def let_in(count: RequestCount | Both, tries: int = 10) -> int:
    return sum(count.acquire() is None for _ in range(tries))


class TestRequestCount:
    @pytest.mark.parametrize("quota", [Quota(per_hour=3), Quota(per_day=3), Quota(per_hour=3, per_day=5)])
    def test_lets_so_many_in_and_counts_no_refusal(self, conn, connect, quota):
        count = RequestCount(connect(), "shop", quota)
        assert let_in(count) == 3
        assert spent(conn) == 3

    def test_without_a_limit_lets_everybody_in(self, connect):
        assert let_in(RequestCount(connect(), "shop", Quota())) == 10
        assert (bool(Quota()), bool(Quota(0, 0)), bool(Quota(1)), bool(Quota(None, 1))) == (False, False, True, True)

    @pytest.mark.parametrize(("quota", "within"), [(Quota(per_hour=3), "60 minutes"), (Quota(per_day=3), "24 hours")])
    def test_slides(self, conn, connect, quota, within):
        """A minute's requests may all be of its last second: they count until that is old enough."""
        count = RequestCount(connect(), "shop", quota)
        assert let_in(count) == 3
        later(conn, within)
        assert let_in(count) == 0
        later(conn, "1 minute")
        assert let_in(count) == 3

    def test_frees_minute_by_minute(self, conn, connect):
        count = RequestCount(connect(), "shop", Quota(per_hour=3))
        assert let_in(count, 2) == 2
        later(conn, "30 minutes")
        assert let_in(count) == 1
        later(conn, "31 minutes")
        assert let_in(count) == 2

    def test_day_holds_though_the_hour_is_free(self, conn, connect):
        count = RequestCount(connect(), "shop", Quota(per_hour=3, per_day=5))
        assert let_in(count) == 3
        later(conn, "2 hours")
        assert let_in(count) == 2

    @pytest.mark.drill("quota-used-up")
    def test_is_one_for_all_sessions(self, conn, connect):
        counts = [RequestCount(connect(), "shop", Quota(per_hour=15)) for _ in range(2)]
        with ThreadPoolExecutor(2) as executor:
            admitted = sum(executor.map(lambda count: let_in(count, 6), counts))
        assert admitted == spent(conn) == 12
        assert sum(let_in(count, 6) for count in counts) == 3

    def test_apis_have_their_own(self, connect):
        assert let_in(RequestCount(connect(), "shop", Quota(per_hour=3))) == 3
        assert let_in(RequestCount(connect(), "other", Quota(per_hour=3))) == 3

    @pytest.mark.drill("quota-used-up")
    def test_refusal_names_figures_connection_and_what_to_do(self, connect):
        count = RequestCount(connect(), "shop", Quota(per_hour=2))
        let_in(count)
        assert count.acquire() == (
            "2 requests within the last hour (limit 2), 2 within the last day (limit none). Run the task again later,"
            " or raise requests_per_hour or requests_per_day in the extra of connection 'shop' if the account allows"
            " more"
        )

    def test_what_is_old_goes(self, conn, connect):
        let_in(RequestCount(connect(), "shop", Quota(per_hour=3)))
        later(conn, "49 hours")
        RequestCount(connect(), "other", Quota(per_hour=3))
        assert spent(conn) == 3
        RequestCount(connect(), "shop", Quota(per_hour=3))
        assert spent(conn) == 0


def test_both_wait_only_for_those_that_the_quota_lets_in(connect, waits):
    both = Both(RequestCount(connect(), "shop", Quota(per_hour=2)), SharedLimit(connect(), "shop", per_minute=60))
    both.pause(30)
    assert let_in(both) == 2
    assert len(waits) == 2
    assert waits[0] == pytest.approx(30, abs=2)
