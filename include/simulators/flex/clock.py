"""The account's time: real, or standing still until told otherwise."""

import time
from datetime import UTC, datetime


class Clock:
    """The present, in whole seconds since 1970."""

    def __init__(self, start: str | None) -> None:
        """Stand still at `start`, or follow the real time where it is None.

        Raises ValueError for a text that is no instant with a time zone.
        """
        moment = None if start is None else datetime.fromisoformat(start)
        if moment is not None and moment.tzinfo is None:
            raise ValueError(f"{start!r} is no instant with a time zone")
        self._start = moment and int(moment.timestamp())
        self._ahead = 0

    def now(self) -> int:
        """The present instant."""
        return (int(time.time()) if self._start is None else self._start) + self._ahead

    def text(self) -> str:
        """The present instant, as 2026-11-04T18:00:00Z."""
        return f"{datetime.fromtimestamp(self.now(), UTC):%Y-%m-%dT%H:%M:%SZ}"

    def advance(self, seconds: int) -> None:
        """Put the clock forward."""
        self._ahead += seconds
