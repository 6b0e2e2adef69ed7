"""Misbehaviour and changes to order, and which request they strike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from include.simulators.orders import Order
from include.simulators.tekmetric.changes import Mutation


@dataclass(frozen=True, kw_only=True)
class Strike(Order):
    """A request matches by its path below /api (`repair-order/880123/estimate`; in a pattern `*` is anything, be it
    with slashes) and by all of `params` being among its query parameters.
    """

    path: str = "*"
    params: Mapping[str, str] = field(default_factory=dict)

    def matches(self, path: str, query: Mapping[str, str]) -> bool:
        return fnmatchcase(path, self.path) and self.params.items() <= query.items()


@dataclass(frozen=True)
class Fault(Strike):
    """What the client gets instead of its answer.

    - `status`: that `status` with the vendor's body, or with one in `html`, and with Retry-After, in seconds, if
      given; HTML with 200 is `status=200, html=True`
    - `drop`: ends the connection before an answer
    - `cut`: ends the connection in the middle of the body
    - `hang`: no answer until the client has gone; one that waits `seconds` gets a 504
    - `broken_json`: half a document, whole as far as HTTP knows
    """

    kind: Literal["status", "drop", "cut", "hang", "broken_json"]
    status: int = 500
    html: bool = False
    retry_after: int | None = None
    seconds: float = 600


@dataclass(frozen=True)
class Trigger(Strike):
    """Changes to carry out before a request is answered."""

    mutations: tuple[Mutation, ...]
