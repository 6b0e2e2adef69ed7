"""What a simulated account is like: its shops, how much there is of everything, and where its clock stands."""

from dataclasses import dataclass
from typing import Literal

SIZES = ("orders", "customers", "employees", "days")


@dataclass(frozen=True)
class Shop:
    """One shop, as the connection's extra names it too."""

    tm_id: int
    name: str
    timezone: str


SHOPS = (Shop(6212, "JJ AUTO", "America/New_York"), Shop(7301, "Desert Auto", "America/Phoenix"))


@dataclass(frozen=True)
class Config:
    """One account. Seed, shops, sizes and `now` are fixed; the rest can change while it runs."""

    seed: int = 1
    shops: tuple[Shop, ...] = SHOPS
    orders: int = 120
    """In all shops together, as are the customers."""
    customers: int = 30
    employees: int = 7
    """In each shop."""
    days: int = 270
    """How far back the history of orders reaches."""
    now: str | None = "2026-11-04T18:00:00Z"
    """Where the clock stands still, but for `advance` and one second a call of `mutate`; None: the real time."""

    token: str = "demo-token"
    """No request is let in while it is empty."""
    latency_ms: int = 0
    board_limit: int = 27
    """How many orders a board shows at most: those that changed last."""
    column_limit: int | None = None
    """The same of the board ACTIVE in columns; None: all of them."""
    board_size: int = 500
    """The largest page of a board."""
    list_size: int = 100
    """The largest page of anything else."""
    wrapped_boards: bool = False
    """Boards come as `{"content": [...]}`."""
    shuffled_pages: bool = False
    """Each page of a list of customers or vehicles is cut from another order of them."""
    next_keys: Literal["text", "list"] = "text"
    """The form of `nextKeys`. A list comes back as a parameter for each of its items, or as JSON."""

    @classmethod
    def sized(cls, orders: int, **fields) -> "Config":
        """An account with `orders` orders, and a customer for every four unless given in `fields`."""
        return cls(orders=orders, **({"customers": max(1, orders // 4)} | fields))
