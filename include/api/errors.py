"""Errors of an API, sorted by what to do about them.

Every message says what happened, where (name of the API, method and path) and what to do next. No message carries a
query value, a body or a token, since many people read the logs.
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
        """Whether any other request would fail too: it could not be sent, or the credentials are not accepted.

        A missing right (403) may concern one record or one list only.
        """
        return self.status in (None, 401)


class TryLater(ApiError):
    """There is no usable answer for now. What was asked for is unknown: neither present nor absent."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None):
        """`retry_after` is the wait in seconds that the server asked for, None where it named none."""
        super().__init__(message, status=status)
        self.retry_after = retry_after


class RefuseData(TryLater):
    """The answer is valid JSON, but doesn't fit the question.

    Examples: an error in place of data, another record, a list that contradicts its own totals. The client asks once
    more; if the answer still doesn't fit, what was asked for is unknown.
    """


class NotSent(TryLater):
    """The request was not sent, so it has had no effect."""


class NotFound(ApiError):
    """The API itself says that what was asked for does not exist. The absence is proven."""


class PaginationLoop(ApiError):
    """The pages of a list lead back to a page that was read before."""


class PageLimit(ApiError):
    """The list has more pages than the limit allows."""


class ListCapped(ApiError):
    """The list has reached the number of rows after which the API ends it. What it may have left out is unknown."""
