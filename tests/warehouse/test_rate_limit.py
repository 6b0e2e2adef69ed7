"""The shared rate limit: its only state is one row, so it holds over threads, sessions and machines."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from include.warehouse import rate_limit
from include.warehouse.rate_limit import SharedLimit


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
