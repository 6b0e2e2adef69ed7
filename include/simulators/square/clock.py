"""The seller's time: real, or standing still until told otherwise; and how the vendor writes an instant."""

import time
from datetime import UTC, datetime, timedelta
from functools import cache

_DAY, _MINUTE = 86_400_000, 60_000
_MINUTE_TEXT = tuple(f"T{minute // 60:02}:{minute % 60:02}:" for minute in range(24 * 60))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@cache
def _day(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).date().isoformat()


def instant(milliseconds: int) -> str:
    """Milliseconds since 1970 as the vendor writes an instant: `2026-03-02T18:04:10.512Z`."""
    rest = milliseconds % _DAY
    within = rest % _MINUTE
    return f"{_day(milliseconds // _DAY)}{_MINUTE_TEXT[rest // _MINUTE]}{within // 1_000:02}.{within % 1_000:03}Z"


def microseconds(text: str) -> int:
    """Return the microseconds since 1970 of an RFC 3339 time. Raises ValueError for any other text."""
    moment = datetime.fromisoformat(text)
    if "T" not in text.upper() or moment.tzinfo is None:
        raise ValueError(f"{text!r} is no instant with a time zone")
    elapsed = moment - _EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds


def milliseconds(text: str) -> int:
    """Milliseconds since 1970 of an instant in RFC 3339, rounded down. Raises ValueError for any other text."""
    return microseconds(text) // 1_000


class Clock:
    """The present, in milliseconds since 1970."""

    def __init__(self, start: str | None) -> None:
        """Stand still at `start`, or follow the real time where it is None."""
        self._start = None if start is None else milliseconds(start)
        self._ahead = 0

    def now(self) -> int:
        """The present instant."""
        return (round(time.time() * 1_000) if self._start is None else self._start) + self._ahead

    def text(self) -> str:
        """The present instant, as the vendor writes it."""
        return instant(self.now())

    def advance(self, seconds: float) -> None:
        """Put the clock forward."""
        self._ahead += round(seconds * 1_000)

    def step(self) -> int:
        """The instant of the next change: a second later, where the clock stands still."""
        if self._start is not None:
            self.advance(1)
        return self.now()
