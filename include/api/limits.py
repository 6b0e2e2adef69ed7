"""Rate limits, as the client asks them before each request."""

import time
from typing import Protocol


class OutOfTime(Exception):
    """The time in which requests may be sent is over. No error of the API: what was read so far says nothing."""


class Limiter(Protocol):
    """A rate limit that all users of one API share."""

    def acquire(self) -> str | None:
        """Block until one request may be sent. Return why none may be sent for long, in one line; None if it may."""

    def pause(self, seconds: float) -> None:
        """Make every user wait, since the server has asked for it."""


class NoLimit:
    """For an API without a limit."""

    def acquire(self) -> None:
        """Return at once."""

    def pause(self, seconds: float) -> None:
        """Do nothing: there are no other users, and the one who was refused waits by itself."""


class Until:
    """A limit under which no request is sent after a time of the monotonic clock.

    `acquire` raises OutOfTime then. Whoever reads the API takes that for no answer, and ends.
    """

    def __init__(self, limiter: Limiter, end: float):
        self._limiter, self._end = limiter, end

    def acquire(self) -> str | None:
        refusal = self._limiter.acquire()
        if time.monotonic() > self._end:
            raise OutOfTime
        return refusal

    def pause(self, seconds: float) -> None:
        self._limiter.pause(seconds)
