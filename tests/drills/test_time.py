"""Clocks that are wrong, go forward or back, and a day that is there every four years."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from include.sources.mirror import extract, watermarks
from include.sources.tekmetric.lists import day_of
from include.sources.tekmetric.shops import Shop
from tests.contract.account import Run
from tests.contract.test_contract import planned, written

ZONES = ("America/New_York", "America/Chicago", "America/Denver", "America/Phoenix", "America/Los_Angeles")
# The days around each change of a year's clocks in the United States, and around 29 February.
CHANGES = [datetime(2026, 3, 8, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)]
LEAP = datetime(2028, 2, 29, tzinfo=UTC)


@pytest.fixture
def source() -> str:
    """The mirror whose watermarks come from the clock of the source's answers."""
    return "repairshopr"


def clock(offset: timedelta) -> type[datetime]:
    """A clock that is off by so much."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + offset

    return Wrong


@pytest.mark.drill("clock-off")
@pytest.mark.parametrize("minutes", [-10, 10])
def test_our_clock_is_ten_minutes_off(filled: Run, conn, monkeypatch, minutes):
    for module in (extract, watermarks):
        monkeypatch.setattr(module, "datetime", clock(timedelta(minutes=minutes)))
    for _ in range(2):
        filled.account.change()
        assert written(filled.sync().counts) > 0
    ahead = "SELECT max(watermark) <= now() + interval '1 minute' FROM confidence.sync_state"
    assert conn.execute(ahead).fetchone() == (True,)
    assert sum(map(planned, filled.scan())) == 0
    filled.resume()
    # What changes once the clock is right again is brought, too.
    monkeypatch.undo()
    filled.account.change()
    assert written(filled.sync().counts) > 0
    assert sum(map(planned, filled.scan())) == 0


@pytest.mark.drill("daylight-saving", "leap-day")
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("around", [*CHANGES, LEAP], ids=lambda day: f"{day:%Y-%m-%d}")
def test_each_quarter_of_an_hour_is_of_the_shops_day(postgres, zone, around):
    """As Postgres has it, which the checks of the copy ask."""
    shop = Shop(1, "a shop", zone)
    moments = [around + timedelta(minutes=15 * number) for number in range(-96, 192)]
    days = [day_of(shop, moment.isoformat()) for moment in moments]
    with psycopg.connect(postgres.url("postgres")) as conn:
        query = "SELECT (m AT TIME ZONE %s)::date FROM unnest(%s::timestamptz[]) WITH ORDINALITY u(m, n) ORDER BY n"
        assert days == [day for (day,) in conn.execute(query, [zone, moments])]
    assert days == sorted(days)
