"""Rate limits, as the client asks them before each request."""

from typing import Protocol


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
