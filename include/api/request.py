"""A request to an API, and its answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """One request; as text it is method and path alone, since that ends up in logs.

    `path` is relative to the client's base URL. A list among `params` repeats its key. `body` is sent as JSON.
    `idempotent`: False for a request that is sent once only; after a failure its outcome is unknown.
    `owed`: True sends the request even if a quota is used up, since only its answer tells what an earlier one did.
    `check` is called with the data of the answer, and raises RefuseData if they don't fit the question.
    """

    path: str
    params: Mapping[str, str | int | list] = field(default_factory=dict, repr=False)
    method: str = "GET"
    body: Any = field(default=None, repr=False)
    idempotent: bool = True
    owed: bool = False
    check: Callable[[Any], object] | None = field(default=None, repr=False, compare=False)

    @property
    def param_names(self) -> set[str]:
        """The names of all parameters, in the query and in the body."""
        return _names(self.params) | _names(self.body)

    def __str__(self) -> str:
        return f"{self.method} /{urlsplit(self.path).path.lstrip('/')}"


def _names(value: Any) -> set[str]:
    """Return the names in params or a body, those in its objects too."""
    if isinstance(value, Mapping):
        return set(value).union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list | tuple) else set()


@dataclass(frozen=True)
class Answer:
    """The decoded JSON of a 2xx answer (None for 204), its numbers int or Decimal.

    `date` is the server's clock in UTC, None if the answer names no time. `headers` ignore case. `status` is HTTP's.
    """

    data: Any
    date: datetime | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
