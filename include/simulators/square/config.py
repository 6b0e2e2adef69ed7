"""What a simulated seller is like: how much there is of everything, and where its clock stands."""

from dataclasses import dataclass
from typing import Literal

SIZES = ("locations", "categories", "items", "variations", "vendors", "orders", "line_items")


@dataclass(frozen=True)
class Config:
    """One seller. Seed, sizes and `now` are fixed; the rest can change while it runs.

    `orders` includes the return orders, which have no line items of their own; every variation has counts at
    every location, and every tender its payment.
    """

    seed: int = 1
    locations: int = 9
    """The last one of several is INACTIVE."""
    categories: int = 12
    items: int = 60
    variations: int = 70
    vendors: int = 8
    orders: int = 400
    line_items: int = 2_000
    now: str | None = "2026-01-05T12:00:00Z"
    """Where the clock stands still, but for `advance` and one second a call of `mutate`; None: the real time."""

    token: str = "demo-token"
    cursor_seconds: int = 900
    """How long a cursor is good for; every answer brings a new one."""
    latency_ms: int = 0

    # What the vendor's description leaves open; each value is a possible answer.
    deleted_object: Literal["not_found", "tombstone"] = "not_found"
    """What GET catalog/object/{id} answers for an object that is deleted."""
    own_counts: Literal["all", "in_stock"] = "all"
    """Counts of which states GET inventory/{id} shows."""
    uncounted: Literal["empty", "not_found"] = "empty"
    """What GET inventory/{id} answers where there is no count."""
    offline_payments_listed: bool = True
    """Whether the list of payments shows those taken offline if it isn't asked for them: `is_offline_payment` is
    false unless given, which may filter or not."""

    @classmethod
    def sized(cls, orders: int, **fields) -> "Config":
        """A seller with `orders` orders and everything else but locations in proportion, unless given in `fields`."""
        items = fields.get("items", max(1, orders // 35))
        proportions = {
            "categories": max(1, items // 25),
            "items": items,
            "variations": items + items * 2 // 13,
            "vendors": max(1, items // 30),
            "line_items": round(orders * 5.2363),
        }
        return cls(orders=orders, **(proportions | fields))
