"""Errors of an API, sorted by what to do about them.

Every message says what happened, where (name of the API, method and path) and what to do next. None of them
carries a query value, a body or a token: they end up in logs that many people read.
"""


class ApiError(Exception):
    """Anything that keeps an API from giving a usable answer."""

    def __init__(self, message: str, *, status: int | None = None):
        """`status` is that of the answer, None where none came or another layer judged it."""
        super().__init__(message)
        self.status = status


class FixConfiguration(ApiError):
    """The request or its credentials are wrong. Asking again changes nothing until a person has acted."""

    @property
    def concerns_all(self) -> bool:
        """Whether any other request would fail too: no status, or credentials that are not accepted.

        A right may lack for one record or one list alone.
        """
        return self.status in (None, 401)


class TryLater(ApiError):
    """No usable answer for now: whatever was asked for is unknown, neither present nor absent."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None):
        """`retry_after` is the wait in seconds that the server asked for, None where it named none."""
        super().__init__(message, status=status)
        self.retry_after = retry_after


class RefuseData(TryLater):
    """The answer is sound JSON, but no answer to what was asked: an error in place of data, another record, a list
    that contradicts its own totals. It is asked for once more; then what was asked for is unknown.
    """


class NotSent(TryLater):
    """The request never went out: nothing can have come of it."""


class NotFound(ApiError):
    """The API itself says that what was asked for does not exist: absence is proven."""


class PaginationLoop(ApiError):
    """The feed led back to a page that it had given before."""


class PageLimit(ApiError):
    """The feed goes on past the hard limit of pages."""
