"""An account's time, in whole seconds since 1970: real, or standing still until told otherwise."""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(seconds: int) -> str:
    """Seconds since 1970 as vendors write an instant: `2026-03-02T18:04:10Z`. Such texts sort by time."""
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def seconds_of(text: str) -> float:
    """Seconds since 1970 of an instant with any offset. Raises ValueError for any other text."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} is no instant with a time zone")
    return (moment - _EPOCH).total_seconds()


class Clock:
    """The present."""

    def __init__(self, start: str | None) -> None:
        """Stand still at `start`, or follow the real time where it is None."""
        self._start = None if start is None else int(seconds_of(start))
        self._ahead = 0

    def now(self) -> int:
        """The present instant."""
        return (int(time.time()) if self._start is None else self._start) + self._ahead

    def text(self) -> str:
        """The present instant, as it is written."""
        return instant(self.now())

    def advance(self, seconds: float) -> None:
        """Put the clock forward."""
        self._ahead += int(seconds)

    def step(self) -> int:
        """The instant of the next change: a second later, where the clock stands still."""
        if self._start is not None:
            self.advance(1)
        return self.now()
