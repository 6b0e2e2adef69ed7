"""What a simulated account is like: how much is there from the start, its business roles, and its habits."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

SIZES = ("elements", "crew")
ROLES = (
    UUID("6b1e3f0a-2c54-4d5b-9a10-5f0c7e1d0001"),
    UUID("6b1e3f0a-2c54-4d5b-9a10-5f0c7e1d0002"),
    UUID("6b1e3f0a-2c54-4d5b-9a10-5f0c7e1d0003"),
)

Tell = Literal["whole", "types", "ids"]
Headers = Literal["leaf", "open", "closed"]


@dataclass(frozen=True)
class Config:
    """One account. Seed, sizes and `now` are fixed; the rest can change while it runs."""

    seed: int = 1
    elements: int = 3
    """Crew calls that are there from the start."""
    crew: int = 4
    """Contacts on each of them."""
    now: str | None = "2026-11-04T18:00:00Z"
    """Where the clock stands still, but for `advance`; None: the real time."""

    roles: tuple[UUID, ...] = ROLES
    """The business roles that a contact can have."""
    token: str = "demo-token"
    refreshed_token: str = ""
    """If given, every answer hands it out (X-Auth-Token-Refreshed), and it is let in beside `token`."""
    latency_ms: int = 0
    per_hour: int | None = 2_000
    """Requests that are let in within an hour of the clock; None: any number."""
    per_day: int | None = 10_000
    gone: Literal["404", "page", "405", "410", "null", "empty"] = "404"
    """What the address of a line that isn't there answers: 404, 404 with an HTML page, another refusal, or 200 with
    null or an empty object."""
    records: Tell | None = None
    """What a crew call's own record tells of the lines on it beside their ids: type and resource, the type, nothing;
    None: one line this, another that."""
    headers: Headers = "leaf"
    """What rows and records show of a header: an empty one is a leaf; it is none (`open`); no header is one, and what
    lies under it is not shown (`closed`)."""
    bulk_delete: Literal["lineItemIds", "lineItemId", "ids"] | None = None
    """The parameter by which several lines are deleted at once; None: they can't be."""
