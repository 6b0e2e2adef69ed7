"""What a simulated account is like: its size, its rights, and the habits that nobody documents."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RESOURCES = ("customers", "invoices", "line_items", "payments", "products", "tickets", "estimates")
SINGULAR = {name: name.removesuffix("s") for name in RESOURCES}
PAGE_SIZES = {
    "customers": 100,
    "invoices": 25,
    "line_items": 100,
    "payments": 25,
    "products": 20,
    "tickets": 50,
    "estimates": 50,
}

RetryAfter = Literal["absent", "seconds", "date"]
Sort = Literal["id_asc", "id_desc", "updated_at_desc", "unstable"]


@dataclass(frozen=True)
class Config:
    """One account. Seed and sizes (rows per resource) fix the data; the rest can change while it runs."""

    seed: int = 1
    customers: int = 100
    invoices: int = 400
    line_items: int = 1_300
    payments: int = 300
    products: int = 60
    tickets: int = 200
    estimates: int = 40

    token: str = "demo-token"
    global_admin: bool = True
    """Whether the token may read /line_items."""
    missing_right_status: Literal[401, 403] = 403
    rate_limit: int | None = 180
    """Requests in any 60 seconds; None lifts the limit."""
    retry_after: RetryAfter = "absent"
    """How a 429 of the rate limit says when to come again."""
    latency_ms: int = 0
    sort: Sort = "id_asc"
    """The order of lists that ask for none."""
    page_sizes: Mapping[str, int] = field(default_factory=dict)
    """Rows a page by resource, where it differs from the vendor's."""
    line_edit_bumps_parent: bool = True
    """Whether writing a line changes the `updated_at` of its invoice or estimate."""
    invoice_delete_fails: bool = False
    """DELETE /invoices/{id} answers 200 either way; with this it deletes nothing."""
    disabled_products_listed: bool = True
    """Whether the list of products shows disabled ones; that of customers does if it is asked for them."""
    past_end: Literal["empty", "last", "first"] = "empty"
    """Which page a list shows past its end."""

    @classmethod
    def sized(cls, invoices: int, **fields) -> "Config":
        """A shop with `invoices` invoices and everything else in proportion, unless given in `fields`."""
        estimates = fields.get("estimates", invoices // 10)
        proportions = {
            "customers": invoices // 4,
            "line_items": 3 * (invoices + estimates),
            "payments": invoices * 3 // 4,
            "products": max(1, invoices // 10),
            "tickets": invoices // 2,
            "estimates": estimates,
        }
        return cls(invoices=invoices, **(proportions | fields))

    def sizes(self) -> dict[str, int]:
        """Rows per resource at the start."""
        return {name: getattr(self, name) for name in RESOURCES}

    def page_size(self, resource: str) -> int:
        """Rows on a full page of a resource's list."""
        return self.page_sizes.get(resource, PAGE_SIZES[resource])
